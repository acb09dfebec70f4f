"""The threshold test as a log density: cells, coordinates, priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import ParameterError

__all__ = ["SearchCells", "ThresholdModel", "ThresholdPriors", "named_priors"]


@dataclass(frozen=True)
class ThresholdPriors:
    """Priors of a threshold test; normal unless said otherwise.

    Parameters
    ----------
    guilt : tuple of (float, float)
        Mean and standard deviation of a group's logit share of guilt.
    signal : tuple of (float, float)
        Of a group's log signal: the log distance between guilty and innocent (discriminant form),
        or the log concentration of risk (beta form).
    threshold : tuple of (float, float)
        Of a group's mean threshold: on the signal's scale (discriminant form), or its logit (beta
        form).
    threshold_spread : float
        Scale of the half-normal spread of a group's thresholds between places.
    place_guilt, place_signal : float
        Standard deviations of the places' effects on guilt and on the signal.
    region_guilt, region_signal : float
        The same for regions, where they are given.

    Examples
    --------
    >>> from causalfair.risk import ThresholdPriors
    >>> ThresholdPriors(guilt=(-2.0, 1.0)).guilt
    (-2.0, 1.0)
    """

    guilt: tuple[float, float] = (-4.0, 0.5)
    signal: tuple[float, float] = (0.0, 0.5)
    threshold: tuple[float, float] = (0.0, 2.0)
    threshold_spread: float = 2.0
    place_guilt: float = 0.1
    place_signal: float = 0.1
    region_guilt: float = 0.5
    region_signal: float = 0.5

    def __post_init__(self) -> None:
        spreads = [self.guilt[1], self.signal[1], self.threshold[1], self.threshold_spread]
        spreads += [self.place_guilt, self.place_signal, self.region_guilt, self.region_signal]
        if not all(np.isfinite(s) and s > 0 for s in spreads):
            raise ParameterError(
                f"ThresholdPriors got standard deviations {spreads}; all must be positive."
            )


def named_priors(name: str, form: str) -> ThresholdPriors:
    """Published priors of the two forms, or weaker ones."""
    if name == "weak":
        signal, location = ((1.5, 0.5), (-1.5, 1.0)) if form == "beta" else ((0.5, 0.5), (0.0, 2.0))
        return ThresholdPriors((-2.5, 1.0), signal, location, 1.0, 0.25, 0.25, 0.5, 0.25)
    if form == "beta":
        return ThresholdPriors((-3.5, 0.25), (2.0, 0.5), (-2.0, 1.0), 0.25, 0.25, 0.5, 0.25, 0.5)
    return ThresholdPriors()


@dataclass(frozen=True)
class SearchCells:
    """Counts of a group in a place.

    Attributes
    ----------
    stops, searches, hits : (n,) float arrays
        Counts.
    group, place : (n,) int arrays
        Codes.
    groups, places : tuple of str
        Their names.
    region : (n_places,) int array or None
        Code of the region of each place.
    regions : tuple of str
        Their names.
    """

    stops: FloatArray
    searches: FloatArray
    hits: FloatArray
    group: IntArray
    place: IntArray
    groups: tuple[str, ...]
    places: tuple[str, ...]
    region: IntArray | None = None
    regions: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of cells."""
        return len(self.stops)

    def counts(self) -> FloatArray:
        """(n, 3): hits, misses, stops without a search."""
        return np.ascontiguousarray(
            np.column_stack([self.hits, self.searches - self.hits, self.stops - self.searches])
        )

    def place_weights(self) -> FloatArray:
        """(n_groups, n) weights of a group's cells: stops of all groups in the place."""
        total = np.bincount(self.place, weights=self.stops, minlength=len(self.places))
        weight = np.zeros((len(self.groups), self.n))
        weight[self.group, np.arange(self.n)] = total[self.place]
        return np.asarray(weight / weight.sum(axis=1, keepdims=True))


class ThresholdModel:
    """Log posterior density of a threshold test.

    A cell's coordinate is its search rate, as the distance of its logit from the observed one in
    standard errors; thresholds follow from it and the signal law. Search rates are what the data
    know best, so that the coordinates are nearly independent a posteriori.
    """

    def __init__(self, cells: SearchCells, priors: ThresholdPriors, form: str) -> None:
        self.cells, self.priors, self.beta = cells, priors, form == "beta"
        r, d = len(cells.groups), len(cells.places)
        g = 0 if cells.region is None else len(cells.regions)
        sizes = {
            "guilt": r, "signal": r, "threshold": r, "log_spread": r,
            "place_guilt": d, "place_signal": d, "region_guilt": g, "region_signal": g,
            "rate": cells.n,
        }  # fmt: skip
        ends = np.cumsum(list(sizes.values()))
        self.slices = {
            name: slice(int(end - size), int(end))
            for (name, size), end in zip(sizes.items(), ends, strict=True)
        }
        self.n_dim = int(ends[-1])
        self._counts = cells.counts()
        searched, left = cells.searches + 0.5, cells.stops - cells.searches + 0.5
        self._center, self._error = np.log(searched / left), np.sqrt(1 / searched + 1 / left)
        # A fixed start of the root search: same coordinates, same bits.
        self._start = np.full(cells.n, priors.threshold[0])
        f, e, rate = self.coordinates(np.zeros(self.n_dim))
        self._start = self._solve(f, e, rate)
        shift = self._solve(f, e, rate + 1e-3) - self._solve(f, e, rate - 1e-3)
        # Precision of a cell's threshold by its search rate alone.
        self._precision = 1.0 / (self._error * shift / 2e-3) ** 2

    def start(self) -> FloatArray:
        """Observed search rates, thresholds around their mean, the rest at the prior's centre."""
        x = np.zeros(self.n_dim)
        c, q = self.cells, self.priors
        count = np.bincount(c.group)
        mean = np.bincount(c.group, self._start) / count
        spread = np.sqrt(np.bincount(c.group, (self._start - mean[c.group]) ** 2) / count)
        x[self.slices["threshold"]] = (mean - q.threshold[0]) / q.threshold[1]
        x[self.slices["log_spread"]] = np.log(np.maximum(spread / q.threshold_spread, 0.05))
        return x

    def coordinates(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(f, e, rate) of every cell: logit guilt, log signal, logit search rate."""
        c, q, s = self.cells, self.priors, self.slices
        f = (q.guilt[0] + q.guilt[1] * x[s["guilt"]])[c.group]
        e = (q.signal[0] + q.signal[1] * x[s["signal"]])[c.group]
        f = f + q.place_guilt * x[s["place_guilt"]][c.place]
        e = e + q.place_signal * x[s["place_signal"]][c.place]
        if c.region is not None:
            at = c.region[c.place]
            f = f + q.region_guilt * x[s["region_guilt"]][at]
            e = e + q.region_signal * x[s["region_signal"]][at]
        return f, e, self._center + self._error * x[s["rate"]]

    def start_roots_at(self, x: FloatArray) -> None:
        """Start later root searches at the thresholds of ``x``: fewer steps, same roots."""
        self._start = self._solve(*self.coordinates(x))

    def _solve(self, f: FloatArray, e: FloatArray, rate: FloatArray) -> FloatArray:
        from causalfair.risk._kernels_normal import threshold_solutions

        u = np.empty(self.cells.n)
        threshold_solutions(self.beta, f, e, rate, self._start, u)
        return u

    def density(self, x: FloatArray, *, jacobian: float = 1.0) -> tuple[float, FloatArray]:
        """Log posterior density and its gradient; ``jacobian=0`` as :meth:`marginal` needs it."""
        from causalfair.risk._kernels_normal import threshold_cells

        c, q, s = self.cells, self.priors, self.slices
        f, e, rate = self.coordinates(x)
        mean = (q.threshold[0] + q.threshold[1] * x[s["threshold"]])[c.group]
        spread = q.threshold_spread * np.exp(x[s["log_spread"]])
        # Chains run in threads: no buffer is shared between calls.
        by_cell, u = np.empty((c.n, 3)), np.empty(c.n)
        value = float(
            threshold_cells(
                self.beta, jacobian, f, e, rate, self._counts, mean, spread[c.group], self._start,
                u, by_cell,
            )
        )  # fmt: skip
        z = (u - mean) / spread[c.group]
        by_f, by_e, by_rate = by_cell.T
        # Standard normal coordinates, but rates (their prior is the thresholds') and spreads.
        gradient = -x
        gradient[s["rate"]] = self._error * by_rate
        scaled = np.exp(2.0 * x[s["log_spread"]])
        r, d = len(c.groups), len(c.places)
        gradient[s["log_spread"]] = 1.0 - scaled + np.bincount(c.group, z * z - 1.0, r)
        normal = np.concatenate(
            [x[: s["log_spread"].start], x[s["log_spread"].stop : s["rate"].start]]
        )
        value += float(np.sum(x[s["log_spread"]] - 0.5 * scaled) - 0.5 * normal @ normal)
        gradient[s["guilt"]] += q.guilt[1] * np.bincount(c.group, by_f, r)
        gradient[s["signal"]] += q.signal[1] * np.bincount(c.group, by_e, r)
        gradient[s["threshold"]] += q.threshold[1] * np.bincount(c.group, z / spread[c.group], r)
        at_place = np.bincount(c.place, by_f, d), np.bincount(c.place, by_e, d)
        gradient[s["place_guilt"]] += q.place_guilt * at_place[0]
        gradient[s["place_signal"]] += q.place_signal * at_place[1]
        if c.region is not None:
            g = len(c.regions)
            gradient[s["region_guilt"]] += q.region_guilt * np.bincount(c.region, at_place[0], g)
            gradient[s["region_signal"]] += q.region_signal * np.bincount(c.region, at_place[1], g)
        return value, gradient

    def marginal(self, x: FloatArray) -> tuple[float, FloatArray]:
        """Density with the cells' rates integrated out, to first order; it has a mode.

        The joint density grows without bound as thresholds of a group come together and their
        spread goes to zero. Integrating a cell's rate takes the Jacobian off and adds the variance
        of its threshold to the spread.
        """
        value, gradient = self.density(x, jacobian=0.0)
        at = self.slices["log_spread"]
        spread2 = (self.priors.threshold_spread * np.exp(x[at])[self.cells.group]) ** 2
        informed = self._precision * spread2
        value += float(np.sum(0.5 * np.log(informed / (1.0 + informed))))
        gradient[at] += np.bincount(self.cells.group, 1.0 / (1.0 + informed))
        return value, gradient

    def thresholds(self, x: FloatArray) -> FloatArray:
        """Threshold of every cell as a probability of guilt."""
        f, e, rate = self.coordinates(x)
        u = self._solve(f, e, rate)
        if self.beta:
            return np.asarray(expit(u))
        delta = np.exp(e)
        return np.asarray(expit(f + delta * u - 0.5 * delta**2))

    def rates(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Search rate and hit rate of every cell."""
        from causalfair.risk._kernels_normal import threshold_masses

        f, e, rate = self.coordinates(x)
        masses = np.empty((self.cells.n, 3))
        threshold_masses(self.beta, f, e, self._solve(f, e, rate), masses)
        hit, miss = np.exp(masses[:, 0]), np.exp(masses[:, 1])
        return hit + miss, hit / (hit + miss)

    def group_parameters(self, x: FloatArray) -> dict[str, FloatArray]:
        """Group-level parameters on their own scale."""
        q, s = self.priors, self.slices
        return {
            "guilt": q.guilt[0] + q.guilt[1] * x[s["guilt"]],
            "signal": q.signal[0] + q.signal[1] * x[s["signal"]],
            "location": q.threshold[0] + q.threshold[1] * x[s["threshold"]],
            "spread": q.threshold_spread * np.exp(x[s["log_spread"]]),
        }
