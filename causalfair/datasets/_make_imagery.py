"""Simulated trials with images."""

from causalfair.imagery._simulate import make_image_sequence_trial, make_image_types_trial

__all__ = ["make_image_sequence_trial", "make_image_types_trial"]
