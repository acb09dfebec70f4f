"""Pictures of images: when they were taken, and which parts of them a prediction rests on."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.optional import import_optional
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_binary, check_lengths
from causalfair.exceptions import DataError
from causalfair.imagery._blocks import map_blocks
from causalfair.imagery._interpret import display_bands, show_frame, stretch
from causalfair.imagery._pixels import Block
from causalfair.imagery._sequence import as_sequence
from causalfair.imagery._spectral import band_moments
from causalfair.reporting.plot import new_axes

__all__ = ["plot_acquisitions", "plot_occlusion"]


def plot_acquisitions(images: Any, *, treatment: Any = None, n_jobs: int | None = None) -> Any:
    """Draw how much of each frame could be seen, and the mean of each band, over time.

    Look at it before fitting: frames that could be seen less often in one arm, a band that jumps
    where the sensor changed, a season that drifts.

    Parameters
    ----------
    images : ImageSequence or array of shape (n, T, H, W, C)
        Images; read once.
    treatment : array of shape (n_units,), optional
        Binary treatment: the first panel then tells arms apart.
    n_jobs : int, optional
        Threads.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels. Points are frames; lines join means over places by frame number, at the median
        date.

    Raises
    ------
    DataError
        The treatment does not fit the units.

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.imagery import plot_acquisitions
    >>> images = np.random.default_rng(0).random((6, 3, 4, 4, 2), dtype=np.float32)
    >>> len(plot_acquisitions(images).axes)
    2
    """
    pyplot = import_optional("matplotlib.pyplot", extra="plot")
    sequence = as_sequence(images, owner="plot_acquisitions")
    seen, mean = _over_time(sequence, n_jobs)
    date = np.nanmedian(sequence.years, axis=0)
    figure, axes = pyplot.subplots(2, 1, figsize=(6.8, 5.2), sharex=True, layout="constrained")
    for name, places in _arms(sequence, treatment):
        colour = {"treated": "C1"}.get(name, "C0")
        axes[0].plot(sequence.years[places].ravel(), seen[places].ravel(), ".", color=colour,
                     markersize=3, alpha=0.25)  # fmt: skip
        axes[0].plot(date, seen[places].mean(axis=0), "-o", color=colour, markersize=4, label=name)
    if treatment is not None:
        axes[0].legend(frameon=False)
    axes[0].set_ylabel("share of pixels seen")
    axes[0].set_ylim(-0.03, 1.03)
    names = sequence.bands or tuple(f"band {b}" for b in range(mean.shape[2]))
    missing = seen < sequence.min_valid
    for b, name in enumerate(names):
        usable = np.where(missing, np.nan, mean[:, :, b])
        count = np.maximum(np.isfinite(usable).sum(axis=0), 1)
        middle = np.nansum(usable, axis=0) / count
        axes[1].plot(date, np.where(np.isfinite(usable).any(axis=0), middle, np.nan), "-o",
                     markersize=4, label=name)  # fmt: skip
    axes[1].set_ylabel("mean of the band")
    axes[1].set_xlabel("year" if sequence.dated else "frame")
    axes[1].legend(frameon=False, ncols=2)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _over_time(sequence: Any, n_jobs: int | None) -> tuple[FloatArray, FloatArray]:
    """Share of valid pixels (n, T) and means of the bands (n, T, C) of every frame."""
    n, frames, _, _, bands = sequence.shape
    seen, mean = np.empty((n, frames)), np.empty((n, frames, bands))
    for numbers, when, (share, values) in map_blocks(
        _moments, sequence, n_jobs=n_jobs, desc="acquisitions"
    ):
        seen[numbers, when], mean[numbers, when] = share, values
    return seen, mean


def _moments(block: Block) -> tuple[FloatArray, FloatArray]:
    c, t, h, w, b = block.pixels.shape
    valid = block.valid.reshape(c * t, h, w)
    mean, _ = band_moments(block.pixels.reshape(c * t, h, w, b), valid)
    return block.valid.mean(axis=(2, 3)), mean.reshape(c, t, b)


def _arms(sequence: Any, treatment: Any) -> list[tuple[str, Any]]:
    """Names and places of the arms; a place with units of both counts in both."""
    if treatment is None:
        return [("all", np.arange(sequence.n_images))]
    w = check_binary(np.asarray(treatment), "treatment", owner="plot_acquisitions").values
    check_lengths(owner="plot_acquisitions", treatment=w, units=sequence.image_of_unit)
    return [
        (name, np.unique(sequence.image_of_unit[w == arm]))
        for arm, name in ((0, "untreated"), (1, "treated"))
    ]


def plot_occlusion(
    images: Any, unit: int, change: Any, *, frame: int = -1, bands: Any = None, ax: Any = None
) -> Any:
    """Draw what :func:`occlusion_map` found over one frame of the unit's place.

    Parameters
    ----------
    images : ImageSequence
        The images the map was made with.
    unit : int
        Which unit.
    change : array of shape (H, W)
        Result of :func:`occlusion_map`.
    frame : int, default -1
        Which frame lies under the map.
    bands : sequence of three str, optional
        Bands for red, green and blue; the first three when None.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        Red: the prediction falls when that part is covered, which speaks for the effect; blue: it
        rises.

    Raises
    ------
    DataError
        The map does not fit the images.
    """
    sequence = as_sequence(images, owner="plot_occlusion")
    heat = np.asarray(change, dtype=np.float64)
    if heat.shape != sequence.shape[2:4]:
        raise DataError(
            f"plot_occlusion got change of shape {heat.shape} for images of {sequence.shape[2:4]}."
        )
    block = sequence.subset(np.array([unit])).read(np.array([0]))
    chosen = display_bands(sequence, bands, "plot_occlusion")
    ax = new_axes(ax, width=4.6, height=3.8)
    show_frame(ax, block, frame, chosen, stretch([block], chosen), grey=True)
    limit = np.abs(heat).max() or 1.0
    picture = ax.imshow(heat, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.55)
    ax.figure.colorbar(picture, ax=ax, label="fall of the effect when covered", shrink=0.8)
    return ax
