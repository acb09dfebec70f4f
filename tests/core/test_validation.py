"""Checks of single arrays and their messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalfair._core import validation as v
from causalfair.exceptions import DataError, OverlapWarning, ParameterError


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0, 1, 1], (0, 1)),
        ([True, False, True], (False, True)),
        ([0.0, 1.0, 0.0], (0, 1)),
        (["control", "drug", "drug"], ("control", "drug")),
        (np.array(["b", "a", "b"], dtype=object), ("a", "b")),
        ([1, 2, 2], (1, 2)),
    ],
)
def test_binary_codings(values, levels):
    role = v.check_binary(values, "treatment", owner="T.fit")
    assert role.levels == levels
    np.testing.assert_array_equal(role.values, np.asarray(values) == levels[1])


def test_binary_treated_level_and_constant():
    role = v.check_binary(["a", "b"], "treatment", owner="T.fit", treated_level="a")
    np.testing.assert_array_equal(role.values, [1, 0])
    assert v.check_binary(np.ones(3), "z", owner="T.fit").values.tolist() == [1, 1, 1]
    with pytest.raises(DataError, match="treated_level='c' is not a value"):
        v.check_binary(["a", "b"], "treatment", owner="T.fit", treated_level="c")


def test_binary_refuses_many_levels_and_missing():
    with pytest.raises(DataError, match=r"takes 3 \(0, 1, 2\). Recode"):
        v.check_binary([0, 1, 2], "instrument", owner="T.fit")
    with pytest.raises(DataError, match="1 missing"):
        v.check_binary([0, 1, np.nan], "instrument", owner="T.fit")
    with pytest.raises(DataError, match="1 missing"):
        v.check_binary(np.array(["a", None, "b"], dtype=object), "z", owner="T.fit")


def test_numeric_messages():
    with pytest.raises(DataError, match="must be numeric; got values such as 'a'"):
        v.check_numeric(["a", "b"], "y", owner="T.fit")
    with pytest.raises(DataError, match=r"shape \(2, 2\)"):
        v.check_numeric(np.eye(2), "y", owner="T.fit")
    with pytest.raises(DataError, match="1 infinite"):
        v.check_numeric([1.0, np.inf], "y", owner="T.fit")
    with pytest.raises(DataError, match="empty"):
        v.check_numeric([], "y", owner="T.fit")
    np.testing.assert_array_equal(v.check_numeric([[1], [2]], "y", owner="T.fit"), [1, 2])


def test_numeric_copies():
    given_array = np.arange(3.0)
    v.check_numeric(given_array, "y", owner="T.fit")[0] = 9
    assert given_array[0] == 0


def test_matrix_messages():
    with pytest.raises(DataError, match="reshape"):
        v.check_matrix(np.arange(3.0), "X", owner="T.fit")
    with pytest.raises(DataError, match=r"1 missing value\(s\) in 1 of 2"):
        v.check_matrix([[1.0, np.nan]], "X", owner="T.fit")
    assert np.isnan(v.check_matrix([[1.0, np.nan]], "X", owner="T.fit", allow_nan=True)).any()
    with pytest.raises(DataError, match="Encode"):
        v.check_matrix([["a", "b"]], "X", owner="T.fit")


def test_probability_and_level():
    with pytest.raises(DataError, match=r"1 of 2 value\(s\) do not \(range -0.1 to 0.5\)"):
        v.check_probability([0.5, -0.1], "propensity", owner="T.fit")
    for bad in (95, 0, 1, "x"):
        with pytest.raises(ParameterError, match="strictly between 0 and 1"):
            v.check_level(bad)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.001, 0.4))
def test_clipping_counts_what_it_changes(values, clip):
    p = np.array(values)
    clipped, count = v.clip_probability(p, clip, owner="T", what="propensity", warn_share=1.0)
    assert count == (clipped != p).sum()
    assert clipped.min() >= clip
    assert clipped.max() <= 1 - clip


def test_clipping_warns_with_counts():
    p = np.r_[np.zeros(3), np.ones(1), np.full(6, 0.5)]
    with pytest.warns(
        OverlapWarning, match="3 of 10 values of the propensity lie below 0.01 and 1"
    ):
        v.clip_probability(p, 0.01, owner="T.fit", what="propensity")


def test_suggestions():
    assert v.suggest("treat", ["treated", "age"]) == " Did you mean 'treated'?"
    assert v.suggest("qqq", ["treated", "age"]) == ""
