"""Scores of the invalid-instrument model as functions of nuisance arrays.

Every function takes the data ``z, a, y`` and an :class:`IVNuisances` and returns row-level scores
or a :class:`Scores` (estimate and influence values). Nothing here fits anything, so the same lines
serve parametric, cross-fitted and selected nuisances.

Notation of Sun, Cui and Tchetgen Tchetgen (2022): ``pi(X) = P(Z=1|X)``, ``lam_z(X) = E[A|Z=z,X]``,
``V_z(X) = Var(A|Z=z,X)``, ``D = V_1 - V_0``, ``mu_z(X) = E[Y - beta(X) A|Z=z,X]`` and
``omega(X) = Cov(A, Y - beta(X) A|Z,X)``. Weights are sample weights that sum to ``n``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.typing import BoolArray, FloatArray

__all__ = [
    "IVNuisances",
    "Scores",
    "best_linear_projection",
    "direct_effect_scores",
    "floor_variance_shift",
    "influence_scores",
    "instrument_weight",
    "join_scores",
    "residuals",
    "score_ate",
    "score_att",
    "score_direct_effect",
    "score_groups",
    "score_valid_instrument",
    "score_weighted",
    "weighted_mean",
    "with_floor",
]


@dataclass(frozen=True, slots=True)
class IVNuisances:
    """Nuisance values of every row; in cross-fitting, predicted by learners that never saw the row.

    All arrays have shape ``(n,)``.

    Attributes
    ----------
    pi
        ``P(Z=1|X)`` after clipping.
    lam0, lam1
        ``E[A|Z=z,X]``.
    D
        ``V_1 - V_0`` after flooring ``|D|``; divides the score.
    beta, mu0, mu1, omega
        As in the module docstring.
    V0, V1
        ``Var(A|Z=z,X)``; ``None`` for a binary treatment, where they are ``lam (1 - lam)``.
    m0, m1
        ``E[Y|Z=z,X]``; ``None`` means ``mu_z + beta lam_z``.
    q_y, q_a
        ``E[r_A r_Y|X]`` and ``E[r_A^2|X]``; ``None`` means what the other nuisances imply.
    floored, clipped
        Rows where ``|D|`` was raised to the floor, and where ``pi`` was clipped; ``None`` means
        no row.
    """

    pi: FloatArray
    lam0: FloatArray
    lam1: FloatArray
    D: FloatArray
    beta: FloatArray
    mu0: FloatArray
    mu1: FloatArray
    omega: FloatArray
    V0: FloatArray | None = None
    V1: FloatArray | None = None
    m0: FloatArray | None = None
    m1: FloatArray | None = None
    q_y: FloatArray | None = None
    q_a: FloatArray | None = None
    floored: BoolArray | None = None
    clipped: BoolArray | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.pi.shape[0])

    @property
    def binary_treatment(self) -> bool:
        """Whether the variance of the treatment follows from its mean."""
        return self.V0 is None

    @property
    def variance0(self) -> FloatArray:
        """``Var(A|Z=0,X)``."""
        return self.lam0 * (1.0 - self.lam0) if self.V0 is None else self.V0

    @property
    def variance1(self) -> FloatArray:
        """``Var(A|Z=1,X)``."""
        return self.lam1 * (1.0 - self.lam1) if self.V1 is None else self.V1

    @property
    def outcome0(self) -> FloatArray:
        """``E[Y|Z=0,X]``."""
        return self.mu0 + self.beta * self.lam0 if self.m0 is None else self.m0

    @property
    def outcome1(self) -> FloatArray:
        """``E[Y|Z=1,X]``."""
        return self.mu1 + self.beta * self.lam1 if self.m1 is None else self.m1

    @property
    def mean_variance(self) -> FloatArray:
        """``E[r_A^2|X]``, given or implied by ``pi`` and the arm variances."""
        if self.q_a is not None:
            return self.q_a
        return self.pi * self.variance1 + (1.0 - self.pi) * self.variance0

    @property
    def mean_covariance(self) -> FloatArray:
        """``E[r_A r_Y|X]``, given or implied: ``omega + beta E[V|X]``."""
        return self.omega + self.beta * self.mean_variance if self.q_y is None else self.q_y

    def take(self, rows: NDArray[np.intp] | BoolArray) -> IVNuisances:
        """Nuisances of a subset of rows."""
        chosen: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in self.__dataclass_fields__
        }
        return IVNuisances(**chosen)


@dataclass(frozen=True, slots=True)
class Scores:
    """Estimates with their influence values.

    Attributes
    ----------
    names
        Term of each estimate.
    estimate : (k,)
    influence : (n, k)
        Weighted mean zero; the estimate's error is about their weighted mean.
    """

    names: tuple[str, ...]
    estimate: FloatArray
    influence: FloatArray


def join_scores(*parts: Scores) -> Scores:
    """Several scores side by side."""
    return Scores(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.estimate for part in parts]),
        np.hstack([part.influence for part in parts]),
    )


def weighted_mean(x: FloatArray, weight: FloatArray | None) -> FloatArray:
    """Mean over rows (axis 0), with sample weights that sum to the number of rows."""
    if weight is None:
        return np.asarray(np.mean(x, axis=0))
    return np.asarray(np.tensordot(weight, x, axes=(0, 0)) / weight.sum())


def instrument_weight(z: FloatArray, pi: FloatArray) -> FloatArray:
    """Signed inverse probability of the instrument, ``(2Z-1)/f(Z|X)``."""
    return np.where(z > 0.5, 1.0 / pi, -1.0 / (1.0 - pi))


def residuals(
    z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances
) -> tuple[FloatArray, FloatArray]:
    """Treatment residual ``r = A - lam(Z,X)`` and ``e = Y - beta A - mu(Z,X)``."""
    treated = z > 0.5
    r = a - np.where(treated, nu.lam1, nu.lam0)
    e = y - nu.beta * a - np.where(treated, nu.mu1, nu.mu0)
    return r, e


def floor_variance_shift(D: FloatArray, floor: float) -> tuple[FloatArray, BoolArray]:
    """Raise ``|D|`` to ``floor`` keeping its sign (zero is positive), with the rows raised."""
    floored = np.abs(D) < floor
    return np.where(floored, np.where(D < 0.0, -floor, floor), D), floored


def influence_scores(z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances) -> FloatArray:
    """Score ``phi`` whose mean is the average effect.

    ``phi - ATE`` is the efficient influence function, with
    ``phi = (2Z-1)/(f D) {(A - lam)(Y - beta A - mu) - omega} + beta``.
    """
    r, e = residuals(z, a, y, nu)
    return instrument_weight(z, nu.pi) / nu.D * (r * e - nu.omega) + nu.beta


def direct_effect_scores(
    z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances, phi: FloatArray | None = None
) -> FloatArray:
    """Score whose mean is the direct effect of the instrument, ``E[mu_1 - mu_0]``.

    ``phi_DE = (2Z-1)/f e + mu_1 - mu_0 - (lam_1 - lam_0)(phi - beta)``.
    """
    if phi is None:
        phi = influence_scores(z, a, y, nu)
    _, e = residuals(z, a, y, nu)
    shift = nu.mu1 - nu.mu0 - (nu.lam1 - nu.lam0) * (phi - nu.beta)
    return instrument_weight(z, nu.pi) * e + shift


def _mean_score(name: str, score: FloatArray, weight: FloatArray | None) -> Scores:
    estimate = weighted_mean(score, weight)
    return Scores((name,), estimate[None], (score - estimate)[:, None])


def score_ate(phi: FloatArray, weight: FloatArray | None = None) -> Scores:
    """Average effect: the mean of ``phi``."""
    return _mean_score("ATE", phi, weight)


def score_direct_effect(phi_de: FloatArray, weight: FloatArray | None = None) -> Scores:
    """Direct effect of the instrument: the mean of ``phi_DE``."""
    return _mean_score("direct effect", phi_de, weight)


def score_att(
    a: FloatArray, nu: IVNuisances, phi: FloatArray, weight: FloatArray | None = None
) -> Scores:
    """Effect on the treated, ``E[A beta]/E[A]``, for a binary treatment.

    Numerator score: ``lam_bar (phi - beta) + A beta`` with ``lam_bar = E[A|X]``.
    """
    lam_bar = nu.pi * nu.lam1 + (1.0 - nu.pi) * nu.lam0
    numerator = lam_bar * (phi - nu.beta) + a * nu.beta
    share = weighted_mean(a, weight)
    att = weighted_mean(numerator, weight) / share
    return Scores(("ATT",), att[None], ((numerator - att * a) / share)[:, None])


def score_weighted(
    phi: FloatArray,
    target: FloatArray,
    weight: FloatArray | None = None,
    name: str = "weighted ATE",
) -> Scores:
    """Effect in the population reweighted by a known function of X, ``E[w phi]/E[w]``."""
    share = weighted_mean(target, weight)
    estimate = weighted_mean(target * phi, weight) / share
    return Scores((name,), estimate[None], (target * (phi - estimate) / share)[:, None])


def score_groups(
    phi: FloatArray,
    codes: NDArray[np.intp],
    labels: tuple[str, ...],
    weight: FloatArray | None = None,
) -> Scores:
    """Group average effects; ``codes`` numbers the groups 0..k-1 in the order of ``labels``."""
    members = (codes[:, None] == np.arange(len(labels))[None, :]).astype(np.float64)
    share = weighted_mean(members, weight)
    estimate = weighted_mean(members * phi[:, None], weight) / share
    return Scores(labels, estimate, members * (phi[:, None] - estimate) / share)


def score_valid_instrument(
    z: FloatArray,
    a: FloatArray,
    y: FloatArray,
    nu: IVNuisances,
    weight: FloatArray | None = None,
    *,
    floor: float = 0.01,
) -> tuple[Scores, int]:
    """Average effect if the instrument *were* valid (Wang and Tchetgen Tchetgen 2018).

    ``phi_IV = (2Z-1)/(f d) {Y - m - b (A - lam)} + b`` with ``d = lam_1 - lam_0`` and
    ``b = (m_1 - m_0)/d``. Returns the scores and the number of rows whose ``|d| < floor`` was
    raised.
    """
    treated = z > 0.5
    d, floored = floor_variance_shift(nu.lam1 - nu.lam0, floor)
    m0, m1 = nu.outcome0, nu.outcome1
    b = (m1 - m0) / d
    r_a = a - np.where(treated, nu.lam1, nu.lam0)
    r_y = y - np.where(treated, m1, m0)
    phi_iv = instrument_weight(z, nu.pi) / d * (r_y - b * r_a) + b
    return _mean_score("valid-instrument ATE", phi_iv, weight), int(floored.sum())


def best_linear_projection(
    phi: FloatArray, basis: FloatArray, names: tuple[str, ...], weight: FloatArray | None = None
) -> Scores:
    """Least-squares projection of the effect on a basis, from the scores.

    The influence values carry the factor ``sqrt(n/(n-k))``, so that the standard errors are HC1.

    Parameters
    ----------
    basis : (n, k)
        Full column rank; include a column of ones for an intercept.
    """
    n, k = basis.shape
    w = np.ones(n) if weight is None else weight
    gram = (basis * w[:, None]).T @ basis / n
    coef = np.linalg.solve(gram, basis.T @ (w * phi) / n)
    error = phi - basis @ coef
    influence = np.linalg.solve(gram, (basis * error[:, None]).T).T
    return Scores(names, coef, influence * np.sqrt(n / (n - k)))


def with_floor(nu: IVNuisances, floor: float) -> IVNuisances:
    """Nuisances whose ``|D|`` is at least ``floor``, with the rows recorded."""
    D, floored = floor_variance_shift(nu.D, floor)
    return replace(nu, D=D, floored=floored)
