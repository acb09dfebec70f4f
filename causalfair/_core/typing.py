"""Type names used across the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ArrayLike",
    "BoolArray",
    "CovariatesLike",
    "FloatArray",
    "FrameLike",
    "IntArray",
    "RandomState",
    "RoleLike",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.intp]
BoolArray: TypeAlias = NDArray[np.bool_]
FrameLike: TypeAlias = Any
"""A pandas, polars or pyarrow table, or anything narwhals can wrap."""
RoleLike: TypeAlias = ArrayLike | str
"""An array, or the name of a column of ``X``."""
CovariatesLike: TypeAlias = str | Sequence[str] | None
"""``"all"``, a list of columns, a ``"~ formula"``, or ``None``."""
RandomState: TypeAlias = (
    int | np.random.SeedSequence | np.random.Generator | np.random.RandomState | None
)
Columns: TypeAlias = Mapping[str, Any]
