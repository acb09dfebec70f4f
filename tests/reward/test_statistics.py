"""Inference, corrections and checks: exact cases, and agreement with obvious versions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from naive import reward as naive
from scipy import sparse

from causalfair.datasets import make_linear_reward, make_simpson_reward, make_text_rates
from causalfair.reward import (
    Absorber,
    DeconfoundedReward,
    PairwiseReward,
    absorbed_ridge,
    conformal_radius,
    independence_weights,
    random_effects,
    unflip_rate,
)

EXACT = 1e-10


def logs(seed=0, n=240):
    rng = np.random.default_rng(seed)
    f, g = rng.integers(0, 12, n), rng.integers(0, 5, n)
    X = rng.normal(size=(n, 3)) + 0.2 * f[:, None]
    y = X @ [1.0, -0.5, 0.2] + 0.3 * f + rng.normal(size=n)
    frame = pd.DataFrame(X, columns=list("abc"))
    return frame.assign(f=f, g=g, y=y, test=np.repeat(np.arange(n // 4), 4))


def fit(frame, **options):
    roles = {"embedding": list("abc"), "categorical": ["f", "g"]}
    keep = {k: options.pop(k) for k in list(options) if k in ("cluster", "numeric", "trials")}
    return DeconfoundedReward(**{"penalty": 0.1, **options}).fit(frame, "y", **roles, **keep)


# ------------------------------------------------------------------------ exact cases


def grouped(n_groups=400, m=4, seed=0):
    rng = np.random.default_rng(seed)
    level = 2 * rng.normal(size=n_groups)
    group = np.repeat(np.arange(n_groups), m)
    x = 0.5 * level[group] + rng.normal(size=n_groups * m)
    return x, x + level[group] + rng.normal(size=n_groups * m), group


def test_f_random_effects_mix_within_and_between():
    x, y, group = grouped()
    found = random_effects(x, y, group, sigma2=1.0, tau2=4.0)
    mean_x, mean_y = (np.bincount(group, a) / 4 for a in (x, y))
    xw, yw = x - mean_x[group], y - mean_y[group]
    xb, yb = (mean_x - mean_x.mean())[group], (mean_y - mean_y.mean())[group]
    share = 1 / 17
    want = (xw @ yw + share * (xb @ yb)) / (xw @ xw + share * (xb @ xb))
    assert found.random == pytest.approx(want, abs=EXACT)
    assert found.mundlak == pytest.approx(found.within, abs=1e-12)
    assert found.test.p_value < 1e-6


def test_f_limits_of_random_and_fixed_effects():
    many = [random_effects(*grouped(seed=s), sigma2=1.0, tau2=4.0) for s in range(40)]
    for name, want in [("random", 1 + (2 / 17) / (0.75 + 1.25 / 17)), ("within", 1.0)]:
        values = np.array([getattr(one, name) for one in many])
        assert abs(values.mean() - want) < 3 * values.std(ddof=1) / np.sqrt(len(values))
    limit = 1 + (2 / 17) / (0.75 + 1.25 / 17)
    assert limit == pytest.approx(1.1429, abs=5e-5)


def test_f_variances_are_estimated():
    found = random_effects(*grouped(2_000, seed=3))
    assert found.sigma2 == pytest.approx(1, abs=0.1)
    # the between regression absorbs what group means of x tell of the level
    assert found.tau2 > 0.5


def test_g_matrix_free_ridge_equals_the_dense_one():
    rng = np.random.default_rng(3)
    X = sparse.random(200, 12, 0.3, random_state=1, format="csr")
    f, g, y = rng.integers(0, 9, 200), rng.integers(0, 6, 200), rng.normal(size=200)
    absorber = Absorber(tol=1e-14).fit([f, g])
    within = naive.residualize([f, g], X.toarray())
    want = np.linalg.solve(within.T @ within / 200 + 0.3 * np.eye(12), within.T @ y / 200)
    np.testing.assert_allclose(absorbed_ridge(X, y, absorber, 0.3), want, atol=EXACT)


def test_n_conformal_coverage_is_exact():
    assert conformal_radius(np.arange(1, 51), 0.9) == 46.0  # covers with probability 46/51
    assert conformal_radius(np.arange(1, 10), 0.9) == 9.0
    assert conformal_radius(np.arange(1, 9), 0.9) == np.inf
    rng = np.random.default_rng(0)
    draws = np.abs(rng.normal(size=(20_000, 51)))
    radius = np.sort(draws[:, :50], axis=1)[:, 45]
    covered = (draws[:, 50] <= radius).mean()
    assert abs(covered - 46 / 51) < 3 * np.sqrt(46 / 51 * 5 / 51 / 20_000)


def test_o_noisy_labels():
    true = 0.4
    seen = true * (1 - 0.2) + (1 - true) * 0.1
    assert unflip_rate(seen, false_positive=0.1, false_negative=0.2) == pytest.approx(
        true, abs=EXACT
    )


def test_b_independence_weights():
    frame, _ = make_simpson_reward(2_000, random_state=0)
    a, w = frame["a"].to_numpy(), frame["w"].to_numpy()
    exact = independence_weights(a, w, method="discrete")
    assert set(exact.round(10)) == {0.625, 2.5}
    assert exact.sum() ** 2 / (exact**2).sum() / len(a) == pytest.approx(0.64, abs=EXACT)
    learnt = independence_weights(a, w, n_permutations=4, random_state=0)
    for weight, allowed in [(exact, 1e-10), (learnt, 0.08)]:
        centred_a, centred_w = (v - np.average(v, weights=weight) for v in (a, w))
        assert abs(np.average(centred_a * centred_w, weights=weight)) < allowed
    weighted = DeconfoundedReward(method="naive", penalty=0.0).fit(
        frame.assign(k=exact), "y", embedding=["a"], sample_weight="k"
    )
    assert weighted.coef_[0] == pytest.approx(-1, abs=EXACT)


# ------------------------------------------------------------------------ inference


def test_effects_are_contrasts_with_their_joint_law():
    reward = fit(logs(), cluster="test")
    texts = np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, -2.0]])
    joint = reward.effects(texts)
    gap = reward.contrast(texts[0], texts[1])
    row = np.array([1.0, -1, 0])
    assert row @ joint.estimate == pytest.approx(gap.estimate[0], abs=EXACT)
    assert np.sqrt(row @ joint.vcov @ row) == pytest.approx(gap.std_error[0], rel=1e-8)
    wide, narrow = joint.conf_int(simultaneous=True), joint.conf_int()
    assert (np.ptp(wide, axis=1) > np.ptp(narrow, axis=1)).all()
    assert reward.win_probability(texts[0], texts[1]) + reward.win_probability(
        texts[1], texts[0]
    ) == pytest.approx(1)
    assert reward.win_probability(texts[0], texts[0]) == 0.5


def test_the_same_text_twice_is_no_contrast():
    reward = fit(logs())
    gap = reward.contrast(np.ones(3), np.ones(3))
    assert (gap.estimate[0], gap.std_error[0]) == (0.0, 0.0)
    assert "equal" in reward.score_test(np.ones(3), np.ones(3)).reason


def test_score_test_agrees_with_the_sandwich_with_many_clusters():
    reward = fit(logs(3, 800), cluster="test")
    a, b = np.array([0.2, 0, 0]), np.zeros(3)
    for left, right in [(a, b), (np.array([0, 0, 0.3]), b)]:
        gap = reward.contrast(left, right)
        wild = reward.score_test(left, right)
        wald = float(gap.p_value()[0])
        assert wild.p_value == pytest.approx(wald, abs=0.03)
    again = reward.score_test(a, b)
    assert again == reward.score_test(a, b)


def test_predict_interval_covers_future_outcomes():
    frame = logs(1, 1_200)
    reward = fit(frame.iloc[:600], random_state=0)
    new = frame.iloc[600:]
    interval = reward.predict_interval(new[list("abc")].to_numpy(), level=0.9)
    # outcomes in the average circumstances of the log
    effect = 0.3 * (new["f"] - frame["f"].iloc[:600].mean())
    inside = (interval[:, 0] <= new["y"] - effect) & (new["y"] - effect <= interval[:, 1])
    assert 0.85 < inside.mean() < 0.95


def test_negative_control_outcomes():
    frame = logs(2, 600)
    reward = fit(frame)
    rng = np.random.default_rng(0)
    innocent = 0.5 * frame["f"] + rng.normal(size=600)
    assert reward.negative_control(innocent).test.p_value > 0.01
    guilty = reward.negative_control(innocent + 0.4 * frame["a"])
    assert guilty.test.p_value < 1e-4
    assert guilty.test.df == 3
    assert guilty.coef[0] == pytest.approx(0.4, abs=0.15)


def test_benchmark_is_the_exact_bias_of_the_benchmark_itself():
    """A cause equal in strength to a recorded one moves the contrast at most that far."""
    rng = np.random.default_rng(0)
    n = 3_000
    w, z = rng.normal(size=(2, n))
    x = w + z + rng.normal(size=n)
    frame = pd.DataFrame({"x": x, "w": w, "y": x + 2 * w + 2 * z + rng.normal(size=n)})
    reward = DeconfoundedReward(penalty=0.0, numeric_basis="linear").fit(
        frame, "y", embedding=["x"], numeric=["w"]
    )
    table = reward.benchmark(np.array([1.0]), np.array([0.0]))
    bias = float(reward.coef_[0] - 1)
    assert table["confounder"].tolist() == ["w"]
    assert table["bias"].iloc[0] == pytest.approx(bias, rel=0.15)
    assert table["low"].iloc[0] == pytest.approx(1, abs=0.2)


def test_mundlak_test_rejects_confounded_strata_only():
    frame = logs(4, 1_000)
    assert fit(frame).mundlak_test().p_value < 0.01
    rng = np.random.default_rng(0)
    y = frame[list("abc")].to_numpy() @ [1.0, -0.5, 0.2] + rng.normal(size=1_000)
    assert fit(frame.assign(y=y)).mundlak_test().p_value > 0.01


# ------------------------------------------------------------------------ learning


def test_rates_weigh_tests_by_precision():
    frame, truth = make_text_rates(random_state=0)
    columns = [f"x{j}" for j in range(4)]
    reward = DeconfoundedReward(penalty=0.0).fit(
        frame, "clicks", embedding=columns, categorical=["test"], trials="views", cluster="test"
    )
    error = reward.estimates_.estimate - truth["beta"]
    assert (np.abs(error) < 3.5 * reward.estimates_.std_error).all()
    assert reward.estimates_.std_error.max() < 0.02
    assert "log odds of clicks in views" in str(reward.summary())


@pytest.mark.parametrize("method", ["orthogonal", "subtract", "naive", "as_feature", "residual_y"])
def test_boosted_rewards(method):
    rng = np.random.default_rng(0)
    n = 800
    w = rng.integers(0, 4, n)
    x = rng.normal(size=(n, 2)) + 0.5 * w[:, None]
    y = np.abs(x[:, 0] - 0.75) + w + 0.3 * rng.normal(size=n)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(w=w, y=y)
    from sklearn.ensemble import HistGradientBoostingRegressor

    learner = HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=8)
    reward = DeconfoundedReward(learner, method=method, n_refits=2, random_state=0).fit(
        frame, "y", embedding=["a", "b"], categorical=["w"]
    )
    grid = np.column_stack([np.linspace(-1, 2.5, 50), np.zeros(50)])
    found = np.corrcoef(reward.predict(grid), np.abs(grid[:, 0] - 0.75))[0, 1]
    assert found > (0.95 if method in ("orthogonal", "subtract") else -1)
    assert len(reward.rank(grid[:5])) == 5


def test_trust_follows_the_bias_of_the_logs():
    from causalfair.datasets import make_two_sources

    frame, truth = make_two_sources(3_000, bias=2.0, random_state=1)
    columns = [c for c in frame.columns if c.startswith("x")]
    roles = {"embedding": columns, "categorical": ["topic"], "experiment": "experiment"}
    chosen = DeconfoundedReward(random_state=0).fit(frame, "y", **roles)
    naive_trust = DeconfoundedReward(trust=0.1, random_state=0).fit(frame, "y", **roles)
    assert chosen.trust_ >= 10
    assert chosen.trust_path_[-1, 1] < chosen.trust_path_[0, 1]
    gap, other = (np.linalg.norm(r.coef_ - truth["beta"]) for r in (chosen, naive_trust))
    assert gap < other
    # all weight on the logs: what they converge to with their hidden cause
    only_logs = DeconfoundedReward(trust=1e-6, penalty=0.0).fit(frame, "y", **roles)
    np.testing.assert_allclose(only_logs.coef_, truth["biased"], atol=0.12)


def test_small_strata_do_not_leak_into_held_out_scores():
    """Pure noise in strata of two: means that straddle folds would look like skill."""
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame(rng.normal(size=(n, 30)), columns=[f"x{j}" for j in range(30)])
    frame = frame.assign(pair=np.repeat(np.arange(n // 2), 2), y=rng.normal(size=n))
    reward = DeconfoundedReward(penalty=0.01, random_state=0).fit(
        frame, "y", embedding=[f"x{j}" for j in range(30)], categorical=["pair"]
    )
    folds = reward._problem.folds.reshape(-1, 2)
    assert (folds[:, 0] == folds[:, 1]).all()
    low, high = reward.calibration_.conf_int()[0]
    assert low < 0 < high
    assert reward.accuracy_ == pytest.approx(0.5, abs=0.12)


def test_pairwise_strata_and_nuisances_cancel():
    from causalfair.datasets import make_preferences

    frame, truth = make_preferences(random_state=0)
    columns = [c for c in frame.columns if c.startswith("d")]
    reward = PairwiseReward(penalty=0.0).fit(
        frame, "win", covariates=columns, nuisance=["length_gap", "shown_first"], cluster="stratum"
    )
    error = reward.estimates_.estimate - [*truth["beta"], truth["length"], truth["position"]]
    assert (np.abs(error) < 3.5 * reward.estimates_.std_error).all()
    blind = PairwiseReward(penalty=0.0).fit(frame, "win", covariates=columns)
    assert blind.coef_[0] > truth["beta"][0] + 0.2  # length takes credit


# ------------------------------------------------------------------------ properties


@pytest.mark.parametrize("method", ["orthogonal", "subtract", "naive", "residual_y", "invariant"])
def test_rows_in_any_order_and_whole_weights(method):
    frame = logs(5)
    want = fit(frame, method=method)
    shuffled = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    np.testing.assert_allclose(fit(shuffled, method=method).coef_, want.coef_, atol=1e-9)
    twice = frame.assign(k=np.where(np.arange(240) < 100, 2.0, 1.0))
    copied = pd.concat([frame, frame.iloc[:100]], ignore_index=True)
    left = DeconfoundedReward(method=method, penalty=0.1).fit(
        twice, "y", embedding=list("abc"), categorical=["f", "g"], sample_weight="k"
    )
    np.testing.assert_allclose(left.coef_, fit(copied, method=method).coef_, atol=1e-9)


def test_numeric_confounders_may_be_curved():
    rng = np.random.default_rng(0)
    n = 4_000
    w = rng.uniform(-2, 2, n)
    x = np.sin(2 * w) + 0.5 * rng.normal(size=n)
    frame = pd.DataFrame({"x": x, "w": w, "y": 0.5 * x + 2 * np.sin(2 * w) + rng.normal(size=n)})
    spline = DeconfoundedReward(penalty=0.0).fit(frame, "y", embedding=["x"], numeric=["w"])
    line = DeconfoundedReward(penalty=0.0, numeric_basis="linear").fit(
        frame, "y", embedding=["x"], numeric=["w"]
    )
    assert abs(spline.coef_[0] - 0.5) < 0.25
    assert line.coef_[0] > 1.5


def coverage(replications, n=400):
    hits = 0
    ratio = []
    for seed in range(replications):
        rng = np.random.default_rng(seed)
        test = np.repeat(np.arange(n // 8), 8)
        f = rng.integers(0, 10, n)
        shared = rng.normal(size=n // 8)
        x = 0.3 * f + rng.normal(size=n) + shared[test]
        y = 0.5 * x + f + rng.normal(size=n // 8)[test] + rng.normal(size=n)
        frame = pd.DataFrame({"x": x, "f": f, "y": y, "test": test})
        found = DeconfoundedReward(penalty=0.0).fit(
            frame, "y", embedding=["x"], categorical=["f"], cluster="test"
        ).estimates_  # fmt: skip
        low, high = found.conf_int()[0]
        hits += low <= 0.5 <= high
        ratio.append((found.estimate[0], found.std_error[0]))
    estimate, spread = np.array(ratio).T
    return hits, spread.mean() / estimate.std(ddof=1), estimate


def test_clustered_intervals_cover():
    hits, _, estimate = coverage(60)
    assert hits >= 51  # 99% binomial band of 60 at 0.95
    assert abs(estimate.mean() - 0.5) < 3 * estimate.std(ddof=1) / np.sqrt(60)


@pytest.mark.slow
def test_clustered_intervals_cover_exactly():
    hits, ratio, estimate = coverage(500)
    assert 462 <= hits <= 487
    assert 0.9 < ratio < 1.1
    assert abs(estimate.mean() - 0.5) < 3 * estimate.std(ddof=1) / np.sqrt(500)


def test_without_training_data_it_still_predicts():
    import pickle

    frame, _ = make_linear_reward(200, random_state=0)
    reward = DeconfoundedReward().fit(frame, "y", embedding=["x"], numeric=["w"])
    copy = pickle.loads(pickle.dumps(reward))
    np.testing.assert_array_equal(copy.predict(frame[["x"]]), reward.predict(frame[["x"]]))
    with pytest.raises(ValueError, match="needs the training data"):
        copy.diagnose()
