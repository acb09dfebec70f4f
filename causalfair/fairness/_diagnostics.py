"""Conditioning of a fit and the warnings that follow from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.logging import warn
from causalfair.exceptions import (
    ConvergenceWarning,
    SmallSampleWarning,
    WeakIdentificationWarning,
)
from causalfair.fairness._latent import MODE_WINDOW
from causalfair.fairness._metrics import MIN_GROUP_COUNT, fused_accuracy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import BoolArray, FloatArray
    from causalfair.fairness._models import Model
    from causalfair.fairness._tensor import PatternCounts

BOUNDARY_DISTANCE = 1e-4
WEAK_YOUDEN = 0.1
# simulated coverage of Wald intervals: 94 % at 4 (fine), 91 % at 0.8
WEAK_PRODUCT = 1.0
LOW_MARGIN = 0.1
MIN_LOCAL_ROWS = 500.0


def informativeness(table: FloatArray) -> float:
    """How well a proxy tells groups apart: 0 says nothing, 1 everything.

    Two groups: total variation between the rows, which is Youden's index for two levels. More: the
    smallest singular value.
    """
    if len(table) == 2:
        return float(0.5 * np.abs(table[1] - table[0]).sum())
    return float(np.linalg.svd(table, compute_uv=False)[-1])


def own_table(model: Model, j: int) -> FloatArray:
    """Error matrix of proxy j, one row for each level of what it is a proxy of."""
    r = int(model.spec.tables[0, j])
    return np.asarray(model.fit.T[r, : model.spec.table_rows[r], : model.spec.table_levels[r]])


def pair_condition(model: Model) -> float:
    """Condition number of the pair matrix of the two best proxies, from the fitted tables."""
    tables = sorted(model.tables(), key=informativeness)[-2:]
    if len(tables) < 2:
        return float(np.linalg.cond(tables[0]))
    p = model.fit.prevalence
    values = np.linalg.svd(tables[0].T @ (p[:, None] * tables[1]), compute_uv=False)
    smallest = values[model.spec.n_groups - 1]
    return float(values[0] / smallest) if smallest > 0 else float("inf")


def boundary_distance(model: Model) -> float:
    """Smallest free probability of G (in groups and strata with rows) and of the tables."""
    seen = model.data.stratum_totals() > 0
    smallest = float(model.fit.G[seen].min())
    for j in range(model.data.n_proxies):
        levels = model.data.margin(j).sum(axis=0) > 0  # a level nobody has is 0 and no boundary
        for s in np.flatnonzero(seen).tolist():
            r = int(model.spec.tables[s, j])
            if not model.spec.fixed[r]:
                table = model.fit.transition(model.spec, j, s)
                smallest = min(smallest, float(table[:, levels].min()))
    return smallest


def warn_about(model: Model, proxy_names: Sequence[str], rank_deficiency: int) -> None:
    """Warn where the fit is doubtful; every message says what to do."""
    fit, data = model.fit, model.data
    if not fit.converged:
        warn(
            f"EM stopped after {fit.n_steps} steps before it met its tolerance; the likelihood is "
            "nearly flat. Read the profile intervals, and add a proxy or known error rates.",
            ConvergenceWarning,
        )
    if 1e-6 * data.n < fit.other_mode < MODE_WINDOW:
        warn(
            f"Another mode of the likelihood lies {fit.other_mode:.2f} log-likelihood units below "
            f"the best ({fit.n_at_best} of {fit.n_starts} starts reached the best): the "
            "data hardly "
            "tell the two apart. Add a proxy, or known shares or error rates.",
            WeakIdentificationWarning,
        )
    nearest = boundary_distance(model)
    if nearest < BOUNDARY_DISTANCE:
        warn(
            f"The solution lies on the boundary (smallest probability {nearest:.1e}), where Wald "
            "intervals are not valid; use interval='bootstrap' or 'profile', or pseudo_count=0.5.",
            WeakIdentificationWarning,
        )
    if fit.label_margin < LOW_MARGIN:
        warn(
            f"The naming of the groups is nearly undetermined (margin {fit.label_margin:.3f}): the "
            "proxies barely agree on which group is which. Check their coding.",
            WeakIdentificationWarning,
        )
    _warn_weak(model, proxy_names, rank_deficiency)
    _warn_small(model)


def _warn_weak(model: Model, proxy_names: Sequence[str], rank_deficiency: int) -> None:
    data = model.data
    if rank_deficiency > 0:
        warn(
            f"{rank_deficiency} direction(s) of the parameter space leave the likelihood "
            "unchanged: "
            "the model is not identified at this estimate (two proxies cannot be calibrated when "
            "groups do not differ). Use interval='profile'.",
            WeakIdentificationWarning,
        )
    free = [j for j in range(len(proxy_names)) if not model.spec.fixed[model.spec.tables[0, j]]]
    if not free:
        return
    strength = {j: informativeness(own_table(model, j)) for j in free}
    weakest = min(strength, key=lambda j: strength[j])
    rare = float(model.fit.prevalence.min())
    top = sorted(strength.values())[-3:]
    product = data.n_effective * float(np.prod(np.square(top))) * rare**2
    if strength[weakest] < WEAK_YOUDEN:
        warn(
            f"Weak identification: proxy {proxy_names[weakest]!r} has informativeness "
            f"{strength[weakest]:.3f} (0 is none). Read bootstrap or profile intervals.",
            WeakIdentificationWarning,
        )
    elif product < WEAK_PRODUCT:
        warn(
            f"Weak identification: n * prod(J^2) * p_min^2 = {product:.2f} (want at least "
            f"{WEAK_PRODUCT:.0f}), with informativeness J of {strength[weakest]:.3f} or more and "
            f"p_min = {rare:.3f} the share of the smallest group. Read bootstrap or profile "
            "intervals.",
            WeakIdentificationWarning,
        )


def small_cells(data: PatternCounts, G: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Groups (K,), and label by group (n_labels, K), with too few estimated rows for a rate."""
    by_label = data.n_effective * G.reshape(data.n_pred, data.n_labels, -1).sum(axis=0)
    return by_label.sum(axis=0) < MIN_GROUP_COUNT, by_label < MIN_GROUP_COUNT


def _warn_small(model: Model) -> None:
    by_group, by_label = small_cells(model.data, model.fit.G)
    cells = [f"group {a}" for a in np.flatnonzero(by_group)]
    cells += [f"group {a} with label {y}" for y, a in np.argwhere(by_label & ~by_group)]
    if cells:
        warn(
            f"Fewer than {MIN_GROUP_COUNT:.0f} rows are estimated for {', '.join(cells)}: rates "
            "and gaps that rest on them are nan. Collect more rows, or merge groups.",
            SmallSampleWarning,
        )
    totals = model.data.stratum_totals()
    if model.name == "local":
        thin = [int(s) for s in np.flatnonzero(totals < MIN_LOCAL_ROWS)]
        if thin:
            warn(
                f"Strata {thin} have fewer than {MIN_LOCAL_ROWS:.0f} rows; a local fit needs that "
                "many in each. Merge strata or use model='joint'.",
                SmallSampleWarning,
            )


def warn_shares(statistic: float, p_value: float, shares: FloatArray, free: FloatArray) -> None:
    """Warn when the data contradict the supplied group shares."""
    if p_value < 0.01:
        warn(
            f"The supplied group shares {np.round(shares, 3).tolist()} fit badly: without them the "
            f"estimate is {np.round(free, 3).tolist()} (likelihood ratio {statistic:.1f}, p = "
            f"{p_value:.2g}). Either the shares are of another population or the proxies depend on "
            "each other given the group.",
            WeakIdentificationWarning,
        )


def diagnostic_rows(model: Model, proxy_names: Sequence[str]) -> list[tuple[str, Any, str]]:
    """(quantity, value, reading) for every diagnostic of a fit."""
    fit = model.fit
    tables = model.tables()[: len(proxy_names)]
    together, alone = fused_accuracy(fit.prevalence, tables)
    rows: list[tuple[str, Any, str]] = []
    for j, name in enumerate(proxy_names):
        strength = informativeness(own_table(model, j))
        rows.append((f"informativeness of {name}", strength, "0 none, 1 perfect"))
    for name, value in zip(proxy_names, alone, strict=True):
        rows.append((f"accuracy of {name}", value, "best guess of the group from it alone"))
    rows += [
        ("accuracy of all proxies", together, "how far they give a person's group away"),
        ("condition of the pair matrix", pair_condition(model), "errors grow like it"),
        ("distance to the boundary", boundary_distance(model), "near 0: no Wald intervals"),
        ("label margin", fit.label_margin, "below 0.02 the labels are not determined"),
        ("score per row", fit.gradient, "0 at the maximum"),
        ("starts at the best likelihood", fit.n_at_best, f"of {fit.n_starts}"),
        ("next mode", fit.other_mode, "log-likelihood units below"),
    ]
    return rows
