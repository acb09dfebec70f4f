"""What goes with large and small effects: land cover, exemplars, occlusion, maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.imagery._sequence import ImageSequence, as_sequence

__all__ = [
    "LandCoverReport",
    "as_table",
    "describe_land_cover",
    "display_bands",
    "land_cover_shares",
    "occlusion_map",
    "plot_effect_map",
    "plot_exemplars",
    "show_frame",
    "stretch",
]

FIFTH = 0.2


def land_cover_shares(classes: Any, *, names: Any = None, nodata: Any = None) -> Any:
    """Share of each land-cover class in each footprint.

    Parameters
    ----------
    classes : int array of shape (n, H, W)
        Class of each pixel.
    names : mapping of int to str, optional
        Names of the classes.
    nodata : int, optional
        Class that means "unknown".

    Returns
    -------
    pandas.DataFrame of shape (n, n_classes)
        Rows sum to one.

    Raises
    ------
    DataError
        An image without a known pixel.

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.imagery import land_cover_shares
    >>> classes = np.array([[[1, 1], [2, 2]]])
    >>> land_cover_shares(classes, names={1: "crop", 2: "town"}).iloc[0].tolist()
    [0.5, 0.5]
    """
    import pandas as pd

    array = np.asarray(classes)
    if array.ndim != 3 or array.dtype.kind not in "iu":
        raise DataError(
            f"land_cover_shares got classes of shape {array.shape} and dtype {array.dtype}; it "
            "takes whole numbers of shape (n, H, W)."
        )
    flat = array.reshape(len(array), -1)
    known = np.ones(flat.shape, bool) if nodata is None else flat != nodata
    if not known.any(axis=1).all():
        raise DataError(f"land_cover_shares: {int((~known.any(axis=1)).sum())} image(s) have no "
                        "known pixel.")  # fmt: skip
    found = np.unique(flat[known])
    shares = {
        str((names or {}).get(int(value), value)): (flat == value).sum(axis=1) / known.sum(axis=1)
        for value in found
    }
    return pd.DataFrame(shares)


@dataclass(frozen=True)
class LandCoverReport:
    """Effects and land cover.

    Attributes
    ----------
    projection : Estimates
        Best linear projection of the effect on shares (one class left out).
    contrast : pandas.DataFrame
        Mean share among the fifth of units with the largest and the smallest predicted effect:
        ``term, top, bottom, difference, std_error, p_value, p_adjusted`` (Holm).
    correlation : pandas.Series
        Spearman correlation of predicted effects with shares; a description.
    """

    projection: Any
    contrast: Any
    correlation: Any

    def summary(self) -> Any:
        """Printable table.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table, estimates_table
        from causalfair.reporting.format import format_estimate, format_number, format_p

        rows = []
        for row in self.contrast.itertuples():
            cells = format_estimate(row.difference, row.std_error)
            rows.append([row.term, format_number(row.top), format_number(row.bottom),
                         cells.estimate, cells.std_error, format_p(row.p_adjusted),
                         f"{self.correlation[row.term]:.2f}"])  # fmt: skip
        columns = ["", "top fifth", "bottom", "difference", "std. error", "adj. p", "correlation"]
        return Summary(
            "Effects and land cover", [],
            [Table(columns, rows, "Units with the largest and smallest predicted effects",
                   "lrrrrrr"),
             estimates_table(self.projection, title="Projection of the effect")],
            ["Correlations (Spearman) with predicted effects are descriptive; p-values are Holm's.",
             "What goes with large effects need not cause them."],
        )  # fmt: skip

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def plot(self, *, ax: Any = None, level: float = 0.95) -> Any:
        """Coefficients of the projection with their intervals, the constant left out.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        level : float, default 0.95
            Level of the intervals.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.reporting import forest_plot

        ax = forest_plot(self.projection[list(self.projection.names[1:])], ax, level)
        ax.set_xlabel(f"change of the effect a unit of the share, {level:.0%} interval")
        return ax


def describe_land_cover(model: Any, shares: Any) -> LandCoverReport:
    """What land cover goes with large effects in the trial.

    Parameters
    ----------
    model : ImageSequenceCATE
        Fitted model.
    shares : frame or array of shape (n_units, k)
        Land-cover shares of each unit's place, summing to one, or other characteristics.

    Returns
    -------
    LandCoverReport
        Projection, contrast of the top and bottom fifth, and correlations.

    Raises
    ------
    DataError
        The table has another number of rows than the trial has units.

    Examples
    --------
    >>> import pandas as pd
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> from causalfair.forest import CausalForest
    >>> from causalfair.imagery import (
    ...     ImageSequenceCATE, SequenceFeatures, SpectralFeatures, describe_land_cover)
    >>> frame, truth = make_image_sequence_trial(150, size=12, random_state=0)
    >>> model = ImageSequenceCATE(
    ...     SequenceFeatures(SpectralFeatures()), CausalForest(50), scheme="oob", random_state=1
    ... ).fit(truth["images"], frame["y"], treatment=frame["treatment"])
    >>> report = describe_land_cover(model, pd.DataFrame({"growth": truth["g"]}))
    >>> list(report.contrast["term"])
    ['growth']
    """
    import pandas as pd
    from scipy.stats import spearmanr

    sample = model.effect_model_.sample_
    shares = as_table(shares, "describe_land_cover")
    if len(shares) != sample.n:
        raise DataError(
            f"describe_land_cover: shares has {len(shares)} rows, the trial {sample.n} units."
        )
    effect = np.asarray(model.predict(None))
    full = np.allclose(shares.sum(axis=1), 1.0) and shares.shape[1] > 1
    projection = model.best_linear_projection(shares.iloc[:, 1:] if full else shares)
    correlation = pd.Series(
        {name: float(spearmanr(effect, shares[name]).statistic) for name in shares.columns}
    )
    return LandCoverReport(projection, _contrast(shares, effect, sample), correlation)


def as_table(shares: Any, owner: str) -> Any:
    """A pandas table of a frame of any library, or of an array with numbered columns."""
    import pandas as pd

    if isinstance(shares, pd.DataFrame):
        return shares
    if hasattr(shares, "to_pandas"):
        return shares.to_pandas()
    values = np.asarray(shares, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise DataError(f"{owner}: shares has shape {values.shape}; give (n_units, k).")
    return pd.DataFrame(values, columns=[f"x{j}" for j in range(values.shape[1])])


def _contrast(shares: Any, effect: FloatArray, sample: Any) -> Any:
    """Top against bottom fifth, clustered as the trial is."""
    import pandas as pd

    from causalfair.inference import InfluenceEstimates

    low, high = np.quantile(effect, [FIFTH, 1 - FIFTH])
    top, bottom = (effect >= high).astype(float), (effect <= low).astype(float)
    values = shares.to_numpy(dtype=float)
    weight = np.ones(sample.n) if sample.sample_weight is None else sample.sample_weight
    mean_top = np.average(values, axis=0, weights=top * weight)
    mean_bottom = np.average(values, axis=0, weights=bottom * weight)
    influence = (top / np.average(top, weights=weight))[:, None] * (values - mean_top)
    influence -= (bottom / np.average(bottom, weights=weight))[:, None] * (values - mean_bottom)
    estimates = InfluenceEstimates(
        mean_top - mean_bottom, influence, [str(c) for c in shares.columns],
        cluster=sample.cluster, sample_weight=weight,
    )  # fmt: skip
    return pd.DataFrame(
        {"term": list(estimates.names), "top": mean_top, "bottom": mean_bottom,
         "difference": estimates.estimate, "std_error": estimates.std_error,
         "p_value": estimates.p_value(), "p_adjusted": np.asarray(estimates.p_adjust("holm"))}
    )  # fmt: skip


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
    from causalfair._core.optional import import_optional

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


def occlusion_map(
    model: Any, images: Any, unit: int, *, window: int = 6, X: Any = None
) -> FloatArray:
    """How much the predicted effect of one unit rests on each part of its images.

    Parameters
    ----------
    model : ImageSequenceCATE
        Fitted model.
    images : ImageSequence
        Images.
    unit : int
        Which unit.
    window : int, default 6
        Height and width of the window that is covered, in pixels; it moves by half of that.
    X : frame of shape (1, p), optional
        Covariates of the unit, where the model uses them.

    Returns
    -------
    ndarray of shape (H, W)
        Mean change of the prediction, whole less covered, over the windows that cover a pixel.

    Raises
    ------
    ParameterError
        The window is larger than the image.

    Notes
    -----
    The window is replaced by the mean spectrum of the frame, in all frames. Predictions react to
    covers that look like no real image; read the map as a hint.
    """
    sequence = as_sequence(images, owner="occlusion_map")
    own = sequence.subset(np.array([unit]))
    H, W = own.shape[2:4]
    if not 1 <= window <= min(H, W):
        raise ParameterError(f"occlusion_map got window={window} for images of {H} x {W} pixels.")
    block = own.read(np.array([0]))
    step = max(1, window // 2)
    corners = [(u, v) for u in _starts(H, window, step) for v in _starts(W, window, step)]
    stack = np.repeat(block.pixels, len(corners) + 1, axis=0)
    count = np.maximum(block.valid[0].sum(axis=(1, 2)), 1)[:, None]
    spectrum = block.pixels[0].sum(axis=(1, 2)) / count  # invalid pixels are zero
    for k, (u, v) in enumerate(corners, start=1):
        stack[k, :, u : u + window, v : v + window] = spectrum[:, None, None]
    mask = np.repeat(block.valid, len(stack), axis=0)
    covered = own._with_values(stack, mask)
    table = None if X is None else _repeat(X, len(stack))
    effect = np.asarray(model.predict(covered, table))
    total, seen = np.zeros((H, W)), np.zeros((H, W))
    for k, (u, v) in enumerate(corners, start=1):
        total[u : u + window, v : v + window] += effect[0] - effect[k]
        seen[u : u + window, v : v + window] += 1
    return np.asarray(total / np.maximum(seen, 1))


def _starts(length: int, window: int, step: int) -> list[int]:
    starts = list(range(0, length - window + 1, step))
    return starts if starts[-1] == length - window else [*starts, length - window]


def _repeat(X: Any, count: int) -> Any:
    import pandas as pd

    return pd.concat([pd.DataFrame(X)] * count, ignore_index=True)


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
    from causalfair.reporting.plot import new_axes

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
