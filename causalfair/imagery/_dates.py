"""Dates as years, and the guard against images younger than the treatment."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import CausalFairWarning, DataError

__all__ = ["check_baseline", "leaking_frames", "to_years", "years_of"]

DAYS = 365.25


def to_years(values: Any, name: str) -> tuple[FloatArray, bool]:
    """Years as numbers, and whether the values were dates."""
    array = np.asarray(values)
    if array.dtype.kind == "O":
        if any(getattr(value, "tzinfo", None) is not None for value in array.ravel()):
            raise DataError(f"ImageSequence: {name} has a time zone; convert to plain dates first.")
        array = _dates(array, name)
    if array.dtype.kind in "US":
        array = _dates(array, name)
    if array.dtype.kind == "M":
        days = array.astype("datetime64[D]")
        years = days.astype(np.int64) / DAYS + 1970.0
        return np.where(np.isnat(days), np.nan, years), True
    if array.dtype.kind not in "iuf":
        raise DataError(
            f"ImageSequence: {name} has dtype {array.dtype}; give dates or years as numbers."
        )
    return array.astype(np.float64), False


def _dates(array: Any, name: str) -> Any:
    dates = np.empty(array.shape, dtype="datetime64[D]")
    for at, value in np.ndenumerate(array):
        try:
            dates[at] = np.datetime64(value, "D")
        except (ValueError, TypeError) as error:
            shown = str(value) if isinstance(value, str) else value
            raise DataError(
                f"ImageSequence: {name} holds {shown!r}, which is not a date; write 2003-06-30 or "
                "give years as numbers."
            ) from error
    return dates


def years_of(times: Any, n: int, frames: int) -> tuple[FloatArray, bool]:
    """Dates as an (n, T) array of years, and whether they are dates at all."""
    if times is None:
        return np.broadcast_to(np.arange(frames, dtype=np.float64), (n, frames)), False
    years, _ = to_years(times, "times")
    if years.shape not in ((frames,), (n, frames)):
        raise DataError(
            f"ImageSequence got times of shape {years.shape} for {n} images of {frames} frame(s); "
            f"it must be ({frames},) or ({n}, {frames})."
        )
    years = np.broadcast_to(years, (n, frames))
    if not np.isfinite(years).any(axis=1).all():
        raise DataError("ImageSequence: an image has no dated frame; times is missing throughout.")
    return years, True


def check_baseline(baseline: Any, n_units: int, dated: bool) -> FloatArray | None:
    """Baseline of each unit in years."""
    if baseline is None:
        return None
    if not dated:
        raise DataError("ImageSequence got baseline= but no times=; frames without dates cannot be "
                        "checked against it.")  # fmt: skip
    years, _ = to_years(baseline, "baseline")
    if years.ndim == 0:
        years = np.full(n_units, float(years))
    if years.shape != (n_units,) or not np.isfinite(years).all():
        raise DataError(
            f"ImageSequence got baseline of shape {years.shape} for {n_units} units; give one "
            "date, or one a unit, without missing values."
        )
    return years


def leaking_frames(
    years: FloatArray, row_image: IntArray, row_baseline: FloatArray, on_post: str
) -> BoolArray:
    """Frames dated on or after the baseline, (n_rows, T); refused unless told otherwise."""
    late = years[row_image] >= row_baseline[:, None]
    if not late.any():
        return np.asarray(late)
    rows, frames = np.nonzero(late)
    shown = "; ".join(
        f"image {row_image[r]}, frame {t}, {years[row_image[r], t]:.2f} >= {row_baseline[r]:.2f}"
        for r, t in list(zip(rows, frames, strict=True))[:5]
    )
    what = f"{late.sum()} frame(s) are dated on or after the baseline: {shown}"
    if on_post == "raise":
        raise DataError(
            f"ImageSequence: {what}. Images taken after treatment may show its effect. Use "
            "on_post='drop' to leave such frames out, or 'allow' for a placebo analysis."
        )
    kept = "left out" if on_post == "drop" else "kept: effects found with them may be consequences"
    warn(f"ImageSequence: {what}. They are {kept}.", CausalFairWarning)
    return np.asarray(late)
