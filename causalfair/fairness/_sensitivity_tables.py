"""Tables and plots of sensitivity to departures from independence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import ParameterError
from causalfair.fairness._bounds import imbens_manski
from causalfair.fairness._inference import JointCovariance, is_likelihood, smooth_estimates
from causalfair.fairness._information import (
    covariance,
    free_basis,
    make_layout,
    pack,
    theta_jacobian,
    unpack,
)
from causalfair.fairness._metrics import group_metric, group_pairs
from causalfair.fairness._results import AuditTable
from causalfair.fairness._sensitivity import (
    PAIRS,
    DependenceCurve,
    break_even,
    decision_dependence_bounds,
    dependence_curve,
    gap_contrast,
    plot_curves,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causalfair._core.typing import ArrayLike, FloatArray
    from causalfair.fairness._inference import Audit

KINDS = ("decision", "proxies")
STEP = 1e-5


def sensitivity_table(
    audit: Audit,
    names: Sequence[str],
    kind: str,
    gamma: ArrayLike,
    j: int,
    decision: int | None,
    level: float,
) -> AuditTable:
    """Sweep one departure from independence."""
    if kind not in KINDS:
        raise ParameterError(f"kind must be 'decision' or 'proxies'; got {kind!r}.")
    if kind == "proxies":
        return _proxy_sensitivity(audit, names)
    amounts = np.atleast_1d(np.asarray(gamma, dtype=np.float64))
    if amounts.size == 0 or not ((amounts >= 0) & (amounts <= 1)).all():
        raise ParameterError(
            f"gamma={gamma!r} must lie in [0, 1], one value or more: differences of probabilities."
        )
    n_pred = audit.model.data.n_pred
    if decision is not None and not 0 <= decision < n_pred:
        raise ParameterError(f"decision={decision!r} must be one of 0..{n_pred - 1}.")
    k = n_pred - 1 if decision is None else int(decision)
    return _decision_sensitivity(audit, names, amounts, j, k, level)


def _decision_sensitivity(
    audit: Audit, names: Sequence[str], gamma: FloatArray, j: int, k: int, level: float
) -> AuditTable:
    import pandas as pd

    model = audit.model
    data = model.data
    records, notes = [], []
    for b, a in group_pairs(model.spec.n_groups):

        def ends(G: FloatArray, table: FloatArray, b: int = b, a: int = a) -> FloatArray:
            return np.array([_range(G, table, data.n_pred, b, a, k, float(g)) for g in gamma])

        found, errors = _with_errors(audit, j, ends)
        for g, (low, high), (low_error, high_error) in zip(gamma, found, errors, strict=True):
            inside = (np.nan, np.nan)
            if np.isfinite([low, high, low_error, high_error]).all():
                inside = imbens_manski(low, high, low_error, high_error, level)
            term = f"P(f={k}): {b} - {a}"
            records.append((term, float(g), low, high, max(inside[0], -1.0), min(inside[1], 1.0)))
        joint, p, contrast = _margins(
            model.fit.G, model.fit.transition(model.spec, j), data.n_pred, b, a, k
        )
        star = break_even(joint, model.fit.transition(model.spec, j), p, contrast)
        notes.append(
            f"The sign of P(f={k}): {b} - {a} is lost when the error rates of {names[j]} may "
            f"differ by {star:.3f} between decisions."
        )
    columns = ["term", "gamma", "low", "high", "conf_low", "conf_high"]
    notes.append(
        f"conf low, conf high: {level:.0%} interval for the gap inside the range, with the "
        "uncertainty of shares and error rates."
    )
    frame = pd.DataFrame(records, columns=columns)
    title = f"Sensitivity to dependence of {names[j]} on the decision"
    headings = {c: c.replace("_", " ") for c in columns}
    return AuditTable(title, frame, tuple(notes), headings, _plot_gamma)


def _margins(
    G: FloatArray, table: FloatArray, n_pred: int, b: int, a: int, k: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """P(proxy, decision) as fitted, shares, and the weights of the gap.

    As fitted, because sampling noise would make the programme infeasible at gamma = 0.
    """
    rates = G.reshape(n_pred, -1, G.shape[1]).sum(axis=1)
    p = G.sum(axis=0)
    return (rates @ table).T, p, gap_contrast(p, b, a, k, n_pred)


def _range(
    G: FloatArray, table: FloatArray, n_pred: int, b: int, a: int, k: int, gamma: float
) -> tuple[float, float]:
    joint, p, contrast = _margins(G, table, n_pred, b, a, k)
    return decision_dependence_bounds(joint, table, p, gamma, contrast)


def _with_errors(
    audit: Audit, j: int, ends: Callable[[FloatArray, FloatArray], FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Ends of the ranges (g, 2) and their standard errors.

    Differences along the free directions of the parameters; the errors are nan where the fit has no
    likelihood.
    """
    model = audit.model
    base = ends(model.fit.G, model.fit.transition(model.spec, j))
    if not is_likelihood(model) or audit.law is not None:
        return base, np.full(base.shape, np.nan)
    spec, layout = model.spec, make_layout(model.spec)
    theta = pack(layout, model.fit.G, model.fit.T)
    directions = theta_jacobian(layout, theta) @ free_basis(layout, theta)  # (p, free)
    r = int(spec.tables[0, j])
    positions = np.concatenate([layout.g.ravel(), layout.t[r][layout.t[r] >= 0]])
    slope = np.zeros((base.size, directions.shape[1]))
    for d in np.flatnonzero(np.abs(directions[positions]).max(axis=0) > 0):
        G, T = unpack(layout, theta + STEP * directions[:, d], model.fit.T)
        moved = ends(G, T[r][spec.rows[j], : spec.table_levels[r]])
        slope[:, d] = (moved - base).ravel() / STEP
    found = covariance(model.data, spec, model.fit, robust=audit.weighted)
    law = JointCovariance(found.vcov, found.influence, found.rank_deficiency)
    names = [str(i) for i in range(base.size)]
    jacobian = slope @ np.linalg.pinv(directions)
    estimates = smooth_estimates(audit, base.ravel(), jacobian, names, law)
    return base, np.asarray(estimates.std_error).reshape(base.shape)


def _plot_gamma(table: AuditTable, ax: Any) -> Any:
    for position, (term, part) in enumerate(table.data.groupby("term", sort=False)):
        colour = f"C{position}"
        for low, high, alpha, label in (
            ("conf_low", "conf_high", 0.15, None),
            ("low", "high", 0.4, str(term)),
        ):
            ax.fill_between(
                part["gamma"],
                part[low],
                part[high],
                alpha=alpha,
                color=colour,
                label=label,
                linewidth=0,
            )
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    ax.set_xlabel("largest difference of error rates between decisions, gamma")
    ax.set_ylabel("gap")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _proxy_sensitivity(audit: Audit, names: Sequence[str]) -> AuditTable:
    import pandas as pd

    model = audit.model
    data = model.data.views(range(len(names)))
    if data.n_levels[:3] != (2, 2, 2) or model.spec.n_groups != 2 or len(names) < 3:
        raise ParameterError(
            "sensitivity(kind='proxies') has its closed form for two groups and three binary "
            f"proxies; this fit has {model.spec.n_groups} groups and levels {data.n_levels}."
        )
    metric = group_metric("demographic_parity", data.n_pred, data.n_labels)
    tensor = data.views([0, 1, 2]).complete().dense()
    curves: list[DependenceCurve] = []
    records, notes = [], []
    for pair in PAIRS:
        try:
            curve = dependence_curve(tensor, pair, metric)
        except ParameterError as error:
            notes.append(str(error))
            continue
        curves.append(curve)
        label = f"{names[pair[0]]} x {names[pair[1]]}"
        records += [
            (label, float(c), float(g), float(s))
            for c, g, s in zip(curve.covariance, curve.gap, curve.prevalence, strict=True)
        ]
        notes.append(
            f"{label}: covariances up to {curve.largest:.3f} are possible; the gap would be 0 at "
            f"{_or_never(curve.value_for(0.0))}."
        )
    frame = pd.DataFrame(records, columns=["pair", "covariance", "gap", "share_of_group_1"])
    return AuditTable(
        "Sensitivity to dependence between proxies",
        frame,
        tuple(notes),
        None,
        _plot_dependence,
        extra=curves,
    )


def _or_never(value: float) -> str:
    return "no covariance in that range" if np.isnan(value) else f"{value:.3f}"


def _plot_dependence(table: AuditTable, ax: Any) -> Any:
    return plot_curves(table.extra, ax)
