"""Direct, weighted, global, partial, local and bounds side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import CausalFairError
from causalfair.fairness._bounds import (
    BoundPieces,
    Signal,
    imbens_manski,
    label_rate_bounds,
    parity_bounds,
)
from causalfair.fairness._gaps import wald_gaps
from causalfair.fairness._inference import (
    Audit,
    JointCovariance,
    joint_covariance,
    smooth_estimates,
)
from causalfair.fairness._latent import LatentFit, class_probabilities
from causalfair.fairness._metrics import GroupMetric, group_metric, group_pairs
from causalfair.fairness._models import Model, fit_local, fit_partial
from causalfair.fairness._moments import proxy_posterior
from causalfair.fairness._results import AuditTable, interval_plot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causalfair._core.typing import BoolArray, FloatArray, IntArray
    from causalfair.fairness._tensor import PatternCounts

COLUMNS = (
    "method",
    "term",
    "estimate",
    "std_error",
    "conf_low",
    "conf_high",
    "bound_low",
    "bound_high",
    "reason",
)


def count_law(data: PatternCounts, weights: FloatArray) -> JointCovariance:
    """Law of G[s, a] = sum_c q[s, c] w[c, a], linear in the counts; weights (P, K)."""
    n_strata, n_patterns = data.counts.shape
    n_groups = weights.shape[1]
    G = data.counts / data.n @ weights
    influence = np.zeros((n_strata, n_patterns, n_strata, n_groups))
    for s in range(n_strata):
        influence[s, :, s, :] = weights
    flat = influence.reshape(n_strata * n_patterns, -1) - G.ravel()
    vcov = flat.T @ (flat * data.squared.ravel()[:, None]) / data.n**2
    return JointCovariance(vcov, flat, 0)


def plugin_audit(
    audit: Audit, weights: FloatArray, name: str, keep: BoolArray | None = None
) -> tuple[Audit, JointCovariance]:
    """Audit whose groups are read off the patterns (those of ``keep``) by weights (P, K)."""
    data, units = audit.model.data, audit.units
    if keep is not None and not keep.all():
        data = data.columns(keep)
        weights = weights[keep]
        if units is not None:
            units = units[:, np.flatnonzero(np.tile(keep, data.n_strata))]
    G = data.counts / data.n @ weights
    fit = LatentFit(G, np.zeros((1, 1, 1)), np.nan)
    model = Model(name, data, audit.model.spec, fit, audit.model.affinity)
    return replace(audit, model=model, units=units, law=None), count_law(data, weights)


def direct_audit(audit: Audit, j: int) -> tuple[Audit, JointCovariance]:
    """Groups replaced by the levels of proxy j (rows in which it is observed).

    A proxy with other levels than groups counts for the group its level makes likeliest.
    """
    data = audit.model.data
    level = data.patterns[:, j]
    n_groups = audit.model.spec.n_groups
    named = np.eye(n_groups)
    if data.n_levels[j] != n_groups:
        posterior = proxy_posterior(
            audit.model.fit.prevalence, audit.model.fit.transition(audit.model.spec, j)
        )
        named = np.eye(n_groups)[posterior.argmax(axis=1)]
    return plugin_audit(audit, named[level], "direct", level >= 0)


def pattern_posterior(model: Model, data: PatternCounts) -> FloatArray:
    """P(A = a | proxies) for each pattern, decisions left out: (P, K)."""
    joint = class_probabilities(data, model.spec, model.fit.G, model.fit.T)
    mass = joint.sum(axis=0)
    return np.asarray(mass / mass.sum(axis=1, keepdims=True))


def weighted_audit(audit: Audit) -> tuple[Audit, JointCovariance]:
    """Rows shared out by P(A | proxies): right only if decisions are free of A given them."""
    model = audit.model
    return plugin_audit(audit, pattern_posterior(model, model.data), "weighted")


def bound_rows(
    audit: Audit, metric: str, level: float
) -> list[tuple[str, float, float, float, float]]:
    """(term, low, high, conf_low, conf_high) of the Frechet bounds over the proxy patterns.

    P(A | proxies) is taken from the fit as known; the bounds assume nothing about the decision. One
    cell of the table is one kind of row.
    """
    data = audit.model.data
    posterior = pattern_posterior(audit.model, data)
    mass = data.counts.sum(axis=0)
    rates = data.counts / np.where(mass > 0, mass, 1.0)
    stratum, pattern = np.nonzero(data.counts > 0)
    weight = data.counts[stratum, pattern]
    a = [Signal.known(posterior[pattern, g]) for g in range(posterior.shape[1])]

    def event(strata: FloatArray) -> Signal:
        value = rates[strata].sum(axis=0)[pattern]
        return Signal(value, np.isin(stratum, strata) - value)

    out = []
    for name, pieces in _bound_pieces(metric, data, a, event, weight):
        low_error, high_error = _bound_errors(audit, pieces, stratum, pattern)
        low, high = imbens_manski(pieces.low, pieces.high, low_error, high_error, level)
        out.append((name, pieces.low, pieces.high, max(low, -1.0), min(high, 1.0)))
    return out


def _bound_errors(
    audit: Audit, pieces: BoundPieces, stratum: IntArray, pattern: IntArray
) -> FloatArray:
    """Standard errors (2,) of both bounds, under the sampling of the rows."""
    data = audit.model.data
    weight = data.counts[stratum, pattern]
    by_row = pieces.influence * (weight.mean() / weight)[:, None]
    influence = np.zeros((data.counts.size, 2))
    influence[stratum * data.counts.shape[1] + pattern] = by_row
    vcov = influence.T @ (influence * data.squared.ravel()[:, None]) / data.n**2
    law = JointCovariance(vcov, influence, 0)
    ends = np.array([pieces.low, pieces.high])
    return smooth_estimates(audit, ends, np.eye(2), ("low", "high"), law).std_error


def _bound_pieces(
    metric: str,
    data: PatternCounts,
    a: Sequence[Signal],
    event: Callable[[Any], Signal],
    weight: FloatArray,
) -> list[tuple[str, BoundPieces]]:
    strata = np.arange(data.n_strata).reshape(data.n_pred, data.n_labels)
    decisions = [1] if data.n_pred == 2 else list(range(data.n_pred))
    out = []
    labels: list[int | None] = [None]
    if metric == "equalized_odds":
        labels = list(range(data.n_labels))
    elif metric == "equal_opportunity":
        decisions, labels = [1], [1]
    for y in labels:
        for k in decisions:
            for b, g in group_pairs(len(a)):
                other = None if len(a) == 2 else a[g]
                if y is None:
                    pieces = parity_bounds(a[b], other, event(strata[k]), weight)
                    out.append((f"P(f={k}): {b} - {g}", pieces))
                else:
                    positive = event(strata[k, [y]])
                    negative = event(np.delete(strata[:, y], k))
                    pieces = label_rate_bounds(a[b], other, positive, negative, weight)
                    out.append((f"P(f={k}|Y={y}): {b} - {g}", pieces))
    return out


def comparison(
    audit: Audit,
    law: JointCovariance,
    metric_name: str,
    proxy_names: Sequence[str],
    level: float,
) -> AuditTable:
    """All methods for one metric."""
    import pandas as pd

    data = audit.model.data
    metric = group_metric(metric_name, data.n_pred, data.n_labels)
    rng = audit.rng(3)
    records: list[tuple[Any, ...]] = []
    for j, name in enumerate(proxy_names):
        found, found_law = direct_audit(audit, j)
        records += gap_records(f"direct ({name})", found, found_law, metric, level)
    weighted, weighted_law = weighted_audit(audit)
    records += gap_records("weighted", weighted, weighted_law, metric, level)
    label = "global" if audit.model.name in ("joint", "two_view") else audit.model.name
    records += gap_records(label, audit, law, metric, level)
    records += _varying_records(audit, metric, level, rng)
    records += _bound_records(audit, metric_name, metric, level)
    frame = pd.DataFrame(records, columns=list(COLUMNS))
    headings = {
        "method": "method",
        "term": "gap",
        "estimate": "estimate",
        "std_error": "std. error",
        "conf_low": "low",
        "conf_high": "high",
    }
    notes = [f"low, high: {level:.0%} intervals; of the bounds, for the parameter inside them."]
    notes += [
        f"bounds, {r[1]}: between {r[6]:.3f} and {r[7]:.3f}." for r in records if np.isfinite(r[6])
    ]
    for method, reason in dict.fromkeys((r[0], r[8]) for r in records if r[8]):
        notes.append(f"{method}: {reason}.")
    notes += LIMITS
    return AuditTable(
        f"{metric_name.replace('_', ' ')} under different assumptions",
        frame,
        tuple(notes),
        headings,
        interval_plot,
    )


LIMITS = (
    "direct: proxy used as if it were the group; weighted: P(group | proxies) as weights; global: "
    "proxies independent given the group and of the decision; partial, local: error rates may vary "
    "with decision or label.",
    "No test can see a cause that all proxies share: it would be taken for the group itself.",
)


def gap_records(
    method: str, audit: Audit, law: JointCovariance, metric: GroupMetric, level: float
) -> list[tuple[Any, ...]]:
    """One record a pair and component."""
    found = wald_gaps(audit, law, metric, "difference")
    ends = found.conf_int(level)
    reasons = getattr(found, "reasons", (None,) * len(found.names))
    return [
        (
            method,
            name,
            float(found.estimate[t]),
            float(found.std_error[t]),
            float(ends[t, 0]),
            float(ends[t, 1]),
            np.nan,
            np.nan,
            reasons[t],
        )
        for t, name in enumerate(found.names)
    ]


def failed_records(
    method: str, metric: GroupMetric, audit: Audit, reason: str
) -> list[tuple[Any, ...]]:
    """Rows of nan with the reason."""
    pairs = group_pairs(audit.model.spec.n_groups)
    return [
        (method, f"{component}: {b} - {a}", *([np.nan] * 6), reason)
        for component in metric.names
        for b, a in pairs
    ]


def _varying_records(
    audit: Audit, metric: GroupMetric, level: float, rng: np.random.Generator
) -> list[tuple[Any, ...]]:
    model = audit.model
    data = model.data
    records: list[tuple[Any, ...]] = []
    kinds = ["partial (prediction)"] + (["partial (label)"] if data.n_labels > 1 else [])
    kinds.append("local")
    for kind in kinds:
        reason = None
        likelihood = model.name in ("joint", "moments", "tied") and not model.spec.fixed.any()
        if not likelihood or data.n_proxies < 3:
            reason = "needs at least three proxies with unknown error rates"
        if reason is not None:
            records += failed_records(kind, metric, audit, reason)
            continue
        try:
            varied = (
                fit_local(data, model, rng)
                if kind == "local"
                else fit_partial(data, model, kind[9:-1])
            )
            other = replace(audit, model=varied, law=None)
            records += gap_records(kind, other, joint_covariance(other), metric, level)
        except CausalFairError as error:
            records += failed_records(kind, metric, audit, str(error))
    return records


def _bound_records(
    audit: Audit, metric_name: str, metric: GroupMetric, level: float
) -> list[tuple[Any, ...]]:
    if metric_name not in ("demographic_parity", "equalized_odds", "equal_opportunity"):
        reason = f"no closed-form bounds for {metric_name}"
        return failed_records("bounds", metric, audit, reason)
    return [
        ("bounds", name, np.nan, np.nan, conf_low, conf_high, low, high, None)
        for name, low, high, conf_low, conf_high in bound_rows(audit, metric_name, level)
    ]
