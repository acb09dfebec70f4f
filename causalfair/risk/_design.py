"""Designs: an intercept, standardised numbers, and indicators of groups and decision makers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import DataError, IdentificationError

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray

INTERCEPT = "intercept"


@dataclass(frozen=True)
class Design:
    """Intercept and standardised columns; two-valued columns are left as they are.

    Attributes
    ----------
    names : tuple of str
        ``"intercept"`` and the covariates.
    center, scale : (d,) float arrays
        Of the standardisation; 0 and 1 for the intercept and for two-valued columns.
    encoder : CovariateEncoder
        Makes the covariates of new data.
    """

    names: tuple[str, ...]
    center: FloatArray
    scale: FloatArray
    encoder: Any

    @property
    def d(self) -> int:
        """Number of columns, the intercept counted."""
        return len(self.names)

    def standardise(self, matrix: FloatArray) -> FloatArray:
        """(n, d) design of raw covariates (n, d - 1)."""
        full = np.column_stack([np.ones(len(matrix)), matrix])
        return np.ascontiguousarray((full - self.center) / self.scale)

    def matrix(self, X: Any, *, owner: str) -> FloatArray:
        """(n, d) design of a new table."""
        frame = self.encoder.transform(X, owner=owner)
        return self.standardise(self.encoder.matrix(frame, owner=owner))

    def original_scale(self, coefficients: FloatArray) -> FloatArray:
        """Coefficients (..., d) per unit of each covariate, from those on standardised columns."""
        out = coefficients / self.scale
        out[..., 0] = coefficients[..., 0] - (out[..., 1:] * self.center[1:]).sum(axis=-1)
        return np.asarray(out)


def fit_design(data: Any, weight: FloatArray, *, owner: str) -> Design:
    """Design of the covariates, with weighted means and standard deviations.

    Raises
    ------
    IdentificationError
        A column is constant, or columns are collinear; they are named.
    """
    matrix = data.matrix()
    names = tuple(data.covariate_names)
    _check_rank(matrix, names, owner)
    share = weight / weight.sum()
    center, scale = share @ matrix, np.ones(len(names))
    for j in range(len(names)):
        if len(np.unique(matrix[:2000, j])) <= 2 and len(np.unique(matrix[:, j])) <= 2:
            center[j] = 0.0
        else:
            scale[j] = np.sqrt(share @ (matrix[:, j] - center[j]) ** 2)
    return Design(
        (INTERCEPT, *names),
        np.concatenate([[0.0], center]),
        np.concatenate([[1.0], scale]),
        data.encoder,
    )


def _check_rank(matrix: FloatArray, names: tuple[str, ...], owner: str) -> None:
    spread = np.ptp(matrix, axis=0) if len(names) else np.zeros(0)
    constant = [name for name, width in zip(names, spread, strict=True) if width == 0]
    if constant:
        raise IdentificationError(
            f"{owner}: covariate(s) {', '.join(constant)} take one value in all rows; leave them "
            "out, the intercept is added."
        )
    if not names:
        return
    if len(names) >= len(matrix):
        raise DataError(f"{owner}: {len(names)} covariates for {len(matrix)} rows; give fewer.")
    from scipy.linalg import qr

    z = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)
    triangle, order = qr(z, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(triangle))
    dependent = [names[j] for j in order[: len(diagonal)][diagonal < 1e-9 * diagonal[0]]]
    if dependent:
        raise IdentificationError(
            f"{owner}: covariate(s) {', '.join(dependent)} are linear combinations of the others; "
            "leave them out."
        )
