"""Covariance of influence-function estimates: independent rows, one-way and multi-way clusters."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import SmallSampleWarning

__all__ = ["cluster_sums", "clustered_vcov", "iid_vcov", "nearest_psd", "smallest_cluster_count"]


def iid_vcov(influence: FloatArray, *, small_sample: bool = False) -> FloatArray:
    """Covariance ``Psi' Psi / n**2`` of an estimate with influence ``Psi``.

    Parameters
    ----------
    influence : numpy.ndarray of shape (n, k)
        Influence values with mean zero.
    small_sample : bool, default False
        Multiply by ``n / (n - 1)``.

    Returns
    -------
    numpy.ndarray of shape (k, k)
        Covariance of the estimate.
    """
    n = len(influence)
    vcov = influence.T @ influence / n**2
    return vcov * (n / (n - 1)) if small_sample else vcov


def cluster_sums(influence: FloatArray, codes: IntArray) -> FloatArray:
    """Sum influence values within clusters.

    Parameters
    ----------
    influence : numpy.ndarray of shape (n, k)
        Influence values.
    codes : numpy.ndarray of shape (n,)
        Cluster codes 0, ..., G - 1.

    Returns
    -------
    numpy.ndarray of shape (G, k)
        Sums, one row a cluster.
    """
    count = int(codes.max()) + 1
    return np.column_stack(
        [np.bincount(codes, weights=column, minlength=count) for column in influence.T]
    )


def clustered_vcov(influence: FloatArray, cluster: IntArray) -> FloatArray:
    """Cluster-robust covariance, one-way or multi-way.

    One way: ``G / (G - 1) * sum_g S_g S_g' / n**2`` with ``S_g`` the cluster sums. Several ways:
    inclusion and exclusion over the intersections [1]_, each with its own factor.

    Parameters
    ----------
    influence : numpy.ndarray of shape (n, k)
        Influence values with mean zero.
    cluster : numpy.ndarray of shape (n, c)
        Cluster codes, one column a way of clustering.

    Returns
    -------
    numpy.ndarray of shape (k, k)
        Covariance of the estimate.

    References
    ----------
    .. [1] A. C. Cameron, J. B. Gelbach, D. L. Miller (2011). Robust inference with multiway
       clustering. Journal of Business & Economic Statistics 29, 238-249, section 2.3.
       doi:10.1198/jbes.2010.07136
    """
    ways = cluster.shape[1]
    vcov = np.zeros((influence.shape[1],) * 2)
    for size in range(1, ways + 1):
        for chosen in combinations(range(ways), size):
            codes = _intersection(cluster[:, chosen])
            sums = cluster_sums(influence, codes)
            groups = len(sums)
            factor = groups / (groups - 1) if groups > 1 else 1.0
            vcov += (-1) ** (size + 1) * factor * (sums.T @ sums)
    vcov /= len(influence) ** 2
    return vcov if ways == 1 else nearest_psd(vcov, what="multi-way clustered covariance")


def _intersection(codes: IntArray) -> IntArray:
    if codes.shape[1] == 1:
        return codes[:, 0]
    inverse: IntArray = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    return inverse


def nearest_psd(vcov: FloatArray, *, what: str) -> FloatArray:
    """Clip negative eigenvalues at zero, with a warning where it changes anything that matters."""
    values, vectors = np.linalg.eigh((vcov + vcov.T) / 2)
    if values[0] >= 0:
        return vcov
    if values[0] < -1e-12 * max(values[-1], 0.0):
        warn(
            f"The {what} is not positive semi-definite (smallest eigenvalue {values[0]:.3g}); its "
            "negative eigenvalues were set to zero. Few clusters in one way are the usual cause.",
            SmallSampleWarning,
        )
    return np.asarray((vectors * np.clip(values, 0, None)) @ vectors.T)


def smallest_cluster_count(cluster: IntArray) -> int:
    """Number of clusters of the way that has fewest."""
    return int(cluster.max(axis=0).min()) + 1
