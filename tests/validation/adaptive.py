"""Coverage and width tables of the reusable holdout, stored for the documentation.

``python tests/validation/adaptive.py`` rewrites ``docs/_data/validation/adaptive_*.csv``;
``--quick`` runs fewer repetitions and compares with the stored tables instead.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
from scipy import stats

from causalfair.adaptive import bounds, simulate
from causalfair.adaptive._attacks import ATTACKS

FOLDER = Path(__file__).parents[2] / "docs" / "_data" / "validation"
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


def coverage_table(runs: int, seed: int) -> pd.DataFrame:
    """Simultaneous coverage of every certified mechanism, and of exact answers, by attack."""
    lines = []
    for mechanism, params in {**CERTIFIED, "naive": {}}.items():
        for attack in ATTACKS:
            frame, truth = simulate.coverage(
                mechanism, attack, n=N, k=K, beta=BETA, n_runs=runs, random_state=seed, **params
            )
            lines.append({
                "mechanism": mechanism, "attack": attack, "n": N, "queries": K, "runs": runs,
                "radius": round(truth["radius"], 4), "coverage": frame["covered"].mean(),
                "95 % point of the largest error": round(frame["max_error"].quantile(0.95), 4),
            })  # fmt: skip
    return pd.DataFrame(lines)


def width_table() -> pd.DataFrame:
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


def main() -> int:
    """Write or compare the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    start = time.perf_counter()
    coverage = coverage_table(40 if quick else 500, seed=11 if quick else 10)
    widths = width_table()
    print(coverage.to_string(index=False))
    print(widths.to_string(index=False))
    problems = problems_of(coverage)
    if quick:
        stored = pd.read_csv(FOLDER / "adaptive_widths.csv")
        if not stored.equals(widths.astype(stored.dtypes.to_dict())):
            problems.append("the widths differ from the stored table")
    else:
        FOLDER.mkdir(parents=True, exist_ok=True)
        coverage.to_csv(FOLDER / "adaptive_coverage.csv", index=False)
        widths.to_csv(FOLDER / "adaptive_widths.csv", index=False)
    print(f"{time.perf_counter() - start:.0f} s;", problems or "no problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
