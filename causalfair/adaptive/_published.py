"""Bounds printed in the literature for k Gaussian answers, optimised over the noise level.

They are here to be compared with; the certified radius of this package is in ``_theorem``. Queries
have range one, sensitivity 1/n; a radius above one means the bound says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from causalfair._core.typing import FloatArray
from causalfair.adaptive._max_noise import normal_max_cvar, normal_max_mean, normal_max_quantile
from causalfair.adaptive._theorem import minimise_log
from causalfair.adaptive.accounting import epsilon_gaussian, epsilon_zcdp

EpsilonOf = Callable[[float, float], float]  # (composed mu, ln delta) -> epsilon


def epsilon_function(accountant: str) -> EpsilonOf:
    """Epsilon of a Gaussian mechanism at a (possibly tiny) delta given by its logarithm."""
    if accountant == "gdp":
        return lambda mu, log_delta: (
            epsilon_gaussian(mu, math.exp(log_delta)) if log_delta > -690 else math.inf
        )

    def bs16(mu: float, log_delta: float) -> float:
        rho = mu * mu / 2
        if log_delta > -690:
            return epsilon_zcdp(rho, math.exp(log_delta))
        return rho + 2 * math.sqrt(rho * -log_delta)

    return bs16


def _start(n: int, k: int) -> float:
    return math.sqrt(0.15 * math.sqrt(k) / n)


def _descend(function: Callable[[FloatArray], float], start: Sequence[float]) -> float:
    """Smallest value found by a simplex search on logarithmic coordinates."""
    result = optimize.minimize(
        function,
        np.log(start),
        method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-7, "maxiter": 400},
    )
    return float(result.fun)


def _growth(epsilon: float) -> float:
    """``e^epsilon - 1``, finite for any epsilon a search may visit."""
    return math.expm1(min(epsilon, 50.0))


def dwork_neurips15(n: int, k: int, beta: float, accountant: str = "bs16") -> float:
    """(eps, delta) transfer with ``eps <= tau/4``, ``delta = (b/8)^(4/tau)``, at b = beta/2."""
    b = beta / 2
    floor = math.sqrt(48 / n * math.log(4 / b))
    epsilon = epsilon_function(accountant)

    def tau(sigma: float) -> float:
        mu = math.sqrt(k) / (n * sigma)

        def excess(t: float) -> float:
            return epsilon(mu, 4 / t * math.log(b / 8)) - t / 4

        if excess(40.0) > 0:
            return math.inf
        return float(optimize.brentq(excess, 0.03, 40.0, xtol=1e-6)) if excess(0.03) > 0 else 0.03

    def radius(sigma: float) -> float:
        return max(tau(sigma), floor) + sigma * normal_max_quantile(k, b)

    start = _start(n, k) * 6
    best = minimise_log(radius, start / 6, start * 4, tol=1e-3)
    return radius(best)


def nissim_stemmer15(n: int, k: int, beta: float, accountant: str = "bs16") -> float:
    """``n >= 2 ln(8/delta)/eps^2``: error >= 13 eps w.p. at most ``(2 delta/eps) ln(2/eps)``."""
    b = beta / 2
    epsilon = epsilon_function(accountant)

    def radius(x: FloatArray) -> float:
        sigma, log_delta = math.exp(x[0]), float(x[1])
        eps = max(
            epsilon(math.sqrt(k) / (n * sigma), log_delta),
            math.sqrt(2 * (math.log(8) - log_delta) / n),
        )
        if eps >= 1 or log_delta > -1:
            return 20.0 + eps + abs(float(log_delta))
        failure = 2 * math.exp(log_delta) / eps * math.log(2 / eps)
        penalty = max(0.0, math.log(failure / b)) * 10
        return 13 * eps + sigma * normal_max_quantile(k, b) + penalty

    start = _start(n, k)
    return min(_descend(radius, (start * m, 1e-5)) for m in (5.0, 15.0))


def monitor16(n: int, k: int, beta: float, accountant: str = "bs16") -> float:
    """Monitor argument over T = floor(1/beta) copies of the interaction."""
    copies = math.floor(1 / beta + 1e-9)
    epsilon = epsilon_function(accountant)
    largest = normal_max_mean(copies * k)

    def radius(x: FloatArray) -> float:
        sigma, delta = math.exp(x[0]), math.exp(x[1])
        if delta >= 0.1:
            return 10.0 + delta
        growth = _growth(epsilon(math.sqrt(k) / (n * sigma), x[1]))
        return (growth + 2 * copies * delta + sigma * largest) / (1 - (1 - beta) ** copies)

    return _descend(radius, (_start(n, k) * 2, 1e-5))


def jung20(n: int, k: int, beta: float, accountant: str = "bs16") -> float:
    """``alpha + e^eps - 1 + c + 2d`` with ``beta = beta_s/c + delta/d``.

    For given beta_s and delta the best c and d give ``(sqrt(beta_s) + sqrt(2 delta))^2 / beta``.
    """
    epsilon = epsilon_function(accountant)

    def radius(x: FloatArray) -> float:
        sigma, beta_s, delta = (math.exp(v) for v in x)
        if beta_s >= 0.5 or delta >= 0.1:
            return 10.0 + beta_s + delta
        slack = (math.sqrt(beta_s) + math.sqrt(2 * delta)) ** 2 / beta
        growth = _growth(epsilon(math.sqrt(k) / (n * sigma), x[2]))
        return sigma * normal_max_quantile(k, beta_s) + growth + slack

    return _descend(radius, (_start(n, k) * 2.5, 3e-4, 3e-5))


def rogers20(n: int, k: int, beta: float, *, as_published: bool = False) -> float:
    """Mutual-information bound with a Gaussian union bound for the noise.

    `as_published` halves the last term, as circulated code does; N(0, sigma^2) noise does not
    justify it.
    """
    half = 0.5 if as_published else 1.0

    def radius(x: FloatArray) -> float:
        sigma, odds = math.exp(x[0]), math.exp(x[1])
        rho = 1 / (2 * n * n * sigma * sigma)
        lam = odds / (1 + odds)
        first = math.sqrt((2 * rho * k * n + math.log1p(odds)) / lam / (2 * n * beta))
        return first + half * math.sqrt(math.log(4 * k / beta) / rho) / n

    return min(_descend(radius, (_start(n, k) * m, 2.0)) for m in (2.0, 6.0))


def mutual_information_gap(n: int, information: float, beta: float) -> float:
    """``sqrt(E gap^2 / beta)`` for a transcript with `information` nats about the sample."""

    def mean_square(x: float) -> float:
        lam = float(special.expit(x))
        return (2 * information + float(np.logaddexp(0.0, x))) / lam / (4 * n)

    result = optimize.minimize_scalar(mean_square, bounds=(-8, 12), method="bounded")
    return math.sqrt(float(result.fun) / beta)


def mutual_information(n: int, k: int, beta: float) -> float:
    """Radius of k Gaussian answers known only through their mutual information."""

    def radius(sigma: float) -> float:
        information = k / (2 * n * sigma * sigma)
        return sigma * normal_max_cvar(k, beta) + mutual_information_gap(n, information, beta)

    start = _start(n, k) * 3
    return radius(minimise_log(radius, start / 6, start * 6, tol=1e-3))


def pure15(n: int, k: int, beta: float) -> float:
    """Laplace noise, eps <= tau: the gap exceeds tau w.p. at most ``6 exp(-tau^2 n)``."""
    from causalfair.adaptive._max_noise import laplace_max_quantile

    b = beta / 2
    floor = math.sqrt(math.log(6 / b) / n)
    quantile = laplace_max_quantile(k, b)
    # tau = k/(n s): the sum k/(n s) + s q is smallest at s = sqrt(k/(n q))
    scale = min(math.sqrt(k / (n * quantile)), k / (n * floor))
    return max(floor, k / (n * scale)) + scale * quantile


def thresholdout_sample_size(tau: float, m: int, budget: int, beta: float) -> float:
    """Holdout size the published Thresholdout theorem asks for (NeurIPS 2015, theorem 25)."""
    sigma = tau / (96 * math.log(4 * m / beta))
    t, b = tau / 8, beta / (2 * m)
    n0 = max(2 * budget / (sigma * t), math.log(6 / b) / t**2)
    n1 = 80 * math.sqrt(budget * math.log(1 / (t * b))) / (t * sigma)
    return min(n0, n1)


@lru_cache(maxsize=64)
def published_radii(n: int, k: int, beta: float) -> tuple[tuple[str, float], ...]:
    """Every published radius by key."""
    return (
        ("dfhprr15", dwork_neurips15(n, k, beta)),
        ("dfhprr15_pure", pure15(n, k, beta)),
        ("ns15", nissim_stemmer15(n, k, beta)),
        ("bnsssu16", monitor16(n, k, beta)),
        ("jung20", jung20(n, k, beta)),
        ("jung20_gdp", jung20(n, k, beta, "gdp")),
        ("rogers20", rogers20(n, k, beta)),
        ("mutual_information", mutual_information(n, k, beta)),
    )
