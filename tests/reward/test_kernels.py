"""Compiled loops against their obvious versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import reward as naive

from causalfair.reward import _kernels
from causalfair.reward._absorb_plan import code_factor, factor_schur, factorize, make_plan

pytestmark = pytest.mark.kernel


def plan_of(rng, n, levels, weighted):
    factors = [code_factor(np.r_[np.arange(k), rng.integers(0, k, n - k)]) for k in levels]
    weight = rng.uniform(0.5, 2, n) if weighted else None
    return factors, weight, make_plan(factors, weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("levels", [(9, 4), (9, 4, 3)])
@pytest.mark.parametrize("width", [1, 5])
def test_schur_product_and_diagonal(levels, weighted, width):
    rng = np.random.default_rng(0)
    factors, weight, plan = plan_of(rng, 60, levels, weighted)
    dense = naive.schur(
        factors[0].codes, [f.codes for f in factors[1:]], np.ones(60) if weight is None else weight
    )
    sides = (plan.pointer, plan.sorted_codes, plan.sorted_weight, plan.total)
    v = rng.normal(size=(plan.size, width))
    out = np.empty_like(v)
    _kernels.schur_product(*sides, (0.0,) * width, plan.links, v, out)
    np.testing.assert_allclose(out, dense @ v, atol=1e-11)
    np.testing.assert_allclose(
        _kernels.schur_diagonal(*sides, plan.size), np.diag(dense), atol=1e-11
    )
    np.testing.assert_allclose(factor_schur(plan)[0].toarray(), dense, atol=1e-11)


def test_sums_means_and_residuals():
    rng = np.random.default_rng(1)
    factors, weight, plan = plan_of(rng, 50, (7, 3), True)
    A, shift, lanes = rng.normal(size=(50, 4)), rng.normal(size=2), (0.0, 0.0)
    P, D, W = naive.dummies(factors[0].codes), naive.dummies(factors[1].codes), weight[:, None]
    part = A[:, 1:3] - shift
    main, level, moments = np.zeros((7, 2)), np.zeros((3, 2)), np.zeros((2, 2))
    _kernels.sum_levels(
        plan.main, plan.codes, plan.weight, lanes, plan.links, A, 1, shift, main, level, moments
    )
    np.testing.assert_allclose(main, P.T @ (W * part), atol=1e-12)
    np.testing.assert_allclose(level, D.T @ (W * part), atol=1e-12)
    np.testing.assert_allclose(moments, [part.sum(axis=0), (part**2).sum(axis=0)], atol=1e-12)
    alpha, v, out, left = rng.normal(size=(7, 2)), rng.normal(size=(3, 2)), A * np.nan, level * 0
    _kernels.subtract_effects(
        plan.main, plan.codes, plan.weight, lanes, plan.links, A, 1, shift, alpha, v, out, left
    )
    want = part - P @ alpha - D @ v
    np.testing.assert_allclose(out[:, 1:3], want, atol=1e-12)
    np.testing.assert_allclose(left, D.T @ (W * want), atol=1e-12)
    assert np.isnan(out[:, [0, 3]]).all()


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 8))
def test_sorting_and_pairs(seed, n, k):
    rng = np.random.default_rng(seed)
    codes = factorize(rng.integers(0, k, n))[0]
    order, pointer = _kernels.counting_sort(codes, int(codes.max()) + 1)
    np.testing.assert_array_equal(order, np.argsort(codes, kind="stable"))
    np.testing.assert_array_equal(np.diff(pointer), np.bincount(codes))
    first, second = _kernels.stratum_pairs(order, pointer, 10_000, np.uint64(1))
    found = {(min(i, j), max(i, j)) for i, j in zip(first.tolist(), second.tolist(), strict=True)}
    assert found == naive.pairs_in_strata(codes)
    capped, _ = _kernels.stratum_pairs(order, pointer, 3, np.uint64(1))
    sizes = np.bincount(codes)
    assert len(capped) == np.minimum(sizes * (sizes - 1) // 2, 3).sum()


def test_missing_levels_are_one_level():
    values = np.array(["a", None, "b", None], dtype=object)
    codes, levels = factorize(values)
    assert codes.tolist() == [0, 2, 1, 2]
    assert levels.tolist() == ["a", "b", None]
    shifted, kept = factorize(np.array([7, 3, 7, 900]))
    assert (shifted.tolist(), kept.tolist()) == ([1, 0, 1, 2], [3, 7, 900])
