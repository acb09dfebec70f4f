"""Evaluation of the sensitivity lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError
from causalfair.inference import Estimates
from causalfair.iv._reports import SensitivityReport
from causalfair.iv._sensitivity import Breakdown, breakdown

__all__ = ["sensitivity_line"]


def sensitivity_line(
    joint: Estimates, *, kind: str, delta: Any, level: float, scale: float
) -> SensitivityReport:
    """Effect, interval and breakdown values along ``delta``.

    Parameters
    ----------
    joint : Estimates
        ``"ATE"`` and ``"slope"``.
    """
    import pandas as pd

    (ate, slope), vcov = joint.estimate, joint.vcov
    critical = joint.critical_value(level)
    turning = breakdown(float(ate), float(slope), vcov, critical)
    grid = _default_grid(turning) if delta is None else _as_grid(delta)
    effect = ate + slope * grid
    variance = vcov[0, 0] + 2.0 * grid * vcov[0, 1] + grid**2 * vcov[1, 1]
    std_error = np.sqrt(np.maximum(variance, 0.0))
    frame = pd.DataFrame(
        {
            "delta": grid,
            "correlation": grid / scale,
            "estimate": effect,
            "std_error": std_error,
            "conf_low": effect - critical * std_error,
            "conf_high": effect + critical * std_error,
        }
    )
    if kind == "modification":
        frame = frame.drop(columns="correlation")
    return SensitivityReport(kind, frame, turning, scale, level)


def _as_grid(delta: Any) -> FloatArray:
    grid = np.atleast_1d(np.asarray(delta, dtype=np.float64))
    if grid.ndim != 1 or not np.isfinite(grid).all():
        raise ParameterError(f"sensitivity got delta of shape {grid.shape}; give finite numbers.")
    return grid


def _default_grid(turning: Breakdown) -> FloatArray:
    """From a little beyond zero violation to a little beyond the breakdown values."""
    reach = [0.0, turning.zero]
    if np.isfinite(turning.interval):
        reach.append(turning.interval)
    low, high = min(reach), max(reach)
    width = high - low if high > low else 1.0
    return np.linspace(low - 0.25 * width, high + 0.25 * width, 49)
