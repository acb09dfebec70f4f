"""Asking a holdout, and refusing to show it."""

from __future__ import annotations

import hashlib
import pickle
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import numpy as np

from causalfair._core.logging import warn
from causalfair.adaptive import _evaluate, _open
from causalfair.adaptive._answer import Answer, Answers
from causalfair.adaptive._metrics import find_metric
from causalfair.adaptive._queries import Query, check_array
from causalfair.adaptive._session import exchange, refused
from causalfair.exceptions import DataError, ParameterError, UncertifiedWarning


class Hidden:
    """An object that holds rows and yields none of them; copies are the object itself."""

    def _hidden(self, what: str) -> NoReturn:
        raise TypeError(
            f"A ReusableHoldout never shows its rows ({what}); ask a question with "
            "ask, ask_many or score."
        )

    def __getitem__(self, key: object) -> NoReturn:
        self._hidden("indexing")

    def __iter__(self) -> NoReturn:
        self._hidden("iteration")

    def __array__(self, dtype: object = None, copy: object = None) -> NoReturn:
        self._hidden("conversion to an array")

    def fit(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: fitting on a holdout would end its use.

        Parameters
        ----------
        *args, **kwargs
            Ignored.
        """
        del args, kwargs
        self._hidden("fitting")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __sklearn_clone__(self) -> Self:
        return self


class Asking(Hidden):
    """The questions a holdout takes."""

    _parts: _open.Parts

    def ask(
        self,
        query: Callable[..., Any] | Any,
        *,
        lo: float = 0,
        hi: float = 1,
        guess: float | None = None,
        query_id: str | None = None,
    ) -> Answer:
        """Ask for the population mean of a query.

        Parameters
        ----------
        query : callable or array of shape (n,)
            ``query(X, y)`` (``query(X)`` without outcomes) returning one number a row; it must
            treat rows one by one. Values outside [lo, hi] are clipped, and missing ones become lo.
        lo, hi : float, default 0 and 1
            Declared range.
        guess : float, optional
            Public guess of the answer; by default the mean over the training data.
        query_id : str, optional
            Name of the question. Asking again under the same name returns the stored answer free,
            also after a crash. Never derive it from holdout values.

        Returns
        -------
        Answer
            Released value, interval, and what is left.

        Raises
        ------
        BudgetExhaustedError
            The budget is spent.
        DataError
            The query does not return one number a row.
        """
        check_array(query, self._parts.n_answers)
        question = Query(query, lo, hi, guess)
        answers = self._ask([question], None if query_id is None else [query_id])
        return answers[0]

    def ask_many(
        self,
        queries: Sequence[Any] | Any,
        *,
        lo: float = 0,
        hi: float = 1,
        guesses: Sequence[float] | None = None,
        query_id: str | None = None,
        query_ids: Sequence[str] | None = None,
    ) -> Answers:
        """Ask several questions at once: one round, one transaction, all or nothing.

        Parameters
        ----------
        queries : sequence of callables or arrays, or array of shape (n, q)
            Questions chosen before any of these answers is seen.
        lo, hi : float, default 0 and 1
            Range of all of them.
        guesses : sequence of float, optional
            One public guess a question.
        query_id : str, optional
            One name for the whole batch.
        query_ids : sequence of str, optional
            One name a question.

        Returns
        -------
        Answers
            In the order of the questions. Where a budget ends inside the batch the remaining
            answers have status ``refused``.

        Raises
        ------
        BudgetExhaustedError
            The batch does not fit into the budget; nothing was spent.
        """
        if isinstance(queries, np.ndarray) and queries.ndim == 2:
            return self._ask_matrix(queries, lo, hi, guesses, query_id)
        questions = []
        for j, query in enumerate(queries):
            check_array(query, self._parts.n_answers)
            questions.append(Query(query, lo, hi, None if guesses is None else float(guesses[j])))
        if not questions:
            raise ParameterError("queries must hold at least 1 question. Got none.")
        if guesses is not None and len(guesses) != len(questions):
            raise ParameterError(
                f"guesses must hold one number a query: expected "
                f"{len(questions)}. Got {len(guesses)}."
            )
        if query_ids is not None and len(set(query_ids)) != len(questions):
            raise ParameterError(
                f"query_ids must hold {len(questions)} different names. Got {len(set(query_ids))}."
            )
        return Answers(self._ask(questions, query_ids, batch_id=query_id))

    def score(
        self,
        model: Any,
        metric: str = "accuracy",
        *,
        guess: float | None = None,
        query_id: str | None = None,
        **options: Any,
    ) -> Answer:
        """Ask for a metric of a fitted model.

        Parameters
        ----------
        model : fitted estimator
            Anything with ``predict`` (or ``predict_proba``) that was not trained on these rows.
        metric : str, default "accuracy"
            ``accuracy``, ``error``, ``brier``, ``log_loss``, ``squared_error``,
            ``absolute_error``, ``auc``, ``tpr``, ``fpr``, ``selection_rate``, and the group
            differences ``accuracy_gap``, ``tpr_gap``, ``fpr_gap``, ``selection_rate_gap``.
        guess : float, optional
            Public guess; by default the metric on the training data.
        query_id : str, optional
            Name of the question; by default a hash of the pickled model and the metric.
        **options
            ``hi``: upper end of an unbounded loss. ``positive``: label that counts as positive
            (default: the largest). ``sensitive_features``: column of X, or function of X, with
            group labels; ``levels``: the two groups to compare, first minus second.

        Returns
        -------
        Answer
            Released value and interval.

        Raises
        ------
        ParameterError
            The metric is unknown, or its range or groups were not declared.
        """
        question = self._model_query(model, metric, guess, options)
        name = query_id if query_id is not None else _model_id(model, metric, options)
        return self._ask([question], None if name is None else [name])[0]

    def score_many(
        self,
        models: Sequence[Any],
        metric: str = "accuracy",
        *,
        query_id: str | None = None,
        **options: Any,
    ) -> Answers:
        """Ask for one metric of several fitted models in one batch.

        Parameters
        ----------
        models : sequence of fitted estimators
            Candidates chosen before any of these answers is seen.
        metric : str, default "accuracy"
            As in :meth:`score`.
        query_id : str, optional
            Name of the batch.
        **options
            As in :meth:`score`.

        Returns
        -------
        Answers
            In the order of the models.
        """
        questions = [self._model_query(model, metric, None, dict(options)) for model in models]
        if not questions:
            raise ParameterError("models must hold at least 1 model. Got none.")
        return Answers(self._ask(questions, None, batch_id=query_id))

    def _model_query(
        self, model: Any, metric: str, guess: float | None, options: dict[str, Any]
    ) -> Query:
        name, kind = find_metric(metric)
        source, lo, hi = _evaluate.model_metric(self._parts, model, name, kind, options)
        return Query(source, lo, hi, guess, kind=name, loss_sign=kind.sign)

    def _ask(
        self, questions: Sequence[Query], ids: Sequence[str] | None, *, batch_id: str | None = None
    ) -> list[Answer]:
        self._note_second_query(len(questions))
        as_one = ids is None
        names = list(ids) if ids is not None else [batch_id or f"q-{uuid.uuid4().hex[:16]}"]
        for name in names:
            if not isinstance(name, str) or not name:
                raise ParameterError(f"query_id must be a non-empty string. Got {name!r}.")
        first = questions[0]
        public = {
            "kind": first.kind,
            "lo": float(first.lo),
            "hi": float(first.hi),
            "count": len(questions) if as_one else 1,
        }
        answers = exchange(
            self._parts.session,
            names,
            public,
            lambda part: _evaluate.batch_of(self._parts, questions, part),
            as_one=as_one,
        )
        refused(answers, self._parts.session)
        return answers

    def _ask_matrix(
        self, values: Any, lo: float, hi: float, guesses: Any, query_id: str | None
    ) -> Answers:
        if len(values) != self._parts.n_answers or values.dtype.kind not in "biuf":
            raise DataError(
                f"queries must have one row a holdout row: expected ({self._parts.n_answers}, q) "
                f"numbers, got shape {values.shape} of dtype {values.dtype}."
            )
        Query(None, lo, hi)  # checks the range
        return self._exchange_columns(
            lambda part: _evaluate.matrix_batch(self._parts, values, lo, hi, guesses, part),
            values.shape[1],
            lo,
            hi,
            query_id,
        )

    def _exchange_columns(
        self,
        batch_of: Callable[[str], Any],
        count: int,
        lo: float,
        hi: float,
        query_id: str | None,
        kind: str = "mean",
    ) -> Answers:
        """One batch whose empirical values are computed together."""
        self._note_second_query(count)
        public = {"kind": kind, "lo": float(lo), "hi": float(hi), "count": count}
        names = [query_id or f"q-{uuid.uuid4().hex[:16]}"]
        return Answers(exchange(self._parts.session, names, public, batch_of, as_one=True))

    def _note_second_query(self, count: int) -> None:
        session = self._parts.session
        if (
            session.mechanism.name == "naive"
            and not session.mechanism.certified
            and (session.ledger.state().k_used + count > 1 and not self._parts.warned)
        ):
            self._parts.warned = True
            warn(
                "mechanism='naive' returns exact values: its intervals hold for one question "
                "chosen in advance, not for adaptive ones. Use another mechanism, or "
                "nonadaptive=True if every question was fixed beforehand.",
                UncertifiedWarning,
            )


def _model_id(model: Any, metric: str, options: dict[str, Any]) -> str | None:
    """Hash of the public description of a model; ``None`` when it cannot be pickled."""
    try:
        content = pickle.dumps((model, metric, sorted(options.items())), protocol=4)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return f"{metric}-{hashlib.sha256(content).hexdigest()[:24]}"
