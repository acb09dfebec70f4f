"""The reusable holdout."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from causalfair._core.logging import warn
from causalfair.adaptive import _evaluate, _open
from causalfair.adaptive._answer import Answer, Answers
from causalfair.adaptive._chain import Audit
from causalfair.adaptive._metrics import find_metric
from causalfair.adaptive._queries import Query, check_array
from causalfair.adaptive._session import exchange, refused
from causalfair.exceptions import DataError, ParameterError, UncertifiedWarning

__all__ = ["ReusableHoldout"]


class ReusableHoldout:
    """Holdout data that answer adaptively chosen questions with intervals that stay valid.

    A question is a function ``query(X, y)`` that returns one number a row in a declared range; its
    population mean is estimated. Each answer may depend on earlier ones. The interval of a
    certified mechanism covers, with probability at least ``1 - beta`` for *all* answers at once,
    provided that the rows are independent and the analyst (and every model) has seen them only
    through answers. Build with :meth:`create` or :meth:`open`; the object never shows its rows.

    Parameters
    ----------
    parts : object
        Made by :meth:`create` and :meth:`open`; not for use by hand.

    See Also
    --------
    causalfair.adaptive.bounds.recommend : Which mechanism to choose.
    HoldoutSearchCV : Model search on a reusable holdout.

    Notes
    -----
    Nothing here protects against reading the holdout file, the key in the ledger or process
    memory, nor against restoring an old copy of the ledger; note the head hash that
    :meth:`report` prints.

    References
    ----------
    .. [1] Dwork, Feldman, Hardt, Pitassi, Reingold and Roth (2015), The reusable holdout, Science
       349:636-638. doi:10.1126/science.aaa9375
    .. [2] Rogers et al. (2020), Guaranteed validity for empirical approaches to adaptive data
       analysis, AISTATS. arXiv:1906.09231

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.adaptive import ReusableHoldout
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(10_000, 3)), rng.integers(0, 2, 10_000)
    >>> holdout = ReusableHoldout.create(None, X, y, mechanism="gaussian", max_queries=100)
    >>> answer = holdout.ask(lambda X, y: (X[:, 0] > 0) == y)
    >>> round(answer.radius, 4), answer.certified, answer.remaining
    (0.1002, True, 99)
    """

    def __init__(self, parts: _open.Parts) -> None:
        self._parts = parts
        self._last_metric: str | None = None

    # ------------------------------------------------------------------------------ building
    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        X: Any,
        y: Any = None,
        *,
        mechanism: str = "guess_and_check",
        max_queries: int = 1000,
        beta: float = 0.05,
        width: float | None = None,
        groups: Any = None,
        train: tuple[Any, Any] | None = None,
        **params: Any,
    ) -> ReusableHoldout:
        """Seal a holdout and start its ledger.

        Parameters
        ----------
        path : path or None
            Ledger file to make. ``None`` keeps the ledger in memory: nothing survives the process.
        X : array or frame of shape (n, ...)
            Holdout rows.
        y : array of shape (n,), optional
            Their outcomes.
        mechanism : str, default "guess_and_check"
            One of ``naive``, ``split_rounds``, ``gaussian``, ``laplace``, ``thresholdout``,
            ``sparse_validate``, ``guess_and_check``, ``ladder``, ``ladder_free``,
            ``multiplicative_weights``, ``winner_only``, ``voting``, ``noisy_argmin``,
            ``stable_quantile``.
        max_queries : int, default 1000
            Questions the budget is planned for.
        beta : float, default 0.05
            Allowed probability that any interval misses.
        width : float, optional
            Radius to certify on queries with range one; refused where it cannot be reached.
        groups : array of shape (n,), optional
            Unit each row belongs to; a record is then a whole unit.
        train : (X, y), optional
            Training data: public, source of guesses, checked for rows shared with the holdout.
        **params
            Parameters of the mechanism, and: ``sample_weight`` (public weights), ``statistic``
            (gaussian only: ``"mean"``, or a metric that conditions on public counts, such as
            ``"auc"`` or ``"tpr_gap"`` with ``sensitive_features``, ``levels`` and ``positive`` as
            in :meth:`score`; its radius is then smaller), ``check_fraction`` and ``guess_sigma``
            (guess_and_check), ``levels`` (multiplicative_weights), ``records_per_group``
            (stable_quantile), ``seal`` (write the rows beside the ledger, default true),
            ``parent`` (an earlier ledger of the same rows; budgets add), ``force`` (build although
            the guarantee is vacuous), ``random_state`` with ``insecure_seed=True`` (predictable
            noise for simulations; answers are then not certified).

        Returns
        -------
        ReusableHoldout
            Ready to answer.

        Raises
        ------
        ParameterError
            A parameter is out of range or unknown.
        VacuousGuaranteeError
            The radius would be half the range or more, or above `width`.
        LedgerConflictError
            A ledger for the same rows exists already.
        """
        return cls(
            _open.create(
                None if path is None else Path(path),
                X,
                y,
                mechanism=mechanism,
                max_queries=max_queries,
                beta=beta,
                width=width,
                groups=groups,
                train=train,
                params=params,
            )
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        X: Any = None,
        y: Any = None,
        *,
        train: tuple[Any, Any] | None = None,
        groups: Any = None,
        sample_weight: Any = None,
    ) -> ReusableHoldout:
        """Continue with an existing ledger.

        Parameters
        ----------
        path : path
            Ledger file.
        X, y : array or frame, optional
            Holdout rows; by default the sealed file beside the ledger.
        train : (X, y), optional
            Training data for guesses, if the ledger was created with them.
        groups, sample_weight : array, optional
            As given to :meth:`create`; needed only together with `X`.

        Returns
        -------
        ReusableHoldout
            With whatever budget is left.

        Raises
        ------
        HoldoutChangedError
            The rows are not the ones the ledger was created for.
        LedgerError
            There is no ledger at `path`, or it cannot be read.
        """
        return cls(_open.reopen(Path(path), X, y, train, groups, sample_weight))

    # --------------------------------------------------------------------------------- asking
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

    # ----------------------------------------------------------------------- scikit-learn glue
    def scorer(self, metric: str = "accuracy", **options: Any) -> Any:
        """Scorer for scikit-learn: the released value on this holdout.

        Parameters
        ----------
        metric : str, default "accuracy"
            As in :meth:`score`. Losses are negated, as scikit-learn expects.
        **options
            As in :meth:`score`.

        Returns
        -------
        callable
            ``scorer(estimator, X, y)``; ignores X and y for the value and takes the training
            value from them as guess. Picklable when the ledger is a file with sealed rows.
        """
        from causalfair.adaptive._sklearn import HoldoutScorer

        find_metric(metric)
        return HoldoutScorer(self, metric, options)

    def cv(self) -> Any:
        """Splitter with one split (all rows, all rows): each candidate asks one question.

        Returns
        -------
        cross-validation splitter
            For ``GridSearchCV(est, grid, cv=holdout.cv(), scoring=holdout.scorer(...),
            error_score="raise")``.
        """
        from causalfair.adaptive._sklearn import WholeSampleSplit

        return WholeSampleSplit()

    # ---------------------------------------------------------------------------- information
    @property
    def n_records(self) -> int:
        """Number of independent records."""
        return self._parts.n_records

    @property
    def mechanism(self) -> str:
        """Name of the mechanism."""
        return self._parts.session.mechanism.name

    @property
    def radius(self) -> float:
        """Radius of a plain mean with range one."""
        return float(self._parts.session.mechanism.radius)

    @property
    def certified(self) -> bool:
        """Whether answers carry a proof."""
        return self._parts.session.certified

    @property
    def remaining(self) -> int:
        """Questions left."""
        state = self._parts.session.ledger.state()
        return 0 if state.halted else self._parts.session.mechanism.plan.k - state.k_used

    def report(self) -> Any:
        """Everything an appendix needs: settings, budget, radius, comparison, head hash.

        Returns
        -------
        Summary
            Prints as text and HTML.
        """
        from causalfair.adaptive._report import report

        return report(self._parts)

    def audit(self, expected_head: str | None = None) -> Audit:
        """Re-verify the hash chain, the counters and the budget arithmetic.

        Parameters
        ----------
        expected_head : str, optional
            Head hash noted earlier; shows whether the file was truncated or replaced since.

        Returns
        -------
        Audit
            True when nothing is wrong; prints the problems otherwise.
        """
        return self._parts.session.ledger.audit(expected_head)

    def export(self) -> dict[str, Any]:
        """Public part of the ledger as a mapping of plain values, ready for JSON.

        Returns
        -------
        dict
            ``meta``, ``state``, ``answers`` and ``head_hash``; never the key or the rows.
        """
        from causalfair.adaptive._report import export

        return export(self._parts)

    def to_frame(self, native: str | None = None) -> Any:
        """All answers so far, one row each.

        Parameters
        ----------
        native : str, optional
            Frame library; pandas by default.

        Returns
        -------
        DataFrame
            Columns query_id, value, lower, upper, radius, status, certified, query_index.
        """
        from causalfair.adaptive._report import history

        return Answers(history(self._parts)).to_frame(native)

    def plot(self, kind: str = "answers", ax: Any = None) -> Any:
        """Draw the answers, the budget, or width against the number of queries.

        Parameters
        ----------
        kind : {"answers", "budget", "width"}, default "answers"
            What to draw.
        ax : matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from causalfair.adaptive._plots import plot

        return plot(self._parts, kind, ax)

    def cite(self) -> Any:
        """Works to cite.

        Returns
        -------
        Citations
            Prints as text; ``bibtex()`` for a bibliography.
        """
        from causalfair.reporting import Citations

        keys = ("dwork2015reusable", *self._parts.session.mechanism.citations)
        return Citations(tuple(dict.fromkeys(keys)))

    def reveal_key(self) -> str:
        """Close the ledger and reveal its key, so that others can recompute every answer.

        Returns
        -------
        str
            Key in hexadecimal; its SHA-256 is the commitment printed in every report. No further
            question is answered.
        """
        with self._parts.session.ledger.transaction() as transaction:
            transaction.close("its key was revealed")
        return self._parts.session.ledger.key().hex()

    # ------------------------------------------------------------- never yields what it holds
    def __repr__(self) -> str:
        session = self._parts.session
        used = session.ledger.state().k_used
        where = "in memory" if session.ledger.path is None else str(session.ledger.path.name)
        radius = "none" if not math.isfinite(self.radius) else f"{self.radius:.4f}"
        return (
            f"ReusableHoldout({self.mechanism}, n={self.n_records}, {used} of "
            f"{session.mechanism.plan.k} queries used, radius {radius}, {where})"
        )

    def _repr_html_(self) -> str:
        return str(self.report()._repr_html_())

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

    def __copy__(self) -> ReusableHoldout:
        return self

    def __deepcopy__(self, memo: object) -> ReusableHoldout:
        return self

    def __sklearn_clone__(self) -> ReusableHoldout:
        return self

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        ledger = self._parts.session.ledger
        if ledger.path is None or not self._parts.sealed_file:
            raise TypeError(
                "This holdout cannot be sent to another process: its rows would travel with it. "
                "Create it with a path (and seal=True), so that workers open the ledger."
            )
        return _reopen, (str(ledger.path.resolve()), self._parts.train)


def _reopen(path: str, train: tuple[Any, Any] | None) -> ReusableHoldout:
    return ReusableHoldout.open(path, train=train)


def _model_id(model: Any, metric: str, options: dict[str, Any]) -> str | None:
    """Hash of the public description of a model; ``None`` when it cannot be pickled."""
    try:
        content = pickle.dumps((model, metric, sorted(options.items())), protocol=4)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return f"{metric}-{hashlib.sha256(content).hexdigest()[:24]}"
