"""GeoTIFF chips, land cover, exemplars, occlusion, maps."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.imagery import (
    ImageSequence,
    describe_land_cover,
    land_cover_shares,
    occlusion_map,
    plot_acquisitions,
    plot_effect_map,
    plot_exemplars,
    plot_occlusion,
)


@pytest.fixture
def rasters(tmp_path):
    """Two years of a 60 x 50 raster, one hundredth of a degree a pixel, corner at (30 E, 2 N)."""
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin

    paths = []
    for year in range(2):
        values = (np.arange(60 * 50).reshape(60, 50) + 10_000 * year).astype("int32")
        path = tmp_path / f"year{year}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=60, width=50, count=2, dtype="int32", crs="EPSG:4326",
            transform=from_origin(30.0, 2.0, 0.01, 0.01), nodata=-1,
        ) as raster:  # fmt: skip
            raster.write(values, 1)
            raster.write(-values - 2, 2)
        paths.append(path)
    return paths


def test_chips_are_centred_on_the_points(rasters):
    lon, lat = [30.255, 30.105], [1.745, 1.895]  # centres of pixels (25, 25) and (10, 10)
    sequence = ImageSequence.from_geotiffs(
        rasters, lon=lon, lat=lat, size_px=5, times=[2001, 2002], scale=1.0
    )
    assert sequence.shape == (2, 2, 5, 5, 2)
    block = sequence.read(np.array([0, 1]))
    grid = np.arange(60 * 50).reshape(60, 50)
    np.testing.assert_array_equal(block.pixels[0, 0, :, :, 0], grid[23:28, 23:28])
    np.testing.assert_array_equal(block.pixels[1, 1, :, :, 0], grid[8:13, 8:13] + 10_000)
    assert block.valid.all()
    assert sequence.gsd == pytest.approx(1113.2)
    assert sequence.years[0].tolist() == [2001, 2002]
    metres = ImageSequence.from_geotiffs(rasters, lon=lon, lat=lat, size_m=5600, scale=1.0)
    assert metres.shape[2:4] == (5, 5)


def test_chips_at_the_edge_are_masked_and_outside_refused(rasters):
    with pytest.warns(CausalFairWarning, match="1 of 1 chips"):
        edge = ImageSequence.from_geotiffs(rasters, lon=[30.005], lat=[1.995], size_px=4, scale=1.0)
    valid = edge.read(np.array([0])).valid[0, 0]
    assert valid.tolist() == [[False] * 4] * 2 + [[False, False, True, True]] * 2
    with pytest.raises(DataError, match="outside every raster"):
        ImageSequence.from_geotiffs(rasters, lon=[10.0], lat=[1.9], size_px=4)
    with pytest.raises(DataError, match="swapped"):
        ImageSequence.from_geotiffs(rasters, lon=[1.9], lat=[130.0], size_px=4)
    with pytest.raises(ParameterError, match="size_px"):
        ImageSequence.from_geotiffs(rasters, lon=[30.1], lat=[1.9])


def test_chips_of_two_projection_zones_are_put_on_one_grid(tmp_path):
    """Two UTM zones meet at 30 E. The rasters hold longitude and latitude: so must the chips."""
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin
    from rasterio.warp import transform

    paths = []
    for zone, west in ((32635, 800_000), (32636, 160_000)):
        transform_ = from_origin(west, 130_000, 100.0, 100.0)
        rows, cols = np.mgrid[0:400, 0:600] + 0.5
        x, y = west + 100 * cols, 130_000 - 100 * rows
        lon, lat = transform(f"EPSG:{zone}", "EPSG:4326", x.ravel(), y.ravel())
        path = tmp_path / f"{zone}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=400, width=600, count=2, dtype="float64",
            crs=f"EPSG:{zone}", transform=transform_, nodata=-999.0,
        ) as raster:  # fmt: skip
            raster.write(np.reshape(lon, rows.shape), 1)
            raster.write(np.reshape(lat, rows.shape), 2)
        paths.append(path)
    lon, lat = np.array([29.9, 30.2]), np.array([1.0, 1.05])
    sequence = ImageSequence.from_geotiffs([paths], lon=lon, lat=lat, size_px=7, bands=("x", "y"))
    chips = sequence.read(np.array([0, 1]))
    assert chips.valid.all()
    step = 100 / 111_320  # degrees a pixel near the equator
    offset = (np.arange(7) - 3) * step
    for k in range(2):
        got = chips.pixels[k, 0].astype(float)
        np.testing.assert_allclose(got[..., 0], lon[k] + np.tile(offset, (7, 1)), atol=0.1 * step)
        want = lat[k] - np.tile(offset[:, None], (1, 7)) * (111_320 / 110_580)
        np.testing.assert_allclose(got[..., 1], want, atol=0.1 * step)


def test_land_cover_shares_sum_to_one():
    classes = np.random.default_rng(0).integers(0, 4, size=(6, 5, 5))
    shares = land_cover_shares(classes, nodata=0, names={1: "crop"})
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares.columns[0] == "crop"
    known = classes[2][classes[2] != 0]
    assert shares["crop"][2] == pytest.approx((known == 1).mean())
    years = np.stack([classes, classes[::-1], np.where(classes == 0, 1, classes)], axis=1)
    both = land_cover_shares(years, nodata=0, names={1: "crop"})
    now = land_cover_shares(years[:, 2], nodata=0, names={1: "crop"})
    assert list(both.columns) == ["crop", "2", "3", "crop, change", "2, change", "3, change"]
    np.testing.assert_allclose(both[["crop", "2", "3"]], now)
    np.testing.assert_allclose(both["crop, change"], now["crop"] - shares["crop"])
    with pytest.raises(DataError, match="no known pixel"):
        land_cover_shares(np.zeros((2, 3, 3), int), nodata=0)
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        land_cover_shares([1, 2, 3])


def test_land_cover_report_finds_growth(trial, fitted):
    _, truth = trial
    places = pd.DataFrame(
        {"growth": truth["g"], "noise": np.random.default_rng(0).normal(size=400)}
    )
    report = describe_land_cover(fitted, places)
    table = report.contrast.set_index("term")
    assert table.loc["growth", "p_adjusted"] < 0.001
    assert table.loc["growth", "top"] > table.loc["growth", "bottom"]
    assert table.loc["noise", "p_value"] > 0.001
    assert report.correlation["growth"] > 0.4
    low, high = report.projection.conf_int()[1]
    assert low < 20 < high or abs(report.projection.estimate[1] - 20) < 6
    effect = fitted.predict()
    top = effect >= np.quantile(effect, 0.8)
    assert table.loc["growth", "top"] == pytest.approx(truth["g"][top].mean())
    with pytest.raises(DataError, match="3 rows"):
        describe_land_cover(fitted, places[:3])


def test_exemplars_are_drawn_from_the_ends(trial, fitted):
    figure = plot_exemplars(fitted, trial[1]["images"], n=2, bands=("nir", "red", "green"))
    labels = [ax.get_ylabel().split("\n") for ax in figure.axes if ax.get_ylabel()]
    shown = [float(label[0].split()[-1]) for label in labels]
    predicted = fitted.predict()
    effect = np.sort(predicted)
    np.testing.assert_allclose(shown, [*effect[::-1][:2], effect[1], effect[0]], atol=0.006)
    low, high = fitted.predict_interval()[predicted.argmax()]
    assert labels[0][1] == f"[{low:.2f}, {high:.2f}]"
    with_median = plot_exemplars(fitted, trial[1]["images"], n=3, middle=1, frames=[5])
    titles = [float(ax.get_title().split("\n")[0].split()[-1]) for ax in with_median.axes]
    assert len(titles) == 7
    assert titles[3] == pytest.approx(np.median(effect), abs=0.1)
    assert [ax.get_ylabel() for ax in with_median.axes if ax.get_ylabel()] == [
        "largest", "median", "smallest"
    ]  # fmt: skip
    with pytest.raises(ParameterError, match="swir1"):
        plot_exemplars(fitted, trial[1]["images"], bands=("swir1", "red", "nir"))
    with pytest.raises(DataError, match="10 units"):
        plot_exemplars(fitted, trial[1]["images"].subset(np.arange(10)))


def test_occlusion_is_zero_only_where_nothing_changes(trial, fitted):
    images = trial[1]["images"]
    got = occlusion_map(fitted, images, 5, window=8)
    assert got.shape == (16, 16)
    assert np.abs(got).max() > 0
    flat = images._with_values(np.full((1, 6, 16, 16, 3), 0.2, np.float32), None)
    np.testing.assert_allclose(occlusion_map(fitted, flat, 0, window=8), 0, atol=1e-12)
    with pytest.raises(ParameterError, match="window=17"):
        occlusion_map(fitted, images, 0, window=17)


def test_map_crosses_out_unsupported_places():
    coords = np.array([[30.0, 1.0], [31.0, 2.0], [32.0, 1.5]])
    with pytest.warns(CausalFairWarning, match="1 of 3 places"):
        ax = plot_effect_map(coords, [0.1, -0.2, 9.0], supported=[True, True, False])
    assert [len(c.get_offsets()) for c in ax.collections][:2] == [2, 1]


def test_curve_is_drawn(fitted):
    ax = fitted.evaluate("qini").plot()
    assert ax.lines[0].get_xydata()[-1, 1] == pytest.approx(0, abs=1e-9)


def test_acquisitions_are_drawn_by_arm(trial):
    images = trial[1]["images"].subset(np.arange(30))
    mask = np.ones((30, *images.shape[1:4]), bool)
    mask[:, 2, :8] = False
    w = np.arange(30) % 2
    mask[w == 1, 4] = False
    half = ImageSequence(
        images.read(np.arange(30)).pixels, mask=mask, times=images.years, bands=images.bands
    )
    figure = plot_acquisitions(half, treatment=w)
    top = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(top["treated"], [1, 1, 0.5, 1, 0, 1])
    np.testing.assert_allclose(top["untreated"], [1, 1, 0.5, 1, 1, 1])
    bottom = {line.get_label(): line.get_ydata() for line in figure.axes[1].lines}
    pixels = half.read(np.arange(30)).pixels
    assert bottom["nir"][0] == pytest.approx(pixels[:, 0, ..., 2].mean(), rel=1e-4)
    assert bottom["nir"][4] == pytest.approx(pixels[w == 0, 4, ..., 2].mean(), rel=1e-4)
    with pytest.raises(DataError, match="30"):
        plot_acquisitions(half, treatment=w[:5])


def test_occlusion_is_drawn_over_the_frame(trial, fitted):
    images = trial[1]["images"]
    change = occlusion_map(fitted, images, 5, window=8)
    ax = plot_occlusion(images, 5, change)
    assert ax.images[1].get_array().shape == (16, 16)
    assert ax.images[1].norm.vmax == pytest.approx(np.abs(change).max())
    with pytest.raises(DataError, match=r"shape \(3, 3\)"):
        plot_occlusion(images, 5, np.ones((3, 3)))
    with pytest.raises(ParameterError, match="plot_occlusion got bands="):
        plot_occlusion(images, 5, change, bands=("swir1", "red", "nir"))
