"""Recidivism scores with proxies of race from names; no names inside."""

from __future__ import annotations

from typing import Any

from causalfair.datasets._load import AsFrame, _read

__all__ = ["load_recidivism_names"]


def load_recidivism_names(*, as_frame: AsFrame = "pandas") -> Any:
    """Recidivism scores of 5,278 defendants with two coarse proxies of race from their names.

    Black and white defendants of Broward County, Florida, 2013-2014, with the decile of their risk
    score and whether they were arrested again within two years. The recorded race is there to check
    against: an audit that pretends not to know it uses the two proxies only.

    Parameters
    ----------
    as_frame : {"pandas", "polars"}, default "pandas"
        Library of the frame.

    Returns
    -------
    DataFrame of 5,278 rows
        ``first_name`` and ``surname``: thirds (0, 1, 2) of how far the name sounds like a Black
        defendant's; ``decile`` of the risk score (1-10); ``recidivated`` within two years (0, 1);
        ``african_american`` recorded race (0, 1).

    Notes
    -----
    Source: ProPublica's two-year recidivism table (public), after its usual filter (screening
    within 30 days of arrest, a known outcome, no ordinary traffic offence, a score given). Names
    are not included. Each name was scored by a logistic regression on its letter sequences, fitted
    to the names of the other half of the people, and cut at thirds.

    References
    ----------
    .. [1] J. Angwin, J. Larson, S. Mattu and L. Kirchner (2016). Machine bias. ProPublica.

    Examples
    --------
    >>> from causalfair.datasets import load_recidivism_names
    >>> load_recidivism_names().shape
    (5278, 5)
    """
    return _read("recidivism_names", as_frame, "load_recidivism_names")
