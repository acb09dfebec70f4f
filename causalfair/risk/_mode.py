"""Modes of the log posterior, their curvature, and draws of the normal approximation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import ConvergenceError

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray
    from causalfair.risk._model import Problem

STARTS = (0.3, 1.5, 4.0)
STEP, SIGMA_STEP = 1e-4, 0.1
GRADIENT_TOLERANCE = 1e-3
HUGE = 1e12
SPREAD_OF_SIGMA = 1.5


@dataclass(frozen=True)
class Mode:
    """A mode of the log posterior.

    Attributes
    ----------
    problem : Problem
        The problem, with the quadrature that was used.
    theta : (k,) float array
        Coordinates.
    value : float
        Log posterior there.
    covariance : (k, k) float array
        Inverse of minus the Hessian.
    factor : (k, k) float array
        Its lower Cholesky factor.
    """

    problem: Problem
    theta: FloatArray
    value: float
    covariance: FloatArray
    factor: FloatArray


def hessian(
    fn: Callable[[FloatArray], tuple[float, FloatArray]],
    theta: FloatArray,
    sigma_position: int | None = None,
) -> FloatArray:
    """Central differences of the analytic gradient, symmetrised.

    The prior of the intercept has a small kink at sigma = 0, so along that coordinate a wide step
    is taken: the curvature wanted is that of the posterior, not of its tip.
    """
    k = len(theta)
    out = np.empty((k, k))
    for j in range(k):
        step = np.zeros(k)
        step[j] = SIGMA_STEP if j == sigma_position else STEP * max(1.0, abs(theta[j]))
        out[j] = (fn(theta + step)[1] - fn(theta - step)[1]) / (2 * step[j])
    return (out + out.T) / 2


def _minimise(problem: Problem, start: FloatArray) -> tuple[FloatArray, float]:
    from scipy.optimize import minimize

    def negative(theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = problem.value_and_gradient(theta)
        # A large finite value: the line search steps back from it, infinity would end it.
        return (-value, -gradient) if np.isfinite(value) else (HUGE, np.zeros_like(theta))

    # No box: bounded L-BFGS steps into a corner first and reports success there.
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-6}
    found = minimize(negative, start, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x), -float(found.fun)


def _newton(problem: Problem, theta: FloatArray, value: float) -> tuple[FloatArray, float]:
    """A few Newton steps, each taken only where it improves."""
    for _ in range(4):
        gradient = problem.value_and_gradient(theta)[1]
        if np.abs(gradient).max() < 1e-8:
            break
        curvature = -hessian(problem.value_and_gradient, theta)
        values, vectors = np.linalg.eigh(curvature)
        step = vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), 1e-8))
        candidate = problem.value_and_gradient(theta + step)[0]
        if not candidate > value:
            break
        theta, value = theta + step, candidate
    return theta, value


def starting_points(problem: Problem) -> list[FloatArray]:
    """Two plain logistic regressions (no unobservable), with several scales of Z."""
    from causalfair.risk._model import Law

    k = problem.n_features + len(problem.arrays["link"])
    flat = problem.with_law(Law("none", 1.0, 0.0, np.zeros(1), np.ones(1))).without_prevalence()
    theta = np.zeros(k + problem.n_pools)
    theta, _ = _minimise(flat, theta)
    middle: list[list[float]] = [[]] if problem.law.sigma is not None else [
        [s] for s in STARTS
    ]  # fmt: skip
    if problem.law.alpha is None:
        middle = [[*m, 0.0] for m in middle]
    return [np.concatenate([theta[:k], m, theta[k:]]) for m in middle]


def find_mode(problem: Problem, *, owner: str) -> Mode:
    """Mode from several starts, with its curvature.

    Raises
    ------
    ConvergenceError
        No start ends where the gradient vanishes and the curvature is negative.
    """
    current = problem.with_rule_for(starting_points(problem)[-1], 1.0)
    best = _best(current, starting_points(problem))
    for _ in range(2):
        wider = current.with_rule_for(best[0], _spread(current))
        same = len(wider.law.nodes) == len(current.law.nodes)
        current = wider
        if same:
            break
        best = _best(current, [best[0]])
    theta, value = best
    gradient = np.abs(current.value_and_gradient(theta)[1]).max()
    scale = max(1.0, abs(value)) * GRADIENT_TOLERANCE
    position = current.n_features + len(current.arrays["link"])
    curvature = -hessian(
        current.value_and_gradient, theta, position if current.law.sigma is None else None
    )
    lowest = float(np.linalg.eigvalsh(curvature)[0])
    if gradient > scale or lowest <= 0:
        raise ConvergenceError(
            f"{owner}: the mode of the posterior was not found (largest gradient {gradient:.2g}, "
            f"smallest curvature {lowest:.2g}). Add a constraint (prevalence, expertise), fix "
            "alpha or sigma, or tighten the priors."
        )
    covariance = np.linalg.inv(curvature)
    covariance = (covariance + covariance.T) / 2
    factor = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    return Mode(current, theta, value, covariance, factor)


def _best(problem: Problem, starts: list[FloatArray]) -> tuple[FloatArray, float]:
    found = [_minimise(problem, start) for start in starts]
    theta, value = max(found, key=lambda pair: pair[1])
    return _newton(problem, theta, value)


def _spread(problem: Problem) -> float:
    """How far above its mode the quadrature must still be good, as a factor."""
    return 1.0 if problem.law.sigma is not None else SPREAD_OF_SIGMA


def normal_draws(mode: Mode, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws (n_draws, k) of the normal approximation."""
    return np.asarray(mode.theta + rng.normal(size=(n_draws, len(mode.theta))) @ mode.factor.T)
