"""Passing rows through a grown forest (numba)."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

ROW_BLOCK = 64  # rows that pass one tree together, so that the tree stays in the cache


class FlatForest(NamedTuple):
    """All trees in flat arrays; the starts have one entry more than there are trees."""

    threshold: np.ndarray  # (nodes,) float64: value <= threshold goes left
    split: np.ndarray  # (nodes,) int32: 2 * feature + missing_left, or -1 at a leaf
    left: np.ndarray  # (nodes,) int32, within the tree: left child, or leaf, or -1 if empty
    stats: np.ndarray  # (leaves, n_stats) float64
    node_start: np.ndarray  # (trees + 1,) int64
    leaf_start: np.ndarray  # (trees + 1,) int64


@njit(cache=True, nogil=True, error_model="numpy")
def _leaf(row, forest, base):
    """Leaf of a row in the tree whose nodes begin at ``base``; -1 if that leaf is empty."""
    node = base
    while forest.split[node] >= 0:
        code = forest.split[node]
        value = row[code >> 1]
        if np.isnan(value):
            goes_left = (code & 1) == 1
        else:
            goes_left = value <= forest.threshold[node]
        node = base + forest.left[node] + (0 if goes_left else 1)
    return forest.left[node]


@njit(cache=True, nogil=True, error_model="numpy")
def _leaves_of_block(X, first, last, forest, drawn, cluster, leaves):
    """Fill ``leaves`` (rows, trees) with positions in ``forest.stats``; -1 where a tree is skipped.

    ``cluster`` empty: every tree counts; else only trees that did not draw the row's cluster.
    """
    n_trees = forest.node_start.size - 1
    for t in range(n_trees):
        for r in range(first, last):
            leaves[r - first, t] = -1
            if cluster.size > 0:
                c = cluster[r]
                if (drawn[t, c >> 3] >> (c & 7)) & 1:
                    continue
            leaf = _leaf(X[r], forest, forest.node_start[t])
            if leaf >= 0:
                leaves[r - first, t] = forest.leaf_start[t] + leaf


@njit(cache=True, nogil=True, error_model="numpy")
def _average(leaves, stats, mean):
    """Average the leaf statistics over the trees of one row; returns the number of trees."""
    n = 0
    mean[:] = 0.0
    for leaf in leaves:
        if leaf >= 0:
            n += 1
            for s in range(mean.size):
                mean[s] += stats[leaf, s]
    if n > 0:
        mean /= n
    else:
        mean[:] = np.nan
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _tree_scores(leaves, stats, mean, scores):
    """Each tree's contribution to the estimate at the forest's solution, by the delta method."""
    if mean.size == 2:
        value = mean[1] / mean[0]
        for t in range(leaves.size):
            if leaves[t] >= 0:
                scores[t] = (stats[leaves[t], 1] - value * stats[leaves[t], 0]) / mean[0]
        return
    g, y, u, yu, uu = mean[0], mean[1], mean[2], mean[3], mean[4]
    det = uu * g - u * u
    tau = (yu * g - y * u) / det
    mu = (y - u * tau) / g
    for t in range(leaves.size):
        if leaves[t] >= 0:
            leaf = stats[leaves[t]]
            psi_1 = leaf[3] - leaf[4] * tau - leaf[2] * mu
            psi_2 = leaf[1] - leaf[2] * tau - leaf[0] * mu
            scores[t] = (g * psi_1 - u * psi_2) / det


@njit(cache=True, nogil=True, error_model="numpy")
def _group_moments(leaves, scores, size):
    """Mean squares of group means and of tree scores, over groups with all trees; their number."""
    between = 0.0
    total = 0.0
    n = 0
    for begin in range(0, leaves.size, size):
        mean = 0.0
        squares = 0.0
        complete = True
        for t in range(begin, begin + size):
            if leaves[t] < 0:
                complete = False
                break
            mean += scores[t]
            squares += scores[t] * scores[t]
        if complete:
            n += 1
            between += (mean / size) ** 2
            total += squares / size
    if n > 0:
        return between / n, total / n, float(n)
    return np.nan, np.nan, 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def predict_rows(X, forest, drawn, cluster, first, last, group_size, out, trees, moments):
    """Average leaf statistics for rows ``first`` to ``last`` and, for groups, score moments.

    Writes ``out`` (n, n_stats), ``trees`` (n,) and, if ``group_size`` > 1, ``moments`` (n, 3):
    mean square between groups, mean square of trees, number of complete groups.
    """
    n_trees = forest.node_start.size - 1
    leaves = np.empty((ROW_BLOCK, n_trees), np.int64)
    scores = np.zeros(n_trees)
    for begin in range(first, last, ROW_BLOCK):
        end = min(begin + ROW_BLOCK, last)
        _leaves_of_block(X, begin, end, forest, drawn, cluster, leaves)
        for r in range(begin, end):
            row = leaves[r - begin]
            trees[r] = _average(row, forest.stats, out[r])
            if group_size > 1 and trees[r] > 0:
                _tree_scores(row, forest.stats, out[r], scores)
                moments[r] = _group_moments(row, scores, group_size)


@njit(cache=True, nogil=True, error_model="numpy")
def _residual(mean, y, v):
    g, my, mv, yu, uu = mean[0], mean[1], mean[2], mean[3], mean[4]
    tau = (yu * g - my * mv) / (uu * g - mv * mv)
    return y - my / g - (v - mv / g) * tau


@njit(cache=True, nogil=True, error_model="numpy")
def out_of_bag_errors(X, forest, drawn, cluster, targets, first, last, out):
    """Squared residual of the R-loss less its Monte-Carlo excess (jackknife over trees).

    ``out`` (n,): NaN where five trees or fewer leave the row out.
    """
    n_trees = forest.node_start.size - 1
    leaves = np.empty((ROW_BLOCK, n_trees), np.int64)
    mean = np.empty(5)
    without = np.empty(5)
    for begin in range(first, last, ROW_BLOCK):
        end = min(begin + ROW_BLOCK, last)
        _leaves_of_block(X, begin, end, forest, drawn, cluster, leaves)
        for r in range(begin, end):
            row = leaves[r - begin]
            n = _average(row, forest.stats, mean)
            if n <= 5:
                out[r] = np.nan
                continue
            residual = _residual(mean, targets[r, 0], targets[r, 1])
            excess = 0.0
            for leaf in row:
                if leaf >= 0:
                    for s in range(5):
                        without[s] = (n * mean[s] - forest.stats[leaf, s]) / (n - 1)
                    excess += (_residual(without, targets[r, 0], targets[r, 1]) - residual) ** 2
            out[r] = residual * residual - excess * (n - 1) / n


@njit(cache=True, nogil=True, error_model="numpy")
def add_weights(X, forest, drawn, cluster, first, last, member_start, members, out):
    """Dense forest weights (rows, n) of the rows: how much each training unit counts."""
    n_trees = forest.node_start.size - 1
    leaves = np.empty((ROW_BLOCK, n_trees), np.int64)
    for begin in range(first, last, ROW_BLOCK):
        end = min(begin + ROW_BLOCK, last)
        _leaves_of_block(X, begin, end, forest, drawn, cluster, leaves)
        for r in range(begin, end):
            target = out[r - first]
            target[:] = 0.0
            n = 0
            for leaf in leaves[r - begin]:
                if leaf >= 0:
                    n += 1
                    size = member_start[leaf + 1] - member_start[leaf]
                    for k in range(member_start[leaf], member_start[leaf + 1]):
                        target[members[k]] += 1.0 / size
            if n > 0:
                target /= n
