"""Several image sizes at once."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.datasets import make_image_sequence_trial
from causalfair.exceptions import DataError, ParameterError
from causalfair.forest import CausalForest
from causalfair.imagery import (
    ImageSequenceCATE,
    MultiScaleFeatures,
    RandomConvolutionFeatures,
    SequenceFeatures,
    SpectralFeatures,
    scale_search,
)
from causalfair.imagery._compress import BlockCompressor, Compressor


@pytest.fixture(scope="module")
def world():
    """Effects move with the mean of the centre and with that of the surroundings."""
    rng = np.random.default_rng(0)
    n = 500
    near, far = rng.normal(size=(2, n))
    pixels = 0.05 * rng.normal(size=(n, 2, 12, 12, 2)) + 0.5
    pixels[..., 0] += 0.1 * far[:, None, None, None]
    pixels[:, :, 4:8, 4:8, 0] += 0.1 * (near - far)[:, None, None, None]
    w = np.arange(n) % 2
    y = w * (near + far) + rng.normal(size=n)
    return pixels.astype(np.float32), y, w, near + far


def test_sizes_stand_side_by_side(world):
    pixels = world[0]
    base = SequenceFeatures(RandomConvolutionFeatures(8, n_patches=500))
    both = MultiScaleFeatures((4, 12), base, random_state=3)
    out = both.fit_transform(pixels)
    parts = [
        SequenceFeatures(RandomConvolutionFeatures(8, n_patches=500), crop=size,
                         random_state=both.parts_[4].random_state).fit_transform(pixels)
        for size in (4, 12)
    ]  # fmt: skip
    np.testing.assert_array_equal(out, np.hstack(parts))
    np.testing.assert_array_equal(both.transform(pixels), out)
    names = both.get_feature_names_out()
    assert len(names) == out.shape[1]
    assert names[0] == "4px/conv0+:mean"
    assert names[-1].startswith("12px/")
    again = MultiScaleFeatures((4, 12), base, random_state=4).fit_transform(pixels)
    assert not np.array_equal(again, out)


def test_each_size_has_components_of_its_own(world):
    pixels, y, w, effect = world
    model = ImageSequenceCATE(
        MultiScaleFeatures((4, 12), SequenceFeatures(SpectralFeatures())), CausalForest(200),
        n_components=2, random_state=0,
    ).fit(pixels, y, treatment=w, propensity=0.5)  # fmt: skip
    names = list(model.effect_model_.feature_names_in_)
    assert names == ["image_4px_pc1", "image_4px_pc2", "image_12px_pc1", "image_12px_pc2"]
    raw = model.representation_.transform(pixels)
    half = raw.shape[1] // 2
    np.testing.assert_allclose(
        model.compressor_.transform(raw),
        np.hstack(
            [Compressor(2).fit_transform(raw[:, k]) for k in (slice(half), slice(half, None))]
        ),
    )
    assert np.corrcoef(model.predict(pixels), effect)[0, 1] > 0.7
    assert "image components: 4" in str(model.summary())


def test_block_loadings_make_the_components():
    X = np.random.default_rng(0).normal(size=(50, 7))
    blocks = np.repeat(["a", "b"], [3, 4])
    for wanted in (2, None):
        compressor = BlockCompressor(wanted, blocks).fit(X)
        Z = (X - X.mean(axis=0)) / X.std(axis=0)
        np.testing.assert_allclose(compressor.transform(X), Z @ compressor.loadings().T, atol=1e-12)
    assert compressor.names(list("abcdefg")) == list("abcdefg")


def search(world, **options):
    pixels, y, w, _ = world
    given = {
        "treatment": w, "sizes": (4, 8, 12), "propensity": 0.5, "n_folds": 3, "n_bootstrap": 50,
        "representation": SequenceFeatures(SpectralFeatures()), "learner": CausalForest(100),
        "random_state": 0,
    }  # fmt: skip
    return scale_search(pixels, y, **given | options)


def test_the_pair_that_sees_both_wins_and_is_confirmed(world):
    found = search(world)
    assert found.table["sizes"].tolist() == [(4,), (8,), (12,), (4, 8), (4, 12), (8, 12)]
    assert len(found.selected) == 2
    assert found.gain_.estimate[0] > 0
    assert found.confirmation_.ratio["qini"] > 2
    assert found.confirmation_.n < 250
    assert "which did not choose" in str(found)
    assert all(len(line) <= 88 for line in str(found).splitlines())


def test_without_confirmation_the_choice_is_marked_as_selected(world):
    pytest.importorskip("matplotlib")
    found = search(world, confirm=False, pairs=False)
    assert found.confirmation_ is None
    assert found.gain_ is None
    assert "as selected" in str(found)
    assert sum(t.get_text().endswith("*") for t in found.plot().texts) == 1
    again = search(world, confirm=False, pairs=False)
    assert again.table.equals(found.table)


def test_half_of_the_units_is_chosen_by_cluster():
    frame, truth = make_image_sequence_trial(
        160, n_frames=2, size=8, units_per_place=2, random_state=0
    )
    found = scale_search(
        truth["images"], frame["y"], treatment=frame["treatment"], sizes=[4, 8], pairs=False,
        representation=SequenceFeatures(SpectralFeatures()), learner=CausalForest(50), n_folds=3,
        n_bootstrap=10, cluster=frame["place"], random_state=0,
    )  # fmt: skip
    assert found.confirmation_.n % 2 == 0


def test_bad_input(world):
    pixels = world[0]
    for sizes in ((4,), (4, 4), (4, 13), (0, 4), (2.5, 4), "ab"):
        with pytest.raises(ParameterError, match="sizes="):
            search(world, sizes=sizes)
    with pytest.raises(ParameterError, match="metric='auc'"):
        search(world, metric="auc")
    with pytest.raises(DataError, match="cluster is named or tabular"):
        search(world, cluster="site")
    with pytest.raises(DataError, match="cluster has 3 labels for 500"):
        search(world, cluster=[1, 2, 3])
    with pytest.raises(DataError, match="SpectralFeatures, which has no crop"):
        MultiScaleFeatures((4, 8), SpectralFeatures()).fit(pixels)
