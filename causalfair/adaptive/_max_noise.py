"""Exact quantiles and tail means of the largest of many noise variables (plain scalars)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special

_POINTS = 6001


def _tail_level(k: int, p: float) -> float:
    """Per-variable tail probability ``1 - (1 - p)**(1/k)``, accurate for k up to 1e9."""
    return -math.expm1(math.log1p(-p) / k)


def _simpson(values: np.ndarray, step: float) -> float:
    return float(
        step / 3.0 * (values[0] + values[-1] + 4 * values[1:-1:2].sum() + 2 * values[2:-1:2].sum())
    )


@lru_cache(maxsize=4096)
def normal_max_quantile(k: int, p: float) -> float:
    """Point exceeded with probability `p` by the maximum of k iid ``|N(0, 1)|``."""
    return float(-special.ndtri(0.5 * _tail_level(k, p)))


@lru_cache(maxsize=4096)
def normal_max_cvar(k: int, p: float) -> float:
    """Mean of the maximum of k iid ``|N(0, 1)|`` over its upper tail of probability `p`."""
    quantile = normal_max_quantile(k, p)
    grid = np.linspace(quantile, quantile + 12.0, _POINTS)
    # P(max > x) = 1 - (1 - 2 Phi(-x))^k
    tail = -np.expm1(k * np.log1p(-2.0 * special.ndtr(-grid)))
    return quantile + _simpson(tail, grid[1] - grid[0]) / p


def normal_max_mean(k: int) -> float:
    """Mean of the maximum of k iid ``|N(0, 1)|``."""
    grid = np.linspace(0.0, normal_max_quantile(k, 0.5) + 14.0, 2 * _POINTS - 1)
    with np.errstate(divide="ignore"):
        tail = -np.expm1(k * np.log1p(-2.0 * special.ndtr(-grid)))
    return _simpson(tail, grid[1] - grid[0])


@lru_cache(maxsize=4096)
def laplace_max_quantile(k: int, p: float) -> float:
    """Point exceeded with probability `p` by the maximum of k iid ``|Laplace(1)|``."""
    return -math.log(_tail_level(k, p))


@lru_cache(maxsize=4096)
def laplace_max_cvar(k: int, p: float) -> float:
    """Mean of the maximum of k iid ``|Laplace(1)|`` over its upper tail of probability `p`."""
    quantile = laplace_max_quantile(k, p)
    grid = np.linspace(quantile, quantile + 45.0, _POINTS)
    with np.errstate(divide="ignore"):
        tail = -np.expm1(k * np.log1p(-np.exp(-grid)))
    return quantile + _simpson(tail, grid[1] - grid[0]) / p


def cvar_from_cdf(grid: np.ndarray, cdf: np.ndarray, p: float) -> float:
    """Upper-tail mean at level `p` of a variable whose cdf is tabulated on an even grid."""
    above = np.minimum(1.0 - cdf, p)  # p CVaR = p q + int_q^inf (1 - F), q the (1 - p) quantile
    return float(grid[0] + np.trapezoid(above, grid) / p)
