"""What the meta-learners share: cross-fitting, scores, prediction."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import HasMethods, Interval, fit_context
from causalfair._core.crossfit import CrossFitter, NuisanceSpec, NuisanceTable
from causalfair._core.learners import (
    accepts_missing,
    check_learner,
    default_classifier,
    default_regressor,
)
from causalfair._core.random import child_seed, root_seed
from causalfair._core.validation import check_level
from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.forest._base import EffectModel, Problem
from causalfair.forest._effects import (
    EffectData,
    LinearEffect,
    inner_nuisances,
)
from causalfair.forest._origin import ModelArray
from causalfair.forest._sample import EffectSample

__all__ = ["MetaLearner"]

FloatArray = NDArray[np.float64]
FLOOR = 0.01


@dataclass(frozen=True)
class Predictor:
    """Effect function of a meta-learner, for new rows only."""

    effect: Any
    encoder: Any
    owner: str

    def predict(self, X: Any) -> FloatArray:
        """Effects of new rows, (n,)."""
        effect: FloatArray = self.effect.predict(self.encoder.transform(X, owner=self.owner))
        return effect


class MetaLearner(EffectModel):
    """Cross-fitting, scores and prediction shared by the meta-learners."""

    _binary_only: ClassVar[bool] = True
    _modifiers_allowed: ClassVar[bool] = True
    _learns_from: ClassVar[tuple[str, ...]] = ()  # nuisances the effect function is learned from
    _citations: ClassVar[tuple[str, ...]] = ("kunzel2019metalearners", "chernozhukov2018double")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "outcome_learner": [HasMethods(["fit", "predict"]), None],
        "propensity_learner": [HasMethods(["fit", "predict"]), None],
        "effect_learner": [HasMethods(["fit", "predict"]), None],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_jobs": [Integral, None],
    }

    outcome_learner: Any
    propensity_learner: Any
    effect_learner: Any
    n_folds: int
    n_jobs: int | None
    random_state: Any

    def __init__(
        self,
        outcome_learner: Any = None,
        propensity_learner: Any = None,
        effect_learner: Any = None,
        *,
        n_folds: int = 5,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.outcome_learner = outcome_learner
        self.propensity_learner = propensity_learner
        self.effect_learner = effect_learner
        self.n_folds = n_folds
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        treatment: Any,
        nuisances: Any = None,
        covariates: Any = None,
        effect_modifiers: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Learn effects.

        Parameters
        ----------
        X : frame or array of shape (n_samples, n_features)
            Covariates; missing values where every learner accepts them.
        y : array of shape (n_samples,) or str
            Outcome, or the name of its column.
        treatment : array of shape (n_samples,) or str
            Treatment.
        nuisances : mapping, optional
            ``"outcome"``: expected outcome given covariates; ``"propensity"``: probability of
            treatment. Arrays of shape (n_samples,) or numbers; in a trial give the known
            probability. What is not given is cross-fitted.
        covariates : "all", list of str or formula, optional
            What to adjust for; required where a role is a column name.
        effect_modifiers : list of str, optional
            Covariates the effect may vary with; all when None.
        cluster : array, str or list of str, optional
            Clusters; they never straddle folds.
        sample_weight : array of shape (n_samples,) or str, optional
            Sampling weights.

        Returns
        -------
        object
            The fitted estimator.

        Raises
        ------
        RoleError
            A role is missing or names an unknown column.
        DataError
            Missing or infinite values, wrong lengths, folds that cannot be made.
        IdentificationError
            The treatment does not vary, or hardly does within a fold.
        """
        problem, data, fitter = self._start(
            X, y, treatment=treatment, nuisances=nuisances, covariates=covariates,
            effect_modifiers=effect_modifiers, cluster=cluster, sample_weight=sample_weight,
        )  # fmt: skip
        table = self._cross_fit(problem, data, fitter)
        self._check_folds(problem, table.folds[:, 0])
        self.nuisances_ = table
        outcome, propensity = self._column(table, "outcome"), self._column(table, "propensity")
        effect = self._out_of_fold_effects(data, fitter)
        variance = self._variance(table, problem, propensity)
        sample = EffectSample(
            effect, problem.y - outcome, problem.w - propensity, propensity, variance,
            problem.binary, problem.weight, problem.data.cluster, problem.data.sample_id(),
        )  # fmt: skip
        known = data.with_nuisances(outcome, propensity, table.folds[:, 0])
        self.effect_ = self._learn(known, child_seed(self._root, 1))
        return self._complete(problem, sample, self._root, folds=table.fold_hash())

    @fit_context
    def _fit_predictor(self, X: Any, y: Any, **roles: Any) -> Predictor:
        """Learn what predictions of new rows need, and nothing else.

        The effect function is that of ``fit`` to the bit. Effects and scores of the training rows,
        which take most of the time of ``fit``, are left out.
        """
        problem, data, fitter = self._start(X, y, **roles)
        folds = fitter.folds(data.n)
        self._check_folds(problem, folds[:, 0])
        needed = [name for name in self._learns_from if name not in problem.given]
        table = self._cross_fit(problem, data, fitter) if needed else NuisanceTable(folds)
        outcome, propensity = (
            self._column(table, name) if (name, "") in table.predictions
            else problem.given.get(name)
            for name in ("outcome", "propensity")
        )  # fmt: skip
        known = data.with_nuisances(outcome, propensity, folds[:, 0])
        owner = f"{type(self).__name__}.predict"
        return Predictor(self._learn(known, child_seed(self._root, 1)), problem.data.encoder, owner)

    def _start(self, X: Any, y: Any, **roles: Any) -> tuple[Problem, EffectData, CrossFitter]:
        """Roles, learners and folds."""
        owner = f"{type(self).__name__}.fit"
        self._check_modifiers(roles.get("effect_modifiers"), owner)
        problem = Problem(
            X, y, owner=owner, binary_only=self._binary_only, allow_nan=self._allows_missing(),
            **roles,
        )  # fmt: skip
        self._root = root_seed(self.random_state)
        data = EffectData.of(problem)
        self._set_learners(data)
        fitter = CrossFitter(
            self.n_folds, stratify=problem.w if problem.binary else None, groups=problem.cluster,
            n_jobs=self.n_jobs, random_state=child_seed(self._root, 0), clip=FLOOR,
        )  # fmt: skip
        return problem, data, fitter

    # What differs between learners ------------------------------------------------------------

    def _learn(self, data: EffectData, seed: Any) -> Any:
        """Effect function learned from ``data``."""
        raise NotImplementedError

    # Shared parts -----------------------------------------------------------------------------

    def _check_modifiers(self, effect_modifiers: Any, owner: str) -> None:
        if effect_modifiers is not None and not self._modifiers_allowed:
            raise ParameterError(
                f"{owner}: effect_modifiers has no meaning here, for outcomes are modelled given "
                "all covariates and effects are their difference. Use RLearner or DRLearner."
            )

    def _allows_missing(self) -> bool:
        """Whether every learner given accepts NaN; the default for small tables does not."""
        learners = (self.outcome_learner, self.propensity_learner, self.effect_learner)
        given = [learner for learner in learners if hasattr(learner, "fit")]
        return bool(given) and accepts_missing(*given)

    def _set_learners(self, data: EffectData) -> None:
        n, p = data.X.shape
        regressor = default_regressor(n, p)
        default_propensity = default_classifier(n, p) if data.binary else regressor
        effect = default_regressor(n, max(len(data.modifiers), 1))
        self._outcome = regressor if self.outcome_learner is None else self.outcome_learner
        self._propensity = (
            default_propensity if self.propensity_learner is None else self.propensity_learner
        )
        self._effect = effect if self.effect_learner is None else self.effect_learner
        method: Any = "predict_proba" if data.binary else "predict"
        check_learner(self._propensity, slot="propensity_learner", method=method)

    def _cross_fit(self, problem: Problem, data: EffectData, fitter: CrossFitter) -> NuisanceTable:
        """Out-of-fold nuisances; those that were given take their own column."""
        specs = []
        if "outcome" not in problem.given:
            specs.append(
                NuisanceSpec("outcome", self._outcome, problem.y, data.X, sample_weight=data.weight)
            )
        if "propensity" not in problem.given:
            method: Any = "predict_proba" if data.binary else "predict"
            specs.append(
                NuisanceSpec(
                    "propensity", self._propensity, problem.w, data.X, method=method,
                    sample_weight=data.weight,
                )
            )  # fmt: skip
        if not data.binary:
            specs.append(self._variance_spec(problem, data))
        table = fitter.run(specs, data.n, owner=problem.owner)
        for name, values in problem.given.items():
            table.predictions[name, ""] = values[:, None]
        return table

    def _variance_spec(self, problem: Problem, data: EffectData) -> NuisanceSpec:
        given = problem.given.get("propensity")

        def squared(predictions: dict[str, FloatArray]) -> FloatArray:
            mean = given if given is not None else predictions["propensity"]
            return np.asarray((problem.w - mean) ** 2)

        needs = () if given is not None else ("propensity",)
        learner = default_regressor(*data.X.shape)
        return NuisanceSpec("treatment variance", learner, squared, data.X, depends_on=needs)

    def _variance(self, table: NuisanceTable, problem: Problem, e: FloatArray) -> FloatArray:
        if problem.binary:
            return np.asarray(e * (1 - e))
        floor = FLOOR * float(np.mean((problem.w - e) ** 2))
        return np.maximum(self._column(table, "treatment variance"), floor)

    @staticmethod
    def _column(table: NuisanceTable, name: str) -> FloatArray:
        return np.ascontiguousarray(table[name][:, 0])

    def _check_folds(self, problem: Problem, folds: NDArray[np.intp]) -> None:
        if not problem.binary:
            return
        for fold in range(self.n_folds):
            treated = int(problem.w[folds == fold].sum())
            control = int((folds == fold).sum()) - treated
            if min(treated, control) < 2:
                raise IdentificationError(
                    f"{problem.owner}: fold {fold} has {treated} treated and {control} untreated "
                    f"rows; each fold needs two of each. Use fewer folds than n_folds="
                    f"{self.n_folds}, or more data."
                )

    def _fold_of_row(self) -> Any:
        return self.nuisances_.folds[:, 0]

    def _out_of_fold_effects(self, data: EffectData, fitter: CrossFitter) -> FloatArray:
        """Effects of each row by a learner, nuisances included, that saw only other folds."""
        from functools import partial

        out = np.empty(data.n)
        [results] = fitter.map(partial(_effect_of_fold, self, data), data.n, desc="effects")
        for rows, values in results:
            out[rows] = values
        return out

    def _with_nuisances(self, data: EffectData, seed: Any) -> EffectData:
        """Nuisances by an inner cross-fit, unless they are there."""
        if data.folds is not None:
            return data
        outcome = self._outcome if "outcome" in self._learns_from else None
        return inner_nuisances(data, outcome, self._propensity, self.n_folds, seed)

    def predict(self, X: Any = None) -> FloatArray:
        """Effect of the treatment given covariates.

        Parameters
        ----------
        X : frame or array of shape (n_rows, n_features), optional
            New rows, predicted by the learner fitted to all data. None: the training rows, each by
            a learner that did not see its fold.

        Returns
        -------
        ndarray of shape (n_rows,)
            Effects, in units of the outcome per unit of treatment.
        """
        check_is_fitted(self)
        if X is None:
            return ModelArray.tag(self.sample_.effect, "out-of-sample", self._identity)
        frame = self._encoder.transform(X, owner=f"{type(self).__name__}.predict")
        effect: FloatArray = self.effect_.predict(frame)
        return effect

    def predict_interval(self, X: Any = None, level: float = 0.95) -> FloatArray:
        """Pointwise intervals; only ``DRLearner(effect_learner="linear")`` has them.

        Parameters
        ----------
        X : frame or array of shape (n_rows, n_features), optional
            New rows.
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        ndarray of shape (n_rows, 2)
            Lower and upper ends.

        Raises
        ------
        ParameterError
            The final stage has no intervals.
        """
        from scipy.special import ndtri

        check_is_fitted(self)
        check_level(level)
        if not isinstance(self.effect_, LinearEffect):
            raise ParameterError(
                f"{type(self).__name__}.predict_interval: a final stage by machine learning has no "
                "pointwise intervals. Use CausalForest, or DRLearner(effect_learner='linear')."
            )
        if X is None:
            raise ParameterError(
                f"{type(self).__name__}.predict_interval needs X: intervals are those of the final "
                "stage fitted to all rows."
            )
        frame = self._encoder.transform(X, owner=f"{type(self).__name__}.predict_interval")
        effect, error = self.effect_.predict(frame), self.effect_.std_error(frame)
        half = ndtri((1 + level) / 2) * error
        return np.column_stack([effect - half, effect + half])

    def _summary_header(self) -> list[tuple[str, str]]:
        return [*super()._summary_header(), ("folds", f"{self.n_folds}")]

    def _summary_tables(self) -> list[Any]:
        from causalfair.reporting import Table

        rows = self.nuisances_.rows()
        if not rows:
            return super()._summary_tables()
        columns = ["nuisance", "learner", "out-of-fold loss"]
        return [*super()._summary_tables(), Table(columns, rows, None)]


def _effect_of_fold(model: MetaLearner, data: EffectData, task: Any) -> Any:
    effect = model._learn(data.take(task.train), task.seed)
    return task.test, effect.predict(data.X.iloc[task.test])
