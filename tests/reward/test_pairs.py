"""Preference pairs inside strata, and the files made from them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import reward as naive
from scipy.stats import norm

from causalfair.datasets import make_headlines, make_linear_reward
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward import (
    DeconfoundedReward,
    TextFeaturizer,
    as_reward_function,
    make_pairs,
)


@pytest.fixture(scope="module")
def logs():
    return make_headlines(1200, n_categories=6, random_state=0)


@pytest.fixture(scope="module")
def reward(logs):
    frame, _ = logs
    return DeconfoundedReward(
        features=TextFeaturizer(n_components=60, random_state=0), random_state=0
    ).fit(frame, "outcome", text="headline", categorical=["section", "hour"])


def small(**options):
    score, strata = [3.0, 1.0, 0.0, 2.0, 9.0], [0, 0, 0, 1, 1]
    return make_pairs(score, np.full(5, 0.5), strata, list("abcde"), **options)


def test_probability_and_order():
    pairs = small(min_prob=0.5)
    found = {
        (i, j): p for i, j, p in zip(pairs.chosen, pairs.rejected, pairs.probability, strict=True)
    }
    want = {(0, 1): norm.cdf(2), (0, 2): norm.cdf(3), (1, 2): norm.cdf(1), (4, 3): norm.cdf(7)}
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert found[key] == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(pairs.weight, 2 * pairs.probability - 1)
    assert pairs.flip_probability == pytest.approx(np.mean([1 - v for v in want.values()]))


def test_thresholds():
    assert len(small(min_prob=0.99)) == 2
    assert len(small(min_prob=0.5, min_gap=2.5)) == 2


def test_prompts_split_strata():
    pairs = small(min_prob=0.5, prompts=["p", "p", "q", "p", "p"])
    assert set(zip(pairs.chosen, pairs.rejected, strict=True)) == {(0, 1), (4, 3)}


def test_no_pair_of_the_same_text():
    pairs = make_pairs([2.0, 1.0, 0.0], np.zeros(3), [0, 0, 0], ["a  b", "a b", "c"])
    assert set(zip(pairs.chosen, pairs.rejected, strict=True)) == {(0, 2), (1, 2)}
    assert (pairs.probability == 1).all()


@pytest.mark.kernel
@settings(max_examples=60)
@given(
    n=st.integers(1, 25), levels=st.integers(1, 6), per_stratum=st.integers(1, 6),
    per_text=st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_twin(n, levels, per_stratum, per_text, seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 6, n).astype(float)  # ties on purpose
    variance, strata = rng.random(n), rng.integers(0, levels, n)
    texts = [f"t{k}" for k in rng.integers(0, 2 * n, n)]
    options = {"min_prob": 0.6, "max_per_stratum": per_stratum, "max_per_text": per_text}
    pairs = make_pairs(score, variance, strata, texts, **options)
    found = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    assert sorted(found) == naive.preference_pairs(score, variance, strata, texts, **options)
    assert bool(pairs.reason) == (not found)


def test_very_large_strata_are_sampled_the_same_way_twice():
    rng = np.random.default_rng(0)
    score, strata = rng.normal(size=3000), np.zeros(3000, int)
    texts = [f"t{i}" for i in range(3000)]
    options = {"max_per_stratum": 200, "min_prob": 0.5}
    once = make_pairs(score, np.zeros(3000), strata, texts, random_state=1, **options)
    again = make_pairs(score, np.zeros(3000), strata, texts, random_state=1, **options)
    other = make_pairs(score, np.zeros(3000), strata, texts, random_state=2, **options)
    np.testing.assert_array_equal(once.chosen, again.chosen)
    assert len(once) == 200
    assert not np.array_equal(once.chosen, other.chosen)
    assert len(set(zip(once.chosen, once.rejected, strict=True))) == 200


def test_reasons_for_no_pairs():
    alone = make_pairs([1.0, 2.0], [0.1, 0.1], [0, 1], ["a", "b"])
    assert len(alone) == 0
    assert "every stratum has one text" in repr(alone)
    equal = make_pairs([1.0, 2.0], [0.1, 0.1], [0, 0], ["a", "a"])
    assert "two different texts" in equal.reason
    noisy = make_pairs([1.0, 2.0], [9.0, 9.0], [0, 0], ["a", "b"])
    assert "none of 1 pairs" in noisy.reason
    with pytest.raises(DataError, match="no row for kind='reward': every stratum"):
        alone.records("reward")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"min_prob": 0.3}, "min_prob=0.3"),
        ({"min_prob": 1.0}, "min_prob=1.0"),
        ({"min_gap": -1}, "min_gap=-1"),
        ({"max_per_text": 0}, "max_per_text=0"),
        ({"prompts": ["p"]}, "prompts 1"),
        ({"prompts": [None] * 5}, "row 0 is None"),
    ],
)
def test_bad_options(change, match):
    with pytest.raises((ParameterError, DataError), match=match):
        small(**change)


def test_bad_scores_and_variances():
    with pytest.raises(DataError, match="score has 1 missing"):
        make_pairs([1.0, np.nan], [1, 1], [0, 0], ["a", "b"])
    with pytest.raises(DataError, match="variance= is needed"):
        make_pairs([1.0, 2.0], None, [0, 0], ["a", "b"])
    with pytest.raises(DataError, match="1 of them negative"):
        make_pairs([1.0, 2.0], [1, -1], [0, 0], ["a", "b"])


def test_pairs_of_a_reward_follow_its_posterior(reward, logs):
    frame, truth = logs
    pairs = reward.make_pairs(strata="section", min_prob=0.8)
    i, j = pairs.chosen, pairs.rejected
    assert (frame["section"].to_numpy()[i] == frame["section"].to_numpy()[j]).all()
    np.testing.assert_allclose(pairs.scores, reward.predict(frame["headline"]), atol=1e-10)
    gap = reward._problem.X[i] - reward._problem.X[j]
    spread = np.sqrt(((gap @ reward._posterior.root) ** 2).sum(axis=1))
    np.testing.assert_allclose(pairs.probability, norm.cdf(pairs.margin / spread), atol=1e-10)
    right = truth["reward"][i] > truth["reward"][j]
    differ = truth["reward"][i] != truth["reward"][j]
    assert right[differ].mean() > 0.9


def test_pairs_by_outcome_are_noisier_but_stay_in_cells(reward, logs):
    frame, _ = logs
    pairs = reward.make_pairs(by="outcome", min_prob=0.7)
    cells = frame["section"] + frame["hour"].astype(str)
    assert (cells.to_numpy()[pairs.chosen] == cells.to_numpy()[pairs.rejected]).all()
    noise = np.sqrt(2 * np.var(frame["outcome"] - logs[1]["reward"] - logs[1]["confounder_effect"]))
    np.testing.assert_allclose(pairs.probability, norm.cdf(pairs.margin / noise), atol=0.02)
    assert abs(pairs.scores.mean()) < 1e-8


def test_a_stratum_effect_changes_no_pair(reward, logs):
    frame, _ = logs
    shift = frame["section"].str[1:].astype(float) * 40
    moved = DeconfoundedReward(
        features=TextFeaturizer(n_components=60, random_state=0), random_state=0
    )
    moved.fit(
        frame.assign(outcome=frame["outcome"] + shift), "outcome", text="headline",
        categorical=["section", "hour"],
    )  # fmt: skip
    for by in ("reward", "outcome"):
        a, b = reward.make_pairs(by=by), moved.make_pairs(by=by)
        np.testing.assert_array_equal(a.chosen, b.chosen)
        np.testing.assert_allclose(a.margin, b.margin, atol=1e-8)


def test_flexible_rewards_use_their_refits():
    from sklearn.linear_model import Ridge

    frame, _ = make_headlines(400, n_categories=4, entangle=0.3, random_state=0)
    reward = DeconfoundedReward(
        Ridge(100.0), features=TextFeaturizer(n_components=10, random_state=0), n_refits=5,
        n_folds=2, random_state=0,
    ).fit(frame, "outcome", text="headline", categorical=["section"])  # fmt: skip
    pairs = reward.make_pairs(min_prob=0.6)
    i, j = pairs.chosen[:5], pairs.rejected[:5]
    spread = reward._posterior._spreads(reward._problem.X)
    want = (spread[:, i] - spread[:, j]).std(axis=0, ddof=1)
    np.testing.assert_allclose(pairs.probability[:5], norm.cdf(pairs.margin[:5] / want), atol=1e-10)
    assert len(reward.make_pairs(by="outcome", min_prob=0.6))


def test_balance(reward, logs):
    frame, _ = logs
    pairs = reward.make_pairs(strata="section")
    table = pairs.balance({"position": np.arange(len(frame))}).set_index("column")
    assert table.loc["section", "gap"] == 0.0
    assert 0 < table.loc["hour", "gap"] < 0.5
    i, j = pairs.chosen, pairs.rejected
    assert table.loc["position", "chosen"] == pytest.approx(i.mean())
    want = (i.mean() - j.mean()) / np.concatenate([i, j]).std()
    assert table.loc["position", "gap"] == pytest.approx(want)
    words = frame["headline"].str.split().str.len().to_numpy()
    assert table.loc["tokens", "rejected"] == pytest.approx(words[j].mean(), abs=1.0)


def test_reward_pairs_need_text_and_a_known_stratum(reward):
    frame, _ = make_linear_reward(100, random_state=0)
    plain = DeconfoundedReward().fit(frame, "y", embedding=["x"], numeric=["w"])
    with pytest.raises(DataError, match="fit with text="):
        plain.make_pairs()
    with pytest.raises(DataError, match="strata='topic'"):
        reward.make_pairs(strata="topic")
    with pytest.raises(ParameterError, match="by='score'"):
        reward.make_pairs(by="score")


# Exports ------------------------------------------------------------------------------------------


@pytest.fixture
def pairs():
    texts = ["Größe  \u2028 ok", 'say "hi"', "c", "d", "e"]
    return make_pairs(
        [3.0, 1.0, 0.0, 2.0, 9.0], np.full(5, 0.5), [0, 0, 0, 1, 1], texts, min_prob=0.5,
        prompts=["p", "p", "p", "q", "q"], card={"method": "orthogonal"},
    )  # fmt: skip


def test_preference_rows(pairs):
    rows = pairs.records()
    assert [set(row) for row in rows] == [{"prompt", "chosen", "rejected", "margin"}] * 4
    assert rows[0] == {
        "prompt": "p",
        "chosen": pairs.texts[0],
        "rejected": 'say "hi"',
        "margin": 2.0,
    }
    assert "prompt" not in pairs.records("reward")[0]


def test_conversational_rows(pairs):
    row = pairs.records(conversational=True)[0]
    assert row["prompt"] == [{"role": "user", "content": "p"}]
    assert row["chosen"] == [{"role": "assistant", "content": pairs.texts[0]}]


def test_unpaired_rows_leave_the_middle_out(pairs):
    rows = pairs.records("unpaired", dead_zone=0.1)
    assert [row["label"] for row in rows] == [False, False, False, True]  # mean 3: the first is out
    assert all(type(row["label"]) is bool for row in rows)
    assert len(pairs.records("unpaired", dead_zone=0)) == 4


def test_prompts_once(pairs):
    assert pairs.records("prompt") == [{"prompt": "p"}, {"prompt": "q"}]


def test_weights_are_exponential_and_clipped(pairs):
    weight = np.array([row["weight"] for row in pairs.records("weighted", temperature=2.0)])
    z = (pairs.scores - pairs.scores.mean()) / pairs.scores.std() / 2
    np.testing.assert_allclose(weight, np.exp(z) / np.exp(z).mean())
    cold = np.array([row["weight"] for row in pairs.records("weighted", temperature=1e-3)])
    assert cold.max() / cold.min() == pytest.approx(np.exp(10))
    flat = make_pairs([1.0, 1.0], [1, 1], [0, 0], ["a", "b"], prompts=["p", "p"])
    assert [row["weight"] for row in flat.records("weighted")] == [1.0, 1.0]


def test_resampling_follows_the_weights(pairs):
    n = 4000
    scores = np.resize(pairs.scores, n)
    many = make_pairs(
        scores, np.ones(n), np.arange(n), [f"{i % 5}" for i in range(n)], prompts=["p"] * n
    )
    drawn = [row["completion"] for row in many.records("sft", random_state=3)]
    weight = np.exp((pairs.scores - scores.mean()) / scores.std())
    share = np.bincount(np.array(drawn, int), minlength=5) / n
    want = weight / weight.sum()
    assert (np.abs(share - want) < 4 * np.sqrt(want * (1 - want) / n)).all()
    assert drawn == [row["completion"] for row in many.records("sft", random_state=3)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("conversational", [False, True])
def test_files_hold_the_rows(pairs, tmp_path, suffix, conversational):
    for kind in ("preference", "reward", "unpaired", "prompt", "sft", "weighted"):
        path = pairs.to_trl(tmp_path / f"{kind}{suffix}", kind=kind, conversational=conversational)
        if suffix == ".jsonl":
            lines = path.read_bytes().decode("utf-8").split("\n")
            rows = [json.loads(line) for line in lines[:-1]]
            assert lines[-1] == ""
        else:
            frame = pytest.importorskip("pyarrow.parquet").read_table(path)
            rows = frame.to_pylist()
        assert rows == pairs.records(kind, conversational=conversational)
        card = json.loads((tmp_path / f"{kind}.card.json").read_text(encoding="utf-8"))
        assert card["kind"] == kind
        assert card["rows"] == len(rows)
        assert card["method"] == "orthogonal"
        assert card["label_smoothing"] == pytest.approx(pairs.flip_probability)


def test_the_card_of_a_reward(reward, tmp_path):
    pairs = reward.make_pairs(strata="section")
    pairs.to_trl(tmp_path / "r.jsonl", kind="reward")
    card = json.loads((tmp_path / "r.card.json").read_text(encoding="utf-8"))
    assert card["method"] == "orthogonal"
    assert card["confounders"] == ["section", "hour"]
    assert card["penalty"] == reward.penalty_
    assert card["n"] == 1200
    assert 0 < card["label_smoothing"] < 0.3


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"kind": "dpo"}, ParameterError, "kind='dpo'"),
        ({"kind": "weighted", "temperature": 0.0}, ParameterError, "temperature=0.0"),
        ({"kind": "unpaired", "dead_zone": -1}, ParameterError, "dead_zone=-1"),
        ({"kind": "unpaired", "dead_zone": 99}, DataError, "no text stands out"),
    ],
)
def test_bad_exports(pairs, options, error, match):
    with pytest.raises(error, match=match):
        pairs.records(**options)


def test_bad_paths_and_missing_prompts(pairs, tmp_path):
    with pytest.raises(ParameterError, match=r"must end in .jsonl or .parquet"):
        pairs.to_trl(tmp_path / "x.csv")
    with pytest.raises(DataError, match="needs prompts"):
        small().to_trl(tmp_path / "x.jsonl")


def test_reward_function(reward, logs):
    frame, _ = logs
    texts = frame["headline"].tolist()[:3]
    score = as_reward_function(reward)
    want = reward.predict(texts).tolist()
    assert score(prompts=["p"] * 3, completions=texts, extra=1) == want
    messages = [
        [{"role": "user", "content": "?"}, {"role": "assistant", "content": t}] for t in texts
    ]
    assert score(["p"] * 3, messages) == want
    assert score([], []) == []
    assert score.__name__ == "deconfounded_reward"
    with pytest.raises(DataError, match="completion 0"):
        score(["p"], [[{"role": "assistant", "content": [{"type": "image"}]}]])


def test_frame(pairs):
    frame = pairs.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["chosen_row"]) == pairs.chosen.tolist()
    assert frame.loc[0, "rejected"] == 'say "hi"'
    assert repr(pairs).startswith("Pairs: 4 in 2 strata")
