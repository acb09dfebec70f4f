"""Monotone integer searches used to invert the width calculators."""

from __future__ import annotations

import math
from collections.abc import Callable

Value = Callable[[int], float]


def largest_within(value: Value, limit: float, *, cap: int) -> int:
    """Largest k in 1..cap with ``value(k) <= limit`` for increasing `value`; 0 when none."""
    first = value(1)
    if not first <= limit:
        return 0
    low, low_value, step = 1, first, 4
    while True:
        trial = min(low * step, cap)
        trial_value = value(trial)
        if not trial_value <= limit:
            return _crossing(value, limit, low, low_value, trial, trial_value)[0]
        if trial == cap:
            return cap
        low, low_value, step = trial, trial_value, step * 4


def smallest_within(value: Value, limit: float, *, cap: int, low: int = 2) -> int:
    """Smallest n in low..cap with ``value(n) <= limit`` for decreasing `value`; 0 when none."""
    low_value = value(low)
    if low_value <= limit:
        return low
    while True:
        # most radii fall like a root of n or a little slower
        step = 8.0 if math.isinf(low_value) else min(8.0, 1.1 * (low_value / limit) ** 2)
        trial = min(max(low + 1, math.ceil(low * step)), cap)
        trial_value = value(trial)
        if trial_value <= limit:
            return _crossing(value, limit, low, low_value, trial, trial_value)[1]
        if trial == cap:
            return 0
        low, low_value = trial, trial_value


def _crossing(
    value: Value, limit: float, low: int, low_value: float, high: int, high_value: float
) -> tuple[int, int]:
    """Neighbours between which a monotone `value` crosses the limit.

    Interpolates in log-log scale, with a bisection every third step to be safe.
    """
    turn = 0
    inside = low_value <= limit
    while high - low > 1:
        turn += 1
        share = 0.5
        if turn % 3 and 0 < low_value < math.inf and high_value not in (0.0, low_value, math.inf):
            share = math.log(limit / low_value) / math.log(high_value / low_value)
        middle = math.floor(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
        # aim one past the crossing, so that both ends close in
        middle = min(max(middle + turn % 2, low + 1), high - 1)
        middle_value = value(middle)
        if (middle_value <= limit) == inside:
            low, low_value = middle, middle_value
        else:
            high, high_value = middle, middle_value
    return low, high
