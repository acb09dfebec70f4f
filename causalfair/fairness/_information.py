"""Score, information and Newton steps of the latent-class likelihood.

With eta = log(theta), every cell probability is a sum of products of parameters, so log q is a
log-sum-exp and its derivatives are moments of indicators under the posterior of the class:
d log q / d eta = E[x | cell] and d2 log q / d eta2 = Cov[x | cell]. Blocks of parameters with a
fixed sum are handled by theta = total * softmax(phi).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.fairness._latent import LatentFit, Spec, class_probabilities, run_em
from causalfair.fairness._tensor import every_cell

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.fairness._tensor import PatternCounts

BOUNDARY = 1e-7
MAX_INFORMATION_CELLS = 200_000


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each entry of G and T stands in the parameter vector.

    ``g`` (S, K) and ``t`` (R, K_max, L_max) hold positions, -1 for entries that are not parameters;
    ``blocks`` are the sets of positions with a fixed sum.
    """

    g: IntArray
    t: IntArray
    blocks: tuple[IntArray, ...]
    n_parameters: int


def make_layout(spec: Spec) -> Layout:
    """Number the parameters of a model."""
    n_strata, n_groups = spec.n_strata, spec.n_groups
    g = np.arange(n_strata * n_groups).reshape(n_strata, n_groups)
    blocks = [g[:, a] for a in range(n_groups)] if spec.shares.size else [g.ravel()]
    t = np.full(spec.known.shape, -1, dtype=np.intp)
    position = g.size
    used = set(np.unique(spec.tables).tolist())
    for r, (n_rows, n_levels) in enumerate(zip(spec.table_rows, spec.table_levels, strict=True)):
        if spec.fixed[r] or r not in used:
            continue
        for a in range(n_rows):
            t[r, a, :n_levels] = np.arange(position, position + n_levels)
            blocks.append(t[r, a, :n_levels])
            position += n_levels
    return Layout(g, t, tuple(blocks), position)


def pack(layout: Layout, G: FloatArray, T: FloatArray) -> FloatArray:
    """Parameter vector of (G, T)."""
    theta = np.empty(layout.n_parameters)
    theta[layout.g] = G
    theta[layout.t[layout.t >= 0]] = T[layout.t >= 0]
    return theta


def unpack(layout: Layout, theta: FloatArray, T: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(G, T) of a parameter vector; known entries come from ``T``."""
    new_t = T.copy()
    new_t[layout.t >= 0] = theta[layout.t[layout.t >= 0]]
    return theta[layout.g], new_t


def class_designs(data: PatternCounts, spec: Spec, layout: Layout) -> list[Any]:
    """One sparse indicator matrix a class: (n_cells, n_parameters)."""
    from scipy.sparse import coo_array

    n_strata, n_patterns = data.counts.shape
    cells = np.arange(n_strata * n_patterns)
    stratum, pattern = cells // n_patterns, cells % n_patterns
    out = []
    for a in range(spec.n_groups):
        columns = [layout.g[stratum, a]]
        for j in range(data.n_proxies):
            level = data.patterns[pattern, j]
            position = layout.t[spec.tables[stratum, j], spec.rows[j, a], np.maximum(level, 0)]
            columns.append(np.where(level >= 0, position, -1))
        column = np.concatenate(columns)
        row = np.tile(cells, len(columns))
        keep = column >= 0
        out.append(
            coo_array(
                (np.ones(int(keep.sum())), (row[keep], column[keep])),
                shape=(len(cells), layout.n_parameters),
            ).tocsr()
        )
    return out


@dataclass(frozen=True, slots=True)
class Curvature:
    """First and second derivatives at a point.

    Attributes
    ----------
    theta : (p,) parameter vector
    scores : (n_cells, p) score of one row in each cell with respect to phi
    score : (p,) total score with respect to phi (with the prior)
    hessian : (p, p) negative second derivative with respect to phi
    q : (n_cells,) fitted cell probabilities
    """

    theta: FloatArray
    scores: FloatArray
    score: FloatArray
    hessian: FloatArray
    q: FloatArray


def curvature(
    data: PatternCounts, spec: Spec, layout: Layout, G: FloatArray, T: FloatArray, *, expected: bool
) -> Curvature:
    """Score and information; ``expected`` replaces the counts by their fitted values."""
    joint = class_probabilities(data, spec, G, T).reshape(-1, spec.n_groups)
    q = joint.sum(axis=1)
    posterior = joint / np.where(q > 0, q, 1.0)[:, None]
    observed = data.counts.ravel()
    counts = data.n * q if expected else observed
    theta = pack(layout, G, T)
    mean = np.zeros((len(q), layout.n_parameters))
    second = np.zeros((layout.n_parameters, layout.n_parameters))
    for a, X in enumerate(class_designs(data, spec, layout)):
        mean += X.multiply(posterior[:, a][:, None]).toarray()
        second += (X.T @ X.multiply((counts * posterior[:, a])[:, None])).toarray()
    covariance = second - mean.T @ (mean * counts[:, None])
    complete = counts @ mean + prior_counts(spec, layout)
    total_score = observed @ mean + prior_counts(spec, layout)
    hessian = _reduce(layout, theta, covariance)
    score = np.empty(layout.n_parameters)
    scores = mean.copy()
    for block in layout.blocks:
        share = theta[block] / theta[block].sum()
        weight = complete[block].sum()
        hessian[np.ix_(block, block)] += weight * (np.diag(share) - np.outer(share, share))
        score[block] = total_score[block] - total_score[block].sum() * share
        scores[:, block] -= mean[:, block].sum(axis=1, keepdims=True) * share
    return Curvature(theta, scores, score, hessian, q)


def prior_counts(spec: Spec, layout: Layout) -> FloatArray:
    """Pseudo-counts and validation counts of each parameter (p,)."""
    prior = np.zeros(layout.n_parameters)
    prior[layout.g] = spec.prior_g
    prior[layout.t[layout.t >= 0]] = spec.prior_t[layout.t >= 0]
    return prior


def _reduce(layout: Layout, theta: FloatArray, covariance: FloatArray) -> FloatArray:
    """Minus J' C J with J = I - 1 share' in each block."""
    J = np.eye(layout.n_parameters)
    for block in layout.blocks:
        J[np.ix_(block, block)] -= np.outer(np.ones(len(block)), theta[block] / theta[block].sum())
    return -(J.T @ covariance @ J)


def free_basis(layout: Layout, theta: FloatArray) -> FloatArray:
    """Directions in phi that move the probabilities: (p, n_free), boundary entries held."""
    columns = []
    for block in layout.blocks:
        active = block[theta[block] > BOUNDARY]
        if len(active) < 2:
            continue
        # d phi = u / sqrt(share) with u orthogonal to sqrt(share): the complete-data information is
        # then the same in every direction, however small a probability
        root = np.sqrt(theta[active] / theta[active].sum())
        for direction in np.linalg.svd(root[None, :])[2][1:]:
            column = np.zeros(layout.n_parameters)
            column[active] = direction / root
            columns.append(column)
    return np.stack(columns, axis=1) if columns else np.zeros((layout.n_parameters, 0))


def theta_jacobian(layout: Layout, theta: FloatArray) -> FloatArray:
    """Derivative of theta with respect to phi: diag(theta) - theta theta' / total by block."""
    J = np.zeros((layout.n_parameters, layout.n_parameters))
    for block in layout.blocks:
        value = theta[block]
        J[np.ix_(block, block)] = np.diag(value) - np.outer(value, value) / value.sum()
    return J


def newton_polish(
    data: PatternCounts, spec: Spec, fit: LatentFit, *, n_steps: int = 5, tol: float = 1e-11
) -> LatentFit:
    """A few Newton steps on the observed information (EM alone stalls near 1e-7).

    A step is kept only when it lowers the largest score entry and does not lower the likelihood.
    """
    if data.counts.size > MAX_INFORMATION_CELLS:
        return fit
    layout = make_layout(spec)
    n = data.n
    G, T, loglik = fit.G, fit.T, fit.loglik
    point = curvature(data, spec, layout, G, T, expected=False)
    size = float(np.abs(point.score).max()) / n
    for _ in range(n_steps):
        if size < tol:
            break
        basis = free_basis(layout, point.theta)
        reduced = basis.T @ point.hessian @ basis
        values, vectors = np.linalg.eigh(reduced)
        keep = values > 1e-10 * max(float(values.max(initial=0.0)), 1e-300)
        projected = vectors[:, keep].T @ (basis.T @ point.score)
        step = basis @ (vectors[:, keep] @ (projected / values[keep]))
        step *= min(1.0, 2.0 / max(float(np.abs(step).max(initial=0.0)), 1e-300))
        theta = point.theta * np.exp(step)
        for block in layout.blocks:
            theta[block] *= point.theta[block].sum() / theta[block].sum()
        new_g, new_t = unpack(layout, theta, T)
        trial = run_em(data, spec, new_g, new_t, max_iter=0)
        candidate = curvature(data, spec, layout, new_g, new_t, expected=False)
        new_size = float(np.abs(candidate.score).max()) / n
        if not (new_size < size and trial.loglik >= loglik - 1e-10 * max(1.0, abs(loglik))):
            break
        G, T, loglik, point, size = new_g, new_t, trial.loglik, candidate, new_size
    return replace(fit, G=G, T=T, loglik=loglik, gradient=size)


@dataclass(frozen=True, slots=True)
class Covariance:
    """Sampling covariance of the parameters, with what is needed for influence functions.

    Attributes
    ----------
    layout : Layout
    vcov : (p, p) covariance of theta
    influence : (n_cells, p)
        Influence on theta of one row in each observed cell (rows times this sum to n * error).
    rank_deficiency : int
        Directions the data say nothing about.
    """

    layout: Layout
    vcov: FloatArray
    influence: FloatArray
    rank_deficiency: int


def covariance(
    data: PatternCounts, spec: Spec, fit: LatentFit, *, robust: bool = False
) -> Covariance:
    """Covariance of the maximum-likelihood estimate by the inverse information, or the sandwich.

    The expected information is used when every proxy is observed in every row; with missing proxies
    or audited rows the observed information, which stays right when missingness depends on what is
    seen. ``robust`` gives A^{-1} B A^{-1} with the observed Hessian and squared weights.
    """
    layout = make_layout(spec)
    complete = bool((data.patterns >= 0).all())
    wide = data.n_strata * float(np.prod(np.asarray(data.n_levels, dtype=float)))
    expected = complete and not robust and wide <= MAX_INFORMATION_CELLS
    cells = every_cell(data) if expected else data
    point = curvature(cells, spec, layout, fit.G, fit.T, expected=expected)
    basis = free_basis(layout, point.theta)
    reduced = basis.T @ point.hessian @ basis
    values, vectors = np.linalg.eigh(reduced)
    keep = values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)
    inverse = (vectors[:, keep] / values[keep]) @ vectors[:, keep].T
    to_theta = theta_jacobian(layout, point.theta) @ basis
    bread = to_theta @ inverse @ basis.T  # (p, p): phi-score -> theta
    local = point if cells is data else curvature(data, spec, layout, fit.G, fit.T, expected=False)
    influence = data.n * local.scores @ bread.T
    if robust:
        weighted = influence * data.squared.ravel()[:, None]
        vcov = influence.T @ weighted / data.n**2
    else:
        vcov = to_theta @ inverse @ to_theta.T
    return Covariance(layout, vcov, influence, int((~keep).sum()))
