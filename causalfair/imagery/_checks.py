"""Checks of what an image sequence is made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_numeric
from causalfair.exceptions import CausalFairWarning, DataError

__all__ = ["check_bands", "check_coords", "check_dimensions", "check_units"]


def check_dimensions(images: Any, mask: Any) -> bool:
    """Whether images have one frame each and no dimension for time."""
    if len(images.shape) not in (4, 5):
        raise DataError(
            f"ImageSequence got images of shape {tuple(images.shape)}; it must be (n, T, H, W, C), "
            "or (n, H, W, C) for one frame each."
        )
    if 0 in images.shape:
        raise DataError(
            f"ImageSequence got images of shape {tuple(images.shape)}: nothing in them."
        )
    high, wide, deep = images.shape[-3:]
    if wide == deep >= 8 > high:
        warn(
            f"ImageSequence: images of shape {tuple(images.shape)} are read as {deep} bands of "
            f"{high} x {wide} pixels. If bands come before height and width, move them to the end: "
            "np.moveaxis(images, -3, -1).",
            CausalFairWarning,
        )
    if mask is not None and tuple(mask.shape) != tuple(images.shape[:-1]):
        raise DataError(
            f"ImageSequence got mask of shape {tuple(mask.shape)} for images of shape "
            f"{tuple(images.shape)}; it must be {tuple(images.shape[:-1])}."
        )
    return len(images.shape) == 4


def check_bands(bands: Any, count: int) -> tuple[str, ...] | None:
    if bands is None:
        return None
    names = tuple(str(band).lower() for band in bands)
    if len(names) != count or len(set(names)) != count:
        raise DataError(
            f"ImageSequence got bands={names} for images with {count} bands; name each band once."
        )
    return names


def check_coords(coords: Any, n: int) -> FloatArray | None:
    if coords is None:
        return None
    array = np.asarray(coords, dtype=np.float64)
    if array.shape != (n, 2) or not np.isfinite(array).all():
        raise DataError(
            f"ImageSequence got coords of shape {array.shape} for {n} images; it must be ({n}, 2): "
            "finite longitudes and latitudes."
        )
    if np.abs(array[:, 1]).max() > 90:
        raise DataError(
            f"ImageSequence: coords has latitudes up to {np.abs(array[:, 1]).max():.4g}; columns "
            "are longitude, latitude. Are they swapped?"
        )
    return array


def check_units(image_of_unit: Any, n: int) -> IntArray:
    if image_of_unit is None:
        return np.arange(n)
    values = check_numeric(image_of_unit, "image_of_unit", owner="ImageSequence")
    if (values != np.floor(values)).any() or values.min() < 0 or values.max() >= n:
        raise DataError(
            f"ImageSequence: image_of_unit runs from {values.min():g} to {values.max():g} for {n} "
            f"images; it must hold whole numbers from 0 to {n - 1}."
        )
    return values.astype(np.intp)
