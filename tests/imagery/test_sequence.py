"""The container: sources, dates, masks, units, blocks."""

from __future__ import annotations

import datetime
import tracemalloc

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.imagery import (
    ImageSequence,
    RandomConvolutionFeatures,
    SequenceFeatures,
    SpectralFeatures,
)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).random((7, 3, 9, 8, 2), dtype=np.float32)


def features(images, **options):
    encoder = RandomConvolutionFeatures(8, n_patches=200, random_state=0)
    return SequenceFeatures(encoder, **options).fit_transform(images)


def test_every_kind_of_array_gives_the_same_bits(pixels, tmp_path):
    want = features(ImageSequence(pixels))
    store = zarr.create_array(
        tmp_path / "a.zarr", shape=pixels.shape, chunks=(2, 3, 9, 8, 2), dtype="f4"
    )
    store[:] = pixels
    memmap = np.memmap(tmp_path / "a.bin", dtype="f4", mode="w+", shape=pixels.shape)
    memmap[:] = pixels
    shuffled = xr.DataArray(
        pixels.transpose(1, 4, 0, 2, 3), dims=("time", "band", "village", "y", "x")
    )
    for images in (store, memmap, da.from_array(pixels, chunks=(3, 3, 9, 8, 2)), shuffled):
        np.testing.assert_array_equal(features(ImageSequence(images)), want)


def test_xarray_brings_dates_and_bands(pixels):
    array = xr.DataArray(
        pixels,
        dims=("place", "time", "y", "x", "band"),
        coords={
            "time": np.array(["2001-01-01", "2002-01-01", "2003-01-01"], "datetime64[ns]"),
            "band": ["red", "nir"],
        },
    )
    sequence = ImageSequence(array)
    assert sequence.bands == ("red", "nir")
    assert sequence.years[0, 0] == pytest.approx(2001.0, abs=0.01)
    with pytest.raises(DataError, match="y, x and band, and one other"):
        ImageSequence(array.rename(y="north"))


@pytest.mark.parametrize("limit_images", [1, 2, 100])
def test_block_size_changes_nothing(pixels, limit_images):
    mask = np.random.default_rng(1).random(pixels.shape[:-1]) > 0.05
    want = features(ImageSequence(pixels, mask=mask))
    one = pixels[0].nbytes * 3
    got = features(ImageSequence(pixels, mask=mask, memory_limit=limit_images * one))
    np.testing.assert_array_equal(got, want)
    # even less than one image: frames are read in pieces
    part = features(ImageSequence(pixels, mask=mask, memory_limit=one // 2))
    np.testing.assert_array_equal(part, want)
    with pytest.raises(ParameterError, match="one frame needs"):
        features(ImageSequence(pixels, memory_limit=100))


def test_threads_change_nothing(pixels):
    want = features(ImageSequence(pixels), n_jobs=1)
    np.testing.assert_array_equal(features(ImageSequence(pixels), n_jobs=2), want)


def test_zarr_stack_larger_than_the_limit_stays_under_it(tmp_path):
    n, limit = 120, 4 * 2**20
    shape = (n, 4, 64, 64, 3)  # 22.5 MiB as float32
    store = zarr.create_array(
        tmp_path / "big.zarr", shape=shape, chunks=(2, 4, 64, 64, 3), dtype="f4"
    )
    rng = np.random.default_rng(0)
    for start in range(0, n, 20):
        store[start : start + 20] = rng.random((20, *shape[1:]), dtype=np.float32)
    sequence = ImageSequence(store, memory_limit=limit)
    assert sequence.nbytes > 5 * limit
    encoder = RandomConvolutionFeatures(8, n_patches=200, random_state=0)
    SequenceFeatures(encoder).fit_transform(sequence.subset(np.arange(2)))  # compile
    tracemalloc.start()
    out = SequenceFeatures(encoder).fit_transform(sequence)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.shape[0] == n
    assert peak < 2 * limit < sequence.nbytes


STACK = """
import resource, sys
import numpy as np, zarr
from causalfair.imagery import ImageSequence, RandomConvolutionFeatures, SequenceFeatures

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

store = zarr.open_array(sys.argv[1], mode="r")
sequence = ImageSequence(store, memory_limit=16 * 2**20)
features = SequenceFeatures(RandomConvolutionFeatures(4, n_patches=200, random_state=0))
features.fit_transform(sequence.subset(np.arange(4)))  # imports and kernels
before = peak()
out = features.fit_transform(sequence)
print(sequence.nbytes, peak() - before, *out.shape)
"""


def test_zarr_stack_larger_than_memory_allowed_in_a_process_of_its_own(tmp_path):
    """192 MiB of pixels, 16 MiB allowed: what the process grows by is a fraction of the stack."""
    import subprocess
    import sys

    shape = (128, 8, 128, 128, 3)
    store = zarr.create_array(
        tmp_path / "stack.zarr", shape=shape, chunks=(2, 8, 128, 128, 3), dtype="f4"
    )
    tile = np.random.default_rng(0).random((8, 8, 128, 128, 3), dtype=np.float32)
    for start in range(0, shape[0], 8):
        store[start : start + 8] = tile
    done = subprocess.run(
        [sys.executable, "-c", STACK, str(tmp_path / "stack.zarr")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stack, grown, n, _ = map(int, done.stdout.split())
    assert n == 128
    assert stack == 4 * np.prod(shape) == 192 * 2**20
    assert grown < 3 * 16 * 2**20 < stack / 3


def test_dask_workers_make_the_features(pixels):
    import dask

    sequence = ImageSequence(
        da.from_array(pixels, chunks=(2, 3, 9, 8, 2)), memory_limit=pixels[0].nbytes * 6
    )
    with dask.config.set(scheduler="threads"):
        got = features(sequence)
    np.testing.assert_array_equal(got, features(ImageSequence(pixels)))


def test_dask_inside_xarray_is_left_to_dask(pixels):
    lazy = xr.DataArray(
        da.from_array(pixels, chunks=(2, 3, 9, 8, 2)), dims=("place", "time", "y", "x", "band")
    )
    sequence = ImageSequence(lazy)
    assert sequence._is_dask
    np.testing.assert_array_equal(features(sequence), features(ImageSequence(pixels)))


def test_dask_reads_no_more_than_the_block(pixels):
    """A place larger than the limit comes in pieces, and a crop is cut before it travels."""
    whole = ImageSequence(da.from_array(pixels, chunks=(2, 3, 9, 8, 2)))
    lazy, mask = whole.crop(4)._lazy(np.array([2, 3]), slice(1, 2))
    assert lazy.shape == (2, 1, 4, 4, 2)
    assert mask is None
    mask = np.random.default_rng(1).random(pixels.shape[:-1]) > 0.05
    want = features(ImageSequence(pixels, mask=mask), crop=6)
    for valid in (mask, da.from_array(mask)):
        limited = ImageSequence(
            da.from_array(pixels), mask=valid, memory_limit=pixels[0].nbytes * 3 // 2
        )
        np.testing.assert_array_equal(features(limited, crop=6), want)


def test_what_a_worker_is_sent_is_small_and_enough(pixels):
    """The number of places does not matter, for a worker is told nothing of other places."""
    import pickle
    from functools import partial

    from causalfair.imagery._blocks import _decode_and_do
    from causalfair.imagery._frames import _features

    encoder = RandomConvolutionFeatures(8, n_patches=200, random_state=0).fit(pixels)
    sequence = ImageSequence(da.from_array(pixels, chunks=(2, 3, 9, 8, 2)))
    sent = pickle.dumps((partial(_features, encoder, 0.2), sequence._decoder(), False))
    assert len(sent) < 5_000
    part = (np.array([2, 3]), slice(0, 3))
    got, n_nan = _decode_and_do(pickle.loads(sent), pixels[[2, 3]], None, *part)
    np.testing.assert_array_equal(got, encoder.transform(pixels)[[2, 3]])
    assert n_nan == 0


def test_progress_is_shown_when_asked_for(pixels, capsys):
    import causalfair

    sequence = ImageSequence(pixels, memory_limit=pixels[0].nbytes * 3)
    with causalfair.option_context(progress=True):
        features(sequence)
    assert "image features" in capsys.readouterr().err
    features(sequence)
    assert capsys.readouterr().err == ""


def test_scales_side_by_side(pixels):
    """Two sizes of the same centre through FeatureUnion."""
    from sklearn.pipeline import FeatureUnion

    near = SequenceFeatures(SpectralFeatures(), crop=4)
    far = SequenceFeatures(SpectralFeatures())
    both = FeatureUnion([("near", near), ("far", far)]).fit_transform(ImageSequence(pixels))
    want = np.hstack(
        [
            SequenceFeatures(SpectralFeatures()).fit_transform(ImageSequence(pixels).crop(4)),
            far.fit_transform(ImageSequence(pixels)),
        ]
    )
    np.testing.assert_array_equal(both, want)


def test_description_and_band_statistics(pixels):
    raw = (pixels * 200).astype("uint8")
    mask = np.random.default_rng(3).random(pixels.shape[:-1]) > 0.3
    mask[0, 0] = False
    one = pixels[0].nbytes * 3
    sequence = ImageSequence(raw, mask=mask, bands=("red", "nir"), scale=0.01, memory_limit=2 * one)
    table = sequence.band_statistics()
    for band in (0, 1):
        values = raw[mask][:, band].astype(float) * 0.01
        row = table.iloc[band]
        np.testing.assert_allclose(
            row[["mean", "sd"]].to_numpy(float), [values.mean(), values.std()], rtol=1e-5
        )
        np.testing.assert_allclose(row["p50"], np.median(values), atol=0.011)
        np.testing.assert_allclose(row["p99"], np.percentile(values, 99), atol=0.02)
    text = str(sequence.describe())
    assert "missing frames: 4.8%" in text
    assert "red" in text


def test_four_dimensions_are_one_frame(pixels):
    one = ImageSequence(pixels[:, 0])
    assert one.shape == (7, 1, 9, 8, 2)
    encoder = RandomConvolutionFeatures(8, n_patches=200, random_state=0).fit(one)
    assert encoder.transform(pixels[:, 0]).shape == (7, 12)
    assert encoder.transform(pixels[:, :1]).shape == (7, 1, 12)


def test_views_read_what_numpy_slices(pixels):
    sequence = ImageSequence(pixels, image_of_unit=[0, 1, 1, 5])
    block = sequence.crop(4).read(np.array([0, 2, 3]))
    np.testing.assert_array_equal(block.pixels, pixels[[0, 2, 3], :, 2:6, 2:6])
    coarse = sequence.resample(2).read(np.array([1]))
    assert coarse.pixels.shape == (1, 3, 4, 4, 2)
    np.testing.assert_allclose(
        coarse.pixels[0, 0, 0, 0], pixels[1, 0, :2, :2].mean(axis=(0, 1)), rtol=1e-6
    )
    some = sequence.subset(np.array([False, True, False, True]))
    assert some.shape[0] == 2
    assert some.image_of_unit.tolist() == [0, 1]
    np.testing.assert_array_equal(some.read(np.array([0, 1])).pixels, pixels[[1, 5]])
    frames = list(sequence.iter_frames(chunk=5))
    assert sum(len(f[0]) for f in frames) == 21
    np.testing.assert_array_equal(frames[0][1][4], pixels[1, 1])


def test_scaling_and_nodata():
    raw = np.array([[[[10, 20]], [[0, 0]]]], dtype=np.uint8)[:, None]  # (1, 1, 2, 1, 2)
    with pytest.warns(CausalFairWarning, match="divided by 255"):
        ImageSequence(raw)
    block = ImageSequence(raw, scale=[0.1, 0.01], offset=1.0, nodata=0).read(np.array([0]))
    np.testing.assert_allclose(block.pixels[0, 0, 0, 0], [2.0, 1.2], rtol=1e-6)
    assert block.valid[0, 0].ravel().tolist() == [True, False]


def test_nan_pixels_are_masked_with_one_warning(pixels):
    holes = pixels.copy()
    holes[0, 0, :2] = np.nan
    with pytest.warns(CausalFairWarning, match=r"1\.1% of the pixels are NaN") as caught:
        got = features(ImageSequence(holes))
    assert len(caught) == 1
    assert np.isfinite(got).all()


def test_missing_frames(pixels):
    mask = np.ones(pixels.shape[:-1], bool)
    mask[2, 1] = False
    got = SequenceFeatures(SpectralFeatures(), pooling="mean").fit_transform(
        ImageSequence(pixels, mask=mask)
    )
    frames = SpectralFeatures().fit(pixels).transform(pixels)
    np.testing.assert_allclose(got[2], frames[2, [0, 2]].mean(axis=0), rtol=1e-6)
    mask[2] = False
    with pytest.raises(DataError, match=r"1 place\(s\) have no usable frame"):
        features(ImageSequence(pixels, mask=mask))


TIMES = ["2001-01-01", "2002-01-01", "2003-01-01"]


def test_leak_guard(pixels):
    with pytest.raises(
        DataError, match=r"7 frame\(s\) are dated on or after the baseline: image 0, frame 2"
    ):
        ImageSequence(pixels, times=TIMES, baseline="2003-01-01")
    with pytest.warns(CausalFairWarning, match="left out"):
        dropped = ImageSequence(pixels, times=TIMES, baseline="2003-01-01", on_post="drop")
    want = ImageSequence(pixels[:, :2], times=TIMES[:2], baseline="2003-01-01")
    np.testing.assert_allclose(
        SequenceFeatures(SpectralFeatures()).fit_transform(dropped),
        SequenceFeatures(SpectralFeatures()).fit_transform(want),
        rtol=1e-10,
    )
    with (
        pytest.raises(DataError, match="7 place.s. have no frame before"),
        pytest.warns(CausalFairWarning),
    ):
        ImageSequence(pixels, times=TIMES, baseline="2001-01-01", on_post="drop")


def test_units_that_share_an_image_may_have_different_baselines(pixels):
    units = [0, 0, 1]
    baseline = np.array(["2002-06-01", "2004-06-01", "2004-06-01"], "datetime64[D]")
    with pytest.warns(CausalFairWarning):
        sequence = ImageSequence(
            pixels, times=TIMES, image_of_unit=units, baseline=baseline, on_post="drop"
        )
    assert sequence.row_image.tolist() == [0, 0, 1]
    got = SequenceFeatures(SpectralFeatures(), pooling="last").fit_transform(sequence)
    frames = SpectralFeatures().fit(pixels).transform(pixels)
    np.testing.assert_allclose(got, np.stack([frames[0, 1], frames[0, 2], frames[1, 2]]), rtol=1e-6)
    late = sequence.subset(np.array([1]))
    assert late.usable.sum() == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": TIMES[:2]}, r"times of shape \(2,\) for 7 images of 3 frame"),
        ({"times": [datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)] * 3}, "time zone"),
        ({"times": ["spring", "summer", "fall"]}, "'spring', which is not a date"),
        ({"mask": np.ones((7, 3, 9), bool)}, r"mask of shape \(7, 3, 9\)"),
        ({"bands": ("red",)}, "images with 2 bands"),
        ({"coords": np.ones((6, 2))}, r"coords of shape \(6, 2\) for 7 images"),
        ({"coords": np.full((7, 2), 120.0)}, "swapped"),
        ({"image_of_unit": [0, 7]}, "from 0 to 7 for 7 images"),
        ({"image_of_unit": [0.5]}, "whole numbers"),
        ({"baseline": 2004}, "no times="),
        ({"times": TIMES, "baseline": ["2004-01-01"] * 3}, r"baseline of shape \(3,\) for 7 units"),
        ({"times": TIMES, "baseline": "2004-01-01", "on_post": "keep"}, "on_post='keep'"),
        ({"scale": [1.0, 2.0, 3.0]}, r"scale of shape \(3,\)"),
    ],
)
def test_bad_input(pixels, options, message):
    with pytest.raises((DataError, ParameterError), match=message):
        ImageSequence(pixels, **options)


def test_more_bad_input(pixels):
    with pytest.raises(DataError, match=r"shape \(9, 8, 2\)"):
        ImageSequence(pixels[0, 0])
    with pytest.raises(DataError, match="give an ImageSequence or an array"):
        RandomConvolutionFeatures().fit([[1]])
    with pytest.raises(DataError, match="patch larger than image"):
        RandomConvolutionFeatures(8, patch_size=9).fit(pixels)
    with pytest.raises(DataError, match="must be even"):
        RandomConvolutionFeatures(7).fit(pixels)
    with pytest.raises(ParameterError, match="size=10"):
        ImageSequence(pixels).crop(10)
    with pytest.raises(ParameterError, match="pooling='sum'"):
        SequenceFeatures(pooling="sum").fit(pixels)
    with pytest.raises(ParameterError, match="n_components='all'"):
        SequenceFeatures(n_components="all").fit(pixels)
    fitted = SequenceFeatures(SpectralFeatures()).fit(ImageSequence(pixels, bands=("red", "nir")))
    with pytest.raises(DataError, match="fitted on 2"):
        fitted.transform(pixels[..., :1])
    with pytest.raises(DataError, match=r"bands \('nir', 'red'\)"):
        fitted.transform(ImageSequence(pixels, bands=("nir", "red")))
    with pytest.raises(DataError, match="same reflectance"):
        fitted.transform(ImageSequence(pixels, scale=2.0))
    with pytest.raises(ParameterError, match="needs the band.s. red"):
        SpectralFeatures("ndvi").fit(ImageSequence(pixels, bands=("green", "nir")))
