"""One node of a growing tree: pseudo-outcomes, best split, children (numba).

The units that shape a tree are renumbered so that those of a node are neighbours, at positions
``begin`` to ``end`` of every array, and each column keeps them sorted as keys
``code << 32 | position``. A scan then reads the keys in sequence and looks up nothing outside the
node's own stretch of memory, which is what keeps the cost near-linear beyond the cache.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

SAME_GAIN = 1.0 + 1e-10  # criteria this close are equal, and the first found wins
CODE = 32  # bits below the code in a key
POSITION = np.int64((1 << CODE) - 1)
DIGIT = 11  # bits of a key sorted at a time: the counts of a digit stay in the first cache
TILE = 64  # columns read together when rows become columns


class GrowthRules(NamedTuple):
    """What a tree may do; one value for all trees of a forest."""

    causal: bool  # pseudo-outcomes of a treatment effect; otherwise plain regression
    stabilize: bool  # limits on treated and control units and on treatment variation
    honesty: bool
    prune: bool
    equalize: bool  # the same number of units from every drawn cluster
    store_members: bool
    min_leaf_size: int
    n_try: int  # mean of the Poisson number of variables tried at a node
    group_size: int  # trees that share a half-sample
    n_half: int  # clusters in a half-sample (all of them when trees do not share)
    n_draw: int  # clusters drawn for a tree
    n_structure: int  # of these, clusters that shape the tree
    sort_always: (
        bool  # sort the variables tried at each node instead of keeping every column sorted
    )
    alpha: float
    imbalance_penalty: float


class Shape(NamedTuple):
    """The units that shape a tree; a node owns the same positions of every array."""

    targets: np.ndarray  # (m, 3) float64 outcome, treatment, weight
    stat: np.ndarray  # (m, 4) float64, see _label
    row: np.ndarray  # (m,) uint32: column of ``codes`` that holds the unit
    codes: np.ndarray  # (p, m) int32 if columns are sorted at each node, else (0, 0)
    keys: np.ndarray  # (p, m) int64 sorted keys of each column, or (1, m) of the column tried
    place: np.ndarray  # (m,) uint32 next position of a unit
    spare: np.ndarray  # (m,) int64 room to move keys


@njit(cache=True, nogil=True, error_model="numpy")
def _columns_of(units, codes):
    """Codes of the units, a row a variable."""
    p = codes.shape[1]
    out = np.empty((p, units.size), np.int32)
    for first in range(0, p, TILE):
        for k in range(units.size):
            for f in range(first, min(first + TILE, p)):
                out[f, k] = codes[units[k], f]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _sort_keys(keys, spare):
    """Sort by code, ties in the order given (radix sort, lowest digit first)."""
    lift = np.int64(1) << CODE  # a missing value has code -1
    top = np.int64(0)
    for key in keys:
        top = max(top, (key + lift) >> CODE)
    bits = 0
    while top >> bits:
        bits += 1
    n_digits = (bits + DIGIT - 1) // DIGIT
    if n_digits == 0:
        return
    width = (bits + n_digits - 1) // n_digits
    mask = np.int64((1 << width) - 1)
    filled = np.empty(mask + 2, np.int64)
    for digit in range(n_digits):
        shift = CODE + digit * width
        filled[:] = 0
        for key in keys:
            filled[(((key + lift) >> shift) & mask) + 1] += 1
        for b in range(mask):
            filled[b + 1] += filled[b]
        for key in keys:
            b = ((key + lift) >> shift) & mask
            spare[filled[b]] = key
            filled[b] += 1
        keys[:] = spare


@njit(cache=True, nogil=True, error_model="numpy")
def make_shape(units, targets, codes, sort_always):
    """Arrays of a tree whose root holds ``units``."""
    m = units.size
    p = codes.shape[1]
    local = np.empty((m, 3))
    for k in range(m):
        local[k] = targets[units[k]]
    row = np.arange(m).astype(np.uint32)
    spare = np.empty(m, np.int64)
    if sort_always:
        columns = _columns_of(units, codes)
        keys = np.empty((1, m), np.int64)
    else:
        columns = np.empty((0, 0), np.int32)
        keys = np.empty((p, m), np.int64)
        for first in range(0, p, TILE):
            for k in range(m):
                for f in range(first, min(first + TILE, p)):
                    keys[f, k] = (np.int64(codes[units[k], f]) << CODE) | k
        for f in range(p):
            _sort_keys(keys[f], spare)
    return Shape(local, np.empty((m, 4)), row, columns, keys, np.empty(m, np.uint32), spare)


@njit(cache=True, nogil=True, error_model="numpy")
def label(targets, rules, stat, totals):
    """Pseudo-outcomes of a node (eq. (5)-(8) of generalized random forests).

    ``stat`` rows: weight * rho, weight, weight * V, weight * V^2 with V the centred treatment;
    ``totals``: sums of these four, number of units below the mean treatment, number of units.
    False means: leaf.
    """
    sum_w = 0.0
    sum_wy = 0.0
    sum_wv = 0.0
    for i in range(targets.shape[0]):
        w = targets[i, 2]
        sum_w += w
        sum_wy += w * targets[i, 0]
        sum_wv += w * targets[i, 1]
    mean_y = sum_wy / sum_w
    mean_v = sum_wv / sum_w
    slope = 0.0
    if rules.causal:
        num = 0.0
        den = 0.0
        for i in range(targets.shape[0]):
            v = targets[i, 1] - mean_v
            num += targets[i, 2] * v * (targets[i, 0] - mean_y)
            den += targets[i, 2] * v * v
        if den < 1e-10:
            return False
        slope = num / den
    totals[:] = 0.0
    for i in range(targets.shape[0]):
        w = targets[i, 2]
        rho = targets[i, 0] - mean_y
        v = targets[i, 1] - mean_v
        if rules.causal:
            rho = v * (rho - slope * v)
        stat[i, 0] = w * rho
        stat[i, 1] = w
        stat[i, 2] = w * v
        stat[i, 3] = w * v * v
        for k in range(4):
            totals[k] += stat[i, k]
        totals[4] += v < 0.0
    totals[5] = targets.shape[0]
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(keys, stat, totals, rules, top):
    """Best cut along one variable: value of the criterion and index in ``keys``, or (top, -1).

    ``keys`` are sorted; units of the node that they leave out go right.
    """
    n_node = int(totals[5])
    least = rules.min_leaf_size
    least_count = max(math.ceil(rules.alpha * n_node), 1)
    least_size = rules.alpha * (totals[3] - totals[2] * totals[2] / totals[1])
    n_low_node = int(totals[4])
    s0 = 0.0
    s1 = 0.0
    s2 = 0.0
    s3 = 0.0
    n_low = 0
    where = -1
    bar = top * SAME_GAIN
    code = keys[0] >> CODE
    for k in range(keys.size - 1):
        i = keys[k] & POSITION
        s0 += stat[i, 0]
        s1 += stat[i, 1]
        s2 += stat[i, 2]
        s3 += stat[i, 3]
        n_low += math.copysign(1.0, stat[i, 2]) < 0.0  # the sign survives a weight of zero
        following = keys[k + 1] >> CODE
        if following == code:
            continue
        code = following
        right_low = n_low_node - n_low
        if rules.stabilize and (right_low < least or n_node - k - 1 - right_low < least):
            break
        r0 = totals[0] - s0
        r1 = totals[1] - s1
        if s0 * s0 * r1 + r0 * r0 * s1 <= bar * s1 * r1:  # most cuts end here, undivided
            continue
        if rules.stabilize:
            if n_low < least or k + 1 - n_low < least:
                continue
            r2 = totals[2] - s2
            size_l = s3 - s2 * s2 / s1
            size_r = totals[3] - s3 - r2 * r2 / r1
            if size_l < least_size or size_r < least_size:
                continue
        else:
            size_l = k + 1.0
            size_r = n_node - k - 1.0
            if size_r < least_count:
                break
            if size_l < least_count:
                continue
        gain = s0 * s0 / s1 + r0 * r0 / r1
        if rules.imbalance_penalty > 0.0:
            if size_l <= 0.0 or size_r <= 0.0:
                continue
            gain -= rules.imbalance_penalty * (1.0 / size_l + 1.0 / size_r)
        if gain > bar:
            top = gain
            bar = gain * SAME_GAIN
            where = k
    return top, where


@njit(cache=True, nogil=True, error_model="numpy")
def sorted_keys(shape, f, begin, end):
    """Keys of a node along variable ``f``, in order."""
    if shape.codes.size == 0:
        return shape.keys[f, begin:end]
    keys = shape.keys[0, begin:end]
    for i in range(begin, end):
        keys[i - begin] = (np.int64(shape.codes[f, shape.row[i]]) << CODE) | i
    keys.sort()
    return keys


@njit(cache=True, nogil=True, error_model="numpy")
def best_split(shape, begin, end, tried, totals, rules):
    """Variable, cut code and side of missing values with the largest criterion; variable -1: none.

    A missing value has code -1 and comes first in the order: the first pass sends missing values
    left (its first cut is "missing or not"), the second sends them right.
    """
    top = 0.0
    variable = -1
    cut = np.int64(0)
    missing_left = 1
    for f in tried:
        keys = sorted_keys(shape, f, begin, end)
        top, where = _scan(keys, shape.stat, totals, rules, top)
        if where >= 0:
            variable, cut, missing_left = f, keys[where] >> CODE, 1
        if keys[0] < 0 and keys[-1] >= 0:
            n_missing = 0
            while keys[n_missing] < 0:
                n_missing += 1
            present = keys[n_missing:]
            top, where = _scan(present, shape.stat, totals, rules, top)
            if where >= 0:
                variable, cut, missing_left = f, present[where] >> CODE, 0
    return variable, cut, missing_left


@njit(cache=True, nogil=True, error_model="numpy")
def goes_left(code, cut, missing_left):
    if code < 0:
        return missing_left == 1
    return code <= cut


@njit(cache=True, nogil=True, error_model="numpy")
def mark_children(keys, begin, cut, missing_left, place):
    """Next position of each unit of a node, in ``place``; returns where the right child begins."""
    n_left = 0
    for key in keys:
        g = goes_left(key >> CODE, cut, missing_left)
        place[key & POSITION] = g
        n_left += g
    left = begin
    right = begin + n_left
    for i in range(begin, begin + keys.size):
        g = place[i]
        place[i] = left if g else right
        left += g
        right += 1 - g
    return begin + n_left


@njit(cache=True, nogil=True, error_model="numpy")
def move_to_children(shape, begin, middle, end):
    """Renumber the units of a node by ``place`` and sort every column's keys into the children."""
    place = shape.place
    old = shape.targets[begin:end].copy()
    rows = shape.row[begin:end].copy()
    for i in range(begin, end):
        shape.targets[place[i]] = old[i - begin]
        shape.row[place[i]] = rows[i - begin]
    if shape.codes.size > 0:
        return
    for f in range(shape.keys.shape[0]):
        keys = shape.keys[f, begin:end]
        n_left = 0
        n_right = 0
        for k in range(keys.size):
            key = keys[k]
            to = np.int64(place[key & POSITION])
            moved = (key & ~POSITION) | to
            shape.spare[n_right] = moved
            keys[n_left] = moved
            g = to < middle
            n_left += g
            n_right += 1 - g
        keys[n_left:] = shape.spare[:n_right]
