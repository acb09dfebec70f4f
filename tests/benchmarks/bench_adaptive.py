"""Cost of answers, calculators and kernels, as ratios against the obvious alternative.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_adaptive.py --benchmark-only``.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from causalfair.adaptive import (
    Conjunction,
    HoldoutFeatureSelector,
    ReusableHoldout,
    _kernels,
    bounds,
)
from causalfair.adaptive._methods import METHODS
from causalfair.adaptive._selector import product_sums
from causalfair.adaptive._weights import decode_cells


def seconds(call, repeats=15):
    """Median time of a call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def commit_seconds(tmp_path):
    """Time of one bare transaction with full sync on this disk."""
    import sqlite3

    connection = sqlite3.connect(tmp_path / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (i INTEGER PRIMARY KEY, x TEXT)")

    def write():
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t (x) VALUES (?)", ("x" * 600,))
        connection.execute("COMMIT")

    found = seconds(write, 60)
    connection.close()
    return found


def test_gaussian_query_against_mean_and_commit(benchmark, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(10_000, 5)), rng.integers(0, 2, 10_000)
    values = rng.random(10_000)
    holdout = ReusableHoldout.create(
        tmp_path / "a.ledger", X, y, mechanism="gaussian", max_queries=100_000, force=True
    )
    floor = seconds(lambda: float(values.mean()), 60) + commit_seconds(tmp_path)
    ours = seconds(lambda: holdout.ask(values), 60)
    benchmark.extra_info["ratio"] = ours / floor
    print(
        f"\nGaussian query {1e3 * ours:.2f} ms, mean and commit {1e3 * floor:.2f} ms, "
        f"ratio {ours / floor:.2f}"
    )
    benchmark.pedantic(lambda: holdout.ask(values), rounds=20)
    assert ours / floor < 3


def numpy_update(weights, f, step):
    raised = weights * np.exp(step * f)
    return raised / raised.sum()


def test_binary_weights_update_against_numpy(benchmark):
    size = 2**20
    rng = np.random.default_rng(0)
    weights, f = np.full(size, 1 / size), rng.random(size) < 0.5
    out, as_float = np.empty(size), f.astype(float)
    slow = seconds(lambda: numpy_update(weights, as_float, 0.1))
    inside = float(weights[f].sum())
    _kernels.update_binary(weights, f, inside, 0.1, out)
    assert np.allclose(out, numpy_update(weights, as_float, 0.1))
    fast = seconds(lambda: _kernels.update_binary(weights, f, inside, 0.1, out))
    benchmark.extra_info["ratio"] = slow / fast
    print(
        f"\nbinary update NumPy {1e3 * slow:.2f} ms, kernel {1e3 * fast:.3f} ms, "
        f"ratio {slow / fast:.1f}"
    )
    benchmark(lambda: _kernels.update_binary(weights, f, inside, 0.1, out))
    assert slow / fast > 20


def test_conjunction_against_materialised_query(benchmark):
    weights = np.full(2**20, 2.0**-20)
    query = Conjunction((0, 7, 13))
    cells = np.arange(2**20)
    mask = query.mask(20)
    slow = seconds(lambda: float(((cells & mask) == mask) @ weights))
    fast = seconds(lambda: query.mean(weights))
    benchmark.extra_info["ratio"] = slow / fast
    print(f"\nconjunction ratio {slow / fast:.1f} ({1e3 * fast:.3f} ms)")
    benchmark(lambda: query.mean(weights))
    assert decode_cells([2] * 3).shape == (8, 3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_two_thousand_features_in_one_batch(benchmark, tmp_path, dtype):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 2_000)).astype(dtype)
    y = rng.choice([-1.0, 1.0], 20_000)
    train, held = slice(0, 10_000), slice(10_000, None)
    H, t = np.ascontiguousarray(X[held]), y[held]
    standard = H.mean(axis=0, dtype=float), 1 / H.std(axis=0, dtype=float)
    product = seconds(lambda: H.T @ t.astype(dtype), 9)
    sums = seconds(lambda: product_sums(H, *standard, t, 4.0), 9)
    loop = seconds(lambda: [float(np.clip(H[:, j] * t, -4, 4).mean()) for j in range(2_000)], 1)
    holdout = ReusableHoldout.create(
        tmp_path / "a.ledger", H, t, mechanism="gaussian", max_queries=10**6, seal=False, force=True
    )
    bits = H > 0
    answers = seconds(lambda: holdout.ask_many(bits), 5)
    print(
        f"\n2,000 features of {np.dtype(dtype)}: matrix product {1e3 * product:.1f} ms, exact "
        f"clipped sums {1e3 * sums:.1f} ms (ratio {sums / product:.2f}), Python loop "
        f"{1e3 * loop:.0f} ms, ask_many with ledger {1e3 * answers:.1f} ms"
    )
    benchmark.extra_info["ratio"] = sums / product
    selector = HoldoutFeatureSelector(holdout, k_best=10)
    benchmark.pedantic(lambda: selector.fit(X[train], y[train]), rounds=2)
    assert sums / product < 2.5


SAID = {"universe": 2**16, "rounds": 10}
CALCULATORS = {
    **{
        method: lambda n, method=method: bounds.width(n, 678, method=method, **SAID)
        for method in METHODS
    },
    "auto": lambda n: bounds.width(n, 678),
    "fixed noise": lambda n: bounds.width(n, 678, method="gaussian", sigma=0.03),
    "max_queries": lambda n: bounds.max_queries(n, 0.1),
    "max_queries, ladder": lambda n: bounds.max_queries(n, 0.1, method="ladder"),
    "sample_size": lambda n: bounds.sample_size(n // 20, 0.1),
    "compare": lambda n: bounds.compare(n, 678, published=False),
    "compare, published": lambda n: bounds.compare(n, 678),
    "recommend": lambda n: bounds.recommend(n, 678, guess=True, best_only=True),
}


@pytest.mark.parametrize("name", CALCULATORS)
def test_calculators(benchmark, name):
    CALCULATORS[name](9_000)  # imports and first-use costs
    turn = iter(range(10**6))  # a new n each time: nothing is remembered
    benchmark.pedantic(lambda: CALCULATORS[name](12_345 + 40 * next(turn)), rounds=20)
    print(f"\n{name}: {1e3 * benchmark.stats['min']:.2f} ms")
