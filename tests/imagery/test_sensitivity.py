"""Derivatives of type probabilities and effects with respect to pixels."""

from __future__ import annotations

import numpy as np
import pytest
from naive import imagery as naive

from causalfair.exceptions import ParameterError
from causalfair.imagery import (
    ImageClusterEffects,
    ImageSequence,
    RandomConvolutionFeatures,
    SequenceFeatures,
    SpectralFeatures,
)
from causalfair.imagery._sensitivity import pixel_gradient
from causalfair.imagery._spectral import band_moments
from causalfair.imagery._types import Types


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.random((30, 4, 9, 10, 2), dtype=np.float32)
    mask = rng.random((30, 4, 9, 10)) > 0.03
    mask[2, 1] = False
    return ImageSequence(pixels, mask=mask, times=[2001.0, 2002.5, 2003.0, 2005.0])


def fitted(images, n_types=2, **options):
    """A model with given parameters: nothing has to be estimated to differentiate it."""
    encoder = RandomConvolutionFeatures(
        12, bias=0.2, n_patches=500, random_state=0, **options.pop("encoder", {})
    )
    model = ImageClusterEffects(
        n_types, representation=SequenceFeatures(encoder, **options), n_components=3
    )
    phi = model._represent(images, np.random.SeedSequence(0))
    rng = np.random.default_rng(1)
    logits = np.column_stack([np.zeros(4), rng.normal(size=(4, n_types - 1))])
    model.types_ = Types(
        np.arange(n_types) - 0.5, logits, np.zeros(4), np.ones((2, n_types)), np.zeros(0)
    )
    model.n_types_, model.scale_, model.estimates_ = n_types, 2.0, None
    assert phi.shape == (30, 3)
    return model


def moved(images, unit, step):
    """The place of a unit with its pixels moved by ``step``."""
    own = images.subset(np.array([unit]))
    block = own.read(np.array([0]))
    return own._with_values((block.pixels + step[None]).astype(np.float32), block.valid)


def in_double_precision(encoder):
    """Let an encoder use its twin, so that small steps can be seen."""

    def encode(pixels, valid):
        filters = encoder.filters_.astype(float)
        out = naive.rectified_means(pixels, valid, filters, encoder.bias_, encoder.grid, share=0.0)
        if encoder.band_statistics:
            out = np.hstack([out, *band_moments(pixels, valid)])
        return out

    encoder._encode = encode


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": ("level", "last", "diff", "recency")},
        {"pooling": "mean", "n_components": 5, "crop": 7},
        {"encoder": {"grid": 2, "band_statistics": False}},
    ],
)
@pytest.mark.parametrize("n_types", [2, 3])
def test_map_is_the_derivative(images, options, n_types):
    model = fitted(images, n_types, **options)
    in_double_precision(model.representation_.frame_features_)
    step = 2e-5 * np.random.default_rng(2).normal(size=(4, 9, 10, 2))
    for unit, number in ((2, None), (7, 1), (7, n_types)):
        got = model.sensitivity_map(images, unit, type_number=number)
        assert got.shape == (4, 9, 10, 2)
        ends = [moved(images, unit, sign * step) for sign in (-1, 1)]
        low, high = (
            model.predict(there)[0] if number is None
            else model.predict_proba(there)[0, number - 1]
            for there in ends
        )  # fmt: skip
        low_pixels, high_pixels = (there.read(np.array([0])).pixels[0] for there in ends)
        went = high_pixels.astype(float) - low_pixels
        # Few responses cross the threshold within the step.
        assert (got * went).sum() == pytest.approx(high - low, rel=5e-3, abs=1e-8)


def test_pixels_that_do_not_count_have_no_slope(images):
    got = fitted(images).sensitivity_map(images, 2)
    valid = images.read(np.array([2])).valid[0]
    assert (got[~valid] == 0).all()
    assert (got[1] == 0).all()  # a missing frame
    assert np.abs(got[0]).max() > 0
    inner = fitted(images, crop=5).sensitivity_map(images, 3)
    assert (inner[:, :2] == 0).all()
    assert (inner[:, -2:] == 0).all()
    latest = fitted(images, pooling="last").sensitivity_map(images, 4)
    assert (latest[:3] == 0).all()


def test_probabilities_add_up_to_one(images):
    model = fitted(images, 3)
    total = sum(model.sensitivity_map(images, 5, type_number=k) for k in (1, 2, 3))
    np.testing.assert_allclose(total, 0, atol=1e-12)


def test_refusals(images):
    with pytest.raises(ParameterError, match="pooling 'var' is not linear"):
        fitted(images, pooling=("mean", "var")).sensitivity_map(images, 0)
    with pytest.raises(ParameterError, match="type_number=4; there are 2"):
        fitted(images).sensitivity_map(images, 0, type_number=4)
    spectral = SequenceFeatures(SpectralFeatures()).fit(images)
    with pytest.raises(ParameterError, match="SequenceFeatures of SpectralFeatures"):
        pixel_gradient(spectral, images, np.zeros(24), "map")
