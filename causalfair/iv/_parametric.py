"""The parametric multiply robust estimator as a function of a :class:`Design`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray
from causalfair.exceptions import ConvergenceError, DataError, IdentificationError
from causalfair.iv import _targets as targets
from causalfair.iv._models import (
    Design,
    FirstStage,
    Moments,
    OutcomeBlock,
    fit_first_stage,
    fit_outcome,
)
from causalfair.iv._scores import (
    IVNuisances,
    Scores,
    direct_effect_scores,
    floor_variance_shift,
    influence_scores,
    join_scores,
    score_att,
    weighted_mean,
)
from causalfair.iv._sensitivity import covariance_slope_scores, modification_slope_scores
from causalfair.iv._stack import Stack

__all__ = ["ParametricFit", "default_floor", "fit_multiply_robust"]

# Which models each comparator leans on, and the moments that need only those.
COVERS: Mapping[str, Moments] = {
    "M2: treatment, effect, confounding": Moments(outcome=False, instrument=False),
    "M3: effect, confounding, outcome": Moments(treatment=False, instrument=False),
    "M4: instrument, effect, outcome": Moments(treatment=False, confounding=False),
}
COVERS_ONE_SIDED: Mapping[str, Moments] = {
    "M2: treatment, effect": Moments(outcome=False, instrument=False, confounding=False),
    "M3: effect, outcome": Moments(treatment=False, instrument=False, confounding=False),
}
FIRST_COVER = "M1: instrument, treatment"


@dataclass(frozen=True, slots=True)
class ParametricFit:
    """Result of the parametric fit.

    Attributes
    ----------
    nuisances, phi
        Fitted nuisance values and scores of every row.
    keep : (n,) or None
        Rows kept by ``trim="drop"``; ``None`` when all are.
    effects
        ``"ATE"`` and ``"direct effect"`` with sandwich influence values.
    extra
        ``"ATT"`` (binary treatment), ``"covariance slope"`` and ``"modification slope"``.
    covers
        One estimate for each minimal set of models, with sandwich influence values.
    effect_coef
        Coefficients of the effect basis with sandwich influence values.
    """

    nuisances: IVNuisances
    phi: FloatArray
    keep: BoolArray | None
    effects: Scores
    extra: Scores
    covers: Scores
    stack: Stack


def default_floor(D: FloatArray, *, binary: bool) -> float:
    """Smallest ``|D|`` used: 0.02 for a binary treatment, else 5 % of the median ``|D|``."""
    return 0.02 if binary else 0.05 * float(np.median(np.abs(D)))


def assemble_nuisances(
    first: FirstStage, block: OutcomeBlock, *, binary: bool, clip: float, floor: float
) -> IVNuisances:
    """Nuisance values with clipped probabilities and floored variance shift, rows recorded."""
    pi = np.clip(first.pi, clip, 1.0 - clip)
    D, floored = floor_variance_shift(first.variance_shift, floor)
    return IVNuisances(
        pi=pi,
        lam0=first.lam0,
        lam1=first.lam1,
        D=D,
        beta=block.beta,
        mu0=block.mu0,
        mu1=block.mu1,
        omega=block.omega,
        V0=None if binary else first.V0,
        V1=None if binary else first.V1,
        floored=floored,
        clipped=pi != first.pi,
    )


def fit_multiply_robust(
    design: Design, *, clip: float, floor: float | None = None, drop: bool = False
) -> ParametricFit:
    """Fit all models, and every target with its sandwich influence values."""
    z, a, y = design.z, design.a, design.y
    first = fit_first_stage(design)
    block = fit_outcome(design, first, Moments())
    d_min = default_floor(first.variance_shift, binary=design.binary) if floor is None else floor
    nu = assemble_nuisances(first, block, binary=design.binary, clip=clip, floor=d_min)
    keep = _kept_rows(nu) if drop else None
    stack = Stack.build(design, first, block)
    phi = influence_scores(z, a, y, nu)
    weighted = _Averager(design.weight, keep)
    effects = join_scores(
        weighted("ATE", stack, phi, targets.effect_partials(z, a, y, nu)),
        weighted(
            "direct effect",
            stack,
            direct_effect_scores(z, a, y, nu, phi),
            targets.direct_effect_partials(z, a, y, nu, phi),
        ),
    )
    return ParametricFit(
        nuisances=nu,
        phi=phi,
        keep=keep,
        effects=effects,
        extra=_extra_targets(design, nu, phi, stack, weighted),
        covers=_cover_estimates(design, nu, first, stack, weighted),
        stack=stack,
    )


def _kept_rows(nu: IVNuisances) -> BoolArray | None:
    dropped = np.zeros(nu.n, dtype=bool)
    for rows in (nu.floored, nu.clipped):
        if rows is not None:
            dropped |= rows
    if dropped.all():
        raise DataError(
            "trim='drop' leaves no row: every variance shift is below min_variance_shift or every "
            "probability beyond clip. Lower these bounds, or use trim='clip'."
        )
    return ~dropped if dropped.any() else None


@dataclass(frozen=True, slots=True)
class _Averager:
    """Mean of a score over the kept rows with its sandwich influence values."""

    weight: FloatArray
    keep: BoolArray | None

    def __call__(
        self, name: str, stack: Stack, score: FloatArray, partials: targets.Partials
    ) -> Scores:
        if self.keep is None:
            estimate = weighted_mean(score, self.weight)
            influence = score - estimate + stack.correction(partials)
        else:
            kept = self.keep.astype(np.float64)
            share = weighted_mean(kept, self.weight)
            estimate = weighted_mean(kept * score, self.weight) / share
            partials = {key: value * kept / share for key, value in partials.items()}
            influence = kept * (score - estimate) / share + stack.correction(partials)
        # Exact zero mean: the equations hold to rounding, which can exceed a degenerate influence.
        influence = influence - weighted_mean(influence, self.weight)
        return Scores((name,), estimate[None], influence[:, None])


def _extra_targets(
    design: Design, nu: IVNuisances, phi: FloatArray, stack: Stack, weighted: _Averager
) -> Scores:
    """Targets of the post-estimation methods whose gradient needs the bases."""
    z, a, y = design.z, design.a, design.y
    parts = [
        weighted(
            "covariance slope",
            stack,
            -covariance_slope_scores(z, a, nu),
            _negative(targets.covariance_slope_partials(z, a, nu)),
        )
    ]
    if design.binary:
        parts.append(
            weighted(
                "modification slope",
                stack,
                modification_slope_scores(z, a, nu),
                targets.modification_slope_partials(z, a, nu),
            )
        )
        kept = np.ones_like(y) if weighted.keep is None else weighted.keep.astype(np.float64)
        weight = design.weight * kept
        att = score_att(a, nu, phi, weight)
        share = weighted_mean(a, weight) * weighted_mean(kept, design.weight)
        partials = {
            key: value * kept / share
            for key, value in targets.att_partials(z, a, y, nu, phi).items()
        }
        direct = att.influence[:, 0] * kept / weighted_mean(kept, design.weight)
        influence = direct + stack.correction(partials)
        influence = influence - weighted_mean(influence, design.weight)
        parts.append(replace(att, influence=influence[:, None]))
    return join_scores(*parts)


def _negative(partials: targets.Partials) -> targets.Partials:
    return {key: -value for key, value in partials.items()}


def _cover_estimates(
    design: Design, nu: IVNuisances, first: FirstStage, stack: Stack, weighted: _Averager
) -> Scores:
    """One estimate for each minimal set of models that can carry the answer alone."""
    z, a, y = design.z, design.a, design.y
    parts = [
        weighted(
            FIRST_COVER,
            stack,
            targets.ipw_scores(z, a, y, nu),
            targets.ipw_partials(z, a, y, nu),
        )
    ]
    covers = COVERS if design.constant_arm is None else COVERS_ONE_SIDED
    for name, moments in covers.items():
        try:
            block = fit_outcome(design, first, moments)
        except (IdentificationError, ConvergenceError):
            # This comparator has no solution; it is shown as missing, the main estimate has one.
            parts.append(Scores((name,), np.array([np.nan]), np.zeros((y.size, 1))))
            continue
        other = Stack.build(design, first, block)
        parts.append(weighted(name, other, block.beta, {"beta": np.ones_like(y)}))
    return join_scores(*parts)
