"""Partial identification: Frechet bounds and one-probability estimators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class BoundPieces:
    """Lower and upper bound of one gap and the influence of each row on both.

    ``influence`` (n, 2): columns for the lower and the upper bound.
    """

    low: float
    high: float
    influence: FloatArray


@dataclass(frozen=True, slots=True)
class _Mean:
    """A weighted mean with the influence of each row on it."""

    value: float
    influence: FloatArray

    @staticmethod
    def of(values: FloatArray, weight: FloatArray) -> _Mean:
        mean = float(np.average(values, weights=weight))
        return _Mean(mean, weight / weight.mean() * (values - mean))

    def __add__(self, other: _Mean) -> _Mean:
        return _Mean(self.value + other.value, self.influence + other.influence)

    def __sub__(self, other: _Mean) -> _Mean:
        return _Mean(self.value - other.value, self.influence - other.influence)

    def __truediv__(self, other: _Mean) -> _Mean:
        ratio = self.value / other.value
        return _Mean(ratio, (self.influence - ratio * other.influence) / other.value)


@dataclass(frozen=True, slots=True)
class Signal:
    """A conditional probability given Z and, where it was fitted, its residual.

    ``value`` (n,) is P(event | Z); ``residual`` (n,) is 1{event} - value, or zero where the
    probability is known or the event unseen. Residuals of the selected branch remove the
    first-order bias of a fitted probability and carry its sampling noise.
    """

    value: FloatArray
    residual: FloatArray

    @staticmethod
    def known(value: FloatArray) -> Signal:
        """A probability taken as known."""
        return Signal(value, np.zeros(len(value)))

    def mean(self, weight: FloatArray) -> _Mean:
        """E of the event."""
        return _Mean.of(self.value + self.residual, weight)


def frechet_masses(group: Signal, rate: Signal, weight: FloatArray) -> tuple[_Mean, _Mean]:
    """Bounds of P(A = a, event): E max(0, a + r - 1) and E min(a, r), by row influence."""
    both = group.value + rate.value > 1.0
    lower = np.where(both, group.value + rate.value - 1.0 + group.residual + rate.residual, 0.0)
    upper = np.where(
        rate.value <= group.value, rate.value + rate.residual, group.value + group.residual
    )
    return _Mean.of(lower, weight), _Mean.of(upper, weight)


def parity_bounds(
    group_b: Signal, group_a: Signal | None, rate: Signal, weight: FloatArray
) -> BoundPieces:
    """Sharp bounds of P(f=1|b) - P(f=1|a); ``group_a`` None means everybody else."""
    low_b, high_b = frechet_masses(group_b, rate, weight)
    share_b = group_b.mean(weight)
    if group_a is None:
        total = rate.mean(weight)
        rest = Signal(1.0 - group_b.value, -group_b.residual).mean(weight)
        low = low_b / share_b - (total - low_b) / rest
        high = high_b / share_b - (total - high_b) / rest
    else:
        low_a, high_a = frechet_masses(group_a, rate, weight)
        share_a = group_a.mean(weight)
        low = low_b / share_b - high_a / share_a
        high = high_b / share_b - low_a / share_a
    return BoundPieces(low.value, high.value, np.stack([low.influence, high.influence], axis=1))


def label_rate_bounds(
    group_b: Signal,
    group_a: Signal | None,
    positive: Signal,
    negative: Signal,
    weight: FloatArray,
) -> BoundPieces:
    """Sharp bounds of a gap in P(f=1|Y=y, group), from P(f=1, Y=y|Z) and P(f=0, Y=y|Z)."""
    low1_b, high1_b = frechet_masses(group_b, positive, weight)
    low0_b, high0_b = frechet_masses(group_b, negative, weight)
    if group_a is None:
        total1, total0 = positive.mean(weight), negative.mean(weight)
        low1_a, high1_a = total1 - high1_b, total1 - low1_b
        low0_a, high0_a = total0 - high0_b, total0 - low0_b
    else:
        low1_a, high1_a = frechet_masses(group_a, positive, weight)
        low0_a, high0_a = frechet_masses(group_a, negative, weight)
    high = high1_b / (high1_b + low0_b) - low1_a / (low1_a + high0_a)
    low = low1_b / (low1_b + high0_b) - high1_a / (high1_a + low0_a)
    return BoundPieces(low.value, high.value, np.stack([low.influence, high.influence], axis=1))


def imbens_manski(
    low: float, high: float, se_low: float, se_high: float, level: float
) -> tuple[float, float]:
    """Confidence interval for the parameter inside [low, high] (Imbens & Manski 2004).

    The critical value c solves Phi(c + (high - low) / max se) - Phi(-c) = level.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    width = max(high - low, 0.0)
    largest = max(se_low, se_high)
    if largest == 0.0:
        return low, high
    ratio = width / largest
    c = brentq(lambda x: norm.cdf(x + ratio) - norm.cdf(-x) - level, 0.0, 10.0)
    return low - c * se_low, high + c * se_high


@dataclass(frozen=True, slots=True)
class WeightedMeans:
    """Group means by weighting with probabilities, and the influence of rows: (K,), (n, K)."""

    values: FloatArray
    influence: FloatArray


def weighted_means(
    probability: FloatArray, outcome: FloatArray, weight: FloatArray
) -> WeightedMeans:
    """Sum_i b_ia O_i / Sum_i b_ia for each group; probability (n, K)."""
    mass = probability * weight[:, None]
    share = mass.mean(axis=0)
    values = (mass * outcome[:, None]).mean(axis=0) / share
    influence = mass * (outcome[:, None] - values) / share
    return WeightedMeans(values, influence)


def regression_slope(
    probability: FloatArray, outcome: FloatArray, weight: FloatArray
) -> tuple[float, FloatArray]:
    """Slope Cov(O, b) / Var(b) and the influence of rows (heteroscedasticity-robust)."""
    w = weight / weight.mean()
    centred = probability - np.average(probability, weights=w)
    variance = float(np.mean(w * centred**2))
    level = np.average(outcome, weights=w)
    slope = float(np.mean(w * centred * (outcome - level)) / variance)
    residual = outcome - level - slope * centred
    return slope, w * centred * residual / variance


def within_covariance(
    outcome: FloatArray, truth: FloatArray, probability: FloatArray, n_bins: int = 10
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Estimate E Cov(O, A | b) (in bins of b) and E Cov(O, b | A) on audited rows.

    Returns ((covariance, std. error), (covariance, std. error)). Weighted <= truth <= linear holds
    when both are non-negative.
    """
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, n_bins + 1)[1:-1]))
    by_bin = np.searchsorted(edges, probability, side="right").astype(np.intp)
    return (
        _mean_covariance(outcome, truth, by_bin),
        _mean_covariance(outcome, probability, truth.astype(np.intp)),
    )


def _mean_covariance(
    first: FloatArray, second: FloatArray, stratum: IntArray
) -> tuple[float, float]:
    product = np.zeros(len(first))
    for value in np.unique(stratum):
        rows = stratum == value
        product[rows] = (first[rows] - first[rows].mean()) * (second[rows] - second[rows].mean())
    return float(product.mean()), float(product.std(ddof=1) / np.sqrt(len(product)))
