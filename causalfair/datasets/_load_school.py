"""The school trial that comes with the package."""

from __future__ import annotations

from typing import Any

from causalfair.datasets._load import AsFrame, _read

__all__ = ["load_school_trial"]

COVARIATES = [
    "female", "mother_secondary", "father_secondary", "failed_a_year", "cash_transfer",
    "computer_at_home", "unemployed", "has_income", "saves_for_purchases", "intention_to_save",
    "lists_expenses", "negotiates_prices", "financial_autonomy",
]  # fmt: skip


def load_school_trial(
    *, as_frame: AsFrame = "pandas", return_roles: bool = False
) -> Any | tuple[Any, dict[str, Any]]:
    """Financial education in Brazilian high schools: a trial that assigned whole schools.

    Bruhn et al. (2016) drew schools at random for a course on managing money, taught in the usual
    subjects, and tested students at the end. Students of one school share the treatment, so schools
    are the units of assignment and of inference. Some answers to the baseline survey are missing.

    Parameters
    ----------
    as_frame : {"pandas", "polars"}, default="pandas"
        Library of the frame.
    return_roles : bool, default=False
        Also return the roles of the usual analysis, so that ``est.fit(frame, **roles)`` runs it.

    Returns
    -------
    frame : DataFrame of 17,299 rows
        ``score`` of the financial proficiency test (0 to 100), ``treatment`` (0, 1), ``school``
        (851 codes), and thirteen covariates of the baseline survey with missing values: eleven
        yes/no answers (0, 1), ``intention_to_save`` and ``financial_autonomy`` (indexes).
    roles : dict
        Only with ``return_roles=True``: ``y``, ``treatment``, ``covariates``, ``cluster``.

    Notes
    -----
    Source: replication data of Bruhn et al. (2016), CC BY 4.0. Schools were renumbered, columns
    renamed and scores rounded to two decimals.

    References
    ----------
    .. [1] M. Bruhn, L. de Souza Leao, A. Legovini, R. Marchetti and B. Zia (2016). The impact of
       high school financial education: evidence from a large-scale evaluation in Brazil. American
       Economic Journal: Applied Economics 8, 256-295. doi:10.1257/app.20150149

    Examples
    --------
    >>> from causalfair.datasets import load_school_trial
    >>> frame, roles = load_school_trial(return_roles=True)
    >>> len(frame), roles["cluster"]
    (17299, 'school')
    """
    frame = _read("school_trial", as_frame, "load_school_trial")
    if not return_roles:
        return frame
    roles = {
        "y": "score", "treatment": "treatment", "covariates": list(COVARIATES), "cluster": "school",
    }  # fmt: skip
    return frame, roles
