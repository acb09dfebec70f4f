"""Simulators of heterogeneous effects, under the common name of all data."""

from causalfair.forest._simulate import make_cluster_trial, make_heterogeneous_effects

__all__ = ["make_cluster_trial", "make_heterogeneous_effects"]
