"""Standard errors that allow for dependence between places near each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.inference.estimates import Estimates
from causalfair.inference.kinds import CovarianceEstimates
from causalfair.inference.tests import HypothesisTest
from causalfair.inference.vcov import nearest_psd

__all__ = ["conley_vcov", "spatial_correlation_test", "spatial_errors", "unit_vectors"]

EARTH_KM = 6_371.0
BLOCK = 4096  # places whose neighbours are looked up at a time


def unit_vectors(coords: FloatArray) -> FloatArray:
    """Points on the unit sphere (n, 3) of longitudes and latitudes in degrees (n, 2)."""
    lon, lat = np.radians(coords).T
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def conley_vcov(influence: FloatArray, coords: FloatArray, cutoff_km: float) -> FloatArray:
    """Covariance that allows for dependence up to a distance.

    ``n**-2 sum_ij max(1 - d_ij / cutoff, 0) psi_i psi_j'`` with great-circle distances ``d_ij``.

    Parameters
    ----------
    influence : numpy.ndarray of shape (n, k)
        Influence values with mean zero.
    coords : numpy.ndarray of shape (n, 2)
        Longitude and latitude of each row in degrees.
    cutoff_km : float
        Distance in kilometres from which rows count as independent.

    Returns
    -------
    numpy.ndarray of shape (k, k)
        Covariance of the estimate.

    Notes
    -----
    Rows of one place are added up first, so the cost is that of the pairs of places within the
    cutoff. The weights need not give a covariance on a sphere; negative eigenvalues are set to zero
    with a warning.

    References
    ----------
    .. [1] T. G. Conley (1999). GMM estimation with cross sectional dependence. Journal of
       Econometrics 92, 1-45, section 3. doi:10.1016/S0304-4076(98)00084-0
    """
    from scipy.spatial import cKDTree

    places, code = np.unique(coords, axis=0, return_inverse=True)
    sums = np.zeros((len(places), influence.shape[1]))
    np.add.at(sums, code.ravel(), influence)
    points = unit_vectors(places)
    chord = 2 * np.sin(min(cutoff_km / EARTH_KM, np.pi) / 2)
    tree = cKDTree(points)
    vcov = np.zeros((influence.shape[1],) * 2)
    for start in range(0, len(places), BLOCK):
        part = slice(start, start + BLOCK)
        near = cKDTree(points[part]).sparse_distance_matrix(tree, chord, output_type="coo_matrix")
        arc = 2 * EARTH_KM * np.arcsin(np.clip(near.data / 2, 0, 1))
        near.data = np.maximum(1 - arc / cutoff_km, 0)
        vcov += sums[part].T @ (near @ sums)
        # A place is at distance zero from itself, which a sparse matrix may leave out.
        own = near.tocsr().diagonal(k=start)
        vcov += sums[part].T @ ((1 - own)[:, None] * sums[part])
    return nearest_psd(vcov / len(influence) ** 2, what="spatial covariance")


def spatial_errors(estimates: Estimates, coords: Any, *, cutoff_km: float) -> CovarianceEstimates:
    """The same estimates with errors that allow for dependence between near places.

    Parameters
    ----------
    estimates : Estimates
        With influence values, such as an average effect.
    coords : array of shape (n, 2)
        Longitude and latitude of each row in degrees.
    cutoff_km : float
        Distance in kilometres from which rows count as independent. Report more than one.

    Returns
    -------
    CovarianceEstimates
        Conley's standard errors with Bartlett weights; clusters of the original are not used.

    Raises
    ------
    DataError
        The estimates have no influence values, or coordinates do not fit.
    ParameterError
        The cutoff is not positive.

    References
    ----------
    .. [1] T. G. Conley (1999). GMM estimation with cross sectional dependence. Journal of
       Econometrics 92, 1-45, section 3. doi:10.1016/S0304-4076(98)00084-0

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.inference import InfluenceEstimates, spatial_errors
    >>> y = np.array([1.0, 2.0, 3.0, 4.0])
    >>> mean = InfluenceEstimates(y.mean(), (y - y.mean())[:, None], ["mean"])
    >>> coords = [[30.0, 1.0], [30.1, 1.0], [35.0, 1.0], [35.1, 1.0]]
    >>> bool(spatial_errors(mean, coords, cutoff_km=50).std_error > mean.std_error)
    True
    """
    owner = "spatial_errors"
    psi = estimates.influence
    if psi is None:
        raise DataError(
            f"{owner} needs estimates with influence values; {type(estimates).__name__} has none. "
            "A projection or an overlap-weighted average has them where the model was fitted with "
            "cluster= (one cluster a row will do)."
        )
    where = _coordinates(coords, len(psi), owner)
    if not cutoff_km > 0:
        raise ParameterError(f"{owner}: cutoff_km={cutoff_km!r} must be positive.")
    vcov = conley_vcov(psi, where, float(cutoff_km))
    return CovarianceEstimates(estimates.estimate, vcov, estimates.names)


def _coordinates(coords: Any, n: int, owner: str) -> FloatArray:
    """Longitudes and latitudes (n, 2), checked."""
    where = np.asarray(coords, dtype=np.float64)
    if where.shape != (n, 2) or not np.isfinite(where).all():
        raise DataError(
            f"{owner} got coords of shape {where.shape} for {n} rows; give finite longitude "
            "and latitude, (n, 2)."
        )
    if np.abs(where[:, 1]).max() > 90:
        raise DataError(
            f"{owner}: latitude reaches {np.abs(where[:, 1]).max():.4g}; are longitude and "
            "latitude swapped, or coordinates projected?"
        )
    return where


def spatial_correlation_test(
    values: Any, coords: Any, *, cutoff_km: float, n_draws: int = 999, random_state: Any = None
) -> HypothesisTest:
    """Test by Moran's I whether values of near places are more alike than those of others.

    Parameters
    ----------
    values : array of shape (n,)
        For instance doubly robust scores less their mean, or residuals of a projection.
    coords : array of shape (n, 2)
        Longitude and latitude of each row in degrees; rows of one place are averaged.
    cutoff_km : float
        Places closer than this are neighbours.
    n_draws : int, default 999
        Permutations of the places.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the permutations.

    Returns
    -------
    HypothesisTest
        Moran's I and a one-sided p-value; where places are correlated, use :func:`spatial_errors`.

    Raises
    ------
    DataError
        Lengths differ, values do not vary, or no two places are neighbours.
    ParameterError
        The cutoff is not positive, or there are too few draws.

    Notes
    -----
    ``I = (P / S) sum_ij w_ij z_i z_j / sum_i z_i**2`` with P places, weights one for neighbours and
    S their sum; its expectation without correlation is ``-1 / (P - 1)``.

    References
    ----------
    .. [1] P. A. P. Moran (1950). Notes on continuous stochastic phenomena. Biometrika 37, 17-23.
       doi:10.1093/biomet/37.1-2.17

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.inference import spatial_correlation_test
    >>> coords = np.column_stack([np.linspace(30, 31, 60), np.zeros(60)])
    >>> test = spatial_correlation_test(coords[:, 0], coords, cutoff_km=10, random_state=0)
    >>> bool(test.statistic > 0.8 and test.p_value < 0.01)
    True
    """
    from scipy.spatial import cKDTree

    owner = "spatial_correlation_test"
    array = check_numeric(values, "values", owner=owner)
    points = _coordinates(coords, array.size, owner)
    if not cutoff_km > 0:
        raise ParameterError(f"{owner}: cutoff_km={cutoff_km!r} must be positive.")
    if n_draws < 19:
        raise ParameterError(f"{owner}: n_draws={n_draws!r} must be 19 or more.")
    places, code = np.unique(points, axis=0, return_inverse=True)
    z = np.bincount(code.ravel(), weights=array) / np.bincount(code.ravel())
    z = z - z.mean()
    tree = cKDTree(unit_vectors(places))
    chord = 2 * np.sin(min(cutoff_km / EARTH_KM, np.pi) / 2)
    pairs = tree.query_pairs(chord, output_type="ndarray")
    if not len(pairs) or not (z**2).sum() > 0:
        what = "no two places are closer than that" if not len(pairs) else "values do not vary"
        raise DataError(f"{owner}: {what} (cutoff_km={cutoff_km:g}, {len(places)} places).")

    def moran(v: FloatArray) -> float:
        return float(v.size / len(pairs) * (v[pairs[:, 0]] @ v[pairs[:, 1]]) / (v @ v))

    value = moran(z)
    root = root_seed(random_state)
    larger = sum(moran(generator(root, b).permutation(z)) >= value for b in range(n_draws))
    null = f"no correlation of places within {cutoff_km:g} km"
    return HypothesisTest("Moran", null, value, (1 + larger) / (1 + n_draws), None, "I")
