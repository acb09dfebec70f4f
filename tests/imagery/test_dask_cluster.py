"""Features on the worker processes of a real dask cluster."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest

from causalfair.imagery import (
    ImageSequence,
    ImageSequenceCATE,
    RandomConvolutionFeatures,
    SequenceFeatures,
    SpectralFeatures,
)

distributed = pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")
pytestmark = pytest.mark.slow  # two processes import the package and compile its kernels

LIMIT = 2**20  # bytes of pixels a block may take; the stack below holds five times as much


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, memory_limit="1GiB",
            dashboard_address=None, host="127.0.0.1",
        ) as cluster,
        distributed.Client(cluster) as connected,
    ):  # fmt: skip
        yield connected


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).random((90, 5, 24, 24, 4), dtype=np.float32)


@pytest.fixture(scope="module")
def mask(pixels):
    valid = np.random.default_rng(1).random(pixels.shape[:-1]) > 0.02
    valid[3, 1] = False
    return valid


def lazy(pixels, mask=None, **options):
    chunks = (7, 2, 24, 16, 4)  # blocks straddle them
    return ImageSequence(
        da.from_array(pixels, chunks=chunks),
        mask=None if mask is None else da.from_array(mask, chunks=chunks[:-1]),
        memory_limit=LIMIT,
        **options,
    )


def encoder():
    return RandomConvolutionFeatures(16, n_patches=2000, random_state=0)


class WhereItRan(SpectralFeatures):
    """Spectral features whose first column is the number of the process."""

    def _encode(self, pixels, valid):
        out = super()._encode(pixels, valid)
        out[:, 0] = os.getpid()
        return out


@pytest.mark.parametrize("pooling", ["mean", ("mean", "trend"), "concat"])
def test_workers_give_the_bits_of_one_process(client, pixels, mask, pooling):
    sequence = lazy(pixels, mask)
    assert sequence.nbytes > 3 * LIMIT
    assert len(sequence._blocks()) > 10
    far = SequenceFeatures(encoder(), pooling=pooling, n_components="auto")
    near = SequenceFeatures(encoder(), pooling=pooling, n_components="auto")
    want = near.fit_transform(ImageSequence(pixels, mask=mask))
    np.testing.assert_array_equal(far.fit_transform(sequence), want)
    np.testing.assert_array_equal(far.transform(sequence), near.transform(sequence))
    np.testing.assert_array_equal(
        far.frame_features_.filters_, near.frame_features_.filters_
    )  # patches were cut on the workers


def test_both_workers_work_and_this_process_does_not(client, pixels):
    pool = SequenceFeatures(WhereItRan(), pooling="last")
    numbers = set(pool.fit_transform(lazy(pixels))[:, 0].astype(int))
    assert numbers == {int(np.float32(w)) for w in client.run(os.getpid).values()}
    assert os.getpid() not in numbers


def test_crops_masks_and_missing_pixels(client, pixels, mask):
    holes = pixels.copy()
    holes[0, 0, :2] = np.nan
    for view in (lambda s: s.crop(11), lambda s: s.resample(2), lambda s: s.subset([5, 1, 77])):
        near = SequenceFeatures(encoder()).fit_transform(view(ImageSequence(holes, mask=mask)))
        far = SequenceFeatures(encoder()).fit_transform(view(lazy(holes, mask)))
        np.testing.assert_array_equal(far, near)


def test_description_reads_on_the_workers(client, pixels, mask):
    near = ImageSequence(pixels, mask=mask, memory_limit=LIMIT)
    far = lazy(pixels, mask)
    np.testing.assert_array_equal(far.valid_share(), near.valid_share())
    assert far.band_statistics().equals(near.band_statistics())
    assert str(far.describe()) == str(near.describe())


def test_a_whole_fit(client, pixels):
    rng = np.random.default_rng(2)
    w = rng.permutation(90) % 2
    y = w * pixels[..., 0].mean(axis=(1, 2, 3)) * 50 + rng.normal(size=90)
    fit = partial(
        ImageSequenceCATE(SequenceFeatures(encoder()), random_state=1).fit, y=y, treatment=w
    )
    far, near = fit(lazy(pixels)).predict(), fit(ImageSequence(pixels)).predict()
    np.testing.assert_array_equal(np.asarray(far), np.asarray(near))


def test_an_error_on_a_worker_reaches_the_user(client, pixels):
    class Broken(SpectralFeatures):
        def _encode(self, pixels, valid):
            raise FloatingPointError("the encoder failed")

    with pytest.raises(FloatingPointError, match="the encoder failed"):
        SequenceFeatures(Broken()).fit_transform(lazy(pixels))
