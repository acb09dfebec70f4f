"""Passing rows through a grown forest (numba)."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

NODE = np.dtype(
    [
        ("threshold", np.float64),  # value <= threshold goes left
        ("split", np.int32),  # 2 * feature + missing_left, or -1 at a leaf
        ("left", np.int32),  # within the tree: left child, or leaf, or -1 if empty
    ]
)


class FlatForest(NamedTuple):
    """All trees in flat arrays; the starts have one entry more than there are trees."""

    nodes: np.ndarray  # (nodes,) NODE
    stats: np.ndarray  # (leaves, n_stats) float64
    node_start: np.ndarray  # (trees + 1,) int64
    leaf_start: np.ndarray  # (trees + 1,) int64


@njit(cache=True, nogil=True, error_model="numpy")
def _leaves(X, first, forest, drawn, cluster, leaves):
    """Fill ``leaves`` (trees, rows) with the leaf of each row from ``first`` on, -1 if none.

    ``cluster`` empty: every tree counts; else only trees that did not draw the row's cluster.
    The rows go down a tree together, a level at a time: no step waits for the one before.
    """
    n_rows = leaves.shape[1]
    node = np.empty(n_rows, np.int64)
    walking = np.empty(n_rows, np.int64)
    for t in range(leaves.shape[0]):
        base = forest.node_start[t]
        root_splits = forest.nodes[base]["split"] >= 0
        count = 0
        for r in range(n_rows):
            node[r] = base
            if cluster.size > 0:
                c = cluster[first + r]
                if (drawn[t, c >> 3] >> (c & 7)) & 1:
                    node[r] = -1
                    continue
            walking[count] = r
            count += root_splits
        while count > 0:
            still = 0
            for j in range(count):
                r = walking[j]
                at = forest.nodes[node[r]]
                value = X[first + r, at["split"] >> 1]
                missing_left = (at["split"] & 1) == 1
                goes_left = (value <= at["threshold"]) | (np.isnan(value) & missing_left)
                child = base + at["left"] + (1 - np.int64(goes_left))
                node[r] = child
                walking[still] = r
                still += forest.nodes[child]["split"] >= 0
            count = still
        for r in range(n_rows):
            leaves[t, r] = -1 if node[r] < 0 else forest.nodes[node[r]]["left"]


@njit(cache=True, nogil=True, error_model="numpy")
def _average(leaves, forest, mean, n_trees):
    """Average the leaf statistics of each row over its trees: writes ``mean`` and ``n_trees``."""
    mean[:] = 0.0
    n_trees[:] = 0
    for t in range(leaves.shape[0]):
        base = forest.leaf_start[t]
        for r in range(leaves.shape[1]):
            if leaves[t, r] >= 0:
                n_trees[r] += 1
                for s in range(mean.shape[1]):
                    mean[r, s] += forest.stats[base + leaves[t, r], s]
    for r in range(leaves.shape[1]):
        if n_trees[r] > 0:
            mean[r] /= n_trees[r]
        else:
            mean[r] = np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _tree_score(leaf, mean):
    """A tree's contribution to the estimate at the forest's solution, by the delta method."""
    if mean.size == 2:
        return (leaf[1] - mean[1] / mean[0] * leaf[0]) / mean[0]
    g, y, u, yu, uu = mean[0], mean[1], mean[2], mean[3], mean[4]
    det = uu * g - u * u
    tau = (yu * g - y * u) / det
    mu = (y - u * tau) / g
    psi_1 = leaf[3] - leaf[4] * tau - leaf[2] * mu
    psi_2 = leaf[1] - leaf[2] * tau - leaf[0] * mu
    return (g * psi_1 - u * psi_2) / det


@njit(cache=True, nogil=True, error_model="numpy")
def _group_moments(leaves, forest, size, mean, moments):
    """Mean squares of group means and of tree scores, over groups with all trees; their number."""
    moments[:] = 0.0
    for first in range(0, leaves.shape[0], size):
        for r in range(leaves.shape[1]):
            total = 0.0
            squares = 0.0
            complete = True
            for t in range(first, first + size):
                if leaves[t, r] < 0:
                    complete = False
                    break
                leaf = forest.stats[forest.leaf_start[t] + leaves[t, r]]
                score = _tree_score(leaf, mean[r])
                total += score
                squares += score * score
            if complete:
                moments[r, 0] += (total / size) ** 2
                moments[r, 1] += squares / size
                moments[r, 2] += 1.0
    for r in range(leaves.shape[1]):
        if moments[r, 2] > 0.0:
            moments[r, :2] /= moments[r, 2]
        else:
            moments[r, :2] = np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def predict_rows(X, forest, drawn, cluster, first, last, group_size, out, trees, moments):
    """Average leaf statistics for rows ``first`` to ``last`` and, for groups, score moments.

    Writes ``out`` (n, n_stats), ``trees`` (n,) and, if ``group_size`` > 1, ``moments`` (n, 3):
    mean square between groups, mean square of trees, number of complete groups.
    """
    leaves = np.empty((forest.node_start.size - 1, last - first), np.int32)
    _leaves(X, first, forest, drawn, cluster, leaves)
    _average(leaves, forest, out[first:last], trees[first:last])
    if group_size > 1:
        _group_moments(leaves, forest, group_size, out[first:last], moments[first:last])


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
    n_rows = last - first
    leaves = np.empty((forest.node_start.size - 1, n_rows), np.int32)
    mean = np.empty((n_rows, 5))
    n_trees = np.empty(n_rows, np.int64)
    excess = np.zeros(n_rows)
    without = np.empty(5)
    _leaves(X, first, forest, drawn, cluster, leaves)
    _average(leaves, forest, mean, n_trees)
    for r in range(n_rows):
        out[first + r] = _residual(mean[r], targets[first + r, 0], targets[first + r, 1])
    for t in range(leaves.shape[0]):
        for r in range(n_rows):
            n = n_trees[r]
            if leaves[t, r] >= 0 and n > 5:
                leaf = forest.stats[forest.leaf_start[t] + leaves[t, r]]
                for s in range(5):
                    without[s] = (n * mean[r, s] - leaf[s]) / (n - 1)
                moved = _residual(without, targets[first + r, 0], targets[first + r, 1])
                excess[r] += (moved - out[first + r]) ** 2
    for r in range(n_rows):
        n = n_trees[r]
        out[first + r] = np.nan if n <= 5 else out[first + r] ** 2 - excess[r] * (n - 1) / n


@njit(cache=True, nogil=True, error_model="numpy")
def add_weights(X, forest, drawn, cluster, first, last, member_start, members, out):
    """Dense forest weights (rows, n) of the rows: how much each training unit counts."""
    leaves = np.empty((forest.node_start.size - 1, last - first), np.int32)
    _leaves(X, first, forest, drawn, cluster, leaves)
    for r in range(last - first):
        target = out[r]
        target[:] = 0.0
        n = 0
        for t in range(leaves.shape[0]):
            if leaves[t, r] >= 0:
                n += 1
                leaf = forest.leaf_start[t] + leaves[t, r]
                size = member_start[leaf + 1] - member_start[leaf]
                for k in range(member_start[leaf], member_start[leaf + 1]):
                    target[members[k]] += 1.0 / size
        if n > 0:
            target /= n
