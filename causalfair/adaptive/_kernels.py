"""Compiled loops: multiplicative weights, conjunctions, binned sums, repeated attacks."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from causalfair._core.typing import BoolArray, FloatArray, IntArray

_HALF = 524288.0  # half of the 2**20 units of the declared range


@njit(cache=True, nogil=True, error_model="numpy")
def update_binary(
    weights: FloatArray, f: BoolArray, inside: float, step: float, out: FloatArray
) -> None:
    """Multiply the cells where f holds by exp(step) and normalise: one product a cell.

    `inside` is the weight of those cells, which the caller knows from answering the query; the
    weights sum to one.
    """
    factor = math.exp(step)
    total = inside * factor + (1.0 - inside)
    low = 1.0 / total
    more = factor / total - low
    for i in range(weights.size):
        out[i] = weights[i] * (low + more * f[i])


@njit(cache=True, nogil=True, error_model="numpy")
def conjunction_mean(weights: FloatArray, mask: int) -> float:
    """Sum of the weights of all cells that contain every bit of mask (submask walk)."""
    full = weights.size - 1
    rest = full & ~mask
    total = 0.0
    sub = rest
    while True:
        total += weights[mask | sub]
        if sub == 0:
            break
        sub = (sub - 1) & rest
    return float(total)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _whole_units(x: float, centre: float, scale: float, t: float) -> np.int64:
    """A standardised product in whole units above its lower end; what is missing counts as lo."""
    v = (x - centre) * scale * t
    v = v if v >= -_HALF else -_HALF
    v = v if v <= _HALF else _HALF
    return np.int64(v + (_HALF + 0.5))


@njit(cache=True, nogil=True, error_model="numpy")
def product_sums(
    X: FloatArray, centre: FloatArray, scale: FloatArray, t: FloatArray, clip: float, out: IntArray
) -> None:
    """Integer sums over rows of clip((x - centre) scale t) on the grid of 2**20 units, by column.

    Four rows at a time, so that what belongs to a column is read once for them.
    """
    n, q = X.shape
    unit = _HALF / clip
    whole = n // 4 * 4
    out[:] = 0
    for i in range(0, whole, 4):
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        t0, t1, t2, t3 = t[i] * unit, t[i + 1] * unit, t[i + 2] * unit, t[i + 3] * unit
        for j in range(q):
            c, s = centre[j], scale[j]
            first = _whole_units(x0[j], c, s, t0) + _whole_units(x1[j], c, s, t1)
            out[j] += first + _whole_units(x2[j], c, s, t2) + _whole_units(x3[j], c, s, t3)
    for i in range(whole, n):
        for j in range(q):
            out[j] += _whole_units(X[i, j], centre[j], scale[j], t[i] * unit)


@njit(cache=True, nogil=True, error_model="numpy")
def majority_accuracy(agree: BoolArray, weights: FloatArray) -> float:
    """Share of records whose weighted vote over agreement bits is positive; ties count one half."""
    n, k = agree.shape
    total = 0.0
    for i in range(n):
        score = 0.0
        for j in range(k):
            score += weights[j] if agree[i, j] else -weights[j]
        if score > 0:
            total += 1.0
        elif score == 0:
            total += 0.5
    return float(total / n)
