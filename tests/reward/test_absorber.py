"""High-dimensional fixed effects against dense least squares, and each solver against the others."""

from __future__ import annotations

import numba
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import reward as naive

from causalfair.exceptions import ConvergenceError, DataError, ParameterError
from causalfair.reward import Absorber


def design(rng, n, levels):
    return [rng.integers(0, k, n) for k in levels]


@pytest.mark.parametrize("levels", [(7,), (12, 5), (12, 5, 3)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", ["auto", "cg", "direct", "map"])
def test_equals_dense_least_squares(levels, weighted, solver):
    rng = np.random.default_rng(1)
    factors = design(rng, 120, levels)
    A = rng.normal(size=(120, 11)) * 10.0 ** np.arange(-5, 6)
    w = rng.uniform(0.2, 3, 120) if weighted else None
    got = Absorber(solver, tol=1e-12).fit(factors, w).residualize(A)
    want = naive.residualize(factors, A, w)
    np.testing.assert_allclose(got / A.std(axis=0), want / A.std(axis=0), atol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(5, 60), st.integers(1, 3))
def test_random_shapes_against_the_twin(seed, n, n_factors):
    rng = np.random.default_rng(seed)
    factors = [rng.integers(0, rng.integers(1, max(2, n // 2)), n) for _ in range(n_factors)]
    A = rng.normal(size=(n, 2))
    absorber = Absorber(tol=1e-12).fit(factors)
    got = absorber.residualize(A)
    np.testing.assert_allclose(got, naive.residualize(factors, A), atol=1e-8)
    keep = naive.drop_singletons(factors)
    np.testing.assert_array_equal(absorber.keep_, keep)
    if n_factors <= 2 and keep.any():
        kept = [f[keep] for f in factors]
        assert absorber.df_absorbed_ == naive.absorbed_rank(kept)


def test_balanced_two_way_takes_one_step():
    firm, year = np.repeat(np.arange(30), 10), np.tile(np.arange(10), 30)
    a = np.random.default_rng(0).normal(size=300)
    absorber = Absorber().fit([firm, year])
    means = a.reshape(30, 10)
    want = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    np.testing.assert_allclose(absorber.residualize(a), want.ravel(), atol=1e-12)
    assert absorber.n_iter_ == 1


def test_singletons_are_zero_and_counted():
    absorber = Absorber().fit([np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1])])
    assert absorber.n_singletons_ == 1
    assert absorber.residualize(np.arange(5.0))[4] == 0.0


def test_components_and_degrees_of_freedom():
    a, b = np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.array([0, 1, 0, 1, 2, 3, 2, 3])
    absorber = Absorber().fit([a, b])
    assert absorber.n_components_ == 2
    assert absorber.df_absorbed_ == 4 + 4 - 2 == naive.absorbed_rank([a, b])
    assert absorber.degrees_of_freedom(cluster=a) == 4  # the factor nested in clusters is free
    assert Absorber().fit(a).df_absorbed_ == 4


def test_effects_rebuild_the_fit():
    rng = np.random.default_rng(2)
    factors = {"firm": rng.integers(0, 9, 200), "year": rng.integers(0, 4, 200)}
    a = rng.normal(size=200)
    absorber = Absorber(tol=1e-13).fit(factors)
    effects = absorber.effects(a)
    fitted = sum(effects[name][codes] for name, codes in factors.items())
    np.testing.assert_allclose(a - fitted, absorber.residualize(a), atol=1e-10)
    assert abs(effects["year"].mean()) < 1e-12


def weakly_linked(n, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.arange(n)
    main = rows // 10
    size = n // 80
    return [main, (rows // 80 + (rng.random(n) < 0.02)) % size], rng.normal(size=n)


def test_weakly_linked_factors_are_factorised():
    factors, a = weakly_linked(80_000)
    absorber = Absorber().fit(factors)
    got = absorber.residualize(a)
    assert absorber.solver_used_ == "direct"
    left = [np.abs(np.bincount(f, got) / np.bincount(f)).max() for f in factors]
    assert max(left) < 1e-10
    with pytest.raises(ConvergenceError, match=r"standard deviations .* solver=\"direct\""):
        Absorber("map", max_iter=20).fit(factors).residualize(a)


@pytest.mark.slow
def test_weakly_linked_million_rows():
    factors, a = weakly_linked(1_000_000)
    absorber = Absorber().fit(factors)
    got = absorber.residualize(a)
    assert max(absorber.n_levels_) == 100_000
    assert max(np.abs(np.bincount(f, got) / np.bincount(f)).max() for f in factors) < 1e-10
    # ten thousand sweeps of alternating projections do not get there
    slow = Absorber("map", tol=1e-10, max_iter=2_000).fit(factors)
    with pytest.raises(ConvergenceError):
        slow.residualize(a)


def test_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(4)
    factors, A = design(rng, 20_000, (900, 40, 7)), rng.normal(size=(20_000, 10))
    before = numba.get_num_threads()
    out = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        out.append(Absorber().fit(factors).residualize(A))
    numba.set_num_threads(before)
    np.testing.assert_array_equal(out[0], out[1])


def test_kinds_of_levels_and_missing_ones():
    text = np.array(["a", "b", None, "a", "b", None], dtype=object)
    number = np.array([1.0, 2.0, np.nan, 1.0, 2.0, np.nan])
    a = np.arange(6.0)
    want = Absorber().fit(np.array([0, 1, 2, 0, 1, 2])).residualize(a)
    for factor in (text, number, pd.DataFrame({"f": text})):
        np.testing.assert_array_equal(
            Absorber().fit(factor if hasattr(factor, "columns") else [factor]).residualize(a), want
        )


def test_bad_input():
    with pytest.raises(DataError, match="as many levels as rows"):
        Absorber().fit({"row": np.arange(10)})
    with pytest.raises(DataError, match="one common, positive length; got factor0 3, factor1 2"):
        Absorber().fit([np.zeros(3, int), np.zeros(2, int)])
    with pytest.raises(DataError, match="1 of 4 weights are not positive"):
        Absorber().fit(np.array([0, 0, 1, 1]), weights=[1, 0, 1, 1])
    with pytest.raises(DataError, match="A has 1 missing"):
        Absorber().fit(np.array([0, 0, 1])).residualize([1.0, np.nan, 2.0])
    with pytest.raises(DataError, match="fit saw 3 rows"):
        Absorber().fit(np.array([0, 0, 1])).residualize([1.0, 2.0])
    with pytest.raises(ParameterError, match="solver='fast' must be one of"):
        Absorber("fast").fit(np.array([0, 0]))
