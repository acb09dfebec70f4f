"""Learners as the spine uses them: seeded, limited to one thread, checked for what a slot needs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from causalfair._core.compat import logistic_cv
from causalfair._core.parallel import inner_threads
from causalfair._core.random import int_seed
from causalfair._core.typing import FloatArray

__all__ = [
    "BOOSTING",
    "Method",
    "accepts_missing",
    "check_learner",
    "default_classifier",
    "default_regressor",
    "describe_learner",
    "fit_learner",
    "linear_pipeline",
    "predict_learner",
]

Method = Literal["predict", "predict_proba"]
SMALL = 5_000
"""Below this many cells (rows times covariates) a penalised linear model is the default."""


def default_regressor(n: int, p: int) -> Any:
    """Ridge with a cross-validated penalty below 5,000 cells, gradient boosting from there on."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV

    if n * max(p, 1) < SMALL:
        return linear_pipeline(RidgeCV(np.logspace(-3, 4, 15)))
    return HistGradientBoostingRegressor(**BOOSTING)


def default_classifier(n: int, p: int) -> Any:
    """Logistic regression with a cross-validated penalty, or gradient boosting; as above."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    if n * max(p, 1) < SMALL:
        return linear_pipeline(logistic_cv())
    return HistGradientBoostingClassifier(**BOOSTING)


BOOSTING: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_iter": 300,
    "max_leaf_nodes": 15,
    "early_stopping": True,
    "categorical_features": "from_dtype",
}


def linear_pipeline(model: Any) -> Any:
    """Standardise numbers, one-hot encode categories, then the model."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
        remainder=StandardScaler(),
    )
    return make_pipeline(encode, model)


def check_learner(
    learner: Any, *, slot: str, method: Method = "predict", weights: bool = False
) -> None:
    """Raise where a learner lacks what its slot needs.

    Raises
    ------
    TypeError
        Naming the slot, what came, and what is needed.
    """
    for needed in ("fit", "get_params", method):
        if not hasattr(learner, needed):
            remedy = (
                "a classifier with predict_proba, such as LogisticRegression()"
                if method == "predict_proba"
                else "a scikit-learn style regressor, such as RidgeCV()"
            )
            raise TypeError(f"{slot}={learner!r} has no {needed}; give {remedy}.")
    if weights and _weight_argument(learner) is None:
        raise TypeError(
            f"{slot}={learner!r} does not accept sample_weight in fit, which this slot needs; "
            "give one that does, such as HistGradientBoostingRegressor() or RidgeCV()."
        )


def _weight_argument(learner: Any) -> str | None:
    """Name under which ``fit`` takes sample weights; through the last step of a pipeline."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    if isinstance(learner, Pipeline):
        name, last = learner.steps[-1]
        inner = _weight_argument(last)
        return None if inner is None else f"{name}__{inner}"
    return "sample_weight" if has_fit_parameter(learner, "sample_weight") else None


def seeded(learner: Any, seed: np.random.SeedSequence) -> Any:
    """Clone with every nested ``random_state`` that is None set from ``seed``."""
    from sklearn.base import clone

    copy = clone(learner)
    names = sorted(k for k in copy.get_params(deep=True) if k.rpartition("__")[2] == "random_state")
    unset = {
        name: int_seed(seed, index) % (2**31 - 1)
        for index, name in enumerate(names)
        if copy.get_params(deep=True)[name] is None
    }
    return copy.set_params(**unset) if unset else copy


def fit_learner(
    learner: Any,
    X: Any,
    y: FloatArray,
    *,
    seed: np.random.SeedSequence,
    sample_weight: FloatArray | None = None,
    slot: str = "learner",
) -> Any:
    """Fit a seeded clone with inner threads limited.

    Parameters
    ----------
    learner : estimator
        Left as it is; a clone is fitted.
    X : pandas.DataFrame of shape (n, p)
        Features.
    y : numpy.ndarray of shape (n,)
        Target; passed as integers to a classifier.
    seed : numpy.random.SeedSequence
        Seeds every nested ``random_state`` that is None.
    sample_weight : numpy.ndarray of shape (n,), optional
        Weights.
    slot : str
        Name of the slot, for messages.

    Returns
    -------
    estimator
        The fitted clone.

    Raises
    ------
    TypeError
        Weights are given and the learner takes none.
    """
    from sklearn.base import is_classifier

    model = seeded(learner, seed)
    options = {}
    if sample_weight is not None:
        check_learner(learner, slot=slot, weights=True)
        options[str(_weight_argument(learner))] = sample_weight
    target = y.astype(np.intp) if is_classifier(model) else y
    with inner_threads():
        return model.fit(X, target, **options)


def predict_learner(model: Any, X: Any, method: Method = "predict") -> FloatArray:
    """Predictions (n,); the probability of class 1 for ``predict_proba``."""
    with inner_threads():
        if method == "predict":
            return np.asarray(model.predict(X), dtype=np.float64).reshape(-1)
        probabilities = np.asarray(model.predict_proba(X), dtype=np.float64)
    at = np.flatnonzero(np.asarray(model.classes_) == 1)
    return probabilities[:, at[0]] if len(at) else np.zeros(len(probabilities))


def accepts_missing(*learners: Any) -> bool:
    """Whether every learner says that it accepts NaN in X."""
    from sklearn.utils import get_tags

    return all(bool(get_tags(learner).input_tags.allow_nan) for learner in learners)


def describe_learner(learner: Any) -> str:
    """Short name for tables: the class, or the last step of a pipeline."""
    from sklearn.pipeline import Pipeline

    last = learner
    while isinstance(last, Pipeline):
        last = last.steps[-1][1]
    return type(last).__name__
