"""Ridge regression from Gram matrices: penalty path, choice of the penalty, sandwich inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import IdentificationError

__all__ = [
    "Gram",
    "RidgeFit",
    "make_gram",
    "penalty_path",
    "ridge",
    "sandwich",
    "within_share",
]

PENALTIES = 10.0 ** np.linspace(-4, 2, 13)
UNIDENTIFIED = 1e-10
LIGHT = 1e-6  # penalty of named style features relative to that of the rest


@dataclass(frozen=True, slots=True)
class Gram:
    """Cross products of one least-squares problem, per unit of weight.

    Attributes
    ----------
    xx : (d, d) ``X'WX / n``; xy : (d,) ``X'Wy / n``; yy : ``y'Wy / n``.
    scale : (d,) size of each column; light : (d,) columns that are hardly penalised.
    kept : (d,) columns that vary.
    n : rows, or the sum of weights.
    """

    xx: FloatArray
    xy: FloatArray
    yy: float
    scale: FloatArray
    light: BoolArray
    kept: BoolArray
    n: float

    @property
    def weight(self) -> FloatArray:
        """Penalty (d,) of each column per unit of ``penalty``."""
        return np.where(self.light, LIGHT * self.scale, self.scale)


@dataclass(frozen=True, slots=True)
class RidgeFit:
    """A fitted ridge.

    Attributes
    ----------
    coef : (d,) coefficients, exactly zero where a column does not vary.
    penalty : per-sample penalty in units of ``scale``.
    path : (m, 2) penalty and loss, empty for a fixed penalty.
    df : effective number of parameters.
    """

    coef: FloatArray
    penalty: float
    path: FloatArray
    df: float


def within_share(residual: FloatArray, raw: FloatArray, weight: FloatArray) -> FloatArray:
    """Share (d,) of each column's variance left after the confounders."""
    centred = raw - np.average(raw, axis=0, weights=weight)
    total = np.einsum("i,ij,ij->j", weight, centred, centred)
    left = np.einsum("i,ij,ij->j", weight, residual, residual)
    tiny = np.finfo(float).eps ** 2 * np.einsum("i,ij,ij->j", weight, raw, raw)
    return np.asarray(np.where(total > tiny, left / np.where(total > tiny, total, 1.0), 0.0))


def make_gram(
    X: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    *,
    kept: BoolArray,
    blocks: Any = None,
) -> Gram:
    """Cross products; columns of the block ``"text"`` share one scale, ``"style"`` is light.

    Style features are few, named and nearly collinear: a penalty that is right for hundreds of
    anonymous directions would bend them, and they the choice of the penalty.
    """
    n = float(weight.sum())
    weighted = weight[:, None] * X
    xx = weighted.T @ X / n
    scale = np.diag(xx).copy()
    if blocks is not None and (shared := (blocks == "text") & kept).any():
        scale[shared] = scale[shared].mean()
    scale = np.where(kept & (scale > 0), scale, 1.0)
    light = np.zeros(len(scale), bool) if blocks is None else np.asarray(blocks == "style")
    return Gram(xx, weighted.T @ y / n, float(weight @ y**2 / n), scale, light, kept, n)


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """Eigen-decomposition of the scaled Gram matrix of the kept columns."""

    root: FloatArray
    vectors: FloatArray
    values: FloatArray
    kept: BoolArray

    @property
    def _largest(self) -> float:
        return float(np.max(self.values, initial=1e-300))

    def solve(self, xy: FloatArray, penalty: float) -> FloatArray:
        coef = np.zeros(len(self.kept))
        rotated = self.vectors.T @ (xy[self.kept] / self.root)
        floor = UNIDENTIFIED * self._largest
        usable = self.values > floor if penalty == 0 else np.ones(len(self.values), bool)
        shrunk = np.where(usable, rotated / np.where(usable, self.values + penalty, 1.0), 0.0)
        coef[self.kept] = (self.vectors @ shrunk) / self.root
        return coef

    def df(self, penalty: float) -> float:
        floor = UNIDENTIFIED * self._largest if penalty == 0 else 0.0
        live = self.values[self.values > floor]
        return float((live / (live + penalty)).sum())


def _spectrum(xx: FloatArray, scale: FloatArray, kept: BoolArray) -> _Spectrum:
    root = np.sqrt(scale[kept])
    values, vectors = np.linalg.eigh(xx[np.ix_(kept, kept)] / np.outer(root, root))
    return _Spectrum(root, vectors, np.clip(values, 0, None), kept)


def ridge(
    gram: Gram,
    penalty: float | None,
    *,
    df_absorbed: float = 1.0,
    held_out: Callable[[Callable[[FloatArray, FloatArray], FloatArray]], FloatArray] | None = None,
) -> RidgeFit:
    """Ridge with a fixed penalty, or the one that minimises GCV or the held-out loss.

    Parameters
    ----------
    gram : Gram
        Cross products.
    penalty : float or None
        Per-sample penalty relative to the variances of the columns; None chooses among 13 values
        from 1e-4 to 100.
    df_absorbed : float, default 1
        Degrees of freedom of the confounders, for GCV.
    held_out : callable, optional
        Maps a path solver ``(xx, xy) -> (d, m)`` to losses (m,); GCV when None.

    Returns
    -------
    RidgeFit
        Coefficients and the choice.
    """
    spectrum = _spectrum(gram.xx, gram.scale if penalty == 0 else gram.weight, gram.kept)
    if penalty is not None:
        coef = spectrum.solve(gram.xy, penalty)
        return RidgeFit(coef, float(penalty), np.empty((0, 2)), spectrum.df(penalty))
    if held_out is None:
        losses = _gcv(gram, spectrum, df_absorbed)
    else:

        def path(xx: FloatArray, xy: FloatArray) -> FloatArray:
            return penalty_path(replace(gram, xx=xx, xy=xy))

        losses = held_out(path)
    best = float(PENALTIES[int(np.argmin(losses))])
    curve = np.column_stack([PENALTIES, losses])
    return RidgeFit(spectrum.solve(gram.xy, best), best, curve, spectrum.df(best))


def coefficients(gram: Gram, xy: FloatArray, penalty: float) -> FloatArray:
    """Coefficients (d, m) of m outcomes whose cross products (d, m) are given, at one penalty."""
    spectrum = _spectrum(gram.xx, gram.scale if penalty == 0 else gram.weight, gram.kept)
    return np.column_stack([spectrum.solve(column, penalty) for column in xy.T])


def penalty_path(gram: Gram) -> FloatArray:
    """Coefficients (d, 13) at every penalty of the grid."""
    spectrum = _spectrum(gram.xx, gram.weight, gram.kept)
    return np.column_stack([spectrum.solve(gram.xy, float(p)) for p in PENALTIES])


def _gcv(gram: Gram, spectrum: _Spectrum, df_absorbed: float) -> FloatArray:
    losses = []
    for p in PENALTIES:
        b = spectrum.solve(gram.xy, float(p))
        rss = max(float(gram.yy - 2 * b @ gram.xy + b @ gram.xx @ b), 0.0) * gram.n
        room = max(gram.n - df_absorbed - spectrum.df(float(p)), 1.0)
        losses.append(gram.n * rss / room**2)
    return np.asarray(losses)


@dataclass(frozen=True, slots=True)
class Sandwich:
    """Unpenalised coefficients and their covariance.

    Attributes
    ----------
    coef : (d,); vcov : (d, d); inverse : (d, d) pseudo-inverse of ``X'WX / n``.
    factor : small-sample factor inside ``vcov``; rank : identified directions.
    basis : (d, r) orthonormal directions, in standardised columns, that are identified.
    """

    coef: FloatArray
    vcov: FloatArray
    inverse: FloatArray
    factor: float
    rank: int
    basis: FloatArray
    root: FloatArray


def sandwich(
    gram: Gram,
    X: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    *,
    cluster: IntArray | None,
    n_used: int,
    df_absorbed: int,
) -> Sandwich:
    """Least squares on residualised columns with a clustered or HC1 covariance.

    ``V = A^-1 (sum_g S_g S_g') A^-1 * G/(G-1) * (n-1)/(n-d-df)``, and ``n/(n-d-df)`` without
    clusters.

    Raises
    ------
    IdentificationError
        No column varies, or no degrees of freedom are left.
    """
    from causalfair.inference.vcov import clustered_vcov

    spectrum = _spectrum(gram.xx, gram.scale, gram.kept)
    live = spectrum.values > UNIDENTIFIED * spectrum._largest
    rank = int(live.sum())
    room = n_used - rank - df_absorbed
    if room <= 0:
        raise IdentificationError(
            f"no degrees of freedom are left: {n_used} informative rows, {rank} text features and "
            f"{df_absorbed} absorbed. Use fewer features, or coarser confounders."
        )
    inverse = np.zeros_like(gram.xx)
    scaled = (spectrum.vectors[:, live] / spectrum.values[live]) @ spectrum.vectors[:, live].T
    inverse[np.ix_(gram.kept, gram.kept)] = scaled / np.outer(spectrum.root, spectrum.root)
    coef = inverse @ gram.xy
    error = y - X @ coef
    scores = (weight * error)[:, None] * X
    factor = (n_used if cluster is None else n_used - 1) / room
    if cluster is None:
        meat = scores.T @ scores / gram.n**2
    else:
        centred = scores - scores.mean(axis=0)
        meat = clustered_vcov(centred * (len(X) / gram.n), cluster)
    vcov = inverse @ meat @ inverse * factor
    basis = np.zeros((len(coef), rank))
    basis[gram.kept] = spectrum.vectors[:, live]
    root = np.ones(len(coef))
    root[gram.kept] = spectrum.root
    return Sandwich(coef, (vcov + vcov.T) / 2, inverse, factor, rank, basis, root)
