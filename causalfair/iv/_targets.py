"""Row-wise derivatives of the target scores with respect to the nuisance values.

Each function returns the derivatives of one score of ``_scores`` or ``_sensitivity``. Rows whose
probability was clipped or whose ``|D|`` was floored have derivative zero through that value,
because the value no longer moves with the parameters.
"""

from __future__ import annotations

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.iv._scores import IVNuisances, instrument_weight, residuals

__all__ = [
    "att_partials",
    "covariance_slope_partials",
    "direct_effect_partials",
    "effect_partials",
    "ipw_partials",
    "ipw_scores",
    "modification_slope_partials",
]

Partials = dict[str, FloatArray]


def _finish(nu: IVNuisances, out: Partials) -> Partials:
    """Turn the derivative in D into those in V_1 and V_0, and silence clipped and floored rows."""
    D = out.pop("D", None)
    if D is not None:
        if nu.floored is not None:
            D = np.where(nu.floored, 0.0, D)
        out["V1"] = out.get("V1", 0.0) + D
        out["V0"] = out.get("V0", 0.0) - D
    if nu.clipped is not None and "pi" in out:
        out["pi"] = np.where(nu.clipped, 0.0, out["pi"])
    return out


def _raw_effect(z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances) -> Partials:
    w = instrument_weight(z, nu.pi)  # dw/dpi = -w^2 in both arms
    r, e = residuals(z, a, y, nu)
    h = r * e - nu.omega
    return {
        "pi": -(w**2) * h / nu.D,
        "D": -w * h / nu.D**2,
        "lam": -w * e / nu.D,
        "mu": -w * r / nu.D,
        "omega": -w / nu.D,
        "beta": 1.0 - w * r * a / nu.D,
    }


def effect_partials(z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances) -> Partials:
    """Differentiate ``phi``."""
    return _finish(nu, _raw_effect(z, a, y, nu))


def direct_effect_partials(
    z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances, phi: FloatArray
) -> Partials:
    """Differentiate ``phi_DE = w e + mu_1 - mu_0 - (lam_1 - lam_0)(phi - beta)``."""
    w = instrument_weight(z, nu.pi)
    _, e = residuals(z, a, y, nu)
    shift = nu.lam1 - nu.lam0
    inner = _raw_effect(z, a, y, nu)
    inner["beta"] = inner["beta"] - 1.0
    out = {name: -shift * value for name, value in inner.items()}
    out["pi"] = out["pi"] - w**2 * e
    out["beta"] = out["beta"] - w * a
    out["mu"] = out["mu"] - w
    out["mu1"] = np.ones_like(y)
    out["mu0"] = -np.ones_like(y)
    out["lam1"] = -(phi - nu.beta)
    out["lam0"] = phi - nu.beta
    return _finish(nu, out)


def att_partials(
    z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances, phi: FloatArray
) -> Partials:
    """Differentiate the numerator ``lam_bar (phi - beta) + A beta``."""
    lam_bar = nu.pi * nu.lam1 + (1.0 - nu.pi) * nu.lam0
    out = {name: lam_bar * value for name, value in _raw_effect(z, a, y, nu).items()}
    out["beta"] = out["beta"] - lam_bar + a
    out["pi"] = out["pi"] + (nu.lam1 - nu.lam0) * (phi - nu.beta)
    out["lam1"] = nu.pi * (phi - nu.beta)
    out["lam0"] = (1.0 - nu.pi) * (phi - nu.beta)
    return _finish(nu, out)


def covariance_slope_partials(z: FloatArray, a: FloatArray, nu: IVNuisances) -> Partials:
    """Differentiate ``1/D - w/D^2 (r^2 - V)``."""
    w = instrument_weight(z, nu.pi)
    treated = z > 0.5
    r = a - np.where(treated, nu.lam1, nu.lam0)
    excess = r**2 - np.where(treated, nu.variance1, nu.variance0)
    return _finish(
        nu,
        {
            "pi": w**2 / nu.D**2 * excess,
            "D": -1.0 / nu.D**2 + 2.0 * w / nu.D**3 * excess,
            "lam": 2.0 * w * r / nu.D**2,
            "V": w / nu.D**2,
        },
    )


def modification_slope_partials(
    z: FloatArray, a: FloatArray, nu: IVNuisances, *, floor: float = 0.02
) -> Partials:
    """Differentiate ``1/s + r/(f s^2)`` with ``s = 1 - lam_0 - lam_1``."""
    w = instrument_weight(z, nu.pi)
    treated = z > 0.5
    r = a - np.where(treated, nu.lam1, nu.lam0)
    s = 1.0 - nu.lam0 - nu.lam1
    floored = np.abs(s) < floor
    s = np.where(floored, np.where(s < 0.0, -floor, floor), s)
    # d(1/f)/dpi = (2Z-1) dw/dpi
    through_s = np.where(floored, 0.0, 1.0 / s**2 + 2.0 * np.abs(w) * r / s**3)
    return _finish(
        nu,
        {
            "pi": np.where(treated, -1.0, 1.0) * w**2 * r / s**2,
            "lam": -np.abs(w) / s**2,
            "lam0": through_s,
            "lam1": through_s.copy(),
        },
    )


def ipw_scores(z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances) -> FloatArray:
    """Inverse-probability score ``w r (Y - m)/D`` that leans on ``pi`` and ``lam`` alone."""
    r, e = residuals(z, a, y, nu)
    # Y - m = e + beta r when m = mu + beta lam
    return instrument_weight(z, nu.pi) * r * (e + nu.beta * r) / nu.D


def ipw_partials(z: FloatArray, a: FloatArray, y: FloatArray, nu: IVNuisances) -> Partials:
    """Differentiate ``w r (e + beta r)/D``; note ``d(e + beta r)/d beta = -lam``."""
    w = instrument_weight(z, nu.pi)
    r, e = residuals(z, a, y, nu)
    r_y = e + nu.beta * r
    return _finish(
        nu,
        {
            "pi": -(w**2) * r * r_y / nu.D,
            "D": -w * r * r_y / nu.D**2,
            "lam": -w * (r_y + nu.beta * r) / nu.D,
            "mu": -w * r / nu.D,
            "beta": -w * r * (a - r) / nu.D,
        },
    )
