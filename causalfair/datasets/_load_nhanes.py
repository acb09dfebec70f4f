"""Adults with measured HbA1c, from a national health survey."""

from __future__ import annotations

from typing import Any

from causalfair.datasets._load import AsFrame, _read

__all__ = ["load_nhanes_hba1c"]


def load_nhanes_hba1c(*, as_frame: AsFrame = "pandas") -> Any:
    """Adults of NHANES 2017-2018 with measured glycated haemoglobin (HbA1c).

    Everybody in the survey gave blood, whoever would have been sent to a test: the outcome is known
    for all, so that simulated decisions about testing can be judged.

    Parameters
    ----------
    as_frame : {"pandas", "polars"}, default "pandas"
        Library of the frame.

    Returns
    -------
    DataFrame of 5,018 rows
        ``age`` (years, 80 and over as 80), ``female``, ``ethnicity``, ``bmi``, ``waist`` (cm),
        ``systolic`` (mean of up to three readings, mmHg), ``hdl`` (mg/dl), ``income_ratio`` (family
        income over the poverty line, at most 5), ``smoked`` (100 cigarettes in life),
        ``told_diabetes`` and ``told_prediabetes`` by a doctor, ``hba1c`` (per cent). Missing values
        are empty.

    Notes
    -----
    Source: National Center for Health Statistics, public domain. Survey weights are not included:
    shares in these rows are not those of the population.

    Examples
    --------
    >>> from causalfair.datasets import load_nhanes_hba1c
    >>> load_nhanes_hba1c().shape
    (5018, 12)
    """
    return _read("nhanes_hba1c", as_frame, "load_nhanes_hba1c")
