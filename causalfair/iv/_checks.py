"""Strength of identification, diagnostics, tests and sensitivity, from stored scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_level
from causalfair.exceptions import ParameterError
from causalfair.inference import Estimates
from causalfair.iv import _scores as scores
from causalfair.iv._diagnostics import leverage_rows, overlap_summary
from causalfair.iv._lines import sensitivity_line
from causalfair.iv._record import IVRecord
from causalfair.iv._reports import (
    ExclusionTests,
    LeverageReport,
    OverlapReport,
    RelevanceReport,
    SensitivityReport,
)
from causalfair.iv._scores import IVNuisances, Scores
from causalfair.iv._sensitivity import (
    correlation_scale,
    covariance_slope_scores,
    modification_slope_scores,
    score_slope,
)
from causalfair.iv._weak import Relevance, ratio_moments, relevance, robust_set

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CheckMethods"]


class CheckMethods:
    """Diagnostics and tests of the estimators for one binary instrument."""

    _rows: IVRecord
    estimates_: Any

    def constant_effect(self) -> Estimates:
        """Variance-weighted effect; equals the average effect when the effect is constant.

        Returns
        -------
        Estimates
            Term ``"constant effect"``. It never divides by the variance shift of single rows, and
            :meth:`robust_set` is its weak-identification-robust confidence set.
        """
        check_is_fitted(self)
        moments = self._ratio_moments()
        return moments.transform(lambda m: m[:1] / m[1:], ["constant effect"])

    def robust_set(self, level: float = 0.95) -> list[tuple[float, float]]:
        """Confidence set for a constant effect that holds however weak the identification.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        list of (low, high)
            An interval; two half-lines; or the whole line when the data cannot tell.
        """
        check_is_fitted(self)
        check_level(level)
        moments = self._ratio_moments()
        u, v = (float(x) for x in moments.estimate)
        return robust_set(u, v, moments.vcov, moments.critical_value(level))

    def relevance(self) -> RelevanceReport:
        """How strongly the instrument shifts the variance of the treatment.

        Returns
        -------
        RelevanceReport
            ``f_het`` (chi-squared with 1 df under no shift), ``verdict``, ``to_frame()``.
        """
        check_is_fitted(self)
        return RelevanceReport(self._relevance())

    def overlap(self) -> OverlapReport:
        """Overlap of the arms of the instrument and balance of the covariates.

        Returns
        -------
        OverlapReport
            Ranges, clipped share, effective sizes, standardised differences.
        """
        import pandas as pd

        check_is_fitted(self)
        rows = self._rows
        names, before, after = rows.balance
        balance = pd.DataFrame({"covariate": list(names), "before": before, "after": after})
        nu = rows.nuisances[rows.typical()]
        return OverlapReport(overlap_summary(rows.z, nu, rows.weight), balance)

    def leverage(self, top: int = 5) -> LeverageReport:
        """Rows that own the variance of the average effect.

        Parameters
        ----------
        top : int, default 5
            How many rows.

        Returns
        -------
        LeverageReport
            ``rows``, ``total_share``.
        """
        import pandas as pd

        check_is_fitted(self)
        rows, k = self._rows, self._rows.typical()
        found = leverage_rows(rows.z, rows.nuisances[k], rows.phi[k], rows.weight, top)
        columns = {
            "row": found.row,
            "share": found.share,
            "influence": found.influence,
            "factor": found.factor,
            "ate_without": found.leave_out,
            "instrument": rows.z[found.row],
            "treatment": rows.a[found.row],
            "outcome": rows.y[found.row],
        }
        return LeverageReport(pd.DataFrame(columns))

    def exclusion_tests(self) -> ExclusionTests:
        """Test the exclusion restriction in two ways.

        Returns
        -------
        ExclusionTests
            The direct effect, and the difference from the average effect that a valid instrument
            would give, each with its p-value.
        """
        check_is_fitted(self)
        rows = self._rows
        hausman = rows.over_repeats(self._hausman)
        caution = "Both tests rest on the model of the average effect: see summary()."
        if rows.constant_arm is not None:
            caution = (
                "With one-sided non-compliance the average effect rests on no unmeasured "
                "confounding in the arm with a choice; a rejection says that this or the exclusion "
                "restriction fails, not which."
            )
        return ExclusionTests(
            Estimates.concat([self.estimates_["direct effect"], hausman]), caution
        )

    def sensitivity(
        self,
        delta: Any = None,
        *,
        kind: Literal["covariance", "modification"] = "covariance",
        level: float = 0.95,
    ) -> SensitivityReport:
        """Average effect when a no-interaction condition fails by a given amount.

        Parameters
        ----------
        delta : float or array of shape (m,), optional
            Violations to evaluate; by default a grid that reaches both breakdown values.
        kind : {"covariance", "modification"}, default "covariance"
            ``"covariance"``: the confounding covariance differs by ``delta`` between the arms of
            the instrument. ``"modification"`` (binary treatment): unmeasured causes that modify the
            effect have covariance ``delta`` with the treatment.
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        SensitivityReport
            ``frame``, ``breakdown``, ``plot()``.
        """
        check_is_fitted(self)
        check_level(level)
        if kind not in ("covariance", "modification"):
            raise ParameterError(
                f"sensitivity got kind={kind!r}; use 'covariance' or 'modification'."
            )
        if kind == "modification":
            _needs_binary_treatment(self._rows)
        rows = self._rows
        k = rows.typical()
        scale = float("nan")
        if kind == "covariance":
            scale = correlation_scale(rows.z, rows.a, rows.y, rows.nuisances[k], rows.weight)
        joint = Estimates.concat([self.estimates_["ATE"], self._slope(kind)])
        return sensitivity_line(joint, kind=kind, delta=delta, level=level, scale=scale)

    def comparators(self, level: float = 0.95) -> pd.DataFrame:
        """Other estimators on the same rows, beside the average effect.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        pandas.DataFrame
            ``term, rests_on, estimate, std_error, conf_low, conf_high``; the first row is this
            estimator.
        """
        import pandas as pd

        check_is_fitted(self)
        rows = self._rows
        parts = [("ATE", "see summary()", self.estimates_["ATE"])]
        valid = rows.over_repeats(
            lambda nu, _: scores.score_valid_instrument(rows.z, rows.a, rows.y, nu, rows.weight)[0]
        )
        parts.append(("valid-instrument ATE", "exclusion restriction", valid))
        parts += rows.comparators
        lines = []
        for name, rests_on, estimate in parts:
            low, high = estimate.conf_int(level)[0]
            lines.append(
                (name, rests_on, float(estimate.estimate[0]), float(estimate.std_error[0]),
                 float(low), float(high))
            )  # fmt: skip
        columns = ["term", "rests_on", "estimate", "std_error", "conf_low", "conf_high"]
        return pd.DataFrame(lines, columns=columns)

    # Plots -------------------------------------------------------------------------------------

    def plot_sensitivity(self, *, ax: Any = None, **kwargs: Any) -> Any:
        """Plot :meth:`sensitivity`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.
        **kwargs
            As for :meth:`sensitivity`.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        return self.sensitivity(**kwargs).plot(ax=ax)

    def plot_overlap(self, *, ax: Any = None) -> Any:
        """Histogram of the probability of the instrument in its two arms.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.reporting import overlap_plot

        check_is_fitted(self)
        nu = self._rows.nuisances[self._rows.typical()]
        axes = overlap_plot(nu.pi, self._rows.z, ax=ax)
        axes.set_xlabel("P(instrument = 1 | covariates)")
        for text in axes.get_legend().get_texts():
            label = text.get_text().replace("untreated", "instrument = 0")
            text.set_text(label.replace("treated", "instrument = 1"))
        return axes

    def _ratio_moments(self) -> Estimates:
        rows = self._rows

        def moments(nu: IVNuisances, _: FloatArray) -> Scores:
            found = ratio_moments(rows.z, rows.a, rows.y, nu)
            stacked = np.column_stack([found.u, found.v])
            mean = scores.weighted_mean(stacked, rows.weight)
            return Scores(("u", "v"), mean, stacked - mean)

        return rows.over_repeats(moments)

    def _relevance(self) -> Relevance:
        rows, k = self._rows, self._rows.typical()
        nu = rows.nuisances[k]
        v = ratio_moments(rows.z, rows.a, rows.y, nu).v
        mean = scores.weighted_mean(v, rows.weight)
        spread = rows.estimates([Scores(("v",), mean[None], (v - mean)[:, None])])
        return relevance(
            rows.z, rows.a, nu, v=v, v_variance=float(spread.vcov[0, 0]), weight=rows.weight
        )

    def _hausman(self, nu: IVNuisances, phi: FloatArray) -> Scores:
        rows = self._rows
        valid, _ = scores.score_valid_instrument(rows.z, rows.a, rows.y, nu, rows.weight)
        ate = scores.score_ate(phi, rows.weight)
        return Scores(
            ("valid-instrument ATE - ATE",),
            valid.estimate - ate.estimate,
            valid.influence - ate.influence,
        )

    def _slope(self, kind: str) -> Estimates:
        rows = self._rows
        name = f"{kind} slope"
        if name in rows.targets:
            return rows.targets[name].with_names(["slope"])
        if kind == "covariance":
            return rows.over_repeats(
                lambda nu, _: score_slope(
                    covariance_slope_scores(rows.z, rows.a, nu), -1.0, rows.weight
                )
            )
        return rows.over_repeats(
            lambda nu, _: score_slope(
                modification_slope_scores(rows.z, rows.a, nu), 1.0, rows.weight
            )
        )


def _needs_binary_treatment(rows: IVRecord) -> None:
    if not rows.nuisances[0].binary_treatment:
        raise ParameterError(
            "sensitivity(kind='modification') is for a binary treatment; this one is continuous. "
            "Use kind='covariance'."
        )
