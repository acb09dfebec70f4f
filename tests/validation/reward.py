"""Monte-Carlo tables of the reward estimators, stored for the documentation.

``nox -s validation -- reward`` rewrites ``docs/_data/validation/reward_*.csv``;
``--quick`` runs fewer replications and compares with the stored tables instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from validation._tables import Table, row_of, run, summarise

from causalfair.datasets import (
    make_headlines,
    make_linear_reward,
    make_popularity_iv,
    make_preferences,
    make_proximal_reward,
    make_text_rates,
)
from causalfair.reward import (
    DeconfoundedReward,
    InstrumentedReward,
    PairwiseReward,
    ProximalReward,
)

METHODS = ("naive", "as_feature", "invariant", "residual_y", "subtract", "orthogonal")
PLAIN = {"penalty": 0.0, "numeric_basis": "linear"}
RATES = ["x0", "x1", "x2", "x3"]


def clustered(seed: Any, n: int = 800) -> tuple[pd.DataFrame, dict[str, float]]:
    """A hundred tests whose rows share part of the text and part of the outcome."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    test, f = np.repeat(np.arange(n // 8), 8), rng.integers(0, 10, n)
    shared = rng.normal(size=n // 8)[test]
    x = 0.3 * f + rng.normal(size=n) + shared
    y = 0.5 * x + f + rng.normal(size=n // 8)[test] + rng.normal(size=n)
    return pd.DataFrame({"x": x, "f": f, "y": y, "test": test}), {"beta": 0.5}


def designs() -> list[tuple[str, Any, Any, str, dict[str, Any], str, Callable[[Any], float]]]:
    """Name, simulator, estimator, outcome, roles, term and truth."""

    def linear(s: Any) -> Any:
        return make_linear_reward(400, random_state=s)

    def held(method: str) -> Callable[[], Any]:
        return lambda: DeconfoundedReward(method=method, **PLAIN)

    x_w = {"embedding": ["x"], "numeric": ["w"]}
    tests = {"embedding": ["x"], "categorical": ["f"]}
    rates = {"embedding": RATES, "categorical": ["test"], "trials": "views", "cluster": "test"}
    iv = {"embedding": ["x"], "endogenous": "popularity", "instruments": "slot"}
    proxies = {"embedding": ["x"], "outcome_proxy": "outcome_proxy", "text_proxy": "text_proxy"}
    pairs = {"covariates": ["d0", "d1", "d2", "d3"], "nuisance": ["length_gap", "shown_first"]}

    def beta(truth: Any) -> float:
        return float(np.atleast_1d(truth["beta"])[0])

    return [
        ("orthogonal, one confounder", linear, held("orthogonal"), "y", x_w, "x", beta),
        ("subtract, one confounder", linear, held("subtract"), "y", x_w, "x", beta),
        ("naive, one confounder", linear, held("naive"), "y", x_w, "x", beta),
        ("residual_y, one confounder", linear, held("residual_y"), "y", x_w, "x", beta),
        ("orthogonal, clustered errors", clustered, held("orthogonal"), "y",
         {**tests, "cluster": "test"}, "x", beta),
        ("orthogonal, clusters ignored", clustered, held("orthogonal"), "y", tests, "x", beta),
        ("rates of 300 tests", lambda s: make_text_rates(random_state=s), held("orthogonal"),
         "clicks", rates, "x0", beta),
        ("instrumented popularity", lambda s: make_popularity_iv(1_000, random_state=s),
         lambda: InstrumentedReward(penalty=0.0), "y", iv, "x", beta),
        ("popularity held fixed", lambda s: make_popularity_iv(1_000, random_state=s),
         held("orthogonal"), "y", {"embedding": ["x"], "numeric": ["popularity"]}, "x", beta),
        ("two proxies", lambda s: make_proximal_reward(1_000, random_state=s),
         lambda: ProximalReward(penalty=0.0), "y", proxies, "x", beta),
        ("pairs, nuisances fitted", lambda s: make_preferences(1_000, random_state=s),
         lambda: PairwiseReward(penalty=0.0), "win", pairs, "d0", beta),
        ("pairs, nuisances ignored", lambda s: make_preferences(1_000, random_state=s),
         lambda: PairwiseReward(penalty=0.0), "win", {"covariates": pairs["covariates"]}, "d0",
         beta),
    ]  # fmt: skip


def table_intervals(replications: int) -> pd.DataFrame:
    """Slopes whose truth is known: right and wrong ways to hold circumstances fixed."""
    lines = []
    for number, (name, simulate, make, y, roles, term, value) in enumerate(designs()):
        rows, truth = [], 0.0
        for r in range(replications):
            seed = (7, number, r)
            frame, facts = simulate(seed if simulate is clustered else np.random.SeedSequence(seed))
            truth = value(facts)
            rows.append(row_of(make().fit(frame, y, **roles), term))
        lines.append({"design": name, "truth": truth, **summarise(rows, truth)})
    return pd.DataFrame(lines)


def table_headlines(replications: int) -> pd.DataFrame:
    """What each method would have taught from the headline logs."""
    found = []
    for r in range(replications):
        logs, truth = make_headlines(random_state=r)
        roles = {"text": "headline", "categorical": ["section", "hour"]}
        reward = DeconfoundedReward(random_state=r).fit(logs, "outcome", **roles)
        judged = {
            "candidates": truth["evaluation_texts"],
            "truth": truth["evaluation_reward"],
            "marker": truth["evaluation_attributes"]["shock"].astype(bool),
        }
        found.append(reward.compare(METHODS, **judged).to_frame())
        clean = logs.assign(outcome=logs["outcome"] - truth["confounder_effect"])
        oracle = DeconfoundedReward(method="naive", random_state=r)
        oracle.fit(clean, "outcome", text="headline")
        found.append(oracle.compare(["naive"], **judged).to_frame().assign(method="oracle"))
    columns = ["spearman", "pair_accuracy", "best_of_16_gain", "marker_share", "calibration"]
    means = pd.concat(found).groupby("method", sort=False)[columns].mean().reset_index()
    means.insert(1, "replications", replications)
    return means


def other_rankings(stored: pd.DataFrame, fresh: pd.DataFrame, *_: int) -> list[str]:
    """Methods whose rank correlation with the truth has moved."""
    gap = (fresh["spearman"] - stored["spearman"]).abs()
    return [
        f"Spearman of {fresh['method'][k]} differs by {g:.3f}" for k, g in gap.items() if g > 0.05
    ]


TABLES = {
    "reward_intervals": Table(table_intervals, 300, 60),
    "reward_headlines": Table(table_headlines, 6, 2, compare=other_rankings),
}


if __name__ == "__main__":
    run(__doc__, TABLES)
