"""Value of new text policies: closed forms, coverage, diagnostics and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import reward as naive
from sklearn.linear_model import LogisticRegression

from causalfair.datasets import make_bandit_texts, make_linear_reward
from causalfair.exceptions import DataError, OverlapWarning, ParameterError
from causalfair.reward import (
    DeconfoundedReward,
    density_ratio,
    empirical_bernstein,
    off_policy_value,
    ratio_balance,
    tilt_frontier,
)

METHODS = ("dm", "ips", "snips", "dr", "sndr", "switch", "dros", "clip")


def value(*args, **options):
    return off_policy_value(*args, **options).estimates_["value"]


def logged(n=200, seed=0):
    rng = np.random.default_rng(seed)
    y, m, m_new = rng.normal(size=(3, n))
    return y, rng.exponential(size=n) + 0.1, m, m_new


@pytest.mark.parametrize("method", METHODS)
def test_twins(method):
    y, rho, m, m_new = logged()
    got = off_policy_value(
        y, ratio=rho, fitted=m, fitted_new=m_new, method=method, threshold=1.5
    ).estimates_
    want = naive.off_policy(method, y, rho, m, m_new, threshold=1.5)
    assert got.estimate[0] == pytest.approx(want, abs=1e-12)
    assert got.estimate[2] == pytest.approx(want - y.mean(), abs=1e-12)


@pytest.mark.parametrize("method", ["dm", "ips", "snips", "dr", "sndr"])
def test_influence_values_are_the_derivative(method):
    """Re-weighting one row moves the value as its influence says."""
    y, rho, m, m_new = logged(60)
    options = {"method": method, "threshold": 1.5}
    est = off_policy_value(y, ratio=rho, fitted=m, fitted_new=m_new, **options).estimates_
    k = 4_000
    for row in (0, 17):
        again = np.concatenate([np.tile(np.arange(60), k), [row]])
        more = off_policy_value(
            y[again], ratio=rho[again], fitted=m[again], fitted_new=m_new[again], **options
        ).estimates_
        moved = (more.estimate[0] - est.estimate[0]) * len(again)
        assert moved == pytest.approx(est.influence[row, 0], abs=1e-4)


def test_a_policy_equal_to_the_logged_one_has_its_value():
    y, _, m, _ = logged()
    for method in METHODS:
        threshold = 1.0 if method in ("switch", "clip") else 1e12
        est = off_policy_value(
            y, ratio=np.ones(200), fitted=m, fitted_new=m, method=method, threshold=threshold
        ).estimates_
        if method != "dm":
            assert est["difference"].estimate[0] == pytest.approx(0, abs=1e-9)
            assert est["difference"].std_error[0] == pytest.approx(0, abs=1e-9)


def test_three_ways_to_give_the_ratio_agree():
    logs, _ = make_bandit_texts(500, random_state=0)
    old, new = logs.propensity.to_numpy(), logs.new_propensity.to_numpy()
    found = [
        value(logs.y, propensity=old, new_propensity=new),
        value(logs.y, logp_old=np.log(old), logp_new=np.log(new)),
        value(logs.y, ratio=new / old),
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.estimate, found[0].estimate, atol=1e-12)
        np.testing.assert_allclose(other.std_error, found[0].std_error, atol=1e-12)


def test_default_method_uses_a_model_where_there_is_one():
    y, rho, m, m_new = logged()
    assert off_policy_value(y, ratio=rho).method == "snips"
    assert off_policy_value(y, ratio=rho, fitted=m, fitted_new=m_new).method == "sndr"


@pytest.mark.parametrize("method", ["ips", "snips", "dr", "sndr", "switch", "dros", "clip"])
def test_bias_and_coverage(method):
    hits, errors, R = 0, [], 200
    for seed in range(R):
        logs, truth = make_bandit_texts(600, random_state=seed)
        model = np.where(logs.text == 1, 0.2, 0.5)  # wrong by a tenth, on purpose
        got = value(
            logs.y, propensity=logs.propensity, new_propensity=logs.new_propensity, method=method,
            fitted=model, fitted_new=np.full(600, 0.3 * 0.2 + 0.7 * 0.5),
        )  # fmt: skip
        low, high = got.conf_int()[0]
        hits += low <= truth["value"] <= high
        errors.append(got.estimate[0] - truth["value"])
    shrunk = method in ("switch", "dros", "clip")
    spread = np.std(errors) / np.sqrt(R)
    # Shrinking trades bias for variance, here less than half a standard error of one sample.
    assert abs(np.mean(errors)) < (3 * spread if not shrunk else 0.5 * np.std(errors))
    assert 181 <= hits <= (200 if shrunk else 197)  # shrunken kinds carry the error of "dr"


def test_shrinking_lowers_the_error_of_the_point_estimate():
    rough = {"dr": [], "dros": [], "switch": [], "clip": []}
    for seed in range(60):
        logs, truth = make_bandit_texts(400, overlap=2.0, random_state=seed)
        model = np.where(logs.text == 1, 0.1, 0.6)
        for method, errors in rough.items():
            got = value(
                logs.y, propensity=logs.propensity, new_propensity=logs.new_propensity,
                method=method, fitted=model, fitted_new=np.full(400, 0.45),
            )  # fmt: skip
            errors.append(got.estimate[0] - truth["value"])
    rmse = {k: np.sqrt(np.mean(np.square(v))) for k, v in rough.items()}
    for method in ("dros", "switch", "clip"):
        assert rmse[method] < rmse["dr"]


def test_the_chosen_threshold_has_the_least_estimated_error():
    y, rho, m, m_new = logged(500)
    for method in ("switch", "dros", "clip"):
        auto = off_policy_value(y, ratio=rho, fitted=m, fitted_new=m_new, method=method)
        assert auto.threshold > 0
        fixed = off_policy_value(
            y, ratio=rho, fitted=m, fitted_new=m_new, method=method, threshold=auto.threshold
        )
        assert auto.estimates_ == fixed.estimates_


def test_few_effective_rows_fall_back_on_the_model():
    y, _, m, m_new = logged()
    rho = np.full(200, 1e-6)
    rho[:5] = 40.0
    with pytest.warns(OverlapWarning, match="effective sample size 5 of 200"):
        got = off_policy_value(y, ratio=rho, fitted=m, fitted_new=m_new)
    assert got.method == "dm"
    assert got.estimates_["value"].estimate[0] == pytest.approx(m_new.mean())
    assert "extrapolation" in str(got)
    with pytest.raises(DataError, match="effective sample size 5.0 is below 30 of 200 rows"):
        off_policy_value(y, ratio=rho)


def test_diagnostics():
    y, rho, *_ = logged()
    got = off_policy_value(y, ratio=rho)
    assert got.ess == pytest.approx(rho.sum() ** 2 / (rho**2).sum())
    assert got.max_share == pytest.approx(rho.max() / rho.sum())
    assert got.mean_ratio.statistic == pytest.approx((rho.mean() - 1) / rho.std() * np.sqrt(200))
    shown = got.to_dict()
    assert shown["value"]["estimate"] == got.estimates_.estimate[0]
    assert shown["ess"] == got.ess
    assert list(got.to_frame()["term"]) == ["value", "logged", "difference"]
    assert max(map(len, str(got).splitlines())) <= 88
    assert "dudik2011doubly" in got.cite().bibtex()
    assert off_policy_value(y, ratio=3 * rho).mean_ratio.p_value < 1e-6


def test_clusters_widen_the_interval():
    y, rho, *_ = logged(100)
    twice = np.repeat(np.arange(100), 2)
    plain = value(y[twice], ratio=rho[twice])
    clustered = value(y[twice], ratio=rho[twice], cluster=twice)
    np.testing.assert_allclose(
        clustered.std_error, plain.std_error * np.sqrt(2) * np.sqrt(100 / 99), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, DataError, "needs ratio="),
        ({"ratio": [1, 1, -1.0]}, DataError, "1 negative"),
        ({"ratio": [0, 0, 0.0]}, DataError, "every ratio is zero"),
        ({"ratio": [1.0, 1]}, DataError, "ratio 2"),
        ({"ratio": [1.0, np.nan, 1]}, DataError, "1 missing"),
        ({"propensity": [0, 0.5, 1], "new_propensity": [1, 1, 1]}, DataError, r"row 0: 0\)"),
        ({"propensity": [0.1, 1.5, 1], "new_propensity": [1, 1, 1]}, DataError, r"row 1: 1.5\)"),
        ({"propensity": [0.1, 0.5, 1], "new_propensity": [1, 1, 2]}, DataError, r"row 2: 2\)"),
        ({"logp_old": [-1, 0.5, -1], "logp_new": [-1, -1, -1]}, DataError, "not be positive"),
        ({"logp_old": [-1000, -1, -1], "logp_new": [-1, -1, -1]}, DataError, "999"),
        ({"ratio": [1, 1, 1], "method": "dr"}, DataError, "needs fitted="),
        ({"ratio": [1, 1, 1], "method": "best"}, ParameterError, "method='best'"),
        ({"ratio": [1, 1, 1], "new_texts": ["a"]}, ParameterError, "leave the other arrays"),
        ({"new_texts": ["a"]}, DataError, "goes with a fitted reward as y; got list"),
    ],
)
def test_bad_input(options, error, match):
    with pytest.raises(error, match=match):
        off_policy_value([1.0, 0.0, 1.0], **options)


def test_bad_thresholds():
    y, rho, m, m_new = logged()
    for bad in (0.0, "best"):
        with pytest.raises(ParameterError, match="threshold="):
            off_policy_value(y, ratio=rho, fitted=m, fitted_new=m_new, method="clip", threshold=bad)


# From a reward and samples of the new policy ------------------------------------------------------


@pytest.fixture(scope="module")
def reward():
    frame, _ = make_linear_reward(3000, overlap=0.6, random_state=0)
    return DeconfoundedReward(penalty=0.0, numeric_basis="linear", random_state=0).fit(
        frame, "y", embedding=["x"], numeric=["w"]
    )


def test_value_of_new_texts_is_free_of_confounding(reward):
    new = np.random.default_rng(1).normal(0.5, 1.0, (2000, 1))
    got = off_policy_value(reward, new_texts=new, random_state=0)
    want = reward.reference_outcome_ - 1.0 * (new.mean() - reward.mean_[0])
    est = got.estimates_["value"]
    assert abs(est.estimate[0] - want) < 3.5 * est.std_error[0]
    assert got.method == "sndr"
    # the raw outcome, re-weighted by text alone, would have promised an improvement
    raw = reward._problem.y
    promised = value(raw, ratio=got.ratio)
    assert promised.estimate[0] - raw.mean() > 0 > est.estimate[0] - raw.mean()


def test_few_new_texts_widen_the_interval(reward):
    new = np.random.default_rng(1).normal(0.2, 1.0, (400, 1))
    many = off_policy_value(reward, new_texts=np.tile(new, (20, 1)), method="dm")
    few = off_policy_value(reward, new_texts=new, method="dm")
    spread = few.estimates_["value"].std_error[0]
    assert spread == pytest.approx(np.std(reward.predict(new), ddof=1) / 20, rel=0.05)
    assert many.estimates_["value"].std_error[0] < spread / 3


def test_a_reward_needs_new_texts(reward):
    with pytest.raises(DataError, match="needs new_texts="):
        off_policy_value(reward)


def test_flexible_rewards_are_valued_too():
    from sklearn.linear_model import Ridge

    frame, _ = make_linear_reward(600, overlap=0.3, random_state=0)
    reward = DeconfoundedReward(Ridge(1.0), n_refits=2, n_folds=2, random_state=0).fit(
        frame, "y", embedding=["x"], numeric=["w"]
    )
    new = np.random.default_rng(1).normal(0.3, 1.0, (500, 1))
    est = off_policy_value(reward, new_texts=new).estimates_["difference"]
    assert abs(est.estimate[0] + 0.3) < 4 * est.std_error[0]


# Density ratios ------------------------------------------------------------------------------------


def test_density_ratio_of_gaussians():
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(20_000, 1)), rng.normal(0.5, size=(10_000, 1))
    ratio = density_ratio(old, new, learner=LogisticRegression(), random_state=0)
    assert ratio.mean() == pytest.approx(1)
    inside = np.abs(old[:, 0]) < 2
    np.testing.assert_allclose(np.log(ratio[inside]), 0.5 * old[inside, 0] - 0.125, atol=0.08)
    table = ratio_balance(ratio, old, new, ["length"])
    assert table.loc[0, "feature"] == "length"
    assert table.loc[0, "before"] == pytest.approx(-0.5, abs=0.05)
    assert abs(table.loc[0, "after"]) < 0.05


def test_clusters_stay_in_one_fold():
    """With one text a cluster on both sides, a straddling split could tell them apart by memory."""
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    centre = rng.normal(size=(150, 2)) * 10
    old, new = (centre + 0.01 * rng.normal(size=(150, 2)) for _ in range(2))
    ids = np.arange(150)
    kept = density_ratio(
        old, new, learner=KNeighborsClassifier(1), cluster_old=ids, cluster_new=ids, random_state=0
    )
    assert kept.shape == (150,)
    with pytest.raises(DataError, match="both cluster_old= and cluster_new="):
        density_ratio(old, new, cluster_old=ids)
    with pytest.raises(DataError, match="X_old has 2 columns and X_new 1"):
        density_ratio(old, new[:, :1])
    with pytest.raises(DataError, match="X_old has 2 columns and X_new 1"):
        ratio_balance(kept, old, new[:, :1])


# Bounds and frontier -------------------------------------------------------------------------------


def test_bernstein_covers_and_shrinks():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = empirical_bernstein(rng.random(80) < 0.02, 0, 1)
        hits += low <= 0.02 <= high
    assert hits >= 297  # holds in every sample size, so it covers more than 95%
    wide, narrow = (np.ptp(empirical_bernstein(rng.random(n), 0, 1)) for n in (100, 10_000))
    assert narrow < wide / 5
    with pytest.raises(DataError, match=r"1 of them outside \[0, 1\]"):
        empirical_bernstein([0.5, 2.0], 0, 1)


@settings(max_examples=30)
@given(tau=st.floats(0, 3), seed=st.integers(0, 50))
def test_frontier_twin(tau, seed):
    rng = np.random.default_rng(seed)
    scores, y = rng.normal(size=(2, 40))
    weight = rng.random(40) + 0.1
    row = tilt_frontier(scores, y, strengths=[tau], sample_weight=weight).iloc[0]
    want, kl, ess = naive.tilt(scores, y, weight, tau)
    assert row["value"] == pytest.approx(want, abs=1e-10)
    assert row["kl"] == pytest.approx(kl, abs=1e-10)
    assert row["ess_share"] == pytest.approx(ess, rel=1e-10)


def test_frontier_survives_large_scores():
    scores = np.array([0.0, 900.0, 1000.0])
    row = tilt_frontier(scores, scores, strengths=[1.0]).iloc[0]
    assert row["value"] == pytest.approx(1000)
    assert row["kl"] == pytest.approx(np.log(3))


def test_frontier_of_a_reward(reward):
    frame = tilt_frontier(reward)
    assert len(frame) == 8
    assert frame["kl"].is_monotonic_increasing
    assert (frame["value"].diff().dropna() > 0).all()
    start = reward.corrected_outcome_.mean()
    assert frame["value"].iloc[0] == pytest.approx(start)
    tau = frame["tau"].iloc[2]
    spread = reward.out_of_fold_scores_.std()
    assert frame["kl"].iloc[2] == pytest.approx((tau * spread) ** 2 / 2, rel=0.1)
    gain = frame["value"].iloc[2] - start
    assert gain == pytest.approx(tau * spread**2, abs=3 * frame["std_error"].iloc[2])


@pytest.mark.parametrize(
    ("args", "options", "error", "match"),
    [
        (([1.0, 2.0],), {}, DataError, "outcome= is needed"),
        (([1.0, 2.0], [1.0]), {}, DataError, "outcome 1"),
        (([1.0, 2.0], [1.0, 1.0]), {"strengths": [np.inf]}, ParameterError, "strengths="),
        (([1.0, 2.0], [1.0, 1.0]), {"sample_weight": [0, 1]}, DataError, "positive"),
        (([1.0, 2.0], [1.0, 1.0]), {"level": 95}, ParameterError, "level=95"),
    ],
)
def test_bad_frontiers(args, options, error, match):
    with pytest.raises(error, match=match):
        tilt_frontier(*args, **options)


def test_models_of_new_texts_are_cross_fitted(reward):
    from causalfair.reward._policy import _from_reward

    problem = reward._problem
    _, _, fitted, fitted_new, _, _ = _from_reward(reward, np.array([[2.0]]).repeat(40, 0), 0)
    np.testing.assert_allclose(
        fitted - reward.reference_outcome_, reward.out_of_fold_scores_, atol=1e-12
    )
    for fold in range(5):  # at the same text a fold's two models agree
        rows = np.flatnonzero(problem.folds == fold)
        slope = (fitted[rows[0]] - reward.reference_outcome_) / problem.centred[rows[0], 0]
        want = reward.reference_outcome_ + slope * (2.0 - reward.mean_[0])
        np.testing.assert_allclose(fitted_new[rows], want, atol=1e-10)
    assert len(np.unique(fitted_new)) == 5
