"""Rank-weighted average treatment effects with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from causalfair._core.logging import progress
from causalfair._core.random import generator, root_seed
from causalfair._core.validation import check_lengths, check_level, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.forest import _toc
from causalfair.forest._origin import origin_of
from causalfair.inference import CovarianceEstimates, Estimates, InfluenceEstimates

__all__ = ["RATE", "rank_average_treatment_effect"]

FloatArray = NDArray[np.float64]
OWNER = "rank_average_treatment_effect"
SOURCES = ("other_data", "out_of_bag", "folds")
GRID = np.linspace(0.02, 1.0, 50)
LEAST_UNITS = 4


@dataclass(frozen=True)
class RATE:
    """Rank-weighted average treatment effects of one or more priority scores.

    Attributes
    ----------
    estimates_ : Estimates
        One term a priority and, where there are several, the difference of each from the first.
    toc_ : pandas.DataFrame
        Targeting operator characteristic: columns ``priority, q, estimate, std_error, conf_low,
        conf_high`` and ``gain, gain_std_error``: what treating the top q gains over treating none.
    method : str
        ``"autoc"``, ``"qini"`` or ``"custom"``.
    ratio : ndarray of shape (k,)
        Estimates over their standard errors.
    p_value : ndarray of shape (k,)
        Two-sided against no use of the ranking; one-sided where priorities are out of bag.
    """

    _citations: ClassVar[tuple[str, ...]] = ("yadlowsky2025evaluating",)

    estimates_: Estimates
    toc_: Any
    method: str
    n: int
    n_clusters: int | None
    priority_from: str
    std_error_kind: str
    n_bootstrap: int
    average: float
    labels: tuple[str, ...] = field(default=())

    @property
    def ratio(self) -> FloatArray:
        """Estimates over standard errors; 0 where nobody is ranked above another."""
        return np.where(self._flat, 0.0, self.estimates_.statistic())

    @property
    def _flat(self) -> NDArray[np.bool_]:
        return np.asarray((self.estimates_.estimate == 0) & (self.estimates_.std_error == 0))

    @property
    def p_value(self) -> FloatArray:
        """Two-sided p-values, or one-sided where priorities are out of bag."""
        if self.priority_from == "out_of_bag":
            return np.asarray(ndtr(-self.ratio))
        return np.where(self._flat, 1.0, self.estimates_.p_value())

    def conf_int(self, level: float = 0.95) -> FloatArray:
        """Confidence intervals of the terms.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        ndarray of shape (k, 2)
            Lower and upper ends.
        """
        return self.estimates_.conf_int(level)

    def to_frame(self, level: float = 0.95) -> Any:
        """Tidy table with the RATE ratio as ``statistic``.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        pandas.DataFrame
            One row a term.
        """
        frame = self.estimates_.to_frame(level)
        frame["p_value"] = self.p_value
        return frame

    def summary(self, level: float = 0.95) -> Any:
        """Estimates, ratio and how they were obtained.

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
        from causalfair.reporting.format import format_estimate, format_p

        rows = []
        for j, (name, interval) in enumerate(
            zip(self.estimates_.names, self.conf_int(level), strict=True)
        ):
            cells = format_estimate(
                self.estimates_.estimate[j], self.estimates_.std_error[j], *interval
            )
            rows.append(
                [name, cells.estimate, cells.std_error, cells.interval,
                 f"{self.ratio[j]:.2f}", format_p(float(self.p_value[j]))]
            )  # fmt: skip
        columns = ["", "estimate", "std. error", f"{level:.0%} interval", "ratio", "p"]
        header = [("n", f"{self.n:,}"), ("average score", f"{self.average:.3g}")]
        if self.n_clusters is not None:
            header.insert(1, ("clusters", f"{self.n_clusters:,}"))
        return Summary(
            "Rank-weighted average treatment effect",
            header,
            [Table(columns, rows, None, "lrrrrr")],
            self._notes(),
        )

    def _notes(self) -> list[str]:
        error = (
            f"half-sample bootstrap, {self.n_bootstrap} draws"
            if self.std_error_kind == "bootstrap"
            else "influence function, the ranks' error included"
        )
        notes = [f"Standard error: {error}; priorities and scores taken as given."]
        if self.priority_from == "out_of_bag":
            notes.append(
                "Priorities are out of bag: the p-value is one-sided and heuristic. "
                "validate_ranking() gives a test that holds its level."
            )
        else:
            notes.append("Valid if the priorities were learned on other data than the scores.")
        return notes

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

        return Citations((*self._citations, *self._cite_extra(), "causalfair"))

    def _cite_extra(self) -> tuple[str, ...]:
        return ("radcliffe2007using",) if self.method == "qini" else ()

    def plot(self, *, ax: Any = None, level: float = 0.95) -> Any:
        """TOC curves with pointwise bands.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        level : float, default 0.95
            Level of the bands.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.forest._plots import toc_plot

        return toc_plot(self, ax=ax, level=check_level(level))


def rank_average_treatment_effect(
    priority: Any,
    scores: Any,
    *,
    method: str | Callable[[FloatArray], FloatArray] = "autoc",
    cluster: Any = None,
    sample_weight: Any = None,
    priority_from: str = "other_data",
    std_error: str = "bootstrap",
    n_bootstrap: int = 200,
    q: Any = None,
    random_state: Any = None,
) -> RATE:
    """Evaluate a ranking of units by how much more the first ones benefit.

    The targeting operator characteristic TOC(q) is the average effect among the share q ranked
    first, less the average effect. The RATE weighs it over q: AUTOC evenly, which favours effects
    that are large for a few; QINI by q, which favours effects spread over many.

    Parameters
    ----------
    priority : array of shape (n_samples,) or mapping of str to array
        Higher means: treat first. Several priorities are evaluated on the same units and compared.
    scores : array of shape (n_samples,)
        Doubly robust scores of units that did not train the priorities, such as ``scores_`` of a
        model fitted to an evaluation sample.
    method : {"autoc", "qini"} or callable, default "autoc"
        Weighting of the curve; a callable maps shares q in (0, 1] to weights.
    cluster : array of shape (n_samples,), optional
        Clusters, drawn whole.
    sample_weight : array of shape (n_samples,), optional
        Sampling weights.
    priority_from : {"other_data", "out_of_bag"}, default "other_data"
        How the priorities were made. Out-of-bag priorities of the model that made the scores are
        heuristic: p-values become one-sided. ``"folds"`` (cross-fitted) is refused.
    std_error : {"bootstrap", "influence"}, default "bootstrap"
        Half-sample bootstrap, or influence function (no ties, no weights, and no error for the
        curve).
    n_bootstrap : int, default 200
        Half-samples.
    q : array, optional
        Shares in (0, 1] at which the curve is given.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the bootstrap.

    Returns
    -------
    RATE
        Estimates, curve, plot.

    Raises
    ------
    ParameterError
        An unknown option, priorities from cross-fitting folds, or priorities of the very model that
        made the scores.
    DataError
        Missing values, lengths that differ, too few units.

    Notes
    -----
    Units with equal priority share the mean of their scores. The half-sample standard error is the
    standard deviation over draws of half the units without replacement, which estimates that of the
    full sample without rescaling. Averaging RATE ratios over ordinary cross-fitting folds is
    invalid: fold estimates are correlated with the folds that trained them, and a nominal 5 % test
    rejects two to three times as often.

    References
    ----------
    .. [1] S. Yadlowsky, S. Fleming, N. Shah, E. Brunskill and S. Wager (2025). Evaluating treatment
       prioritization rules via rank-weighted average treatment effects. Journal of the American
       Statistical Association 120, 38-51, sections 2 and 3. doi:10.1080/01621459.2024.2393466

    Examples
    --------
    >>> from causalfair.forest import rank_average_treatment_effect
    >>> rate = rank_average_treatment_effect([4, 3, 2, 1], [4.0, 3.0, 2.0, 1.0], random_state=0)
    >>> float(rate.estimates_["AUTOC"].estimate[0])
    0.75
    """
    options = _Options(method, priority_from, std_error, n_bootstrap, q)
    priorities = _priorities(priority)
    for value in priorities.values():
        check_origin(origin_of(value), origin_of(scores), priority_from)
    gamma = check_numeric(scores, "scores", owner=OWNER)
    arrays = {
        k: check_numeric(v, f"priority {k!r}" if k else "priority", owner=OWNER)
        for k, v in priorities.items()
    }
    check_lengths(owner=OWNER, scores=gamma, **arrays)
    weight = weights_of_units(sample_weight, gamma)
    codes = None if cluster is None else cluster_of_units(cluster, gamma)
    keep = weight > 0
    if not keep.all():
        gamma, weight = gamma[keep], weight[keep]
        arrays = {k: v[keep] for k, v in arrays.items()}
        codes = None if codes is None else np.unique(codes[keep], return_inverse=True)[1]
    units = gamma.size if codes is None else int(codes.max()) + 1
    if units < LEAST_UNITS:
        what = "units" if codes is None else "clusters"
        raise DataError(f"{OWNER}: {units} {what}; a ranking needs {LEAST_UNITS} or more.")
    rankings = {k: _toc.rank_units(v, gamma, weight) for k, v in arrays.items()}
    estimates, curves = _evaluate(rankings, codes, options, random_state)
    return RATE(
        estimates, curves, options.name, gamma.size, None if codes is None else units,
        priority_from, std_error, n_bootstrap, float(np.average(gamma, weights=weight)),
        tuple(rankings),
    )  # fmt: skip


class _Options:
    """Checked options."""

    def __init__(self, method: Any, source: str, error: str, n_bootstrap: int, q: Any) -> None:
        if not callable(method) and method not in _toc.RANK_WEIGHTS:
            raise ParameterError(
                f"{OWNER}: method={method!r} is neither 'autoc' nor 'qini' nor a function of q."
            )
        self.name = "custom" if callable(method) else method
        self.weight = method if callable(method) else _toc.RANK_WEIGHTS[method]
        if source not in SOURCES:
            raise ParameterError(
                f"{OWNER}: priority_from={source!r} is not one of {', '.join(map(repr, SOURCES))}."
            )
        if source == "folds":
            raise ParameterError(
                f"{OWNER}: priorities cross-fitted over folds cannot be pooled: the fold estimates "
                "are correlated with the folds that trained them, and a 5 % test rejects two to "
                "three times as often. Use validate_ranking(scheme='sequential') or 'split'."
            )
        if error not in ("bootstrap", "influence"):
            raise ParameterError(
                f"{OWNER}: std_error={error!r} is neither 'bootstrap' nor 'influence'."
            )
        if error == "influence" and callable(method):
            raise ParameterError(
                f"{OWNER}: std_error='influence' is for 'autoc' and 'qini'; a function of q needs "
                "std_error='bootstrap'."
            )
        if not isinstance(n_bootstrap, int | np.integer) or n_bootstrap < 2:
            raise ParameterError(f"{OWNER}: n_bootstrap={n_bootstrap!r} must be 2 or more.")
        self.error, self.n_bootstrap = error, int(n_bootstrap)
        self.grid = GRID if q is None else check_numeric(q, "q", owner=OWNER)
        if not ((self.grid > 0) & (self.grid <= 1)).all():
            raise ParameterError(f"{OWNER}: q must lie in (0, 1]; got {self.grid.min():g} to "
                                 f"{self.grid.max():g}.")  # fmt: skip


def _priorities(priority: Any) -> dict[str, Any]:
    if isinstance(priority, Mapping):
        if not priority:
            raise ParameterError(f"{OWNER}: priority is empty; give one array or more.")
        return {str(k): v for k, v in priority.items()}
    return {"": priority}


def check_origin(priority: Any, scores: Any, source: str, owner: str = OWNER) -> None:
    """Refuse priorities of the model that made the scores, unless that was asked for."""
    if priority is None or scores is None or priority[1] != scores[1]:
        return
    if priority[0] == "in-sample":
        raise ParameterError(
            f"{owner}: the priorities are predictions for the rows that trained the model, which "
            "look better than they are. Use priorities from a model fitted to other rows, or "
            "predict() without X with priority_from='out_of_bag'."
        )
    if priority[0] == "out-of-sample" and source != "out_of_bag":
        raise ParameterError(
            f"{owner}: priorities and scores come from the same model and rows. Fit one model to a "
            "training half and another to an evaluation half (validate_ranking does it), or accept "
            "the heuristic with priority_from='out_of_bag'."
        )


def weights_of_units(sample_weight: Any, gamma: FloatArray, owner: str = OWNER) -> FloatArray:
    """Weights (n,), ones when there are none."""
    if sample_weight is None:
        return np.ones(gamma.size)
    weight = check_numeric(sample_weight, "sample_weight", owner=owner)
    check_lengths(owner=owner, scores=gamma, sample_weight=weight)
    if (weight < 0).any() or weight.sum() <= 0:
        raise DataError(
            f"{owner}: sample_weight has {int((weight < 0).sum())} negative value(s) and sums to "
            f"{weight.sum():.4g}; weights must be non-negative with a positive sum."
        )
    return weight


def cluster_of_units(cluster: Any, gamma: FloatArray, owner: str = OWNER) -> NDArray[np.intp]:
    """Codes (n,) of the clusters."""
    values = np.asarray(cluster)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        raise DataError(f"{owner}: cluster has shape {values.shape}; give one label a unit.")
    check_lengths(owner=owner, scores=gamma, cluster=values)
    return np.asarray(np.unique(values, return_inverse=True)[1])


def _evaluate(
    rankings: dict[str, _toc.Ranking], codes: Any, options: _Options, random_state: Any
) -> tuple[Estimates, Any]:
    values = np.array([_toc.rate(r, options.weight) for r in rankings.values()])
    title = {"autoc": "AUTOC", "qini": "QINI", "custom": "RATE"}[options.name]
    names = [f"{title}: {label}" if label else title for label in rankings]
    if options.error == "influence":
        _check_influence(rankings)
        influence = [_toc.rate_influence(r, options.name) for r in rankings.values()]
        estimates: Estimates = InfluenceEstimates(
            values, np.column_stack(influence), names, cluster=codes
        )
        curve_draws = None
    else:
        draws, curve_draws = _bootstrap(rankings, codes, options, random_state)
        vcov = np.atleast_2d(np.cov(draws, rowvar=False))
        estimates = CovarianceEstimates(values, vcov, names)
    frame = _curves(rankings, options.grid, curve_draws)
    return _with_differences(estimates, list(rankings), title), frame


def _check_influence(rankings: dict[str, _toc.Ranking]) -> None:
    for label, ranking in rankings.items():
        if ranking.has_ties or np.ptp(ranking.weight) > 0:
            what = "equal values" if ranking.has_ties else "units of different weight"
            raise ParameterError(
                f"{OWNER}: std_error='influence' is for distinct priorities and equal weights; "
                f"priority {label!r} has {what}. Use std_error='bootstrap'."
            )


def _bootstrap(
    rankings: dict[str, _toc.Ranking], codes: Any, options: _Options, random_state: Any
) -> tuple[FloatArray, FloatArray]:
    """RATEs (R, k) and curves with the average as last column (R, k, grid + 1); paired draws."""
    root = root_seed(random_state)
    rates = np.empty((options.n_bootstrap, len(rankings)))
    curves = np.empty((options.n_bootstrap, len(rankings), options.grid.size + 1))
    for draw in progress(range(options.n_bootstrap), "half-samples"):
        for j, ranking in enumerate(rankings.values()):
            keep = _toc.half_samples(ranking, codes, generator(root, draw))
            rates[draw, j] = _toc.rate(ranking, options.weight, keep)
            curves[draw, j, :-1], curves[draw, j, -1] = _toc.toc_at(ranking, options.grid, keep)
    return rates, curves


def _curves(rankings: dict[str, _toc.Ranking], q: FloatArray, draws: FloatArray | None) -> Any:
    import pandas as pd

    frames = []
    for j, (label, ranking) in enumerate(rankings.items()):
        toc, average = _toc.toc_at(ranking, q)
        error = gain_error = np.full(q.size, np.nan)
        if draws is not None:
            error = draws[:, j, :-1].std(axis=0, ddof=1)
            gain_error = (q * (draws[:, j, :-1] + draws[:, j, -1:])).std(axis=0, ddof=1)
        half = ndtri(0.975) * error
        frames.append(
            pd.DataFrame(
                {"priority": label, "q": q, "estimate": toc, "std_error": error,
                 "conf_low": toc - half, "conf_high": toc + half,
                 "gain": q * (toc + average), "gain_std_error": gain_error}
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _with_differences(estimates: Estimates, labels: list[str], title: str) -> Estimates:
    """Add the difference of every further priority from the first."""
    k = len(labels)
    if k == 1:
        return estimates
    rows = np.vstack([np.eye(k), np.column_stack([np.full(k - 1, -1.0), np.eye(k - 1)])])
    names = [
        *estimates.names,
        *(f"{title}: {label} - {labels[0]}" for label in labels[1:]),
    ]
    return estimates.transform(lambda t: rows @ t, names, jac=lambda _: rows)
