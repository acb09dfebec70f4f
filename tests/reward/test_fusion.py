"""Observational and experimental evidence together, and the choice of experiments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import reward as naive

from causalfair.datasets import make_headlines, make_two_sources
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward import (
    DeconfoundedReward,
    PairwiseReward,
    TextFeaturizer,
    fuse,
    inverse_variance_weight,
    select_experiments,
)
from causalfair.reward._fusion import observational_probability

NAMES = [f"x{j}" for j in range(6)]


def sources(seed=0, n=4000, share=0.1, bias=1.0):
    logs, truth = make_two_sources(n, experimental_share=share, bias=bias, random_state=seed)
    logged, tested = logs[logs.experiment < 0], logs[logs.experiment >= 0]
    obs = DeconfoundedReward(penalty=0.0).fit(logged, "y", embedding=NAMES, categorical=["topic"])
    x, y = tested[NAMES].to_numpy(), tested.y.to_numpy()
    ids = tested.experiment.to_numpy()
    i, j = (np.arange(0, len(x), 4)[:, None] + np.array(k) for k in ([0, 0, 1, 2], [1, 2, 3, 3]))
    i, j = i.ravel(), j.ravel()
    tests = (x[i] - x[j], (y[i] > y[j]).astype(float), ids[i])
    exp = PairwiseReward(random_state=0).fit(tests[0], tests[1], cluster=tests[2])
    return obs, exp, tests, truth


@pytest.fixture(scope="module")
def two():
    return sources()


def test_quadrature_is_the_monte_carlo_variance(two):
    obs, _, tests, _ = two
    D = tests[0][:5] * [[0.02], [0.1], [0.3], [1.0], [0.0]]
    p, variance = observational_probability(obs, D)
    mean, want = naive.observational_probability(obs.coef_, obs._posterior.root, D, 200_000)
    np.testing.assert_allclose(p, mean, atol=1e-12)
    np.testing.assert_allclose(variance, want, rtol=0.02, atol=1e-12)


@settings(max_examples=50)
@given(vb=st.floats(0, 9), vu=st.floats(0, 9), b2=st.floats(0, 9))
def test_weight_minimises_the_mean_squared_error(vb, vu, b2):
    weight, mse = inverse_variance_weight(vb, vu, b2)
    assert 0 <= weight <= 1

    def error(w):
        return w**2 * (vb + b2) + (1 - w) ** 2 * vu

    assert mse == pytest.approx(error(float(weight)), rel=1e-9, abs=1e-12)
    for other in np.linspace(0, 1, 21):
        assert mse <= error(other) + 1e-12


def test_without_tests_the_observational_source_is_taken_as_unbiased(two):
    obs, exp, tests, _ = two
    a, b = tests[0][:20], np.zeros((20, 6))
    joint = fuse(obs, exp, a, b)
    frame = joint.to_frame()
    theta_b, var_b = observational_probability(obs, a)
    theta_u, var_u = exp.win_probability(a)
    w = var_u / (var_b + var_u)
    np.testing.assert_allclose(frame["weight"], w, atol=1e-12)
    np.testing.assert_allclose(frame["probability"], w * theta_b + (1 - w) * theta_u, atol=1e-12)
    assert joint.bias == 0.0


def test_bias_twin(two):
    obs, exp, tests, _ = two
    for bins in (1, 3):
        joint = fuse(obs, exp, tests[0], 0 * tests[0], tests=tests, bias_bins=bins, random_state=3)
        bias, squared = naive.fusion_bias(obs, tests, tests[0], bins, random_state=3)
        assert joint.bias == pytest.approx(bias, abs=1e-6)
        assert joint.bias_squared == pytest.approx(np.mean(squared), abs=1e-6)


def test_order_of_the_pairs_does_not_matter(two):
    obs, exp, tests, _ = two
    D, win, ids = tests
    flip = np.random.default_rng(0).choice([-1.0, 1.0], len(win))
    turned = (D * flip[:, None], np.where(flip > 0, win, 1 - win), ids)
    a = fuse(obs, exp, D, 0 * D, tests=tests)
    b = fuse(obs, exp, D, 0 * D, tests=turned)
    assert a.bias == pytest.approx(b.bias, abs=1e-8)
    c = fuse(obs, exp, 0 * D, D, tests=tests).to_frame()
    np.testing.assert_allclose(c["probability"], 1 - a.to_frame()["probability"], atol=1e-10)


def test_a_biased_source_loses_weight():
    found = {}
    for bias in (0.0, 1.5):
        obs, exp, tests, _ = sources(1, bias=bias)
        joint = fuse(obs, exp, tests[0], 0 * tests[0], tests=tests)
        found[bias] = joint.bias_squared, joint.to_frame()["weight"].mean()
    assert found[1.5][0] > 1.3 * found[0.0][0]
    assert found[1.5][1] < 0.8 * found[0.0][1]


def gaps(seed):
    """Pairs of new texts, the truth about them, and rewards of each source and of both."""
    obs, exp, tests, truth = sources(seed, n=3000, share=0.04, bias=0.8)
    D = np.random.default_rng(seed).normal(size=(3000, 6))
    right = D @ truth["beta"] > 0
    joint = fuse(obs, exp, D, 0 * D, tests=tests)
    ground = fuse(obs, exp, D, 0 * D, tests=tests, method="grounding")
    frame = joint.to_frame()
    found = {"obs": frame["observational"], "exp": frame["experimental"]}
    found |= {"ivw": frame["probability"], "grounding": ground.to_frame()["probability"]}
    return {k: np.mean((v.to_numpy() > 0.5) == right) for k, v in found.items()}


def test_both_sources_beat_either():
    runs = [gaps(seed) for seed in range(12)]
    mean = {k: np.mean([run[k] for run in runs]) for k in runs[0]}
    assert mean["grounding"] > max(mean["obs"], mean["exp"])
    assert mean["ivw"] > max(mean["obs"], mean["exp"])


def test_grounding_is_a_linear_reward(two):
    obs, exp, tests, truth = two
    joint = fuse(obs, exp, tests[0][:9], 0 * tests[0][:9], tests=tests, method="grounding")
    assert joint.trust > 0
    p = 1 / (1 + np.exp(-joint.predict(tests[0][:9])))
    np.testing.assert_allclose(joint.to_frame()["probability"], p, atol=1e-12)
    np.testing.assert_allclose(
        joint.to_frame()["experimental"], exp.win_probability(tests[0][:9])[0], atol=1e-12
    )
    assert np.corrcoef(joint.coef, truth["beta"])[0, 1] > 0.97
    assert "grounding" in repr(joint)


def test_grounding_never_turns_the_observational_reward_around(two):
    obs, exp, tests, _ = two
    D, _, ids = tests
    wrong = (D, (D @ obs.coef_ < 0).astype(float) * 0.6 + 0.2, ids)
    joint = fuse(obs, exp, D, 0 * D, tests=wrong, method="grounding")
    assert joint.trust == 0.0
    alone = PairwiseReward(random_state=0).fit(D, wrong[1], cluster=ids)
    np.testing.assert_allclose(joint.coef, alone.coef_, atol=1e-10)


def test_results_cite(two):
    obs, exp, tests, _ = two
    ivw = fuse(obs, exp, tests[0][:3], 0 * tests[0][:3])
    assert "loghmani2026reward" in ivw.cite().bibtex()
    ground = fuse(obs, exp, tests[0][:3], 0 * tests[0][:3], tests=tests, method="grounding")
    assert "kallus2018removing" in ground.cite().bibtex()
    with pytest.raises(ParameterError, match="no reward of single texts"):
        ivw.predict(tests[0])
    assert repr(ivw).startswith("Fusion of 3 pairs")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"method": "mean"}, ParameterError, "method='mean'"),
        ({"bias_bins": 0}, ParameterError, "bias_bins=0"),
        ({"method": "grounding", "tests": None}, DataError, "needs tests="),
        ({"a": np.zeros((2, 5))}, DataError, "a has 5 features; .* has 6"),
        ({"b": np.zeros((3, 6))}, DataError, "a 2, b 3"),
        ({"tests": (np.zeros((4, 6)), np.zeros(4))}, DataError, "must be"),
        (
            {"tests": (np.zeros((4, 6)), np.zeros(4), [0, 0, 1, 1])},
            DataError,
            "2 tests are too few",
        ),
        ({"tests": (np.zeros((4, 5)), np.zeros(4), range(4))}, DataError, "tests have 5 features"),
        ({"tests": (np.zeros((4, 6)), np.full(4, 2.0), range(4))}, DataError, r"in \[0, 1\]"),
    ],
)
def test_bad_input(two, change, error, match):
    obs, exp, tests, _ = two
    options = {"a": np.zeros((2, 6)), "b": np.zeros((2, 6)), "tests": tests} | change
    with pytest.raises(error, match=match):
        fuse(obs, exp, **options)


def test_flexible_rewards_are_refused(two):
    from sklearn.linear_model import LinearRegression

    _, exp, _, _ = two
    logs, _ = make_two_sources(3000, bias=0.0, random_state=0)
    tree = DeconfoundedReward(LinearRegression(), n_refits=2, n_folds=2).fit(
        logs, "y", embedding=NAMES, categorical=["topic"]
    )
    with pytest.raises(ParameterError, match='learner="ridge"'):
        fuse(tree, exp, np.zeros((1, 6)), np.zeros((1, 6)))
    tests = [np.eye(6)[:2], np.eye(6)[2:5]]
    spread = select_experiments(tests, tree)["score"]
    want = sorted((np.ptp(tree.predict(t)) for t in tests), reverse=True)
    np.testing.assert_allclose(spread, want)
    with pytest.raises(ParameterError, match='learner="ridge"'):
        select_experiments(tests, tree, exp, rule="disagreement")


# Which tests next ----------------------------------------------------------------------------------


def test_rules(two):
    obs, exp, _, _ = two
    rng = np.random.default_rng(0)
    tests = [rng.normal(size=(m, 6)) * m for m in (2, 3, 4)]
    spread = select_experiments(tests, obs)
    want = [np.ptp(t @ obs.coef_) for t in tests]
    np.testing.assert_allclose(spread.sort_values("test")["score"], want)
    smallest = select_experiments(tests, obs, rule="smallest")
    assert smallest["test"].tolist() == spread["test"].tolist()[::-1]
    quarrel = select_experiments(tests, obs, exp, rule="disagreement").sort_values("test")["score"]
    np.testing.assert_allclose(quarrel, [naive.disagreement(obs, exp, t) for t in tests])
    seen = rng.normal(size=(10, 6))
    novelty = select_experiments(tests, obs, rule="novelty", seen=seen).sort_values("test")["score"]
    np.testing.assert_allclose(
        novelty, [np.mean([np.linalg.norm(s - t.mean(axis=0)) for s in seen]) for t in tests]
    )
    one, again, other = (
        select_experiments(tests, obs, rule="random", random_state=s) for s in (1, 1, 2)
    )
    assert one.equals(again)
    assert not one["score"].equals(other["score"])


def test_tests_of_raw_text():
    logs, _ = make_headlines(400, n_categories=4, random_state=0)
    obs = DeconfoundedReward(
        features=TextFeaturizer(n_components=20, random_state=0), random_state=0
    ).fit(logs, "outcome", text="headline", categorical=["section"])
    texts = [logs["headline"].tolist()[:3], logs["headline"].tolist()[3:5]]
    found = select_experiments(texts, obs).sort_values("test")["score"]
    np.testing.assert_allclose(found, [np.ptp(obs.predict(t)) for t in texts])
    rng = np.random.default_rng(0)
    X = obs.featurizer_.transform(logs["headline"])
    i, j = rng.integers(0, 400, (2, 200))
    keep = np.abs(X[i] - X[j]).sum(axis=1) > 0
    exp = PairwiseReward(1.0).fit(X[i][keep] - X[j][keep], rng.random(keep.sum()).round())
    raw = fuse(obs, exp, texts[0][:2], texts[0][1:]).to_frame()
    Z = obs.featurizer_.transform(texts[0])
    numbers = fuse(obs, exp, Z[:2], Z[1:]).to_frame()
    np.testing.assert_allclose(raw.to_numpy(), numbers.to_numpy(), atol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"rule": "best"}, ParameterError, "rule='best'"),
        ({"rule": "disagreement"}, ParameterError, "needs exp="),
        ({"rule": "novelty"}, ParameterError, "needs seen="),
        ({"tests": [np.zeros((1, 6))]}, DataError, r"tests\[0\] has 1 text"),
        ({"tests": [np.zeros((2, 5))]}, DataError, r"tests\[0\] has 5 features"),
    ],
)
def test_bad_choices(two, options, error, match):
    obs, *_ = two
    with pytest.raises(error, match=match):
        select_experiments(**({"tests": [np.zeros((2, 6))], "obs": obs} | options))
