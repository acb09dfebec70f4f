"""What a fitted effect model knows of each training row, and the averages taken over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair.exceptions import DataError, IdentificationError, ParameterError
from causalfair.forest._regression import least_squares
from causalfair.inference import InfluenceEstimates

__all__ = ["TARGETS", "EffectSample", "average_effect"]

FloatArray = NDArray[np.float64]

TARGETS = {"all": "ATE", "treated": "ATT", "control": "ATC", "overlap": "ATO"}


@dataclass(frozen=True, slots=True)
class EffectSample:
    """Out-of-sample quantities of the training rows; everything after the fit is made of these.

    Attributes
    ----------
    effect : ndarray of shape (n,)
        Effect at each row by a model that did not see the row.
    y_residual : ndarray of shape (n,)
        Outcome less its expectation given covariates.
    w_residual : ndarray of shape (n,)
        Treatment less its expectation given covariates.
    propensity : ndarray of shape (n,)
        Expected treatment given covariates: the probability of treatment where it is binary.
    variance : ndarray of shape (n,)
        Variance of the treatment given covariates.
    binary : bool
        Whether the treatment takes two values.
    sample_weight : ndarray of shape (n,) or None
        Weights with mean one.
    cluster : ndarray of shape (n, c) or None
        Cluster codes.
    sample_id : str or None
        Identity of the rows.
    """

    effect: FloatArray
    y_residual: FloatArray
    w_residual: FloatArray
    propensity: FloatArray
    variance: FloatArray
    binary: bool
    sample_weight: FloatArray | None = None
    cluster: NDArray[np.intp] | None = None
    sample_id: str | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.effect.size

    @property
    def treated(self) -> NDArray[np.bool_]:
        """Rows that were treated (of a binary treatment)."""
        return (self.w_residual + self.propensity) > 0.5

    @property
    def error(self) -> FloatArray:
        """What is left of the outcome: residual less effect times treatment residual."""
        return self.y_residual - self.w_residual * self.effect

    @property
    def scores(self) -> FloatArray:
        """Doubly robust scores: their mean is the average effect."""
        return self.effect + self.w_residual / self.variance * self.error

    def rows(self, keep: NDArray[Any]) -> EffectSample:
        """The same for some of the rows."""
        cluster = self.cluster
        if cluster is not None:
            kept = cluster[keep]
            cluster = np.column_stack(
                [np.unique(column, return_inverse=True)[1] for column in kept.T]
            )
        return EffectSample(
            self.effect[keep],
            self.y_residual[keep],
            self.w_residual[keep],
            self.propensity[keep],
            self.variance[keep],
            self.binary,
            None if self.sample_weight is None else self.sample_weight[keep],
            cluster,
            None,
        )

    def inference(self) -> dict[str, Any]:
        """Keyword arguments for estimates on these rows."""
        weight = self.sample_weight
        return {
            "cluster": self.cluster,
            "sample_weight": None if weight is None else weight / weight.mean(),
            "sample_id": self.sample_id,
        }


def average_effect(sample: EffectSample, target: str, owner: str) -> Any:
    """Doubly robust average effect over all, treated, control or overlap-weighted rows.

    Parameters
    ----------
    sample : EffectSample
        The rows.
    target : {"all", "treated", "control", "overlap"}
        Population averaged over.
    owner : str
        Who asks, for messages.

    Returns
    -------
    Estimates
        One term: ATE, ATT, ATC or ATO.
    """
    if target not in TARGETS:
        raise ParameterError(
            f"{owner}: target={target!r} is not one of {', '.join(map(repr, TARGETS))}."
        )
    if target in ("treated", "control") and not sample.binary:
        raise ParameterError(
            f"{owner}: target={target!r} needs a binary treatment; use 'all' or 'overlap'."
        )
    if sample.n < 2:
        raise DataError(f"{owner}: {sample.n} row(s) in the subset; an average needs two or more.")
    if target == "all":
        return _mean(sample.scores, sample)
    if target == "overlap":
        return _overlap(sample, owner)
    return _arm_average(sample, target, owner)


def _mean(scores: FloatArray, sample: EffectSample) -> InfluenceEstimates:
    theta = np.average(scores, weights=sample.sample_weight)
    small = sample.cluster is None
    return InfluenceEstimates(
        [theta], (scores - theta)[:, None], ["ATE"], small_sample=small, **sample.inference()
    )


def _overlap(sample: EffectSample, owner: str) -> Any:
    design = np.column_stack([np.ones(sample.n), sample.w_residual])
    fit = least_squares(
        design, sample.y_residual, ["(intercept)", "ATO"], owner=owner, **sample.inference()
    )
    return fit["ATO"]


def _arm_average(sample: EffectSample, target: str, owner: str) -> InfluenceEstimates:
    """Mean effect among one arm, corrected by residuals reweighted from the other arm."""
    own = sample.treated if target == "treated" else ~sample.treated
    odds = sample.propensity / (1 - sample.propensity)
    other_weight = np.where(own, 0.0, odds if target == "treated" else 1 / odds)
    w = np.ones(sample.n) if sample.sample_weight is None else sample.sample_weight
    if not (w[own].sum() > 0 and (w * other_weight).sum() > 0):
        raise IdentificationError(
            f"{owner}: target={target!r} needs rows in both arms; the subset has "
            f"{int(sample.treated.sum())} treated of {sample.n}."
        )
    sign = 1.0 if target == "treated" else -1.0
    inside = sample.effect + sign * sample.error
    p_own = np.average(own, weights=w)
    p_other = np.average(other_weight, weights=w)
    mean_own = np.average(inside[own], weights=w[own])
    mean_other = np.average(sample.error, weights=w * other_weight)
    theta = mean_own - sign * mean_other
    influence = own / p_own * (inside - mean_own)
    influence = influence - sign * other_weight / p_other * (sample.error - mean_other)
    return InfluenceEstimates(
        [theta],
        influence[:, None],
        [TARGETS[target]],
        small_sample=sample.cluster is None,
        **sample.inference(),
    )
