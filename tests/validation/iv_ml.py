"""Monte-Carlo tables of the learning estimators for an invalid instrument.

``nox -s validation -- iv_ml`` rewrites ``docs/_data/validation/iv_learned.csv`` and
``iv_selected.csv``; ``--quick`` runs fewer replications and compares with the stored tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from naive.iv_curved import ATE, curved_study
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from validation._tables import Table, row_of, run, summarise

from causalfair.datasets import make_invalid_iv
from causalfair.iv import DebiasedATE, SelectiveATE

ROLES = {"treatment": "treatment", "instrument": "instrument", "covariates": ["x1", "x2"]}
CURVED = {"treatment": "a", "instrument": "z", "covariates": ["x1", "x2"]}
LINE, LOGIT = LinearRegression(), LogisticRegression(C=100.0)


def squared(model: Any) -> Any:
    return make_pipeline(PolynomialFeatures(2, include_bias=False), model)


def debiased(classifier: Any, regressor: Any, *, binary: bool = True, **kwargs: Any) -> DebiasedATE:
    return DebiasedATE(
        classifier,
        classifier if binary else regressor,
        regressor,
        regressor,
        regressor,
        **{"n_repeats": 1, **kwargs},
    )


def simulate(
    study: Callable[[int], pd.DataFrame],
    make: Callable[[int], Any],
    roles: dict[str, Any],
    replications: int,
) -> dict[str, list[dict[str, float]]]:
    """Rows of both terms."""
    rows: dict[str, list[dict[str, float]]] = {"ATE": [], "direct effect": []}
    for r in range(replications):
        est = make(r).fit(study(r), "y", **roles)
        for term, found in rows.items():
            found.append(row_of(est, term))
    return rows


def table_learned(replications: int) -> pd.DataFrame:
    """Cross-fitted estimates: right learners in four designs, then wrong ones."""

    def simulated(seed: int, **kwargs: Any) -> Callable[[int], pd.DataFrame]:
        return lambda r: make_invalid_iv(4000, random_state=np.random.SeedSequence((seed, r)),
                                         **kwargs)[0]  # fmt: skip

    def right(r: int) -> DebiasedATE:
        return debiased(LOGIT, LINE, random_state=r)

    designs = [
        ("linear learners, linear study", simulated(11), right, ROLES),
        ("linear learners, one-sided", simulated(12, one_sided=True), right, ROLES),
        ("linear learners, continuous treatment", simulated(13, treatment="continuous"),
         lambda r: debiased(LOGIT, LINE, binary=False, random_state=r), ROLES),
        ("quadratic learners, curved study", lambda r: curved_study(4000, r),
         lambda r: debiased(squared(LOGIT), squared(LINE), random_state=r), CURVED),
        ("linear learners, curved study", lambda r: curved_study(4000, r), right, CURVED),
    ]  # fmt: skip
    lines = []
    for name, study, make, roles in designs:
        for term, rows in simulate(study, make, roles, replications).items():
            if term == "ATE" or roles is ROLES:  # the curved study has no constant direct effect
                lines.append({"design": name, "term": term, "n": 4000, **summarise(rows, 1.0)})
    return pd.DataFrame(lines).drop(columns="coverage, influence SE", errors="ignore")


def table_selected(replications: int) -> pd.DataFrame:
    """The curved study: every family alone, and the selected combination."""
    families = ["linear", "quadratic", "boosting"]
    rows: dict[str, list[dict[str, float]]] = {}
    wrong = 0
    for r in range(replications):
        est = SelectiveATE(families, random_state=r).fit(curved_study(4000, r), "y", **CURVED)
        rows.setdefault("selected", []).append(row_of(est, "ATE"))
        wrong += est.selected_["effect"] == "linear"
        for line in est.family_estimates_.to_dict("records"):
            rows.setdefault(f"{line.pop('family')} everywhere", []).append(line)
    lines = []
    for name, found in rows.items():
        error = np.array([row["estimate"] for row in found]) - ATE
        line = {"learners": name, "n": 4000, **summarise(found, ATE)}
        line["RMSE"] = float(np.sqrt(np.mean(error**2)))
        line["linear effect chosen"] = wrong / replications if name == "selected" else ""
        lines.append(line)
    return pd.DataFrame(lines).drop(columns="coverage, influence SE", errors="ignore")


TABLES = {
    "iv_learned": Table(table_learned, 400, 20),
    "iv_selected": Table(table_selected, 24, 5),
}


if __name__ == "__main__":
    run(__doc__, TABLES)
