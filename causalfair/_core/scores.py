"""From score functions to estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.exceptions import IdentificationError

__all__ = ["check_jacobian", "sandwich_influence", "weighted_mean_score"]


def sandwich_influence(scores: FloatArray, jacobian: FloatArray) -> FloatArray:
    """Influence values of an M-estimator: ``-J**-1 g_i``.

    Parameters
    ----------
    scores : numpy.ndarray of shape (n, k)
        Estimating functions at the estimate (they sum to zero).
    jacobian : numpy.ndarray of shape (k, k)
        Mean derivative of the estimating functions with respect to the parameters.

    Returns
    -------
    numpy.ndarray of shape (n, k)
        Influence values; their outer product gives the sandwich covariance.

    Raises
    ------
    IdentificationError
        The Jacobian is singular.
    """
    check_jacobian(jacobian)
    centred = scores - scores.mean(axis=0)
    return np.asarray(-np.linalg.solve(jacobian, centred.T).T)


def check_jacobian(jacobian: FloatArray, rcond: float = 1e-10) -> None:
    """Raise where a scaled Jacobian is singular to working precision."""
    scale = np.abs(jacobian).max(axis=1, keepdims=True)
    scaled = jacobian / np.where(scale > 0, scale, 1.0)
    values = np.linalg.svd(scaled, compute_uv=False)
    if not values[-1] > rcond * values[0]:
        raise IdentificationError(
            f"the estimating equations are singular (smallest singular value {values[-1]:.2g} of "
            f"{values[0]:.2g}): the data do not identify every parameter. Use fewer terms."
        )


def weighted_mean_score(
    score: FloatArray,
    names: Sequence[str],
    *,
    cluster: Any = None,
    sample_weight: FloatArray | None = None,
    sample_id: str | None = None,
) -> Any:
    """Estimates that are (weighted) means of scores: ``theta = mean(w * phi)``.

    Parameters
    ----------
    score : numpy.ndarray of shape (n, k)
        Scores whose mean is the estimate.
    names : sequence of str
        Names of the k terms.
    cluster, sample_weight, sample_id
        As for :class:`causalfair.inference.InfluenceEstimates`.

    Returns
    -------
    causalfair.inference.InfluenceEstimates
        Their means, with influence ``phi - theta``.
    """
    from causalfair.inference import InfluenceEstimates

    phi = score[:, None] if score.ndim == 1 else score
    theta = np.average(phi, axis=0, weights=sample_weight)
    return InfluenceEstimates(
        theta,
        phi - theta,
        names,
        cluster=cluster,
        sample_weight=sample_weight,
        sample_id=sample_id,
    )
