"""Coordinates displaced for privacy: how much of the ranking is left when chips move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from causalfair._core.logging import progress
from causalfair._core.random import child_seed, generator, int_seed, root_seed
from causalfair._core.typing import IntArray
from causalfair.exceptions import ParameterError
from causalfair.imagery._sequence import ImageSequence, as_sequence

__all__ = ["JitterStudy", "jitter_study", "shifted"]

OWNER = "jitter_study"


class _Shifted:
    """An array of images of which each is seen through its own window.

    Parameters
    ----------
    source : array
        Raw pixels, or their mask.
    corner : ndarray of shape (n, 2)
        Top and left of each image's window.
    size : int
        Height and width of the windows.
    lead, tail : int
        Axes between image and rows (frames), and after columns (bands).
    """

    def __init__(self, source: Any, corner: IntArray, size: int, lead: int, tail: int) -> None:
        self._source, self._corner, self._lead = source, corner, lead
        shape = tuple(source.shape)
        self.shape = (*shape[: 1 + lead], size, size, *shape[len(shape) - tail :][:tail])
        self.dtype = source.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        images, *rest = key
        lead, (rows, cols, *tail) = rest[: self._lead], rest[self._lead :]
        parts = []
        for i in range(*images.indices(self.shape[0])):
            top, left = (int(c) for c in self._corner[i])
            window = (
                slice(rows.start + top, rows.stop + top), slice(cols.start + left, cols.stop + left)
            )  # fmt: skip
            parts.append(np.asarray(self._source[(slice(i, i + 1), *lead, *window, *tail)]))
        return np.concatenate(parts)


def shifted(sequence: ImageSequence, size: int, offset: IntArray) -> ImageSequence:
    """Each image cropped to ``size`` pixels, ``offset`` (n, 2) rows and columns off its centre."""
    r0, r1, c0, c1 = sequence._window
    corner = np.zeros((sequence._images.shape[0], 2), dtype=np.intp)
    centre = np.array([r0 + (r1 - r0 - size) // 2, c0 + (c1 - c0 - size) // 2])
    corner[sequence._index] = centre + offset
    lead = 0 if sequence._single else 1
    other = sequence._copy()
    other._images = _Shifted(sequence._images, corner, size, lead, 1)
    if sequence._mask is not None:
        other._mask = _Shifted(sequence._mask, corner, size, lead, 0)
    other._window = (0, size, 0, size)
    return other


@dataclass(frozen=True)
class JitterStudy:
    """How much a ranking depends on where chips are cut.

    Attributes
    ----------
    table : pandas.DataFrame
        Row 0 is the centred chips, the others are draws: ``draw, estimate, std_error, statistic,
        p_value, rank_correlation`` (of predicted effects with those of the centred chips).
    metric : str
        ``"autoc"`` or ``"qini"``.
    max_shift : int
        Largest displacement in pixels.
    """

    table: Any
    metric: str
    max_shift: int

    def to_frame(self) -> Any:
        """One row a draw.

        Returns
        -------
        pandas.DataFrame
            The table.
        """
        return self.table

    def summary(self) -> Any:
        """Printable table.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table

        centred, draws = self.table.iloc[0], self.table.iloc[1:]
        rows = [
            [name, f"{centred[key]:.3g}", *(f"{draws[key].quantile(q):.3g}" for q in (0, 0.5, 1))]
            for name, key in (
                (self.metric.upper(), "estimate"), ("ratio", "statistic"),
                ("rank correlation", "rank_correlation"),
            )
        ]  # fmt: skip
        return Summary(
            "Chips cut off centre",
            [("draws", f"{len(draws)}"), ("largest shift", f"{self.max_shift} pixels")],
            [Table(["", "centred", "least", "median", "most"], rows, None, "lrrrr")],
            [
                f"Significant at 5% in {int((draws['p_value'] < 0.05).sum())} of {len(draws)} "
                "draws. The chips are displaced once more, so the study shows how sensitive the "
                "ranking is, not what exact coordinates would give."
            ],
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())


def jitter_study(
    model: Any,
    images: Any,
    y: Any,
    *,
    treatment: Any,
    size: int,
    max_shift: int,
    metric: str = "qini",
    n_draws: int = 10,
    random_state: Any = None,
    **roles: Any,
) -> JitterStudy:
    """Cut the chips again at random places near their centres, and evaluate the ranking again.

    Surveys displace the coordinates of villages by up to some kilometres. With chips twice as wide
    as the displacement the true place is inside; how much the ranking depends on where exactly
    chips are cut can be tried.

    Parameters
    ----------
    model : ImageSequenceCATE
        Cloned and fitted for every draw, with the same folds; the argument stays as it is.
    images, y, treatment : object
        As for :meth:`ImageSequenceCATE.fit`; the images larger than ``size`` by twice
        ``max_shift``.
    size : int
        Height and width of the chips in pixels.
    max_shift : int
        Chips move by a random vector, uniform in a disc of this radius in pixels; each place by its
        own.
    metric : {"autoc", "qini"}, default "qini"
        What to evaluate.
    n_draws : int, default 10
        Draws.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the draws, and of the model where it has none.
    **roles
        Other arguments of :meth:`ImageSequenceCATE.fit`.

    Returns
    -------
    JitterStudy
        The ranking with centred chips and with every draw.

    Raises
    ------
    ParameterError
        The images are too small for the shift.

    Examples
    --------
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> from causalfair.forest import CausalForest
    >>> from causalfair.imagery import (
    ...     ImageSequenceCATE, SequenceFeatures, SpectralFeatures, jitter_study)
    >>> frame, truth = make_image_sequence_trial(120, n_frames=3, size=16, random_state=0)
    >>> model = ImageSequenceCATE(
    ...     SequenceFeatures(SpectralFeatures()), CausalForest(50), scheme="oob")
    >>> study = jitter_study(
    ...     model, truth["images"], frame["y"], treatment=frame["treatment"], size=10, max_shift=3,
    ...     n_draws=2, random_state=1)
    >>> len(study.to_frame())
    3
    """
    import pandas as pd
    from scipy.stats import spearmanr

    sequence = as_sequence(images, owner=OWNER)
    H, W = sequence.shape[2:4]
    if max_shift < 1 or size < 1 or size + 2 * max_shift > min(H, W) or sequence._factor > 1:
        raise ParameterError(
            f"{OWNER}: chips of size={size} that move by max_shift={max_shift} need images of at "
            f"least {size + 2 * max_shift} x {size + 2 * max_shift} pixels, not resampled; these "
            f"have {H} x {W}."
        )
    if n_draws < 1:
        raise ParameterError(f"{OWNER}: n_draws={n_draws!r} must be 1 or more.")
    root = root_seed(random_state)
    fresh = clone(model)
    if fresh.random_state is None:
        fresh.set_params(random_state=int_seed(root, 0))
    rows: list[dict[str, Any]] = []
    centred: Any = None
    for draw in progress(range(n_draws + 1), "draws"):
        offset = _offsets(sequence.n_images, max_shift if draw else 0, child_seed(root, 1, draw))
        fitted = clone(fresh).fit(shifted(sequence, size, offset), y, treatment=treatment, **roles)
        effect = np.asarray(fitted.predict())
        centred = effect if draw == 0 else centred
        row = fitted.evaluate(metric).to_frame().iloc[0]
        same = np.ptp(effect) == 0 or np.ptp(centred) == 0
        rows.append(
            {"draw": draw, "estimate": row["estimate"], "std_error": row["std_error"],
             "statistic": row["statistic"], "p_value": row["p_value"],
             "rank_correlation": np.nan if same else spearmanr(effect, centred).statistic}
        )  # fmt: skip
    return JitterStudy(pd.DataFrame(rows), metric, int(max_shift))


def _offsets(n: int, radius: int, seed: Any) -> IntArray:
    """Displacements (n, 2) in whole pixels, uniform in a disc."""
    rng = generator(seed)
    length = radius * np.sqrt(rng.random(n))
    angle = 2 * np.pi * rng.random(n)
    steps = np.column_stack([length * np.sin(angle), length * np.cos(angle)])
    return np.asarray(np.rint(steps), dtype=np.intp)
