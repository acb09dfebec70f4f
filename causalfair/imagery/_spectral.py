"""Plain statistics and spectral indices of frames."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalfair._core.compat import fit_context
from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError
from causalfair.imagery._frames import FrameEncoder
from causalfair.imagery._sequence import ImageSequence

__all__ = ["SpectralFeatures", "band_moments", "spectral_index"]

NEEDS = {
    "ndvi": ("nir", "red"),
    "ndbi": ("swir1", "nir"),
    "ndwi": ("green", "nir"),
    "evi": ("nir", "red", "blue"),
}
PERCENTILES = (10, 50, 90)
TINY = 1e-6


class SpectralFeatures(FrameEncoder):
    """Band statistics, spectral indices and texture of each frame.

    The plain alternative to learned or random features, and the one to interpret.

    Parameters
    ----------
    indices : "auto", or sequence of {"ndvi", "ndbi", "ndwi", "evi"}, default "auto"
        Indices to add; ``"auto"`` adds those whose bands are named.
    n_jobs : int, optional
        Threads; results do not depend on it.

    Attributes
    ----------
    indices_ : tuple of str
        The indices in use.

    See Also
    --------
    RandomConvolutionFeatures : Texture without hand-made indices.

    Notes
    -----
    Per band: mean, standard deviation, percentiles 10, 50 and 90, and texture (mean absolute
    difference of neighbouring pixels). NDVI is (NIR - red) / (NIR + red), NDBI (SWIR1 - NIR) /
    (SWIR1 + NIR), NDWI (green - NIR) / (green + NIR), EVI 2.5 (NIR - red) / (NIR + 6 red - 7.5 blue
    + 1). Pixels with a denominator below 1e-6 in size are left out.

    References
    ----------
    .. [1] C. T. Jerzak, R. Vashistha and A. Daoud (2024). Effect heterogeneity with Earth
       observation in randomized controlled trials. arXiv:2407.11674

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.imagery import ImageSequence, SpectralFeatures
    >>> images = np.random.default_rng(0).random((3, 1, 6, 6, 2), dtype=np.float32)
    >>> sequence = ImageSequence(images, bands=("red", "nir"))
    >>> SpectralFeatures().fit(sequence).get_feature_names_out()[-1]
    'ndvi'
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "indices": [str, tuple, list],
        "n_jobs": [Integral, None],
    }

    def __init__(self, indices: Any = "auto", *, n_jobs: int | None = None) -> None:
        self.indices = indices
        self.n_jobs = n_jobs

    @fit_context
    def fit(self, images: Any, y: Any = None) -> Any:
        """Note the bands.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C) or (n, H, W, C)
            Images.
        y : None
            Ignored.

        Returns
        -------
        SpectralFeatures
            The fitted encoder.

        Raises
        ------
        ParameterError
            An index needs a band that is not named.
        """
        return super().fit(images, y)

    def _learn(self, sequence: ImageSequence) -> None:
        bands = sequence.bands or ()
        if isinstance(self.indices, str) and self.indices == "auto":
            self.indices_ = tuple(k for k, need in NEEDS.items() if set(need) <= set(bands))
            return
        self.indices_ = (self.indices,) if isinstance(self.indices, str) else tuple(self.indices)
        for name in self.indices_:
            if name not in NEEDS:
                raise ParameterError(
                    f"SpectralFeatures.fit got the index {name!r}; it knows {', '.join(NEEDS)}."
                )
            missing = [band for band in NEEDS[name] if band not in bands]
            if missing:
                raise ParameterError(
                    f"SpectralFeatures.fit: {name} needs the band(s) {', '.join(missing)}; the "
                    f"images name {', '.join(bands) or 'none'}. Give ImageSequence(bands=...)."
                )

    def _encode(self, pixels: Any, valid: Any) -> NDArray[np.float32]:
        mean, sd = band_moments(pixels, valid)
        seen = np.where(valid[..., None], pixels, np.nan).astype(np.float64)
        parts = [mean, sd, *_percentiles(seen), _texture(seen)]
        for name in self.indices_:
            parts.append(spectral_index(name, seen, self.bands_in_ or ())[:, None])
        return np.hstack(parts).astype(np.float32)

    def _names(self) -> list[str]:
        bands = self.bands_in_ or tuple(f"band{b}" for b in range(self.n_bands_in_))
        kinds = ["mean", "sd", *(f"p{q}" for q in PERCENTILES), "texture"]
        return [f"{kind}_{band}" for kind in kinds for band in bands] + list(self.indices_)


def band_moments(pixels: Any, valid: Any) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each band over valid pixels, two (f, C) arrays."""
    f, H, W, C = pixels.shape
    values = pixels.reshape(f, H * W, C).astype(np.float64)
    weight = valid.reshape(f, 1, H * W).astype(np.float64)
    count = weight.sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weight @ values)[:, 0] / count
        values -= mean[:, None]  # two passes: no cancellation
        np.square(values, out=values)
        sd = np.sqrt((weight @ values)[:, 0] / count)
    return mean, sd


def _percentiles(seen: Any) -> list[FloatArray]:
    """Percentiles of each band over valid pixels, linear between order statistics, (f, C) each."""
    f, _, _, C = seen.shape
    ordered = np.sort(seen.reshape(f, -1, C), axis=1)  # NaN goes last
    last = np.maximum(np.isfinite(ordered).sum(axis=1) - 1, 0)
    out = []
    for q in PERCENTILES:
        at = last * (q / 100)
        below = np.floor(at).astype(np.intp)
        low, high = (
            np.take_along_axis(ordered, k[:, None], axis=1)[:, 0]
            for k in (below, np.minimum(below + 1, last))
        )
        out.append(low + (at - below) * (high - low))
    return out


def _nan_mean(values: Any, axes: tuple[int, ...]) -> FloatArray:
    count = np.isfinite(values).sum(axis=axes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nansum(values, axis=axes) / count)


def _texture(seen: Any) -> FloatArray:
    """Mean absolute difference of horizontal and of vertical neighbours, averaged, (f, C)."""
    steps = [np.abs(np.diff(seen, axis=axis)) for axis in (1, 2) if seen.shape[axis] > 1]
    if not steps:
        return np.zeros((len(seen), seen.shape[-1]))
    return np.asarray(np.mean([_nan_mean(step, (1, 2)) for step in steps], axis=0))


def spectral_index(name: str, seen: Any, bands: tuple[str, ...]) -> FloatArray:
    """Mean index of each frame over pixels where it is defined, (f,)."""
    band = {need: seen[..., bands.index(need)] for need in NEEDS[name]}
    if name == "evi":
        top = 2.5 * (band["nir"] - band["red"])
        bottom = band["nir"] + 6.0 * band["red"] - 7.5 * band["blue"] + 1.0
    else:
        first, second = NEEDS[name]
        top, bottom = band[first] - band[second], band[first] + band[second]
    defined = np.abs(bottom) >= TINY  # False where NaN
    value = np.where(defined, top / np.where(defined, bottom, 1.0), np.nan)
    return _nan_mean(value, (1, 2))
