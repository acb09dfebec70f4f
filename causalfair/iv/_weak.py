"""Inference that survives weak identification, and the strength of identification.

Works on the constant-effect (variance-weighted) estimand
``theta_w = E[(Z-pi) r_A r_Y]/E[(Z-pi) r_A^2]``, which equals the average effect when the effect
does not vary with X and never divides by ``D(X)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from causalfair._core.typing import FloatArray
from causalfair.iv._scores import IVNuisances, weighted_mean

__all__ = [
    "RatioMoments",
    "Relevance",
    "ratio_moments",
    "relevance",
    "robust_set",
]


@dataclass(frozen=True, slots=True)
class RatioMoments:
    """Moments of the constant-effect estimand ``mean(u)/mean(v)``.

    Attributes
    ----------
    u, v : (n,)
        ``(Z-pi)(r_A r_Y - q_Y)`` and ``(Z-pi)(r_A^2 - q_A)``; the q's remove the first-order effect
        of estimating ``pi``.
    """

    u: FloatArray
    v: FloatArray


def ratio_moments(z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances) -> RatioMoments:
    """Row-level moments u and v of the constant-effect estimand."""
    treated = z > 0.5
    r_a = a - np.where(treated, nu.lam1, nu.lam0)
    r_y = y - np.where(treated, nu.outcome1, nu.outcome0)
    s = z - nu.pi
    return RatioMoments(s * (r_a * r_y - nu.mean_covariance), s * (r_a**2 - nu.mean_variance))


def robust_set(
    u_bar: float, v_bar: float, vcov: FloatArray, critical: float
) -> list[tuple[float, float]]:
    """Fieller set for ``u_bar/v_bar``.

    All b with ``(u_bar - b v_bar)^2 <= critical^2 Var(u_bar - b v_bar)``.

    Parameters
    ----------
    u_bar, v_bar
        Means of the two moments.
    vcov : (2, 2)
        Covariance matrix of ``(u_bar, v_bar)``, so clusters and weights are already in it.
    critical
        Half-width of an interval in standard errors: 1.96 for 95 %, more with few clusters.

    Returns
    -------
    list of (low, high)
        One bounded interval; or two half-lines; or the whole line ``[(-inf, inf)]`` when the data
        cannot tell.
    """
    c = critical**2
    lead = v_bar**2 - c * vcov[1, 1]
    half = u_bar * v_bar - c * vcov[0, 1]
    const = u_bar**2 - c * vcov[0, 0]
    if lead == 0.0:
        if half == 0.0:
            return [(-np.inf, np.inf)] if const <= 0.0 else []
        edge = const / (2.0 * half)
        return [(edge, np.inf)] if half > 0.0 else [(-np.inf, edge)]
    discriminant = half**2 - lead * const
    if discriminant < 0.0:
        # lead > 0 makes the quadratic negative at u_bar/v_bar, so only rounding leads here with it.
        return [(-np.inf, np.inf)] if lead < 0.0 else [(half / lead, half / lead)]
    # Stable roots: never subtract two close numbers.
    q = half + np.copysign(np.sqrt(discriminant), half)
    roots = sorted((q / lead, const / q)) if q != 0.0 else [0.0, 0.0]
    low, high = float(roots[0]), float(roots[1])
    if lead > 0.0:
        return [(low, high)]
    return [(-np.inf, low), (high, np.inf)]


@dataclass(frozen=True, slots=True)
class Relevance:
    """How strongly the instrument shifts the variance of the treatment.

    Attributes
    ----------
    f_het
        ``mean(v)^2 / Var(mean(v))``, chi-squared with 1 df when there is no variance shift.
    p_value
        Of that test.
    breusch_pagan, breusch_pagan_p
        Studentised Breusch-Pagan statistic of the squared treatment residual on Z given X.
    first_stage_f
        Robust F of the instrument in the *mean* of the treatment given X. It says nothing about
        identification here and is shown because it is so often confused with it.
    variance0, variance1
        Mean squared treatment residual by arm of the instrument.
    lam0, lam1
        Mean fitted ``E[A|Z=z,X]``; for a binary treatment identification also fails when they add
        up to one.
    shift_quantiles
        Minimum, 5 %, 25 %, 50 %, 75 %, 95 % and maximum of ``|D(X)|``.
    share_opposite
        Share of rows whose ``D(X)`` has the sign opposite to the mean.
    share_floored
        Share of rows whose ``|D(X)|`` was raised to the floor.
    """

    f_het: float
    p_value: float
    breusch_pagan: float
    breusch_pagan_p: float
    first_stage_f: float
    variance0: float
    variance1: float
    lam0: float
    lam1: float
    shift_quantiles: tuple[float, ...]
    share_opposite: float
    share_floored: float
    binary_treatment: bool


def relevance(
    z: FloatArray,
    a: FloatArray,
    nu: IVNuisances,
    *,
    v: FloatArray,
    v_variance: float,
    weight: FloatArray | None = None,
) -> Relevance:
    """Strength of identification from nuisance values.

    Parameters
    ----------
    v : (n,)
        Moment v of :func:`ratio_moments`.
    v_variance
        Variance of the (weighted) mean of ``v``, with clusters where there are any.
    """
    treated = z > 0.5
    w = np.ones_like(z) if weight is None else weight
    r_sq = (a - np.where(treated, nu.lam1, nu.lam0)) ** 2
    s = z - nu.pi
    v_bar = float(weighted_mean(v, weight))
    f_het = _ratio(v_bar**2, v_variance)
    excess = r_sq - nu.mean_variance
    excess = excess - weighted_mean(excess, weight)
    bp = w.sum() * _ratio(
        float(weighted_mean(s * excess, weight)) ** 2,
        float(weighted_mean(s**2, weight) * weighted_mean(excess**2, weight)),
    )
    lam_bar = nu.pi * nu.lam1 + (1.0 - nu.pi) * nu.lam0
    first = s * (a - lam_bar)
    first_bar = float(weighted_mean(first, weight))
    first_var = float(np.mean((w * (first - first_bar)) ** 2)) / z.size
    positive = float(weighted_mean(nu.D, weight)) >= 0.0
    opposite = (nu.D < 0.0) if positive else (nu.D > 0.0)
    floored = np.zeros(z.size) if nu.floored is None else nu.floored.astype(np.float64)
    return Relevance(
        f_het=f_het,
        p_value=float(chdtrc(1.0, f_het)),
        breusch_pagan=float(bp),
        breusch_pagan_p=float(chdtrc(1.0, bp)),
        first_stage_f=_ratio(first_bar**2, first_var),
        variance0=_arm_mean(r_sq, w, ~treated),
        variance1=_arm_mean(r_sq, w, treated),
        lam0=float(weighted_mean(nu.lam0, weight)),
        lam1=float(weighted_mean(nu.lam1, weight)),
        shift_quantiles=tuple(
            float(q) for q in np.quantile(np.abs(nu.D), [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
        ),
        share_opposite=float(weighted_mean(opposite.astype(np.float64), weight)),
        share_floored=float(weighted_mean(floored, weight)),
        binary_treatment=nu.binary_treatment,
    )


def _ratio(numerator: float, denominator: float) -> float:
    if denominator > 0.0:
        return numerator / denominator
    return 0.0 if numerator == 0.0 else float("inf")


def _arm_mean(x: FloatArray, w: FloatArray, rows: NDArray[np.bool_]) -> float:
    return float(np.dot(x[rows], w[rows]) / w[rows].sum())
