"""Random convolutional features with filters drawn from the images themselves."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.logging import warn
from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import CausalFairWarning, DataError
from causalfair.imagery._blocks import map_blocks
from causalfair.imagery._frames import FrameEncoder
from causalfair.imagery._pixels import Block
from causalfair.imagery._sequence import ImageSequence
from causalfair.imagery._spectral import band_moments

__all__ = ["RandomConvolutionFeatures", "whitened_filters"]

PATCHES, CHOICE, GAUSSIAN = range(3)  # keys of the random streams
MAX_IMAGES = 1000  # images the patches come from
EPSILON = 1e-3


class RandomConvolutionFeatures(FrameEncoder):
    r"""Random convolutional features: patches of the images as filters, rectified and averaged.

    Small patches drawn from the images are centred, normalised, whitened and used as filters. Each
    gives two features, the mean over positions of what exceeds a threshold and of what falls below
    its negative. Nothing is trained, no outcome is used, and the whole trial's images may serve.

    Parameters
    ----------
    n_features : int, default 512
        Number of features before ``grid``; two a filter, so an even number.
    patch_size : int in [1, 11], default 3
        Height and width of the filters in pixels.
    filters : {"patches", "gaussian"}, default "patches"
        Filters from the images, or independent normal numbers.
    bias : float or "auto", default 1.0
        Threshold; ``"auto"`` takes the median absolute response to the patches. Use it where pixels
        are not near [0, 1].
    grid : int, default 1
        Average within a ``grid`` x ``grid`` partition of the image instead of over all of it.
    n_patches : int, default 100_000
        Patches for the whitening.
    band_statistics : bool, default True
        Add mean and standard deviation of each band. Whitened patches do not see absolute
        brightness; these do.
    n_jobs : int, optional
        Threads; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of patches and filters.

    Attributes
    ----------
    filters_ : ndarray of shape (n_features / 2, patch_size, patch_size, C), float32
        The filters.
    bias_ : float
        The threshold in use.

    See Also
    --------
    SequenceFeatures : Pools frames over time.

    Notes
    -----
    With patches :math:`p` (centred over all entries, norm one), :math:`C = V \Lambda V^\top` their
    second moment and :math:`\epsilon = 10^{-3}`, filters are
    :math:`f = V (\Lambda + \epsilon)^{-1} V^\top p`: whitened once for the patch and once for the
    window it meets. They sum to zero, so adding a constant to all bands changes nothing. Responses
    are never stored: memory is that of a frame. The cost is height x width x filters x filter
    entries multiplications a frame.

    References
    ----------
    .. [1] E. Rolf et al. (2021). A generalizable and accessible approach to machine learning with
       global satellite imagery. Nature Communications 12, 4392, methods.
       doi:10.1038/s41467-021-24638-z
    .. [2] A. Coates and A. Y. Ng (2012). Learning feature representations with k-means.
       doi:10.1007/978-3-642-35289-8_30

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.imagery import RandomConvolutionFeatures
    >>> images = np.random.default_rng(0).random((5, 2, 8, 8, 3), dtype=np.float32)
    >>> encoder = RandomConvolutionFeatures(16, random_state=1).fit(images)
    >>> encoder.transform(images).shape
    (5, 2, 22)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_features": [Interval(Integral, 2, None, closed="left")],
        "patch_size": [Interval(Integral, 1, 11, closed="both")],
        "filters": [StrOptions({"patches", "gaussian"})],
        "bias": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "grid": [Interval(Integral, 1, None, closed="left")],
        "n_patches": [Interval(Integral, 10, None, closed="left")],
        "band_statistics": ["boolean"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        n_features: int = 512,
        *,
        patch_size: int = 3,
        filters: str = "patches",
        bias: float | str = 1.0,
        grid: int = 1,
        n_patches: int = 100_000,
        band_statistics: bool = True,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_features = n_features
        self.patch_size = patch_size
        self.filters = filters
        self.bias = bias
        self.grid = grid
        self.n_patches = n_patches
        self.band_statistics = band_statistics
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context
    def fit(self, images: Any, y: Any = None) -> Any:
        """Draw patches and make filters of them.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C) or (n, H, W, C)
            Images.
        y : None
            Ignored.

        Returns
        -------
        RandomConvolutionFeatures
            The fitted encoder.

        Raises
        ------
        DataError
            The images are smaller than a patch, or too few patches have only valid pixels.
        """
        return super().fit(images, y)

    def _learn(self, sequence: ImageSequence) -> None:
        size, C = self.patch_size, sequence.shape[-1]
        _check_size(sequence.shape, size, self.grid, "fit")
        if self.n_features % 2:
            raise DataError(
                f"RandomConvolutionFeatures.fit got n_features={self.n_features}; each filter "
                "gives two, so it must be even."
            )
        root = root_seed(self.random_state)
        K = self.n_features // 2
        patches = draw_patches(
            sequence, size, self.n_patches, generator(root, PATCHES), self.n_jobs
        )
        if self.filters == "gaussian":
            flat = generator(root, GAUSSIAN).normal(size=(K, size * size * C))
        else:
            flat = whitened_filters(patches, K, generator(root, CHOICE))
        self.filters_: NDArray[np.float32] = flat.reshape(K, size, size, C).astype(np.float32)
        if isinstance(self.bias, str):
            sample = patches[: max(1, 2_000_000 // max(K, 1))]
            self.bias_ = float(np.median(np.abs(sample @ flat.T)))
        else:
            self.bias_ = float(self.bias)

    def _encode(self, pixels: Any, valid: Any) -> NDArray[np.float32]:
        from causalfair.imagery._kernels import rectified_means

        K, size, _, C = self.filters_.shape
        _check_size((0, 0, *pixels.shape[1:]), size, self.grid, "transform")
        filters = np.ascontiguousarray(self.filters_.reshape(K, size * size * C).T)
        out = np.empty((len(pixels), self.grid**2 * 2 * K), dtype=np.float32)
        rectified_means(
            np.ascontiguousarray(pixels, dtype=np.float32), np.ascontiguousarray(valid), filters,
            size, np.float32(self.bias_), self.grid, 0.0, out,
        )  # fmt: skip
        if not self.band_statistics:
            return out
        mean, sd = band_moments(pixels, valid)
        return np.hstack([out, mean, sd]).astype(np.float32)

    def _usable_share(self, valid: Any) -> FloatArray:
        """Share of the positions at which every pixel of a patch is valid, (f,)."""
        share = np.ones(len(valid))
        cloudy = np.flatnonzero(~valid.all(axis=(1, 2)))
        window = (self.patch_size, self.patch_size)
        whole = sliding_window_view(valid[cloudy], window, axis=(1, 2)).all(axis=(3, 4))
        share[cloudy] = whole.mean(axis=(1, 2))
        return share

    def _names(self) -> list[str]:
        K = len(self.filters_)
        cells = [""] if self.grid == 1 else [f"_cell{c}" for c in range(self.grid**2)]
        names = [f"conv{k}{sign}{cell}" for cell in cells for sign in "+-" for k in range(K)]
        if self.band_statistics:
            bands = self.bands_in_ or tuple(f"band{b}" for b in range(self.n_bands_in_))
            names += [f"mean_{b}" for b in bands] + [f"sd_{b}" for b in bands]
        return names


def _check_size(shape: tuple[int, ...], size: int, grid: int, method: str) -> None:
    height, width = shape[2], shape[3]
    if min(height, width) - size + 1 < grid:
        raise DataError(
            f"RandomConvolutionFeatures.{method}: patch larger than image: patch_size={size} with "
            f"grid={grid} needs at least {size + grid - 1} x {size + grid - 1} pixels, the images "
            f"have {height} x {width}."
        )


def draw_patches(
    sequence: ImageSequence, size: int, count: int, rng: np.random.Generator, n_jobs: int | None
) -> FloatArray:
    """Patches (M, size * size * C), centred and of norm one.

    Image, frame and corner are uniform; patches with a pixel that is not valid are set aside. At
    most 1,000 images are read, block by block.
    """
    n, frames, H, W, _ = sequence.shape
    chosen = np.sort(rng.choice(n, size=min(n, MAX_IMAGES), replace=False))
    per_image = -(-count // len(chosen))
    eligible = np.zeros((n, frames), dtype=bool)
    np.logical_or.at(eligible, sequence.row_image, sequence.usable)
    places = np.empty((len(chosen), per_image, 3), dtype=np.int32)  # frame, top, left
    for drawn, image in zip(places, chosen, strict=True):
        when = rng.choice(np.flatnonzero(eligible[image]), size=per_image)
        top = rng.integers(0, H - size + 1, size=per_image)
        left = rng.integers(0, W - size + 1, size=per_image)
        drawn[:] = np.column_stack([when, top, left])[np.argsort(when, kind="stable")]
    cut = partial(_cut_patches, chosen, places, size)
    found = [patches for *_, patches in map_blocks(cut, sequence, images=chosen, n_jobs=n_jobs)]
    patches = np.concatenate(found).astype(np.float64)[:count]
    if len(patches) < 2:
        raise DataError(
            f"RandomConvolutionFeatures.fit found {len(patches)} patch(es) of {size} x {size} "
            "valid pixels; the masks leave nothing to draw from. Use a smaller patch_size or check "
            "the masks."
        )
    patches -= patches.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(patches, axis=1, keepdims=True)
    return np.asarray(patches / np.where(norm < 1e-8, 1.0, norm))


def _cut_patches(
    chosen: IntArray, places: NDArray[np.int32], size: int, block: Block
) -> NDArray[np.float32]:
    """Drawn patches (m, size * size * C) of a block's images whose pixels are all valid."""
    first = block.frames.start
    found = []
    for at, image in enumerate(block.images):
        when, top, left = places[np.searchsorted(chosen, image)].T
        here = (when >= first) & (when < block.frames.stop)
        t = (when[here] - first)[:, None, None]
        rows = top[here][:, None, None] + np.arange(size)[:, None]
        cols = left[here][:, None, None] + np.arange(size)
        whole = block.valid[at][t, rows, cols].all(axis=(1, 2))
        found.append(block.pixels[at][t, rows, cols][whole])
    return np.concatenate(found).reshape(-1, size * size * block.pixels.shape[-1])


def whitened_filters(patches: FloatArray, K: int, rng: np.random.Generator) -> FloatArray:
    """Filters f = V (Lambda + eps)^-1 V' p of K patches drawn without replacement, (K, d)."""
    M = len(patches)
    if M < K:
        warn(
            f"RandomConvolutionFeatures.fit: {M} patches for {K} filters; some are used twice.",
            CausalFairWarning,
        )
    chosen = patches[rng.choice(M, size=K, replace=M < K)]
    second_moment = patches.T @ patches / M
    values, vectors = np.linalg.eigh(second_moment)
    inverse = 1.0 / (np.maximum(values, 0.0) + EPSILON)
    return np.asarray((chosen @ vectors * inverse) @ vectors.T)
