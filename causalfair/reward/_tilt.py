"""Policies that tilt the logged one towards a reward."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_level, check_numeric
from causalfair.exceptions import DataError, ParameterError

__all__ = ["tilt_frontier"]


def tilt_frontier(
    reward: Any,
    outcome: Any = None,
    *,
    strengths: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    level: float = 0.95,
) -> Any:
    """Value and divergence of the policies ``pi ~ pi_0 exp(tau r)``; no new samples are needed.

    Parameters
    ----------
    reward : DeconfoundedReward or array of shape (n,)
        A fitted reward, whose out-of-fold scores, corrected outcome, weights and clusters are used;
        or out-of-fold scores.
    outcome : array of shape (n,), optional
        Outcome net of confounding, with scores given as an array. The raw outcome, re-weighted by
        text alone, would inherit the confounding.
    strengths : sequence of float, optional
        Values of tau, per unit of reward; by default eight from zero to where the effective sample
        size of Gaussian scores is a tenth.
    cluster : array of shape (n,), optional
        Rows that depend on each other.
    sample_weight : array of shape (n,), optional
        Weights of the rows.
    level : float, default 0.95
        Confidence level.

    Returns
    -------
    pandas.DataFrame
        ``tau, value, std_error, conf_low, conf_high, kl, ess_share``; ``kl`` is the divergence from
        the logged policy, ``ess_share`` the effective share of the rows.

    Raises
    ------
    DataError
        Scores without an outcome, or arrays of different lengths.

    Notes
    -----
    ``value = sum y e^(tau r) / sum e^(tau r)`` and ``kl = tau E_pi r - log mean e^(tau r)``.

    Examples
    --------
    >>> import numpy as np
    >>> r = np.random.default_rng(0).normal(size=10_000)
    >>> frontier = tilt_frontier(r, r, strengths=[0.0, 0.5])
    >>> frontier["value"].round(1).tolist()
    [0.0, 0.5]
    """
    import pandas as pd

    owner = "tilt_frontier"
    check_level(level)
    if hasattr(reward, "out_of_fold_scores_"):
        data, problem = reward._training(owner)
        scores, y = reward.out_of_fold_scores_, reward.corrected_outcome_
        cluster = data.roles.cluster if cluster is None else cluster
        weight = problem.weight if sample_weight is None else sample_weight
    elif outcome is None:
        raise DataError(f"{owner}: outcome= is needed where scores are given as an array.")
    else:
        scores = check_numeric(reward, "reward", owner=owner)
        y = check_numeric(outcome, "outcome", owner=owner)
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
    base = check_numeric(weight, "sample_weight", owner=owner)
    check_lengths(owner=owner, reward=scores, outcome=y, sample_weight=base, cluster=cluster)
    if (base <= 0).any():
        raise DataError(f"{owner}: sample_weight must be positive in every row.")
    if strengths is None:
        spread = max(float(scores.std()), 1e-12)
        strengths = np.linspace(0, np.sqrt(np.log(10)) / spread, 8)
    taus = np.atleast_1d(np.asarray(strengths, dtype=float))
    if not np.isfinite(taus).all():
        raise ParameterError(f"{owner}: strengths={strengths!r} must be finite.")
    rows = [_point(float(t), scores, y, base / base.mean(), cluster, level) for t in taus]
    return pd.DataFrame(rows)


def _point(
    tau: float, scores: FloatArray, y: FloatArray, base: FloatArray, cluster: Any, level: float
) -> dict[str, float]:
    from causalfair.inference import InfluenceEstimates

    tilt = tau * scores
    top = float(tilt.max())
    weight = base * np.exp(tilt - top)
    share = weight / weight.mean()
    value = float((share * y).mean())
    psi = share * (y - value)
    estimate = InfluenceEstimates([value], (psi - psi.mean())[:, None], ["value"], cluster=cluster)
    low, high = estimate.conf_int(level)[0]
    log_mean = float(np.log(weight.mean())) + top
    kl = float((share * tilt).mean()) - log_mean
    return {
        "tau": tau,
        "value": value,
        "std_error": float(estimate.std_error[0]),
        "conf_low": float(low),
        "conf_high": float(high),
        "kl": max(kl, 0.0),  # rounding at tau = 0
        "ess_share": float(1 / np.mean(share**2)),
    }
