"""From resolved roles to the checked arrays of the binary-instrument estimators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.roles import RoleData
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_binary, check_numeric
from causalfair.exceptions import CausalFairWarning, DataError

__all__ = ["InstrumentData", "OneSided", "check_instrument_data", "check_size"]

OneSided = Literal["auto"] | bool
MIN_ROWS = 50
MIN_ARM_ROWS = 20


@dataclass(frozen=True, slots=True)
class InstrumentData:
    """Checked arrays of a study with a binary instrument.

    Attributes
    ----------
    z, a, y : (n,)
        Instrument (0/1), treatment (0/1 if binary) and outcome.
    weight : (n,) or None
        Sample weights that sum to ``n``.
    cluster : (n, c) or None
        Cluster codes.
    instrument_levels, treatment_levels
        Values coded 0 and 1; ``treatment_levels`` is ``None`` for a continuous treatment.
    constant_arm
        Arm of the instrument in which the treatment does not vary; ``None`` when it varies in both.
    constant_value
        The treatment in that arm.
    """

    z: FloatArray
    a: FloatArray
    y: FloatArray
    weight: FloatArray | None
    cluster: IntArray | None
    instrument_levels: tuple[Any, Any]
    treatment_levels: tuple[Any, Any] | None
    constant_arm: int | None
    constant_value: float

    @property
    def binary(self) -> bool:
        """Whether the treatment is binary."""
        return self.treatment_levels is not None

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.y.size)

    def codings(self) -> list[tuple[str, str]]:
        """Which value of each binary role was coded 1, where that was not already 1."""
        pairs = [("instrument", self.instrument_levels), ("treatment", self.treatment_levels)]
        return [
            (f"{role} coding", f"{levels[0]!r} is 0, {levels[1]!r} is 1")
            for role, levels in pairs
            if levels is not None and tuple(levels) != (0, 1)
        ]


def check_size(n: int, owner: str, what: str = "rows", least: int = MIN_ROWS) -> None:
    """Refuse fewer rows than the large-sample theory can bear."""
    if n < least:
        raise DataError(f"{owner} got {n} {what}; it needs at least {least}.")


def check_instrument_data(data: RoleData, *, one_sided: OneSided = "auto") -> InstrumentData:
    """Check sizes, codings and variation of the roles of a binary-instrument estimator.

    Raises
    ------
    DataError
        If there are too few rows, the instrument is not binary, or instrument, treatment or outcome
        do not vary as needed.
    """
    owner = data.owner
    if data.y is None:
        raise DataError(f"{owner} needs the outcome: give y, an array or a column name.")
    counted = np.ones(data.n, dtype=bool) if data.sample_weight is None else data.sample_weight > 0
    check_size(int(counted.sum()), owner, "rows" if counted.all() else "rows of positive weight")
    z, z_levels = _binary_instrument(data)
    a, a_levels = _treatment(data)
    for arm in (0, 1):
        level = z_levels[arm]
        count = int((counted & (z == arm)).sum())
        check_size(
            count,
            owner,
            f"rows with instrument {data.names['instrument']!r} = {level!r}",
            MIN_ARM_ROWS,
        )
    constant, value = _constant_arm(z, a, data, z_levels, one_sided)
    return InstrumentData(
        z, a, data.y, data.sample_weight, data.cluster, z_levels, a_levels, constant, value
    )


def _binary_instrument(data: RoleData) -> tuple[FloatArray, tuple[Any, Any]]:
    owner, name = data.owner, data.names["instrument"]
    values = np.asarray(data.roles["instrument"])
    distinct = np.unique(values.astype(str) if values.dtype.kind == "O" else values)
    if distinct.size == 1:
        raise DataError(
            f"{owner}: instrument {name!r} takes one value ({distinct[0]}) in all {data.n} rows; "
            "it must vary."
        )
    if distinct.size > 2:
        raise DataError(
            f"{owner}: instrument {name!r} takes {distinct.size} values; this estimator needs a "
            "binary instrument. Use MRGenius for multi-level, continuous or several instruments."
        )
    role = check_binary(values, f"instrument {name!r}", owner=owner)
    return role.values, role.levels


def _treatment(data: RoleData) -> tuple[FloatArray, tuple[Any, Any] | None]:
    owner, name = data.owner, data.names["treatment"]
    values = np.asarray(data.roles["treatment"])
    distinct = np.unique(values.astype(str) if values.dtype.kind == "O" else values)
    if distinct.size == 1:
        raise DataError(
            f"{owner}: no variation in treatment {name!r}: it takes one value ({distinct[0]}) in "
            f"all {data.n} rows."
        )
    if distinct.size == 2:
        role = check_binary(values, f"treatment {name!r}", owner=owner)
        return role.values, role.levels
    return check_numeric(values, f"treatment {name!r}", owner=owner), None


def _constant_arm(
    z: FloatArray, a: FloatArray, data: RoleData, levels: tuple[Any, Any], one_sided: OneSided
) -> tuple[int | None, float]:
    """Find the arm without variation in the treatment, if one-sided non-compliance is allowed."""
    owner, name = data.owner, data.names["treatment"]
    constant = [arm for arm in (0, 1) if np.ptp(a[z == arm]) == 0.0]
    if not constant:
        if one_sided is True:
            raise DataError(
                f"{owner} got one_sided=True, but treatment {name!r} varies in both arms of the "
                "instrument. Use one_sided='auto'."
            )
        return None, 0.0
    if len(constant) == 2:
        raise DataError(
            f"{owner}: treatment {name!r} is a function of the instrument: it does not vary within "
            "either arm, so the instrument moves no variance. This estimator cannot be used."
        )
    arm = constant[0]
    value = float(a[z == arm][0])
    message = (
        f"{owner}: treatment {name!r} takes the one value {value:g} in all "
        f"{int((z == arm).sum()):,} rows with instrument {data.names['instrument']!r} = "
        f"{levels[arm]!r}"
    )
    if one_sided is False:
        raise DataError(
            f"{message}, and one_sided=False. Use one_sided='auto' to fit the one-sided version."
        )
    if one_sided == "auto":
        warn(
            f"{message}: one-sided non-compliance. The answer then rests on no unmeasured "
            f"confounding among the rows with instrument = {levels[1 - arm]!r}. Give "
            "one_sided=True to accept this.",
            CausalFairWarning,
        )
    return arm, value
