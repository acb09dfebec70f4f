"""Simulation-based calibration of the risk model's samplers, for the documentation.

``nox -s validation -- risk`` rewrites ``docs/_data/validation/risk_calibration.csv``;
``--quick`` runs a small version and compares it with the stored table instead.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit
from validation._tables import Table, run

from causalfair.exceptions import IdentificationError
from causalfair.risk._constraints import read_expertise, read_prevalence
from causalfair.risk._data import read_rows
from causalfair.risk._design import fit_design
from causalfair.risk._mode import find_mode
from causalfair.risk._model import DEFAULT_PRIORS, Law, Layout, build_problem
from causalfair.risk._nested import resampled_draws
from causalfair.risk._sampling import sample
from causalfair.risk._simulate import row_probabilities

N_CALIBRATION, DRAWS, SD, SIGMA_SCALE = 500, 127, 0.03, 1.5
# Kept draws of NUTS are nearly independent: every fourth of two chains.
CHAINS, TUNE, THIN = 2, 400, 4
BINS, LOW_P = 8, 1e-3
TERMS = ("risk:intercept", "risk:x1", "risk:x2", "testing:intercept", "testing:x1", "sigma")


def one_rank(law: str, seed: int, sampler: str) -> np.ndarray | None:
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
    if sampler == "quick":
        theta = resampled_draws(mode, DRAWS, rng).draws
    else:
        chains, _ = sample(
            mode, sampler="nutpie", draws=THIN * (DRAWS + 1) // CHAINS, tune=TUNE, chains=CHAINS,
            seed=seed, target_accept=0.9,
        )  # fmt: skip
        theta = chains[:, ::THIN].reshape(-1, chains.shape[-1])[:DRAWS]
    draws = mode.problem.natural(theta)
    drawn = np.column_stack([draws.beta, draws.delta, draws.sigma])
    return np.asarray((drawn < np.array([*beta, *delta, sigma])).sum(axis=0))


def calibration(runs: int) -> pd.DataFrame:
    """Uniformity of ranks by sampler, law and parameter."""
    lines = []
    for sampler, law in itertools.product(("quick", "NUTS"), ("uniform", "normal")):
        ranks: list[np.ndarray] = []
        seed = 0
        while len(ranks) < runs:
            rank = one_rank(law, seed, sampler)
            seed += 1
            if rank is not None:
                ranks.append(rank)
        for name, column in zip(TERMS, np.array(ranks).T, strict=True):
            counts = np.bincount(column * BINS // (DRAWS + 1), minlength=BINS)
            place = (column + 0.5) / (DRAWS + 1)
            lines.append({
                "sampler": sampler, "unobservables": law, "term": name, "runs": runs,
                "mean rank": round(float(place.mean()), 3),
                "coverage of 90% intervals": round(float((abs(place - 0.5) < 0.45).mean()), 3),
                "p of uniform ranks": round(float(stats.chisquare(counts).pvalue), 4),
            })  # fmt: skip
    return pd.DataFrame(lines)


def not_uniform(table: pd.DataFrame) -> list[str]:
    """Ranks that chance does not explain."""
    off = table[table["p of uniform ranks"] < LOW_P]
    return [
        f"{sampler}, {law}, {term}: ranks are not uniform"
        for sampler, law, term in zip(
            off["sampler"], off["unobservables"], off["term"], strict=True
        )
    ]


if __name__ == "__main__":
    run(__doc__, {"risk_calibration": Table(calibration, 200, 12, check=not_uniform)})
