"""One or many instruments, of any kind, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_numeric
from causalfair.exceptions import DataError, RoleError

__all__ = ["InstrumentTerms", "instrument_roles", "instrument_terms"]

PREFIX = "instrument:"
MOST_LEVELS = 50


@dataclass(frozen=True, slots=True)
class InstrumentTerms:
    """Functions of the instruments that enter the moments.

    Attributes
    ----------
    columns : (n, K)
        Values.
    names : tuple of str
        Name of each column.
    """

    columns: FloatArray
    names: tuple[str, ...]


def instrument_roles(instrument: Any, owner: str) -> dict[str, Any]:
    """Roles for one or several instruments.

    A name or a vector is one instrument; a list of names, a frame, or a matrix several.
    """
    if isinstance(instrument, (list, tuple)) and all(isinstance(v, str) for v in instrument):
        if not instrument or len(set(instrument)) < len(instrument):
            raise RoleError(
                f"{owner} got instrument={list(instrument)!r}; name each instrument once."
            )
        return _several({name: name for name in instrument})
    if hasattr(instrument, "columns") and not isinstance(instrument, np.ndarray):
        return _several({str(name): instrument[name] for name in instrument.columns})
    if not isinstance(instrument, str):
        array = np.asarray(instrument)
        if array.ndim == 2 and array.shape[1] > 1:
            return _several({str(j + 1): array[:, j] for j in range(array.shape[1])})
    return {"instrument": instrument}


def _several(values: Mapping[str, Any]) -> dict[str, Any]:
    if len(values) == 1:
        return {"instrument": next(iter(values.values()))}
    return {f"{PREFIX}{name}": value for name, value in values.items()}


def instrument_terms(
    roles: Mapping[str, Any], names: Mapping[str, str], kind: str, owner: str
) -> InstrumentTerms:
    """Columns for the moments.

    Parameters
    ----------
    kind : {"linear", "indicators", "quadratic"}
        Each numeric instrument itself; one indicator a level but the first; itself and its square.
        Text and Boolean instruments get indicators always.
    """
    columns: list[FloatArray] = []
    labels: list[str] = []
    for role, values in roles.items():
        if not role.startswith("instrument"):
            continue
        name = role.removeprefix(PREFIX) if role.startswith(PREFIX) else names[role]
        array = np.asarray(values)
        _check_varies(array, name, owner)
        if kind == "indicators" or array.dtype.kind not in "iuf":
            _add_indicators(array, name, owner, columns, labels)
            continue
        number = check_numeric(array, f"instrument {name!r}", owner=owner)
        columns.append(number)
        labels.append(name)
        if kind == "quadratic" and np.unique(number).size > 2:
            columns.append((number - number.mean()) ** 2)
            labels.append(f"{name}^2")
    return InstrumentTerms(np.column_stack(columns), tuple(labels))


def _check_varies(array: Any, name: str, owner: str) -> None:
    first = array[0]
    if np.all(array == first):
        raise DataError(
            f"{owner}: instrument {name!r} takes one value ({first}) in all {len(array)} rows; it "
            "must vary. Leave it out."
        )


def _add_indicators(
    array: Any, name: str, owner: str, columns: list[FloatArray], labels: list[str]
) -> None:
    levels = np.unique(array if array.dtype.kind != "O" else array.astype(str))
    if levels.size > MOST_LEVELS:
        raise DataError(
            f"{owner}: instrument {name!r} has {levels.size} levels; give at most {MOST_LEVELS}, "
            "or recode it to a number."
        )
    comparable = array if array.dtype.kind != "O" else array.astype(str)
    for level in levels[1:]:
        columns.append(np.asarray(comparable == level, dtype=np.float64))
        labels.append(name if levels.size == 2 else f"{name}[{level}]")
