"""Obvious versions of what the reward family computes."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm


def dummies(codes):
    codes = np.asarray(codes)
    return (codes[:, None] == np.unique(codes)[None, :]).astype(float)


def residualize(factors, A, weights=None):
    """Least squares on all dummies at once."""
    D = np.hstack([dummies(f) for f in factors])
    root = np.ones(len(A)) if weights is None else np.sqrt(weights)
    fitted = D @ np.linalg.lstsq(root[:, None] * D, (root * A.T).T, rcond=None)[0]
    return A - fitted


def drop_singletons(factors):
    keep = np.ones(len(factors[0]), bool)
    while True:
        before = keep.sum()
        for f in factors:
            levels, counts = np.unique(np.asarray(f)[keep], return_counts=True)
            keep &= ~np.isin(f, levels[counts == 1])
        if keep.sum() == before:
            return keep


def absorbed_rank(factors):
    return int(np.linalg.matrix_rank(np.hstack([dummies(f) for f in factors])))


def clustered_ols(X, y, W, cluster):
    """Joint regression on X and W with the small-sample factors of clustered covariances."""
    full = np.hstack([X, W])
    rank = np.linalg.matrix_rank(full)
    inverse = np.linalg.pinv(full.T @ full)
    coef = inverse @ full.T @ y
    e = y - full @ coef
    groups = np.unique(cluster)
    meat = sum(
        np.outer(full[cluster == g].T @ e[cluster == g], full[cluster == g].T @ e[cluster == g])
        for g in groups
    )
    n, G = len(y), len(groups)
    V = inverse @ meat @ inverse * G / (G - 1) * (n - 1) / (n - rank)
    k = X.shape[1]
    return coef[:k], V[:k, :k]


def best_of_n(proxy, gold, n):
    """Mean over every subset; tied proxies share."""
    total = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        at = [i for i in range(len(proxy)) if proxy[i] == best]
        total.append(np.mean([gold[i] for i in at]))
    return float(np.mean(total))


def pairs_in_strata(strata):
    n = len(strata)
    return {(i, j) for i in range(n) for j in range(i + 1, n) if strata[i] == strata[j]}


def preference_pairs(score, variance, strata, texts, *, min_prob, max_per_stratum, max_per_text):
    """All pairs of different texts in strata, most certain first, until a cap is full."""
    found = []
    for i in range(len(score)):
        for j in range(len(score)):
            if strata[i] == strata[j] and texts[i] != texts[j] and score[i] > score[j]:
                z = (score[i] - score[j]) / math.sqrt(variance[i] + variance[j])
                p = 0.5 * math.erfc(-z / math.sqrt(2))
                if p >= min_prob:
                    found.append((-p, min(i, j), max(i, j), i, j))
    used, full, kept = dict.fromkeys(range(len(score)), 0), {}, []
    for *_, i, j in sorted(found):
        s = strata[i]
        if full.get(s, 0) < max_per_stratum and max(used[i], used[j]) < max_per_text:
            full[s] = full.get(s, 0) + 1
            used[i] += 1
            used[j] += 1
            kept.append((i, j))
    return sorted(kept)


def off_policy(method, y, rho, m, m_new, *, threshold):
    """Row by row."""
    n = len(y)
    if method == "dm":
        return sum(m_new) / n
    total, weights = 0.0, 0.0
    for i in range(n):
        w = rho[i]
        if method == "switch" and w > threshold:
            w = 0.0
        if method == "clip":
            w = min(w, threshold)
        if method == "dros":
            w = threshold * w / (w * w + threshold)
        model = 0.0 if method in ("ips", "snips") else m[i]
        total += w * (y[i] - model)
        weights += w
    centre = 0.0 if method in ("ips", "snips") else sum(m_new) / n
    return centre + total / (weights if method in ("snips", "sndr") else n)


def tilt(scores, y, weight, tau):
    """Value, divergence from the weighted logs and effective share of a tilted policy."""
    base = np.asarray(weight) / np.sum(weight)
    p = base * np.exp(tau * np.asarray(scores))
    p = p / p.sum()
    return float(p @ y), float(p @ np.log(p / base)), float(1 / (p @ p) / len(p))


def observational_probability(coef, root, D, draws):
    """Probability that a pair's first text is better, and its variance by drawing coefficients."""
    rng = np.random.default_rng(0)
    spread = np.sqrt(np.sum((D @ root) ** 2, axis=1))
    safe = np.where(spread > 0, spread, 1.0)
    noise = rng.standard_normal((draws, root.shape[1])) @ root.T
    z = np.where(spread > 0, ((coef + noise) @ D.T) / safe, 0.0)
    mean = np.where(spread > 0, norm.cdf(D @ coef / safe), 0.5)
    return mean, norm.cdf(z).var(axis=0)


def fusion_bias(obs, tests, wanted, bins, *, random_state):
    """Bias of the observational probabilities towards their favourite, each half judged by the other."""
    from causalfair._core.crossfit import make_folds
    from causalfair._core.random import child_seed, root_seed
    from causalfair.reward._fusion import observational_probability as two

    D, win, ids = tests
    fold = make_folds(len(win), 2, seed=child_seed(root_seed(random_state), 0), groups=ids)
    theta = two(obs, D)[0]
    gap = []
    for i in range(len(win)):
        train = fold != fold[i]
        half = _logit(D, win, train)
        other = 1 / (1 + math.exp(-D[i] @ half))
        gap.append(theta[i] - other if theta[i] >= 0.5 else other - theta[i])
    gap = np.array(gap)
    sure = np.abs(theta - 0.5)
    ranked = sorted(sure)
    edges = sorted({ranked[(len(sure) - 1) * k // bins] for k in range(1, bins)} - {ranked[-1]})
    own = np.array([sum(s > e for e in edges) for s in sure])
    squares = []
    for k in range(len(edges) + 1):
        g, c = gap[own == k], ids[own == k]
        spread = sum(np.sum(g[c == t] - g.mean()) ** 2 for t in np.unique(c)) / len(g) ** 2
        squares.append(max(0.0, g.mean() ** 2 - spread))
    asked = [sum(abs(p - 0.5) > e for e in edges) for p in two(obs, wanted)[0]]
    return gap.mean(), [squares[k] for k in asked]


def _logit(D, win, rows):
    """Maximum likelihood with the vanishing penalty, by a general optimiser."""
    key = rows.tobytes()
    if key not in _LOGITS:
        X, z = D[rows], win[rows]
        ridge = 1e-6 * np.mean(X**2, axis=0)

        def loss(b):
            return np.mean(np.logaddexp(0, X @ b) - z * (X @ b)) + ridge @ b**2 / 2

        def slope(b):
            return X.T @ (1 / (1 + np.exp(-X @ b)) - z) / len(z) + ridge * b

        start = np.zeros(X.shape[1])
        _LOGITS[key] = minimize(loss, start, jac=slope, method="BFGS", options={"gtol": 1e-9}).x
    return _LOGITS[key]


_LOGITS = {}


def disagreement(obs, exp, X):
    """Mean distance of the two win probabilities over all pairs of a test."""
    from causalfair.reward._fusion import observational_probability as two

    gaps = []
    for i, j in itertools.combinations(range(len(X)), 2):
        d = (X[i] - X[j])[None]
        gaps.append(abs(two(obs, d)[0][0] - exp.win_probability(d)[0][0]))
    return float(np.mean(gaps))


def schur(main, others, weights):
    """Dense ``D'W(I - P)D`` with the projection on one factor taken out."""
    P, D = dummies(main), np.hstack([dummies(f) for f in others])
    W = np.diag(weights)
    return D.T @ (W - W @ P @ np.linalg.inv(P.T @ W @ P) @ P.T @ W) @ D
