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


# Threshold tests ---------------------------------------------------------------------------------
# A cell is a group in a place: ``stops`` people, ``searches`` of them searched, ``hits`` found. Its
# parameters: f the logit share of guilt, e the log of the signal (separation or concentration), u
# the threshold (on the signal's scale, or its logit). Masses are logs of P(search and hit),
# P(search and miss) and P(no search).

_NODES24, _WEIGHTS24 = np.polynomial.legendre.leggauss(24)


@njit(cache=True, nogil=True, error_model="numpy")
def _log_expit(x: Any) -> Any:
    return -math.log1p(math.exp(-x)) if x > 0.0 else x - math.log1p(math.exp(x))


@njit(cache=True, nogil=True, error_model="numpy")
def _log_add(x: Any, y: Any) -> Any:
    top = max(x, y)
    return top + math.log1p(math.exp(min(x, y) - top))


@njit(cache=True, nogil=True, error_model="numpy")
def _ratio(x: Any) -> Any:
    """phi(x) / Phi(x)."""
    return math.exp(-0.5 * x * x - 0.5 * math.log(_TWO_PI) - _log_ndtr(x))


@njit(cache=True, nogil=True, error_model="numpy")
def _digamma(x: Any) -> Any:
    total = 0.0
    while x < 8.0:
        total -= 1.0 / x
        x += 1.0
    v = 1.0 / (x * x)
    series = v * (1 / 12 - v * (1 / 120 - v * (1 / 252 - v * (1 / 240 - v * (1 / 132)))))
    return total + math.log(x) - 0.5 / x - series


@njit(cache=True, nogil=True, error_model="numpy")
def _discriminant(f: Any, e: Any, u: Any, out: Any) -> Any:
    """Signals N(0, 1) of the innocent and N(exp e, 1) of the guilty; search above u."""
    delta = math.exp(e)
    log_phi, log_not = _log_expit(f), _log_expit(-f)
    phi = math.exp(log_phi)
    hit = log_phi + _log_ndtr(delta - u)
    miss = log_not + _log_ndtr(-u)
    guilty, innocent = log_phi + _log_ndtr(u - delta), log_not + _log_ndtr(u)
    stay = _log_add(guilty, innocent)
    share = math.exp(guilty - stay)
    up, down = _ratio(delta - u), _ratio(u - delta)
    out[0], out[1], out[2] = hit, miss, stay
    out[3], out[4], out[5] = 1.0 - phi, delta * up, -up
    out[6], out[7], out[8] = -phi, 0.0, -_ratio(-u)
    out[9] = share * (1.0 - phi) - (1.0 - share) * phi
    out[10] = -share * delta * down
    out[11] = share * down + (1.0 - share) * _ratio(u)


@njit(cache=True, nogil=True, error_model="numpy")
def _tail_length(a: Any, b: Any, u: Any, sign: Any, drop: Any) -> Any:
    """Distance from u over which the log density of the logit risk falls by ``drop``.

    The fall is convex in the distance, so that Newton's steps from above do not overshoot.
    """
    start = a * _log_expit(u) + b * _log_expit(-u)
    rate = b if sign > 0.0 else a
    length = (drop + abs(start) + 2.0) / rate + abs(u) + 2.0
    for _ in range(60):
        v = u + sign * length
        fall = start - a * _log_expit(v) - b * _log_expit(-v)
        p = math.exp(_log_expit(v))
        slope = -sign * (a * (1.0 - p) - b * p)
        step = (fall - drop) / slope
        length -= step
        if abs(step) < 1e-3 * length:
            break
    return length


@njit(cache=True, nogil=True, error_model="numpy")
def _beta_tail(a: Any, b: Any, u: Any, sign: Any, tail: Any) -> Any:
    """Integrals of the logit risk's density from u outward, by Gauss-Legendre in two panels.

    ``tail[r]`` for r = 1, p, 1 - p: log scale first, then (mass, with log p, with log (1 - p)).
    """
    length = _tail_length(a, b, u, sign, 38.0)
    split = min(length / 6.0, 8.0)
    start = a * _log_expit(u) + b * _log_expit(-u)
    for j in range(tail.size):
        tail[j] = 0.0
    for panel in range(2):
        low, width = (0.0, split) if panel == 0 else (split, length - split)
        for j in range(_NODES24.size):
            v = u + sign * (low + 0.5 * width * (1.0 + _NODES24[j]))
            small = math.exp(-abs(v))
            large_p = v > 0.0
            near = math.log1p(small)
            log_p = -near if large_p else v - near
            log_q = log_p - v
            p = 1.0 / (1.0 + small) if large_p else small / (1.0 + small)
            q = small / (1.0 + small) if large_p else 1.0 / (1.0 + small)
            w = 0.5 * width * _WEIGHTS24[j] * math.exp(a * log_p + b * log_q - start)
            for r in range(3):
                part = w if r == 0 else (w * p if r == 1 else w * q)
                tail[3 * r] += part
                tail[3 * r + 1] += part * log_p
                tail[3 * r + 2] += part * log_q
    constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return start + constant


@njit(cache=True, nogil=True, error_model="numpy")
def _beta(f: Any, e: Any, u: Any, out: Any) -> Any:
    """Risk Beta(lambda phi, lambda (1 - phi)), lambda = exp e; search above expit u.

    In the logit of risk the density is log-concave with its peak at f; integrate the tail beyond
    the threshold on the side away from the peak, and take the rest by complement.
    """
    phi, rest = math.exp(_log_expit(f)), math.exp(_log_expit(-f))
    total = math.exp(e)
    a, b = total * phi, total * rest
    sign = 1.0 if u >= f else -1.0
    tail = np.empty(9)
    scale = _beta_tail(a, b, u, sign, tail)
    psi = _digamma(total)
    psi_a, psi_b = _digamma(a) - psi, _digamma(b) - psi
    p = math.exp(_log_expit(u))
    size = math.exp(scale)
    stay_row = 2
    for r in range(3):
        mass = tail[3 * r]
        da = tail[3 * r + 1] - mass * psi_a
        db = tail[3 * r + 2] - mass * psi_b
        df = (da - db) * total * phi * rest
        de = a * da + b * db
        # In the logit the density at the edge is exp(scale) itself.
        du = -sign * (1.0 if r == 0 else (p if r == 1 else 1.0 - p))
        row = stay_row if r == 0 else r - 1
        outside = sign > 0.0 if r == 0 else sign < 0.0
        if not outside:
            out[row] = scale + math.log(mass)
            out[3 + 3 * row], out[4 + 3 * row], out[5 + 3 * row] = df / mass, de / mass, du / mass
            continue
        whole = 1.0 if r == 0 else (phi if r == 1 else rest)
        turn = 0.0 if r == 0 else (phi * rest if r == 1 else -phi * rest)
        value = max(whole - size * mass, 1e-300)
        out[row] = math.log(value)
        out[3 + 3 * row] = (turn - size * df) / value
        out[4 + 3 * row] = -size * de / value
        out[5 + 3 * row] = -size * du / value


@njit(cache=True, nogil=True, error_model="numpy")
def _edge(beta: Any, f: Any, e: Any, u: Any, edge: Any) -> Any:
    """Log density of the signal at the threshold, with its derivatives in f, e and u."""
    phi, rest = math.exp(_log_expit(f)), math.exp(_log_expit(-f))
    if beta:
        total = math.exp(e)
        a, b = total * phi, total * rest
        log_t, log_rest = _log_expit(u), _log_expit(-u)
        psi = _digamma(total)
        da, db = log_t - _digamma(a) + psi, log_rest - _digamma(b) + psi
        constant = math.lgamma(total) - math.lgamma(a) - math.lgamma(b)
        edge[0] = constant + a * log_t + b * log_rest
        edge[1] = (da - db) * total * phi * rest
        edge[2] = a * da + b * db
        edge[3] = a * math.exp(log_rest) - b * math.exp(log_t)
        return
    delta = math.exp(e)
    gap = delta - u
    guilty = _log_expit(f) - 0.5 * gap * gap
    innocent = _log_expit(-f) - 0.5 * u * u
    edge[0] = _log_add(guilty, innocent) - 0.5 * math.log(_TWO_PI)
    share = math.exp(guilty - 0.5 * math.log(_TWO_PI) - edge[0])
    edge[1] = share * rest - (1.0 - share) * phi
    edge[2] = -share * gap * delta
    edge[3] = share * gap - (1.0 - share) * u


@njit(cache=True, nogil=True, error_model="numpy")
def _logit_rate(beta: Any, f: Any, e: Any, u: Any, out: Any, edge: Any) -> Any:
    """Logit of the search rate and its slope in the threshold."""
    if beta:
        _beta(f, e, u, out)
        _edge(beta, f, e, u, edge)
        log_search, log_stay = _log_add(out[0], out[1]), out[2]
        return log_search - log_stay, -math.exp(edge[0] - log_search - log_stay)
    delta, phi = math.exp(e), 1.0 / (1.0 + math.exp(-f))
    gap = delta - u
    searched = phi * _ndtr(gap) + (1.0 - phi) * _ndtr(-u)
    stays = phi * _ndtr(-gap) + (1.0 - phi) * _ndtr(u)
    if searched < 1e-200 or stays < 1e-200:
        _discriminant(f, e, u, out)
        _edge(beta, f, e, u, edge)
        log_search = _log_add(out[0], out[1])
        return log_search - out[2], -math.exp(edge[0] - log_search - out[2])
    density = phi * math.exp(-0.5 * gap * gap) + (1.0 - phi) * math.exp(-0.5 * u * u)
    return math.log(searched / stays), -density / (math.sqrt(_TWO_PI) * searched * stays)


@njit(cache=True, nogil=True, error_model="numpy")
def solve_threshold(beta: Any, f: Any, e: Any, rate: Any, start: Any, out: Any, edge: Any) -> Any:
    """Threshold with a given logit search rate: Newton's method inside a shrinking bracket."""
    low, high = -1e3, 1e3
    u = start
    for _ in range(100):
        value, slope = _logit_rate(beta, f, e, u, out, edge)
        if value > rate:
            low = u
        else:
            high = u
        step = (rate - value) / slope
        trial = u + max(-2.0, min(2.0, step))
        if not (low < trial < high):
            trial = 0.5 * (max(low, u - 4.0) + min(high, u + 4.0))
        moved = abs(trial - u)
        u = trial
        # Newton's error after a step is of the order of its square.
        if moved < 1e-7 * (1.0 + abs(u)):
            break
    return u


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_cells(
    beta: Any,
    jacobian: Any,
    f: Any,
    e: Any,
    rate: Any,
    counts: Any,
    mean: Any,
    spread: Any,
    start: Any,
    u: Any,
    gradient: Any,
) -> Any:
    """Log density of all cells in (f, e, logit search rate); fills u and the gradient (n, 3).

    ``counts`` (n, 3): hits, misses, stops without a search. Given its search rate a cell's
    threshold follows from f and e; its normal prior (``mean``, ``spread``) enters with the Jacobian
    of that map, whose density is that of the signal at the threshold; ``jacobian`` 0 leaves it out.
    """
    out, edge = np.empty(12), np.empty(4)
    total = 0.0
    for i in range(f.size):
        u[i] = solve_threshold(beta, f[i], e[i], rate[i], start[i], out, edge)
        if beta:
            _beta(f[i], e[i], u[i], out)
        else:
            _discriminant(f[i], e[i], u[i], out)
        _edge(beta, f[i], e[i], u[i], edge)
        hits, misses, stays = counts[i, 0], counts[i, 1], counts[i, 2]
        log_rate, log_stay = _log_expit(rate[i]), _log_expit(-rate[i])
        searched = math.exp(log_rate)
        share = math.exp(out[0] - _log_add(out[0], out[1]))
        # Implicit function: derivatives of u at a fixed search rate, and in the rate.
        slope = -math.exp(edge[0] - log_rate - log_stay)
        turn_f = (share * out[3] + (1.0 - share) * out[6]) / math.exp(log_stay)
        turn_e = (share * out[4] + (1.0 - share) * out[7]) / math.exp(log_stay)
        u_f, u_e, u_rate = -turn_f / slope, -turn_e / slope, 1.0 / slope
        z = (u[i] - mean[i]) / spread[i]
        total += hits * out[0] + misses * out[1] + stays * log_stay
        total += -0.5 * z * z - math.log(spread[i])
        total += jacobian * (log_rate + log_stay - edge[0])
        by_u = hits * out[5] + misses * out[8] - z / spread[i] - jacobian * edge[3]
        gradient[i, 0] = hits * out[3] + misses * out[6] - jacobian * edge[1] + by_u * u_f
        gradient[i, 1] = hits * out[4] + misses * out[7] - jacobian * edge[2] + by_u * u_e
        gradient[i, 2] = by_u * u_rate - stays * searched + jacobian * (1.0 - 2.0 * searched)
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_solutions(beta: Any, f: Any, e: Any, rate: Any, start: Any, u: Any) -> Any:
    """Thresholds with given logit search rates."""
    out, edge = np.empty(12), np.empty(4)
    for i in range(f.size):
        u[i] = solve_threshold(beta, f[i], e[i], rate[i], start[i], out, edge)


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_masses(beta: Any, f: Any, e: Any, u: Any, masses: Any) -> Any:
    """Logs of P(search and hit), P(search and miss), P(no search): (n, 3)."""
    out = np.empty(12)
    for i in range(f.size):
        if beta:
            _beta(f[i], e[i], u[i], out)
        else:
            _discriminant(f[i], e[i], u[i], out)
        for row in range(3):
            masses[i, row] = out[row]
