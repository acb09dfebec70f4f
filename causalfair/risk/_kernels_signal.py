"""Compiled laws of the signal an officer sees: masses, search rates, and thresholds.

f is the logit share of guilt, e the log of the signal (separation or concentration), u the
threshold (on the signal's scale, or its logit).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["beta_rate", "discriminant_rate", "log_expit", "signal_law", "solve_threshold"]

_ROOT_TWO = math.sqrt(2.0)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)
# Below this a tail is taken from its logarithm.
_FAINT = 1e-200
# A fall of the log density after which the rest is below rounding.
_DROP = 38.0
# Newton's third-order step leaves an error of the order of its cube.
_SETTLED = 1e-4
# Width over which 24 nodes are exact to rounding: the density's poles are at distance pi.
_PANEL = 8.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


@njit(cache=True, nogil=True, error_model="numpy")
def log_expit(x: Any) -> Any:
    return -math.log1p(math.exp(-x)) if x > 0.0 else x - math.log1p(math.exp(x))


@njit(cache=True, nogil=True, error_model="numpy")
def _log_add(x: Any, y: Any) -> Any:
    top = max(x, y)
    return top + math.log1p(math.exp(min(x, y) - top))


@njit(cache=True, nogil=True, error_model="numpy")
def _digamma(x: Any) -> Any:
    total = 0.0
    while x < 8.0:
        total -= 1.0 / x
        x += 1.0
    v = 1.0 / (x * x)
    series = v * (1 / 12 - v * (1 / 120 - v * (1 / 252 - v * (1 / 240 - v * (1 / 132)))))
    return total + math.log(x) - 0.5 / x - series


# Discriminant form -------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def _upper_tail(x: Any) -> Any:
    """Log P(N > x) and the hazard at x; by the asymptotic series where erfc would underflow."""
    if x < 20.0:
        tail = 0.5 * math.erfc(x / _ROOT_TWO)
        return math.log(tail), _DENSITY * math.exp(-0.5 * x * x) / tail
    inverse = 1.0 / (x * x)
    term, total = 1.0, 1.0
    for j in range(1, 9):
        term *= -(2 * j - 1) * inverse
        total += term
    return math.log(_DENSITY * total / x) - 0.5 * x * x, x / total


@njit(cache=True, nogil=True, error_model="numpy")
def _both_tails(x: Any) -> Any:
    """P(N > x) and P(N <= x), the smaller one without cancellation."""
    small = 0.5 * math.erfc(abs(x) / _ROOT_TWO)
    return (small, 1.0 - small) if x > 0.0 else (1.0 - small, small)


@njit(cache=True, nogil=True, error_model="numpy")
def _discriminant(f: Any, e: Any, u: Any, out: Any) -> Any:
    """Signals N(0, 1) of the innocent and N(exp e, 1) of the guilty; search above u.

    ``out``: log P(search and hit) and log P(search and miss); the derivatives of the first in f, e
    and u, then of the second; log density at u and its three derivatives.
    """
    delta = math.exp(e)
    log_phi, log_not = log_expit(f), log_expit(-f)
    phi, rest = math.exp(log_phi), math.exp(log_not)
    tail_guilty, hazard_guilty = _upper_tail(u - delta)
    tail_innocent, hazard_innocent = _upper_tail(u)
    out[0], out[1] = log_phi + tail_guilty, log_not + tail_innocent
    out[2], out[3], out[4] = rest, delta * hazard_guilty, -hazard_guilty
    out[5], out[6], out[7] = -phi, 0.0, -hazard_innocent
    top = max(out[0], out[1])
    guilty = hazard_guilty * math.exp(out[0] - top)
    innocent = hazard_innocent * math.exp(out[1] - top)
    share, gap = guilty / (guilty + innocent), delta - u
    out[8] = top + math.log(guilty + innocent)
    out[9] = share * rest - (1.0 - share) * phi
    out[10] = -share * gap * delta
    out[11] = share * gap - (1.0 - share) * u


@njit(cache=True, nogil=True, error_model="numpy")
def discriminant_rate(phi: Any, rest: Any, delta: Any, u: Any) -> Any:
    """Logit search rate, its slope in u, P(search) - P(no search), slope of the log density."""
    gap = delta - u
    hit, stay_guilty = _both_tails(-gap)
    miss, stay_innocent = _both_tails(u)
    search, stay = phi * hit + rest * miss, phi * stay_guilty + rest * stay_innocent
    if search > _FAINT and stay > _FAINT:
        guilty, innocent = phi * math.exp(-0.5 * gap * gap), rest * math.exp(-0.5 * u * u)
        density = guilty + innocent
        slope = -_DENSITY * density / (search * stay)
        return (
            math.log(search / stay),
            slope,
            search - stay,
            (guilty * gap - innocent * u) / density,
        )
    log_phi, log_rest = math.log(phi), math.log(rest)
    up = _log_add(log_phi + _upper_tail(-gap)[0], log_rest + _upper_tail(u)[0])
    down = _log_add(log_phi + _upper_tail(gap)[0], log_rest + _upper_tail(-u)[0])
    guilty, innocent = log_phi - 0.5 * gap * gap, log_rest - 0.5 * u * u
    density = _log_add(guilty, innocent)
    turn = math.exp(guilty - density) * gap - math.exp(innocent - density) * u
    return up - down, -_DENSITY * math.exp(density - up - down), math.exp(up) - math.exp(down), turn


# Beta form ---------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def _tail_length(a: Any, b: Any, u: Any, sign: Any) -> Any:
    """Distance from u over which the log density of the logit risk falls by ``_DROP``.

    The fall is convex in the distance, so that Newton's steps from above do not overshoot.
    """
    start = a * log_expit(u) + b * log_expit(-u)
    rate = b if sign > 0.0 else a
    length = (_DROP + abs(start) + 2.0) / rate + abs(u) + 2.0
    for _ in range(60):
        v = u + sign * length
        fall = start - a * log_expit(v) - b * log_expit(-v)
        p = math.exp(log_expit(v))
        slope = -sign * (a * (1.0 - p) - b * p)
        step = (fall - _DROP) / slope
        length -= step
        if abs(step) < 1e-3 * length:
            break
    return length


@njit(cache=True, nogil=True, error_model="numpy")
def _beta_tail(a: Any, b: Any, u: Any, sign: Any, tail: Any) -> Any:
    """Integral of the logit risk's density from u outward, relative to the density at u.

    Where ``tail`` has room it is filled, for r = 1, p and 1 - p, with the integrals of r, r log p
    and r log (1 - p). Gauss-Legendre, on panels where one would not do: near u, where exp(-|v|)
    still counts, and beyond.
    """
    length = _tail_length(a, b, u, sign)
    near = length if length <= _PANEL else min(length / 6.0, _PANEL)
    far = min(length, near + 4.0 * _PANEL)
    start = a * log_expit(u) + b * log_expit(-u)
    moments = tail.size > 0
    for j in range(tail.size):
        tail[j] = 0.0
    total = 0.0
    for panel in range(3 if length > far else (2 if far > near else 1)):
        low = 0.0 if panel == 0 else (near if panel == 1 else far)
        width = (near if panel == 0 else (far if panel == 1 else length)) - low
        for j in range(_NODES.size):
            v = u + sign * (low + 0.5 * width * (1.0 + _NODES[j]))
            small = math.exp(-abs(v))
            log_large = -math.log1p(small)
            log_p = log_large if v > 0.0 else v + log_large
            log_q = log_p - v
            w = 0.5 * width * _WEIGHTS[j] * math.exp(a * log_p + b * log_q - start)
            total += w
            if moments:
                p = (1.0 if v > 0.0 else small) / (1.0 + small)
                q = (small if v > 0.0 else 1.0) / (1.0 + small)
                for r in range(3):
                    part = w if r == 0 else (w * p if r == 1 else w * q)
                    tail[3 * r] += part
                    tail[3 * r + 1] += part * log_p
                    tail[3 * r + 2] += part * log_q
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _beta(f: Any, e: Any, u: Any, out: Any) -> Any:
    """Risk Beta(lambda phi, lambda (1 - phi)), lambda = exp e; search above expit u.

    In the logit of risk the density is log-concave with its peak at f; integrate the tail beyond
    the threshold on the side away from the peak, and take the rest by complement. ``out`` as in the
    discriminant form.
    """
    phi, rest = math.exp(log_expit(f)), math.exp(log_expit(-f))
    total = math.exp(e)
    a, b = total * phi, total * rest
    sign = 1.0 if u >= f else -1.0
    tail = np.empty(9)
    _beta_tail(a, b, u, sign, tail)
    log_t, log_rest = log_expit(u), log_expit(-u)
    constant = math.lgamma(total) - math.lgamma(a) - math.lgamma(b)
    scale = constant + a * log_t + b * log_rest
    psi = _digamma(total)
    psi_a, psi_b = _digamma(a) - psi, _digamma(b) - psi
    turn = total * phi * rest
    t, size = math.exp(log_t), math.exp(scale)
    for row in range(2):
        r = row + 1
        mass = tail[3 * r]
        da, db = tail[3 * r + 1] - mass * psi_a, tail[3 * r + 2] - mass * psi_b
        df, de = (da - db) * turn, a * da + b * db
        edge = t if row == 0 else 1.0 - t
        at = 2 + 3 * row
        if sign > 0.0:
            out[row] = scale + math.log(mass)
            out[at], out[at + 1], out[at + 2] = df / mass, de / mass, -edge / mass
        else:
            whole, whole_f = (phi, phi * rest) if row == 0 else (rest, -phi * rest)
            value = max(whole - size * mass, 1e-300)
            out[row] = math.log(value)
            out[at], out[at + 1] = (whole_f - size * df) / value, -size * de / value
            out[at + 2] = -size * edge / value
    da, db = log_t - psi_a, log_rest - psi_b
    out[8], out[9], out[10] = scale, (da - db) * turn, a * da + b * db
    out[11] = a * math.exp(log_rest) - b * t


@njit(cache=True, nogil=True, error_model="numpy")
def beta_rate(a: Any, b: Any, constant: Any, side: Any, u: Any, none: Any) -> Any:
    """As :func:`discriminant_rate`; the peak of the density of logit risk is at ``side``."""
    sign = 1.0 if u >= side else -1.0
    log_t, log_rest = log_expit(u), log_expit(-u)
    scale = constant + a * log_t + b * log_rest
    log_tail = scale + math.log(_beta_tail(a, b, u, sign, none))
    tail = min(math.exp(log_tail), 1.0 - 1e-16)
    log_other = math.log1p(-tail)
    balance = sign * (2.0 * tail - 1.0)
    turn = a * math.exp(log_rest) - b * math.exp(log_t)
    return sign * (log_tail - log_other), -math.exp(scale - log_tail - log_other), balance, turn


# Either form -------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def solve_threshold(beta: Any, f: Any, e: Any, rate: Any, start: Any) -> Any:
    """Threshold with a given logit search rate: Halley's method inside a shrinking bracket."""
    phi, rest = math.exp(log_expit(f)), math.exp(log_expit(-f))
    size = math.exp(e)
    a, b, constant, none = size * phi, size * rest, 0.0, np.empty(0)
    if beta:
        constant = math.lgamma(size) - math.lgamma(a) - math.lgamma(b)
    low, high = -1e3, 1e3
    u = start
    for _ in range(100):
        if beta:
            value, slope, balance, turn = beta_rate(a, b, constant, f, u, none)
        else:
            value, slope, balance, turn = discriminant_rate(phi, rest, size, u)
        if value > rate:
            low = u
        else:
            high = u
        step = (rate - value) / slope
        # Second derivative over the first: turn + slope * balance.
        bend = 1.0 + 0.5 * step * (turn + slope * balance)
        if bend > 0.5:
            step /= bend
        if abs(step) < _SETTLED:
            return u + step
        trial = u + max(-2.0, min(2.0, step))
        if not (low < trial < high):
            trial = 0.5 * (max(low, u - 4.0) + min(high, u + 4.0))
        u = trial
    return u


@njit(cache=True, nogil=True, error_model="numpy")
def signal_law(beta: Any, f: Any, e: Any, u: Any, out: Any) -> Any:
    if beta:
        _beta(f, e, u, out)
    else:
        _discriminant(f, e, u, out)
