"""Monte-Carlo tables of the invalid-instrument estimators, stored for the documentation.

``python tests/validation/iv.py`` rewrites ``docs/_data/validation/iv_*.csv``;
``--quick`` runs fewer replications and compares with the stored tables instead.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from causalfair.datasets import make_invalid_instruments, make_invalid_iv
from causalfair.exceptions import CausalFairWarning
from causalfair.iv import MRGenius, MultiplyRobustATE

FOLDER = Path(__file__).parents[2] / "docs" / "_data" / "validation"
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


def quietly(fit: Callable[[], MultiplyRobustATE | MRGenius]) -> MultiplyRobustATE | MRGenius:
    """Run a fit whose warnings about weak identification are part of the experiment."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        return fit()


def summarise(rows: list[dict[str, float]], truth: float) -> dict[str, float]:
    """Bias, spread, mean standard error and coverage over replications."""
    frame = pd.DataFrame(rows)
    error = frame["estimate"] - truth
    covered = (frame["conf_low"] <= truth) & (truth <= frame["conf_high"])
    out = {
        "replications": len(frame),
        "bias": error.mean(),
        "bias_mc_error": error.std() / np.sqrt(len(frame)),
        "SD": error.std(),
        "mean SE": frame["std_error"].mean(),
        "coverage": covered.mean(),
    }
    if "plug_in" in frame:
        half = 1.959963984540054 * frame["plug_in"]
        out["coverage, influence SE"] = (error.abs() <= half).mean()
    return out


def row_of(est: MultiplyRobustATE | MRGenius, term: str) -> dict[str, float]:
    """One replication: estimate, standard error, interval."""
    k = est.estimates_.names.index(term)
    low, high = est.conf_int()[k]
    out = {
        "estimate": float(est.estimates_.estimate[k]),
        "std_error": float(est.estimates_.std_error[k]),
        "conf_low": float(low),
        "conf_high": float(high),
    }
    if term == "ATE" and hasattr(est, "scores_"):
        out["plug_in"] = float(np.std(est.scores_) / np.sqrt(est.n_obs_))
    return out


def simulate_models(right: set[str], replications: int, n: int, seed: int) -> list[dict]:
    """Fits with the given right models."""
    out = []
    for r in range(replications):
        frame, _ = make_invalid_iv(n, random_state=np.random.SeedSequence((seed, r)))
        est = quietly(lambda f=frame: MultiplyRobustATE(formulas(right)).fit(f, "y", **ROLES))
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
        est = quietly(lambda f=frame: MultiplyRobustATE(RIGHT).fit(f, "y", **ROLES))
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
        est = quietly(lambda f=frame: MultiplyRobustATE(variance).fit(f, "y", **ROLES))
        rows.append(row_of(est, "ATE"))
    add("continuous treatment", 4000, 1.0, rows)
    rows = []
    for r in range(replications):
        frame, _ = make_invalid_iv(
            4000, one_sided=True, random_state=np.random.SeedSequence((4, r))
        )
        sided = {key: value for key, value in RIGHT.items() if key != "confounding"}
        est = quietly(
            lambda f=frame, s=sided: MultiplyRobustATE(s, one_sided=True).fit(f, "y", **ROLES)
        )
        rows.append(row_of(est, "ATE"))
    add("one-sided non-compliance", 4000, 1.0, rows)
    rows = []
    for r in range(replications):
        frame, _ = make_invalid_instruments(
            12_000, n_instruments=4, random_state=np.random.SeedSequence((5, r))
        )
        names = [f"g{k}" for k in range(1, 5)]
        est = quietly(
            lambda f=frame, g=names: MRGenius().fit(
                f, "y", treatment="treatment", instrument=g, covariates=[]
            )
        )
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
            est = quietly(lambda f=frame, m=one: MultiplyRobustATE(m).fit(f, "y", **ROLES))
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


def tables(scale: float) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and content of every table; ``scale`` multiplies the replications."""
    yield "iv_covers", table_models(COVERS, round(1000 * scale))
    yield "iv_non_covers", table_models(NON_COVERS, round(200 * scale))
    yield "iv_designs", table_designs(round(1000 * scale))
    yield "iv_weak", table_weak(round(1000 * scale))


SHARES = ("coverage", "coverage, influence SE", "coverage, normal interval",
          "coverage, robust set", "robust set unbounded")  # fmt: skip


def disagreements(name: str, new: pd.DataFrame, stored: pd.DataFrame) -> list[str]:
    """Cells of a quick table that differ from the stored one by more than 4 Monte-Carlo errors."""
    out = []
    for old, now in zip(stored.to_dict("records"), new.to_dict("records"), strict=True):
        old_n, new_n = old["replications"], now["replications"]
        for column in stored.columns:
            if pd.isna(old[column]) and pd.isna(now[column]):  # a cell the table leaves empty
                continue
            if column in SHARES:
                p = (old[column] * old_n + 1) / (old_n + 2)
                error = np.sqrt(p * (1 - p) * (1 / old_n + 1 / new_n)) + 0.5 / new_n
            elif column == "bias":
                error = np.hypot(old["bias_mc_error"], now["bias_mc_error"])
            else:
                continue
            if not abs(now[column] - old[column]) <= 4 * error:
                out.append(
                    f"{name}, {old[stored.columns[0]]}, {column}: {now[column]:.4g} now, "
                    f"{old[column]:.4g} stored"
                )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="compare a small run with the tables")
    quick = parser.parse_args().quick
    problems = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for name, table in tables(0.1 if quick else 1.0):
        path = FOLDER / f"{name}.csv"
        if quick:
            problems += disagreements(name, table, pd.read_csv(path))
        else:
            table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
        print(f"\n{name} ({time.perf_counter() - start:.0f} s)\n{table.round(3).to_string()}")
    print("\n".join(problems) if problems else "\nAll tables agree." if quick else "\nStored.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
