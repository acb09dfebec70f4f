"""Stacked estimating equations of the parametric estimator, and their analytic Jacobian.

Every estimating function has the form ``g_j = b_j(Z,X) * rho_j`` with a basis ``b_j`` and a
scalar ``rho_j`` of each row, and every nuisance value is a function of one linear predictor. So all
that is needed is the row-wise derivative of each scalar with respect to the nuisance *values*;
blocks of the Jacobian are then weighted cross-products of two bases. The same holds for the
targets, whose gradient gives the sandwich correction without an ``(n, p)`` matrix of scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.iv._models import ROW_BLOCK, Design, FirstStage, OutcomeBlock

__all__ = ["Stack"]

BLOCKS = ("instrument", "treatment", "variance", "outcome", "confounding", "effect")

# Row-wise derivatives by nuisance value: pi, lam (at the observed Z), lam0, lam1, V, V0, V1, mu,
# mu0, mu1, omega, beta. A missing name is a zero derivative.
Partials = Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Stack:
    """All estimating equations of one fit, with the mean Jacobian at the estimates.

    Attributes
    ----------
    names
        Blocks in order.
    scalars
        ``rho_j`` of each row, by block.
    jacobian : (p, p)
        Mean derivative of the stacked estimating functions; block lower-triangular in (first
        stage, outcome block).
    """

    design: Design
    first: FirstStage
    block: OutcomeBlock
    names: tuple[str, ...]
    scalars: Mapping[str, FloatArray]
    jacobian: FloatArray

    @classmethod
    def build(cls, design: Design, first: FirstStage, block: OutcomeBlock) -> Stack:
        """Evaluate scalars and Jacobian."""
        names = tuple(name for name in BLOCKS if name in first.coef or name in block.coef)
        scalars, partials = _estimating_scalars(design, first, block)
        rows = [
            _gradient_blocks(design, first, block, names, partials[name], left=name)
            for name in names
        ]
        return cls(design, first, block, names, scalars, np.vstack(rows))

    def gradient(self, partials: Partials) -> FloatArray:
        """Differentiate the weighted mean of a target in all parameters, ``(p,)``."""
        return np.asarray(
            _gradient_blocks(self.design, self.first, self.block, self.names, partials)[0]
        )

    def correction(self, partials: Partials) -> FloatArray:
        """Influence of estimating the nuisance parameters on the mean of a target, ``(n,)``."""
        c = np.linalg.solve(self.jacobian.T, self.gradient(partials))
        out = np.zeros_like(self.design.y)
        start = 0
        for name in self.names:
            basis = self.design.bases[name]
            out -= self.scalars[name] * (basis.observed @ c[start : start + basis.k])
            start += basis.k
        return out


def _estimating_scalars(
    design: Design, first: FirstStage, block: OutcomeBlock
) -> tuple[dict[str, FloatArray], dict[str, Partials]]:
    """``rho_j`` and its derivatives with respect to the nuisance values."""
    z, a = design.z, design.a
    on, r, e, s = block.moments, block.r, block.e, block.s
    varying = design.varying
    one = np.ones_like(z)
    lam = np.where(z > 0.5, first.lam1, first.lam0)
    rho: dict[str, FloatArray] = {"instrument": z - first.pi, "treatment": varying * (a - lam)}
    partial: dict[str, Partials] = {"instrument": {"pi": -one}, "treatment": {"lam": -varying}}
    if not design.binary:
        residual = a - lam
        rho["variance"] = varying * (residual**2 - np.where(z > 0.5, first.V1, first.V0))
        partial["variance"] = {"lam": -2.0 * varying * residual, "V": -varying}
    h = r * e - block.omega
    inner: dict[str, FloatArray] = {"beta": -r * a}
    if on.treatment:
        inner["lam"] = -e
    if on.outcome:
        rho["outcome"] = e
        partial["outcome"] = {"mu": -one, "beta": -a}
        inner["mu"] = -r
    if "confounding" in block.coef:
        rho["confounding"] = h
        inner["omega"] = -one
        partial["confounding"] = dict(inner)
    k = first.variance_shift * s
    rho["effect"] = k * h
    outer = {name: k * value for name, value in inner.items()}
    outer["V1"], outer["V0"] = s * h, -s * h
    if on.instrument:
        outer["pi"] = -first.variance_shift * h
    partial["effect"] = outer
    return rho, partial


def _gradient_blocks(
    design: Design,
    first: FirstStage,
    block: OutcomeBlock,
    names: tuple[str, ...],
    partials: Partials,
    left: str | None = None,
) -> FloatArray:
    """Weighted mean of ``b_left (d rho/d theta)'``; without ``left``, of ``(d T/d theta)'``."""
    n = design.y.size
    folded = _fold(design, first, block, partials)
    pairs = [
        [(folded[value], basis) for value, basis in _values_of(design, name) if value in folded]
        for name in names
    ]
    front = None if left is None else design.bases[left].observed
    height = 1 if front is None else front.shape[1]
    totals = [np.zeros((height, design.bases[name].k)) for name in names]
    for start in range(0, n, ROW_BLOCK):
        rows = slice(start, start + ROW_BLOCK)
        w = design.weight[rows, None]
        weighted = w if front is None else front[rows] * w
        for total, terms in zip(totals, pairs, strict=True):
            for derivative, basis in terms:
                np.add(total, weighted.T @ (basis[rows] * derivative[rows, None]), out=total)
    return np.hstack(totals) / n


def _values_of(design: Design, name: str) -> list[tuple[str, FloatArray]]:
    """Nuisance values that a block of coefficients drives, with the basis of each."""
    basis = design.bases[name]
    if name == "treatment":
        return [("lam", basis.observed), ("lam0", basis.at0), ("lam1", basis.at1)]
    if name == "variance":
        return [("V", basis.observed), ("V0", basis.at0), ("V1", basis.at1)]
    if name == "outcome":
        return [("mu", basis.observed), ("mu0", basis.at0), ("mu1", basis.at1)]
    single = {"instrument": "pi", "confounding": "omega", "effect": "beta"}[name]
    return [(single, basis.observed)]


def _fold(
    design: Design, first: FirstStage, block: OutcomeBlock, partials: Partials
) -> dict[str, FloatArray]:
    """Turn derivatives in the values into those in the linear predictors (chain rule)."""
    out = dict(partials)
    lam = {
        "lam": np.where(design.z > 0.5, first.lam1, first.lam0),
        "lam0": first.lam0,
        "lam1": first.lam1,
    }
    if design.binary:  # V = lam (1 - lam)
        for suffix in ("", "0", "1"):
            if "V" + suffix in out:
                slope = out.pop("V" + suffix) * (1.0 - 2.0 * lam["lam" + suffix])
                out["lam" + suffix] = out.get("lam" + suffix, 0.0) + slope
        for name, value in lam.items():
            if name in out:
                out[name] = out[name] * value * (1.0 - value)
    if design.constant_arm is not None:  # nothing is estimated in the arm without variation
        gone = str(design.constant_arm)
        for name in ("lam", "V"):
            out.pop(name + gone, None)
            if name in out:
                out[name] = out[name] * design.varying
    if "beta" in out:
        out["beta"] = out["beta"] * block.beta_slope
    if "pi" in out:
        out["pi"] = out["pi"] * first.pi * (1.0 - first.pi)
    return out
