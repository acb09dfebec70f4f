"""Small functions on pixels and dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import IntArray
from causalfair.exceptions import CausalFairWarning, DataError

__all__ = ["as_index", "block_mean", "contiguous_runs", "default_scale", "named_dimensions"]

ALIASES = {
    "time": ("time", "t", "date", "frame"),
    "y": ("y", "row", "lat", "latitude", "height"),
    "x": ("x", "col", "column", "lon", "longitude", "width"),
    "band": ("band", "channel", "c", "bands"),
}
DIVISORS = {"uint8": 255.0, "uint16": 10_000.0, "int16": 10_000.0}


def named_dimensions(images: Any, times: Any, bands: Any) -> tuple[Any, Any, Any]:
    """Order the dimensions of an xarray ``DataArray`` by name; take its dates and bands."""
    dims = getattr(images, "dims", None)
    if dims is None or not hasattr(images, "transpose") or not hasattr(images, "coords"):
        return images, times, bands
    found = {
        kind: next((d for d in dims if str(d).lower() in names), None)
        for kind, names in ALIASES.items()
    }
    missing = [kind for kind in ("y", "x", "band") if found[kind] is None]
    others = [d for d in dims if d not in found.values()]
    if missing or len(others) != 1:
        raise DataError(
            f"ImageSequence got an xarray array with dimensions {tuple(dims)}; it needs one each "
            "of time (optional), y, x and band, and one other for the places."
        )
    order = [others[0], *(found[k] for k in ("time", "y", "x", "band") if found[k] is not None)]
    ordered = images.transpose(*order)
    # Dask inside: its workers read. Otherwise ``data`` might load a file as a whole.
    lazy = ordered if ordered.chunks is None else ordered.data
    if times is None and found["time"] is not None and found["time"] in images.coords:
        times = np.asarray(images.coords[found["time"]].values)
    if bands is None and found["band"] in images.coords:
        bands = [str(v) for v in images.coords[found["band"]].values]
    return lazy, times, bands


def default_scale(dtype: Any, scale: Any, offset: Any, n_bands: int) -> tuple[Any, Any]:
    """Scale and offset of each band as float32 vectors; integers get a stated default."""
    name = np.dtype(dtype).name
    if scale is None:
        scale = 1.0
        if name in DIVISORS:
            scale = 1.0 / DIVISORS[name]
            warn(
                f"ImageSequence: pixels are {name} and no scale was given; they are divided by "
                f"{DIVISORS[name]:,.0f}. Give scale= (1 to leave them as they are) to say what "
                "they are.",
                CausalFairWarning,
            )
    vectors = []
    for label, value in (("scale", scale), ("offset", 0.0 if offset is None else offset)):
        vector = np.asarray(value, dtype=np.float32)
        if vector.shape not in ((), (n_bands,)) or not np.isfinite(vector).all():
            raise DataError(
                f"ImageSequence got {label} of shape {vector.shape} for {n_bands} bands; give one "
                "finite number, or one a band."
            )
        vectors.append(np.broadcast_to(vector, (n_bands,)))
    return vectors[0], vectors[1]


def contiguous_runs(positions: IntArray) -> Iterator[tuple[int, int]]:
    """Start and stop of runs of consecutive positions, in order."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    for run in np.split(positions, breaks):
        yield int(run[0]), int(run[-1]) + 1


def as_index(positions: IntArray) -> Any:
    """A slice where positions are consecutive, else the positions."""
    runs = list(contiguous_runs(positions))
    return slice(*runs[0]) if len(runs) == 1 else positions


def block_mean(pixels: Any, valid: Any, factor: int) -> tuple[Any, Any]:
    """Means over factor x factor valid pixels; a block is valid where half of its pixels are."""
    c, t, h, w, b = pixels.shape
    rows, cols = h // factor, w // factor
    cut = pixels[:, :, : rows * factor, : cols * factor]
    seen = valid[:, :, : rows * factor, : cols * factor]
    cut = cut.reshape(c, t, rows, factor, cols, factor, b)
    seen = seen.reshape(c, t, rows, factor, cols, factor)
    count = seen.sum(axis=(3, 5))
    total = cut.sum(axis=(3, 5), dtype=np.float64)
    mean = (total / np.maximum(count, 1)[..., None]).astype(np.float32)
    return mean, count * 2 >= factor * factor
