"""Multiplier bootstrap of influence functions, and simultaneous critical values."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, IntArray, RandomState
from causalfair.exceptions import ParameterError
from causalfair.inference.vcov import cluster_sums

__all__ = ["gaussian_max_draws", "multiplier_draws", "simultaneous_critical_value"]

_BLOCK = 64
Kind = Literal["rademacher", "mammen", "normal"]


def multiplier_draws(
    influence: FloatArray,
    n_draws: int = 9_999,
    *,
    kind: Kind = "rademacher",
    cluster: IntArray | None = None,
    rng: RandomState = 0,
) -> FloatArray:
    """Draws of ``n**-1 sum_i omega_i psi_i`` with random multipliers ``omega``.

    Parameters
    ----------
    influence : numpy.ndarray of shape (n, k)
        Influence values with mean zero.
    n_draws : int, default 9999
        Number of draws.
    kind : {"rademacher", "mammen", "normal"}, default "rademacher"
        Law of the multipliers: mean zero and variance one.
    cluster : numpy.ndarray of shape (n,), optional
        Cluster codes; the multiplier is constant within a cluster.
    rng : int, SeedSequence, Generator or None, default 0
        Seed. Blocks of draws are seeded by their number, so memory stays O(64 n).

    Returns
    -------
    numpy.ndarray of shape (n_draws, k)
        Draws of the centred estimate, on its own scale.

    References
    ----------
    .. [1] V. Chernozhukov, D. Chetverikov, K. Kato (2013). Gaussian approximations and multiplier
       bootstrap for maxima of sums of high-dimensional random vectors. Annals of Statistics 41,
       2786-2819. doi:10.1214/13-AOS1161

    Examples
    --------
    >>> import numpy as np
    >>> psi = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    >>> multiplier_draws(psi, 5).shape
    (5, 1)
    """
    n = len(influence)
    units = influence if cluster is None else cluster_sums(influence, cluster)
    scale = np.abs(units).max(axis=0)
    scale[scale == 0] = 1.0
    scaled = np.ascontiguousarray(units / scale, dtype=np.float32)
    total = scaled.sum(axis=0, dtype=np.float64)
    root = root_seed(rng)
    out = np.empty((n_draws, influence.shape[1]))
    for block, start in enumerate(range(0, n_draws, _BLOCK)):
        stop = min(start + _BLOCK, n_draws)
        draw = generator(root, block)
        out[start:stop] = _weighted_sums(scaled, total, stop - start, kind, draw)
    out *= scale / n
    return out


def _weighted_sums(
    units: np.ndarray[Any, Any],
    total: FloatArray,
    rows: int,
    kind: Kind,
    rng: np.random.Generator,
) -> FloatArray:
    """``omega @ units`` for one block of draws."""
    count = len(units)
    if kind == "rademacher":
        # omega = 2 * bit - 1, so the sum is 2 * bits @ units - total: eight draws a random byte.
        packed = rng.integers(0, 256, size=(rows, -(-count // 8)), dtype=np.uint8)
        bits = np.unpackbits(packed, axis=1, count=count).astype(np.float32)
        return np.asarray(2.0 * (bits @ units).astype(np.float64) - total)
    if kind == "normal":
        omega = rng.standard_normal((rows, count), dtype=np.float32)
    elif kind == "mammen":
        root5 = np.sqrt(5.0)
        high = rng.random((rows, count)) < (root5 - 1) / (2 * root5)
        omega = np.where(high, (1 + root5) / 2, (1 - root5) / 2).astype(np.float32)
    else:
        raise ParameterError(f"kind={kind!r} must be 'rademacher', 'mammen' or 'normal'.")
    return np.asarray((omega @ units).astype(np.float64))


def gaussian_max_draws(
    vcov: FloatArray, n_draws: int = 9_999, *, rng: RandomState = 0
) -> FloatArray:
    """Draws of ``|t|`` from the normal law with correlation of ``vcov``.

    Parameters
    ----------
    vcov : numpy.ndarray of shape (k, k)
        Covariance matrix.
    n_draws : int, default 9999
        Number of draws.
    rng : int, SeedSequence, Generator or None, default 0
        Seed.

    Returns
    -------
    numpy.ndarray of shape (n_draws, k)
        Draws of the studentised estimates, signed; nan for terms whose variance is nan.
    """
    scale = np.sqrt(np.diag(vcov))
    known = np.isfinite(scale)
    safe = np.where(scale[known] > 0, scale[known], 1.0)
    values, vectors = np.linalg.eigh(vcov[np.ix_(known, known)] / np.outer(safe, safe))
    root = vectors * np.sqrt(np.clip(values, 0, None))
    normal = generator(root_seed(rng)).standard_normal((n_draws, len(safe)))
    out = np.full((n_draws, len(scale)), np.nan)
    out[:, known] = normal @ root.T
    return out


def simultaneous_critical_value(studentised: FloatArray, level: float) -> float:
    """Quantile ``level`` of the largest absolute studentised draw.

    Parameters
    ----------
    studentised : numpy.ndarray of shape (B, k)
        Draws divided by their standard errors.
    level : float
        Confidence level.

    Returns
    -------
    float
        Half-width of the simultaneous band in standard errors; nan when no term has draws.
    """
    known = ~np.isnan(studentised).any(axis=0)
    if not known.any():
        return float("nan")
    largest = np.abs(studentised[:, known]).max(axis=1)
    return float(np.quantile(largest, level, method="higher"))
