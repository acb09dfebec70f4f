"""Obvious versions of the selection among nuisance learners, written from the definitions."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np


def covers_by_enumeration(edges: list[tuple[str, str]]) -> set[frozenset[str]]:
    """All minimal vertex covers: every subset is tried, then non-minimal ones are struck out."""
    nodes = sorted({node for edge in edges for node in edge})
    covers = []
    for bits in product([False, True], repeat=len(nodes)):
        chosen = frozenset(node for node, bit in zip(nodes, bits, strict=True) if bit)
        if all(left in chosen or right in chosen for left, right in edges):
            covers.append(chosen)
    return {c for c in covers if not any(other < c for other in covers)}


def score(row: dict[str, float]) -> float:
    """phi of one row from its nuisance values."""
    f = row["pi"] if row["z"] == 1 else 1 - row["pi"]
    lam = row["lam1"] if row["z"] == 1 else row["lam0"]
    mu = row["mu1"] if row["z"] == 1 else row["mu0"]
    residual = (row["a"] - lam) * (row["y"] - row["beta"] * row["a"] - mu)
    return (2 * row["z"] - 1) / (f * row["D"]) * (residual - row["omega"]) + row["beta"]


def combination_means(z, a, y, candidates: Any, folds, weight) -> np.ndarray:
    """Weighted fold means of phi, one combination and one row at a time."""
    counts = candidates.counts
    out = np.zeros((folds.max() + 1, *counts))
    for index in product(*map(range, counts)):
        k_pi, k_lam, k_beta, k_mu, k_omega = index
        b_mu = k_beta if len(candidates.mu) > 1 else 0
        b_omega = k_beta if len(candidates.omega) > 1 else 0
        for fold in range(folds.max() + 1):
            total = mass = 0.0
            for i in np.flatnonzero(folds == fold):
                row = {
                    "z": z[i],
                    "a": a[i],
                    "y": y[i],
                    "pi": candidates.pi[k_pi, i],
                    "lam0": candidates.lam[k_lam, 0, i],
                    "lam1": candidates.lam[k_lam, 1, i],
                    "D": candidates.D[k_lam, i],
                    "beta": candidates.beta[k_beta, i],
                    "mu0": candidates.mu[b_mu, k_mu, 0, i],
                    "mu1": candidates.mu[b_mu, k_mu, 1, i],
                    "omega": candidates.omega[b_omega, k_omega, i],
                }
                total += weight[i] * score(row)
                mass += weight[i]
            out[(fold, *index)] = total / mass
    return out


def risk_parts(values: np.ndarray, covers: list[list[int]], criterion: str) -> np.ndarray:
    """Per-cover pseudo-risk of every combination by comparing all pairs."""
    combos = list(product(*map(range, values.shape[1:])))
    parts = np.zeros((len(covers), *values.shape[1:]))
    for j, cover in enumerate(covers):
        for k in combos:
            agree = [c for c in combos if all(c[axis] == k[axis] for axis in cover)]
            left = agree if criterion == "mixed-minimax" else [k]
            parts[(j, *k)] = max(
                np.mean([(split[p] - split[q]) ** 2 for split in values])
                for p in left
                for q in agree
            )
    return parts


def doubly_robust_rule(values: np.ndarray) -> tuple[int, int]:
    """The mixed-minimax choice for a doubly robust functional, in its own words.

    ``values[s, k, l]`` uses propensity learner k and outcome learner l on split s. The pair (k, l)
    is charged the worst swap of outcome learners with k fixed plus the worst swap of propensity
    learners with l fixed.
    """
    _, n_k, n_l = values.shape
    best, choice = np.inf, (0, 0)
    for k in range(n_k):
        for ell in range(n_l):
            over_outcome = max(
                np.mean((values[:, k, p] - values[:, k, q]) ** 2)
                for p in range(n_l)
                for q in range(n_l)
            )
            over_propensity = max(
                np.mean((values[:, p, ell] - values[:, q, ell]) ** 2)
                for p in range(n_k)
                for q in range(n_k)
            )
            if over_outcome + over_propensity < best:
                best, choice = over_outcome + over_propensity, (k, ell)
    return choice


def learned_fold(data: Any, train, test, inner, classifier, regressor, *, clip=0.01, floor=0.02):
    """Nuisances of one fold of the debiased estimator, step by step, for a treatment that varies
    in both arms. ``data`` is a dict of arrays ``X, z, a, y, w``; learners are made afresh by the
    two functions."""
    X, z, a, y, w = (data[k] for k in "Xzayw")
    binary = set(np.unique(a)) <= {0.0, 1.0}

    def fitted(make, rows, target, weight=None):
        weight = w[rows] if weight is None else weight * w[rows]
        return make().fit(X[rows], target, sample_weight=weight / weight.mean())

    def probability(model, rows):
        return model.predict_proba(X[rows])[:, 1]

    def mean_a(rows, at):
        if binary:
            return [
                probability(fitted(classifier, rows[z[rows] == k], a[rows[z[rows] == k]]), at)
                for k in (0, 1)
            ]
        return arms(rows, a, at)

    def arms(rows, target, at):
        out = []
        for k in (0, 1):
            mine = rows[z[rows] == k]
            out.append(fitted(regressor, mine, target[mine]).predict(X[at]))
        return out

    def pick(pair, rows):
        return np.where(z[rows] == 1, pair[1], pair[0])

    # Inner cross-fit: residuals and instrument probabilities of the training rows.
    r_a, r_y, pi_held, D = (np.full(len(z), np.nan) for _ in range(4))
    for j in range(inner.max() + 1):
        rest, held = train[inner != j], train[inner == j]
        lam = mean_a(rest, held)
        r_a[held] = a[held] - pick(lam, held)
        r_y[held] = y[held] - pick(arms(rest, y, held), held)
        pi_held[held] = np.clip(
            probability(fitted(classifier, rest, z[rest]), held), clip, 1 - clip
        )
        D[held] = lam[1] * (1 - lam[1]) - lam[0] * (1 - lam[0])
    if not binary:
        for j in range(inner.max() + 1):
            rest, held = train[inner != j], train[inner == j]
            V = arms(rest, r_a**2, held)
            D[held] = V[1] - V[0]
        floor = 0.05 * np.median(np.abs(D[train]))
    D = np.where(np.abs(D) < floor, np.where(D < 0, -floor, floor), D)
    q = np.full(len(z), np.nan)
    for j in range(inner.max() + 1):
        rest, held = train[inner != j], train[inner == j]
        q[held] = fitted(regressor, rest, (r_a * r_y)[rest]).predict(X[held])
    s = (z - pi_held) * D
    effect = fitted(regressor, train, ((r_a * r_y - q) / s)[train], (s**2)[train])
    adjusted = y - effect.predict(X) * a
    mu_held = np.full(len(z), np.nan)
    for j in range(inner.max() + 1):
        rest, held = train[inner != j], train[inner == j]
        mu_held[held] = pick(arms(rest, adjusted, held), held)
    omega = fitted(regressor, train, (r_a * (adjusted - mu_held))[train])
    return {
        "pi": probability(fitted(classifier, train, z[train]), test),
        "lam": np.array(mean_a(train, test)),
        "V": None if binary else np.array(arms(train, r_a**2, test)),
        "m": np.array(arms(train, y, test)),
        "beta": effect.predict(X[test]),
        "mu": np.array(arms(train, adjusted, test)),
        "omega": omega.predict(X[test]),
    }
