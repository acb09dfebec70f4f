"""Gain by budget."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.exceptions import DataError, ParameterError
from causalfair.forest import CausalForest, cost_curve, rank_average_treatment_effect


@pytest.fixture(scope="module")
def units():
    rng = np.random.default_rng(0)
    effect = rng.normal(size=400)
    return effect, effect + rng.normal(size=400), np.exp(rng.normal(size=400))


def test_curve_is_the_greedy_sum(units):
    priority, scores, cost = units
    curve = cost_curve(priority, scores, cost, n_bootstrap=10, random_state=0).to_frame()
    order = np.argsort(-priority / cost)
    for row in curve.iloc[[4, 24, 49]].itertuples():
        money, gain = row.budget * cost.sum(), 0.0
        for i in order:
            part = min(1.0, money / cost[i])
            gain += part * scores[i]
            money -= part * cost[i]
            if money <= 1e-12:
                break
        assert row.gain == pytest.approx(gain / 400, abs=1e-12)
        assert row.random == pytest.approx(row.budget * scores.mean())
        assert row.spent == pytest.approx(row.budget * cost.mean())


def test_equal_costs_give_the_toc_and_nearly_qini(units):
    priority, scores, _ = units
    curve = cost_curve(priority, scores, 3.0, n_bootstrap=100, random_state=0)
    toc = rank_average_treatment_effect(
        priority, scores, method="qini", n_bootstrap=100, random_state=0
    )
    np.testing.assert_allclose(curve.table["gain"], toc.toc_["gain"], atol=1e-12)
    np.testing.assert_allclose(curve.table["std_error"], toc.toc_["gain_std_error"], rtol=1e-9)
    # QINI sums at unit ends, the area takes trapezia: they differ by half a unit
    assert curve.estimates_.estimate[0] == pytest.approx(toc.estimates_.estimate[0], abs=2 / 400)
    assert curve.estimates_.std_error[0] == pytest.approx(toc.estimates_.std_error[0], rel=0.05)


def test_equal_value_for_money_is_no_ranking(units):
    _, scores, cost = units
    curve = cost_curve(cost, scores, cost, n_bootstrap=10, random_state=0)
    np.testing.assert_allclose(curve.table["lift"], 0, atol=1e-12)
    assert curve.estimates_.estimate[0] == pytest.approx(0, abs=1e-12)


def test_weights_are_repeated_units_and_clusters_widen(units):
    priority, scores, cost = units
    weighted = cost_curve(
        priority, scores, cost, sample_weight=np.r_[2.0, np.ones(399)], n_bootstrap=5,
        random_state=0,
    )  # fmt: skip
    repeated = cost_curve(*(np.r_[v[0], v] for v in units), n_bootstrap=5, random_state=0)
    np.testing.assert_allclose(weighted.table["gain"], repeated.table["gain"], atol=1e-12)
    site = np.argsort(np.argsort(scores)) // 40  # units of a site are alike
    plain = cost_curve(priority, scores, cost, random_state=0).table["std_error"].iloc[-1]
    wide = cost_curve(priority, scores, cost, cluster=site, random_state=0)
    assert wide.table["std_error"].iloc[-1] > 2 * plain


def test_picture(units):
    pytest.importorskip("matplotlib")
    curve = cost_curve(*units, n_bootstrap=10, random_state=0)
    labels = [line.get_label() for line in curve.plot().lines]
    assert labels[:2] == ["by priority per cost", "at random"]
    assert "area" in str(curve)


def test_bad_input(units, trial):
    priority, scores, cost = units
    for change, error, match in (
        ({"cost": -cost}, DataError, "cost has 400 value"),
        ({"cost": cost[:3]}, DataError, "400"),
        ({"n_bootstrap": 1}, ParameterError, "n_bootstrap=1"),
        ({"priority_from": "folds"}, ParameterError, "priority_from='folds'"),
    ):
        with pytest.raises(error, match=match):
            cost_curve(**{"priority": priority, "scores": scores, "cost": cost} | change)
    model = CausalForest(60, random_state=0).fit(trial[["a"]], trial["y"], treatment=trial["w"])
    with pytest.raises(ParameterError, match="cost_curve: priorities and scores come from"):
        cost_curve(model.predict(), model.scores_, 1.0)
    cost_curve(model.predict(), model.scores_, 1.0, priority_from="out_of_bag", n_bootstrap=5)
