"""Profile likelihood: the set of values of one gap that the likelihood does not reject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.fairness._information import (
    Layout,
    class_designs,
    make_layout,
    pack,
    prior_counts,
    unpack,
)
from causalfair.fairness._latent import class_probabilities
from causalfair.fairness._optimise import constrained_minimum

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.fairness._metrics import GroupMetric
    from causalfair.fairness._models import Model

MAX_STEPS = 40
CLEARLY_INFORMATIVE = 1e-3
LOGIT_BOUND = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """One comparison: component of a metric, group b against group a, difference or ratio."""

    metric: GroupMetric
    component: int
    b: int
    a: int
    kind: str

    def value(self, G: FloatArray) -> tuple[float, FloatArray]:
        """Value and gradient by G (S, K)."""
        values = self.metric.values(G)[self.component]
        slope = self.metric.gradient(G)[self.component]
        grad = np.zeros(G.shape)
        if self.kind == "ratio":
            ratio = values[self.b] / values[self.a]
            grad[:, self.b] = slope[self.b] / values[self.a]
            grad[:, self.a] = -ratio * slope[self.a] / values[self.a]
            return float(ratio), grad
        grad[:, self.b] = slope[self.b]
        grad[:, self.a] = -slope[self.a]
        return float(values[self.b] - values[self.a]), grad


@dataclass(frozen=True, slots=True)
class _Problem:
    """Negative mean log-likelihood (with prior) and its gradient in softmax parameters.

    The log-probability of class a and a cell is ``designs[a] @ log(theta) + offsets[:, a]``: the
    design says which parameters enter, the offset holds known error rates. ``block`` (p,) is the
    block of each parameter, ``totals`` (n_blocks,) the sum each block keeps, ``prior`` (p,) the
    pseudo-counts and counts of validation samples.
    """

    model: Model
    layout: Layout
    designs: tuple[Any, ...]
    offsets: FloatArray
    block: IntArray
    totals: FloatArray
    prior: FloatArray

    @classmethod
    def of(cls, model: Model) -> _Problem:
        layout = make_layout(model.spec)
        theta = pack(layout, model.fit.G, model.fit.T)
        G, T = unpack(layout, np.ones_like(theta), model.fit.T)
        known = class_probabilities(model.data, model.spec, G, T).reshape(-1, model.spec.n_groups)
        block = np.empty(len(theta), dtype=np.intp)
        for b, positions in enumerate(layout.blocks):
            block[positions] = b
        return cls(
            model,
            layout,
            tuple(class_designs(model.data, model.spec, layout)),
            np.log(np.maximum(known, 1e-300)),
            block,
            np.asarray(np.bincount(block, weights=theta), dtype=np.float64),
            prior_counts(model.spec, layout),
        )

    def theta(self, phi: FloatArray) -> FloatArray:
        peak = np.full(len(self.totals), -np.inf)
        np.maximum.at(peak, self.block, phi)
        e = np.exp(phi - peak[self.block])
        return np.asarray(e * (self.totals / np.bincount(self.block, weights=e))[self.block])

    def centre(self, gradient: FloatArray, theta: FloatArray) -> FloatArray:
        """Take off each entry its share of the sum over its block."""
        share = np.bincount(self.block, weights=gradient) / self.totals
        return np.asarray(gradient - share[self.block] * theta)

    def objective(self, phi: FloatArray) -> tuple[float, FloatArray]:
        data = self.model.data
        theta = self.theta(phi)
        logs = np.log(np.maximum(theta, 1e-300))
        joint = np.stack([X @ logs for X in self.designs], axis=1) + self.offsets
        peak = joint.max(axis=1)
        mass = np.exp(joint - peak[:, None])
        q = mass.sum(axis=1)
        counts = data.counts.ravel()
        loss = -float(counts @ (np.log(q) + peak) + self.prior @ logs) / data.n
        # expected complete counts: the gradient by log theta
        share = mass * (counts / q)[:, None]
        expected = self.prior.copy()
        for a, X in enumerate(self.designs):
            expected += X.T @ share[:, a]
        return loss, -self.centre(expected, theta) / data.n

    def constraint(self, phi: FloatArray, target: Target, value: float) -> tuple[float, FloatArray]:
        theta = self.theta(phi)
        now, grad = target.value(theta[self.layout.g])
        full = np.zeros_like(theta)
        full[self.layout.g] = grad
        return now - value, self.centre(full * theta, theta)


def _start(problem: _Problem) -> FloatArray:
    theta = pack(problem.layout, problem.model.fit.G, problem.model.fit.T)
    phi = np.log(np.maximum(theta, 1e-9))
    for block in problem.layout.blocks:
        phi[block] -= phi[block].mean()
    return phi


def constrained_fit(
    problem: _Problem, phi: FloatArray, target: Target, value: float
) -> tuple[float, FloatArray]:
    """Largest mean log-likelihood with the gap held at ``value``; -inf where out of reach."""
    moved, loss = constrained_minimum(
        problem.objective,
        lambda x: problem.constraint(x, target, value),
        phi,
        LOGIT_BOUND,
    )
    reached = abs(problem.constraint(moved, target, value)[0]) < 1e-6
    return (-loss, moved) if reached else (-np.inf, phi)


def profile_deviance(model: Model, target: Target, value: float) -> float:
    """Likelihood-ratio statistic of the hypothesis that the gap equals ``value``."""
    problem = _Problem.of(model)
    top = -problem.objective(_start(problem))[0]
    loglik, _ = constrained_fit(problem, _start(problem), target, value)
    return 2.0 * model.data.n * (top - loglik)


def strata_test(model: Model) -> float:
    """P-value of the hypothesis that strata tell fewer than K groups apart.

    The table of strata by proxy patterns has K - 1 canonical correlations when groups differ in
    decision and label; the statistic is n times the sum of squares from the (K - 1)-th on (Pearson
    X2 of independence for two groups).
    """
    from scipy.special import chdtrc

    table = model.data.counts[model.data.stratum_totals() > 0]
    table = table[:, table.sum(axis=0) > 0] / model.data.n
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    correlations = np.linalg.svd(table / np.sqrt(np.outer(rows, columns)), compute_uv=False)[1:]
    skipped = model.spec.n_groups - 2
    df = (len(rows) - 1 - skipped) * (len(columns) - 1 - skipped)
    if df < 1:
        return 1.0
    return float(chdtrc(df, model.data.n * (correlations[skipped:] ** 2).sum()))


def reference_df(model: Model) -> int:
    r"""Degrees of freedom of the law that the likelihood ratio of one gap is compared with.

    One, except where fewer than three proxies leave identification to the strata and these do not
    clearly tell groups apart. Without differences between groups the error rates are then not
    identified, and the ratio is the larger of many: with Z the (S - 1) x (C - 1) normal contrasts
    of strata by C proxy patterns, max_v ||Zv||^2 - max_v ||PZv||^2 over directions v, P removing
    the one contrast h that the gap fixes. As ||Zv||^2 - ||PZv||^2 = (h'Zv)^2, that is at most
    ||h'Z||^2, a chi-square with C - 1 degrees of freedom.
    """
    spec, data = model.spec, model.data
    anchored = bool(spec.fixed.any()) or bool((spec.prior_t > spec.prior_g).any())
    if data.n_proxies >= 3 or anchored or strata_test(model) < CLEARLY_INFORMATIVE:
        return 1
    return max(int(np.prod(data.n_levels)) - 1, 1)


def profile_interval(
    model: Model, target: Target, std_error: float, level: float
) -> tuple[float, float]:
    """Values of the gap whose likelihood-ratio statistic stays below the chi-square quantile.

    Walks outwards from the estimate, each constrained fit starting at the last, until the deviance
    crosses; then refines by bisection and secants (Brent).
    """
    from scipy.stats import chi2

    critical = float(chi2.ppf(level, reference_df(model)))
    problem = _Problem.of(model)
    phi0 = _start(problem)
    top = -problem.objective(phi0)[0]
    estimate = target.value(model.fit.G)[0]
    step = std_error if np.isfinite(std_error) and 0 < std_error < 0.25 else 0.05
    limits = (0.0, np.inf) if target.kind == "ratio" else (-1.0, 1.0)
    ends = []
    for sign, limit in zip((-1.0, 1.0), limits, strict=True):
        ends.append(_walk(problem, phi0, top, target, estimate, sign, step, limit, critical))
    return ends[0], ends[1]


def _walk(
    problem: _Problem,
    phi: FloatArray,
    top: float,
    target: Target,
    estimate: float,
    sign: float,
    step: float,
    limit: float,
    critical: float,
) -> float:
    from scipy.optimize import brentq

    n = problem.model.data.n
    inside, state = estimate, phi
    for _ in range(MAX_STEPS):
        outside = inside + sign * step
        if sign * (outside - limit) >= 0:
            outside = inside + 0.9 * (limit - inside)
            if abs(limit - inside) < 1e-3:
                return limit
        loglik, moved = constrained_fit(problem, state, target, outside)
        if 2.0 * n * (top - loglik) > critical:
            break
        inside, state = outside, moved
    else:
        return limit

    def excess(value: float) -> float:
        loglik, _ = constrained_fit(problem, state, target, value)
        return min(2.0 * n * (top - loglik), 1e6) - critical

    low, high = sorted((inside, outside))
    if excess(inside) >= 0:
        return inside
    return float(brentq(excess, low, high, xtol=1e-4 * step, rtol=1e-10))
