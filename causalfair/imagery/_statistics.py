"""Summaries of the pixels of a sequence, in one pass over blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray

__all__ = ["band_statistics", "describe"]

BINS = 4096
PERCENTILES = (1, 2, 50, 98, 99)


class _Running:
    """Mean, squared deviations and histogram of each band, merged block by block."""

    def __init__(self, bands: int) -> None:
        self.count = 0
        self.mean: FloatArray = np.zeros(bands)
        self.squares: FloatArray = np.zeros(bands)
        self.low: FloatArray = np.zeros(bands)
        self.width: FloatArray = np.ones(bands)
        self.bins = np.zeros((bands, BINS), dtype=np.int64)

    def add(self, values: FloatArray) -> None:
        """Merge values (m, C) by the formula of Chan, Golub and LeVeque: no sums of squares."""
        if not len(values):
            return
        if self.count == 0:
            self.low = values.min(axis=0)
            self.width = np.maximum(np.ptp(values, axis=0), 1e-12) / BINS
        mean = values.mean(axis=0)
        gap, total = mean - self.mean, self.count + len(values)
        self.squares += ((values - mean) ** 2).sum(axis=0)
        self.squares += gap**2 * self.count * len(values) / total
        self.mean += gap * len(values) / total
        self.count = total
        for band, column in enumerate(values.T):
            bin_of = ((column - self.low[band]) / self.width[band]).astype(np.int64)
            self.bins[band] += np.bincount(np.clip(bin_of, 0, BINS - 1), minlength=BINS)

    def percentile(self, q: float) -> FloatArray:
        """Middle of the bin that holds the percentile, (C,)."""
        share = np.cumsum(self.bins, axis=1) / max(self.count, 1)
        at = (share >= q / 100).argmax(axis=1)
        return np.asarray(self.low + (at + 0.5) * self.width)


def band_statistics(sequence: Any) -> Any:
    """Table of the bands over valid pixels of frames that count, see ImageSequence."""
    return _scan(sequence)[0]


def _scan(sequence: Any) -> tuple[Any, float]:
    """Table of the bands and share of missing frames, in one pass over the pixels."""
    import pandas as pd

    running = _Running(sequence.shape[-1])
    missing = 0
    for images, frames in sequence._blocks():
        block = sequence.read(images, frames)
        enough = block.valid.mean(axis=(2, 3)) >= sequence.min_valid
        missing += int((~enough).sum())
        running.add(block.pixels[block.valid & enough[:, :, None, None]].astype(np.float64))
    sd = np.sqrt(running.squares / max(running.count, 1))
    columns = {"mean": running.mean, "sd": sd}
    columns |= {f"p{q}": running.percentile(q) for q in PERCENTILES}
    table = pd.DataFrame(columns, index=list(sequence.bands or range(sequence.shape[-1])))
    return table, missing / (sequence.shape[0] * sequence.shape[1])


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
