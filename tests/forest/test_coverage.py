"""Monte-Carlo coverage; the long tables are in tests/validation/forest.py."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from causalfair.datasets import make_heterogeneous_effects
from causalfair.forest import CausalForest, rank_average_treatment_effect, validate_ranking
from causalfair.forest._toc import rank_units, rate, rate_influence

BAND_200 = (181, 197)  # 99 % binomial band of 200 intervals at 95 %


@pytest.mark.parametrize(("method", "truth"), [("autoc", 0.90319), ("qini", 0.28209479)])
def test_rate_intervals_cover(method, truth):
    weights = {"autoc": np.ones_like, "qini": lambda q: q}
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng([7, seed])
        tau, w = rng.normal(size=1000), rng.integers(0, 2, 1000)
        gamma = 4 * (w - 0.5) * (tau * w + rng.normal(size=1000) - tau / 2)
        ranking = rank_units(tau, gamma, np.ones(1000))
        error = np.sqrt(np.mean(rate_influence(ranking, method) ** 2) / 1000)
        hits += abs(rate(ranking, weights[method]) - truth) < 1.96 * error
    assert BAND_200[0] <= hits <= BAND_200[1]


def average_coverage(replications: int, trees: int) -> int:
    hits = 0
    for seed in range(replications):
        frame, truth = make_heterogeneous_effects(500, n_covariates=5, random_state=seed)
        given = {"propensity": 0.5, "outcome": truth["outcome"]}
        forest = CausalForest(trees, random_state=seed).fit(
            frame, "y", treatment="treatment", covariates="all", nuisances=given
        )
        low, high = forest.estimates_.conf_int()[0]
        hits += low < 0.8061 < high  # E[x0 + log(1 + exp(x1))] for standard normal x
    return hits


def test_the_average_effect_of_design_b():
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    assert np.sum(weights * np.logaddexp(0, nodes)) / np.sqrt(2 * np.pi) == pytest.approx(
        0.8061, abs=1e-4
    )


def test_average_intervals_cover():
    assert 52 <= average_coverage(60, 50) <= 60  # 99.9 % band


@pytest.mark.slow
def test_average_intervals_cover_at_length():
    assert BAND_200[0] <= average_coverage(200, 300) <= BAND_200[1]


@pytest.mark.slow
def test_sequential_test_holds_its_level():
    rejected = 0
    for seed in range(200):
        rng = np.random.default_rng([8, seed])
        X, w = rng.normal(size=(500, 3)), rng.integers(0, 2, 500)
        y = X[:, 0] + w + rng.normal(size=500)
        check = validate_ranking(
            CausalForest(60), X, y, treatment=w, nuisances={"propensity": 0.5}, n_bootstrap=50,
            random_state=seed,
        )  # fmt: skip
        rejected += check.p_value < 0.05
    assert rejected <= 19


def test_pointwise_intervals_cover_a_flat_effect():
    """Where the effect is constant the forest is unbiased, so its intervals must cover."""
    hits = []
    for seed in range(12):
        rng = np.random.default_rng([9, seed])
        X, w = rng.normal(size=(600, 3)), rng.integers(0, 2, 600)
        y = w + rng.normal(size=600)
        given = {"propensity": 0.5, "outcome": 0.5}
        forest = CausalForest(600, random_state=seed).fit(X, y, treatment=w, nuisances=given)
        interval = forest.predict_interval(rng.normal(size=(40, 3)))
        hits.append(np.mean((interval[:, 0] < 1) & (interval[:, 1] > 1)))
    assert np.mean(hits) > 0.88


def test_a_ranking_on_other_data_is_normal_under_no_heterogeneity():
    ratios = []
    for seed in range(200):
        rng = np.random.default_rng([10, seed])
        result = rank_average_treatment_effect(
            rng.normal(size=300), rng.normal(size=300), std_error="influence"
        )
        ratios.append(result.ratio[0])
    assert abs(np.mean(ratios)) < 0.25
    assert 2 <= np.sum(np.abs(ratios) > norm.ppf(0.975)) <= 19
