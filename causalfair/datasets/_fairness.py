"""Data of the fairness family."""

from __future__ import annotations

from causalfair.fairness._simulate import (
    make_clustered_features,
    make_names_and_places,
    make_weak_proxies,
)

__all__ = ["make_clustered_features", "make_names_and_places", "make_weak_proxies"]
