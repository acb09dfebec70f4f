"""The reusable holdout."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from causalfair.adaptive import _open
from causalfair.adaptive._answer import Answers
from causalfair.adaptive._asking import Asking
from causalfair.adaptive._chain import Audit
from causalfair.adaptive._metrics import find_metric

__all__ = ["ReusableHoldout"]


class ReusableHoldout(Asking):
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
            ``multiplicative_weights``, ``winner_only``, ``voting``, ``calibrated_variance``,
            ``noisy_argmin``, ``stable_quantile``.
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
