"""Closed forms: three binary views, simultaneous diagonalisation, calibration by signed weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import IdentificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray

MAX_CONDITION = 1e12
MIN_EIGENVALUE_GAP = 1e-8
TINY = 1e-6


@dataclass(frozen=True, slots=True)
class ThreeViews:
    """Solution of a three-view latent-class problem.

    ``prevalence`` (K,), ``tables`` three (K, L_j) arrays, ``condition`` of the pair matrix and
    ``eigenvalue_gap`` of the contraction used (nan for the closed form).
    """

    prevalence: FloatArray
    tables: tuple[FloatArray, ...]
    condition: float
    eigenvalue_gap: float


@dataclass(frozen=True, slots=True)
class BinaryMoments:
    """First, second and third central moments of three binary views.

    ``mean`` (..., 3); ``pair`` (..., 3) holds the covariances of views (0,1), (0,2), (1,2);
    ``triple`` (...,) is E prod_j (X_j - mu_j).
    """

    mean: FloatArray
    pair: FloatArray
    triple: FloatArray


def binary_moments(tensor: FloatArray) -> BinaryMoments:
    """Moments of three binary views from counts of shape (..., 2, 2, 2); vectorised over `...`."""
    q = tensor / tensor.sum(axis=(-3, -2, -1), keepdims=True)
    mean = np.stack(
        [
            q[..., 1, :, :].sum((-2, -1)),
            q[..., :, 1, :].sum((-2, -1)),
            q[..., :, :, 1].sum((-2, -1)),
        ],
        axis=-1,
    )
    centred = [np.stack([-mean[..., j], 1.0 - mean[..., j]], axis=-1) for j in range(3)]
    pair = np.stack(
        [
            np.einsum("...abc,...a,...b->...", q, centred[0], centred[1]),
            np.einsum("...abc,...a,...c->...", q, centred[0], centred[2]),
            np.einsum("...abc,...b,...c->...", q, centred[1], centred[2]),
        ],
        axis=-1,
    )
    triple = np.einsum("...abc,...a,...b,...c->...", q, *centred)
    return BinaryMoments(mean, pair, triple)


def solve_binary(
    moments: BinaryMoments, *, dependence: FloatArray | float = 0.0, skew: FloatArray | float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Prevalence of class 1 and P(X_j = 1 | class), by the three-view closed form.

    Parameters
    ----------
    moments : BinaryMoments
    dependence : (3,) array or float
        Covariance of the pairs (0,1), (0,2), (1,2) within both classes, taken off first.
    skew : float
        Correction taken off the third moment, for covariances that differ between the classes.

    Returns
    -------
    p1 : (...,) array
    probability : (..., 3, 2) array
        P(X_j = 1 | A = a); nan where the moments have no latent-class solution.
    """
    s12, s13, s23 = np.moveaxis(moments.pair - dependence, -1, 0)
    s123 = moments.triple - skew
    product = s12 * s13 * s23
    with np.errstate(invalid="ignore", divide="ignore"):
        delta = np.sqrt(np.where(product > 0, s123**2 + 4.0 * product, np.nan))
        p1 = 0.5 * (1.0 - s123 / delta)
        d = np.stack([delta / s23, delta / s13, delta / s12], axis=-1)
    # naming: class 1 is the one in which most views say 1
    swap = (d > 0).sum(axis=-1) < 2
    p1 = np.where(swap, 1.0 - p1, p1)
    d = np.where(swap[..., None], -d, d)
    high = moments.mean + (1.0 - p1[..., None]) * d
    low = moments.mean - p1[..., None] * d
    return p1, np.stack([low, high], axis=-1)


def binary_closed_form(tensor: FloatArray) -> ThreeViews:
    """Closed form for two groups and three binary views (counts of shape (2, 2, 2)).

    Raises
    ------
    IdentificationError
        When the moments have no latent-class solution.
    """
    p1, high = solve_binary(binary_moments(tensor))
    if not np.isfinite(p1) or not ((high >= -1e-12) & (high <= 1 + 1e-12)).all():
        raise IdentificationError(
            "The moments of the three proxies have no latent-class solution (the product of their "
            "covariances is not positive, or an error rate falls outside [0, 1]). Either "
            "the sample "
            "is small or the proxies depend on each other given the group. Use model='joint', "
            "which stays inside the simplex, and look at fit_tests()."
        )
    tables = tuple(np.stack([1.0 - high[j], high[j]], axis=1) for j in range(3))
    condition = float(np.linalg.cond(tensor.sum(axis=2)))
    return ThreeViews(np.array([1.0 - float(p1), float(p1)]), tables, condition, np.nan)


def tied_closed_form(tensor: FloatArray) -> tuple[float, FloatArray]:
    """Share of class 1 and the common (2, 2) table of three binary views of one law."""
    moments = binary_moments(tensor)
    q = tensor / tensor.sum()
    symmetric = np.mean([np.transpose(q, order) for order in _ORDERS], axis=0)
    m1 = float(symmetric[1].sum())
    m2 = float(symmetric[1, 1].sum())
    m3 = float(symmetric[1, 1, 1])
    v2 = m2 - m1**2
    v3 = m3 - 3.0 * m1 * m2 + 2.0 * m1**3
    if not v2 > 0:
        raise IdentificationError(
            f"The proxies are uncorrelated on average (mean covariance {v2:.3g} from pairwise "
            f"{np.round(moments.pair, 4).tolist()}); the tied model has no solution."
        )
    delta = np.sqrt(v3**2 + 4.0 * v2**3)
    p1 = 0.5 * (1.0 - v3 / delta)
    d = delta / v2
    high, low = m1 + (1.0 - p1) * d, m1 - p1 * d
    return float(p1), np.array([[1.0 - low, low], [1.0 - high, high]])


_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def diagonalise(
    tensor: FloatArray, n_groups: int, *, rng: np.random.Generator, n_contractions: int = 8
) -> ThreeViews | None:
    """Solve a three-view tensor (L_1, L_2, L_3) for K classes by simultaneous diagonalisation.

    Every view is sliced in turn and several contractions are tried; the solution with the highest
    multinomial log-likelihood is kept. None when no contraction is usable. Rectangular views are
    projected on the leading singular vectors of the pair matrix.
    """
    q = tensor / tensor.sum()
    best: ThreeViews | None = None
    best_loglik = -np.inf
    for sliced in range(3):
        first, second = [v for v in range(3) if v != sliced]
        cube = np.transpose(q, (first, second, sliced))
        for r in range(n_contractions):
            n_slices = cube.shape[2]
            theta: FloatArray = np.asarray(
                rng.normal(size=n_slices) if r > 0 else np.arange(n_slices), dtype=np.float64
            )
            found = _contract(cube, theta, n_groups)
            if found is None:
                continue
            prevalence, t_first, t_second, t_sliced, condition, gap = found
            tables: list[FloatArray] = [t_first] * 3
            tables[first], tables[second], tables[sliced] = t_first, t_second, t_sliced
            fitted = np.einsum("k,ka,kb,kc->abc", prevalence, *tables)
            loglik = float((q[q > 0] * np.log(np.maximum(fitted[q > 0], 1e-300))).sum())
            if loglik > best_loglik:
                best_loglik = loglik
                best = ThreeViews(prevalence, tuple(tables), condition, gap)
    return best


def _contract(
    cube: FloatArray, theta: FloatArray, n_groups: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, float, float] | None:
    M = cube.sum(axis=2)
    left, values, right = np.linalg.svd(M)
    if len(values) < n_groups or values[n_groups - 1] <= values[0] / MAX_CONDITION:
        return None
    condition = float(values[0] / values[n_groups - 1])
    U, W = left[:, :n_groups], right[:n_groups].T  # projections of the two views
    inverse = np.diag(1.0 / values[:n_groups])  # (U' M W)^{-1}
    slices = np.einsum("ik,ijc,jl->ckl", U, cube, W) @ inverse
    # eq: U' q_c W (U' M W)^{-1} = (U' T_1') diag(T_3[:, c]) (U' T_1')^{-1}
    eigenvalues, vectors = np.linalg.eig(np.einsum("c,ckl->kl", theta, slices))
    if np.abs(eigenvalues.imag).max() > 1e-6 * max(np.abs(eigenvalues).max(), 1e-12):
        return None
    order = np.sort(eigenvalues.real)
    gap = float(np.diff(order).min())
    if gap < MIN_EIGENVALUE_GAP:
        return None
    V = vectors.real
    columns = U @ V  # proportional to T_1'
    sums = columns.sum(axis=0)
    if np.abs(sums).min() < 1e-12:
        return None
    columns, V = columns / sums, V / sums
    V_inverse = np.linalg.inv(V)
    t_sliced = np.einsum("kl,clm,mk->kc", V_inverse, slices, V)
    prevalence = V_inverse @ (U.T @ M.sum(axis=1))
    if np.abs(prevalence).min() < 1e-12:
        return None
    t_second = (V_inverse @ U.T @ M) / prevalence[:, None]
    return (
        _simplex(prevalence),
        _simplex(columns.T),
        _simplex(t_second),
        _simplex(t_sliced),
        condition,
        gap,
    )


def _simplex(rows: FloatArray) -> FloatArray:
    """Clip tiny and negative entries and renormalise the last axis; exact rows are left alone."""
    if rows.min() >= 0.0:
        return np.asarray(rows / rows.sum(axis=-1, keepdims=True))
    clipped = np.maximum(rows, TINY)
    return np.asarray(clipped / clipped.sum(axis=-1, keepdims=True))


def signed_weights(transition: FloatArray, prevalence: FloatArray) -> FloatArray:
    """Weights w (L, K) with E[w_a(proxy) g] = E[g | A = a] for any g independent of it given A.

    For a square table w_a(c) = (T^{-1})[c, a] / p_a; for more levels than groups the
    pseudo-inverse.
    """
    return np.asarray(np.linalg.pinv(transition) / prevalence)


def calibrate_joint(joint: FloatArray, transition: FloatArray) -> FloatArray:
    """Solve G (S, K) from P(stratum s, proxy level c) and a known error matrix, unclipped."""
    return np.asarray(joint @ np.linalg.pinv(transition))


def calibrate_posterior(rates: FloatArray, posterior: FloatArray) -> FloatArray:
    """Group rates H (K, n_pred) from proxy rates H~ = B H with a known posterior matrix B (L, K).

    ``posterior[c, a]`` is P(A = a | proxy = c); it holds only for the population it was measured
    on.
    """
    return np.asarray(np.linalg.pinv(posterior) @ rates)


def attenuation(prevalence: FloatArray, transition: FloatArray) -> float:
    """Factor rho by which a binary proxy used directly shrinks a gap (its independence given)."""
    joint = prevalence[:, None] * transition
    posterior = joint / joint.sum(axis=0)
    return float(posterior[1, 1] - posterior[1, 0])


def proxy_posterior(prevalence: FloatArray, transition: FloatArray) -> FloatArray:
    """B[c, a] = P(A = a | proxy = c)."""
    joint = prevalence[:, None] * transition
    return np.asarray((joint / joint.sum(axis=0)).T)


def direct_error_bound(
    group_rates: FloatArray, prevalence: FloatArray, conditional: Sequence[FloatArray]
) -> FloatArray:
    """Bound on |H~[c, k] - H[c, k]| for a proxy used in place of the group: (n_pred,).

    ``conditional[k][a, c]`` = P(proxy = c | decision k, A = a). First term: proxy error times
    disparity; second: dependence of proxy and decision times level.
    """
    n_groups, n_pred = group_rates.shape
    level = group_rates.mean(axis=0)
    spread = np.abs(group_rates - level).max(axis=0)
    weight = prevalence[:, None] * group_rates
    seen = sum(conditional[k].T @ weight[:, k] for k in range(n_pred))
    out = np.empty(n_pred)
    for k in range(n_pred):
        M = (conditional[k].T * prevalence) / np.asarray(seen)[:, None]
        out[k] = spread[k] * np.abs(M - np.eye(n_groups)).sum(axis=1).max()
        out[k] += level[k] * np.abs(M.sum(axis=1) - 1.0).max()
    return out
