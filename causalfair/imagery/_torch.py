"""Networks as frame encoders (extra ``torch``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.optional import import_optional
from causalfair._core.typing import IntArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.imagery._blocks import map_blocks
from causalfair.imagery._frames import FrameEncoder, check_schema, remember_schema
from causalfair.imagery._pixels import Block
from causalfair.imagery._sequence import ImageSequence, as_sequence, warn_of_nan

__all__ = ["TorchFrameEncoder", "TorchSequenceEncoder"]


class _Backbone:
    """Checks, normalisation and output of a wrapped module; the parameters are the subclass's."""

    module: Any
    input_size: int | None
    mean: Any
    std: Any
    band_map: Any
    pool: str
    batch_size: int
    n_bands_in_: int
    bands_used_: list[int]

    def _check_module(self) -> None:
        owner = f"{type(self).__name__}.fit"
        torch = import_optional("torch", extra="torch")
        if not isinstance(self.module, torch.nn.Module):
            raise ParameterError(
                f"{owner} got module of type {type(self.module).__name__}; give a torch.nn.Module "
                "with its weights loaded."
            )
        used = range(self.n_bands_in_) if self.band_map is None else self.band_map
        self.bands_used_ = [int(b) for b in used]
        if max(self.bands_used_) >= self.n_bands_in_ or min(self.bands_used_) < 0:
            raise ParameterError(
                f"{owner} got band_map={self.band_map!r} for images with {self.n_bands_in_} "
                "band(s)."
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.bands_used_):
                raise ParameterError(
                    f"{owner} got {name} of length {len(value)} for {len(self.bands_used_)} "
                    "band(s) that go in."
                )

    def _ready(self, pixels: Any, valid: Any) -> Any:
        """Frames (f, C', h, w) as a normalised float32 tensor."""
        torch = import_optional("torch", extra="torch")
        chosen = _fill(pixels, valid)[..., self.bands_used_].transpose(0, 3, 1, 2)
        frames = torch.from_numpy(np.ascontiguousarray(chosen))
        if self.input_size is not None:
            frames = torch.nn.functional.interpolate(
                frames, size=(self.input_size, self.input_size), mode="bilinear",
                align_corners=False, antialias=True,
            )  # fmt: skip
        for name, apply in (("mean", torch.sub), ("std", torch.div)):
            value = getattr(self, name)
            if value is not None:
                frames = apply(frames, torch.tensor(value, dtype=frames.dtype)[None, :, None, None])
        return frames

    def _run(self, tensor: Any) -> NDArray[np.float32]:
        """Vectors (b, D) of a tensor, batch by batch, in evaluation mode and without gradients."""
        torch = import_optional("torch", extra="torch")
        was_training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                parts = [
                    self._vectors(batch).cpu().numpy() for batch in tensor.split(self.batch_size)
                ]
        finally:
            self.module.train(was_training)
        return np.concatenate(parts).astype(np.float32)

    def _vectors(self, batch: Any) -> Any:
        out = self.module(batch)
        out = getattr(out, "last_hidden_state", out)
        if out.ndim == 3:
            out = out[:, 0] if self.pool == "cls" else out.mean(dim=1)
        if out.ndim != 2 or len(out) != len(batch):
            raise DataError(
                f"{type(self).__name__}: the module returned shape {tuple(out.shape)} for "
                f"{len(batch)} inputs; it must be (b, D) or (b, L, D)."
            )
        return out


class TorchFrameEncoder(_Backbone, FrameEncoder):
    """Any torch module as an encoder of frames (extra ``torch``).

    Wraps what the user has: a timm, transformers or torchgeo backbone, or a module of their own.
    Weights are never downloaded.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (b, C, h, w) float32 to (b, D), (b, L, D) or an object with ``last_hidden_state``.
    input_size : int, optional
        Frames are resized to this height and width (bilinear, antialiased); kept when None.
    mean, std : sequence of float, optional
        Frames are normalised by these, one number a band, after ``band_map``.
    band_map : sequence of int, optional
        Which bands go in, and in what order; all when None.
    pool : {"mean", "cls"}, default "mean"
        How tokens become one vector.
    batch_size : int, default 32
        Frames at a time, in fixed order.

    Attributes
    ----------
    n_features_out_ : int
        Length of the vectors.

    See Also
    --------
    RandomConvolutionFeatures : Needs no network.
    TorchSequenceEncoder : For models of video, which see all frames at once.

    Notes
    -----
    The module is put in evaluation mode and run without gradients. Pixels that are not valid are
    set to the mean of the valid ones of their band and frame.

    References
    ----------
    .. [1] C. T. Jerzak, R. Vashistha and A. Daoud (2024). Effect heterogeneity with Earth
       observation in randomized controlled trials, section 4. arXiv:2407.11674

    Examples
    --------
    >>> from causalfair.imagery import TorchFrameEncoder
    >>> import torch  # doctest: +SKIP
    >>> TorchFrameEncoder(torch.nn.Flatten(), input_size=4)  # doctest: +SKIP
    TorchFrameEncoder(input_size=4, module=Flatten(start_dim=1, end_dim=-1))
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "input_size": [Interval(Integral, 1, None, closed="left"), None],
        "pool": [StrOptions({"mean", "cls"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        module: Any,
        *,
        input_size: int | None = None,
        mean: Any = None,
        std: Any = None,
        band_map: Any = None,
        pool: str = "mean",
        batch_size: int = 32,
    ) -> None:
        self.module = module
        self.input_size = input_size
        self.mean = mean
        self.std = std
        self.band_map = band_map
        self.pool = pool
        self.batch_size = batch_size

    n_jobs = 1  # torch has its own threads
    _own_threads = True

    @fit_context
    def fit(self, images: Any, y: Any = None) -> Any:
        """Check the module on one frame.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C) or (n, H, W, C)
            Images.
        y : None
            Ignored.

        Returns
        -------
        TorchFrameEncoder
            The fitted encoder.

        Raises
        ------
        MissingDependencyError
            torch is not installed.
        ParameterError
            ``module`` is not a torch module, or options do not fit the bands.
        """
        return super().fit(images, y)

    def _learn(self, sequence: ImageSequence) -> None:
        self._check_module()
        block = sequence.read(np.array([0]), slice(0, 1))
        self.n_features_out_ = self._encode(block.pixels[0], block.valid[0]).shape[1]

    def _encode(self, pixels: Any, valid: Any) -> NDArray[np.float32]:
        out = self._run(self._ready(pixels, valid))
        out[~valid.any(axis=(1, 2))] = np.nan
        return out

    def _names(self) -> list[str]:
        return [f"net{j}" for j in range(self.n_features_out_)]


class TorchSequenceEncoder(_Backbone, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A torch module that sees whole sequences, such as a model of video (extra ``torch``).

    Takes the place of :class:`SequenceFeatures` in :class:`ImageSequenceCATE`. Weights are never
    downloaded.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (b, T, C, h, w) float32 to (b, D), (b, L, D) or an object with ``last_hidden_state``.
    n_frames : int, optional
        Frames the module expects; shorter sequences repeat frames, longer ones are thinned, evenly.
        As many as the images have when None.
    input_size : int, optional
        Frames are resized to this height and width; kept when None.
    mean, std : sequence of float, optional
        Frames are normalised by these, one number a band, after ``band_map``.
    band_map : sequence of int, optional
        Which bands go in, and in what order; all when None.
    pool : {"mean", "cls"}, default "mean"
        How tokens become one vector.
    batch_size : int, default 8
        Sequences at a time, in fixed order.

    Attributes
    ----------
    n_features_out_ : int
        Length of the vectors.

    See Also
    --------
    TorchFrameEncoder : Frame by frame, pooled over time afterwards.

    Notes
    -----
    Frames that are missing or not usable are left out, and the others spread over ``n_frames``
    positions: frame ``round(k (m - 1) / (n_frames - 1))`` of the m usable ones goes to position k.

    References
    ----------
    .. [1] C. T. Jerzak, R. Vashistha and A. Daoud (2024). Effect heterogeneity with Earth
       observation in randomized controlled trials, section 4. arXiv:2407.11674

    Examples
    --------
    >>> from causalfair.imagery import TorchSequenceEncoder
    >>> import torch  # doctest: +SKIP
    >>> TorchSequenceEncoder(torch.nn.Flatten(), n_frames=16)  # doctest: +SKIP
    TorchSequenceEncoder(module=Flatten(start_dim=1, end_dim=-1), n_frames=16)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_frames": [Interval(Integral, 1, None, closed="left"), None],
        **TorchFrameEncoder._parameter_constraints,
    }

    def __init__(
        self,
        module: Any,
        *,
        n_frames: int | None = None,
        input_size: int | None = None,
        mean: Any = None,
        std: Any = None,
        band_map: Any = None,
        pool: str = "mean",
        batch_size: int = 8,
    ) -> None:
        self.module = module
        self.n_frames = n_frames
        self.input_size = input_size
        self.mean = mean
        self.std = std
        self.band_map = band_map
        self.pool = pool
        self.batch_size = batch_size

    @fit_context
    def fit(self, images: Any, y: Any = None) -> Any:
        """Check the module on one sequence.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images.
        y : None
            Ignored.

        Returns
        -------
        TorchSequenceEncoder
            The fitted encoder.

        Raises
        ------
        MissingDependencyError
            torch is not installed.
        ParameterError
            ``module`` is not a torch module, or options do not fit the bands.
        """
        del y
        sequence = as_sequence(images, owner="TorchSequenceEncoder.fit")
        remember_schema(self, sequence)
        self._check_module()
        self.n_frames_ = sequence.shape[1] if self.n_frames is None else self.n_frames
        [(_, vectors)] = self._stream(sequence, np.array([0]))
        self.n_features_out_ = vectors.shape[1]
        return self

    def transform(self, images: Any) -> NDArray[np.float32]:
        """Vectors of places.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images with the bands and scaling of ``fit``.

        Returns
        -------
        ndarray of shape (n_rows, D), float32
            One row an image (a distinct pair of image and baseline).

        Raises
        ------
        DataError
            A place without a usable frame, or other bands or scaling than in ``fit``.
        """
        check_is_fitted(self)
        sequence = as_sequence(images, owner="TorchSequenceEncoder.transform")
        check_schema(self, sequence, "TorchSequenceEncoder.transform")
        out = np.empty((len(sequence.row_image), self.n_features_out_), dtype=np.float32)
        for rows, vectors in self._stream(sequence):
            out[rows] = vectors
        return out

    def _stream(
        self, sequence: ImageSequence, images: Any = None
    ) -> Iterator[tuple[IntArray, NDArray[np.float32]]]:
        """Rows of a block of images and their vectors, block by block, where the pixels are."""
        sequence._places_at_once()  # blocks of one thread then hold whole places, or it is said
        n_nan = 0
        for *_, (rows, vectors, count) in map_blocks(
            _SequenceTask.of(self, sequence), sequence, images=images, n_jobs=1, own_threads=True,
            desc="sequence features",
        ):  # fmt: skip
            n_nan += count
            yield rows, vectors
        warn_of_nan(n_nan, sequence)

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
        return np.asarray([f"net{j}" for j in range(self.n_features_out_)], dtype=object)


@dataclass(frozen=True)
class _SequenceTask:
    """Vectors of the rows of a block; all that a worker has to know besides the pixels.

    Attributes
    ----------
    encoder : TorchSequenceEncoder
        Runs the module.
    row_image : ndarray of shape (n_rows,)
        Image of each row.
    frames : tuple of ndarray
        Usable frames of each row in order of time, cloudy ones included.
    min_valid : float
        Share of valid pixels below which a frame is missing.
    latest : bool
        Keep only the latest frame that can be used.
    """

    encoder: TorchSequenceEncoder
    row_image: IntArray
    frames: tuple[IntArray, ...]
    min_valid: float
    latest: bool

    @classmethod
    def of(cls, encoder: TorchSequenceEncoder, sequence: ImageSequence) -> _SequenceTask:
        """Task for the rows of a sequence."""
        frames = []
        for usable, image in zip(sequence.usable, sequence.row_image, strict=True):
            seen = np.flatnonzero(usable)
            frames.append(seen[np.argsort(sequence.years[image, seen], kind="stable")])
        return cls(
            encoder, sequence.row_image, tuple(frames), sequence.min_valid, sequence._latest_only
        )

    def __call__(self, block: Block) -> tuple[IntArray, NDArray[np.float32], int]:
        torch = import_optional("torch", extra="torch")
        enough = block.valid.mean(axis=(2, 3)) >= self.min_valid
        rows = np.flatnonzero(np.isin(self.row_image, block.images))
        position = {int(image): at for at, image in enumerate(block.images)}
        ready = []
        for row in rows:
            at = position[int(self.row_image[row])]
            seen = self.frames[row][enough[at, self.frames[row]]]
            if not seen.size:
                raise DataError(f"TorchSequenceEncoder: place {row} has no usable frame.")
            seen = seen[-1:] if self.latest else seen
            spread = np.linspace(0, seen.size - 1, self.encoder.n_frames_).round().astype(int)
            chosen = seen[spread]
            ready.append(self.encoder._ready(block.pixels[at, chosen], block.valid[at, chosen]))
        return rows, self.encoder._run(torch.stack(ready)), block.n_nan


def _fill(pixels: Any, valid: Any) -> NDArray[np.float32]:
    """Replace pixels that are not valid by the mean of the valid ones of their band and frame."""
    count = np.maximum(valid.sum(axis=(1, 2)), 1)[:, None]
    mean = (pixels * valid[..., None]).sum(axis=(1, 2)) / count
    filled = np.where(valid[..., None], pixels, mean[:, None, None])
    return np.asarray(filled, dtype=np.float32)
