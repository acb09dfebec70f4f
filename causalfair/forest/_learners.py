"""Meta-learners: heterogeneous effects from any scikit-learn model."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import HasMethods, StrOptions
from causalfair._core.learners import check_learner, default_regressor, fit_learner
from causalfair._core.random import child_seed
from causalfair.forest._effects import (
    ArmDifference,
    Blend,
    EffectData,
    LinearEffect,
    ModelEffect,
    SwitchedTreatment,
    doubly_robust_scores,
    fit_arm,
)
from causalfair.forest._meta import MetaLearner
from causalfair.forest._regression import least_squares

__all__ = ["DRLearner", "RLearner", "SLearner", "TLearner", "XLearner"]

FloatArray = NDArray[np.float64]
LEAST_SPREAD = 1e-6  # treatment residuals below this are dropped from the R-loss


class RLearner(MetaLearner):
    """Effects by minimising the R-loss with any regressor that takes weights.

    With outcome and treatment residuals ``y~`` and ``w~``, the effect minimises the mean of
    ``(y~ - tau(x) w~)^2``: a regression of ``y~ / w~`` with weights ``w~^2``.

    Parameters
    ----------
    outcome_learner : regressor, optional
        Expected outcome given covariates. Default: penalised linear on small tables, gradient
        boosting otherwise.
    propensity_learner : classifier, or regressor where the treatment is real-valued, optional
        Expected treatment given covariates.
    effect_learner : regressor that takes ``sample_weight``, optional
        Effect given effect modifiers.
    n_folds : int, default 5
        Folds of the cross-fitting, nuisances and effects alike.
    n_jobs : int, optional
        Workers; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : Estimates
        The average effect.
    scores_ : ndarray of shape (n_samples,)
        Doubly robust scores.
    effect_ : object
        Effect function fitted to all rows.
    nuisances_ : NuisanceTable
        Out-of-fold nuisances.

    See Also
    --------
    DRLearner : Regression of doubly robust scores.
    CausalForest : Forest with pointwise intervals.

    References
    ----------
    .. [1] X. Nie and S. Wager (2021). Quasi-oracle estimation of heterogeneous treatment effects.
       Biometrika 108, 299-319, section 2. doi:10.1093/biomet/asaa076

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.forest import RLearner
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 3))
    >>> w = rng.integers(0, 2, 400)
    >>> y = w * X[:, 0] + rng.normal(size=400)
    >>> model = RLearner(random_state=1).fit(X, y, treatment=w, nuisances={"propensity": 0.5})
    >>> bool(model.predict([[2.0, 0, 0]])[0] > 1)
    True
    """

    _title: ClassVar[str] = "R-learner"
    _citations: ClassVar[tuple[str, ...]] = ("nie2021quasi", "chernozhukov2018double")
    _learns_from: ClassVar[tuple[str, ...]] = ("outcome", "propensity")
    _binary_only: ClassVar[bool] = False

    def _set_learners(self, data: EffectData) -> None:
        super()._set_learners(data)
        check_learner(self._effect, slot="effect_learner", weights=True)

    def _learn(self, data: EffectData, seed: Any) -> Any:
        data = self._with_nuisances(data, seed)
        y_residual, w_residual = data.residuals()
        keep = np.abs(w_residual) > LEAST_SPREAD
        weight = w_residual[keep] ** 2
        if data.weight is not None:
            weight = weight * data.weight[keep]
        model = fit_learner(
            self._effect,
            data.modifier_frame().iloc[np.flatnonzero(keep)],
            y_residual[keep] / w_residual[keep],
            seed=child_seed(seed, 9),
            sample_weight=weight,
            slot="effect_learner",
        )
        return ModelEffect(model, data.modifiers)


class DRLearner(MetaLearner):
    """Effects by regressing doubly robust scores on effect modifiers.

    Right if either the outcome or the propensity model is; with known propensities it is right
    whatever the outcome model.

    Parameters
    ----------
    outcome_learner : regressor, optional
        Expected outcome given covariates, in each arm.
    propensity_learner : classifier, optional
        Probability of treatment given covariates.
    effect_learner : regressor or "linear", optional
        Final stage. ``"linear"`` is least squares and gives coefficients and intervals.
    n_folds : int, default 5
        Folds of the cross-fitting.
    n_jobs : int, optional
        Workers; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : Estimates
        The average effect.
    scores_ : ndarray of shape (n_samples,)
        Doubly robust scores.
    effect_ : object
        Effect function fitted to all rows.
    coefficients_ : Estimates
        Coefficients of the linear final stage, where there is one.
    nuisances_ : NuisanceTable
        Out-of-fold nuisances.

    See Also
    --------
    RLearner : Regression of residuals on residuals.

    References
    ----------
    .. [1] E. H. Kennedy (2023). Towards optimal doubly robust estimation of heterogeneous causal
       effects. Electronic Journal of Statistics 17, 3008-3049, algorithm 1. doi:10.1214/23-EJS2157

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.forest import DRLearner
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2))
    >>> w = rng.integers(0, 2, 400)
    >>> y = w * X[:, 0] + rng.normal(size=400)
    >>> model = DRLearner(effect_learner="linear", random_state=1)
    >>> model = model.fit(X, y, treatment=w, nuisances={"propensity": 0.5})
    >>> model.coefficients_.names
    ('(intercept)', 'x0', 'x1')
    """

    _title: ClassVar[str] = "DR-learner"
    _citations: ClassVar[tuple[str, ...]] = ("kennedy2023towards", "chernozhukov2018double")
    _learns_from: ClassVar[tuple[str, ...]] = ("propensity",)  # outcomes by arm are its own
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **MetaLearner._parameter_constraints,
        "effect_learner": [HasMethods(["fit", "predict"]), StrOptions({"linear"}), None],
    }

    def _learn(self, data: EffectData, seed: Any) -> Any:
        data = self._with_nuisances(data, seed)
        scores = doubly_robust_scores(data, self._outcome, child_seed(seed, 8))
        if isinstance(self._effect, str):
            return self._linear(data, scores)
        model = fit_learner(
            self._effect,
            data.modifier_frame(),
            scores,
            seed=child_seed(seed, 9),
            sample_weight=data.weight,
            slot="effect_learner",
        )
        return ModelEffect(model, data.modifiers)

    def _linear(self, data: EffectData, scores: FloatArray) -> LinearEffect:
        design = np.column_stack([np.ones(data.n), data.modifier_frame().to_numpy(float)])
        names = ["(intercept)", *data.modifiers]
        fit = least_squares(
            design, scores, names, cluster=data.clusters, sample_weight=data.weight,
            owner="DRLearner.fit",
        )  # fmt: skip
        return LinearEffect(fit, data.modifiers)

    @property
    def coefficients_(self) -> Any:
        """Coefficients of the linear final stage."""
        check_is_fitted(self)
        if not isinstance(self.effect_, LinearEffect):
            raise AttributeError("coefficients_ exists for DRLearner(effect_learner='linear') only")
        return self.effect_.estimates


class TLearner(MetaLearner):
    """Effects as the difference of two outcome models, one an arm.

    Parameters
    ----------
    outcome_learner : regressor, optional
        Expected outcome given covariates, in each arm.
    propensity_learner : classifier, optional
        Probability of treatment, for the scores.
    n_folds : int, default 5
        Folds of the cross-fitting.
    n_jobs : int, optional
        Workers; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : Estimates
        The average effect.
    scores_ : ndarray of shape (n_samples,)
        Doubly robust scores.

    See Also
    --------
    XLearner : Two stages; better where the arms differ in size.

    References
    ----------
    .. [1] S. R. Kunzel, J. S. Sekhon, P. J. Bickel and B. Yu (2019). Metalearners for estimating
       heterogeneous treatment effects using machine learning. PNAS 116, 4156-4165.
       doi:10.1073/pnas.1804597116

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.forest import TLearner
    >>> rng = np.random.default_rng(0)
    >>> X, w = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    >>> y = w * X[:, 0] + rng.normal(size=200)
    >>> model = TLearner(random_state=1).fit(X, y, treatment=w)
    >>> model.predict([[0.0, 0.0]]).shape
    (1,)
    """

    _title: ClassVar[str] = "T-learner"
    _modifiers_allowed: ClassVar[bool] = False
    effect_learner = None

    def __init__(
        self,
        outcome_learner: Any = None,
        propensity_learner: Any = None,
        *,
        n_folds: int = 5,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.outcome_learner = outcome_learner
        self.propensity_learner = propensity_learner
        self.n_folds = n_folds
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _learn(self, data: EffectData, seed: Any) -> Any:
        models = [fit_arm(data, arm, self._outcome, child_seed(seed, 7, arm)) for arm in (0, 1)]
        return ArmDifference(*models)


class SLearner(TLearner):
    """Effects from one outcome model with the treatment among its features.

    Parameters
    ----------
    outcome_learner : regressor, optional
        Expected outcome given covariates and treatment. Default: gradient boosting, since a linear
        model without products would give everybody the same effect.
    propensity_learner : classifier, optional
        Probability of treatment, for the scores.
    n_folds : int, default 5
        Folds of the cross-fitting.
    n_jobs : int, optional
        Workers; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : Estimates
        The average effect.
    scores_ : ndarray of shape (n_samples,)
        Doubly robust scores.

    See Also
    --------
    TLearner : One model an arm.

    Notes
    -----
    Regularisation shrinks effects towards zero.

    References
    ----------
    .. [1] S. R. Kunzel, J. S. Sekhon, P. J. Bickel and B. Yu (2019). Metalearners for estimating
       heterogeneous treatment effects using machine learning. PNAS 116, 4156-4165.
       doi:10.1073/pnas.1804597116

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.forest import SLearner
    >>> rng = np.random.default_rng(0)
    >>> X, w = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    >>> y = w * X[:, 0] + rng.normal(size=200)
    >>> SLearner(random_state=1).fit(X, y, treatment=w).predict().shape
    (200,)
    """

    _title: ClassVar[str] = "S-learner"

    def _learn(self, data: EffectData, seed: Any) -> Any:
        learner = self._outcome
        if self.outcome_learner is None:
            learner = default_regressor(10**9, 1)  # gradient boosting whatever the size
        features = SwitchedTreatment.features(data.X, data.w)
        model = fit_learner(
            learner, features, data.y, seed=child_seed(seed, 7), sample_weight=data.weight,
            slot="outcome_learner",
        )  # fmt: skip
        return SwitchedTreatment(model)


class XLearner(MetaLearner):
    """Effects imputed in each arm from the other arm's outcome model, then blended.

    Treated rows impute ``y - mu0(x)``, untreated rows ``mu1(x) - y``; each is regressed on the
    effect modifiers, and the two regressions are blended with the propensity as weight.

    Parameters
    ----------
    outcome_learner : regressor, optional
        Expected outcome given covariates, in each arm.
    propensity_learner : classifier, optional
        Probability of treatment given covariates.
    effect_learner : regressor, optional
        Imputed effects given effect modifiers.
    n_folds : int, default 5
        Folds of the cross-fitting.
    n_jobs : int, optional
        Workers; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : Estimates
        The average effect.
    scores_ : ndarray of shape (n_samples,)
        Doubly robust scores.

    See Also
    --------
    DRLearner : Regression of doubly robust scores.

    References
    ----------
    .. [1] S. R. Kunzel, J. S. Sekhon, P. J. Bickel and B. Yu (2019). Metalearners for estimating
       heterogeneous treatment effects using machine learning. PNAS 116, 4156-4165, algorithm 3.
       doi:10.1073/pnas.1804597116

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.forest import XLearner
    >>> rng = np.random.default_rng(0)
    >>> X, w = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    >>> y = w * X[:, 0] + rng.normal(size=200)
    >>> XLearner(random_state=1).fit(X, y, treatment=w).predict().shape
    (200,)
    """

    _title: ClassVar[str] = "X-learner"

    def _learn(self, data: EffectData, seed: Any) -> Any:
        arms = [fit_arm(data, arm, self._outcome, child_seed(seed, 7, arm)) for arm in (0, 1)]
        stages = []
        for arm in (0, 1):
            rows = np.flatnonzero(data.w == arm)
            other = arms[1 - arm].predict(data.X.iloc[rows])
            imputed = data.y[rows] - other if arm == 1 else other - data.y[rows]
            model = fit_learner(
                self._effect,
                data.modifier_frame().iloc[rows],
                imputed,
                seed=child_seed(seed, 9, arm),
                sample_weight=None if data.weight is None else data.weight[rows],
                slot="effect_learner",
            )
            stages.append(ModelEffect(model, data.modifiers))
        return Blend(stages[0], stages[1], self._blend_weight(data, seed))

    def _blend_weight(self, data: EffectData, seed: Any) -> Any:
        """Known constant propensity, or a model of it: new rows need it too."""
        if data.known_propensity is not None:
            return data.known_propensity
        return fit_learner(
            self._propensity, data.X, data.w, seed=child_seed(seed, 6), sample_weight=data.weight,
            slot="propensity_learner",
        )  # fmt: skip
