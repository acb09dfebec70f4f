"""Cost of the causal forest: trees, rows, prediction, and races against EconML and StatsPAI.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_forest.py --benchmark-only -s``.
The peers are optional; a race without its peer is skipped. Nuisances are given to all, two threads each.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
import pytest

from causalfair.datasets import make_heterogeneous_effects
from causalfair.forest import CausalForest

TREES = 500
JOBS = 2


def study(n: int, p: int = 10, setup: str = "B") -> tuple:
    frame, truth = make_heterogeneous_effects(n, setup=setup, n_covariates=p, random_state=0)
    X = frame[[f"x{j}" for j in range(p)]].to_numpy()
    return X, frame["y"].to_numpy(), frame["treatment"].to_numpy(), truth


def grow(X, y, w, truth, trees: int = TREES) -> CausalForest:
    given = {"outcome": truth["outcome"], "propensity": truth["propensity"]}
    forest = CausalForest(trees, n_jobs=JOBS, random_state=1)
    return forest.fit(X, y, treatment=w, nuisances=given)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    grow(*study(200), trees=20)


@pytest.mark.parametrize("n", [1_000, 10_000, 100_000])
def test_rows(benchmark, n):
    data = study(n)
    benchmark.pedantic(grow, args=data, rounds=1 if n > 50_000 else 3, iterations=1)


@pytest.mark.parametrize("trees", [250, 500, 1000, 2000])
def test_trees(benchmark, trees):
    data = study(4_000)
    benchmark.pedantic(grow, args=data, kwargs={"trees": trees}, rounds=2, iterations=1)


def test_prediction_of_2000_rows_with_errors(benchmark):
    X, y, w, truth = study(10_000)
    forest = grow(X, y, w, truth)
    new = np.random.default_rng(1).normal(size=(2_000, 10))
    benchmark.pedantic(forest.predict_interval, args=(new,), rounds=3, iterations=1)


def test_a_million_rows(benchmark):
    data = study(1_000_000, 20)
    benchmark.pedantic(grow, args=data, rounds=1, iterations=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n1,000,000 x 20, {TREES} trees: peak memory {peak:.1f} GB")


def fresh_rows(setup: str) -> tuple:
    frame, truth = make_heterogeneous_effects(2_000, setup=setup, random_state=99)
    return frame[[f"x{j}" for j in range(10)]].to_numpy(), truth["effect"]


# Races --------------------------------------------------------------------------------------------


def econml_forest(X, y, w, truth) -> Callable:
    from econml.dml import CausalForestDML
    from sklearn.dummy import DummyRegressor

    model = CausalForestDML(
        model_y=DummyRegressor(), model_t=DummyRegressor(), cv=2, n_estimators=TREES,
        n_jobs=JOBS, random_state=1,
    )  # fmt: skip
    model.fit(y - truth["outcome"], w - truth["propensity"], X=X)
    return lambda rows: model.effect(rows, T0=0, T1=1)


def statspai_forest(X, y, w, truth) -> Callable:
    import statspai

    model = statspai.causal_forest(
        Y=y, T=w, X=X, n_estimators=TREES, Y_hat=truth["outcome"], W_hat=truth["propensity"],
        n_jobs=JOBS, random_state=1,
    )  # fmt: skip
    return lambda rows: np.ravel(model.effect(rows))


PEERS = {"econml": (econml_forest, 10.0), "statspai": (statspai_forest, 3.0)}


@pytest.mark.filterwarnings("default")  # what peers warn about as they import and compile
@pytest.mark.parametrize("setup", ["B", "D"])
@pytest.mark.parametrize("peer", PEERS)
def test_race(benchmark, peer, setup):
    pytest.importorskip(peer)
    make, least = PEERS[peer]
    X, y, w, truth = study(10_000, setup=setup)
    new, new_truth = fresh_rows(setup)
    ours, theirs, errors = [], [], {}
    for _ in range(3):  # interleaved, so that both meet the same load
        start = time.perf_counter()
        forest = grow(X, y, w, truth)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        effect = make(X, y, w, truth)
        theirs.append(time.perf_counter() - start)
    for name, predict in (("causalfair", forest.predict), (peer, effect)):
        errors[name] = np.sqrt(np.mean((predict(new) - new_truth) ** 2))
    ratio = min(theirs) / min(ours)
    print(
        f"\n{setup}: causalfair {min(ours):.2f} s, {peer} {min(theirs):.2f} s, ratio {ratio:.1f}; "
        f"RMSE {errors['causalfair']:.3f} and {errors[peer]:.3f}"
    )
    benchmark.extra_info.update(ratio=ratio, **errors)
    benchmark.pedantic(grow, args=(X, y, w, truth), rounds=1, iterations=1)
    assert errors["causalfair"] < 1.05 * errors[peer]
    assert ratio > least
