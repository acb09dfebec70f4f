"""Pareto-smoothed importance weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray


def smoothed_log_weights(log_weight: FloatArray) -> tuple[FloatArray, float]:
    """Smooth the largest weights (Vehtari et al. 2024) and give the shape of their tail."""
    shifted = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    shifted = shifted - shifted.max()
    n = len(shifted)
    n_tail = int(min(0.2 * n, 3 * np.sqrt(n)))
    order = np.argsort(shifted, kind="stable")
    tail, cutoff = order[n - n_tail :], shifted[order[n - n_tail - 1]]
    excess = np.exp(shifted[tail]) - np.exp(cutoff)
    if excess[0] <= 0:
        return shifted, 0.0
    shape, scale = pareto_fit(excess)
    p = (np.arange(1, n_tail + 1) - 0.5) / n_tail
    quantile = scale * np.expm1(-shape * np.log1p(-p)) / shape
    smoothed = shifted.copy()
    smoothed[tail] = np.minimum(np.log(quantile + np.exp(cutoff)), 0.0)
    return smoothed, shape


def pareto_fit(excess: FloatArray) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto law (Zhang and Stephens 2009), weakly regularised."""
    x = np.sort(excess)
    n = len(x)
    m = 30 + int(np.sqrt(n))
    quarter = x[int(n / 4 + 0.5) - 1]
    b = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quarter)
    k = np.log1p(-b[:, None] * x).mean(axis=1)
    profile = n * (np.log(-b / k) - k - 1)
    weight = np.exp(profile - profile.max())
    centre = float((b * weight).sum() / weight.sum())
    shape = float(np.log1p(-centre * x).mean())
    scale = -shape / centre
    return float((n * shape + 5.0) / (n + 10.0)), scale
