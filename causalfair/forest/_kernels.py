"""Growing honest trees: sampling, growth and leaf averages (numba)."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ._kernels_split import (
    best_split,
    goes_left,
    label,
    make_shape,
    mark_children,
    move_to_children,
    sorted_keys,
)

GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
POISSON_CHUNK = 500.0  # exp(-500) is still a normal double


class Grown(NamedTuple):
    """Trees of a block of groups, one row a tree; nodes and leaves are filled from the left."""

    split: np.ndarray  # (trees, nodes) int32: 2 * feature + missing_left, or -1 at a leaf
    cut: np.ndarray  # (trees, nodes) int32: code of the largest value that goes left
    left: np.ndarray  # (trees, nodes) int32: left child (right is the next), or leaf, or -1
    stats: np.ndarray  # (trees, leaves, n_stats) float64: leaf averages
    n_nodes: np.ndarray  # (trees,)
    n_leaves: np.ndarray  # (trees,)
    drawn: np.ndarray  # (trees, ceil(clusters / 8)) uint8: bit set where the cluster was drawn
    leaf_of: np.ndarray  # (trees, n) int32: leaf a unit helps to fill, or -1; (trees, 0) if unused
    depth_counts: np.ndarray  # (trees, 4, p) int64: splits by depth and variable


@njit(cache=True, nogil=True, error_model="numpy")
def _uniform(state):
    """Next number in [0, 1) of a counter-based generator (a counter times gamma, then mixed)."""
    state[0] += GAMMA
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _shuffle_head(items, count, state):
    """Move ``count`` distinct random items to the front (partial Fisher-Yates)."""
    size = items.size
    for i in range(count):
        j = i + int(_uniform(state) * (size - i))
        swap = items[i]
        items[i] = items[j]
        items[j] = swap


@njit(cache=True, nogil=True, error_model="numpy")
def _poisson(mean, state):
    """Poisson number by products of uniforms, in chunks so that exp(-mean) does not underflow."""
    total = 0
    while mean > 0.0:
        part = min(mean, POISSON_CHUNK)
        limit = math.exp(-part)
        product = _uniform(state)
        while product > limit:
            total += 1
            product *= _uniform(state)
        mean -= part
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _gather_units(clusters, start, units_of, equalize, smallest, state):
    """Units of the clusters, all or ``smallest`` random ones of each, in order of row.

    ``units_of`` is CSR-like. The order lets everything that follows read the data in sequence.
    """
    taken = np.zeros(units_of.size, np.bool_)
    total = 0
    for c in clusters:
        if equalize:
            members = units_of[start[c] : start[c + 1]].copy()
            _shuffle_head(members, smallest, state)
            for k in range(smallest):
                taken[members[k]] = True
            total += smallest
        else:
            for k in range(start[c], start[c + 1]):
                taken[units_of[k]] = True
            total += start[c + 1] - start[c]
    out = np.empty(total, np.uint32)
    filled = 0
    for i in range(taken.size):
        if taken[i]:
            out[filled] = i
            filled += 1
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _grow_structure(shape, n_columns, rules, state, split, cut, left):
    """Grow one tree; fills split, cut, left and returns the number of nodes."""
    variables = np.arange(n_columns)
    totals = np.empty(6)
    stack = np.empty((split.size, 3), np.int64)
    stack[0] = (0, 0, shape.row.size)
    depth = 1
    n_nodes = 1
    smallest = max(rules.min_leaf_size + 1, 2)
    if rules.stabilize:
        smallest = max(smallest, 4 * rules.min_leaf_size)
    while depth > 0:
        depth -= 1
        node, begin, end = stack[depth]
        split[node] = -1
        if end - begin < smallest:
            continue
        if not label(shape.targets[begin:end], rules, shape.stat[begin:end], totals):
            continue
        if rules.stabilize and (
            totals[4] < 2 * rules.min_leaf_size or end - begin - totals[4] < 2 * rules.min_leaf_size
        ):
            continue
        n_tried = min(max(_poisson(rules.n_try, state), 1), variables.size)
        _shuffle_head(variables, n_tried, state)
        f, code, missing_left = best_split(shape, begin, end, variables[:n_tried], totals, rules)
        if f < 0:
            continue
        keys = sorted_keys(shape, f, begin, end)
        middle = mark_children(keys, begin, code, missing_left, shape.place)
        if middle - begin >= smallest or end - middle >= smallest:
            move_to_children(shape, begin, middle, end)
        split[node] = 2 * f + missing_left
        cut[node] = code
        left[node] = n_nodes
        stack[depth] = (n_nodes + 1, middle, end)
        stack[depth + 1] = (n_nodes, begin, middle)
        depth += 2
        n_nodes += 2
    return n_nodes


@njit(cache=True, nogil=True, error_model="numpy")
def _find_leaf(unit, codes, split, cut, left):
    node = 0
    while split[node] >= 0:
        is_left = goes_left(codes[unit, split[node] >> 1], cut[node], split[node] & 1)
        node = left[node] + (0 if is_left else 1)
    return node


@njit(cache=True, nogil=True, error_model="numpy")
def _prune(filled, n_nodes, split, left):
    """Where each node leads once nodes above an empty leaf are replaced by the other child."""
    target = np.arange(n_nodes)
    for node in range(n_nodes - 1, -1, -1):
        if split[node] < 0:
            continue
        a = target[left[node]]
        b = target[left[node] + 1]
        if split[a] < 0 and not filled[a]:
            target[node] = b
        elif split[b] < 0 and not filled[b]:
            target[node] = a
    return target


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_leaves(units, targets, leaf_at, n_nodes, n_stats, sums, counts):
    """Sums over the units of each leaf of w, wY (, wV, wYV, wVV)."""
    sums[:n_nodes] = 0.0
    counts[:n_nodes] = 0
    for k in range(units.size):
        node = leaf_at[k]
        y, v, w = targets[units[k], 0], targets[units[k], 1], targets[units[k], 2]
        counts[node] += 1
        sums[node, 0] += w
        sums[node, 1] += w * y
        if n_stats == 5:
            sums[node, 2] += w * v
            sums[node, 3] += w * y * v
            sums[node, 4] += w * v * v


@njit(cache=True, nogil=True, error_model="numpy")
def _emit(t, split, cut, left, target, sums, counts, rank, out):
    """Write the pruned tree breadth first, so that siblings are neighbours; numbers the leaves."""
    n_stats = out.stats.shape[2]
    queue = np.empty((split.size, 2), np.int64)  # node, depth
    queue[0] = (target[0], 0)
    tail = 1
    n_leaves = 0
    head = 0
    while head < tail:
        node, depth = queue[head]
        out.split[t, head] = split[node]
        out.cut[t, head] = 0
        if split[node] >= 0:
            if depth < 4:
                out.depth_counts[t, depth, split[node] >> 1] += 1
            out.cut[t, head] = cut[node]
            out.left[t, head] = tail
            queue[tail] = (target[left[node]], depth + 1)
            queue[tail + 1] = (target[left[node] + 1], depth + 1)
            tail += 2
        elif counts[node] > 0 and sums[node, 0] / counts[node] >= 1e-16:
            out.left[t, head] = n_leaves
            rank[node] = n_leaves
            for s in range(n_stats):
                out.stats[t, n_leaves, s] = sums[node, s] / counts[node]
            n_leaves += 1
        else:
            out.left[t, head] = -1
            rank[node] = -1
        head += 1
    out.n_nodes[t] = tail
    out.n_leaves[t] = n_leaves


@njit(cache=True, nogil=True, error_model="numpy")
def _grow_tree(t, clusters, start, units_of, smallest, targets, codes, rules, state, out):
    """One tree: split its clusters into shape and leaf halves, grow, fill, prune, write."""
    n_shape = rules.n_structure if rules.honesty else clusters.size
    units = _gather_units(clusters[:n_shape], start, units_of, rules.equalize, smallest, state)
    fill = units
    if rules.honesty:
        fill = _gather_units(clusters[n_shape:], start, units_of, rules.equalize, smallest, state)
    bound = 2 * units.size + 1
    split = np.empty(bound, np.int32)
    cut = np.empty(bound, np.int32)
    left = np.empty(bound, np.int32)
    shape = make_shape(units, targets, codes, rules.sort_always)
    n_nodes = _grow_structure(shape, codes.shape[1], rules, state, split, cut, left)
    n_stats = out.stats.shape[2]
    leaf_at = np.empty(fill.size, np.int64)
    for k in range(fill.size):
        leaf_at[k] = _find_leaf(fill[k], codes, split, cut, left)
    sums = np.empty((n_nodes, n_stats))
    counts = np.empty(n_nodes, np.int64)
    _fill_leaves(fill, targets, leaf_at, n_nodes, n_stats, sums, counts)
    target = np.arange(n_nodes)
    if rules.prune:
        target = _prune(counts > 0, n_nodes, split, left)
    rank = np.full(n_nodes, -1, np.int32)
    _emit(t, split[:n_nodes], cut, left, target, sums, counts, rank, out)
    if rules.store_members:
        out.leaf_of[t] = -1
        for k in range(fill.size):
            out.leaf_of[t, fill[k]] = rank[leaf_at[k]]


@njit(cache=True, nogil=True, error_model="numpy")
def grow_groups(seeds, start, units_of, smallest, targets, codes, rules, out):
    """Grow the groups of trees whose seeds are given; group g fills rows g * group_size, ...

    Parameters: ``seeds`` (groups,) uint64; ``start`` (clusters + 1,) and ``units_of`` (n,) list the
    units of each cluster, ``smallest`` is the smallest cluster's size; ``targets`` (n, 3) float64
    outcome, treatment and weight (the first two centred); ``codes`` (n, p) int32 dense ranks of
    the values, -1 where missing; ``rules`` GrowthRules; ``out`` Grown, written.
    """
    n_clusters = start.size - 1
    state = np.empty(1, np.uint64)
    everyone = np.empty(n_clusters, np.uint32)
    for g in range(seeds.size):
        state[0] = seeds[g]
        for c in range(n_clusters):
            everyone[c] = c
        _shuffle_head(everyone, rules.n_half, state)
        half = everyone[: rules.n_half]
        for b in range(rules.group_size):
            t = g * rules.group_size + b
            _shuffle_head(half, rules.n_draw, state)
            drawn = half[: rules.n_draw].copy()
            out.drawn[t] = 0
            for c in drawn:
                out.drawn[t, c >> 3] |= np.uint8(1 << (c & 7))
            _grow_tree(t, drawn, start, units_of, smallest, targets, codes, rules, state, out)
