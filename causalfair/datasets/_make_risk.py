"""Simulators of selectively labelled data, under the common name of all data."""

from causalfair.risk._simulate import make_selective_decisions, make_selective_labels

__all__ = ["make_selective_decisions", "make_selective_labels"]
