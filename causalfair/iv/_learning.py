"""Nuisances of one fold: learned on its training rows, predicted for its test rows.

The order of the steps, on training rows alone: instrument, treatment and outcome models by arm of
the instrument; an inner cross-fit of the same models, because in-sample residuals of flexible
learners are too small and would bias the effect; the effect from out-of-fold residuals; then the
model of ``Y - beta A`` by arm and the residual covariance ``omega``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from causalfair._core.crossfit import FoldTask, make_folds
from causalfair._core.learners import Method, fit_learner, predict_learner
from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError
from causalfair.iv._effect import EffectProblem, constant_effect, linear_effect
from causalfair.iv._plan import FoldNuisances, IVData, LearningPlan, candidate_losses, own_arm
from causalfair.iv._scores import floor_variance_shift

__all__ = ["learn_fold"]

MIN_CELL = 20
"""Fewest treated and untreated training rows in an arm of the instrument."""


def learn_fold(task: FoldTask, *, data: IVData, plan: LearningPlan) -> FoldNuisances:
    """Learn every candidate on the training rows of ``task`` and predict its test rows."""
    if plan.to_learn(data):
        check_cells(data, task.train, task.fold)
    return _Fold(task, data, plan).run()


def check_cells(data: IVData, train: IntArray, fold: int) -> None:
    """Refuse a training part whose arms have too few rows to learn from."""
    for arm in (0, 1):
        rows = train[data.z[train] == arm]
        counts = {"": len(rows)}
        if data.binary and arm != data.constant_arm:
            treated = int(data.a[rows].sum())
            counts = {"treated ": treated, "untreated ": len(rows) - treated}
        for kind, count in counts.items():
            if count < MIN_CELL:
                raise DataError(
                    f"Fold {fold + 1}: its training part has {count} {kind}rows with "
                    f"instrument = {arm}; {MIN_CELL} are needed to learn the nuisances. Use fewer "
                    "folds, more data, or the parametric MultiplyRobustATE."
                )


class _Fold:
    """Training rows, inner folds and the out-of-fold values already learned in one fold."""

    def __init__(self, task: FoldTask, data: IVData, plan: LearningPlan) -> None:
        self.data, self.plan, self.seed = data, plan, task.seed
        self.train, self.test = task.train, task.test
        self.z = data.z[self.train]
        self.weight = np.ones(len(self.train)) if data.weight is None else data.weight[self.train]
        self.inner = make_folds(
            len(self.train),
            plan.inner_folds,
            seed=child_seed(task.seed, _key("inner folds")),
            stratify=data.cells[self.train],
            groups=None if data.groups is None else data.groups[self.train],
        )
        self._held: dict[tuple[str, str], FloatArray] = {}

    def run(self) -> FoldNuisances:
        """Every slot in order."""
        plan, data, test = self.plan, self.data, self.test
        V = m = None
        pi = np.stack([self.instrument(k, self.train, test) for k in plan.names("instrument")])
        lam = np.stack([self.treatment(k, self.train, test) for k in plan.names("treatment")])
        if not data.binary:
            V = np.stack([self.variance(k, self.train, test) for k in plan.names("treatment")])
        if "outcome" not in plan.known:
            m = np.stack([self.level(k) for k in plan.names("outcome")])
        effects = {k: self.effect(k) for k in plan.names("effect")}
        beta = np.stack([values[len(self.train) :] for values in effects.values()])
        adjusted = {
            k: self.spread(data.y[self.train] - values[: len(self.train)] * data.a[self.train])
            for k, values in effects.items()
        }
        mu = [[self.outcome(b, k, adjusted[b]) for b, k in row] for row in plan.pairs("outcome")]
        omega = [
            [self.confounding(b, k, adjusted[b]) for b, k in row]
            for row in plan.pairs("confounding")
        ]
        held = FoldNuisances(test, pi, lam, V, beta, np.array(mu), np.array(omega), m, {})
        return replace(held, losses=candidate_losses(held, data, plan))

    # Fitting -------------------------------------------------------------------------------------

    def fit_predict(
        self,
        slot: str,
        name: str,
        target: FloatArray,
        rows: IntArray,
        at: IntArray,
        stage: str,
        *,
        method: Method = "predict",
        weight: FloatArray | None = None,
    ) -> FloatArray:
        """Fit candidate ``name`` of ``slot`` on ``rows`` and predict ``at``.

        ``target`` and ``weight`` are indexed by row of the data. The seed depends on the slot, the
        candidate and the stage alone, so that adding a candidate changes no other.
        """
        data = self.data
        if data.weight is not None:
            weight = data.weight if weight is None else weight * data.weight
        # Mean one: learners compare weights with constants of their own.
        scaled = None if weight is None else weight[rows] / weight[rows].mean()
        fitted = fit_learner(
            self.plan.learners[slot][name],
            data.X.iloc[rows],
            target[rows],
            seed=child_seed(self.seed, _key(f"{slot}/{name}/{stage}")),
            sample_weight=scaled,
            slot=f"{slot}_learner",
        )
        return predict_learner(fitted, data.X.iloc[at], method)

    def by_arm(
        self,
        slot: str,
        name: str,
        target: FloatArray,
        rows: IntArray,
        at: IntArray,
        stage: str,
        *,
        constant: float | None = None,
        method: Method = "predict",
    ) -> FloatArray:
        """One model an arm of the instrument: predictions ``(2, len(at))``.

        ``constant`` is the value in the arm whose treatment is constant, where nothing is learned.
        """
        out = np.empty((2, len(at)))
        for arm in (0, 1):
            if constant is not None and arm == self.data.constant_arm:
                out[arm] = constant
                continue
            mine = rows[self.data.z[rows] == arm]
            out[arm] = self.fit_predict(
                slot, name, target, mine, at, f"{stage}/{arm}", method=method
            )
        return out

    def outcome_of_fold(self, what: str, name: str, target: FloatArray) -> FloatArray:
        """Out-of-fold ``E[target|Z,X]`` of the training rows, each by the model of its own arm."""

        def learn(rows: IntArray, at: IntArray, part: str) -> FloatArray:
            out = np.empty(len(at))
            for arm in (0, 1):
                mine, here = rows[self.data.z[rows] == arm], self.data.z[at] == arm
                out[here] = self.fit_predict(
                    "outcome", name, target, mine, at[here], f"{what}{part}/{arm}"
                )
            return out

        return self.out_of_fold(what, name, learn)

    def out_of_fold(
        self, what: str, name: str, learn: Callable[[IntArray, IntArray, str], FloatArray]
    ) -> FloatArray:
        """Inner cross-fit of ``learn(rows, at, part)``: values for the training rows, made once."""
        if (what, name) not in self._held:
            order = [np.flatnonzero(self.inner == j) for j in range(self.plan.inner_folds)]
            values = [
                learn(np.delete(self.train, here), self.train[here], f" inner {j}")
                for j, here in enumerate(order)
            ]
            out = np.concatenate(values, axis=-1)
            self._held[what, name] = out[..., np.argsort(np.concatenate(order))]
        return self._held[what, name]

    def spread(self, on_train: FloatArray) -> FloatArray:
        """Values of the training rows, indexed by row of the data; NaN elsewhere."""
        out = np.full(self.data.n, np.nan)
        out[self.train] = on_train
        return out

    # First stage ---------------------------------------------------------------------------------

    def instrument(self, name: str, rows: IntArray, at: IntArray, part: str = "") -> FloatArray:
        """``P(Z=1|X)``."""
        if "instrument" in self.plan.known:
            return self.plan.known["instrument"][at]
        return self.fit_predict(
            "instrument", name, self.data.z, rows, at, "mean" + part, method="predict_proba"
        )

    def treatment(self, name: str, rows: IntArray, at: IntArray, part: str = "") -> FloatArray:
        """``E[A|Z=z,X]`` by arm."""
        if "treatment" in self.plan.known:
            return self.plan.known["treatment"][:, at]
        data = self.data
        method: Method = "predict_proba" if data.binary else "predict"
        return self.by_arm(
            "treatment",
            name,
            data.a,
            rows,
            at,
            "mean" + part,
            constant=data.constant,
            method=method,
        )

    def variance(self, name: str, rows: IntArray, at: IntArray, part: str = "") -> FloatArray:
        """``Var(A|Z=z,X)`` by arm; of a continuous treatment from squared residuals."""
        if self.data.binary:
            lam = self.treatment(name, rows, at, part)
            return lam * (1.0 - lam)
        if "variance" in self.plan.known:
            return self.plan.known["variance"][:, at]
        squared = self.spread(self.treatment_residual(name) ** 2)
        constant = None if self.data.constant is None else 0.0
        return self.by_arm("treatment", name, squared, rows, at, "square" + part, constant=constant)

    def held(self, what: str, name: str) -> FloatArray:
        """Out-of-fold instrument, treatment or variance model for the training rows."""
        learn = getattr(self, what)
        return self.out_of_fold(what, name, lambda rows, at, part: learn(name, rows, at, part))

    def treatment_residual(self, name: str) -> FloatArray:
        """Out-of-fold ``A - lam`` of the training rows."""
        return self.data.a[self.train] - own_arm(self.held("treatment", name), self.z)

    def _held_variance(self, name: str) -> FloatArray:
        """Out-of-fold ``Var(A|Z=z,X)`` of the training rows."""
        if not self.data.binary:
            return self.held("variance", name)
        lam = self.held("treatment", name)
        return lam * (1.0 - lam)

    # Effect --------------------------------------------------------------------------------------

    def effect(self, name: str) -> FloatArray:
        """``beta`` of the training rows, then of the test rows."""
        at = np.concatenate([self.train, self.test])
        if "effect" in self.plan.known:
            return np.asarray(self.plan.known["effect"][at])
        learner = self.plan.learners["effect"][name]
        if isinstance(learner, str) and learner == "t":
            return self._ratio_of_arms(name, at)
        problem = self._effect_problem(name)
        if isinstance(learner, str) and learner == "const":
            return np.full(len(at), constant_effect(problem))
        if isinstance(learner, str):
            X = self.data.X.to_numpy(dtype=np.float64)
            return linear_effect(problem, X[self.train], X[at])
        return self.fit_predict(
            "effect",
            name,
            self.spread(problem.ratio),
            self.train[problem.usable],
            at,
            "effect",
            weight=self.spread(problem.design**2),
        )

    def _effect_residuals(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Out-of-fold treatment and outcome residuals of the family of ``name``."""
        outcome = self.plan.relative("outcome", name)
        r_y = self.data.y[self.train] - self.outcome_of_fold("level", outcome, self.data.y)
        return self.treatment_residual(self.plan.relative("treatment", name)), r_y

    def _effect_problem(self, name: str) -> EffectProblem:
        r_a, r_y = self._effect_residuals(name)
        if self.data.constant_arm is not None:
            return EffectProblem(r_y, r_a, self.z != self.data.constant_arm, self.weight)
        plan = self.plan
        learner, product = plan.relative("confounding", name), self.spread(r_a * r_y)
        q = self.out_of_fold(
            "product",
            name,
            lambda rows, at, part: self.fit_predict(
                "confounding", learner, product, rows, at, f"product of {name}{part}"
            ),
        )
        pi = self.held("instrument", plan.relative("instrument", name))
        V = self._held_variance(plan.relative("treatment", name))
        s = (self.z - np.clip(pi, plan.clip, 1.0 - plan.clip)) * self._floored_shift(V)
        return EffectProblem(r_a * r_y - q, s, np.ones(len(s), dtype=bool), self.weight)

    def _floored_shift(self, V: FloatArray) -> FloatArray:
        D = V[1] - V[0]
        return floor_variance_shift(D, self.plan.variance_floor(D, binary=self.data.binary))[0]

    def _ratio_of_arms(self, name: str, at: IntArray) -> FloatArray:
        """Difference of the arm-wise regressions of ``r_A r_Y`` over ``D``."""
        r_a, r_y = self._effect_residuals(name)
        learner = self.plan.relative("outcome", name)
        constant = None if self.data.constant is None else 0.0
        covariance = self.by_arm(
            "outcome",
            learner,
            self.spread(r_a * r_y),
            self.train,
            at,
            f"{name} covariance",
            constant=constant,
        )
        V = self.variance(self.plan.relative("treatment", name), self.train, at)
        return np.asarray((covariance[1] - covariance[0]) / self._floored_shift(V))

    # Outcome and confounding ---------------------------------------------------------------------

    def level(self, name: str) -> FloatArray:
        """``E[Y|Z=z,X]`` of the test rows."""
        return self.by_arm("outcome", name, self.data.y, self.train, self.test, "level")

    def outcome(self, effect: str, name: str, adjusted: FloatArray) -> FloatArray:
        """``E[Y - beta A|Z=z,X]`` of the test rows."""
        if "outcome" in self.plan.known:
            return self.plan.known["outcome"][:, self.test]
        return self.by_arm("outcome", name, adjusted, self.train, self.test, f"given {effect}")

    def confounding(self, effect: str, name: str, adjusted: FloatArray) -> FloatArray:
        """``omega`` of the test rows; zero where one arm has a constant treatment."""
        plan = self.plan
        if self.data.constant_arm is not None:
            return np.zeros(len(self.test))
        if "confounding" in plan.known:
            return plan.known["confounding"][self.test]
        outcome = plan.relative("outcome", name)
        if "outcome" in plan.known:
            mu = own_arm(plan.known["outcome"][:, self.train], self.z)
        else:
            mu = self.outcome_of_fold(f"outcome given {effect}", outcome, adjusted)
        e = adjusted[self.train] - mu
        product = self.spread(self.treatment_residual(plan.relative("treatment", name)) * e)
        return self.fit_predict(
            "confounding", name, product, self.train, self.test, f"given {effect}"
        )


def _key(text: str) -> int:
    """Stable integer of a text, for keyed seeds."""
    return zlib.crc32(text.encode())
