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
    compare_transports,
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


def test_dense_places_of_a_block_are_not_independent_draws():
    frame, truth = make_image_sequence_trial(150, n_frames=3, size=8, random_state=0)
    fitted = ImageSequenceCATE(
        SequenceFeatures(SpectralFeatures()), CausalForest(100), scheme="oob", random_state=0
    ).fit(truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5)
    images = truth["images"]
    options = {"unsupported": "ignore"}
    alone, finite = fitted.transport(images, **options), fitted.transport(
        images, finite_target=True, **options
    )  # fmt: skip
    effect = alone.effect
    block = np.argsort(np.argsort(effect)) // 15  # places of a block are alike
    blocks = fitted.transport(images, target_cluster=block, **options)
    second = finite.estimates_.vcov[0, 0]
    assert alone.estimates_.vcov[0, 0] - second == pytest.approx(effect.var(ddof=1) / 150)
    sums = np.bincount(block, weights=effect - effect.mean())
    want = (sums**2).sum() / 150**2 * 10 / 9
    assert blocks.estimates_.vcov[0, 0] - second == pytest.approx(want)
    each = fitted.transport(images, target_cluster=np.arange(150), **options)
    assert each.estimates_.vcov[0, 0] == pytest.approx(alone.estimates_.vcov[0, 0])
    with pytest.raises(DataError, match=r"target_cluster has shape \(3,\) for 150 places"):
        fitted.transport(images, target_cluster=[1, 2, 3])
    table = compare_transports({"a": alone, "b": blocks})
    assert table["rank_correlation"].tolist() == pytest.approx([1, 1])
    assert table["std_error"][1] > table["std_error"][0]
    with pytest.raises(DataError, match=r"maps of \[149, 150\] places"):
        compare_transports(
            {"a": alone, "b": fitted.transport(images.subset(np.arange(149)), **options)}
        )


def test_effect_carried_to_a_shifted_population():
    """x ~ N(0, 1), P(S = 1 | x) = 1 / (1 + exp(-x / 2)), effect 1 + x: .7640 outside, 1.2360 inside."""
    from scipy.special import expit

    from causalfair.forest._sample import EffectSample
    from causalfair.imagery._support import SupportReport
    from causalfair.imagery._transport import transport

    rng = np.random.default_rng(0)
    x = rng.normal(size=400_000)
    inside = rng.random(x.size) < expit(x / 2)
    xi, target = x[inside], x[~inside]
    w = rng.random(xi.size) < 0.5
    noise = rng.normal(size=xi.size)
    y = w * (1 + xi) + noise
    flat = np.ones(xi.size)  # a model that knows the average effect in the trial only
    tau, e = np.full(xi.size, 1.2360), 0.5 * flat
    m = 0.5 * tau
    sample = EffectSample(tau, y - m, w - e, e, e * (1 - e), True)
    everywhere = np.ones(target.size)
    report = SupportReport(everywhere, 0 * target, 0 * target, expit(xi / 2), 0.5, 1.0, 1.0)
    got = transport(sample, np.full(target.size, 1.2360), report, None, exclude=True,
                    finite_target=False)  # fmt: skip
    assert got.plug_in == pytest.approx(1.2360)
    error = got.estimates_.std_error[0]
    assert error < 0.01
    # Capping the weights at their 99th percentile moves the answer a little towards the trial.
    assert got.estimates_.estimate[0] == pytest.approx(0.7640, abs=3 * error + 0.02)
    assert (1 + xi).mean() == pytest.approx(1.2360, abs=0.008)
    assert (1 + target).mean() == pytest.approx(0.7640, abs=0.008)
