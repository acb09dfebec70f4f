"""What happens to a gap when an independence assumption is relaxed by a stated amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import ParameterError
from causalfair.fairness._moments import binary_moments, solve_binary
from causalfair.fairness._optimise import linear_programme

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray
    from causalfair.fairness._metrics import GroupMetric

PAIRS = ((0, 1), (0, 2), (1, 2))


def decision_dependence_bounds(
    joint: FloatArray,
    transition: FloatArray,
    prevalence: FloatArray,
    gamma: float,
    contrast: FloatArray,
) -> tuple[float, float]:
    """Range of a linear functional of P(A, f) when P(proxy | A, f) may differ from T by ``gamma``.

    Parameters
    ----------
    joint : (L, n_pred) array
        Observed P(proxy = c, f = k).
    transition : (K, L) array
    prevalence : (K,) array
    gamma : float
        Largest |P(proxy = c | A = a, f = k) - T[a, c]|.
    contrast : (K, n_pred) array
        Weights of P(A = a, f = k).

    Returns
    -------
    low, high : float
        nan where no distribution is compatible.
    """
    n_groups, n_levels = transition.shape
    n_pred = joint.shape[1]
    shape = (n_groups, n_pred, n_levels)
    index = np.arange(np.prod(shape)).reshape(shape)
    size = index.size
    equal, right = [], []
    for c in range(n_levels):
        for k in range(n_pred):
            row = np.zeros(size)
            row[index[:, k, c]] = 1.0
            equal.append(row)
            right.append(joint[c, k])
    for a in range(n_groups):
        for c in range(n_levels):
            row = np.zeros(size)
            row[index[a, :, c]] = 1.0
            equal.append(row)
            right.append(prevalence[a] * transition[a, c])
    unequal = []
    for a in range(n_groups):
        for k in range(n_pred):
            for c in range(n_levels):
                for sign in (1.0, -1.0):
                    row = np.zeros(size)
                    row[index[a, k, :]] = -sign * transition[a, c] - gamma
                    row[index[a, k, c]] += sign
                    unequal.append(row)
    objective = np.repeat(contrast.ravel(), n_levels)
    ends = []
    for sign in (1.0, -1.0):
        solved = linear_programme(
            sign * objective,
            at_most=(np.array(unequal), np.zeros(len(unequal))),
            equal=(np.array(equal), np.array(right)),
        )
        ends.append(np.nan if solved is None else sign * solved[1])
    return ends[0], ends[1]


def gap_contrast(prevalence: FloatArray, b: int, a: int, decision: int, n_pred: int) -> FloatArray:
    """Weights of P(A, f) that give P(f = decision | b) - P(f = decision | a)."""
    contrast = np.zeros((len(prevalence), n_pred))
    contrast[b, decision] = 1.0 / prevalence[b]
    contrast[a, decision] = -1.0 / prevalence[a]
    return contrast


@dataclass(frozen=True, slots=True)
class DependenceCurve:
    """Gap as a function of an assumed within-group covariance of a pair of proxies.

    ``covariance`` (g,), ``gap`` (g,), ``prevalence`` (g,); ``largest`` is the largest covariance
    that keeps every probability in [0, 1]; ``pair`` the proxies.
    """

    pair: tuple[int, int]
    covariance: FloatArray
    gap: FloatArray
    prevalence: FloatArray
    largest: float

    def value_for(self, target: float) -> float:
        """Covariance at which the gap equals ``target``; nan when the curve does not reach it."""
        shifted = self.gap - target
        cross = np.flatnonzero(shifted[:-1] * shifted[1:] <= 0)
        if not cross.size:
            return float("nan")
        i = int(cross[0])
        if shifted[i + 1] == shifted[i]:
            return float(self.covariance[i])
        t = shifted[i] / (shifted[i] - shifted[i + 1])
        return float(self.covariance[i] + t * (self.covariance[i + 1] - self.covariance[i]))


def corrected_joint(
    strata_tensor: FloatArray, pair: tuple[int, int] | None, covariance: float, skew: float = 0.0
) -> tuple[float, FloatArray, FloatArray]:
    """Closed form with a within-class covariance of one pair taken off.

    Parameters
    ----------
    strata_tensor : (S, 2, 2, 2) array
        Counts by stratum.
    pair : (int, int) or None
        The dependent pair; None corrects nothing.
    covariance : float
        Cov(X_i, X_j | A) in both classes; a difference between the classes enters through ``skew``.

    Returns
    -------
    p1 : float
    probability : (3, 2) array
        P(X_j = 1 | A = a).
    G : (S, 2) array
        Mean over the proxies of the calibration of each one's margin.
    """
    dependence = np.zeros(3)
    if pair is not None:
        dependence[PAIRS.index((min(pair), max(pair)))] = covariance
    pooled = strata_tensor.sum(axis=0)
    p1, high = solve_binary(binary_moments(pooled), dependence=dependence, skew=skew)
    # every proxy's own margin identifies G once its error rates are right: average the three
    found = []
    for j in range(3):
        axes = tuple(1 + v for v in range(3) if v != j)
        margin = strata_tensor.sum(axis=axes) / strata_tensor.sum()
        table = np.stack([1.0 - high[j], high[j]], axis=1)
        if np.isfinite(table).all() and abs(np.linalg.det(table)) > 1e-12:
            found.append(margin @ np.linalg.inv(table))
    G = np.mean(found, axis=0) if found else np.full((len(strata_tensor), 2), np.nan)
    return float(p1), np.asarray(high), G


def dependence_curve(
    strata_tensor: FloatArray,
    pair: tuple[int, int],
    metric: GroupMetric,
    *,
    component: int = 0,
    n_points: int = 41,
) -> DependenceCurve:
    """Sweep the within-group covariance of a pair of binary proxies from 0 to its upper limit."""
    moments = binary_moments(strata_tensor.sum(axis=0))
    position = PAIRS.index((min(pair), max(pair)))
    ceiling = float(moments.pair[position])
    if not ceiling > 0:
        raise ParameterError(
            f"Proxies {pair[0]} and {pair[1]} have covariance {ceiling:.3g}; the sweep needs a "
            "positive one."
        )

    def feasible(c: float) -> bool:
        p1, high, G = corrected_joint(strata_tensor, pair, c)
        inside = bool(np.isfinite(p1)) and bool(((high >= 0) & (high <= 1)).all())
        return inside and bool((G >= -1e-12).all())

    low, high = 0.0, ceiling
    if feasible(0.0):
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if feasible(middle) else (low, middle)
    grid = np.linspace(0.0, low, n_points)
    gaps, shares = np.empty(n_points), np.empty(n_points)
    for i, c in enumerate(grid):
        p1, _, G = corrected_joint(strata_tensor, pair, float(c))
        values = metric.values(G)
        gaps[i] = values[component, 1] - values[component, 0]
        shares[i] = p1
    return DependenceCurve(pair, grid, gaps, shares, low)


def break_even(
    joint: FloatArray,
    transition: FloatArray,
    prevalence: FloatArray,
    contrast: FloatArray,
    *,
    null: float = 0.0,
    tol: float = 1e-5,
) -> float:
    """Smallest gamma at which the range of a gap includes ``null``; 1 when it never does."""
    start = decision_dependence_bounds(joint, transition, prevalence, 0.0, contrast)
    if np.isfinite(start[0]) and start[0] <= null <= start[1]:
        return 0.0
    low, high = 0.0, 1.0
    end = decision_dependence_bounds(joint, transition, prevalence, 1.0, contrast)
    if not end[0] <= null <= end[1]:
        return 1.0
    while high - low > tol:
        middle = 0.5 * (low + high)
        ends = decision_dependence_bounds(joint, transition, prevalence, middle, contrast)
        covered = np.isfinite(ends[0]) and ends[0] <= null <= ends[1]
        low, high = (low, middle) if covered else (middle, high)
    return high


def plot_curves(curves: Sequence[DependenceCurve], ax: Any) -> Any:
    """Draw one line a pair of proxies."""
    for curve in curves:
        i, j = curve.pair
        ax.plot(curve.covariance, curve.gap, label=f"proxies {i + 1} and {j + 1}")
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    ax.set_xlabel("covariance of the two proxies within groups")
    ax.set_ylabel("gap")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
