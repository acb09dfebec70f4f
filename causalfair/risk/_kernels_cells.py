"""Probability of what was seen of one row, the unobservable summed out, and its derivatives.

A row has risk score ``r = a + Z`` and decision score ``t = alpha r + d``. With ``u = S(r)`` and
``v = S(t)`` its code says which of ``v (1 - u)``, ``v u``, ``1 - v``, ... was seen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["MAX_SCORE", "quadrature_cell", "uniform_cell"]

PANEL = 3.0
NEAR_ZERO, FAR_TAIL = 1e-4, -5.0
MAX_SCORE = 300.0
_X16, _W16 = np.polynomial.legendre.leggauss(16)
NODES16 = tuple(0.5 * (_X16 + 1))
WEIGHTS16 = tuple(0.5 * _W16)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _logistic(x: Any) -> Any:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


@njit(cache=True, nogil=True, error_model="numpy")
def _panels(a: Any, b: Any, s: Any, flip: Any) -> Any:
    """Integral over [0, s] of v u, or of v (1 - u) with ``flip``, and its derivatives in a and b.

    Gauss-Legendre, 16 nodes a panel of width at most 3: the poles are at distance pi from the real
    line, so that the error is below rounding.
    """
    n = max(1, math.ceil(s / PANEL))
    width = s / n
    total = total_a = total_b = 0.0
    for p in range(n):
        for k in range(16):
            z = width * (p + NODES16[k])
            h = width * WEIGHTS16[k]
            u, u0 = _logistic(a + z), _logistic(-a - z)
            v, v0 = _logistic(b + z), _logistic(-b - z)
            f = u0 if flip else u
            total += h * v * f
            total_a += h * v * u * u0
            total_b += h * v * v0 * f
    return total, -total_a if flip else total_a, total_b


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _ends(e: Any, es: Any) -> Any:
    """S(x), 1 - S(x), S(x + s), 1 - S(x + s) from exp(x) and exp(s)."""
    down, down_s = 1.0 / (1.0 + e), 1.0 / (1.0 + e * es)
    return e * down, down, e * es * down_s, down_s


@njit(cache=True, nogil=True, error_model="numpy")
def _tested_negative(a: Any, b: Any, ea: Any, eb: Any, s: Any, es: Any, q: Any) -> Any:
    """Integral of v (1 - u) and its derivatives in a and b; q = 1 - exp(-s)."""
    d = b - a
    if abs(d) < NEAR_ZERO:
        return _panels(a, b, s, True)
    _, a_down, a_up, _ = _ends(ea, es)
    _, b_down, b_up, _ = _ends(eb, es)
    ratio = eb / ea
    grown = math.expm1(d) if abs(d) < 0.5 else ratio - 1.0
    # L = D(b) - D(a), in the branch without cancellation.
    if d > 0:
        gap = math.log1p(grown * q * b_down * a_up)
    else:
        gap = -math.log1p(-grown / ratio * q * a_down * b_up)
    scale, j01 = grown / ratio, gap / grown
    g_a, g_b = q * a_up * a_down, q * b_up * b_down
    return gap / scale, (j01 - g_a) / scale, (g_b - j01) / scale


@njit(cache=True, nogil=True, error_model="numpy")
def _tested_positive(a: Any, b: Any, ea: Any, eb: Any, s: Any, es: Any, em: Any, q: Any) -> Any:
    """Integral of v u and its derivatives, as D(a) - J_01 with a the smaller score."""
    if abs(b - a) < NEAR_ZERO or max(a, b) + s < FAR_TAIL:
        return _panels(a, b, s, False)
    if a <= b:
        j01, by_high, by_low = _tested_negative(b, a, eb, ea, s, es, q)
        low, low_down, low_up, _ = _ends(ea, es)
    else:
        j01, by_high, by_low = _tested_negative(a, b, ea, eb, s, es, q)
        low, low_down, low_up, _ = _ends(eb, es)
    value, by_low = math.log1p(em * low) - j01, q * low_up * low_down - by_low
    if a <= b:
        return value, by_low, -by_high
    return value, -by_high, by_low


@njit(cache=True, nogil=True, error_model="numpy")
def uniform_cell(code: Any, a: Any, b: Any, s: Any, es: Any, em: Any, q: Any) -> Any:
    """Integral of one code over Z in [0, s]; derivatives in a, in b, and the integrand at s.

    ``es``, ``em`` and ``q`` are exp(s), exp(s) - 1 and 1 - exp(-s).
    """
    if code == 3 or code == 4:
        u, u0, u_s, u0_s = _ends(math.exp(a), es)
        if code == 4:
            return math.log1p(em * u), q * u_s * u0, 0.0, u_s
        return math.log1p(em * u0_s), -q * u_s * u0, 0.0, u0_s
    eb = math.exp(b)
    v, v0, v_s, v0_s = _ends(eb, es)
    if code == 0:
        return math.log1p(em * v0_s), 0.0, -q * v_s * v0, v0_s
    if code == 5:
        return math.log1p(em * v), 0.0, q * v_s * v0, v_s
    ea = math.exp(a)
    u, u0, u_s, u0_s = _ends(ea, es)
    if code == 1:
        j, ja, jb = _tested_negative(a, b, ea, eb, s, es, q)
        return j, ja, jb, v_s * u0_s
    if code == 7:
        j, jb, ja = _tested_negative(b, a, eb, ea, s, es, q)
        return j, ja, jb, u_s * v0_s
    if code == 2:
        j, ja, jb = _tested_positive(a, b, ea, eb, s, es, em, q)
        return j, ja, jb, v_s * u_s
    # (1 - u)(1 - v) is u v seen from the other end of the interval.
    j, ja, jb = _tested_positive(-a - s, -b - s, 1 / (ea * es), 1 / (eb * es), s, es, em, q)
    return j, -ja, -jb, v0_s * u0_s


@njit(cache=True, nogil=True, error_model="numpy")
def quadrature_cell(code: Any, a: Any, t: Any, outcome: Any, decision: Any, x: Any, w: Any) -> Any:
    """Sum over nodes of one code, and of its derivatives in r and t, plain and times the node.

    ``outcome`` and ``decision`` hold exp(sigma x) and exp(alpha sigma x): no exponential is left
    in the loop over nodes.
    """
    ea = math.exp(min(max(a, -MAX_SCORE), MAX_SCORE))
    et = math.exp(min(max(t, -MAX_SCORE), MAX_SCORE))
    total = r0 = t0 = r1 = t1 = 0.0
    sign_t = -1.0 if code == 0 or code == 6 or code == 7 else 1.0
    sign_y = -1.0 if code == 1 or code == 3 or code == 6 else 1.0
    has_t = code != 3 and code != 4
    has_y = code != 0 and code != 5
    for k in range(x.size):
        odds_y, odds_t = ea * outcome[k], et * decision[k]
        u0, v0 = 1.0 / (1.0 + odds_y), 1.0 / (1.0 + odds_t)
        u, v = odds_y * u0, odds_t * v0
        f_t = 1.0 if not has_t else (v if sign_t > 0 else v0)
        f_y = 1.0 if not has_y else (u if sign_y > 0 else u0)
        h = w[k]
        total += h * f_t * f_y
        if has_t:
            g = h * sign_t * v * v0 * f_y
            t0 += g
            t1 += g * x[k]
        if has_y:
            g = h * sign_y * u * u0 * f_t
            r0 += g
            r1 += g * x[k]
    return total, r0, t0, r1, t1
