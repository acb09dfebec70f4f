"""What the data say of the risk of everybody without a model of the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from causalfair._core.crossfit import CrossFitter, NuisanceSpec
from causalfair._core.learners import default_classifier
from causalfair._core.random import root_seed
from causalfair._core.scores import weighted_mean_score
from causalfair._core.typing import FloatArray, RandomState
from causalfair._core.validation import check_level
from causalfair.exceptions import DataError, ParameterError
from causalfair.inference.estimates import Estimates
from causalfair.reporting import Table
from causalfair.reporting.format import format_number, format_percent
from causalfair.reporting.plot import new_axes
from causalfair.risk._data import NEGATIVE, POSITIVE, UNTESTED, SelectiveRows, read_rows

__all__ = ["SelectionBounds", "selection_bounds"]

WORST = "none (worst case)"
INSTRUMENT = "instrument"


@dataclass(frozen=True)
class SelectionBounds:
    """Bounds on the mean outcome of everybody, by what is assumed.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row an assumption: ``assumption, lower, upper, conf_low, conf_high``.
    estimates : dict of str to Estimates
        The two ends of each, ``"lower"`` and ``"upper"``, with their influence.
    level : float
        Level of the intervals.
    tested_mean : float
        Mean outcome of those tested, for comparison.
    """

    frame: Any
    estimates: dict[str, Estimates]
    level: float
    tested_mean: float

    def to_frame(self) -> Any:
        """Bounds as a table.

        Returns
        -------
        pandas.DataFrame
            A copy of ``frame``.
        """
        return self.frame.copy()

    def _table(self) -> Table:
        rows = [
            [
                line["assumption"],
                f"[{format_number(line['lower'], 3)}, {format_number(line['upper'], 3)}]",
                f"[{format_number(line['conf_low'], 3)}, {format_number(line['conf_high'], 3)}]",
            ]
            for line in self.frame.to_dict("records")
        ]
        heading = f"{format_percent(self.level, 3)} interval"
        return Table(
            ["assumption", "bounds", heading], rows, "Bounds on the mean outcome of everybody",
            "lrr", self.frame,
        )  # fmt: skip

    def __str__(self) -> str:
        return str(self._table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def plot(self, *, model: Estimates | None = None, ax: Any = None) -> Any:
        """Draw the bounds, and a model's answer inside them.

        Parameters
        ----------
        model : Estimates, optional
            One term: a model's mean outcome, such as ``est.estimates_["prevalence"]``.
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        count = len(self.frame)
        ax = new_axes(ax, height=1.2 + 0.45 * (count + 1))
        rows = np.arange(count)
        ax.hlines(rows, self.frame["conf_low"], self.frame["conf_high"], color="0.75", linewidth=2)
        ax.hlines(rows, self.frame["lower"], self.frame["upper"], color="C0", linewidth=7)
        ax.plot(self.tested_mean, count, "s", color="0.4", markersize=6)
        labels = [*self.frame["assumption"], "tested only"]
        if model is not None:
            low, high = model.conf_int(self.level)[0]
            ax.hlines(count + 1, low, high, color="C1", linewidth=2)
            ax.plot(model.estimate[0], count + 1, "o", color="C1", markersize=7)
            labels.append("model")
        ax.set_yticks(np.arange(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.set_xlabel("mean outcome of everybody")
        return ax


def selection_bounds(
    X: Any,
    y: Any = None,
    *,
    tested: Any,
    covariates: Any = None,
    gamma: tuple[float, float] | None = None,
    instrument: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    level: float = 0.95,
    tested_learner: Any = None,
    outcome_learner: Any = None,
    n_folds: int = 5,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> SelectionBounds:
    r"""Bound the share of positives among everybody when outcomes are seen for those tested only.

    Three assumptions, weakest first: none (the untested may be all negative or all positive [1]_);
    an instrument, such as a decision maker assigned at random, that is independent of the outcome;
    and a bound on selection [2]_: given the covariates the untested are between ``gamma[0]`` and
    ``gamma[1]`` times as risky as the tested.

    Parameters
    ----------
    X : frame or array of shape (n_samples, p)
        Table of all columns, or the covariates.
    y : array of shape (n_samples,) or str
        Outcome, 0 or 1; ignored, and may be NaN, where ``tested`` is 0.
    tested : array of shape (n_samples,) or str
        Who was tested, binary.
    covariates : "all", list of str or formula, optional
        Given which selection is bounded; required when a role is a column name.
    gamma : tuple of (float, float), optional
        Least and greatest ratio of the risk of the untested to that of the tested. ``(0.5, 1)``:
        testers may have found the riskier half; ``(1, 1)``: nothing but the covariates mattered.
    instrument : array of shape (n_samples,) or str, optional
        Levels of an instrument.
    cluster : array of shape (n_samples,) or (n_samples, c), or str, optional
        Cluster labels.
    sample_weight : array of shape (n_samples,) or str, optional
        Non-negative weights.
    level : float, default 0.95
        Level of the intervals, which cover the true mean (not the whole bounds).
    tested_learner, outcome_learner : classifier, optional
        For P(T=1|x) and P(Y=1|T=1,x), with ``predict_proba``; used with ``gamma``.
    n_folds : int, default 5
        Folds of their cross-fit.
    n_jobs : int, optional
        Workers.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of folds and learners.

    Returns
    -------
    SelectionBounds
        Prints as a table; ``to_frame()``, ``plot(model=...)``.

    Raises
    ------
    DataError
        Unusable roles.
    IdentificationError
        Nobody or everybody was tested, or one outcome only.
    ParameterError
        ``gamma`` without covariates, or not two increasing non-negative numbers.

    Notes
    -----
    With :math:`\pi_1=P(T=1|x)`, :math:`\pi_0=1-\pi_1`, :math:`\mu_1=E[Y|T=1,x]` each end is
    :math:`\theta_\Gamma=E[\mu_1(\pi_1+\Gamma\pi_0)]`, the mean of
    :math:`(\pi_1+\Gamma\pi_0)\frac{T}{\pi_1}(Y-\mu_1)+\mu_1(T+\Gamma(1-T))` with cross-fitted
    nuisances. Intervals are those of Imbens and Manski [3]_; with an instrument each level's ends
    have Bonferroni limits, which are intersected.

    References
    ----------
    .. [1] Manski, C. F. (1989). Anatomy of the selection problem. Journal of Human Resources 24,
       343-360. doi:10.2307/145818
    .. [2] Rambachan, A., Coston, A. and Kennedy, E. (2022). Robust design and evaluation of
       predictive algorithms under unobserved confounding. arXiv:2212.09844
    .. [3] Imbens, G. W. and Manski, C. F. (2004). Confidence intervals for partially identified
       parameters. Econometrica 72, 1845-1857. doi:10.1111/j.1468-0262.2004.00555.x

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.risk import selection_bounds
    >>> tested = np.repeat([0, 1, 1], [500, 300, 200])
    >>> y = np.repeat([np.nan, 0.0, 1.0], [500, 300, 200])
    >>> bounds = selection_bounds(np.empty((1000, 0)), y, tested=tested)
    >>> bounds.to_frame()[["lower", "upper"]].round(12).to_numpy().tolist()
    [[0.2, 0.7]]
    """
    owner = "selection_bounds"
    check_level(level)
    _check_gamma(gamma, owner)
    rows = read_rows(
        X, y, tested=tested, owner=owner, covariates=covariates, decision_maker=instrument,
        cluster=cluster, sample_weight=sample_weight,
    )  # fmt: skip
    if rows.n_rows != rows.n:
        raise DataError(f"{owner} needs rows, not a lazy frame; collect it first.")
    chosen = np.isin(rows.code, (NEGATIVE, POSITIVE))
    y_seen = np.where(chosen, np.nan_to_num(rows.y), 0.0)
    untested = (rows.code == UNTESTED).astype(float)
    ends = {WORST: _means(rows, np.column_stack([y_seen, y_seen + untested]))}
    limits = {WORST: imbens_manski(ends[WORST], level)}
    if instrument is not None:
        ends[INSTRUMENT], limits[INSTRUMENT] = _instrument_bounds(rows, y_seen, untested, level)
    if gamma is not None:
        if not rows.data.covariate_names:
            raise ParameterError(f"{owner}: gamma bounds selection given covariates; name some.")
        frame, weight = rows.data.covariates, rows.data.sample_weight
        default = default_classifier(rows.n, frame.shape[1])
        specs = [
            NuisanceSpec(
                "tested", tested_learner or default, rows.tested, frame,
                method="predict_proba", sample_weight=weight,
            ),
            NuisanceSpec(
                "outcome if tested", outcome_learner or default, y_seen, frame, chosen,
                method="predict_proba", sample_weight=weight,
            ),
        ]  # fmt: skip
        fitter = CrossFitter(
            n_folds, stratify=rows.code, groups=rows.data.cluster, n_jobs=n_jobs,
            random_state=root_seed(random_state),
        )  # fmt: skip
        table = fitter.run(specs, rows.n, owner=owner)
        scores = gamma_scores(
            chosen.astype(float), y_seen, table["tested"][:, 0], table["outcome if tested"][:, 0],
            gamma,
        )  # fmt: skip
        name = f"untested {gamma[0]:g} to {gamma[1]:g} times as risky"
        ends[name] = _means(rows, scores)
        limits[name] = imbens_manski(ends[name], level)
    return _collect(ends, limits, level, float(rows.weight @ y_seen / (rows.weight @ chosen)))


def _check_gamma(gamma: Sequence[float] | None, owner: str) -> None:
    if gamma is None:
        return
    if len(gamma) != 2 or not 0 <= gamma[0] <= gamma[1]:
        raise ParameterError(
            f"{owner} got gamma={gamma!r}; give two non-negative numbers, the smaller first."
        )


def gamma_scores(
    t: FloatArray, y: FloatArray, pi: FloatArray, mu: FloatArray, gamma: Sequence[float]
) -> FloatArray:
    """Scores (n, len(gamma)) whose means are theta_Gamma."""
    columns = [(pi + g * (1.0 - pi)) * t / pi * (y - mu) + mu * (t + g * (1.0 - t)) for g in gamma]
    return np.column_stack(columns)


def _means(rows: SelectiveRows, scores: FloatArray) -> Estimates:
    found: Estimates = weighted_mean_score(
        scores,
        ["lower", "upper"],
        cluster=rows.data.cluster,
        sample_weight=rows.data.sample_weight,
        sample_id=rows.data.sample_id(),
    )
    return found


def imbens_manski(ends: Estimates, level: float) -> tuple[float, float]:
    """Interval that covers every value between the ends with probability ``level``."""
    low, high = ends.estimate
    se = ends.std_error
    width, scale = max(high - low, 0.0), float(se.max())
    if scale == 0.0:
        return float(low), float(high)

    def excess(c: float) -> float:
        return float(ndtr(c + width / scale) - ndtr(-c) - level)

    critical = brentq(excess, 0.0, float(ndtri((1 + level) / 2)) + 1e-6)
    return float(low - critical * se[0]), float(high + critical * se[1])


def _instrument_bounds(
    rows: SelectiveRows, y_seen: FloatArray, untested: FloatArray, level: float
) -> tuple[Estimates, tuple[float, float]]:
    """Intersection over levels of the instrument."""
    from causalfair.inference import InfluenceEstimates

    assert rows.maker is not None
    count = len(rows.maker_levels)
    share = rows.weight / rows.weight.sum()
    estimate, psi = [], []
    for column in (y_seen, y_seen + untested):
        for z in range(count):
            member = rows.maker == z
            size = float(share @ member)
            mean = float(share @ (member * column)) / size
            estimate.append(mean)
            psi.append(member * (column - mean) / size)
    by_level = InfluenceEstimates(
        estimate, np.column_stack(psi), [str(j) for j in range(2 * count)],
        cluster=rows.data.cluster, sample_weight=rows.data.sample_weight,
        sample_id=rows.data.sample_id(),
    )  # fmt: skip
    point, se = by_level.estimate, by_level.std_error
    critical = float(ndtri(1 - (1 - level) / (2 * count)))
    low = int(np.argmax(point[:count]))
    high = count + int(np.argmin(point[count:]))
    limits = (
        float(np.max(point[:count] - critical * se[:count])),
        float(np.min(point[count:] + critical * se[count:])),
    )
    return by_level[[str(low), str(high)]].with_names(["lower", "upper"]), limits


def _collect(
    ends: dict[str, Estimates],
    limits: dict[str, tuple[float, float]],
    level: float,
    tested_mean: float,
) -> SelectionBounds:
    import pandas as pd

    lines = [
        {
            "assumption": name,
            "lower": float(found.estimate[0]),
            "upper": float(found.estimate[1]),
            "conf_low": max(limits[name][0], 0.0),
            "conf_high": min(limits[name][1], 1.0),
        }
        for name, found in ends.items()
    ]
    return SelectionBounds(pd.DataFrame(lines), ends, level, tested_mean)
