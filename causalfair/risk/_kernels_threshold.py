"""Compiled log posterior of the threshold test, with its gradient.

A cell is a group in a place. Its parameters: f the logit share of guilt, e the log of the signal
(separation or concentration), u the threshold (on the signal's scale, or its logit). Coordinates,
in this order: guilt, signal, location and log spread of each group; guilt and signal of each
region; then for each place its guilt, its signal and the search rates of its cells.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

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
def _log_expit(x: Any) -> Any:
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
    log_phi, log_not = _log_expit(f), _log_expit(-f)
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
def _discriminant_rate(phi: Any, rest: Any, delta: Any, u: Any) -> Any:
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
    start = a * _log_expit(u) + b * _log_expit(-u)
    rate = b if sign > 0.0 else a
    length = (_DROP + abs(start) + 2.0) / rate + abs(u) + 2.0
    for _ in range(60):
        v = u + sign * length
        fall = start - a * _log_expit(v) - b * _log_expit(-v)
        p = math.exp(_log_expit(v))
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
    start = a * _log_expit(u) + b * _log_expit(-u)
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
    phi, rest = math.exp(_log_expit(f)), math.exp(_log_expit(-f))
    total = math.exp(e)
    a, b = total * phi, total * rest
    sign = 1.0 if u >= f else -1.0
    tail = np.empty(9)
    _beta_tail(a, b, u, sign, tail)
    log_t, log_rest = _log_expit(u), _log_expit(-u)
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
def _beta_rate(a: Any, b: Any, constant: Any, side: Any, u: Any, none: Any) -> Any:
    """As :func:`_discriminant_rate`; the peak of the density of logit risk is at ``side``."""
    sign = 1.0 if u >= side else -1.0
    log_t, log_rest = _log_expit(u), _log_expit(-u)
    scale = constant + a * log_t + b * log_rest
    log_tail = scale + math.log(_beta_tail(a, b, u, sign, none))
    tail = min(math.exp(log_tail), 1.0 - 1e-16)
    log_other = math.log1p(-tail)
    balance = sign * (2.0 * tail - 1.0)
    turn = a * math.exp(log_rest) - b * math.exp(log_t)
    return sign * (log_tail - log_other), -math.exp(scale - log_tail - log_other), balance, turn


# A cell ------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def solve_threshold(beta: Any, f: Any, e: Any, rate: Any, start: Any) -> Any:
    """Threshold with a given logit search rate: Halley's method inside a shrinking bracket."""
    phi, rest = math.exp(_log_expit(f)), math.exp(_log_expit(-f))
    size = math.exp(e)
    a, b, constant, none = size * phi, size * rest, 0.0, np.empty(0)
    if beta:
        constant = math.lgamma(size) - math.lgamma(a) - math.lgamma(b)
    low, high = -1e3, 1e3
    u = start
    for _ in range(100):
        if beta:
            value, slope, balance, turn = _beta_rate(a, b, constant, f, u, none)
        else:
            value, slope, balance, turn = _discriminant_rate(phi, rest, size, u)
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
def _law(beta: Any, f: Any, e: Any, u: Any, out: Any) -> Any:
    if beta:
        _beta(f, e, u, out)
    else:
        _discriminant(f, e, u, out)


@njit(cache=True, nogil=True, error_model="numpy")
def _slopes(out: Any, log_search: Any, log_stay: Any, slopes: Any) -> Any:
    """Derivatives of the threshold in f and e at a fixed search rate, and in its logit."""
    # Implicit function: P(search; f, e, u) is given; its derivative in u is minus the density.
    share = math.exp(out[0] - log_search)
    per_density = math.exp(log_search - out[8])
    slopes[0] = (share * out[2] + (1.0 - share) * out[5]) * per_density
    slopes[1] = (share * out[3] + (1.0 - share) * out[6]) * per_density
    slopes[2] = -math.exp(log_stay) * per_density


@njit(cache=True, nogil=True, error_model="numpy")
def _anchored(anchor: Any, f: Any, e: Any, rate: Any) -> Any:
    """First guess of a threshold, linear around the anchor: (u, f, e, rate, slopes)."""
    shift = anchor[4] * (f - anchor[1]) + anchor[5] * (e - anchor[2])
    shift += anchor[6] * (rate - anchor[3])
    return anchor[0] + max(-3.0, min(3.0, shift))


# All cells ---------------------------------------------------------------------------------------
# ``first`` (n_places + 1,): first cell of each place. ``scale`` (n, 2): centre and unit of the
# coordinate of the logit search rate. ``anchor`` (n, 8): see threshold_solutions. ``prior``: mean
# and standard deviation of guilt, signal and location, scale of the spread, standard deviations of
# the effects of places and regions on guilt and signal.


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_parameters(
    x: Any,
    n_groups: Any,
    first: Any,
    group: Any,
    region: Any,
    prior: Any,
    scale: Any,
    cells: Any,
) -> Any:
    """Fill f, e and the logit search rate of every cell: (n, 3)."""
    n_places = first.size - 1
    at = x.size - 2 * n_places - group.size
    n_regions = (at - 4 * n_groups) // 2
    for d in range(n_places):
        by_place, by_signal = prior[7] * x[at], prior[8] * x[at + 1]
        if n_regions > 0:
            by_place += prior[9] * x[4 * n_groups + region[d]]
            by_signal += prior[10] * x[4 * n_groups + n_regions + region[d]]
        at += 2
        for i in range(first[d], first[d + 1]):
            g = group[i]
            cells[i, 0] = prior[0] + prior[1] * x[g] + by_place
            cells[i, 1] = prior[2] + prior[3] * x[n_groups + g] + by_signal
            cells[i, 2] = scale[i, 0] + scale[i, 1] * x[at]
            at += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _cell(
    beta: Any, jacobian: Any, cell: Any, count: Any, mean: Any, spread: Any, anchor: Any, out: Any,
    slopes: Any,
) -> Any:  # fmt: skip
    """Log density of a cell and its standardised threshold; the gradient is written over ``cell``.

    Given its search rate a cell's threshold follows from f and e; its normal prior (``mean``,
    ``spread``) enters with the Jacobian of that map, whose density is that of the signal at the
    threshold; ``jacobian`` 0 leaves it out.
    """
    f, e, rate = cell[0], cell[1], cell[2]
    hits, misses, stays = count[0], count[1], count[2]
    u = solve_threshold(beta, f, e, rate, _anchored(anchor, f, e, rate))
    log_stay = _log_expit(-rate)
    log_search = rate + log_stay
    search = math.exp(log_search)
    _law(beta, f, e, u, out)
    _slopes(out, log_search, log_stay, slopes)
    z = (u - mean) / spread
    value = hits * out[0] + misses * out[1] + stays * log_stay - 0.5 * z * z
    value += jacobian * (log_search + log_stay - out[8])
    by_u = hits * out[4] + misses * out[7] - z / spread - jacobian * out[11]
    cell[0] = hits * out[2] + misses * out[5] - jacobian * out[9] + by_u * slopes[0]
    cell[1] = hits * out[3] + misses * out[6] - jacobian * out[10] + by_u * slopes[1]
    cell[2] = by_u * slopes[2] - stays * search + jacobian * (1.0 - 2.0 * search)
    return value, z


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_log_posterior(
    x: Any,
    beta: Any,
    jacobian: Any,
    n_groups: Any,
    first: Any,
    group: Any,
    region: Any,
    counts: Any,
    prior: Any,
    scale: Any,
    anchor: Any,
) -> Any:
    """Log posterior and its gradient; ``counts`` (n, 3): hits, misses, stops without a search."""
    n, n_places = group.size, first.size - 1
    start = x.size - 2 * n_places - n
    n_regions = (start - 4 * n_groups) // 2
    gradient, cells = np.zeros(x.size), np.empty((n, 3))
    out, slopes = np.empty(12), np.empty(3)
    threshold_parameters(x, n_groups, first, group, region, prior, scale, cells)
    # Coordinates are standard normal a priori, but log spreads and search rates.
    value, log_scale = 0.0, math.log(prior[6])
    for j in range(start):
        gradient[j] = -x[j]
        value -= 0.5 * x[j] * x[j]
    mean, spread = np.empty(n_groups), np.empty(n_groups)
    for g in range(n_groups):
        log_spread = x[3 * n_groups + g]
        mean[g] = prior[4] + prior[5] * x[2 * n_groups + g]
        spread[g] = prior[6] * math.exp(log_spread)
        square = math.exp(2.0 * log_spread)
        value += 0.5 * log_spread * log_spread + log_spread - 0.5 * square
        gradient[3 * n_groups + g] = 1.0 - square
    at = start
    for d in range(n_places):
        place, by_f, by_e = at, 0.0, 0.0
        value -= 0.5 * (x[at] * x[at] + x[at + 1] * x[at + 1])
        at += 2
        for i in range(first[d], first[d + 1]):
            g = group[i]
            part, z = _cell(
                beta, jacobian, cells[i], counts[i], mean[g], spread[g], anchor[i], out, slopes
            )
            value += part - log_scale - x[3 * n_groups + g]
            gradient[at] = scale[i, 1] * cells[i, 2]
            gradient[g] += prior[1] * cells[i, 0]
            gradient[n_groups + g] += prior[3] * cells[i, 1]
            gradient[2 * n_groups + g] += prior[5] * z / spread[g]
            gradient[3 * n_groups + g] += z * z - 1.0
            by_f += cells[i, 0]
            by_e += cells[i, 1]
            at += 1
        gradient[place] = prior[7] * by_f - x[place]
        gradient[place + 1] = prior[8] * by_e - x[place + 1]
        if n_regions > 0:
            gradient[4 * n_groups + region[d]] += prior[9] * by_f
            gradient[4 * n_groups + n_regions + region[d]] += prior[10] * by_e
    return value, gradient


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_solutions(
    x: Any,
    beta: Any,
    n_groups: Any,
    first: Any,
    group: Any,
    region: Any,
    prior: Any,
    scale: Any,
    anchor: Any,
) -> Any:
    """Threshold, f, e, rate, slopes of the threshold in these, logit hit rate: (n, 8)."""
    cells, found = np.empty((group.size, 3)), np.empty((group.size, 8))
    out, slopes = np.empty(12), np.empty(3)
    threshold_parameters(x, n_groups, first, group, region, prior, scale, cells)
    for i in range(group.size):
        f, e, rate = cells[i, 0], cells[i, 1], cells[i, 2]
        u = solve_threshold(beta, f, e, rate, _anchored(anchor[i], f, e, rate))
        _law(beta, f, e, u, out)
        _slopes(out, _log_expit(rate), _log_expit(-rate), slopes)
        found[i, 0], found[i, 1], found[i, 2], found[i, 3] = u, f, e, rate
        found[i, 4:7] = slopes
        found[i, 7] = out[0] - out[1]
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_masses(beta: Any, f: Any, e: Any, u: Any) -> Any:
    """Logs of P(search and hit) and P(search and miss), and the logit search rate: (n, 3)."""
    masses, out, none = np.empty((f.size, 3)), np.empty(12), np.empty(0)
    for i in range(f.size):
        phi, rest = math.exp(_log_expit(f[i])), math.exp(_log_expit(-f[i]))
        size = math.exp(e[i])
        if beta:
            a, b = size * phi, size * rest
            constant = math.lgamma(size) - math.lgamma(a) - math.lgamma(b)
            masses[i, 2] = _beta_rate(a, b, constant, f[i], u[i], none)[0]
        else:
            masses[i, 2] = _discriminant_rate(phi, rest, size, u[i])[0]
        _law(beta, f[i], e[i], u[i], out)
        masses[i, 0], masses[i, 1] = out[0], out[1]
    return masses


# Whitened coordinates ----------------------------------------------------------------------------
# x = centre + L z with L block-triangular: ``root`` (k, k) of what groups and regions share, and
# for each place its ``factor`` (m, m) and its ``gain`` (4 n_groups + 2, m) from what it shares.
# Places with fewer than m coordinates leave rows unused.


@njit(cache=True, nogil=True, error_model="numpy")
def _shared(shift: Any, n_groups: Any, region: Any, width: Any, d: Any, c: Any) -> Any:
    """Position of column c of a place's gain."""
    if c < 4 * n_groups:
        return c
    n_regions = (shift.size - 4 * n_groups) // 2
    return 4 * n_groups + region[d] + (n_regions if c == width - 1 else 0)


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_coordinates(
    z: Any, centre: Any, root: Any, gain: Any, factor: Any, n_groups: Any, first: Any, region: Any
) -> Any:
    """Coordinates of whitened ones."""
    k, width = root.shape[0], gain.shape[1]
    x, shift = centre.copy(), np.zeros(k)
    for i in range(k):
        for j in range(k):
            shift[i] += root[i, j] * z[j]
        x[i] += shift[i]
    at = k
    for d in range(first.size - 1):
        m = 2 + first[d + 1] - first[d]
        for c in range(width):
            step = shift[_shared(shift, n_groups, region, width, d, c)]
            for j in range(m):
                x[at + j] += gain[d, c, j] * step
        for j in range(m):
            for i in range(j + 1):
                x[at + j] += factor[d, j, i] * z[at + i]
        at += m
    return x


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_whitened(
    z: Any,
    centre: Any,
    root: Any,
    gain: Any,
    factor: Any,
    beta: Any,
    n_groups: Any,
    first: Any,
    group: Any,
    region: Any,
    counts: Any,
    prior: Any,
    scale: Any,
    anchor: Any,
) -> Any:
    """Log posterior of whitened coordinates, and its gradient."""
    x = threshold_coordinates(z, centre, root, gain, factor, n_groups, first, region)
    value, by_x = threshold_log_posterior(
        x, beta, 1.0, n_groups, first, group, region, counts, prior, scale, anchor
    )
    k, width = root.shape[0], gain.shape[1]
    gradient, shared = np.zeros(z.size), by_x[:k].copy()
    at = k
    for d in range(first.size - 1):
        m = 2 + first[d + 1] - first[d]
        for c in range(width):
            total = 0.0
            for j in range(m):
                total += gain[d, c, j] * by_x[at + j]
            shared[_shared(shared, n_groups, region, width, d, c)] += total
        for j in range(m):
            for i in range(j + 1):
                gradient[at + i] += factor[d, j, i] * by_x[at + j]
        at += m
    for i in range(k):
        for j in range(k):
            gradient[j] += root[i, j] * shared[i]
    return value, gradient
