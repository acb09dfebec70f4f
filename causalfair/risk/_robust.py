"""Covariances that allow for clusters of dependent rows and for sampling weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from causalfair.risk._conditional import hessian

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.risk._model import Problem
    from causalfair.risk._posterior import Posterior

ROW_ARRAYS = ("X", "W", "maker", "code", "weight", "prev_group", "prev_weight")


def score_variance(
    problem: Problem, theta: FloatArray, information: FloatArray, units: IntArray
) -> FloatArray:
    """Variance (k, k) of the gradient: squared scores of the units, and what is not from rows.

    Priors and soft prevalences, the part of the ``information`` that rows do not make up, are
    observations of their own.
    """
    likelihood = problem.without_prior().without_prevalence()
    total = information + hessian(likelihood.value_and_gradient, theta)
    order = np.argsort(units, kind="stable")
    for unit in np.split(order, np.flatnonzero(np.diff(units[order])) + 1):
        part = {k: np.ascontiguousarray(problem.arrays[k][unit]) for k in ROW_ARRAYS}
        score = likelihood.replaced(**part).value_and_gradient(theta)[1]
        total = total + np.outer(score, score)
    return np.asarray(total)


def robust_draws(posterior: Posterior, units: IntArray) -> Posterior:
    """Stretch the draws so that their covariance allows for clusters or sampling weights.

    The covariance becomes H^-1 V H^-1 with V the variance of the score; draws keep their mean
    (Williams and Savitsky 2021).
    """
    mode, theta = posterior.mode, posterior.theta
    information = np.asarray(np.linalg.inv(mode.covariance), dtype=np.float64)
    variance = score_variance(mode.problem, mode.theta, information, units)
    sandwich = mode.covariance @ variance @ mode.covariance
    stretch = np.linalg.cholesky(sandwich) @ np.linalg.inv(mode.factor)
    centre = posterior.flat().mean(axis=0)
    return replace(posterior, theta=centre + (theta - centre) @ stretch.T)
