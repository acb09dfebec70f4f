"""Multiplier bootstrap and multiplicity against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from causalfair.exceptions import ParameterError
from causalfair.inference import (
    HypothesisTest,
    InfluenceEstimates,
    adjust_p_values,
    multiplier_draws,
    romano_wolf,
)


@pytest.fixture
def psi() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((501, 3)) @ np.array([[1, 0.8, 0], [0, 1, 0], [0, 0, 100.0]])
    return values - values.mean(axis=0)


@pytest.mark.parametrize("kind", ["rademacher", "mammen", "normal"])
def test_draws_have_the_estimates_covariance(psi, kind):
    draws = multiplier_draws(psi, 20_000, kind=kind)
    want = psi.T @ psi / len(psi) ** 2
    scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    np.testing.assert_allclose(np.cov(draws, rowvar=False) / scale, want / scale, atol=0.03)
    np.testing.assert_allclose(draws.mean(axis=0) / np.sqrt(np.diag(want)), 0, atol=0.03)


def test_rademacher_draws_are_sums_of_signs():
    psi = np.array([[1.0], [-1.0], [2.0], [-2.0]])
    draws = multiplier_draws(psi, 200)[:, 0] * 4
    assert set(np.round(draws, 5)) <= {-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0}


def test_multipliers_are_constant_within_clusters():
    psi = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    draws = multiplier_draws(psi, 200, cluster=np.array([0, 0, 1, 1]))[:, 0] * 4
    assert set(np.round(draws, 5)) == {-4.0, 0.0, 4.0}


def test_same_seed_same_draws_and_blocks_do_not_matter(psi):
    np.testing.assert_array_equal(multiplier_draws(psi, 100), multiplier_draws(psi, 100))
    np.testing.assert_array_equal(multiplier_draws(psi, 100)[:64], multiplier_draws(psi, 64))
    assert not np.array_equal(multiplier_draws(psi, 10), multiplier_draws(psi, 10, rng=1))
    with pytest.raises(ParameterError, match="kind='uniform'"):
        multiplier_draws(psi, 10, kind="uniform")


@pytest.mark.parametrize(
    ("ours", "theirs"), [("holm", "holm"), ("bh", "fdr_bh"), ("bonferroni",) * 2]
)
def test_adjusted_p_values_equal_statsmodels(ours, theirs):
    p = np.random.default_rng(3).random(12) ** 3
    np.testing.assert_allclose(adjust_p_values(p, ours), multipletests(p, method=theirs)[1])
    with pytest.raises(ParameterError, match="method='x'"):
        adjust_p_values(p, "x")


def test_romano_wolf_equals_the_step_down_written_out():
    rng = np.random.default_rng(0)
    t, draws = np.array([2.5, 0.3, -3.1, 1.0]), rng.standard_normal((499, 4))
    order, previous, want = np.argsort(-np.abs(t)), 0.0, np.empty(4)
    for rank, j in enumerate(order):
        left = np.abs(draws[:, order[rank:]]).max(axis=1)
        previous = max(previous, (1 + (left >= abs(t[j])).sum()) / 500)
        want[j] = previous
    np.testing.assert_allclose(romano_wolf(t, draws), want)


def test_simultaneous_band_covers():
    rng = np.random.default_rng(11)
    level, hits, reps = 0.9, 0, 400
    root = np.linalg.cholesky(0.6 * np.eye(4) + 0.4)
    for _ in range(reps):
        Y = rng.standard_normal((150, 4)) @ root.T
        est = InfluenceEstimates(Y.mean(0), Y - Y.mean(0), list("abcd"))
        low, high = est.conf_int(level, simultaneous=True).T
        hits += bool(((low <= 0) & (high >= 0)).all())
    assert 337 <= hits <= 380  # 99 % binomial band around 0.90 of 400, less one for n = 150


def test_a_test_states_its_null():
    test = HypothesisTest("J", "all instruments agree", 3.2, 0.07, df=1)
    assert str(test) == "J test of all instruments agree: chi2(1) = 3.20, p = 0.070"
    none = HypothesisTest("J", "x", np.nan, np.nan, reason="one instrument only")
    assert "does not apply, one instrument only" in repr(none)
    assert "&lt;" in HypothesisTest("a", "b < c", 1, 0.0001)._repr_html_()
