"""Profile likelihood: the set of values of one gap that the likelihood does not reject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from causalfair.fairness._information import Layout, make_layout, pack, unpack
from causalfair.fairness._latent import class_probabilities
from causalfair.fairness._optimise import constrained_minimum

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.fairness._metrics import GroupMetric
    from causalfair.fairness._models import Model

MAX_STEPS = 40
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
    """Negative mean log-likelihood and its gradient in softmax parameters."""

    model: Model
    layout: Layout
    totals: tuple[float, ...]

    @classmethod
    def of(cls, model: Model) -> _Problem:
        layout = make_layout(model.spec)
        theta = pack(layout, model.fit.G, model.fit.T)
        return cls(model, layout, tuple(float(theta[b].sum()) for b in layout.blocks))

    def theta(self, phi: FloatArray) -> FloatArray:
        out = np.empty_like(phi)
        for block, total in zip(self.layout.blocks, self.totals, strict=True):
            e = np.exp(phi[block] - phi[block].max())
            out[block] = total * e / e.sum()
        return out

    def to_phi(self, gradient: FloatArray, theta: FloatArray) -> FloatArray:
        """Chain rule from theta to phi."""
        out = np.empty_like(gradient)
        for block, total in zip(self.layout.blocks, self.totals, strict=True):
            g, t = gradient[block], theta[block]
            out[block] = t * (g - (g * t).sum() / total)
        return out

    def objective(self, phi: FloatArray) -> tuple[float, FloatArray]:
        data, spec = self.model.data, self.model.spec
        theta = self.theta(phi)
        G, T = unpack(self.layout, theta, self.model.fit.T)
        joint = class_probabilities(data, spec, G, T)
        q = np.maximum(joint.sum(axis=2), 1e-300)
        loss = -float((data.counts * np.log(q)).sum()) / data.n
        # expected complete counts: the gradient by log theta
        share = joint * (data.counts / q)[:, :, None]
        expected = np.zeros_like(theta)
        expected[self.layout.g] = share.sum(axis=1)
        for j in range(data.n_proxies):
            level = data.patterns[:, j]
            seen = level >= 0
            for s in range(data.n_strata):
                for a in range(spec.n_groups):
                    position: IntArray = self.layout.t[spec.tables[s, j], spec.rows[j, a]]
                    if position[0] < 0:
                        continue
                    np.add.at(expected, position[level[seen]], share[s, seen, a])
        gradient = np.empty_like(theta)
        for block, total in zip(self.layout.blocks, self.totals, strict=True):
            gradient[block] = expected[block] - expected[block].sum() * theta[block] / total
        return loss, -gradient / data.n

    def constraint(self, phi: FloatArray, target: Target, value: float) -> tuple[float, FloatArray]:
        theta = self.theta(phi)
        G = theta[self.layout.g]
        now, grad = target.value(G)
        full = np.zeros_like(theta)
        full[self.layout.g] = grad
        return now - value, self.to_phi(full, theta)


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


def profile_interval(
    model: Model, target: Target, std_error: float, level: float
) -> tuple[float, float]:
    """Values of the gap whose likelihood-ratio statistic stays below the chi-square quantile.

    Walks outwards from the estimate, each constrained fit starting at the last, until the deviance
    crosses; then refines by bisection and secants (Brent).
    """
    from scipy.stats import chi2

    critical = float(chi2.ppf(level, 1))
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
    return float(brentq(excess, low, high, xtol=1e-5 * max(step, 1e-3), rtol=1e-10))
