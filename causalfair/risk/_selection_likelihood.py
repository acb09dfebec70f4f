"""Log-likelihoods of normal selection models, row by row with their scores.

A row says up to two things: the decision, through a sign (+1 chosen, -1 not, 0 where chance or
design decided), and the outcome, where it was seen. Both likelihoods below are sums over such rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import log_ndtr, ndtr

from causalfair._core.typing import BoolArray, FloatArray
from causalfair.risk._bivariate import bivariate_normal_log_cdf

__all__ = [
    "HeckmanLikelihood",
    "ProbitLikelihood",
    "RowTerms",
    "SelectionLikelihood",
    "SelectionRows",
    "decision_form",
    "mills_ratio",
]

_LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, slots=True)
class SelectionRows:
    """Designs and what each row says.

    Attributes
    ----------
    testing : (n, p) float array
        Design of the decision, the intercept first.
    outcome : (n, q) float array
        Design of the outcome, the intercept first.
    decision : (n,) float array
        +1 chosen, -1 not chosen, 0 where the decision says nothing.
    seen : (n,) bool array
        Whether the outcome is known.
    y : (n,) float array
        Outcome; 0 where it is not known.
    weight : (n,) float array
        Weights; they sum to the number of rows.
    """

    testing: FloatArray
    outcome: FloatArray
    decision: FloatArray
    seen: BoolArray
    y: FloatArray
    weight: FloatArray

    @property
    def n_testing(self) -> int:
        """Columns of the design of the decision."""
        return int(self.testing.shape[1])

    @property
    def n_outcome(self) -> int:
        """Columns of the design of the outcome."""
        return int(self.outcome.shape[1])

    def indices(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Linear indices of the decision and of the outcome."""
        p, q = self.n_testing, self.n_outcome
        return self.testing @ theta[:p], self.outcome @ theta[p : p + q]


@dataclass(frozen=True, slots=True)
class RowTerms:
    """Log-likelihood (n,) and its derivatives in the parameters (n, k) of every row."""

    loglik: FloatArray
    scores: FloatArray


class SelectionLikelihood(Protocol):
    """What the fitting routines need of a likelihood."""

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the parameters beyond the two sets of coefficients."""

    def terms(self, theta: FloatArray, rows: SelectionRows) -> RowTerms:
        """Log-likelihood and scores of every row."""

    def mean_outcome(self, index: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E[Y|x] and its derivative in the outcome index."""


def mills_ratio(x: FloatArray) -> FloatArray:
    """phi(x) / Phi(x) without underflow, also where the difference of logs has no digits."""
    near = np.maximum(x, -1e4)
    ratio = np.exp(-0.5 * near * near - 0.5 * _LOG_2PI - log_ndtr(near))
    return np.asarray(np.where(x < -1e4, ratio - x - 1e4, ratio))


class HeckmanLikelihood:
    """Linear outcome, probit decision, jointly normal errors.

    Parameters: coefficients of the decision, of the outcome, log standard deviation of the outcome
    error, inverse hyperbolic tangent of the correlation.
    """

    extras = ("log_sigma", "atanh_correlation")

    def terms(self, theta: FloatArray, rows: SelectionRows) -> RowTerms:
        """Log-likelihood and scores of every row."""
        t, index = rows.indices(theta)
        sigma, c = np.exp(theta[-2]), np.tanh(theta[-1])
        k = 1.0 / np.cosh(theta[-1])  # sqrt(1 - c**2) without cancellation
        seen, d = rows.seen, rows.decision
        e = np.where(seen, (rows.y - index) / sigma, 0.0)
        # Given the outcome the decision is probit in u; without it in t.
        argument = np.where(seen, (t + c * e) / k, t)
        loglik = np.where(d != 0, log_ndtr(d * argument), 0.0)
        loglik += np.where(seen, -0.5 * e * e - 0.5 * _LOG_2PI - theta[-2], 0.0)
        m = np.where(d != 0, d * mills_ratio(d * argument), 0.0)
        by_index = np.where(seen, (e - m * c / k) / sigma, 0.0)
        by_log_sigma = np.where(seen, e * e - 1.0 - m * c * e / k, 0.0)
        by_atanh = np.where(seen, m * (e * k + (t + c * e) * c / k), 0.0)
        scores = np.column_stack(
            [
                (m * np.where(seen, 1.0 / k, 1.0))[:, None] * rows.testing,
                by_index[:, None] * rows.outcome,
                by_log_sigma,
                by_atanh,
            ]
        )
        return RowTerms(loglik, scores)

    def mean_outcome(self, index: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E[Y|x] and its derivative in the outcome index."""
        return index, np.ones_like(index)


class ProbitLikelihood:
    """Probit outcome, probit decision, jointly normal errors (the probit with selection).

    Parameters: coefficients of the decision, of the outcome, inverse hyperbolic tangent of the
    correlation.
    """

    extras = ("atanh_correlation",)

    def terms(self, theta: FloatArray, rows: SelectionRows) -> RowTerms:
        """Log-likelihood and scores of every row."""
        t, b = rows.indices(theta)
        rho = float(np.tanh(theta[-1]))
        seen, d = rows.seen, rows.decision
        z = np.where(rows.y > 0.5, 1.0, -1.0)
        both, alone, only = seen & (d != 0), seen & (d == 0), ~seen & (d != 0)
        loglik, by_t, by_b, by_rho = (np.zeros(len(t)) for _ in range(4))
        # P(Y = z, T = d) = Phi2(z b, d t; z d rho)
        sign = z[both] * d[both]
        pair = bivariate_normal_log_cdf(z[both] * b[both], d[both] * t[both], sign * rho)
        loglik[both] = pair.value
        # Where the correlation is one to machine precision its coordinate moves nothing any more.
        slope = (1.0 - rho) * (1.0 + rho)
        by_rho[both] = sign * pair.d_rho * slope if slope > 0 else 0.0
        by_b[both], by_t[both] = z[both] * pair.d_h, d[both] * pair.d_k
        loglik[alone] = log_ndtr(z[alone] * b[alone])
        by_b[alone] = z[alone] * mills_ratio(z[alone] * b[alone])
        loglik[only] = log_ndtr(d[only] * t[only])
        by_t[only] = d[only] * mills_ratio(d[only] * t[only])
        scores = np.column_stack(
            [by_t[:, None] * rows.testing, by_b[:, None] * rows.outcome, by_rho]
        )
        return RowTerms(loglik, scores)

    def mean_outcome(self, index: FloatArray) -> tuple[FloatArray, FloatArray]:
        """E[Y|x] and its derivative in the outcome index."""
        return ndtr(index), np.exp(-0.5 * index * index - 0.5 * _LOG_2PI)


def decision_form(
    beta_t: FloatArray, beta_y: FloatArray, sigma: float, correlation: float
) -> tuple[float, FloatArray]:
    """The Heckman model as a decision on the outcome itself: alpha and beta_Delta.

    ``P(T=1|Y, x) = Phi(alpha Y + x' beta_Delta)`` with coefficients on the same columns.
    """
    root = np.sqrt((1.0 - correlation) * (1.0 + correlation))
    slope = correlation / sigma
    return float(slope / root), np.asarray((beta_t - slope * beta_y) / root)
