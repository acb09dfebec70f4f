"""Sensitivity of the average effect to the two no-interaction conditions.

Both analyses are lines ``ATE(delta) = ATE + slope * delta`` whose slope is itself estimated, so its
influence values enter the intervals.

``"covariance"``
    ``omega_1 - omega_0 = delta``: an interaction of the instrument with the unmeasured causes.
    The identified value is ``beta + delta/D``, so the slope is ``-E[1/D]``.
``"modification"``
    ``Cov(beta(X,U), zeta(X,U)|X) = rho``: an unmeasured modifier of the effect that also drives a
    binary treatment. The slope is ``E[1/(1 - lam_0 - lam_1)]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.iv._scores import (
    IVNuisances,
    Scores,
    floor_variance_shift,
    instrument_weight,
    residuals,
    weighted_mean,
)

__all__ = [
    "Breakdown",
    "breakdown",
    "correlation_scale",
    "covariance_slope_scores",
    "modification_slope_scores",
    "score_slope",
]


def covariance_slope_scores(z: FloatArray, a: FloatArray, nu: IVNuisances) -> FloatArray:
    """Score of ``E[1/D]``: ``1/D - (2Z-1)/(f D^2) {(A-lam)^2 - V}``."""
    treated = z > 0.5
    r = a - np.where(treated, nu.lam1, nu.lam0)
    V = np.where(treated, nu.variance1, nu.variance0)
    return 1.0 / nu.D - instrument_weight(z, nu.pi) / nu.D**2 * (r**2 - V)


def modification_slope_scores(
    z: FloatArray, a: FloatArray, nu: IVNuisances, *, floor: float = 0.02
) -> FloatArray:
    """Score of ``E[1/s]`` with ``s = 1 - lam_0 - lam_1``, for a binary treatment.

    It is ``1/s + (A-lam)/(f s^2)``; ``|s|`` is raised to ``floor``.
    """
    treated = z > 0.5
    r = a - np.where(treated, nu.lam1, nu.lam0)
    s, _ = floor_variance_shift(1.0 - nu.lam0 - nu.lam1, floor)
    return 1.0 / s + np.abs(instrument_weight(z, nu.pi)) * r / s**2


def score_slope(score: FloatArray, sign: float, weight: FloatArray | None = None) -> Scores:
    """Slope of the sensitivity line; ``sign`` is -1 for ``"covariance"``, else 1."""
    estimate = sign * weighted_mean(score, weight)
    return Scores(("slope",), estimate[None], (sign * score - estimate)[:, None])


def correlation_scale(
    z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances, weight: FloatArray | None = None
) -> float:
    """Covariance at correlation one: mean ``sd(A|Z,X)`` times ``sd(Y - beta A|Z,X)``."""
    _, e = residuals(z, a, y, nu)
    V = np.where(z > 0.5, nu.variance1, nu.variance0)
    spread = weighted_mean(np.sqrt(np.maximum(V, 0.0)), weight)
    return float(spread * np.sqrt(weighted_mean(e**2, weight)))


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Where the conclusion turns.

    Attributes
    ----------
    zero
        Value of the sensitivity parameter at which the estimate is zero.
    interval
        Value nearest to zero at which the confidence interval covers zero; 0 when it already does,
        infinite when it never does.
    """

    zero: float
    interval: float


def breakdown(estimate: float, slope: float, vcov: FloatArray, critical: float) -> Breakdown:
    """Breakdown values of ``estimate + slope * delta`` given the joint covariance matrix.

    The interval, ``critical`` standard errors to each side, covers zero where
    ``(estimate + slope d)^2 <= c (V00 + 2 d V01 + d^2 V11)`` with ``c = critical^2``, a quadratic
    in ``d``.
    """
    c = critical**2
    zero = -estimate / slope if slope != 0.0 else float("inf")
    const = estimate**2 - c * vcov[0, 0]
    if const <= 0.0:
        return Breakdown(zero, 0.0)
    lead = slope**2 - c * vcov[1, 1]
    half = estimate * slope - c * vcov[0, 1]
    if lead == 0.0:
        return Breakdown(zero, -const / (2.0 * half) if half != 0.0 else float("inf"))
    discriminant = half**2 - lead * const
    if discriminant < 0.0:
        return Breakdown(zero, float("inf"))
    q = -(half + np.copysign(np.sqrt(discriminant), half))
    roots = (q / lead, const / q)
    return Breakdown(zero, float(min(roots, key=abs)))
