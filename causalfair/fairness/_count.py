"""The public count tensor, and the check of tensors that users bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.frames import is_lazy
from causalfair.exceptions import DataError, ParameterError
from causalfair.fairness._encode import encode_levels, read_lazy, read_rows
from causalfair.fairness._tensor import (
    MAX_DENSE_CELLS,
    PatternCounts,
    count_dense,
    from_tensor,
    has_missing,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import ArrayLike, FloatArray, IntArray


def count_tensor(
    X: Any,
    y_pred: Any,
    y_true: Any = None,
    *,
    proxies: Any = None,
    sample_weight: ArrayLike | None = None,
    n_pred: int | None = None,
    n_labels: int | None = None,
    n_levels: Sequence[int] | int | None = None,
) -> FloatArray:
    """Count rows by decision, label and level of every proxy: all that the estimators read.

    Tensors of the same shape from several shards add up, and :meth:`ProxyFairness.from_counts` fits
    their sum. Give ``n_pred``, ``n_labels`` and ``n_levels`` when a shard may not show every level.

    Parameters
    ----------
    X : (n, m) int array or table
        Proxies as levels 0, 1, 2, ...; -1 marks a missing value and is counted as a further, last
        level. A lazy frame (polars, DuckDB, Dask, PySpark) is grouped in its own engine.
    y_pred : (n,) int array or str
        Decisions 0, 1, ..., or the name of their column.
    y_true : (n,) int array or str, optional
        Outcome labels.
    proxies : list of str, optional
        Proxy columns of a table.
    sample_weight : (n,) array or str, optional
        Non-negative weights.
    n_pred, n_labels : int, optional
        Number of decisions and of labels; by default the largest seen plus one (at least 2).
    n_levels : sequence of int, or int, optional
        Number of levels of each proxy.

    Returns
    -------
    (n_pred, n_labels or 1, L_1, ..., L_m) float array
        Where proxy j has missing values its last level is "missing": pass ``missing=`` to
        ``from_counts``.

    Raises
    ------
    DataError
        Values that are not levels, lengths that differ, no rows, or a table too wide to hold.

    Notes
    -----
    One pass over the rows, O(n m), with private histograms of a fixed number of blocks.

    Examples
    --------
    >>> from causalfair.fairness import count_tensor
    >>> N = count_tensor([[0, 1], [1, 1], [0, 0]], [1, 1, 0])
    >>> N.shape, float(N.sum())
    ((2, 1, 2, 2), 3.0)
    """
    owner = "count_tensor"
    named = any(isinstance(v, str) for v in (y_pred, y_true, sample_weight)) or proxies is not None
    if named or is_lazy(X):
        reader = read_lazy if is_lazy(X) else read_rows
        rows = reader(
            X,
            y_pred,
            y_true=y_true,
            proxies=proxies,
            sensitive_features=None,
            cluster=None,
            sample_weight=sample_weight,
            owner=owner,
        )
        codes, prediction, label, weight = rows.codes, rows.prediction, rows.label, rows.weight
    else:
        codes, prediction, label, weight = _plain_arrays(X, y_pred, y_true, sample_weight, owner)
    m = codes.shape[1]
    seen = [int(codes[:, j].max()) + 1 for j in range(m)]
    levels = _requested_levels(n_levels, seen, owner)
    shape_pred = _requested(n_pred, max(int(prediction.max()) + 1, 2), "n_pred", owner)
    shape_label = 1
    if label is not None:
        shape_label = _requested(n_labels, max(int(label.max()) + 1, 2), "n_labels", owner)
    missing = has_missing(codes)
    shape = (shape_pred, shape_label, *(v + int(b) for v, b in zip(levels, missing, strict=True)))
    if float(np.prod(np.array(shape, dtype=float))) > MAX_DENSE_CELLS:
        raise DataError(
            f"{owner}: a table of shape {shape} is too wide to hold. Give the rows to "
            "ProxyFairness.fit, which keeps only the patterns that occur."
        )
    radix = np.array(shape[2:], dtype=np.int64)
    return count_dense(codes, prediction, label, weight, radix, shape_label, shape)


def _plain_arrays(
    X: Any, y_pred: Any, y_true: Any, sample_weight: Any, owner: str
) -> tuple[IntArray, IntArray, IntArray | None, FloatArray | None]:
    from causalfair._core.validation import check_lengths

    codes = encode_levels(X, "X", owner=owner, allow_missing=True)
    if codes.ndim != 2:
        raise DataError(f"{owner} got X of shape {codes.shape}; give proxies as (n, m).")
    prediction = encode_levels(y_pred, "y_pred", owner=owner)
    label = None if y_true is None else encode_levels(y_true, "y_true", owner=owner)
    arrays: dict[str, Any] = {"X": codes, "y_pred": prediction}
    if label is not None:
        arrays["y_true"] = label
    weight = None
    if sample_weight is not None:
        weight = np.asarray(sample_weight, dtype=np.float64)
        arrays["sample_weight"] = weight
        if not np.isfinite(weight).all() or (weight < 0).any() or weight.sum() == 0:
            raise DataError(
                f"{owner}: sample_weight must be finite and non-negative, with a positive sum."
            )
    check_lengths(owner=owner, **arrays)
    return np.ascontiguousarray(codes), prediction, label, weight


def _requested(wanted: int | None, seen: int, name: str, owner: str) -> int:
    if wanted is None:
        return seen
    if wanted < seen:
        raise ParameterError(f"{owner} got {name}={wanted}, but the data show {seen} levels.")
    return wanted


def _requested_levels(
    wanted: Sequence[int] | int | None, seen: Sequence[int], owner: str
) -> list[int]:
    if wanted is None:
        return list(seen)
    chosen = [wanted] * len(seen) if isinstance(wanted, int) else list(wanted)
    if len(chosen) != len(seen):
        raise ParameterError(
            f"{owner} got n_levels for {len(chosen)} proxies, but X has {len(seen)}."
        )
    return [
        _requested(w, s, f"n_levels[{j}]", owner)
        for j, (w, s) in enumerate(zip(chosen, seen, strict=True))
    ]


def check_tensor(N: ArrayLike, missing: Sequence[bool] | None) -> PatternCounts:
    """Check a tensor of counts and turn it into patterns."""
    owner = "ProxyFairness.from_counts"
    try:
        tensor = np.asarray(N, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{owner} got N of type {type(N).__name__}; give an array of counts."
        ) from None
    if tensor.ndim < 3:
        raise DataError(
            f"{owner} got N of shape {tensor.shape}; it needs (n_pred, n_labels or 1, L_1, "
            "..., L_m)."
        )
    if not np.isfinite(tensor).all() or (tensor < 0).any():
        raise DataError(f"{owner}: N must be finite and non-negative; it holds counts.")
    if tensor.sum() == 0:
        raise DataError(f"{owner}: N is all zero (n = 0).")
    if missing is not None and np.shape(missing) != (tensor.ndim - 2,):
        raise ParameterError(
            f"{owner} got missing={missing!r}; give one True or False for each of the "
            f"{tensor.ndim - 2} proxies of N."
        )
    return from_tensor(tensor, missing=missing)
