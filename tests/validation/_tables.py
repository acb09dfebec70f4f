"""What the validation scripts share: where tables are kept, how a small run is held against them."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalfair.exceptions import CausalFairWarning

FOLDER = Path(__file__).parents[2] / "docs" / "_data" / "validation"
SHARES = ("coverage", "rejections", "robust set unbounded")
MC_ERRORS = 4  # beyond so many Monte-Carlo errors two runs differ by more than chance


def beyond_chance(
    stored: pd.DataFrame, fresh: pd.DataFrame, n_stored: int, n_fresh: int
) -> list[str]:
    """Shares and biases of a small run that chance does not explain."""
    shares = [name for name in stored.columns if name.startswith(SHARES)]
    complaints = []
    for old, new in zip(stored.to_dict("records"), fresh.to_dict("records"), strict=True):
        allowed = {}
        for name in shares:
            p = (old[name] * n_stored + 1) / (n_stored + 2)
            allowed[name] = np.sqrt(p * (1 - p) * (1 / n_stored + 1 / n_fresh)) + 0.5 / n_fresh
        if "bias" in old:
            allowed["bias"] = old["SD"] * np.sqrt(1 / n_stored + 1 / n_fresh)
        complaints += [
            f"{old[stored.columns[0]]}, {name}: {new[name]:.4g} now, {old[name]:.4g} stored"
            for name, error in allowed.items()
            if not pd.isna(old[name]) and not abs(new[name] - old[name]) <= MC_ERRORS * error
        ]
    return complaints


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


def row_of(est: Any, term: str) -> dict[str, float]:
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


def nothing_wrong(table: pd.DataFrame) -> list[str]:
    """A table that is only held against the stored one."""
    return []


@dataclass(frozen=True)
class Table:
    """A table and how it is checked."""

    make: Callable[[int], Any]  # frame or rows, given the number of replications
    full: int
    quick: int
    compare: Callable[[pd.DataFrame, pd.DataFrame, int, int], Iterable[str]] = beyond_chance
    check: Callable[[pd.DataFrame], Iterable[str]] = nothing_wrong  # of every run


def run(description: str | None, tables: dict[str, Table]) -> None:
    """Make the tables and store them, or hold small ones against those stored; exit with what is wrong.

    Warnings about weak identification are part of the experiments.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="compare small tables with the stored")
    parser.add_argument("--only", choices=sorted(tables), help="make this table alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore", CausalFairWarning)
    FOLDER.mkdir(parents=True, exist_ok=True)
    complaints: list[str] = []
    for name in [options.only] if options.only else tables:
        table, path = tables[name], FOLDER / f"{name}.csv"
        count = table.quick if options.quick else table.full
        start = time.perf_counter()
        fresh = pd.DataFrame(table.make(count))
        print(f"\n{name}: {count} replications, {time.perf_counter() - start:.0f} s")
        print(fresh.round(4).to_string(index=False), flush=True)
        found = list(table.check(fresh))
        if options.quick:
            found += table.compare(pd.read_csv(path), fresh, table.full, count)
        else:
            fresh.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
        complaints += [f"{name}: {complaint}" for complaint in found]
    sys.exit("\n".join(complaints) or None)
