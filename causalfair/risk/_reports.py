"""What a fitted risk model says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.random import generator
from causalfair.inference import DrawEstimates
from causalfair.risk._checks import RiskChecks
from causalfair.risk._native import native_posterior
from causalfair.risk._posterior import natural_terms

PREDICTIVE_STREAM = 5


class RiskReports(CausalEstimator):
    """Checks, coefficients, native posterior and summary of a fit."""

    sampler: str
    layout_: Any
    law_: Any
    conflicts_: list[Any]
    _natural: Any
    _chains: int
    _statistics: dict[str, Any]
    _problem: Any
    _native: Any
    _root: Any
    _findings: tuple[Any, ...]
    _predictive: Any

    def check(self) -> RiskChecks:
        """What may be wrong with the fit, and what each finding means.

        Returns
        -------
        RiskChecks
            Convergence, posterior predictive checks of testing rates and of the outcomes of the
            tested, identification of alpha and sigma, overlap of prior and posterior, conflict of
            the prevalence; ``ok``, ``to_frame()``.
        """
        check_is_fitted(self)
        return RiskChecks(self._findings)

    def coefficients(self) -> DrawEstimates:
        """Terms on standardised columns, where sizes can be compared.

        Returns
        -------
        DrawEstimates
            ``risk:`` and ``testing:`` terms per standard deviation (per unit of indicators).
        """
        check_is_fitted(self)
        terms = natural_terms(self.layout_, self._natural, original=False)
        return DrawEstimates(np.column_stack(list(terms.values())), list(terms))

    @property
    def posterior_(self) -> Any:
        """Native ArviZ object of the draws, on standardised columns.

        Groups ``posterior``, ``sample_stats``, ``log_likelihood`` (of all the rows of a cell:
        divide by ``constant_data.weight`` for one row's), ``posterior_predictive`` and
        ``observed_data`` (rows untested, tested negative, tested positive) and ``constant_data``.
        A model that was pickled has no rows any more, and only the first two.
        """
        check_is_fitted(self)
        if self._native is None:
            self._native = native_posterior(
                self.layout_, self._natural, self.estimates_.draws[:, -1], self._statistics,
                self._problem, chains=self._chains, rng=generator(self._root, PREDICTIVE_STREAM),
                owner=f"{type(self).__name__}.posterior_",
            )  # fmt: skip
        return self._native

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: no rows, and nothing that can be made again."""
        state = dict(super().__getstate__())
        return state | {name: None for name in ("_problem", "_native") if name in state}

    def plot_checks(self, *, ax: Any = None) -> Any:
        """Observed rates against those the model expects, over tenths.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        check_is_fitted(self)
        from causalfair.risk._plots import plot_predictive

        return plot_predictive(self._predictive, ax=ax)

    def _summary_header(self) -> list[tuple[str, str]]:
        pairs = super()._summary_header()
        law = self.law_
        shown = {"alpha": law.alpha, "sigma": law.sigma}
        fixed = [f"{k} = {v:g}" for k, v in shown.items() if v is not None]
        kind = {"uniform": "Z uniform", "normal": "Z normal", "none": "no Z"}[law.unobservables]
        if law.vary_alpha:
            around = "" if law.alpha is None else f" around {law.alpha:g}"
            fixed = [one for one in fixed if not one.startswith("alpha")]
            fixed.append(f"alpha varies by {self.layout_.maker_name}{around}")
        pairs.append(("unobservable", ", ".join([kind, *fixed])))
        pairs.append(("sampler", f"{self.sampler}, {len(self._natural):,} draws"))
        return pairs

    def _summary_notes(self) -> list[str]:
        notes = []
        for one in self.conflicts_:
            whom = "" if one.name == "all" else f" of {one.name}"
            notes.append(
                f"Prevalence{whom}: imposed {one.imposed:.3g} (sd {one.imposed_sd:.2g}); the data "
                f"alone imply {one.mean:.3g} (sd {one.sd:.2g}), z = {one.z:.1f}."
            )
        doubts = [f for f in self._findings if not f.ok]
        notes += [f"Check, {f.check}: {f.value}; {f.meaning}." for f in doubts]
        return notes

    def _cite_extra(self) -> tuple[str, ...]:
        pooled = ("papaspiliopoulos2007general",) if self.layout_.pool_names() else ()
        if self.sampler in ("nutpie", "pymc"):
            return ("hoffman2014nuts", "vehtari2021rhat", *pooled)
        return ("vehtari2024pareto", *pooled) if self.sampler == "laplace" else pooled
