"""Searches of drivers by county, from the Stanford Open Policing Project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from causalfair.datasets._load import AsFrame, _copy, _read

__all__ = ["load_police_searches"]

ROLES_POLICE: Mapping[str, Any] = {
    "y": "hits",
    "searches": "searches",
    "stops": "stops",
    "group": "group",
    "place": "place",
    "region": "state",
}


def load_police_searches(
    *, as_frame: AsFrame = "pandas", return_roles: bool = False
) -> Any | tuple[Any, dict[str, Any]]:
    """Traffic stops, searches and finds by county and group of driver, nine states of the USA.

    Parameters
    ----------
    as_frame : {"pandas", "polars"}, default "pandas"
        Library of the frame.
    return_roles : bool, default False
        Also return the roles, so that ``ThresholdTest().fit(frame, **roles)`` runs the test.

    Returns
    -------
    frame : DataFrame of 1,130 rows
        One row a county and group: ``state``, ``county``, ``place`` (state and county), ``group``
        (``"white"``, ``"black"``, ``"hispanic"``), ``stops``, ``searches``, ``hits`` (searches
        that found contraband).
    roles : dict
        Only with ``return_roles=True``.

    Notes
    -----
    Source: aggregated counts of the Stanford Open Policing Project, as published with the paper
    [1]_; licence ODC-BY 1.0.

    References
    ----------
    .. [1] Pierson, E., Corbett-Davies, S. and Goel, S. (2018). Fast threshold tests for detecting
       discrimination. AISTATS. arXiv:1702.08536

    Examples
    --------
    >>> from causalfair.datasets import load_police_searches
    >>> frame, roles = load_police_searches(return_roles=True)
    >>> frame.shape, roles["group"]
    ((1130, 7), 'group')
    """
    frame = _read("police_searches", as_frame, "load_police_searches")
    if as_frame == "polars":
        place = (frame["county"] + ", " + frame["state"]).alias("place")
        frame = frame.insert_column(2, place)
    else:
        frame.insert(2, "place", frame["county"] + ", " + frame["state"])
    return (frame, _copy(ROLES_POLICE)) if return_roles else frame
