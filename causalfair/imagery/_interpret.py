"""What goes with large and small effects: land cover, and parts of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.imagery._sequence import as_sequence

__all__ = [
    "LandCoverReport",
    "as_table",
    "describe_land_cover",
    "land_cover_shares",
    "occlusion_map",
]

FIFTH = 0.2


def land_cover_shares(classes: Any, *, names: Any = None, nodata: Any = None) -> Any:
    """Share of each land-cover class in each footprint.

    Parameters
    ----------
    classes : int array of shape (n, H, W) or (n, T, H, W)
        Class of each pixel, over several dates in order of time if there are four dimensions.
    names : mapping of int to str, optional
        Names of the classes.
    nodata : int, optional
        Class that means "unknown".

    Returns
    -------
    pandas.DataFrame of shape (n, n_classes) or (n, 2 n_classes)
        Shares at the last date, which sum to one; with several dates also their change from the
        first to the last, in columns ``"<class>, change"``.

    Raises
    ------
    DataError
        An image without a known pixel at the first or the last date.

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
    if array.ndim not in (3, 4) or array.dtype.kind not in "iu":
        raise DataError(
            f"land_cover_shares got classes of shape {array.shape} and dtype {array.dtype}; it "
            "takes whole numbers of shape (n, H, W) or (n, T, H, W)."
        )
    dates = [array] if array.ndim == 3 else [array[:, -1], array[:, 0]]
    flat = np.stack([date.reshape(len(array), -1) for date in dates])
    known = np.ones(flat.shape, bool) if nodata is None else flat != nodata
    if not known.any(axis=2).all():
        raise DataError(f"land_cover_shares: {int((~known.any(axis=2)).sum())} image(s) have no "
                        "known pixel.")  # fmt: skip
    label = {
        int(value): str((names or {}).get(int(value), value)) for value in np.unique(flat[known])
    }
    share = {name: (flat == value).sum(axis=2) / known.sum(axis=2) for value, name in label.items()}
    out = {name: now[0] for name, now in share.items()}
    if len(dates) > 1:
        out |= {f"{name}, change": now[0] - now[1] for name, now in share.items()}
    return pd.DataFrame(out)


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
    left_out : tuple of str
        Columns that the others determine, such as one class of shares that sum to one: coefficients
        compare with them.
    """

    projection: Any
    contrast: Any
    correlation: Any
    left_out: tuple[str, ...] = ()

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
             *([f"Left out of the projection, given the others: {'; '.join(self.left_out)}."]
               if self.left_out else []),
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
    kept = _independent(shares.to_numpy(dtype=float))
    if not kept.any():
        raise DataError("describe_land_cover: no column of shares varies; there is nothing to say.")
    projection = model.best_linear_projection(shares.loc[:, kept])
    left_out = tuple(str(name) for name in shares.columns[~kept])
    correlation = pd.Series(
        {
            name: float(spearmanr(effect, shares[name]).statistic)
            if np.ptp(effect) > 0 and np.ptp(shares[name]) > 0
            else np.nan
            for name in shares.columns
        }
    )
    return LandCoverReport(projection, _contrast(shares, effect, sample), correlation, left_out)


def _independent(values: FloatArray) -> BoolArray:
    """Columns (k,) that later ones and a constant do not determine."""
    basis: FloatArray = np.ones((len(values), 1)) / np.sqrt(len(values))
    kept = np.zeros(values.shape[1], dtype=bool)
    for j in reversed(range(values.shape[1])):
        rest = values[:, j] - basis @ (basis.T @ values[:, j])
        rest -= basis @ (basis.T @ rest)
        length = np.linalg.norm(rest)
        if length > 1e-8 * float(np.linalg.norm(values[:, j])):
            basis, kept[j] = np.column_stack([basis, rest / length]), True
    return kept


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
