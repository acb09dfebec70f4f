"""Outcome regression on group probabilities (outcome free of surname given group and place)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class OutcomeFit:
    """Fitted outcome regression.

    Attributes
    ----------
    theta : (n_areas, K, n_outcomes) array, or (K,) means of a continuous outcome
    member : (n, K) array
        Updated P(group | names, place, outcome).
    loglik : float
    n_steps : int
    converged : bool
    spread : float
        Residual standard deviation (continuous), standard deviation of area effects (mixed), or
        nan.
    """

    theta: FloatArray
    member: FloatArray
    loglik: float
    n_steps: int
    converged: bool
    spread: float = float("nan")


def group_table(
    member: FloatArray, outcome: IntArray, weight: FloatArray, n_outcomes: int
) -> FloatArray:
    """P(outcome | group) = sum_i 1{O_i = o} w_ir / sum_i w_ir: (K, n_outcomes)."""
    mass = member * weight[:, None]
    out = np.stack(
        [
            np.bincount(outcome, weights=mass[:, a], minlength=n_outcomes)
            for a in range(member.shape[1])
        ]
    )
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def default_pseudo_counts(
    prior: FloatArray, outcome: IntArray, weight: FloatArray, n_outcomes: int
) -> FloatArray:
    """One pseudo-count a group, spread as the weighted estimate: (K, n_outcomes)."""
    return group_table(prior, outcome, weight, n_outcomes)


def expected_counts(
    prior: FloatArray,
    outcome: IntArray,
    area: IntArray,
    weight: FloatArray,
    theta: FloatArray,
    member: FloatArray,
    buffer: FloatArray,
) -> tuple[FloatArray, float]:
    """E-step: fills ``member``; expected counts (n_areas, K, n_outcomes), log-likelihood."""
    from causalfair.fairness import _kernels

    buffer[:] = 0.0
    loglik = _kernels.outcome_step(prior, outcome, area, weight, theta, member, buffer)
    return np.asarray(buffer.sum(axis=0)), float(loglik)


def fit_categorical(
    prior: FloatArray,
    outcome: IntArray,
    area: IntArray,
    weight: FloatArray,
    pseudo: FloatArray,
    *,
    n_areas: int,
    start: FloatArray | None = None,
    max_iter: int = 1000,
    tol: float = 1e-9,
) -> OutcomeFit:
    """EM with SQUAREM acceleration on the outcome tables of areas (one area: pooled).

    prior (n, K); outcome, area (n,); weight (n,); pseudo (K, n_outcomes) counts added in every
    area.
    """
    from causalfair.fairness import _kernels

    shape = (n_areas, *pseudo.shape)
    member = np.empty_like(prior)
    buffer = np.zeros((_kernels.N_BLOCKS, *shape))

    def step(theta: FloatArray) -> tuple[FloatArray, float]:
        counts, loglik = expected_counts(prior, outcome, area, weight, theta, member, buffer)
        updated = counts + pseudo
        penalised = loglik + float((pseudo * np.log(np.maximum(theta, 1e-300))).sum())
        return updated / updated.sum(axis=2, keepdims=True), penalised

    theta = np.broadcast_to(pseudo / pseudo.sum(axis=1, keepdims=True), shape)
    theta = np.maximum(theta if start is None else start, 1e-12)
    total = float(weight.sum())
    previous, steps, converged = -np.inf, 0, False
    while steps < max_iter:
        first, ll0 = step(theta)
        second, ll1 = step(first)
        steps += 2
        if abs(ll1 - ll0) <= tol * total and abs(ll0 - previous) <= tol * total:
            theta, converged = second, True
            break
        previous = ll1
        trial = _extrapolate(theta, first, second)
        theta = second
        if trial is not None:
            image, loglik = step(trial)
            steps += 1
            if loglik >= ll1:
                theta, previous = image, loglik
    _, loglik = expected_counts(prior, outcome, area, weight, theta, member, buffer)
    return OutcomeFit(theta, member, loglik, steps, converged)


def _extrapolate(origin: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray | None:
    """SQUAREM point (Varadhan & Roland 2008, scheme S3), or None when it leaves the simplex."""
    r = first - origin
    v = second - first - r
    size = float((v**2).sum())
    if size == 0.0:
        return None
    length = -np.sqrt(float((r**2).sum()) / size)
    while length < -1.0001:
        trial = origin - 2.0 * length * r + length**2 * v
        if trial.min() > 0.0:
            return np.asarray(trial)
        length = 0.5 * (length - 1.0)
    return None


@dataclass(frozen=True, slots=True)
class MixedState:
    """Group intercepts (K,), area effects (n_areas,) and their standard deviation, logit scale."""

    intercept: FloatArray
    effect: FloatArray
    spread: float

    def theta(self) -> FloatArray:
        """Outcome probabilities (n_areas, K, 2)."""
        from scipy.special import expit

        rate = expit(self.intercept[None, :] + self.effect[:, None])
        return np.stack([1.0 - rate, rate], axis=2)


def mixed_step(counts: FloatArray, state: MixedState) -> MixedState:
    """One penalised Newton step of logit P(O = 1 | r, x) = alpha_r + u_x, and the update of sd(u).

    ``counts`` (n_areas, K, 2). The Hessian is diagonal in the area effects, so they are eliminated
    first. The variance update adds the posterior variance of the effects (Laplace).
    """
    total = counts.sum(axis=2)
    rate = state.theta()[:, :, 1]
    residual = counts[:, :, 1] - total * rate
    weight = total * rate * (1.0 - rate)
    ridge = 1.0 / state.spread**2
    grad_effect = residual.sum(axis=1) - ridge * state.effect
    grad_intercept = residual.sum(axis=0)
    diagonal = weight.sum(axis=1) + ridge
    schur = np.diag(weight.sum(axis=0)) - weight.T @ (weight / diagonal[:, None])
    schur += 1e-10 * np.eye(len(schur))
    right = grad_intercept - weight.T @ (grad_effect / diagonal)
    move = np.clip(np.linalg.solve(schur, right), -2.0, 2.0)
    effect = state.effect + np.clip((grad_effect - weight @ move) / diagonal, -2.0, 2.0)
    level = float(effect.mean())
    spread = float(np.sqrt(np.mean((effect - level) ** 2 + 1.0 / diagonal)))
    return MixedState(state.intercept + move + level, effect - level, max(spread, 1e-3))


def fit_mixed(
    prior: FloatArray,
    outcome: IntArray,
    area: IntArray,
    weight: FloatArray,
    pseudo: FloatArray,
    *,
    n_areas: int,
    start: MixedState | None = None,
    max_iter: int = 1000,
    tol: float = 1e-8,
) -> tuple[OutcomeFit, MixedState]:
    """EM with a random intercept for each area (binary outcomes)."""
    from causalfair.fairness import _kernels

    member = np.empty_like(prior)
    buffer = np.zeros((_kernels.N_BLOCKS, n_areas, *pseudo.shape))
    rate = pseudo[:, 1] / pseudo.sum(axis=1)
    rate = np.clip(rate, 0.01, 0.99)
    state = start or MixedState(np.log(rate / (1 - rate)), np.zeros(n_areas), 0.5)
    steps, converged = 0, False
    while steps < max_iter:
        before = state
        counts, _ = expected_counts(prior, outcome, area, weight, state.theta(), member, buffer)
        for _ in range(2):  # two Newton steps a cycle: the M-step is not closed form
            state = mixed_step(counts + pseudo / n_areas, state)
        steps += 1
        change = max(
            float(np.abs(state.intercept - before.intercept).max()),
            float(np.abs(state.effect - before.effect).max()),
            abs(state.spread - before.spread),
        )
        if change < np.sqrt(tol):
            converged = True
            break
    theta = state.theta()
    _, loglik = expected_counts(prior, outcome, area, weight, theta, member, buffer)
    return OutcomeFit(theta, member, loglik, steps, converged, state.spread), state


def fit_linear(
    prior: FloatArray,
    outcome: FloatArray,
    weight: FloatArray,
    *,
    start: tuple[FloatArray, float] | None = None,
    max_iter: int = 2000,
    tol: float = 1e-10,
) -> OutcomeFit:
    """EM of a normal outcome with group means and a common variance."""
    mass = prior * weight[:, None]
    mean = (mass * outcome[:, None]).sum(axis=0) / mass.sum(axis=0)
    variance = float(
        np.average((outcome - np.average(outcome, weights=weight)) ** 2, weights=weight)
    )
    if start is not None:
        mean, variance = start
    total = float(weight.sum())
    previous, converged, steps = -np.inf, False, 0
    member = prior
    while steps < max_iter:
        steps += 1
        log_density = -0.5 * ((outcome[:, None] - mean) ** 2 / variance + np.log(variance))
        peak = log_density.max(axis=1, keepdims=True)
        joint = prior * np.exp(log_density - peak)
        row = joint.sum(axis=1, keepdims=True)
        member = joint / row
        loglik = float((weight * (np.log(row[:, 0]) + peak[:, 0])).sum())
        mass = member * weight[:, None]
        mean = (mass * outcome[:, None]).sum(axis=0) / mass.sum(axis=0)
        variance = float((mass * (outcome[:, None] - mean) ** 2).sum() / total)
        if loglik - previous < tol * total:
            converged = True
            break
        previous = loglik
    return OutcomeFit(mean, member, previous, steps, converged, float(np.sqrt(variance)))
