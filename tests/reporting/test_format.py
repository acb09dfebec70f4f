from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalfair.reporting.format import (
    decimals_for,
    format_count,
    format_estimate,
    format_number,
    format_p,
    format_percent,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("std_error", "decimals"),
    [
        (2.187, 1),
        (0.0213, 3),
        (0.0996, 2),  # rounds up to 0.10
        (0.0994, 3),
        (9.96, 0),  # rounds up to 10
        (12.3, 0),
        (2187.0, 0),
        (0.0, None),
        (-1.0, None),
        (NAN, None),
        (math.inf, None),
        (1e-9, None),
    ],
)
def test_standard_error_has_two_significant_digits(std_error, decimals):
    assert decimals_for(std_error) == decimals


@given(st.floats(1e-5, 9.9))
def test_two_digits_of_the_standard_error_survive(std_error):
    shown = format_number(std_error, decimals_for(std_error))
    assert float(shown) == pytest.approx(float(f"{std_error:.1e}"), rel=1e-12)


NUMBERS = st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf])


@given(NUMBERS, st.none() | st.integers(0, 6))
def test_every_number_reads_back(value, decimals):
    text = format_number(value, decimals)
    if math.isnan(value):
        assert text == "n/a"
    elif decimals is None:
        assert float(text.replace(",", "")) == pytest.approx(value, rel=6e-4)
    else:
        assert float(text.replace(",", "")) == pytest.approx(
            value, rel=6e-4, abs=0.5 * 10**-decimals
        )


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (1234567.8, None, "1,234,568"),
        (0.5, None, "0.5"),
        (0.0, None, "0"),
        (0.0, 2, "0.00"),
        (-0.0001, 2, "0.00"),
        (-1.005, 1, "-1.0"),
        (math.inf, 3, "inf"),
        (-math.inf, None, "-inf"),
        (NAN, 3, "n/a"),
        (3.2e-11, None, "3.2e-11"),
        (2.5e12, 1, "2.5e+12"),
    ],
)
def test_numbers(value, decimals, text):
    assert format_number(value, decimals) == text


@pytest.mark.parametrize(
    ("p_value", "text"),
    [
        (0.0128, "0.013"),
        (0.000999, "<0.001"),
        (0.001, "0.001"),
        (0.99949, "0.999"),
        (0.9996, ">0.999"),
        (1.0, "1.000"),
        (0.0, "<0.001"),
        (NAN, "n/a"),
    ],
)
def test_p_values(p_value, text):
    assert format_p(p_value) == text


def test_estimate_and_interval_share_decimals():
    cells = format_estimate(7.6142, 2.1873, 3.3272, 11.9012)
    assert (cells.estimate, cells.std_error, cells.interval) == ("7.6", "2.2", "[3.3, 11.9]")


def test_missing_standard_error_and_open_intervals():
    assert format_estimate(3.0, NAN).interval == "n/a"
    assert format_estimate(3.0, NAN).std_error == "n/a"
    assert format_estimate(3.0, 0.0).std_error == "0"
    assert format_estimate(3.0, 1.0, -math.inf, 5.0).interval == "[-inf, 5.0]"


def test_counts_and_shares():
    assert format_count(9275) == "9,275"
    assert format_count(12) == "12"
    assert format_percent(0.95) == "95%"
    assert format_percent(0.999, 3) == "99.9%"
    assert format_percent(0.1) == "10%"
    assert format_percent(NAN) == "n/a"
