"""Pictures of risk models."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair.reporting.plot import new_axes


def plot_predictive(checks: Any, *, ax: Any = None) -> Any:
    """Observed rate against expected rate in tenths of the rows, with the diagonal."""
    ax = new_axes(ax, width=4.8, height=4.4)
    for number, one in enumerate(checks):
        used = one.weight > 0
        half = 2 * np.sqrt(one.expected * (1 - one.expected) / np.maximum(one.weight, 1))
        ax.errorbar(
            one.expected[used], one.observed[used], yerr=half[used], fmt="o", color=f"C{number}",
            markersize=5, linewidth=1, label=f"{one.label} (p = {one.p_value:.2f})",
        )  # fmt: skip
    top = 1.05 * max(float(max(one.observed.max(), one.expected.max())) for one in checks)
    ax.plot([0, top], [0, top], color="0.55", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    ax.set_xlabel("rate expected by the model")
    ax.set_ylabel("rate observed")
    ax.legend(frameon=False, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_sensitivity(result: Any, *, ax: Any = None) -> Any:
    """Mean risk of the untested over imposed prevalences, with its interval."""
    ax = new_axes(ax)
    frame = result.to_frame()
    rows = frame[frame["term"] == "risk of the untested"]
    ax.fill_between(rows["prevalence"], rows["conf_low"], rows["conf_high"], alpha=0.2, linewidth=0)
    ax.plot(rows["prevalence"], rows["estimate"], marker="o")
    ax.set_xlabel("imposed prevalence")
    ax.set_ylabel("mean risk of the untested")
    ax.spines[["top", "right"]].set_visible(False)
    return ax
