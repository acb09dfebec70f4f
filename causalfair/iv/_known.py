"""Nuisance values that the user brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_numeric, check_probability, suggest
from causalfair.exceptions import DataError, ParameterError
from causalfair.iv._data import InstrumentData

__all__ = ["NUISANCE_KEYS", "known_nuisances"]

NUISANCE_KEYS = (
    "instrument",
    "treatment0",
    "treatment1",
    "variance0",
    "variance1",
    "effect",
    "outcome0",
    "outcome1",
    "confounding",
)
_BY_ARM = ("treatment", "variance", "outcome")
# A model of Y - beta A means nothing without its beta.
_NEEDS_EFFECT = ("outcome", "confounding")


def known_nuisances(
    nuisances: Mapping[str, Any] | None, data: InstrumentData, *, owner: str
) -> dict[str, FloatArray]:
    """Check the user's nuisance values and put the two arms of a slot together.

    Parameters
    ----------
    nuisances : mapping or None
        Keys among ``NUISANCE_KEYS``; values of shape ``(n,)`` or scalars.
    data : InstrumentData
        Checked data.
    owner : str
        Who asks, for messages.

    Returns
    -------
    dict of slot to array
        ``(n,)``, or ``(2, n)`` for the slots that have two arms.

    Raises
    ------
    ParameterError
        An unknown key, one arm without the other, a variance for a binary treatment, or outcome or
        confounding values without the effect they belong to.
    DataError
        Wrong length, NaN, or a probability outside [0, 1].
    """
    if nuisances is None:
        return {}
    values = {key: _checked(key, nuisances[key], data, owner) for key in nuisances}
    if data.constant_arm is not None:
        values = _fill_constant_arm(values, data)
    known: dict[str, FloatArray] = {}
    for slot in ("instrument", "treatment", "variance", "effect", "outcome", "confounding"):
        if slot not in _BY_ARM:
            if slot in values:
                known[slot] = values[slot]
            continue
        arms = [key for key in (f"{slot}0", f"{slot}1") if key in values]
        if len(arms) == 1:
            other = f"{slot}{1 - int(arms[0][-1])}"
            raise ParameterError(
                f"{owner}: nuisances has {arms[0]!r} but not {other!r}; give both."
            )
        if arms:
            known[slot] = np.stack([values[key] for key in arms])
    _check_together(known, data, owner)
    return known


def _checked(key: str, value: Any, data: InstrumentData, owner: str) -> FloatArray:
    if key not in NUISANCE_KEYS:
        raise ParameterError(
            f"{owner}: nuisances has the key {key!r}.{suggest(str(key), NUISANCE_KEYS)} "
            f"Keys: {', '.join(NUISANCE_KEYS)}."
        )
    array = np.asarray(value)
    array = np.full(data.n, array) if array.ndim == 0 else array
    name = f"nuisances[{key!r}]"
    if len(array) != data.n:
        raise DataError(
            f"{owner}: {name} has {len(array)} values for {data.n} rows; give one a row, or "
            "a scalar."
        )
    probability = key == "instrument" or (key.startswith("treatment") and data.binary)
    return (check_probability if probability else check_numeric)(array, name, owner=owner)


def _fill_constant_arm(
    values: dict[str, FloatArray], data: InstrumentData
) -> dict[str, FloatArray]:
    """In the arm with a constant treatment its mean is that constant and its variance zero."""
    out = dict(values)
    for slot, constant in (("treatment", data.constant_value), ("variance", 0.0)):
        if f"{slot}0" in out or f"{slot}1" in out:
            out[f"{slot}{data.constant_arm}"] = np.full(data.n, constant)
    return out


def _check_together(known: Mapping[str, FloatArray], data: InstrumentData, owner: str) -> None:
    if "variance" in known and data.binary:
        raise ParameterError(
            f"{owner}: nuisances has a variance, but the treatment is binary: its variance is "
            "lam (1 - lam). Leave 'variance0' and 'variance1' out."
        )
    for slot in _NEEDS_EFFECT:
        if slot in known and "effect" not in known:
            raise ParameterError(
                f"{owner}: nuisances has the {slot} but not the 'effect' it belongs to; give "
                "'effect' as well, or let the outcome and the confounding be learned."
            )
