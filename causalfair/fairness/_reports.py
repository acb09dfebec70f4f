"""Tables behind the methods of :class:`ProxyFairness`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.validation import check_lengths
from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.fairness._compare import LIMITS, bound_rows
from causalfair.fairness._encode import encode_levels
from causalfair.fairness._fit_tests import (
    goodness_of_fit,
    leave_one_out,
    nested_tests,
    residual_tests,
)
from causalfair.fairness._latent import class_probabilities, make_spec
from causalfair.fairness._metrics import group_metric
from causalfair.fairness._models import Model, check_identified, fit_joint
from causalfair.fairness._results import AuditTable, interval_plot
from causalfair.fairness._setup import shares_test
from causalfair.inference import HypothesisTest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import ArrayLike, FloatArray
    from causalfair.fairness._inference import Audit

BOUND_METRICS = ("demographic_parity", "equalized_odds", "equal_opportunity")


def joint_reference(audit: Audit, names: Sequence[str]) -> Model:
    """The global likelihood fit the tests are about: the fit itself, or refitted from its data.

    Raises
    ------
    IdentificationError
        The proxies cannot carry one.
    """
    model = audit.model
    if model.name in ("joint", "two_view", "known"):
        return model
    m = len(names)
    data = model.data.views(range(m))
    spec = make_spec(data, model.spec.n_groups)
    check_identified(data, spec, opted_in=False, anchored=False)
    return fit_joint("joint", data, spec, model.affinity[:m], audit.rng(4))


def fit_test_table(audit: Audit, names: Sequence[str], prevalence: Any) -> AuditTable:
    """All tests, as a table and as objects."""
    import pandas as pd

    joint = joint_reference(audit, names)
    base = replace(audit, model=_without_audited(joint, names))
    tests = goodness_of_fit(base)
    tests += nested_tests(base, base.model, audit.rng(6))
    tests += residual_tests(base.model, names)
    tests += leave_one_out(base, base.model, names, audit.rng(7))
    if prevalence is not None:
        statistic, p_value, _ = shares_test(joint, audit.rng(8))
        null = "the supplied group shares hold"
        reason = None if np.isfinite(statistic) else "the shares are needed for identification"
        tests.append(
            HypothesisTest(
                "supplied shares", null, statistic, p_value, joint.spec.n_groups - 1, reason=reason
            )
        )
    tests += audited_tests(audit, names)
    frame = pd.DataFrame(
        {
            "test": [t.name for t in tests],
            "null": [t.null for t in tests],
            "statistic": [t.statistic for t in tests],
            "df": [np.nan if t.df is None else float(np.max(t.df)) for t in tests],
            "p_value": [t.p_value for t in tests],
            "reason": [t.reason for t in tests],
        }
    )
    notes = [f"{t.name}: does not apply, {t.reason}." for t in tests if t.reason is not None]
    notes.append(LIMITS[1])
    headings = {"test": "test", "statistic": "statistic", "df": "df", "p_value": "p"}
    return AuditTable("Tests of the assumptions", frame, tuple(notes), headings, extra=tests)


def _without_audited(model: Model, names: Sequence[str]) -> Model:
    """The model on the proxies alone: audited rows are a selected sample and are summed out."""
    m = len(names)
    if model.data.n_proxies == m:
        return model
    spec = replace(
        model.spec,
        tables=np.ascontiguousarray(model.spec.tables[:, :m]),
        rows=np.ascontiguousarray(model.spec.rows[:m]),
    )
    data = model.data.views(range(m))
    return Model(model.name, data, spec, model.fit, model.affinity[:m])


def audited_tests(audit: Audit, names: Sequence[str]) -> list[HypothesisTest]:
    """Direct tests on audited rows: independence of each pair of proxies, and of the decision."""
    from scipy.special import chdtrc

    data, m, K = audit.model.data, len(names), audit.model.spec.n_groups
    if data.n_proxies == m:
        return []
    tests: list[HypothesisTest] = []
    if audit.weighted or audit.units is not None:
        null, reason = "independent given the audited group", "rows are weighted or clustered"
        return [HypothesisTest("audited", null, np.nan, np.nan, reason=reason)]
    seen = data.columns(data.patterns[:, m] >= 0)
    for i in range(m):
        for other in [*range(i + 1, m), -1]:
            views = [i, m] if other < 0 else [i, other, m]
            part = seen.views(views).complete().dense()
            table = part if other < 0 else part.sum(axis=0)  # (rows, columns, K)
            table = np.moveaxis(table, -1, 0)
            expected = table.sum(1, keepdims=True) * table.sum(2, keepdims=True)
            expected = expected / np.maximum(table.sum((1, 2), keepdims=True), 1e-300)
            live = expected > 0
            x2 = float(((table - expected)[live] ** 2 / expected[live]).sum())
            df = K * (table.shape[1] - 1) * (table.shape[2] - 1)
            what = "decision and label" if other < 0 else names[other]
            tests.append(
                HypothesisTest(
                    f"audited: {names[i]} x {what}",
                    "independent given the audited group",
                    x2,
                    float(chdtrc(df, x2)),
                    df,
                )
            )
    return tests


def bounds_table(audit: Audit, metric: str, level: float) -> AuditTable:
    """Frechet bounds as a table."""
    import pandas as pd

    if metric not in BOUND_METRICS:
        raise ParameterError(f"bounds are known for {', '.join(BOUND_METRICS)}; got {metric!r}.")
    group_metric(metric, audit.model.data.n_pred, audit.model.data.n_labels)
    records = [
        (name, np.nan, low, high, conf_low, conf_high)
        for name, low, high, conf_low, conf_high in bound_rows(audit, metric, level)
    ]
    columns = ["term", "estimate", "bound_low", "bound_high", "conf_low", "conf_high"]
    headings = {
        "term": "gap",
        "bound_low": "lower bound",
        "bound_high": "upper bound",
        "conf_low": "low",
        "conf_high": "high",
    }
    notes = (
        "Nothing is assumed about how decisions depend on proxies and group; P(group | proxies) is "
        "taken from the fit.",
        f"low, high: {level:.0%} interval for the gap inside the bounds (Imbens & Manski 2004).",
    )
    return AuditTable(
        "Frechet bounds", pd.DataFrame(records, columns=columns), notes, headings, interval_plot
    )


def group_table(estimator: Any) -> Any:
    """Group shares, rates and error rates, for the summary."""
    import pandas as pd

    from causalfair.reporting import Table

    K = len(estimator.prevalence_)
    columns = ["group", "share", *(f"P(f={k})" for k in range(estimator.group_rates_.shape[1]))]
    numbers = np.column_stack([estimator.prevalence_, estimator.group_rates_])
    for name, table in zip(estimator.proxy_names_, estimator.transition_, strict=True):
        if table.shape == (K, K):
            columns.append(f"{name} right")
            numbers = np.column_stack([numbers, np.diag(table)])
    rows = [[str(a), *(f"{v:.3f}" for v in numbers[a])] for a in range(K)]
    shown, kept = columns, rows
    if sum(len(c) + 3 for c in columns) > 84:
        wide = 2 + estimator.group_rates_.shape[1]
        shown, kept = columns[:wide], [r[:wide] for r in rows]
    data = pd.DataFrame(numbers, columns=pd.Index(columns[1:]))
    return Table(shown, kept, title="Groups", data=data)


ASSUMPTIONS = {
    "local": "proxies independent of each other given group, decision and label",
    "tied": "proxies independent, identically distributed, and independent of the decision, given "
    "the group",
}
DEFAULT_ASSUMPTION = "proxies independent of each other and of decision and label, given the group"


def assumption_notes(estimator: Any) -> list[str]:
    """Assumptions of the fit in words, and what no test can see."""
    notes = [
        f"Assumes: {ASSUMPTIONS.get(estimator.model, DEFAULT_ASSUMPTION)}; every proxy informative "
        "about every group; labels named by the proxies' own coding."
    ]
    if estimator.prevalence is not None:
        notes.append("Assumes: the supplied group shares hold in this population.")
    if estimator.transition is not None:
        notes.append("Assumes: the supplied error rates hold in this population, without error.")
    notes.append(LIMITS[1])
    return notes


def full_report(estimator: Any, level: float) -> Any:
    """Summary with comparison, tests and conditioning."""
    from causalfair.reporting import Summary

    head = estimator.summary(level)
    parts = [estimator.compare(level=level)]
    notes = list(head.notes)
    try:
        parts.append(estimator.fit_tests())
    except IdentificationError as error:
        notes.append(f"Tests of the assumptions cannot be made: {error}")
    parts.append(estimator.diagnostics())
    tables = list(head.tables)
    for part in parts:
        shown = part.summary()
        tables += [replace(table, title=part.title) for table in shown.tables]
        notes += [note for note in shown.notes if note not in notes]
    return Summary("Audit report: group fairness from weak proxies", head.header, tables, notes)


def row_posterior(
    audit: Audit, m: int, X: ArrayLike, y_pred: ArrayLike | None, y_true: ArrayLike | None
) -> FloatArray:
    """P(A | proxies, and decision and label where given) for rows."""
    owner = "ProxyFairness.posterior"
    codes = encode_levels(X, "X", owner=owner, allow_missing=True).astype(np.intp)
    model = audit.model
    if codes.ndim != 2 or codes.shape[1] != m:
        raise ParameterError(f"{owner} got X of shape {codes.shape}; it needs (n, {m}).")
    wanted = {
        name: encode_levels(values, name, owner=owner)
        for name, values in (("y_pred", y_pred), ("y_true", y_true))
        if values is not None
    }
    check_lengths(owner=owner, X=codes, **wanted)
    for name, top in (("y_pred", model.data.n_pred), ("y_true", model.data.n_labels)):
        if name in wanted and wanted[name].max() >= top:
            raise ParameterError(
                f"{owner}: {name} has the level {int(wanted[name].max())}, which fit had not."
            )
    if model.data.n_proxies > m:
        codes = np.column_stack([codes, np.full(len(codes), -1)])
    patterns, where = np.unique(codes, axis=0, return_inverse=True)
    for j in range(m):
        if patterns[:, j].max() >= model.data.n_levels[j]:
            raise ParameterError(
                f"{owner}: X has level {patterns[:, j].max()} of proxy {j}, which fit had not."
            )
    cells = replace(
        model.data, patterns=patterns, counts=np.zeros((model.data.n_strata, len(patterns)))
    )
    joint = class_probabilities(cells, model.spec, model.fit.G, model.fit.T)[:, where.ravel()]
    n_pred, n_labels = model.data.n_pred, model.data.n_labels
    keep = np.ones((n_pred * n_labels, len(codes)), dtype=np.bool_)
    stratum = np.arange(n_pred * n_labels)[:, None]
    if "y_pred" in wanted:
        keep &= stratum // n_labels == wanted["y_pred"]
    if "y_true" in wanted:
        keep &= stratum % n_labels == wanted["y_true"]
    mass = (joint * keep[:, :, None]).sum(axis=0)
    return np.asarray(mass / mass.sum(axis=1, keepdims=True))
