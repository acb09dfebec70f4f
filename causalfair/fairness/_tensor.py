"""The count table: the only thing the estimators read from the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import BoolArray, FloatArray, IntArray

MAX_DENSE_CELLS = 5_000_000
ROW_CHUNK = 4_000_000


@dataclass(frozen=True, slots=True)
class PatternCounts:
    """Counts by stratum and by pattern of proxy levels; only patterns that occur are kept.

    Attributes
    ----------
    counts : (n_strata, n_patterns) float array
        Rows (or weight) in each cell. Stratum ``k * n_labels + y`` is decision k and label y.
    patterns : (n_patterns, n_proxies) int array
        Levels of the proxies; -1 where the proxy is missing.
    n_levels : tuple of int
        Number of levels of each proxy, without "missing".
    n_pred, n_labels : int
        Number of decisions and of outcome labels (1 when there is no label).
    squared : (n_strata, n_patterns) float array
        Sum of squared weights; equal to ``counts`` when there are none.
    """

    counts: FloatArray
    patterns: IntArray
    n_levels: tuple[int, ...]
    n_pred: int
    n_labels: int
    squared: FloatArray

    @property
    def n(self) -> float:
        """Total count."""
        return float(self.counts.sum())

    @property
    def n_strata(self) -> int:
        """Number of strata, decisions times labels."""
        return int(self.counts.shape[0])

    @property
    def n_proxies(self) -> int:
        """Number of proxies."""
        return int(self.patterns.shape[1])

    @property
    def n_effective(self) -> float:
        """Kish's effective number of rows."""
        return self.n**2 / float(self.squared.sum())

    def complete(self) -> PatternCounts:
        """Only the rows in which every proxy is observed."""
        keep = np.asarray((self.patterns >= 0).all(axis=1))
        return self.columns(keep)

    def columns(self, keep: BoolArray) -> PatternCounts:
        """Only some patterns."""
        return replace(
            self,
            counts=np.ascontiguousarray(self.counts[:, keep]),
            squared=np.ascontiguousarray(self.squared[:, keep]),
            patterns=np.ascontiguousarray(self.patterns[keep]),
        )

    def views(self, which: Sequence[int]) -> PatternCounts:
        """Counts of a subset of the proxies: the others are summed out."""
        picked = self.patterns[:, list(which)]
        patterns, column = np.unique(picked, axis=0, return_inverse=True)
        return replace(
            self,
            counts=_sum_columns(self.counts, column.ravel(), len(patterns)),
            squared=_sum_columns(self.squared, column.ravel(), len(patterns)),
            patterns=np.ascontiguousarray(patterns),
            n_levels=tuple(self.n_levels[j] for j in which),
        )

    def strata(self, which: Sequence[int]) -> PatternCounts:
        """Counts of some strata, kept apart, as decisions without labels."""
        counts = self.counts[list(which)]
        sub = replace(
            self, counts=counts, squared=self.squared[list(which)], n_pred=len(which), n_labels=1
        )
        return sub.columns(np.asarray(counts.sum(axis=0) > 0))

    def pooled(self) -> PatternCounts:
        """Counts summed over strata: one stratum."""
        return replace(
            self,
            counts=self.counts.sum(axis=0, keepdims=True),
            squared=self.squared.sum(axis=0, keepdims=True),
            n_pred=1,
            n_labels=1,
        )

    def with_counts(self, counts: FloatArray) -> PatternCounts:
        """Return the same cells with other counts."""
        return replace(self, counts=counts, squared=counts)

    def dense(self) -> FloatArray:
        """Complete patterns as an array (n_strata, L_1, ..., L_m)."""
        kept = self.complete()
        out = np.zeros((self.n_strata, *self.n_levels))
        out[(slice(None), *kept.patterns.T)] = kept.counts
        return out

    def margin(self, j: int) -> FloatArray:
        """Counts (n_strata, L_j) of the rows in which proxy j is observed."""
        return self.views([j]).dense()

    def stratum_totals(self) -> FloatArray:
        """Total count of each stratum."""
        return np.asarray(self.counts.sum(axis=1))


def _sum_columns(values: FloatArray, column: IntArray, n_columns: int) -> FloatArray:
    out = np.zeros((values.shape[0], n_columns))
    for s in range(values.shape[0]):
        out[s] = np.bincount(column, weights=values[s], minlength=n_columns)
    return out


def from_tensor(
    N: FloatArray,
    *,
    missing: Sequence[bool] | None = None,
    squared: FloatArray | None = None,
) -> PatternCounts:
    """Turn a dense tensor (n_pred, n_labels, L_1, ..., L_m) into pattern counts.

    ``missing[j]`` says that the last level of proxy j means "missing".
    """
    m = N.ndim - 2
    flags = (False,) * m if missing is None else tuple(missing)
    n_pred, n_labels = N.shape[:2]
    flat = N.reshape(n_pred * n_labels, -1)
    occurs = np.flatnonzero(flat.sum(axis=0) > 0)
    patterns = np.stack(np.unravel_index(occurs, N.shape[2:]), axis=1).astype(np.intp)
    for j in range(m):
        if flags[j]:
            column = patterns[:, j]
            column[column == N.shape[2 + j] - 1] = -1
    counts = np.ascontiguousarray(flat[:, occurs], dtype=np.float64)
    second = counts if squared is None else squared.reshape(flat.shape)[:, occurs].copy()
    levels = tuple(int(N.shape[2 + j]) - int(flags[j]) for j in range(m))
    return PatternCounts(counts, patterns, levels, int(n_pred), int(n_labels), second)


def every_cell(data: PatternCounts) -> PatternCounts:
    """Add the complete patterns that did not occur, with count zero."""
    total = int(np.prod(data.n_levels))
    grid = np.stack(np.unravel_index(np.arange(total), data.n_levels), axis=1).astype(np.intp)
    dense = data.dense().reshape(data.n_strata, -1)
    partial = (data.patterns < 0).any(axis=1)
    counts = np.concatenate([dense, data.counts[:, partial]], axis=1)
    patterns = np.concatenate([grid, data.patterns[partial]], axis=0)
    return replace(data, counts=counts, squared=counts, patterns=patterns)


def count_rows(
    codes: IntArray,
    prediction: IntArray,
    label: IntArray | None,
    weight: FloatArray | None,
    *,
    n_pred: int,
    n_labels: int,
    n_levels: Sequence[int],
) -> PatternCounts:
    """Count rows by cell in one pass; codes (n, m) with -1 for missing."""
    missing = has_missing(codes)
    radix = np.asarray(n_levels, dtype=np.int64) + missing
    cells = float(n_pred) * n_labels * float(np.prod(radix.astype(float)))
    if cells > MAX_DENSE_CELLS:
        return _count_patterns(codes, prediction, label, weight, n_pred, n_labels, n_levels)
    shape = (n_pred, n_labels, *(int(r) for r in radix))
    tensor = count_dense(codes, prediction, label, weight, radix, n_labels, shape)
    squared = None
    if weight is not None:
        squared = count_dense(codes, prediction, label, weight**2, radix, n_labels, shape)
    return from_tensor(tensor, missing=tuple(bool(b) for b in missing), squared=squared)


def has_missing(codes: IntArray) -> BoolArray:
    """Whether each view has a code of -1: (m,). Column by column, which is ten times faster."""
    return np.array([codes[:, j].min(initial=0) < 0 for j in range(codes.shape[1])], dtype=np.bool_)


def count_dense(
    codes: IntArray,
    prediction: IntArray,
    label: IntArray | None,
    weight: FloatArray | None,
    radix: IntArray,
    n_labels: int,
    shape: tuple[int, ...],
) -> FloatArray:
    from causalfair.fairness import _kernels

    size = int(np.prod(shape))
    n_blocks = _kernels.N_BLOCKS if size * _kernels.N_BLOCKS <= MAX_DENSE_CELLS else 1
    counts = np.zeros((n_blocks, size))
    # in chunks, so that narrow integers are widened for the kernel without a copy of all rows
    for start in range(0, len(codes), ROW_CHUNK):
        rows = slice(start, start + ROW_CHUNK)
        _kernels.count_cells(
            np.ascontiguousarray(codes[rows], dtype=np.int64),
            np.ascontiguousarray(prediction[rows], dtype=np.int64),
            np.empty(0, dtype=np.int64)
            if label is None
            else label[rows].astype(np.int64, copy=False),
            np.empty(0) if weight is None else weight[rows],
            radix,
            n_labels,
            counts,
        )
    return np.asarray(counts.sum(axis=0).reshape(shape))


def _count_patterns(
    codes: IntArray,
    prediction: IntArray,
    label: IntArray | None,
    weight: FloatArray | None,
    n_pred: int,
    n_labels: int,
    n_levels: Sequence[int],
) -> PatternCounts:
    """Count unique patterns by sorting: for tables too wide to hold."""
    patterns, column = np.unique(codes.astype(np.intp), axis=0, return_inverse=True)
    stratum = prediction.astype(np.intp) * n_labels
    if label is not None:
        stratum = stratum + label.astype(np.intp)
    cell = stratum * len(patterns) + column.ravel()
    n_strata = n_pred * n_labels

    def tally(w: FloatArray | None) -> FloatArray:
        flat = np.bincount(cell, weights=w, minlength=n_strata * len(patterns))
        return flat.astype(np.float64).reshape(n_strata, len(patterns))

    counts = tally(weight)
    squared = counts if weight is None else tally(weight**2)
    return PatternCounts(counts, patterns, tuple(n_levels), n_pred, n_labels, squared)


def cell_table(
    data: PatternCounts,
    codes: IntArray,
    stratum: IntArray,
    weight: FloatArray | None,
    unit: IntArray,
) -> Any:
    """Weight of each unit (cluster) in each cell: sparse (n_units, n_strata * n_patterns)."""
    from scipy.sparse import coo_array

    order = {tuple(p): i for i, p in enumerate(data.patterns.tolist())}
    unique, inverse = np.unique(codes, axis=0, return_inverse=True)
    column = np.array([order[tuple(p)] for p in unique.tolist()])[inverse.ravel()]
    cell = stratum * len(data.patterns) + column
    w = np.ones(len(cell)) if weight is None else weight
    return coo_array((w, (unit, cell)), shape=(int(unit.max()) + 1, data.counts.size)).tocsr()
