"""Normal approximations of the posterior with some coordinates held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.risk._model import Problem

STEP, SIGMA_STEP = 1e-4, 0.1
NEWTON_STEPS, NEWTON_TOLERANCE = 15, 1e-4
POOL_STEPS, POOL_TOLERANCE = 100, 1e-3
LEAST_CURVATURE = 1e-2


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


@dataclass(frozen=True)
class ConditionalMode:
    """Normal approximation of some coordinates, the others held.

    Attributes
    ----------
    theta : (k,) float array
        All coordinates.
    covariance : (m, m) float array
        Of those not held.
    log_marginal : float
        Laplace approximation of the log density of those held.
    """

    theta: FloatArray
    covariance: FloatArray
    log_marginal: float

    @property
    def factor(self) -> FloatArray:
        """Lower Cholesky factor of the covariance."""
        return np.asarray(np.linalg.cholesky(self.covariance), dtype=np.float64)


def conditional_mode(problem: Problem, theta: FloatArray, rest: IntArray) -> ConditionalMode:
    """Mode of the coordinates ``rest`` and their covariance.

    Scales of pooled coefficients are taken at the mode of their marginal: the joint mode overstates
    them where coordinates are standardised, and runs to zero where they are the coefficients.
    """
    first = problem.n_coordinates - problem.n_pools
    plain = rest[rest < first]
    if not problem.n_pools:
        return conditional_given_scales(problem, theta, plain)
    inside, scale_of = problem.pool_positions()
    at = np.searchsorted(plain, inside)
    held, prior = problem.held()[inside], problem.arrays["tau_scale"]
    for _ in range(POOL_STEPS):
        here = conditional_given_scales(problem, theta, plain)
        tau = np.exp(here.theta[first:])
        # Of the coefficients themselves, their scale held.
        stretch = np.exp((1 - held) * here.theta[scale_of])
        spread = here.covariance[np.ix_(at, at)] * np.outer(stretch, stretch)
        square = (here.theta[inside] * stretch) ** 2 + np.diag(spread)
        theta = _with_scales(here.theta, _em_step(square, scale_of - first, prior), problem)
        if np.abs(theta[first:] - here.theta[first:]).max() < POOL_TOLERANCE:
            break
    information = _scale_information(spread, tau, scale_of - first, prior)
    return _with_pools(problem, here, plain, information)


def conditional_given_scales(
    problem: Problem, theta: FloatArray, rest: IntArray
) -> ConditionalMode:
    """Mode of the coordinates ``rest``, no pooling scale among them, and their covariance."""

    def partial(x: FloatArray) -> tuple[float, FloatArray]:
        full = theta.copy()
        full[rest] = x
        value, gradient = problem.value_and_gradient(full)
        return value, gradient[rest]

    sigma = np.flatnonzero(rest == problem.sigma_position)
    x, inverse = theta[rest], np.eye(len(rest))
    for _ in range(NEWTON_STEPS):
        value, gradient = partial(x)
        curvature = -hessian(partial, x, int(sigma[0]) if len(sigma) else None)
        values, vectors = np.linalg.eigh(curvature)
        inverse = (vectors / np.maximum(values, LEAST_CURVATURE)) @ vectors.T
        step = inverse @ gradient
        if gradient @ step < NEWTON_TOLERANCE:
            break
        length = 1.0
        while length > 1e-3 and not partial(x + length * step)[0] > value:
            length /= 2
        if length <= 1e-3:
            break
        x = x + length * step
    full = theta.copy()
    full[rest] = x
    inverse = (inverse + inverse.T) / 2
    log_spread = 0.5 * float(np.linalg.slogdet(inverse)[1])
    return ConditionalMode(full, inverse, float(partial(x)[0]) + log_spread)


def _em_step(square: FloatArray, pool: IntArray, prior: FloatArray) -> FloatArray:
    """Log scales that maximise the expected log density, half-normal priors in it."""
    out = np.empty(len(prior))
    for k, scale in enumerate(prior):
        its = square[pool == k]
        # (m - 1) u + u^2 / scale^2 = sum of squares, u = tau^2; the 1 is the Jacobian of log tau
        half, rest = scale**2 / 2, len(its) - 1.0
        out[k] = 0.5 * np.log(half * (np.sqrt(rest**2 + 2 * its.sum() / half) - rest))
    return out


def _with_scales(theta: FloatArray, log_tau: FloatArray, problem: Problem) -> FloatArray:
    """Other scales and the same pooled coefficients."""
    inside, scale_of = problem.pool_positions()
    out = theta.copy()
    out[problem.n_coordinates - problem.n_pools :] = log_tau
    out[inside] *= np.exp((1 - problem.held()[inside]) * (theta - out)[scale_of])
    return out


def _scale_information(
    spread: FloatArray, tau: FloatArray, pool: IntArray, prior: FloatArray
) -> FloatArray:
    """Expected information about the log scales, the coefficients summed out.

    For effects of covariance D seen with normal error it is ``tr(M dD_k M dD_l) / 2`` with M the
    inverse covariance of what is seen, here from ``spread``, their covariance given the data.
    """
    inverse = 1 / tau[pool] ** 2
    seen = np.diag(inverse) - spread * np.outer(inverse, inverse)
    member = (pool[:, None] == np.arange(len(tau))) * tau[pool][:, None] ** 2
    return np.asarray(2 * member.T @ seen**2 @ member + np.diag(2 * (tau / prior) ** 2))


def _with_pools(
    problem: Problem, here: ConditionalMode, plain: IntArray, information: FloatArray
) -> ConditionalMode:
    """Join the scales to the other coordinates, whose mode moves with them."""
    first, k = problem.n_coordinates - problem.n_pools, problem.n_coordinates
    cross = np.empty((len(plain), k - first))
    for j in range(first, k):
        step = np.zeros(k)
        step[j] = STEP
        up, down = (problem.value_and_gradient(here.theta + s)[1] for s in (step, -step))
        cross[:, j - first] = (up - down)[plain] / (2 * STEP)
    slope, scales = here.covariance @ cross, np.linalg.inv(information)
    both = slope @ scales
    covariance = np.block([[here.covariance + both @ slope.T, both], [both.T, scales]])
    log_spread = 0.5 * float(np.linalg.slogdet(scales)[1])
    return ConditionalMode(
        here.theta, (covariance + covariance.T) / 2, here.log_marginal + log_spread
    )
