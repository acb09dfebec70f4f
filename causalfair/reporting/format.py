"""One way to write a number, so that every table of the package agrees.

A standard error is written to two significant digits, and the estimate and its interval to the
same number of decimals: digits beyond that are noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = [
    "EstimateCells",
    "decimals_for",
    "format_count",
    "format_estimate",
    "format_number",
    "format_p",
    "format_percent",
]

MISSING = "n/a"
_MAX_DECIMALS = 6
_SCIENTIFIC_FROM = 1e9


@dataclass(frozen=True, slots=True)
class EstimateCells:
    """The cells of one row of a table of estimates, ready to print.

    Attributes
    ----------
    estimate, std_error, interval : str
        Point, standard error and interval with the same number of decimals.
    """

    estimate: str
    std_error: str
    interval: str


def decimals_for(std_error: float, *, significant: int = 2) -> int | None:
    """Count the decimals that show ``std_error`` to ``significant`` digits.

    Parameters
    ----------
    std_error : float
        A standard error, in the units of the estimate.
    significant : int, default=2
        Significant digits of the standard error.

    Returns
    -------
    int or None
        Decimals, at least zero. ``None`` when fixed decimals cannot show the value: it is zero,
        not finite, or so small that scientific notation reads better.

    Examples
    --------
    >>> decimals_for(0.0213), decimals_for(0.0996), decimals_for(2187.0)
    (3, 2, 0)
    """
    if not math.isfinite(std_error) or std_error <= 0.0:
        return None
    # Rounding may carry into the next digit (0.0996 -> 0.10), so round before counting digits.
    exponent = int(f"{std_error:.{significant - 1}e}".partition("e")[2])
    decimals = max(0, significant - 1 - exponent)
    return decimals if decimals <= _MAX_DECIMALS else None


def format_number(value: float, decimals: int | None = None, *, significant: int = 4) -> str:
    """Write a number with thousands separators.

    Parameters
    ----------
    value : float
        The number. NaN is written ``n/a``, infinities ``inf`` and ``-inf``.
    decimals : int, optional
        Fixed number of decimals; by default as many as ``significant`` digits need.
    significant : int, default=4
        Significant digits when ``decimals`` is not given. Whole digits are never dropped.

    Returns
    -------
    str
        The number as text.

    Examples
    --------
    >>> format_number(12345.678), format_number(0.0123456), format_number(7.25, 1)
    ('12,346', '0.01235', '7.2')
    >>> format_number(float("nan")), format_number(-1e-9, 3), format_number(3.2e-11)
    ('n/a', '0.000', '3.2e-11')
    """
    value = float(value)
    if math.isnan(value):
        return MISSING
    fixed = decimals
    if fixed is None and value != 0.0:
        fixed = decimals_for(abs(value), significant=significant)
    if fixed is None or not abs(value) < _SCIENTIFIC_FROM:
        return f"{value:.{significant}g}"
    text = f"{_no_minus_zero(value, fixed):,.{fixed}f}"
    return text if decimals is not None else _drop_zeros(text)


def format_count(count: int) -> str:
    """Write a count with thousands separators.

    Parameters
    ----------
    count : int
        A number of rows, clusters, draws, and the like.

    Returns
    -------
    str
        The count as text.

    Examples
    --------
    >>> format_count(9275)
    '9,275'
    """
    return f"{int(count):,}"


def format_percent(share: float, decimals: int = 1) -> str:
    """Write a share between zero and one as a percentage.

    Parameters
    ----------
    share : float
        The share; NaN is written ``n/a``.
    decimals : int, default=1
        Decimals of the percentage; trailing zeros are dropped.

    Returns
    -------
    str
        The percentage as text.

    Examples
    --------
    >>> format_percent(0.95), format_percent(0.12345)
    ('95%', '12.3%')
    """
    if math.isnan(share):
        return MISSING
    return _drop_zeros(f"{100 * share:,.{decimals}f}") + "%"


def format_p(p_value: float) -> str:
    """Write a p-value to three decimals, ``<0.001`` below that.

    Parameters
    ----------
    p_value : float
        A p-value between zero and one, or NaN where a test does not apply.

    Returns
    -------
    str
        The p-value as text.

    Examples
    --------
    >>> format_p(0.0128), format_p(1e-9), format_p(0.9999), format_p(float("nan"))
    ('0.013', '<0.001', '>0.999', 'n/a')
    """
    if math.isnan(p_value):
        return MISSING
    if p_value < 0.001:
        return "<0.001"
    if 0.9995 <= p_value < 1.0:
        return ">0.999"
    return f"{p_value:.3f}"


def format_estimate(
    estimate: float, std_error: float, low: float = math.nan, high: float = math.nan
) -> EstimateCells:
    """Write an estimate, its standard error and its interval to the same decimals.

    Parameters
    ----------
    estimate, std_error : float
        Point and standard error; the standard error fixes the decimals.
    low, high : float, optional
        Ends of the interval; the interval is ``n/a`` when both are NaN.

    Returns
    -------
    EstimateCells
        The three cells.

    Examples
    --------
    >>> format_estimate(7.6142, 2.1873, 3.3272, 11.9012)
    EstimateCells(estimate='7.6', std_error='2.2', interval='[3.3, 11.9]')
    """
    decimals = decimals_for(std_error)

    def cell(value: float) -> str:
        return format_number(value, decimals)

    interval = MISSING
    if not (math.isnan(low) and math.isnan(high)):
        interval = f"[{cell(low)}, {cell(high)}]"
    return EstimateCells(cell(estimate), cell(std_error), interval)


def _drop_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _no_minus_zero(value: float, decimals: int) -> float:
    rounded = round(value, decimals)
    return 0.0 if rounded == 0.0 else value
