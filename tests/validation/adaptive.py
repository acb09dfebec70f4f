"""Coverage and width tables of the reusable holdout, stored for the documentation.

``nox -s validation -- adaptive`` rewrites ``docs/_data/validation/adaptive_*.csv``;
``--quick`` runs fewer repetitions and compares with the stored tables instead.
"""

from __future__ import annotations

import pandas as pd
from scipy import stats
from validation._tables import Table, run

from causalfair.adaptive import bounds, simulate
from causalfair.adaptive._attacks import ATTACKS

CERTIFIED = {
    "gaussian": {},
    "laplace": {},
    "thresholdout": {"budget": 5},
    "sparse_validate": {"budget": 10},
    "guess_and_check": {},
    "split_rounds": {"rounds": 2},
    "ladder": {},
    "winner_only": {"value_cells": 100},
    "noisy_argmin": {"epsilon": 0.1, "rounds": 10},
    "multiplicative_weights": {"n_cells": 256},
}
N, K, BETA = 2_000, 100, 0.05


def coverage_table(runs: int) -> pd.DataFrame:
    """Simultaneous coverage of every certified mechanism, and of exact answers, by attack."""
    lines = []
    for mechanism, params in {**CERTIFIED, "naive": {}}.items():
        for attack in ATTACKS:
            frame, truth = simulate.coverage(
                mechanism, attack, n=N, k=K, beta=BETA, n_runs=runs, random_state=10, **params
            )
            lines.append({
                "mechanism": mechanism, "attack": attack, "n": N, "queries": K, "runs": runs,
                "radius": round(truth["radius"], 4), "coverage": frame["covered"].mean(),
                "95 % point of the largest error": round(frame["max_error"].quantile(0.95), 4),
            })  # fmt: skip
    return pd.DataFrame(lines)


def width_table(_: int) -> pd.DataFrame:
    """Radius of every method at n = 10,000."""
    columns = {}
    for k in (10**2, 10**3, 10**4, 10**5):
        frame = bounds.compare(10_000, k, BETA).to_frame().set_index("method")["radius"]
        columns[f"k = {k:,}"] = frame.where(frame < 0.5).round(4)
    return pd.DataFrame(columns).reset_index()


def problems_of(table: pd.DataFrame) -> list[str]:
    """Certified rows below the binomial band of 1 - beta, or exact answers that pass it."""
    found = []
    for row in table.itertuples():
        low = stats.binom.ppf(0.005, row.runs, 1 - BETA) / row.runs
        fails = row.coverage < low
        if fails != (row.mechanism == "naive"):
            found.append(f"{row.mechanism} under {row.attack}: coverage {row.coverage:.3f}")
    return found


def other_widths(stored: pd.DataFrame, fresh: pd.DataFrame, *_: int) -> list[str]:
    """Radii are exact: none may differ."""
    same = stored.equals(fresh.astype(stored.dtypes.to_dict()))
    return [] if same else ["the widths differ from the stored table"]


def nothing_to_compare(*_: object) -> list[str]:
    """Coverage is held against its guarantee, not against another run."""
    return []


TABLES = {
    "adaptive_coverage": Table(coverage_table, 500, 40, nothing_to_compare, problems_of),
    "adaptive_widths": Table(width_table, 1, 1, other_widths),
}


if __name__ == "__main__":
    run(__doc__, TABLES)
