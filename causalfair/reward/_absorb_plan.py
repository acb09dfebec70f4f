"""What the absorber knows before it sees a column: codes, sorted rows, components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import DataError

__all__ = ["Factor", "Plan", "code_factor", "factorize", "informative_rows", "make_plan"]

MOST_CELLS = 20_000_000  # non-zeros of the Schur complement that a factorisation may have
MOST_LEVELS = 200_000


@dataclass(frozen=True, slots=True)
class Factor:
    """One coded factor.

    Attributes
    ----------
    codes : (n,) int32 levels 0, ..., L - 1.
    levels : (L,) their values.
    counts : (L,) rows of each.
    """

    codes: IntArray
    levels: Any
    counts: IntArray


def factorize(values: Any) -> tuple[IntArray, Any]:
    """Codes 0, ..., L - 1 as int32, and the L levels; missing values are a level of their own."""
    coded = code_factor(values)
    return coded.codes, coded.levels


def code_factor(values: Any) -> Factor:
    """Codes, levels and counts of any column."""
    array = np.ascontiguousarray(values)
    if array.dtype.kind in "iub" and array.size:
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high <= 4 * len(array) + 1024:
            counts = np.bincount(array.astype(np.int64, copy=False), minlength=high + 1)
            levels = np.flatnonzero(counts)
            if len(levels) == high + 1:
                return Factor(array.astype(np.int32, copy=False), levels, counts)
            place = np.cumsum(counts > 0, dtype=np.int32) - np.int32(1)
            return Factor(place[array], levels, counts[levels])
    import pandas as pd

    codes, levels = pd.factorize(array, sort=False, use_na_sentinel=True)
    if (codes < 0).any():
        codes = np.where(codes < 0, len(levels), codes)
        levels = np.array([*levels, None], dtype=object)
    counts = np.bincount(codes, minlength=len(levels))
    return Factor(codes.astype(np.int32), levels, counts)


def recode(factor: Factor, keep: BoolArray) -> Factor:
    """The factor on some of the rows, empty levels taken out."""
    codes = factor.codes[keep]
    counts = np.bincount(codes, minlength=len(factor.counts))
    present = counts > 0
    place = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return Factor(place[codes], np.asarray(factor.levels)[present], counts[present])


def informative_rows(factors: list[Factor]) -> BoolArray:
    """Rows that are alone in no level, once all that are have been dropped again and again."""
    from causalfair.reward import _kernels

    if all(int(f.counts.min()) > 1 for f in factors):
        return np.ones(len(factors[0].codes), dtype=bool)
    stacked = np.ascontiguousarray(np.column_stack([f.codes for f in factors]))
    offsets = np.concatenate([[0], np.cumsum([len(f.counts) for f in factors])])[:-1]
    counts = np.concatenate([f.counts for f in factors]).astype(np.int64)
    keep: BoolArray = _kernels.drop_singletons(stacked, counts, offsets.astype(np.int64))
    return keep


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows as given and rows sorted by the eliminated factor, the one with most levels.

    Attributes
    ----------
    eliminated : number of that factor; others : numbers of the others, most levels first.
    main : (m,) its levels; codes : (m, F - 1) those of the others, shifted into ``size`` levels;
        unsigned, so that indexing needs no check for negative numbers.
    weight : (m,) weights, or (1,) where all are one.
    sorted_codes, sorted_weight : the same, sorted by ``main``; pointer : (L + 1,) its levels there.
    total : (L,) weight of its levels; level_total : (size,) of the others'.
    """

    eliminated: int
    others: tuple[int, ...]
    main: Any
    codes: Any
    weight: FloatArray
    sorted_codes: Any
    sorted_weight: FloatArray
    pointer: IntArray
    total: FloatArray
    level_total: FloatArray

    @property
    def size(self) -> int:
        """Levels of all factors but the eliminated one."""
        return len(self.level_total)

    @property
    def links(self) -> tuple[int, ...]:
        """One entry for each factor but the eliminated one, for the kernels."""
        return (0,) * len(self.others)


def make_plan(factors: list[Factor], weight: FloatArray | None) -> Plan:
    """Sort the rows by the factor with most levels.

    Parameters
    ----------
    factors : list of Factor
        Factors of the informative rows.
    weight : numpy.ndarray of shape (m,) or None
        Weights; all one when None.

    Returns
    -------
    Plan
        Ready for columns.
    """
    from causalfair.reward import _kernels

    levels = [len(f.counts) for f in factors]
    main = int(np.argmax(levels))
    others = tuple(sorted((j for j in range(len(levels)) if j != main), key=lambda j: -levels[j]))
    codes = np.empty((len(factors[main].codes), len(others)), dtype=np.uint32)
    mass: list[FloatArray] = [np.empty(0)]
    start = 0
    for column, j in enumerate(others):
        codes[:, column] = factors[j].codes
        codes[:, column] += np.uint32(start)
        mass.append(
            factors[j].counts.astype(np.float64)
            if weight is None
            else np.asarray(np.bincount(factors[j].codes, weight, levels[j]), dtype=np.float64)
        )
        start += levels[j]
    main_codes = factors[main].codes.view(np.uint32)
    filled = np.ones(1) if weight is None else weight
    sorted_codes, sorted_weight, pointer, total = _kernels.sort_codes(
        main_codes, codes, filled, levels[main]
    )
    return Plan(
        main, others, main_codes, codes, filled, sorted_codes, sorted_weight, pointer, total,
        np.concatenate(mass),
    )  # fmt: skip


def can_factor(plan: Plan) -> bool:
    """Whether the Schur complement is small or sparse enough to factorise."""
    if plan.size > MOST_LEVELS:
        return False
    in_group = np.diff(plan.pointer).astype(np.float64) * plan.codes.shape[1]
    return min(float((in_group**2).sum()), float(plan.size) ** 2) <= MOST_CELLS


def factor_schur(plan: Plan) -> Any:
    """The Schur complement as a sparse matrix, and a function that solves with it."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    m, groups = len(plan.main), len(plan.total)
    weight = np.broadcast_to(plan.sorted_weight, (m,))
    rows = np.repeat(np.arange(m), plan.codes.shape[1])
    dummies = sparse.csr_matrix(
        (np.ones(rows.size), (rows, plan.sorted_codes.ravel().astype(np.int64))),
        shape=(m, plan.size),
    )
    group = np.repeat(np.arange(groups), np.diff(plan.pointer))
    main = sparse.csr_matrix((weight, (group, np.arange(m))), shape=(groups, m))
    cells = (main @ dummies).tocsr()
    within = dummies.T @ sparse.diags(weight) @ dummies
    matrix = (within - cells.T @ sparse.diags(1 / plan.total) @ cells).tocsc()
    ground = 1e-11 * float(matrix.diagonal().mean())
    grounded = (matrix + ground * sparse.eye(plan.size)).tocsc()
    factored = splu(
        grounded, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return matrix, factored.solve


def component_labels(factors: list[Factor]) -> tuple[IntArray, IntArray]:
    """Connected component of every level of the first two factors."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    first, second = factors[0], factors[1]
    size = len(first.counts) + len(second.counts)
    links = sparse.coo_matrix(
        (np.ones(len(first.codes), np.int8), (first.codes, second.codes + len(first.counts))),
        shape=(size, size),
    )
    labels = connected_components(links, directed=False)[1]
    return labels[: len(first.counts)], labels[len(first.counts) :]


def count_components(factors: list[Factor]) -> int:
    """Connected components of the first two factors; levels of a single one."""
    if len(factors) < 2:
        return len(factors[0].counts) if factors else 0
    if not len(factors[0].codes):
        return 0
    return int(max(labels.max() for labels in component_labels(factors))) + 1


def is_nested(codes: IntArray, cluster: IntArray) -> bool:
    """Whether every level lies in one cluster."""
    first = np.empty(int(codes.max(initial=-1)) + 1, dtype=cluster.dtype)
    first[codes] = cluster
    return bool((first[codes] == cluster).all())


def named_factors(factors: Any) -> dict[str, Any]:
    """Factor by name, from an array, a sequence of arrays, a mapping or a frame."""
    if isinstance(factors, Mapping):
        named = {str(k): np.asarray(v) for k, v in factors.items()}
    elif hasattr(factors, "columns"):
        named = {str(k): np.asarray(factors[k]) for k in factors.columns}
    elif isinstance(factors, np.ndarray):
        columns = [factors] if factors.ndim == 1 else list(factors.T)
        named = {f"factor{j}": column for j, column in enumerate(columns)}
    elif isinstance(factors, Sequence) and len(factors) and np.ndim(factors[0]) == 1:
        named = {f"factor{j}": np.asarray(column) for j, column in enumerate(factors)}
    else:
        raise DataError(
            "Absorber.fit needs factors as an (n, F) array, a list of (n,) arrays, a mapping or a "
            f"frame; got {type(factors).__name__}."
        )
    lengths = {name: len(column) for name, column in named.items()}
    if not lengths or len(set(lengths.values())) > 1 or not next(iter(lengths.values())):
        shown = ", ".join(f"{k} {v}" for k, v in lengths.items()) or "no factor"
        raise DataError(f"Absorber.fit: factors need one common, positive length; got {shown}.")
    return named


def check_weights(weights: Any, n: int) -> FloatArray | None:
    """Positive weights (n,), or None."""
    if weights is None:
        return None
    array = np.array(weights, dtype=np.float64)
    if array.shape != (n,):
        raise DataError(f"Absorber.fit: weights has shape {array.shape}; it needs ({n},).")
    bad = int((~(array > 0) | ~np.isfinite(array)).sum())
    if bad:
        raise DataError(
            f"Absorber.fit: {bad} of {n} weights are not positive and finite; drop those rows."
        )
    return array
