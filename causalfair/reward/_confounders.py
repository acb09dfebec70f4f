"""Confounders: factors to absorb, spline bases to partial out, and the projection on both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError
from causalfair.reward._absorb import Absorber, factorize
from causalfair.reward._absorb_plan import code_factor

__all__ = ["Confounders", "build_confounders", "spline_basis"]

SPLINE_DF = 5


def spline_basis(values: FloatArray, df: int = SPLINE_DF) -> FloatArray:
    """Cubic B-spline basis without its constant; dummies where there are few distinct values.

    Parameters
    ----------
    values : numpy.ndarray of shape (n,)
        A numeric confounder.
    df : int, default 5
        Columns.

    Returns
    -------
    numpy.ndarray of shape (n, q)
        Basis; q is ``df``, or the number of distinct values less one where that is smaller.
    """
    from scipy.interpolate import BSpline

    levels = np.unique(values)
    if len(levels) <= df + 1:
        return np.asarray(values[:, None] == levels[None, 1:], dtype=np.float64)
    low, high = levels[0], levels[-1]
    inner = np.quantile(values, np.linspace(0, 1, df - 1)[1:-1])
    inner = np.unique(inner[(inner > low) & (inner < high)])
    knots = np.concatenate([[low] * 4, inner, [high] * 4])
    design = BSpline.design_matrix(np.clip(values, low, high), knots, 3).toarray()
    return np.ascontiguousarray(design[:, 1:])


@dataclass
class Confounders:
    """Everything that is held fixed, and the residual-maker of it.

    Attributes
    ----------
    n : int
        Rows.
    factors : dict of str to numpy.ndarray of shape (n,)
        Codes of the categorical confounders.
    basis : numpy.ndarray of shape (n, q)
        Columns of the numeric ones; ``owner[j]`` names the confounder of column j.
    weight : numpy.ndarray of shape (n,)
        Row weights of the projection.
    notes : list of str
        What was recoded or dropped.
    """

    n: int
    factors: dict[str, IntArray]
    basis: FloatArray
    owner: tuple[str, ...]
    weight: FloatArray
    notes: list[str] = field(default_factory=list)
    solver: str = "auto"

    def __post_init__(self) -> None:
        self.absorber: Absorber | None = None
        if self.factors:
            uniform = bool(np.ptp(self.weight) == 0)
            coded = {name: code_factor(codes) for name, codes in self.factors.items()}
            self.absorber = Absorber(self.solver)._fit_coded(
                coded, None if uniform else self.weight
            )
        self._base = self._orthonormal(self._absorb(self.basis)) if self.basis.size else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the confounders."""
        return (*self.factors, *dict.fromkeys(self.owner))

    @property
    def is_pure(self) -> bool:
        """Whether the confounders are factors alone."""
        return not self.basis.size

    def _absorb(self, A: FloatArray) -> FloatArray:
        if self.absorber is not None:
            return self.absorber.residualize(A)
        return A - np.average(A, axis=0, weights=self.weight)

    def _orthonormal(self, basis: FloatArray) -> FloatArray:
        """Orthonormal columns, in the weighted product, that span the absorbed basis."""
        root = np.sqrt(self.weight)[:, None]
        scale = np.sqrt((self.weight[:, None] * self.basis**2).sum(axis=0))
        left, values, _ = np.linalg.svd(root * basis / np.where(scale > 0, scale, 1), False)
        rank = int((values > 1e-7 * max(values.max(initial=0.0), 1e-300)).sum())
        return np.asarray(left[:, :rank] / root)

    def residualize(self, A: FloatArray) -> FloatArray:
        """``M A``: residuals of columns (n,) or (n, d) on all confounders and the constant."""
        out = self._absorb(A)
        if self._base is not None:
            out = out - self._base @ (
                self._base.T @ (self.weight.reshape(-1, *[1] * (out.ndim - 1)) * out)
            )
        return out

    def fitted(self, a: FloatArray) -> FloatArray:
        """``a - M a``: what the confounders explain of a column."""
        return a - self.residualize(a)

    def subset(self, rows: IntArray) -> Confounders:
        """The same confounders on some of the rows; rows alone in a level there say nothing."""
        factors = {name: factorize(codes[rows])[0] for name, codes in self.factors.items()}
        return Confounders(
            len(rows), factors, self.basis[rows], self.owner, self.weight[rows], solver=self.solver
        )

    def without(self, name: str) -> Confounders:
        """All confounders but one."""
        factors = {key: codes for key, codes in self.factors.items() if key != name}
        kept = [j for j, owner in enumerate(self.owner) if owner != name]
        owners = tuple(self.owner[j] for j in kept)
        return Confounders(
            self.n, factors, self.basis[:, kept], owners, self.weight, solver=self.solver
        )

    def degrees_of_freedom(self, cluster: Any = None) -> int:
        """Degrees of freedom absorbed, the constant included."""
        rank = 0 if self._base is None else self._base.shape[1]
        if self.absorber is None:
            return rank + 1
        return rank + self.absorber.degrees_of_freedom(cluster)

    @property
    def n_singletons(self) -> int:
        """Rows alone in a level."""
        return 0 if self.absorber is None else self.absorber.n_singletons_

    @property
    def keep(self) -> Any:
        """Rows that carry information."""
        return np.ones(self.n, bool) if self.absorber is None else self.absorber.keep_

    def strata(self) -> IntArray:
        """Codes of the cells of all factors; one stratum where there are none."""
        cells = np.zeros(self.n, dtype=np.intp)
        for codes in self.factors.values():
            cells = cells * (int(codes.max()) + 1) + codes
            cells = np.unique(cells, return_inverse=True)[1].reshape(-1)
        return cells

    def finest(self) -> IntArray | None:
        """Codes of the factor with most levels, or None."""
        if not self.factors:
            return None
        return max(self.factors.values(), key=lambda codes: int(codes.max()))

    def design(self) -> Any:
        """Sparse design (n, q) of dummies and basis, for learners that see confounders."""
        from scipy import sparse

        parts = []
        for codes in self.factors.values():
            shape = (self.n, int(codes.max()) + 1)
            parts.append(sparse.csr_matrix((np.ones(self.n), (np.arange(self.n), codes)), shape))
        if self.basis.size:
            parts.append(sparse.csr_matrix(self.basis))
        return sparse.hstack(parts).tocsr() if parts else sparse.csr_matrix((self.n, 0))

    def frame(self) -> FloatArray:
        """Columns (n, k) of codes and basis, for tree learners."""
        return np.column_stack([*(c.astype(float) for c in self.factors.values()), self.basis])


def build_confounders(
    categorical: Mapping[str, Any],
    numeric: Mapping[str, Any],
    time: Mapping[str, Any],
    *,
    n: int,
    weight: FloatArray,
    basis: str = "spline",
    owner: str = "fit",
    solver: str = "auto",
) -> Confounders:
    """Code the confounders of a fit.

    Parameters
    ----------
    categorical, numeric, time : mapping of str to array of shape (n,)
        Confounders by kind.
    n : int
        Rows.
    weight : numpy.ndarray of shape (n,)
        Row weights.
    basis : {"spline", "linear"}
        How numeric confounders enter.
    owner : str
        Who asks, for messages.
    solver : str
        Solver of the absorber.

    Returns
    -------
    Confounders
        Planned and ready to residualise.
    """
    notes: list[str] = []
    columns: dict[str, Any] = dict(categorical)
    numbers = dict(numeric)
    for name, values in time.items():
        expanded, trend = _expand_time(values, name, owner)
        columns |= expanded
        numbers[f"{name} trend"] = trend
    factors = {}
    for name, values in columns.items():
        coded = _factor(name, values, notes, owner)
        if coded is not None:
            factors[name] = coded
    blocks, owners = [], []
    for name, values in numbers.items():
        for column in _numeric(name, values, basis, notes, owner).T:
            blocks.append(column)
            owners.append(name)
    matrix = np.column_stack(blocks) if blocks else np.empty((n, 0))
    return Confounders(n, factors, matrix, tuple(owners), weight, notes, solver)


def _factor(name: str, values: Any, notes: list[str], owner: str) -> IntArray | None:
    from causalfair._core.validation import missing_mask

    array = np.asarray(values)
    missing = int(missing_mask(array).sum())
    codes, levels = factorize(array)
    if missing:
        notes.append(f"{name}: {missing} missing value(s) form a level of their own.")
    if len(levels) < 2:
        notes.append(f"{name}: one level only; dropped.")
        return None
    if len(levels) == len(array):
        raise DataError(
            f"{owner}: categorical confounder {name!r} has as many levels as rows ({len(array)}): "
            "it is a row identifier and would absorb everything. Leave it out, or pass it as "
            "numeric= if it is a number."
        )
    return codes


def _numeric(name: str, values: Any, basis: str, notes: list[str], owner: str) -> FloatArray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{owner}: numeric confounder {name!r} has dtype {np.asarray(values).dtype}; pass it "
            "as categorical=, or convert it to numbers."
        ) from error
    missing = np.isnan(array)
    if np.isinf(array).any():
        raise DataError(f"{owner}: numeric confounder {name!r} has infinite values; recode them.")
    if missing.all():
        raise DataError(f"{owner}: numeric confounder {name!r} has no values; leave it out.")
    array = np.where(missing, np.median(array[~missing]), array)
    if np.ptp(array) == 0 and not missing.any():
        notes.append(f"{name}: one value only; dropped.")
        return np.empty((len(array), 0))
    columns = spline_basis(array) if basis == "spline" else (array - array.mean())[:, None]
    if missing.any():
        notes.append(
            f"{name}: {int(missing.sum())} missing value(s) set to the median and flagged."
        )
        columns = np.column_stack([columns, missing.astype(np.float64)])
    return columns


def _expand_time(values: Any, name: str, owner: str) -> tuple[dict[str, Any], FloatArray]:
    """Hour, weekday and month as factors, and the date as a number of days."""
    import pandas as pd

    try:
        stamps = pd.DatetimeIndex(pd.to_datetime(np.asarray(values)))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{owner}: time {name!r} cannot be read as dates ({error}); convert it to datetime64 "
            "of one time zone."
        ) from error
    if stamps.hasnans:
        raise DataError(
            f"{owner}: time {name!r} has {int(np.isnat(stamps.to_numpy()).sum())} missing value(s)."
        )
    parts = {
        f"{name} hour": stamps.hour.to_numpy(),
        f"{name} weekday": stamps.dayofweek.to_numpy(),
        f"{name} month": stamps.month.to_numpy(),
    }
    kept = {key: column for key, column in parts.items() if np.ptp(column) > 0}
    days = (stamps - stamps.min()) / pd.Timedelta(days=1)
    return kept, np.asarray(days, dtype=np.float64)
