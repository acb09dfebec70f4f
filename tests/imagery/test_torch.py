"""Networks as encoders, with tiny ones made here; needs torch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from causalfair.datasets import make_image_sequence_trial  # noqa: E402
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError  # noqa: E402
from causalfair.forest import CausalForest  # noqa: E402
from causalfair.imagery import (  # noqa: E402
    ImageSequence,
    ImageSequenceCATE,
    RandomConvolutionFeatures,
    SequenceFeatures,
    TorchFrameEncoder,
    TorchSequenceEncoder,
)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).random((9, 3, 10, 10, 3), dtype=np.float32)


class Rectified(torch.nn.Module):
    """What RandomConvolutionFeatures computes, written with a convolution."""

    def __init__(self, encoder):
        super().__init__()
        filters = torch.from_numpy(encoder.filters_.transpose(0, 3, 1, 2).copy())
        self.register_buffer("filters", filters)
        self.bias = encoder.bias_

    def forward(self, x):
        z = torch.nn.functional.conv2d(x, self.filters)
        parts = [torch.relu(z - self.bias), torch.relu(-z - self.bias)]
        return torch.cat([part.mean(dim=(2, 3)) for part in parts], dim=1)


def test_a_convolution_of_the_same_filters_gives_the_same_features(images):
    encoder = RandomConvolutionFeatures(
        16, n_patches=500, bias=0.3, band_statistics=False, random_state=0
    ).fit(images)
    network = TorchFrameEncoder(Rectified(encoder)).fit(images)
    np.testing.assert_allclose(
        network.transform(images), encoder.transform(images), rtol=1e-4, atol=1e-5
    )


def test_bands_size_and_normalisation(images):
    class Means(torch.nn.Module):
        def forward(self, x):
            assert x.shape[1:] == (2, 5, 5)
            return x.mean(dim=(2, 3))

    encoder = TorchFrameEncoder(
        Means(), input_size=5, band_map=(2, 0), mean=(0.5, 0.1), std=(0.25, 2.0), batch_size=4
    )
    got = encoder.fit(images).transform(images)
    plain = images.mean(axis=(2, 3))[..., [2, 0]]
    np.testing.assert_allclose(got, (plain - [0.5, 0.1]) / [0.25, 2.0], atol=0.05)


def test_tokens_are_pooled_and_modes_restored(images):
    class Tokens(torch.nn.Module):
        def forward(self, x):
            assert not self.training
            flat = x.flatten(2).mean(dim=2)
            out = torch.stack([flat, 3 * flat], dim=1)
            return type("Output", (), {"last_hidden_state": out})()

    module = Tokens().train()
    first = TorchFrameEncoder(module, pool="cls").fit(images).transform(images)
    mean = TorchFrameEncoder(module, pool="mean").fit(images).transform(images)
    np.testing.assert_allclose(mean, 2 * first, rtol=1e-5)
    assert module.training


def test_invalid_pixels_do_not_reach_the_network(images):
    mask = np.ones(images.shape[:-1], bool)
    mask[:, :, :3] = False
    encoder = TorchFrameEncoder(
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    )
    got = encoder.fit(images).transform(ImageSequence(images, mask=mask))
    np.testing.assert_allclose(got, images[:, :, 3:].mean(axis=(2, 3)), rtol=1e-4)


def test_a_transformers_backbone(images):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8, num_channels=3,
    )  # fmt: skip
    module = transformers.ViTModel(config, add_pooling_layer=False)
    features = SequenceFeatures(TorchFrameEncoder(module, input_size=16, pool="cls"))
    out = features.fit_transform(images)
    assert out.shape == (9, 16)
    np.testing.assert_array_equal(features.transform(images), out)


class LastLessFirst(torch.nn.Module):
    def forward(self, x):
        means = x.mean(dim=(3, 4))
        return means[:, -1] - means[:, 0]


def test_sequences_go_in_whole_and_missing_frames_are_skipped(images):
    encoder = TorchSequenceEncoder(LastLessFirst(), n_frames=6, batch_size=2)
    means = images.mean(axis=(2, 3))
    np.testing.assert_allclose(
        encoder.fit(images).transform(images), means[:, 2] - means[:, 0], atol=1e-6
    )
    mask = np.ones(images.shape[:-1], bool)
    mask[4, 2] = False
    got = encoder.transform(ImageSequence(images, mask=mask))
    np.testing.assert_allclose(got[4], means[4, 1] - means[4, 0], atol=1e-6)
    mask[4] = False
    with pytest.raises(DataError, match="place 4 has no usable frame"):
        encoder.transform(ImageSequence(images, mask=mask))


class Mixer(torch.nn.Module):
    """Sees all frames at once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(12, 5, 3)

    def forward(self, x):
        return torch.tanh(self.layer(x.flatten(1, 2))).mean(dim=(2, 3))


def test_sequences_of_a_dask_array_are_read_block_by_block_where_dask_runs(images):
    da = pytest.importorskip("dask.array")
    dask = pytest.importorskip("dask")
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[0]["chunk-location"][0])
        return block

    pixels = np.repeat(images, 3, axis=0)[:, [0, 1, 2, 0]]
    mask = np.random.default_rng(0).random(pixels.shape[:-1]) > 0.1
    mask[5, 2] = False
    when = {"times": np.arange(4.0), "image_of_unit": np.r_[0:27, 3, 3],
            "baseline": np.r_[np.full(27, 4.0), 2.5, 4.0], "on_post": "drop"}  # fmt: skip
    limit = {"memory_limit": 4 * 4 * 10 * 10 * 3 * 4 * 3}  # four places
    with pytest.warns(CausalFairWarning, match="on or after the baseline"):
        plain = ImageSequence(pixels, mask=mask, **when, **limit)
    lazy = da.from_array(pixels, chunks=(5, 2, 10, 4, 3)).map_blocks(read, dtype=np.float32)
    with pytest.warns(CausalFairWarning, match="on or after the baseline"):
        there = ImageSequence(
            lazy, mask=da.from_array(mask, chunks=(4, 4, 10, 10)), **when, **limit
        )
    encoder = TorchSequenceEncoder(Mixer(), batch_size=3).fit(plain)
    want = encoder.transform(plain)
    assert want.shape == (28, 5)
    assert not np.array_equal(want[3], want[4])  # image 3 before 2.5, and before 4
    with dask.config.set(scheduler="synchronous"):
        reads.clear()
        np.testing.assert_array_equal(encoder.transform(there), want)
    assert len(reads) > 6 * 3  # a graph a block: nothing is read as a whole
    assert set(reads) == set(range(6))


def test_a_place_larger_than_the_memory_limit_is_refused(images):
    encoder = TorchSequenceEncoder(Mixer()).fit(np.concatenate([images, images[:, :1]], axis=1))
    small = ImageSequence(np.concatenate([images, images[:, :1]], axis=1), memory_limit=8000)
    with pytest.raises(ParameterError, match="one place needs"):
        encoder.transform(small)


def test_networks_keep_their_threads(images):
    seen = []

    class Threads(torch.nn.Module):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return x.mean(dim=(-1, -2)).flatten(1)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        SequenceFeatures(TorchFrameEncoder(Threads())).fit(images).transform(images)
        TorchSequenceEncoder(Threads()).fit(images).transform(images)
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {2}


def test_a_sequence_encoder_serves_the_estimator():
    frame, truth = make_image_sequence_trial(150, size=8, noise=0.3, random_state=0)
    model = ImageSequenceCATE(
        TorchSequenceEncoder(LastLessFirst()), CausalForest(100), n_components=None, scheme="oob",
        random_state=0,
    ).fit(truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5)  # fmt: skip
    assert np.corrcoef(model.predict(), truth["cate"])[0, 1] > 0.3


def test_bad_modules_are_refused(images):
    with pytest.raises(ParameterError, match="module of type function"):
        TorchFrameEncoder(lambda x: x).fit(images)
    with pytest.raises(ParameterError, match=r"band_map=\(0, 3\)"):
        TorchFrameEncoder(torch.nn.Flatten(), band_map=(0, 3)).fit(images)
    with pytest.raises(ParameterError, match="mean of length 2 for 3"):
        TorchFrameEncoder(torch.nn.Flatten(), mean=(0, 0)).fit(images)
    with pytest.raises(DataError, match="returned shape"):
        TorchFrameEncoder(torch.nn.Identity()).fit(images)
    with pytest.raises(ParameterError, match="module of type int"):
        TorchSequenceEncoder(3).fit(images)
