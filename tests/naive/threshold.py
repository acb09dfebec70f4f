"""The threshold test's log posterior from its definition, for real and for complex coordinates."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.special import erfc, loggamma

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def upper(x):
    """P(N > x)."""
    return 0.5 * erfc(x / np.sqrt(2))


def log_logistic(x):
    """Log of the logistic function; the real part decides which exponential is small."""
    up = x.real > 0
    return np.where(up, 0, x) - np.log1p(np.exp(np.where(up, -x, x)))


def log_density(a, b, v):
    """Of the logit of a Beta(a, b)."""
    constant = loggamma(a + b) - loggamma(a) - loggamma(b)
    return constant + a * log_logistic(v) + b * log_logistic(-v)


def tail(a, b, u, sign):
    """Integrals of the density of the logit of a Beta(a, b), and of p times it, from u outward."""
    far = 40 + 60 / min(a.real, b.real)
    edges = np.concatenate([np.arange(0, 40, 1.0), np.geomspace(40, far, 60)])
    mass = hit = 0.0
    for low, high in itertools.pairwise(edges):
        v = u + sign * (low + 0.5 * (high - low) * (1 + NODES))
        w = 0.5 * (high - low) * WEIGHTS * np.exp(log_density(a, b, v))
        mass, hit = mass + w.sum(), hit + (w * np.exp(log_logistic(v))).sum()
    return mass, hit


def masses(beta, f, e, u):
    """P(search and hit), P(search and miss), P(no search), density of the signal at u."""
    phi, size = logistic(f), np.exp(e)
    if not beta:
        stay = phi * upper(size - u) + (1 - phi) * upper(-u)
        bell = phi * np.exp(-0.5 * (u - size) ** 2) + (1 - phi) * np.exp(-0.5 * u**2)
        return phi * upper(u - size), (1 - phi) * upper(u), stay, bell / np.sqrt(2 * np.pi)
    a, b = size * phi + 0j, size * (1 - phi) + 0j
    search, hit = tail(a, b, u + 0j, 1.0)
    stay, _ = tail(a, b, u + 0j, -1.0)
    edge = np.exp(log_density(a, b, u + 0j))
    return hit, search - hit, stay, edge


def threshold(beta, f, e, rate, start):
    """Threshold with a logit search rate, by plain Newton steps from nearby."""
    u = start
    for _ in range(60):
        hit, miss, stay, edge = masses(beta, f, e, u)
        step = (np.log((hit + miss) / stay) - rate) * (hit + miss) * stay / edge
        u = u + step
        if abs(step) < 1e-15:
            break
    return u


def log_posterior(x, beta, cells, q, starts, held, jacobian=True):
    """Log posterior of the test's coordinates, cell by cell; ``starts`` near the thresholds."""
    r, g = len(cells.groups), len(cells.regions)
    guilt, signal, location, log_spread = x[: 4 * r].reshape(4, r)
    rest = list(x[4 * r :])
    place_guilt, place_signal = q.place_guilt, q.place_signal
    total = 0.0
    if q.learn_places:
        scales = [rest.pop(0), rest.pop(0)]
        total = -0.5 * sum(s * s for s in scales)
        place_guilt, place_signal = place_guilt * scales[0], place_signal * scales[1]
    region_guilt, region_signal, rest = rest[:g], rest[g : 2 * g], rest[2 * g :]
    total = total - 0.5 * sum(
        v * v for v in [*guilt, *signal, *location, *region_guilt, *region_signal]
    )
    total = total + sum(s - 0.5 * np.exp(2 * s) for s in log_spread)
    place = None
    for i in range(cells.n):
        j = cells.group[i]
        if cells.place[i] != place:
            place = cells.place[i]
            by_guilt, by_signal = rest.pop(0), rest.pop(0)
            sds = np.array([place_guilt, place_signal])
            # Normal with the ratio of a coordinate to a standardised effect as its scale.
            ratio = (sds / [q.place_guilt, q.place_signal] / held[-1]) ** held[place]
            by_guilt, by_signal = np.array([by_guilt, by_signal]) / ratio
            total = total - 0.5 * (by_guilt**2 + by_signal**2) - np.log(ratio).sum()
        f = q.guilt[0] + q.guilt[1] * guilt[j] + place_guilt * by_guilt
        e = q.signal[0] + q.signal[1] * signal[j] + place_signal * by_signal
        if g:
            f = f + q.region_guilt * region_guilt[cells.region[place]]
            e = e + q.region_signal * region_signal[cells.region[place]]
        stops, searches, hits = cells.stops[i], cells.searches[i], cells.hits[i]
        observed = np.log((searches + 0.5) / (stops - searches + 0.5))
        error = np.sqrt(1 / (searches + 0.5) + 1 / (stops - searches + 0.5))
        rate = observed + error * rest.pop(0)
        u = threshold(beta, f, e, rate, starts[i])
        hit, miss, stay, edge = masses(beta, f, e, u)
        spread = q.threshold_spread * np.exp(log_spread[j])
        z = (u - q.threshold[0] - q.threshold[1] * location[j]) / spread
        total = total - 0.5 * z * z - np.log(spread)
        total = total + hits * np.log(hit) + (searches - hits) * np.log(miss)
        total = total + (stops - searches) * np.log(stay)
        if jacobian:
            total = total + np.log((hit + miss) * stay / edge)
    return total
