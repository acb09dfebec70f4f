"""Simulators of the invalid-instrument family, under the common name of all data."""

from causalfair.iv._simulate import make_invalid_instruments, make_invalid_iv

__all__ = ["make_invalid_instruments", "make_invalid_iv"]
