"""What many sample splits say of heterogeneity, whatever the learner (generic machine learning)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from causalfair._core.learners import default_regressor, fit_learner, predict_learner
from causalfair._core.logging import progress, warn
from causalfair._core.random import child_seed, root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_lengths, check_level
from causalfair.exceptions import CausalFairWarning, IdentificationError, ParameterError
from causalfair.forest._base import Problem
from causalfair.forest._calibration import numeric_columns
from causalfair.forest._groups import divide
from causalfair.forest._ranking import Work
from causalfair.forest._regression import least_squares

__all__ = ["GenericInference", "generic_inference"]

OWNER = "generic_inference"
SPREAD = "heterogeneity (spread)"


@dataclass(frozen=True)
class GenericInference:
    """Medians over sample splits.

    Attributes
    ----------
    projection : pandas.DataFrame
        ``ATE`` and ``heterogeneity (spread)``: the coefficient of the predicted effect, above zero
        if the learner found heterogeneity, one if it has its spread right.
    groups : pandas.DataFrame
        Average effect of each group by predicted effect, and of the highest less the lowest.
    characteristics : pandas.DataFrame or None
        Mean of each characteristic in the highest less the lowest group.
    n_splits : int
        Splits behind the medians.
    n_flat : int
        Splits in which the learner predicted one effect for all; they count for the ATE only.
    level : float
        Level of the intervals, splits included.

    Notes
    -----
    Columns ``term, estimate, p_value, conf_low, conf_high``. Intervals are medians of intervals of
    half the error, and p-values twice the median: valid for the uncertainty of the split too.
    """

    _citations: ClassVar[tuple[str, ...]] = ("chernozhukov2017generic",)

    projection: Any
    groups: Any
    characteristics: Any
    n_splits: int
    n_flat: int
    level: float

    def to_frame(self) -> Any:
        """All rows, with the part they belong to.

        Returns
        -------
        pandas.DataFrame
            Column ``part`` and those of the tables.
        """
        import pandas as pd

        parts = {"projection": self.projection, "groups": self.groups,
                 "characteristics": self.characteristics}  # fmt: skip
        return pd.concat(
            [t.assign(part=name) for name, t in parts.items() if t is not None], ignore_index=True
        )

    def summary(self) -> Any:
        """Printable tables.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table
        from causalfair.reporting.format import format_estimate, format_p

        def table(frame: Any, title: str) -> Any:
            rows = []
            for row in frame.itertuples():
                width = (row.conf_high - row.conf_low) / 4.0
                cells = format_estimate(row.estimate, width, row.conf_low, row.conf_high)
                rows.append([row.term, cells.estimate, cells.interval, format_p(row.p_value)])
            return Table(["", "estimate", f"{self.level:.0%} interval", "p"], rows, title, "lrrr")

        tables = [table(self.projection, "Projection on the predicted effect"),
                  table(self.groups, "Groups by predicted effect")]  # fmt: skip
        if self.characteristics is not None:
            tables.append(table(self.characteristics, "Characteristics, highest less lowest"))
        notes = [
            f"Medians over {self.n_splits} halves; p-values and intervals allow for the split."
        ]
        if self.n_flat:
            notes.append(f"In {self.n_flat} splits one effect was predicted for all.")
        return Summary(
            "Heterogeneity over many sample splits", [("splits", f"{self.n_splits}")], tables, notes
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

    def plot(self, *, ax: Any = None) -> Any:
        """Group effects with their intervals, and the average effect as a line.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.forest._plots import legend_above
        from causalfair.reporting.plot import new_axes

        ax = new_axes(ax)
        rows = self.groups.iloc[:-1]
        at = np.arange(1, len(rows) + 1)
        half = np.abs(rows[["conf_low", "conf_high"]].to_numpy().T - rows["estimate"].to_numpy())
        ate = self.projection.iloc[0]
        ax.axhspan(ate["conf_low"], ate["conf_high"], color="0.9", zorder=0)
        ax.axhline(ate["estimate"], color="0.55", linewidth=1.0, label="average effect")
        ax.errorbar(at, rows["estimate"], half, fmt="o", color="C0", linewidth=2,
                    label=f"group, {self.level:.0%} interval")  # fmt: skip
        ax.set_xticks(at)
        ax.set_xlabel("group, lowest to highest predicted effect")
        ax.set_ylabel("average effect")
        ax.spines[["top", "right"]].set_visible(False)
        legend_above(ax)
        return ax


def generic_inference(
    model: Any,
    X: Any,
    y: Any,
    *,
    treatment: Any,
    nuisances: Any = None,
    covariates: Any = None,
    effect_modifiers: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    characteristics: Any = None,
    n_splits: int = 100,
    n_groups: int = 5,
    level: float = 0.95,
    random_state: Any = None,
) -> GenericInference:
    """Learn effects on one half, test them on the other, and take medians over many halves.

    Parameters
    ----------
    model : effect model
        Any of :mod:`causalfair.forest`; cloned for every split.
    X : frame or array of shape (n_samples, n_features)
        Covariates.
    y : array of shape (n_samples,) or str
        Outcome.
    treatment : array of shape (n_samples,) or str
        Binary treatment, randomised.
    nuisances : mapping, optional
        ``"propensity"``: the known probability of treatment; the observed share when not given.
    covariates : "all", list of str or formula, optional
        As for ``model.fit``.
    effect_modifiers : list of str, optional
        As for ``model.fit``.
    cluster : array, str or list of str, optional
        Clusters; halves never part them, and errors are clustered.
    sample_weight : array of shape (n_samples,) or str, optional
        Sampling weights.
    characteristics : frame or array of shape (n_samples, k), optional
        What to compare between the highest and the lowest group, such as land cover.
    n_splits : int, default 100
        Random halves.
    n_groups : int, default 5
        Groups by predicted effect.
    level : float, default 0.95
        Level of the intervals.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    GenericInference
        Projection, group effects and characteristics.

    Raises
    ------
    DataError
        Characteristics that do not fit the rows.
    IdentificationError
        The treatment does not vary, or the learner predicts one effect for all in every split.
    ParameterError
        Numbers of splits or groups that make no sense.

    Notes
    -----
    On the half that did not train, weighted by ``1 / (p (1 - p))``, the outcome is regressed on a
    constant, predictions of the untreated outcome and of the effect S, and ``W - p`` alone and
    times ``S`` less its mean (projection), or times indicators of the groups. Errors are HC3, or
    clustered. Costs one fit of the model and one regression a split.

    References
    ----------
    .. [1] V. Chernozhukov, M. Demirer, E. Duflo and I. Fernandez-Val (2017). Generic machine
       learning inference on heterogenous treatment effects in randomized experiments, eq. 3.1, 3.5
       and section 4. arXiv:1712.04802

    Examples
    --------
    >>> from causalfair.datasets import make_heterogeneous_effects
    >>> from causalfair.forest import CausalForest, generic_inference
    >>> frame, _ = make_heterogeneous_effects(400, setup="B", random_state=0)
    >>> result = generic_inference(
    ...     CausalForest(60), frame, "y", treatment="treatment", covariates="all",
    ...     nuisances={"propensity": 0.5}, n_splits=5, random_state=0)
    >>> result.projection["term"].tolist()
    ['ATE', 'heterogeneity (spread)']
    """
    for name, value, least in (("n_splits", n_splits, 2), ("n_groups", n_groups, 2)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ParameterError(f"{OWNER}: {name}={value!r} must be {least} or more.")
    check_level(level)
    problem = Problem(
        X, y, owner=OWNER, treatment=treatment, nuisances=nuisances, binary_only=True,
        allow_nan=True, covariates=covariates, effect_modifiers=effect_modifiers, cluster=cluster,
        sample_weight=sample_weight,
    )  # fmt: skip
    traits, labels = np.empty((problem.n, 0)), list[str]()
    if characteristics is not None:
        traits, labels = numeric_columns(characteristics, OWNER)
        check_lengths(owner=OWNER, characteristics=traits, y=problem.y)
    work = Work(model, problem, "qini", 2, root_seed(random_state))
    found = [
        _split(work, split, traits, labels, int(n_groups), (1 + level) / 2)
        for split in progress(range(n_splits), "splits")
    ]
    return _medians(found, level)


@dataclass(frozen=True)
class _Found:
    """Estimates, interval ends and p-values of one split; None where nothing was ranked."""

    average: Any
    projection: Any
    groups: Any
    traits: Any


def _split(
    work: Work, split: int, traits: FloatArray, labels: list[str], count: int, level: float
) -> _Found:
    problem = work.problem
    folds = work.folds(2, split)
    train, test = np.flatnonzero(folds == 0), np.flatnonzero(folds == 1)
    work.check(test)
    predicted = work.fitted(train, split, 2, scores=False).predict(
        problem.data.covariates.iloc[test]
    )
    half = _Half.of(problem, test, _untreated_outcome(work, train, test, split), predicted)
    if np.ptp(half.effect) <= 1e-12 * max(1.0, np.abs(half.effect).max()):
        return _Found(_ends(half.average(), level), None, None, None)
    group = divide(half.effect, half.weight, count)
    if np.unique(group).size < count:
        return _Found(_ends(half.average(), level), None, None, None)
    fit = half.projection()
    trait = None if not labels else _ends(half.contrast(group, traits[test], labels), level)
    return _Found(
        _ends(fit["ATE"], level), _ends(fit[SPREAD], level),
        _ends(half.groups(group, count), level), trait,
    )  # fmt: skip


def _untreated_outcome(work: Work, train: IntArray, test: IntArray, split: int) -> FloatArray:
    """Predictions of the outcome without treatment, learned from the other half."""
    p = work.problem
    rows = train[p.w[train] == 0]
    X = p.data.covariates
    weight = None if p.weight is None else p.weight[rows]
    fitted = fit_learner(
        default_regressor(rows.size, X.shape[1]), X.iloc[rows], p.y[rows], sample_weight=weight,
        seed=child_seed(work.root, split, 5),
    )  # fmt: skip
    return predict_learner(fitted, X.iloc[test])


@dataclass(frozen=True)
class _Half:
    """The rows that did not train."""

    y: FloatArray
    step: FloatArray  # W - p
    baseline: FloatArray
    effect: FloatArray
    weight: FloatArray  # sampling weights over p (1 - p)
    sampling: FloatArray
    cluster: Any

    @classmethod
    def of(cls, problem: Problem, rows: IntArray, baseline: FloatArray, effect: Any) -> _Half:
        e = problem.given.get("propensity", np.full(problem.n, problem.w.mean()))[rows]
        sampling = np.ones(rows.size) if problem.weight is None else problem.weight[rows]
        cluster = problem.cluster
        if cluster is not None:
            cluster = np.unique(cluster[rows], return_inverse=True)[1]
        return cls(
            problem.y[rows], problem.w[rows] - e, baseline, np.asarray(effect, dtype=np.float64),
            sampling / (e * (1 - e)), sampling, cluster,
        )  # fmt: skip

    def _regress(self, columns: dict[str, FloatArray]) -> Any:
        controls = {"(intercept)": np.ones(self.y.size), "untreated outcome": self.baseline,
                    "predicted effect": self.effect}  # fmt: skip
        controls = {k: v for k, v in controls.items() if k == "(intercept)" or np.ptp(v) > 0}
        every = controls | columns
        fit = least_squares(
            np.column_stack(list(every.values())), self.y, list(every), cluster=self.cluster,
            sample_weight=self.weight / self.weight.mean(), owner=OWNER,
        )  # fmt: skip
        return fit[list(columns)]

    def average(self) -> Any:
        """ATE alone, where one effect was predicted for all."""
        return self._regress({"ATE": self.step})

    def projection(self) -> Any:
        """Best linear predictor of the effect by its prediction."""
        centred = self.effect - np.average(self.effect, weights=self.sampling)
        return self._regress({"ATE": self.step, SPREAD: self.step * centred})

    def groups(self, group: IntArray, count: int) -> Any:
        """Effects of the groups and of the highest less the lowest."""
        names = [f"group {g + 1}" for g in range(count)]
        fit = self._regress({name: self.step * (group == g) for g, name in enumerate(names)})
        rows = np.vstack([np.eye(count), np.eye(count)[-1] - np.eye(count)[0]])
        return fit.transform(lambda t: rows @ t, [*names, "highest - lowest"], jac=lambda _: rows)

    def contrast(self, group: IntArray, traits: FloatArray, labels: list[str]) -> list[Any]:
        """Means of characteristics in the highest less the lowest group."""
        ends = (group == 0) | (group == group.max())
        design = np.column_stack([np.ones(ends.sum()), group[ends] > 0]).astype(float)
        cluster = self.cluster
        if cluster is not None:
            cluster = np.unique(cluster[ends], return_inverse=True)[1]
        return [
            least_squares(
                design, column[ends], ["(intercept)", label], cluster=cluster,
                sample_weight=self.sampling[ends], owner=OWNER,
            )[label]
            for label, column in zip(labels, traits.T, strict=True)
        ]  # fmt: skip


def _ends(estimates: Any, level: float) -> Any:
    """Columns term, estimate, conf_low, conf_high, p_value of some estimates."""
    import pandas as pd

    parts = estimates if isinstance(estimates, list) else [estimates]
    frames = [part.to_frame(level) for part in parts]
    return pd.concat(frames, ignore_index=True)[
        ["term", "estimate", "conf_low", "conf_high", "p_value"]
    ]


def _medians(found: list[_Found], level: float) -> GenericInference:
    flat = sum(split.projection is None for split in found)
    if flat == len(found):
        raise IdentificationError(
            f"{OWNER}: the model predicts one effect for all in every split; there is nothing to "
            "test. Use a smaller min_leaf_size, a ridge learner, or more data."
        )
    if flat:
        warn(
            f"{OWNER}: in {flat} of {len(found)} splits the model predicts one effect for all, or "
            "too few values for the groups; they count for the average only.",
            CausalFairWarning,
        )
    ranked = [split for split in found if split.projection is not None]
    import pandas as pd

    projection = pd.concat(
        [_median([s.average for s in found]), _median([s.projection for s in ranked])],
        ignore_index=True,
    )
    traits = None
    if ranked[0].traits is not None:
        traits = _median([s.traits for s in ranked])
    return GenericInference(
        projection, _median([s.groups for s in ranked]), traits, len(found), flat, level
    )


def _median(tables: list[Any]) -> Any:
    """Median of each cell over splits; twice the median p-value, at most one."""
    columns = ["estimate", "conf_low", "conf_high", "p_value"]
    middle = np.median([table[columns].to_numpy() for table in tables], axis=0)
    out = tables[0][["term"]].copy()
    out[columns] = middle
    out["p_value"] = np.minimum(1.0, 2 * out["p_value"])
    return out[["term", "estimate", "p_value", "conf_low", "conf_high"]]
