"""Monte-Carlo tables of the invalid-instrument estimators, stored for the documentation.

``nox -s validation -- iv`` rewrites ``docs/_data/validation/iv_*.csv``;
``--quick`` runs fewer replications and compares with the stored tables instead.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from validation._tables import Table, row_of, run, summarise

from causalfair.datasets import make_invalid_instruments, make_invalid_iv
from causalfair.iv import MRGenius, MultiplyRobustATE

ROLES = {"treatment": "treatment", "instrument": "instrument", "covariates": ["x1", "x2"]}

RIGHT = {
    "instrument": "~ x1 + x2",
    "treatment": "~ instrument * x1",
    "effect": "~ x1 + x2",
    "outcome": "~ instrument + x1 + x2",
    "confounding": "~ x1",
}
WRONG = {model: "~ instrument" if model in ("treatment", "outcome") else "~ 1" for model in RIGHT}
COVERS = {
    "all models": set(RIGHT),
    "M1: instrument, treatment": {"instrument", "treatment"},
    "M2: treatment, effect, confounding": {"treatment", "effect", "confounding"},
    "M3: effect, confounding, outcome": {"effect", "confounding", "outcome"},
    "M4: instrument, effect, outcome": {"instrument", "effect", "outcome"},
}
NON_COVERS = {
    "instrument, confounding": {"instrument", "confounding"},
    "treatment, effect": {"treatment", "effect"},
    "treatment, outcome": {"treatment", "outcome"},
    "effect, outcome": {"effect", "outcome"},
    "no model": set(),
}


def formulas(right: set[str]) -> dict[str, str]:
    """Right formulas for the models in ``right``, wrong ones (covariates left out) for the rest."""
    return {model: RIGHT[model] if model in right else WRONG[model] for model in RIGHT}


def simulate_models(right: set[str], replications: int, n: int, seed: int) -> list[dict]:
    """Fits with the given right models."""
    out = []
    for r in range(replications):
        frame, _ = make_invalid_iv(n, random_state=np.random.SeedSequence((seed, r)))
        est = MultiplyRobustATE(formulas(right)).fit(frame, "y", **ROLES)
        out.append(row_of(est, "ATE"))
    return out


def table_models(sets: dict[str, set[str]], replications: int) -> pd.DataFrame:
    """One line a set of right models."""
    lines = []
    for name, right in sets.items():
        rows = simulate_models(right, replications, n=4000, seed=1)
        lines.append({"right models": name, "n": 4000, **summarise(rows, 1.0)})
    return pd.DataFrame(lines)


def table_designs(replications: int) -> pd.DataFrame:
    """Other designs, all models right: direct effect, continuous treatment, one-sided, clusters."""
    lines = []

    def add(name: str, n: int, truth: float, rows: list[dict[str, float]]) -> None:
        lines.append({"design": name, "n": n, **summarise(rows, truth)})

    rows, att, att_truth = [], [], 0.0
    for r in range(replications):
        frame, truth = make_invalid_iv(4000, random_state=np.random.SeedSequence((2, r)))
        est = MultiplyRobustATE(RIGHT).fit(frame, "y", **ROLES)
        rows.append(row_of(est, "direct effect"))
        found = est.att()
        low, high = found.conf_int()[0]
        att.append({"estimate": found.estimate[0], "std_error": found.std_error[0],
                    "conf_low": low, "conf_high": high})  # fmt: skip
        att_truth = truth["att"]
    add("direct effect of the instrument", 4000, 1.0, rows)
    add("effect on the treated", 4000, att_truth, att)
    rows = []
    variance = {**RIGHT, "variance": "~ instrument * x1"}
    for r in range(replications):
        frame, _ = make_invalid_iv(
            4000, treatment="continuous", random_state=np.random.SeedSequence((3, r))
        )
        est = MultiplyRobustATE(variance).fit(frame, "y", **ROLES)
        rows.append(row_of(est, "ATE"))
    add("continuous treatment", 4000, 1.0, rows)
    rows = []
    for r in range(replications):
        frame, _ = make_invalid_iv(
            4000, one_sided=True, random_state=np.random.SeedSequence((4, r))
        )
        sided = {key: value for key, value in RIGHT.items() if key != "confounding"}
        est = MultiplyRobustATE(sided, one_sided=True).fit(frame, "y", **ROLES)
        rows.append(row_of(est, "ATE"))
    add("one-sided non-compliance", 4000, 1.0, rows)
    rows = []
    for r in range(replications):
        frame, _ = make_invalid_instruments(
            12_000, n_instruments=4, random_state=np.random.SeedSequence((5, r))
        )
        names = [f"g{k}" for k in range(1, 5)]
        est = MRGenius().fit(frame, "y", treatment="treatment", instrument=names, covariates=[])
        rows.append(row_of(est, "ATE"))
    add("four instruments (MRGenius)", 12_000, 1.0, rows)
    return pd.DataFrame(lines)


def table_weak(replications: int) -> pd.DataFrame:
    """From no to strong identification: the normal interval against the robust set."""
    lines = []
    for shift in (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5):
        rows, inside, unbounded, strength = [], 0, 0, []
        for r in range(replications):
            frame, _ = make_invalid_iv(
                2000,
                heterogeneity=0.0,
                variance_shift=shift,
                random_state=np.random.SeedSequence((6, r)),
            )
            one = {**RIGHT, "effect": "~ 1"}
            est = MultiplyRobustATE(one).fit(frame, "y", **ROLES)
            rows.append(row_of(est, "ATE"))
            found = est.robust_set()
            inside += any(low <= 1.0 <= high for low, high in found)
            unbounded += bool(np.isinf(found).any())
            strength.append(est.relevance().f_het)
        frame = pd.DataFrame(rows)
        covered = ((frame["conf_low"] <= 1) & (frame["conf_high"] >= 1)).mean()
        lines.append(
            {
                "variance shift": shift,
                "n": 2000,
                "replications": replications,
                "median F_het": float(np.median(strength)),
                "median estimate": frame["estimate"].median(),
                "coverage, normal interval": covered,
                "coverage, robust set": inside / replications,
                "robust set unbounded": unbounded / replications,
            }
        )
    return pd.DataFrame(lines)


TABLES = {
    "iv_covers": Table(partial(table_models, COVERS), 1000, 100),
    "iv_non_covers": Table(partial(table_models, NON_COVERS), 200, 20),
    "iv_designs": Table(table_designs, 1000, 100),
    "iv_weak": Table(table_weak, 1000, 100),
}


if __name__ == "__main__":
    run(__doc__, TABLES)
