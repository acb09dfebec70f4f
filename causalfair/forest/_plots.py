"""Pictures of rankings."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from causalfair.reporting.plot import new_axes

__all__ = ["calibration_plot", "finish_toc", "groups_plot", "toc_curves", "toc_plot"]


def toc_plot(rate: Any, *, ax: Any = None, level: float = 0.95) -> Any:
    """Draw each TOC curve with its pointwise band; it ends in zero, where all are treated."""
    ax = new_axes(ax)
    critical = ndtri((1 + level) / 2)
    for number, (_, curve) in enumerate(rate.toc_.groupby("priority", sort=False)):
        color = f"C{number}"
        shown = f"{rate.estimates_.names[number]} = {rate.estimates_.estimate[number]:.3g}"
        ax.plot(curve["q"], curve["estimate"], color=color, linewidth=2, label=shown)
        half = critical * curve["std_error"].to_numpy()
        if np.isfinite(half).all():
            ax.fill_between(
                curve["q"], curve["estimate"] - half, curve["estimate"] + half,
                color=color, alpha=0.18, linewidth=0,
            )  # fmt: skip
    ax.legend(frameon=False)
    return finish_toc(ax)


def finish_toc(ax: Any) -> Any:
    """Axes of a TOC curve."""
    ax.axhline(0.0, color="0.55", linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
    ax.set_xlim(0.0, 1.0)
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.set_xlabel("share treated, highest priority first")
    ax.set_ylabel("their average effect less that of all")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def toc_curves(rates: Any, *, ax: Any = None) -> Any:
    """Draw the TOC curves of several evaluation samples, thin, and their mean, thick."""
    ax = new_axes(ax)
    curves = np.array([rate.toc_["estimate"].to_numpy() for rate in rates])
    q = rates[0].toc_["q"].to_numpy()
    for curve in curves:
        ax.plot(q, curve, color="C0", linewidth=1, alpha=0.5)
    if len(curves) > 1:
        ax.plot(q, curves.mean(axis=0), color="C0", linewidth=2.5, label="mean of samples")
        ax.legend(frameon=False)
    return finish_toc(ax)


def _half_widths(groups: Any, level: float) -> tuple[Any, Any]:
    """Effects of the groups, without the difference, and distances to the ends of intervals."""
    count = groups.size.size
    effect = groups.estimates_.estimate[:count]
    ends = groups.estimates_.conf_int(level)[:count]
    return effect, np.abs(ends.T - effect)


def groups_plot(groups: Any, *, ax: Any = None, level: float = 0.95) -> Any:
    """Draw group effects side by side, lowest priority first, with the predicted ones."""
    ax = new_axes(ax)
    effect, half = _half_widths(groups, level)
    at = np.arange(1, effect.size + 1)
    ax.axhline(0.0, color="0.55", linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
    label = f"estimate, {level:.0%} interval"
    ax.errorbar(at, effect, half, fmt="o", color="C0", linewidth=2, label=label)
    ax.plot(at, groups.predicted, "_", color="0.35", markersize=16, label="mean priority")
    ax.set_xticks(at)
    ax.set_xlabel("group, lowest to highest priority")
    ax.set_ylabel("average effect")
    ax.spines[["top", "right"]].set_visible(False)
    legend_above(ax)
    return ax


def calibration_plot(groups: Any, *, ax: Any = None, level: float = 0.95) -> Any:
    """Draw estimated against predicted group effects; a good model is on the diagonal."""
    ax = new_axes(ax, width=4.8, height=4.4)
    effect, half = _half_widths(groups, level)
    ends = np.concatenate([groups.predicted, effect - half[0], effect + half[1]])
    low, high = ends.min(), ends.max()
    margin = 0.05 * (high - low or 1.0)
    low, high = low - margin, high + margin
    ax.plot([low, high], [low, high], color="0.55", linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
    ax.errorbar(groups.predicted, effect, half, fmt="o", color="C0", linewidth=2)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_aspect("equal")
    ax.set_xlabel("predicted effect, mean of the group")
    ax.set_ylabel(f"estimated effect, {level:.0%} interval")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def legend_above(ax: Any) -> None:
    """Put the legend where no interval can reach it."""
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0)
