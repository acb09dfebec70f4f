"""The bivariate normal distribution function and its logarithm, on arrays that broadcast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError

__all__ = ["LogCdf", "bivariate_normal_cdf", "bivariate_normal_log_cdf"]


@dataclass(frozen=True, slots=True)
class LogCdf:
    """Logarithm of the distribution function and its derivatives, each of the common shape.

    Attributes
    ----------
    value : numpy.ndarray
        log Phi2(h, k; rho).
    d_h, d_k, d_rho : numpy.ndarray
        Derivatives of ``value``.
    """

    value: FloatArray
    d_h: FloatArray
    d_k: FloatArray
    d_rho: FloatArray


def bivariate_normal_cdf(h: Any, k: Any, rho: Any) -> FloatArray:
    r"""P(U <= h, V <= k) of a standard bivariate normal pair with correlation rho.

    Gauss-Legendre quadrature of Plackett's identity in the angle, and around the limit for
    correlations beyond 0.925 [1]_. The absolute error is below 1e-14.

    Parameters
    ----------
    h, k : array-like
        Upper limits; arrays broadcast.
    rho : array-like
        Correlation in [-1, 1].

    Returns
    -------
    numpy.ndarray
        Probabilities of the common shape.

    Raises
    ------
    DataError
        A correlation outside [-1, 1], or a value that is not finite.

    References
    ----------
    .. [1] Genz, A. (2004). Numerical computation of rectangular bivariate and trivariate normal
       and t probabilities. Statistics and Computing 14, 251-260.
       doi:10.1023/B:STCO.0000035304.20635.31

    Examples
    --------
    >>> from causalfair.risk import bivariate_normal_cdf
    >>> round(float(bivariate_normal_cdf(0.0, 0.0, 0.5)), 12)  # 1/4 + asin(1/2)/2 pi = 1/3
    0.333333333333
    """
    from causalfair.risk._kernels_normal import bivariate_cdf

    flat, shape = _broadcast(h, k, rho)
    out = np.empty(flat[0].size)
    bivariate_cdf(*flat, out)
    return out.reshape(shape)


def bivariate_normal_log_cdf(h: Any, k: Any, rho: Any) -> LogCdf:
    """Logarithm of the distribution function, accurate in the tails, with its derivatives."""
    from causalfair.risk._kernels_normal import bivariate_log_cdf

    flat, shape = _broadcast(h, k, rho)
    out = [np.empty(flat[0].size) for _ in range(4)]
    bivariate_log_cdf(*flat, *out)
    return LogCdf(*(array.reshape(shape) for array in out))


def _broadcast(h: Any, k: Any, rho: Any) -> tuple[list[FloatArray], tuple[int, ...]]:
    arrays = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (h, k, rho)))
    if not all(np.isfinite(a).all() for a in arrays) or (np.abs(arrays[2]) > 1).any():
        raise DataError(
            "bivariate_normal_cdf: limits must be finite and correlations lie in [-1, 1]; got "
            f"correlations from {np.min(arrays[2]):.4g} to {np.max(arrays[2]):.4g}."
        )
    return [np.ascontiguousarray(a).reshape(-1) for a in arrays], arrays[0].shape
