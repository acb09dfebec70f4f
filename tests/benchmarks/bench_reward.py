"""Cost of absorbing fixed effects, as ratios against a compiled peer where one is installed.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_reward.py --benchmark-only``. The race
needs pyfixest, which this package does not depend on.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from causalfair.reward import Absorber

ROWS = 1_000_000


def race(ours, theirs, rounds=7):
    """Best wall time of each, turn by turn, so that both see the same machine; compiled before."""
    ours(), theirs()
    times = np.empty((rounds, 2))
    for row in times:
        for side, call in enumerate((ours, theirs)):
            start = time.perf_counter()
            call()
            row[side] = time.perf_counter() - start
    return times.min(axis=0)


def largest_mean(factors, residual):
    return max(np.abs(np.bincount(f, residual) / np.bincount(f)).max() for f in factors)


@pytest.mark.parametrize("columns", [1, 10])
@pytest.mark.parametrize("levels", [(10_000, 200), (10_000, 1_000), (10_000, 200, 50)])
def test_million_rows_against_alternating_projections(benchmark, levels, columns):
    peer = pytest.importorskip("pyfixest.core.demean")
    rng = np.random.default_rng(0)
    factors = [rng.integers(0, k, ROWS) for k in levels]
    A = rng.normal(size=(ROWS, columns))
    stacked, weights = np.column_stack(factors).astype(np.uint64), np.ones(ROWS)

    def ours():
        return Absorber().fit(factors).residualize(A)

    def theirs():
        return peer.demean(A, stacked, weights)[0]

    mine, other = race(ours, theirs)
    gap = float(np.abs(ours() - theirs()).max())
    benchmark.extra_info["ratio"] = other / mine
    print(
        f"\n{columns} column(s), levels {levels}: {mine:.3f} s with the plan against {other:.3f} s, "
        f"{other / mine:.2f} times as fast; largest difference {gap:.1e}, largest group mean "
        f"{largest_mean(factors, ours()[:, 0]):.1e} against "
        f"{largest_mean(factors, theirs()[:, 0]):.1e}"
    )
    benchmark.pedantic(ours, rounds=3)
    assert gap < 1e-5


def test_weakly_linked_levels(benchmark):
    rng = np.random.default_rng(0)
    rows = np.arange(ROWS)
    factors = [rows // 10, (rows // 80 + (rng.random(ROWS) < 0.02)) % (ROWS // 80)]
    a = rng.normal(size=ROWS)
    residual = Absorber().fit(factors).residualize(a)
    left = largest_mean(factors, residual)
    print(
        f"\n{len(np.unique(factors[0])):,} by {ROWS // 80:,} levels: largest group mean {left:.1e}"
    )
    benchmark.pedantic(lambda: Absorber().fit(factors).residualize(a), rounds=3)
    assert left < 1e-10
