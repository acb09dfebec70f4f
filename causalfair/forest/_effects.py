"""Parts of the meta-learners: rows to learn from, pseudo-outcomes and effect functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.crossfit import make_folds, take_rows
from causalfair._core.learners import Method, fit_learner, predict_learner
from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError

__all__ = [
    "ArmDifference",
    "Blend",
    "EffectData",
    "LinearEffect",
    "ModelEffect",
    "SwitchedTreatment",
    "doubly_robust_scores",
    "fit_arm",
    "inner_nuisances",
]

CLIP = 0.01
SWITCH = "treatment (switched)"


@dataclass(frozen=True)
class EffectData:
    """Rows a learner may look at.

    Attributes
    ----------
    X : pandas.DataFrame of shape (n, p)
        Covariates.
    modifiers : tuple of str
        Columns the effect may vary with.
    y, w : ndarray of shape (n,)
        Outcome and treatment.
    binary : bool
        Whether the treatment takes two values.
    weight : ndarray of shape (n,) or None
        Sampling weights.
    clusters : ndarray of shape (n, c) or None
        Cluster codes; the first way keeps folds apart.
    outcome, propensity : ndarray of shape (n,) or None
        Nuisances known or already learned for these rows.
    folds : ndarray of shape (n,) or None
        Folds over which they were learned; None where they still have to be.
    known_propensity : float or None
        The probability of treatment, where it is known and the same for all.
    """

    X: Any
    modifiers: tuple[str, ...]
    y: FloatArray
    w: FloatArray
    binary: bool
    weight: FloatArray | None
    clusters: NDArray[np.intp] | None
    outcome: FloatArray | None = None
    propensity: FloatArray | None = None
    folds: NDArray[np.intp] | None = None
    known_propensity: float | None = None

    @classmethod
    def of(cls, problem: Any) -> EffectData:
        """Rows of a resolved problem."""
        given = problem.given.get("propensity")
        constant = given is not None and np.ptp(given) == 0
        return cls(
            problem.data.covariates, tuple(problem.data.modifiers), problem.y, problem.w,
            problem.binary, problem.weight, problem.data.cluster, problem.given.get("outcome"),
            given, None, float(given[0]) if constant else None,
        )  # fmt: skip

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.y.size

    @property
    def groups(self) -> NDArray[np.intp] | None:
        """Codes that keep folds apart."""
        return None if self.clusters is None else self.clusters[:, 0]

    def modifier_frame(self) -> Any:
        """Effect modifiers."""
        return self.X[list(self.modifiers)]

    def residuals(self) -> tuple[FloatArray, FloatArray]:
        """Outcome and treatment residuals."""
        return self.y - np.asarray(self.outcome), self.w - np.asarray(self.propensity)

    def with_nuisances(
        self, outcome: FloatArray | None, propensity: FloatArray | None, folds: NDArray[np.intp]
    ) -> EffectData:
        """The same rows with their nuisances and the folds these were learned over."""
        return replace(self, outcome=outcome, propensity=propensity, folds=folds)

    def take(self, rows: Any) -> EffectData:
        """Some of the rows."""

        def part(array: Any) -> Any:
            return None if array is None else array[rows]

        return replace(
            self, X=self.X.iloc[rows], y=self.y[rows], w=self.w[rows], weight=part(self.weight),
            clusters=part(self.clusters), outcome=part(self.outcome),
            propensity=part(self.propensity),
        )  # fmt: skip


def _out_of_fold(
    learner: Any, data: EffectData, target: FloatArray, folds: Any, seed: Any, method: Method,
    slot: str, rows: Any = None,
) -> FloatArray:  # fmt: skip
    """Predictions of each row by models of other folds, learned from ``rows`` only."""
    out = np.empty(data.n)
    for fold in np.unique(folds):
        learn = folds != fold if rows is None else (folds != fold) & rows
        if not learn.any():
            raise DataError(f"no rows to learn the {slot} from outside fold {fold}.")
        train, test = np.flatnonzero(learn), np.flatnonzero(folds == fold)
        model = fit_learner(
            learner, take_rows(data.X, train), target[train], seed=child_seed(seed, int(fold)),
            sample_weight=None if data.weight is None else data.weight[train], slot=slot,
        )  # fmt: skip
        out[test] = predict_learner(model, take_rows(data.X, test), method)
    return out


def inner_nuisances(
    data: EffectData, outcome_learner: Any, propensity_learner: Any, n_folds: int, seed: Any
) -> EffectData:
    """The rows with nuisances that are missing, each by models that did not see the row.

    Expected outcomes are left out where there is no learner of them.
    """
    folds = make_folds(
        data.n, n_folds, seed=child_seed(seed, 1), stratify=data.w if data.binary else None,
        groups=data.groups,
    )  # fmt: skip
    outcome, propensity = data.outcome, data.propensity
    if outcome is None and outcome_learner is not None:
        outcome = _out_of_fold(
            outcome_learner, data, data.y, folds, child_seed(seed, 2), "predict", "outcome_learner"
        )
    if propensity is None:
        method: Method = "predict_proba" if data.binary else "predict"
        propensity = _out_of_fold(
            propensity_learner, data, data.w, folds, child_seed(seed, 3), method,
            "propensity_learner",
        )  # fmt: skip
        if data.binary:
            propensity = np.clip(propensity, CLIP, 1 - CLIP)
    return data.with_nuisances(outcome, propensity, folds)


def doubly_robust_scores(data: EffectData, outcome_learner: Any, seed: Any) -> FloatArray:
    """Scores of augmented inverse probability weighting, arms' outcomes out of fold."""
    e = np.asarray(data.propensity)
    mu0, mu1 = (
        _out_of_fold(
            outcome_learner, data, data.y, data.folds, child_seed(seed, 4, arm), "predict",
            "outcome_learner", data.w == arm,
        )
        for arm in (0, 1)
    )  # fmt: skip
    w = data.w
    return np.asarray(mu1 - mu0 + w / e * (data.y - mu1) - (1 - w) / (1 - e) * (data.y - mu0))


def fit_arm(data: EffectData, arm: int, learner: Any, seed: Any) -> Any:
    """Outcome model of one arm."""
    rows = np.flatnonzero(data.w == arm)
    return fit_learner(
        learner, take_rows(data.X, rows), data.y[rows], seed=seed,
        sample_weight=None if data.weight is None else data.weight[rows], slot="outcome_learner",
    )  # fmt: skip


@dataclass(frozen=True)
class ModelEffect:
    """Effect predicted by one model of the effect modifiers."""

    model: Any
    modifiers: tuple[str, ...]

    def predict(self, X: Any) -> FloatArray:
        """Effects of the rows of ``X``."""
        return predict_learner(self.model, X[list(self.modifiers)])


@dataclass(frozen=True)
class LinearEffect:
    """Effect linear in the effect modifiers, with the coefficients' uncertainty."""

    estimates: Any
    modifiers: tuple[str, ...]

    def _design(self, X: Any) -> FloatArray:
        return np.column_stack([np.ones(len(X)), X[list(self.modifiers)].to_numpy(float)])

    def predict(self, X: Any) -> FloatArray:
        """Effects of the rows of ``X``."""
        return np.asarray(self._design(X) @ self.estimates.estimate)

    def std_error(self, X: Any) -> FloatArray:
        """Standard errors of these effects."""
        design = self._design(X)
        return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", design, self.estimates.vcov, design)))


@dataclass(frozen=True)
class ArmDifference:
    """Difference of two outcome models."""

    control: Any
    treated: Any

    def predict(self, X: Any) -> FloatArray:
        """Effects of the rows of ``X``."""
        return np.asarray(predict_learner(self.treated, X) - predict_learner(self.control, X))


@dataclass(frozen=True)
class SwitchedTreatment:
    """Difference that switching the treatment makes to one outcome model."""

    model: Any

    @staticmethod
    def features(X: Any, w: Any) -> Any:
        """Covariates and the treatment as last column."""
        return X.assign(**{SWITCH: np.asarray(w, dtype=float)})

    def predict(self, X: Any) -> FloatArray:
        """Effects of the rows of ``X``."""
        on, off = (self.features(X, np.full(len(X), level)) for level in (1.0, 0.0))
        return predict_learner(self.model, on) - predict_learner(self.model, off)


@dataclass(frozen=True)
class Blend:
    """Effects imputed from untreated and treated rows, the former weighted by the propensity."""

    from_control: ModelEffect
    from_treated: ModelEffect
    propensity: Any

    def predict(self, X: Any) -> FloatArray:
        """Effects of the rows of ``X``."""
        g = self.propensity
        if not isinstance(g, float):
            g = np.clip(predict_learner(g, X, "predict_proba"), CLIP, 1 - CLIP)
        return np.asarray(g * self.from_control.predict(X) + (1 - g) * self.from_treated.predict(X))
