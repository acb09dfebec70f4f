"""The effect ``beta(X)`` from residuals.

Given X, ``E[r_A r_Y|Z,X] = omega + beta V`` and ``V - E[V|X] = (Z - pi) D``. So with ``q`` the
regression of ``r_A r_Y`` on X and ``s = (Z - pi) D``, the effect minimises
``sum (r_A r_Y - q - beta(X) s)^2``: a regression of ``(r_A r_Y - q)/s`` with weights ``s^2``.

Where one arm has a constant treatment ``omega`` is zero, and the effect minimises
``sum (r_Y - beta(X) r_A)^2`` over the other arm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray

__all__ = ["EFFECT_RULES", "EffectProblem", "constant_effect", "linear_effect"]

EFFECT_RULES = ("t", "const", "linear")
"""Ratio of arm-wise regressions; no heterogeneity; linear in standardised covariates."""


@dataclass(frozen=True, slots=True)
class EffectProblem:
    """Least squares of ``target`` on ``beta(X) design``.

    Attributes
    ----------
    target, design : (m,)
        Both sides of the regression.
    rows : (m,)
        Rows that take part.
    weight : (m,)
        Sample weights.
    """

    target: FloatArray
    design: FloatArray
    rows: BoolArray
    weight: FloatArray

    @property
    def usable(self) -> BoolArray:
        """Rows that take part and have something to say."""
        return np.asarray(self.rows & (self.design != 0.0))

    @property
    def ratio(self) -> FloatArray:
        """``target/design``; zero in rows that do not take part."""
        safe = np.where(self.usable, self.design, 1.0)
        return np.where(self.usable, self.target / safe, 0.0)


def constant_effect(problem: EffectProblem) -> float:
    """Effect without heterogeneity."""
    w = problem.weight * problem.rows
    return float(
        np.dot(w * problem.target, problem.design) / np.dot(w * problem.design, problem.design)
    )


def linear_effect(problem: EffectProblem, X: FloatArray, at: FloatArray) -> FloatArray:
    """Effect linear in covariates, learned at ``X`` (m, p) and predicted ``at`` (k, p)."""
    center, scale = X.mean(axis=0), X.std(axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)

    def basis(x: FloatArray) -> FloatArray:
        return np.column_stack([np.ones(len(x)), (x - center) / scale])

    root = np.sqrt(problem.weight * problem.rows)
    left = basis(X) * (root * problem.design)[:, None]
    coef = np.linalg.lstsq(left, root * problem.target, rcond=1e-10)[0]
    return np.asarray(basis(at) @ coef)
