"""Small functions on pixels and dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.logging import warn
from causalfair._core.typing import BoolArray, IntArray
from causalfair.exceptions import CausalFairWarning, DataError

__all__ = [
    "Block",
    "Decoder",
    "as_index",
    "block_mean",
    "contiguous_runs",
    "default_scale",
    "named_dimensions",
]

ALIASES = {
    "time": ("time", "t", "date", "frame"),
    "y": ("y", "row", "lat", "latitude", "height"),
    "x": ("x", "col", "column", "lon", "longitude", "width"),
    "band": ("band", "channel", "c", "bands"),
}
DIVISORS = {"uint8": 255.0, "uint16": 10_000.0, "int16": 10_000.0}


@dataclass(frozen=True, slots=True)
class Block:
    """Pixels of some images and frames, in reflectance units.

    Attributes
    ----------
    images : ndarray of shape (c,)
        Positions of the images in the sequence.
    frames : slice
        Which frames.
    pixels : ndarray of shape (c, t, H, W, C), float32
        Scaled pixels; zero where not valid.
    valid : ndarray of shape (c, t, H, W), bool
        Pixels that may be used.
    n_nan : int
        Pixels that were not finite although not masked.
    """

    images: IntArray
    frames: slice
    pixels: NDArray[np.float32]
    valid: BoolArray
    n_nan: int


@dataclass(frozen=True, slots=True)
class Decoder:
    """Makes blocks of raw pixels; all that a worker has to know of a sequence.

    Attributes
    ----------
    scale, offset : ndarray of shape (C,), float32, or None
        None where the pixels are reflectance already.
    nodata : float or None
        Raw value that means "no measurement".
    factor : int
        Pixels averaged in each direction.
    single : bool
        Whether the raw array has no axis of frames.
    """

    scale: NDArray[np.float32] | None
    offset: NDArray[np.float32] | None
    nodata: float | None
    factor: int
    single: bool

    def __call__(
        self, raw: NDArray[Any], mask: NDArray[Any] | None, images: IntArray, frames: slice
    ) -> Block:
        """Scaled pixels and validity of raw pixels (c, t, H, W, C)."""
        if raw.dtype.kind not in "buif":
            raise DataError(f"ImageSequence: pixels have dtype {raw.dtype}; numbers are needed.")
        if self.single:
            raw, mask = raw[:, None], None if mask is None else mask[:, None]
        valid = np.ones(raw.shape[:-1], dtype=bool) if mask is None else mask.astype(bool)
        if self.nodata is not None:
            valid &= ~(raw == self.nodata).any(axis=-1)
        n_nan = 0
        if raw.dtype.kind == "f":
            finite = np.isfinite(raw).all(axis=-1)
            n_nan = int((valid & ~finite).sum())
            valid &= finite
        pixels = np.empty(raw.shape, dtype=np.float32)
        if self.scale is None or self.offset is None:
            pixels[:] = raw
        else:
            np.multiply(raw, self.scale, out=pixels, casting="unsafe")
            pixels += self.offset
        pixels[~valid] = 0.0
        if self.factor > 1:
            pixels, valid = block_mean(pixels, valid, self.factor)
        return Block(images, frames, pixels, valid, n_nan)


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
