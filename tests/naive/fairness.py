"""Obvious slow twins of the fairness kernels and closed forms, written from the definitions."""

from __future__ import annotations

from itertools import product

import numpy as np


def count_tensor(X, y_pred, y_true, weight, shape):
    N = np.zeros(shape)
    for i in range(len(X)):
        y = 0 if y_true is None else y_true[i]
        cell = [int(y_pred[i]), int(y)]
        for j, code in enumerate(X[i]):
            cell.append(shape[2 + j] - 1 if code < 0 else int(code))
        N[tuple(cell)] += 1.0 if weight is None else weight[i]
    return N


def log_likelihood(counts, patterns, G, tables):
    """tables[j] is (K, L_j); a pattern level of -1 is summed out."""
    total = 0.0
    for s in range(counts.shape[0]):
        for c in range(counts.shape[1]):
            if counts[s, c] == 0:
                continue
            q = 0.0
            for a in range(G.shape[1]):
                term = G[s, a]
                for j, level in enumerate(patterns[c]):
                    if level >= 0:
                        term *= tables[j][a, level]
                q += term
            total += counts[s, c] * np.log(q)
    return total


def em_step(counts, patterns, G, tables):
    """One EM update with every table free and the same in all strata."""
    new_g = np.zeros_like(G)
    new_t = [np.zeros_like(t) for t in tables]
    for s in range(counts.shape[0]):
        for c in range(counts.shape[1]):
            joint = np.array(
                [
                    G[s, a]
                    * np.prod([tables[j][a, v] for j, v in enumerate(patterns[c]) if v >= 0])
                    for a in range(G.shape[1])
                ]
            )
            if joint.sum() == 0:
                continue
            share = counts[s, c] * joint / joint.sum()
            new_g[s] += share
            for j, v in enumerate(patterns[c]):
                if v >= 0:
                    new_t[j][:, v] += share
    return new_g / new_g.sum(), [t / t.sum(axis=1, keepdims=True) for t in new_t]


def population(p, H, tables):
    """Cell probabilities (S, L_1, ..., L_m) by loops."""
    q = np.zeros((H.shape[1], *(t.shape[1] for t in tables)))
    for s in range(H.shape[1]):
        for levels in product(*(range(t.shape[1]) for t in tables)):
            for a in range(len(p)):
                term = p[a] * H[a, s]
                for t, level in zip(tables, levels, strict=True):
                    term *= t[a, level]
                q[(s, *levels)] += term
    return q


def outcome_em(prior, outcome, area, weight, n_outcomes, pseudo, n_iter):
    """Outcome-regression EM by plain loops: theta (n_areas, K, n_outcomes) and memberships."""
    n, K = prior.shape
    n_areas = int(area.max()) + 1
    expected = np.zeros((n_areas, K, n_outcomes))
    for i in range(n):
        expected[area[i], :, outcome[i]] += weight[i] * prior[i]
    theta = expected + pseudo
    theta /= theta.sum(axis=2, keepdims=True)
    member = prior
    for _ in range(n_iter):
        expected = np.zeros((n_areas, K, n_outcomes))
        member = np.empty((n, K))
        for i in range(n):
            w = theta[area[i], :, outcome[i]] * prior[i]
            member[i] = w / w.sum()
            expected[area[i], :, outcome[i]] += weight[i] * member[i]
        theta = expected + pseudo
        theta /= theta.sum(axis=2, keepdims=True)
    return theta, member


def third_moment(q, stratum, n_strata):
    K = q.shape[2]
    out = np.zeros((n_strata, K, K, K))
    for i in range(len(q)):
        for a, b, c in product(range(K), repeat=3):
            out[stratum[i], a, b, c] += q[i, 0, a] * q[i, 1, b] * q[i, 2, c]
    return out


def frechet_lp(a, r, weight, group, other):
    """Largest and smallest P(f=1|group) - P(f=1|other) by linear programming over P(A, f | Z)."""
    from scipy.optimize import linprog

    n, K = a.shape
    w = weight / weight.sum()
    share = (w[:, None] * a).sum(axis=0)
    index = np.arange(n * K * 2).reshape(n, K, 2)
    objective = np.zeros(index.size)
    objective[index[:, group, 1]] += w / share[group]
    if other is None:
        for b in range(K):
            if b != group:
                objective[index[:, b, 1]] -= w / (1 - share[group])
    else:
        objective[index[:, other, 1]] -= w / share[other]
    rows, right = [], []
    for z in range(n):
        for g in range(K):
            row = np.zeros(index.size)
            row[index[z, g]] = 1.0
            rows.append(row)
            right.append(a[z, g])
        row = np.zeros(index.size)
        row[index[z, :, 1]] = 1.0
        rows.append(row)
        right.append(r[z])
    ends = [
        sign * linprog(sign * objective, A_eq=np.array(rows), b_eq=right, bounds=(0, None)).fun
        for sign in (1.0, -1.0)
    ]
    return ends[0], ends[1]
