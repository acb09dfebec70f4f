"""Monte-Carlo tables of the selection models, the odds identity and the threshold test.

``nox -s validation -- risk_family`` rewrites ``docs/_data/validation/risk_family_*.csv``;
``--quick`` runs fewer replications and compares with the stored tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from validation._tables import Table, run

from causalfair.datasets import (
    make_heckman_selection,
    make_probit_selection,
    make_threshold_searches,
)
from causalfair.exceptions import ConvergenceError, IdentificationError
from causalfair.risk import (
    BivariateProbitSelection,
    DecisionShiftEstimator,
    HeckmanRisk,
    ThresholdPriors,
    ThresholdTest,
)
from causalfair.risk._selection_profile import profile_of


def line(found: list[tuple[float, float, float, float, float]]) -> dict[str, float]:
    """Bias, spread, standard error and coverage of (estimate, se, low, high, truth)."""
    estimate, error, low, high, truth = np.array(found).T
    return {
        "replications": len(found),
        "bias": float(np.mean(estimate - truth)),
        "SD": float(np.std(estimate - truth)),
        "mean SE": float(np.mean(error)),
        "coverage": float(np.mean((low <= truth) & (truth <= high))),
    }


def record(estimates: Any, term: str, truth: float) -> tuple[float, float, float, float, float]:
    one = estimates[term]
    low, high = one.conf_int()[0]
    return float(one.estimate[0]), float(one.std_error[0]), float(low), float(high), truth


def table_selection(replications: int) -> pd.DataFrame:
    """Heckman and probit selection: what each piece of knowledge buys."""
    return pd.DataFrame([
        one
        for model in ("Heckman", "probit")
        for known in ("none", "prevalence", "expertise", "both")
        for one in selection_lines(model, known, replications)
    ])  # fmt: skip


def selection_lines(model: str, known: str, replications: int) -> list[dict[str, Any]]:
    """Correlation and mean outcome of one model with one piece of knowledge."""
    normal = model == "Heckman"
    make = make_heckman_selection if normal else make_probit_selection
    columns = ["x1", "x2", "x3", *(["x4"] if normal else [])]
    sd = 0.1 if normal else 0.01
    found: dict[str, list] = {"correlation": [], "prevalence": []}
    kept: dict[str, list] = {"correlation": [], "prevalence": []}
    failed = 0
    for seed in range(replications):
        frame, truth = make(1000 if normal else 2500, random_state=1000 + seed)
        mean = float(truth["mean"].mean()) if normal else truth["prevalence"]
        noise = np.random.default_rng(seed).normal(scale=sd)
        options: dict[str, Any] = {}
        if known in ("prevalence", "both"):
            options |= {"prevalence": mean + noise, "prevalence_sd": sd}
        if known in ("expertise", "both"):
            options["expertise"] = ["x1"]
        try:
            est = (HeckmanRisk if normal else BivariateProbitSelection)(**options).fit(
                frame, "y", tested="tested", covariates=columns
            )
        except (ConvergenceError, IdentificationError):
            failed += 1
            continue
        for term, true in (("correlation", truth["correlation"]), ("prevalence", mean)):
            found[term].append(record(est.estimates_, term, true))
            if term == "correlation" or "prevalence" not in options:
                kept[term].append(in_profile(est, term, true))
    return [
        {
            "model": model, "knowledge": known, "term": term, **line(rows),
            "coverage, profile": float(np.mean(kept[term])) if kept[term] else np.nan,
            "refused": failed,
        }
        for term, rows in found.items()
    ]  # fmt: skip


def in_profile(est: Any, term: str, truth: float) -> bool:
    """Whether the likelihood-ratio test at 5% keeps the truth, so that the profile interval does."""
    objective, free, center, scale = est._maximum
    at = np.arctanh(truth) if term == "correlation" else (truth - center) / scale
    return profile_of(term, objective, free, "validation").ratio(float(at)) <= 3.8415


def table_odds(replications: int) -> pd.DataFrame:
    """The decision shift under four laws of the unobservable."""
    laws = {
        "uniform": lambda rng, n: rng.uniform(0, 2, n),
        "normal": lambda rng, n: rng.normal(size=n),
        "two points": lambda rng, n: rng.choice([-1.0, 1.5], n),
        "exponential": lambda rng, n: rng.exponential(1.0, n),
    }
    lines = []
    for name, law in laws.items():
        found: dict[str, list] = {"shift": [], "risk of the untested": []}
        # The population's values, from two million units.
        rng = np.random.default_rng(0)
        score = rng.normal(size=2_000_000) + law(rng, 2_000_000) - 1.5
        prevalence, left = float(expit(score).mean()), 1 - expit(score + 1)
        untested = float(np.sum(left * expit(score)) / np.sum(left))
        for seed in range(replications):
            rng = np.random.default_rng([seed, len(name)])
            n, sd = 5_000, 0.005
            score = rng.normal(size=n) + law(rng, n) - 1.5
            y, t = rng.random(n) < expit(score), rng.random(n) < expit(score + 1.0)
            est = DecisionShiftEstimator(
                prevalence=prevalence + rng.normal(scale=sd), prevalence_sd=sd
            ).fit(np.empty((n, 0)), np.where(t, y, np.nan), tested=t)
            found["shift"].append(record(est.estimates_, "shift", 1.0))
            found["risk of the untested"].append(
                record(est.estimates_, "risk of the untested", untested)
            )
        lines += [{"law": name, "term": term, **line(rows)} for term, rows in found.items()]
    return pd.DataFrame(lines)


def table_thresholds(replications: int) -> pd.DataFrame:
    """Threshold test, discriminant form, groups and their difference."""
    priors = ThresholdPriors(
        guilt=(-2.2, 0.3), signal=(0.7, 0.2), threshold_spread=0.5, place_guilt=0.1,
        place_signal=0.05,
    )  # fmt: skip
    found: dict[str, list] = {"threshold:a": [], "threshold:b": [], "b - a": []}
    for seed in range(replications):
        frame, truth = make_threshold_searches(
            10, thresholds={"a": 0.35, "b": 0.15}, stops=3000, signal="discriminant",
            random_state=seed,
        )  # fmt: skip
        test = ThresholdTest(priors=priors, draws=300, tune=300, chains=2, random_state=0).fit(
            frame, "hits", searches="searches", stops="stops", group="group", place="place"
        )
        true = truth["thresholds"]
        for group in "ab":
            found[f"threshold:{group}"].append(
                record(test.estimates_, f"threshold:{group}", true[group])
            )
        found["b - a"].append(record(test.differences("a"), "b - a", true["b"] - true["a"]))
    return pd.DataFrame([{"term": term, **line(rows)} for term, rows in found.items()])


if __name__ == "__main__":
    run(
        __doc__,
        {
            "risk_family_odds_identity": Table(table_odds, 200, 50),
            "risk_family_selection": Table(table_selection, 200, 12),
            "risk_family_thresholds": Table(table_thresholds, 120, 30),
        },
    )
