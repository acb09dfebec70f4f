"""Obvious twins of the invalid-instrument numerics, written from the definitions."""

from __future__ import annotations

import numpy as np


def expit(x):
    return 1.0 / (1.0 + np.exp(-x))


def unpack(theta, sizes):
    out, start = {}, 0
    for name, k in sizes.items():
        out[name] = theta[start : start + k]
        start += k
    return out


def nuisances(theta, sizes, bases, *, binary, link="identity"):
    """Nuisance values at the parameters ``theta`` (real or complex); bases hold at0 and at1."""
    t = unpack(theta, sizes)
    at = {k: (b.at0, b.at1) for k, b in bases.items()}
    out = {"pi": expit(at["instrument"][0] @ t["instrument"])}
    for z in (0, 1):
        index = at["treatment"][z] @ t["treatment"]
        out[f"lam{z}"] = expit(index) if binary else index
        lam = out[f"lam{z}"]
        out[f"V{z}"] = lam * (1 - lam) if binary else at["variance"][z] @ t["variance"]
        out[f"mu{z}"] = at["outcome"][z] @ t["outcome"]
    out["omega"] = at["confounding"][0] @ t["confounding"] if "confounding" in t else 0.0
    out["beta"] = at["effect"][0] @ t["effect"]
    if link == "tanh":
        out["beta"] = np.tanh(out["beta"])
    return out


def estimating_functions(theta, sizes, design):
    """All estimating functions, one row each: an ``(n, p)`` array, complex if theta is."""
    z, a, y, bases = design.z, design.a, design.y, design.bases
    v = nuisances(theta, sizes, bases, binary=design.binary, link=design.effect_link)
    arm = z > 0.5
    pick = lambda s: np.where(arm, v[f"{s}1"], v[f"{s}0"])  # noqa: E731
    r = a - pick("lam")
    e = y - v["beta"] * a - pick("mu")
    D = v["V1"] - v["V0"]
    b = {k: np.where(arm[:, None], x.at1, x.at0) for k, x in bases.items()}
    blocks = [b["instrument"] * (z - v["pi"])[:, None], b["treatment"] * r[:, None]]
    if not design.binary:
        blocks.append(b["variance"] * (r**2 - pick("V"))[:, None])
    blocks.append(b["outcome"] * e[:, None])
    blocks.append(b["confounding"] * (r * e - v["omega"])[:, None])
    blocks.append(b["effect"] * (D * (z - v["pi"]) * (r * e - v["omega"]))[:, None])
    return np.hstack(blocks)


def target_scores(theta, sizes, design, *, floored=None, D_floor=None, clipped=None, pi_clip=None):
    """Scores of all targets, complex if theta is; floored and clipped values stay fixed."""
    z, a, y, bases = design.z, design.a, design.y, design.bases
    v = nuisances(theta, sizes, bases, binary=design.binary, link=design.effect_link)
    arm = z > 0.5
    pick = lambda s: np.where(arm, v[f"{s}1"], v[f"{s}0"])  # noqa: E731
    pi, D = v["pi"], v["V1"] - v["V0"]
    if floored is not None:
        D = np.where(floored, D_floor, D)
    if clipped is not None:
        pi = np.where(clipped, pi_clip, pi)
    f = np.where(arm, pi, 1 - pi)
    sign = 2 * z - 1
    lam, mu = pick("lam"), pick("mu")
    r = a - lam
    e = y - v["beta"] * a - mu
    phi = sign / (f * D) * (r * e - v["omega"]) + v["beta"]
    de = (
        sign / f * e
        + v["mu1"]
        - v["mu0"]
        - (v["lam1"] - v["lam0"]) * sign / (f * D) * (r * e - v["omega"])
    )
    out = {"ATE": phi, "direct effect": de}
    out["covariance slope"] = -(1 / D - sign / (f * D**2) * (r**2 - pick("V")))
    out["M1: instrument, treatment"] = sign / f * r * (y - mu - v["beta"] * lam) / D
    if design.binary:
        s = 1 - v["lam0"] - v["lam1"]
        s = np.where(np.abs(s.real) < 0.02, np.where(s.real < 0, -0.02, 0.02), s)
        out["modification slope"] = 1 / s + r / (f * s**2)
        lam_bar = pi * v["lam1"] + (1 - pi) * v["lam0"]
        out["ATT"] = (lam_bar * (phi - v["beta"]) + a * v["beta"]) / np.average(
            a, weights=design.weight
        )
    return out


def complex_step(function, theta, h=1e-30):
    """Derivative of a vector function, exact to rounding: one column for each parameter."""
    columns = []
    for j in range(theta.size):
        shifted = theta.astype(complex)
        shifted[j] += 1j * h
        columns.append(np.imag(function(shifted)) / h)
    return np.array(columns).T


def genius_two_step(G, a, y, X, w, *, treatment="additive", outcome="additive", residualize=False):
    """Two-step GMM from the definition; returns effect, influence values, J.

    First stages are one stacked M-estimator with a complex-step Jacobian.
    """
    n, K = G.shape
    joint = np.column_stack([X, G])
    p, q = X.shape[1], joint.shape[1]

    def unpack_genius(t):
        gamma = t[: p * K].reshape(K, p).T
        theta = t[p * K : p * K + q]
        delta = t[p * K + q :]
        return gamma, theta, delta

    def residual(theta):
        eta = joint @ theta
        if treatment == "logistic":
            return a - expit(eta)
        if treatment == "multiplicative":
            return a * np.exp(-eta) - 1
        return a - eta

    def first(t):
        gamma, theta, delta = unpack_genius(t)
        h = G - X @ gamma
        blocks = [X * h[:, [k]] for k in range(K)]
        blocks.append(joint * residual(theta)[:, None])
        if residualize:
            blocks.append(joint * (y - joint @ delta)[:, None])
        return np.hstack(blocks)

    def moments(t, beta):
        gamma, theta, delta = unpack_genius(t)
        r = residual(theta)
        if residualize:
            rest = (y - joint @ delta) - beta * r
        elif outcome == "additive":
            rest = y - beta * a
        else:
            rest = y * np.exp(-beta * (a - np.average(a, weights=w)))
        return (G - X @ gamma) * (r * rest)[:, None]

    t = np.zeros(p * K + q + (q if residualize else 0))
    for _ in range(60):  # Newton on the stacked first stages
        J = complex_step(lambda s: w @ first(s) / n, t)
        t = t - np.linalg.solve(J, w @ first(t) / n)
    influence_t = -np.linalg.solve(J, first(t).T).T

    def influence(beta):
        M = complex_step(lambda s: w @ moments(s, beta) / n, t)
        m = moments(t, beta) + influence_t @ M.T
        return m, w @ moments(t, beta) / n

    def best(W):
        from scipy.optimize import minimize_scalar

        f = lambda b: float(influence(b)[1] @ W @ influence(b)[1])  # noqa: E731
        return minimize_scalar(f, bracket=(0.0, 0.5), tol=1e-14).x

    def omega(beta):
        m, mean = influence(beta)
        c = (m - mean) * w[:, None]
        return c.T @ c / n**2

    h = G - X @ unpack_genius(t)[0]
    start = best(np.linalg.inv((h * w[:, None]).T @ h / n))
    beta = best(np.linalg.inv(omega(start))) if K > 1 else start
    m, mean = influence(beta)
    slope = np.imag(w @ moments(t.astype(complex), beta + 1e-30j)) / 1e-30 / n
    W = np.linalg.inv(omega(beta))
    psi = -((m - mean) @ W @ slope) / (slope @ W @ slope)
    return beta, psi, mean @ W @ mean
