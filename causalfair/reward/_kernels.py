"""Compiled loops of the absorber: counting sort, Schur complement of the eliminated factor.

Every reduction runs over a fixed number of chunks that are added in order, so results do not depend
on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

WIDTH = 8  # columns solved together: one cache line of float64


@njit(cache=True, nogil=True, error_model="numpy")
def counting_sort(codes, n_levels):
    """Row order that sorts ``codes``, and the pointer (n_levels + 1,) of every level."""
    n = codes.shape[0]
    pointer = np.zeros(n_levels + 1, np.int64)
    for i in range(n):
        pointer[codes[i] + 1] += 1
    for g in range(n_levels):
        pointer[g + 1] += pointer[g]
    place = pointer[:-1].copy()
    order = np.empty(n, np.int64)
    for i in range(n):
        order[place[codes[i]]] = i
        place[codes[i]] += 1
    return order, pointer


@njit(cache=True, nogil=True, error_model="numpy")
def drop_singletons(codes, counts, offsets):
    """Rows left after levels with one row are dropped again and again.

    ``codes`` (n, F) index the concatenated ``counts``, already shifted by ``offsets``.
    """
    n, n_factors = codes.shape
    keep = np.ones(n, np.bool_)
    changed = True
    while changed:
        changed = False
        for i in range(n):
            if not keep[i]:
                continue
            alone = False
            for j in range(n_factors):
                if counts[codes[i, j] + offsets[j]] == 1:
                    alone = True
            if alone:
                keep[i] = False
                changed = True
                for j in range(n_factors):
                    counts[codes[i, j] + offsets[j]] -= 1
    return keep


@njit(cache=True, nogil=True, error_model="numpy")
def schur_diagonal(pointer, codes, weight, group_weight, size):
    """Diagonal (size,) of the Schur complement."""
    out = np.zeros(size)
    cell = np.zeros(size)
    n_factors = codes.shape[1]
    for g in range(pointer.shape[0] - 1):
        for i in range(pointer[g], pointer[g + 1]):
            for j in range(n_factors):
                cell[codes[i, j]] += weight[i]
                out[codes[i, j]] += weight[i]
        for i in range(pointer[g], pointer[g + 1]):
            for j in range(n_factors):
                k = codes[i, j]
                out[k] -= cell[k] * cell[k] / group_weight[g]
                cell[k] = 0.0
    return out


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def centre_groups(chunks, pointer, weight, group_weight, values):
    """Subtract weighted group means from ``values`` (n, B), in place."""
    width = values.shape[1]
    for c in prange(chunks.shape[0] - 1):
        mean = np.empty(width)
        for g in range(chunks[c], chunks[c + 1]):
            mean[:] = 0.0
            for i in range(pointer[g], pointer[g + 1]):
                for b in range(width):
                    mean[b] += weight[i] * values[i, b]
            for b in range(width):
                mean[b] /= group_weight[g]
            for i in range(pointer[g], pointer[g + 1]):
                for b in range(width):
                    values[i, b] -= mean[b]


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def scatter(chunks, pointer, codes, weight, values, out):
    """Weighted sums of ``values`` (n, B) by level, one partial ``out[c]`` (size, B) a chunk."""
    width = values.shape[1]
    n_factors = codes.shape[1]
    for c in prange(chunks.shape[0] - 1):
        part = out[c]
        part[:] = 0.0
        for i in range(pointer[chunks[c]], pointer[chunks[c + 1]]):
            for j in range(n_factors):
                k = codes[i, j]
                for b in range(width):
                    part[k, b] += weight[i] * values[i, b]


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def schur_apply8(chunks, pointer, codes, weight, group_weight, v, out):
    """Partial sums of ``D'W(I - P)D v`` for eight columns: ``out`` (chunks, size, 8)."""
    n_factors = codes.shape[1]
    for c in prange(chunks.shape[0] - 1):
        part = out[c]
        part[:] = 0.0
        mean = np.empty(8)
        for g in range(chunks[c], chunks[c + 1]):
            for b in range(8):
                mean[b] = 0.0
            for i in range(pointer[g], pointer[g + 1]):
                for j in range(n_factors):
                    k = codes[i, j]
                    for b in range(8):
                        mean[b] += weight[i] * v[k, b]
            for b in range(8):
                mean[b] /= group_weight[g]
            if n_factors == 1:
                for i in range(pointer[g], pointer[g + 1]):
                    k = codes[i, 0]
                    for b in range(8):
                        part[k, b] += weight[i] * (v[k, b] - mean[b])
            else:
                fit = np.empty(8)
                for i in range(pointer[g], pointer[g + 1]):
                    for b in range(8):
                        fit[b] = -mean[b]
                    for j in range(n_factors):
                        k = codes[i, j]
                        for b in range(8):
                            fit[b] += v[k, b]
                    for j in range(n_factors):
                        k = codes[i, j]
                        for b in range(8):
                            part[k, b] += weight[i] * fit[b]


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def schur_apply1(chunks, pointer, codes, weight, group_weight, v, out):
    """Partial sums of ``D'W(I - P)D v`` for one column: ``v`` (size,), ``out`` (chunks, size)."""
    n_factors = codes.shape[1]
    for c in prange(chunks.shape[0] - 1):
        part = out[c]
        part[:] = 0.0
        for g in range(chunks[c], chunks[c + 1]):
            mean = 0.0
            for i in range(pointer[g], pointer[g + 1]):
                for j in range(n_factors):
                    mean += weight[i] * v[codes[i, j]]
            mean /= group_weight[g]
            for i in range(pointer[g], pointer[g + 1]):
                fit = -mean
                for j in range(n_factors):
                    fit += v[codes[i, j]]
                for j in range(n_factors):
                    part[codes[i, j]] += weight[i] * fit


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def subtract_fit(chunks, pointer, codes, weight, group_weight, v, values):
    """Subtract ``(I - P)D v`` from the centred ``values`` (n, B), in place."""
    width = values.shape[1]
    n_factors = codes.shape[1]
    for c in prange(chunks.shape[0] - 1):
        mean = np.empty(width)
        for g in range(chunks[c], chunks[c + 1]):
            mean[:] = 0.0
            for i in range(pointer[g], pointer[g + 1]):
                for j in range(n_factors):
                    k = codes[i, j]
                    for b in range(width):
                        mean[b] += weight[i] * v[k, b]
            for b in range(width):
                mean[b] /= group_weight[g]
            for i in range(pointer[g], pointer[g + 1]):
                for b in range(width):
                    values[i, b] += mean[b]
                for j in range(n_factors):
                    k = codes[i, j]
                    for b in range(width):
                        values[i, b] -= v[k, b]


@njit(cache=True, nogil=True, error_model="numpy")
def map_sweeps(codes, weight, level_weight, offsets, values, tol, max_sweeps):
    """Classical alternating projections on one column, in place; returns the sweeps taken."""
    n, n_factors = codes.shape
    sums = np.zeros(level_weight.shape[0])
    for sweep in range(max_sweeps):
        largest = 0.0
        for j in range(n_factors):
            low, high = offsets[j], offsets[j + 1]
            sums[low:high] = 0.0
            for i in range(n):
                sums[low + codes[i, j]] += weight[i] * values[i]
            for k in range(low, high):
                if level_weight[k] > 0.0:
                    sums[k] /= level_weight[k]
                largest = max(largest, abs(sums[k]))
            for i in range(n):
                values[i] -= sums[low + codes[i, j]]
        if largest <= tol:
            return sweep + 1
    return max_sweeps + 1


@njit(cache=True, nogil=True, error_model="numpy")
def stratum_pairs(order, pointer, limit, seed):
    """Pairs of positions inside strata: all of them, or ``limit`` drawn without structure.

    A stratum of m rows has m(m-1)/2 pairs; beyond ``limit`` a counter-based generator draws
    ``limit`` pairs with replacement.
    """
    total = 0
    for s in range(pointer.shape[0] - 1):
        m = pointer[s + 1] - pointer[s]
        total += min(m * (m - 1) // 2, limit)
    first = np.empty(total, np.int64)
    second = np.empty(total, np.int64)
    at = 0
    for s in range(pointer.shape[0] - 1):
        start = pointer[s]
        m = pointer[s + 1] - start
        if m * (m - 1) // 2 <= limit:
            for a in range(m):
                for b in range(a + 1, m):
                    first[at] = order[start + a]
                    second[at] = order[start + b]
                    at += 1
        else:
            for draw in range(limit):
                state = seed + np.uint64(0x9E3779B97F4A7C15) * np.uint64(at + 1)
                state ^= state >> np.uint64(30)
                state *= np.uint64(0xBF58476D1CE4E5B9)
                state ^= state >> np.uint64(27)
                state *= np.uint64(0x94D049BB133111EB)
                state ^= state >> np.uint64(31)
                a = np.int64(state % np.uint64(m))
                b = np.int64((state >> np.uint64(32)) % np.uint64(m - 1))
                b = b + 1 if b >= a else b
                first[at] = order[start + min(a, b)]
                second[at] = order[start + max(a, b)]
                at += 1
    return first, second
