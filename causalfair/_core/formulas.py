"""Formulas to design matrices in which every row of the data has its row.

formulaic leaves out rows whose terms are missing; here such a term is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from causalfair.exceptions import CausalFairError, DataError

__all__ = ["build_design", "formula_variables"]


def formula_variables(
    formula: str, columns: Iterable[str], *, what: str, error: type[CausalFairError]
) -> set[str]:
    """Columns a formula reads, known or not.

    Parameters
    ----------
    formula : str
        Formula that starts with ``~``.
    columns : iterable of str
        Known columns: formulaic does not list those that stand inside a stateful transform, such
        as ``center(age)``.
    what : str
        Where the formula was given, for messages: ``"DebiasedATE.fit: covariates='~ age'"``.
    error : type
        Class of the error for a formula that cannot be read.

    Returns
    -------
    set of str
        Their names.
    """
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    try:
        required = Formula(formula).required_variables
    except (FormulaicError, SyntaxError) as problem:
        raise error(f"{what} is not a formula: {_first_line(problem)}") from problem
    words = set(re.findall(r"[^\W\d]\w*", formula))
    return {str(name) for name in required} | (words & set(columns))


def build_design(spec: Any, frame: Any, *, what: str, error: type[CausalFairError]) -> Any:
    """Design matrix of a formula, or of the stored specification of one, on all rows.

    Parameters
    ----------
    spec : str or formulaic.ModelSpec
        What to build.
    frame : pandas.DataFrame of shape (n, p)
        Data.
    what, error
        As for :func:`formula_variables`.

    Returns
    -------
    formulaic.ModelMatrix of shape (n, q)
        Finite values; ``model_spec`` builds the same columns from new data.

    Raises
    ------
    DataError
        A term is not finite in some row.
    """
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    builder = Formula(spec) if isinstance(spec, str) else spec
    try:
        with np.errstate(all="ignore"):
            matrix = builder.get_model_matrix(frame, na_action="ignore")
    except FormulaicError as problem:
        raise error(f"{what} cannot be built: {_first_line(problem)}") from problem
    values = np.asarray(matrix, dtype=np.float64)
    for name, column in zip(matrix.columns, values.T, strict=True):
        count = int((~np.isfinite(column)).sum())
        if count:
            raise DataError(
                f"{what}: the term {name!r} is not finite in {count} of {len(values)} rows; "
                "rows are never left out silently. Use another transformation, or drop those rows."
            )
    return matrix


def _first_line(problem: Exception) -> str:
    """Start of a message; the rest of formulaic's points into the formula with terminal colours."""
    return str(problem).strip().partition("\n")[0]
