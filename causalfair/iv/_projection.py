"""Effects as functions of covariates: projections of the scores, with uniform bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from causalfair._core.frames import as_table, role_column
from causalfair._core.random import generator, root_seed
from causalfair._core.roles import RoleData
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError
from causalfair.inference import Estimates
from causalfair.iv import _scores as scores
from causalfair.iv._reports import CateBand

if TYPE_CHECKING:
    from causalfair.iv._results import IVRecord

__all__ = ["cate_band", "project_effect"]

N_DRAWS = 9_999


@dataclass(frozen=True, slots=True)
class Projection:
    """Best linear projection and the basis it stands on.

    Attributes
    ----------
    estimates : Estimates
        ``"Intercept"`` and one term a column.
    data : RoleData
        Covariates; its encoder makes the same columns of new rows.
    """

    estimates: Estimates
    data: RoleData


def _basis(matrix: FloatArray) -> FloatArray:
    return np.column_stack([np.ones(len(matrix)), matrix])


def project_effect(rows: IVRecord, data: RoleData) -> Projection:
    """Regress the scores on the covariates, in every repeat."""
    basis = _basis(data.matrix())
    weight = np.ones(rows.n) if rows.weight is None else rows.weight
    scaled = basis / np.maximum(np.linalg.norm(basis, axis=0), 1e-300)
    rank = np.linalg.matrix_rank(scaled * np.sqrt(weight)[:, None], tol=1e-10)
    if rank < basis.shape[1]:
        raise DataError(
            f"{data.owner}: the {basis.shape[1]} columns (intercept included) have rank {rank}. "
            "Leave out constant and redundant columns."
        )
    names = ("Intercept", *data.covariate_names)
    estimates = rows.over_repeats(
        lambda _, phi: scores.best_linear_projection(phi, basis, names, rows.weight)
    )
    return Projection(estimates, data)


def cate_band(rows: IVRecord, data: RoleData, at: Any, level: float) -> CateBand:
    """Projected effect at the rows of ``at`` with pointwise intervals and a uniform band."""
    projection = project_effect(rows, data)
    frame = data.encoder.transform(at, owner=data.owner)
    basis = _basis(data.encoder.matrix(frame, owner=data.owner))
    effect = basis @ projection.estimates.estimate
    vcov = projection.estimates.vcov
    std_error = np.sqrt(np.einsum("ij,jk,ik->i", basis, vcov, basis))
    pointwise = float(ndtri(0.5 + level / 2.0))
    wide = uniform_quantile(basis, vcov, std_error, level)
    out = _columns_as_given(at, data, frame)
    out["estimate"], out["std_error"] = effect, std_error
    for label, quantile in (("conf", pointwise), ("band", wide)):
        out[f"{label}_low"] = effect - quantile * std_error
        out[f"{label}_high"] = effect + quantile * std_error
    return CateBand(out, projection.estimates, level)


def _columns_as_given(at: Any, data: RoleData, encoded: Any) -> Any:
    """Covariates of the evaluated rows as the user knows them, not as a formula encodes them."""
    import pandas as pd

    table = as_table(at, owner=data.owner)
    if data.encoder.formula is None or table.frame is None:
        return encoded.copy()
    values = {name: role_column(table, name, name, data.owner)[0] for name in data.encoder.columns}
    return pd.DataFrame(values)


def uniform_quantile(
    basis: FloatArray, vcov: FloatArray, std_error: FloatArray, level: float
) -> float:
    """Quantile of the largest studentised error over rows, coefficients jointly normal.

    Memory is O(draws * 512): rows are visited in blocks.
    """
    values, vectors = np.linalg.eigh(vcov)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    draws = generator(root_seed(0), 0).standard_normal((N_DRAWS, len(vcov)))
    positive = std_error > 0
    directions = np.unique((basis @ root)[positive] / std_error[positive, None], axis=0)
    largest = np.zeros(N_DRAWS)
    for start in range(0, len(directions), 512):
        studentised = draws @ directions[start : start + 512].T
        np.maximum(largest, np.abs(studentised).max(axis=1), out=largest)
    return float(np.quantile(largest, level, method="higher"))
