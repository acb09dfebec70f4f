"""Maximum likelihood of selection models: constraints, optimiser, covariance, two steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize

from causalfair._core.logging import warn
from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import ConvergenceError, IdentificationError, WeakIdentificationWarning
from causalfair.risk._selection_likelihood import (
    SelectionLikelihood,
    SelectionRows,
    mills_ratio,
)

__all__ = [
    "MaximumLikelihood",
    "SelectionObjective",
    "TwoStep",
    "fit_probit",
    "hessian_of",
    "maximise",
    "two_step",
]


# Standardised coefficients and log scales beyond this are accidents of a line search.
FAR_OUT = 50.0


@dataclass(frozen=True)
class SelectionObjective:
    """Log-likelihood in the free parameters, with what is known from outside.

    The free parameters are the testing coefficients that are not tied, the outcome coefficients,
    the likelihood's extras and, for a binary outcome with ties, the log of their ratio. A tied
    testing coefficient is the outcome's times one ratio: the decision then depends on that column
    through risk alone.

    Attributes
    ----------
    rows : SelectionRows
        Data.
    likelihood : SelectionLikelihood
        Which model.
    tied : (p,) bool array
        Testing coefficients tied to the outcome's.
    partner : (p,) int array
        Outcome column of each tied testing column.
    prevalence, prevalence_sd : float or None
        Known mean of the outcome over all rows, and its standard deviation.
    """

    rows: SelectionRows
    likelihood: SelectionLikelihood
    tied: BoolArray
    partner: IntArray
    prevalence: float | None = None
    prevalence_sd: float | None = None
    ratio_is_free: bool = field(init=False)

    def __post_init__(self) -> None:
        free = bool(self.tied.any()) and "log_sigma" not in self.likelihood.extras
        object.__setattr__(self, "ratio_is_free", free)

    @property
    def n_free(self) -> int:
        """Number of free parameters."""
        loose = int((~self.tied).sum()) + self.rows.n_outcome
        return loose + len(self.likelihood.extras) + self.ratio_is_free

    def _ratio(self, free: FloatArray) -> tuple[float, FloatArray]:
        """Ratio of tied coefficients, and its derivative in the free parameters."""
        slope = np.zeros(self.n_free)
        if self.ratio_is_free:
            slope[-1] = ratio = float(np.exp(free[-1]))
            return ratio, slope
        # Heckman: correlation / sigma
        sigma, c = np.exp(free[-2]), np.tanh(free[-1])
        slope[-2], slope[-1] = -c / sigma, (1.0 - c * c) / sigma
        return float(c / sigma), slope

    def expand(self, free: FloatArray) -> tuple[FloatArray, FloatArray]:
        """All parameters of the likelihood, and their Jacobian in the free ones."""
        p, q, m = self.rows.n_testing, self.rows.n_outcome, int((~self.tied).sum())
        k = p + q + len(self.likelihood.extras)
        jacobian = np.zeros((k, self.n_free))
        loose = np.flatnonzero(~self.tied)
        jacobian[loose, np.arange(m)] = 1.0
        rest = np.arange(q + len(self.likelihood.extras))
        jacobian[p + rest, m + rest] = 1.0
        theta = jacobian @ free
        if self.tied.any():
            ratio, slope = self._ratio(free)
            for j in np.flatnonzero(self.tied):
                theta[j] = ratio * theta[p + self.partner[j]]
                jacobian[j] = theta[p + self.partner[j]] * slope
                jacobian[j, m + self.partner[j]] += ratio
        return theta, jacobian

    def mean_outcome(self, free: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Mean of E[Y|x] over all rows, its derivative, and its value in every row."""
        p, q, m = self.rows.n_testing, self.rows.n_outcome, int((~self.tied).sum())
        theta, _ = self.expand(free)
        mean, slope = self.likelihood.mean_outcome(self.rows.outcome @ theta[p : p + q])
        share = self.rows.weight / self.rows.weight.sum()
        gradient = np.zeros(self.n_free)
        gradient[m : m + q] = (share * slope) @ self.rows.outcome
        return float(share @ mean), gradient, mean

    def value(self, free: FloatArray) -> tuple[float, FloatArray]:
        """Penalised log-likelihood and its gradient; minus infinity absurdly far out."""
        if not np.abs(free).max() < FAR_OUT:
            return -np.inf, np.zeros_like(free)
        theta, jacobian = self.expand(free)
        terms = self.likelihood.terms(theta, self.rows)
        value = float(self.rows.weight @ terms.loglik)
        gradient = (self.rows.weight @ terms.scores) @ jacobian
        if self.prevalence is not None and self.prevalence_sd is not None:
            mean, slope, _ = self.mean_outcome(free)
            gap = (mean - self.prevalence) / self.prevalence_sd
            value -= 0.5 * gap * gap
            gradient = gradient - gap / self.prevalence_sd * slope
        return value, gradient

    def scores(self, free: FloatArray) -> FloatArray:
        """Scores (n, n_free) of the rows, unweighted."""
        theta, jacobian = self.expand(free)
        return self.likelihood.terms(theta, self.rows).scores @ jacobian


@dataclass(frozen=True, slots=True)
class MaximumLikelihood:
    """The maximum.

    Attributes
    ----------
    free : (k,) float array
        Free parameters.
    value : float
        Penalised log-likelihood.
    information : (k, k) float array
        Minus its Hessian.
    inverse : (k, k) float array
        Inverse of ``information``.
    condition : float
        Condition number of the information, scaled to a unit diagonal.
    """

    free: FloatArray
    value: float
    information: FloatArray
    inverse: FloatArray
    condition: float


def hessian_of(objective: SelectionObjective, free: FloatArray) -> FloatArray:
    """Hessian by central differences of the analytic gradient."""
    columns = []
    for j in range(len(free)):
        step = np.zeros(len(free))
        step[j] = 1e-4 * max(1.0, abs(free[j]))
        up, down = objective.value(free + step)[1], objective.value(free - step)[1]
        columns.append((up - down) / (2.0 * step[j]))
    matrix = np.column_stack(columns)
    return np.asarray((matrix + matrix.T) / 2.0)


def maximise(
    objective: SelectionObjective, starts: list[FloatArray], *, owner: str
) -> MaximumLikelihood:
    """Best of the local maxima reached from several starts.

    Raises
    ------
    ConvergenceError
        No start led to a maximum.
    IdentificationError
        The likelihood is flat in some direction.
    """
    scale = objective.rows.weight.sum()

    def loss(free: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = objective.value(free)
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e10, np.zeros_like(free)
        return -value / scale, -gradient / scale

    best, size = None, np.inf
    for start in starts:
        found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-7})
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    free = np.asarray(best.x, dtype=np.float64)
    for _ in range(60):
        value, gradient = objective.value(free)
        size = float(np.abs(gradient).max() / scale)
        if size < 1e-11:
            break
        free = _newton_step(objective, free, value, gradient)
    value, gradient = objective.value(free)
    size = float(np.abs(gradient).max() / scale)
    # Where BFGS and Newton both stall, the surface is flat and its end is not a maximum.
    if not size < 1e-6:
        raise ConvergenceError(
            f"{owner}: the likelihood has no interior maximum that could be found (largest mean "
            f"score {size:.2g}). A correlation that runs to one, or a column that separates the "
            "decisions perfectly, are the usual causes: add knowledge (prevalence=, expertise=), "
            'an excluded covariate, or use method="bayes".'
        )
    return _describe(objective, free, value, owner)


def _newton_step(
    objective: SelectionObjective, free: FloatArray, value: float, gradient: FloatArray
) -> FloatArray:
    """One Newton step on the absolute curvature, halved until the likelihood does not fall."""
    values, vectors = np.linalg.eigh(-hessian_of(objective, free))
    size = np.maximum(np.abs(values), 1e-8 * np.abs(values).max())
    step = vectors @ ((vectors.T @ gradient) / size)
    step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
    for _ in range(30):
        trial = free + step
        if objective.value(trial)[0] >= value - 1e-10 * abs(value):
            return np.asarray(trial)
        step = step / 2.0
    return free


def _describe(
    objective: SelectionObjective, free: FloatArray, value: float, owner: str
) -> MaximumLikelihood:
    information = -hessian_of(objective, free)
    diagonal = np.diag(information)
    if (diagonal <= 0).any():
        raise IdentificationError(
            f"{owner}: the likelihood is flat in parameter {int(np.argmin(diagonal))}; the data do "
            "not identify the model. Add knowledge (prevalence=, expertise=) or an excluded "
            "covariate."
        )
    unit = 1.0 / np.sqrt(diagonal)
    eigenvalues, vectors = np.linalg.eigh(information * np.outer(unit, unit))
    if eigenvalues[0] <= 1e-10:
        raise IdentificationError(
            f"{owner}: the information matrix is singular (smallest scaled eigenvalue "
            f"{eigenvalues[0]:.2g}); the data do not identify the model. Add knowledge "
            "(prevalence=, expertise=) or an excluded covariate."
        )
    inverse = (vectors / eigenvalues) @ vectors.T * np.outer(unit, unit)
    return MaximumLikelihood(
        free, value, information, inverse, float(eigenvalues[-1] / eigenvalues[0])
    )


# Two steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TwoStep:
    """Heckman's two steps.

    Attributes
    ----------
    testing, outcome : float arrays
        Coefficients of the decision and of the outcome.
    mills : float
        Coefficient of the inverse Mills ratio: correlation times sigma.
    sigma, correlation : float
        Error of the outcome, and its correlation with that of the decision; unclipped.
    vcov : float array
        Covariance of (testing, outcome, mills), corrected for the first step.
    """

    testing: FloatArray
    outcome: FloatArray
    mills: float
    sigma: float
    correlation: float
    vcov: FloatArray


def fit_probit(
    design: FloatArray, sign: FloatArray, weight: FloatArray, *, owner: str
) -> tuple[FloatArray, FloatArray]:
    """Probit by Fisher scoring: coefficients and inverse expected information."""
    beta = np.zeros(design.shape[1])
    for _ in range(100):
        t = design @ beta
        score = design.T @ (weight * sign * mills_ratio(sign * t))
        expected = weight * mills_ratio(t) * mills_ratio(-t)
        information = (design * expected[:, None]).T @ design
        try:
            step = np.linalg.solve(information, score)
        except np.linalg.LinAlgError:
            break
        beta = beta + step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-300))
        if np.abs(step).max() < 1e-10:
            return beta, np.asarray(np.linalg.inv(information))
        if not np.isfinite(beta).all() or np.abs(t).max() > 60:
            break
    raise ConvergenceError(
        f"{owner}: the probit of the decision did not converge; a covariate probably separates "
        'those chosen from the rest perfectly. Leave it out, or use method="bayes".'
    )


def two_step(rows: SelectionRows, *, owner: str) -> TwoStep:
    """Probit of the decision, then least squares with the inverse Mills ratio.

    The covariance counts the first step: ``s**2 (W'W)^-1 [W'(I - c**2 D)W + Q] (W'W)^-1``.
    """
    decided = rows.decision != 0
    chosen = rows.seen & (rows.decision > 0)
    x1 = rows.testing[chosen]
    gamma, cov_gamma = fit_probit(
        rows.testing[decided], rows.decision[decided], rows.weight[decided], owner=owner
    )
    t = x1 @ gamma
    mills = mills_ratio(t)
    w = np.column_stack([rows.outcome[chosen], mills])
    y = rows.y[chosen]
    gram = w.T @ w
    if np.linalg.cond(gram / np.outer(np.sqrt(np.diag(gram)), np.sqrt(np.diag(gram)))) > 1e12:
        raise IdentificationError(
            f"{owner}: the inverse Mills ratio is a linear function of the covariates, so that two "
            "steps cannot tell selection from effect; give a covariate that moves the decision "
            "only, or knowledge from outside."
        )
    coefficients: FloatArray = np.asarray(np.linalg.solve(gram, w.T @ y), dtype=np.float64)
    residual = y - w @ coefficients
    delta = mills * (mills + t)
    slope = float(coefficients[-1])
    sigma = float(np.sqrt(residual @ residual / len(y) + slope**2 * delta.mean()))
    c = slope / sigma
    bread = np.linalg.inv(gram)
    wdx = (w * delta[:, None]).T @ x1
    meat = w.T @ (w * (1.0 - c * c * delta)[:, None]) + c * c * wdx @ cov_gamma @ wdx.T
    p, q = len(gamma), len(coefficients)
    vcov = np.zeros((p + q, p + q))
    vcov[:p, :p] = cov_gamma
    vcov[p:, p:] = sigma**2 * bread @ meat @ bread
    if abs(c) > 1:
        warn(
            f"{owner}: the two-step correlation is {c:.2f}, outside [-1, 1]; the model fits badly "
            "or the sample is small. Prefer maximum likelihood.",
            WeakIdentificationWarning,
        )
    return TwoStep(gamma, coefficients[:-1], slope, sigma, c, vcov)
