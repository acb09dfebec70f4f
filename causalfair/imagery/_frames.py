"""What every frame encoder shares: features block by block, and the check of the bands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from causalfair._core.typing import BoolArray, IntArray
from causalfair.exceptions import DataError
from causalfair.imagery._blocks import map_blocks, threads_of
from causalfair.imagery._pixels import Block
from causalfair.imagery._sequence import ImageSequence, as_sequence, warn_of_nan

__all__ = ["FrameEncoder", "check_schema", "remember_schema", "stream_features"]

FloatArray32 = NDArray[np.float32]


class FrameEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of transformers that make one vector of each frame.

    A subclass writes ``_learn(sequence)`` and ``_encode(pixels, valid)``, which returns (f, D)
    float32 with NaN rows for frames that cannot be used, and ``_names()``.
    """

    n_bands_in_: int
    n_jobs: int | None = None
    _own_threads = False  # whether the encoder brings threads of its own

    def fit(self, images: Any, y: Any = None) -> Any:
        """Learn what the encoder needs of the pixels; outcomes play no role.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C) or (n, H, W, C)
            Images.
        y : None
            Ignored.

        Returns
        -------
        FrameEncoder
            The fitted encoder.
        """
        del y
        sequence = as_sequence(images, owner=f"{type(self).__name__}.fit")
        remember_schema(self, sequence)
        self._learn(sequence)
        return self

    def transform(self, images: Any) -> FloatArray32:
        """Features of every frame.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C) or (n, H, W, C)
            Images with the bands and scaling of ``fit``.

        Returns
        -------
        ndarray of shape (n, T, D), or (n, D) for images with one frame and no time, float32
            Features; NaN for missing frames.
        """
        check_is_fitted(self)
        sequence = as_sequence(images, owner=f"{type(self).__name__}.transform")
        check_schema(self, sequence, f"{type(self).__name__}.transform")
        n, frames = sequence.shape[:2]
        out = np.full((n, frames, len(self.get_feature_names_out())), np.nan, dtype=np.float32)
        # Once, not a block: looking for thread pools takes milliseconds.
        with threads_of(self._own_threads):
            for numbers, when, values in stream_features(self, sequence, n_jobs=self.n_jobs):
                out[numbers, when] = values
        return out[:, 0] if sequence._single else out

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the features.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of str
            One name a column.
        """
        del input_features
        check_is_fitted(self)
        return np.asarray(self._names(), dtype=object)

    def _learn(self, sequence: ImageSequence) -> None:
        raise NotImplementedError

    def _encode(self, pixels: FloatArray32, valid: BoolArray) -> FloatArray32:
        """Features (f, D) of frames given as (f, H, W, C) pixels and (f, H, W) validity."""
        raise NotImplementedError

    def _usable_share(self, valid: BoolArray) -> NDArray[np.float64]:
        """Share of each frame (f,) that features can be made of: its valid pixels."""
        return np.asarray(valid.mean(axis=(1, 2)))

    def _names(self) -> list[str]:
        raise NotImplementedError


def remember_schema(encoder: Any, sequence: ImageSequence) -> None:
    """Keep the bands and the scaling an encoder was fitted on."""
    encoder.n_bands_in_ = sequence.shape[-1]
    encoder.bands_in_ = sequence.bands
    encoder.scale_in_ = (sequence.scale.tolist(), sequence.offset.tolist())


def check_schema(encoder: Any, sequence: ImageSequence, owner: str) -> None:
    """Refuse images whose bands or scaling are not those of ``fit``."""
    if sequence.shape[-1] != encoder.n_bands_in_:
        raise DataError(
            f"{owner} got images with {sequence.shape[-1]} band(s); it was fitted on "
            f"{encoder.n_bands_in_}."
        )
    if None not in (sequence.bands, encoder.bands_in_) and sequence.bands != encoder.bands_in_:
        raise DataError(
            f"{owner} got bands {sequence.bands}; it was fitted on {encoder.bands_in_}. Put the "
            "bands in the same order."
        )
    if (sequence.scale.tolist(), sequence.offset.tolist()) != encoder.scale_in_:
        raise DataError(
            f"{owner} got images with scale and offset {sequence.scale.tolist()}, "
            f"{sequence.offset.tolist()}; it was fitted with {encoder.scale_in_[0]}, "
            f"{encoder.scale_in_[1]}. Bring both to the same reflectance."
        )


def stream_features(
    encoder: FrameEncoder, sequence: ImageSequence, *, n_jobs: int | None = None
) -> Iterator[tuple[IntArray, slice, FloatArray32]]:
    """Features block by block: image numbers (c,), frames, values (c, t, D).

    Blocks run on threads (the kernels release the interpreter lock); those of a dask array run
    where dask runs, on its workers if there is a client. Results do not depend on either.
    """
    task = partial(_features, encoder, float(sequence.min_valid))
    n_nan = 0
    for numbers, frames, (values, count) in map_blocks(
        task, sequence, n_jobs=n_jobs, own_threads=encoder._own_threads, desc="image features"
    ):
        n_nan += count
        yield numbers, frames, values
    warn_of_nan(n_nan, sequence)


def _features(encoder: FrameEncoder, min_valid: float, block: Block) -> tuple[FloatArray32, int]:
    c, t, h, w, b = block.pixels.shape
    valid = block.valid.reshape(c * t, h, w)
    values = encoder._encode(block.pixels.reshape(c * t, h, w, b), valid)
    values[encoder._usable_share(valid) < min_valid] = np.nan
    return values.reshape(c, t, -1), block.n_nan
