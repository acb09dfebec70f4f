"""Calibration of risk models, and what constraints do to their intervals, for the documentation.

``python tests/validation/risk.py`` rewrites ``docs/_data/validation/risk_*.csv``; ``--quick`` runs a
small version and compares it with the stored tables instead.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

from causalfair.datasets import make_selective_labels
from causalfair.exceptions import CausalFairWarning, IdentificationError
from causalfair.risk import DomainConstrainedRisk
from causalfair.risk._constraints import read_expertise, read_prevalence
from causalfair.risk._data import read_rows
from causalfair.risk._design import fit_design
from causalfair.risk._mode import find_mode
from causalfair.risk._model import DEFAULT_PRIORS, Law, Layout, build_problem
from causalfair.risk._nested import resampled_draws
from causalfair.risk._simulate import row_probabilities

FOLDER = Path(__file__).parents[2] / "docs" / "_data" / "validation"
N_CALIBRATION, DRAWS, SD, SIGMA_SCALE = 300, 127, 0.03, 1.5
BINS, LOW_P = 8, 1e-3
N_WIDTHS = 2500
TERMS = ("risk:intercept", "risk:x1", "risk:x2", "testing:intercept", "testing:x1", "sigma")


def one_rank(law: str, seed: int) -> np.ndarray | None:
    """Ranks of the true parameters among posterior draws; None where the data set is unusable.

    Data sets are left out by what is seen of them only, which keeps ranks uniform. The prevalence
    is drawn around the mean risk with the standard error the model is told.
    """
    rng = np.random.default_rng([seed, law == "normal"])
    X = rng.normal(size=(N_CALIBRATION, 2))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    beta, delta = rng.normal(0, 3, 3), rng.normal(0, 3, 2)
    sigma = abs(rng.normal(0, SIGMA_SCALE))
    z = rng.uniform(0, sigma, len(X)) if law == "uniform" else rng.normal(0, sigma, len(X))
    a, d = beta[0] + X @ beta[1:], delta[0] + X[:, 0] * delta[1]
    tested = rng.random(len(X)) < expit(a + z + d)
    y = rng.random(len(X)) < expit(a + z)
    prevalence = float(rng.normal(row_probabilities((4,), a, d, 1.0, sigma, law)[0].mean(), SD))
    frame = pd.DataFrame(X, columns=["x1", "x2"]).assign(tested=tested.astype(int))
    frame["y"] = np.where(tested, y, np.nan)
    usable = 0.05 <= tested.mean() <= 0.95 and 0 < y[tested].mean() < 1 and 0 < prevalence < 1
    if not usable:
        return None
    rows = read_rows(frame, "y", tested="tested", covariates=["x1", "x2"], owner="calibration")
    design = fit_design(rows.data, rows.weight, owner="calibration")
    try:
        known = read_prevalence(prevalence, SD, rows, owner="calibration")
    except IdentificationError:
        return None
    layout = Layout(
        design, read_expertise(["x1"], design.names, 3.0, owner="calibration"), "", (), "", ()
    )
    rule = Law(law, 1.0, None, np.empty(0), np.empty(0)).with_rule(2.0)
    problem = build_problem(
        rows, layout, rule, known, {**DEFAULT_PRIORS, "sigma": SIGMA_SCALE},
        design.standardise(rows.data.matrix()),
    )  # fmt: skip
    mode = find_mode(problem, owner="calibration")
    draws = mode.problem.natural(resampled_draws(mode, DRAWS, rng).draws)
    drawn = np.column_stack([draws.beta, draws.delta, draws.sigma])
    return np.asarray((drawn < np.array([*beta, *delta, sigma])).sum(axis=0))


def calibration(
    runs: int, first: int, laws: tuple[str, ...] = ("uniform", "normal")
) -> pd.DataFrame:
    """Uniformity of ranks by law and parameter."""
    lines = []
    for law in laws:
        ranks: list[np.ndarray] = []
        seed = first
        while len(ranks) < runs:
            rank = one_rank(law, seed)
            seed += 1
            if rank is not None:
                ranks.append(rank)
        for name, column in zip(TERMS, np.array(ranks).T, strict=True):
            counts = np.bincount(column * BINS // (DRAWS + 1), minlength=BINS)
            share = (column + 0.5) / (DRAWS + 1)
            lines.append({
                "unobservables": law, "term": name, "runs": runs,
                "mean rank": round(float(share.mean()), 3),
                "coverage of 90% intervals": round(float((abs(share - 0.5) < 0.45).mean()), 3),
                "p of uniform ranks": round(float(stats.chisquare(counts).pvalue), 4),
            })  # fmt: skip
    return pd.DataFrame(lines)


CONSTRAINTS = {
    "none": {},
    "prevalence": {"factor": 1.0, "sd": 0.002},
    "expertise": {"expertise": ["x1"]},
    "both": {"factor": 1.0, "sd": 0.002, "expertise": ["x1"]},
    "both, prevalence 10% low, sd 0.002": {"factor": 0.9, "sd": 0.002, "expertise": ["x1"]},
    "both, prevalence 10% high, sd 0.002": {"factor": 1.1, "sd": 0.002, "expertise": ["x1"]},
    "both, prevalence 10% low, sd 0.02": {"factor": 0.9, "sd": 0.02, "expertise": ["x1"]},
}


def widths(runs: int, first: int) -> pd.DataFrame:
    """Median over data sets of width, error and coverage against no constraint."""
    records = []
    for seed in range(first, first + runs):
        frame, truth = make_selective_labels(N_WIDTHS, random_state=seed)
        known = {f"risk:{k}": v for k, v in truth["risk"].items()} | {"sigma": truth["sigma"]}
        known |= {f"testing:{k}": truth["testing"][k] for k in ("intercept", "x1")}
        for name, given in CONSTRAINTS.items():
            options = {"expertise": given.get("expertise")}
            if "factor" in given:
                options["prevalence"] = given["factor"] * truth["prevalence"]
                options["prevalence_sd"] = given["sd"]
            model = DomainConstrainedRisk(sampler="laplace", draws=300, random_state=0, **options)
            model.fit(frame, "y", tested="tested", covariates=["x1", "x2", "x3", "x4"])
            ends = model.conf_int()
            z = model.conflicts_[0].z if model.conflicts_ else np.nan
            for term, value in known.items():
                k = model.estimates_.names.index(term)
                records.append((seed, name, term, ends[k, 1] - ends[k, 0],
                                abs(model.estimates_.estimate[k] - value),
                                ends[k, 0] <= value <= ends[k, 1], z))  # fmt: skip
    table = pd.DataFrame(
        records, columns=["seed", "constraint", "term", "width", "error", "inside", "z"]
    )
    keys = ["seed", "term"]
    free = table[table["constraint"] == "none"].set_index(keys)[["width", "error"]]
    lines = []
    for name in CONSTRAINTS:
        part = table[table["constraint"] == name].set_index(keys)
        ratio = part["width"] / free["width"]
        error = part["error"].groupby("seed").mean() / free["error"].groupby("seed").mean()
        lines.append({
            "constraint": name, "data sets": runs,
            "width, risk": round(float(ratio.filter(like="risk:", axis=0).median()), 2),
            "width, intercept and sigma": round(float(
                ratio[ratio.index.get_level_values("term").isin(["risk:intercept", "sigma"])]
                .median()), 2),
            "error": round(float(error.median()), 2),
            "coverage": round(float(part["inside"].mean()), 3),
            "size of the conflict z": round(float(part["z"].abs().groupby("seed").first().median()), 1),
        })  # fmt: skip
    return pd.DataFrame(lines)


def problems_of(ranks: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Ranks that are not uniform, constraints that do not narrow."""
    found = [
        f"{row.unobservables}, {row.term}: ranks are not uniform"
        for row in ranks.itertuples()
        if row[6] < LOW_P
    ]
    narrow = table.set_index("constraint")["width, intercept and sigma"]
    found += [f"{name} does not narrow" for name in ("prevalence", "both") if narrow[name] >= 0.9]
    return found


def main() -> int:
    """Write or compare the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        tables = {
            "risk_constraints": widths(1 if quick else 8, first=1000 if quick else 0),
            "risk_calibration": calibration(24 if quick else 200, first=5000 if quick else 0),
        }
    for name, table in tables.items():
        print(table.to_string(index=False))
        if not quick:
            FOLDER.mkdir(parents=True, exist_ok=True)
            table.to_csv(FOLDER / f"{name}.csv", index=False)
    problems = problems_of(tables["risk_calibration"], tables["risk_constraints"])
    if quick:
        for name, table in tables.items():
            if list(pd.read_csv(FOLDER / f"{name}.csv").columns) != list(table.columns):
                problems.append(f"{name} has other columns than the stored table")
    print(f"{time.perf_counter() - start:.0f} s;", problems or "no problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
