"""Simulators of the selective-labels family, under the common name of all data."""

from causalfair.risk._simulate_selection import (
    make_heckman_selection,
    make_judges,
    make_probit_selection,
    make_threshold_searches,
)

__all__ = [
    "make_heckman_selection",
    "make_judges",
    "make_probit_selection",
    "make_threshold_searches",
]
