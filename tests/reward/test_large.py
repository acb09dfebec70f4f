"""Problems too large to hold every fold at once give the same bits as small ones."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.datasets import make_headlines
from causalfair.reward import DeconfoundedReward, TextFeaturizer, _methods
from causalfair.reward._score import _block


@pytest.mark.parametrize("method", ["orthogonal", "subtract", "naive"])
def test_folds_one_at_a_time(method, monkeypatch):
    frame, _ = make_headlines(600, n_categories=5, random_state=0)
    frame = frame.assign(pair=np.arange(600) // 2)

    def fit():
        return DeconfoundedReward(
            method=method, features=TextFeaturizer(n_components=20, random_state=0), random_state=0
        ).fit(frame, "outcome", text="headline", categorical=["section"], cluster="pair")

    once = fit()
    monkeypatch.setattr(_methods, "MOST_HELD", 0)
    again = fit()
    np.testing.assert_array_equal(once.coef_, again.coef_)
    np.testing.assert_array_equal(once.out_of_fold_scores_, again.out_of_fold_scores_)
    assert once.penalty_ == again.penalty_
    assert once.calibration_ == again.calibration_
    for train, test in again._problem._cache["parts"]:
        assert len(train.X) == len(test.X) == 0
        assert not {"centred", "within"} & (train._cache.keys() | test._cache.keys())
    for train, _, rows in again._problem.parts():
        assert len(train.X) == 600 - len(rows)


def test_many_candidates_are_ranked_block_by_block(monkeypatch):
    from causalfair.reward import _score

    frame, _ = make_headlines(400, n_categories=4, random_state=0)
    reward = DeconfoundedReward(
        features=TextFeaturizer(n_components=10, random_state=0), random_state=0
    ).fit(frame, "outcome", text="headline", categorical=["section"])
    texts = frame["headline"].tolist()[:6]
    whole = reward.rank(texts, n_draws=1000)
    monkeypatch.setattr(_score, "_block", lambda _: 7)
    parts = reward.rank(texts, n_draws=1000)
    assert whole["candidate"].tolist() == parts["candidate"].tolist()
    assert parts["p_best"].sum() == pytest.approx(1)
    assert parts["expected_rank"].sum() == pytest.approx(21)
    np.testing.assert_allclose(whole["p_best"], parts["p_best"], atol=0.08)
    assert _block(1) == 2_000_000
    assert _block(10**9) == 1
