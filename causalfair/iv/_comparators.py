"""Estimates under other assumptions: least squares, two-stage least squares, Wald, Lewbel.

All are scores with influence values, so clusters and weights act on them as on the main estimate.
"""

from __future__ import annotations

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.iv._scores import Scores, join_scores

__all__ = ["baseline_scores", "lewbel_score", "linear_iv"]


def _residual(basis: FloatArray, target: FloatArray, w: FloatArray) -> FloatArray:
    root = np.sqrt(w)
    coef, *_ = np.linalg.lstsq(
        basis * root[:, None], target * (root if target.ndim == 1 else root[:, None]), rcond=1e-10
    )
    return np.asarray(target - basis @ coef)


def linear_iv(
    name: str,
    y: FloatArray,
    a: FloatArray,
    instruments: FloatArray,
    exogenous: FloatArray,
    weight: FloatArray | None = None,
) -> Scores:
    """Coefficient of ``a`` by two-stage least squares, HC0 influence values.

    Parameters
    ----------
    instruments : (n, K)
        Excluded instruments; ``a`` itself gives ordinary least squares.
    exogenous : (n, p)
        Included covariates with the intercept.
    """
    w = np.ones_like(y) if weight is None else weight
    a_t = _residual(exogenous, a, w)
    y_t = _residual(exogenous, y, w)
    z_t = _residual(exogenous, instruments, w)
    fitted = a_t - _residual(z_t, a_t, w)
    strength = float(np.dot(w * fitted, a_t))
    if strength <= 1e-24 * float(np.dot(w, a_t**2)):
        return Scores((name,), np.array([np.nan]), np.zeros((y.size, 1)))
    theta = float(np.dot(w * fitted, y_t)) / strength
    influence = fitted * (y_t - theta * a_t) * y.size / strength
    return Scores((name,), np.array([theta]), influence[:, None])


def baseline_scores(
    z: FloatArray,
    a: FloatArray,
    y: FloatArray,
    exogenous: FloatArray,
    weight: FloatArray | None = None,
) -> Scores:
    """OLS and 2SLS given the covariates, and the Wald ratio without them.

    Parameters
    ----------
    z : (n,) or (n, K)
        Instruments.
    exogenous : (n, p)
        Covariates with a first column of ones.
    """
    instruments = z[:, None] if z.ndim == 1 else z
    parts = [
        linear_iv("OLS", y, a, a[:, None], exogenous, weight),
        linear_iv("2SLS", y, a, instruments, exogenous, weight),
    ]
    if exogenous.shape[1] > 1:
        parts.append(linear_iv("Wald (no covariates)", y, a, instruments, exogenous[:, :1], weight))
    return join_scores(*parts)


def lewbel_score(
    z: FloatArray,
    a: FloatArray,
    y: FloatArray,
    exogenous: FloatArray,
    weight: FloatArray | None = None,
) -> Scores:
    """Two-stage least squares with the generated instruments ``(Z - mean Z) r_A`` (Lewbel 2012).

    The instruments themselves are included covariates: their direct effects are allowed. The
    standard error is the usual one and ignores that the generated instruments were estimated.
    """
    w = np.ones_like(y) if weight is None else weight
    instruments = z[:, None] if z.ndim == 1 else z
    included = np.column_stack([exogenous, instruments])
    r = _residual(included, a, w)
    centred = instruments - np.average(instruments, axis=0, weights=w)
    return linear_iv("Lewbel", y, a, centred * r[:, None], included, weight)
