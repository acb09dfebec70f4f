"""Moments of a constant effect with many, multi-level or continuous instruments.

Moments, one for each instrument ``G_k``: ``E[(G_k - E[G_k|X]) r(A,G,X) s0(beta)] = 0`` with

- ``r = A - E[A|G,X]`` (linear or logistic mean), or ``A exp(-eta(G,X)) - 1`` (multiplicative),
- ``s0 = Y - beta A``, or ``Y exp(-beta A)`` (multiplicative outcome), or, residualised,
  ``(Y - E[Y|G,X]) - beta r``.

The sample moments ignore that the means were estimated, but their *influence values* do not:
``m_i = h_i (s_i - P_X s_i) - r_i C L^{-1} b_i``, with ``h = G - E[G|X]``, ``s = r s0``, the
projection ``P_X`` on the covariates (estimated instrument means), and the second term for the
treatment model with basis ``b``. Both corrections have sample mean zero, so they change no
estimate, only its variance, the weight matrix and the J statistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ConvergenceError
from causalfair.iv._logistic import fit_logistic

__all__ = ["Evaluated", "GeniusDesign", "MomentModel", "project"]


@dataclass(frozen=True, slots=True)
class GeniusDesign:
    """Data and conditioned bases; every array has ``n`` rows, weights sum to ``n``.

    Attributes
    ----------
    covariates : (n, p)
        Basis of X with an intercept; orthonormal columns.
    joint : (n, q)
        Basis of (G, X) for the mean of the treatment, and of the outcome when residualised.
    """

    instruments: FloatArray
    a: FloatArray
    y: FloatArray
    weight: FloatArray
    covariates: FloatArray
    joint: FloatArray
    treatment: str
    outcome: str
    residualize: bool = False


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Moments at one value of the effect.

    Attributes
    ----------
    mean, slope : (K,)
        Weighted mean of the moments and its derivative.
    influence : (n, K)
        Influence values of the moments, weighted mean equal to ``mean``.
    """

    mean: FloatArray
    slope: FloatArray
    influence: FloatArray


def project(basis: FloatArray, target: FloatArray, w: FloatArray) -> FloatArray:
    """Coefficients of the weighted least-squares projection of ``target`` on ``basis``."""
    weighted = basis * w[:, None]
    return np.asarray(np.linalg.solve(weighted.T @ basis, weighted.T @ target))


def fit_log_linear(basis: FloatArray, a: FloatArray, w: FloatArray) -> FloatArray:
    """Solve ``sum w b (A exp(-b'theta) - 1) = 0`` by Newton's method on its convex potential.

    Raises
    ------
    ConvergenceError
        If there is no solution.
    """
    n = a.size
    coef = project(basis, np.full(n, np.log(np.average(a, weights=w))), w)
    for _ in range(100):
        eta = basis @ coef
        scaled = a * np.exp(-eta)
        value = float(np.dot(w, scaled + eta))
        gradient = basis.T @ (w * (1.0 - scaled)) / n
        hessian = (basis * (w * scaled)[:, None]).T @ basis / n
        step = -np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-9:
            trial = basis @ (coef + size * step)
            if float(np.dot(w, a * np.exp(-trial) + trial)) <= value + 1e-12 * abs(value):
                break
            size *= 0.5
        coef = coef + size * step
        if np.max(np.abs(size * step)) <= 1e-11 * (1.0 + np.max(np.abs(coef))):
            return coef
    raise ConvergenceError(
        "The multiplicative model of the treatment did not converge in 100 Newton steps; the "
        f"treatment ranges over [{a.min():.3g}, {a.max():.3g}]. Use treatment='additive', or fewer "
        "instruments and covariates."
    )


class MomentModel:
    """Moments of the effect with the first-stage models fitted.

    Attributes
    ----------
    h : (n, K)
        Instruments minus their mean given X.
    r : (n,)
        Treatment residual; ``r_slope`` is minus its derivative in the linear predictor.
    """

    def __init__(self, design: GeniusDesign) -> None:
        w, b = design.weight, design.joint
        self.design = design
        gamma = project(design.covariates, design.instruments, w)
        self.h = design.instruments - design.covariates @ gamma
        self.r, self.r_slope = _treatment_residual(design)
        self.response, self.exposure = design.y, design.a
        if design.residualize:
            self.response = design.y - b @ project(b, design.y, w)
            self.exposure = self.r
        self.centre = float(np.average(design.a, weights=w))
        curvature = (b * (w * self.r_slope)[:, None]).T @ b
        self._treatment_scores = self.r[:, None] * np.linalg.solve(curvature / w.sum(), b.T).T

    @property
    def linear(self) -> bool:
        """Whether the moments are linear in the effect."""
        return self.design.outcome == "additive"

    def rest(self, beta: float) -> tuple[FloatArray, FloatArray]:
        """``s0(beta)`` and its derivative in beta."""
        if self.linear:
            return self.response - beta * self.exposure, -self.exposure
        # Centring A multiplies every moment by one constant and keeps exp() in range.
        centred = self.design.a - self.centre
        with np.errstate(over="ignore"):
            s0 = self.design.y * np.exp(-beta * centred)
        return s0, -centred * s0

    def at(self, beta: float) -> Evaluated:
        """Moments, their derivative and their influence values at ``beta``."""
        w, n = self.design.weight, self.design.y.size
        s0, d0 = self.rest(beta)
        s = self.r * s0
        weighted_h = self.h * (w / n)[:, None]
        centred = s - self.design.covariates @ project(self.design.covariates, s, w)
        # d s/d eta of the treatment model: through r, and when residualised through -beta r too.
        through = s0 - beta * self.r if self.design.residualize else s0
        gradient = weighted_h.T @ (self.design.joint * (self.r_slope * through)[:, None])
        influence = self.h * centred[:, None] - self._treatment_scores @ gradient.T
        if self.design.residualize:
            cross = weighted_h.T @ (self.design.joint * self.r[:, None])
            gram = (self.design.joint * (w / n)[:, None]).T @ self.design.joint
            outcome = self.response[:, None] * np.linalg.solve(gram, self.design.joint.T).T
            influence -= outcome @ cross.T
        return Evaluated(weighted_h.T @ s, weighted_h.T @ (self.r * d0), influence)


def _treatment_residual(design: GeniusDesign) -> tuple[FloatArray, FloatArray]:
    """Residual of the treatment model and minus its derivative in the linear predictor."""
    a, b, w = design.a, design.joint, design.weight
    if design.treatment == "logistic":
        lam = expit(b @ fit_logistic(b, a, w, what="the treatment"))
        return a - lam, lam * (1.0 - lam)
    if design.treatment == "multiplicative":
        scaled = a * np.exp(-(b @ fit_log_linear(b, a, w)))
        return scaled - 1.0, scaled
    return a - b @ project(b, a, w), np.ones_like(a)
