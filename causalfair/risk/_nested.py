"""Laplace approximation nested in sigma, corrected by importance resampling.

Given sigma the rest of the posterior is close to normal; sigma itself is skewed and moves the rest
along a curve. So the mode of the rest is followed over a grid of sigma (of its coordinate s >= 0:
the posterior is even in s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.risk._conditional import conditional_mode
from causalfair.risk._pareto import smoothed_log_weights

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.risk._mode import Mode
    from causalfair.risk._model import Problem

STEP_SHARE, MIN_STEP, MAX_STEP, STEP_GROWTH, MAX_STEPS, LOG_DROP = 0.4, 0.15, 0.5, 1.1, 40, 8.0
FINE = 1001
T_DF = 6.0
# Pooling scales are skewed too, and nothing follows them.
PROPOSALS_PER_DRAW, PROPOSALS_WHERE_POOLED = 2, 6
MAX_PARETO_K = 0.7


@dataclass(frozen=True)
class Resampled:
    """Draws of an approximation corrected towards the posterior.

    ``pareto_k`` above 0.7 says that the approximation is too far away to be corrected.
    """

    draws: FloatArray
    pareto_k: float
    n_effective: float


def resampled_draws(mode: Mode, n_draws: int, rng: np.random.Generator) -> Resampled:
    """Importance resampling from the nested approximation with multivariate t tails."""
    each = PROPOSALS_WHERE_POOLED if mode.problem.n_pools else PROPOSALS_PER_DRAW
    n, k = each * n_draws, len(mode.theta)
    proposals = np.empty((n, k))
    rest, position = _blocks(mode.problem, k)
    centre: Any = mode.theta
    factors: Any = mode.factor
    log_proposal = np.zeros(n)
    if position is not None:
        path = follow(mode, rest, position)
        u, log_proposal = path.draw(n, rng)
        proposals[:, position] = u
        centre, factors = path.at(u)
    standard = rng.normal(size=(n, len(rest))) * np.sqrt(T_DF / rng.chisquare(T_DF, n))[:, None]
    proposals[:, rest] = centre + np.einsum("...ij,...j->...i", factors, standard)
    radius = (standard**2).sum(axis=1)
    log_proposal = log_proposal - 0.5 * (T_DF + len(rest)) * np.log1p(radius / T_DF)
    log_proposal = log_proposal - np.log(np.diagonal(factors, axis1=-2, axis2=-1)).sum(axis=-1)
    log_target = np.array([mode.problem.value_and_gradient(p)[0] for p in proposals])
    log_weight, pareto_k = smoothed_log_weights(log_target - log_proposal)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    # Systematic resampling: one uniform number decides all draws.
    points = (np.arange(n_draws) + rng.uniform()) / n_draws
    chosen = np.searchsorted(np.cumsum(weight), points).clip(max=n - 1)
    return Resampled(rng.permutation(proposals[chosen]), pareto_k, float(1 / (weight**2).sum()))


def _blocks(problem: Problem, k: int) -> tuple[IntArray, int | None]:
    """Coordinates other than sigma, and the position of sigma where it is inferred."""
    position = problem.sigma_position
    return (np.arange(k) if position is None else np.delete(np.arange(k), position)), position


@dataclass(frozen=True)
class Path:
    """Conditional modes and factors of the rest over a grid of sigma.

    Attributes
    ----------
    grid : (g,) float array
        Values of sigma.
    log_marginal : (g,) float array
        Laplace approximation of its log marginal density.
    centres : (g, k - 1) float array
        Modes of the rest.
    factors : (g, k - 1, k - 1) float array
        Lower Cholesky factors of its covariance.
    """

    grid: FloatArray
    log_marginal: FloatArray
    centres: FloatArray
    factors: FloatArray

    def draw(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draws of sigma from the interpolated marginal, and their log density."""
        from scipy.interpolate import PchipInterpolator

        fine = np.linspace(self.grid[0], self.grid[-1], FINE)
        log_density = PchipInterpolator(self.grid, self.log_marginal)(fine)
        density = np.exp(log_density - log_density.max())
        heights = (density[1:] + density[:-1]) / 2
        mass = np.concatenate([[0.0], np.cumsum(heights * (fine[1] - fine[0]))])
        place = rng.uniform(size=n) * mass[-1]
        left = np.clip(np.searchsorted(mass, place, side="right") - 1, 0, FINE - 2)
        u = fine[left] + (place - mass[left]) / heights[left]
        return u, np.log(heights[left] / mass[-1])

    def at(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Centres (n, k - 1) and factors (n, k - 1, k - 1) at values of sigma."""
        from scipy.interpolate import PchipInterpolator

        left = np.clip(np.searchsorted(self.grid, u) - 1, 0, len(self.grid) - 2)
        share = ((u - self.grid[left]) / (self.grid[left + 1] - self.grid[left]))[:, None, None]
        factors = (1 - share) * self.factors[left] + share * self.factors[left + 1]
        return PchipInterpolator(self.grid, self.centres)(u), factors


def follow(mode: Mode, rest: IntArray, position: int) -> Path:
    """Walk from the mode up and down in sigma, until its marginal density is negligible."""
    centre = mode.theta.copy()
    centre[position] = abs(centre[position])
    start = conditional_mode(mode.problem, centre, rest)
    points = [start]
    for direction in (-1.0, 1.0):
        spread = STEP_SHARE * float(np.sqrt(mode.covariance[position, position]))
        here, step = start, min(max(spread, MIN_STEP), MAX_STEP)
        for _ in range(MAX_STEPS):
            theta = here.theta.copy()
            theta[position] = max(theta[position] + direction * step, 0.0)
            if theta[position] == here.theta[position]:
                break
            if not np.isfinite(mode.problem.value_and_gradient(theta)[0]):
                break
            here, step = conditional_mode(mode.problem, theta, rest), step * STEP_GROWTH
            points.append(here)
            low = here.log_marginal < max(p.log_marginal for p in points) - LOG_DROP
            if low or theta[position] == 0:
                break
    points.sort(key=lambda p: float(p.theta[position]))
    return Path(
        np.array([p.theta[position] for p in points]),
        np.array([p.log_marginal for p in points]),
        np.array([p.theta[rest] for p in points]),
        np.array([p.factor for p in points]),
    )
