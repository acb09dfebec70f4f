"""Log posterior of decisions and outcomes, the unobservable summed out; value and gradient.

A row has risk score ``r = a + Z`` and decision score ``t = alpha r + d``, where each decision maker
may have an alpha of their own. Nothing here raises: a sampler calls it from another thread.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from causalfair.risk._kernels_cells import MAX_SCORE, quadrature_cell, uniform_cell

KAPPA = (16 * math.sqrt(3) / (15 * math.pi)) ** 2
MAX_SHIFT = 350.0
MIN_SIGMA, MAX_SIGMA = 1e-4, 54.0
MAX_LOG_TAU = 30.0
ALPHA_LOW, ALPHA_HIGH = math.exp(-12.0), math.exp(5.0)
TINY = 1e-300


@njit(cache=True, nogil=True, error_model="numpy")
def rows_uniform(
    a: Any, d: Any, code: Any, weight: Any, sigma: Any, grad_a: Any, grad_d: Any
) -> Any:
    """Log-likelihood of rows for Z uniform on [0, sigma] and alpha = 1; derivative in sigma.

    Writes the derivatives in ``a`` (``d`` fixed) and in ``d``.
    """
    es, em, q = math.exp(sigma), math.expm1(sigma), -math.expm1(-sigma)
    log_sigma = math.log(sigma)
    value = slope = 0.0
    for i in range(a.size):
        if weight[i] == 0.0 or code[i] == 8:
            grad_a[i] = 0.0
            grad_d[i] = 0.0
            continue
        ai = min(max(a[i], -MAX_SCORE), MAX_SCORE)
        bi = ai + min(max(d[i], -MAX_SCORE), MAX_SCORE)
        j, ja, jb, js = uniform_cell(code[i], ai, bi, sigma, es, em, q)
        j = max(j, TINY)
        scaled = weight[i] / j
        value += weight[i] * (math.log(j) - log_sigma)
        grad_a[i] = scaled * (ja + jb)
        grad_d[i] = scaled * jb
        slope += scaled * js - weight[i] / sigma
    return value, slope


@njit(cache=True, nogil=True, error_model="numpy")
def _node_odds(scale: Any, x: Any) -> Any:
    out = np.empty(x.size)
    for k in range(x.size):
        out[k] = math.exp(min(max(scale * x[k], -MAX_SHIFT), MAX_SHIFT))
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _decision_odds(alphas: Any, sigma: Any, x: Any) -> Any:
    out = np.empty((alphas.size, x.size))
    for j in range(alphas.size):
        out[j] = _node_odds(alphas[j] * sigma, x)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _maker_alphas(alpha: Any, delta: Any, n_columns: Any) -> Any:
    """Weight of risk of each decision maker: deviations beyond the columns of W are its logs."""
    if delta.size == n_columns:
        return np.full(1, alpha)
    return alpha * np.exp(delta[n_columns:])


@njit(cache=True, nogil=True, error_model="numpy")
def rows_quadrature(
    a: Any,
    d: Any,
    maker: Any,
    code: Any,
    weight: Any,
    alphas: Any,
    sigma: Any,
    x: Any,
    w: Any,
    grad_a: Any,
    grad_d: Any,
    grad_alphas: Any,
) -> Any:
    """Log-likelihood of rows for Z = sigma x with weights w; derivative in sigma.

    ``alphas`` holds the weight of risk of each decision maker, or one for all; their derivatives
    are written to ``grad_alphas``.
    """
    outcome, decisions = _node_odds(sigma, x), _decision_odds(alphas, sigma, x)
    value = slope_sigma = 0.0
    for j in range(alphas.size):
        grad_alphas[j] = 0.0
    for i in range(a.size):
        if weight[i] == 0.0 or code[i] == 8:
            grad_a[i] = 0.0
            grad_d[i] = 0.0
            continue
        j = maker[i] if alphas.size > 1 else 0
        alpha = alphas[j]
        t = alpha * a[i] + d[i]
        p, r0, t0, r1, t1 = quadrature_cell(code[i], a[i], t, outcome, decisions[j], x, w)
        p = max(p, TINY)
        scaled = weight[i] / p
        value += weight[i] * math.log(p)
        grad_a[i] = scaled * (r0 + alpha * t0)
        grad_d[i] = scaled * t0
        slope_sigma += scaled * (r1 + alpha * t1)
        grad_alphas[j] += scaled * (a[i] * t0 + sigma * t1)
    return value, slope_sigma


@njit(cache=True, nogil=True, error_model="numpy")
def prevalence_term(
    a: Any, group: Any, weight: Any, sigma: Any, value: Any, sd: Any, x: Any, w: Any, grad_a: Any
) -> Any:
    """Normal log density of the imposed prevalences at the mean risks; derivative in sigma.

    Adds the derivatives in ``a`` to ``grad_a``.
    """
    es, em, q = math.exp(sigma), math.expm1(sigma), -math.expm1(-sigma)
    odds = _node_odds(sigma, x)
    n_groups = value.size
    mean, mean_s, total = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
    slope = np.zeros(a.size)
    for i in range(a.size):
        g = group[i]
        if g < 0:
            continue
        if x.size == 0:
            ai = min(max(a[i], -MAX_SCORE), MAX_SCORE)
            j, ja, _, js = uniform_cell(4, ai, ai, sigma, es, em, q)
            p, slope[i], ps = j / sigma, ja / sigma, (js - j / sigma) / sigma
        else:
            p, slope[i], _, ps, _ = quadrature_cell(4, a[i], 0.0, odds, odds, x, w)
        mean[g] += weight[i] * p
        mean_s[g] += weight[i] * ps
        total[g] += weight[i]
    density = d_sigma = 0.0
    for g in range(n_groups):
        z = (mean[g] / total[g] - value[g]) / sd[g]
        density -= 0.5 * z * z
        mean[g] = -z / (sd[g] * total[g])
        d_sigma += mean[g] * mean_s[g]
    for i in range(a.size):
        if group[i] >= 0:
            grad_a[i] += weight[i] * mean[group[i]] * slope[i]
    return density, d_sigma


@njit(cache=True, nogil=True, error_model="numpy")
def natural(
    theta: Any,
    n_features: Any,
    link: Any,
    pool_beta: Any,
    pool_delta: Any,
    held_beta: Any,
    held_delta: Any,
    alpha0: Any,
    sigma0: Any,
    mean_z: Any,
    var_z: Any,
) -> Any:
    """Risk and deviation coefficients, alpha, sigma and the pooling scales of the coordinates.

    ``beta = c gamma - E[Z] e_0`` and ``delta = c_T omega - alpha c gamma_link``: gamma and omega
    are about the marginal logit coefficients of the outcome and of the decision. Where sigma is
    inferred its coordinate s runs over the whole line, ``sigma = sqrt(s^2 + 1e-8)``: the likelihood
    is even in sigma once Z is centred, so the posterior is smooth through zero. A pooled
    coefficient is its coordinate times ``tau^(1 - held)``: with ``held = 1`` the coordinate is the
    coefficient, as suits one the data know well, with 0 it is standard normal beforehand.
    """
    f = link.size
    position = n_features + f
    sigma, alpha = sigma0, alpha0
    if sigma0 < 0:
        sigma = math.sqrt(theta[position] ** 2 + MIN_SIGMA**2)
        position += 1
    if alpha0 < 0:
        alpha = math.exp(theta[position])
        position += 1
    c = math.sqrt(1.0 + KAPPA * var_z * sigma * sigma)
    c_t = math.sqrt(1.0 + KAPPA * var_z * alpha * alpha * sigma * sigma)
    beta, delta = np.empty(n_features), np.empty(f)
    for j in range(n_features):
        k = pool_beta[j]
        log_tau = 0.0 if k < 0 else theta[position + k]
        beta[j] = theta[j] * (c if k < 0 else math.exp((1.0 - held_beta[j]) * log_tau))
    for j in range(f):
        k = pool_delta[j]
        log_tau = 0.0 if k < 0 else theta[position + k]
        stretch = c_t if k < 0 else math.exp((1.0 - held_delta[j]) * log_tau)
        delta[j] = theta[n_features + j] * stretch
        if link[j] >= 0:
            delta[j] -= alpha * beta[link[j]]
    beta[0] -= mean_z * sigma
    return beta, delta, alpha, sigma, c, c_t, position


@njit(cache=True, nogil=True, error_model="numpy")
def _scores(X: Any, beta: Any) -> Any:
    out = np.zeros(X.shape[0])
    for i in range(X.shape[0]):
        total = 0.0
        for j in range(X.shape[1]):
            total += X[i, j] * beta[j]
        out[i] = total
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _back(X: Any, g: Any) -> Any:
    out = np.zeros(X.shape[1])
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            out[j] += g[i] * X[i, j]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _normal_priors(coef: Any, grad: Any, sd: Any, pool: Any) -> Any:
    """Normal log priors of the coefficients that are not pooled, and how many they are."""
    total, count = 0.0, 0
    for j in range(coef.size):
        if pool[j] < 0:
            z = coef[j] / sd[j]
            total -= 0.5 * z * z + math.log(sd[j])
            grad[j] -= z / sd[j]
            count += 1
    return total, count


@njit(cache=True, nogil=True, error_model="numpy")
def _pooled(coordinate: Any, coef: Any, g_coef: Any, log_tau: Any, held: Any, prior: Any) -> Any:
    """Log prior of a pooled coefficient; derivatives of the sum in its coordinate and log tau."""
    slope = math.exp((1.0 - held) * log_tau) * g_coef
    by_tau = (1.0 - held) * g_coef * coef
    if not prior:
        return 0.0, slope, by_tau
    shrink = math.exp(-held * log_tau)
    r = coordinate * shrink
    return -0.5 * r * r - held * log_tau, slope - r * shrink, by_tau + held * (r * r - 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def log_posterior(
    theta: Any,
    X: Any,
    W: Any,
    maker: Any,
    code: Any,
    weight: Any,
    prev_group: Any,
    prev_weight: Any,
    prev_value: Any,
    prev_sd: Any,
    link: Any,
    x: Any,
    w: Any,
    sd_beta: Any,
    pool_beta: Any,
    sd_delta: Any,
    pool_delta: Any,
    held_beta: Any,
    held_delta: Any,
    tau_scale: Any,
    options: Any,
) -> Any:
    """Log posterior in the sampling coordinates, and its gradient.

    ``options`` = (alpha, sigma, E[Z]/sigma, Var[Z]/sigma^2, scale of alpha, scale of sigma, prior):
    a negative alpha or sigma is inferred; ``prior = 0`` leaves out priors and the Jacobian.
    """
    n_features, f, n_tau = X.shape[1], link.size, tau_scale.size
    alpha0, sigma0, mean_z, var_z = options[0], options[1], options[2], options[3]
    grad = np.zeros(theta.size)
    for k in range(theta.size):
        if not math.isfinite(theta[k]):
            return -math.inf, grad
    beta, delta, alpha, sigma, c, c_t, first_tau = natural(
        theta, n_features, link, pool_beta, pool_delta, held_beta, held_delta, alpha0, sigma0,
        mean_z, var_z,
    )  # fmt: skip
    log_tau = theta[first_tau:]
    outside = sigma0 < 0 and sigma > MAX_SIGMA
    alphas = _maker_alphas(alpha, delta, W.shape[1])
    if alpha0 < 0 or f > W.shape[1]:
        for j in range(alphas.size):
            outside = outside or not (ALPHA_LOW < alphas[j] < ALPHA_HIGH)
    for k in range(n_tau):
        outside = outside or abs(log_tau[k]) > MAX_LOG_TAU
    if outside:
        return -math.inf, grad
    a, d = _scores(X, beta), _scores(W, delta)
    grad_a, grad_d = np.empty(a.size), np.empty(a.size)
    g_alphas = np.zeros(alphas.size)
    if x.size == 0:
        value, d_sigma = rows_uniform(a, d, code, weight, sigma, grad_a, grad_d)
    else:
        value, d_sigma = rows_quadrature(
            a, d, maker, code, weight, alphas, sigma, x, w, grad_a, grad_d, g_alphas
        )
    g_alphas *= alphas
    d_alpha = g_alphas.sum() / alpha
    if prev_value.size:
        density, slope = prevalence_term(
            a, prev_group, prev_weight, sigma, prev_value, prev_sd, x, w, grad_a
        )
        value += density
        d_sigma += slope
    g_beta, g_delta = _back(X, grad_a), np.empty(f)
    g_delta[: W.shape[1]] = _back(W, grad_d)
    if f > W.shape[1]:
        g_delta[W.shape[1] :] = g_alphas
    prior = options[6] > 0
    n_c = n_ct = 0
    if prior:
        density, n_c = _normal_priors(beta, g_beta, sd_beta, pool_beta)
        value += density
        density, n_ct = _normal_priors(delta, g_delta, sd_delta, pool_delta)
        value += density + n_c * math.log(c) + n_ct * math.log(c_t)
    # Chain rule into (gamma, omega, s, log alpha, log scales).
    linked = along_beta = along_delta = 0.0
    for j in range(n_features):
        k = pool_beta[j]
        if k < 0:
            grad[j] += c * g_beta[j]
            along_beta += g_beta[j] * theta[j]
        else:
            density, slope, by_tau = _pooled(
                theta[j], beta[j], g_beta[j], log_tau[k], held_beta[j], prior
            )
            value += density
            grad[j] += slope
            grad[first_tau + k] += by_tau
    for j in range(f):
        k, coordinate = pool_delta[j], theta[n_features + j]
        if k < 0:
            grad[n_features + j] = c_t * g_delta[j]
            along_delta += g_delta[j] * coordinate
        else:
            density, grad[n_features + j], by_tau = _pooled(
                coordinate, delta[j], g_delta[j], log_tau[k], held_delta[j], prior
            )
            value += density
            grad[first_tau + k] += by_tau
        if link[j] >= 0:
            grad[link[j]] -= alpha * c * g_delta[j]
            linked += g_delta[j] * theta[link[j]]
    if prior:
        for k in range(n_tau):
            z = math.exp(log_tau[k]) / tau_scale[k]
            value += log_tau[k] - 0.5 * z * z
            grad[first_tau + k] += 1.0 - z * z
    slope_c = KAPPA * var_z * sigma / c
    slope_ct = KAPPA * var_z * alpha * alpha * sigma / c_t
    position = n_features + f
    if sigma0 < 0:
        total = d_sigma + slope_c * (along_beta - alpha * linked) + slope_ct * along_delta
        total -= mean_z * g_beta[0]
        if prior:
            value -= 0.5 * (sigma / options[5]) ** 2
            total += n_c * slope_c / c + n_ct * slope_ct / c_t - sigma / options[5] ** 2
        grad[position] = total * theta[position] / sigma
        position += 1
    if alpha0 < 0:
        by_alpha = KAPPA * var_z * alpha * sigma * sigma / c_t
        total = d_alpha + by_alpha * along_delta - c * linked
        if prior:
            value += math.log(alpha) - 0.5 * (alpha / options[4]) ** 2
            total += n_ct * by_alpha / c_t + 1.0 / alpha - alpha / options[4] ** 2
        grad[position] = alpha * total
    if not math.isfinite(value):
        return -math.inf, np.zeros(theta.size)
    return value, grad


@njit(cache=True, nogil=True, error_model="numpy")
def probabilities(
    codes: Any, X: Any, W: Any, maker: Any, beta: Any, delta: Any, alpha: Any, sigma: Any, x: Any,
    w: Any,
) -> Any:  # fmt: skip
    """Probability of some codes for each draw and row: (len(codes), n_draws, n_rows)."""
    n_draws, n = beta.shape[0], X.shape[0]
    out = np.empty((codes.size, n_draws, n))
    for b in range(n_draws):
        s = sigma[b]
        es, em, q = math.exp(s), math.expm1(s), -math.expm1(-s)
        alphas = _maker_alphas(alpha[b], delta[b], W.shape[1])
        outcome, decisions = _node_odds(s, x), _decision_odds(alphas, s, x)
        for i in range(n):
            a = d = 0.0
            maker_i = maker[i] if alphas.size > 1 else 0
            for j in range(X.shape[1]):
                a += X[i, j] * beta[b, j]
            for j in range(W.shape[1]):
                d += W[i, j] * delta[b, j]
            for k in range(codes.size):
                if x.size == 0:
                    ai = min(max(a, -MAX_SCORE), MAX_SCORE)
                    bi = ai + min(max(d, -MAX_SCORE), MAX_SCORE)
                    out[k, b, i] = uniform_cell(codes[k], ai, bi, s, es, em, q)[0] / s
                else:
                    t = alphas[maker_i] * a + d
                    out[k, b, i] = quadrature_cell(
                        codes[k], a, t, outcome, decisions[maker_i], x, w
                    )[0]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def whitened_log_posterior(
    z: Any,
    centre: Any,
    factor: Any,
    X: Any,
    W: Any,
    maker: Any,
    code: Any,
    weight: Any,
    prev_group: Any,
    prev_weight: Any,
    prev_value: Any,
    prev_sd: Any,
    link: Any,
    x: Any,
    w: Any,
    sd_beta: Any,
    pool_beta: Any,
    sd_delta: Any,
    pool_delta: Any,
    held_beta: Any,
    held_delta: Any,
    tau_scale: Any,
    options: Any,
) -> Any:
    """Log posterior at ``centre + factor z``, and its gradient in z."""
    theta = centre.copy()
    for j in range(z.size):
        for i in range(z.size):
            theta[i] += factor[i, j] * z[j]
    value, gradient = log_posterior(
        theta, X, W, maker, code, weight, prev_group, prev_weight, prev_value, prev_sd, link, x, w,
        sd_beta, pool_beta, sd_delta, pool_delta, held_beta, held_delta, tau_scale, options,
    )  # fmt: skip
    return value, _back(factor, gradient)


@njit(nogil=True, error_model="numpy")
def whitened_for_graphs(*inputs: Any) -> Any:
    """:func:`whitened_log_posterior` with the scalar as an array, as computational graphs want."""
    value, gradient = whitened_log_posterior(*inputs)
    return np.asarray(value), gradient
