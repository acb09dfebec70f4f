"""Doses, units without outcome, and fits of whole clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import RidgeCV

from causalfair.datasets import make_image_sequence_trial
from causalfair.exceptions import (
    CausalFairWarning,
    DataError,
    IdentificationError,
    ParameterError,
)
from causalfair.forest import CausalForest, RLearner, TLearner
from causalfair.imagery import ImageSequence, ImageSequenceCATE, SequenceFeatures, SpectralFeatures

SPECTRAL = SequenceFeatures(SpectralFeatures())


# -------------------------------------------------------------------------------------- doses


@pytest.fixture(scope="module")
def dose():
    _, truth = make_image_sequence_trial(400, n_frames=4, size=8, random_state=0)
    rng = np.random.default_rng(1)
    w = rng.normal(2.0, 1.0, 400)
    y = truth["mu0"] + w * truth["cate"] + 0.5 * rng.normal(size=400)
    return truth, w, y


@pytest.mark.parametrize(
    "learner", [CausalForest(200), RLearner(outcome_learner=RidgeCV(), effect_learner=RidgeCV())]
)
def test_effects_of_a_dose_are_slopes(dose, learner):
    truth, w, y = dose
    model = ImageSequenceCATE(SPECTRAL, learner, random_state=0).fit(
        truth["images"], y, treatment=w, propensity=2.0
    )
    low, high = model.estimates_.conf_int()[0]
    assert low < truth["ate"] < high
    assert np.corrcoef(model.predict(), truth["cate"])[0, 1] > 0.5
    assert model.evaluate("qini").ratio["qini"] > 3
    given = ImageSequenceCATE(SPECTRAL, learner, scheme="oob", random_state=0).fit(
        truth["images"], y, treatment=w
    )
    assert "its observed mean" in str(given.summary())
    np.testing.assert_allclose(given.effect_model_.sample_.w_residual, w - w.mean())
    carried = model.transport(truth["images"])
    assert carried.estimates_.estimate[0] == pytest.approx(model.estimates_.estimate[0], abs=0.1)


def test_doses_need_a_learner_that_takes_them(dose):
    truth, w, y = dose
    with pytest.raises(DataError, match="treatment must take two values"):
        ImageSequenceCATE(SPECTRAL, TLearner()).fit(truth["images"], y, treatment=w)
    with pytest.raises(IdentificationError, match="2 of 3 strata have one arm only"):
        ImageSequenceCATE(SPECTRAL, CausalForest(50)).fit(
            truth["images"],
            y,
            treatment=np.r_[1.0, 2.0, w[2:]],
            strata=np.r_[0, 1, np.full(398, 2)],
        )
    place = np.arange(400) // 2
    shared = ImageSequence(truth["images"].read(np.arange(200)).pixels, image_of_unit=place)
    with pytest.raises(IdentificationError, match="constant within each of the 200 images"):
        ImageSequenceCATE(SPECTRAL, CausalForest(50)).fit(shared, y, treatment=w[place])


# ------------------------------------------------------------------------ units without outcome


@pytest.mark.parametrize("library", ["arrays", "pandas", "polars"])
def test_units_without_outcome_are_left_out_and_counted(trial, library):
    frame, truth = trial
    w = frame["treatment"].to_numpy()
    y = np.where((w == 1) & (np.arange(400) % 4 == 0), np.nan, frame["y"])
    seen = np.flatnonzero(~np.isnan(y))
    model = ImageSequenceCATE(SPECTRAL, CausalForest(50), scheme="oob", random_state=0)
    table = frame.assign(y=y)
    roles = {
        "arrays": {"y": y, "treatment": w, "X": frame[["x"]], "covariates": "all"},
        "pandas": {"y": "y", "treatment": "treatment", "X": table, "covariates": ["x"]},
        "polars": {"y": "y", "treatment": "treatment", "X": pl.from_pandas(table),
                   "covariates": ["x"]},
    }[library]  # fmt: skip
    share = np.isnan(y[w == 1]).mean()
    with pytest.warns(CausalFairWarning, match=rf"\({share:.1%} of treated, 0.0% of untreated"):
        model.fit(truth["images"], propensity=0.5, missing_outcome="drop", **roles)
    np.testing.assert_array_equal(model.kept_units_, seen)
    direct = ImageSequenceCATE(SPECTRAL, CausalForest(50), scheme="oob", random_state=0).fit(
        truth["images"].subset(seen), y[seen], treatment=w[seen], X=frame[["x"]].iloc[seen],
        covariates="all", propensity=0.5,
    )  # fmt: skip
    np.testing.assert_array_equal(model.predict(), direct.predict())
    assert "no outcome" in str(model.summary())


def test_complete_outcomes_need_no_word(trial):
    frame, truth = trial
    model = ImageSequenceCATE(SPECTRAL, CausalForest(50), scheme="oob", random_state=0)
    model.fit(truth["images"], frame["y"], treatment=frame["treatment"], missing_outcome="drop")
    assert model.kept_units_.size == 400
    with pytest.raises(DataError, match="no unit has an outcome"):
        model.fit(
            truth["images"], np.full(400, np.nan), treatment=frame["treatment"],
            missing_outcome="drop",
        )  # fmt: skip
    with pytest.raises(DataError, match="400 missing"):
        model.fit(truth["images"], np.full(400, np.nan), treatment=frame["treatment"])
    with pytest.raises(ParameterError, match="missing_outcome='impute'"):
        model.fit(
            truth["images"], frame["y"], treatment=frame["treatment"], missing_outcome="impute"
        )


# ------------------------------------------------------------------------------ whole clusters


@pytest.fixture(scope="module")
def villages():
    frame, truth = make_image_sequence_trial(
        120, n_frames=3, size=8, units_per_place=4, cluster_randomised=True, site_sd=0.3,
        random_state=2,
    )  # fmt: skip
    keep = np.r_[np.arange(240), np.arange(240, 480, 2)]  # four people in some, two in others
    return frame.iloc[keep].reset_index(drop=True), truth["images"].subset(keep), truth


def test_a_fit_of_clusters_is_that_of_their_means(villages):
    frame, images, _ = villages
    options = {"learner": CausalForest(100), "n_folds": 3, "random_state": 0}
    model = ImageSequenceCATE(SPECTRAL, level="cluster", **options).fit(
        images, frame["y"], treatment=frame["treatment"], cluster=frame["place"], X=frame[["x"]],
        covariates="all", propensity=0.5,
    )  # fmt: skip
    means, first = frame.groupby("place").mean(), frame.drop_duplicates("place").index.to_numpy()
    size = frame.groupby("place").size().to_numpy()
    by_hand = ImageSequenceCATE(SPECTRAL, **options).fit(
        images.subset(first), means["y"].to_numpy(), treatment=means["treatment"].to_numpy(),
        sample_weight=size, X=means[["x"]], covariates="all", propensity=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(model.predict(), by_hand.predict(), rtol=1e-9)
    np.testing.assert_allclose(model.estimates_.estimate, by_hand.estimates_.estimate)
    np.testing.assert_allclose(model.estimates_.std_error, by_hand.estimates_.std_error)
    assert model.evaluate("qini").ratio["qini"] == pytest.approx(
        by_hand.evaluate("qini").ratio["qini"]
    )
    assert "One row a cluster: means of 360 units" in str(model.summary())
    assert len(model.predict(images, frame[["x"]])) == 360  # units elsewhere are predicted as ever


def test_places_of_a_cluster_are_averaged(villages):
    frame, images, truth = villages
    district = frame["place"].to_numpy() // 2
    w = district % 2
    y = 2 * truth["a"][frame["place"]] + w + np.random.default_rng(0).normal(size=len(frame))
    model = ImageSequenceCATE(
        SPECTRAL, CausalForest(100), level="cluster", scheme="oob", n_components=None
    ).fit(images, y, treatment=w, cluster=district, propensity=0.5)
    raw = model.representation_.transform(images)[images.row_of_unit]
    means = pd.DataFrame(raw).groupby(district).mean().to_numpy()
    np.testing.assert_allclose(model.compressor_.mean_, means.mean(axis=0), rtol=1e-6)
    plain = ImageSequenceCATE(SPECTRAL, CausalForest(100), scheme="oob").fit(
        images, y, treatment=w, cluster=district, propensity=0.5
    )
    assert model.estimates_.estimate[0] == pytest.approx(plain.estimates_.estimate[0], abs=0.2)
    assert model.estimates_.std_error[0] == pytest.approx(plain.estimates_.std_error[0], rel=0.3)


def test_clusters_that_cannot_be_fitted_as_such(villages):
    frame, images, _ = villages
    model = ImageSequenceCATE(SPECTRAL, CausalForest(50), level="cluster", scheme="oob")
    one = frame.drop_duplicates("place")
    with pytest.raises(DataError, match=r"level='cluster' needs cluster="):
        model.fit(images.subset(one.index), one["y"], treatment=one["treatment"])
    w = np.arange(len(frame)) % 2
    with pytest.raises(IdentificationError, match="varies within clusters"):
        model.fit(images, frame["y"], treatment=w, cluster=frame["place"])
    words = frame.assign(kind=np.where(np.arange(len(frame)) % 3 == 0, "a", "b"))
    with pytest.raises(DataError, match="kind cannot be averaged"):
        model.fit(
            images, frame["y"], treatment=frame["treatment"], cluster=frame["place"],
            X=words[["kind"]], covariates="all",
        )  # fmt: skip
