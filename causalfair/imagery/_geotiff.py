"""Chips around points, cut from georeferenced rasters (extra ``imagery``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.logging import warn
from causalfair._core.optional import import_optional
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_numeric
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError

__all__ = ["sequence_from_geotiffs"]

OWNER = "ImageSequence.from_geotiffs"
MUCH_FILL = 0.1
DEGREE = 111_320.0  # metres of latitude


def sequence_from_geotiffs(
    paths: Any,
    *,
    lon: Any,
    lat: Any,
    size_px: int | None = None,
    size_m: float | None = None,
    **options: Any,
) -> Any:
    """Cut square chips centred on points from one raster (or several) a frame.

    Parameters
    ----------
    paths : list of path, or list of lists of path
        Rasters of each frame.
    lon, lat : array of shape (n,)
        Centres in degrees.
    size_px : int, optional
        Height and width in pixels.
    size_m : float, optional
        Or in metres.
    **options
        Passed to ImageSequence.

    Returns
    -------
    ImageSequence
        Chips; pixels outside every raster are not valid.
    """
    from causalfair.imagery._sequence import ImageSequence

    rasterio = import_optional("rasterio", extra="imagery")
    lon = check_numeric(lon, "lon", owner=OWNER)
    lat = check_numeric(lat, "lat", owner=OWNER)
    check_lengths(owner=OWNER, lon=lon, lat=lat)
    if np.abs(lat).max() > 90:
        raise DataError(f"{OWNER}: lat reaches {np.abs(lat).max():.4g}; are lon and lat swapped?")
    if (size_px is None) == (size_m is None):
        raise ParameterError(f"{OWNER} needs one of size_px= (pixels) and size_m= (metres).")
    frames = [[one] if isinstance(one, str | Path) else list(one) for one in paths]
    pixels, masks = [], []
    gsd, size, bands = options.pop("gsd", None), size_px, options.pop("bands", None)
    for rasters in frames:
        with rasterio.open(rasters[0]) as raster:
            gsd = _ground_size(raster) if gsd is None else float(gsd)
            if bands is None and all(raster.descriptions):
                bands = raster.descriptions
        if size is None:
            size = max(1, round(float(size_m) / gsd))  # type: ignore[arg-type]
        chips, seen = _frame(
            rasterio, rasters, lon, lat, size, gsd, _one_grid(rasterio, frames, gsd)
        )
        pixels.append(chips)
        masks.append(seen)
    counts = {chips.shape[-1] for chips in pixels}
    if len(counts) > 1:
        raise DataError(f"{OWNER}: the rasters have different numbers of bands: {sorted(counts)}.")
    fill = 1 - np.stack(masks, axis=1).mean(axis=(1, 2, 3))
    if (fill > MUCH_FILL).any():
        warn(
            f"{OWNER}: {int((fill > MUCH_FILL).sum())} of {lon.size} chips have more than "
            f"{MUCH_FILL:.0%} of pixels outside the rasters or without data.",
            CausalFairWarning,
        )
    return ImageSequence(
        np.stack(pixels, axis=1), mask=np.stack(masks, axis=1), bands=bands, gsd=gsd,
        coords=np.column_stack([lon, lat]), **options,
    )  # fmt: skip


def _one_grid(rasterio: Any, frames: list[list[Any]], gsd: float) -> bool:
    """Whether all rasters share projection and pixel size, so that chips need no resampling."""
    systems, sizes = set(), []
    for path in dict.fromkeys(path for rasters in frames for path in rasters):
        with rasterio.open(path) as raster:
            systems.add(None if raster.crs is None else raster.crs.to_wkt())
            sizes.append(_ground_size(raster))
    return len(systems) == 1 and bool(np.allclose(sizes, gsd, rtol=1e-3))


def _ground_size(raster: Any) -> float:
    size = abs(float(raster.transform.a))
    return size * DEGREE if raster.crs is not None and raster.crs.is_geographic else size


def _frame(
    rasterio: Any,
    rasters: list[Any],
    lon: FloatArray,
    lat: FloatArray,
    size: int,
    gsd: float,
    aligned: bool,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Chips (n, size, size, C) and validity of one frame, from the first raster with the centre."""
    chips: NDArray[Any] | None = None
    seen = np.zeros((lon.size, size, size), dtype=bool)
    todo = np.ones(lon.size, dtype=bool)
    for path in rasters:
        with rasterio.open(path) as raster:
            if raster.crs is None:
                raise DataError(f"{OWNER}: {path} has no coordinate reference system.")
            rows, cols = _positions(rasterio, raster, lon, lat)
            inside = (rows >= 0) & (rows < raster.height) & (cols >= 0) & (cols < raster.width)
            if chips is None:
                chips = np.zeros((lon.size, size, size, raster.count), dtype=raster.dtypes[0])
            for i in np.flatnonzero(todo & inside):
                if aligned:
                    _cut(rasterio, raster, int(rows[i]), int(cols[i]), chips[i], seen[i])
                else:
                    _resample(rasterio, raster, lon[i], lat[i], gsd, chips[i], seen[i])
                todo[i] = False
    if todo.any() or chips is None:
        first = np.flatnonzero(todo)[0]
        raise DataError(
            f"{OWNER}: {int(todo.sum())} point(s) lie outside every raster of a frame, the first "
            f"at lon {lon[first]:.4f}, lat {lat[first]:.4f}. Are lon and lat in degrees and in "
            "order?"
        )
    return chips, seen


def _cut(
    rasterio: Any, raster: Any, row: int, col: int, chip: NDArray[Any], seen: NDArray[np.bool_]
) -> None:
    """Fill a chip and its validity with what the raster covers of it, in place.

    Only the covered part is read: rasterio's reading beyond the edge takes the fill value for
    "no data", and so would mask true pixels of that value.
    """
    size = len(seen)
    top, left = row - size // 2, col - size // 2
    r0, r1 = max(top, 0), min(top + size, raster.height)
    c0, c1 = max(left, 0), min(left + size, raster.width)
    window = rasterio.windows.Window(c0, r0, c1 - c0, r1 - r0)
    data = raster.read(window=window, masked=True)
    inside = np.s_[r0 - top : r1 - top, c0 - left : c1 - left]
    chip[inside] = np.moveaxis(np.ma.getdata(data), 0, -1)
    seen[inside] = ~np.ma.getmaskarray(data).any(axis=0)


def _resample(
    rasterio: Any, raster: Any, lon: float, lat: float, gsd: float, chip: NDArray[Any],
    seen: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Fill a chip on a local north-up grid of ``gsd`` metres around the point (bilinear)."""
    warped = import_optional("rasterio.vrt", extra="imagery")
    size = len(seen)
    edge = (size // 2 + 0.5) * gsd  # the point lies in the middle of pixel size // 2
    grid = {
        "crs": f"+proj=aeqd +lat_0={lat} +lon_0={lon} +datum=WGS84 +units=m",
        "transform": rasterio.Affine(gsd, 0.0, -edge, 0.0, -gsd, edge),
        "width": size,
        "height": size,
        "resampling": rasterio.enums.Resampling.bilinear,
    }
    no_value = {} if raster.nodata is not None else {"add_alpha": True}
    with warped.WarpedVRT(raster, **grid, **no_value) as view:
        bands = list(range(1, raster.count + 1))
        chip[:] = np.moveaxis(view.read(bands), 0, -1)
        seen[:] = view.dataset_mask() > 0


def _positions(
    rasterio: Any, raster: Any, lon: FloatArray, lat: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Row and column of each point, rounded down."""
    import_optional("rasterio.warp", extra="imagery")
    x, y = rasterio.warp.transform("EPSG:4326", raster.crs, lon.tolist(), lat.tolist())
    inverse, x, y = ~raster.transform, np.asarray(x), np.asarray(y)
    cols = inverse.a * x + inverse.b * y + inverse.c
    rows = inverse.d * x + inverse.e * y + inverse.f
    return np.floor(rows), np.floor(cols)
