"""Frame features and pooling against closed forms and naive twins."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import imagery as naive
from sklearn.base import clone

from causalfair.exceptions import CausalFairWarning, DataError, MissingDependencyError
from causalfair.imagery import (
    ImageSequence,
    NeuralSequenceEffects,
    RandomConvolutionFeatures,
    SequenceFeatures,
    SpectralFeatures,
    TorchFrameEncoder,
)
from causalfair.imagery._compress import Compressor
from causalfair.imagery._convolution import EPSILON, whitened_filters
from causalfair.imagery._pooling import pool

FLOAT32 = 1e-4  # relative agreement of float32 sums with a float64 reference


def encode(encoder, filters, bias, pixels, valid):
    encoder.filters_, encoder.bias_, encoder.n_bands_in_, encoder.bands_in_ = (
        filters,
        bias,
        pixels.shape[-1],
        None,
    )
    return encoder._encode(pixels, valid)


@pytest.mark.kernel
@settings(max_examples=25)
@given(
    size=st.integers(1, 4), bands=st.integers(1, 4), K=st.integers(1, 6), grid=st.integers(1, 2),
    bias=st.sampled_from([0.0, 0.4]), hole=st.sampled_from([0.0, 0.05, 1.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_kernel_equals_the_loops(size, bands, K, grid, bias, hole, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.random((3, size + 4, size + 3, bands), dtype=np.float32)
    valid = rng.random(pixels.shape[:-1]) >= hole
    valid[0] = True
    filters = rng.normal(size=(K, size, size, bands)).astype(np.float32)
    encoder = RandomConvolutionFeatures(2 * K, patch_size=size, grid=grid, band_statistics=False)
    got = encode(encoder, filters, bias, pixels, valid)
    want = naive.rectified_means(pixels, valid, filters.astype(float), bias, grid, share=0.0)
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=1e-5)


def test_one_by_one_filter_is_the_mean_of_positive_and_negative_parts():
    pixels = np.random.default_rng(0).normal(size=(4, 6, 5, 1)).astype(np.float32)
    valid = np.ones(pixels.shape[:-1], bool)
    encoder = RandomConvolutionFeatures(2, patch_size=1, band_statistics=False)
    got = encode(encoder, np.ones((1, 1, 1, 1), np.float32), 0.0, pixels, valid)
    flat = pixels.reshape(4, -1).astype(float)
    want = np.column_stack([np.maximum(flat, 0).mean(1), np.maximum(-flat, 0).mean(1)])
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_no_bias_makes_the_difference_of_the_pair_linear_in_the_pixels():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 1, 8, 8, 2), dtype=np.float32)
    valid = np.ones((1, 8, 8), bool)
    filters = rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
    encoder = RandomConvolutionFeatures(6, band_statistics=False)

    def difference(pixels):
        out = encode(encoder, filters, 0.0, pixels, valid)[0]
        return out[:3] - out[3:]

    np.testing.assert_allclose(difference(a + 2 * b), difference(a) + 2 * difference(b), atol=1e-4)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).random((12, 3, 10, 10, 3), dtype=np.float32)


def test_whitened_filters_do_not_see_brightness(images):
    encoder = RandomConvolutionFeatures(
        16, n_patches=2000, bias=0.1, band_statistics=False, random_state=0
    )
    out = encoder.fit_transform(images)
    scale = np.abs(encoder.filters_).sum(axis=(1, 2, 3)).max()
    assert np.abs(encoder.filters_.sum(axis=(1, 2, 3))).max() < 1e-5 * scale
    np.testing.assert_allclose(
        encoder.transform(images + np.float32(0.5)), out, rtol=1e-3, atol=1e-4
    )
    flat = np.full((1, 1, 10, 10, 3), 0.3, np.float32)
    np.testing.assert_allclose(encoder.transform(flat), 0, atol=1e-5)


def test_isotropic_patches_only_shrink_the_filters():
    rng = np.random.default_rng(0)
    basis = np.vstack([np.eye(4), -np.eye(4)])  # second moment I / 4
    filters = whitened_filters(np.tile(basis, (50, 1)), 6, rng)
    np.testing.assert_allclose(np.abs(filters).max(axis=1), 1 / (0.25 + EPSILON), rtol=1e-12)
    np.testing.assert_allclose((np.abs(filters) > 1e-9).sum(axis=1), 1)


def test_gaussian_filters_respond_to_a_constant_by_their_sum():
    encoder = RandomConvolutionFeatures(
        10, filters="gaussian", bias=0.0, n_patches=100, random_state=0
    )
    frame = np.full((1, 1, 6, 6, 2), 0.7, np.float32)
    out = encoder.fit(frame).transform(frame)[0, 0]
    total = encoder.filters_.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(out[:5] - out[5:10], 0.7 * total, rtol=1e-4, atol=1e-5)


def test_permuting_places_permutes_rows_and_true_masks_change_nothing(images):
    encoder = RandomConvolutionFeatures(8, n_patches=500, random_state=0).fit(images)
    out = encoder.transform(images)
    order = np.random.default_rng(0).permutation(len(images))
    np.testing.assert_array_equal(encoder.transform(images[order]), out[order])
    masked = ImageSequence(images, mask=np.ones(images.shape[:-1], bool))
    np.testing.assert_array_equal(encoder.transform(masked), out)


def test_frames_with_few_whole_patches_are_missing(images):
    mask = np.ones(images.shape[:-1], bool)
    mask[3, 1, ::3] = False  # two thirds of the pixels are valid, and no patch of three rows
    mask[4, 1, 5:] = False  # three rows of whole patches out of ten
    encoder = RandomConvolutionFeatures(8, n_patches=200, random_state=0).fit(images)
    out = encoder.transform(ImageSequence(images, mask=mask, min_valid=0.2))
    missing = np.isnan(out).all(axis=2)
    assert np.argwhere(missing).tolist() == [[3, 1]]
    strict = encoder.transform(ImageSequence(images, mask=mask, min_valid=0.4))
    assert np.argwhere(np.isnan(strict).all(axis=2)).tolist() == [[3, 1], [4, 1]]
    spectral = SpectralFeatures().fit(images)
    assert not np.isnan(spectral.transform(ImageSequence(images, mask=mask))).any()


def test_seeds(images):
    def draw(seed):
        return RandomConvolutionFeatures(8, n_patches=500, random_state=seed).fit(images).filters_

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_automatic_bias_is_the_median_response(images):
    encoder = RandomConvolutionFeatures(8, bias="auto", n_patches=400, random_state=0).fit(images)
    assert 0 < encoder.bias_ < np.inf
    clone(encoder)
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.transform(images), encoder.transform(images))
    with pytest.warns(CausalFairWarning, match="used twice"):
        RandomConvolutionFeatures(64, n_patches=20, random_state=0).fit(images[:1])


def test_spectral_statistics():
    rng = np.random.default_rng(0)
    images = rng.random((3, 1, 5, 6, 5), dtype=np.float32)
    mask = rng.random((3, 1, 5, 6)) > 0.2
    sequence = ImageSequence(images, mask=mask, bands=("blue", "green", "red", "nir", "swir1"))
    encoder = SpectralFeatures().fit(sequence)
    frame = dict(
        zip(encoder.get_feature_names_out(), encoder.transform(sequence)[1, 0], strict=True)
    )
    seen = images[1, 0][mask[1, 0]].astype(float)
    blue, green, red, nir, swir = seen.T
    want = {
        "mean_red": red.mean(), "sd_nir": nir.std(), "p90_blue": np.percentile(blue, 90),
        "ndvi": ((nir - red) / (nir + red)).mean(), "ndbi": ((swir - nir) / (swir + nir)).mean(),
        "ndwi": ((green - nir) / (green + nir)).mean(),
        "evi": (2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)).mean(),
    }  # fmt: skip
    for name, value in want.items():
        assert frame[name] == pytest.approx(value, rel=1e-4), name
    black = (
        SpectralFeatures().fit(sequence).transform(ImageSequence(images * 0, bands=sequence.bands))
    )
    assert np.isnan(black[0, 0, -1]) == np.isnan(black[0, 0, -1])
    assert np.isnan(dict(zip(encoder.get_feature_names_out(), black[0, 0], strict=True))["ndvi"])


@pytest.fixture
def panel():
    rng = np.random.default_rng(3)
    t = -np.sort(rng.random((5, 7)) * 9, axis=1)[:, ::-1]
    phi = rng.normal(size=(5, 7, 4))
    use = rng.random((5, 7)) > 0.3
    use[:, 2:4] = True
    return phi, use, t


def pooled(panel, name, **options):
    return pool(*panel, (name,), **options)


def test_trend_and_level_are_least_squares_with_gaps(panel):
    phi, use, t = panel
    slope, level = pooled(panel, "trend"), pooled(panel, "level")
    for r in range(5):
        for d in range(4):
            want = naive.slope_and_level(t[r], np.where(use[r], phi[r, :, d], np.nan))
            np.testing.assert_allclose([slope[r, d], level[r, d]], want, rtol=1e-8, atol=1e-10)


def test_trend_of_a_line_is_exact(panel):
    _, use, t = panel
    line = 3.0 + 0.5 * t[:, :, None] * np.arange(1, 5)
    np.testing.assert_allclose(
        pool(line, use, t, ("trend",)), np.tile(0.5 * np.arange(1, 5), (5, 1)), atol=1e-12
    )
    np.testing.assert_allclose(pool(line, use, t, ("level",)), 3.0, atol=1e-12)


def test_other_poolings_against_their_definitions(panel):
    phi, use, t = panel
    for r in range(5):
        x, when = phi[r][use[r]], t[r][use[r]]
        order = np.argsort(when)
        steps = np.diff(x[order], axis=0)
        weight = 2.0 ** (when / 2.0)
        want = {
            "mean": x.mean(0), "median": np.median(x, 0), "var": x.var(0), "last": x[order][-1],
            "diff": steps.mean(0), "absdiff": np.abs(steps).mean(0),
            "recency": (weight[:, None] * x).sum(0) / weight.sum(),
        }  # fmt: skip
        for name, value in want.items():
            np.testing.assert_allclose(
                pooled(panel, name)[r], value, rtol=1e-9, atol=1e-12, err_msg=name
            )


def test_single_frame_has_no_trend(panel):
    phi, use, t = panel
    one = np.zeros_like(use)
    one[:, 3] = True
    assert (pool(phi, one, t, ("trend", "diff", "absdiff")) == 0).all()
    np.testing.assert_allclose(pool(phi, one, t, ("mean",)), phi[:, 3])
    with pytest.raises(DataError, match="5 place"):
        pool(phi, one & False, t, ("mean",))


def test_season_finds_level_amplitude_and_slope():
    t = np.linspace(-5, 0, 24)[None]
    x = 2 + 0.3 * np.cos(2 * np.pi * t) + 0.4 * np.sin(2 * np.pi * t) + 0.1 * t
    got = pool(x[:, :, None], np.ones((1, 24), bool), t, ("season",))
    np.testing.assert_allclose(got[0], [2, 0.5, 0.1], atol=1e-5)


def test_frames_of_one_time_of_year_have_no_season():
    years = np.arange(-7.0, 0.0)[None] + np.linspace(0, 0.05, 7)  # every summer
    x = 2 + 0.1 * years
    got = pool(x[:, :, None], np.ones((1, 7), bool), years, ("season",))
    np.testing.assert_allclose(got[0], [2, 0, 0.1], atol=1e-9)


def test_places_without_a_season_or_a_trend_are_named():
    rng = np.random.default_rng(0)
    images = rng.random((5, 8, 6, 6, 2), dtype=np.float32)
    times = 2010 + np.sort(rng.random((5, 8)) * 6, axis=1)
    mask = np.ones(images.shape[:-1], bool)
    mask[1, 2:] = False  # two frames: a trend, no season
    mask[3, 1:] = False  # one frame: neither
    features = SequenceFeatures(SpectralFeatures(), pooling=("season", "trend"))
    with pytest.warns(CausalFairWarning, match=r"without a yearly cycle in 2 of 5 place"):
        features.fit(ImageSequence(images, times=times, mask=mask))
    assert features.few_frames_.tolist() == [False, False, False, True, False]
    with pytest.warns(CausalFairWarning, match="in 5 of 5 place"):
        SequenceFeatures(SpectralFeatures(), pooling="season").fit(images)  # no dates


def test_concat_interpolates_missing_frames():
    t = np.array([[-3.0, -2.0, -1.0, 0.0]])
    phi = np.array([[[1.0], [9.0], [3.0], [9.0]]])
    got = pool(phi, np.array([[True, False, True, False]]), t, ("concat",))
    np.testing.assert_allclose(got, [[1, 2, 3, 3]])


def test_attention_pools_with_weights_that_sum_to_one(panel):
    phi, use, t = panel
    constant = np.ones_like(phi) * np.arange(4)
    np.testing.assert_allclose(
        pool(constant, use, t, ("attention_random",)), np.tile(np.arange(4), (5, 1)), atol=1e-12
    )
    got = pool(phi, use, t, ("attention_random",))
    low = np.where(use[:, :, None], phi, np.inf).min(axis=1)
    high = np.where(use[:, :, None], phi, -np.inf).max(axis=1)
    assert ((got >= low - 1e-12) & (got <= high + 1e-12)).all()


@pytest.mark.parametrize(
    "pooling", ["mean", "season", "concat", ("mean", "trend", "last"), "attention_random"]
)
@pytest.mark.filterwarnings(
    "ignore:SequenceFeatures. pooling='season':causalfair.exceptions.CausalFairWarning"
)
def test_names_match_columns(images, pooling):
    for components in (None, 2, "auto"):
        features = SequenceFeatures(SpectralFeatures(), pooling=pooling, n_components=components)
        out = features.fit_transform(images)
        assert out.shape == (12, len(features.get_feature_names_out()))
        np.testing.assert_allclose(features.transform(images), out, atol=1e-9)


def test_compressor_is_principal_components_of_standardised_columns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 8))
    X = np.column_stack([X, np.full(60, 3.0)])
    compressor = Compressor(3).fit(X)
    assert compressor.kept_.tolist() == [True] * 8 + [False]
    Z = (X[:, :8] - X[:, :8].mean(0)) / X[:, :8].std(0)
    values, vectors = np.linalg.eigh(Z.T @ Z / 60)
    for j in range(3):
        np.testing.assert_allclose(
            abs(vectors[:, -1 - j] @ compressor.components_[j]), 1, atol=1e-10
        )
    assert (
        compressor.components_[np.arange(3), np.abs(compressor.components_).argmax(1)] > 0
    ).all()
    np.testing.assert_allclose(compressor.explained_, values[::-1][:3] / values.sum(), rtol=1e-10)
    enough = int(np.searchsorted(np.cumsum(values[::-1]) / values.sum(), 0.95)) + 1
    assert len(Compressor("auto").fit(X).explained_) == enough < 60 // 10
    assert len(Compressor("auto").fit(X[:20]).explained_) == 20 // 10
    with pytest.warns(CausalFairWarning, match="exceeds the rank 5"):
        Compressor(20).fit(X)
    np.testing.assert_allclose(Compressor(5).fit(X).reconstruction_error(X), 0, atol=1e-20)


def test_torch_absent_names_the_extra(images, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"causalfair\[torch\]"):
        TorchFrameEncoder(object()).fit(images)
    with pytest.raises(MissingDependencyError, match=r"causalfair\[torch\]"):
        NeuralSequenceEffects().fit(images, np.zeros(12), treatment=np.arange(12) % 2)


@pytest.mark.parametrize("shape", [(200, 30), (30, 200), (50, 50)])
def test_components_are_the_singular_vectors(shape):
    rng = np.random.default_rng(0)
    X = rng.normal(size=shape) @ np.diag(np.linspace(1, 4, shape[1])) + rng.normal(size=shape[1])
    X[:, 1] += X[:, 2] * 3
    got = Compressor(6).fit(X)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    _, values, rows = np.linalg.svd(Z, full_matrices=False)
    np.testing.assert_allclose(got.explained_, (values**2 / (values**2).sum())[:6], rtol=1e-9)
    aligned = np.abs((got.components_ * rows[:6]).sum(axis=1))
    np.testing.assert_allclose(aligned, 1, rtol=1e-9)
    largest = np.abs(got.components_).argmax(axis=1)
    assert (got.components_[np.arange(6), largest] > 0).all()


def test_threads_of_the_linear_algebra_change_nothing():
    """Responses are matrix products, which BLAS may split; the encoder keeps it to one thread."""
    from threadpoolctl import threadpool_limits

    pixels = np.random.default_rng(0).random((4, 1, 96, 96, 4), dtype=np.float32)
    encoder = RandomConvolutionFeatures(1024, n_patches=3000, random_state=0).fit(pixels)
    want = encoder.transform(pixels)
    for threads in (1, 2):
        with threadpool_limits(threads):
            np.testing.assert_array_equal(encoder.transform(pixels), want)
            np.testing.assert_array_equal(encoder.set_params(n_jobs=2).transform(pixels), want)
