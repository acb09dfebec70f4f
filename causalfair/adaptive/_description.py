"""Radii of mechanisms that reveal few bits: splitting, checks, leaderboards, winners, weights.

A transcript that takes at most ``e^L`` values turns a fixed-query failure probability b into
``e^L b``; everything here is that sentence with an exact count. Range one throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from scipy import optimize, special

from causalfair._core.typing import ArrayLike, FloatArray


def log_binomial(n: float, k: ArrayLike) -> FloatArray:
    """Natural logarithm of the binomial coefficient; ``-inf`` where k > n."""
    n_, k_ = np.asarray(n, dtype=float), np.asarray(k, dtype=float)
    with np.errstate(invalid="ignore"):
        value = (
            special.gammaln(n_ + 1)
            - special.gammaln(k_ + 1)
            - special.gammaln(np.maximum(n_ - k_, 0) + 1)
        )
    return np.asarray(np.where(k_ > n_, -np.inf, value), dtype=np.float64)


def log_sum_exp(values: FloatArray) -> float:
    """Logarithm of a sum of exponentials; lighter than scipy's for one short array."""
    top = float(values.max())
    return top + math.log(float(np.exp(values - top).sum()))


@lru_cache(maxsize=8)
def log_factorials(largest: int) -> FloatArray:
    """Logarithms of 0!, 1!, ..., largest!."""
    return np.asarray(special.gammaln(np.arange(largest + 1) + 1.0))


def hoeffding(n: float, log_inverse: float) -> float:
    """Radius of a mean of n values with range one that fails with probability ``2 e^-L``."""
    return math.sqrt(log_inverse / (2 * n))


# --------------------------------------------------------------------------- check intervals
def kl_bernoulli(h: float, p: float) -> float:
    """Kullback-Leibler divergence between Bernoulli(h) and Bernoulli(p)."""
    return float(special.rel_entr(h, p) + special.rel_entr(1 - h, 1 - p))


def kl_interval(h: float, n: float, log_inverse: float) -> tuple[float, float]:
    """All p with ``n KL(h || p) <= L``; valid for means of values in [0, 1]."""
    level = log_inverse / n

    def excess(p: float) -> float:
        return kl_bernoulli(h, p) - level

    reach = math.sqrt(level / 2)  # Pinsker: never wider than Hoeffding
    low_end, high_end = max(h - reach, 0.0), min(h + reach, 1.0)
    low = (
        low_end
        if h <= 0 or excess(max(low_end, 1e-300)) <= 0
        else optimize.brentq(excess, max(low_end, 1e-300), h, xtol=1e-15)
    )
    high = (
        high_end
        if h >= 1 or excess(min(high_end, 1 - 1e-16)) <= 0
        else optimize.brentq(excess, h, min(high_end, 1 - 1e-16), xtol=1e-15)
    )
    if h <= 0:
        low = 0.0
        high = -math.expm1(-level)  # KL(0 || p) = -ln(1 - p)
    if h >= 1:
        high = 1.0
        low = math.exp(-level)
    return float(low), float(high)


def clopper_pearson(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact two-sided interval for a probability at error level alpha."""
    x = successes
    low = 0.0 if x == 0 else float(special.betaincinv(x, n - x + 1, alpha / 2))
    # the complement form keeps the digits of tiny alpha
    high = 1.0 if x == n else float(1.0 - special.betaincinv(n - x, x + 1, alpha / 2))
    return low, high


def empirical_bernstein(
    mean: float, variance: float, n: int, log_inverse: float
) -> tuple[float, float]:
    """Interval that fails with probability ``2 e^-L``; variance is the unbiased one."""
    log_term = log_inverse + math.log(2.0)  # ln(4/delta) with delta = 2 e^-L
    reach = math.sqrt(2 * variance * log_term / n) + 7 * log_term / (3 * (n - 1))
    return mean - reach, mean + reach


# ---------------------------------------------------------------------------------- splitting
def nonadaptive_radius(n: int, k: int, beta: float) -> float:
    """Union bound over k queries fixed before the data were seen."""
    return hoeffding(n, math.log(2 * k / beta))


@lru_cache(maxsize=256)
def clopper_pearson_radius(m: int, alpha: float) -> float:
    """Largest distance from x/m to the ends of its exact interval at level alpha, over all x."""
    if m < 1:
        return 1.0
    x = np.arange(m + 1)
    if m > 4_000:  # the widest interval has x near m/2
        x = x[m // 2 - 1500 : m // 2 + 1501]
    high = np.ones(len(x))
    inner = x < m
    high[inner] = 1.0 - special.betaincinv(m - x[inner], x[inner] + 1, alpha / 2)
    return float(np.max(high - x / m))  # lower ends mirror the upper ends


def binomial_miss(m: int, radius: float, p: FloatArray) -> FloatArray:
    """Exact P(|X/m - p| > radius) for X binomial(m, p)."""
    tiny = 1e-9  # a distance equal to the radius up to rounding is no miss
    above = np.floor(m * (p + radius) + tiny) + 1
    below = np.ceil(m * (p - radius) - tiny) - 1
    up = special.betainc(np.clip(above, 1, m), np.clip(m - above + 1, 1, None), p)
    down = special.betaincc(np.clip(below, 0, None) + 1, np.clip(m - below, 1, None), p)
    return np.where(above <= m, up, 0.0) + np.where(below >= 0, down, 0.0)


def binomial_radius_at_half(m: int, alpha: float) -> float:
    """Smallest j/m missed with probability at most alpha when p = 1/2 (not uniform in p)."""
    half = np.array([0.5])
    low, high = -1, m
    while high - low > 1:
        middle = (low + high) // 2
        missed = float(binomial_miss(m, middle / m, half)[0])
        low, high = (low, middle) if missed <= alpha else (middle, high)
    return high / m


def split_radius(n: int, k: int, beta: float, rounds: int) -> float:
    """Hoeffding radius of k queries spread over `rounds` disjoint blocks."""
    m = n // rounds
    return 1.0 if m < 1 else hoeffding(m, math.log(2 * k / beta))


# ------------------------------------------------------------------------------ sparse validate
def sparse_log_strings(i: int, budget: int) -> float:
    """Log number of answer strings possible before an answered query i (counted from 1)."""
    j = np.arange(min(i - 1, budget - 1) + 1)
    return log_sum_exp(log_binomial(i - 1, j))


@lru_cache(maxsize=256)
def sparse_validate_radius(n: int, m: int, budget: int, beta: float) -> float:
    """Tolerance that holds for all m checks when at most `budget` may fail."""
    # sum over i <= m of C(i-1, j) = C(m, j+1)
    j = np.arange(min(m - 1, budget - 1) + 1)
    total = log_sum_exp(log_binomial(m, j + 1))
    return hoeffding(n, math.log(2 / beta) + total)


# ------------------------------------------------------------------------------ guess and check
def weight(x: int) -> float:
    """Weights ``6 / (pi^2 (x+1)^2)`` that sum to one over x = 0, 1, ..."""
    return 6.0 / (math.pi**2 * (x + 1) ** 2)


def check_log_inverse(i: int, failures: int, log_cells: float, beta: float) -> float:
    """Log inverse error level L of check i (from 0) after `failures` failures."""
    return (
        math.log(2 / beta)
        - math.log(weight(i))
        - math.log(weight(failures))
        + float(log_binomial(i, failures))
        + log_cells
    )


def guess_and_check_tau(
    n_check: int, i: int, beta: float, *, failures: int = 0, cells: int = 25
) -> float:
    """Smallest certifiable tau at check i when the guess equals the check mean one half."""
    level = check_log_inverse(i, failures, failures * math.log(cells), beta)
    low, high = kl_interval(0.5, n_check, level)
    return max(0.5 - low, high - 0.5)


# -------------------------------------------------------------------------------------- ladder
def ladder_log_transcripts(k: int, eta: float) -> float:
    """Log number of leaderboard histories: positions times strictly decreasing grid values."""
    values = math.floor(1 / eta + 0.5) + 1
    most = min(k, values)
    table = log_factorials(1 << values.bit_length())
    choices = table[values] - table[: most + 1] - table[values - most : values + 1][::-1]
    return log_sum_exp(choices + _log_choices(k, 1 << most.bit_length())[: most + 1])


@lru_cache(maxsize=64)
def _log_choices(n: int, most: int) -> FloatArray:
    """Log number of ways to choose 0, 1, ..., most of n things."""
    return log_binomial(n, np.arange(most + 1))


def ladder_radius(n: int, k: int, beta: float, eta: float) -> float:
    """Error of the best so far after k submissions at step eta."""
    return eta + hoeffding(n, math.log(2 * k / beta) + ladder_log_transcripts(k, eta))


@lru_cache(maxsize=256)
def ladder_optimal(n: int, k: int, beta: float) -> tuple[float, float]:
    """Smallest radius and the step that reaches it.

    For a given number of grid values the smallest step is best, so the search runs over counts.
    """

    @cache
    def radius(count: int) -> float:
        return ladder_radius(n, k, beta, _ladder_step(count))

    coarse = sorted({round(2 * 1.25**j) for j in range(33)})
    best = min(coarse, key=radius)
    step = max(1, best // 8)
    while True:
        nearer = min((c for c in (best - step, best + step) if c >= 2), key=radius, default=best)
        if radius(nearer) < radius(best):
            best = nearer
        elif step == 1:
            return radius(best), _ladder_step(best)
        else:
            step //= 2


def _ladder_step(count: int) -> float:
    """Smallest step with ``floor(1/eta + 1/2) = count``."""
    return math.nextafter(1.0 / (count + 0.5), 1.0) * (1 + 1e-12)


def ladder_published(n: int, k: int, beta: float) -> float:
    """Radius from the tail bound printed by Blum and Hardt (2015), at its best eta."""

    def radius(eta: float) -> float:
        level = math.log(1 / beta) + (1 / eta + 2) * math.log(4 * k / eta) + 1
        return eta + hoeffding(n, level)

    grid = np.exp(np.linspace(math.log(1e-4), math.log(0.99), 4000))
    return min(radius(float(e)) for e in grid)


# -------------------------------------------------------------------------------- winner only
def winner_log_candidates(sizes: Sequence[float]) -> float:
    """Log of ``sum_t K_t prod_{s<t} K_s``: all candidates under all histories of winners."""
    logs = np.log(np.asarray(sizes, dtype=float))
    return log_sum_exp(np.cumsum(logs))


def winner_only_radius(n: int, sizes: Sequence[int], beta: float) -> float:
    """Radius for every candidate's holdout value when only the winners are revealed."""
    return hoeffding(n, math.log(2 / beta) + winner_log_candidates(sizes))


# -------------------------------------------------------------------- multiplicative weights
def weights_updates(n_cells: int, threshold: float) -> int:
    """Most updates possible: ``floor(ln N / (2 (T^2 - 4 g^2)))`` with g = T/4."""
    return math.floor(math.log(n_cells) / (1.5 * threshold**2))


def weights_radius(n: int, k: int, beta: float, n_cells: int, threshold: float) -> float:
    """Radius of k answers of multiplicative weights with the given threshold."""
    updates = min(weights_updates(n_cells, threshold), k)
    cells = math.ceil(2 / threshold)  # 1/(2g)
    choices = _log_choices(k, 1 << updates.bit_length())[: updates + 1]
    log_transcripts = log_sum_exp(choices + np.arange(updates + 1) * math.log(cells))
    return threshold + hoeffding(n, math.log(2 * k / beta) + log_transcripts)


@lru_cache(maxsize=128)
def weights_optimal(n: int, k: int, beta: float, n_cells: int) -> tuple[float, float]:
    """Smallest radius and the threshold that reaches it."""

    def best_of(grid: FloatArray) -> tuple[float, float]:
        return min((weights_radius(n, k, beta, n_cells, float(t)), float(t)) for t in grid)

    coarse = best_of(np.exp(np.linspace(math.log(0.03), math.log(0.7), 40)))
    return min(coarse, best_of(coarse[1] * np.exp(np.linspace(-0.08, 0.08, 25))))
