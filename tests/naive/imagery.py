"""Obvious twins of the imagery family."""

from __future__ import annotations

import numpy as np


def rectified_means(pixels, valid, filters, bias, grid=1, share=0.2):
    """Loops over positions in float64; filters (K, P, P, C)."""
    pixels = np.asarray(pixels, float)
    n, H, W, _ = pixels.shape
    K, P = filters.shape[:2]
    Ho, Wo = H - P + 1, W - P + 1
    out = np.full((n, grid, grid, 2 * K), np.nan)
    for f in range(n):
        cells = {}
        for u in range(Ho):
            for v in range(Wo):
                if not valid[f, u : u + P, v : v + P].all():
                    continue
                z = np.array([(k * pixels[f, u : u + P, v : v + P]).sum() for k in filters])
                value = np.concatenate([np.maximum(z - bias, 0), np.maximum(-z - bias, 0)])
                cells.setdefault((u * grid // Ho, v * grid // Wo), []).append(value)
        count = sum(map(len, cells.values()))
        if count >= share * Ho * Wo and len(cells) == grid * grid:
            for (a, b), values in cells.items():
                out[f, a, b] = np.mean(values, axis=0)
    return out.reshape(n, -1)


def slope_and_level(t, x):
    """Least squares of x on [1, t] over finite entries: (slope, value at t = 0)."""
    keep = np.isfinite(x)
    if keep.sum() < 2:
        return 0.0, x[keep].mean()
    slope, level = np.polyfit(t[keep], x[keep], 1)
    return slope, level
