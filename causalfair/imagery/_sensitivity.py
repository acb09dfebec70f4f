"""How a smooth function of image features changes with every pixel, exactly by the chain rule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from causalfair._core.typing import BoolArray, FloatArray
from causalfair.exceptions import ParameterError
from causalfair.imagery._convolution import RandomConvolutionFeatures
from causalfair.imagery._features import SequenceFeatures
from causalfair.imagery._pooling import latest_frame, pool, seen_frames

__all__ = ["pixel_gradient"]

LINEAR = ("mean", "trend", "level", "last", "diff", "recency")


def pixel_gradient(
    representation: Any, sequence: Any, gradient: FloatArray, owner: str
) -> FloatArray:
    """Derivative with respect to pixels, given that with respect to the representation.

    Parameters
    ----------
    representation : SequenceFeatures
        Fitted, of random convolutional features, with poolings that are linear in the frames.
    sequence : ImageSequence
        One place.
    gradient : ndarray of shape (D,)
        Derivative with respect to the features of the place.
    owner : str
        Who asks, for messages.

    Returns
    -------
    ndarray of shape (T, H, W, C)
        Derivative with respect to scaled pixels; zero where a pixel is not valid or not used.
    """
    encoder = _check(representation, owner)
    cropped = representation._cropped(sequence)
    block = cropped.read(np.array([0]))
    pixels, valid = block.pixels[0].astype(np.float64), block.valid[0]
    features = encoder._encode(block.pixels[0], valid)
    features[encoder._usable_share(valid) < cropped.min_valid] = np.nan
    use = seen_frames(features[None], cropped.usable, cropped.relative_years())
    if cropped._latest_only:
        use = latest_frame(use, cropped.relative_years())
    if representation.compressor_ is not None:
        gradient = through_components(representation.compressor_, gradient)
    by_pooling = gradient.reshape(len(representation.poolings_), -1)
    weight = _frame_weights(representation, use, cropped.relative_years())
    inner = np.zeros(pixels.shape)
    for t in np.flatnonzero(use[0]):
        inner[t] = _frame_gradient(encoder, pixels[t], valid[t], weight[:, t] @ by_pooling)
    return _embedded(inner, sequence.shape[2:4])


def through_components(compressor: Any, gradient: FloatArray) -> FloatArray:
    """Derivative with respect to features (D,), given that with respect to components (m,)."""
    scale = np.where(compressor.kept_, compressor.sd_, 1.0)
    return np.asarray((gradient @ compressor.loadings()) / scale)


def _check(representation: Any, owner: str) -> RandomConvolutionFeatures:
    name = type(representation).__name__
    encoder = getattr(representation, "frame_features_", None)
    if not isinstance(representation, SequenceFeatures) or not isinstance(
        encoder, RandomConvolutionFeatures
    ):
        raise ParameterError(
            f"{owner}: exact maps are for SequenceFeatures of RandomConvolutionFeatures; this is "
            f"{name} of {type(encoder).__name__}. occlusion_map takes any representation."
        )
    curved = [name for name in representation.poolings_ if name not in LINEAR]
    if curved:
        raise ParameterError(
            f"{owner}: pooling {', '.join(map(repr, curved))} is not linear in the frames; exact "
            f"maps are for {', '.join(LINEAR)}. occlusion_map takes any."
        )
    return encoder


def _frame_weights(representation: Any, use: BoolArray, t: FloatArray) -> FloatArray:
    """Weight of each frame in each pooling, (poolings, T): a linear pooling of unit vectors."""
    unit = np.eye(use.shape[1])[None]  # as many features as frames, one for each
    out = [
        pool(unit, use, t, (name,), representation.half_life)[0]
        for name in representation.poolings_
    ]
    return np.array(out)


def _frame_gradient(
    encoder: RandomConvolutionFeatures, pixels: FloatArray, valid: BoolArray, gradient: FloatArray
) -> FloatArray:
    """Derivative with respect to the pixels (H, W, C) of one frame, given that of its features."""
    H, W, C = pixels.shape
    filters = encoder.filters_.astype(np.float64)
    K, P = filters.shape[:2]
    Ho, Wo = H - P + 1, W - P + 1
    grid = encoder.grid
    flat = filters.reshape(K, -1)
    windows = sliding_window_view(pixels, (P, P), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    response = windows.reshape(Ho * Wo, -1) @ flat.T
    whole = sliding_window_view(valid, (P, P)).all(axis=(2, 3)).ravel()
    cell = (np.arange(Ho) * grid // Ho)[:, None] * grid + np.arange(Wo) * grid // Wo
    cell = cell.ravel()
    count = np.bincount(cell[whole], minlength=grid * grid)
    parts = gradient[: grid * grid * 2 * K].reshape(grid * grid, 2, K) / count[:, None, None]
    # eq.: d max(z - b, 0) = 1{z > b} f, d max(-z - b, 0) = -1{z < -b} f
    up, down = response > encoder.bias_, response < -encoder.bias_
    moved = whole[:, None] * (up * parts[cell, 0] - down * parts[cell, 1])
    spread = (moved @ flat).reshape(Ho, Wo, P, P, C)
    out = np.zeros_like(pixels)
    for i in range(P):
        for j in range(P):
            out[i : i + Ho, j : j + Wo] += spread[:, :, i, j]
    if encoder.band_statistics:
        out += _moment_gradient(pixels, valid, gradient[grid * grid * 2 * K :])
    return np.where(valid[..., None], out, 0.0)


def _moment_gradient(pixels: FloatArray, valid: BoolArray, gradient: FloatArray) -> FloatArray:
    """Part of the means and standard deviations of the bands."""
    of_mean, of_sd = np.split(gradient, 2)
    seen = pixels[valid]
    mean, sd = seen.mean(axis=0), seen.std(axis=0)
    slope = np.divide(pixels - mean, sd, out=np.zeros_like(pixels), where=sd > 0)
    return np.asarray((of_mean + of_sd * slope) / len(seen))


def _embedded(inner: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """The centre of an otherwise empty map of the whole image."""
    T, h, w, C = inner.shape
    out = np.zeros((T, *shape, C))
    top, left = (shape[0] - h) // 2, (shape[1] - w) // 2
    out[:, top : top + h, left : left + w] = inner
    return out
