"""What a newcomer gets wrong, and what is said about it."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import Ridge

from causalfair.datasets import make_image_sequence_trial
from causalfair.exceptions import (
    CausalFairWarning,
    DataError,
    IdentificationError,
    ParameterError,
)
from causalfair.forest import CausalForest, rank_average_treatment_effect
from causalfair.imagery import (
    ImageSequence,
    ImageSequenceCATE,
    SequenceFeatures,
    SpectralFeatures,
    compare_representations,
    describe_land_cover,
    occlusion_map,
)

SPECTRAL = SequenceFeatures(SpectralFeatures())


@pytest.fixture(scope="module")
def small():
    frame, truth = make_image_sequence_trial(60, n_frames=3, size=8, random_state=0)
    return truth["images"].read(np.arange(60)).pixels, frame


def fit(small, representation=SPECTRAL, learner=None, **roles):
    pixels, frame = small
    learner = CausalForest(50) if learner is None else learner
    model = ImageSequenceCATE(representation, learner, scheme="oob", random_state=0)
    return model.fit(pixels, frame["y"], treatment=frame["treatment"], **roles)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"propensity": 0.0}, "propensity must lie strictly between 0 and 1; 60 of 60"),
        ({"propensity": np.full(59, 0.5)}, r"propensity has shape \(59,\) for 60 units"),
        ({"propensity": np.full(60, np.nan)}, "propensity has 60 missing"),
        ({"strata": np.full(60, np.nan)}, "strata has 60 missing"),
        ({"strata": np.arange(60)}, "the first being '0'"),
        ({"strata": np.zeros(59)}, r"strata has shape \(59,\) for 60 units"),
    ],
)
def test_probabilities_and_strata(small, roles, message):
    with pytest.raises((DataError, IdentificationError), match=message):
        fit(small, **roles)


def test_learners_that_do_not_learn_effects(small):
    with pytest.raises(ParameterError, match=r"RLearner\(effect_learner=Ridge\(\)\)"):
        fit(small, learner=Ridge())
    with pytest.raises(ParameterError, match=r"give an instance, CausalForest\(\)"):
        fit(small, learner=CausalForest)


def test_frame_features_that_are_not_pooled(small):
    with pytest.raises(DataError, match=r"SequenceFeatures\(SpectralFeatures\(\.\.\.\)\)"):
        fit(small, SpectralFeatures())


def test_bands_before_height_and_width(small):
    with pytest.warns(CausalFairWarning, match="read as 8 bands of 3 x 8 pixels"):
        ImageSequence(np.moveaxis(small[0], -1, 2))


def test_representations_without_names(small):
    pixels, frame = small
    for given in (SPECTRAL, [SPECTRAL], {}):
        with pytest.raises(ParameterError, match="representations="):
            compare_representations(
                pixels, frame["y"], treatment=frame["treatment"], representations=given
            )


def test_comparison_within_strata(small):
    pixels, frame = small
    block = np.arange(60) // 30
    table = compare_representations(
        pixels, frame["y"], treatment=frame["treatment"], strata=block, scheme="split",
        representations={"spectral": SPECTRAL}, learners={"forest": CausalForest(50)},
        n_bootstrap=10, random_state=0,
    ).to_frame()  # fmt: skip
    alone = fit(small, strata=block)
    share = frame["treatment"].groupby(block).mean().to_numpy()[block]
    np.testing.assert_allclose(alone.effect_model_.sample_.propensity, share)
    assert np.isfinite(table["estimate"]).all()


def test_land_cover_of_any_table(small):
    model = fit(small)
    shares = np.random.default_rng(0).random((60, 2))
    by_array = describe_land_cover(model, shares)
    by_polars = describe_land_cover(model, pl.DataFrame(shares, schema=["x0", "x1"]))
    pd.testing.assert_frame_equal(by_array.contrast, by_polars.contrast, rtol=1e-12)
    with pytest.raises(DataError, match=r"shape \(60, 2, 1\)"):
        describe_land_cover(model, shares[..., None])


def test_parts_of_few_clusters_do_not_repeat_the_warning(small):
    pixels, frame = small
    w = np.arange(60) % 2
    model = ImageSequenceCATE(SPECTRAL, CausalForest(50), n_folds=3, random_state=0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model.fit(pixels, frame["y"], treatment=w, cluster=np.arange(60) // 2)
        assert [x for x in seen if "clusters" in str(x.message)] == []
        model.set_params(n_folds=5).fit(pixels, frame["y"], treatment=w, cluster=np.arange(60) // 3)
        with pytest.raises(IdentificationError, match="4 clusters to evaluate a ranking on"):
            model.evaluate()
    assert len([x for x in seen if "Only 20 clusters" in str(x.message)]) == 1  # of the whole


def test_units_that_are_not_there(small):
    with pytest.raises(DataError, match="do not fit 60 units"):
        occlusion_map(fit(small), small[0], 60)
    with pytest.raises(DataError, match="do not fit 60 units"):
        ImageSequence(small[0]).subset(np.ones(3, bool))


def test_a_priority_without_a_name():
    with pytest.raises(DataError, match="priority has 1 missing"):
        rank_average_treatment_effect([1, 2, np.nan, 3], [3, 4, 5, 6])
