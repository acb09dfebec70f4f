"""Gaps from group probabilities: threshold, weighted and linear estimators, Frechet bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.validation import check_lengths, check_level, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.fairness._bounds import (
    Signal,
    imbens_manski,
    label_rate_bounds,
    parity_bounds,
    weighted_means,
    within_covariance,
)
from causalfair.fairness._metrics import group_pairs
from causalfair.fairness._results import AuditTable, interval_plot
from causalfair.inference import InfluenceEstimates

if TYPE_CHECKING:
    from collections.abc import Callable

    from causalfair._core.typing import ArrayLike, FloatArray
    from causalfair.fairness._bounds import BoundPieces


def check_probabilities(probability: ArrayLike, owner: str) -> FloatArray:
    """Group probabilities (n, K); a vector is P(group 1) of two groups.

    Raises
    ------
    DataError
        Not probabilities, or rows that do not sum to one.
    """
    b = np.asarray(probability, dtype=np.float64)
    if b.ndim == 1:
        b = np.column_stack([1.0 - b, b])
    if b.ndim != 2 or b.shape[0] == 0 or b.shape[1] < 2:
        raise DataError(
            f"{owner} got probability of shape {b.shape}; give (n, K), or (n,) for K = 2."
        )
    bad = ~np.isfinite(b).all(axis=1) | (b < 0).any(axis=1) | (np.abs(b.sum(axis=1) - 1) > 1e-6)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{owner}: probability has {int(bad.sum())} row(s) that are not probabilities "
            "summing to "
            f"1; the first is row {i}: {b[i].tolist()}."
        )
    return b


def _inputs(
    probability: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, owner: str
) -> tuple[FloatArray, FloatArray, FloatArray]:
    b = check_probabilities(probability, owner)
    outcome = check_numeric(y, "y", owner=owner)
    weight = np.ones(len(b))
    if sample_weight is not None:
        weight = check_numeric(sample_weight, "sample_weight", owner=owner)
        if (weight < 0).any() or weight.sum() <= 0:
            raise DataError(f"{owner}: sample_weight must be non-negative with a positive sum.")
    check_lengths(owner=owner, probability=b, y=outcome, sample_weight=weight)
    return b, outcome, weight / weight.mean()


def _gaps(
    values: FloatArray, influence: FloatArray, cluster: ArrayLike | None, what: str
) -> InfluenceEstimates:
    pairs = group_pairs(len(values))
    contrast = np.zeros((len(pairs), len(values)))
    for row, (b, a) in zip(contrast, pairs, strict=True):
        row[b], row[a] = 1.0, -1.0
    psi = influence @ contrast.T
    return InfluenceEstimates(
        contrast @ values,
        psi - psi.mean(axis=0),
        [f"{what}: {b} - {a}" for b, a in pairs],
        cluster=cluster,
    )


def threshold_disparity(
    probability: ArrayLike,
    y: ArrayLike,
    *,
    cut: float | None = None,
    cluster: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> InfluenceEstimates:
    """Gaps between groups when everyone is given their likeliest group.

    Biased, usually away from zero or unstable in the cut; here for comparison.

    Parameters
    ----------
    probability : (n, K) array, or (n,) for two groups
        P(group | names, place, ...).
    y : (n,) array
        Outcome or decision.
    cut : float, optional
        Rows whose largest probability lies below it are left out; None keeps all.
    cluster, sample_weight : (n,) arrays, optional
        Clusters of dependent rows, and non-negative weights.

    Returns
    -------
    InfluenceEstimates
        One term a pair of groups.

    Raises
    ------
    DataError
        Not probabilities, or a group with nobody in it.

    References
    ----------
    .. [1] Chen, Kallus, Mao, Svacha & Udell (2019), "Fairness under unawareness", FAT*,
       doi:10.1145/3287560.3287594.

    Examples
    --------
    >>> from causalfair.fairness import threshold_disparity
    >>> float(threshold_disparity([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 1]).estimate[0])
    0.5
    """
    owner = "threshold_disparity"
    b, outcome, weight = _inputs(probability, y, sample_weight, owner)
    hard = np.eye(b.shape[1])[b.argmax(axis=1)]
    if cut is not None:
        hard[b.max(axis=1) < cut] = 0.0
    mass = (hard * weight[:, None]).sum(axis=0)
    if (mass == 0).any():
        raise DataError(
            f"{owner}: nobody is classified into group {int(np.argmin(mass))}; lower cut, or use "
            "weighted_disparity, which needs no cut."
        )
    found = weighted_means(hard, outcome, weight)
    return _gaps(found.values, found.influence, cluster, "threshold")


def weighted_disparity(
    probability: ArrayLike,
    y: ArrayLike,
    *,
    cluster: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> InfluenceEstimates:
    """Gaps between probability-weighted group means.

    Its error is -E Cov(A, y | Z) / Var(A) for two groups: right only where the outcome does not
    depend on the group given what the probabilities are based on.

    Parameters
    ----------
    probability : (n, K) array, or (n,) for two groups
        Calibrated P(group | Z).
    y : (n,) array
        Outcome or decision.
    cluster, sample_weight : (n,) arrays, optional
        Clusters of dependent rows, and non-negative weights.

    Returns
    -------
    InfluenceEstimates
        One term a pair of groups, with standard errors robust to unequal variances.

    Raises
    ------
    DataError
        Not probabilities, or lengths that differ.

    References
    ----------
    .. [1] Chen et al. (2019), "Fairness under unawareness", FAT*, doi:10.1145/3287560.3287594.
    .. [2] Elzayn et al. (2025), "Measuring and mitigating racial disparities in tax audits",
       Quarterly Journal of Economics 140, doi:10.1093/qje/qjae027.

    Examples
    --------
    >>> from causalfair.fairness import weighted_disparity
    >>> round(float(weighted_disparity([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 1]).estimate[0]), 3)
    0.3
    """
    b, outcome, weight = _inputs(probability, y, sample_weight, "weighted_disparity")
    found = weighted_means(b, outcome, weight)
    return _gaps(found.values, found.influence, cluster, "weighted")


def linear_disparity(
    probability: ArrayLike,
    y: ArrayLike,
    *,
    cluster: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> InfluenceEstimates:
    """Gaps from the regression of the outcome on the group probabilities.

    For two groups the slope Cov(y, b) / Var(b) = D + E Cov(y, b | A) / Var(b). Where both this
    covariance and E Cov(y, A | b) are non-negative, weighted <= D <= linear.

    Parameters
    ----------
    probability : (n, K) array, or (n,) for two groups
        P(group | names, place, ...).
    y : (n,) array
        Outcome or decision.
    cluster, sample_weight : (n,) arrays, optional
        Clusters of dependent rows, and non-negative weights.

    Returns
    -------
    InfluenceEstimates
        One term a pair of groups, heteroscedasticity-robust.

    Raises
    ------
    DataError
        Not probabilities, or probabilities that do not vary.

    References
    ----------
    .. [1] Elzayn et al. (2025), "Measuring and mitigating racial disparities in tax audits",
       Quarterly Journal of Economics 140, doi:10.1093/qje/qjae027, proposition 1.

    Examples
    --------
    >>> from causalfair.fairness import linear_disparity
    >>> round(float(linear_disparity([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 1]).estimate[0]), 3)
    0.6
    """
    owner = "linear_disparity"
    b, outcome, weight = _inputs(probability, y, sample_weight, owner)
    gram = (b * weight[:, None]).T @ b / len(b)
    if np.linalg.cond(gram) > 1e12:
        raise DataError(
            f"{owner}: the probabilities do not vary enough between rows to tell "
            f"{b.shape[1]} groups apart."
        )
    inverse = np.linalg.inv(gram)
    values = inverse @ ((b * (weight * outcome)[:, None]).mean(axis=0))
    influence = (b * (weight * (outcome - b @ values))[:, None]) @ inverse
    return _gaps(values, influence, cluster, "linear")


def covariance_checks(
    probability: ArrayLike, y: ArrayLike, sensitive_features: ArrayLike, *, n_bins: int = 10
) -> AuditTable:
    """Check on audited rows whether weighted and linear estimates bracket the truth.

    Parameters
    ----------
    probability : (n,) array
        P(A = 1 | Z).
    y : (n,) array
        Outcome or decision.
    sensitive_features : (n,) array of 0 and 1
        The audited attribute.
    n_bins : int, default 10
        Quantile bins of the probability.

    Returns
    -------
    AuditTable
        E Cov(y, A | b) and E Cov(y, b | A) with standard errors: both non-negative (or both
        non-positive) means that the two estimates bracket the gap.

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.fairness import covariance_checks
    >>> rng = np.random.default_rng(0)
    >>> b = rng.random(2000)
    >>> a = (rng.random(2000) < b).astype(int)
    >>> covariance_checks(b, a + rng.normal(size=2000), a).to_frame().shape
    (2, 3)
    """
    import pandas as pd

    owner = "covariance_checks"
    b, outcome, _ = _inputs(probability, y, None, owner)
    if b.shape[1] != 2:
        raise ParameterError(f"{owner} is for two groups; probability has {b.shape[1]}.")
    truth = check_numeric(sensitive_features, "sensitive_features", owner=owner)
    check_lengths(owner=owner, probability=b, sensitive_features=truth)
    if not np.isin(truth, (0.0, 1.0)).all():
        raise DataError(f"{owner}: sensitive_features must be 0 or 1 in every audited row.")
    (first, first_error), (second, second_error) = within_covariance(
        outcome, truth, b[:, 1], n_bins
    )
    frame = pd.DataFrame(
        {
            "covariance": ["E Cov(y, A | b)", "E Cov(y, b | A)"],
            "estimate": [first, second],
            "std_error": [first_error, second_error],
        }
    )
    bracket = "bracket the gap" if first * second >= 0 else "need not bracket the gap"
    return AuditTable(
        "Covariance checks on audited rows",
        frame,
        (
            f"The estimates have {'the same sign' if first * second >= 0 else 'opposite signs'}: "
            f"weighted_disparity and linear_disparity {bracket}.",
        ),
    )


def frechet_bounds(
    probability: ArrayLike,
    decision: ArrayLike,
    *,
    negative: ArrayLike | None = None,
    y_pred: ArrayLike | None = None,
    y_negative: ArrayLike | None = None,
    sensitive_features: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    level: float = 0.95,
) -> AuditTable:
    """Bounds of group gaps when group and decision are never seen together.

    Known are a(Z) = P(group | Z) from one source and r(Z) = P(decision | Z) from another. Nothing
    is assumed about how group and decision depend on each other given Z, so
    E max(0, a + r - 1) <= P(group, decision) <= E min(a, r), and both ends can occur.

    Parameters
    ----------
    probability : (n, K) array, or (n,) for two groups
        a(Z).
    decision : (n,) array
        P(f = 1 | Z); or, with ``negative``, P(f = 1, Y = y | Z).
    negative : (n,) array, optional
        P(f = 0, Y = y | Z): the bounds are then of P(f = 1 | Y = y, group).
    y_pred, y_negative : (n,) arrays of 0 and 1, optional
        The events themselves, where ``decision`` and ``negative`` were fitted out of fold: their
        residuals remove the first-order bias of the fit and carry its noise.
    sensitive_features : (n,) int array, optional
        The group itself, where ``probability`` was fitted on these rows out of fold.
    sample_weight : (n,) array, optional
        Non-negative weights.
    level : float, default 0.95
        Confidence level.

    Returns
    -------
    AuditTable
        For every pair of groups and every group against the rest ``bound_low, bound_high`` and the
        Imbens-Manski interval ``conf_low, conf_high`` of the gap inside them.

    Raises
    ------
    DataError
        Not probabilities, or lengths that differ.

    References
    ----------
    .. [1] Kallus, Mao & Zhou (2022), "Assessing algorithmic fairness with unobserved protected
       class using data combination", Management Science 68, doi:10.1287/mnsc.2020.3850.
    .. [2] Imbens & Manski (2004), "Confidence intervals for partially identified parameters",
       Econometrica 72, doi:10.1111/j.1468-0262.2004.00555.x.

    Examples
    --------
    >>> from causalfair.fairness import frechet_bounds
    >>> table = frechet_bounds([0.9, 0.2, 0.5], [0.7, 0.3, 0.5]).to_frame()
    >>> table[["term", "bound_low", "bound_high"]].round(3).values.tolist()[0]
    ['1 - 0', -0.268, 0.804]
    """
    owner = "frechet_bounds"
    check_level(level)
    b, rate, weight = _inputs(probability, decision, sample_weight, owner)
    signal = _signal(rate, y_pred, "decision", "y_pred", owner)
    groups = []
    for a in range(b.shape[1]):
        residual = np.zeros(len(b))
        if sensitive_features is not None:
            residual = (np.asarray(sensitive_features) == a) - b[:, a]
        groups.append(Signal(b[:, a], residual))

    def pieces(first: Signal, second: Signal | None) -> BoundPieces:
        if negative is None:
            return parity_bounds(first, second, signal, weight)
        minus = check_numeric(negative, "negative", owner=owner)
        other = _signal(minus, y_negative, "negative", "y_negative", owner)
        return label_rate_bounds(first, second, signal, other, weight)

    return _bounds_frame(groups, pieces, len(b), level)


def _signal(
    value: FloatArray, event: ArrayLike | None, name: str, event_name: str, owner: str
) -> Signal:
    if ((value < 0) | (value > 1)).any():
        raise DataError(f"{owner}: {name} must hold probabilities in [0, 1].")
    if event is None:
        return Signal.known(value)
    seen = check_numeric(event, event_name, owner=owner)
    check_lengths(owner=owner, **{name: value, event_name: seen})
    return Signal(value, seen - value)


def _bounds_frame(
    groups: list[Signal],
    pieces: Callable[[Signal, Signal | None], BoundPieces],
    n: int,
    level: float,
) -> AuditTable:
    import pandas as pd

    records: list[tuple[Any, ...]] = []
    comparisons: list[tuple[str, Signal, Signal | None]] = []
    for b, a in group_pairs(len(groups)):
        comparisons.append((f"{b} - {a}", groups[b], None if len(groups) == 2 else groups[a]))
    if len(groups) > 2:
        comparisons += [(f"{a} - rest", g, None) for a, g in enumerate(groups)]
    for name, first, second in comparisons:
        found = pieces(first, second)
        errors = found.influence.std(axis=0) / np.sqrt(n)
        low, high = imbens_manski(found.low, found.high, errors[0], errors[1], level)
        records.append((name, np.nan, found.low, found.high, max(low, -1.0), min(high, 1.0)))
    columns = ["term", "estimate", "bound_low", "bound_high", "conf_low", "conf_high"]
    headings = {
        "term": "gap",
        "bound_low": "lower bound",
        "bound_high": "upper bound",
        "conf_low": "low",
        "conf_high": "high",
    }
    notes = (
        "Sharp without any assumption on how group and decision depend on each other given Z.",
        f"low, high: {level:.0%} interval for the gap inside the bounds (Imbens & Manski 2004).",
    )
    frame = pd.DataFrame(records, columns=columns)
    return AuditTable("Frechet bounds", frame, notes, headings, interval_plot)
