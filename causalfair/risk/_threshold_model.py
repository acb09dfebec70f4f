"""The threshold test as a log density: cells, coordinates, priors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    learn_places : bool
        Learn the standard deviations of the places' effects from the data: ``place_guilt`` and
        ``place_signal`` are then the scales of their half-normal priors.

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
    learn_places: bool = False

    def __post_init__(self) -> None:
        spreads = [self.guilt[1], self.signal[1], self.threshold[1], self.threshold_spread]
        spreads += [self.place_guilt, self.place_signal, self.region_guilt, self.region_signal]
        if not all(np.isfinite(s) and s > 0 for s in spreads):
            raise ParameterError(
                f"ThresholdPriors got standard deviations {spreads}; all must be positive."
            )

    def as_array(self) -> FloatArray:
        """(11,) in the order of the attributes, but the last."""
        return np.array(
            [
                *self.guilt, *self.signal, *self.threshold, self.threshold_spread,
                self.place_guilt, self.place_signal, self.region_guilt, self.region_signal,
            ]
        )  # fmt: skip


def named_priors(name: str, form: str) -> ThresholdPriors:
    """Published priors of the two forms, weaker ones, or wide ones that learn how places differ."""
    if name == "wide":
        wide = (0.0, 2.0)
        return ThresholdPriors(wide, wide, wide, 2.0, 2.0, 2.0, 2.0, 2.0, learn_places=True)
    if name == "weak":
        signal, location = ((1.5, 0.5), (-1.5, 1.0)) if form == "beta" else ((0.5, 0.5), (0.0, 2.0))
        return ThresholdPriors((-2.5, 1.0), signal, location, 1.0, 0.25, 0.25, 0.5, 0.25)
    if form == "beta":
        return ThresholdPriors((-3.5, 0.25), (2.0, 0.5), (-2.0, 1.0), 0.25, 0.25, 0.5, 0.25, 0.5)
    return ThresholdPriors()


@dataclass(frozen=True)
class SearchCells:
    """Counts of a group in a place, sorted by place.

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
    know best, so that the posterior is nearly normal in these coordinates.

    Attributes
    ----------
    n_dim : int
        Number of coordinates; the order is told in the kernels.
    n_common, n_shared : int
        How many come first and belong to all places, and to all or a region.
    first : (n_places + 1,) int array
        First cell of each place; the coordinates of place d start at
        ``n_shared + 2 d + first[d]``.
    held : (n_places + 1, 2) array
        How far the coordinates of the places' effects are the effects themselves, and the standard
        deviations, in units of their priors, at which both have one unit; see the kernels.
    anchor : (n, 8) array
        Where root searches start: earlier :meth:`solutions`.
    """

    def __init__(self, cells: SearchCells, priors: ThresholdPriors, form: str) -> None:
        self.cells, self.priors, self.beta = cells, priors, form == "beta"
        r, places = len(cells.groups), len(cells.places)
        n_scales = 2 if priors.learn_places else 0
        self.n_common = 4 * r + n_scales
        self.n_shared = self.n_common + 2 * len(cells.regions)
        self.n_dim = self.n_shared + 2 * places + cells.n
        self.log_spread, self.scales = slice(3 * r, 4 * r), slice(4 * r, self.n_common)
        self.first = np.searchsorted(cells.place, np.arange(places + 1))
        region = np.empty(0, dtype=np.int64) if cells.region is None else cells.region
        searched, left = cells.searches + 0.5, cells.stops - cells.searches + 0.5
        scale = np.column_stack([np.log(searched / left), np.sqrt(1 / searched + 1 / left)])
        self._sizes, self._codes = (r, n_scales), (self.first, cells.group, region)
        self.held = np.vstack([np.zeros((places, 2)), np.ones(2)])
        self._data = (cells.counts(), priors.as_array(), scale)
        # A fixed start of the root search: same coordinates, same bits.
        self.anchor = np.zeros((cells.n, 8))
        self.anchor[:, 0] = priors.threshold[0]
        self.anchor_at(np.zeros(self.n_dim))
        # Precision of a cell's threshold by its search rate alone.
        self._precision = 1.0 / (scale[:, 1] * self.anchor[:, 6]) ** 2

    @property
    def layout(self) -> tuple[Any, ...]:
        """Sizes and codes, as the kernels want them."""
        return (*self._sizes, self.held, *self._codes)

    def start(self) -> FloatArray:
        """Observed search rates, thresholds around their mean, the rest at the prior's centre."""
        x = np.zeros(self.n_dim)
        c, q, u = self.cells, self.priors, self.anchor[:, 0]
        r, count = len(c.groups), np.bincount(c.group)
        mean = np.bincount(c.group, u) / count
        spread = np.sqrt(np.bincount(c.group, (u - mean[c.group]) ** 2) / count)
        x[2 * r : 3 * r] = (mean - q.threshold[0]) / q.threshold[1]
        x[self.log_spread] = np.log(np.maximum(spread / q.threshold_spread, 0.05))
        x[self.scales] = 0.5
        return x

    def solutions(self, x: FloatArray) -> FloatArray:
        """(n, 8): threshold, f, e and rate of every cell, slopes, logit hit rate."""
        from causalfair.risk._kernels_threshold import threshold_solutions

        _, prior, scale = self._data
        return np.asarray(
            threshold_solutions(x, self.beta, *self.layout, prior, scale, self.anchor)
        )

    def anchor_at(self, x: FloatArray) -> None:
        """Start later root searches at the thresholds of ``x``: fewer steps, same roots."""
        self.anchor = self.solutions(x)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """What the kernels want after the coordinates."""
        return (*self.layout, *self._data, self.anchor)

    def density(self, x: FloatArray, *, jacobian: float = 1.0) -> tuple[float, FloatArray]:
        """Log posterior density and its gradient; ``jacobian=0`` as :meth:`marginal` needs it."""
        from causalfair.risk._kernels_threshold import threshold_log_posterior

        found: tuple[float, FloatArray] = threshold_log_posterior(
            x, self.beta, jacobian, *self.arrays
        )
        return found

    def marginal(self, x: FloatArray) -> tuple[float, FloatArray]:
        """Density with the cells' rates integrated out, to first order; it has a mode.

        The joint density grows without bound as thresholds of a group come together and their
        spread goes to zero. Integrating a cell's rate takes the Jacobian off and adds the variance
        of its threshold to the spread.
        """
        value, gradient = self.density(x, jacobian=0.0)
        at = self.log_spread
        spread2 = (self.priors.threshold_spread * np.exp(x[at])[self.cells.group]) ** 2
        informed = self._precision * spread2
        value += float(np.sum(0.5 * np.log(informed / (1.0 + informed))))
        gradient[at] += np.bincount(self.cells.group, 1.0 / (1.0 + informed))
        return value, gradient

    def report(self, x: FloatArray) -> dict[str, FloatArray]:
        """Thresholds (as probabilities of guilt) and rates of cells; parameters of groups."""
        u, f, e, rate, *_, hit = self.solutions(x).T
        size = np.exp(e)
        score = u if self.beta else f + size * u - 0.5 * size**2
        q = self.priors
        r = len(self.cells.groups)
        guilt, signal, location, log_spread = x[: 4 * r].reshape(4, -1)
        sds = np.array([q.place_guilt, q.place_signal])
        learnt = {"place_sd": sds * np.abs(x[self.scales])} if q.learn_places else {}
        return {
            "cell_threshold": expit(score),
            "search_rate": expit(rate),
            "hit_rate": expit(hit),
            "guilt": q.guilt[0] + q.guilt[1] * guilt,
            "signal": q.signal[0] + q.signal[1] * signal,
            "location": q.threshold[0] + q.threshold[1] * location,
            "spread": q.threshold_spread * np.exp(log_spread),
            **learnt,
        }
