"""Pictures of images and effects: acquisitions, exemplars, occlusion, maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.optional import import_optional
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_binary, check_lengths
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.imagery._blocks import map_blocks
from causalfair.imagery._pixels import Block
from causalfair.imagery._sequence import ImageSequence, as_sequence
from causalfair.imagery._spectral import band_moments
from causalfair.reporting.plot import new_axes

__all__ = ["plot_acquisitions", "plot_effect_map", "plot_exemplars", "plot_occlusion"]


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


def _exemplars(key: FloatArray, cluster: Any, count: int) -> list[int]:
    """Units with the smallest keys, at most one a cluster."""
    order = np.argsort(key, kind="stable")
    if cluster is None:
        return [int(i) for i in order[:count]]
    chosen: list[int] = []
    seen: set[int] = set()
    for i in order:
        if int(cluster[i]) not in seen:
            seen.add(int(cluster[i]))
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return chosen


def display_bands(sequence: ImageSequence, bands: Any, owner: str = "plot_exemplars") -> IntArray:
    """Positions of the three bands to draw."""
    if bands is not None:
        names = sequence.bands or ()
        missing = [b for b in bands if b not in names]
        if missing:
            raise ParameterError(
                f"{owner} got bands={tuple(bands)!r}, but the images name "
                f"{', '.join(names) or 'none'}."
            )
        return np.array([names.index(b) for b in bands])
    count = sequence.shape[-1]
    return np.arange(3) if count >= 3 else np.zeros(3, dtype=int)


def plot_exemplars(
    model: Any, images: Any, *, n: int = 3, middle: int = 0, frames: Any = None, bands: Any = None
) -> Any:
    """Draw the places with the largest and the smallest predicted effects.

    Parameters
    ----------
    model : ImageSequenceCATE
        Fitted model.
    images : ImageSequence
        The images it was fitted on.
    n : int, default 3
        Places at each end, at most one a cluster.
    middle : int, default 0
        Places with effects nearest to the median, drawn between.
    frames : sequence of int, optional
        Frames to draw; at most six, evenly spaced, when None.
    bands : sequence of three str, optional
        Bands for red, green and blue; the first three when None.

    Returns
    -------
    matplotlib.figure.Figure
        Rows are places, columns are dates. Effects have their 95% interval where the learner has
        one. All panels and bands share one stretch (2nd to 98th
        percentile), so that colour and brightness can be compared. Single images are anecdotes,
        not evidence.

    Raises
    ------
    DataError
        The images are not those of the trial.
    """
    pyplot = import_optional("matplotlib.pyplot", extra="plot")
    sequence = as_sequence(images, owner="plot_exemplars")
    effect = np.asarray(model.predict(None))
    if sequence.n_units != effect.size:
        raise DataError(
            f"plot_exemplars: the images have {sequence.n_units} units, the trial {effect.size}."
        )
    cluster = model.effect_model_.sample_.cluster
    codes = sequence.image_of_unit if cluster is None else cluster[:, 0]
    top, bottom = (_exemplars(key, codes, n) for key in (-effect, effect))
    half = _exemplars(np.abs(effect - np.median(effect)), codes, middle) if middle else []
    labels = _effect_labels(model, effect)
    T = sequence.shape[1]
    spread = np.unique(np.linspace(0, T - 1, min(T, 6)).round().astype(int))
    when = spread if frames is None else frames
    units = [*top, *half, *bottom[::-1]]
    blocks = [sequence.read(sequence.image_of_unit[[u]]) for u in units]
    chosen = display_bands(sequence, bands)
    ends = stretch(blocks, chosen)
    alone = len(when) == 1  # a row for each group instead of a row a place
    groups = {"largest": top, "median": half, "smallest": bottom}
    groups = {name: members for name, members in groups.items() if members}
    widest = max(map(len, groups.values()))
    shape = (len(groups), widest) if alone else (len(units), len(when))
    figure, axes = pyplot.subplots(
        *shape, figsize=(1.5 * shape[1] + 0.6, 1.6 * shape[0] + 0.5), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    if alone:
        axes = _panels(axes, list(groups.values()))
    for k, (unit, block) in enumerate(zip(units, blocks, strict=True)):
        row = axes[k : k + 1] if alone else axes[k]
        label = labels[unit]
        for ax, t in zip(row, when, strict=True):
            show_frame(ax, block, t, chosen, ends)
            if alone:
                ax.set_title(label, fontsize=9)
            elif k == 0 and sequence.dated:
                ax.set_title(f"{sequence.years[sequence.image_of_unit[unit], t]:.1f}", fontsize=9)
        if not alone:
            row[0].set_ylabel(label, fontsize=9)
    if alone:
        at = 0
        for name, members in groups.items():
            axes[at].set_ylabel(name, fontsize=9)
            at += len(members)
    else:
        figure.suptitle("Largest (top) to smallest predicted effects", x=0.02, ha="left", size=11)
    return figure


def _panels(axes: Any, groups: list[list[int]]) -> Any:
    """Axes of the places of each group in order; those left over are taken away."""
    for row, members in zip(axes, groups, strict=True):
        for ax in row[len(members) :]:
            ax.remove()
    used = [row[: len(members)] for row, members in zip(axes, groups, strict=True)]
    return np.concatenate(used)


def _effect_labels(model: Any, effect: FloatArray) -> list[str]:
    """Effect of each unit, with its interval where the learner has one."""
    plain = [f"effect {value:.2f}" for value in effect]
    from causalfair.forest import CausalForest

    if not isinstance(model.effect_model_, CausalForest):
        return plain
    ends = model.predict_interval()
    return [f"{text}\n[{low:.2f}, {high:.2f}]"
            for text, (low, high) in zip(plain, ends, strict=True)]  # fmt: skip


def show_frame(
    ax: Any, block: Any, t: int, bands: IntArray, ends: tuple[float, float], *, grey: bool = False
) -> None:
    """Draw one frame; pixels that are not valid are white."""
    low, high = ends
    shown = np.clip((block.pixels[0, t][..., bands] - low) / (high - low), 0, 1)
    if grey:
        shown = np.repeat(shown.mean(axis=2, keepdims=True), 3, axis=2)
    shown[~block.valid[0, t]] = 1.0
    ax.imshow(shown, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])


def stretch(blocks: Any, bands: IntArray) -> tuple[float, float]:
    """One stretch for all panels and bands, so that colours are true: 2nd and 98th percentile."""
    pixels = np.concatenate([b.pixels[b.valid][:, bands].ravel() for b in blocks]).astype(float)
    low, high = np.percentile(pixels, [2, 98])
    return float(low), float(high) if high > low else float(low) + 1.0


def plot_effect_map(
    coords: Any,
    effect: Any,
    *,
    supported: Any = None,
    label: str = "predicted effect",
    ax: Any = None,
) -> Any:
    """Predicted effects on a map, places without support crossed out.

    Parameters
    ----------
    coords : array of shape (G, 2)
        Longitude and latitude.
    effect : array of shape (G,)
        Effects.
    supported : bool array of shape (G,), optional
        Places the trial supports.
    label : str, default "predicted effect"
        What the colours are.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on.
    """
    xy, effect = np.asarray(coords, float), np.asarray(effect, float)
    good = np.ones(effect.size, bool) if supported is None else np.asarray(supported, bool)
    if not good.all():
        warn(
            f"plot_effect_map: {int((~good).sum())} of {good.size} places are not supported by the "
            "trial and are crossed out.",
            CausalFairWarning,
        )
    ax = new_axes(ax)
    seen = effect[good] if good.any() else np.zeros(1)
    colours = {"cmap": "viridis", "vmin": seen.min(), "vmax": seen.max()}
    if seen.min() < 0 < seen.max():  # gains and losses
        limit = np.abs(seen).max()
        colours = {"cmap": "RdBu", "vmin": -limit, "vmax": limit}
    dots = ax.scatter(*xy[good].T, c=effect[good], s=18, **colours)
    ax.scatter(*xy[~good].T, marker="x", color="0.6", s=14)
    ax.figure.colorbar(dots, ax=ax, label=label, shrink=0.8)
    ax.set_xlabel("longitude")
    ax.set_ylabel("latitude")
    ax.set_aspect(1 / np.cos(np.radians(xy[:, 1].mean())))
    return ax
