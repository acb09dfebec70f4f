"""The obvious versions: recursive trees on lists of rows, loops over rows and trees."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

MASK = (1 << 64) - 1


class Counter:
    """The generator of the trees: a counter times the golden ratio, mixed twice."""

    def __init__(self, seed):
        self.state = int(seed)

    def uniform(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) / 2**53

    def shuffle_head(self, items, count):
        for i in range(count):
            j = i + int(self.uniform() * (len(items) - i))
            items[i], items[j] = items[j], items[i]

    def poisson(self, mean):
        total, product, limit = 0, self.uniform(), math.exp(-mean)
        while product > limit:
            total += 1
            product *= self.uniform()
        return total


class Tree:
    """A node: either ``variable, value, missing_left, children`` or ``stats`` (None if empty)."""

    def __init__(self):
        self.variable = None
        self.children = None
        self.stats = None

    def goes_left(self, x):
        if math.isnan(x[self.variable]):
            return self.missing_left
        return x[self.variable] <= self.value

    def leaf(self, x):
        node = self
        while node.children:
            node = node.children[0 if node.goes_left(x) else 1]
        return node


def least_squares(y, v, w):
    mean_y, mean_v = np.average(y, weights=w), np.average(v, weights=w)
    den = np.sum(w * (v - mean_v) ** 2)
    slope = np.sum(w * (v - mean_v) * (y - mean_y)) / den if den >= 1e-10 else None
    return slope, mean_y, mean_v


def candidate_splits(x):
    """(value, missing_left) in the order tried: missing left, then missing right."""
    present = sorted(set(x[~np.isnan(x)]))
    has_missing = np.isnan(x).any()
    if has_missing and present:
        yield -math.inf, True
    for value in present[:-1]:
        yield value, True
    if has_missing:
        for value in present[:-1]:
            yield value, False


def split_gain(left, rho, y_unused, v, w, spec):
    """Criterion of a split, or None if it is not admissible."""
    size = {}
    for side, rows in (("l", left), ("r", ~left), ("p", np.ones_like(left))):
        if not rows.any():
            return None
        centred = v[rows] - np.average(v, weights=w)
        size[side] = np.sum(w[rows] * centred**2) - np.sum(w[rows] * centred) ** 2 / w[rows].sum()
    below = v < np.average(v, weights=w)
    if spec["stabilize"]:
        for rows in (left, ~left):
            if min((rows & below).sum(), (rows & ~below).sum()) < spec["min_leaf_size"]:
                return None
        if min(size["l"], size["r"]) < spec["alpha"] * size["p"]:
            return None
    else:
        least = max(math.ceil(spec["alpha"] * left.size), 1)
        size = {"l": left.sum(), "r": (~left).sum()}
        if min(size.values()) < least:
            return None
    gain = sum(np.sum(w[s] * rho[s]) ** 2 / w[s].sum() for s in (left, ~left))
    return gain - spec["imbalance_penalty"] * (1 / size["l"] + 1 / size["r"])


def grow(X, y, v, w, rows, variables, spec, rng):
    tree = Tree()
    if len(rows) <= spec["min_leaf_size"] or len(rows) < 2:
        return tree
    if spec["stabilize"] and len(rows) < 4 * spec["min_leaf_size"]:
        return tree
    ry, rv, rw = y[rows], v[rows], w[rows]
    slope, mean_y, mean_v = least_squares(ry, rv, rw)
    rho = ry - mean_y
    if spec["causal"]:
        if slope is None:
            return tree
        rho = (rv - mean_v) * (ry - mean_y - slope * (rv - mean_v))
    if spec["stabilize"]:
        n_below = (rv < mean_v).sum()
        if min(n_below, len(rows) - n_below) < 2 * spec["min_leaf_size"]:
            return tree
    n_tried = min(max(rng.poisson(spec["max_features"]), 1), X.shape[1])
    rng.shuffle_head(variables, n_tried)
    best = 0.0
    for j in variables[:n_tried]:
        x = X[rows, j]
        for value, missing_left in candidate_splits(x):
            left = np.where(np.isnan(x), missing_left, x <= value)
            gain = split_gain(left, rho, ry, rv, rw, spec)
            if gain is not None and gain > best * (1 + 1e-10):
                best = gain
                tree.variable, tree.value, tree.missing_left, chosen = j, value, missing_left, left
    if tree.variable is not None:
        tree.children = [
            grow(X, y, v, w, rows[chosen], variables, spec, rng),
            grow(X, y, v, w, rows[~chosen], variables, spec, rng),
        ]
    return tree


def fill(tree, X, y, v, w, rows, causal):
    """Give leaves their means; returns the tree without empty leaves (None if all empty)."""
    if tree.children is None:
        if len(rows) == 0:
            return None
        a, b, c = y[rows], v[rows], w[rows]
        columns = [c, c * a, c * b, c * a * b, c * b * b] if causal else [c, c * a]
        tree.stats = np.array([column.mean() for column in columns])
        tree.members = rows
        return tree
    left = np.array([tree.goes_left(X[i]) for i in rows], bool)
    kept = [
        fill(child, X, y, v, w, part, causal)
        for child, part in zip(tree.children, (rows[left], rows[~left]), strict=True)
    ]
    if kept[0] is None:
        return kept[1]
    if kept[1] is None:
        return kept[0]
    tree.children = kept
    return tree


def forest(X, y, v, w, cluster, seeds, spec):
    """List of (tree or None, set of drawn clusters)."""
    n_clusters = cluster.max() + 1
    if spec["group_size"] == 1:
        n_half, n_draw = n_clusters, math.floor(spec["sample_fraction"] * n_clusters)
    else:
        n_half = n_clusters // 2
        n_draw = math.ceil(2 * spec["sample_fraction"] * n_half)
    trees = []
    for seed in seeds:
        rng = Counter(seed)
        everyone = list(range(n_clusters))
        rng.shuffle_head(everyone, n_half)
        half = everyone[:n_half]
        for _ in range(spec["group_size"]):
            rng.shuffle_head(half, n_draw)
            drawn = half[:n_draw]
            parts = [drawn, drawn]
            if spec["honesty"]:
                cut = math.ceil(spec["honesty_fraction"] * n_draw)
                parts = [drawn[:cut], drawn[cut:]]
            shape, filling = (
                np.concatenate([np.flatnonzero(cluster == c) for c in part]) for part in parts
            )
            tree = grow(X, y, v, w, shape, list(range(X.shape[1])), spec, rng)
            trees.append((fill(tree, X, y, v, w, filling, spec["causal"]), set(drawn)))
    return trees


def leaf_stats(trees, x, cluster=None):
    """One entry a tree: the leaf's means, or None."""
    return [
        None if tree is None or cluster in drawn else tree.leaf(x).stats for tree, drawn in trees
    ]


def slope_of(mean):
    g, y, u, yu, uu = mean
    return (yu * g - y * u) / (uu * g - u * u)


def predict(trees, x, group_size, cluster=None):
    """Effect (or mean) and little-bags variance before it is made positive: (value, S, se)."""
    stats = leaf_stats(trees, x, cluster)
    present = [s for s in stats if s is not None]
    mean = np.mean(present, axis=0)
    if mean.size == 2:
        value = mean[1] / mean[0]
        scores = [None if s is None else (s[1] - value * s[0]) / mean[0] for s in stats]
    else:
        value = slope_of(mean)
        g, my, u, _, uu = mean
        mu = (my - u * value) / g
        scores = [
            None
            if s is None
            else (g * (s[3] - s[4] * value - s[2] * mu) - u * (s[1] - s[2] * value - s[0] * mu))
            / (uu * g - u * u)
            for s in stats
        ]
    groups = [scores[k : k + group_size] for k in range(0, len(scores), group_size)]
    groups = np.array([g for g in groups if None not in g])
    between = np.mean(groups.mean(axis=1) ** 2)
    noise = (np.mean(groups**2) - between) / (group_size - 1)
    return value, between - noise, max(between, noise) * math.sqrt(2 / len(groups))


def debiased_error(trees, x, cluster, y, v):
    """Out-of-bag squared residual less its jackknife excess."""

    def residual(mean):
        return y - mean[1] / mean[0] - (v - mean[2] / mean[0]) * slope_of(mean)

    stats = np.array([s for s in leaf_stats(trees, x, cluster) if s is not None])
    if len(stats) <= 5:
        return math.nan
    whole = residual(stats.mean(axis=0))
    excess = sum(
        (residual(np.delete(stats, b, axis=0).mean(axis=0)) - whole) ** 2 for b in range(len(stats))
    )
    return whole**2 - excess * (len(stats) - 1) / len(stats)


def weights(trees, x, n):
    """How much each training row counts at x."""
    out = np.zeros(n)
    members = [tree.leaf(x).members for tree, _ in trees if tree is not None]
    for rows in members:
        out[rows] += 1 / len(rows) / len(members)
    return out


def rate(priority, scores, method, weight=None):
    """Rank-weighted average effect from its definition, and the curve at unit ends."""
    priority, scores = np.asarray(priority, float), np.asarray(scores, float)
    w = np.ones_like(scores) if weight is None else np.asarray(weight, float)
    order = sorted(range(len(scores)), key=lambda i: -priority[i])
    smoothed = np.empty_like(scores)
    for i in range(len(scores)):
        tied = priority == priority[i]
        smoothed[i] = np.sum(w[tied] * scores[tied]) / w[tied].sum()
    average = np.sum(w * scores) / w.sum()
    toc, value, done, total = [], 0.0, 0.0, 0.0
    for i in order:
        done += w[i]
        total += w[i] * smoothed[i]
        toc.append(total / done - average)
        factor = {"autoc": 1.0, "qini": done / w.sum()}[method]
        value += factor * w[i] * toc[-1] / w.sum()
    return value, np.array(toc)


def rate_influence(priority, scores, method):
    """Influence values without ties, term by term."""
    n = len(scores)
    order = sorted(range(n), key=lambda i: -priority[i])
    rank = {i: k + 1 for k, i in enumerate(order)}
    harmonic = [0.0]
    for k in range(1, n + 1):
        harmonic.append(harmonic[-1] + 1 / k)
    if method == "autoc":
        weight = {i: harmonic[n] - harmonic[rank[i] - 1] - 1 for i in range(n)}
        slope = {i: -n / rank[i] for i in range(n)}
    else:
        weight = {i: ((n + 1) / 2 - rank[i]) / n for i in range(n)}
        slope = dict.fromkeys(range(n), -1.0)
    value = sum(weight[i] * scores[i] for i in range(n)) / n
    centre = sum(slope[j] * scores[j] * rank[j] / n for j in range(n))
    return np.array(
        [
            weight[i] * scores[i]
            - value
            + (sum(slope[j] * scores[j] for j in range(n) if rank[j] >= rank[i]) - centre) / n
            for i in range(n)
        ]
    )


def best_stump(X, scores):
    """Largest sum of score * (+1 treated, -1 not) over all one-split rules, by brute force."""
    best = abs(np.sum(scores))
    for j in range(X.shape[1]):
        values = sorted(set(X[:, j]))
        for a, b in pairwise(values):
            left = X[:, j] <= (a + b) / 2
            best = max(best, abs(scores[left].sum()) + abs(scores[~left].sum()))
    return best
