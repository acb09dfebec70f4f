"""Places whose images overlap belong in one fold."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import CausalFairWarning
from causalfair.imagery._sequence import ImageSequence
from causalfair.inference.spatial import unit_vectors

__all__ = ["image_groups", "overlap_components", "spatial_groups"]

EARTH = 6_371_000.0
GIANT = 0.5


def overlap_components(coords: FloatArray, width: float) -> IntArray:
    """Connected components of images whose centres are closer than ``width`` metres, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    chord = 2 * np.sin(min(width / EARTH, np.pi) / 2)
    pairs = cKDTree(unit_vectors(coords)).query_pairs(chord, output_type="ndarray")
    n = len(coords)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def image_groups(sequence: ImageSequence, groups: IntArray | None, n: int) -> Any:
    """Groups for folds: clusters joined by shared images; None where nothing is shared."""
    units = np.unique(sequence.image_of_unit, return_inverse=True)[1].ravel()
    if units.max() + 1 == n:
        return groups
    return units if groups is None else _join_partitions(units, groups, n)


def spatial_groups(sequence: ImageSequence, groups: IntArray | None, n: int) -> Any:
    """Groups for folds: clusters joined by overlapping images; unchanged where unknown.

    A component with more than half of the images is cut into blocks of a grid, with a warning.
    """
    if sequence.coords is None or sequence.gsd is None:
        return groups
    width = sequence.gsd * sequence._factor * max(sequence.shape[2:4])
    component = overlap_components(sequence.coords, width)
    if np.bincount(component).max() > GIANT * len(component) and len(component) > 2:
        warn(
            f"ImageSequenceCATE.fit: {np.bincount(component).max()} of {len(component)} images "
            "overlap in one chain; folds are made of blocks of a grid instead, and images on both "
            "sides of a border share ground. Crop the images to avoid it.",
            CausalFairWarning,
        )
        component = _grid_blocks(sequence.coords, 4 * width)
    units = component[sequence.image_of_unit]
    if groups is None:
        return units
    return _join_partitions(units, groups, n)


def _grid_blocks(coords: FloatArray, metres: float) -> IntArray:
    step = np.degrees(metres / EARTH)
    stretch = np.cos(np.radians(coords[:, 1].mean()))
    cells = np.floor(np.column_stack([coords[:, 0] * stretch, coords[:, 1]]) / step)
    codes = np.unique(cells, axis=0, return_inverse=True)[1]
    return np.asarray(codes, dtype=np.intp).ravel()


def _join_partitions(first: IntArray, second: IntArray, n: int) -> IntArray:
    """Finest partition coarser than both."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = first.max() + 1, second.max() + 1
    graph = coo_array((np.ones(n), (first, a + second)), shape=(a + b, a + b))
    return np.asarray(connected_components(graph, directed=False)[1][first], dtype=np.intp)
