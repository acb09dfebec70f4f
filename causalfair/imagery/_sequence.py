"""Sequences of images of places, read in blocks and never copied whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.logging import warn
from causalfair._core.options import get_option
from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.imagery._checks import check_bands, check_coords, check_dimensions, check_units
from causalfair.imagery._dates import check_baseline, leaking_frames, years_of
from causalfair.imagery._pixels import (
    Block,
    Decoder,
    as_index,
    contiguous_runs,
    default_scale,
    named_dimensions,
)

__all__ = ["ImageSequence", "as_sequence"]

DEFAULT_MEMORY = 256 * 2**20
COPIES = 3  # raw pixels, float32 pixels and the validity mask live at the same time


class ImageSequence:
    """Images of places over time, with dates, masks and the units that live there.

    Any array with ``shape``, ``dtype`` and slicing will do (numpy, memory map, zarr, dask, xarray);
    it is read block by block. Images have to be older than the treatment: with ``baseline`` every
    frame is checked against the date of treatment of the units that use it.

    Parameters
    ----------
    images : array of shape (n, T, H, W, C) or (n, H, W, C)
        One row a place; four dimensions are read as one frame each. An xarray ``DataArray`` is
        recognised by the names of its dimensions (``time``, ``y``, ``x``, ``band``).
    times : array of shape (T,) or (n, T), optional
        Dates (``datetime64``, ISO strings) or years as numbers. Numbers 0, 1, ..., T-1 when None.
    mask : array of shape (n, T, H, W), bool, optional
        True where a pixel is valid (not cloud, shadow or fill).
    bands : sequence of str, optional
        Names of the C bands, such as ``("red", "green", "nir")``; indices need them.
    coords : array of shape (n, 2), optional
        Longitude and latitude of the centre of each image, in degrees.
    image_of_unit : int array of shape (n_units,), optional
        Which image each unit (person, household) uses; one unit an image when None.
    baseline : date, number or array of shape (n_units,), optional
        Date of treatment, in the units of ``times``.
    scale, offset : float or array of shape (C,), optional
        Reflectance is raw pixel times ``scale`` plus ``offset``. Integers without a scale are
        divided by 255 or 10,000, with a warning.
    nodata : float, optional
        Raw value that means "no measurement".
    gsd : float, optional
        Size of a pixel in metres.
    on_post : {"raise", "drop", "allow"}, default "raise"
        What to do with frames dated on or after the baseline. ``"allow"`` is for placebo analyses.
    min_valid : float in [0, 1], default 0.2
        Share of valid pixels below which a frame counts as missing.
    memory_limit : int, default 256 MiB
        Bytes that the pixels of one block may take, over all threads.

    Attributes
    ----------
    shape : tuple of int
        ``(n, T, H, W, C)`` as seen through crops and subsets.
    years : ndarray of shape (n, T)
        Dates as years.
    row_image, row_baseline : ndarray of shape (n_rows,)
        Distinct pairs of image and baseline; features are made once for each.
    row_of_unit : ndarray of shape (n_units,)
        The pair each unit uses.

    Raises
    ------
    DataError
        Shapes that do not fit, frames dated on or after the baseline, latitude beyond 90 degrees,
        times with a time zone.

    References
    ----------
    .. [1] C. T. Jerzak, R. Vashistha and A. Daoud (2024). Effect heterogeneity with Earth
       observation in randomized controlled trials, section 3. arXiv:2407.11674

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.zeros((4, 3, 8, 8, 2), dtype=np.float32)
    >>> dates = ["2001-06-30", "2002-06-30", "2003-06-30"]
    >>> ImageSequence(pixels, times=dates, baseline="2004-01-01")
    ImageSequence(4 images x 3 frames of 8 x 8 pixels, 2 bands, 2001.5 to 2003.5, 4 units)
    """

    def __init__(
        self,
        images: Any,
        *,
        times: Any = None,
        mask: Any = None,
        bands: Sequence[str] | None = None,
        coords: Any = None,
        image_of_unit: Any = None,
        baseline: Any = None,
        scale: Any = None,
        offset: Any = None,
        nodata: float | None = None,
        gsd: float | None = None,
        on_post: str = "raise",
        min_valid: float = 0.2,
        memory_limit: int = DEFAULT_MEMORY,
    ) -> None:
        images, times, bands = named_dimensions(images, times, bands)
        self._images, self._mask = images, mask
        self._single = check_dimensions(images, mask)
        n, frames = images.shape[0], 1 if self._single else images.shape[1]
        self._index: IntArray = np.arange(n)
        self._window = (0, images.shape[-3], 0, images.shape[-2])
        self._factor = 1
        self._raw_scale = True  # whether pixels still have to be scaled
        self._latest_only = False
        self.bands = check_bands(bands, images.shape[-1])
        self.scale, self.offset = default_scale(images.dtype, scale, offset, images.shape[-1])
        self.nodata, self.gsd = nodata, gsd
        self.min_valid, self.memory_limit = float(min_valid), int(memory_limit)
        self.coords = check_coords(coords, n)
        self.image_of_unit = check_units(image_of_unit, n)
        self.years, self.dated = years_of(times, n, frames)
        self.on_post = on_post
        self._place_units(baseline)

    def _place_units(self, baseline: Any) -> None:
        """Distinct (image, baseline) pairs, and the frames each may use."""
        units = self.image_of_unit
        self.baseline = check_baseline(baseline, units.size, self.dated)
        if self.on_post not in ("raise", "drop", "allow"):
            raise ParameterError(
                f"ImageSequence got on_post={self.on_post!r}; use 'raise', 'drop' or 'allow'."
            )
        if self.baseline is None:
            self.row_image: IntArray = np.arange(len(self.years))
            self.row_baseline: FloatArray = np.full(len(self.years), np.nanmax(self.years))
            self.row_of_unit: IntArray = units
            self.usable: BoolArray = np.isfinite(self.years)
            self.n_post = 0
            return
        pairs, inverse = np.unique(
            np.column_stack([units, self.baseline]), axis=0, return_inverse=True
        )
        self.row_image = pairs[:, 0].astype(np.intp)
        self.row_baseline = pairs[:, 1]
        self.row_of_unit = inverse.ravel().astype(np.intp)
        late = leaking_frames(self.years, self.row_image, self.row_baseline, self.on_post)
        self.n_post = int(late.sum())
        self.usable = np.isfinite(self.years[self.row_image]) & (
            ~late if self.on_post == "drop" else np.ones_like(late)
        )
        empty = np.flatnonzero(~self.usable.any(axis=1))
        if empty.size:
            raise DataError(
                f"ImageSequence: {empty.size} place(s) have no frame before their baseline, the "
                f"first being image {self.row_image[empty[0]]} (baseline "
                f"{self.row_baseline[empty[0]]:.2f}). Leave out those units or add older images."
            )

    # Shape --------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Number of images and frames, height, width and number of bands."""
        r0, r1, c0, c1 = self._window
        return (
            len(self._index),
            self.years.shape[1],
            (r1 - r0) // self._factor,
            (c1 - c0) // self._factor,
            int(self._images.shape[-1]),
        )

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self._index)

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.image_of_unit.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the raw pixels."""
        return (
            int(np.prod(self.shape)) * self._factor**2 * int(np.dtype(self._images.dtype).itemsize)
        )

    def __len__(self) -> int:
        return self.n_images

    def __repr__(self) -> str:
        n, t, h, w, c = self.shape
        low, high = np.nanmin(self.years), np.nanmax(self.years)
        span = f"{low:.1f} to {high:.1f}" if self.dated else "undated"
        return (
            f"ImageSequence({n:,} images x {t} frames of {h} x {w} pixels, {c} bands, {span}, "
            f"{self.n_units:,} units)"
        )

    def relative_years(self) -> FloatArray:
        """Dates of each row's frames in years before its baseline, (n_rows, T); at most zero."""
        return np.asarray(self.years[self.row_image] - self.row_baseline[:, None])

    # Other views of the same pixels ---------------------------------------------------------------

    def _copy(self) -> ImageSequence:
        other = object.__new__(ImageSequence)
        other.__dict__.update(self.__dict__)
        return other

    def crop(self, size: int) -> ImageSequence:
        """The centre of each image.

        Parameters
        ----------
        size : int
            Height and width in pixels.

        Returns
        -------
        ImageSequence
            A view; nothing is read.
        """
        r0, r1, c0, c1 = self._window
        if not 1 <= size <= min(r1 - r0, c1 - c0):
            raise ParameterError(
                f"ImageSequence.crop got size={size} for images of {r1 - r0} x {c1 - c0} pixels."
            )
        other = self._copy()
        top, left = r0 + (r1 - r0 - size) // 2, c0 + (c1 - c0 - size) // 2
        other._window = (top, top + size, left, left + size)
        return other

    def resample(self, factor: int) -> ImageSequence:
        """Coarser images: means of blocks of pixels; blocks that are not whole are cut.

        Parameters
        ----------
        factor : int
            Height and width of a block in pixels.

        Returns
        -------
        ImageSequence
            A view; nothing is read.
        """
        r0, r1, c0, c1 = self._window
        if not 1 <= factor * self._factor <= min(r1 - r0, c1 - c0):
            raise ParameterError(
                f"ImageSequence.resample got factor={factor} for images of {r1 - r0} x {c1 - c0}."
            )
        other = self._copy()
        other._factor = self._factor * int(factor)
        return other

    def latest(self) -> ImageSequence:
        """Only the most recent frame of each place that can be used.

        Returns
        -------
        ImageSequence
            A view; which frame that is depends on clouds and is settled when features are pooled.
        """
        other = self._copy()
        other._latest_only = True
        return other

    def subset(self, units: Any) -> ImageSequence:
        """The sequence of some units.

        Parameters
        ----------
        units : bool array of shape (n_units,) or int array
            Which units.

        Returns
        -------
        ImageSequence
            A view with the images those units use.
        """
        asked = np.asarray(units)
        short = asked.dtype.kind == "b" and asked.shape != (self.n_units,)
        if short or (
            asked.dtype.kind in "iu"
            and asked.size
            and (asked.max() >= self.n_units or asked.min() < -self.n_units)
        ):
            raise DataError(
                f"ImageSequence.subset: units do not fit {self.n_units} units; give one Boolean a "
                "unit, or unit numbers below that."
            )
        chosen = np.arange(self.n_units)[asked]
        if chosen.size == 0:
            raise DataError("ImageSequence.subset got no unit.")
        keep = np.unique(self.image_of_unit[chosen])
        other = self._copy()
        other._index = self._index[keep]
        other.years = self.years[keep]
        other.coords = None if self.coords is None else self.coords[keep]
        other.image_of_unit = np.searchsorted(keep, self.image_of_unit[chosen])
        rows, other.row_of_unit = np.unique(self.row_of_unit[chosen], return_inverse=True)
        if self.baseline is None:  # one row an image
            rows, other.row_of_unit = keep, other.image_of_unit
        else:
            other.baseline = self.baseline[chosen]
        other.row_image = np.searchsorted(keep, self.row_image[rows])
        other.row_baseline, other.usable = self.row_baseline[rows], self.usable[rows]
        return other

    def _with_values(self, pixels: Any, mask: Any) -> ImageSequence:
        """Variants of a sequence of one place: scaled pixels (k, T, H, W, C), same dates."""
        other = self._copy()
        count = len(pixels)
        other._images, other._mask, other._single = pixels, mask, False
        other._index = np.arange(count)
        other._window, other._factor = (0, pixels.shape[2], 0, pixels.shape[3]), 1
        other.image_of_unit = other.row_of_unit = other.row_image = np.arange(count)
        other.years = np.repeat(self.years, count, axis=0)
        other.usable = np.repeat(self.usable, count, axis=0)
        other.row_baseline = np.repeat(self.row_baseline, count)
        other._raw_scale = False
        return other

    # Reading ------------------------------------------------------------------------------------

    def _blocks(self, *, images: Any = None, threads: int = 1) -> list[tuple[IntArray, slice]]:
        """Plan of reading: (positions of images, frames) of each block under the memory limit."""
        chosen = np.arange(self.n_images) if images is None else np.asarray(images, np.intp)
        r0, r1, c0, c1 = self._window
        frame = (r1 - r0) * (c1 - c0) * self.shape[-1] * 4 * COPIES
        budget = max(1, self.memory_limit // (frame * max(threads, 1)))
        T = self.shape[1]
        if frame > self.memory_limit:
            raise ParameterError(
                f"ImageSequence: one frame needs {frame / 2**20:.1f} MiB, more than memory_limit="
                f"{self.memory_limit / 2**20:.1f} MiB. Raise the limit, crop or resample."
            )
        if budget >= T:
            step = budget // T
            return [(chosen[i : i + step], slice(0, T)) for i in range(0, chosen.size, step)]
        return [
            (chosen[i : i + 1], slice(t, min(t + budget, T)))
            for i in range(chosen.size)
            for t in range(0, T, budget)
        ]

    def _places_at_once(self) -> int:
        """Whole places that fit under the memory limit."""
        r0, r1, c0, c1 = self._window
        place = (r1 - r0) * (c1 - c0) * self.shape[-1] * self.shape[1] * 4 * COPIES
        if place > self.memory_limit:
            raise ParameterError(
                f"ImageSequence: one place needs {place / 2**20:.1f} MiB, more than memory_limit="
                f"{self.memory_limit / 2**20:.1f} MiB. Raise the limit, crop or resample."
            )
        return int(self.memory_limit // place)

    def read(self, images: Any, frames: slice = slice(None)) -> Block:
        """Read some images.

        Parameters
        ----------
        images : int array of shape (c,)
            Positions in the sequence.
        frames : slice, optional
            Frames; all when not given.

        Returns
        -------
        Block
            Scaled pixels and their validity.
        """
        positions = np.asarray(images, dtype=np.intp)
        runs = list(contiguous_runs(self._index[positions]))

        def load(source: Any, *, channels: bool) -> NDArray[Any]:
            parts = [
                np.asarray(source[self._selection(slice(*run), frames, channels=channels)])
                for run in runs
            ]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        raw = load(self._images, channels=True)
        mask = None if self._mask is None else load(self._mask, channels=False)
        return self._decoder()(raw, mask, positions, frames)

    def _decoder(self) -> Decoder:
        """What turns raw pixels into blocks."""
        scale, offset = (self.scale, self.offset) if self._raw_scale else (None, None)
        return Decoder(scale, offset, self.nodata, self._factor, self._single)

    def _selection(self, images: Any, frames: slice, *, channels: bool) -> tuple[Any, ...]:
        """Index of some images and frames within the window."""
        r0, r1, c0, c1 = self._window
        lead = () if self._single else (frames,)
        tail = (slice(None),) if channels else ()
        return (images, *lead, slice(r0, r1), slice(c0, c1), *tail)

    def _lazy(self, images: IntArray, frames: slice) -> tuple[Any, Any]:
        """Raw pixels of a block as a lazy array, and their mask, lazy where it is lazy."""
        rows = self._index[images]
        pixels = self._images[self._selection(as_index(rows), frames, channels=True)]
        mask = self._mask
        if mask is None:
            return pixels, None
        if hasattr(mask, "dask"):
            return pixels, mask[self._selection(as_index(rows), frames, channels=False)]
        parts = [
            np.asarray(mask[self._selection(slice(*run), frames, channels=False)])
            for run in contiguous_runs(rows)
        ]
        return pixels, np.concatenate(parts)

    def iter_frames(self, chunk: int = 64) -> Iterator[tuple[IntArray, Any, Any]]:
        """Yield frames in blocks of at most ``chunk``.

        Parameters
        ----------
        chunk : int, default 64
            Frames in a block.

        Yields
        ------
        tuple
            Image and frame numbers (c, 2), float32 pixels (c, H, W, C), validity (c, H, W).
        """
        for images, frames in self._blocks():
            block = self.read(images, frames)
            c, t = block.pixels.shape[:2]
            numbers = np.stack(
                np.meshgrid(images, np.arange(frames.start, frames.start + t), indexing="ij"), -1
            ).reshape(-1, 2)
            flat = block.pixels.reshape(c * t, *block.pixels.shape[2:])
            valid = block.valid.reshape(c * t, *block.valid.shape[2:])
            for start in range(0, c * t, chunk):
                part = slice(start, start + chunk)
                yield numbers[part], flat[part], valid[part]

    def band_statistics(self) -> Any:
        """Mean, spread and percentiles of each band over valid pixels, in one pass.

        Returns
        -------
        pandas.DataFrame
            Rows are bands; columns ``mean, sd, p1, p2, p50, p98, p99``. Percentiles come from 4,096
            bins between the extremes of the first block.
        """
        from causalfair.imagery._statistics import band_statistics

        return band_statistics(self)

    def describe(self) -> Any:
        """What is in the sequence: size, dates, missing frames, bands.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text. The pixels are read once.
        """
        from causalfair.imagery._statistics import describe

        return describe(self)

    def valid_share(self) -> FloatArray:
        """Share of valid pixels of every frame.

        Returns
        -------
        ndarray of shape (n, T)
            Shares; a frame below ``min_valid`` counts as missing.
        """
        from causalfair.imagery._statistics import valid_share

        return valid_share(self)

    @property
    def _is_dask(self) -> bool:
        """Whether the pixels are a dask array, whose workers then do the reading."""
        return type(self._images).__module__.partition(".")[0] == "dask"

    def _threads(self, n_jobs: int | None) -> int:
        """Threads meant by ``n_jobs``."""
        from causalfair._core.parallel import effective_jobs

        return effective_jobs(get_option("n_jobs") if n_jobs is None else n_jobs)

    @classmethod
    def from_npy(cls, files: Any, **options: Any) -> ImageSequence:
        """Images kept as one ``.npy`` file a place, read as they are needed.

        Parameters
        ----------
        files : path of a folder, or sequence of paths
            Files of shape ``(T, H, W, C)`` or ``(H, W, C)``, all alike. A folder stands for its
            files in the order of their names.
        **options
            What :class:`ImageSequence` takes.

        Returns
        -------
        ImageSequence
            One place a file.

        Raises
        ------
        DataError
            A file is missing, is no array, or differs from the first in shape or dtype.
        """
        from causalfair.imagery._files import FileStack

        return cls(FileStack(files), **options)

    @classmethod
    def from_geotiffs(cls, paths: Any, **options: Any) -> ImageSequence:
        """Chips around points, cut from georeferenced rasters (extra ``imagery``).

        Parameters
        ----------
        paths : list of str, or list of lists
            One raster a frame; a list of rasters where several cover the region.
        **options
            ``times``, ``lon``, ``lat``, ``size_px`` or ``size_m``, and what
            :class:`ImageSequence` takes.

        Returns
        -------
        ImageSequence
            The chips, with ``coords`` and ``gsd`` set.
        """
        from causalfair.imagery._geotiff import sequence_from_geotiffs

        chips: ImageSequence = sequence_from_geotiffs(paths, **options)
        return chips


def warn_of_nan(n_nan: int, sequence: ImageSequence) -> None:
    """Say once how many pixels were set aside because they are not finite."""
    if n_nan and sequence._mask is None:
        n, t, h, w, _ = sequence.shape
        warn(
            f"ImageSequence: {n_nan / (n * t * h * w * sequence._factor**2):.1%} of the pixels are "
            "NaN or infinite and no mask was given; they are treated as not valid.",
            CausalFairWarning,
        )


def as_sequence(images: Any, *, owner: str) -> ImageSequence:
    """``images`` as an :class:`ImageSequence`."""
    if isinstance(images, ImageSequence):
        return images
    if not hasattr(images, "shape") or not hasattr(images, "dtype"):
        raise DataError(
            f"{owner} got images of type {type(images).__name__}; give an ImageSequence or an "
            "array of shape (n, T, H, W, C)."
        )
    return ImageSequence(images)
