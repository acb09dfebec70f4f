"""Tests of the assumptions that have testable consequences."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import IdentificationError
from causalfair.fairness._inference import Audit, joint_covariance, refit_counts
from causalfair.fairness._latent import class_probabilities, make_spec
from causalfair.fairness._metrics import group_metric, pairwise_gaps
from causalfair.fairness._models import Model, check_identified, fit_joint, fit_local, fit_partial
from causalfair.fairness._tensor import every_cell
from causalfair.inference import HypothesisTest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray
    from causalfair.fairness._tensor import PatternCounts

SMALL_EXPECTATION = 5.0
SMALL_SHARE = 0.2
N_PARAMETRIC = 200
MAX_TEST_CELLS = 200_000


def expected_counts(model: Model) -> tuple[PatternCounts, FloatArray, int]:
    """All cells, their expectations, and the number of free cell probabilities.

    Rows with missing proxies are compared within their own pattern of missingness.
    """
    data = every_cell(model.data)
    q = class_probabilities(data, model.spec, model.fit.G, model.fit.T).sum(axis=2)
    missing = data.patterns < 0
    kinds, kind = np.unique(missing, axis=0, return_inverse=True)
    expected = np.empty_like(data.counts)
    free = 0
    for r, absent in enumerate(kinds):
        columns = kind.ravel() == r
        expected[:, columns] = data.counts[:, columns].sum() * q[:, columns]
        levels = [n for n, gone in zip(data.n_levels, absent, strict=True) if not gone]
        if data.counts[:, columns].sum() > 0:
            free += data.n_strata * int(np.prod(levels)) - 1
    return data, expected, free


def deviance(counts: FloatArray, expected: FloatArray) -> float:
    """G^2 = 2 sum N log(N / expectation)."""
    seen = counts > 0
    return 2.0 * float((counts[seen] * np.log(counts[seen] / expected[seen])).sum())


def goodness_of_fit(audit: Audit, n_draws: int = N_PARAMETRIC) -> list[HypothesisTest]:
    """G^2 and Pearson X^2, with a parametric bootstrap where cells are thin."""
    model = audit.model
    null = "the proxies are independent of each other and of the decision, given the group"
    wide = model.data.n_strata * float(np.prod(np.array(model.data.n_levels, dtype=float)))
    if wide > MAX_TEST_CELLS:
        return [_not_applicable("G2", null, f"the table has {wide:.3g} cells")]
    data, expected, free = expected_counts(model)
    df = free - model.spec.n_free
    if df <= 0:
        reason = "the model is just identified; a further proxy would give a test"
        return [_not_applicable("G2", null, reason)]
    if audit.weighted or audit.units is not None:
        reason = "rows are weighted or clustered, so the multinomial law does not hold"
        return [_not_applicable("G2", null, reason)]
    from scipy.special import chdtrc

    g2 = deviance(data.counts, expected)
    possible = expected > 0
    x2 = float(((data.counts - expected)[possible] ** 2 / expected[possible]).sum())
    tests = [
        HypothesisTest("G2", null, g2, float(chdtrc(df, g2)), df),
        HypothesisTest("Pearson X2", null, x2, float(chdtrc(df, x2)), df),
    ]
    thin = float((expected < SMALL_EXPECTATION).mean())
    if thin > SMALL_SHARE and not (data.patterns < 0).any():
        p_value = parametric_p_value(audit, replace(model, data=data), g2, n_draws)
        tests.append(
            HypothesisTest("G2 (parametric bootstrap)", null, g2, p_value, None, "bootstrap")
        )
    return tests


def parametric_p_value(audit: Audit, model: Model, g2: float, n_draws: int) -> float:
    """Share of tables drawn from the fitted model whose refitted G^2 is at least as large."""
    rng = audit.rng(5)
    q = class_probabilities(model.data, model.spec, model.fit.G, model.fit.T).sum(axis=2)
    total = round(model.data.n)
    tables = rng.multinomial(total, (q / q.sum()).ravel(), size=n_draws).astype(float)
    tables = tables.reshape(n_draws, *q.shape)
    _, loglik = refit_counts(model, tables)
    saturated = np.where(tables > 0, tables * np.log(np.where(tables > 0, tables, 1) / total), 0.0)
    values = 2.0 * (saturated.sum(axis=(1, 2)) - loglik)
    return float((1 + (values >= g2 - 1e-9).sum()) / (n_draws + 1))


def _not_applicable(name: str, null: str, reason: str) -> HypothesisTest:
    return HypothesisTest(name, null, float("nan"), float("nan"), reason=reason)


def likelihood_ratio(name: str, null: str, small: Model, large: Model) -> HypothesisTest:
    """Nested models on the same counts."""
    from scipy.special import chdtrc

    df = large.spec.n_free - small.spec.n_free
    if df <= 0:
        return _not_applicable(name, null, "the larger model has no further parameters")
    statistic = max(2.0 * (large.fit.loglik - small.fit.loglik), 0.0)
    return HypothesisTest(name, null, statistic, float(chdtrc(df, statistic)), df)


def nested_tests(audit: Audit, joint: Model, rng: np.random.Generator) -> list[HypothesisTest]:
    """Error rates that vary with decision, label or stratum; one error matrix for all proxies."""
    data = joint.data
    tests = []
    plain = not joint.spec.fixed.any() and not joint.spec.shares.size
    independent = not audit.weighted and audit.units is None
    questions = [("local", "error rates are the same in every stratum")]
    questions += [("prediction", "error rates do not depend on the decision")]
    if data.n_labels > 1:
        questions += [("label", "error rates do not depend on the label")]
    for by, null in questions:
        name = "global against local" if by == "local" else f"global against partial ({by})"
        if not plain or not independent or data.n_proxies < 3:
            reason = "needs at least three proxies with unknown error rates, and independent rows"
            tests.append(_not_applicable(name, null, reason))
            continue
        larger = fit_local(data, joint, rng) if by == "local" else fit_partial(data, joint, by)
        tests.append(likelihood_ratio(name, null, joint, larger))
    null = "all proxies have the same error rates"
    same = len(set(data.n_levels)) == 1
    if plain and independent and same and data.n_proxies >= 2 and joint.spec.n_groups > 1:
        tied = fit_joint(
            "tied",
            data,
            make_spec(data, joint.spec.n_groups, tied=True),
            joint.affinity,
            rng,
            check_labels=False,
        )
        tests.append(likelihood_ratio("tied against free", null, tied, joint))
    else:
        reason = "needs proxies with the same levels and unknown error rates"
        tests.append(_not_applicable("tied against free", null, reason))
    return tests


def residual_tests(model: Model, names: Sequence[str]) -> list[HypothesisTest]:
    """Pearson X^2 of every fitted two-way margin of proxies: which pair departs from the model."""
    tests = []
    n_known = len(names)
    for i in range(n_known):
        for j in range(i + 1, n_known):
            part = model.data.views([i, j]).complete().pooled()
            observed = part.dense()[0]
            p = model.fit.prevalence
            if (model.spec.tables != model.spec.tables[0]).any():
                continue
            expected = part.n * (
                model.fit.transition(model.spec, i).T
                @ (p[:, None] * model.fit.transition(model.spec, j))
            )
            x2 = float(((observed - expected) ** 2 / np.maximum(expected, 1e-12)).sum())
            tests.append(
                HypothesisTest(
                    f"residual {names[i]} x {names[j]}",
                    "the fitted two-way table is right",
                    x2,
                    float("nan"),
                    None,
                    "X2 (descriptive)",
                )
            )
    return tests


def leave_one_out(
    audit: Audit, joint: Model, names: Sequence[str], rng: np.random.Generator
) -> list[HypothesisTest]:
    """Hausman contrast of the gap with and without each proxy."""
    from scipy.special import chdtrc

    data = joint.data
    m = len(names)
    null = "leaving the proxy out does not move the demographic-parity gaps"
    if m < 4 or joint.spec.fixed.any() or data.n_proxies != m:
        return []
    if audit.weighted or audit.units is not None:
        reason = "rows are weighted or clustered, so the fit with all proxies is not efficient"
        return [_not_applicable(f"without {name}", null, reason) for name in names]
    metric = group_metric("demographic_parity", data.n_pred, data.n_labels)
    full = pairwise_gaps(metric, joint.fit.G, data.n, "difference")
    law = joint_covariance(replace(audit, model=joint)).vcov
    jac = full.gradient.reshape(len(full.values), -1)
    tests = []
    for j in range(m):
        kept = [i for i in range(m) if i != j]
        part = data.views(kept)
        spec = make_spec(part, joint.spec.n_groups)
        try:
            check_identified(part, spec, opted_in=False, anchored=False)
            smaller = fit_joint(
                "joint", part, spec, tuple(joint.affinity[i] for i in kept), rng, n_random=2
            )
        except IdentificationError as error:
            tests.append(_not_applicable(f"without {names[j]}", null, str(error)))
            continue
        gaps = pairwise_gaps(metric, smaller.fit.G, part.n, "difference")
        wide = joint_covariance(Audit(smaller, None, None, audit.weighted, audit.root)).vcov
        other = gaps.gradient.reshape(len(gaps.values), -1)
        variance = other @ wide @ other.T - jac @ law @ jac.T
        change = gaps.values - full.values
        if np.linalg.eigvalsh(variance).min() <= 0 or not np.isfinite(change).all():
            reason = "the variance of the contrast is not positive"
            tests.append(_not_applicable(f"without {names[j]}", null, reason))
            continue
        statistic = float(change @ np.linalg.solve(variance, change))
        df = len(change)
        tests.append(
            HypothesisTest(f"without {names[j]}", null, statistic, float(chdtrc(df, statistic)), df)
        )
    return tests
