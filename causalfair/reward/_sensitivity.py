"""How strong an unrecorded cause would have to be to change a contrast or a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from causalfair.exceptions import ParameterError

__all__ = ["Sensitivity", "bias_bound", "partial_r2", "rank_robustness", "robustness_value"]


def partial_r2(statistic: float, dof: float) -> float:
    """Partial R-squared of the text contrast with the outcome: ``t^2 / (t^2 + dof)``.

    Parameters
    ----------
    statistic : float
        t statistic of the contrast.
    dof : float
        Residual degrees of freedom.

    Returns
    -------
    float
        Share of residual outcome variance.

    Examples
    --------
    >>> round(partial_r2(4.184445, 783), 4)
    0.0219
    """
    return float(statistic**2 / (statistic**2 + dof))


def robustness_value(
    statistic: float, dof: float, *, q: float = 1.0, level: float | None = None
) -> float:
    """Least strength an unrecorded cause needs, on both sides, to explain a contrast away.

    Parameters
    ----------
    statistic : float
        t statistic of the contrast.
    dof : float
        Residual degrees of freedom.
    q : float, default 1
        Share of the estimate to explain away.
    level : float, optional
        Explain away significance at this level instead of the point estimate.

    Returns
    -------
    float
        Partial R-squared with text and with outcome, between 0 and 1.

    References
    ----------
    .. [1] C. Cinelli and C. Hazlett (2020). Making sense of sensitivity: extending omitted variable
       bias. JRSS B 82, 39-67. doi:10.1111/rssb.12348

    Examples
    --------
    >>> round(robustness_value(4.184445, 783), 4)
    0.1388
    """
    from scipy.special import stdtrit

    if dof <= 1:
        raise ParameterError(f"dof={dof!r} must exceed 1.")
    if not 0 < q <= 1:
        raise ParameterError(f"q={q!r} must lie in (0, 1].")
    f = q * abs(statistic) / np.sqrt(dof)
    if level is not None:
        f -= abs(float(stdtrit(dof - 1, (1 + level) / 2))) / np.sqrt(dof - 1)
    if f <= 0:
        return 0.0
    value = 0.5 * (np.sqrt(f**4 + 4 * f**2) - f**2)
    return float(value)


def bias_bound(std_error: float, dof: float, *, r2_outcome: float, r2_text: float) -> float:
    """Largest bias from an unrecorded cause of given strength.

    Parameters
    ----------
    std_error : float
        Classical standard error of the contrast.
    dof : float
        Residual degrees of freedom.
    r2_outcome, r2_text : float
        Partial R-squared of the cause with the outcome and with the text contrast.

    Returns
    -------
    float
        ``se * sqrt(dof * r2_outcome * r2_text / (1 - r2_text))``.

    Examples
    --------
    >>> round(bias_bound(0.1, 100, r2_outcome=0.1, r2_text=0.1), 4)
    0.1054
    """
    for name, value in (("r2_outcome", r2_outcome), ("r2_text", r2_text)):
        if not 0 <= value < 1:
            raise ParameterError(f"{name}={value!r} must lie in [0, 1).")
    return float(std_error * np.sqrt(dof * r2_outcome * r2_text / (1 - r2_text)))


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity of one contrast.

    Attributes
    ----------
    estimate, statistic, dof : the contrast.
    partial_r2, robustness, robustness_significance : what it would take.
    """

    estimate: float
    statistic: float
    dof: float
    partial_r2: float
    robustness: float
    robustness_significance: float

    def __str__(self) -> str:
        return (
            f"estimate {self.estimate:.3g} (t {self.statistic:.2f}); an unrecorded cause must "
            f"explain {self.robustness:.1%} of the residual variance of text and outcome to bring "
            f"it to zero, and {self.robustness_significance:.1%} to make it insignificant."
        )


def sensitivity_of(
    estimate: float, std_error: float, dof: float, *, level: float = 0.95
) -> Sensitivity:
    """Robustness values of one estimate."""
    t = estimate / std_error if std_error > 0 else 0.0
    return Sensitivity(
        estimate, t, dof, partial_r2(t, dof), robustness_value(t, dof),
        robustness_value(t, dof, level=level),
    )  # fmt: skip


def rank_robustness(reward: Any, candidates: Any, *, strength: float = 0.05, top: int = 10) -> Any:
    """Robustness value of the order of neighbouring candidates.

    Parameters
    ----------
    reward : DeconfoundedReward
        A fitted linear reward.
    candidates : list of str, table or array
        Texts.
    strength : float, default 0.05
        Partial R-squared of a cause, with text and outcome, that the order should survive.
    top : int, default 10
        Best candidates considered.

    Returns
    -------
    pandas.DataFrame
        One row a neighbouring pair of the ranking: ``better, worse, difference, robustness,
        survives``.
    """
    import pandas as pd

    matrix = reward._matrix(candidates, "rank_robustness")
    table = reward._inference
    rewards = matrix @ reward._project_rows() @ table.coef
    order = np.argsort(-rewards, kind="stable")[:top]
    raw = isinstance(candidates, (list, tuple)) and isinstance(candidates[0], str)
    labels = np.array(list(candidates) if raw else range(len(matrix)), dtype=object)
    rows = []
    for a, b in pairwise(order):
        row = (matrix[a] - matrix[b]) @ reward._project_rows()
        spread = float(np.sqrt(max(row @ table.vcov @ row, 0.0)))
        gap = float(row @ table.coef)
        value = robustness_value(gap / spread, reward._dof) if spread > 0 else 0.0
        rows.append((labels[a], labels[b], gap, value, value > strength))
    return pd.DataFrame(rows, columns=["better", "worse", "difference", "robustness", "survives"])
