"""Losses of predicted effects, and stacking by them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from causalfair.exceptions import DataError, ParameterError
from causalfair.forest import CausalForest, effect_losses, stack_effects


@pytest.fixture(scope="module")
def model(trial):
    return CausalForest(200, random_state=0).fit(
        trial[["a", "b"]], trial["y"], treatment=trial["w"], nuisances={"propensity": 0.5}
    )


def test_losses_are_means_of_squares(model, trial):
    sample = model.sample_
    truth, wrong = 1 + trial["a"].to_numpy(), -trial["a"].to_numpy()
    got = effect_losses({"truth": truth, "wrong": wrong}, model)
    y, w = sample.y_residual, sample.w_residual
    constant = (w @ y) / (w @ w)
    each = np.column_stack([(y - w * t) ** 2 for t in (np.full(y.size, constant), truth, wrong)])
    np.testing.assert_allclose(got.estimates_.estimate, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        got.estimates_.std_error, each.std(axis=0, ddof=1) / np.sqrt(y.size), rtol=1e-10
    )
    assert got.r_squared_.estimate[0] == pytest.approx(1 - each[:, 1].mean() / each[:, 0].mean())
    gap = each[:, 2] - each[:, 1]
    assert got.differences_.estimate[0] == pytest.approx(gap.mean())
    assert got.differences_.std_error[0] == pytest.approx(gap.std(ddof=1) / np.sqrt(y.size))
    assert got.r_squared_.estimate[0] > 0 > got.r_squared_.estimate[1]
    dr = effect_losses(truth, model, loss="dr")
    assert dr.estimates_.estimate[1] == pytest.approx(np.mean((sample.scores - truth) ** 2))
    assert dr.estimates_.estimate[0] == pytest.approx(sample.scores.var())


def test_losses_are_clustered_and_weighted(trial):
    weight = np.random.default_rng(0).uniform(0.5, 1.5, 600)
    model = CausalForest(100, random_state=0).fit(
        trial[["a", "b"]], trial["y"], treatment=trial["w"], nuisances={"propensity": 0.5},
        cluster=trial["site"], sample_weight=weight,
    )  # fmt: skip
    got = effect_losses({"model": model.predict()}, model).estimates_
    each = (model.sample_.error) ** 2
    w = weight / weight.mean()
    assert got.estimate[1] == pytest.approx(np.average(each, weights=w))
    sums = np.bincount(trial["site"], weights=w * (each - got.estimate[1]))
    assert got.std_error[1] == pytest.approx(np.sqrt((sums**2).sum() * 60 / 59) / 600)


def test_table(model, trial):
    losses = effect_losses({"forest": model.predict(), "a": trial["a"]}, model)
    frame = losses.to_frame()
    assert frame["candidate"].tolist() == ["constant effect", "forest", "a"]
    assert frame["difference"].isna().tolist() == [True, True, False]
    assert all(len(line) <= 88 for line in str(losses).splitlines())
    assert "R-loss of predicted effects" in str(losses)


def test_stack_is_the_constrained_least_squares(model, trial):
    rng = np.random.default_rng(0)
    effects = {
        "a": trial["a"].to_numpy(),
        "b": rng.normal(size=600),
        "c": rng.normal(size=600) - trial["a"].to_numpy(),
    }
    stack = stack_effects(effects, model)
    y, w = model.sample_.y_residual, model.sample_.w_residual
    design = np.column_stack([np.ones(600), w, *(w * tau for tau in effects.values())])
    twin = lsq_linear(design, y, bounds=([-np.inf, -np.inf, 0, 0, 0], np.inf), tol=1e-14).x
    np.testing.assert_allclose([stack.constant, *stack.weights.values()], twin[1:], atol=1e-6)
    assert stack.weights["c"] == 0
    np.testing.assert_allclose(stack.predict(effects), stack.effect)
    alone = effect_losses({"stack": stack.effect, "a": effects["a"]}, model).estimates_.estimate
    assert alone[1] <= alone[2]
    with pytest.raises(DataError, match="effects lack 'b', 'c'"):
        stack.predict({"a": effects["a"]})


def test_bad_input(model, trial):
    with pytest.raises(ParameterError, match="loss='mse'"):
        effect_losses(trial["a"], model, loss="mse")
    with pytest.raises(DataError, match="600"):
        effect_losses(trial["a"][:5], model)
    with pytest.raises(ParameterError, match="rows that trained the model"):
        effect_losses(model.predict(trial[["a", "b"]]), model)
    with pytest.raises(ParameterError, match="model of type CausalForest; give a fitted"):
        effect_losses(trial["a"], CausalForest())
    with pytest.raises(ParameterError, match="no effects"):
        stack_effects({}, model)
    with pytest.raises(ParameterError, match="'constant effect' is there already"):
        effect_losses({"constant effect": trial["a"]}, model)
