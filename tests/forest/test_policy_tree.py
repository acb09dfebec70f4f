"""Rules of one and two cuts: against every rule there is, and on other rows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from causalfair.exceptions import DataError, ParameterError
from causalfair.forest import learn_policy_tree, policy_value


def best_gain(X, gain, depth, least=1):
    """Largest sum of gains over all trees, by trying them."""
    stay = max(gain.sum(), 0.0)
    if depth == 0:
        return stay
    best = stay
    for j in range(X.shape[1]):
        for cut in np.unique(X[:, j])[:-1]:
            low = X[:, j] <= cut
            if min(low.sum(), (~low).sum()) < least:
                continue
            sides = (best_gain(X[s], gain[s], depth - 1, least) for s in (low, ~low))
            best = max(best, sum(sides))
    return best


@pytest.mark.parametrize(("depth", "least"), list(product((1, 2), (1, 6))))
@pytest.mark.parametrize("seed", range(5))
def test_no_rule_is_better(depth, least, seed):
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=26), rng.integers(0, 4, 26), np.zeros(26)])
    scores = rng.normal(size=26) + 0.2
    rule = learn_policy_tree(X, scores, depth=depth, cost=0.1, min_leaf_size=least)
    gain = scores - 0.1
    assert rule.gain * 26 == pytest.approx(best_gain(X, gain, depth, least), abs=1e-12)
    assert (rule.predict(X) * gain).sum() == pytest.approx(rule.gain * 26, abs=1e-12)


def test_weights_are_repeated_rows():
    rng = np.random.default_rng(9)
    X, scores = rng.normal(size=(40, 3)), rng.normal(size=40)
    weight = rng.integers(1, 4, 40)
    weighted = learn_policy_tree(X, scores, sample_weight=weight)
    repeated = learn_policy_tree(np.repeat(X, weight, axis=0), np.repeat(scores, weight))
    np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))
    assert weighted.gain == pytest.approx(repeated.gain)


def test_a_rule_is_found_in_noise_and_holds_on_other_rows():
    """Units gain where a > 0 and b > 0; cuts are thinned to 64 quantiles."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(6000, 6)), columns=list("abcdef"))
    effect = np.where((frame["a"] > 0) & (frame["b"] > 0), 2.0, -1.0)
    scores = effect + rng.normal(scale=3, size=6000)
    half = np.arange(6000) < 3000
    rule = learn_policy_tree(frame[half], scores[half])
    agree = (rule.predict(frame[~half]) == (effect[~half] > 0)).mean()
    assert agree > 0.95
    value = policy_value(rule.predict(frame[~half]), scores[~half])
    assert value["policy"].conf_int()[0, 0] < 0.5 < value["policy"].conf_int()[0, 1]
    assert str(rule).startswith(("a <= ", "b <= "))
    assert "treat (" in str(rule)


def test_everybody_or_nobody():
    X = np.arange(6.0)[:, None]
    everybody = learn_policy_tree(X, np.ones(6))
    assert str(everybody) == "treat all (6)"
    assert everybody.predict(X).all()
    assert str(learn_policy_tree(X, -np.ones(6))) == "do not treat all (6)"
    assert not learn_policy_tree(X, np.ones(6), cost=2.0).predict(X).any()


def test_refusals():
    X, scores = np.arange(6.0)[:, None], np.ones(6)
    with pytest.raises(ParameterError, match="depth=3"):
        learn_policy_tree(X, scores, depth=3)
    with pytest.raises(ParameterError, match="max_cuts=0"):
        learn_policy_tree(X, scores, max_cuts=0)
    with pytest.raises(DataError, match="missing"):
        learn_policy_tree(np.where(X > 3, np.nan, X), scores)
    rule = learn_policy_tree(pd.DataFrame({"a": np.arange(6.0)}), scores)
    with pytest.raises(DataError, match="columns b; the rule was learned on a"):
        rule.predict(pd.DataFrame({"b": [1.0]}))
    with pytest.raises(DataError, match="2 column"):
        rule.predict(np.zeros((1, 2)))
