"""The base of the estimators for one binary, possibly invalid instrument."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.base import CausalEstimator
from causalfair._core.logging import warn
from causalfair.exceptions import OverlapWarning, WeakIdentificationWarning
from causalfair.iv._checks import CheckMethods
from causalfair.iv._diagnostics import overlap_summary
from causalfair.iv._effects import EffectMethods
from causalfair.iv._record import (
    IVRecord,
    balance_of,
    baseline_comparators,
    design_matrix,
    separate_estimates,
)
from causalfair.iv._reports import number
from causalfair.reporting import Table, format_estimate

__all__ = [
    "IVRecord",
    "InvalidInstrumentBase",
    "balance_of",
    "baseline_comparators",
    "design_matrix",
    "format_set",
    "separate_estimates",
]

WEAK, VERY_WEAK = 10.0, 4.0


class InvalidInstrumentBase(EffectMethods, CheckMethods, CausalEstimator):
    """Post-estimation methods of the estimators for one binary, possibly invalid instrument.

    A subclass sets ``estimates_`` (terms ``"ATE"`` and ``"direct effect"``) and ``_rows``
    (:class:`IVRecord`) in ``fit``, and calls ``_warn_about_identification``.
    """

    _rows: IVRecord

    def _warn_about_identification(self) -> None:
        """Warn about weak identification, sign changes and poor overlap at the end of ``fit``."""
        found = self._relevance()
        owner = f"{type(self).__name__}.fit"
        if found.f_het < VERY_WEAK:
            warn(
                f"{owner}: no variance shift can be seen (F_het = {found.f_het:.2f}, below "
                f"{VERY_WEAK:g}): the data do not identify the effect, and the estimate with its "
                f"interval is no answer. {self._set_text()} See relevance().",
                WeakIdentificationWarning,
            )
        elif found.f_het < WEAK:
            warn(
                f"{owner}: the variance shift is weak (F_het = {found.f_het:.2f}, below {WEAK:g}): "
                f"normal intervals are unreliable. {self._set_text()} See relevance().",
                WeakIdentificationWarning,
            )
        if found.share_opposite > 0.01:
            warn(
                f"{owner}: the variance shift D(X) changes sign: {found.share_opposite:.1%} of "
                "rows have the sign opposite to the mean. The effect is irregular where D is zero; "
                "compare constant_effect(), which does not divide by D(X).",
                WeakIdentificationWarning,
            )
        nu = self._rows.nuisances[self._rows.typical()]
        clipped = 0.0 if nu.clipped is None else float(nu.clipped.mean())
        if clipped > 0.1:
            warn(
                f"{owner}: P(instrument = 1 | covariates) left the clipping range for "
                f"{clipped:.1%} of rows. Overlap is poor: drop covariates that determine the "
                "instrument, or narrow the target population with trim='drop'.",
                OverlapWarning,
            )

    def _set_text(self) -> str:
        return f"The robust 95% set for a constant effect is {format_set(self.robust_set())}."

    # Summary -----------------------------------------------------------------------------------

    def _summary_tables(self) -> list[Any]:
        found = self._relevance()
        rows = self._rows
        leverage = self.leverage()
        overlap = overlap_summary(rows.z, rows.nuisances[rows.typical()], rows.weight)
        q = overlap.pi_quantiles
        lines = [
            ["variance shift F_het (10 or more wanted)", number(found.f_het)],
            ["robust 95% set, constant effect", format_set(self.robust_set())],
            ["first-stage F (not what identifies)", number(found.first_stage_f)],
            ["rows with |D(X)| raised to the floor", f"{found.share_floored:.1%}"],
            ["P(instrument = 1 | X), range", f"{q[0]:.3f} to {q[-1]:.3f}"],
            ["rows with clipped probability", f"{overlap.share_clipped:.1%}"],
            ["variance owned by 5 rows", f"{leverage.total_share:.0%}"],
        ]
        beside = self.comparators()
        table = []
        for row in beside.iloc[1:].to_dict("records"):
            ends = (row["conf_low"], row["conf_high"])
            cells = format_estimate(row["estimate"], row["std_error"], *ends)
            table.append([row["term"], cells.estimate, cells.std_error, row["rests_on"]])
        return [
            Table(["identification", "value"], lines),
            Table(["other estimators", "estimate", "std. error", "rests on"], table),
        ]


def format_set(intervals: list[tuple[float, float]]) -> str:
    """Readable union of intervals."""
    if not intervals:
        return "empty"
    if intervals == [(-np.inf, np.inf)]:
        return "the whole line"
    return " or ".join(
        f"{'(' if low == -np.inf else '['}{number(low)}, {number(high)}"
        f"{')' if high == np.inf else ']'}"
        for low, high in intervals
    )
