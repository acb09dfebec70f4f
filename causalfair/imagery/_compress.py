"""Standardised principal components of features, with the fit diagnostics that support needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair.exceptions import CausalFairWarning, ParameterError

__all__ = ["BlockCompressor", "Compressor", "resolve_components"]

SHARE = 0.95
MOST = 50


class Compressor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardise columns, drop constant ones, and keep leading principal components.

    Parameters
    ----------
    n_components : int, "auto" or None
        ``"auto"``: as few as explain 95 % of the variance, at most 50 and at most a tenth of the
        rows. None: standardised columns as they are.

    Attributes
    ----------
    kept_ : ndarray of bool, shape (D,)
        Columns that vary.
    components_ : ndarray of shape (m, D') or None
        Unit vectors, the largest loading positive.
    explained_ : ndarray of shape (m,)
        Shares of variance.
    """

    def __init__(self, n_components: Any = "auto") -> None:
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None) -> Compressor:
        """Learn means, spreads and components of ``X`` (n, D)."""
        del y
        X = np.asarray(X, dtype=np.float64)
        self.mean_: FloatArray = X.mean(axis=0)
        sd = X.std(axis=0)
        # A column is constant if its spread is lost in the rounding of its mean.
        self.kept_ = sd > 1e-12 + 1e-7 * np.abs(self.mean_)
        self.sd_: FloatArray = sd
        if not self.kept_.any():
            self.kept_ = np.zeros_like(self.kept_)
            self.components_, self.explained_ = None, np.zeros(0)
            return self
        if self.n_components is None:
            self.components_, self.explained_ = None, np.ones(int(self.kept_.sum()))
            return self
        Z = self._standardise(X)
        # Only leading components are kept, so the smaller of Z'Z and ZZ' is accurate enough, and
        # several times cheaper than a singular value decomposition.
        tall = Z.shape[0] >= Z.shape[1]
        values, vectors = np.linalg.eigh(Z.T @ Z if tall else Z @ Z.T)
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        share = values / values.sum()
        m = resolve_components(self.n_components, share, len(X))
        rows = vectors[:, :m].T if tall else (vectors[:, :m].T @ Z) / np.sqrt(values[:m, None])
        sign = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
        self.components_, self.explained_ = rows * sign[:, None], share[:m]
        return self

    def _standardise(self, X: Any) -> FloatArray:
        X = np.asarray(X, dtype=np.float64)[:, self.kept_]
        return np.asarray((X - self.mean_[self.kept_]) / self.sd_[self.kept_])

    def transform(self, X: Any) -> FloatArray:
        """Components (n, m) of ``X`` (n, D)."""
        Z = self._standardise(X)
        return Z if self.components_ is None else np.asarray(Z @ self.components_.T)

    def reconstruction_error(self, X: Any) -> FloatArray:
        """Mean squared distance of standardised rows from the space of the components, (n,)."""
        Z = self._standardise(X)
        if self.components_ is None:
            return np.zeros(len(Z))
        rest = Z - (Z @ self.components_.T) @ self.components_
        return np.asarray((rest**2).mean(axis=1))

    def names(self, columns: Any, block: str = "") -> list[str]:
        """Names of the output, given those of the input; ``block`` tells components apart."""
        if self.components_ is None:
            return [str(c) for c, kept in zip(columns, self.kept_, strict=True) if kept]
        return [f"image_{block and block + '_'}pc{j + 1}" for j in range(len(self.components_))]

    def loadings(self) -> FloatArray:
        """Weights (m, D) of the standardised columns in each output column."""
        kept = np.flatnonzero(self.kept_)
        rows = np.eye(kept.size) if self.components_ is None else self.components_
        out = np.zeros((len(rows), self.kept_.size))
        out[:, kept] = rows
        return out


class BlockCompressor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A compressor for each block of columns, side by side, such as scales of the same image.

    Parameters
    ----------
    n_components : int, "auto" or None
        As for :class:`Compressor`, for each block.
    blocks : sequence of str, one a column
        Block of each column.

    Attributes
    ----------
    parts_ : dict of str to Compressor
        One a block.
    """

    def __init__(self, n_components: Any = "auto", blocks: Any = ()) -> None:
        self.n_components = n_components
        self.blocks = blocks

    def fit(self, X: Any, y: Any = None) -> BlockCompressor:
        """Learn each block's components from ``X`` (n, D)."""
        del y
        X = np.asarray(X, dtype=np.float64)
        self.columns_ = {
            str(block): np.flatnonzero(np.asarray(self.blocks) == block)
            for block in dict.fromkeys(self.blocks)
        }
        self.parts_ = {
            block: Compressor(self.n_components).fit(X[:, at])
            for block, at in self.columns_.items()
        }
        self.explained_: FloatArray = np.concatenate([p.explained_ for p in self.parts_.values()])
        return self

    @property
    def components_(self) -> FloatArray | None:
        """Loadings, or None where columns are left as they are."""
        return None if self.n_components is None else self.loadings()

    def transform(self, X: Any) -> FloatArray:
        """Components of each block of ``X`` (n, D), side by side."""
        X = np.asarray(X, dtype=np.float64)
        return np.hstack([p.transform(X[:, self.columns_[b]]) for b, p in self.parts_.items()])

    def names(self, columns: Any) -> list[str]:
        """Names of the output, given those of the input."""
        columns = np.asarray(columns, dtype=object)
        return [
            name
            for block, part in self.parts_.items()
            for name in part.names(columns[self.columns_[block]], block)
        ]

    def loadings(self) -> FloatArray:
        """Weights (m, D) of the standardised columns in each output column."""
        rows = []
        for block, part in self.parts_.items():
            inner = part.loadings()
            whole = np.zeros((len(inner), len(self.blocks)))
            whole[:, self.columns_[block]] = inner
            rows.append(whole)
        return np.vstack(rows)


def resolve_components(wanted: Any, share: FloatArray, n: int) -> int:
    """Number of components meant by ``n_components``, given shares of variance."""
    most = int((share > 1e-12).sum())
    if isinstance(wanted, str):
        enough = int(np.searchsorted(np.cumsum(share), SHARE - 1e-12) + 1)
        return max(1, min(enough, MOST, n // 10, most))
    if wanted > most:
        warn(
            f"n_components={wanted} exceeds the rank {most} of the image features; {most} are "
            "used.",
            CausalFairWarning,
        )
    return max(1, min(int(wanted), most))


def check_components(n_components: Any, owner: str) -> None:
    """Refuse what is not a count, ``"auto"`` or None."""
    good = n_components is None or n_components == "auto"
    good = good or (
        isinstance(n_components, int | np.integer)
        and not isinstance(n_components, bool)
        and n_components >= 1
    )
    if not good:
        raise ParameterError(
            f"{owner} got n_components={n_components!r}; give a positive integer, 'auto' or None."
        )
