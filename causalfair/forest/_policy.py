"""Value of rules that say whom to treat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.validation import check_lengths, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.inference import InfluenceEstimates

__all__ = ["policy_value", "treat_top"]

FloatArray = NDArray[np.float64]


def treat_top(priority: Any, share: float, *, sample_weight: Any = None) -> FloatArray:
    """Rule that treats the share with the highest priority.

    Parameters
    ----------
    priority : array of shape (n_samples,)
        Higher means: treat first.
    share : float in [0, 1]
        Share of the (weighted) units to treat.
    sample_weight : array of shape (n_samples,), optional
        Sampling weights.

    Returns
    -------
    ndarray of shape (n_samples,)
        Probability of being treated: 1, 0, or in between where the share ends within a unit or a
        set of equal priorities.

    Raises
    ------
    ParameterError
        The share lies outside [0, 1].

    Examples
    --------
    >>> from causalfair.forest import treat_top
    >>> treat_top([3.0, 1.0, 2.0, 2.0], 0.5).tolist()
    [1.0, 0.0, 0.5, 0.5]
    """
    if not 0 <= share <= 1:
        raise ParameterError(f"treat_top: share={share!r} must lie in [0, 1].")
    values = check_numeric(priority, "priority", owner="treat_top")
    weight = np.ones(values.size)
    if sample_weight is not None:
        weight = check_numeric(sample_weight, "sample_weight", owner="treat_top")
        check_lengths(owner="treat_top", priority=values, sample_weight=weight)
    levels, group = np.unique(-values, return_inverse=True)
    size = np.bincount(group, weights=weight, minlength=levels.size)
    before = np.cumsum(size) - size
    room = share * weight.sum() - before
    return np.asarray(np.clip(room / np.where(size > 0, size, 1), 0, 1)[group])


def policy_value(
    policy: Any,
    scores: Any,
    *,
    cost: Any = 0.0,
    cluster: Any = None,
    sample_weight: Any = None,
) -> InfluenceEstimates:
    """Value of a treatment rule over treating nobody.

    Parameters
    ----------
    policy : array of shape (n_samples,)
        Whether, or with which probability, the rule treats each unit; for instance
        :func:`treat_top` of a priority, or ``tau_hat > cost``. The rule must not have been learned
        from these scores.
    scores : array of shape (n_samples,)
        Doubly robust scores.
    cost : float or array of shape (n_samples,), default 0
        Cost of treating a unit, in units of the outcome.
    cluster : array of shape (n_samples,), optional
        Clusters.
    sample_weight : array of shape (n_samples,), optional
        Sampling weights.

    Returns
    -------
    InfluenceEstimates
        Terms ``policy`` (value over treating nobody), ``treat all`` and ``policy - treat all``.

    Raises
    ------
    DataError
        Lengths differ, or the rule leaves [0, 1].

    Notes
    -----
    With ``treat_top(priority, q)`` the value is ``q (TOC(q) + ATE)``.

    References
    ----------
    .. [1] S. Athey and S. Wager (2021). Policy learning with observational data. Econometrica 89,
       133-161, section 2. doi:10.3982/ECTA15732

    Examples
    --------
    >>> from causalfair.forest import policy_value, treat_top
    >>> scores = [4.0, 3.0, 2.0, 1.0]
    >>> float(policy_value(treat_top(scores, 0.5), scores)["policy"].estimate[0])
    1.75
    """
    owner = "policy_value"
    gamma = check_numeric(scores, "scores", owner=owner)
    rule = check_numeric(np.asarray(policy, dtype=float), "policy", owner=owner)
    price = np.full(gamma.size, cost, float) if np.ndim(cost) == 0 else cost
    price = check_numeric(price, "cost", owner=owner)
    check_lengths(owner=owner, scores=gamma, policy=rule, cost=price)
    if not ((rule >= 0) & (rule <= 1)).all():
        raise DataError(
            f"{owner}: policy must lie in [0, 1]; it ranges from {rule.min():g} to {rule.max():g}. "
            "Give the rule, such as effects > 0, and not the effects."
        )
    weight = None
    if sample_weight is not None:
        weight = check_numeric(sample_weight, "sample_weight", owner=owner)
        check_lengths(owner=owner, scores=gamma, sample_weight=weight)
        weight = weight / weight.mean()
    gain = np.column_stack([rule * (gamma - price), gamma - price])
    gain = np.column_stack([gain, gain[:, 0] - gain[:, 1]])
    mean = np.average(gain, axis=0, weights=weight)
    codes = None if cluster is None else np.unique(np.asarray(cluster), return_inverse=True)[1]
    return InfluenceEstimates(
        mean, gain - mean, ["policy", "treat all", "policy - treat all"], cluster=codes,
        sample_weight=weight, small_sample=codes is None,
    )  # fmt: skip
