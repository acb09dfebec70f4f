"""Validation of rankings on sample splits, and the value of rules."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression

from causalfair.exceptions import DataError, IdentificationError, ParameterError
from causalfair.forest import (
    CausalForest,
    RLearner,
    policy_value,
    rank_average_treatment_effect,
    treat_top,
    validate_ranking,
)

mpl.use("Agg")
ROLES = {"treatment": "w", "covariates": ["a", "b", "c", "d"]}
KNOWN = {"nuisances": {"propensity": 0.5}}


def quick(trial, **options):
    options = {"n_bootstrap": 50, "random_state": 0, **options}
    return validate_ranking(CausalForest(60), trial, "y", **ROLES, **options)


def test_sequential_statistic_is_the_scaled_sum_of_ratios(trial):
    check = quick(trial, n_folds=4, **KNOWN)
    ratios = check.to_frame()["statistic"].to_numpy()
    assert ratios.size == 3
    assert check.test_.statistic == pytest.approx(ratios.sum() / np.sqrt(3), rel=1e-12)
    assert check.n_train == (150, 300, 450)
    assert check.p_value < 0.01
    assert max(map(len, str(check).splitlines())) <= 88
    assert "2405.05534" in check.cite().bibtex()
    assert len(check.plot().lines) == 5


def test_split_and_repeated(trial):
    split = quick(trial, scheme="split", method="qini")
    assert len(split.rates_) == 1
    assert split.p_value == pytest.approx(split.rates_[0].p_value[0])
    many = quick(trial, scheme="repeated", n_repeats=3)
    p = many.to_frame()["p_value"]
    assert many.p_value == pytest.approx(min(1, 2 * np.median(p)))


def test_same_seed_same_result_and_learners_work(trial):
    model = RLearner(LinearRegression(), LogisticRegression(), LinearRegression(), n_folds=2)
    a, b, c = (
        validate_ranking(model, trial, "y", **ROLES, scheme="split", n_bootstrap=20,
                         random_state=s).test_.statistic for s in (1, 1, 2)
    )  # fmt: skip
    assert a == b != c


def test_clusters_stay_together_and_weights_pass(trial):
    pairs = np.arange(600) // 5
    check = quick(trial, cluster=pairs, sample_weight=np.linspace(1, 2, 600), n_folds=3)
    assert all(size % 5 == 0 for size in (*check.n_train, *check.n_test))
    assert check.rates_[0].n_clusters == 40


def test_bad_designs(trial):
    with pytest.raises(ParameterError, match="rejects far too often"):
        quick(trial, scheme="cross_fit")
    with pytest.raises(ParameterError, match="n_folds=1"):
        quick(trial, n_folds=1)
    with pytest.raises(DataError, match="has 6 clusters; it needs 10"):
        quick(trial, cluster="site", n_folds=10)
    few = trial.assign(w=(np.arange(600) < 5).astype(int))
    with pytest.raises(IdentificationError, match="needs two of each arm"):
        quick(few, n_folds=5)


def test_treat_top_shares_ties():
    np.testing.assert_array_equal(treat_top([3.0, 1, 2, 2], 0.5), [1, 0, 0.5, 0.5])
    np.testing.assert_array_equal(treat_top([3.0, 1], 1.0), [1, 1])
    np.testing.assert_array_equal(treat_top([3.0, 1], 0.0), [0, 0])
    np.testing.assert_array_equal(treat_top([3.0, 1], 0.5, sample_weight=[3.0, 1]), [2 / 3, 0])
    with pytest.raises(ParameterError, match="must lie in"):
        treat_top([1.0], 50)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), share=st.floats(0.02, 1.0))
def test_value_of_the_top_is_on_the_curve(seed, share):
    rng = np.random.default_rng(seed)
    priority, gamma = rng.integers(0, 8, 30).astype(float), rng.normal(size=30)
    weight = rng.uniform(0.5, 2, 30)
    value = policy_value(
        treat_top(priority, share, sample_weight=weight), gamma, sample_weight=weight
    )
    rate = rank_average_treatment_effect(
        priority, gamma, q=[share], sample_weight=weight, n_bootstrap=2, random_state=0
    )
    assert value["policy"].estimate[0] == pytest.approx(rate.toc_["gain"][0], abs=1e-10)


def test_policy_value_is_a_mean_with_its_error():
    gamma = np.array([4.0, -3, 2, 1])
    value = policy_value(gamma > 0, gamma, cost=0.5)
    gain = np.array([3.5, 0, 1.5, 0.5])
    assert value.names == ("policy", "treat all", "policy - treat all")
    assert value.estimate[0] == pytest.approx(gain.mean())
    assert value.std_error[0] == pytest.approx(gain.std(ddof=1) / 2)
    assert value.estimate[2] == pytest.approx(gain.mean() - (gamma - 0.5).mean())
    with pytest.raises(DataError, match="not the effects"):
        policy_value(gamma, gamma)
