"""Search and hit rates by group: counts read and checked, outcome and benchmark tests, placebos."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.roles import RoleData, resolve_roles
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_numeric
from causalfair.exceptions import CausalFairWarning, DataError, IdentificationError
from causalfair.inference import InfluenceEstimates
from causalfair.inference.estimates import Estimates
from causalfair.risk._data import _levels as level_codes_of
from causalfair.risk._threshold_model import SearchCells

__all__ = ["benchmark_rates", "outcome_rates", "outcome_test", "read_cells", "shuffled_cells"]

INFRA_MARGINALITY = (
    "hit rates average over everybody searched, not over those at the threshold: a group with more "
    "people just above a common threshold has a lower hit rate without any discrimination "
    "(infra-marginality). ThresholdTest compares thresholds."
)


def read_cells(data: RoleData, *, owner: str) -> SearchCells:
    """Counts of each group and place, checked and added up.

    Raises
    ------
    DataError
        Counts that cannot be.
    IdentificationError
        Fewer than two groups, or a group without any search.
    """
    counts = {"hits (y)": np.asarray(data.y)}
    for role in ("searches", "stops"):
        counts[role] = check_numeric(data.roles[role], role, owner=owner)
    for name, values in counts.items():
        bad = (values < 0) | (values != np.round(values))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{owner}: {name} must be counts; row {row} has {values[row]:g} "
                f"({int(bad.sum())} such row(s))."
            )
    hits, searches, stops = counts.values()
    for part, whole, names in (
        (hits, searches, ("hits", "searches")), (searches, stops, ("searches", "stops"))
    ):  # fmt: skip
        if (part > whole).any():
            row = int(np.flatnonzero(part > whole)[0])
            raise DataError(
                f"{owner}: row {row} has {part[row]:g} {names[0]} of {whole[row]:g} {names[1]}; "
                "the first cannot exceed the second. Are the roles swapped?"
            )
    group, groups = level_codes_of(data.roles["group"])
    place, places = level_codes_of(data.roles.get("place"))
    if place is None:
        place, places = np.zeros(data.n, dtype=np.intp), ("everywhere",)
    if len(groups) < 2:
        raise IdentificationError(
            f"{owner}: group takes one value ({groups[0]!r}) in all {data.n} rows; a comparison "
            "needs at least two."
        )
    region, regions = _regions(data, place, len(places), owner)
    key = place * len(groups) + group
    used, cell = np.unique(key, return_inverse=True)
    totals = [
        np.bincount(cell, weights=values).astype(np.float64) for values in (stops, searches, hits)
    ]
    keep = totals[0] > 0
    if not keep.any():
        raise DataError(f"{owner}: stops is 0 in all rows.")
    cells = SearchCells(
        totals[0][keep], totals[1][keep], totals[2][keep],
        (used % len(groups))[keep], (used // len(groups))[keep],
        groups, places, region, regions,
    )  # fmt: skip
    searched = np.bincount(cells.group, weights=cells.searches, minlength=len(groups))
    if (searched == 0).any():
        name = groups[int(np.argmin(searched))]
        raise IdentificationError(
            f"{owner}: group {name!r} was never searched, so its hit rate and threshold are "
            "unknown; leave it out."
        )
    return cells


def _regions(data: RoleData, place: Any, n_places: int, owner: str) -> tuple[Any, Any]:
    codes, names = level_codes_of(data.roles.get("region"))
    if codes is None:
        return None, ()
    region = np.full(n_places, -1, dtype=np.intp)
    region[place] = codes
    if (region[place] != codes).any():
        row = int(np.flatnonzero(region[place] != codes)[0])
        raise DataError(
            f"{owner}: row {row} puts its place into region {names[codes[row]]!r}, other rows into "
            f"{names[region[place[row]]]!r}; name places so that each lies in one region."
        )
    return region, names


def _rates(cells: SearchCells, part: FloatArray, whole: FloatArray, label: str) -> Estimates:
    """Ratios of sums by group, with the influence of each place (or cell, with one place)."""
    several = len(cells.places) > 1
    unit = cells.place if several else np.arange(cells.n)
    n, r = int(unit.max()) + 1, len(cells.groups)
    index = (unit, cells.group)
    tops, bottoms = np.zeros((n, r)), np.zeros((n, r))
    np.add.at(tops, index, part)
    np.add.at(bottoms, index, whole)
    rate = tops.sum(axis=0) / bottoms.sum(axis=0)
    names = [f"{label}:{name}" for name in cells.groups]
    if several:
        influence = n * (tops - rate * bottoms) / bottoms.sum(axis=0)
        return InfluenceEstimates(
            rate, influence - influence.mean(axis=0), names, small_sample=True
        )
    from causalfair.inference import CovarianceEstimates

    return CovarianceEstimates(rate, np.diag(rate * (1 - rate) / bottoms.sum(axis=0)), names)


def outcome_rates(cells: SearchCells, owner: str | None) -> Estimates:
    """Hit rates by group; warns of infra-marginality where ``owner`` asks."""
    if owner is not None:
        warn(f"{owner}: {INFRA_MARGINALITY}", CausalFairWarning)
    return _rates(cells, cells.hits, cells.searches, "hit rate")


def benchmark_rates(cells: SearchCells) -> Estimates:
    """Search rates by group."""
    return _rates(cells, cells.searches, cells.stops, "search rate")


def shuffled_cells(cells: SearchCells, rng: np.random.Generator) -> SearchCells:
    """People of every place dealt at random into groups of the same sizes."""
    from dataclasses import replace

    searches, hits = np.empty(cells.n), np.empty(cells.n)
    for place in range(len(cells.places)):
        member = np.flatnonzero(cells.place == place)
        sizes = cells.stops[member].astype(np.int64)
        searched = rng.multivariate_hypergeometric(
            sizes, int(cells.searches[member].sum()), method="marginals"
        )
        hit = rng.multivariate_hypergeometric(
            searched, int(cells.hits[member].sum()), method="marginals"
        )
        searches[member], hits[member] = searched, hit
    return replace(cells, searches=searches, hits=hits)


def outcome_test(
    X: Any, y: Any = None, *, searches: Any, stops: Any, group: Any, place: Any = None
) -> Estimates:
    """Hit rates by group, the outcome test of discrimination, with a warning what it cannot show.

    Parameters
    ----------
    X : frame or array
        Table of counts, one row a group and place.
    y : array of shape (n_cells,) or str
        Hits: searches that found something.
    searches, stops : array of shape (n_cells,) or str
        Searches, and everybody who might have been searched.
    group : array of shape (n_cells,) or str
        Group.
    place : array of shape (n_cells,) or str, optional
        Place; with several, places are the independent units.

    Returns
    -------
    Estimates
        ``"hit rate:<group>"``; differences by ``-`` or ``contrast``.

    Raises
    ------
    DataError
        Counts that are negative, not whole, or larger than what they are part of.
    IdentificationError
        Fewer than two groups, or a group without any search.

    Warns
    -----
    CausalFairWarning
        Infra-marginality: always, because a difference of hit rates is so easily misread.

    References
    ----------
    .. [1] Simoiu, C., Corbett-Davies, S. and Goel, S. (2017). The problem of infra-marginality in
       outcome tests for discrimination. Annals of Applied Statistics 11, 1193-1216.
       doi:10.1214/17-AOAS1058

    Examples
    --------
    >>> import warnings
    >>> from causalfair.datasets import make_threshold_searches
    >>> from causalfair.risk import outcome_test
    >>> frame, _ = make_threshold_searches(8, random_state=0)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     rates = outcome_test(
    ...         frame, "hits", searches="searches", stops="stops", group="group", place="place")
    >>> rates.names
    ('hit rate:black', 'hit rate:hispanic', 'hit rate:white')
    """
    roles = {"searches": searches, "stops": stops, "group": group, "place": place}
    owner = "outcome_test"
    data = resolve_roles(X, y, owner=owner, roles=roles, covariates=[], need_covariates=False)
    return outcome_rates(read_cells(data, owner=owner), owner)
