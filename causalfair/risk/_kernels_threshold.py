"""Compiled log posterior of the threshold test, with its gradient.

A cell is a group in a place. Its parameters: f the logit share of guilt, e the log of the signal
(separation or concentration), u the threshold (on the signal's scale, or its logit). Coordinates,
in this order: guilt, signal, location and log spread of each group; where they are learnt, the
standard deviations of the places' effects on guilt and signal, which run through zero, since their
sign does not matter; guilt and signal of each region; then for each place its guilt, its signal and
the search rates of its cells.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from causalfair.risk._kernels_signal import (
    beta_rate,
    discriminant_rate,
    log_expit,
    signal_law,
    solve_threshold,
)

# A cell -------------------------------------------------------------------------------------------


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
# the effects of places and regions on guilt and signal. ``n_scales``: 2 where those of places are
# learnt, which are then the scales of their half-normal priors, or 0. ``held`` (n_places + 1, 2):
# how far the coordinate of each place's effect is the effect itself, and the values of the standard
# deviations at which coordinates are in units of them; see _stretch.


@njit(cache=True, nogil=True, error_model="numpy")
def _place_sds(x: Any, n_groups: Any, n_scales: Any, prior: Any) -> Any:
    """Standard deviations of the places' effects on guilt and on the signal."""
    if n_scales == 0:
        return prior[7], prior[8]
    return prior[7] * x[4 * n_groups], prior[8] * x[4 * n_groups + 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _stretch(x: Any, n_groups: Any, n_scales: Any, held: Any, d: Any, effect: Any) -> Any:
    """Ratio of an effect in units of its standard deviation to its coordinate: (s0 / s)^held.

    With ``held`` 1 the coordinate is the effect itself, as suits one that the data know well, with
    0 it is standard normal beforehand.
    """
    h = held[d, effect]
    if n_scales == 0 or h == 0.0:
        return 1.0
    return (held[held.shape[0] - 1, effect] / x[4 * n_groups + effect]) ** h


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_parameters(
    x: Any,
    n_groups: Any,
    n_scales: Any,
    held: Any,
    first: Any,
    group: Any,
    region: Any,
    prior: Any,
    scale: Any,
    cells: Any,
) -> Any:
    """Fill f, e and the logit search rate of every cell: (n, 3)."""
    n_places = first.size - 1
    at, common = x.size - 2 * n_places - group.size, 4 * n_groups + n_scales
    n_regions = (at - common) // 2
    place_sd, signal_sd = _place_sds(x, n_groups, n_scales, prior)
    for d in range(n_places):
        by_place = place_sd * _stretch(x, n_groups, n_scales, held, d, 0) * x[at]
        by_signal = signal_sd * _stretch(x, n_groups, n_scales, held, d, 1) * x[at + 1]
        if n_regions > 0:
            by_place += prior[9] * x[common + region[d]]
            by_signal += prior[10] * x[common + n_regions + region[d]]
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
    log_stay = log_expit(-rate)
    log_search = rate + log_stay
    search = math.exp(log_search)
    signal_law(beta, f, e, u, out)
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
    n_scales: Any,
    held: Any,
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
    start, common = x.size - 2 * n_places - n, 4 * n_groups + n_scales
    n_regions = (start - common) // 2
    gradient, cells = np.zeros(x.size), np.empty((n, 3))
    out, slopes = np.empty(12), np.empty(3)
    for k in range(n_scales):
        # Held coordinates are for one sign of the standard deviation.
        if held[:n_places, k].max() > 0.0 and not x[4 * n_groups + k] > 0.0:
            return -math.inf, gradient
    threshold_parameters(x, n_groups, n_scales, held, first, group, region, prior, scale, cells)
    # Coordinates are standard normal a priori, but log spreads and search rates.
    value, log_scale = 0.0, math.log(prior[6])
    for j in range(start):
        if 3 * n_groups <= j < 4 * n_groups:
            square = math.exp(2.0 * x[j])
            value += x[j] - 0.5 * square
            gradient[j] = 1.0 - square
        else:
            value -= 0.5 * x[j] * x[j]
            gradient[j] = -x[j]
    mean, spread = np.empty(n_groups), np.empty(n_groups)
    for g in range(n_groups):
        mean[g] = prior[4] + prior[5] * x[2 * n_groups + g]
        spread[g] = prior[6] * math.exp(x[3 * n_groups + g])
    at = start
    place_sd, signal_sd = _place_sds(x, n_groups, n_scales, prior)
    for d in range(n_places):
        place, by_f, by_e = at, 0.0, 0.0
        along_f = _stretch(x, n_groups, n_scales, held, d, 0)
        along_e = _stretch(x, n_groups, n_scales, held, d, 1)
        unit_f, unit_e = along_f * x[at], along_e * x[at + 1]
        value += math.log(along_f * along_e) - 0.5 * (unit_f * unit_f + unit_e * unit_e)
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
        gradient[place] = along_f * (place_sd * by_f - unit_f)
        gradient[place + 1] = along_e * (signal_sd * by_e - unit_e)
        if n_scales > 0:
            for k in range(2):
                h, unit, by = held[d, k], (unit_e if k else unit_f), (by_e if k else by_f)
                at_scale = 4 * n_groups + k
                gradient[at_scale] += (1.0 - h) * prior[7 + k] * unit * by
                if h > 0.0:
                    gradient[at_scale] += h * (unit * unit - 1.0) / x[at_scale]
        if n_regions > 0:
            gradient[common + region[d]] += prior[9] * by_f
            gradient[common + n_regions + region[d]] += prior[10] * by_e
    return value, gradient


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_solutions(
    x: Any,
    beta: Any,
    n_groups: Any,
    n_scales: Any,
    held: Any,
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
    threshold_parameters(x, n_groups, n_scales, held, first, group, region, prior, scale, cells)
    for i in range(group.size):
        f, e, rate = cells[i, 0], cells[i, 1], cells[i, 2]
        u = solve_threshold(beta, f, e, rate, _anchored(anchor[i], f, e, rate))
        signal_law(beta, f, e, u, out)
        _slopes(out, log_expit(rate), log_expit(-rate), slopes)
        found[i, 0], found[i, 1], found[i, 2], found[i, 3] = u, f, e, rate
        found[i, 4:7] = slopes
        found[i, 7] = out[0] - out[1]
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_masses(beta: Any, f: Any, e: Any, u: Any) -> Any:
    """Logs of P(search and hit) and P(search and miss), and the logit search rate: (n, 3)."""
    masses, out, none = np.empty((f.size, 3)), np.empty(12), np.empty(0)
    for i in range(f.size):
        phi, rest = math.exp(log_expit(f[i])), math.exp(log_expit(-f[i]))
        size = math.exp(e[i])
        if beta:
            a, b = size * phi, size * rest
            constant = math.lgamma(size) - math.lgamma(a) - math.lgamma(b)
            masses[i, 2] = beta_rate(a, b, constant, f[i], u[i], none)[0]
        else:
            masses[i, 2] = discriminant_rate(phi, rest, size, u[i])[0]
        signal_law(beta, f[i], e[i], u[i], out)
        masses[i, 0], masses[i, 1] = out[0], out[1]
    return masses


# Whitened coordinates ----------------------------------------------------------------------------
# x = centre + L z with L block-triangular: ``root`` (k, k) of what groups and regions share, and
# for each place its ``factor`` (m, m) and its ``gain`` (common + 2, m) from what it shares with
# all, then with its region. Places with fewer than m coordinates leave rows unused.


@njit(cache=True, nogil=True, error_model="numpy")
def _shared(shift: Any, common: Any, region: Any, width: Any, d: Any, c: Any) -> Any:
    """Position of column c of a place's gain."""
    if c < common:
        return c
    n_regions = (shift.size - common) // 2
    return common + region[d] + (n_regions if c == width - 1 else 0)


@njit(cache=True, nogil=True, error_model="numpy")
def threshold_coordinates(
    z: Any, centre: Any, root: Any, gain: Any, factor: Any, common: Any, first: Any, region: Any
) -> Any:
    """Coordinates of whitened ones; the first ``common`` of them are shared by all places."""
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
            step = shift[_shared(shift, common, region, width, d, c)]
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
    n_scales: Any,
    held: Any,
    first: Any,
    group: Any,
    region: Any,
    counts: Any,
    prior: Any,
    scale: Any,
    anchor: Any,
) -> Any:
    """Log posterior of whitened coordinates, and its gradient."""
    common = 4 * n_groups + n_scales
    x = threshold_coordinates(z, centre, root, gain, factor, common, first, region)
    value, by_x = threshold_log_posterior(
        x, beta, 1.0, n_groups, n_scales, held, first, group, region, counts, prior, scale, anchor
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
            shared[_shared(shared, common, region, width, d, c)] += total
        for j in range(m):
            for i in range(j + 1):
                gradient[at + i] += factor[d, j, i] * by_x[at + j]
        at += m
    for i in range(k):
        for j in range(k):
            gradient[j] += root[i, j] * shared[i]
    return value, gradient
