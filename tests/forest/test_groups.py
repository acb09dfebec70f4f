"""Average effects of groups formed by a ranking."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.forest import CausalForest, RLearner, group_average_effects, policy_value, treat_top
from causalfair.inference import InfluenceEstimates


@pytest.fixture(scope="module")
def units():
    rng = np.random.default_rng(0)
    effect = rng.normal(size=900)
    return effect, 1 + effect + rng.normal(size=900), rng.integers(0, 90, 900)


def test_groups_are_means_of_scores_with_their_errors(units):
    priority, scores, cluster = units
    groups = group_average_effects(priority, scores, n_groups=3)
    order = np.argsort(priority)
    for k in range(3):
        own = scores[order[300 * k : 300 * (k + 1)]]
        assert groups.estimates_.estimate[k] == pytest.approx(own.mean())
        error = np.sqrt(own.var() / 300 * 900 / 899)
        assert groups.estimates_.std_error[k] == pytest.approx(error)
        assert groups.predicted[k] == pytest.approx(np.sort(priority)[300 * k :][:300].mean())
    apart = groups.estimates_["highest - lowest"]
    assert apart.std_error[0] == pytest.approx(
        np.hypot(*groups.estimates_.std_error[[0, 2]]), rel=1e-6
    )
    clustered = group_average_effects(priority, scores, n_groups=3, cluster=cluster)
    member = groups.group == 2
    one = InfluenceEstimates(
        scores[member].mean(), (member * (scores - scores[member].mean()) * 3)[:, None], ["top"],
        cluster=cluster,
    )  # fmt: skip
    assert clustered.estimates_.std_error[2] == pytest.approx(one.std_error[0])


def test_groups_are_what_treating_the_top_gains(units):
    priority, scores, _ = units
    top = group_average_effects(priority, scores, n_groups=4).estimates_.estimate[3]
    value = policy_value(treat_top(priority, 0.25), scores)["policy"].estimate[0]
    assert value == pytest.approx(top / 4)


def test_weights_and_ties(units):
    priority, scores, _ = units
    doubled = group_average_effects(np.r_[priority, priority], np.r_[scores, scores], n_groups=3)
    weighted = group_average_effects(priority, scores, n_groups=3, sample_weight=np.full(900, 2.0))
    np.testing.assert_allclose(weighted.estimates_.estimate, doubled.estimates_.estimate)
    rounded = group_average_effects(np.round(priority), scores, n_groups=3)
    for level in np.unique(np.round(priority)):
        assert np.unique(rounded.group[np.round(priority) == level]).size == 1


def test_units_are_ranked_within_folds(units):
    priority, scores, _ = units
    fold = np.arange(900) % 3
    shifted = priority + 100 * fold  # models of different folds have levels of their own
    groups = group_average_effects(shifted, scores, n_groups=3, fold=fold)
    for f in range(3):
        assert (np.bincount(groups.group[fold == f]) == 100).all()
    flat = np.where(fold == 0, 0.0, priority)
    with pytest.warns(CausalFairWarning, match="1 of 3 folds have a ranking too flat"):
        left = group_average_effects(flat, scores, n_groups=3, fold=fold)
    assert (left.group[fold == 0] == -1).all()
    assert left.size.tolist() == [200, 200, 200]
    missing = np.where(fold == 0, np.nan, priority)
    assert (group_average_effects(missing, scores, fold=fold).group[fold == 0] == -1).all()


def test_models_have_groups(trial):
    roles = {"treatment": trial["w"], "nuisances": {"propensity": 0.5}}
    for model in (CausalForest(200, random_state=0), RLearner(random_state=0)):
        fitted = model.fit(trial[["a", "b"]], trial["y"], cluster=trial["site"], **roles)
        groups = fitted.group_average_effects(3)
        assert groups.estimates_["highest - lowest"].statistic()[0] > 4
        assert "heuristic" in str(groups)
        with pytest.raises(ParameterError, match="come from the same model and rows"):
            group_average_effects(fitted.predict(), fitted.scores_)
    assert groups.group.size == 600


def test_pictures_and_tables(units):
    pytest.importorskip("matplotlib")
    priority, scores, _ = units
    groups = group_average_effects(1 + priority, scores)
    assert groups.to_frame()["n"].tolist() == [180] * 5 + [360]
    assert all(len(line) <= 88 for line in str(groups).splitlines())
    assert "Generic" in str(groups.cite())
    bars, diagonal = groups.plot(), groups.plot("calibration")
    assert len(bars.containers) == 1
    assert diagonal.get_xlim() == diagonal.get_ylim()
    with pytest.raises(ParameterError, match="kind='bars'"):
        groups.plot("bars")


def test_bad_input(units):
    priority, scores, _ = units
    for change, error, match in (
        ({"n_groups": 1}, ParameterError, "n_groups=1 must be 2 or more"),
        ({"priority_from": "folds"}, ParameterError, "priority_from='folds'"),
        ({"priority": priority[:5]}, DataError, "900"),
        ({"priority": np.ones(900)}, DataError, "1 distinct priorities make no 5 groups"),
        ({"fold": np.ones(3)}, DataError, "900"),
        ({"priority": priority[:, None]}, DataError, r"priority has shape \(900, 1\)"),
    ):
        with pytest.raises(error, match=match):
            group_average_effects(**{"priority": priority, "scores": scores} | change)
