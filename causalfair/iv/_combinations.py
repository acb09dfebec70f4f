"""Scores of every combination of candidate nuisances, at linear cost.

With the instrument model ``pi`` and the treatment model ``lam`` fixed, the score ``phi`` is affine
in ``(beta, mu, omega)``::

    mean(phi) = mean(t r Y) - mean(t r A beta) - mean(t r mu) - mean(t omega) + mean(beta),
    t = (2Z-1)/(f D),  r = A - lam

so the fold means of all combinations need five matrix products, and a weighted average of ``phi``
over combinations is ``phi`` at averaged ``(beta, mu, omega)``, pair by pair of ``(pi, lam)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.iv._scores import IVNuisances, instrument_weight

__all__ = [
    "PATH",
    "SLOTS",
    "CandidateNuisances",
    "combination_nuisances",
    "fold_means",
    "smoothed_nuisances",
]

SLOTS = ("instrument", "treatment", "effect", "outcome", "confounding")
PATH = (
    ("confounding", "instrument"),
    ("instrument", "effect"),
    ("effect", "treatment"),
    ("treatment", "outcome"),
)
"""Products of errors in the remainder of ``phi``; the first vanishes where omega is known zero."""
# Rows a block: bounds memory, and a fixed size keeps the order of the sums.
_BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class CandidateNuisances:
    """Held-out nuisance values of every candidate; ``K`` counts the candidates of a slot.

    ``mu`` and ``omega`` carry an axis for the effect candidate they were built on, of length one
    when every candidate was built on the effect of its own family.

    Attributes
    ----------
    pi : (K_instrument, n)
        ``P(Z=1|X)``, clipped.
    clipped : (K_instrument, n)
        Rows where it was clipped.
    lam : (K_treatment, 2, n)
        ``E[A|Z=z,X]``.
    V : (K_treatment, 2, n) or None
        ``Var(A|Z=z,X)`` of a continuous treatment.
    D : (K_treatment, n)
        Variance shift, floored.
    floored : (K_treatment, n)
        Rows where it was floored.
    beta : (K_effect, n)
        Effect.
    mu : (K_effect or 1, K_outcome, 2, n)
        ``E[Y - beta A|Z=z,X]``.
    omega : (K_effect or 1, K_confounding, n)
        ``Cov(A, Y - beta A|Z,X)``.
    m : (K_outcome, 2, n) or None
        ``E[Y|Z=z,X]``.
    """

    pi: FloatArray
    clipped: BoolArray
    lam: FloatArray
    V: FloatArray | None
    D: FloatArray
    floored: BoolArray
    beta: FloatArray
    mu: FloatArray
    omega: FloatArray
    m: FloatArray | None = None

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Candidates of each slot, in the order of ``SLOTS``."""
        return (
            len(self.pi),
            len(self.lam),
            len(self.beta),
            self.mu.shape[1],
            self.omega.shape[1],
        )


def fold_means(
    z: FloatArray,
    a: FloatArray,
    y: FloatArray,
    candidates: CandidateNuisances,
    folds: IntArray,
    weight: FloatArray | None = None,
) -> FloatArray:
    """Weighted mean of ``phi`` in every fold for every combination.

    Parameters
    ----------
    folds : (n,)
        Fold of each row, numbered from 0.

    Returns
    -------
    ndarray of shape (n_folds, K_instrument, K_treatment, K_effect, K_outcome, K_confounding)
    """
    w = np.ones_like(y) if weight is None else weight
    n_folds = int(folds.max()) + 1
    means = np.empty((n_folds, *candidates.counts))
    for fold in range(n_folds):
        rows = np.flatnonzero(folds == fold)
        means[fold] = _mean_over(z, a, y, w, candidates, rows)
    return means


def _mean_over(
    z: FloatArray,
    a: FloatArray,
    y: FloatArray,
    w: FloatArray,
    candidates: CandidateNuisances,
    rows: IntArray,
) -> FloatArray:
    """Mean of ``phi`` over ``rows`` for every combination."""
    k_pi, k_lam, k_beta, k_mu, k_omega = candidates.counts
    pairs = k_pi * k_lam
    constant = np.zeros((pairs, 1, 1, 1))
    by_beta = np.zeros((pairs, k_beta, 1, 1))
    by_mu = np.zeros((pairs, len(candidates.mu), k_mu, 1))
    by_omega = np.zeros((pairs, len(candidates.omega), 1, k_omega))
    plug_in = np.zeros(k_beta)
    for first in range(0, len(rows), _BLOCK):
        i = rows[first : first + _BLOCK]
        arm = (z[i] > 0.5).astype(np.intp)
        signed = w[i] * np.stack([instrument_weight(z[i], pi) for pi in candidates.pi[:, i]])
        # t, and t r, of every (instrument, treatment) pair: (pairs, rows).
        r = a[i] - candidates.lam[:, arm, i]
        t = (signed[:, None] / candidates.D[None, :, i]).reshape(pairs, -1)
        tr = t * np.broadcast_to(r, (k_pi, *r.shape)).reshape(pairs, -1)
        beta = candidates.beta[:, i]
        mu = candidates.mu[:, :, arm, i].reshape(-1, len(i))
        omega = candidates.omega[:, :, i].reshape(-1, len(i))
        constant += (tr @ y[i])[:, None, None, None]
        by_beta += (tr @ (a[i] * beta).T)[:, :, None, None]
        by_mu += (tr @ mu.T).reshape(by_mu.shape)
        by_omega += (t @ omega.T).reshape(by_omega.shape)
        plug_in += beta @ w[i]
    total = constant - by_beta - by_mu - by_omega + plug_in[None, :, None, None]
    return np.asarray(total.reshape(candidates.counts) / w[rows].sum())


def combination_nuisances(
    candidates: CandidateNuisances, index: tuple[int, int, int, int, int]
) -> IVNuisances:
    """Nuisance values of one combination, ``index`` in the order of ``SLOTS``."""
    pi, lam, beta, mu, omega = index
    values = _assemble(
        candidates,
        pi,
        lam,
        candidates.beta[beta],
        candidates.mu[beta if len(candidates.mu) > 1 else 0, mu],
        candidates.omega[beta if len(candidates.omega) > 1 else 0, omega],
    )
    if candidates.m is None:
        return values
    return replace(values, m0=candidates.m[mu, 0], m1=candidates.m[mu, 1])


def smoothed_nuisances(
    candidates: CandidateNuisances, weights: FloatArray
) -> list[tuple[float, IVNuisances]]:
    """Nuisances whose weighted scores are the weighted average of the scores of all combinations.

    Parameters
    ----------
    weights : (K_instrument, K_treatment, K_effect, K_outcome, K_confounding)
        Non-negative, summing to one.

    Returns
    -------
    list of (share, nuisances)
        One entry for every (instrument, treatment) pair with positive weight.
    """
    parts = []
    for pi in range(weights.shape[0]):
        for lam in range(weights.shape[1]):
            share = float(weights[pi, lam].sum())
            if share <= 0.0:
                continue
            w = weights[pi, lam] / share
            by_mu, by_omega = w.sum(axis=2), w.sum(axis=1)
            if len(candidates.mu) == 1:
                by_mu = by_mu.sum(axis=0, keepdims=True)
            if len(candidates.omega) == 1:
                by_omega = by_omega.sum(axis=0, keepdims=True)
            beta = w.sum(axis=(1, 2)) @ candidates.beta
            mu = np.tensordot(by_mu, candidates.mu, axes=([0, 1], [0, 1]))
            omega = np.tensordot(by_omega, candidates.omega, axes=([0, 1], [0, 1]))
            parts.append((share, _assemble(candidates, pi, lam, beta, mu, omega)))
    return parts


def _assemble(
    candidates: CandidateNuisances,
    pi: int,
    lam: int,
    beta: FloatArray,
    mu: FloatArray,
    omega: FloatArray,
) -> IVNuisances:
    V = candidates.V
    return IVNuisances(
        pi=candidates.pi[pi],
        lam0=candidates.lam[lam, 0],
        lam1=candidates.lam[lam, 1],
        D=candidates.D[lam],
        beta=beta,
        mu0=mu[0],
        mu1=mu[1],
        omega=omega,
        V0=None if V is None else V[lam, 0],
        V1=None if V is None else V[lam, 1],
        floored=candidates.floored[lam],
        clipped=candidates.clipped[pi],
    )
