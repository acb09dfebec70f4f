"""Blocks of features, components and land cover, nearest places."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalfair.exceptions import DataError, ParameterError
from causalfair.forest import CausalForest, RLearner, effect_losses, stack_effects
from causalfair.imagery import (
    ImageSequenceCATE,
    MultiScaleFeatures,
    SequenceFeatures,
    SpectralFeatures,
    describe_components,
    describe_land_cover,
)
from causalfair.imagery._importance import block_importance, block_of


def test_importance_goes_from_components_to_the_features_they_are_made_of():
    importance = pd.Series([0.5, 0.3, 0.15, 0.05], index=["pc1", "pc2", "x", "z"])
    loadings = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    got = block_importance(importance, loadings, ["a:mean", "a:trend", "32px/b:season_level"])
    want = {"32px season_level": 0.3, "trend": 0.32, "tabular": 0.2, "mean": 0.18}
    assert list(got.index) == ["trend", "32px season_level", "tabular", "mean"]
    np.testing.assert_allclose(got.to_numpy(), [want[name] for name in got.index])
    assert block_of("net3") == "image"
    assert block_importance(importance, None, ()).to_dict() == {"tabular": 1.0}


def test_the_trend_matters_where_it_moves_the_effect(trial, fitted):
    got = fitted.block_importance()
    assert set(got.index) == {"mean", "trend"}
    assert got.sum() == pytest.approx(1)
    frame, truth = trial
    both = ImageSequenceCATE(
        MultiScaleFeatures((8, 16), SequenceFeatures(SpectralFeatures())), CausalForest(100),
        n_components=None, scheme="oob", random_state=0,
    ).fit(truth["images"], frame["y"], treatment=frame["treatment"], X=frame[["x"]],
          covariates="all", propensity=0.5)  # fmt: skip
    parts = both.block_importance()
    assert set(parts.index) == {"tabular", "8px mean", "8px trend", "16px mean", "16px trend"}
    assert parts[["8px trend", "16px trend"]].sum() > 0.4
    linear = ImageSequenceCATE(SequenceFeatures(SpectralFeatures()), RLearner(), scheme="oob").fit(
        truth["images"], frame["y"], treatment=frame["treatment"]
    )
    with pytest.raises(ParameterError, match="RLearner has no importance"):
        linear.block_importance()


def test_components_are_told_by_land_cover(trial, fitted):
    _, truth = trial
    rng = np.random.default_rng(0)
    shares = pd.DataFrame(
        {"built": truth["a"], "rest": 1 - truth["a"], "noise": rng.normal(size=400)}
    )
    table = describe_components(fitted, shares)
    reference = fitted._support_reference
    assert table["explained"].is_monotonic_decreasing
    z = reference.Z[reference.row_of_unit, 0]
    design = np.column_stack([np.ones(400), truth["a"], shares["noise"]])
    rest = z - design @ np.linalg.lstsq(design, z, rcond=None)[0]
    assert table["r_squared"][0] == pytest.approx(1 - rest.var() / z.var())
    assert table["built"][0] == pytest.approx(np.corrcoef(z, truth["a"])[0, 1])
    assert abs(table["built"][0]) > 0.5 > 0.3 > abs(table["noise"]).max()
    with pytest.raises(DataError, match="3 rows, the trial 400"):
        describe_components(fitted, shares[:3])


def test_nearest_places_of_the_trial_are_themselves(trial, fitted):
    images = trial[1]["images"]
    got = fitted.nearest(images.subset(np.array([7, 3])), k=2)
    assert got["trial_row"].tolist()[::2] == [3, 7]  # places of a subset are in order
    assert got["distance"].to_numpy()[::2] == pytest.approx(0, abs=1e-6)
    assert (got["distance"].to_numpy()[1::2] > 0).all()
    with pytest.raises(ParameterError, match="k=0"):
        fitted.nearest(images, k=0)


def test_contrast_weighs_units_as_the_trial_does():
    from types import SimpleNamespace

    from causalfair.imagery._interpret import _contrast

    rng = np.random.default_rng(0)
    effect, shares = rng.normal(size=50), pd.DataFrame({"a": rng.random(50)})
    weight = np.r_[np.full(25, 2.0), np.ones(25)]
    rows = np.repeat(np.arange(50), weight.astype(int))
    alone = SimpleNamespace(n=75, sample_weight=None, cluster=rows[:, None])
    given = SimpleNamespace(
        n=50, sample_weight=weight / weight.mean(), cluster=np.arange(50)[:, None]
    )
    top = effect >= np.quantile(effect, 0.8)
    got = _contrast(shares, effect, given).iloc[0]
    assert got["top"] == pytest.approx(np.average(shares["a"][top], weights=weight[top]))
    low, high = np.quantile(effect, [0.35, 0.65])  # ends of equal effects, more than a fifth
    clipped = np.where(effect >= high, 1.0, np.where(effect <= low, -1.0, 0.0))
    first = _contrast(shares.iloc[rows], clipped[rows], alone).iloc[0]
    again = _contrast(shares, clipped, given).iloc[0]
    for column in ("top", "bottom", "difference", "std_error"):
        assert first[column] == pytest.approx(again[column]), column


def test_one_class_is_left_out_of_the_projection(trial, fitted):
    _, truth = trial
    town = np.clip(truth["a"], 0, 1)
    shares = pd.DataFrame({"crop": 1 - town, "town": town, "crop, change": -truth["g"],
                           "town, change": truth["g"], "flat": 1.0})  # fmt: skip
    report = describe_land_cover(fitted, shares)
    assert report.left_out == ("crop", "crop, change", "flat")
    assert list(report.projection.names) == ["(intercept)", "town", "town, change"]
    assert "given the others: crop; crop, change; flat." in str(report)
    direct = fitted.best_linear_projection(shares[["town", "town, change"]])
    np.testing.assert_allclose(report.projection.estimate, direct.estimate)
    with pytest.raises(DataError, match="no column of shares varies"):
        describe_land_cover(fitted, shares[["flat"]])


def test_losses_and_stacks_of_image_models(trial, fitted):
    _, truth = trial
    losses = effect_losses({"model": fitted.predict(), "truth": truth["cate"]}, fitted)
    assert losses.r_squared_.estimate[1] > losses.r_squared_.estimate[0] > 0
    stack = stack_effects({"model": fitted.predict(), "noise": truth["a"] % 0.01}, fitted)
    assert stack.weights["model"] > 0.5


def test_reports_print_and_draw(trial, fitted):
    pytest.importorskip("matplotlib")
    _, truth = trial
    report = describe_land_cover(fitted, pd.DataFrame({"growth": truth["g"], "built": truth["a"]}))
    assert max(map(len, str(report).splitlines())) <= 88
    assert "Effects and land cover" in str(report)
    assert [t.get_text() for t in report.plot().get_yticklabels()] == ["growth", "built"]
    support = fitted.support(truth["images"])
    ax = support.plot()
    heights = [[bar.get_height() for bar in group] for group in ax.containers]
    assert [sum(h) for h in heights] == pytest.approx([1, -1])
