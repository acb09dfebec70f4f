"""Obvious versions of the numerics of the selective-labels family, from their definitions."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr
from scipy.stats import norm


def bivariate_cdf(h, k, rho):
    """Phi2 as the integral of phi(u) Phi((k - rho u) / sqrt(1 - rho**2)) up to h."""
    root = np.sqrt((1 - rho) * (1 + rho))
    if root == 0.0:
        return ndtr(min(h, k)) if rho > 0 else max(0.0, ndtr(h) - ndtr(-k))

    def integrand(u):
        return norm.pdf(u) * ndtr((k - rho * u) / root)

    # Where the inner distribution function turns from 0 to 1, the integrand bends.
    bend = [(k + m * root) / rho for m in (-6, 0, 6)] if abs(rho) > 1e-3 else [0.0]
    bend = np.clip(bend, -12.0, max(min(h, 12.0), -12.0))
    edges = np.unique([-12.0, *bend, min(h, 12.0)])
    return sum(
        quad(integrand, a, b, epsabs=1e-17, epsrel=1e-13, limit=400)[0]
        for a, b in itertools.pairwise(edges)
    )


def heckman_loglik(beta_t, beta_y, sigma, correlation, XT, XY, tested, y):
    """The textbook log-likelihood, row by row."""
    total = 0.0
    for xt, xy, t, value in zip(XT, XY, tested, y, strict=True):
        if not t:
            total += log_ndtr(-(xt @ beta_t))
            continue
        e = (value - xy @ beta_y) / sigma
        u = (xt @ beta_t + correlation * e) / np.sqrt(1 - correlation**2)
        total += norm.logpdf(e) - np.log(sigma) + log_ndtr(u)
    return total


def probit_selection_loglik(beta_t, beta_y, rho, XT, XY, tested, y):
    """The probit with selection, row by row."""
    total = 0.0
    for xt, xy, t, value in zip(XT, XY, tested, y, strict=True):
        index, risk = xt @ beta_t, xy @ beta_y
        if not t:
            total += log_ndtr(-index)
        elif value:
            total += np.log(bivariate_cdf(risk, index, rho))
        else:
            total += np.log(bivariate_cdf(-risk, index, -rho))
    return total
