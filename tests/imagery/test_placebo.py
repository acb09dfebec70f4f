"""Transport between regions of a trial, errors in space, and images kept in files."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.datasets import make_image_sequence_trial
from causalfair.exceptions import DataError
from causalfair.forest import CausalForest
from causalfair.imagery import (
    ImageSequence,
    ImageSequenceCATE,
    SequenceFeatures,
    SpectralFeatures,
    placebo_transport,
)
from causalfair.inference import spatial_errors, wild_cluster_test


@pytest.fixture(scope="module")
def model():
    features = SequenceFeatures(SpectralFeatures())
    return ImageSequenceCATE(features, CausalForest(60), random_state=1)


@pytest.fixture(scope="module")
def world():
    return make_image_sequence_trial(360, n_frames=3, size=8, noise=0.5, random_state=3)


REGIONS = np.repeat(["east", "north", "west"], 120)


def test_regions_alike_are_predicted(world, model):
    frame, truth = world
    check = placebo_transport(
        model, truth["images"], "y", treatment="treatment", X=frame, covariates=["x"],
        propensity=0.5, regions=REGIONS,
    )  # fmt: skip
    table = check.to_frame()
    assert table["region"].tolist() == ["east", "north", "west"]
    assert (table["n"] == 120).all()
    assert (table["statistic"].abs() < 3).all()
    assert check.test_.p_value > 0.01
    assert (table["supported"] > 0.7).all()
    own = [truth["cate"][r == REGIONS].mean() for r in table["region"]]
    assert (np.abs(table["observed"] - own) < 3.5 * table["observed_std_error"]).all()
    text = str(check)
    assert "predicted from others" in text
    assert max(map(len, text.splitlines())) <= 88


def test_a_region_with_an_effect_of_its_own_stands_out(world, model):
    frame, truth = world
    odd = frame["y"] + 2.0 * frame["treatment"] * (REGIONS == "west")
    check = placebo_transport(
        model, truth["images"], odd, treatment=frame["treatment"], propensity=0.5, regions=REGIONS
    )
    table = check.to_frame().set_index("region")
    assert table.loc["west", "statistic"] < -6
    assert table["statistic"].abs().idxmax() == "west"
    assert check.test_.p_value < 1e-6


def test_too_few_regions(world, model):
    frame, truth = world
    roles = {"treatment": frame["treatment"], "propensity": 0.5}
    with pytest.raises(DataError, match=r"1 region\(s\)"):
        placebo_transport(model, truth["images"], frame["y"], regions=np.zeros(360), **roles)
    with pytest.raises(DataError, match="smallest with 1 units"):
        placebo_transport(model, truth["images"], frame["y"], regions=np.arange(360) == 0, **roles)
    with pytest.raises(DataError, match="regions has 3 values for 360 units"):
        placebo_transport(model, truth["images"], frame["y"], regions=[1, 2, 3], **roles)


@pytest.mark.filterwarnings("ignore:.* clusters")
def test_average_effects_can_be_read_with_spatial_errors_and_few_clusters(world, model):
    frame, truth = world
    site = np.arange(360) // 30
    fitted = model.set_params(scheme="oob").fit(
        truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5, cluster=site
    )
    ate = fitted.average_effect()
    coords = np.column_stack([30 + site * 1.0, np.zeros(360)])
    got = spatial_errors(ate, coords, cutoff_km=1.0)
    assert got.estimate == ate.estimate
    np.testing.assert_allclose(got.vcov, ate.vcov * 11 / 12, rtol=1e-9)  # one place a cluster
    assert wild_cluster_test(ate).p_value < 0.01
    assert wild_cluster_test(ate, null=1.0).p_value > 0.05


def test_images_in_files(tmp_path):
    pixels = np.random.default_rng(0).random((5, 3, 6, 7, 2), dtype=np.float32)
    for k, one in enumerate(pixels):
        np.save(tmp_path / f"place{k}.npy", one)
    want = SequenceFeatures(SpectralFeatures()).fit_transform(ImageSequence(pixels))
    for files in (tmp_path, str(tmp_path), sorted(tmp_path.glob("*.npy"))):
        sequence = ImageSequence.from_npy(files, memory_limit=pixels[0].nbytes * 7)
        assert sequence.shape == pixels.shape
        np.testing.assert_array_equal(
            SequenceFeatures(SpectralFeatures()).fit_transform(sequence), want
        )
    turned = ImageSequence.from_npy([tmp_path / "place3.npy", tmp_path / "place1.npy"])
    np.testing.assert_array_equal(turned.read(np.array([0, 1])).pixels, pixels[[3, 1]])
    np.testing.assert_array_equal(
        turned.crop(3).read(np.array([1])).pixels[0], pixels[1, :, 1:4, 2:5]
    )


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"has no \.npy file"):
        ImageSequence.from_npy(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        ImageSequence.from_npy(tmp_path / "none")
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 3, 1)))
    np.save(tmp_path / "b.npy", np.zeros((1, 3, 3, 1)))
    with pytest.raises(DataError, match=r"b\.npy holds float64 of shape \(1, 3, 3, 1\)"):
        ImageSequence.from_npy(tmp_path)
    with pytest.raises(DataError, match=r"1 of 2 file\(s\) do not exist"):
        ImageSequence.from_npy([tmp_path / "a.npy", tmp_path / "c.npy"])
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="not an array of numbers"):
        ImageSequence.from_npy(tmp_path)
