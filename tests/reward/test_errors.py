"""What is refused, and what is said then."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalfair.exceptions import (
    DataError,
    IdentificationError,
    ParameterError,
    RoleError,
    SmallSampleWarning,
    UnidentifiedFeatureWarning,
    WeakIdentificationWarning,
)
from causalfair.reward import (
    DeconfoundedReward,
    InstrumentedReward,
    PairwiseReward,
    independence_weights,
    robustness_value,
    unflip_rate,
)


def logs(n=120):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n, 3)), columns=["a", "b", "w"])
    return frame.assign(
        f=rng.integers(0, 6, n),
        y=rng.normal(size=n),
        z=rng.normal(size=n),
        p=rng.normal(size=n),
        trials=50,
        hits=rng.integers(0, 50, n),
        test=np.repeat(np.arange(n // 4), 4),
    )


def fit(frame=None, y="y", roles=None, **options):
    given = {"embedding": ["a", "b"], "categorical": ["f"], **(roles or {})}
    return DeconfoundedReward(**options).fit(logs() if frame is None else frame, y, **given)


def test_text_without_variation_inside_strata():
    frame = logs().assign(a=lambda t: t["f"], b=lambda t: 2.0 * t["f"])
    with pytest.raises(IdentificationError, match="does not vary within the confounder strata"):
        fit(frame)


def test_a_factor_with_one_level_is_dropped_with_a_note():
    reward = fit(logs().assign(one=1), roles={"categorical": ["f", "one"]})
    assert "one: one level only; dropped." in str(reward.summary())


def test_a_row_identifier_is_named():
    with pytest.raises(DataError, match="'row' has as many levels as rows"):
        fit(logs().assign(row=np.arange(120)), roles={"categorical": ["f", "row"]})


def test_a_feature_that_is_a_level():
    frame = logs().assign(b=lambda t: (t["f"] == 2).astype(float))
    with pytest.warns(UnidentifiedFeatureWarning, match=r"functions of the confounders .* b\."):
        fit(frame)


def test_weak_instruments_come_with_the_robust_set():
    with pytest.warns(WeakIdentificationWarning, match="Anderson-Rubin set"):
        InstrumentedReward(penalty=0.0).fit(
            logs(), "y", embedding=["a", "b"], endogenous=["p"], instruments=["z"]
        )


def test_counts_of_instruments():
    with pytest.raises(IdentificationError, match="2 columns in endogenous and 1 in instruments"):
        InstrumentedReward().fit(
            logs(), "y", embedding=["a", "b"], endogenous=["p", "w"], instruments=["z"]
        )


def test_an_instrument_that_is_held_fixed():
    with pytest.raises(RoleError, match="'z' is given in instruments and as a confounder"):
        InstrumentedReward().fit(
            logs(), "y", embedding=["a"], endogenous="p", instruments="z", numeric=["z"]
        )


def test_instruments_need_a_linear_reward():
    with pytest.raises(ParameterError, match=r"needs learner=\"ridge\"; got learner='gbm'"):
        InstrumentedReward("gbm").fit(logs(), "y", embedding=["a"], endogenous="p", instruments="z")


def test_constant_outcomes():
    with pytest.raises(DataError, match=r"y takes one value \(3\) in all 120 rows"):
        fit(logs().assign(y=3.0))


def test_more_successes_than_trials():
    frame = logs()
    frame.loc[7, "hits"] = 51
    with pytest.raises(DataError, match=r"row 7 has 51 successes in 50 trials \(1 such row"):
        fit(frame, "hits", roles={"trials": "trials"})


def test_post_treatment_names():
    with pytest.raises(RoleError, match="'w' is listed in post_treatment"):
        fit(roles={"numeric": ["w"]}, post_treatment=["w"])


def test_clusters():
    with pytest.raises(DataError, match="at least two clusters"):
        fit(roles={"cluster": np.zeros(120)})
    with pytest.warns(SmallSampleWarning, match="Only 12 clusters"):
        fit(roles={"cluster": np.arange(120) % 12})


def test_missing_features_are_counted():
    frame = logs()
    frame.loc[[3, 5], "a"] = np.nan
    with pytest.raises(DataError, match="2 missing value"):
        fit(frame)
    X = np.random.default_rng(0).normal(size=(120, 2))
    X[0, 0] = np.nan
    with pytest.raises(DataError, match="embedding has 1 missing value"):
        fit(roles={"embedding": X})


def test_lengths():
    with pytest.raises(DataError, match="embedding has 60 rows and X has 120"):
        fit(roles={"embedding": np.zeros((60, 2))})
    with pytest.raises(DataError, match=r"'site' has 60 rows and X has 120|lengths differ"):
        fit(roles={"categorical": {"site": np.zeros(60)}})


def test_unknown_levels_at_prediction_do_not_matter():
    reward = fit()
    new = pd.DataFrame({"a": [0.5], "b": [1.0], "f": [999]})
    assert reward.predict(new)[0] == reward.predict(new.assign(f=0))[0]


def test_texts_and_features_are_not_mixed_up():
    reward = fit()
    with pytest.raises(DataError, match="got text, but the reward was fitted on an embedding"):
        reward.predict(["some text"])
    with pytest.raises(DataError, match="X has 3 features; the reward has 2"):
        reward.predict(np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"lacks embedding column\(s\) b"):
        reward.predict(pd.DataFrame({"a": [1.0]}))
    with pytest.raises(RoleError, match="say what represents the text"):
        DeconfoundedReward().fit(logs(), "y", categorical=["f"])
    with pytest.raises(DataError, match="60 missing value"):
        DeconfoundedReward().fit(logs().assign(t=["x", None] * 60), "y", text="t")
    with pytest.raises(DataError, match="text must be str; row 1 is 7"):
        DeconfoundedReward().fit(logs().assign(t=["x", 7] * 60), "y", text="t")


def test_columns_in_two_roles_and_unknown_ones():
    with pytest.raises(RoleError, match="'a' is given as embedding and as numeric"):
        fit(roles={"numeric": ["a"]})
    with pytest.raises(RoleError, match="categorical='ff', but X has no such column. Did you"):
        fit(roles={"categorical": ["ff"]})


def test_weights():
    weight = np.ones(120)
    weight[0] = 0
    with pytest.raises(DataError, match="sample_weight is zero in 1 rows"):
        fit(roles={"sample_weight": weight})
    weight[0] = 1_000
    with pytest.warns(SmallSampleWarning, match="one row carries 89% of all weight"):
        fit(roles={"sample_weight": weight}, penalty=0.1)


def test_numbers_that_are_none():
    with pytest.raises(DataError, match="numeric confounder 'w' has dtype"):
        fit(logs().assign(w="red"), roles={"numeric": ["w"]})
    with pytest.raises(DataError, match="'w' has infinite values"):
        fit(logs().assign(w=np.inf), roles={"numeric": ["w"]})
    with pytest.raises(DataError, match="time 'w' cannot be read as dates"):
        fit(logs().assign(w="not a date"), roles={"time": ["w"]})
    kept = fit(logs().assign(w=lambda t: t["w"].where(t["w"] > 0)), roles={"numeric": ["w"]})
    assert "set to the median and flagged" in " ".join(kept._notes)


def test_experiments_of_one_row():
    with pytest.raises(DataError, match="an experiment needs at least two texts"):
        fit(roles={"experiment": np.r_[0, 1, np.full(118, -1)]})


def test_parameters():
    with pytest.raises(ValueError, match="method"):
        fit(method="magic")
    with pytest.raises(ParameterError, match="learner='forest' must be"):
        fit(learner="forest")
    with pytest.raises(ParameterError, match="features='bert' must be"):
        DeconfoundedReward(features="bert").fit(["a b", "b c"] * 10, np.arange(20.0))
    with pytest.raises(ParameterError, match="by='best' must be"):
        fit().rank(np.zeros((2, 2)), by="best")
    with pytest.raises(ParameterError, match=r"needs learner=\"ridge\""):
        fit(learner="gbm", method="naive", n_refits=2).contrast(np.zeros(2), np.ones(2))
    with pytest.raises(ParameterError, match="dof=1 must exceed 1"):
        robustness_value(2.0, 1)
    with pytest.raises(ParameterError, match="sum to less than 1"):
        unflip_rate(0.4, false_positive=0.6, false_negative=0.5)
    with pytest.raises(DataError, match="method='discrete' is for one column each; got 2 and 1"):
        independence_weights(np.zeros((4, 2)), np.zeros(4), method="discrete")


def test_pairs():
    with pytest.raises(DataError, match="must lie in"):
        PairwiseReward().fit(np.ones((4, 1)), np.array([1.0, 2, 0, 0]))
    with pytest.raises(IdentificationError, match="all differences are zero"):
        PairwiseReward().fit(np.zeros((4, 1)), np.array([1.0, 1, 0, 0]))
