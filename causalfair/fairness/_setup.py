"""From constructor parameters and counts to a fitted model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.frames import CovariateEncoder, is_lazy
from causalfair._core.random import generator
from causalfair._core.roles import RoleData
from causalfair.exceptions import ParameterError
from causalfair.fairness._count import check_tensor
from causalfair.fairness._diagnostics import warn_shares
from causalfair.fairness._encode import (
    OWNER,
    Rows,
    bin_soft,
    check_levels,
    check_soft,
    cluster_cells,
    is_soft,
    read_lazy,
    read_rows,
    to_counts,
)
from causalfair.fairness._factored import factor_rows, fit_factored
from causalfair.fairness._inference import Audit
from causalfair.fairness._latent import Spec, make_spec
from causalfair.fairness._models import (
    Model,
    check_identified,
    default_affinity,
    fit_joint,
    fit_local,
    fit_moments,
    fit_tied,
)
from causalfair.fairness._soft import SoftMoments, fit_soft

if TYPE_CHECKING:
    from causalfair._core.typing import ArrayLike, FloatArray, IntArray
    from causalfair.fairness._tensor import PatternCounts

MODELS = ("joint", "local", "moments", "tied", "known", "two_view", "bayes")
MODEL_CITATIONS = {
    "two_view": ("hui1980estimating",),
    "moments": ("anandkumar2014tensor",),
    "tied": ("zhu2021clusterability",),
    "known": ("bolck2004estimating",),
}
MAX_CONDITION = 1e8


def check_groups(estimator: Any) -> None:
    """Rules between parameters.

    Raises
    ------
    ParameterError
    """
    K = estimator.n_groups
    if K < 2:
        raise ParameterError(f"n_groups={K}: there is nothing to compare; at least 2 are needed.")
    if (estimator.factors is None) != (estimator.proxy_factor is None):
        raise ParameterError("factors and proxy_factor belong together; give both or neither.")
    if estimator.factors is not None and int(np.prod(estimator.factors)) != K:
        raise ParameterError(
            f"n_groups={K} must be the product of factors={tuple(estimator.factors)}."
        )
    if estimator.factors is not None:
        _check_factored(estimator)
    if estimator.model == "known" and estimator.transition is None:
        raise ParameterError(
            "model='known' needs transition=, a list with one (K, L_j) error matrix a proxy (None "
            "for proxies whose matrix is unknown)."
        )


def _check_factored(estimator: Any) -> None:
    if estimator.model != "joint":
        raise ParameterError(f"factors= needs model='joint'; got model={estimator.model!r}.")
    for name in ("transition", "transition_counts", "prevalence"):
        if getattr(estimator, name) is not None:
            raise ParameterError(
                f"factors= cannot be combined with {name}=: the levels of each factor are named by "
                "the proxies alone. Leave one of the two out."
            )


def read(
    estimator: Any, X: Any, y_pred: Any, **roles: Any
) -> tuple[Rows, PatternCounts, SoftMoments | None]:
    """Read rows, count them, and keep the soft probabilities where the model uses moments."""
    K = estimator.n_groups
    if estimator.factors is not None and (is_soft(X) or roles["sensitive_features"] is not None):
        raise ParameterError(
            f"{OWNER}: factors= takes proxies as levels, and no sensitive_features."
        )
    if is_lazy(X):
        rows = read_lazy(X, y_pred, **roles)
    elif is_soft(X):
        check_soft(X, owner=OWNER)
        if X.shape[2] != K:
            raise ParameterError(
                f"{OWNER} got soft proxies for {X.shape[2]} groups, but n_groups={K}."
            )
        codes, affinity = bin_soft(X, estimator.n_bins)
        rows = replace(read_rows(codes, y_pred, **roles), affinity=affinity)
        if estimator.model == "moments":
            return rows, to_counts(rows, K), SoftMoments.of(X, rows)
    else:
        rows = read_rows(X, y_pred, **roles)
    data = to_counts(rows, K)
    names = rows.proxy_names
    visible = data if rows.audited is None else data.views(range(len(names)))
    check_levels(visible, needed_levels(estimator), names, owner=OWNER)
    return rows, data, None


def needed_levels(estimator: Any) -> int:
    """Levels a proxy must show: as many as groups, or as levels of the smallest factor."""
    return min(estimator.factors) if estimator.factors is not None else int(estimator.n_groups)


def read_counts(N: ArrayLike, missing: Any) -> tuple[PatternCounts, RoleData]:
    """Counts of ``from_counts``, with a description of where they came from."""
    import pandas as pd

    data = check_tensor(N, missing)
    role_data = RoleData(
        n=round(data.n),
        y=None,
        roles={"counts": np.asarray(N, dtype=np.float64).ravel()},
        names={"counts": "tensor of counts"},
        covariates=pd.DataFrame(),
        encoder=CovariateEncoder((), {}),
        modifiers=(),
        cluster=None,
        sample_weight=None,
        backend="numpy",
        owner="ProxyFairness.from_counts",
    )
    return data, role_data


def check_transition(
    transition: Any, data: PatternCounts, n_groups: int, n_proxies: int, name: str
) -> list[FloatArray | None] | None:
    """One (K, L_j) matrix or None a proxy, rows summing to one, not singular."""
    if transition is None:
        return None
    given = transition
    if isinstance(given, np.ndarray) and given.ndim == 2:
        given = [given]
    given = list(given)
    if len(given) == n_groups and np.ndim(given[0]) == 1 and n_proxies == 1:
        given = [given]
    if len(given) != n_proxies:
        raise ParameterError(
            f"{name} has {len(given)} entries, but there are {n_proxies} proxies; give one "
            "(K, L_j) "
            "matrix a proxy, or None where it is unknown."
        )
    out: list[FloatArray | None] = []
    for j, matrix in enumerate(given):
        if matrix is None:
            out.append(None)
            continue
        table = _numbers(matrix, f"{name}[{j}]")
        if table.shape != (n_groups, data.n_levels[j]):
            raise ParameterError(
                f"{name}[{j}] has shape {table.shape}; it needs "
                f"{(n_groups, data.n_levels[j])}: one "
                "row a group, one column a level of the proxy."
            )
        if not np.isfinite(table).all() or (table < 0).any():
            raise ParameterError(f"{name}[{j}] has negative or missing entries.")
        if name == "transition":
            _check_probabilities(table, j)
        out.append(table)
    return out


def _numbers(value: Any, name: str) -> FloatArray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ParameterError(
            f"{name} is not a table of numbers: {value!r}. Rows of a matrix need equal lengths."
        ) from None


def _check_probabilities(table: FloatArray, j: int) -> None:
    condition = float(np.linalg.cond(table))
    total = table.sum(axis=1)
    if (np.abs(total - 1.0) > 1e-6).any():
        row = int(np.argmax(np.abs(total - 1.0)))
        raise ParameterError(
            f"transition[{j}]: row {row} sums to {total[row]:.6g}, not 1 (condition number "
            f"{condition:.3g}). Row a holds P(proxy = c | group = a)."
        )
    if condition > MAX_CONDITION:
        raise ParameterError(
            f"transition[{j}] is singular (condition number {condition:.3g}): the proxy "
            "says nothing "
            "about some group."
        )


def check_shares(prevalence: Any, n_groups: int) -> FloatArray | None:
    """Known group shares: K positive numbers summing to one."""
    if prevalence is None:
        return None
    shares = _numbers(prevalence, "prevalence")
    if shares.shape != (n_groups,) or not np.isfinite(shares).all() or (shares <= 0).any():
        raise ParameterError(
            f"prevalence={prevalence!r} must be {n_groups} positive shares, one a group."
        )
    if abs(float(shares.sum()) - 1.0) > 1e-6:
        raise ParameterError(f"prevalence sums to {shares.sum():.6g}, not 1.")
    return shares


def fit_audit(
    estimator: Any,
    data: PatternCounts,
    rows: Rows | None,
    root: np.random.SeedSequence,
    soft: SoftMoments | None,
    names: tuple[str, ...] = (),
) -> Audit:
    """Fit the chosen model and describe the sampling of the rows."""
    K = estimator.n_groups
    names = names or (rows.proxy_names if rows is not None else ())
    m = len(names)
    affinity = default_affinity(data.n_levels, K)
    if rows is not None and rows.affinity is not None:
        affinity = (*rows.affinity, *affinity[m:])
    if estimator.factors is not None:
        affinity = _factor_affinity(estimator, data, m)
    units, codes = None, None
    if rows is not None and rows.cluster is not None:
        units, codes = cluster_cells(rows, data)
    weighted = rows is not None and rows.weighted
    rng = generator(root, 0)
    if soft is not None:
        model, law = fit_soft(data, soft, K, rng)
        return Audit(model, units, codes, weighted, root, law=law)
    spec = _make_spec(estimator, data, m)
    model = _fit_model(estimator, data, spec, affinity, rng)
    audit = Audit(model, units, codes, weighted, root)
    if estimator.model == "bayes":
        from causalfair.fairness._bayes import with_posterior

        return with_posterior(audit, estimator)
    return audit


def _factor_affinity(estimator: Any, data: PatternCounts, m: int) -> tuple[FloatArray, ...]:
    """Level c of a proxy of factor f speaks for every group whose factor f is c."""
    class_rows = factor_rows(estimator.factors, estimator.proxy_factor, m)
    return tuple(
        np.eye(data.n_levels[j], int(class_rows[j].max()) + 1)[:, class_rows[j]]
        / (class_rows[j] == 0).sum()
        for j in range(m)
    )


def _make_spec(estimator: Any, data: PatternCounts, m: int) -> Spec:
    K = estimator.n_groups
    transition = check_transition(estimator.transition, data, K, m, "transition")
    counts = check_transition(estimator.transition_counts, data, K, m, "transition_counts")
    shares = check_shares(estimator.prevalence, K)
    if data.n_proxies > m:  # the audited view: its error matrix is the identity
        transition = [*(transition or [None] * m), np.eye(K)]
        counts = None if counts is None else [*counts, None]
    class_rows: IntArray | None = None
    if estimator.factors is not None:
        class_rows = factor_rows(estimator.factors, estimator.proxy_factor, m)
    return make_spec(
        data,
        K,
        transition=transition,
        transition_counts=counts,
        shares=shares,
        rows=class_rows,
        pseudo_count=float(estimator.pseudo_count),
    )


def _fit_model(
    estimator: Any,
    data: PatternCounts,
    spec: Spec,
    affinity: tuple[FloatArray, ...],
    rng: np.random.Generator,
) -> Model:
    kind = estimator.model
    anchored = bool(spec.fixed.any()) or estimator.transition_counts is not None
    if estimator.factors is not None:
        return fit_factored(data, spec, affinity, rng, estimator.factors, estimator.proxy_factor)
    if kind in ("moments", "tied", "local") and (anchored or spec.shares.size):
        raise ParameterError(
            f"model={kind!r} does not use transition, transition_counts, prevalence or "
            "sensitive_features; use model='joint' or 'known', which do."
        )
    if kind in ("moments", "tied", "local") and data.n_proxies < 3:
        check_identified(data, spec, opted_in=False, anchored=False)
    opted_in = kind == "two_view" or bool(spec.shares.size)
    check_identified(data, spec, opted_in=opted_in, anchored=anchored)
    if kind == "moments":
        return fit_moments(data, estimator.n_groups, affinity, rng)
    if kind == "tied":
        if len(set(data.n_levels)) > 1:
            raise ParameterError(
                f"model='tied' needs proxies with the same levels; they have {data.n_levels}."
            )
        return fit_tied(data, estimator.n_groups, affinity, rng)
    n_random = estimator.n_starts
    joint = fit_joint("joint", data, spec, affinity, rng, n_random=n_random)
    if kind == "local":
        return fit_local(data, joint, rng, pseudo_count=float(estimator.pseudo_count))
    if spec.shares.size and not spec.fixed.any():
        _check_supplied_shares(joint, rng)
    return replace(joint, name=kind)


def _check_supplied_shares(joint: Model, rng: np.random.Generator) -> None:
    statistic, p_value, free = shares_test(joint, rng)
    if np.isfinite(statistic):
        warn_shares(statistic, p_value, joint.fit.prevalence, free)


def shares_test(joint: Model, rng: np.random.Generator) -> tuple[float, float, FloatArray]:
    """Likelihood ratio of supplied shares against free ones; nan where they are needed."""
    from scipy.special import chdtrc

    free_spec = replace(joint.spec, shares=np.empty(0))
    cells = joint.data.n_strata * float(np.prod(np.array(joint.data.n_levels, dtype=float)))
    if free_spec.n_free > cells - 1 or joint.data.n_proxies < 3:
        return np.nan, np.nan, np.empty(0)
    warm = (joint.fit.G, joint.fit.T)
    free = fit_joint(
        "joint",
        joint.data,
        free_spec,
        joint.affinity,
        rng,
        n_random=2,
        warm=warm,
        check_labels=False,
    )
    df = joint.spec.n_groups - 1
    statistic = max(2.0 * (free.fit.loglik - joint.fit.loglik), 0.0)
    return statistic, float(chdtrc(df, statistic)), free.fit.prevalence
