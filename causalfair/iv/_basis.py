"""Bases of the parametric nuisance models, conditioned so that no solve sees a bad scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalfair._core.typing import FloatArray

__all__ = ["Basis", "condition_basis", "instrument_basis", "main_effects"]

RANK_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True)
class Basis:
    """A basis evaluated at both levels of the instrument and at the observed one.

    Attributes
    ----------
    at0, at1, observed : (n, k)
        The same array three times when the instrument does not enter.
    names : tuple of str
        Terms kept, in the user's units; the columns are linear combinations of them.
    transform : (k, k)
        ``columns = terms @ transform``; coefficients on the terms are ``transform @ coef``.
    dropped : tuple of str
        Terms that were linear combinations of earlier ones.
    """

    at0: FloatArray
    at1: FloatArray
    observed: FloatArray
    names: tuple[str, ...]
    transform: FloatArray
    dropped: tuple[str, ...] = ()

    @property
    def k(self) -> int:
        """Number of columns."""
        return int(self.observed.shape[1])


def independent_columns(R: FloatArray, tolerance: float = RANK_TOLERANCE) -> NDArray[np.intp]:
    """Columns of a triangular factor that are not combinations of earlier ones."""
    norms = np.linalg.norm(R, axis=0)
    kept: list[int] = []
    for j in range(R.shape[1]):
        if norms[j] == 0.0:
            continue
        rest = R[:, j] / norms[j]
        if kept:
            Q, _ = np.linalg.qr(R[:, kept] / norms[kept])
            # Twice, for one pass of projection leaves rounding of the size of the tolerance.
            rest = rest - Q @ (Q.T @ rest)
            rest = rest - Q @ (Q.T @ rest)
        if np.linalg.norm(rest) > tolerance:
            kept.append(j)
    return np.array(kept, dtype=np.intp)


def _triangular(columns: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.qr(columns, "r"), dtype=np.float64)


def condition_basis(
    at0: FloatArray,
    at1: FloatArray,
    observed: FloatArray,
    names: Sequence[str],
    rows: NDArray[np.bool_] | None = None,
) -> Basis:
    """Drop dependent terms and make the columns orthonormal (mean square one) in the data.

    Parameters
    ----------
    at0, at1, observed : (n, q)
        The terms at Z=0, at Z=1 and as observed.
    rows
        Rows the model is fitted on, when not all.
    """
    used = observed if rows is None else observed[rows]
    R = _triangular(used)
    kept = independent_columns(R)
    if kept.size < R.shape[1]:
        R = _triangular(R[:, kept])
    transform = np.linalg.inv(R) * np.sqrt(used.shape[0])
    names = tuple(names)

    def convert(terms: FloatArray) -> FloatArray:
        return np.ascontiguousarray(terms[:, kept] @ transform)

    new = convert(observed)
    return Basis(
        at0=new if at0 is observed else convert(at0),
        at1=new if at1 is observed else convert(at1),
        observed=new,
        names=tuple(names[j] for j in kept),
        transform=transform,
        dropped=tuple(names[j] for j in range(len(names)) if j not in set(kept.tolist())),
    )


def main_effects(X: FloatArray, names: Sequence[str]) -> tuple[FloatArray, list[str]]:
    """Intercept and the columns of X, centred and scaled so that large offsets cost no digits."""
    n = X.shape[0]
    if X.shape[1] == 0:
        return np.ones((n, 1)), ["Intercept"]
    centre = X.mean(axis=0)
    spread = X.std(axis=0)
    scaled = (X - centre) / np.where(spread > 0.0, spread, 1.0)
    return np.column_stack([np.ones(n), scaled]), ["Intercept", *names]


def instrument_basis(
    base: FloatArray, names: Sequence[str], z: FloatArray, *, interact: bool = True
) -> tuple[FloatArray, FloatArray, FloatArray, list[str]]:
    """``[b(X), Z b(X)]``, or ``[b(X), Z]`` without interactions, at Z=0, Z=1 and as observed."""
    extra = base if interact else base[:, :1]
    labels = ["instrument", *(f"instrument:{name}" for name in names[1:])]
    at0 = np.column_stack([base, np.zeros_like(extra)])
    at1 = np.column_stack([base, extra])
    observed = np.column_stack([base, extra * z[:, None]])
    return at0, at1, observed, [*names, *labels[: extra.shape[1]]]
