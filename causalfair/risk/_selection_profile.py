"""Intervals of the correlation and of the mean outcome by profile likelihood."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import ndtri

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError
from causalfair.risk._selection_fit import SelectionObjective

__all__ = ["Profile", "profile_of"]

# atanh of a correlation of 0.999: beyond it an end is called one.
EDGE, GRID = 3.8, 0.2
HELD, TAME, FAR = 1e-3, 1.0, 10.0


@dataclass(frozen=True)
class Profile:
    """Log-likelihood maximised over everything but one quantity.

    Attributes
    ----------
    value : callable
        Maps the quantity's coordinate and a start to the maximum and where it is.
    start : (k,) float array
        Free parameters at the maximum of all.
    center, top : float
        The coordinate and the log-likelihood there.
    grid : (g,) float array
        Coordinates to walk over, ascending.
    back : callable
        From the coordinate to the quantity.
    """

    value: Callable[[float, FloatArray], tuple[float, FloatArray]]
    start: FloatArray
    center: float
    top: float
    grid: FloatArray
    back: Callable[[float], float]

    def ratio(self, at: float) -> float:
        """Likelihood-ratio statistic of one value of the coordinate."""
        return max(0.0, 2.0 * (self.top - self.value(at, self.start)[0]))

    def interval(self, level: float) -> tuple[float, float]:
        """Ends of the set of values that the likelihood ratio does not reject, its hull."""
        cut = float(ndtri((1 + level) / 2)) ** 2
        ends = []
        top, walks = self.top, []
        for side in (-1.0, 1.0):
            here, walk = self.start, [(self.center, self.top, self.start)]
            for at in self.grid[(self.grid - self.center) * side > 0][:: int(side)]:
                value, here = self.value(float(at), here)
                walk.append((float(at), value, here))
                if 2 * (self.top - value) > cut + FAR:
                    break
            walks.append(walk)
            # A walk may climb to a maximum that the search from other starts had missed.
            top = max(top, *(value for _, value, _ in walk))
        for walk in walks:
            inside = max(j for j, (_, value, _) in enumerate(walk) if 2 * (top - value) <= cut)
            if inside == len(walk) - 1:  # not rejected up to the edge
                ends.append(self.back(float(np.sign(walk[-1][0] - self.center) * np.inf)))
                continue
            near, (far, _, _) = walk[inside], walk[inside + 1]

            def excess(at: float, start: FloatArray = near[2]) -> float:
                return 2 * (top - self.value(at, start)[0]) - cut

            ends.append(self.back(float(brentq(excess, near[0], far, xtol=1e-4))))
        return ends[0], ends[1]


def profile_of(term: str, objective: SelectionObjective, free: FloatArray, owner: str) -> Profile:
    """Profile of ``"correlation"`` or of ``"prevalence"``, on the objective's scale.

    Raises
    ------
    ParameterError
        Another term, or a prevalence that was imposed.
    """
    top = objective.value(free)[0]
    if term == "correlation":
        position = objective.n_free - 1 - objective.ratio_is_free
        center = float(np.clip(free[position], -EDGE, EDGE))
        return Profile(
            lambda at, start: _held_coordinate(objective, position, at, start), free, center,
            max(top, _held_coordinate(objective, position, center, free)[0]),
            np.arange(-EDGE, EDGE + GRID / 2, GRID), lambda at: float(np.tanh(at)),
        )  # fmt: skip
    if term != "prevalence" or objective.prevalence is not None:
        raise ParameterError(
            f"{owner} got term={term!r}; it is 'correlation', or 'prevalence' where none was "
            "imposed."
        )
    center, slope, rows = objective.mean_outcome(free)
    weight = objective.rows.weight
    spread = float(np.sqrt(np.average((rows - center) ** 2, weights=weight) + slope @ slope))
    bounded = "log_sigma" not in objective.likelihood.extras
    grid = np.linspace(0.01, 0.99, 50) if bounded else center + spread * np.linspace(-3, 3, 31)
    outer = (0.0, 1.0) if bounded else (-np.inf, np.inf)
    return Profile(
        lambda at, start: _held_mean(objective, at, start, spread), free, center, top, grid,
        lambda at: at if np.isfinite(at) else outer[int(at > 0)],
    )  # fmt: skip


def _minimise(
    loss: Callable[[FloatArray], tuple[float, FloatArray]], start: FloatArray
) -> FloatArray:
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-6})
    return np.asarray(found.x, dtype=np.float64)


def _held_coordinate(
    objective: SelectionObjective, position: int, at: float, start: FloatArray
) -> tuple[float, FloatArray]:
    rest = np.delete(np.arange(objective.n_free), position)
    scale = objective.rows.weight.sum()

    def whole(x: FloatArray) -> FloatArray:
        full = np.empty(objective.n_free)
        full[rest], full[position] = x, at
        return full

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = objective.value(whole(x))
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e10, np.zeros_like(x)
        return -value / scale, -gradient[rest] / scale

    end = whole(_minimise(loss, start[rest]))
    return objective.value(end)[0], end


def _held_mean(
    objective: SelectionObjective, at: float, start: FloatArray, spread: float
) -> tuple[float, FloatArray]:
    """The mean outcome held by a tight prevalence, which the value leaves out again."""
    held = dataclasses.replace(objective, prevalence=at, prevalence_sd=HELD * spread)
    scale = objective.rows.weight.sum()

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = held.value(x)
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e10, np.zeros_like(x)
        return -value / scale, -gradient / scale

    # From a correlation at its edge the search does not find back.
    position = objective.n_free - 1 - objective.ratio_is_free
    tame = start.copy()
    tame[position] = np.clip(tame[position], -TAME, TAME)
    ends = [_minimise(loss, one) for one in ([start] if (tame == start).all() else [start, tame])]
    end = max(ends, key=lambda x: held.value(x)[0])
    return objective.value(end)[0], end
