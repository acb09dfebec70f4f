"""The estimators of the joint table G: joint, local, partial, tied, known, two-view, moments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import IdentificationError
from causalfair.fairness._latent import (
    LatentFit,
    Spec,
    agreement_start,
    best_labelling,
    fit_latent,
    log_likelihood,
    make_spec,
    random_start,
    run_em,
    tables_from_views,
)
from causalfair.fairness._moments import (
    ThreeViews,
    binary_closed_form,
    diagonalise,
    tied_closed_form,
)
from causalfair.fairness._tensor import MAX_DENSE_CELLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.fairness._tensor import PatternCounts

N_RANDOM_STARTS = 4


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted model together with the data and the specification it was fitted to."""

    name: str
    data: PatternCounts
    spec: Spec
    fit: LatentFit
    affinity: tuple[FloatArray, ...]

    def tables(self, s: int = 0) -> list[FloatArray]:
        """Error matrices (K, L_j) of the proxies in stratum s."""
        return [self.fit.transition(self.spec, j, s) for j in range(self.data.n_proxies)]


def default_affinity(n_levels: Sequence[int], n_groups: int) -> tuple[FloatArray, ...]:
    """Level c of a proxy names group c; further levels name none."""
    return tuple(np.eye(levels, n_groups) for levels in n_levels)


def align_views(views: ThreeViews, affinity: Sequence[FloatArray]) -> ThreeViews:
    """Name the classes of a moment solution by the labels of the proxies."""
    W = sum(t @ affinity[j] for j, t in enumerate(views.tables))
    order, _ = best_labelling(views.prevalence[:, None] * np.asarray(W))
    return replace(
        views,
        prevalence=views.prevalence[order],
        tables=tuple(t[order] for t in views.tables),
    )


def three_view_solution(
    tensor: FloatArray, n_groups: int, rng: np.random.Generator
) -> ThreeViews | None:
    """Closed form for two groups and binary views, else diagonalisation; None without solution."""
    if n_groups == 2 and tensor.shape == (2, 2, 2):
        try:
            return binary_closed_form(tensor)
        except IdentificationError:
            return None
    return diagonalise(tensor, n_groups, rng=rng)


def best_triple(
    data: PatternCounts, n_groups: int, affinity: Sequence[FloatArray], rng: np.random.Generator
) -> tuple[tuple[int, int, int], ThreeViews] | None:
    """Best-conditioned three-view solution among all triples of proxies (strata pooled)."""
    best: tuple[tuple[int, int, int], ThreeViews] | None = None
    triples = list(combinations(range(data.n_proxies), 3))[:20]
    for triple in triples:
        if np.prod([float(data.n_levels[j]) for j in triple]) > MAX_DENSE_CELLS:
            continue
        tensor = data.views(triple).complete().pooled().dense()[0]
        if tensor.sum() <= 0:
            continue
        views = three_view_solution(tensor, n_groups, rng)
        if views is not None and (best is None or views.condition < best[1].condition):
            best = triple, views
    if best is None:
        return None
    triple, views = best
    return triple, align_views(views, [affinity[j] for j in triple])


def solve_triple(
    data: PatternCounts, n_groups: int, affinity: Sequence[FloatArray], rng: np.random.Generator
) -> tuple[FloatArray, list[FloatArray]] | None:
    """Group shares and one (K, L_j) table a proxy, from moments; None when they have no solution.

    Proxies outside the triple are calibrated with the tables of the triple.
    """
    if data.n_proxies < 3:
        return _two_views_and_stratum(data, n_groups, affinity, rng)
    found = best_triple(data, n_groups, affinity, rng)
    if found is None:
        return None
    triple, views = found
    tables: list[FloatArray] = [np.empty(0)] * data.n_proxies
    for position, j in enumerate(triple):
        tables[j] = views.tables[position]
    anchor = triple[0]
    for j in range(data.n_proxies):
        if j in triple:
            continue
        pair = data.views([anchor, j]).complete().pooled().dense()[0]
        joint = np.maximum(np.linalg.pinv(tables[anchor].T) @ (pair / pair.sum()), 1e-6)
        tables[j] = joint / joint.sum(axis=1, keepdims=True)
    return views.prevalence, tables


def _two_views_and_stratum(
    data: PatternCounts, n_groups: int, affinity: Sequence[FloatArray], rng: np.random.Generator
) -> tuple[FloatArray, list[FloatArray]] | None:
    if data.n_proxies < 2 or data.n_strata < n_groups:
        return None
    cube = np.moveaxis(data.views([0, 1]).complete().dense(), 0, 2)
    views = diagonalise(cube, n_groups, rng=rng)
    if views is None:
        return None
    two = replace(views, tables=views.tables[:2])
    aligned = align_views(two, affinity[:2])
    return aligned.prevalence, list(aligned.tables)


def start_values(
    data: PatternCounts,
    spec: Spec,
    affinity: Sequence[FloatArray],
    rng: np.random.Generator,
    n_random: int = N_RANDOM_STARTS,
) -> list[tuple[FloatArray, FloatArray]]:
    """Moment start where there is one, two agreement starts, random starts."""
    starts = []
    plain = bool((spec.rows == np.arange(spec.n_groups)).all())
    solved = solve_triple(data, spec.n_groups, affinity, rng) if plain else None
    if solved is not None:
        starts.append(tables_from_views(data, spec, *solved))
    starts += [agreement_start(data, spec, affinity, w) for w in (0.7, 0.9)]
    starts += [random_start(data, spec, affinity, rng) for _ in range(n_random)]
    return starts


def check_identified(data: PatternCounts, spec: Spec, *, opted_in: bool, anchored: bool) -> None:
    """Refuse models the data cannot identify.

    ``opted_in``: the caller asked for two proxies plus strata. ``anchored``: known tables, known
    shares or audited rows.
    """
    cells = float(data.n_strata) * float(np.prod(np.asarray(data.n_levels, dtype=float))) - 1.0
    if anchored:
        return
    views = data.n_proxies
    informative = int((data.stratum_totals() > 0).sum()) >= spec.n_groups
    if views >= 3 or (views == 2 and opted_in and informative):
        ranks = sorted(min(spec.n_groups, levels) for levels in data.n_levels)[-3:]
        ranks += [spec.n_groups] * (3 - len(ranks))
        if sum(ranks) >= 2 * spec.n_groups + 2 and spec.n_free <= cells:
            return
        raise IdentificationError(
            f"Not identified: the model has {spec.n_free} free parameters for {cells:.0f} "
            "free cell "
            f"probabilities and views of ranks {ranks} (their sum must reach "
            f"{2 * spec.n_groups + 2}). Add a proxy, merge groups, or give known error rates."
        )
    raise IdentificationError(
        f"Not identified: {views} {'proxy' if views == 1 else 'proxies'} cannot tell "
        f"{spec.n_groups} unseen groups apart. Add a proxy (three are enough), use two "
        "proxies with "
        "y_pred/y_true as the third view (model='two_view'), or give known error rates "
        "(model='known', transition=...), or audited rows (sensitive_features=...)."
    )


def fit_joint(
    name: str,
    data: PatternCounts,
    spec: Spec,
    affinity: tuple[FloatArray, ...],
    rng: np.random.Generator,
    *,
    n_random: int = N_RANDOM_STARTS,
    warm: tuple[FloatArray, FloatArray] | None = None,
    check_labels: bool = True,
) -> Model:
    """Maximum likelihood from several starts (plus a warm start where given)."""
    starts = start_values(data, spec, affinity, rng, n_random)
    if warm is not None:
        starts.insert(0, warm)
    fit = fit_latent(data, spec, affinity, starts, check_labels=check_labels)
    return Model(name, data, spec, fit, affinity)


def table_distance(
    fit: LatentFit, spec: Spec, s: int, reference: Sequence[FloatArray]
) -> FloatArray:
    """D[a, b]: squared distance of class a's rows in stratum s to group b's reference rows."""
    n_groups = spec.n_groups
    D = np.zeros((n_groups, n_groups))
    for j, table in enumerate(reference):
        rows = fit.transition(spec, j, s)
        D += ((rows[:, None, :] - table[None, :, :]) ** 2).sum(axis=2)
    return D


def fit_local(
    data: PatternCounts, reference: Model, rng: np.random.Generator, *, pseudo_count: float = 0.0
) -> Model:
    """A model of its own inside every stratum; classes named as in ``reference``."""
    m, n_groups = data.n_proxies, reference.spec.n_groups
    version = np.tile(np.arange(data.n_strata)[:, None], (1, m))
    spec = make_spec(data, n_groups, vary=version, pseudo_count=pseudo_count)
    G = np.zeros((data.n_strata, n_groups))
    T = np.zeros(spec.known.shape)
    named = reference.tables()
    worst = np.inf
    for s in range(data.n_strata):
        rows = [int(spec.tables[s, j]) for j in range(m)]
        if data.counts[s].sum() == 0:
            for j in range(m):
                T[rows[j], :, : data.n_levels[j]] = named[j]
            continue
        part = data.strata([s])
        single = make_spec(part, n_groups, pseudo_count=pseudo_count)
        warm = tables_from_views(part, single, np.maximum(reference.fit.prevalence, 1e-3), named)
        fitted = fit_joint(
            "local",
            part,
            single,
            reference.affinity,
            rng,
            n_random=2,
            warm=warm,
            check_labels=False,
        ).fit
        order, _ = best_labelling(-table_distance(fitted, single, 0, named))
        G[s] = part.n / data.n * fitted.prevalence[order]
        for j in range(m):
            T[rows[j], :, : data.n_levels[j]] = fitted.transition(single, j)[order]
        worst = min(worst, fitted.label_margin)
    loglik = log_likelihood(data, spec, G, T)
    fit = LatentFit(G, T, loglik, gradient=0.0, label_margin=worst)
    return Model("local", data, spec, fit, reference.affinity)


def fit_partial(
    data: PatternCounts,
    reference: Model,
    by: str,
    *,
    proxies: Sequence[int] | None = None,
    pseudo_count: float = 0.0,
) -> Model:
    """Error matrices that vary with the decision (``"prediction"``) or the label (``"label"``)."""
    stratum = np.arange(data.n_strata)
    level = stratum // data.n_labels if by == "prediction" else stratum % data.n_labels
    version = np.zeros((data.n_strata, data.n_proxies), dtype=np.intp)
    which = range(data.n_proxies) if proxies is None else proxies
    for j in which:
        version[:, j] = level
    spec = make_spec(data, reference.spec.n_groups, vary=version, pseudo_count=pseudo_count)
    T = np.zeros(spec.known.shape)
    for j, table in enumerate(reference.tables()):
        for r in np.unique(spec.tables[:, j]):
            T[r, :, : table.shape[1]] = table
    from causalfair.fairness._information import newton_polish

    fit = newton_polish(data, spec, run_em(data, spec, reference.fit.G, T))
    fit = replace(fit, loglik=log_likelihood(data, spec, fit.G, fit.T))
    return Model(f"partial ({by})", data, spec, fit, reference.affinity)


def linear_joint(data: PatternCounts, tables: Sequence[FloatArray]) -> FloatArray:
    """G (S, K) by weighted least squares of the cells on the known class profiles, unclipped.

    Linear in the counts: G_s = q_s D^{-1} L' (L D^{-1} L')^{-1} with L[a, c] = prod_j T_j[a, c_j]
    and
    D the pooled pattern distribution. Uses every proxy with its precision, and the rows of G / p
    sum to one because all of it comes from the same tables.
    """
    complete = data.complete()
    q = complete.counts / complete.n
    L = np.ones((tables[0].shape[0], len(complete.patterns)))
    for j, table in enumerate(tables):
        L *= table[:, complete.patterns[:, j]]
    weighted = L / q.sum(axis=0)
    return np.asarray(np.linalg.solve(weighted @ L.T, weighted @ q.T).T)


def fit_moments(
    data: PatternCounts, n_groups: int, affinity: tuple[FloatArray, ...], rng: np.random.Generator
) -> Model:
    """Closed form or simultaneous diagonalisation, then calibration; no likelihood involved."""
    solved = solve_triple(data, n_groups, affinity, rng)
    if solved is None:
        raise IdentificationError(
            "The moments of the proxies have no latent-class solution (no three of them give a "
            "well-conditioned pair matrix with real, distinct eigenvalues). Either the sample is "
            "small, a proxy is uninformative, or the proxies depend on each other given the group. "
            "Use model='joint' and look at fit_tests()."
        )
    spec = make_spec(data, n_groups)
    return Model("moments", data, spec, _moment_fit(data, spec, solved[1]), affinity)


def _moment_fit(data: PatternCounts, spec: Spec, tables: Sequence[FloatArray]) -> LatentFit:
    G = linear_joint(data, tables)
    T = np.zeros(spec.known.shape)
    for j, table in enumerate(tables):
        T[spec.tables[0, j], : table.shape[0], : table.shape[1]] = table
    inside = np.maximum(G, 1e-12)
    loglik = log_likelihood(data, spec, inside / inside.sum(), T)
    return LatentFit(G, T, loglik, gradient=np.nan)


def fit_tied(
    data: PatternCounts,
    n_groups: int,
    affinity: tuple[FloatArray, ...],
    rng: np.random.Generator,
) -> Model:
    """One table for all proxies, as first published: closed form (three binary views) or EM."""
    if n_groups == 2 and data.n_levels == (2, 2, 2) and (data.patterns >= 0).all():
        p1, table = tied_closed_form(data.pooled().dense()[0])
        if not 0.0 < p1 < 1.0 or table.min() < -1e-12:
            raise IdentificationError(
                f"The tied moments have no latent-class solution (share {p1:.3g}, table "
                f"{np.round(table, 3).tolist()}). The proxies are hardly identically distributed; "
                "use model='joint'."
            )
        spec = make_spec(data, 2, tied=True)
        joint = sum(data.margin(j) for j in range(3)) / (3.0 * data.n)
        G = np.asarray(joint) @ np.linalg.inv(table)
        T = table[None].copy()
        inside = np.maximum(G, 1e-12)
        loglik = log_likelihood(data, spec, inside / inside.sum(), T)
        return Model("tied", data, spec, LatentFit(G, T, loglik), affinity)
    return fit_joint("tied", data, make_spec(data, n_groups, tied=True), affinity, rng)


def stratum_labels(data: PatternCounts) -> IntArray:
    """Decision and label of each stratum: (n_strata, 2)."""
    s = np.arange(data.n_strata)
    return np.stack([s // data.n_labels, s % data.n_labels], axis=1)
