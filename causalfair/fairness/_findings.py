"""What a fitted audit can be asked beyond its gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.utils.validation import check_is_fitted

from causalfair._core.validation import check_level
from causalfair.exceptions import ParameterError
from causalfair.fairness._diagnostics import diagnostic_rows
from causalfair.fairness._results import AuditTable

if TYPE_CHECKING:
    from causalfair._core.typing import ArrayLike, FloatArray
    from causalfair.fairness._inference import Audit, JointCovariance


class AuditFindings:
    """Comparison, tests, diagnostics, sensitivity, bounds and report of a fitted audit."""

    _audit: Audit
    _law: JointCovariance
    proxy_names_: tuple[str, ...]
    prevalence: Any

    def _proxy_position(self, proxy: int | str) -> int:
        raise NotImplementedError

    def compare(self, metric: str = "demographic_parity", *, level: float = 0.95) -> AuditTable:
        """Direct, weighted, global, partial, local estimates and bounds side by side.

        Parameters
        ----------
        metric : str, default "demographic_parity"
            Name of a metric, as in :meth:`disparity`.
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        AuditTable
            A comparison that cannot be made is nan, with its reason.
        """
        from causalfair.fairness._compare import comparison

        check_is_fitted(self)
        check_level(level)
        return comparison(self._audit, self._law, metric, self.proxy_names_, level)

    def fit_tests(self) -> AuditTable:
        """Tests of the assumptions that can be tested.

        Returns
        -------
        AuditTable
            G², Pearson X² (with a parametric bootstrap where cells are thin); global against
            partial and local error rates; tied against free; residuals of pairs of proxies; with
            four or more proxies, each left out in turn; supplied shares. ``extra`` holds the test
            objects.
        """
        from causalfair.fairness._reports import fit_test_table

        check_is_fitted(self)
        return fit_test_table(self._audit, self.proxy_names_, self.prevalence)

    def diagnostics(self) -> AuditTable:
        """Conditioning of the fit: how informative the proxies are, modes, boundary, labels.

        Returns
        -------
        AuditTable
            One quantity a row, with how to read it.
        """
        import pandas as pd

        check_is_fitted(self)
        rows = diagnostic_rows(self._audit.model, self.proxy_names_)
        frame = pd.DataFrame(rows, columns=["quantity", "value", "reading"])
        return AuditTable("Conditioning of the fit", frame)

    def sensitivity(
        self,
        kind: str = "decision",
        *,
        gamma: ArrayLike = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0),
        proxy: int | str = 0,
        decision: int | None = None,
        level: float = 0.95,
    ) -> AuditTable:
        """How far the gap moves when an independence is relaxed by a stated amount.

        Parameters
        ----------
        kind : {"decision", "proxies"}, default "decision"
            "decision": error rates may differ by up to ``gamma`` between decisions (linear
            programme). "proxies": a pair of binary proxies may be correlated within groups.
        gamma : float or sequence of float
            Amounts, for ``kind="decision"``.
        proxy : int or str, default 0
            The proxy relied on, for ``kind="decision"``.
        decision : int, optional
            The decision whose rate is compared; the last by default.
        level : float, default 0.95
            Level of the intervals for the gap inside the range, which carry the uncertainty of
            shares and error rates; for ``kind="decision"``.

        Returns
        -------
        AuditTable
            With the break-even amount in the notes; ``plot()`` draws the curve.
        """
        from causalfair.fairness._sensitivity_tables import sensitivity_table

        check_is_fitted(self)
        check_level(level)
        j = self._proxy_position(proxy)
        return sensitivity_table(self._audit, self.proxy_names_, kind, gamma, j, decision, level)

    def bounds(self, metric: str = "demographic_parity", *, level: float = 0.95) -> AuditTable:
        """Frechet bounds: what follows from P(group | proxies) with no independence of decisions.

        Parameters
        ----------
        metric : {"demographic_parity", "equalized_odds", "equal_opportunity"}
            Name of a metric, as in :meth:`disparity`.
        level : float, default 0.95
            Level of the interval for the parameter inside the bounds (Imbens-Manski).

        Returns
        -------
        AuditTable
            Bounds and intervals of every gap.
        """
        from causalfair.fairness._reports import bounds_table

        check_is_fitted(self)
        check_level(level)
        return bounds_table(self._audit, metric, level)

    def report(self, level: float = 0.95) -> Any:
        """Everything an auditor should read: gaps, comparison, tests, conditioning and limits.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        causalfair.reporting.Summary
            Text, HTML and LaTeX of the audit.
        """
        from causalfair.fairness._reports import full_report

        check_is_fitted(self)
        return full_report(self, level)

    def posterior(
        self,
        X: ArrayLike,
        y_pred: ArrayLike | None = None,
        y_true: ArrayLike | None = None,
        *,
        allow_individual: bool = False,
    ) -> FloatArray:
        """P(group | proxies, decision, label) of single rows; off unless asked for explicitly.

        These are not labels: used as the sensitive feature of another tool they bring back the bias
        the method removes, and they may reveal what people chose not to tell.

        Parameters
        ----------
        X : (n, m) int array
            Proxies, as in the fit.
        y_pred, y_true : (n,) int arrays, optional
            Decisions and labels to condition on.
        allow_individual : bool, default False
            Must be True.

        Returns
        -------
        (n, K) array
            Probabilities that sum to one in each row.

        Raises
        ------
        ParameterError
            ``allow_individual`` is not True.
        """
        from causalfair.fairness._reports import row_posterior

        check_is_fitted(self)
        if not allow_individual:
            raise ParameterError(
                "posterior() guesses the group of single people and is off by default. Group gaps "
                "do not need it: use disparity(). Pass allow_individual=True if you must."
            )
        return row_posterior(self._audit, len(self.proxy_names_), X, y_pred, y_true)
