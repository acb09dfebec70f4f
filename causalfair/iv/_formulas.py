"""Formulas or main effects to conditioned bases, one for each nuisance model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.formulas import build_design, formula_variables
from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair._core.validation import suggest
from causalfair.exceptions import CausalFairWarning, ParameterError, RoleError
from causalfair.iv._basis import Basis, condition_basis, instrument_basis, main_effects

__all__ = ["INSTRUMENT", "MODELS", "build_bases", "check_formulas"]

INSTRUMENT = "instrument"
MODELS = ("instrument", "treatment", "effect", "outcome", "confounding", "variance")
WITH_INSTRUMENT = ("treatment", "outcome", "variance")


def check_formulas(formulas: Any, owner: str, *, binary: bool) -> dict[str, str]:
    """Check the mapping of formulas.

    Raises
    ------
    ParameterError
        If a key is unknown, a value is not a formula, or a model cannot have one.
    """
    given = {} if formulas is None else dict(formulas)
    for key, formula in given.items():
        if key not in MODELS:
            raise ParameterError(
                f"{owner}: formulas has the key {key!r}.{suggest(str(key), MODELS)} "
                f"Keys: {', '.join(MODELS)}."
            )
        if not isinstance(formula, str) or not formula.lstrip().startswith("~"):
            raise ParameterError(
                f"{owner}: formulas[{key!r}] is {formula!r}; give a string that starts with '~', "
                "for instance '~ age + bs(inc, df=4)'."
            )
        if key not in WITH_INSTRUMENT and INSTRUMENT in _variables(formula, key, owner):
            raise ParameterError(
                f"{owner}: formulas[{key!r}] = {formula!r} uses the instrument, but this model is "
                f"one of covariates alone. The instrument may enter {', '.join(WITH_INSTRUMENT)}."
            )
    if binary and "variance" in given:
        raise ParameterError(
            f"{owner}: formulas has the key 'variance', but the treatment is binary and its "
            "variance follows from the 'treatment' model. Leave it out."
        )
    return given


def _variables(formula: str, key: str, owner: str, covariates: Iterable[str] = ()) -> set[str]:
    """Columns a formula reads, the token for the instrument among them."""
    known = {*covariates, INSTRUMENT}
    what = f"{owner}: formulas[{key!r}] = {formula!r}"
    return formula_variables(formula, known, what=what, error=ParameterError)


def build_bases(
    covariates: Any,
    z: FloatArray,
    formulas: Mapping[str, str],
    *,
    binary: bool,
    constant_arm: int | None,
    owner: str,
    strict: bool,
) -> dict[str, Basis]:
    """Conditioned bases of all models.

    Parameters
    ----------
    covariates : pandas.DataFrame
        Covariates; categories become indicators.

    Warns
    -----
    CausalFairWarning
        If terms of a basis were redundant and dropped; with ``strict`` that is an error.
    """
    base, names = _default_terms(covariates)
    varying = None if constant_arm is None else z != constant_arm
    plain = condition_basis(base, base, base, names)
    built: dict[str, Basis] = {}
    for model in MODELS:
        if (model == "variance" and binary) or (model == "confounding" and varying is not None):
            continue
        rows = varying if model in ("treatment", "variance") else None
        if model in formulas:
            terms = _formula_terms(formulas[model], model, covariates, z, owner)
            built[model] = condition_basis(*terms, rows=rows)
        elif model in WITH_INSTRUMENT:
            interact = model != "variance"
            if rows is None and model == "outcome" and "treatment" in built:
                shared = "treatment" not in formulas and varying is None
                if shared:
                    built[model] = built["treatment"]
                    continue
            terms = instrument_basis(base, names, z, interact=interact)
            built[model] = condition_basis(*terms, rows=rows)
        else:
            built[model] = plain
        _report_dropped(built[model], model, owner, strict, by_design=rows is not None)
    return built


def _report_dropped(basis: Basis, model: str, owner: str, strict: bool, by_design: bool) -> None:
    dropped = basis.dropped
    if by_design:  # within one arm every term of the instrument repeats another
        dropped = tuple(name for name in dropped if INSTRUMENT not in name)
    if not dropped:
        return
    message = (
        f"{owner}: {len(dropped)} term(s) of the {model} model are linear combinations of earlier "
        f"ones: {', '.join(dropped[:8])}"
    )
    if strict:
        raise ParameterError(f"{message}. Leave them out, or use strict=False to drop them.")
    warn(f"{message}. They were dropped.", CausalFairWarning)


def _default_terms(covariates: Any) -> tuple[FloatArray, list[str]]:
    """Intercept and main effects; categories as indicators against their first level."""
    names = [str(name) for name in covariates.columns]
    if all(covariates[name].dtype == np.float64 for name in covariates.columns):
        return main_effects(np.asarray(covariates, dtype=np.float64), names)
    import pandas as pd

    wide = pd.get_dummies(covariates, drop_first=True, dtype=np.float64)
    return main_effects(np.asarray(wide, dtype=np.float64), [str(name) for name in wide.columns])


def _formula_terms(
    formula: str, model: str, covariates: Any, z: FloatArray, owner: str
) -> tuple[FloatArray, FloatArray, FloatArray, list[str]]:
    """Terms of a formula at Z=0, at Z=1 and as observed, with their names."""
    known = {str(name) for name in covariates.columns}
    used = _variables(formula, model, owner, known)
    for name in sorted(used - known - {INSTRUMENT}):
        raise RoleError(
            f"{owner}: formulas[{model!r}] = {formula!r} uses {name!r}, which is not a covariate."
            f"{suggest(name, known)} Covariates: {', '.join(sorted(known)) or 'none'}; the token "
            "'instrument' is the instrument."
        )
    frame = covariates.copy(deep=False)
    if INSTRUMENT in known:
        raise RoleError(
            f"{owner}: a covariate is called 'instrument', which in formulas stands for the "
            "instrument. Rename that column."
        )
    frame[INSTRUMENT] = z
    what = f"{owner}: formulas[{model!r}] = {formula!r}"
    observed = build_design(formula, frame, what=what, error=ParameterError)
    values = _numbers(observed)
    names = [str(name) for name in observed.columns]
    if INSTRUMENT not in used:
        return values, values, values, names
    at = [
        _numbers(
            build_design(
                observed.model_spec,
                frame.assign(**{INSTRUMENT: float(arm)}),
                what=what,
                error=ParameterError,
            )
        )
        for arm in (0, 1)
    ]
    return at[0], at[1], values, names


def _numbers(matrix: Any) -> NDArray[np.float64]:
    return np.ascontiguousarray(np.asarray(matrix), dtype=np.float64)
