"""Model search on a reusable holdout."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, ParameterSampler

from causalfair._core.logging import warn
from causalfair._core.parallel import map_tasks
from causalfair._core.random import int_seed, root_seed
from causalfair._core.typing import FloatArray, RandomState
from causalfair.adaptive._answer import Answer, Answers
from causalfair.adaptive._holdout import ReusableHoldout
from causalfair.adaptive._metrics import METRICS, find_metric
from causalfair.adaptive._sklearn import CHOOSERS, LADDERS, Delegating
from causalfair.exceptions import CausalFairWarning

__all__ = ["HoldoutSearchCV"]


def _fit_one(
    params: dict[str, Any], estimator: Any, X: Any, y: Any, fit_params: dict[str, Any]
) -> Any:
    return clone(estimator).set_params(**clone(params, safe=False)).fit(X, y, **fit_params)


class HoldoutSearchCV(Delegating):
    """Model search whose every look at the holdout is paid for.

    All candidates are fitted on the training data; one batch of questions goes to the holdout.
    With ``mechanism="winner_only"`` only the best candidate is revealed, which is what a repeated
    grid search needs; other mechanisms release a value with an interval for each candidate; a
    ladder reports the best so far.

    Parameters
    ----------
    estimator : estimator
        Model to tune.
    param_grid : mapping or sequence of mappings
        Grid, or distributions when `n_iter` is given.
    holdout : ReusableHoldout
        Where candidates are compared. It is shared, never cloned.
    metric : str, default "accuracy"
        As in :meth:`ReusableHoldout.score`.
    metric_options : mapping, optional
        Further arguments of the metric.
    n_iter : int, optional
        Draw this many candidates instead of the whole grid.
    query_id : str, optional
        Name of the batch; fitting again under it costs nothing.
    n_jobs : int, optional
        Candidates fitted at once.
    random_state : int, optional
        Of the draw of candidates.

    Attributes
    ----------
    best_estimator_, best_params_, best_index_
        The candidate that was chosen, fitted on all training rows.
    best_answer_ : Answer
        What the holdout said about it.
    cv_results_ : dict
        Parameters, training values, released values with intervals.

    See Also
    --------
    ReusableHoldout : The holdout itself.

    Notes
    -----
    Nested cross-validation and the bootstrap do not repair adaptivity across repeated analyses;
    they estimate the performance of one fixed procedure.

    References
    ----------
    .. [1] Dwork et al. (2015), The reusable holdout, Science 349:636-638.
       doi:10.1126/science.aaa9375

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from causalfair.adaptive import HoldoutSearchCV, ReusableHoldout
    >>> X, y = make_classification(4000, random_state=0)
    >>> holdout = ReusableHoldout.create(None, X[2000:], y[2000:], mechanism="winner_only")
    >>> search = HoldoutSearchCV(LogisticRegression(), {"C": [0.01, 1.0]}, holdout)
    >>> search.fit(X[:2000], y[:2000]).best_answer_.status
    'winner'
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        holdout: ReusableHoldout,
        *,
        metric: str = "accuracy",
        metric_options: dict[str, Any] | None = None,
        n_iter: int | None = None,
        query_id: str | None = None,
        n_jobs: int | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.holdout = holdout
        self.metric = metric
        self.metric_options = metric_options
        self.n_iter = n_iter
        self.query_id = query_id
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> HoldoutSearchCV:
        """Fit every candidate and ask the holdout once.

        Parameters
        ----------
        X : array or frame of shape (n_samples, n_features)
            Training rows; never holdout rows.
        y : array of shape (n_samples,)
            Training outcomes.
        **fit_params
            Passed to the estimator (through metadata routing where it is enabled).

        Returns
        -------
        HoldoutSearchCV
            Itself.

        Raises
        ------
        BudgetExhaustedError
            The candidates do not fit into the budget; nothing was spent.
        """
        candidates = self._candidates()
        fit_one = partial(
            _fit_one, estimator=self.estimator, X=X, y=y, fit_params=self._fit_params(fit_params)
        )
        models = map_tasks(fit_one, candidates, n_jobs=self.n_jobs, desc="candidates")
        options = dict(self.metric_options or {})
        queries = [
            self.holdout._model_query(model, self.metric, None, dict(options)) for model in models
        ]
        training = np.array([q.source.statistic(X, np.asarray(y)).value for q in queries])
        if self.holdout._parts.session.mechanism.needs_guess:
            queries = [
                type(q)(q.source, q.lo, q.hi, float(t), kind=q.kind, loss_sign=q.loss_sign)
                for q, t in zip(queries, training, strict=True)
            ]
        answers = Answers(self.holdout._ask(queries, None, batch_id=self.query_id))
        self.n_candidates_ = len(candidates)
        self.cv_results_ = _results(candidates, training, answers)
        self._keep(candidates, models, answers)
        return self

    def _candidates(self) -> list[dict[str, Any]]:
        if self.n_iter is None:
            return list(ParameterGrid(self.param_grid))
        seed = int_seed(root_seed(self.random_state), 0)
        return list(ParameterSampler(self.param_grid, self.n_iter, random_state=seed))

    def _keep(self, candidates: list[dict[str, Any]], models: list[Any], answers: Answers) -> None:
        best = _best_index(answers, self.holdout.mechanism, self.metric)
        if best is None:
            warn(
                "No candidate improved on the board, so none is kept; use the earlier model.",
                CausalFairWarning,
            )
            return
        self.best_index_ = best
        self.best_params_ = candidates[best]
        self.best_estimator_ = models[best]
        self.best_answer_: Answer = answers[best]


def _best_index(answers: Answers, mechanism: str, metric: str) -> int | None:
    if mechanism in CHOOSERS:
        return answers.winner
    if mechanism in LADDERS:
        improved = [i for i, answer in enumerate(answers) if answer.status == "improved"]
        return improved[-1] if improved else None
    sign = METRICS[find_metric(metric)[0]].sign
    values = np.array([sign * answer.value for answer in answers])
    return None if np.isnan(values).all() else int(np.nanargmin(values))


def _results(
    candidates: list[dict[str, Any]], training: FloatArray, answers: Answers
) -> dict[str, Any]:
    results: dict[str, Any] = {"params": candidates, "training_value": training}
    for name in ("value", "lower", "upper", "status"):
        results[name] = np.array([getattr(answer, name) for answer in answers])
    for key in sorted({key for params in candidates for key in params}):
        column = np.empty(len(candidates), dtype=object)
        column[:] = [params.get(key) for params in candidates]
        results[f"param_{key}"] = column
    return results
