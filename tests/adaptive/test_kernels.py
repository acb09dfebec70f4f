"""Compiled loops against their twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import adaptive as naive

from causalfair.adaptive import _kernels
from causalfair.adaptive._weights import update

pytestmark = pytest.mark.kernel


def weights_of(size, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(size))


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
@pytest.mark.parametrize("step", [-2.0, 0.0, 0.3])
def test_updates(size, step):
    weights, rng = weights_of(size), np.random.default_rng(1)
    real, binary, out = rng.random(size), rng.random(size) < 0.5, np.empty(size)
    assert np.allclose(update(weights, real, step), naive.update(weights, real, step), rtol=1e-12)
    assert np.allclose(
        update(weights, binary, step), naive.update(weights, binary, step), rtol=1e-12
    )
    _kernels.update_binary(weights, binary, weights[binary].sum(), step, out)
    assert np.allclose(out, naive.update(weights, binary, step), rtol=1e-12)
    for constant in (np.zeros(size, bool), np.ones(size, bool)):
        _kernels.update_binary(weights, constant, weights[constant].sum(), step, out)
        assert np.allclose(out, weights, rtol=1e-12)


@settings(max_examples=40)
@given(st.integers(1, 8), st.data())
def test_conjunctions(n_columns, data):
    columns = data.draw(st.lists(st.integers(0, n_columns - 1), unique=True))
    weights = weights_of(2**n_columns, n_columns)
    mask = sum(1 << (n_columns - 1 - c) for c in columns)
    found = _kernels.conjunction_mean(weights, mask)
    assert found == pytest.approx(naive.conjunction_mean(weights, columns, n_columns), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (50, 3), (7, 0), (8, 2)])
def test_product_sums(shape, dtype):
    rng = np.random.default_rng(2)
    X = np.ascontiguousarray(rng.normal(size=shape) * 3).astype(dtype)
    if X.size > 20:
        X[3, 0], X[4, 1], X[5, 2] = math.nan, math.inf, -math.inf
    centre, scale = rng.normal(size=shape[1]), rng.uniform(0.5, 2, shape[1])
    t, out = rng.normal(size=shape[0]), np.full(shape[1], 7, dtype=np.int64)
    _kernels.product_sums(X, centre, scale, t, 2.5, out)
    assert np.array_equal(out, naive.product_sums(X, centre, scale, t, 2.5))


def test_product_sums_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(3)
    X, t = rng.normal(size=(503, 4)), rng.normal(size=503)
    order = rng.permutation(503)
    a, b = np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64)
    standard = np.zeros(4), np.ones(4)
    _kernels.product_sums(X, *standard, t, 4.0, a)
    _kernels.product_sums(np.ascontiguousarray(X[order]), *standard, t[order], 4.0, b)
    assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", [(1, 1), (200, 6), (50, 0)])
def test_majority_accuracy(shape):
    rng = np.random.default_rng(4)
    agree = rng.random(shape) < 0.5
    signs = rng.choice([-1.0, 0.0, 1.0], shape[1])
    assert _kernels.majority_accuracy(agree, signs) == pytest.approx(
        naive.majority_accuracy(agree, signs)
    )
