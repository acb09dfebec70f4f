"""Classical experiments against their known answers; coverage of every mechanism under attack."""

from __future__ import annotations

import math

import numpy as np
import pytest

from causalfair.adaptive import simulate
from causalfair.adaptive._attacks import ATTACKS
from causalfair.exceptions import ParameterError

CERTIFIED = {
    "gaussian": {},
    "laplace": {},
    "thresholdout": {"budget": 5},
    "sparse_validate": {"budget": 10},
    "guess_and_check": {},
    "split_rounds": {"rounds": 2},
    "ladder": {},
    "winner_only": {"value_cells": 100},
    "noisy_argmin": {"epsilon": 0.1, "rounds": 10},
    "multiplicative_weights": {"n_cells": 256},
}


def lowest_count(runs, coverage):
    """Lower end of the 99 % binomial band."""
    from scipy import stats

    return stats.binom.ppf(0.005, runs, coverage)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("mechanism", list(CERTIFIED))
def test_intervals_hold_together_under_attack(mechanism, attack):
    runs = 40
    frame, truth = simulate.coverage(
        mechanism, attack, n=1_000, k=60, n_runs=runs, random_state=1, **CERTIFIED[mechanism]
    )
    assert frame["covered"].sum() >= lowest_count(runs, truth["target"])


@pytest.mark.parametrize("attack", ATTACKS)
def test_exact_answers_fail_the_same_test(attack):
    runs = 40
    frame, truth = simulate.coverage("naive", attack, n=1_000, k=60, n_runs=runs, random_state=1)
    assert frame["covered"].sum() < lowest_count(runs, truth["target"])


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("mechanism", list(CERTIFIED))
def test_coverage_in_five_hundred_runs(mechanism, attack):
    frame, truth = simulate.coverage(
        mechanism, attack, n=2_000, k=100, n_runs=500, random_state=2, **CERTIFIED[mechanism]
    )
    assert frame["covered"].sum() >= lowest_count(500, truth["target"])


@pytest.mark.slow
def test_gaussian_coverage_at_a_large_error_level():
    frame, _ = simulate.coverage("gaussian", n=2_000, k=100, beta=0.5, n_runs=500, random_state=3)
    assert frame["covered"].mean() >= 0.96


# ---------------------------------------------------------------------------------------- attacks
@pytest.mark.parametrize(("k", "bias"), [(101, 0.0318), (1_001, 0.0996)])
def test_expected_bias_of_the_correlated_classifier(k, bias):
    # with k - 1 features in the vote: .0318 belongs to 100 features, that is to k = 101
    _, truth = simulate.correlated_classifier(10_000, k, random_state=0)
    assert truth["expected_accuracy"] - 0.5 == pytest.approx(bias, abs=6e-5)
    shift = math.sqrt(2 * (k - 1) / (math.pi * 10_000))
    assert truth["expected_accuracy"] - 0.5 == pytest.approx(0.5 * math.erf(shift / math.sqrt(2)))


@pytest.mark.parametrize("sigma", [0.0, 0.0292])
def test_correlated_classifier_meets_its_formula(sigma):
    frame, truth = simulate.correlated_classifier(10_000, 1_000, sigma, n_runs=12, random_state=0)
    spread = 0.005 / math.sqrt(12) * 3.5
    assert frame["accuracy"].mean() == pytest.approx(truth["expected_accuracy"], abs=spread)


def test_seeds_fix_the_bits_and_runs_are_keyed():
    a, _ = simulate.correlated_classifier(500, 20, n_runs=4, random_state=7)
    b, _ = simulate.correlated_classifier(500, 20, n_runs=2, random_state=7)
    c, _ = simulate.correlated_classifier(500, 20, n_runs=2, random_state=8)
    assert a.iloc[:2].equals(b)
    assert not b.equals(c)


def test_freedman():
    frame, truth = simulate.freedman(n_runs=400, random_state=0)
    mean, error = frame.mean(), frame.std() / math.sqrt(400)
    expected = {
        "r2_first": 0.505,
        "n_kept": 12.5,
        "r2_second": 0.310,
        "n_25": 10.8,
        "n_05": 5.5,
        "r2_fresh": -0.54,
    }
    for name, value in expected.items():
        assert mean[name] == pytest.approx(value, abs=3.5 * error[name] + 0.006), name
    assert np.mean(frame["f_p_value"] < 0.05) == pytest.approx(0.94, abs=0.035)
    assert truth["r2_first"] == pytest.approx(50 / 99)


def test_freedman_fits_agree_with_statsmodels():
    import statsmodels.api as sm

    from causalfair.adaptive._experiments import _ols

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), rng.normal(size=60)
    fit = sm.OLS(y, sm.add_constant(X)).fit()
    coef, p_values, r2, f_p = _ols(X, y)
    assert np.allclose(coef, fit.params)
    assert np.allclose(p_values, fit.pvalues[1:])
    assert (r2, f_p) == pytest.approx((fit.rsquared, fit.f_pvalue))


def test_leaderboard_boosting():
    exact, truth = simulate.leaderboard_attack(n_runs=20, random_state=0)
    assert truth["expected_exact_loss"] == pytest.approx(0.4292, abs=5e-5)
    assert exact["loss"].mean() == pytest.approx(0.4292, abs=3.5 * 0.008 / math.sqrt(20))
    free, _ = simulate.leaderboard_attack(board="ladder_free", n_runs=20, random_state=0)
    assert free["loss"].mean() == pytest.approx(0.488, abs=0.008)
    assert free["n_used"].mean() < 5
    ladder, _ = simulate.leaderboard_attack(board="ladder", n_runs=20, random_state=0)
    assert ladder["loss"].mean() == pytest.approx(0.5, abs=3.5 * 0.008 / math.sqrt(20))


def test_guess_and_check_analyst_outlasts_the_gaussian_bound():
    _, truth = simulate.guess_and_check_analyst(10_000, random_state=0)
    assert truth["violations"] == 0
    assert truth["gaussian_queries"] == 99
    assert 400 < truth["answered"] < 1_500


def test_multiplicative_weights_demo():
    frame, truth = simulate.multiplicative_weights_demo(50_000, 10, n_queries=1_500, random_state=0)
    assert 0 < truth["updates"] < truth["most_updates"] / 10
    assert truth["max_sample_error"] <= 0.05
    assert frame["updated"].sum() == truth["updates"]


def test_small_reusable_holdout_experiment():
    frame, truth = simulate.reusable_holdout_experiment(1_000, 1_000, counts=(100,), random_state=0)
    table = frame.set_index("method")
    assert truth["n_selected"]["standard"] == pytest.approx(
        truth["expected_selected"], abs=4 * math.sqrt(50)
    )
    assert table.loc["standard", "holdout"] > 0.58  # false
    assert abs(table.loc["thresholdout", "holdout"] - 0.5) < 0.13
    assert abs(table["fresh"] - 0.5).max() < 0.06


def test_blocks_do_not_change_the_experiment(monkeypatch):
    from causalfair.adaptive import _experiments

    _, truth = simulate.reusable_holdout_experiment(
        300, 400, counts=(5,), n_signal=9, shift=0.5, random_state=1
    )
    assert truth["signal_found"] == {"standard": 9, "thresholdout": 9}
    rows = _experiments._columns(
        lambda b: np.arange(500 * b, 500 * b + 500, dtype=np.float32)[None, :] * np.ones((2, 1)),
        np.array([3, 499, 500, 1203]),
        2,
    )
    assert np.array_equal(rows[0], [3, 499, 500, 1203])


@pytest.mark.slow
def test_full_reusable_holdout_experiment():
    frame, truth = simulate.reusable_holdout_experiment(random_state=0)
    at = frame.set_index(["method", "k"])
    assert truth["expected_selected"] == pytest.approx(503, abs=0.5)
    assert at.loc[("standard", 500), "train"] == pytest.approx(0.634, abs=0.012)
    assert at.loc[("standard", 500), "holdout"] == pytest.approx(0.631, abs=0.015)
    assert at.loc[("standard", 500), "fresh"] == pytest.approx(0.5, abs=0.018)
    assert at.loc[("thresholdout", 500), "train"] == pytest.approx(0.695, abs=0.012)
    assert at.loc[("thresholdout", 500), "holdout"] == pytest.approx(0.5, abs=0.045)
    assert truth["exceedances"] == pytest.approx(229, abs=4 * math.sqrt(229))
    signal, truth = simulate.reusable_holdout_experiment(n_signal=20, random_state=1)
    at = signal.set_index(["method", "k"])
    assert at.loc[("standard", 20), "fresh"] == pytest.approx(0.6035, abs=0.015)
    assert at.loc[("standard", 500), "holdout"] == pytest.approx(0.647, abs=0.015)
    assert truth["signal_found"] == {"standard": 20, "thresholdout": 20}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate.correlated_classifier(0), "n must be an integer of at least 1"),
        (lambda: simulate.correlated_classifier(sigma=-1), "sigma must be at least 0"),
        (lambda: simulate.freedman(20, 50), "n must be at least p"),
        (lambda: simulate.leaderboard_attack(board="x"), "board must be"),
        (lambda: simulate.reusable_holdout_experiment(n_signal=-1), "n_signal must lie between"),
        (lambda: simulate.coverage("gaussian", "spin"), "attack must be one of"),
        (lambda: simulate.coverage("gausian"), "is unknown"),
        (lambda: simulate.coverage("gaussian", eta=1), "does not take eta"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ParameterError, match=message):
        call()
