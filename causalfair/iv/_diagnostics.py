"""Overlap, balance and leverage: who is comparable, and which rows own the variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalfair._core.typing import FloatArray
from causalfair.iv._scores import IVNuisances, instrument_weight, weighted_mean

__all__ = [
    "LeverageRows",
    "OverlapSummary",
    "leverage_rows",
    "overlap_summary",
    "standardized_differences",
]


@dataclass(frozen=True, slots=True)
class OverlapSummary:
    """Overlap of the two arms of the instrument.

    Attributes
    ----------
    pi_quantiles
        Minimum, 1 %, 25 %, 50 %, 75 %, 99 % and maximum of ``P(Z=1|X)`` after clipping.
    share_clipped
        Share of rows whose probability was clipped.
    n0, n1
        Rows in each arm.
    effective0, effective1
        Kish effective sizes of the arms under the weights ``1/f``.
    largest_weight
        Largest ``1/(f |D|)``: the factor by which one row's residual product enters the estimate.
    """

    pi_quantiles: tuple[float, ...]
    share_clipped: float
    n0: int
    n1: int
    effective0: float
    effective1: float
    largest_weight: float


def overlap_summary(
    z: FloatArray, nu: IVNuisances, weight: FloatArray | None = None
) -> OverlapSummary:
    """Overlap summary from nuisance values."""
    treated = z > 0.5
    w = np.ones_like(z) if weight is None else weight
    inverse = np.abs(instrument_weight(z, nu.pi))
    clipped = np.zeros(z.size) if nu.clipped is None else nu.clipped.astype(np.float64)
    return OverlapSummary(
        pi_quantiles=tuple(
            float(q) for q in np.quantile(nu.pi, [0, 0.01, 0.25, 0.5, 0.75, 0.99, 1])
        ),
        share_clipped=float(weighted_mean(clipped, weight)),
        n0=int((~treated).sum()),
        n1=int(treated.sum()),
        effective0=_kish((w * inverse)[~treated]),
        effective1=_kish((w * inverse)[treated]),
        largest_weight=float(np.max(inverse / np.abs(nu.D))),
    )


def _kish(w: FloatArray) -> float:
    return float(w.sum() ** 2 / np.dot(w, w))


def standardized_differences(
    z: FloatArray, X: FloatArray, pi: FloatArray, weight: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Standardised mean differences of X between arms, before and after ``1/f`` weights.

    Both are divided by the unweighted pooled standard deviation ``sqrt((s0^2 + s1^2)/2)``; a
    constant column gives zero.
    """
    treated = z > 0.5
    w = np.ones_like(z) if weight is None else weight
    inverse = w * np.abs(instrument_weight(z, pi))

    def arm(rows: NDArray[np.bool_], by: FloatArray) -> FloatArray:
        return np.asarray(by[rows] @ X[rows] / by[rows].sum())

    m0, m1 = arm(~treated, w), arm(treated, w)
    v0 = w[~treated] @ (X[~treated] - m0) ** 2 / w[~treated].sum()
    v1 = w[treated] @ (X[treated] - m1) ** 2 / w[treated].sum()
    pooled = np.sqrt((v0 + v1) / 2.0)
    scale = np.where(pooled > 0.0, pooled, 1.0)
    return (m1 - m0) / scale, (arm(treated, inverse) - arm(~treated, inverse)) / scale


@dataclass(frozen=True, slots=True)
class LeverageRows:
    """The rows with the largest share of the variance, in decreasing order.

    Attributes
    ----------
    row : (k,)
        Row numbers, from 0, in the order of the data.
    share : (k,)
        Share of the sum of squared influence values.
    influence : (k,)
        ``phi_i - ATE``.
    factor : (k,)
        ``1/(f |D|)``.
    leave_out : (k,)
        Estimate without that row, nuisances unchanged.
    """

    row: NDArray[np.intp]
    share: FloatArray
    influence: FloatArray
    factor: FloatArray
    leave_out: FloatArray


def leverage_rows(
    z: FloatArray,
    nu: IVNuisances,
    phi: FloatArray,
    weight: FloatArray | None = None,
    top: int = 5,
) -> LeverageRows:
    """Rows that own the variance of the average effect."""
    w = np.ones_like(z) if weight is None else weight
    estimate = float(weighted_mean(phi, weight))
    influence = phi - estimate
    squared = (w * influence) ** 2
    total = squared.sum()
    share = squared / total if total > 0.0 else squared
    # A stable sort, so that ties keep the order of the data.
    row = np.argsort(-share, kind="stable")[:top]
    factor = np.abs(instrument_weight(z, nu.pi)) / np.abs(nu.D)
    leave_out = (w.sum() * estimate - w[row] * phi[row]) / (w.sum() - w[row])
    return LeverageRows(row, share[row], influence[row], factor[row], leave_out)
