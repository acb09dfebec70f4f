"""What the post-estimation methods return: small objects that print and plot themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causalfair._core.optional import import_optional
from causalfair._core.typing import FloatArray
from causalfair.inference import Estimates
from causalfair.iv._diagnostics import OverlapSummary
from causalfair.iv._sensitivity import Breakdown
from causalfair.iv._weak import Relevance
from causalfair.reporting import Summary, Table, format_number

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CateBand",
    "ExclusionTests",
    "LeverageReport",
    "OverlapReport",
    "RelevanceReport",
    "SensitivityReport",
]


def number(x: float, digits: int = 3) -> str:
    """Number with ``digits`` significant digits, thousands separated."""
    return format_number(x, significant=digits)


class _Report:
    """Prints its summary; in a notebook shows it as HTML."""

    def summary(self) -> Summary:
        """Summary that prints as text, HTML, LaTeX or Markdown."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())


@dataclass(frozen=True, repr=False)
class RelevanceReport(_Report):
    """Strength of identification: how much the instrument shifts the treatment's variance.

    Attributes
    ----------
    statistics : Relevance
        All numbers.
    """

    statistics: Relevance

    @property
    def f_het(self) -> float:
        """Statistic for "no variance shift", chi-squared with one degree of freedom."""
        return self.statistics.f_het

    @property
    def p_value(self) -> float:
        """p-value of ``f_het``."""
        return self.statistics.p_value

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.f_het < 4.0:
            return "No detectable variance shift: the estimate is no answer. Use robust_set()."
        if self.f_het < 10.0:
            return "Weak: normal intervals are unreliable. Report robust_set()."
        return "Strong enough for normal intervals."

    def to_frame(self) -> pd.DataFrame:
        """Table of all statistics, columns ``statistic, value``."""
        import pandas as pd

        return pd.DataFrame(self._rows(), columns=["statistic", "value"])

    def _rows(self) -> list[tuple[str, float]]:
        s = self.statistics
        rows = [
            ("F_het (no variance shift)", s.f_het),
            ("  p-value", s.p_value),
            ("Breusch-Pagan, studentised", s.breusch_pagan),
            ("  p-value", s.breusch_pagan_p),
            ("First-stage F (not what identifies)", s.first_stage_f),
            ("Var(A|Z=0,X), mean", s.variance0),
            ("Var(A|Z=1,X), mean", s.variance1),
        ]
        if s.binary_treatment:
            rows += [
                ("E[A|Z=0,X], mean", s.lam0),
                ("E[A|Z=1,X], mean", s.lam1),
                ("  their sum (fails at 1)", s.lam0 + s.lam1),
            ]
        labels = ("minimum", "5 %", "25 %", "median", "75 %", "95 %", "maximum")
        for i in (0, 1, 3, 6):
            rows.append((f"|D(X)|, {labels[i]}", s.shift_quantiles[i]))
        rows += [
            ("Share of rows with D(X) of the other sign", s.share_opposite),
            ("Share of rows with |D(X)| raised to the floor", s.share_floored),
        ]
        return rows

    def summary(self) -> Summary:
        """Summary that prints as text, HTML, LaTeX or Markdown."""
        table = Table(["", "value"], [[name, number(value)] for name, value in self._rows()])
        return Summary("Relevance: strength of the variance shift", [], [table], [self.verdict])


@dataclass(frozen=True, repr=False)
class OverlapReport(_Report):
    """Overlap of the arms of the instrument, and balance of the covariates.

    Attributes
    ----------
    statistics : OverlapSummary
        Range of the probabilities, clipped share, effective sizes.
    balance : pandas.DataFrame
        ``covariate, before, after``: standardised mean differences between arms, without and with
        inverse-probability weights. Empty without covariates.
    """

    statistics: OverlapSummary
    balance: pd.DataFrame

    def summary(self) -> Summary:
        """Summary that prints as text, HTML, LaTeX or Markdown."""
        s = self.statistics
        q = s.pi_quantiles
        rows = [
            ["P(Z=1|X): minimum, median, maximum", ", ".join(number(q[i]) for i in (0, 3, 6))],
            ["Share clipped", number(s.share_clipped)],
            ["Rows with Z=0, effective after weighting", f"{s.n0:,}, {s.effective0:,.0f}"],
            ["Rows with Z=1, effective after weighting", f"{s.n1:,}, {s.effective1:,.0f}"],
            ["Largest factor 1/(f |D|)", number(s.largest_weight)],
        ]
        tables = [Table(["", "value"], rows)]
        if len(self.balance):
            lines = [
                [str(name), f"{before:.3f}", f"{after:.3f}"]
                for name, before, after in self.balance.itertuples(index=False)
            ]
            tables.append(
                Table(["covariate", "before", "after"], lines, title="Standardised differences")
            )
        return Summary("Overlap of the instrument", [], tables, [])


@dataclass(frozen=True, repr=False)
class LeverageReport(_Report):
    """The rows that own the variance of the average effect.

    Attributes
    ----------
    rows : pandas.DataFrame
        ``row`` (from 0), ``share`` of the variance, ``influence`` (phi - ATE), ``factor``
        (1/(f |D|)), ``ate_without`` and the row's ``instrument, treatment, outcome``.
    """

    rows: pd.DataFrame

    @property
    def total_share(self) -> float:
        """Share of the variance these rows own together."""
        return float(self.rows["share"].sum())

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table."""
        return self.rows.copy()

    def summary(self) -> Summary:
        """Summary that prints as text, HTML, LaTeX or Markdown."""
        cells = ["influence", "factor", "ate_without", "instrument", "treatment", "outcome"]
        lines = [
            [f"{int(r['row']):,}", f"{r['share']:.1%}", *(number(float(r[c])) for c in cells)]
            for r in self.rows.to_dict("records")
        ]
        columns = ["row", "share", "phi - ATE", "1/(f|D|)", "ATE without", "Z", "A", "Y"]
        note = (
            f"These {len(self.rows)} rows own {self.total_share:.0%} of the variance of the "
            "average effect; 'ATE without' leaves the models as fitted."
        )
        return Summary("Leverage", [], [Table(columns, lines)], [note])


@dataclass(frozen=True, repr=False)
class ExclusionTests(_Report):
    """Two tests of the exclusion restriction.

    Attributes
    ----------
    estimates : Estimates
        ``"direct effect"``: zero under exclusion. ``"valid-instrument ATE - ATE"``: zero when the
        instrument is valid (Hausman type).
    caution : str
        What the tests rest on.
    """

    estimates: Estimates
    caution: str

    def to_frame(self, level: float = 0.95) -> Any:
        """Tidy table of the two tests."""
        return self.estimates.to_frame(level)

    def summary(self) -> Summary:
        """Summary that prints as text, HTML, LaTeX or Markdown."""
        from causalfair.reporting import estimates_table

        table = estimates_table(self.estimates, 0.95)
        return Summary("Is the exclusion restriction refuted?", [], [table], [self.caution])


@dataclass(frozen=True, repr=False)
class SensitivityReport(_Report):
    """Average effect as a function of a violation of the no-interaction conditions.

    Attributes
    ----------
    kind : {"covariance", "modification"}
        Which condition is violated.
    frame : pandas.DataFrame
        ``delta, correlation, estimate, std_error, conf_low, conf_high``.
    breakdown : Breakdown
        Values of delta at which the estimate, and the confidence interval, reach zero.
    scale : float
        Covariance that a correlation of one amounts to (``nan`` for ``"modification"``).
    level : float
        Confidence level.
    """

    kind: str
    frame: pd.DataFrame
    breakdown: Breakdown
    scale: float
    level: float

    def to_frame(self) -> pd.DataFrame:
        """The line as a table."""
        return self.frame.copy()

    def summary(self) -> Summary:
        """Summary that prints as text, HTML, LaTeX or Markdown."""
        meaning = {
            "covariance": "delta = omega_1 - omega_0, change of the confounding covariance with Z",
            "modification": "delta = Cov(effect, treatment | X) through unmeasured causes",
        }[self.kind]
        shown = self.frame.iloc[:: max(1, (len(self.frame) - 1) // 8)]
        columns = ["delta", "ATE", "conf. low", "conf. high"]
        cells = ["delta", "estimate", "conf_low", "conf_high"]
        with_rho = self.kind == "covariance"
        if with_rho:
            columns.insert(1, "correlation")
            cells.insert(1, "correlation")
        lines = [[number(float(row[cell])) for cell in cells] for _, row in shown.iterrows()]
        notes = [
            f"Here {meaning}.",
            f"The estimate is zero at delta = {number(self.breakdown.zero)}{self._rho('zero')}; "
            f"the {self.level:.0%} interval first covers zero at delta = "
            f"{number(self.breakdown.interval)}{self._rho('interval')}.",
        ]
        title = "Sensitivity to an unmeasured interaction"
        return Summary(title, [], [Table(columns, lines)], notes)

    def _rho(self, which: str) -> str:
        if self.kind != "covariance":
            return ""
        return f" (correlation {number(getattr(self.breakdown, which) / self.scale)})"

    def plot(self, *, ax: Any = None) -> Any:
        """Line of the average effect with its interval, and the breakdown values.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        plt = import_optional("matplotlib.pyplot", extra="plot")
        ax = plt.subplots(figsize=(6.0, 3.8), layout="constrained")[1] if ax is None else ax
        x = self.frame["delta"]
        ax.fill_between(x, self.frame["conf_low"], self.frame["conf_high"], alpha=0.2, linewidth=0)
        ax.plot(x, self.frame["estimate"], linewidth=1.8)
        ax.axhline(0.0, color="0.4", linewidth=0.8)
        ax.axvline(0.0, color="0.4", linewidth=0.8, linestyle=":")
        marks = (("zero", "o", "estimate is zero"), ("interval", "D", "interval reaches zero"))
        for which, marker, label in marks:
            value = getattr(self.breakdown, which)
            if x.min() <= value <= x.max():
                ax.plot(value, 0.0, marker, color="C3", label=f"{label}: {number(value)}")
        name = {"covariance": r"$\omega_1-\omega_0$", "modification": r"$\rho_m$"}[self.kind]
        ax.set_xlabel(f"violation {name}")
        ax.set_ylabel("average effect")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False)
        return ax


@dataclass(frozen=True, repr=False)
class CateBand(_Report):
    """Effect as a function of covariates, with pointwise intervals and a uniform band.

    Attributes
    ----------
    frame : pandas.DataFrame
        The covariates of each evaluated row, then ``estimate, std_error, conf_low, conf_high``
        (pointwise) and ``band_low, band_high`` (all rows at once).
    coefficients : Estimates
        Best linear projection behind it.
    level : float
        Confidence level.
    """

    frame: pd.DataFrame
    coefficients: Estimates
    level: float

    @property
    def effect(self) -> FloatArray:
        """Estimated effect of each evaluated row."""
        import numpy as np

        return np.array(self.frame["estimate"], dtype=np.float64)

    def to_frame(self) -> pd.DataFrame:
        """The evaluated rows as a table."""
        return self.frame.copy()

    def summary(self) -> Summary:
        """Summary that prints as text, HTML, LaTeX or Markdown."""
        from causalfair.reporting import estimates_table

        effect = self.frame["estimate"]
        note = (
            f"Effect over {len(effect):,} rows: {number(effect.min())} to {number(effect.max())}, "
            f"mean {number(effect.mean())}. Columns conf_low, conf_high hold for one row at a "
            f"time; band_low, band_high for all rows at once ({self.level:.0%})."
        )
        table = estimates_table(self.coefficients, self.level)
        return Summary("Effect by covariates (best linear projection)", [], [table], [note])

    def plot(self, covariate: str | None = None, *, ax: Any = None) -> Any:
        """Effect against one covariate with its uniform band.

        Parameters
        ----------
        covariate : str, optional
            Column on the horizontal axis; the first when None. Evaluate on rows that vary in this
            covariate alone, or the band is drawn through a cloud.
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        plt = import_optional("matplotlib.pyplot", extra="plot")
        ax = plt.subplots(figsize=(6.0, 3.8), layout="constrained")[1] if ax is None else ax
        name = str(self.frame.columns[0]) if covariate is None else covariate
        data = self.frame.sort_values(name)
        ax.fill_between(data[name], data["band_low"], data["band_high"], alpha=0.2, linewidth=0)
        ax.plot(data[name], data["estimate"], linewidth=1.8)
        ax.axhline(0.0, color="0.4", linewidth=0.8)
        ax.set_xlabel(name)
        ax.set_ylabel("effect")
        return ax
