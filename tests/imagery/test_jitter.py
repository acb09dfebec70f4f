"""Chips that are cut off centre."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.datasets import make_image_sequence_trial
from causalfair.exceptions import ParameterError
from causalfair.forest import CausalForest
from causalfair.imagery import (
    ImageSequence,
    ImageSequenceCATE,
    SequenceFeatures,
    SpectralFeatures,
    jitter_study,
)
from causalfair.imagery._jitter import _offsets, shifted


@pytest.mark.parametrize("single", [False, True])
def test_every_image_has_its_own_window(single):
    rng = np.random.default_rng(0)
    shape = (6, 12, 13, 2) if single else (6, 3, 12, 13, 2)
    pixels, mask = rng.random(shape, dtype=np.float32), rng.random(shape[:-1]) > 0.2
    offset = np.array([[0, 0], [1, -2], [-3, 3], [2, 2], [0, 1], [-1, -1]])
    view = shifted(ImageSequence(pixels, mask=mask), 5, offset)
    assert view.shape == (6, 1 if single else 3, 5, 5, 2)
    block = view.read(np.array([1, 2, 5]))
    for got, valid, i in zip(block.pixels, block.valid, (1, 2, 5), strict=True):
        u, v = 3 + offset[i, 0], 4 + offset[i, 1]
        np.testing.assert_array_equal(valid.squeeze(), mask[i][..., u : u + 5, v : v + 5].squeeze())
        want = np.where(mask[i][..., None], pixels[i], 0)[..., u : u + 5, v : v + 5, :]
        np.testing.assert_array_equal(got.squeeze(), want.squeeze())
    still = shifted(ImageSequence(pixels, mask=mask), 5, np.zeros((6, 2), int))
    np.testing.assert_array_equal(
        still.read(np.arange(6)).pixels,
        ImageSequence(pixels, mask=mask).crop(5).read(np.arange(6)).pixels,
    )
    some = shifted(ImageSequence(pixels).subset([4, 2]), 5, offset[[2, 4]])
    np.testing.assert_array_equal(
        some.read(np.array([1])).pixels.squeeze(), pixels[4][..., 3:8, 5:10, :].squeeze()
    )


def test_displacements_fill_the_disc():
    offset = _offsets(20_000, 9, np.random.SeedSequence(1))
    radius = np.hypot(*offset.T)
    assert radius.max() <= 9 + np.sqrt(0.5)
    assert np.abs(offset.mean(axis=0)).max() < 0.15
    assert (radius < 9 / np.sqrt(2)).mean() == pytest.approx(0.5, abs=0.03)  # half of the area


def test_a_ranking_by_what_is_all_over_the_image_survives():
    frame, truth = make_image_sequence_trial(200, n_frames=3, size=20, noise=0.5, random_state=2)
    model = ImageSequenceCATE(SequenceFeatures(SpectralFeatures()), CausalForest(60), scheme="oob")

    def study(seed):
        return jitter_study(
            model, truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5,
            size=12, max_shift=4, n_draws=3, random_state=seed,
        )  # fmt: skip

    first = study(1)
    table = first.to_frame()
    assert len(table) == 4
    assert table["rank_correlation"].iloc[0] == pytest.approx(1)
    assert (table["rank_correlation"].iloc[1:] > 0.3).all()
    assert table["estimate"].nunique() == 4
    assert table.equals(study(1).to_frame())
    assert "of 3 draws" in str(first)
    assert "<table" in first._repr_html_()


def test_refusals():
    model = ImageSequenceCATE(SequenceFeatures(SpectralFeatures()))
    pixels = np.zeros((4, 2, 10, 10, 1), np.float32)
    for size, shift in ((6, 3), (0, 1), (4, 0)):
        with pytest.raises(ParameterError, match="pixels, not resampled"):
            jitter_study(
                model, pixels, [0, 1, 0, 1], treatment=[0, 1, 1, 0], size=size, max_shift=shift
            )
    with pytest.raises(ParameterError, match="n_draws=0"):
        jitter_study(
            model, pixels, [0, 1, 0, 1], treatment=[0, 1, 1, 0], size=4, max_shift=2, n_draws=0
        )
