"""Compiled loops of the absorber, and of pairs inside strata.

Loops over columns run over ``lanes``, a tuple with one entry a column, and loops over factors over
``links``: their lengths are known when the kernel is compiled. Running values of a row are tuples,
``lanes`` being one of zeros: unlike an array they stay in registers and become vectors.
Weights of one row stand for weights that are all one. Every kernel is serial and gives the same
bits whatever runs beside it; columns are spread over threads by the caller.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code=assignment

from __future__ import annotations

import numpy as np
from numba import config, get_num_threads, njit
from numba.cpython.unsafe.tuple import tuple_setitem

__all__ = [
    "counting_sort",
    "drop_singletons",
    "get_num_threads",
    "main_effects",
    "map_sweeps",
    "schur_diagonal",
    "schur_product",
    "sort_codes",
    "stratum_pairs",
    "subtract_effects",
    "subtract_means",
    "sum_levels",
]

if config.DISABLE_JIT:

    def tuple_setitem(values, index, value):
        return (*values[:index], value, *values[index + 1 :])


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
def sort_codes(main, codes, weight, n_levels):
    """Codes (n, F) and weights in the order of ``main``, pointer and weight of its levels."""
    n, n_factors = codes.shape
    unit = weight.shape[0] == 1
    pointer = np.zeros(n_levels + 1, np.int64)
    total = np.zeros(n_levels)
    for i in range(n):
        pointer[np.int64(main[i]) + 1] += 1
        total[main[i]] += weight[0] if unit else weight[i]
    for g in range(n_levels):
        pointer[g + 1] += pointer[g]
    place = pointer[:-1].copy()
    sorted_codes = np.empty_like(codes)
    sorted_weight = np.empty_like(weight)
    sorted_weight[0] = weight[0]
    for i in range(n):
        at = place[main[i]]
        place[main[i]] = at + 1
        if not unit:
            sorted_weight[at] = weight[i]
        for j in range(n_factors):
            sorted_codes[at, j] = codes[i, j]
    return sorted_codes, sorted_weight, pointer, total


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
    unit = weight.shape[0] == 1
    w = weight[0]
    for g in range(pointer.shape[0] - 1):
        for i in range(pointer[g], pointer[g + 1]):
            if not unit:
                w = weight[i]
            for j in range(n_factors):
                cell[codes[i, j]] += w
                out[codes[i, j]] += w
        for i in range(pointer[g], pointer[g + 1]):
            for j in range(n_factors):
                k = codes[i, j]
                out[k] -= cell[k] * cell[k] / group_weight[g]
                cell[k] = 0.0
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def sum_levels(
    main, codes, weight, lanes, links, values, start, shift, main_sum, level_sum, moments
):
    """Add weighted sums by level of columns ``start, ...`` of ``values`` (n, d), less ``shift``.

    ``main_sum`` (L, B) and ``level_sum`` (size, B) are by level of the eliminated factor and of the
    others; ``moments`` (2, B) are plain sums and sums of squares.
    """
    width = len(lanes)
    unit = weight.shape[0] == 1
    w = weight[0]
    part = lanes
    for i in range(main.shape[0]):
        g = main[i]
        if not unit:
            w = weight[i]
        for b in range(width):
            a = values[i, start + b] - shift[b]
            moments[0, b] += a
            moments[1, b] += a * a
            part = tuple_setitem(part, b, w * a)
        for b in range(width):
            main_sum[g, b] += part[b]
        for j in range(len(links)):
            k = codes[i, j]
            for b in range(width):
                level_sum[k, b] += part[b]


@njit(cache=True, nogil=True, error_model="numpy")
def subtract_means(pointer, codes, weight, lanes, links, means, level_sum):
    """``level_sum - D'W D_1 means``: take the eliminated factor out of sums by level, in place."""
    width = len(lanes)
    unit = weight.shape[0] == 1
    w = weight[0]
    for g in range(pointer.shape[0] - 1):
        for i in range(pointer[g], pointer[g + 1]):
            if not unit:
                w = weight[i]
            for j in range(len(links)):
                k = codes[i, j]
                for b in range(width):
                    level_sum[k, b] -= w * means[g, b]


@njit(cache=True, nogil=True, error_model="numpy")
def schur_product(pointer, codes, weight, total, lanes, links, v, out):
    """``out = D'W(I - P)D v`` with ``P`` the projection on the eliminated factor."""
    width = len(lanes)
    unit = weight.shape[0] == 1
    w = weight[0]
    out[:] = 0.0
    for g in range(pointer.shape[0] - 1):
        mean = lanes
        for i in range(pointer[g], pointer[g + 1]):
            if not unit:
                w = weight[i]
            for j in range(len(links)):
                k = codes[i, j]
                for b in range(width):
                    mean = tuple_setitem(mean, b, mean[b] + w * v[k, b])
        for b in range(width):
            mean = tuple_setitem(mean, b, mean[b] / total[g])
        for i in range(pointer[g], pointer[g + 1]):
            if not unit:
                w = weight[i]
            fit = lanes
            for b in range(width):
                fit = tuple_setitem(fit, b, -mean[b])
            for j in range(len(links)):
                k = codes[i, j]
                for b in range(width):
                    fit = tuple_setitem(fit, b, fit[b] + v[k, b])
            for j in range(len(links)):
                k = codes[i, j]
                for b in range(width):
                    out[k, b] += w * fit[b]


@njit(cache=True, nogil=True, error_model="numpy")
def main_effects(pointer, codes, weight, total, lanes, links, v, main_sum):
    """``(main_sum - D_1'W D v) / total``: coefficients of the eliminated factor, in place."""
    width = len(lanes)
    unit = weight.shape[0] == 1
    w = weight[0]
    for g in range(pointer.shape[0] - 1):
        for i in range(pointer[g], pointer[g + 1]):
            if not unit:
                w = weight[i]
            for j in range(len(links)):
                k = codes[i, j]
                for b in range(width):
                    main_sum[g, b] -= w * v[k, b]
        for b in range(width):
            main_sum[g, b] /= total[g]


@njit(cache=True, nogil=True, error_model="numpy")
def subtract_effects(
    main, codes, weight, lanes, links, values, start, shift, alpha, v, out, level_sum
):
    """Write residuals into ``out``; add their weighted sums by level, which ought to vanish."""
    width = len(lanes)
    unit = weight.shape[0] == 1
    w = weight[0]
    part = lanes
    for i in range(main.shape[0]):
        g = main[i]
        if not unit:
            w = weight[i]
        for b in range(width):
            part = tuple_setitem(part, b, values[i, start + b] - shift[b] - alpha[g, b])
        for j in range(len(links)):
            k = codes[i, j]
            for b in range(width):
                part = tuple_setitem(part, b, part[b] - v[k, b])
        for b in range(width):
            out[i, start + b] = part[b]
        for j in range(len(links)):
            k = codes[i, j]
            for b in range(width):
                level_sum[k, b] += w * part[b]


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
            for _ in range(limit):
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
