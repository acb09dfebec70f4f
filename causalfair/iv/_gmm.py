"""Generalised method of moments for a scalar effect: two-step, iterated, continuously updated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import chdtri

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ConvergenceError, IdentificationError
from causalfair.iv._moments import MomentModel

__all__ = ["Criterion", "GmmFit", "LinearMoments", "fit_gmm", "s_statistic_set"]

# Covariance matrix of the weighted mean of an (n, k) array of influence values.
Covariance = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class LinearMoments:
    """Moments linear in the effect, ``u - beta v``, reduced to their means and covariance.

    Attributes
    ----------
    u, v : (K,)
        Weighted means.
    joint : (2K, 2K)
        Covariance matrix of ``(u, v)``, first stages included.
    """

    u: FloatArray
    v: FloatArray
    joint: FloatArray

    def mean(self, beta: float) -> FloatArray:
        """Weighted mean of the moments."""
        return np.asarray(self.u - beta * self.v)

    def covariance(self, beta: float) -> FloatArray:
        """Covariance matrix of that mean."""
        K, S = self.u.size, self.joint
        cross = S[:K, K:]
        return np.asarray(S[:K, :K] - beta * (cross + cross.T) + beta**2 * S[K:, K:])

    def objective(self, beta: float) -> float:
        """Continuously updated criterion, chi-squared with K df at the true effect."""
        m = self.mean(beta)
        return float(m @ inverse_covariance(self.covariance(beta)) @ m)

    def strength(self) -> float:
        """Wald statistic of ``v = 0``; chi-squared with K df if no instrument shifts a variance."""
        K = self.u.size
        return float(self.v @ inverse_covariance(self.joint[K:, K:]) @ self.v)


class Criterion:
    """Mean and covariance of the moments as functions of the effect, and the GMM criterion."""

    def __init__(self, model: MomentModel, covariance: Covariance) -> None:
        self.model = model
        self._covariance = covariance
        self.linear: LinearMoments | None = None
        if model.linear:
            at0, at1 = model.at(0.0), model.at(1.0)
            joint = covariance(np.hstack([at0.influence, at0.influence - at1.influence]))
            self.linear = LinearMoments(at0.mean, at0.mean - at1.mean, joint)

    def mean(self, beta: float) -> FloatArray:
        """Weighted mean of the moments."""
        if self.linear is not None:
            return self.linear.mean(beta)
        s0, _ = self.model.rest(beta)
        w = self.model.design.weight
        return np.asarray(self.model.h.T @ (w * self.model.r * s0) / s0.size)

    def covariance(self, beta: float) -> FloatArray:
        """Covariance matrix of that mean, first stages included."""
        if self.linear is not None:
            return self.linear.covariance(beta)
        return self._covariance(self.model.at(beta).influence)

    def objective(self, beta: float, weight: FloatArray | None = None) -> float:
        """Quadratic form of the mean; without a weight matrix, continuously updated."""
        m = self.mean(beta)
        if not np.isfinite(m).all():
            return np.inf
        if weight is None:
            weight = inverse_covariance(self.covariance(beta))
        return float(m @ weight @ m)


def inverse_covariance(S: FloatArray) -> FloatArray:
    """Inverse of a covariance matrix after scaling to unit diagonal."""
    scale = np.sqrt(np.diag(S))
    if not np.all(scale > 0.0):
        raise IdentificationError(
            "A moment of the instruments has no variation at all. Remove duplicated or constant "
            "instruments."
        )
    R = S / np.outer(scale, scale)
    rcond = float(1.0 / np.linalg.cond(R))
    if rcond < 1e-12:
        raise IdentificationError(
            f"The covariance matrix of the {S.shape[0]} moments is numerically singular "
            f"(reciprocal condition {rcond:.1e}). Remove instruments that are nearly linear "
            "combinations of others, or use more clusters than instruments."
        )
    return np.asarray(np.linalg.inv(R) / np.outer(scale, scale))


@dataclass(frozen=True, slots=True)
class GmmFit:
    """Effect by the generalised method of moments.

    Attributes
    ----------
    beta
        Estimate.
    influence : (n,)
        Its influence values, estimated means included.
    j_statistic, df
        Overidentification statistic, chi-squared with ``df = K - 1``.
    n_updates
        Updates of the weight matrix.
    """

    beta: float
    influence: FloatArray
    j_statistic: float
    df: int
    n_updates: int


def fit_gmm(criterion: Criterion, method: str) -> GmmFit:
    """Two-step (``"gmm"``), ``"iterated"`` or continuously updated (``"cue"``) estimate."""
    model = criterion.model
    w = model.design.weight
    first = np.linalg.inv(model.h.T @ (model.h * w[:, None]) / w.sum())
    beta, n_updates = _minimise(criterion, first), 0
    if model.h.shape[1] > 1:
        beta, n_updates = _reweight(criterion, beta, method)
    evaluated = model.at(beta)
    weight = inverse_covariance(criterion.covariance(beta))
    G = evaluated.slope
    centred = evaluated.influence - evaluated.mean
    return GmmFit(
        beta=beta,
        influence=-(centred @ (weight @ G)) / float(G @ weight @ G),
        j_statistic=float(evaluated.mean @ weight @ evaluated.mean),
        df=int(G.size) - 1,
        n_updates=n_updates,
    )


def _reweight(criterion: Criterion, beta: float, method: str) -> tuple[float, int]:
    """Estimate with an efficient weight matrix, and the number of updates of that matrix."""
    previous = beta
    beta = _minimise(criterion, inverse_covariance(criterion.covariance(previous)))
    if method == "gmm":
        return beta, 1
    if method == "cue":
        return _minimise_scalar(criterion, None, beta), 1
    for update in range(2, 101):
        previous, beta = beta, _minimise(criterion, inverse_covariance(criterion.covariance(beta)))
        if abs(beta - previous) <= 1e-12 * (1.0 + abs(beta)):
            return beta, update
    raise ConvergenceError(
        f"The iterated weight matrix did not settle in 100 updates (last estimate {beta:.6g}). "
        "Use method='gmm' or method='cue'."
    )


def _minimise(criterion: Criterion, weight: FloatArray) -> float:
    if criterion.linear is not None:
        u, v = criterion.linear.u, criterion.linear.v
        lead = float(v @ weight @ v)
        if lead == 0.0:
            raise IdentificationError(
                "No instrument shifts the variance of the treatment: every slope is exactly zero."
            )
        return float(v @ weight @ u) / lead
    return _minimise_scalar(criterion, weight, 0.0)


def _minimise_scalar(criterion: Criterion, weight: FloatArray | None, start: float) -> float:
    """Search a grid that is dense around ``start``, then Brent's method.

    With a given weight matrix the grid's minimum is taken. A continuously updated criterion can
    vanish at absurd effects, where the variance of the moments explodes; there it is the minimum
    downhill from ``start``, which is consistent.
    """
    a, w = criterion.model.design.a, criterion.model.design.weight
    if criterion.linear is not None:
        v = criterion.linear.v
        unit = 30.0 / float(np.sqrt(v @ inverse_covariance(criterion.covariance(start)) @ v))
    else:  # exp(+-10 standard deviations) is beyond reason
        unit = 10.0 / float(np.sqrt(np.average((a - np.average(a, weights=w)) ** 2, weights=w)))
    grid = start + unit * np.sinh(np.linspace(-4.0, 4.0, 161)) / np.sinh(4.0)
    values = np.array([criterion.objective(float(b), weight) for b in grid])
    best = int(np.argmin(values)) if weight is not None else _descend(values)
    if best in (0, grid.size - 1):
        raise ConvergenceError(
            f"The GMM criterion keeps falling towards effect {grid[best]:.4g}, the edge of the "
            "search: the data do not bound the effect. Look at robust_set() of a fit with "
            "method='gmm', or use fewer instruments."
        )
    found = minimize_scalar(
        lambda b: criterion.objective(float(b), weight),
        bracket=(grid[best - 1], grid[best], grid[best + 1]),
        method="brent",
        options={"xtol": 1e-10},
    )
    return float(found.x)


def _descend(values: FloatArray) -> int:
    """Index of the local minimum downhill from the middle."""
    at = len(values) // 2
    while True:
        near = [j for j in (at - 1, at + 1) if 0 <= j < len(values) and values[j] < values[at]]
        if not near:
            return at
        at = min(near, key=lambda j: float(values[j]))


def s_statistic_set(
    moments: LinearMoments, centre: float, std_error: float, level: float
) -> list[tuple[float, float]]:
    """All effects whose continuously updated criterion is below the chi-squared(K) quantile.

    Found on a grid that covers the real line (``centre + std_error tan t``) with the ends refined;
    pieces narrower than a grid step can be missed. May be empty when no effect fits all
    instruments.
    """
    K = moments.u.size
    limit = float(chdtri(float(K), 1.0 - level))

    def excess(beta: float) -> float:
        return moments.objective(beta) - limit

    angles = np.linspace(-np.pi / 2, np.pi / 2, 2003)[1:-1]
    grid = centre + std_error * np.tan(angles)
    values = np.array([excess(float(b)) for b in grid])
    inside = values <= 0.0
    edges = [
        float(brentq(excess, grid[i], grid[i + 1], xtol=1e-12, rtol=1e-12))
        for i in np.flatnonzero(inside[1:] != inside[:-1])
    ]
    ends = ([-np.inf] if inside[0] else []) + edges + ([np.inf] if inside[-1] else [])
    return list(zip(ends[::2], ends[1::2], strict=True))
