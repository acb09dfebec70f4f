"""Checks of single arrays; every message names the argument, the value seen and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError, OverlapWarning, ParameterError

__all__ = [
    "BinaryRole",
    "check_binary",
    "check_lengths",
    "check_level",
    "check_matrix",
    "check_no_missing",
    "check_numeric",
    "check_probability",
    "clip_probability",
    "missing_mask",
    "suggest",
]


@dataclass(frozen=True, slots=True)
class BinaryRole:
    """A two-valued role coded 0/1.

    Attributes
    ----------
    values : numpy.ndarray of shape (n,)
        0.0 for the lower level, 1.0 for the upper.
    levels : tuple
        The original values coded 0 and 1, in this order.
    """

    values: FloatArray
    levels: tuple[Any, Any]


def suggest(name: str, candidates: Iterable[str]) -> str:
    """``" Did you mean 'treated'?"``, or nothing where no candidate is near."""
    near = difflib.get_close_matches(name, [str(c) for c in candidates], n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def missing_mask(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True where a value is NaN, None or NaT."""
    if values.dtype.kind in "biuSU":
        return np.zeros(values.shape, dtype=bool)
    if values.dtype.kind in "fc":
        return np.asarray(np.isnan(values), dtype=bool)
    import pandas as pd

    return np.asarray(pd.isna(values), dtype=bool)


def check_no_missing(values: np.ndarray[Any, Any], name: str, *, owner: str) -> None:
    """Raise where a role has missing values: rows are never dropped silently."""
    count = int(missing_mask(values).sum())
    if count:
        raise DataError(
            f"{owner}: {name} has {count} missing value(s) in {len(values)} rows; "
            "drop or impute those rows first."
        )


def _as_1d(values: Any, name: str, owner: str) -> np.ndarray[Any, Any]:
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"{owner}: {name} has shape {array.shape}; give a one-dimensional array (n_samples,)."
        )
    if array.size == 0:
        raise DataError(f"{owner}: {name} is empty; give at least one row.")
    return array


def check_numeric(values: Any, name: str, *, owner: str) -> FloatArray:
    """Finite float64 vector, a copy in C order.

    Raises
    ------
    DataError
        Not one-dimensional, not numeric, or with NaN or infinite values.
    """
    array = _as_1d(values, name, owner)
    check_no_missing(array, name, owner=owner)
    try:
        # NumPy would turn dates into counts and cut complex numbers; neither is meant.
        if array.dtype.kind in "mMcSU":
            raise TypeError(f"dtype {array.dtype} is not numeric")
        out = np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        example = array.flat[0].item() if isinstance(array.flat[0], np.generic) else array.flat[0]
        raise DataError(
            f"{owner}: {name} must be numeric; got values such as {example!r} "
            f"(dtype {array.dtype}). Recode it to numbers first."
        ) from error
    _check_finite(out, name, owner)
    return out


def _check_finite(array: FloatArray, name: str, owner: str) -> None:
    infinite = int(np.isinf(array).sum())
    if infinite:
        raise DataError(
            f"{owner}: {name} has {infinite} infinite value(s) in {len(array)} rows; "
            "remove or recode them."
        )


def check_matrix(values: Any, name: str, *, owner: str, allow_nan: bool = False) -> FloatArray:
    """Finite float64 matrix in C order; NaN only where ``allow_nan``.

    Raises
    ------
    DataError
        Not two-dimensional, not numeric, or with values that are not allowed.
    """
    array = np.asarray(values)
    if array.ndim != 2:
        raise DataError(
            f"{owner}: {name} has shape {array.shape}; give a two-dimensional array "
            "(n_samples, n_features), for instance with reshape(-1, 1)."
        )
    try:
        if array.dtype.kind in "mMcSU":
            raise TypeError(f"dtype {array.dtype} is not numeric")
        out = np.ascontiguousarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{owner}: {name} must be numeric; got dtype {array.dtype}. Encode text and "
            "categories first, or use a formula."
        ) from error
    missing = int(np.isnan(out).sum())
    if missing and not allow_nan:
        columns = int(np.isnan(out).any(axis=0).sum())
        raise DataError(
            f"{owner}: {name} has {missing} missing value(s) in {columns} of {out.shape[1]} "
            "column(s); drop or impute them first."
        )
    _check_finite(out, name, owner)
    return out


def check_binary(
    values: Any, name: str, *, owner: str, treated_level: Any | None = None
) -> BinaryRole:
    """Code a two-valued role 0/1.

    Accepts booleans, 0/1, and any two levels; the larger (in sort order) is coded 1 unless
    ``treated_level`` names the one to code 1. A constant 0/1 or Boolean role passes, with the
    levels (0, 1): whether it may be constant is the caller's question.

    Raises
    ------
    DataError
        Missing values, or a number of levels other than two.
    """
    array = _as_1d(values, name, owner)
    check_no_missing(array, name, owner=owner)
    listed = _levels(array)
    if set(listed) <= {0, 1}:
        lo, hi = (False, True) if array.dtype.kind == "b" else (0, 1)
    elif len(listed) == 2:
        lo, hi = listed
    else:
        shown = ", ".join(map(repr, listed[:5])) + (", ..." if len(listed) > 5 else "")
        raise DataError(
            f"{owner}: {name} must take two values; it takes {len(listed)} ({shown}). "
            "Recode it to 0/1."
        )
    if treated_level is not None:
        if treated_level not in (lo, hi):
            raise DataError(
                f"{owner}: treated_level={treated_level!r} is not a value of {name}; "
                f"its values are {lo!r} and {hi!r}."
            )
        if treated_level == lo:
            lo, hi = hi, lo
    return BinaryRole(np.asarray(array == hi, dtype=np.float64), (lo, hi))


def _levels(array: np.ndarray[Any, Any]) -> list[Any]:
    """Distinct values in sort order; values that cannot be compared sort as text."""
    if array.dtype.kind != "O":
        return list(np.unique(array).tolist())
    distinct = set(array.tolist())
    kinds = {type(value) for value in distinct}
    return sorted(distinct) if len(kinds) == 1 else sorted(distinct, key=str)


def check_probability(values: Any, name: str, *, owner: str) -> FloatArray:
    """Float64 vector inside [0, 1].

    Raises
    ------
    DataError
        A value lies outside [0, 1], or is not a number.
    """
    array = check_numeric(values, name, owner=owner)
    outside = int(((array < 0) | (array > 1)).sum())
    if outside:
        raise DataError(
            f"{owner}: {name} must lie in [0, 1]; {outside} of {len(array)} value(s) do not "
            f"(range {array.min():.4g} to {array.max():.4g})."
        )
    return array


def clip_probability(
    values: FloatArray, clip: float, *, owner: str, what: str, warn_share: float = 0.1
) -> tuple[FloatArray, int]:
    """Clip to ``[clip, 1 - clip]`` and count.

    Parameters
    ----------
    values : numpy.ndarray
        Probabilities of any shape.
    clip : float
        Bound in [0, 0.5).
    owner, what : str
        Who clips, and what is clipped, for the message.
    warn_share : float, default 0.1
        Share of clipped values above which an :class:`OverlapWarning` is given.

    Returns
    -------
    clipped : numpy.ndarray
        Clipped copy.
    count : int
        How many values were clipped: report it, it is never silent.
    """
    low, high = int((values < clip).sum()), int((values > 1 - clip).sum())
    if low + high > warn_share * values.size:
        warn(
            f"{owner}: {low} of {values.size} values of the {what} lie below {clip:g} and {high} "
            f"above {1 - clip:g}; they were clipped. Overlap is poor: consider a narrower target "
            "population.",
            OverlapWarning,
        )
    return np.clip(values, clip, 1 - clip), low + high


def check_level(level: float) -> float:
    """Confidence level strictly between 0 and 1.

    Raises
    ------
    ParameterError
        It is not; a percentage such as 95 is the usual mistake.
    """
    if not (isinstance(level, (int, float, np.floating)) and 0 < level < 1):
        raise ParameterError(
            f"level={level!r} must lie strictly between 0 and 1, for instance 0.95."
        )
    return float(level)


def check_lengths(*, owner: str, **arrays: Any) -> int:
    """Common length of the arrays that are not None.

    Raises
    ------
    DataError
        The lengths differ.
    """
    lengths = {name: len(array) for name, array in arrays.items() if array is not None}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{owner}: lengths differ ({shown}); every array needs one entry a row.")
    return next(iter(lengths.values()))
