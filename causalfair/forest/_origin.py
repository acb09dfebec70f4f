"""Arrays that remember which model they came from, so that misuse can be refused."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ModelArray", "origin_of"]


class ModelArray(np.ndarray[Any, np.dtype[np.float64]]):
    """A float array with an ``origin``: (kind, identity of the fit).

    Kinds are ``"scores"``, ``"out-of-sample"`` (out-of-bag or out-of-fold effects of the training
    rows) and ``"in-sample"``. Slices and arithmetic keep it; ``numpy.asarray`` drops it.
    """

    origin: tuple[str, str] | None

    @classmethod
    def tag(cls, values: Any, kind: str, identity: str) -> ModelArray:
        """View ``values`` with an origin."""
        array = np.asarray(values, dtype=np.float64).view(cls)
        array.origin = (kind, identity)
        return array

    def __array_finalize__(self, parent: Any) -> None:
        self.origin = getattr(parent, "origin", None)

    def __reduce__(self) -> Any:
        """Pickle as a plain array: an origin means nothing in another process."""
        return np.asarray(self).__reduce__()

    def __repr__(self) -> str:
        return repr(np.asarray(self))


def origin_of(values: Any) -> tuple[str, str] | None:
    """(kind, identity) where known."""
    return getattr(values, "origin", None)
