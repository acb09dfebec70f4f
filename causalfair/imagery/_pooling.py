"""From features of frames to one vector a place: pooling over time.

Every function takes features (r, T, D), usable frames (r, T), and dates in years before the
baseline (r, T), and returns (r, D'). Features of frames that are not usable are zero on entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray
from causalfair.exceptions import DataError, ParameterError

__all__ = ["POOLINGS", "few_dates", "pool", "pooled_names", "without_season"]

SEASON_FRAMES = 5
SEASON_RIDGE = 1e-6
ONE_SEASON = 0.9  # mean resultant length of days of the year: a spread of about 26 days
HEADS = 4


def _weighted_mean(phi: FloatArray, w: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("rt,rtd->rd", w, phi) / w.sum(axis=1)[:, None])


def _mean(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    del t, half_life
    return _weighted_mean(phi, use.astype(float))


def _centred(phi: FloatArray, use: BoolArray) -> FloatArray:
    centre = _weighted_mean(phi, use.astype(float))
    return np.asarray((phi - centre[:, None]) * use[:, :, None])


def _var(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    del t, half_life
    return _weighted_mean(_centred(phi, use) ** 2, use.astype(float))


def _trend(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    """Least-squares slope a year; 0 where fewer than two distinct dates can be used."""
    del half_life
    w = use.astype(float)
    t_bar = (w * t).sum(axis=1) / w.sum(axis=1)
    dt = (t - t_bar[:, None]) * w
    sxx = (dt**2).sum(axis=1)
    flat = sxx <= 1e-12
    slope = np.einsum("rt,rtd->rd", dt, _centred(phi, use)) / np.where(flat, 1.0, sxx)[:, None]
    slope[flat] = 0.0
    return np.asarray(slope)


def _level(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    """Value of the least-squares line at the baseline, t = 0."""
    w = use.astype(float)
    t_bar = (w * t).sum(axis=1) / w.sum(axis=1)
    slope = _trend(phi, use, t, half_life)
    return np.asarray(_weighted_mean(phi, w) - slope * t_bar[:, None])


def _edge(phi: FloatArray, use: BoolArray, t: FloatArray, *, last: bool) -> FloatArray:
    order = np.where(use, t, -np.inf if last else np.inf)
    at = order.argmax(axis=1) if last else order.argmin(axis=1)
    return np.asarray(phi[np.arange(len(phi)), at])


def _last(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    del half_life
    return _edge(phi, use, t, last=True)


def _diff(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    """Mean of consecutive differences, which telescopes."""
    del half_life
    steps = np.maximum(use.sum(axis=1) - 1, 1)[:, None]
    return np.asarray((_edge(phi, use, t, last=True) - _edge(phi, use, t, last=False)) / steps)


def _absdiff(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    """Mean absolute difference of consecutive usable frames."""
    del half_life
    out = np.zeros((len(phi), phi.shape[2]))
    for r in range(len(phi)):
        frames = np.flatnonzero(use[r])
        frames = frames[np.argsort(t[r, frames], kind="stable")]
        if frames.size > 1:
            out[r] = np.abs(np.diff(phi[r, frames], axis=0)).mean(axis=0)
    return out


def _median(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    del t, half_life
    return np.asarray(np.nanmedian(np.where(use[:, :, None], phi, np.nan), axis=1))


def _recency(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    """Mean with weights that halve every ``half_life`` years before the baseline."""
    latest = np.where(use, t, -np.inf).max(axis=1, keepdims=True)
    weight = np.where(use, 2.0 ** (np.where(use, t - latest, 0.0) / half_life), 0.0)
    return _weighted_mean(phi, weight)


def without_season(use: BoolArray, t: FloatArray) -> BoolArray:
    """Places (r,) whose frames cannot show a yearly cycle: too few, or all of one time of year."""
    count = use.sum(axis=1)
    angle = np.where(use, 2 * np.pi * t, 0.0)
    resultant = np.hypot((use * np.cos(angle)).sum(axis=1), (use * np.sin(angle)).sum(axis=1))
    return np.asarray((count < SEASON_FRAMES) | (resultant > ONE_SEASON * count))


def few_dates(use: BoolArray, t: FloatArray) -> BoolArray:
    """Places (r,) with fewer than two distinct dates, whose slope is set to zero."""
    latest = np.where(use, t, -np.inf).max(axis=1)
    return np.asarray(latest - np.where(use, t, np.inf).min(axis=1) <= 1e-6)


def _season(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    """Level, amplitude of the yearly cycle, and slope; a plain line where there is no cycle."""
    r, _, D = phi.shape
    out = np.empty((r, 3 * D))
    level, slope = _level(phi, use, t, half_life), _trend(phi, use, t, half_life)
    plain = without_season(use, t)
    for i in range(r):
        frames = np.flatnonzero(use[i])
        if plain[i]:
            out[i] = np.concatenate([level[i], np.zeros(D), slope[i]])
            continue
        angle = 2 * np.pi * t[i, frames]
        design = np.column_stack([np.ones(frames.size), np.cos(angle), np.sin(angle), t[i, frames]])
        gram = design.T @ design + SEASON_RIDGE * np.eye(4)
        beta = np.linalg.solve(gram, design.T @ phi[i, frames])
        out[i] = np.concatenate([beta[0], np.hypot(beta[1], beta[2]), beta[3]])
    return out


def _concat(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    """All frames side by side; missing ones interpolated in time, ends carried."""
    del half_life
    filled = phi.copy()
    for i in np.flatnonzero(~use.all(axis=1)):
        frames = np.flatnonzero(use[i])
        frames = frames[np.argsort(t[i, frames], kind="stable")]
        for d in range(phi.shape[2]):
            filled[i, :, d] = np.interp(t[i], t[i, frames], phi[i, frames, d])
    return filled.reshape(len(phi), -1)


def _attention(phi: FloatArray, use: BoolArray, t: FloatArray, half_life: float) -> FloatArray:
    """Softmax pooling with fixed random keys and query: a random temporal attention layer."""
    del half_life
    r, _, D = phi.shape
    heads = min(HEADS, D)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy=D)))
    width = 8
    key = rng.normal(size=(heads, D, width)) / np.sqrt(D)
    query = rng.normal(size=(heads, width))
    rates = 2.0 ** -np.arange(width // 2)
    when = np.where(use, t, 0.0)[:, :, None] * rates
    clock = np.concatenate([np.sin(when), np.cos(when)], axis=2)
    out = np.empty((r, D))
    for h, columns in enumerate(np.array_split(np.arange(D), heads)):
        logits = ((phi @ key[h] + clock) @ query[h]) / np.sqrt(width)
        logits = np.where(use, logits, -np.inf)
        weight = np.exp(logits - logits.max(axis=1, keepdims=True))
        out[:, columns] = _weighted_mean(phi[:, :, columns], weight)
    return out


Pooling = Callable[[FloatArray, BoolArray, FloatArray, float], FloatArray]
POOLINGS: dict[str, Pooling] = {
    "mean": _mean,
    "trend": _trend,
    "level": _level,
    "last": _last,
    "median": _median,
    "var": _var,
    "diff": _diff,
    "absdiff": _absdiff,
    "recency": _recency,
    "season": _season,
    "concat": _concat,
    "attention_random": _attention,
}


def check_poolings(pooling: Any, owner: str) -> tuple[str, ...]:
    """The names of ``pooling``, all known."""
    names = (pooling,) if isinstance(pooling, str) else tuple(pooling)
    unknown = [name for name in names if name not in POOLINGS]
    if unknown or not names:
        raise ParameterError(
            f"{owner} got pooling={pooling!r}; it takes one or more of {', '.join(POOLINGS)}."
        )
    return names


def seen_frames(phi: Any, use: BoolArray, t: FloatArray) -> BoolArray:
    """Frames that may be used, have a date, and have features, (r, T)."""
    return np.asarray(np.isfinite(phi).all(axis=2) & use & np.isfinite(t))


def latest_frame(seen: BoolArray, t: FloatArray) -> BoolArray:
    """Only the latest of the frames seen, (r, T)."""
    last = np.where(seen, t, -np.inf).argmax(axis=1)
    return np.asarray(seen & (np.arange(seen.shape[1]) == last[:, None]))


def pool(
    phi: Any, use: BoolArray, t: FloatArray, names: tuple[str, ...], half_life: float = 2.0
) -> FloatArray:
    """Pooled features side by side.

    Parameters
    ----------
    phi : ndarray of shape (r, T, D)
        Features of frames; NaN rows are missing frames.
    use : ndarray of shape (r, T), bool
        Frames that may be used.
    t : ndarray of shape (r, T)
        Years before the baseline.
    names : tuple of str
        Poolings.
    half_life : float
        Years, for ``"recency"``.

    Returns
    -------
    ndarray of shape (r, D')
        Pooled features.

    Raises
    ------
    DataError
        A place has no usable frame.
    """
    phi = np.asarray(phi, dtype=np.float64)
    seen = seen_frames(phi, use, t)
    empty = np.flatnonzero(~seen.any(axis=1))
    if empty.size:
        raise DataError(
            f"{empty.size} place(s) have no usable frame (all masked, missing or after the "
            f"baseline), the first being row {empty[0]}. Lower min_valid, or leave those units out "
            "with ImageSequence.subset."
        )
    clean = np.where(seen[:, :, None], phi, 0.0)
    when = _complete_dates(t)
    return np.hstack([POOLINGS[name](clean, seen, when, half_life) for name in names])


def _complete_dates(t: FloatArray) -> FloatArray:
    """Dates with unknown ones interpolated by position: such frames have no features anyway."""
    when = np.array(t, dtype=np.float64)
    position = np.arange(when.shape[1])
    for r in np.flatnonzero(~np.isfinite(when).all(axis=1)):
        known = np.isfinite(when[r])
        when[r] = np.interp(position, position[known], when[r, known])
    return when


def pooled_names(frame_names: Any, names: tuple[str, ...], frames: int) -> list[str]:
    """Names of the columns that :func:`pool` makes."""
    out = []
    for name in names:
        if name == "season":
            out += [f"{f}:season_{part}" for part in ("level", "amplitude", "slope")
                    for f in frame_names]  # fmt: skip
        elif name == "concat":
            out += [f"{f}:frame{k}" for k in range(frames) for f in frame_names]
        else:
            out += [f"{f}:{name}" for f in frame_names]
    return out
