"""Numerics of off-policy values: ratios, means with influence values, shrinking, bounds."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_level, check_numeric
from causalfair.exceptions import DataError, ParameterError

__all__ = ["empirical_bernstein", "policy_mean", "read_ratio", "shrink"]


def read_ratio(
    ratio: Any, propensity: Any, new_propensity: Any, logp_old: Any, logp_new: Any
) -> FloatArray:
    owner = "off_policy_value"
    if ratio is not None:
        out = check_numeric(ratio, "ratio", owner=owner)
        if (out < 0).any():
            raise DataError(f"{owner}: ratio has {(out < 0).sum()} negative value(s).")
        return out
    if propensity is not None and new_propensity is not None:
        old = check_numeric(propensity, "propensity", owner=owner)
        new = check_numeric(new_propensity, "new_propensity", owner=owner)
        check_lengths(owner=owner, propensity=old, new_propensity=new)
        for name, values, bad in (
            ("propensity must lie in (0, 1]", old, (old <= 0) | (old > 1)),
            ("new_propensity must lie in [0, 1]", new, (new < 0) | (new > 1)),
        ):
            rows = np.flatnonzero(bad)
            if len(rows):
                raise DataError(
                    f"{owner}: {name}; {len(rows)} value(s) do not (row {rows[0]}: "
                    f"{values[rows[0]]:g}). A logged text cannot have had probability zero."
                )
        return np.asarray(new / old)
    if logp_old is not None and logp_new is not None:
        new = check_numeric(logp_new, "logp_new", owner=owner)
        old = check_numeric(logp_old, "logp_old", owner=owner)
        check_lengths(owner=owner, logp_old=old, logp_new=new)
        if (old > 0).any() or (new > 0).any():
            raise DataError(f"{owner}: log-probabilities must not be positive.")
        gap = new - old
        if gap.max() > 700:
            raise DataError(
                f"{owner}: logp_new exceeds logp_old by {gap.max():.0f}: a ratio of that size "
                "overflows, and says that the logs hold no text the new policy writes."
            )
        return np.asarray(np.exp(gap))
    raise DataError(
        f"{owner} needs ratio=, or propensity= and new_propensity=, or logp_old= and logp_new=; "
        "from samples of the new policy, ratio=density_ratio(...), or a fitted reward and "
        "new_texts=."
    )


def policy_mean(
    method: str, y: FloatArray, rho: FloatArray, m: FloatArray, m_new: FloatArray, kept: FloatArray
) -> tuple[FloatArray, float]:
    """Influence values (n,) of the value, and the value.

    ``kept`` are the ratios after shrinking, which make the point estimate. The spread is that of
    the ratios before: the variance of shrunken ratios leaves out the bias that shrinking brings.
    """
    if method == "dm":
        return m_new - m_new.mean(), float(m_new.mean())
    correction = rho * (y - m)
    if method in ("snips", "sndr"):
        scale = rho.mean()
        shift = float(correction.mean() / scale)
        psi = m_new - m_new.mean() + (correction - shift * rho) / scale
        return psi, float(m_new.mean()) + shift
    total = m_new + correction
    return total - total.mean(), float((m_new + kept * (y - m)).mean())


def shrink(
    method: str, y: FloatArray, rho: FloatArray, m: FloatArray, threshold: Any
) -> tuple[FloatArray, float]:
    """Ratios cut or shrunk, and the constant; by default that of the least estimated error.

    The error is the variance of the correction plus the square of the mean that shrinking removes.
    """

    def apply(t: float) -> FloatArray:
        if method == "switch":
            return np.where(rho <= t, rho, 0.0)
        return np.minimum(rho, t) if method == "clip" else t * rho / (rho**2 + t)

    if not isinstance(threshold, str):
        if not threshold > 0:
            raise ParameterError(f"threshold={threshold!r} must be positive.")
        return apply(float(threshold)), float(threshold)
    if threshold != "auto":
        raise ParameterError(f"threshold={threshold!r} must be 'auto' or a positive number.")
    grid = np.quantile(rho[rho > 0], [0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0])
    grid = np.append(grid**2, 1e3 * grid[-1] ** 2) if method == "dros" else grid
    errors = []
    for t in grid:
        w = apply(float(t))
        errors.append(np.var(w * (y - m)) / len(y) + np.mean((w - rho) * (y - m)) ** 2)
    best = float(grid[int(np.argmin(errors))])
    return apply(best), best


def empirical_bernstein(
    values: Any, low: float, high: float, *, level: float = 0.95
) -> tuple[float, float]:
    """Interval for a mean of bounded values that holds in every sample size.

    For inverse-propensity weighting give ``ratio * y`` with ``low = 0`` and ``high`` the largest
    possible ratio times the largest outcome.

    Parameters
    ----------
    values : array of shape (n,)
        Independent values between ``low`` and ``high``.
    low, high : float
        Their bounds, known beforehand.
    level : float, default 0.95
        Confidence level.

    Returns
    -------
    low, high : float
        Ends of the interval, inside the bounds.

    Raises
    ------
    DataError
        A value lies outside the bounds, or there are fewer than two.

    References
    ----------
    .. [1] A. Maurer and M. Pontil (2009). Empirical Bernstein bounds and sample variance
       penalization. COLT. arXiv:0907.3740

    Examples
    --------
    >>> low, high = empirical_bernstein([0.0, 1.0] * 500, 0, 1)
    >>> round(low, 3), round(high, 3)
    (0.443, 0.557)
    """
    owner = "empirical_bernstein"
    x = check_numeric(values, "values", owner=owner)
    n = len(x)
    outside = int(((x < low) | (x > high)).sum())
    if outside or n < 2:
        raise DataError(
            f"{owner}: {n} value(s), {outside} of them outside [{low:g}, {high:g}]; give at least "
            "two, and bounds that hold for every value."
        )
    log_term = np.log(4 / (1 - check_level(level)))
    reach = np.sqrt(2 * x.var(ddof=1) * log_term / n) + 7 * (high - low) * log_term / (3 * (n - 1))
    return max(float(x.mean() - reach), low), min(float(x.mean() + reach), high)
