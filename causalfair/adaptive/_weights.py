"""Weights over a finite universe: coding of columns, inner products, updates, conjunctions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import DataError, ParameterError

_KERNEL_FROM = 1 << 12


def encode_cells(columns: IntArray, levels: Sequence[int]) -> IntArray:
    """Mixed-radix cell index of each row of integer codes, shape (n, p) -> (n,)."""
    cells = np.zeros(len(columns), dtype=np.intp)
    for j, size in enumerate(levels):
        cells = cells * size + columns[:, j]
    return cells


def decode_cells(levels: Sequence[int]) -> IntArray:
    """Codes of every cell, shape (N, p)."""
    return np.indices(tuple(levels)).reshape(len(levels), -1).T.astype(np.intp)


def dot(f: FloatArray | BoolArray, weights: FloatArray) -> float:
    """Mean of f under the weights."""
    return float(f @ weights)


def update(weights: FloatArray, f: FloatArray | BoolArray, step: float) -> FloatArray:
    """Weights proportional to ``weights * exp(step * f)``; 0/1 queries need no exponential."""
    binary = f.dtype == np.bool_ or bool(np.all((f == 0) | (f == 1)))
    if not binary or len(weights) < _KERNEL_FROM:
        raised = np.multiply(f, step, dtype=np.float64)
        np.exp(raised, out=raised)
        raised *= weights
        raised /= raised.sum()
        return np.asarray(raised)
    from causalfair.adaptive import _kernels

    out = np.empty(len(weights))
    chosen = f.astype(np.bool_, copy=False)
    _kernels.update_binary(weights, chosen, dot(chosen, weights), step, out)
    return out


@dataclass(frozen=True, slots=True)
class Conjunction:
    """All of several binary columns are one: a query that needs no vector over the universe.

    Parameters
    ----------
    columns : sequence of int
        Positions of the binary columns that must all be one.

    Examples
    --------
    >>> from causalfair.adaptive import Conjunction
    >>> import numpy as np
    >>> Conjunction((0, 2))(np.array([[1, 0, 1], [1, 1, 0]]))
    array([ True, False])
    """

    columns: tuple[int, ...]

    def __init__(self, columns: Sequence[int]) -> None:
        chosen = tuple(int(c) for c in columns)
        if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
            raise ParameterError(
                f"columns must be distinct positions from 0. Got {list(columns)!r} instead."
            )
        object.__setattr__(self, "columns", chosen)

    def __call__(self, X: IntArray, y: object = None) -> BoolArray:
        """Evaluate on rows of codes."""
        del y
        return np.asarray(np.all(np.asarray(X)[:, list(self.columns)] == 1, axis=1))

    def mask(self, n_columns: int) -> int:
        """Bits of the chosen columns in the cell index of `n_columns` binary columns.

        Parameters
        ----------
        n_columns : int
            Number of binary columns of the universe.

        Returns
        -------
        int
            Bit mask.
        """
        if max(self.columns) >= n_columns:
            raise DataError(f"The query names column {max(self.columns)}; there are {n_columns}.")
        return sum(1 << (n_columns - 1 - c) for c in self.columns)

    def vector(self, n_cells: int) -> BoolArray:
        """Value on every cell of ``2**d`` cells.

        Parameters
        ----------
        n_cells : int
            Number of cells.

        Returns
        -------
        array of shape (n_cells,)
            Whether each cell satisfies the conjunction.
        """
        mask = self.mask(n_cells.bit_length() - 1)
        return np.asarray((np.arange(n_cells) & mask) == mask)

    def mean(self, weights: FloatArray) -> float:
        """Mean under weights over all ``2**d`` cells, without building the vector.

        Parameters
        ----------
        weights : array of shape (2**d,)
            Weights that sum to one.

        Returns
        -------
        float
            Weight of the cells that satisfy the conjunction.
        """
        from causalfair.adaptive import _kernels

        n_columns = len(weights).bit_length() - 1
        return float(_kernels.conjunction_mean(weights, self.mask(n_columns)))


def kl_divergence(p: FloatArray, weights: FloatArray) -> float:
    """``KL(p || weights)``, the potential that every update lowers."""
    inside = p > 0
    return float(np.sum(p[inside] * np.log(p[inside] / weights[inside])))
