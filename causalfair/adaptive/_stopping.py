"""Early stopping on a ladder."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.base import clone

from causalfair._core.logging import warn
from causalfair.adaptive._answer import Answer
from causalfair.adaptive._holdout import ReusableHoldout
from causalfair.adaptive._sklearn import LADDERS, Delegating
from causalfair.exceptions import CausalFairWarning, ParameterError

__all__ = ["HoldoutEarlyStopping"]


class HoldoutEarlyStopping(Delegating):
    """Train round by round and stop when the ladder has not moved for a while.

    Parameters
    ----------
    estimator : estimator
        With ``partial_fit``, or with ``warm_start`` and the parameter named by `step_param`.
    holdout : ReusableHoldout
        With ``mechanism="ladder"`` (or ``"ladder_free"``).
    metric : str, default "accuracy"
        As in :meth:`ReusableHoldout.score`.
    metric_options : mapping, optional
        Further arguments of the metric.
    max_rounds : int, default 50
        Most rounds.
    patience : int, default 5
        Stop after this many rounds without an update of the board.
    step_param : str, default "n_estimators"
        Parameter that grows in warm-start learners.
    step : int, default 10
        Its growth a round.

    Attributes
    ----------
    best_estimator_ : estimator
        Model of the last update.
    best_round_, n_rounds_ : int
        Round of the last update, and rounds run.
    best_answer_ : Answer
        The board at the end.
    history_ : list of Answer
        The board after each round.

    See Also
    --------
    HoldoutSearchCV : Model search.

    References
    ----------
    .. [1] Blum and Hardt (2015), The ladder, ICML. arXiv:1502.04585

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import SGDClassifier
    >>> from causalfair.adaptive import HoldoutEarlyStopping, ReusableHoldout
    >>> X, y = make_classification(6000, random_state=0)
    >>> holdout = ReusableHoldout.create(None, X[2000:], y[2000:], mechanism="ladder",
    ...                                  max_queries=20)
    >>> stopping = HoldoutEarlyStopping(SGDClassifier(random_state=0), holdout, max_rounds=20)
    >>> stopping.fit(X[:2000], y[:2000]).n_rounds_ <= 20
    True
    """

    def __init__(
        self,
        estimator: Any,
        holdout: ReusableHoldout,
        *,
        metric: str = "accuracy",
        metric_options: dict[str, Any] | None = None,
        max_rounds: int = 50,
        patience: int = 5,
        step_param: str = "n_estimators",
        step: int = 10,
    ) -> None:
        self.estimator = estimator
        self.holdout = holdout
        self.metric = metric
        self.metric_options = metric_options
        self.max_rounds = max_rounds
        self.patience = patience
        self.step_param = step_param
        self.step = step

    def fit(self, X: Any, y: Any, **fit_params: Any) -> HoldoutEarlyStopping:
        """Train until the board stands still.

        Parameters
        ----------
        X : array or frame of shape (n_samples, n_features)
            Training rows.
        y : array of shape (n_samples,)
            Training outcomes.
        **fit_params
            Passed to the estimator's ``fit`` (warm start only).

        Returns
        -------
        HoldoutEarlyStopping
            Itself.
        """
        if self.holdout.mechanism not in LADDERS:
            raise ParameterError(
                "HoldoutEarlyStopping needs a holdout with mechanism='ladder'. "
                f"Got {self.holdout.mechanism!r}."
            )
        for name in ("max_rounds", "patience", "step"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1. Got {getattr(self, name)!r}.")
        model = clone(self.estimator)
        advance = self._advance(model, X, y, self._fit_params(fit_params))
        self.history_: list[Answer] = []
        self.best_round_ = 0
        for round_ in range(1, self.max_rounds + 1):
            advance(round_)
            answer = self.holdout.score(model, self.metric, **(self.metric_options or {}))
            self.history_.append(answer)
            if answer.status == "improved":
                self.best_round_, self.best_estimator_ = round_, copy.deepcopy(model)
            if round_ - self.best_round_ >= self.patience:
                break
        self.n_rounds_ = len(self.history_)
        self.best_answer_ = self.history_[-1]
        if self.best_round_ == 0:
            warn(
                "No round improved on the board, so no model is kept; use the earlier model.",
                CausalFairWarning,
            )
        return self

    def _advance(self, model: Any, X: Any, y: Any, fit_params: dict[str, Any]) -> Any:
        if hasattr(model, "partial_fit"):
            from sklearn.base import is_classifier

            extra = {"classes": np.unique(y)} if is_classifier(model) else {}
            return lambda round_: model.partial_fit(X, y, **(extra if round_ == 1 else {}))
        known = model.get_params()
        if "warm_start" not in known or self.step_param not in known:
            raise ParameterError(
                f"{type(model).__name__} has neither partial_fit nor warm_start with "
                f"{self.step_param!r}; name the growing parameter with step_param=."
            )

        def grow(round_: int) -> None:
            model.set_params(warm_start=True, **{self.step_param: round_ * self.step})
            model.fit(X, y, **fit_params)

        return grow
