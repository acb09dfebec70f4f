"""scikit-learn glue: scorer, splitter, and what the meta-estimators share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from causalfair.adaptive._holdout import ReusableHoldout
from causalfair.adaptive._metrics import METRICS, find_metric
from causalfair.exceptions import ParameterError

__all__ = ["CHOOSERS", "LADDERS", "Delegating", "HoldoutScorer", "WholeSampleSplit"]

CHOOSERS = ("winner_only", "noisy_argmin")
LADDERS = ("ladder", "ladder_free")


class HoldoutScorer:
    """``scorer(estimator, X, y)``: the released value on a reusable holdout.

    Losses are negated. X and y give the guess (training value) where the mechanism needs one.
    """

    def __init__(self, holdout: ReusableHoldout, metric: str, options: dict[str, Any]) -> None:
        if holdout.mechanism in CHOOSERS:
            raise ParameterError(
                f"mechanism={holdout.mechanism!r} releases no values, so it cannot score; use "
                "HoldoutSearchCV, or a holdout with mechanism='guess_and_check' or 'gaussian'."
            )
        self.holdout, self.metric, self.options = holdout, metric, options

    def __call__(self, estimator: Any, X: Any, y: Any = None, **kwargs: Any) -> float:
        """Ask one question; a repeated model is answered free."""
        del kwargs
        guess = None
        if self.holdout._parts.session.mechanism.needs_guess and X is not None:
            query = self.holdout._model_query(estimator, self.metric, None, dict(self.options))
            guess = query.source.statistic(X, np.asarray(y)).value
        answer = self.holdout.score(estimator, self.metric, guess=guess, **self.options)
        name, _ = find_metric(self.metric)
        return -METRICS[name].sign * answer.value

    def __repr__(self) -> str:
        return f"HoldoutScorer({self.metric!r}, {self.holdout!r})"


class WholeSampleSplit:
    """One split in which all rows train and all rows are handed to the scorer."""

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """One split."""
        del X, y, groups
        return 1

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Any, Any]]:
        """Yield (all rows, all rows)."""
        del y, groups
        rows = np.arange(X.shape[0] if hasattr(X, "shape") else len(X))
        yield rows, rows

    def __repr__(self) -> str:
        return "WholeSampleSplit()"


def delegates(name: str) -> Any:
    def check(search: Any) -> bool:
        inner = getattr(search, "best_estimator_", search.estimator)
        return hasattr(inner, name)

    return available_if(check)


class Delegating(MetaEstimatorMixin, BaseEstimator):
    """Prediction methods of the model that was kept."""

    best_estimator_: Any
    estimator: Any

    def _best(self) -> Any:
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_

    @delegates("predict")
    def predict(self, X: Any) -> Any:
        """Predict with the model that was kept.

        Parameters
        ----------
        X : array or frame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        array of shape (n_samples,)
            Predictions.
        """
        return self._best().predict(X)

    @delegates("predict_proba")
    def predict_proba(self, X: Any) -> Any:
        """Class probabilities of the model that was kept.

        Parameters
        ----------
        X : array or frame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        array of shape (n_samples, n_classes)
            Probabilities.
        """
        return self._best().predict_proba(X)

    @delegates("decision_function")
    def decision_function(self, X: Any) -> Any:
        """Decision values of the model that was kept.

        Parameters
        ----------
        X : array or frame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        array
            Decision values.
        """
        return self._best().decision_function(X)

    @delegates("transform")
    def transform(self, X: Any) -> Any:
        """Transform with the model that was kept.

        Parameters
        ----------
        X : array or frame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        array
            Transformed rows.
        """
        return self._best().transform(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Score of the model that was kept on other data; the holdout is not touched.

        Parameters
        ----------
        X : array or frame of shape (n_samples, n_features)
            Rows.
        y : array of shape (n_samples,), optional
            Outcomes.

        Returns
        -------
        float
            The model's own score.
        """
        return float(self._best().score(X, y))

    @property
    def classes_(self) -> Any:
        """Class labels of the model that was kept."""
        return self._best().classes_

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in fit."""
        return int(self._best().n_features_in_)

    def get_metadata_routing(self) -> MetadataRouter:
        """Route fit parameters to the estimator.

        Returns
        -------
        MetadataRouter
            Routing information.
        """
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=type(self).__name__).add(
            estimator=self.estimator, method_mapping=mapping
        )

    def _fit_params(self, fit_params: dict[str, Any]) -> dict[str, Any]:
        from sklearn import get_config

        if not get_config()["enable_metadata_routing"]:
            return fit_params
        return dict(process_routing(self, "fit", **fit_params).estimator.fit)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = self.estimator.__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = inner.estimator_type, inner.classifier_tags
        tags.regressor_tags, tags.input_tags = inner.regressor_tags, inner.input_tags
        return tags
