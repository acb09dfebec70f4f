"""Compiled loops: multiplicative weights, conjunctions, binned sums, repeated attacks."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from causalfair._core.typing import BoolArray, FloatArray, IntArray

_UNIT = 1048576.0  # 2**20 units for the declared range


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


@njit(cache=True, nogil=True, error_model="numpy")
def product_sums(X: FloatArray, t: FloatArray, clip: float, out: IntArray) -> None:
    """Integer sums over rows of clip(x t) on the grid of 2**20 units, for every column of X."""
    n, q = X.shape
    scale = _UNIT / (2.0 * clip)
    for j in range(q):
        out[j] = 0
    for i in range(n):
        ti = t[i]
        for j in range(q):
            v = X[i, j] * ti
            if not v >= -clip:  # also NaN
                v = -clip
            elif v > clip:
                v = clip
            out[j] += np.int64((v + clip) * scale + 0.5)


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
