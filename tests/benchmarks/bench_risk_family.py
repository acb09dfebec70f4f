"""Cost of the bivariate normal kernel, of the selection models and of the odds identity.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_risk_family.py --benchmark-only``.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression

from causalfair.datasets import make_probit_selection
from causalfair.risk import BivariateProbitSelection, DecisionShiftEstimator, bivariate_normal_cdf
from causalfair.risk._threshold_model import SearchCells, ThresholdModel, named_priors

LOGIT = {"tested_learner": LogisticRegression(), "outcome_learner": LogisticRegression()}


@pytest.mark.parametrize("rho", [0.5, 0.97])
def test_bivariate_normal(benchmark, rho):
    """A million values; against scipy's general routine, value by value."""
    h, k = np.random.default_rng(0).normal(size=(2, 1_000_000))
    bivariate_normal_cdf(h[:10], k[:10], rho)
    benchmark(bivariate_normal_cdf, h, k, rho)
    law = multivariate_normal([0.0, 0.0], [[1.0, rho], [rho, 1.0]])
    start = time.perf_counter()
    for point in zip(h[:200], k[:200], strict=True):
        law.cdf(point)
    benchmark.extra_info["scipy over ours, per value"] = (
        (time.perf_counter() - start) / 200 * 1e6 / benchmark.stats["median"]
    )


@pytest.mark.parametrize("n", [10_000, 100_000, 1_000_000])
def test_decision_shift(benchmark, n):
    """Group-level estimates with their influence: seconds at any size."""
    frame, truth = make_probit_selection(n, random_state=0)
    est = DecisionShiftEstimator(prevalence=truth["prevalence"], prevalence_sd=0.01)
    benchmark.pedantic(
        est.fit, (frame, "y"), {"tested": "tested", "covariates": []}, rounds=3, warmup_rounds=1
    )


def test_decision_shift_with_learners(benchmark):
    frame, truth = make_probit_selection(100_000, random_state=0)
    est = DecisionShiftEstimator(
        prevalence=truth["prevalence"], prevalence_sd=0.01, random_state=0, **LOGIT
    )
    roles = {"tested": "tested", "covariates": ["x1", "x2", "x3"]}
    benchmark.pedantic(est.fit, (frame, "y"), roles, rounds=2)


@pytest.mark.parametrize("n", [2_000, 20_000])
def test_probit_with_selection(benchmark, n):
    frame, truth = make_probit_selection(n, random_state=0)
    est = BivariateProbitSelection(prevalence=truth["prevalence"], prevalence_sd=0.01)
    roles = {"tested": "tested", "covariates": ["x1", "x2", "x3"]}
    benchmark.pedantic(est.fit, (frame, "y"), roles, rounds=2, warmup_rounds=1)


@pytest.mark.parametrize("form", ["discriminant", "beta"])
def test_threshold_density(benchmark, form):
    """Value and gradient for 1,000 cells."""
    rng = np.random.default_rng(0)
    stops = rng.poisson(2000, 999).astype(float)
    searches = rng.binomial(stops.astype(int), 0.05).astype(float)
    hits = rng.binomial(searches.astype(int), 0.3).astype(float)
    cells = SearchCells(
        stops, searches, hits, np.tile(np.arange(3), 333), np.repeat(np.arange(333), 3),
        ("a", "b", "c"), tuple(map(str, range(333))),
    )  # fmt: skip
    model = ThresholdModel(cells, named_priors("weak", form), form)
    x = np.zeros(model.n_dim)
    model.density(x)
    benchmark(model.density, x)
