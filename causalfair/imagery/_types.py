"""A few types of places, told apart by images, with one effect each: the EM algorithm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray, IntArray

__all__ = ["Pull", "Types", "choose_types", "fit_types", "log_likelihood", "type_probabilities"]

PENALTY = 1.0  # ridge of the type logits
OUTCOME_RIDGE = 1e-3
FLOOR = 1e-4
STARTS = (0.1, 0.5, 1.0)
MOST_TYPES = 3


@dataclass(frozen=True)
class Types:
    """Parameters of the model.

    Attributes
    ----------
    effect : ndarray of shape (K,)
        Effect of each type, ascending.
    logits : ndarray of shape (1 + m, K)
        Coefficients of the type probabilities; zero for the first type.
    outcome : ndarray of shape (1 + m,)
        Coefficients of the untreated outcome.
    variance : ndarray of shape (2, K)
        Outcome variance by arm and type.
    objective : ndarray of shape (iterations,)
        Penalised log-likelihood, which never decreases.
    """

    effect: FloatArray
    logits: FloatArray
    outcome: FloatArray
    variance: FloatArray
    objective: FloatArray


def _ones(phi: FloatArray) -> FloatArray:
    return np.column_stack([np.ones(len(phi)), phi])


def type_probabilities(logits: FloatArray, phi: FloatArray) -> FloatArray:
    """Softmax of [1, phi] logits, (n, K)."""
    eta = _ones(phi) @ logits
    eta -= eta.max(axis=1, keepdims=True)
    p = np.exp(eta)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _joint(types: Types, phi: FloatArray, y: FloatArray, w: FloatArray) -> FloatArray:
    """Log pi_z + log normal density of the outcome, (n, K)."""
    mean = (_ones(phi) @ types.outcome)[:, None] + w[:, None] * types.effect
    s2 = types.variance[w.astype(int)]
    density = -0.5 * (np.log(2 * np.pi * s2) + (y[:, None] - mean) ** 2 / s2)
    return np.asarray(np.log(type_probabilities(types.logits, phi) + 1e-300) + density)


def log_likelihood(types: Types, phi: FloatArray, y: FloatArray, w: FloatArray) -> float:
    """Log-likelihood with types summed out."""
    joint = _joint(types, phi, y, w)
    top = joint.max(axis=1)
    return float((top + np.log(np.exp(joint - top[:, None]).sum(axis=1))).sum())


@dataclass(frozen=True)
class Pull:
    """Pull of the average effect that the types imply towards the difference in means.

    Attributes
    ----------
    strength : float
        Subtracts ``strength * (implied - target)**2`` from the log-likelihood.
    target : float
        Difference in means.
    """

    strength: float
    target: float

    def loss(self, effect: FloatArray, logits: FloatArray, phi: FloatArray) -> float:
        """What is subtracted."""
        implied = float((type_probabilities(logits, phi) @ effect).mean())
        return self.strength * (implied - self.target) ** 2


def _penalty(types: Types, phi: FloatArray, pull: Pull | None) -> float:
    ridge = 0.5 * PENALTY * float((types.logits[1:] ** 2).sum())
    ridge += 0.5 * OUTCOME_RIDGE * float((types.outcome[1:] ** 2).sum())
    return ridge + (0.0 if pull is None else pull.loss(types.effect, types.logits, phi))


def _pulled(
    types: Types, r: FloatArray, phi: FloatArray, y: FloatArray, w: FloatArray, pull: Pull
) -> Types:
    """Effects and logits that increase the expected log-likelihood less all penalties."""
    from scipy.optimize import minimize

    Z, K = _ones(phi), r.shape[1]
    treated = w == 1
    base = (y - Z @ types.outcome)[treated][:, None]
    precision = r[treated] / types.variance[1]
    ridge = PENALTY * np.r_[0.0, np.ones(Z.shape[1] - 1)][:, None]

    def split(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        free = theta[K:].reshape(Z.shape[1], K - 1)
        return theta[:K], np.column_stack([np.zeros(Z.shape[1]), free])

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        effect, logits = split(theta)
        p = type_probabilities(logits, phi)
        gap = float((p @ effect).mean()) - pull.target
        error = base - effect
        value = (r * np.log(p + 1e-300)).sum() - 0.5 * (precision * error**2).sum()
        value -= 0.5 * (ridge * logits**2).sum() + pull.strength * gap**2
        by_effect = (precision * error).sum(axis=0) - 2 * pull.strength * gap * p.mean(axis=0)
        away = p * (effect - (p @ effect)[:, None]) / len(p)
        by_logits = Z.T @ (r - p - 2 * pull.strength * gap * away) - ridge * logits
        return -value, -np.r_[by_effect, by_logits[:, 1:].ravel()]

    start = np.r_[types.effect, types.logits[:, 1:].ravel()]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 30})
    if found.fun > objective(start)[0]:
        return types
    effect, logits = split(found.x)
    return replace(types, effect=effect, logits=logits)


def _update_logits(logits: FloatArray, Z: FloatArray, r: FloatArray) -> FloatArray:
    """Damped Newton steps of the ridge-penalised multinomial logistic regression on r."""
    d = Z.shape[1]
    K = r.shape[1]
    ridge = PENALTY * np.r_[0.0, np.ones(d - 1)]

    def value(beta: FloatArray) -> float:
        eta = Z @ beta
        top = eta.max(axis=1)
        norm = top + np.log(np.exp(eta - top[:, None]).sum(axis=1))
        return float((r * eta).sum() - norm.sum() - 0.5 * (ridge[:, None] * beta**2).sum())

    current = value(logits)
    for _ in range(5):
        p = type_probabilities(logits, Z[:, 1:])
        gradient = (Z.T @ (r - p) - ridge[:, None] * logits)[:, 1:]
        hessian = np.zeros((K - 1, d, K - 1, d))
        for a in range(1, K):
            for b in range(1, K):
                weight = p[:, a] * ((a == b) - p[:, b])
                hessian[a - 1, :, b - 1] = (Z * weight[:, None]).T @ Z
            hessian[a - 1, :, a - 1] += np.diag(ridge + 1e-10)
        size = (K - 1) * d
        step = np.linalg.solve(hessian.reshape(size, size), gradient.T.ravel())
        move = np.column_stack([np.zeros(d), step.reshape(K - 1, d).T])
        scale = 1.0
        while scale > 1e-6 and value(logits + scale * move) < current:
            scale /= 2
        if scale <= 1e-6:
            break
        logits = logits + scale * move
        gain, current = value(logits) - current, value(logits)
        if gain < 1e-10 * (1 + abs(current)):
            break
    return logits


def _m_step(
    types: Types, r: FloatArray, phi: FloatArray, y: FloatArray, w: FloatArray, floor: float, *,
    effect: FloatArray | None = None,
) -> Types:  # fmt: skip
    Z = _ones(phi)
    arm = w.astype(int)
    precision = r / types.variance[arm]
    if effect is None:
        treated = w == 1
        base = y - Z @ types.outcome
        effect = (r[treated] * base[treated][:, None]).sum(axis=0) / r[treated].sum(axis=0)
    target = (precision * (y[:, None] - w[:, None] * effect)).sum(axis=1)
    gram = (Z * precision.sum(axis=1)[:, None]).T @ Z
    gram += np.diag(np.r_[0.0, np.full(Z.shape[1] - 1, OUTCOME_RIDGE)])
    outcome = np.linalg.solve(gram, Z.T @ target)
    error = (y - Z @ outcome)[:, None] - w[:, None] * effect
    variance = np.empty((2, r.shape[1]))
    for a in (0, 1):
        rows = arm == a
        variance[a] = (r[rows] * error[rows] ** 2).sum(axis=0) / r[rows].sum(axis=0)
    logits = _update_logits(types.logits, Z, r) if r.shape[1] > 1 else types.logits
    return Types(effect, logits, outcome, np.maximum(variance, floor), types.objective)


def _start(
    phi: FloatArray, y: FloatArray, w: FloatArray, K: int, spread: float, rng: np.random.Generator
) -> Types:
    m = phi.shape[1]
    difference = y[w == 1].mean() - y[w == 0].mean()
    effect = difference + spread * y.std() * np.linspace(-1, 1, K) if K > 1 else np.r_[difference]
    logits = np.zeros((1 + m, K))
    logits[1:, 1:] = rng.normal(scale=0.5, size=(m, K - 1))
    outcome = np.r_[y[w == 0].mean(), np.zeros(m)]
    return Types(effect, logits, outcome, np.full((2, K), y.var()), np.zeros(0))


def _run(
    types: Types, phi: FloatArray, y: FloatArray, w: FloatArray, most: int, pull: Pull | None
) -> Types:
    floor = FLOOR * y.var()
    values: list[float] = []
    for _ in range(most):
        joint = _joint(types, phi, y, w)
        r = np.exp(joint - joint.max(axis=1, keepdims=True))
        r /= r.sum(axis=1, keepdims=True)
        arms = np.array([r[w == a].sum(axis=0) for a in (0, 1)])
        if arms.min() < 1e-8:  # a type nobody belongs to
            break
        if pull is None:
            types = _m_step(types, r, phi, y, w, floor)
        else:  # effects and logits hang together; the rest is as ever, given them
            types = _pulled(types, r, phi, y, w, pull)
            free = _m_step(types, r, phi, y, w, floor, effect=types.effect)
            types = replace(free, logits=types.logits)
        values.append(log_likelihood(types, phi, y, w) - _penalty(types, phi, pull))
        if len(values) > 1 and values[-1] - values[-2] < 1e-8 * abs(values[-2]):
            break
    return Types(types.effect, types.logits, types.outcome, types.variance, np.array(values))


def fit_types(
    phi: FloatArray, y: FloatArray, w: FloatArray, K: int, rng: np.random.Generator,
    n_starts: int = 20, most: int = 500, pull: Pull | None = None,
) -> Types:  # fmt: skip
    """Best of several EM runs, types in ascending order of effect.

    Parameters
    ----------
    phi : ndarray of shape (n, m)
        Standardised image features.
    y, w : ndarray of shape (n,)
        Outcome and treatment.
    K : int
        Types.
    rng : numpy.random.Generator
        For the starts.
    n_starts : int
        Runs.
    most : int
        Iterations a run.
    pull : Pull, optional
        Pull of the implied average effect.

    Returns
    -------
    Types
        Parameters with the highest penalised likelihood.
    """
    runs = [
        _run(_start(phi, y, w, K, STARTS[i % len(STARTS)], rng), phi, y, w, most, pull)
        for i in range(n_starts if K > 1 else 1)
    ]
    best = max(runs, key=lambda run: run.objective[-1] if run.objective.size else -np.inf)
    order = np.argsort(best.effect, kind="stable")
    logits = best.logits[:, order]
    return Types(
        best.effect[order], logits - logits[:, :1], best.outcome, best.variance[:, order],
        best.objective,
    )  # fmt: skip


def choose_types(
    phi: FloatArray, y: FloatArray, w: FloatArray, folds: IntArray, seed: np.random.SeedSequence
) -> FloatArray:
    """Mean log-likelihood of a unit in folds that were left out, for K = 1, 2, ...

    Parameters
    ----------
    phi : ndarray of shape (n, m)
        Standardised image features.
    y, w : ndarray of shape (n,)
        Outcome and treatment.
    folds : int ndarray of shape (n,)
        Folds that keep clusters together.
    seed : numpy.random.SeedSequence
        For the starts.

    Returns
    -------
    ndarray of shape (MOST_TYPES,)
        The largest entry tells the number of types.
    """
    total = np.zeros(MOST_TYPES)
    for k in range(MOST_TYPES):
        for fold in np.unique(folds):
            inside, left = folds != fold, folds == fold
            rng = np.random.Generator(np.random.PCG64(child_seed(seed, k, int(fold))))
            types = fit_types(phi[inside], y[inside], w[inside], k + 1, rng, n_starts=3, most=100)
            total[k] += log_likelihood(types, phi[left], y[left], w[left])
    return total / len(y)
