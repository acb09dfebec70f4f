"""Slow, obvious versions of what causalfair.adaptive computes fast."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
from scipy import integrate, stats


def max_normal_cvar(k, p):
    """Tail mean of the maximum of k |N(0,1)| by adaptive quadrature of the quantile function."""
    quantile = stats.norm.isf((1 - (1 - p) ** (1 / k)) / 2)
    pieces = np.linspace(quantile, quantile + 12, 13)
    tail = sum(
        integrate.quad(
            lambda x: -np.expm1(k * np.log1p(-2 * stats.norm.sf(x))), a, b, epsabs=1e-14
        )[0]
        for a, b in itertools.pairwise(pieces)
    )
    return quantile + tail / p


def pure_composition_power(epsilon, n, a):
    """Neyman-Pearson curve of Bin(n, likely) against Bin(n, rare) by summing pmfs from the top."""
    likely = math.exp(epsilon) / (1 + math.exp(epsilon))
    x = y = 0.0
    for j in range(n, -1, -1):
        dx, dy = stats.binom.pmf(j, n, 1 - likely), stats.binom.pmf(j, n, likely)
        if x + dx >= a:
            return y + (a - x) / dx * dy
        x, y = x + dx, y + dy
    return 1.0


def sparse_strings(i, budget):
    """Answer strings before an answered query i: enumerate 0/1 strings with fewer than B ones."""
    return sum(1 for code in range(2 ** (i - 1)) if bin(code).count("1") <= min(i - 1, budget - 1))


def ladder_transcripts(k, values):
    """Histories of a ladder: positions of updates times strictly decreasing values."""
    return sum(math.comb(k, j) * math.comb(values, j) for j in range(min(k, values) + 1))


def winner_candidates(sizes):
    """Candidates under all histories of winners."""
    total, histories = 0, 1
    for size in sizes:
        total += size * histories
        histories *= size
    return total


def thresholdout(holdout, train, threshold, budget, gammas, etas, xis):
    """The published algorithm, one query at a time, with given noise."""
    current, used, answers = threshold + gammas[0], 0, []
    for phi, guess, eta in zip(holdout, train, etas, strict=True):
        if used >= budget:
            answers.append(None)
            continue
        if abs(phi - guess) > current + eta:
            answers.append(phi + xis[used])
            used += 1
            current = threshold + gammas[used]
        else:
            answers.append(guess)
    return answers


def ladder(losses, eta):
    """The ladder in exact arithmetic; halves round up."""
    step, best, board = Fraction(str(eta)), None, []
    for loss in losses:
        value = Fraction(str(loss))
        if best is None or value < best - step:
            best = math.floor(value / step + Fraction(1, 2)) * step
        board.append(float(best))
    return board


def update(weights, f, step):
    """Multiplicative update with an exponential for every cell."""
    raised = [w * math.exp(step * v) for w, v in zip(weights, f, strict=True)]
    total = math.fsum(raised)
    return np.array([r / total for r in raised])


def conjunction_mean(weights, columns, n_columns):
    """Weights of cells whose chosen bits are all one, cell by cell."""
    total = []
    for cell, weight in enumerate(weights):
        bits = [(cell >> (n_columns - 1 - c)) & 1 for c in columns]
        if all(bits):
            total.append(weight)
    return math.fsum(total)


def product_sums(X, centre, scale, t, clip):
    """Integer sums of clipped standardised products on the grid of 2**20 units."""
    half = 2**19
    out = []
    for j in range(X.shape[1]):
        total = 0
        for i in range(len(X)):
            v = (float(X[i, j]) - centre[j]) * scale[j] * (t[i] * (half / clip))
            v = -half if math.isnan(v) else min(max(v, -half), half)
            total += math.floor(v + half + 0.5)
        out.append(total)
    return np.array(out, dtype=int)


def majority_accuracy(agree, weights):
    """Share of rows with a positive signed vote, ties one half."""
    score = np.where(agree, 1.0, -1.0) @ weights
    return float(np.mean(np.where(score == 0, 0.5, score > 0)))


def auc(y, score):
    """All pairs."""
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in score[y.astype(bool)]
        for b in score[~y.astype(bool)]
    ]
    return math.fsum(wins) / len(wins)
