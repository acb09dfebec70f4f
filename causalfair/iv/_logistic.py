"""Maximum-likelihood logistic regression by Newton's method."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ConvergenceError

__all__ = ["fit_logistic"]

MAX_ITERATIONS = 60
MAX_HALVINGS = 30


def _log_likelihood(t: FloatArray, eta: FloatArray, w: FloatArray) -> float:
    # log p = t eta - log(1 + e^eta), written so that neither sign of eta overflows.
    return float(np.dot(w, t * eta - np.logaddexp(0.0, eta)))


def fit_logistic(
    basis: FloatArray,
    target: FloatArray,
    weight: FloatArray,
    *,
    what: str,
    tolerance: float = 1e-10,
) -> FloatArray:
    """Coefficients of a logistic regression.

    Parameters
    ----------
    basis : (n, k)
        Columns of comparable scale, full rank.
    target : (n,)
        Zeros and ones.
    weight : (n,)
        Non-negative.
    what
        Name of the model for the error message.

    Raises
    ------
    ConvergenceError
        If the likelihood has no maximum (separation), or Newton does not reach the tolerance.
    """
    k = basis.shape[1]
    coef = np.zeros(k)
    eta = basis @ coef
    value = _log_likelihood(target, eta, weight)
    total = float(weight.sum())
    for _ in range(MAX_ITERATIONS):
        p = expit(eta)
        gradient = basis.T @ (weight * (target - p)) / total
        hessian = (basis * (weight * p * (1.0 - p))[:, None]).T @ basis / total
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            raise _separation(what, eta) from None
        size = 1.0
        for _ in range(MAX_HALVINGS):
            new_eta = basis @ (coef + size * step)
            new_value = _log_likelihood(target, new_eta, weight)
            if new_value >= value - 1e-12 * abs(value):
                break
            size *= 0.5
        coef = coef + size * step
        eta, value = new_eta, new_value
        # A fit without error, or predictors beyond any use, is a likelihood without maximum.
        if value > -1e-9 * total or not np.max(np.abs(eta)) < 500.0:
            raise _separation(what, eta)
        if size == 1.0 and np.max(np.abs(size * step)) <= tolerance * (1.0 + np.max(np.abs(coef))):
            if np.max(np.abs(gradient)) > 1e-6:
                break
            return coef
    raise _separation(what, eta)


def _separation(what: str, eta: FloatArray) -> ConvergenceError:
    return ConvergenceError(
        f"The logistic regression for {what} did not converge: after {MAX_ITERATIONS} Newton steps "
        f"at most, linear predictors reach {np.max(np.abs(eta)):.3g} in size. Some covariate "
        "separates the classes (nearly) perfectly. Remove or coarsen that covariate, give a "
        "smaller formula for this model, or use DebiasedATE with penalised learners."
    )
