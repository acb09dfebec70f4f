"""Estimates whose intervals are not Wald intervals: bootstrap, BCa, profile, and scalar gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.validation import check_level
from causalfair.exceptions import ParameterError, WeakIdentificationWarning
from causalfair.fairness._inference import (
    Audit,
    JointCovariance,
    bca_interval,
    bootstrap_joint,
    delta_estimates,
    is_likelihood,
    jackknife_joint,
    smooth_estimates,
)
from causalfair.fairness._metrics import GroupMetric, gap_values, group_metric, pairwise_gaps
from causalfair.fairness._profile import (
    Target,
    profile_deviance,
    profile_interval,
    reference_df,
)
from causalfair.inference import CovarianceEstimates, DrawEstimates, HypothesisTest
from causalfair.inference.multiplier import simultaneous_critical_value

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray

INTERVALS = ("delta", "bootstrap", "bca", "profile")


@dataclass(frozen=True, eq=False, repr=False, init=False)
class GapEstimates(CovarianceEstimates):
    """Estimates with intervals of their own kind.

    Parameters
    ----------
    estimate : (k,) array
        Point estimates.
    vcov : (k, k) array
        Covariance, for combinations of terms; nan where a normal approximation makes no sense.
    names : sequence of str
        Names of the terms.
    intervals : callable
        Maps a level to the (k, 2) intervals.
    p_values : callable, optional
        Maps a null value to the (k,) p-values; Wald when None.
    method : str
        Name of the kind of interval.
    reasons : sequence of str or None, optional
        Why a term is nan.
    simultaneous : callable, optional
        Maps a level to simultaneous (k, 2) intervals; the Gaussian sup-t band when None.
    null : float, default 0
        What "no disparity" means: 0 for differences, 1 for ratios.

    Attributes
    ----------
    method : str
    reasons : tuple
    null : float

    See Also
    --------
    causalfair.fairness.ProxyFairness.disparity : Makes them.

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.fairness import GapEstimates
    >>> est = GapEstimates([0.1], [[0.01]], ["gap"], lambda level: np.array([[0.0, 0.4]]))
    >>> est.conf_int().tolist()
    [[0.0, 0.4]]
    """

    method: str
    reasons: tuple[str | None, ...]
    null: float

    def __init__(
        self,
        estimate: Any,
        vcov: Any,
        names: Sequence[str],
        intervals: Callable[[float], FloatArray],
        *,
        p_values: Callable[[float], FloatArray] | None = None,
        method: str = "delta",
        reasons: Sequence[str | None] | None = None,
        simultaneous: Callable[[float], FloatArray] | None = None,
        null: float = 0.0,
    ) -> None:
        super().__init__(estimate, vcov, names)
        object.__setattr__(self, "_intervals", intervals)
        object.__setattr__(self, "_p_values", p_values)
        object.__setattr__(self, "_simultaneous", simultaneous)
        object.__setattr__(self, "method", method)
        given = (None,) * len(self.names) if reasons is None else tuple(reasons)
        object.__setattr__(self, "reasons", given)
        object.__setattr__(self, "null", float(null))

    def conf_int(self, level: float = 0.95, *, simultaneous: bool = False) -> FloatArray:
        """Intervals of the kind named in ``method``.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.
        simultaneous : bool, default False
            Cover all terms at once.

        Returns
        -------
        (k, 2) array
            Lower and upper ends.
        """
        check_level(level)
        if simultaneous and len(self.names) > 1:
            if self._simultaneous is not None:  # type: ignore[attr-defined]
                return np.asarray(self._simultaneous(level))  # type: ignore[attr-defined]
            return super().conf_int(level, simultaneous=True)
        return np.asarray(self._intervals(level))  # type: ignore[attr-defined]

    def statistic(self, null: float | FloatArray | None = None) -> FloatArray:
        """Studentised distances from ``null``.

        Parameters
        ----------
        null : float, optional
            No disparity when None.

        Returns
        -------
        (k,) array
            Distances in standard errors.
        """
        return super().statistic(self.null if null is None else null)

    def p_value(self, null: float | FloatArray | None = None) -> FloatArray:
        """P-values that agree with the intervals, term by term.

        Parameters
        ----------
        null : float, optional
            No disparity when None.

        Returns
        -------
        (k,) array
            One p-value a term.
        """
        fn = self._p_values  # type: ignore[attr-defined]
        value = self.null if null is None else null
        return super().p_value(value) if fn is None else np.asarray(fn(float(np.max(value))))

    def test(self, null: float | FloatArray | None = None) -> HypothesisTest:
        """Joint Wald test of all terms.

        Parameters
        ----------
        null : float or array, optional
            No disparity when None.

        Returns
        -------
        HypothesisTest
            Chi-square test of all terms.
        """
        return super().test(self.null if null is None else null)

    def _take(self, at: list[int], names: tuple[str, ...]) -> GapEstimates:
        fn = self._p_values  # type: ignore[attr-defined]
        return GapEstimates(
            self.estimate[at],
            self.vcov[np.ix_(at, at)],
            names,
            partial(_rows_of, self._intervals, at),  # type: ignore[attr-defined]
            p_values=None if fn is None else partial(_rows_of, fn, at),
            method=self.method,
            reasons=[self.reasons[r] for r in at],
            null=self.null,
        )


def _rows_of(fn: Callable[[float], FloatArray], rows: Any, value: float) -> FloatArray:
    return np.asarray(fn(value)[rows])


def plain_gaps(
    audit: Audit, law: JointCovariance, metric: GroupMetric, kind: str
) -> tuple[Any, tuple[str | None, ...]]:
    """Delta-method estimates of all pairwise gaps, and the reasons of those that are nan."""
    gaps = pairwise_gaps(metric, audit.model.fit.G, audit.model.data.n_effective, kind)
    return delta_estimates(audit, gaps, law), gaps.reasons


NULL = {"difference": 0.0, "ratio": 1.0}


def wald_gaps(
    audit: Audit, law: JointCovariance, metric: GroupMetric, kind: str
) -> GapEstimates | Any:
    """Delta-method gaps; ratios on the log scale, and reasons where one cannot be estimated."""
    found, reasons = plain_gaps(audit, law, metric, kind)
    if kind == "ratio":
        return GapEstimates(
            found.estimate,
            found.vcov,
            found.names,
            partial(_log_intervals, found),
            p_values=partial(_log_p_values, found),
            method="delta",
            reasons=reasons,
            simultaneous=partial(_log_intervals, found, simultaneous=True),
            null=1.0,
        )
    if all(r is None for r in reasons):
        return found
    return GapEstimates(found.estimate, found.vcov, found.names, found.conf_int, reasons=reasons)


def _log_scale(ratios: Any) -> CovarianceEstimates:
    """Logarithms of ratios by the delta method; nan where a ratio is zero or unknown."""
    value = np.where(ratios.estimate > 0, ratios.estimate, np.nan)
    return CovarianceEstimates(
        np.log(value), ratios.vcov / np.outer(value, value), ratios.names, df=ratios.df
    )


def _log_intervals(ratios: Any, level: float, *, simultaneous: bool = False) -> FloatArray:
    return np.exp(_log_scale(ratios).conf_int(level, simultaneous=simultaneous))


def _log_p_values(ratios: Any, null: float) -> FloatArray:
    return _log_scale(ratios).p_value(float(np.log(null)))


def _percentiles(draws: FloatArray, level: float) -> FloatArray:
    tail = (1.0 - level) / 2.0
    return np.asarray(np.quantile(draws, [tail, 1.0 - tail], axis=0).T)


def _max_t(estimate: FloatArray, draws: FloatArray, level: float) -> FloatArray:
    """Estimate plus or minus a common number of bootstrap standard deviations (max-|t|)."""
    spread = draws.std(axis=0, ddof=1)
    studentised = (draws - estimate) / np.where(spread > 0, spread, 1.0)
    critical = simultaneous_critical_value(studentised, level)
    return np.column_stack([estimate - critical * spread, estimate + critical * spread])


def _draw_p_values(draws: FloatArray, null: float) -> FloatArray:
    below = (draws < null).mean(axis=0) + 0.5 * (draws == null).mean(axis=0)
    tail = np.maximum(np.minimum(below, 1.0 - below), 0.5 / len(draws))
    return np.where(np.isnan(draws).any(axis=0), np.nan, np.minimum(2.0 * tail, 1.0))


def resampled_gaps(
    audit: Audit, metric: GroupMetric, kind: str, method: str, n_draws: int
) -> GapEstimates:
    """Percentile or BCa intervals from the tensor bootstrap."""
    gaps = pairwise_gaps(metric, audit.model.fit.G, audit.model.data.n_effective, kind)
    draws = gap_values(metric, bootstrap_joint(audit, n_draws), kind)
    known = np.isfinite(gaps.values)
    usable = np.isfinite(draws[:, known]).all(axis=1)
    if not usable.all():
        warn(
            f"{int((~usable).sum())} of {len(draws)} bootstrap tables have no solution; the "
            "interval rests on the others and is too narrow. Use model='joint'.",
            WeakIdentificationWarning,
        )
    draws = draws[usable]
    draws[:, ~known] = np.nan
    with np.errstate(invalid="ignore"):
        vcov = np.atleast_2d(np.cov(draws, rowvar=False))
    interval: Callable[[float], FloatArray]
    if method == "bca":
        left_out, count = jackknife_joint(audit)
        jackknife = gap_values(metric, left_out, kind)
        interval = partial(bca_interval, gaps.values, draws, jackknife, count)
    else:
        interval = partial(_percentiles, draws)
    return GapEstimates(
        gaps.values,
        vcov,
        gaps.names,
        interval,
        p_values=partial(_draw_p_values, draws),
        method=method,
        reasons=gaps.reasons,
        simultaneous=partial(_max_t, gaps.values, draws),
        null=NULL[kind],
    )


def _profile_all(
    audit: Audit, targets: Sequence[Target | None], errors: FloatArray, level: float
) -> FloatArray:
    out = np.full((len(targets), 2), np.nan)
    for t, target in enumerate(targets):
        if target is not None:
            out[t] = profile_interval(audit.model, target, float(errors[t]), level)
    return out


def _profile_p_values(audit: Audit, targets: Sequence[Target | None], null: float) -> FloatArray:
    from scipy.special import chdtrc

    out = np.full(len(targets), np.nan)
    for t, target in enumerate(targets):
        if target is not None:
            deviance = max(profile_deviance(audit.model, target, null), 0.0)
            out[t] = chdtrc(reference_df(audit.model), deviance)
    return out


def profile_gaps(
    audit: Audit, law: JointCovariance, metric: GroupMetric, kind: str
) -> GapEstimates:
    """Profile-likelihood intervals of every pairwise gap.

    Raises
    ------
    ParameterError
        The model is not a likelihood fit, or rows are weighted or clustered.
    """
    if not is_likelihood(audit.model) or audit.weighted or audit.units is not None:
        raise ParameterError(
            "interval='profile' needs a likelihood fit of independent, unweighted rows; use "
            "interval='bootstrap', which also handles weights, clusters and moment estimators."
        )
    gaps = pairwise_gaps(metric, audit.model.fit.G, audit.model.data.n_effective, kind)
    wald = delta_estimates(audit, gaps, law)
    targets = [
        None if reason is not None else Target(metric, component, b, a, kind)
        for reason, component, (b, a) in zip(gaps.reasons, gaps.components, gaps.pairs, strict=True)
    ]
    return GapEstimates(
        gaps.values,
        wald.vcov,
        gaps.names,
        partial(_profile_all, audit, targets, wald.std_error),
        p_values=partial(_profile_p_values, audit, targets),
        method="profile",
        reasons=gaps.reasons,
        null=NULL[kind],
    )


def pairwise_estimates(
    audit: Audit,
    law: JointCovariance,
    metric: GroupMetric,
    kind: str,
    interval: str,
    n_draws: int,
) -> Any:
    """Signed gaps or ratios with the wanted kind of interval."""
    if interval == "delta":
        return wald_gaps(audit, law, metric, kind)
    if interval == "profile":
        return profile_gaps(audit, law, metric, kind)
    return resampled_gaps(audit, metric, kind, interval, n_draws)


def _absolute(intervals: FloatArray) -> FloatArray:
    """Range of |g| over an interval of g."""
    low, high = intervals.T
    inner = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    return np.column_stack([inner, np.maximum(np.abs(low), np.abs(high))])


def _scalar_interval(signed: Any, kind: str, level: float) -> FloatArray:
    ends = _absolute(signed.conf_int(level, simultaneous=True))
    pick = ends.max(axis=0) if kind == "max" else ends.mean(axis=0)
    return np.asarray(pick[None, :])


def scalar_gap(signed: Any, kind: str, label: str) -> GapEstimates:
    """Largest or mean absolute gap; its interval comes from simultaneous intervals of signed gaps.

    The absolute value has a kink at zero, so no standard error is reported. One comparison that
    cannot be made makes the scalar nan.
    """
    reasons = getattr(signed, "reasons", (None,) * len(signed.names))
    missing = [f"{n}: {r}" for n, r in zip(signed.names, reasons, strict=True) if r is not None]
    absolute = np.abs(signed.estimate)
    value = float(absolute.max() if kind == "max" else absolute.mean())
    return GapEstimates(
        [value],
        [[np.nan]],
        [f"{kind} |gap|, {label}"],
        partial(_scalar_interval, signed, kind),
        p_values=_no_p_value,
        method=f"simultaneous {getattr(signed, 'method', 'delta')}",
        reasons=[missing[0] if missing else None],
    )


def _no_p_value(null: float) -> FloatArray:
    del null
    return np.array([np.nan])


def headline_gaps(audit: Audit, law: JointCovariance, metrics: Sequence[str]) -> Any:
    """Differences of several metrics in one set of estimates."""
    data = audit.model.data
    described = [group_metric(name, data.n_pred, data.n_labels) for name in metrics]
    parts = [pairwise_gaps(m, audit.model.fit.G, data.n_effective, "difference") for m in described]
    names = [name for part in parts for name in part.names]
    values = np.concatenate([part.values for part in parts])
    if audit.draws is not None:
        draws = np.concatenate(
            [gap_values(m, audit.draws, "difference") for m in described], axis=1
        )
        return DrawEstimates(draws, names)
    jacobian = np.concatenate([p.gradient.reshape(len(p.values), -1) for p in parts])
    return smooth_estimates(audit, values, jacobian, names, law)
