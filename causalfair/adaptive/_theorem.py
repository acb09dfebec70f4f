"""Radii of the noise-adding mechanisms: tail mean of the noise plus the generalisation gap.

Every function works on queries with range one and returns plain numbers; multiply by the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from causalfair._core.typing import FloatArray
from causalfair.adaptive._max_noise import cvar_from_cdf, laplace_max_cvar, normal_max_cvar
from causalfair.adaptive.accounting import GaussianF, PowerFunction, PureCompositionF, gap

_NO_RADIUS = 1e6
# An influence profile: (influence of one record, number of such records) pairs.
Profile = tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class NoisyWidth:
    """Radius, its two parts and the noise scale it was computed for (all on range one)."""

    radius: float
    scale: float
    noise: float
    gap: float


def minimise_log(
    function: Callable[[float], float],
    low: float,
    high: float,
    *,
    points: int = 9,
    tol: float = 1e-5,
) -> float:
    """Minimiser of `function` over [low, high], log scale: grid, then Brent's method."""
    grid = np.linspace(math.log(low), math.log(high), points)
    values = [function(math.exp(x)) for x in grid]
    best = int(np.argmin(values))
    around = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, points - 1)]))
    found = optimize.minimize_scalar(
        lambda x: min(function(math.exp(x)), _NO_RADIUS),  # parabolas need finite values
        bounds=around,
        method="bounded",
        options={"xatol": tol},
    )
    return math.exp(float(found.x))


def mean_profile(n: int) -> Profile:
    """Influences of a plain mean of n records."""
    return ((1.0 / n, n),)


def profile_gap(profile: Profile, power: Callable[[float], PowerFunction], beta: float) -> float:
    """Sum over records of influence times gap, where ``power(c)`` belongs to influence c."""
    return sum(c * count * gap(power(c), beta) for c, count in profile)


@lru_cache(maxsize=4096)
def gaussian_width(
    profile: Profile, k: int, beta: float, sigma: float, spent: float = 0.0
) -> NoisyWidth:
    """Radius of k Gaussian answers with noise sigma, all with the same influence profile.

    `spent` is the squared signal-to-noise ratio that earlier answers have already used.
    """
    noise = sigma * normal_max_cvar(k, beta)
    if noise >= 10:
        return NoisyWidth(math.inf, sigma, noise, math.inf)
    spread = profile_gap(
        profile, lambda c: GaussianF(math.sqrt(k * (c / sigma) ** 2 + spent)), beta
    )
    return NoisyWidth(noise + spread, sigma, noise, spread)


@lru_cache(maxsize=1024)
def gaussian_optimal(profile: Profile, k: int, beta: float, spent: float = 0.0) -> NoisyWidth:
    """Radius of k Gaussian answers at the noise level that minimises it."""
    start = _gaussian_start(profile, k, beta)
    best = minimise_log(
        lambda s: gaussian_width(profile, k, beta, s, spent).radius,
        max(1e-6, start / 6),
        min(10.0, max(start * 6, 1e-5)),
    )
    return gaussian_width(profile, k, beta, best, spent)


def _gaussian_start(profile: Profile, k: int, beta: float) -> float:
    """Small-noise optimum: ``C s + kappa sqrt(k) sum c_i^2 / s`` is smallest there."""
    z = float(special.ndtri(1 - beta / 4))
    kappa = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / beta
    squares = sum(c * c * count for c, count in profile)
    return math.sqrt(kappa * math.sqrt(k) * squares / normal_max_cvar(k, beta))


@lru_cache(maxsize=1024)
def laplace_width(n: int, k: int, beta: float, scale: float) -> NoisyWidth:
    """Radius of k Laplace answers with scale b; each one is ``1/(n b)``-private."""
    noise = scale * laplace_max_cvar(k, beta)
    if noise >= 10:
        return NoisyWidth(math.inf, scale, noise, math.inf)
    spread = gap(PureCompositionF(1 / (n * scale), k), beta)
    return NoisyWidth(noise + spread, scale, noise, spread)


@lru_cache(maxsize=512)
def laplace_optimal(n: int, k: int, beta: float) -> NoisyWidth:
    """Radius of k Laplace answers at the scale that minimises it."""
    start = _gaussian_start(mean_profile(n), k, beta)
    best = minimise_log(
        lambda b: laplace_width(n, k, beta, b).radius,
        max(1e-7, start / 12),
        min(10.0, max(start * 3, 1e-6)),
        tol=1e-4,
    )
    return laplace_width(n, k, beta, best)


# ------------------------------------------------------------------------------- Thresholdout
_STEP = 0.1  # of the grid of noise values, in units of sigma


def _one_sided(x: FloatArray, b: float) -> FloatArray:
    """Cdf of a Laplace variable with scale b."""
    half = 0.5 * np.exp(-np.abs(x) / b)
    return np.where(x < 0, half, 1.0 - half)


@lru_cache(maxsize=512)
def _threshold_noise_cvar(k: int, ratio: float, budget: int, beta: float) -> float:
    """Tail mean of ``max{T + max gamma + max eta, max |xi|}`` in units of sigma, ratio = T/sigma.

    All noises are independent: ``P(M <= x) = P(V <= x) int f_Gamma(g) P(H <= x - T - g) dg``. On
    grids of one step the integral is a convolution.
    """
    rate = math.log(4.0 * (k + budget) / beta) + 10.0
    steps = math.ceil(2 * rate / _STEP)
    edges = _STEP * np.arange(-steps, steps + 1, dtype=np.float64)
    mass = np.diff(_one_sided(edges, 2.0) ** budget)
    middle = edges[:-1] + _STEP / 2
    centre = ratio + 4 * math.log(k) + 2 * math.log(budget)
    first = max(0.0, centre - 12.0)
    count = math.ceil((ratio + 6 * rate - first) / _STEP)
    grid = first + _STEP * np.arange(count + 1)
    arguments = first - ratio - middle[-1] + _STEP * np.arange(count + len(middle), dtype=float)
    below = np.convolve(_one_sided(arguments, 4.0) ** k, mass, mode="valid")
    with np.errstate(divide="ignore"):
        release = np.exp(budget * np.log1p(-np.exp(-grid)))
    return cvar_from_cdf(grid, below * release, beta)


@lru_cache(maxsize=512)
def thresholdout_width(
    n: int, k: int, beta: float, threshold: float, sigma: float, budget: int
) -> NoisyWidth:
    """Radius of Thresholdout: noise of its comparisons and releases, gap of 2B pure releases."""
    spread = gap(PureCompositionF(1 / (n * sigma), 2 * budget), beta)
    noise = sigma * _threshold_noise_cvar(k, threshold / sigma, budget, beta)
    return NoisyWidth(noise + spread, sigma, noise, spread)


def default_threshold(n: int, n_train: int | None) -> float:
    """Three standard deviations of a holdout-minus-training difference of a fair coin."""
    inverse_train = 0.0 if not n_train else 1.0 / n_train
    return 3.0 * math.sqrt(0.25 * (1.0 / n + inverse_train))


@lru_cache(maxsize=128)
def thresholdout_optimal(n: int, k: int, beta: float, threshold: float, budget: int) -> NoisyWidth:
    """Radius of Thresholdout at the best sigma.

    The noise part is nearly ``T + constant * sigma``; the constant is evaluated once at a rough
    optimum, and the radius is then exact for the sigma chosen.
    """

    def best(slope: float) -> float:
        start = math.sqrt(math.sqrt(2 * budget) / (n * slope))
        return minimise_log(
            lambda s: s * slope + gap(PureCompositionF(1 / (n * s), 2 * budget), beta),
            start / 8,
            start * 8,
            tol=1e-3,
        )

    slope = 4 * math.log(2 * k / beta) + 2 * math.log(2 * budget)
    for _ in range(2):
        sigma = best(slope)
        slope = _threshold_noise_cvar(k, threshold / sigma, budget, beta) - threshold / sigma
    return thresholdout_width(n, k, beta, threshold, best(slope), budget)


def epoch_of(query: int, first: int, beta: float) -> tuple[int, float]:
    """Size and error level of the epoch of a query when their number is not known beforehand.

    ``K_e = K_0 2^e`` and ``beta_e = 6 beta / (pi^2 (e+1)^2)``, which sum to beta.
    """
    epoch = max(0, math.ceil(math.log2(max(query, 1) / first)))
    return first * 2**epoch, 6 * beta / (math.pi**2 * (epoch + 1) ** 2)
