"""The nuisance models of the parametric estimator: first stage, then one linear system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ConvergenceError, IdentificationError
from causalfair.iv._basis import Basis
from causalfair.iv._logistic import fit_logistic

__all__ = [
    "ROW_BLOCK",
    "Design",
    "FirstStage",
    "Moments",
    "OutcomeBlock",
    "fit_first_stage",
    "fit_outcome",
]

RCOND = 1e-10
# Rows handled at a time: a block of every basis stays in the processor's cache.
ROW_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Design:
    """Data and bases of the parametric fit; all arrays have ``n`` rows.

    Attributes
    ----------
    z, a, y, weight
        Instrument and outcome data; weights sum to ``n``.
    bases
        By block name; ``"variance"`` only for a continuous treatment, no ``"confounding"`` when one
        arm has no variation in the treatment.
    binary
        Whether the treatment is binary.
    constant_arm
        Arm of the instrument in which the treatment does not vary, if there is one.
    constant_value
        The treatment in that arm.
    effect_link
        ``"identity"``, or ``"tanh"`` for an effect between -1 and 1.
    """

    z: FloatArray
    a: FloatArray
    y: FloatArray
    weight: FloatArray
    bases: Mapping[str, Basis]
    binary: bool
    constant_arm: int | None = None
    constant_value: float = 0.0
    effect_link: str = "identity"

    @property
    def varying(self) -> FloatArray:
        """One for rows in an arm where the treatment varies."""
        if self.constant_arm is None:
            return np.ones_like(self.z)
        return np.asarray(self.z != self.constant_arm, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class FirstStage:
    """Fitted models of the instrument and the treatment, before clipping and flooring."""

    coef: Mapping[str, FloatArray]
    pi: FloatArray
    lam0: FloatArray
    lam1: FloatArray
    V0: FloatArray
    V1: FloatArray

    @property
    def variance_shift(self) -> FloatArray:
        """Variance shift ``V_1 - V_0``."""
        return self.V1 - self.V0


def _least_squares(basis: FloatArray, target: FloatArray, weight: FloatArray) -> FloatArray:
    weighted = basis * weight[:, None]
    return np.asarray(np.linalg.solve(weighted.T @ basis, weighted.T @ target))


def fit_first_stage(design: Design) -> FirstStage:
    """Models of the instrument, the treatment and, if that is continuous, its variance."""
    z, a, w = design.z, design.a, design.weight
    b_pi, b_lam = design.bases["instrument"], design.bases["treatment"]
    coef = {"instrument": fit_logistic(b_pi.observed, z, w, what="the instrument")}
    pi = expit(b_pi.observed @ coef["instrument"])
    rows = design.varying > 0.5
    chosen = (b_lam.observed[rows], a[rows], w[rows])
    if design.binary:
        coef["treatment"] = fit_logistic(*chosen, what="the treatment")
        lam = [expit(b @ coef["treatment"]) for b in (b_lam.at0, b_lam.at1)]
    else:
        coef["treatment"] = _least_squares(*chosen)
        lam = [b @ coef["treatment"] for b in (b_lam.at0, b_lam.at1)]
    if design.constant_arm is not None:
        lam[design.constant_arm] = np.full_like(z, design.constant_value)
    if design.binary:
        V = [p * (1.0 - p) for p in lam]
    else:
        b_v = design.bases["variance"]
        squared = (a - np.where(z > 0.5, lam[1], lam[0])) ** 2
        coef["variance"] = _least_squares(b_v.observed[rows], squared[rows], w[rows])
        V = [b @ coef["variance"] for b in (b_v.at0, b_v.at1)]
        if design.constant_arm is not None:
            V[design.constant_arm] = np.zeros_like(z)
    return FirstStage(coef, pi, lam[0], lam[1], V[0], V[1])


@dataclass(frozen=True, slots=True)
class Moments:
    """Which models the outcome block leans on; each choice is right under one cover.

    ``r = A - lam`` or ``A``; ``e = Y - beta A - mu`` or without ``mu``; with or without ``omega``;
    ``s = Z - pi``, or a contrast of the arms that needs no model of the instrument.
    """

    treatment: bool = True
    outcome: bool = True
    confounding: bool = True
    instrument: bool = True


@dataclass(frozen=True, slots=True)
class OutcomeBlock:
    """Solution of the linear system in the outcome, confounding and effect coefficients."""

    moments: Moments
    coef: Mapping[str, FloatArray]
    r: FloatArray
    e: FloatArray
    s: FloatArray
    mu0: FloatArray
    mu1: FloatArray
    omega: FloatArray
    beta: FloatArray
    beta_slope: FloatArray


def _contrast(design: Design, first: FirstStage, moments: Moments) -> FloatArray:
    """Signed contrast of the arms that multiplies the effect moments."""
    if moments.instrument:
        return design.z - first.pi
    if design.constant_arm is not None:
        return design.varying
    return design.z - 0.5


def fit_outcome(design: Design, first: FirstStage, moments: Moments) -> OutcomeBlock:
    """Solve for ``mu``, ``omega`` and ``beta``: one linear system, or Newton if bounded.

    Equations: ``sum b_mu e = 0``, ``sum b_omega (r e - omega) = 0`` and
    ``sum b_beta D s (r e - omega) = 0``.

    Raises
    ------
    IdentificationError
        If the system is numerically singular.
    """
    z, a, w = design.z, design.a, design.weight
    lam = np.where(z > 0.5, first.lam1, first.lam0)
    r = a - lam if moments.treatment else a
    s = _contrast(design, first, moments)
    wk = w * first.variance_shift * s
    order = ["effect"]
    if moments.confounding and "confounding" in design.bases:
        order.insert(0, "confounding")
    if moments.outcome:
        order.insert(0, "outcome")
    bases = {name: design.bases[name].observed for name in order}
    matrix, right = _linear_system(order, bases, r, a, design.y, w, wk)
    solution = _solve_checked(matrix, right)
    block = _evaluate(design, moments, _split(solution, order, bases), r, s)
    if design.effect_link == "tanh":
        return _bounded_effect(design, block, order, bases, wk)
    return block


def _split(
    solution: FloatArray, order: list[str], bases: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Coefficients by block."""
    ends = np.cumsum([bases[name].shape[1] for name in order])[:-1]
    return dict(zip(order, np.split(solution, ends), strict=True))


def _evaluate(
    design: Design,
    moments: Moments,
    coef: Mapping[str, FloatArray],
    r: FloatArray,
    s: FloatArray,
    link: str = "identity",
) -> OutcomeBlock:
    """Nuisance values and residuals at given coefficients."""
    beta = design.bases["effect"].observed @ coef["effect"]
    slope = np.ones_like(beta)
    if link == "tanh":
        beta = np.tanh(beta)
        slope = 1.0 - beta**2
    zero = np.zeros_like(design.y)
    b_mu = design.bases["outcome"]
    mu0 = b_mu.at0 @ coef["outcome"] if "outcome" in coef else zero
    mu1 = b_mu.at1 @ coef["outcome"] if "outcome" in coef else zero
    omega = zero
    if "confounding" in coef:
        omega = design.bases["confounding"].observed @ coef["confounding"]
    e = design.y - beta * design.a - np.where(design.z > 0.5, mu1, mu0)
    return OutcomeBlock(moments, coef, r, e, s, mu0, mu1, omega, beta, slope)


def _bounded_effect(
    design: Design,
    start: OutcomeBlock,
    order: list[str],
    bases: Mapping[str, FloatArray],
    wk: FloatArray,
) -> OutcomeBlock:
    """Newton steps for ``beta = tanh(psi'b)`` from the linear solution.

    The derivative of the equations is minus the matrix of the linear system with the effect's
    regressors multiplied by the slope of the link.
    """
    w, r, s, moments = design.weight, start.r, start.s, start.moments
    bounded = np.arctanh(np.clip(start.beta, -0.9, 0.9))
    coef = dict(start.coef)
    coef["effect"] = np.asarray(np.linalg.lstsq(bases["effect"], bounded, rcond=None)[0])
    block = _evaluate(design, moments, coef, r, s, "tanh")

    def equations(at: OutcomeBlock) -> FloatArray:
        h = r * at.e - at.omega
        scalar = {"outcome": w * at.e, "confounding": w * h, "effect": wk * h}
        return np.concatenate([bases[name].T @ scalar[name] for name in order])

    value = equations(block)
    for _ in range(100):
        slope = design.a * block.beta_slope
        matrix, _ = _linear_system(order, bases, r, slope, design.y, w, wk)
        step = _solve_checked(matrix, value)
        row = np.linalg.norm(matrix, axis=1)
        size, old = 1.0, float(np.linalg.norm(value / row))
        flat = np.concatenate([coef[name] for name in order])
        for _ in range(40):
            trial = _split(flat + size * step, order, bases)
            new = _evaluate(design, moments, trial, r, s, "tanh")
            new_value = equations(new)
            if np.linalg.norm(new_value / row) <= old * (1.0 - 1e-4 * size) + 1e-14:
                break
            size *= 0.5
        coef, block, value = trial, new, new_value
        if np.max(np.abs(size * step)) <= 1e-11 * (1.0 + np.max(np.abs(flat))):
            return block
    raise ConvergenceError(
        "The equations for an effect between -1 and 1 have no solution that Newton's method finds "
        f"(largest |effect| {np.max(np.abs(block.beta)):.4f} after 100 steps). Use "
        "effect_link='identity', or a smaller 'effect' formula."
    )


def _linear_system(
    order: list[str],
    bases: Mapping[str, FloatArray],
    r: FloatArray,
    a: FloatArray,
    y: FloatArray,
    w: FloatArray,
    wk: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Cross-products of instruments ``[b_mu, b_omega, k b_beta]`` and regressors, by row blocks.

    The outcome equation has the regressors ``(b_mu, 0, a b_beta)`` and response ``y``; the others
    ``(r b_mu, b_omega, r a b_beta)`` and ``r y``.
    """
    one = np.ones_like(r)
    plain = {"outcome": one, "effect": a}
    product = {"outcome": r, "confounding": one, "effect": r * a}
    sizes = [bases[name].shape[1] for name in order]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    matrix, right = np.zeros((starts[-1], starts[-1])), np.zeros(starts[-1])
    for begin in range(0, y.size, ROW_BLOCK):
        rows = slice(begin, begin + ROW_BLOCK)
        for i, row in enumerate(order):
            left = bases[row][rows] * (wk if row == "effect" else w)[rows, None]
            into = slice(starts[i], starts[i + 1])
            scale = plain if row == "outcome" else product
            for j, column in enumerate(order):
                if column in scale:
                    block = bases[column][rows] * scale[column][rows, None]
                    matrix[into, starts[j] : starts[j + 1]] += left.T @ block
            right[into] += left.T @ (y[rows] * scale["outcome"][rows])
    return matrix, right


def _solve_checked(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve after scaling rows and columns; refuse a numerically singular system."""
    row = np.linalg.norm(matrix, axis=1)
    if not np.all(row > 0.0):
        raise _singular(0.0)
    scaled = matrix / row[:, None]
    column = np.linalg.norm(scaled, axis=0)
    if not np.all(column > 0.0):
        raise _singular(0.0)
    scaled = scaled / column
    singular = np.linalg.svd(scaled, compute_uv=False)
    rcond = float(singular[-1] / singular[0])
    if rcond < RCOND:
        raise _singular(rcond)
    return np.asarray(np.linalg.solve(scaled, right / row) / column)


def _singular(rcond: float) -> IdentificationError:
    return IdentificationError(
        f"The equations for the effect are numerically singular (reciprocal condition {rcond:.1e}, "
        f"limit {RCOND:.0e}): the instrument does not shift the variance of the treatment in the "
        "directions the effect formula asks for. Give a smaller 'effect' formula (at least '~ 1'), "
        "or look at relevance() of a fit without covariates."
    )
