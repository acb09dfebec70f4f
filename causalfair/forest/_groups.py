"""Average effects of groups formed by a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_lengths, check_numeric
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.forest._origin import origin_of
from causalfair.forest._rate import check_origin, cluster_of_units, weights_of_units
from causalfair.inference import InfluenceEstimates

__all__ = ["GroupEffects", "group_average_effects"]

OWNER = "group_average_effects"
SOURCES = ("other_data", "out_of_bag")


@dataclass(frozen=True)
class GroupEffects:
    """Average effects of groups from lowest to highest priority.

    Attributes
    ----------
    estimates_ : Estimates
        One term a group and ``highest - lowest``, jointly.
    predicted : ndarray of shape (n_groups,)
        Mean priority of each group: the effect that was predicted, if the priority is one.
    size : ndarray of shape (n_groups,)
        Units in each group.
    group : ndarray of shape (n,)
        Group of each unit from 0; -1 for units that were not ranked.
    priority_from : str
        ``"other_data"`` or ``"out_of_bag"``.
    """

    _citations: ClassVar[tuple[str, ...]] = ("chernozhukov2017generic",)

    estimates_: Any
    predicted: FloatArray
    size: IntArray
    group: IntArray
    priority_from: str

    def to_frame(self, level: float = 0.95) -> Any:
        """Tidy table.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        pandas.DataFrame
            The usual columns with ``predicted`` and ``n``; the last row is the difference.
        """
        frame = self.estimates_.to_frame(level)
        frame["predicted"] = [*self.predicted, self.predicted[-1] - self.predicted[0]]
        frame["n"] = [*self.size, self.size[0] + self.size[-1]]
        return frame

    def summary(self, level: float = 0.95) -> Any:
        """Printable table.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table
        from causalfair.reporting.format import format_estimate, format_number, format_p

        rows = []
        for row in self.to_frame(level).itertuples():
            cells = format_estimate(row.estimate, row.std_error, row.conf_low, row.conf_high)
            rows.append([row.term, f"{row.n:,}", format_number(row.predicted), cells.estimate,
                         cells.std_error, cells.interval, format_p(row.p_value)])  # fmt: skip
        columns = ["group", "n", "predicted", "effect", "std. error", f"{level:.0%} interval", "p"]
        note = "Valid if the ranking was learned on other data than the scores."
        if self.priority_from == "out_of_bag":
            note = (
                "Ranking and scores share their rows (out of bag): a heuristic, differences are "
                "somewhat too clear."
            )
        return Summary(
            "Average effects of groups by priority",
            [("units", f"{int(self.size.sum()):,}"), ("groups", f"{self.size.size}")],
            [Table(columns, rows, None, "lrrrrrr")],
            ["Groups need not rise: nothing makes them.", note],
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def cite(self) -> Any:
        """References.

        Returns
        -------
        causalfair.reporting.Citations
            Prints as text.
        """
        from causalfair.reporting import Citations

        return Citations((*self._citations, "causalfair"))

    def plot(self, kind: str = "groups", *, ax: Any = None, level: float = 0.95) -> Any:
        """Draw the effect of each group with its interval.

        Parameters
        ----------
        kind : {"groups", "calibration"}, default "groups"
            Groups side by side, or estimated against predicted effects, where a good model is on
            the diagonal.
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        level : float, default 0.95
            Level of the intervals.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.

        Raises
        ------
        ParameterError
            Another kind.
        """
        from causalfair.forest._plots import calibration_plot, groups_plot

        if kind not in ("groups", "calibration"):
            raise ParameterError(
                f"GroupEffects.plot got kind={kind!r}; use 'groups' or 'calibration'."
            )
        draw = groups_plot if kind == "groups" else calibration_plot
        return draw(self, ax=ax, level=level)


def group_average_effects(
    priority: Any,
    scores: Any,
    *,
    n_groups: int = 5,
    fold: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    priority_from: str = "other_data",
) -> GroupEffects:
    """Average effects of groups of units ranked by a priority, such as a predicted effect.

    Parameters
    ----------
    priority : array of shape (n_samples,)
        Higher means: treat first. NaN for units that are not to be ranked.
    scores : array of shape (n_samples,)
        Doubly robust scores.
    n_groups : int, default 5
        Groups of equal (weighted) size; units with equal priorities stay together.
    fold : array of shape (n_samples,), optional
        Priorities of different folds come from different models: units are ranked within folds.
        Folds with a ranking too flat for groups are left out, with a warning.
    cluster : array of shape (n_samples,), optional
        Clusters.
    sample_weight : array of shape (n_samples,), optional
        Sampling weights.
    priority_from : {"other_data", "out_of_bag"}, default "other_data"
        Whether the priorities were learned on other data than the scores. ``"out_of_bag"`` accepts
        those of the model that made the scores, as a heuristic.

    Returns
    -------
    GroupEffects
        Effects of the groups, and of the highest less the lowest.

    Raises
    ------
    DataError
        Lengths differ, or the priority has too few distinct values.
    ParameterError
        Fewer than two groups; priorities and scores of the same model and rows.

    References
    ----------
    .. [1] V. Chernozhukov, M. Demirer, E. Duflo and I. Fernandez-Val (2017). Generic machine
       learning inference on heterogenous treatment effects in randomized experiments, section 2
       (sorted group average treatment effects). arXiv:1712.04802

    Examples
    --------
    >>> from causalfair.forest import group_average_effects
    >>> groups = group_average_effects([1, 2, 3, 4.0], [1, 3, 5, 6.0], n_groups=2)
    >>> groups.estimates_.estimate.tolist()
    [2.0, 5.5, 3.5]
    """
    if not isinstance(n_groups, int | np.integer) or n_groups < 2:
        raise ParameterError(f"{OWNER}: n_groups={n_groups!r} must be 2 or more.")
    if priority_from not in SOURCES:
        raise ParameterError(
            f"{OWNER}: priority_from={priority_from!r} is not one of "
            f"{', '.join(map(repr, SOURCES))}."
        )
    check_origin(origin_of(priority), origin_of(scores), priority_from, OWNER)
    gamma = check_numeric(scores, "scores", owner=OWNER)
    rank_by = np.asarray(priority, dtype=np.float64)
    if rank_by.ndim != 1:
        raise DataError(
            f"{OWNER}: priority has shape {rank_by.shape}; give a one-dimensional array."
        )
    folds = np.zeros(gamma.size, dtype=np.intp)
    if fold is not None:
        folds = np.unique(np.asarray(fold), return_inverse=True)[1].ravel()
    check_lengths(owner=OWNER, scores=gamma, priority=rank_by, fold=folds)
    weight = weights_of_units(sample_weight, gamma, OWNER)
    group = _groups(rank_by, weight, folds, int(n_groups))
    keep = group >= 0
    codes = None if cluster is None else cluster_of_units(cluster, gamma, OWNER)
    if codes is not None:
        codes = np.unique(codes[keep], return_inverse=True)[1]
    estimates = _estimate(group[keep], gamma[keep], weight[keep], codes, int(n_groups))
    predicted = [np.average(rank_by[group == g], weights=weight[group == g] + 1e-300)
                 for g in range(n_groups)]  # fmt: skip
    size = np.bincount(group[keep], minlength=n_groups)
    return GroupEffects(estimates, np.array(predicted), size, group, priority_from)


def _groups(priority: FloatArray, weight: FloatArray, folds: IntArray, count: int) -> IntArray:
    """Group of each unit within its fold; -1 where it has none."""
    group = np.full(priority.size, -1, dtype=np.intp)
    ranked = ~np.isnan(priority)
    flat = 0
    every = np.unique(folds[ranked])
    for f in every:
        rows = np.flatnonzero(ranked & (folds == f))
        found = divide(priority[rows], weight[rows], count)
        if np.unique(found).size < count:
            flat += 1
            continue
        group[rows] = found
    if flat == every.size:
        distinct = np.unique(priority[ranked]).size
        raise DataError(
            f"{OWNER}: {distinct} distinct priorities make no {count} groups; use fewer groups."
        )
    if flat:
        warn(
            f"{OWNER}: {flat} of {every.size} folds have a ranking too flat for {count} groups and "
            "are left out.",
            CausalFairWarning,
        )
    return group


def divide(priority: FloatArray, weight: FloatArray, count: int) -> IntArray:
    """Groups of equal weight by priority; units with equal priorities are not parted."""
    levels, code = np.unique(priority, return_inverse=True)
    size = np.bincount(code.ravel(), weights=weight, minlength=levels.size)
    middle = (np.cumsum(size) - size / 2) / size.sum()
    group = np.minimum((middle * count).astype(np.intp), count - 1)
    return np.asarray(group[code.ravel()])


def _estimate(
    group: IntArray, gamma: FloatArray, weight: FloatArray, cluster: Any, count: int
) -> Any:
    member = group[:, None] == np.arange(count)
    share = np.average(member, axis=0, weights=weight)
    if (share == 0).any():
        raise DataError(f"{OWNER}: a group has no weight; use fewer groups.")
    mean = np.average(member * gamma[:, None], axis=0, weights=weight) / share
    influence = member / share * (gamma[:, None] - mean)
    names = [f"group {g + 1}" for g in range(count)]
    levels = InfluenceEstimates(
        mean, influence, names, cluster=cluster, sample_weight=weight / weight.mean(),
        small_sample=cluster is None,
    )  # fmt: skip
    rows = np.vstack([np.eye(count), np.eye(count)[-1] - np.eye(count)[0]])
    return levels.transform(lambda t: rows @ t, [*names, "highest - lowest"], jac=lambda _: rows)
