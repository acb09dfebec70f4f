"""Average effects outside the trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError, IdentificationError, OverlapWarning
from causalfair.imagery._support import SupportReport, capped_odds
from causalfair.inference import CovarianceEstimates
from causalfair.inference.vcov import cluster_sums

__all__ = ["Transport", "compare_transports", "transport"]

LEAST_EFFECTIVE = 0.1
LEAST_TOTAL = 0.5


@dataclass(frozen=True)
class Transport:
    """Effects carried to places outside the trial.

    Attributes
    ----------
    estimates_ : Estimates
        Term ``target ATE``, doubly robust.
    plug_in : float
        Mean of the predicted effects, biased towards the trial's average effect.
    trial : Estimates
        Average effect in the trial.
    effect : ndarray of shape (G,)
        Predicted effect at each place.
    support : SupportReport
        Where the trial supports it.
    used : ndarray of shape (G,), bool
        Places in the average.
    """

    estimates_: Any
    plug_in: float
    trial: Any
    effect: FloatArray
    support: SupportReport
    used: Any

    def tipping_point(self, level: float = 0.95) -> float:
        """How far effects may differ from the trial's, given images, before the sign is lost.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        float
            The smallest difference, the same everywhere, at which the interval reaches zero; 0 if
            it holds zero already.
        """
        low, high = self.estimates_.conf_int(level)[0]
        return float(max(0.0, low, -high))

    def _population(self) -> str:
        if not self.used.all():
            return "supported target places"
        beyond = int((~self.support.supported).sum())
        extra = f"; in {beyond:,} of them it is extrapolated" if beyond else ""
        return f"target places{extra}"

    def to_frame(self) -> Any:
        """One row a place.

        Returns
        -------
        pandas.DataFrame
            The support table with the column ``effect``; ``used`` says what entered the average.
        """
        return self.support.to_frame().assign(effect=self.effect, used=self.used)

    def summary(self, level: float = 0.95) -> Any:
        """Printable table.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, estimates_table

        return Summary(
            "Average effect outside the trial",
            [
                ("places", f"{self.effect.size:,}"),
                ("in the average", f"{int(self.used.sum()):,}"),
                ("plug-in mean", f"{self.plug_in:.3g}"),
                ("trial ATE", f"{float(self.trial.estimate[0]):.3g}"),
            ],
            [estimates_table(self.estimates_, level)],
            [
                f"Estimand: average effect over the {self._population()}.",
                "Assumes: given the images, effects outside the trial are as inside (untestable).",
                f"If they differ by {self.tipping_point(level):.3g} or more, the interval may hold "
                "zero.",
            ],
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())


def _warn_of_overlap(report: SupportReport) -> None:
    """Say where weighting the trial to the target cannot correct the predictions."""
    if report.weight_total < LEAST_TOTAL:
        warn(
            f"ImageSequenceCATE.transport: trial and target hardly overlap (AUC {report.auc:.3f}; "
            f"weights sum to {report.weight_total:.1%} of the target): the answer is little more "
            "than the mean of the predictions.",
            OverlapWarning,
        )
    elif report.effective_share < LEAST_EFFECTIVE:
        warn(
            f"ImageSequenceCATE.transport: weighted to the target, the trial is worth "
            f"{report.effective_share:.1%} of its size; few units carry the answer.",
            OverlapWarning,
        )


def transport(
    sample: Any,
    effect: FloatArray,
    report: SupportReport,
    trial: Any,
    *,
    exclude: bool,
    finite_target: bool,
    target_cluster: Any = None,
) -> Transport:
    """Doubly robust average effect over target places.

    Parameters
    ----------
    sample : EffectSample
        Out-of-sample quantities of the trial's units.
    effect : ndarray of shape (G,)
        Predicted effects in the target.
    report : SupportReport
        Support; its ``trial_probability`` weights the trial to the target.
    trial : Estimates
        Average effect in the trial.
    exclude : bool
        Leave unsupported places out.
    finite_target : bool
        No sampling error of the target.
    target_cluster : ndarray of shape (G,), optional
        Blocks in which the target was sampled.

    Returns
    -------
    Transport
        Estimate and map.

    Notes
    -----
    mean_g tau(phi_g) + (1/G) sum_i [(1 - p_i)/p_i] (W_i - e_i)/Var(W_i) (Y_i - m_i - (W_i - e_i)
    tau_i), with weights capped at their 99th percentile. Variance: Var_g(tau)/G, or squared sums
    over blocks of the target, plus the squared cluster sums of the second part over G^2.
    """
    used = report.supported if exclude else np.ones(effect.size, dtype=bool)
    if not used.any():
        raise IdentificationError(
            f"ImageSequenceCATE.transport: none of the {effect.size} places is supported by the "
            "trial (see .support(images)). Their effects would be extrapolation; "
            "unsupported='ignore' computes it anyway."
        )
    _warn_of_overlap(report)
    G = int(used.sum())
    # Membership odds refer to all G0 places; for G of them they shrink in proportion.
    odds = capped_odds(report.trial_probability) * (G / effect.size)
    terms = odds * sample.w_residual / sample.variance * sample.error
    if sample.sample_weight is not None:
        terms = terms * sample.sample_weight
    plug_in = float(effect[used].mean())
    estimate = plug_in + terms.sum() / G
    if sample.cluster is None:
        second = float((terms**2).sum()) / G**2
    else:
        sums = cluster_sums(terms[:, None], sample.cluster[:, 0]).ravel()
        second = float((sums**2).sum()) / G**2 * sums.size / max(sums.size - 1, 1)
    first = 0.0 if finite_target else _target_variance(effect, used, target_cluster)
    estimates = CovarianceEstimates([estimate], [[first + second]], ["target ATE"])
    return Transport(estimates, plug_in, trial, effect, report, used)


def _target_variance(effect: FloatArray, used: Any, blocks: Any) -> float:
    """Variance of the mean predicted effect over the target as a sample of places, or blocks."""
    chosen = effect[used]
    G = chosen.size
    if blocks is None:
        return float(chosen.var(ddof=1) / G) if G > 1 else 0.0
    labels = np.asarray(blocks)
    if labels.shape != effect.shape:
        raise DataError(
            f"ImageSequenceCATE.transport: target_cluster has shape {labels.shape} for "
            f"{effect.size} places; give one label each."
        )
    codes = np.unique(labels[used], return_inverse=True)[1].ravel()
    sums = cluster_sums((chosen - chosen.mean())[:, None], codes).ravel()
    return float((sums**2).sum() / G**2 * sums.size / max(sums.size - 1, 1))


def compare_transports(transports: Mapping[str, Transport], *, level: float = 0.95) -> Any:
    """How much an answer for the same region depends on data, representation and learner.

    Parameters
    ----------
    transports : mapping of str to Transport
        Results of ``transport`` of several models for the same places, by name.
    level : float, default 0.95
        Confidence level.

    Returns
    -------
    pandas.DataFrame
        One row a model: ``model, estimate, std_error, conf_low, conf_high, plug_in, used`` (share
        of places in the average) and ``rank_correlation`` of its map with the first one.

    Raises
    ------
    DataError
        Nothing to compare, or maps of different places.

    Examples
    --------
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> from causalfair.forest import CausalForest
    >>> from causalfair.imagery import (
    ...     ImageSequenceCATE, SequenceFeatures, SpectralFeatures, compare_transports)
    >>> frame, truth = make_image_sequence_trial(150, size=12, random_state=0)
    >>> maps = {}
    >>> for pooling in ("last", "mean"):
    ...     model = ImageSequenceCATE(
    ...         SequenceFeatures(SpectralFeatures(), pooling=pooling), CausalForest(50),
    ...         scheme="oob", random_state=1)
    ...     model = model.fit(truth["images"], frame["y"], treatment=frame["treatment"])
    ...     maps[pooling] = model.transport(truth["images"])
    >>> compare_transports(maps)["model"].tolist()
    ['last', 'mean']
    """
    import pandas as pd
    from scipy.stats import spearmanr

    sizes = sorted({t.effect.size for t in transports.values()})
    if len(sizes) != 1:
        raise DataError(
            f"compare_transports got maps of {sizes or 'no'} places; give results for the same "
            "places."
        )
    first = next(iter(transports.values())).effect
    rows = []
    for name, t in transports.items():
        low, high = t.estimates_.conf_int(level)[0]
        flat = np.ptp(first) == 0 or np.ptp(t.effect) == 0
        rows.append(
            {"model": name, "estimate": float(t.estimates_.estimate[0]),
             "std_error": float(t.estimates_.std_error[0]), "conf_low": low, "conf_high": high,
             "plug_in": t.plug_in, "used": float(np.mean(t.used)),
             "rank_correlation": np.nan if flat else float(spearmanr(first, t.effect).statistic)}
        )  # fmt: skip
    return pd.DataFrame(rows)
