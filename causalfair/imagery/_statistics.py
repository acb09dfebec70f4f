"""Summaries of the pixels of a sequence, in one pass over blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.typing import FloatArray
from causalfair.imagery._blocks import map_blocks
from causalfair.imagery._pixels import Block
from causalfair.imagery._sequence import warn_of_nan

__all__ = ["band_statistics", "describe", "valid_share"]

BINS = 4096
PERCENTILES = (1, 2, 50, 98, 99)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a block adds: pixels, missing frames, mean, squared deviations and histogram (C,)."""

    count: int
    missing: int
    mean: FloatArray
    squares: FloatArray
    bins: NDArray[np.int64]


class _Running:
    """Mean, squared deviations and histogram of each band, merged block by block."""

    def __init__(self, sequence: Any) -> None:
        bands = sequence.shape[-1]
        self.count = self.missing = 0
        self.mean: FloatArray = np.zeros(bands)
        self.squares: FloatArray = np.zeros(bands)
        self.bins = np.zeros((bands, BINS), dtype=np.int64)
        self.low, self.width = _range(sequence)
        summarise = partial(_summarise, self.low, self.width, sequence.min_valid)
        for *_, part in map_blocks(summarise, sequence, n_jobs=1, desc="band statistics"):
            self._add(part)

    def _add(self, part: _Part) -> None:
        """Merge by the formula of Chan, Golub and LeVeque: no sums of squares."""
        self.missing += part.missing
        if not part.count:
            return
        gap, total = part.mean - self.mean, self.count + part.count
        self.squares += part.squares
        self.squares += gap**2 * self.count * part.count / total
        self.mean += gap * part.count / total
        self.count = total
        self.bins += part.bins

    def percentile(self, q: float) -> FloatArray:
        """Middle of the bin that holds the percentile, (C,)."""
        share = np.cumsum(self.bins, axis=1) / max(self.count, 1)
        at = (share >= q / 100).argmax(axis=1)
        return np.asarray(self.low + (at + 0.5) * self.width)


def _range(sequence: Any) -> tuple[FloatArray, FloatArray]:
    """Lower end (C,) and width (C,) of the bins, from the first block with pixels that count."""
    for images, frames in sequence._blocks():
        values = _counted(sequence.read(images, frames), sequence.min_valid)[0]
        if len(values):
            return values.min(axis=0), np.maximum(np.ptp(values, axis=0), 1e-12) / BINS
    return np.zeros(sequence.shape[-1]), np.ones(sequence.shape[-1])


def _counted(block: Block, min_valid: float) -> tuple[FloatArray, int]:
    """Valid pixels (m, C) of frames that are not missing, and the number of those that are."""
    enough = block.valid.mean(axis=(2, 3)) >= min_valid
    values = block.pixels[block.valid & enough[:, :, None, None]].astype(np.float64)
    return values, int((~enough).sum())


def _summarise(low: FloatArray, width: FloatArray, min_valid: float, block: Block) -> _Part:
    values, missing = _counted(block, min_valid)
    bins = np.zeros((len(low), BINS), dtype=np.int64)
    if not len(values):
        return _Part(0, missing, low, low, bins)
    mean = values.mean(axis=0)
    squares = ((values - mean) ** 2).sum(axis=0)
    for band, column in enumerate(values.T):
        bin_of = ((column - low[band]) / width[band]).astype(np.int64)
        bins[band] = np.bincount(np.clip(bin_of, 0, BINS - 1), minlength=BINS)
    return _Part(len(values), missing, mean, squares, bins)


def valid_share(sequence: Any) -> FloatArray:
    """Share of valid pixels of every frame, (n, T)."""
    share = np.zeros((sequence.n_images, sequence.shape[1]))
    n_nan = 0
    for images, frames, (part, count) in map_blocks(_valid, sequence, desc="valid pixels"):
        share[images, frames] = part
        n_nan += count
    warn_of_nan(n_nan, sequence)
    return share


def _valid(block: Block) -> tuple[FloatArray, int]:
    return block.valid.mean(axis=(2, 3)), block.n_nan


def band_statistics(sequence: Any) -> Any:
    """Table of the bands over valid pixels of frames that count, see ImageSequence."""
    return _scan(sequence)[0]


def _scan(sequence: Any) -> tuple[Any, float]:
    """Table of the bands and share of missing frames, in one pass over the pixels."""
    import pandas as pd

    running = _Running(sequence)
    sd = np.sqrt(running.squares / max(running.count, 1))
    columns = {"mean": running.mean, "sd": sd}
    columns |= {f"p{q}": running.percentile(q) for q in PERCENTILES}
    table = pd.DataFrame(columns, index=list(sequence.bands or range(sequence.shape[-1])))
    return table, running.missing / (sequence.shape[0] * sequence.shape[1])


def describe(sequence: Any) -> Any:
    """Printable table of a sequence."""
    from causalfair.reporting import Summary, Table

    n, T, H, W, _ = sequence.shape
    table, missing = _scan(sequence)
    rows = [
        [str(band), *(f"{value:.4g}" for value in row)]
        for band, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    header = [
        ("images", f"{n:,}"),
        ("frames", f"{T}"),
        ("pixels", f"{H} x {W}"),
        ("units", f"{sequence.n_units:,}"),
        ("missing frames", f"{missing:.1%}"),
        ("raw size", f"{sequence.nbytes / 2**20:,.1f} MiB"),
    ]
    if sequence.dated:
        span = f"{np.nanmin(sequence.years):.2f} to {np.nanmax(sequence.years):.2f}"
        header.insert(2, ("dates", span))
    if sequence.gsd is not None:
        header.append(("pixel", f"{sequence.gsd * sequence._factor:g} m"))
    return Summary(
        "Image sequence", header, [Table(["band", *table.columns], rows, None, "l" + "r" * 7)], []
    )
