"""Random convolutional features: sums of rectified responses, response maps never stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["rectified_means"]

FAST = {"contract", "reassoc", "arcp", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _rectify(response: Any, bias: Any, positive: Any, negative: Any) -> None:
    """Add the rectified responses (m, K) of a row of positions."""
    zero = np.float32(0.0)
    for position in range(response.shape[0]):
        for k in range(positive.size):
            z = response[position, k]
            positive[k] += max(z - bias, zero)
            negative[k] += max(-z - bias, zero)


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

    pixels (f, H, W, C) float32, valid (f, H, W) bool, filters (d, K) float32 with d the length of a
    patch, out (f, grid * grid * 2 * K) float32. The responses of one row of positions are a matrix
    product, for which BLAS is twice as fast as a loop; callers limit it to one thread. Sums are
    float32 within a row of a cell and float64 across rows. A frame with fewer valid positions than
    ``share`` of all, or a cell with none, gives NaN throughout the frame.
    """
    n, H, W, C = pixels.shape
    d, K = filters.shape
    Ho = H - size + 1
    Wo = W - size + 1
    cells = grid * grid
    total = np.empty((cells, 2 * K), dtype=np.float64)
    count = np.empty(cells, dtype=np.int64)
    positive = np.empty(K, dtype=np.float32)
    negative = np.empty(K, dtype=np.float32)
    patches = np.empty((Wo, d), dtype=np.float32)
    response = np.empty((Wo, K), dtype=np.float32)
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
                seen = 0
                for v in range(first, last):
                    if not (whole or _window_valid(valid[frame], u, v, size)):
                        continue
                    for i in range(size):
                        for q in range(width):
                            patches[seen, i * width + q] = rows[frame, u + i, v * C + q]
                    seen += 1
                if seen == 0:
                    continue
                count[cell] += seen
                np.dot(patches[:seen], filters, response[:seen])
                positive[:] = np.float32(0.0)
                negative[:] = np.float32(0.0)
                _rectify(response[:seen], bias, positive, negative)
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
