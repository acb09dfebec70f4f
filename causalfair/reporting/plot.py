"""Plots shared by all families: estimates with intervals, and overlap of propensities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.optional import import_optional
from causalfair.exceptions import ParameterError
from causalfair.reporting.format import format_count, format_percent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from causalfair.inference import Estimates

__all__ = ["forest_plot", "overlap_plot"]

_ROW_INCHES = 0.42


def new_axes(ax: Any = None, *, width: float = 6.4, height: float = 4.0) -> Any:
    """Return ``ax``, or the axes of a new figure of the given size in inches."""
    if ax is not None:
        return ax
    pyplot = import_optional("matplotlib.pyplot", extra="plot")
    _, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    return axes


def forest_plot(
    estimates: Estimates, ax: Any = None, level: float = 0.95, *, null: float | None = 0.0
) -> Any:
    """Draw estimates with their intervals, one row a term, the first term on top.

    Parameters
    ----------
    estimates : Estimates
        Any estimates of :mod:`causalfair.inference`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.
    level : float, default=0.95
        Level of the pointwise intervals.
    null : float or None, default=0.0
        Where to draw the reference line; ``None`` draws none.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.

    Notes
    -----
    An infinite end of an interval is drawn as an arrow that leaves the plot.
    """
    names = [str(name) for name in estimates.names]
    point = np.asarray(estimates.estimate, dtype=float)
    interval = np.asarray(estimates.conf_int(level=level), dtype=float)
    ax = new_axes(ax, height=1.1 + _ROW_INCHES * len(names))
    rows = np.arange(len(names))
    finite = np.concatenate([point, interval.ravel()])
    finite = finite[np.isfinite(finite)]
    if null is not None:
        ax.axvline(null, color="0.55", linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
        finite = np.append(finite, null)
    if finite.size == 0:
        finite = np.zeros(1)
    margin = 0.08 * (np.ptp(finite) or 1.0)
    left, right = finite.min() - margin, finite.max() + margin
    ends = np.clip(interval, left, right)
    (line,) = ax.plot(point, rows, "o", markersize=6, zorder=3)
    ax.hlines(rows, ends[:, 0], ends[:, 1], color=line.get_color(), linewidth=2.0, zorder=2)
    for side, marker, edge in ((0, "<", left), (1, ">", right)):
        open_ended = rows[np.isinf(interval[:, side])]
        at_edge = np.full(open_ended.size, edge)
        ax.plot(at_edge, open_ended, marker, color=line.get_color(), markersize=6, clip_on=False)
    ax.set_xlim(left, right)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(rows, names)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel(f"estimate and {format_percent(level, 3)} interval")
    return ax


def overlap_plot(propensity: ArrayLike, treatment: ArrayLike, ax: Any = None) -> Any:
    """Draw the propensities of treated and untreated rows as mirrored histograms.

    Where one side is empty there is nobody to compare with, and an average over everybody rests on
    extrapolation.

    Parameters
    ----------
    propensity : array-like of shape (n_samples,)
        Estimated probability of treatment, between zero and one.
    treatment : array-like of shape (n_samples,)
        Treatment actually received, zero or one.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on.

    Raises
    ------
    ParameterError
        The arrays differ in length, a propensity is not a probability, or the treatment is not
        coded zero and one.
    MissingDependencyError
        matplotlib is not installed.
    """
    probability, treated = _checked(propensity, treatment)
    ax = new_axes(ax, height=3.6)
    edges = np.linspace(0.0, 1.0, 41)
    for rows, name, sign in ((treated, "treated", 1.0), (~treated, "untreated", -1.0)):
        count = np.histogram(probability[rows], edges)[0]
        share = sign * count / max(rows.sum(), 1)
        ax.bar(
            edges[:-1],
            share,
            width=np.diff(edges),
            align="edge",
            alpha=0.75,
            label=f"{name} (n = {format_count(int(rows.sum()))})",
        )
    ax.axhline(0.0, color="0.3", linewidth=0.8)
    ax.set_xlim(0.0, 1.0)
    ax.yaxis.set_major_formatter(lambda share, _: format_percent(abs(share)))
    ax.set_xlabel("estimated probability of treatment")
    ax.set_ylabel("share of the arm")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def _checked(propensity: ArrayLike, treatment: ArrayLike) -> tuple[Any, Any]:
    probability = np.asarray(propensity, dtype=float)
    treated = np.asarray(treatment, dtype=float)
    if probability.ndim != 1 or probability.shape != treated.shape:
        raise ParameterError(
            f"overlap_plot got propensity of shape {probability.shape} and treatment of shape "
            f"{treated.shape}; pass two vectors of the same length."
        )
    outside = ~((probability >= 0.0) & (probability <= 1.0))
    if outside.any():
        raise ParameterError(
            f"propensity has {int(outside.sum())} value(s) outside [0, 1], the first "
            f"{probability[outside][0]}; pass probabilities."
        )
    levels = np.unique(treated)
    if not np.isin(levels, (0.0, 1.0)).all():
        raise ParameterError(
            f"treatment takes the values {levels[:5].tolist()}; code it as zero and one."
        )
    return probability, treated == 1.0
