"""Monotone integer searches used to invert the width calculators."""

from __future__ import annotations

import math
from collections.abc import Callable


def largest_within(value: Callable[[int], float], limit: float, *, cap: int) -> int:
    """Largest k in 1..cap with ``value(k) <= limit`` for increasing `value`; 0 when none."""
    first = value(1)
    if not first <= limit:
        return 0
    low, low_value, high = 1, first, 0
    step, high_value = 4, math.inf
    while high == 0:
        trial = min(low * step, cap)
        trial_value = value(trial)
        if trial_value <= limit:
            low, low_value = trial, trial_value
            if trial == cap:
                return cap
            step *= 4
        else:
            high, high_value = trial, trial_value
    return _bracket(value, limit, low, low_value, high, high_value)


def _bracket(
    value: Callable[[int], float],
    limit: float,
    low: int,
    low_value: float,
    high: int,
    high_value: float,
) -> int:
    """Interpolate in log-log scale, with a bisection every third step to be safe."""
    turn = 0
    while high - low > 1:
        turn += 1
        share = 0.5
        if turn % 3 and math.isfinite(high_value) and high_value > low_value > 0:
            share = math.log(limit / low_value) / math.log(high_value / low_value)
        middle = math.floor(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
        # aim one past the crossing, so that both ends close in
        middle = min(max(middle + turn % 2, low + 1), high - 1)
        middle_value = value(middle)
        if middle_value <= limit:
            low, low_value = middle, middle_value
        else:
            high, high_value = middle, middle_value
    return low


def smallest_within(value: Callable[[int], float], limit: float, *, cap: int) -> int:
    """Smallest n in 2..cap with ``value(n) <= limit`` for decreasing `value`; 0 when none."""
    if value(2) <= limit:
        return 2
    high = 4
    while not value(high) <= limit:
        if high >= cap:
            return 0
        high = min(high * 8, cap)
    low = max(2, high // 8)
    while high - low > 1:
        middle = math.isqrt(low * high) if high > 2 * low else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        low, high = (low, middle) if value(middle) <= limit else (middle, high)
    return high
