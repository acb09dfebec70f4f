"""Modes of the log posterior, their curvature, and draws of the normal approximation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import ConvergenceError
from causalfair.risk._conditional import conditional_given_scales, conditional_mode, hessian

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray
    from causalfair.risk._model import Problem

STARTS = (0.3, 1.5, 4.0)
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


def _minimise(problem: Problem, start: FloatArray) -> tuple[FloatArray, float]:
    """Mode from a start; pooling scales stay, as the joint mode in them may be anywhere."""
    from scipy.optimize import minimize

    free = problem.n_coordinates - problem.n_pools

    def negative(moving: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = problem.value_and_gradient(np.concatenate([moving, start[free:]]))
        # A large finite value: the line search steps back from it, infinity would end it.
        return (-value, -gradient[:free]) if np.isfinite(value) else (HUGE, np.zeros_like(moving))

    # No box: bounded L-BFGS steps into a corner first and reports success there.
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-6}
    found = minimize(negative, start[:free], jac=True, method="L-BFGS-B", options=options)
    return np.concatenate([found.x, start[free:]]), -float(found.fun)


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
    if current.n_pools:
        return _pooled_mode(current, theta, owner)
    gradient = float(np.abs(current.value_and_gradient(theta)[1]).max())
    curvature = -hessian(current.value_and_gradient, theta, current.sigma_position)
    lowest = float(np.linalg.eigvalsh(curvature)[0])
    if not gradient <= max(1.0, abs(value)) * GRADIENT_TOLERANCE or not lowest > 0:
        raise _not_found(owner, gradient, lowest)
    covariance = np.linalg.inv(curvature)
    covariance = (covariance + covariance.T) / 2
    factor = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    return Mode(current, theta, value, covariance, factor)


def _not_found(owner: str, gradient: float, lowest: float) -> ConvergenceError:
    return ConvergenceError(
        f"{owner}: the mode of the posterior was not found (largest gradient {gradient:.2g}, "
        f"smallest curvature {lowest:.2g}). Add a constraint (prevalence, expertise), fix "
        "alpha or sigma, or tighten the priors."
    )


def _pooled_mode(problem: Problem, theta: FloatArray, owner: str) -> Mode:
    """Mode with pooling scales at the mode of their marginal, in coordinates that suit it.

    Each pooled coefficient is held by the share of its prior variance that the data take away,
    which makes it about independent of its scale (Papaspiliopoulos, Roberts and Skold 2007).
    """
    everything = np.arange(problem.n_coordinates)
    inside, scale_of = problem.pool_positions()
    problem, theta = problem.recentred(theta, np.ones(len(inside)))
    found = conditional_mode(problem, theta, everything)
    rest = everything[: problem.n_coordinates - problem.n_pools]
    given = conditional_given_scales(problem, found.theta, rest)
    held = 1 - np.diag(given.covariance)[inside] / np.exp(2 * found.theta[scale_of])
    problem, theta = problem.recentred(found.theta, np.clip(held, 0.0, 1.0))
    found = conditional_mode(problem, theta, everything)
    value, slope = problem.value_and_gradient(found.theta)
    gradient = float(np.abs(slope[rest]).max())
    if not gradient <= max(1.0, abs(value)) * GRADIENT_TOLERANCE:
        raise _not_found(owner, gradient, float(1 / np.linalg.eigvalsh(found.covariance)[-1]))
    return Mode(problem, found.theta, value, found.covariance, found.factor)


def _best(problem: Problem, starts: list[FloatArray]) -> tuple[FloatArray, float]:
    found = [_minimise(problem, start) for start in starts]
    theta, value = max(found, key=lambda pair: pair[1])
    return (theta, value) if problem.n_pools else _newton(problem, theta, value)


def _spread(problem: Problem) -> float:
    """How far above its mode the quadrature must still be good, as a factor."""
    return 1.0 if problem.law.sigma is not None else SPREAD_OF_SIGMA


def normal_draws(mode: Mode, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws (n_draws, k) of the normal approximation."""
    return np.asarray(mode.theta + rng.normal(size=(n_draws, len(mode.theta))) @ mode.factor.T)
