"""Arrays in, forest out: grow trees on all threads, pass rows through them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from causalfair._core.parallel import map_threads

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Forest", "ForestSpec", "Predicted", "default_max_features", "grow_forest"]

FloatArray = NDArray[np.float64]

GROUPS_PER_BLOCK = 8
LEAVES_PER_BLOCK = 1 << 21  # rows times trees that pass together: 8 MB
ROWS_PER_BLOCK = 4096
WIDE = 20  # more columns than this many times the variables tried: sort them at each node


@dataclass(frozen=True, slots=True)
class ForestSpec:
    """How to grow; the meaning and defaults are those of :class:`CausalForest`."""

    n_trees: int = 2000
    causal: bool = True
    min_leaf_size: int = 5
    honesty: bool = True
    honesty_fraction: float = 0.5
    prune: bool = True
    sample_fraction: float = 0.5
    max_features: int | None = None
    alpha: float = 0.05
    imbalance_penalty: float = 0.0
    stabilize: bool = True
    group_size: int = 2
    equalize: bool = False
    store_members: bool = False


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a forest says about rows.

    Attributes
    ----------
    mean : ndarray of shape (n, 2) or (n, 5)
        Averages over trees of the leaf means of w, wY (and, for an effect, wV, wYV, wVV).
    value : ndarray of shape (n,)
        Effect (or regression mean); NaN where no tree speaks.
    variance : ndarray of shape (n,)
        Bootstrap of little bags; NaN where unavailable.
    n_trees : ndarray of shape (n,)
        Trees behind each row.
    """

    mean: FloatArray
    value: FloatArray
    variance: FloatArray
    n_trees: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Forest:
    """A grown forest on flat arrays; sized by its nodes, not by the training data."""

    flat: Any  # FlatForest
    group_size: int
    n_columns: int
    depth_counts: NDArray[np.int64]  # (4, p) splits by depth and variable
    drawn: NDArray[np.uint8] = field(repr=False)  # (trees, bytes) clusters each tree drew
    member_start: NDArray[np.int64] | None = None
    members: NDArray[np.int32] | None = None
    n_fit: int = 0

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return int(self.flat.node_start.size - 1)

    @property
    def is_causal(self) -> bool:
        """Whether leaves hold effects."""
        return bool(self.flat.stats.shape[1] == 5)

    def predict(
        self, X: NDArray[Any], *, out_of_bag: NDArray[np.intp] | None = None, n_jobs: int | None = 1
    ) -> Predicted:
        """Pass rows through the trees; ``out_of_bag`` gives each training row's cluster."""
        from ._kernels_predict import predict_rows

        n = X.shape[0]
        X = np.ascontiguousarray(X)
        cluster = _cluster_argument(out_of_bag)
        mean = np.empty((n, self.flat.stats.shape[1]))
        trees = np.zeros(n, np.int64)
        moments = np.full((n, 3), np.nan)

        def task(block: tuple[int, int]) -> None:
            predict_rows(X, self.flat, self.drawn, cluster, block[0], block[1], self.group_size,
                         mean, trees, moments)  # fmt: skip

        map_threads(task, _row_blocks(n, self.n_trees), n_jobs=n_jobs)
        value = _solve(mean)
        variance = _little_bags(moments, self.group_size)
        return Predicted(mean, value, variance, trees)

    def errors(
        self,
        X: NDArray[Any],
        targets: FloatArray,
        *,
        out_of_bag: NDArray[np.intp],
        n_jobs: int | None = 1,
    ) -> FloatArray:
        """Out-of-bag squared residuals of the R-loss, less the error of finitely many trees."""
        from ._kernels_predict import out_of_bag_errors

        n = X.shape[0]
        X = np.ascontiguousarray(X)
        cluster = _cluster_argument(out_of_bag)
        out = np.empty(n)

        def task(block: tuple[int, int]) -> None:
            out_of_bag_errors(X, self.flat, self.drawn, cluster, targets, *block, out)

        map_threads(task, _row_blocks(n, self.n_trees), n_jobs=n_jobs)
        return out

    def weights(self, X: NDArray[Any], *, out_of_bag: NDArray[np.intp] | None = None) -> csr_array:
        """Sparse (rows, training units) weights; each row with a prediction sums to one."""
        from scipy.sparse import csr_array, vstack

        from ._kernels_predict import add_weights

        X = np.ascontiguousarray(X)
        cluster = _cluster_argument(out_of_bag)
        row_blocks = _row_blocks(X.shape[0], max(self.n_trees, self.n_fit))
        dense = np.empty((max(last - first for first, last in row_blocks), self.n_fit))
        blocks = []
        for first, last in row_blocks:
            add_weights(X, self.flat, self.drawn, cluster, first, last, self.member_start,
                        self.members, dense)  # fmt: skip
            blocks.append(csr_array(dense[: last - first]))
        return csr_array(vstack(blocks))


def _row_blocks(n: int, width: int) -> list[tuple[int, int]]:
    """Rows that pass the trees together: enough to keep a tree in the cache, and 8 blocks or so."""
    size = max(min(LEAVES_PER_BLOCK // width, ROWS_PER_BLOCK, math.ceil(n / 8)), 64)
    return [(first, min(first + size, n)) for first in range(0, n, size)]


def _cluster_argument(cluster: NDArray[np.intp] | None) -> NDArray[np.int64]:
    return np.empty(0, np.int64) if cluster is None else np.ascontiguousarray(cluster, np.int64)


def _solve(mean: FloatArray) -> FloatArray:
    """Effect or mean from averaged leaf statistics; NaN where the treatment does not vary."""
    if mean.shape[1] == 2:
        return np.asarray(mean[:, 1] / mean[:, 0])
    g, y, u, yu, uu = mean.T
    det = uu * g - u * u
    usable = det > 1e-12 * np.maximum(1.0, np.abs(uu * g))
    return np.where(usable, (yu * g - y * u) / np.where(usable, det, 1.0), np.nan)


def _little_bags(moments: FloatArray, size: int) -> FloatArray:
    """Variance between little bags, less the noise within, kept positive by a flat prior."""
    between, total, groups = moments.T
    if size == 1:
        return np.full(between.shape, np.nan)
    noise = (total - between) / (size - 1)
    naive = between - noise
    spread = np.maximum(between, noise) * np.sqrt(2.0 / np.maximum(groups, 1))
    usable = spread >= 1e-10
    ratio = naive / np.where(usable, spread, 1.0)
    mills = np.exp(-0.5 * ratio**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(ratio))
    variance = np.where(usable, naive + spread * mills, 0.0)
    return np.where(np.isnan(between), np.nan, variance)


@dataclass(frozen=True, slots=True)
class _Columns:
    codes: NDArray[np.int32]  # (n, p) rank among the distinct values; -1 missing
    values: FloatArray  # distinct values of all columns, one after another
    start: NDArray[np.int64]  # (p + 1,) where each column's values begin


def _rank_columns(X: NDArray[Any], n_jobs: int | None) -> _Columns:
    n, p = X.shape
    codes = np.empty((n, p), np.int32)

    def rank(j: int) -> FloatArray:
        column = X[:, j]
        rows = np.argsort(column)  # NaN come last
        ordered = column[rows]
        n_seen = n - int(np.isnan(ordered).sum())
        new = np.ones(n_seen, bool)
        new[1:] = ordered[1:n_seen] != ordered[: n_seen - 1]
        codes[rows[:n_seen], j] = np.cumsum(new) - 1
        codes[rows[n_seen:], j] = -1
        return ordered[:n_seen][new].astype(np.float64)

    values = map_threads(rank, range(p), n_jobs=n_jobs)
    start = np.concatenate([[0], np.cumsum([v.size for v in values])]).astype(np.int64)
    return _Columns(codes, np.concatenate(values), start)


def _cluster_lists(cluster: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    sizes = np.bincount(cluster)
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return start, np.argsort(cluster, kind="stable").astype(np.uint32)


def default_max_features(p: int) -> int:
    """Mean number of variables tried at a node: ceil(sqrt(p) + 20), at most p."""
    return min(math.ceil(math.sqrt(p) + 20), p)


def _rules(spec: ForestSpec, p: int, n_clusters: int) -> Any:
    from ._kernels_split import GrowthRules

    if spec.group_size == 1:
        n_half = n_clusters
        n_draw = math.floor(spec.sample_fraction * n_clusters)
    else:
        n_half = n_clusters // 2
        n_draw = min(math.ceil(2 * spec.sample_fraction * n_half), n_half)
    n_try = default_max_features(p) if spec.max_features is None else spec.max_features
    return GrowthRules(
        causal=spec.causal,
        stabilize=spec.stabilize and spec.causal,
        honesty=spec.honesty,
        prune=spec.prune,
        equalize=spec.equalize,
        store_members=spec.store_members,
        min_leaf_size=spec.min_leaf_size,
        n_try=n_try,
        group_size=spec.group_size,
        n_half=n_half,
        n_draw=n_draw,
        n_structure=math.ceil(spec.honesty_fraction * n_draw) if spec.honesty else n_draw,
        sort_always=p > WIDE * n_try,
        alpha=float(spec.alpha),
        imbalance_penalty=float(spec.imbalance_penalty),
    )


def _node_bounds(rules: Any, largest_cluster: int, n: int) -> tuple[int, int]:
    """Most nodes and leaves a tree can have: every admissible child has a least size."""
    m = min(rules.n_structure * largest_cluster, n)
    least = 2 * rules.min_leaf_size if rules.stabilize else 1
    leaves = max(m // max(least, 1), 1)
    return 2 * leaves + 1, leaves + 1


def _room(
    rules: Any, n_groups: int, bounds: tuple[int, int], n: int, p: int, n_clusters: int
) -> Any:
    from ._kernels import Grown

    trees = n_groups * rules.group_size
    nodes, leaves = bounds
    return Grown(
        split=np.empty((trees, nodes), np.int32),
        cut=np.empty((trees, nodes), np.int32),
        left=np.empty((trees, nodes), np.int32),
        stats=np.empty((trees, leaves, 5 if rules.causal else 2)),
        n_nodes=np.empty(trees, np.int64),
        n_leaves=np.empty(trees, np.int64),
        drawn=np.empty((trees, (n_clusters + 7) // 8), np.uint8),
        leaf_of=np.empty((trees, n if rules.store_members else 0), np.int32),
        depth_counts=np.zeros((trees, 4, p), np.int64),
    )


def _compact(grown: Any, columns: _Columns) -> dict[str, Any]:
    """Keep the filled part of a block; cut codes become values of the column."""
    from ._kernels_predict import NODE

    used = np.arange(grown.split.shape[1]) < grown.n_nodes[:, None]
    nodes = np.zeros(used.sum(), NODE)
    nodes["split"], nodes["left"] = grown.split[used], grown.left[used]
    inner = nodes["split"] >= 0
    cut = grown.cut[used][inner]
    position = columns.start[nodes["split"][inner] >> 1] + cut
    nodes["threshold"][inner] = np.where(cut < 0, -np.inf, columns.values[position])
    filled = np.arange(grown.stats.shape[1]) < grown.n_leaves[:, None]
    return {
        "nodes": nodes,
        "stats": grown.stats[filled],
        "n_nodes": grown.n_nodes,
        "n_leaves": grown.n_leaves,
        "drawn": grown.drawn,
        "depth_counts": grown.depth_counts.sum(axis=0),
        "members": list(_members(grown)) if grown.leaf_of.shape[1] else [],
    }


def _members(grown: Any) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """For each tree the sizes of its leaves and their units, leaf by leaf."""
    for leaf_of, n_leaves in zip(grown.leaf_of, grown.n_leaves, strict=True):
        units = np.flatnonzero(leaf_of >= 0)
        leaf = leaf_of[units]
        yield (
            np.bincount(leaf, minlength=n_leaves),
            units[np.argsort(leaf, kind="stable")].astype(np.int32),
        )


def grow_forest(
    X: NDArray[Any],
    targets: FloatArray,
    spec: ForestSpec,
    *,
    seeds: NDArray[np.uint64],
    cluster: NDArray[np.intp] | None = None,
    n_jobs: int | None = 1,
    desc: str | None = None,
) -> Forest:
    """Grow a forest.

    Parameters
    ----------
    X : ndarray of shape (n, p), float32 or float64
        Splitting variables; NaN is a missing value.
    targets : ndarray of shape (n, 3)
        Outcome, treatment and weight; the first two centred for an effect.
    spec : ForestSpec
        How to grow.
    seeds : ndarray of shape (ceil(n_trees / group_size),), uint64
        One seed for each group of trees.
    cluster : ndarray of shape (n,), optional
        Codes 0, 1, ... of the units of sampling; default every row its own.
    n_jobs : int, optional
        Threads; the result does not depend on it.
    desc : str, optional
        What is growing, for the progress line.
    """
    from ._kernels import grow_groups

    n, p = X.shape
    if cluster is None:
        cluster = np.arange(n)
    start, units_of = _cluster_lists(cluster)
    sizes = np.diff(start)
    rules = _rules(spec, p, sizes.size)
    columns = _rank_columns(X, n_jobs)
    targets = np.ascontiguousarray(targets, np.float64)
    bounds = _node_bounds(rules, int(sizes.max()), n)
    blocks = [seeds[k : k + GROUPS_PER_BLOCK] for k in range(0, seeds.size, GROUPS_PER_BLOCK)]

    def task(block: NDArray[np.uint64]) -> dict[str, Any]:
        room = _room(rules, block.size, bounds, n, p, sizes.size)
        grow_groups(block, start, units_of, sizes.min(), targets, columns.codes, rules,
                    room)  # fmt: skip
        return _compact(room, columns)

    parts = map_threads(task, blocks, n_jobs=n_jobs, desc=desc)
    return _assemble(parts, rules, n, p)


def _assemble(parts: list[dict[str, Any]], rules: Any, n: int, p: int) -> Forest:
    from ._kernels_predict import FlatForest

    def joined(key: str) -> NDArray[Any]:
        return np.concatenate([part[key] for part in parts])

    def starts(key: str) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(joined(key))]).astype(np.int64)

    flat = FlatForest(
        nodes=joined("nodes"),
        stats=joined("stats"),
        node_start=starts("n_nodes"),
        leaf_start=starts("n_leaves"),
    )
    member_start = members = None
    if rules.store_members:
        pairs = [pair for part in parts for pair in part["members"]]
        sizes = np.concatenate([size for size, _ in pairs])
        member_start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        members = np.concatenate([units for _, units in pairs])
    return Forest(
        flat=flat,
        group_size=rules.group_size,
        n_columns=p,
        depth_counts=sum(part["depth_counts"] for part in parts),
        drawn=joined("drawn"),
        member_start=member_start,
        members=members,
        n_fit=n,
    )
