"""Random convolutional features: sums of rectified responses, response maps never stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["rectified_means"]

FAST = {"contract", "reassoc", "arcp", "nsz"}
LANES = 4


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _respond(patches: Any, filters: Any, acc: Any) -> None:
    """acc[l, k] = sum_j patches[l, j] filters[j, k] for four patches; d is a multiple of four."""
    d, K = filters.shape
    for k in range(K):
        acc[0, k] = np.float32(0.0)
        acc[1, k] = np.float32(0.0)
        acc[2, k] = np.float32(0.0)
        acc[3, k] = np.float32(0.0)
    for j in range(0, d, 4):
        a0, a1, a2, a3 = patches[0, j], patches[0, j + 1], patches[0, j + 2], patches[0, j + 3]
        b0, b1, b2, b3 = patches[1, j], patches[1, j + 1], patches[1, j + 2], patches[1, j + 3]
        c0, c1, c2, c3 = patches[2, j], patches[2, j + 1], patches[2, j + 2], patches[2, j + 3]
        e0, e1, e2, e3 = patches[3, j], patches[3, j + 1], patches[3, j + 2], patches[3, j + 3]
        for k in range(K):
            f0 = filters[j, k]
            f1 = filters[j + 1, k]
            f2 = filters[j + 2, k]
            f3 = filters[j + 3, k]
            acc[0, k] += a0 * f0 + a1 * f1 + a2 * f2 + a3 * f3
            acc[1, k] += b0 * f0 + b1 * f1 + b2 * f2 + b3 * f3
            acc[2, k] += c0 * f0 + c1 * f1 + c2 * f2 + c3 * f3
            acc[3, k] += e0 * f0 + e1 * f1 + e2 * f2 + e3 * f3


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _rectify(acc: Any, bias: Any, positive: Any, negative: Any) -> None:
    """Add rectified responses of four patches; an empty lane has response 0 and adds nothing."""
    zero = np.float32(0.0)
    for k in range(positive.size):
        up = zero
        down = zero
        for lane in range(LANES):
            z = acc[lane, k]
            up += max(z - bias, zero)
            down += max(-z - bias, zero)
        positive[k] += up
        negative[k] += down


@njit(cache=True, nogil=True, error_model="numpy")
def _window_valid(valid: Any, u: int, v: int, size: int) -> bool:
    for i in range(size):
        for j in range(size):
            if not valid[u + i, v + j]:
                return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def rectified_means(
    pixels: Any, valid: Any, filters: Any, size: int, bias: Any, grid: int, share: float, out: Any
) -> None:
    """Means over valid positions of max(z - bias, 0) and max(-z - bias, 0).

    pixels (f, H, W, C) float32, valid (f, H, W) bool, filters (d4, K) float32 with d4 the patch
    length padded by zero rows to a multiple of four, out (f, grid * grid * 2 * K) float32. Sums are
    float32 within a row of a cell and float64 across rows. A frame with fewer valid positions than
    ``share`` of all, or a cell with none, gives NaN throughout the frame.
    """
    n, H, W, C = pixels.shape
    d4, K = filters.shape
    Ho = H - size + 1
    Wo = W - size + 1
    cells = grid * grid
    total = np.empty((cells, 2 * K), dtype=np.float64)
    count = np.empty(cells, dtype=np.int64)
    positive = np.empty(K, dtype=np.float32)
    negative = np.empty(K, dtype=np.float32)
    patches = np.zeros((LANES, d4), dtype=np.float32)
    acc = np.empty((LANES, K), dtype=np.float32)
    width = size * C
    rows = pixels.reshape(n, H, W * C)  # a patch's row of pixels and bands is one run of numbers
    for frame in range(n):
        total[:] = 0.0
        count[:] = 0
        whole = np.all(valid[frame])
        for u in range(Ho):
            for across in range(grid):
                cell = (u * grid) // Ho * grid + across
                first = (across * Wo + grid - 1) // grid
                last = ((across + 1) * Wo + grid - 1) // grid
                positive[:] = np.float32(0.0)
                negative[:] = np.float32(0.0)
                lane = 0
                for v in range(first, last):
                    if not (whole or _window_valid(valid[frame], u, v, size)):
                        continue
                    for i in range(size):
                        for q in range(width):
                            patches[lane, i * width + q] = rows[frame, u + i, v * C + q]
                    lane += 1
                    count[cell] += 1
                    if lane == LANES:
                        _respond(patches, filters, acc)
                        _rectify(acc, bias, positive, negative)
                        lane = 0
                if lane > 0:
                    patches[lane:] = np.float32(0.0)
                    _respond(patches, filters, acc)
                    _rectify(acc, bias, positive, negative)
                for k in range(K):
                    total[cell, k] += positive[k]
                    total[cell, K + k] += negative[k]
        seen = count.sum()
        if seen < share * Ho * Wo or seen == 0 or count.min() == 0:
            out[frame] = np.nan
        else:
            for cell in range(cells):
                for k in range(2 * K):
                    out[frame, cell * 2 * K + k] = total[cell, k] / count[cell]
