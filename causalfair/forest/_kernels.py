"""Growing honest trees: sampling, split search and leaf averages (numba)."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
SAME_GAIN = 1.0 + 1e-10  # criteria this close are equal, and the first found wins
POISSON_CHUNK = 500.0  # exp(-500) is still a normal double


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
    """Units of the clusters, all or ``smallest`` random ones of each; ``units_of`` is CSR-like."""
    total = 0
    for c in clusters:
        total += smallest if equalize else start[c + 1] - start[c]
    out = np.empty(total, np.uint32)
    filled = 0
    for c in clusters:
        members = units_of[start[c] : start[c + 1]].copy()
        take = members.size
        if equalize:
            take = smallest
            _shuffle_head(members, take, state)
        for k in range(take):
            out[filled] = members[k]
            filled += 1
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _label(units, targets, rules, stat, low, totals):
    """Pseudo-outcomes of a node (eq. (5)-(8) of generalized random forests).

    ``stat`` rows: weight * rho, weight, weight * V, weight * V^2 with V the centred treatment;
    ``totals``: sums of these four, number of units below the mean treatment. False means: leaf.
    """
    sum_w = 0.0
    sum_wy = 0.0
    sum_wv = 0.0
    for i in units:
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
        for i in units:
            v = targets[i, 1] - mean_v
            num += targets[i, 2] * v * (targets[i, 0] - mean_y)
            den += targets[i, 2] * v * v
        if den < 1e-10:
            return False
        slope = num / den
    totals[:] = 0.0
    for i in units:
        w = targets[i, 2]
        rho = targets[i, 0] - mean_y
        v = targets[i, 1] - mean_v
        if rules.causal:
            rho = v * (rho - slope * v)
        low[i] = v < 0.0
        stat[i, 0] = w * rho
        stat[i, 1] = w
        stat[i, 2] = w * v
        stat[i, 3] = w * v * v
        for k in range(4):
            totals[k] += stat[i, k]
        totals[4] += low[i]
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(ordered, codes, n_node, stat, low, totals, rules, top):
    """Best cut along one variable: value of the criterion and position, or (top, -1).

    ``ordered`` lists units by value; those of the node that it leaves out go right.
    """
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
    code = codes[ordered[0]]
    for k in range(ordered.size - 1):
        i = ordered[k]
        s0 += stat[i, 0]
        s1 += stat[i, 1]
        s2 += stat[i, 2]
        s3 += stat[i, 3]
        n_low += low[i]
        following = codes[ordered[k + 1]]
        if following == code:
            continue
        code = following
        inv_l = 1.0 / s1
        inv_r = 1.0 / (totals[1] - s1)
        if rules.stabilize:
            right_low = n_low_node - n_low
            if right_low < least or n_node - k - 1 - right_low < least:
                break
            if n_low < least or k + 1 - n_low < least:
                continue
            r2 = totals[2] - s2
            size_l = s3 - s2 * s2 * inv_l
            size_r = totals[3] - s3 - r2 * r2 * inv_r
            if size_l < least_size or size_r < least_size:
                continue
        else:
            size_l = k + 1.0
            size_r = n_node - k - 1.0
            if size_r < least_count:
                break
            if size_l < least_count:
                continue
        r0 = totals[0] - s0
        gain = s0 * s0 * inv_l + r0 * r0 * inv_r
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
def _sorted_by_code(units, codes):
    """Units in order of code; equal codes in order of unit."""
    keys = np.empty(units.size, np.int64)
    for k in range(units.size):
        keys[k] = (np.int64(codes[units[k]]) << 32) | np.int64(units[k])
    keys.sort()
    out = np.empty(units.size, np.uint32)
    for k in range(units.size):
        out[k] = np.uint32(keys[k] & 0xFFFFFFFF)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _best_split(lists, begin, end, codes, stat, low, totals, rules, variables, state):
    """Variable, cut code and side of missing values with the largest criterion; variable -1: none.

    A missing value has code -1 and comes first in the order: the first pass sends missing values
    left (its first cut is "missing or not"), the second sends them right.
    """
    p = codes.shape[0]
    n_node = end - begin
    n_tried = min(max(_poisson(rules.n_try, state), 1), p)
    _shuffle_head(variables, n_tried, state)
    top = 0.0
    variable = -1
    cut = 0
    missing_left = 1
    for t in range(n_tried):
        f = variables[t]
        column = codes[f]
        if rules.sort_always:
            ordered = _sorted_by_code(lists[0, begin:end], column)
        else:
            ordered = lists[f, begin:end]
        top, where = _scan(ordered, column, n_node, stat, low, totals, rules, top)
        if where >= 0:
            variable, cut, missing_left = f, column[ordered[where]], 1
        if column[ordered[0]] < 0 and column[ordered[n_node - 1]] >= 0:
            n_missing = 0
            while column[ordered[n_missing]] < 0:
                n_missing += 1
            present = ordered[n_missing:]
            top, where = _scan(present, column, n_node, stat, low, totals, rules, top)
            if where >= 0:
                variable, cut, missing_left = f, column[present[where]], 0
    return variable, cut, missing_left


@njit(cache=True, nogil=True, error_model="numpy")
def _goes_left(code, cut, missing_left):
    if code < 0:
        return missing_left == 1
    return code <= cut


@njit(cache=True, nogil=True, error_model="numpy")
def _partition(ordered, goes_left, buffer):
    """Stable partition in place; returns the number that go left."""
    n_left = 0
    n_right = 0
    for k in range(ordered.size):
        i = ordered[k]
        g = goes_left[i]
        buffer[n_right] = i
        ordered[n_left] = i
        n_left += g
        n_right += 1 - g
    ordered[n_left:] = buffer[:n_right]
    return n_left


@njit(cache=True, nogil=True, error_model="numpy")
def _local_lists(units, order, lookup, sort_always):
    """Positions of ``units`` in order of each column (or once, unsorted)."""
    m = units.size
    if sort_always:
        lists = np.empty((1, m + 1), np.uint32)
        for k in range(m):
            lists[0, k] = k
        return lists
    for k in range(m):
        lookup[units[k]] = k
    lists = np.empty((order.shape[0], m + 1), np.uint32)
    for f in range(order.shape[0]):
        filled = 0
        for i in order[f]:
            k = lookup[i]
            lists[f, filled] = np.uint32(k)
            filled += k >= 0
    for i in units:
        lookup[i] = -1
    return lists


@njit(cache=True, nogil=True, error_model="numpy")
def _grow_structure(units, targets, codes, order, lookup, rules, state, split, cut, left):
    """Grow one tree on ``units``; fills split, cut, left and returns the number of nodes."""
    p = codes.shape[0]
    m = units.size
    local_targets = np.empty((m, 3))
    local_codes = np.empty((p, m), np.int32)
    for k in range(m):
        local_targets[k] = targets[units[k]]
    for f in range(p):
        for k in range(m):
            local_codes[f, k] = codes[f, units[k]]
    lists = _local_lists(units, order, lookup, rules.sort_always)
    stat = np.empty((m, 4))
    low = np.zeros(m, np.uint8)
    goes_left = np.empty(m, np.uint8)
    buffer = np.empty(m, np.uint32)
    totals = np.empty(5)
    variables = np.arange(p)
    stack = np.empty((split.size, 3), np.int64)
    stack[0] = (0, 0, m)
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
        members = lists[0, begin:end]
        if not _label(members, local_targets, rules, stat, low, totals):
            continue
        if rules.stabilize and (
            totals[4] < 2 * rules.min_leaf_size or end - begin - totals[4] < 2 * rules.min_leaf_size
        ):
            continue
        f, code, missing_left = _best_split(
            lists, begin, end, local_codes, stat, low, totals, rules, variables, state
        )
        if f < 0:
            continue
        for i in members:
            goes_left[i] = _goes_left(local_codes[f, i], code, missing_left)
        n_left = 0
        for i in members:
            n_left += goes_left[i]
        if n_left >= smallest or end - begin - n_left >= smallest:
            for j in range(lists.shape[0]):
                _partition(lists[j, begin:end], goes_left, buffer)
        split[node] = 2 * f + missing_left
        cut[node] = code
        left[node] = n_nodes
        stack[depth] = (n_nodes + 1, begin + n_left, end)
        stack[depth + 1] = (n_nodes, begin, begin + n_left)
        depth += 2
        n_nodes += 2
    return n_nodes


@njit(cache=True, nogil=True, error_model="numpy")
def _find_leaf(unit, codes, split, cut, left):
    node = 0
    while split[node] >= 0:
        goes_left = _goes_left(codes[split[node] >> 1, unit], cut[node], split[node] & 1)
        node = left[node] + (0 if goes_left else 1)
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
def _grow_tree(t, clusters, start, units_of, smallest, targets, codes, order, lookup, rules,
               state, out):  # fmt: skip
    """One tree: split its clusters into shape and leaf halves, grow, fill, prune, write."""
    n_shape = rules.n_structure if rules.honesty else clusters.size
    shape = _gather_units(clusters[:n_shape], start, units_of, rules.equalize, smallest, state)
    fill = shape
    if rules.honesty:
        fill = _gather_units(clusters[n_shape:], start, units_of, rules.equalize, smallest, state)
    bound = 2 * shape.size + 1
    split = np.empty(bound, np.int32)
    cut = np.empty(bound, np.int32)
    left = np.empty(bound, np.int32)
    n_nodes = _grow_structure(shape, targets, codes, order, lookup, rules, state, split, cut, left)
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
def grow_groups(seeds, start, units_of, smallest, targets, codes, order, rules, out):
    """Grow the groups of trees whose seeds are given; group g fills rows g * group_size, ...

    Parameters: ``seeds`` (groups,) uint64; ``start`` (clusters + 1,) and ``units_of`` (n,) list the
    units of each cluster, ``smallest`` is the smallest cluster's size; ``targets`` (n, 3) float64
    outcome, treatment and weight (the first two centred); ``codes`` (p, n) int32 dense ranks of
    the values, -1 where missing; ``order`` (p, n) uint32 units in order of value, missing first;
    ``rules`` GrowthRules; ``out`` Grown, written.
    """
    n_clusters = start.size - 1
    lookup = np.full(units_of.size, -1, np.int32)
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
            _grow_tree(t, drawn, start, units_of, smallest, targets, codes, order, lookup, rules,
                       state, out)  # fmt: skip
