"""Latent-class likelihood on the count table: specification, EM, Newton steps, starts, labels.

The model is P(s, c_1..c_m) = sum_a G[s, a] prod_j T_j[a, c_j]. Tables T may differ by stratum, be
shared between proxies, be known, or be shared between classes; all of these are index arrays in
:class:`Spec`, so that one EM, one gradient and one Hessian serve every model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import IdentificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import BoolArray, FloatArray, IntArray
    from causalfair.fairness._tensor import PatternCounts

EM_MAX_ITER = 5000
EM_TOL = 1e-12
START_TOL = 1e-9
MODE_WINDOW = 2.0
MIN_LABEL_MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Spec:
    """Which parameters the model has and where each cell uses them.

    Attributes
    ----------
    n_groups : int
    table_levels : (R,) tuple of int
        Number of columns of each table.
    tables : (n_strata, m) int array
        Table used by proxy j in stratum s.
    rows : (m, K) int array
        Row of its table used by class a; ``range(K)`` unless classes are intersections.
    table_rows : (R,) tuple of int
        Number of rows of each table.
    fixed : (R,) bool array
        Tables that are known.
    known : (R, K_max, L_max) float array
        Values of the known tables (zero elsewhere).
    shares : (K,) or (0,) float array
        Known group shares, or empty.
    prior_g : float
        Pseudo-count added to every entry of G.
    prior_t : (R, K_max, L_max) float array
        Pseudo-counts, or counts of an external validation sample, added to the tables.
    """

    n_groups: int
    table_levels: tuple[int, ...]
    tables: IntArray
    rows: IntArray
    table_rows: tuple[int, ...]
    fixed: BoolArray
    known: FloatArray
    shares: FloatArray
    prior_g: float
    prior_t: FloatArray

    @property
    def n_strata(self) -> int:
        """Number of strata."""
        return int(self.tables.shape[0])

    @property
    def n_free(self) -> int:
        """Number of free parameters."""
        free_g = self.n_strata * self.n_groups - 1
        if self.shares.size:
            free_g = (self.n_strata - 1) * self.n_groups
        used = set(np.unique(self.tables).tolist())
        return free_g + sum(
            n_rows * (n_levels - 1)
            for r, (n_rows, n_levels) in enumerate(
                zip(self.table_rows, self.table_levels, strict=True)
            )
            if r in used and not self.fixed[r]
        )


def make_spec(
    data: PatternCounts,
    n_groups: int,
    *,
    transition: Sequence[FloatArray | None] | None = None,
    transition_counts: Sequence[FloatArray | None] | None = None,
    shares: FloatArray | None = None,
    tied: bool = False,
    vary: IntArray | None = None,
    rows: IntArray | None = None,
    pseudo_count: float = 0.0,
) -> Spec:
    """Describe a model for ``data``.

    Parameters
    ----------
    transition : sequence of (K, L_j) arrays or None
        Known error matrices, one entry a proxy.
    transition_counts : sequence of (K, L_j) arrays or None
        Counts of a validation sample (true group by proxy): they enter the likelihood.
    shares : (K,) array, optional
        Known group shares.
    tied : bool
        One table for all proxies.
    vary : (n_strata, m) int array, optional
        Label of the table version proxy j uses in stratum s (0 everywhere: one version).
    rows : (m, K) int array, optional
        Row of the table used by each class.
    pseudo_count : float
        Dirichlet pseudo-count on every entry.
    """
    m, n_strata = data.n_proxies, data.n_strata
    version = np.zeros((n_strata, m), dtype=np.intp) if vary is None else vary
    owner = np.zeros(m, dtype=np.intp) if tied else np.arange(m)
    keys: dict[tuple[int, int], int] = {}
    tables = np.empty((n_strata, m), dtype=np.intp)
    for j in range(m):
        for s in range(n_strata):
            key = (int(owner[j]), int(version[s, j]))
            tables[s, j] = keys.setdefault(key, len(keys))
    class_rows = np.tile(np.arange(n_groups), (m, 1)) if rows is None else rows.astype(np.intp)
    first = [k[0] for k in keys]
    levels = tuple(data.n_levels[j] for j in first)
    table_rows = tuple(int(class_rows[j].max()) + 1 for j in first)
    shape = (len(keys), max(table_rows), max(levels))
    known, prior = np.zeros(shape), np.zeros(shape)
    fixed = np.zeros(len(keys), dtype=np.bool_)
    for r, j in enumerate(first):
        if pseudo_count > 0:
            prior[r, : table_rows[r], : levels[r]] = pseudo_count
        matrix = None if transition is None else transition[j]
        if matrix is not None:
            fixed[r] = True
            known[r, : table_rows[r], : levels[r]] = matrix
        seen = None if transition_counts is None else transition_counts[j]
        if seen is not None:
            prior[r, : table_rows[r], : levels[r]] += seen
    return Spec(
        n_groups,
        levels,
        tables,
        np.ascontiguousarray(class_rows),
        table_rows,
        fixed,
        known,
        np.empty(0) if shares is None else np.asarray(shares, dtype=np.float64),
        float(pseudo_count),
        prior,
    )


@dataclass(frozen=True, slots=True)
class LatentFit:
    """A fitted latent-class model.

    Attributes
    ----------
    G : (n_strata, K) float array
        Joint probabilities of stratum and group.
    T : (R, K_max, L_max) float array
        Tables, padded with zeros.
    loglik : float
        Log-likelihood, without the prior.
    gradient : float
        Largest entry of the score per row, on the log-probability scale.
    n_steps : int
        EM steps of the best start.
    converged : bool
    n_starts, n_at_best : int
        Starts tried, and starts that reached the best likelihood within 1e-6 per row.
    other_mode : float
        Distance in log-likelihood to the nearest distinct local mode found; inf if none.
    label_margin : float
        Agreement of the best labelling minus that of the second best.
    """

    G: FloatArray
    T: FloatArray
    loglik: float
    gradient: float = np.nan
    n_steps: int = 0
    converged: bool = True
    n_starts: int = 1
    n_at_best: int = 1
    other_mode: float = np.inf
    label_margin: float = np.inf
    start_logliks: FloatArray = field(default_factory=lambda: np.empty(0))

    @property
    def prevalence(self) -> FloatArray:
        """Group shares (K,)."""
        return np.asarray(self.G.sum(axis=0))

    def transition(self, spec: Spec, j: int, s: int = 0) -> FloatArray:
        """Error matrix of proxy j in stratum s, one row a group: (K, L_j)."""
        r = int(spec.tables[s, j])
        return np.asarray(self.T[r][spec.rows[j], : spec.table_levels[r]])


def class_probabilities(
    data: PatternCounts, spec: Spec, G: FloatArray, T: FloatArray
) -> FloatArray:
    """Joint probability of group, stratum and pattern: (n_strata, n_patterns, K)."""
    m = data.n_proxies
    out = np.empty((data.n_strata, len(data.patterns), spec.n_groups))
    for s in range(data.n_strata):
        emission = np.ones((len(data.patterns), spec.n_groups))
        for j in range(m):
            level = data.patterns[:, j]
            table = T[spec.tables[s, j]][spec.rows[j]]  # (K, L)
            emission *= np.where(level[:, None] >= 0, table[:, level].T, 1.0)
        out[s] = emission * G[s]
    return out


def log_likelihood(data: PatternCounts, spec: Spec, G: FloatArray, T: FloatArray) -> float:
    """Log-likelihood of the counts, without the prior."""
    q = class_probabilities(data, spec, G, T).sum(axis=2)
    seen = data.counts > 0
    with np.errstate(divide="ignore"):
        return float((data.counts[seen] * np.log(q[seen])).sum())


def run_em(
    data: PatternCounts,
    spec: Spec,
    G: FloatArray,
    T: FloatArray,
    *,
    max_iter: int = EM_MAX_ITER,
    tol: float = EM_TOL,
) -> LatentFit:
    """EM with acceleration from one start."""
    from causalfair.fairness import _kernels

    G, T = G.copy(), T.copy()
    loglik, steps, converged = _kernels.em_fit(
        data.counts,
        data.patterns,
        spec.tables,
        spec.rows,
        spec.fixed,
        spec.shares,
        spec.prior_g,
        spec.prior_t,
        G,
        T,
        max_iter,
        tol,
    )
    return LatentFit(G, T, float(loglik), n_steps=int(steps), converged=bool(converged))


# ---------------------------------------------------------------------------------- start values
def _pad(spec: Spec, per_table: Sequence[FloatArray]) -> FloatArray:
    T = spec.known.copy()
    for r, table in enumerate(per_table):
        if not spec.fixed[r]:
            T[r, : spec.table_rows[r], : spec.table_levels[r]] = table[: spec.table_rows[r]]
    return T


def level_shares(data: PatternCounts) -> list[FloatArray]:
    """Observed distribution of the levels of each proxy."""
    out = []
    for j in range(data.n_proxies):
        total = data.margin(j).sum(axis=0)
        out.append(total / total.sum())
    return out


def agreement_start(
    data: PatternCounts, spec: Spec, affinity: Sequence[FloatArray], weight: float
) -> tuple[FloatArray, FloatArray]:
    """Start at proxies that agree with the truth with posterior weight ``weight``.

    ``affinity[j]`` (L_j, K) says how far level c of proxy j speaks for group b.
    """
    shares = spec.shares if spec.shares.size else np.full(spec.n_groups, 1.0 / spec.n_groups)
    G = np.outer(data.stratum_totals() / data.n, shares)
    marginal = level_shares(data)
    per_table: list[FloatArray] = [np.empty(0)] * len(spec.table_levels)
    for j in range(data.n_proxies):
        for r in np.unique(spec.tables[:, j]):
            posterior = weight * affinity[j] + (1 - weight) / spec.n_groups  # (L, K)
            full = np.maximum(marginal[j][:, None], 1e-3) * posterior
            table = np.zeros((spec.table_rows[r], spec.table_levels[r]))
            for a in range(spec.n_groups):
                table[spec.rows[j, a]] += full[:, a]
            per_table[r] = table / table.sum(axis=1, keepdims=True)
    return G, _pad(spec, per_table)


def random_start(
    data: PatternCounts, spec: Spec, affinity: Sequence[FloatArray], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Start at T = 0.6 agreement + 0.4 Dirichlet and Dirichlet group shares."""
    G, T = agreement_start(data, spec, affinity, 0.8)
    if not spec.shares.size:
        G = np.outer(G.sum(axis=1), rng.dirichlet(np.full(spec.n_groups, 4.0)))
    # break the independence of stratum and group
    G = G * rng.uniform(0.6, 1.4, size=G.shape)
    G = G / G.sum(axis=0) * spec.shares if spec.shares.size else G / G.sum()
    noise = [
        rng.dirichlet(np.ones(n_levels), size=n_rows)
        for n_rows, n_levels in zip(spec.table_rows, spec.table_levels, strict=True)
    ]
    noisy = [
        0.6 * T[r, : spec.table_rows[r], : spec.table_levels[r]] + 0.4 * noise[r]
        for r in range(len(noise))
    ]
    return G, _pad(spec, noisy)


def tables_from_views(
    data: PatternCounts, spec: Spec, prevalence: FloatArray, views: Sequence[FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Start at given (K, L_j) matrices, one a proxy, and group shares."""
    per_table: list[FloatArray] = [np.empty(0)] * len(spec.table_levels)
    for j, table in enumerate(views):
        safe = np.maximum(table, 1e-6)
        safe = safe / safe.sum(axis=1, keepdims=True)
        for r in np.unique(spec.tables[:, j]):
            rows = np.zeros((spec.table_rows[r], safe.shape[1]))
            for a in range(spec.n_groups):
                rows[spec.rows[j, a]] += prevalence[a] * safe[a]
            per_table[r] = rows / rows.sum(axis=1, keepdims=True)
    shares = spec.shares if spec.shares.size else np.maximum(prevalence, 1e-6)
    G = np.outer(data.stratum_totals() / data.n, shares / shares.sum())
    return G, _pad(spec, per_table)


# ------------------------------------------------------------------------------------ the labels
def agreement_matrix(
    data: PatternCounts, spec: Spec, fit: LatentFit, affinity: Sequence[FloatArray]
) -> FloatArray:
    """W[a, b] = sum_j P(class a) P(proxy j speaks for group b | class a)."""
    share = fit.G.sum(axis=1)
    W = np.zeros((spec.n_groups, spec.n_groups))
    for j in range(data.n_proxies):
        for s in range(data.n_strata):
            W += share[s] * fit.transition(spec, j, s) @ affinity[j]
    return fit.prevalence[:, None] * W


def best_labelling(W: FloatArray) -> tuple[IntArray, float]:
    """Permutation ``order`` (group b is class order[b]) with the largest agreement, and its margin.

    The margin is the agreement of the best labelling minus that of the second best.
    """
    from scipy.optimize import linear_sum_assignment

    n_groups = len(W)
    if n_groups <= 6:
        labels = np.arange(n_groups)
        every = list(permutations(range(n_groups)))
        scores = np.array([W[list(p), labels].sum() for p in every])
        ranked = np.argsort(-scores, kind="stable")
        return np.array(every[ranked[0]]), float(scores[ranked[0]] - scores[ranked[1]])
    classes, groups = linear_sum_assignment(-W)
    order = np.empty(n_groups, dtype=np.intp)
    order[groups] = classes
    best = W[order, np.arange(n_groups)].sum()
    second = -np.inf
    for b in range(n_groups):  # forbid each pair of the best labelling in turn
        barred = W.copy()
        barred[order[b], b] = -1e9
        r, c = linear_sum_assignment(-barred)
        second = max(second, float(barred[r, c].sum()))
    return order, float(best - second)


def permute(fit: LatentFit, spec: Spec, order: IntArray) -> LatentFit:
    """Rename the classes: group b becomes class ``order[b]``. Needs one table row a class."""
    from dataclasses import replace

    T = fit.T.copy()
    free = ~spec.fixed
    T[free] = fit.T[free][:, order]
    return replace(fit, G=np.ascontiguousarray(fit.G[:, order]), T=T)


def can_relabel(spec: Spec) -> bool:
    """Classes can be renamed when nothing known names them already."""
    plain = bool((spec.rows == np.arange(spec.n_groups)).all())
    return plain and not spec.fixed.any() and not spec.shares.size and not spec.prior_t.any()


# ------------------------------------------------------------------------------------- the driver
def fit_latent(
    data: PatternCounts,
    spec: Spec,
    affinity: Sequence[FloatArray],
    starts: Sequence[tuple[FloatArray, FloatArray]],
    *,
    check_labels: bool = True,
) -> LatentFit:
    """Maximise the likelihood from several starts, name the classes, polish the best.

    Raises
    ------
    IdentificationError
        When the labels of the classes are not determined by the proxies.
    """
    from dataclasses import replace

    from causalfair.fairness._information import newton_polish

    fits = [run_em(data, spec, G, T, tol=START_TOL) for G, T in starts]
    logliks = np.array([f.loglik for f in fits])
    best = int(np.argmax(logliks))
    n = data.n
    near = logliks >= logliks[best] - 1e-6 * n
    fit = run_em(data, spec, fits[best].G, fits[best].T)
    fit = newton_polish(data, spec, fit)
    rivals = logliks[(~near) & np.isfinite(logliks)]
    gap = float(fit.loglik - rivals.max()) if rivals.size else np.inf
    fit = replace(
        fit,
        loglik=log_likelihood(data, spec, fit.G, fit.T),
        n_starts=len(fits),
        n_at_best=int(near.sum()),
        other_mode=gap,
        start_logliks=logliks,
        n_steps=fits[best].n_steps + fit.n_steps,
    )
    if not can_relabel(spec):
        return fit
    order, margin = best_labelling(agreement_matrix(data, spec, fit, affinity))
    if check_labels and margin < MIN_LABEL_MARGIN:
        raise IdentificationError(
            f"Labels not determined: the best way of naming the {spec.n_groups} groups beats the "
            f"second best by only {margin:.3g} (at least {MIN_LABEL_MARGIN} is needed), so the "
            "proxies do not say which group is which. Use more accurate proxies, give known group "
            "shares (prevalence=) or a few rows with the attribute seen (sensitive_features=)."
        )
    return replace(permute(fit, spec, order), label_margin=margin)
