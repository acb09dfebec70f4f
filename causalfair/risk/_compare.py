"""The model beside what one would do without it, and beside itself with other constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from causalfair.exceptions import DataError
from causalfair.risk import _data
from causalfair.risk._data import read_rows
from causalfair.risk._design import fit_design
from causalfair.risk._estimator import DomainConstrainedRisk

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray

__all__ = ["RiskComparison", "compare_risk_models"]

COMPARE_DRAWS = 400
REGRESSIONS = ("tested only", "untested as negative", "inverse probability weights")
CLIP = 0.01


@dataclass(frozen=True)
class RiskComparison:
    """Risk by method; prints as a table.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row a method: ``method``, ``mean_risk`` and ``untested_risk`` with ``_low`` and
        ``_high``, ``interval_width`` (mean width of the rows' intervals), and with a truth
        ``untested_truth`` and ``error`` (root mean squared error of the risks of the untested).
    risks : dict of str to (n,) array
        Risk of each row by method, given that it is untested where it is.
    """

    frame: Any
    risks: dict[str, FloatArray]

    def to_frame(self) -> Any:
        """Table of the methods.

        Returns
        -------
        pandas.DataFrame
            See ``frame``.
        """
        return self.frame

    def _summary(self) -> Any:
        from causalfair.reporting import Summary, Table

        truth = "error" in self.frame
        rows = []
        for one in self.frame.to_dict("records"):
            cells = [one["method"]]
            for name in ("mean_risk", "untested_risk"):
                low, high = one[f"{name}_low"], one[f"{name}_high"]
                shown = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
                cells.append(f"{one[name]:.3f}{shown}")
            rows.append(cells + ([f"{one['error']:.3f}"] if truth else []))
        columns = ["", "mean risk", "of the untested", *(["error"] if truth else [])]
        notes = []
        if truth:
            known = float(self.frame["untested_truth"].iloc[0])
            notes.append(f"True mean risk of the untested: {known:.3f}.")
        return Summary("Risk by method", [], [Table(columns, rows)], notes)

    def __str__(self) -> str:
        return str(self._summary())

    def _repr_html_(self) -> str:
        return str(self._summary()._repr_html_())


def compare_risk_models(
    model: DomainConstrainedRisk,
    X: Any,
    y: Any,
    *,
    tested: Any,
    covariates: Any = None,
    wrong: float = 0.1,
    truth: Any = None,
) -> RiskComparison:
    """Fit regressions on the tested and the model with no, one and both constraints.

    Parameters
    ----------
    model : DomainConstrainedRisk
        Unfitted or fitted; its parameters are used, with the quick sampler. Constraints it does not
        have are left out of the table.
    X : frame or array of shape (n, p)
        The table.
    y, tested : array of shape (n,) or str
        Outcome and decision, as for :meth:`DomainConstrainedRisk.fit`.
    covariates : list of str, "~ formula" or "all", optional
        As for :meth:`DomainConstrainedRisk.fit`.
    wrong : float, default 0.1
        Relative error of the prevalence in the row that shows what a wrong one does.
    truth : array of shape (n,), optional
        Outcomes or risks of all rows, where they are known.

    Returns
    -------
    RiskComparison
        Regression on the tested only, untested taken as negative, inverse probability weights, and
        the model without constraints, with each alone, with both, and with a wrong prevalence.

    Raises
    ------
    DataError
        ``truth`` has another length.

    Examples
    --------
    >>> from causalfair.datasets import make_selective_labels
    >>> from causalfair.risk import DomainConstrainedRisk, compare_risk_models
    >>> frame, truth = make_selective_labels(600, n_features=2, random_state=0)
    >>> model = DomainConstrainedRisk(
    ...     prevalence=truth["prevalence"], prevalence_sd=0.02, expertise=["x1"], random_state=0
    ... )
    >>> table = compare_risk_models(model, frame, "y", tested="tested", covariates=["x1", "x2"])
    >>> len(table.to_frame())
    8
    """
    import pandas as pd

    owner = "compare_risk_models"
    rows = read_rows(X, y, tested=tested, owner=owner, covariates=covariates)
    known = None if truth is None else np.asarray(truth, dtype=float)
    if known is not None and len(known) != rows.n:
        raise DataError(f"{owner}: truth has {len(known)} entries for {rows.n} rows.")
    untested = rows.code == _data.UNTESTED
    records, risks = [], {}
    for name, risk in _regressions(rows, owner).items():
        nothing = np.full(3, np.nan)
        records.append(_record(name, risk, risk, untested, known, nothing, nothing, np.nan))
        risks[name] = risk
    for name, variant in _variants(model, wrong).items():
        fitted = variant.fit(X, y, tested=tested, covariates=covariates)
        # Private draws: means over rows need the draws, not the rows' intervals.
        everybody = fitted._risk(X, None, None, None, "predict_proba")
        given = fitted._risk(X, "untested", None, None, "predict_proba")
        risk = np.where(untested, given.mean(axis=0), everybody.mean(axis=0))
        width = float(np.ptp(np.quantile(everybody, [0.025, 0.975], axis=0), axis=0).mean())
        records.append(
            _record(
                name, everybody.mean(axis=0), risk, untested, known,
                everybody.mean(axis=1), given[:, untested].mean(axis=1), width,
            )
        )  # fmt: skip
        risks[name] = risk
    return RiskComparison(pd.DataFrame(records), risks)


def _record(
    name: str, everybody: FloatArray, risk: FloatArray, untested: Any, truth: Any,
    mean_draws: FloatArray, untested_draws: FloatArray, width: float,
) -> dict[str, Any]:  # fmt: skip
    record = {"method": name, "mean_risk": float(everybody.mean())}
    record["mean_risk_low"], record["mean_risk_high"] = np.quantile(mean_draws, [0.025, 0.975])
    record["untested_risk"] = float(risk[untested].mean())
    low, high = np.quantile(untested_draws, [0.025, 0.975])
    record |= {"untested_risk_low": low, "untested_risk_high": high, "interval_width": width}
    if truth is not None:
        record["untested_truth"] = float(truth[untested].mean())
        record["error"] = float(np.sqrt(((risk - truth) ** 2)[untested].mean()))
    return record


def _regressions(rows: Any, owner: str) -> dict[str, FloatArray]:
    """Risk of each row by three regressions."""
    from sklearn.linear_model import LogisticRegression

    Z = fit_design(rows.data, rows.weight, owner=owner).standardise(rows.data.matrix())[:, 1:]
    seen = np.isin(rows.code, (_data.NEGATIVE, _data.POSITIVE))
    if Z.shape[1] == 0:
        Z = np.zeros((rows.n, 1))

    def fit(part: Any, target: Any, weight: FloatArray) -> FloatArray:
        model = LogisticRegression(C=1e4, max_iter=2000)
        model.fit(Z[part], target[part], sample_weight=weight[part])
        return np.asarray(model.predict_proba(Z)[:, 1])

    everybody = np.ones(rows.n, dtype=bool)
    propensity = np.clip(fit(everybody, seen.astype(int), rows.weight), CLIP, 1)
    target = (rows.code == _data.POSITIVE).astype(int)
    return dict(
        zip(
            REGRESSIONS,
            [
                fit(seen, target, rows.weight),
                fit(everybody, target, rows.weight),
                fit(seen, target, rows.weight / propensity),
            ],
            strict=True,
        )
    )


def _variants(model: DomainConstrainedRisk, wrong: float) -> dict[str, DomainConstrainedRisk]:
    """The model with subsets of its constraints, on the quick sampler."""

    def change(**parameters: Any) -> DomainConstrainedRisk:
        quick: DomainConstrainedRisk = clone(model)
        quick.set_params(sampler="laplace", draws=COMPARE_DRAWS, allow_weak=True, **parameters)
        return quick

    no_prevalence = {"prevalence": None, "prevalence_sd": None}
    out = {"no constraint": change(**no_prevalence, expertise=None)}
    if model.prevalence is not None:
        out["prevalence"] = change(expertise=None)
    if model.expertise is not None:
        out["expertise"] = change(**no_prevalence)
    if model.prevalence is not None and model.expertise is not None:
        out["both"] = change()
    if model.prevalence is not None:
        out[f"prevalence {wrong:.0%} too high"] = change(
            prevalence=_scaled(model.prevalence, wrong)
        )
    return out


def _scaled(prevalence: Any, wrong: float) -> Any:
    if isinstance(prevalence, dict):
        return {k: v * (1 + wrong) for k, v in prevalence.items()}
    return prevalence * (1 + wrong)
