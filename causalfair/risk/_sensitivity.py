"""Refits over a grid of prevalences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from causalfair.exceptions import ParameterError
from causalfair.risk import _data
from causalfair.risk._data import read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair.risk._estimator import DomainConstrainedRisk

__all__ = ["PrevalenceSensitivity", "prevalence_sensitivity"]

UNTESTED = "risk of the untested"


@dataclass(frozen=True)
class PrevalenceSensitivity:
    """Estimates over imposed prevalences.

    Attributes
    ----------
    frame : pandas.DataFrame
        ``prevalence, term, estimate, conf_low, conf_high, loglik_loss``: one row a prevalence and
        term; the loss is against the prevalence that fits best.
    """

    frame: Any

    def to_frame(self) -> Any:
        """Long table.

        Returns
        -------
        pandas.DataFrame
            See ``frame``.
        """
        return self.frame

    def plot(self, *, ax: Any = None) -> Any:
        """Mean risk of the untested over the imposed prevalence.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.risk._plots import plot_sensitivity

        return plot_sensitivity(self, ax=ax)

    def _summary(self) -> Any:
        from causalfair.reporting import Summary, Table

        part = self.frame[self.frame["term"] == UNTESTED]
        rows = [
            [f"{r.prevalence:.4g}", f"{r.estimate:.3f}", f"[{r.conf_low:.3f}, {r.conf_high:.3f}]",
             f"{r.loglik_loss:.2f}"]
            for r in part.itertuples()
        ]  # fmt: skip
        columns = ["prevalence", UNTESTED, "95% interval", "log-likelihood lost"]
        notes = ["All terms: .to_frame(). Prevalences that lose more than 2 hardly fit the data."]
        return Summary("Sensitivity to the prevalence", [], [Table(columns, rows)], notes)

    def __str__(self) -> str:
        return str(self._summary())

    def _repr_html_(self) -> str:
        return str(self._summary()._repr_html_())


def prevalence_sensitivity(
    model: DomainConstrainedRisk,
    X: Any,
    y: Any,
    *,
    tested: Any,
    values: Sequence[float],
    covariates: Any = None,
    level: float = 0.95,
) -> PrevalenceSensitivity:
    """Refit with other prevalences, by the quick sampler.

    Parameters
    ----------
    model : DomainConstrainedRisk
        Its parameters are used, its ``prevalence_sd`` too.
    X : frame or array of shape (n, p)
        The table.
    y, tested : array of shape (n,) or str
        As for :meth:`DomainConstrainedRisk.fit`.
    values : sequence of float
        Prevalences to impose.
    covariates : list of str, "~ formula" or "all", optional
        As for :meth:`DomainConstrainedRisk.fit`.
    level : float, default 0.95
        Probability of the intervals.

    Returns
    -------
    PrevalenceSensitivity
        Every term and the mean risk of the untested by prevalence, with the log-likelihood lost.

    Raises
    ------
    ParameterError
        No values, or a model without a standard error of its prevalence.

    Examples
    --------
    >>> from causalfair.datasets import make_selective_labels
    >>> from causalfair.risk import DomainConstrainedRisk, prevalence_sensitivity
    >>> frame, truth = make_selective_labels(600, n_features=2, random_state=0)
    >>> model = DomainConstrainedRisk(
    ...     prevalence=truth["prevalence"], prevalence_sd=0.01, expertise=["x1"], draws=200,
    ...     random_state=0,
    ... )
    >>> result = prevalence_sensitivity(
    ...     model, frame, "y", values=[0.3, 0.35], tested="tested", covariates=["x1", "x2"]
    ... )
    >>> sorted(set(result.to_frame()["prevalence"]))
    [0.3, 0.35]
    """
    import pandas as pd

    owner = "prevalence_sensitivity"
    grid = [float(v) for v in values]
    if not grid:
        raise ParameterError(f"{owner} got no values.")
    if model.prevalence_sd is None or isinstance(model.prevalence, dict):
        raise ParameterError(
            f"{owner} needs a model with one prevalence and its prevalence_sd; got prevalence="
            f"{model.prevalence!r}, prevalence_sd={model.prevalence_sd!r}."
        )
    rows = read_rows(X, y, tested=tested, owner=owner, covariates=covariates)
    untested = rows.code == _data.UNTESTED
    quick = model.sampler if model.sampler in ("map", "ml") else "laplace"
    frames, logliks = [], []
    for value in grid:
        one = clone(model).set_params(prevalence=value, sampler=quick)
        one.fit(X, y, tested=tested, covariates=covariates)
        table = one.estimates_.to_frame(level, native="pandas")
        risk = one._risk(X, "untested", None, None, "predict_proba")[:, untested].mean(axis=1)
        tail = (1 - level) / 2
        low, high = np.quantile(risk, [tail, 1 - tail])
        extra = {"term": UNTESTED, "estimate": risk.mean(), "conf_low": low, "conf_high": high}
        table = pd.concat([table, pd.DataFrame([extra])], ignore_index=True)
        table.insert(0, "prevalence", value)
        frames.append(table[["prevalence", "term", "estimate", "conf_low", "conf_high"]])
        logliks.append(one.loglik_)
    best = max(logliks)
    for table, loglik in zip(frames, logliks, strict=True):
        table["loglik_loss"] = best - loglik
    return PrevalenceSensitivity(pd.concat(frames, ignore_index=True))
