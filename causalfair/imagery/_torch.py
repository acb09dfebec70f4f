"""Networks as frame encoders (extra ``torch``)."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.optional import import_optional
from causalfair.exceptions import DataError, ParameterError
from causalfair.imagery._frames import FrameEncoder
from causalfair.imagery._sequence import ImageSequence

__all__ = ["TorchFrameEncoder"]


class TorchFrameEncoder(FrameEncoder):
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
        torch = import_optional("torch", extra="torch")
        if not isinstance(self.module, torch.nn.Module):
            raise ParameterError(
                f"TorchFrameEncoder.fit got module of type {type(self.module).__name__}; give a "
                "torch.nn.Module with its weights loaded."
            )
        used = range(self.n_bands_in_) if self.band_map is None else self.band_map
        self.bands_used_ = [int(b) for b in used]
        if max(self.bands_used_) >= self.n_bands_in_ or min(self.bands_used_) < 0:
            raise ParameterError(
                f"TorchFrameEncoder.fit got band_map={self.band_map!r} for images with "
                f"{self.n_bands_in_} band(s)."
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.bands_used_):
                raise ParameterError(
                    f"TorchFrameEncoder.fit got {name} of length {len(value)} for "
                    f"{len(self.bands_used_)} band(s) that go in."
                )
        block = sequence.read(np.array([0]), slice(0, 1))
        self.n_features_out_ = self._encode(block.pixels[0], block.valid[0]).shape[1]

    def _encode(self, pixels: Any, valid: Any) -> NDArray[np.float32]:
        torch = import_optional("torch", extra="torch")
        ready = _fill(pixels, valid)[..., self.bands_used_].transpose(0, 3, 1, 2)
        was_training = self.module.training
        self.module.eval()
        parts = []
        try:
            with torch.no_grad():
                for start in range(0, len(ready), self.batch_size):
                    batch = torch.from_numpy(
                        np.ascontiguousarray(ready[start : start + self.batch_size])
                    )
                    parts.append(self._vectors(torch, batch).cpu().numpy())
        finally:
            self.module.train(was_training)
        out = np.concatenate(parts).astype(np.float32)
        out[~valid.any(axis=(1, 2))] = np.nan
        return out

    def _vectors(self, torch: Any, batch: Any) -> Any:
        if self.input_size is not None:
            batch = torch.nn.functional.interpolate(
                batch, size=(self.input_size, self.input_size), mode="bilinear",
                align_corners=False, antialias=True,
            )  # fmt: skip
        for name, apply in (("mean", torch.sub), ("std", torch.div)):
            value = getattr(self, name)
            if value is not None:
                batch = apply(batch, torch.tensor(value, dtype=batch.dtype)[None, :, None, None])
        out = self.module(batch)
        out = getattr(out, "last_hidden_state", out)
        if out.ndim == 3:
            out = out[:, 0] if self.pool == "cls" else out.mean(dim=1)
        if out.ndim != 2 or len(out) != len(batch):
            raise DataError(
                f"TorchFrameEncoder: the module returned shape {tuple(out.shape)} for "
                f"{len(batch)} frames; it must be (b, D) or (b, L, D)."
            )
        return out

    def _names(self) -> list[str]:
        return [f"net{j}" for j in range(self.n_features_out_)]


def _fill(pixels: Any, valid: Any) -> NDArray[np.float32]:
    """Replace pixels that are not valid by the mean of the valid ones of their band and frame."""
    count = np.maximum(valid.sum(axis=(1, 2)), 1)[:, None]
    mean = (pixels * valid[..., None]).sum(axis=(1, 2)) / count
    filled = np.where(valid[..., None], pixels, mean[:, None, None])
    return np.asarray(filled, dtype=np.float32)
