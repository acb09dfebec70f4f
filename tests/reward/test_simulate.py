"""Simulators: their truth is true."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from causalfair import datasets
from causalfair.exceptions import UnidentifiedFeatureWarning
from causalfair.reward import (
    DeconfoundedReward,
    PairwiseReward,
    make_pairs,
)
from causalfair.reward._simulate import _WORDS, ATTRIBUTES, _vocabulary

MAKERS = [name for name in dir(datasets) if name.startswith("make_")]
OURS = [
    "make_bandit_texts", "make_headlines", "make_linear_reward", "make_popularity_iv",
    "make_preferences", "make_proximal_reward", "make_simpson_reward", "make_text_rates",
    "make_two_sources", "make_weekday_answers",
]  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_seeded_and_without_missing_values(name):
    assert name in MAKERS
    make = getattr(datasets, name)
    frame, truth = make(120, random_state=3)
    again, _ = make(120, random_state=3)
    other, _ = make(120, random_state=4)
    assert frame.equals(again)
    assert not frame.equals(other)
    assert not frame.isna().any().any()
    assert isinstance(truth, dict)


def test_words_are_distinct():
    words = _vocabulary(400)
    assert len(set(words)) == 400
    marks = [word for pair in _WORDS.values() for word in pair]
    assert not set(marks) & set(words)
    assert len(set(marks)) == len(marks)


def test_headlines_say_what_their_attributes_are():
    frame, truth = datasets.make_headlines(3000, random_state=0)
    for name in ATTRIBUTES:
        found = frame["headline"].str.split().map(set(_WORDS[name]).isdisjoint)
        np.testing.assert_array_equal(~found, truth["attributes"][name] == 1)
    effects = np.array(list(truth["effects"].values()))
    np.testing.assert_allclose(truth["attributes"].to_numpy() @ effects, truth["reward"])
    residual = frame["outcome"] - truth["reward"] - truth["confounder_effect"]
    assert residual.std() == pytest.approx(1.0, abs=0.05)
    topic = frame["headline"].str.extract(r"topic(\d+)")[0]
    same = (topic == frame["section"].str[1:]).mean()
    assert same == pytest.approx(0.5 + 0.5 / 20, abs=0.03)


def test_headlines_are_entangled_unless_randomised():
    def shares(**options):
        frame, truth = datasets.make_headlines(20_000, random_state=0, **options)
        section = frame["section"].str[1:].astype(int)
        g = np.linspace(-1.5, 1.5, 20)[section]
        return {k: np.corrcoef(truth["attributes"][k], g)[0, 1] for k in ("shock", "number")}

    logged, tested = shares(), shares(randomised=True)
    assert logged["shock"] > 0.3
    assert abs(logged["number"]) < 0.03
    assert abs(tested["shock"]) < 0.03
    _, truth = datasets.make_headlines(10, n_evaluation=20_000, random_state=0)
    share = truth["evaluation_attributes"].mean()
    np.testing.assert_allclose(share, expit(-0.6), atol=0.02)
    assert len(truth["evaluation_texts"]) == 20_000


def test_a_greeting_is_no_quality():
    frame, truth = datasets.make_weekday_answers(4000, random_state=0)
    greets = np.stack([frame["answer"].str.contains(f"greet{d}") for d in range(7)], axis=1)
    assert (greets.argmax(axis=1) == frame["weekday"]).all()
    frame = frame.assign(greet6=greets[:, 6].astype(float))
    names = list(truth["quality"])
    for word in names:
        frame[word] = frame["answer"].str.split().map(lambda t, w=word: float(w in t))
    with pytest.warns(UnidentifiedFeatureWarning, match="greet6"):
        reward = DeconfoundedReward(penalty=0.0).fit(
            frame, "score", embedding=[*names, "greet6"], categorical=["weekday"],
            numeric=["age_days"],
        )  # fmt: skip
    assert reward.coef_[4] == 0.0
    est = reward.estimates_
    want = list(truth["quality"].values())
    assert (np.abs(est.estimate[:4] - want) < 4 * est.std_error[:4]).all()


def test_a_raw_preference_model_pays_for_the_greeting():
    """Across weekdays the log odds of winning; within a weekday the greeting cancels."""
    frame, _ = datasets.make_weekday_answers(800, random_state=0)
    mark = (frame["weekday"] == 6).to_numpy().astype(float)
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, 800, (2, 4000))
    use = mark[i] != mark[j]
    i, j = i[use], j[use]
    score = frame["score"].to_numpy()
    win = (score[i] > score[j]).astype(float)
    fit = PairwiseReward(0.0).fit((mark[i] - mark[j])[:, None], win)
    has = np.where(mark[i] == 1, win, 1 - win)
    assert fit.coef_[0] == pytest.approx(np.log(has.sum() / (len(has) - has.sum())), abs=1e-8)
    assert fit.coef_[0] > 0.4
    pairs = make_pairs(score, np.ones(800), frame["weekday"], frame["answer"].tolist())
    assert (mark[pairs.chosen] == mark[pairs.rejected]).all()


def test_numeric_designs_have_the_moments_they_state():
    n = 200_000
    frame, truth = datasets.make_popularity_iv(n, random_state=0)
    X = np.column_stack([np.ones(n), frame["x"], frame["popularity"]])
    coef = np.linalg.lstsq(X, frame["y"], rcond=None)[0]
    np.testing.assert_allclose(coef[1:], [truth["ols_beta"], truth["ols_gamma"]], atol=0.04)
    frame, truth = datasets.make_proximal_reward(n, random_state=0)
    X = np.column_stack([np.ones(n), frame["x"], frame["outcome_proxy"]])
    coef = np.linalg.lstsq(X, frame["y"], rcond=None)[0]
    assert coef[1] == pytest.approx(truth["proxy_adjusted"], abs=0.03)
    frame, truth = datasets.make_simpson_reward(1000, random_state=0)
    assert np.polyfit(frame["a"], frame["y"], 1)[0] == pytest.approx(truth["naive"], abs=1e-10)
    frame, truth = datasets.make_linear_reward(500, exact=True, random_state=0)
    assert np.polyfit(frame["x"], frame["y"], 1)[0] == pytest.approx(truth["naive"], abs=1e-10)


def test_preferences():
    frame, truth = datasets.make_preferences(40_000, random_state=0)
    names = ["d0", "d1", "d2", "d3"]
    for a in range(5):
        frame[f"taste{a}"] = frame["length_gap"] * (frame["annotator"] == a)
    tastes = [f"taste{a}" for a in range(5)]
    fit = PairwiseReward(0.0).fit(
        frame[names], frame["win"].to_numpy(), nuisance=frame[["shown_first", *tastes]].to_numpy()
    )
    est = fit.estimates_
    want = [*truth["beta"], truth["position"], *truth["length_by_annotator"]]
    assert (np.abs(est.estimate - want) < 4 * est.std_error).all()
    assert datasets.make_preferences(10, n_annotators=1, random_state=0)[1]["length"] == 0.5


def test_two_sources():
    frame, truth = datasets.make_two_sources(40_000, bias=1.0, random_state=0)
    names = [f"x{j}" for j in range(6)]
    logged = frame[frame["experiment"] < 0]
    fit = DeconfoundedReward(penalty=0.0).fit(logged, "y", embedding=names, categorical=["topic"])
    est = fit.estimates_
    assert (np.abs(est.estimate - truth["biased"]) < 4 * est.std_error).all()
    tested = frame[frame["experiment"] >= 0]
    assert (tested.groupby("experiment")["topic"].nunique() == 1).all()
    own = DeconfoundedReward(penalty=0.0).fit(
        tested, "y", embedding=names, categorical=["experiment"]
    )
    assert (np.abs(own.coef_ - truth["beta"]) < 4 * own.estimates_.std_error).all()


def test_bandit_texts():
    frame, truth = datasets.make_bandit_texts(50_000, random_state=0)
    assert frame["y"].mean() == pytest.approx(truth["logged_value"], abs=0.01)
    means = frame.groupby("text")["y"].mean()
    np.testing.assert_allclose(means, truth["means"], atol=0.02)
    ratio = frame["new_propensity"] / frame["propensity"]
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert (ratio * frame["y"]).mean() == pytest.approx(truth["value"], abs=0.03)


def test_rates_are_beta_binomial():
    frame, truth = datasets.make_text_rates(400, random_state=0)
    assert (frame["clicks"] <= frame["views"]).all()
    names = ["x0", "x1", "x2", "x3"]
    reward = DeconfoundedReward(penalty=0.0).fit(
        frame, "clicks", trials="views", embedding=names, categorical=["test"], cluster="test"
    )
    est = reward.estimates_
    assert (np.abs(est.estimate - truth["beta"]) < 4 * est.std_error).all()
    tight, _ = datasets.make_text_rates(2000, 2, concentration=1e8, random_state=0)
    loose, _ = datasets.make_text_rates(2000, 2, concentration=50.0, random_state=0)
    spread = [(f["clicks"] / f["views"]).groupby(f["test"]).std().mean() for f in (tight, loose)]
    assert spread[1] > 1.2 * spread[0]
