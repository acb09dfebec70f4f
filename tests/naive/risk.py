"""The selective-labels likelihood from its definition: one integral over the unobservable.

Everything is analytic, so a complex argument gives complex-step derivatives.
"""

from __future__ import annotations

import numpy as np

KAPPA = (16 * np.sqrt(3) / (15 * np.pi)) ** 2


def logistic(x):
    """1 / (1 + exp(-x)), also for complex x, without overflow."""
    x = np.asarray(x)
    positive = x.real >= 0
    e = np.exp(np.where(positive, -x, x))
    return np.where(positive, 1 / (1 + e), e / (1 + e))


def integrand(code, r, t):
    """Probability of a code given the scores."""
    u, v, u0, v0 = logistic(r), logistic(t), logistic(-r), logistic(-t)
    return {
        0: v0, 1: v * u0, 2: v * u, 3: u0, 4: u, 5: v, 6: v0 * u0, 7: v0 * u,
    }[int(code)]  # fmt: skip


def uniform_rule(width, per_unit=6.0):
    """Composite Gauss-Legendre nodes and weights on [0, 1] for Z = width * node."""
    panels = max(2, int(np.ceil(width * per_unit / 4)))
    x, w = np.polynomial.legendre.leggauss(20)
    edges = np.arange(panels)[:, None]
    return ((edges + (x + 1) / 2) / panels).ravel(), np.tile(w / 2, panels) / panels


def normal_rule(n_nodes=600):
    """Trapezoid on 12 standard deviations, weights proportional to the density."""
    x = np.linspace(-12, 12, n_nodes)
    w = np.exp(-0.5 * x**2)
    return x, w / w.sum()


def cell(code, a, d, alpha, sigma, rule):
    """P(code) = sum_k w_k f(a + sigma x_k, alpha (a + sigma x_k) + d)."""
    x, w = rule
    r = a + sigma * x
    return (w * integrand(code, r, alpha * r + d)).sum()


def log_posterior(theta, data, rule):
    """Log posterior in the sampling coordinates, written out term by term."""
    theta = np.asarray(theta)
    X, W, link = data["X"], data["W"], data["link"]
    n_features, f = X.shape[1], len(link)
    gamma, omega = theta[:n_features], theta[n_features : n_features + f]
    rest = list(theta[n_features + f :])
    sigma = np.sqrt(rest.pop(0) ** 2 + 1e-8) if data["sigma"] is None else data["sigma"]
    alpha = np.exp(rest.pop(0)) if data["alpha"] is None else data["alpha"]
    tau = np.exp(np.array(rest))
    variance = data["var_z"] * sigma**2
    c, c_t = np.sqrt(1 + KAPPA * variance), np.sqrt(1 + KAPPA * alpha**2 * variance)
    held, held_t = data["held_beta"], data["held_delta"]
    scale = [
        c if k < 0 else tau[k] ** (1 - h) for k, h in zip(data["pool_beta"], held, strict=True)
    ]
    beta = np.array(scale) * gamma - data["mean_z"] * sigma * (np.arange(n_features) == 0)
    delta = []
    for j in range(f):
        if data["pool_delta"][j] >= 0:
            delta.append(tau[data["pool_delta"][j]] ** (1 - held_t[j]) * omega[j])
        else:
            shift = alpha * data["mean_z"] * sigma * (link[j] == 0)
            delta.append(c_t * omega[j] - alpha * beta[link[j]] - shift)
    delta = np.array(delta)
    # Deviations beyond the columns of W are the log weights of risk of the decision makers.
    n_weights = f - W.shape[1]
    a, d = X @ beta, W @ delta[: f - n_weights]
    own = [alpha * np.exp(e) for e in delta[f - n_weights :]] or [alpha]
    alphas = [own[j if n_weights else 0] for j in data["maker"]]
    total = 0.0
    for i in range(len(X)):
        if data["code"][i] != 8 and data["weight"][i]:
            p = cell(data["code"][i], a[i], d[i], alphas[i], sigma, rule)
            total = total + data["weight"][i] * np.log(p)
    for g, (value, sd) in enumerate(zip(data["prev_value"], data["prev_sd"], strict=True)):
        inside = np.flatnonzero(data["prev_group"] == g)
        risk = np.array([cell(4, a[i], d[i], alpha, sigma, rule) for i in inside])
        share = data["prev_weight"][inside] / data["prev_weight"][inside].sum()
        total = total - 0.5 * ((share @ risk - value) / sd) ** 2
    if not data["prior"]:
        return total
    for coef, sds, pool, hold, stretch in (
        (beta, data["sd_beta"], data["pool_beta"], held, c),
        (delta, data["sd_delta"], data["pool_delta"], held_t, c_t),
    ):
        for j in range(len(coef)):
            if pool[j] >= 0:
                # Normal with sd tau, and d coefficient / d coordinate = tau^(1 - held).
                scale_j = tau[pool[j]]
                total = total - 0.5 * (coef[j] / scale_j) ** 2 - hold[j] * np.log(scale_j)
            else:
                total = total - 0.5 * (coef[j] / sds[j]) ** 2 - np.log(sds[j]) + np.log(stretch)
    for k in range(len(tau)):
        total = total - 0.5 * (tau[k] / data["tau_scale"][k]) ** 2 + np.log(tau[k])
    if data["sigma"] is None:
        total = total - 0.5 * (sigma / data["sigma_scale"]) ** 2
    if data["alpha"] is None:
        total = total - 0.5 * (alpha / data["alpha_scale"]) ** 2 + np.log(alpha)
    return total
