"""Least squares with the errors that treatment-effect regressions are read with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair.exceptions import IdentificationError
from causalfair.inference import CovarianceEstimates, InfluenceEstimates

__all__ = ["least_squares"]

FloatArray = NDArray[np.float64]


def least_squares(
    design: FloatArray,
    target: FloatArray,
    names: Sequence[str],
    *,
    cluster: Any = None,
    sample_weight: FloatArray | None = None,
    sample_id: str | None = None,
    owner: str = "least_squares",
) -> Any:
    """Weighted least squares; HC3 errors, or clustered errors from influence values.

    Parameters
    ----------
    design : ndarray of shape (n, k)
        Regressors, the constant included where one is wanted.
    target : ndarray of shape (n,)
        Outcome.
    names : sequence of str
        Names of the k coefficients.
    cluster : ndarray of shape (n,) or (n, c), optional
        Cluster codes.
    sample_weight : ndarray of shape (n,), optional
        Weights.
    sample_id : str, optional
        Identity of the rows.
    owner : str
        Who asks, for messages.

    Returns
    -------
    CovarianceEstimates or InfluenceEstimates
        Coefficients.

    Raises
    ------
    IdentificationError
        The regressors are collinear.
    """
    n, k = design.shape
    w = np.ones(n) if sample_weight is None else sample_weight
    scale = np.sqrt(np.mean(design**2, axis=0))
    singular = np.linalg.svd(
        np.sqrt(w)[:, None] * design / np.where(scale > 0, scale, 1), compute_uv=False
    )
    if n < k or not singular[-1] > 1e-10 * singular[0]:
        raise IdentificationError(
            f"{owner}: the {k} regressors ({', '.join(map(str, names[:8]))}) are collinear in "
            f"{n} rows; drop constant or redundant columns."
        )
    inverse = np.linalg.inv(design.T @ (w[:, None] * design))
    coefficients = inverse @ (design.T @ (w * target))
    residual = target - design @ coefficients
    spread = w[:, None] * design @ inverse  # (n, k) rows of the pseudo-inverse
    if cluster is not None:
        influence = n * spread * residual[:, None]
        influence -= influence.mean(axis=0)  # zero but for rounding
        return InfluenceEstimates(
            coefficients, influence, names, cluster=cluster, sample_id=sample_id
        )
    leverage = np.einsum("ij,ij->i", spread, design)
    scores = spread * (residual / np.maximum(1 - leverage, 1e-12))[:, None]
    return CovarianceEstimates(coefficients, scores.T @ scores, names)
