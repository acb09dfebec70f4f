"""Maximum likelihood, with prevalences held exactly where their standard error is zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import ConvergenceError
from causalfair.risk._conditional import hessian
from causalfair.risk._mode import STARTS, find_mode
from causalfair.risk._robust import score_variance

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.risk._model import Problem

FEASIBLE, STATIONARY = 1e-8, 1e-3
FLAT = 1e-6


@dataclass(frozen=True)
class MaximumLikelihood:
    """Maximum of the likelihood.

    Attributes
    ----------
    problem : Problem
        The problem, without priors.
    theta : (k,) float array
        Coordinates.
    value : float
        Log-likelihood.
    covariance : (k, k) float array
        Large-sample covariance, given the constraints; the sandwich where units are given.
    multiplier : (g,) float array
        Change in the log-likelihood per unit of each prevalence held exactly.
    """

    problem: Problem
    theta: FloatArray
    value: float
    covariance: FloatArray
    multiplier: FloatArray


def mean_risk(problem: Problem, theta: FloatArray, g: int) -> tuple[float, FloatArray]:
    """Mean risk of prevalence group g and its gradient in the coordinates."""
    arrays = problem.arrays
    # Half the squared distance to -1 is never flat on (0, 1): its slope gives the gradient.
    only = problem.without_prior().replaced(
        weight=np.zeros_like(arrays["weight"]),
        prev_group=np.where(arrays["prev_group"] == g, 0, -1),
        prev_value=np.array([-1.0]),
        prev_sd=np.ones(1),
    )
    value, gradient = only.value_and_gradient(theta)
    distance = float(np.sqrt(-2 * value))
    return distance - 1.0, -gradient / distance


def maximum_likelihood(
    problem: Problem, *, units: IntArray | None = None, owner: str
) -> MaximumLikelihood:
    """Maximise the likelihood; prevalences with standard error zero are equations.

    ``units`` are the independent units of the rows, where these are not independent themselves.

    Raises
    ------
    ConvergenceError
        The maximum was not found, or it is flat along some direction.
    """
    exact = np.flatnonzero(problem.prevalence.sd == 0)
    soft = np.flatnonzero(problem.prevalence.sd > 0)
    place = np.full(len(problem.prevalence.sd) + 1, -1)
    place[soft] = np.arange(len(soft))
    free = problem.replaced(
        prev_value=problem.prevalence.value[soft],
        prev_sd=problem.prevalence.sd[soft],
        prev_group=place[problem.arrays["prev_group"]],
    )
    # The posterior mode is a safe start; the likelihood alone may be flat far out.
    mode = find_mode(free, owner=owner)
    target = mode.problem.without_prior()
    constraints = [(int(g), float(problem.prevalence.value[g])) for g in exact]
    theta, multiplier = _solve(target, problem, _starts(mode.theta, problem), constraints, owner)
    value, _ = target.value_and_gradient(theta)
    information = -hessian(target.value_and_gradient, theta)
    covariance = _constrained_inverse(information, problem, theta, exact, owner)
    if units is not None:
        covariance = covariance @ score_variance(target, theta, information, units) @ covariance
    return MaximumLikelihood(target, theta, value, covariance, multiplier)


def _starts(theta: FloatArray, problem: Problem) -> list[FloatArray]:
    """The mode, and it with other scales of Z: sigma = 0 is stationary, so it cannot be left."""
    out = [theta]
    if problem.law.sigma is None:
        position = problem.n_features + len(problem.arrays["link"])
        for sigma in STARTS:
            out.append(theta.copy())
            out[-1][position] = sigma
    return out


def _solve(
    target: Problem, problem: Problem, starts: list[FloatArray],
    constraints: list[tuple[int, float]], owner: str,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    from scipy.optimize import minimize

    scale = max(float(target.arrays["weight"].sum()), 1.0)

    def negative(theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = target.value_and_gradient(theta)
        return (-value / scale, -gradient / scale) if np.isfinite(value) else (1e6, 0 * theta)

    equations = [
        {
            "type": "eq",
            "fun": lambda t, g=g, p=p: mean_risk(problem, t, g)[0] - p,
            "jac": lambda t, g=g: mean_risk(problem, t, g)[1],
        }
        for g, p in constraints
    ]

    def solve(start: FloatArray) -> FloatArray:
        found = minimize(
            negative, start, jac=True, method="SLSQP", constraints=equations,
            options={"maxiter": 1000, "ftol": 1e-15},
        )  # fmt: skip
        return np.asarray(found.x)

    def miss(theta: FloatArray) -> float:
        return max((abs(mean_risk(problem, theta, g)[0] - p) for g, p in constraints), default=0.0)

    ends = [solve(start) for start in starts]
    feasible = [end for end in ends if miss(end) <= FEASIBLE] or ends
    theta = min(feasible, key=lambda end: negative(end)[0])
    gradient = target.value_and_gradient(theta)[1]
    slopes = np.array([mean_risk(problem, theta, g)[1] for g, _ in constraints])
    slopes = slopes.reshape(len(constraints), len(theta))
    multiplier = np.linalg.lstsq(slopes.T, gradient, rcond=None)[0]
    left = float(np.abs(gradient - multiplier @ slopes).max()) / scale
    if left > STATIONARY or miss(theta) > FEASIBLE:
        raise ConvergenceError(
            f"{owner}: the maximum of the likelihood was not found (gradient {left:.2g} a row, "
            f"prevalence missed by {miss(theta):.2g}). Add a constraint, or use the priors: "
            'sampler="laplace".'
        )
    return theta, multiplier


def _constrained_inverse(
    information: FloatArray, problem: Problem, theta: FloatArray, exact: IntArray, owner: str
) -> FloatArray:
    """N (N'HN)^-1 N', N spanning the directions that keep the prevalences."""
    from scipy.linalg import null_space

    k = len(theta)
    if len(exact):
        basis = null_space(np.array([mean_risk(problem, theta, int(g))[1] for g in exact]))
    else:
        basis = np.eye(k)
    inner = basis.T @ information @ basis
    scale = np.sqrt(np.maximum(np.diag(inner), FLAT))
    lowest = float(np.linalg.eigvalsh(inner / np.outer(scale, scale))[0])
    if lowest < FLAT:
        raise ConvergenceError(
            f"{owner}: the likelihood is flat along a direction (smallest curvature {lowest:.1g}): "
            "sigma is at zero, or the data do not identify every parameter. Add a constraint, fix "
            'sigma or alpha, or use the priors: sampler="laplace".'
        )
    return np.asarray(basis @ np.linalg.inv(inner) @ basis.T)
