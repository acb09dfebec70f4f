"""Limiting inner threads is cheap when nested, and still catches libraries loaded late."""

from __future__ import annotations

import sys
import types

import pytest
import threadpoolctl

from causalfair._core.parallel import inner_threads


@pytest.fixture
def limits(monkeypatch):
    entered = []

    class Counted(threadpoolctl.threadpool_limits):
        def __init__(self, limits=None, user_api=None):
            entered.append(limits)
            super().__init__(limits, user_api)

    monkeypatch.setattr(threadpoolctl, "threadpool_limits", Counted)
    return entered


def test_nested_with_the_same_limit_scans_once(limits):
    with inner_threads(1), inner_threads(1), inner_threads(1):
        assert all(pool["num_threads"] == 1 for pool in threadpoolctl.threadpool_info())
    assert limits == [1]
    with inner_threads(1):
        pass
    assert limits == [1, 1]


def test_another_limit_or_a_late_import_scans_again(limits, monkeypatch):
    with inner_threads(1):
        with inner_threads(2):
            pass
        assert limits == [1, 2]
        monkeypatch.setitem(sys.modules, "late_library", types.ModuleType("late_library"))
        with inner_threads(1):
            pass
    assert limits == [1, 2, 1]


def test_limit_is_forgotten_after_an_error(limits):
    with pytest.raises(ZeroDivisionError), inner_threads(1):
        raise ZeroDivisionError
    with inner_threads(1):
        pass
    assert limits == [1, 1]
