"""Checks of the arrays that estimates are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError

__all__ = ["check_centred", "check_names", "cluster_codes", "frozen", "mean_one"]


def frozen(values: Any, ndim: int, name: str) -> FloatArray:
    """Read-only float64 copy with the given number of dimensions."""
    array = np.array(values, dtype=np.float64, ndmin=ndim)
    if array.ndim != ndim:
        raise DataError(f"{name} has shape {array.shape}; it needs {ndim} dimension(s).")
    array.setflags(write=False)
    return array


def check_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names as a tuple of text, one an estimate."""
    labels = (names,) if isinstance(names, str) else tuple(map(str, names))
    if len(labels) != count:
        raise DataError(f"{len(labels)} names for {count} estimates.")
    return labels


def check_centred(psi: FloatArray, theta: FloatArray) -> None:
    """Refuse influence values that are not finite with mean zero."""
    mean, scale = psi.mean(axis=0), np.abs(psi).mean(axis=0)
    # Scores of a constant differ from their mean by the rounding of the mean alone.
    off = np.abs(mean) > 1e-8 * scale + 64 * np.finfo(float).eps * np.abs(theta)
    if off.any() or not np.isfinite(psi).all():
        j = int(np.argmax(off))
        raise DataError(
            f"influence column {j} has mean {mean[j]:.3g} on a scale of {scale[j]:.3g}; influence "
            "values must be finite with mean zero. Subtract the estimate from the score first."
        )


def mean_one(sample_weight: Any, n: int) -> FloatArray:
    """Weights scaled to mean one."""
    weight = np.asarray(sample_weight, dtype=np.float64)
    usable = weight.shape == (n,) and np.isfinite(weight).all() and (weight >= 0).all()
    if not usable or weight.sum() <= 0:
        raise DataError(
            f"sample_weight has shape {weight.shape} for {n} rows of influence, and must be finite "
            "and non-negative with a positive sum."
        )
    return np.asarray(weight / weight.mean())


def cluster_codes(cluster: Any, n: int) -> IntArray | None:
    """Read-only codes 0, 1, ... of each way of clustering, (n, c)."""
    if cluster is None:
        return None
    array = np.asarray(cluster)
    array = array[:, None] if array.ndim == 1 else array
    if array.shape[0] != n:
        raise DataError(f"cluster has {array.shape[0]} rows; influence has {n}.")
    codes = np.column_stack([np.unique(c, return_inverse=True)[1].reshape(-1) for c in array.T])
    codes.setflags(write=False)
    return codes
