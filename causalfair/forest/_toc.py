"""Targeting operator characteristic and rank-weighted averages, on plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RANK_WEIGHTS",
    "Ranking",
    "half_samples",
    "rank_units",
    "rate",
    "rate_influence",
    "toc_at",
]

FloatArray = NDArray[np.float64]
RankWeight = Callable[[FloatArray], FloatArray]


def _ones(q: FloatArray) -> FloatArray:
    return np.ones_like(q)


def _identity(q: FloatArray) -> FloatArray:
    return q


ROUNDING = 1e-12  # of the largest priority: sums in another order differ by this much
RANK_WEIGHTS: dict[str, RankWeight] = {"autoc": _ones, "qini": _identity}


@dataclass(frozen=True, slots=True)
class Ranking:
    """Units in order of priority, highest first.

    Attributes
    ----------
    score : ndarray of shape (n,)
        Doubly robust scores.
    weight : ndarray of shape (n,)
        Positive weights.
    tie : ndarray of shape (n,)
        Number of the unit's set of equal priorities: 0, 0, 1, 2, 2, ...
    order : ndarray of shape (n,)
        Position of each ranked unit in the data.
    """

    score: FloatArray
    weight: FloatArray
    tie: NDArray[np.intp]
    order: NDArray[np.intp]

    @property
    def has_ties(self) -> bool:
        """Whether some priorities are equal."""
        return bool(self.tie[-1] + 1 < self.tie.size)

    @property
    def is_flat(self) -> bool:
        """Whether all priorities are equal, so that nobody is ranked above another."""
        return bool(self.tie[-1] == 0)

    def smoothed(self, keep: Any = slice(None)) -> tuple[FloatArray, FloatArray]:
        """Scores, replaced by their weighted mean within ties, and weights of the kept units."""
        score, weight, tie = self.score[keep], self.weight[keep], self.tie[keep]
        if not self.has_ties:
            return score, weight
        new = np.flatnonzero(np.diff(tie, prepend=-1))
        mean = np.add.reduceat(weight * score, new) / np.add.reduceat(weight, new)
        return np.repeat(mean, np.diff(np.append(new, tie.size))), weight


def rank_units(priority: FloatArray, score: FloatArray, weight: FloatArray) -> Ranking:
    """Sort by priority, highest first; equal priorities in the order of the data."""
    order = np.argsort(-priority, kind="stable")
    step = np.diff(priority[order], prepend=priority[order[0]])
    tie = np.cumsum(step < -ROUNDING * np.abs(priority).max())
    return Ranking(score[order], weight[order], tie.astype(np.intp), order)


def rate(ranking: Ranking, rank_weight: RankWeight, keep: Any = slice(None)) -> float:
    """Sum over units of ``alpha(q) w TOC(q)``, eq. (2.3) of Yadlowsky et al. at unit ends."""
    if ranking.is_flat:
        return 0.0
    score, weight = ranking.smoothed(keep)
    treated = np.cumsum(weight)
    total = treated[-1]
    gained = np.cumsum(weight * score)
    toc = gained / treated - gained[-1] / total
    return float(np.sum(rank_weight(treated / total) * weight * toc) / total)


def toc_at(ranking: Ranking, q: FloatArray, keep: Any = slice(None)) -> tuple[FloatArray, float]:
    """TOC at shares ``q`` (a fraction of a unit counts as that fraction), and the average."""
    score, weight = ranking.smoothed(keep)
    treated = np.concatenate([[0.0], np.cumsum(weight)])
    gained = np.concatenate([[0.0], np.cumsum(weight * score)])
    average = gained[-1] / treated[-1]
    if ranking.is_flat:
        return np.zeros(q.size), float(average)
    reach = q * treated[-1]
    return np.interp(reach, treated, gained) / reach - average, float(average)


def half_samples(
    ranking: Ranking, cluster: NDArray[np.intp] | None, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which ranked units a random half of the units (clusters) keeps."""
    n = ranking.score.size
    units = n if cluster is None else int(cluster.max()) + 1
    chosen = np.zeros(units, bool)
    chosen[rng.permutation(units)[: units // 2]] = True
    return chosen[ranking.order] if cluster is None else chosen[cluster[ranking.order]]


def rate_influence(ranking: Ranking, method: str) -> FloatArray:
    """Influence values in the order of the data; no ties, no weights.

    The second part is what estimating the ranks costs.
    """
    n = ranking.score.size
    rank = np.arange(1, n + 1)
    if method == "autoc":
        harmonic = np.concatenate([[0.0], np.cumsum(1 / rank)])
        weight, slope = harmonic[n] - harmonic[:n] - 1, -n / rank
    else:
        weight, slope = ((n + 1) / 2 - rank) / n, -np.ones(n)
    moved = slope * ranking.score
    below = np.cumsum(moved[::-1])[::-1]  # sum over units ranked here or lower
    value = np.mean(weight * ranking.score)
    ranked = weight * ranking.score - value + (below - np.sum(moved * rank) / n) / n
    influence = np.empty(n)
    influence[ranking.order] = ranked - ranked.mean()  # zero but for rounding
    return influence
