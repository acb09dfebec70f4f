"""Simulated trials over places with image sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, RandomState
from causalfair.exceptions import ParameterError

__all__ = ["make_image_sequence_trial", "make_image_types_trial"]

BUILT = np.array([0.30, 0.28, 0.25])
VEGETATION = np.array([0.05, 0.08, 0.40])
BANDS = ("red", "green", "nir")
LATENT, PIXELS, OUTCOME, ASSIGN, CLOUDS, SITE = range(6)


def make_image_sequence_trial(
    n_places: int = 500,
    *,
    n_frames: int = 6,
    size: int = 24,
    units_per_place: int = 1,
    heterogeneity: float = 1.0,
    trend_share: float | None = None,
    noise: float = 1.0,
    site_sd: float = 0.0,
    cluster_randomised: bool = False,
    cloud_share: float = 0.0,
    missing_share: float = 0.0,
    season: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Villages in which growth over time, invisible in the last image, moves the effect.

    Each village ends with a built-up share a ~ U(.1, .5) and grows by g ~ U(-.04, .06) a year; the
    built area in each frame is a smooth random field above its own quantile, so that villages grow
    from their cores. The effect is 1 + h {4 (a - .3) + 20 (g - .01)}, and Y(0) = 2 a + noise.

    Parameters
    ----------
    n_places : int, default 500
        Villages.
    n_frames : int, default 6
        Yearly frames, the last one year before the baseline.
    size : int, default 24
        Height and width in pixels.
    units_per_place : int, default 1
        People in each village, who share its images.
    heterogeneity : float, default 1.0
        The factor h; 0 makes all effects 1.
    trend_share : float in [0, 1], optional
        Share of the effect's variance that growth accounts for, keeping the variance; about 0.61
        when None.
    noise : float, default 1.0
        Standard deviation of the outcome within a village.
    site_sd : float, default 0.0
        Standard deviation of an effect of the village on the outcome.
    cluster_randomised : bool, default False
        Treat whole villages.
    cloud_share : float, default 0.0
        Share of frames with a cloud, masked.
    missing_share : float, default 0.0
        Share of frames (never the last) that are missing.
    season : float, default 0.0
        Amplitude of a yearly cycle of the near infrared; dates then differ within the year.
    shift : tuple of float, default (0, 0)
        Added to a and g: for a target region unlike the trial.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``y, treatment, place`` and the noisy survey covariate ``x``; one row a person.
    truth : dict
        ``images`` (an :class:`~causalfair.imagery.ImageSequence`), ``cate`` and ``mu0`` (per row),
        ``ate``, ``a`` and ``g`` (per village), ``propensity``.

    References
    ----------
    .. [1] C. T. Jerzak, R. Vashistha and A. Daoud (2024). Effect heterogeneity with Earth
       observation in randomized controlled trials, section 4. arXiv:2407.11674

    Examples
    --------
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> frame, truth = make_image_sequence_trial(20, random_state=0)
    >>> truth["images"]
    ImageSequence(20 images x 6 frames of 24 x 24 pixels, 3 bands, 2010.5 to 2015.5, 20 units)
    """
    import pandas as pd

    from causalfair.imagery._sequence import ImageSequence

    root = root_seed(random_state)
    rng = generator(root, LATENT)
    a = rng.uniform(0.1, 0.5, n_places) + shift[0]
    g = rng.uniform(-0.04, 0.06, n_places) + shift[1]
    pixels, mask, times = _render(
        root, np.clip(a, 0.02, 0.98), g, n_frames, size, cloud_share, missing_share, season
    )
    place = np.repeat(np.arange(n_places), units_per_place)
    images = ImageSequence(
        pixels, times=times, mask=mask, bands=BANDS, image_of_unit=place,
        baseline=np.datetime64("2016-07-01"), gsd=30.0,
    )  # fmt: skip
    tau = _effects(a, g, heterogeneity, trend_share)[place]
    site = site_sd * generator(root, SITE).normal(size=n_places)
    rng = generator(root, OUTCOME)
    mu0 = (2 * a + site)[place]
    treated = _assign(generator(root, ASSIGN), n_places, place, cluster_randomised)
    y = mu0 + treated * tau + noise * rng.normal(size=place.size)
    frame = pd.DataFrame({"y": y, "treatment": treated, "place": place,
                          "x": a[place] + 0.1 * rng.normal(size=place.size)})  # fmt: skip
    truth = {
        "images": images,
        "cate": tau,
        "mu0": mu0,
        "ate": float(tau.mean()),
        "a": a,
        "g": g,
        "propensity": 0.5,
    }
    return frame, truth


def _effects(a: FloatArray, g: FloatArray, h: float, trend_share: float | None) -> FloatArray:
    level, trend = 4 * (a - 0.3), 20 * (g - 0.01)
    if trend_share is not None:
        if not 0 <= trend_share <= 1:
            raise ParameterError(
                f"make_image_sequence_trial got trend_share={trend_share}; give a share in [0, 1]."
            )
        var_level, var_trend = 16 * 0.4**2 / 12, 400 * 0.1**2 / 12
        total = var_level + var_trend
        level = level * np.sqrt((1 - trend_share) * total / var_level)
        trend = trend * np.sqrt(trend_share * total / var_trend)
    return np.asarray(1 + h * (level + trend))


def _assign(rng: np.random.Generator, n: int, place: Any, whole_places: bool) -> Any:
    """Half of the villages, or half of the people (to rounding), at random."""
    count = n if whole_places else place.size
    treated = rng.permutation(np.arange(count) % 2)
    return treated[place] if whole_places else treated


def smooth_field(rng: np.random.Generator, size: int) -> FloatArray:
    """Gaussian random field (size, size) with blur of two pixels."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(rng.normal(size=(size, size)), 2.0, mode="wrap"))


def _render(
    root: np.random.SeedSequence, a: FloatArray, g: FloatArray, T: int, size: int,
    cloud_share: float, missing_share: float, season: float,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Pixels (n, T, size, size, 3) float32, mask or None, and dates (n, T)."""
    n = len(a)
    rng, sky = generator(root, PIXELS), generator(root, CLOUDS)
    day = sky.integers(0, 365, size=(n, T)) if season else np.full((n, T), 181)
    start = (np.datetime64("2010-01-01") + (np.arange(T) - T + 6) * np.timedelta64(365, "D"))[None]
    times = start + day.astype("timedelta64[D]")
    if season:  # the last frame stays before the baseline
        times = np.minimum(times, np.datetime64("2016-06-30"))
    pixels = np.empty((n, T, size, size, 3), dtype=np.float32)
    mask = np.ones((n, T, size, size), dtype=bool)
    for i in range(n):
        rank = smooth_field(rng, size).ravel().argsort().argsort().reshape(size, size)
        for t in range(T):
            share = np.clip(a[i] - g[i] * (T - 1 - t), 0, 1)
            built = rank >= round((1 - share) * size * size)
            spectrum = VEGETATION.copy()
            spectrum[2] += season * np.cos(2 * np.pi * day[i, t] / 365.25)
            clean = np.where(built[..., None], BUILT, spectrum)
            light = 1 + 0.03 * rng.normal()
            pixels[i, t] = light * clean + 0.02 * rng.normal(size=(size, size, 3))
        _weather(sky, pixels[i], mask[i], cloud_share, missing_share)
    return pixels, mask if cloud_share or missing_share else None, times


def _weather(
    sky: np.random.Generator, pixels: Any, mask: Any, cloud_share: float, missing_share: float
) -> None:
    """Cover frames with clouds, and blank out missing ones, in place."""
    T, size = mask.shape[:2]
    for t in range(T):
        if cloud_share and sky.random() < cloud_share:
            field = smooth_field(sky, size)
            cloud = field > np.quantile(field, 0.7)
            pixels[t][cloud] = 0.9
            mask[t][cloud] = False
        if missing_share and t < T - 1 and sky.random() < missing_share:
            mask[t] = False


def make_image_types_trial(
    n_places: int = 400,
    *,
    size: int = 12,
    effects: tuple[float, float] = (0.0, 1.0),
    noise: float = 0.5,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Two types of places, told apart by the share of built land, with two effects.

    Parameters
    ----------
    n_places : int, default 400
        Places, one unit each.
    size : int, default 12
        Height and width in pixels.
    effects : tuple of float, default (0, 1)
        Effect in places with little and with much built land.
    noise : float, default 0.5
        Standard deviation of the outcome.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``y`` and ``treatment``.
    truth : dict
        ``images``, ``type`` and ``cate`` (per row), ``effects``, ``ate``.

    References
    ----------
    .. [1] C. T. Jerzak, F. Johansson and A. Daoud (2023). Image-based treatment effect
       heterogeneity. PMLR 213, 531-552. arXiv:2206.06417

    Examples
    --------
    >>> from causalfair.datasets import make_image_types_trial
    >>> frame, truth = make_image_types_trial(10, random_state=0)
    >>> sorted(set(truth["cate"].tolist()))
    [0.0, 1.0]
    """
    import pandas as pd

    from causalfair.imagery._sequence import ImageSequence

    root = root_seed(random_state)
    a = generator(root, LATENT).uniform(0.1, 0.5, n_places)
    pixels, _, _ = _render(root, a, np.zeros(n_places), 1, size, 0.0, 0.0, 0.0)
    kind = (a > np.median(a)).astype(int)
    tau = np.asarray(effects, dtype=float)[kind]
    treated = generator(root, ASSIGN).permutation(np.arange(n_places) % 2)
    y = 2 * a + treated * tau + noise * generator(root, OUTCOME).normal(size=n_places)
    frame = pd.DataFrame({"y": y, "treatment": treated})
    images = ImageSequence(pixels, bands=BANDS)
    truth = {"images": images, "type": kind, "cate": tau, "effects": tuple(effects),
             "ate": float(tau.mean())}  # fmt: skip
    return frame, truth
