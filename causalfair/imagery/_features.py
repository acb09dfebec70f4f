"""Representations of image sequences: frame features pooled over time."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import HasMethods, Interval, fit_context
from causalfair._core.logging import warn
from causalfair._core.random import child_seed, int_seed, root_seed
from causalfair._core.typing import BoolArray, FloatArray
from causalfair.exceptions import CausalFairWarning, DataError
from causalfair.imagery._blocks import threads_of
from causalfair.imagery._compress import Compressor, check_components
from causalfair.imagery._convolution import RandomConvolutionFeatures
from causalfair.imagery._frames import FrameEncoder, check_schema, stream_features
from causalfair.imagery._pooling import (
    check_poolings,
    few_dates,
    latest_frame,
    pool,
    pooled_names,
    seen_frames,
    without_season,
)
from causalfair.imagery._sequence import ImageSequence, as_sequence

__all__ = ["SequenceFeatures"]


@dataclass(frozen=True, slots=True)
class _Pooled:
    """Features (n_rows, D), share of frames seen (n_rows,), fewer than two dates (n_rows,)."""

    values: FloatArray
    seen: FloatArray
    few: BoolArray


class SequenceFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One vector a place: features of frames, pooled over time.

    A pattern over time (a town that grows) cannot be seen in the last frame, nor in the mean; the
    default keeps the mean and the slope of every feature.

    Parameters
    ----------
    frame_features : encoder of frames, optional
        Such as :class:`RandomConvolutionFeatures` (the default), :class:`SpectralFeatures` or
        :class:`TorchFrameEncoder`.
    pooling : str or sequence of str, default ("mean", "trend")
        ``"mean"``, ``"trend"`` (slope a year), ``"level"`` (the line's value at the baseline),
        ``"last"``, ``"median"``, ``"var"``, ``"diff"``, ``"absdiff"``, ``"recency"``, ``"season"``,
        ``"concat"``, ``"attention_random"``; several are put side by side.
    n_components : int, "auto" or None, default None
        Principal components of the standardised features; ``"auto"`` keeps 95 % of the variance, at
        most 50 and at most a tenth of the places. None: the features as they are.
    crop : int, optional
        Use only the centre of each image, so many pixels high and wide. Several sizes are put side
        by side with scikit-learn's ``FeatureUnion``.
    half_life : float, default 2.0
        Years in which the weight of ``"recency"`` halves.
    n_jobs : int, optional
        Threads; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the frame features where they have none of their own.

    Attributes
    ----------
    frame_features_ : FrameEncoder
        The fitted encoder.
    compressor_ : Compressor or None
        The fitted components.
    seen_share_ : ndarray of shape (n_rows,)
        Share of the frames of each place that could be used.
    few_frames_ : ndarray of shape (n_rows,), bool
        Places with fewer than two usable dates, whose ``"trend"`` is zero for want of data.

    See Also
    --------
    ImageSequenceCATE : Effects given these features.

    Notes
    -----
    ``fit`` uses images only, no outcomes, so fitting on all images of a trial leaks nothing.
    Frames that are missing are left out of each place's pooling; a place with fewer than two dates
    has slope zero. Images are read in blocks under ``ImageSequence.memory_limit`` and only pooled
    features are kept.

    References
    ----------
    .. [1] C. T. Jerzak, R. Vashistha and A. Daoud (2024). Effect heterogeneity with Earth
       observation in randomized controlled trials, section 3. arXiv:2407.11674

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.imagery import SequenceFeatures, SpectralFeatures
    >>> images = np.random.default_rng(0).random((6, 4, 8, 8, 2), dtype=np.float32)
    >>> features = SequenceFeatures(SpectralFeatures(), pooling=("mean", "trend"))
    >>> features.fit_transform(images).shape
    (6, 24)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "frame_features": [HasMethods(["fit", "transform"]), None],
        "pooling": [str, tuple, list],
        "n_components": [Integral, str, None],
        "crop": [Interval(Integral, 1, None, closed="left"), None],
        "half_life": [Interval(Real, 0, None, closed="neither")],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        frame_features: Any = None,
        *,
        pooling: Any = ("mean", "trend"),
        n_components: Any = None,
        crop: int | None = None,
        half_life: float = 2.0,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.frame_features = frame_features
        self.pooling = pooling
        self.n_components = n_components
        self.crop = crop
        self.half_life = half_life
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, images: Any, y: Any = None) -> SequenceFeatures:
        """Fit the frame features and the components.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images.
        y : None
            Ignored.

        Returns
        -------
        SequenceFeatures
            The fitted representation.
        """
        self.fit_transform(images, y)
        return self

    @fit_context
    def _fit_frames(self, sequence: ImageSequence) -> SequenceFeatures:
        self.poolings_ = check_poolings(self.pooling, "SequenceFeatures.fit")
        check_components(self.n_components, "SequenceFeatures.fit")
        root = root_seed(self.random_state)
        encoder = self.frame_features
        if encoder is None:
            encoder = RandomConvolutionFeatures(random_state=child_seed(root, 0))
        else:
            encoder = clone(encoder)
            if "random_state" in encoder.get_params() and encoder.random_state is None:
                encoder.set_params(random_state=int_seed(root, 0))
        if not isinstance(encoder, FrameEncoder):
            raise DataError(
                f"SequenceFeatures.fit got frame_features of type {type(encoder).__name__}, which "
                "does not encode frames; use RandomConvolutionFeatures, SpectralFeatures, "
                "TorchFrameEncoder or a subclass of causalfair.imagery.FrameEncoder."
            )
        self.frame_features_ = encoder.fit(sequence)
        self.n_frames_in_ = sequence.shape[1]
        return self

    def fit_transform(self, images: Any, y: Any = None, **fit_params: Any) -> FloatArray:
        """Fit and transform in one pass over the images.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images.
        y : None
            Ignored.
        **fit_params
            Ignored.

        Returns
        -------
        ndarray of shape (n_rows, D)
            Features; see :meth:`transform`.
        """
        del y, fit_params
        sequence = self._cropped(as_sequence(images, owner="SequenceFeatures.fit"))
        self._fit_frames(sequence)
        with threads_of(self.frame_features_._own_threads):
            pooled = self._pooled(sequence)
        raw, self.seen_share_, self.few_frames_ = pooled.values, pooled.seen, pooled.few
        if self.n_components is None:
            self.compressor_ = None
            return raw
        self.compressor_ = Compressor(self.n_components).fit(raw)
        return self.compressor_.transform(raw)

    def transform(self, images: Any) -> FloatArray:
        """Features of each place.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images with the bands and scaling of ``fit``.

        Returns
        -------
        ndarray of shape (n_rows, D)
            One row an image (a distinct pair of image and baseline, ``row_of_unit`` says whose).
        """
        check_is_fitted(self)
        with threads_of(self.frame_features_._own_threads):
            sequence = as_sequence(images, owner="SequenceFeatures.transform")
            raw = self._pooled(self._cropped(sequence)).values
        return raw if self.compressor_ is None else self.compressor_.transform(raw)

    def _cropped(self, sequence: ImageSequence) -> ImageSequence:
        return sequence if self.crop is None else sequence.crop(self.crop)

    def _pooled(self, sequence: ImageSequence) -> _Pooled:
        """Pooled features of all rows, before components."""
        check_schema(self.frame_features_, sequence, "SequenceFeatures.transform")
        frames = sequence.shape[1]
        if "concat" in self.poolings_ and frames != self.n_frames_in_:
            raise DataError(
                f"SequenceFeatures.transform got {frames} frames; pooling='concat' was fitted on "
                f"{self.n_frames_in_}."
            )
        by_image = np.argsort(sequence.row_image, kind="stable")
        bounds = np.searchsorted(sequence.row_image[by_image], np.arange(sequence.n_images + 1))
        when = sequence.relative_years()
        out: FloatArray | None = None
        seen = np.zeros(len(sequence.row_image))
        few, plain = np.zeros(seen.size, bool), np.zeros(seen.size, bool)
        for numbers, phi in whole_images(self.frame_features_, sequence, self.n_jobs):
            spans = [by_image[bounds[i] : bounds[i + 1]] for i in numbers]
            rows = np.concatenate(spans)
            source = np.repeat(np.arange(len(numbers)), [len(span) for span in spans])
            use = seen_frames(phi[source], sequence.usable[rows], when[rows])
            seen[rows] = use.mean(axis=1)
            few[rows], plain[rows] = few_dates(use, when[rows]), without_season(use, when[rows])
            if sequence._latest_only:
                use = latest_frame(use, when[rows])
            part = pool(phi[source], use, when[rows], self.poolings_, self.half_life)
            if out is None:
                out = np.empty((len(sequence.row_image), part.shape[1]))
            out[rows] = part
        if out is None:  # no image at all cannot happen: ImageSequence refuses it
            raise DataError("SequenceFeatures got no image.")
        if "season" in self.poolings_ and plain.any():
            warn(
                f"SequenceFeatures: pooling='season' is a plain line without a yearly cycle in "
                f"{int(plain.sum())} of {plain.size} place(s): they have fewer than five usable "
                "frames, or frames of one time of year only.",
                CausalFairWarning,
            )
        return _Pooled(out, seen, few)

    def _raw_names(self) -> list[str]:
        """Names of the pooled features."""
        frame_names = self.frame_features_.get_feature_names_out()
        return pooled_names(frame_names, self.poolings_, self.n_frames_in_)

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
        check_is_fitted(self, "frame_features_")
        names = self._raw_names()
        if self.compressor_ is not None:
            names = self.compressor_.names(names)
        return np.asarray(names, dtype=object)


def whole_images(encoder: FrameEncoder, sequence: ImageSequence, n_jobs: int | None) -> Any:
    """Yield (image numbers, features (c, T, D)), joining images that were read in pieces."""
    pending: list[Any] = []
    frames = sequence.shape[1]
    for numbers, when, values in stream_features(encoder, sequence, n_jobs=n_jobs):
        if when == slice(0, frames):
            yield numbers, values
            continue
        pending.append(values)
        if when.stop == frames:
            yield numbers, np.concatenate(pending, axis=1)
            pending = []
