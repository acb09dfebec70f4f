"""Obvious versions of what the reward family computes."""

from __future__ import annotations

import itertools
import math

import numpy as np


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
