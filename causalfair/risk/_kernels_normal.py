"""Compiled kernels of the bivariate normal distribution function."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["bivariate_cdf", "bivariate_log_cdf"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_TWO_PI = 2.0 * math.pi
# Below this the absolute error of the direct formula (1e-15) would show in the logarithm.
_TAIL = 1e-9


@njit(cache=True, nogil=True, error_model="numpy")
def _ndtr(x: Any) -> Any:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


@njit(cache=True, nogil=True, error_model="numpy")
def _log_ndtr(x: Any) -> Any:
    """Log Phi(x), by the asymptotic series far out, where erfc would underflow."""
    if x > 5.0:
        return math.log1p(-_ndtr(-x))
    if x > -20.0:
        return math.log(_ndtr(x))
    inverse = 1.0 / (x * x)
    term, total = 1.0, 1.0
    for j in range(1, 9):
        term *= -(2 * j - 1) * inverse
        total += term
    return -0.5 * x * x - math.log(-x) - 0.5 * math.log(_TWO_PI) + math.log(total)


@njit(cache=True, nogil=True, error_model="numpy")
def _moderate(h: Any, k: Any, rho: Any) -> Any:
    """Plackett's identity in the angle: Phi(h) Phi(k) plus an integral over [0, asin rho]."""
    half = 0.5 * math.asin(rho)
    total = 0.0
    for j in range(_NODES.size):
        sine = math.sin(half * (1.0 + _NODES[j]))
        cosine2 = 1.0 - sine * sine
        total += _WEIGHTS[j] * math.exp((h * k * sine - 0.5 * (h * h + k * k)) / cosine2)
    return total * half / _TWO_PI + _ndtr(h) * _ndtr(k)


@njit(cache=True, nogil=True, error_model="numpy")
def _near_one(h: Any, k: Any, rho: Any) -> Any:
    """Phi2 for rho close to 1: distance from the limit rho = 1, in x = sqrt(1 - r**2).

    The integrand exp(-(h-k)**2 / 2x**2) g(x) has g(x) = exp(-hk/2) (1 + c x**2 (1 + d x**2)) +
    O(x**6); this part is integrated exactly, the smooth rest by Gauss-Legendre.
    """
    limit = _ndtr(min(h, k))
    a2 = (1.0 - rho) * (1.0 + rho)
    a = math.sqrt(a2)
    if a == 0.0:
        return limit
    b, hk = abs(h - k), h * k
    c, d = (4.0 - hk) / 8.0, (12.0 - hk) / 16.0
    edge = a * math.exp(-0.5 * (b * b / a2 + hk))
    zeroth = edge - b * math.sqrt(_TWO_PI) * math.exp(-0.5 * hk + _log_ndtr(-b / a))
    second = (a2 * edge - b * b * zeroth) / 3.0
    fourth = (a2 * a2 * edge - b * b * second) / 5.0
    total = zeroth + c * (second + d * fourth)
    rest = 0.0
    for j in range(_NODES.size):
        x = 0.5 * a * (1.0 + _NODES[j])
        x2 = x * x
        root = math.sqrt(1.0 - x2)
        exact = math.exp(-0.5 * b * b / x2 - hk / (1.0 + root)) / root
        series = math.exp(-0.5 * (b * b / x2 + hk)) * (1.0 + c * x2 * (1.0 + d * x2))
        rest += _WEIGHTS[j] * (exact - series)
    return limit - (total + 0.5 * a * rest) / _TWO_PI


@njit(cache=True, nogil=True, error_model="numpy")
def _phi2(h: Any, k: Any, rho: Any) -> Any:
    if rho > 0.925:
        return max(_near_one(h, k, min(rho, 1.0)), 0.0)
    if rho < -0.925:
        return max(_ndtr(h) - _near_one(h, -k, min(-rho, 1.0)), 0.0)
    return max(_moderate(h, k, rho), 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _log_integrand(w: Any, h: Any, k: Any, rho: Any, root: Any) -> Any:
    u = h - w
    return -0.5 * u * u + _log_ndtr((k - rho * u) / root)


@njit(cache=True, nogil=True, error_model="numpy")
def _log_tail(h: Any, k: Any, rho: Any) -> Any:
    """Log Phi2 with small relative error: the log-concave integral over w = h - u >= 0.

    Its logarithm curves down by at least one, so that the mass lies within 9 of the peak.
    """
    root = math.sqrt(max((1.0 - rho) * (1.0 + rho), 1e-300))
    low, high = 0.0, 60.0 + abs(h) + abs(k)
    golden = 0.5 * (math.sqrt(5.0) - 1.0)
    for _ in range(90):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if _log_integrand(left, h, k, rho, root) > _log_integrand(right, h, k, rho, root):
            high = right
        else:
            low = left
    peak = 0.5 * (low + high)
    top = _log_integrand(peak, h, k, rho, root)
    # Where the integrand has fallen by exp(-40), found by halving from a distance of 9.
    before, after = min(peak, 9.0), 9.0
    while before > 1e-12 and _log_integrand(peak - 0.5 * before, h, k, rho, root) < top - 40.0:
        before *= 0.5
    while after > 1e-12 and _log_integrand(peak + 0.5 * after, h, k, rho, root) < top - 40.0:
        after *= 0.5
    panels = 4
    total = 0.0
    for panel in range(2 * panels):
        width = (before if panel < panels else after) / panels
        start = peak + (panel - panels) * width
        for j in range(_NODES.size):
            w = start + 0.5 * width * (1.0 + _NODES[j])
            total += 0.5 * width * _WEIGHTS[j] * math.exp(
                _log_integrand(w, h, k, rho, root) - top
            )  # fmt: skip
    return top + math.log(total) - 0.5 * math.log(_TWO_PI)


@njit(cache=True, nogil=True, error_model="numpy")
def bivariate_cdf(h: Any, k: Any, rho: Any, out: Any) -> Any:
    """Phi2(h, k; rho) of every element."""
    for i in range(h.size):
        out[i] = _phi2(h[i], k[i], rho[i])


@njit(cache=True, nogil=True, error_model="numpy")
def bivariate_log_cdf(h: Any, k: Any, rho: Any, log_p: Any, d_h: Any, d_k: Any, d_rho: Any) -> Any:
    """Log Phi2 and its derivatives in h, k and rho."""
    for i in range(h.size):
        x, y, r = h[i], k[i], rho[i]
        p = _phi2(x, y, r)
        value = math.log(p) if p > _TAIL else _log_tail(x, y, r)
        root2 = max((1.0 - r) * (1.0 + r), 1e-300)
        root = math.sqrt(root2)
        norm = 0.5 * math.log(_TWO_PI) + value
        log_p[i] = value
        d_h[i] = math.exp(-0.5 * x * x + _log_ndtr((y - r * x) / root) - norm)
        d_k[i] = math.exp(-0.5 * y * y + _log_ndtr((x - r * y) / root) - norm)
        form = (x * x - 2.0 * r * x * y + y * y) / root2
        d_rho[i] = math.exp(-0.5 * form - norm - 0.5 * math.log(_TWO_PI)) / root
