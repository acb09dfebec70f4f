"""Does the ranking by effect mean anything? RATE on data that did not train the ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.inference import CovarianceEstimates

__all__ = ["RankingEvaluation", "combine_folds", "evaluate_priorities", "ratios"]

METRICS = ("autoc", "qini")
SCHEMES = {
    "sequential": "each fold is ranked by a model trained on the folds before it; the fold "
    "statistics form a martingale, so their sum is standard normal without heterogeneity",
    "split": "half of the clusters train the ranking, the other half evaluate it",
    "oob": "out-of-sample effects of the model that made the scores: a heuristic, one-sided",
}
LEAST_CLUSTERS = 10


@dataclass(frozen=True)
class RankingEvaluation:
    """Rank-weighted average effects of a fitted model.

    Attributes
    ----------
    estimates : dict of str to Estimates
        One entry a metric.
    scheme : str
        How ranking and evaluation were kept apart.
    toc : dict of str to pandas.DataFrame
        Mean targeting operator characteristic over the evaluated folds, by metric.
    n : int
        Units evaluated.
    n_flat : int
        Folds in which the ranking gave all units the same value. They hold no evidence, and the
        estimate is the mean over the others.
    n_folds : int
        Folds evaluated.
    """

    estimates: dict[str, Any]
    scheme: str
    toc: dict[str, Any]
    n: int
    n_flat: int = 0
    n_folds: int = 1

    @property
    def ratio(self) -> dict[str, float]:
        """RATE over its standard error, by metric; 0 where nobody was ranked above another."""
        return {k: float(ratios(v)[0]) for k, v in self.estimates.items()}

    def p_values(self) -> dict[str, float]:
        """p-values of no use of the ranking: two-sided, one-sided for ``"oob"``."""
        if self.scheme == "oob":
            return {k: float(ndtr(-value)) for k, value in self.ratio.items()}
        return {k: float(2 * ndtr(-abs(value))) for k, value in self.ratio.items()}

    def to_frame(self, level: float = 0.95) -> Any:
        """Tidy table.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        pandas.DataFrame
            Columns ``term, estimate, std_error, statistic, p_value, conf_low, conf_high, scheme,
            n``; ``statistic`` is the RATE ratio.
        """
        import pandas as pd

        frame = pd.concat([v.to_frame(level) for v in self.estimates.values()], ignore_index=True)
        frame["p_value"] = list(self.p_values().values())
        return frame.assign(scheme=self.scheme, n=self.n)

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
        from causalfair.reporting import Summary, Table
        from causalfair.reporting.format import format_estimate, format_p

        rows = []
        for (metric, value), p in zip(
            self.estimates.items(), self.p_values().values(), strict=True
        ):
            ends = value.conf_int(level)[0]
            cells = format_estimate(value.estimate[0], value.std_error[0], *ends)
            rows.append(
                [value.names[0], cells.estimate, cells.std_error, cells.interval,
                 f"{self.ratio[metric]:.2f}", format_p(p)]
            )  # fmt: skip
        columns = ["", "estimate", "std. error", f"{level:.0%} interval", "ratio", "p"]
        return Summary(
            "Does the ranking by predicted effect mean anything?",
            [("units evaluated", f"{self.n:,}"), ("scheme", self.scheme)],
            [Table(columns, rows, None, "lrrrrr")],
            [
                f"Scheme: {SCHEMES[self.scheme]}.",
                *self._flat_note(),
                "Standard errors: half-sample bootstrap.",
            ],
        )

    def _flat_note(self) -> list[str]:
        if not self.n_flat:
            return []
        return [
            f"In {self.n_flat} of {self.n_folds} folds the model gave all units the same effect; "
            "such folds hold no evidence and are left out."
        ]

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def plot(self, *, ax: Any = None) -> Any:
        """Targeting operator characteristic, averaged over the evaluated folds.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.forest._plots import finish_toc
        from causalfair.reporting.plot import new_axes

        ax = new_axes(ax)
        curve = next(iter(self.toc.values()))
        q, low, high = curve["q"], curve["conf_low"], curve["conf_high"]
        ax.fill_between(q, low, high, alpha=0.18, linewidth=0)
        shown = [f"{v.names[0]} = {v.estimate[0]:.3g}" for v in self.estimates.values()]
        ax.plot(q, curve["estimate"], linewidth=2, label=", ".join(shown))
        ax.legend(frameon=False)
        ax.set_title("Targeting operator characteristic", loc="left")
        finish_toc(ax)
        ax.set_xlabel("share treated, highest predicted effect first")
        return ax


def evaluate_priorities(
    priorities: dict[str, FloatArray],
    scores: FloatArray,
    folds: IntArray,
    *,
    metric: str,
    scheme: str,
    cluster: IntArray | None,
    sample_weight: FloatArray | None,
    seed: np.random.SeedSequence,
    n_bootstrap: int = 200,
) -> tuple[CovarianceEstimates, Any]:
    """RATE of one or more priorities, fold by fold and put together, and the mean TOC curve.

    Folds numbered below zero are not evaluated. All priorities share the half-samples.
    """
    from causalfair.forest import rank_average_treatment_effect

    if metric not in METRICS:
        raise ParameterError(f"metric={metric!r} is neither 'autoc' nor 'qini'.")
    values, covariances, curves = [], [], []
    names: tuple[str, ...] = ()
    for fold in np.unique(folds[folds >= 0]):
        rows = folds == fold
        units = rows.sum() if cluster is None else len(np.unique(cluster[rows]))
        if units < LEAST_CLUSTERS:
            raise IdentificationError(
                f"ImageSequenceCATE: fold {fold} has {units} clusters to evaluate a ranking on; "
                f"{LEAST_CLUSTERS} are needed. Use fewer folds or scheme='split'."
            )
        got = rank_average_treatment_effect(
            {k: v[rows] for k, v in priorities.items()},
            np.asarray(scores)[rows],
            method=metric,
            cluster=None if cluster is None else cluster[rows],
            sample_weight=None if sample_weight is None else sample_weight[rows],
            priority_from="out_of_bag" if scheme == "oob" else "other_data",
            n_bootstrap=n_bootstrap,
            random_state=child_seed(seed, int(fold)),
        )
        values.append(got.estimates_.estimate)
        covariances.append(got.estimates_.vcov)
        curves.append(got.toc_)
        names = got.estimates_.names
    return combine_folds(np.array(values), np.array(covariances), names), _mean_curve(curves)


def ratios(estimates: Any) -> FloatArray:
    """Estimates over standard errors; 0 where both are exactly zero."""
    flat = np.asarray(estimates.std_error) == 0
    return np.where(flat, 0.0, estimates.statistic())


def combine_folds(values: FloatArray, vcov: FloatArray, names: Any) -> CovarianceEstimates:
    """Weighted means over folds whose ratio is the sum of the fold ratios over sqrt(folds).

    With r_k and s_k the estimate and standard error of fold k, weights w_k = (1/s_k) / sum(1/s)
    give sum(w r) / sqrt(sum(w^2 s^2)) = sum(r / s) / sqrt(folds). Folds are uncorrelated because
    each ranking was trained on earlier folds only. Folds with s_k = 0 (a ranking without
    differences) count for nothing, unless there are no others.
    """
    std_error = np.sqrt(np.diagonal(vcov, axis1=1, axis2=2))
    flat = std_error == 0
    weight = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, std_error))
    weight[:, flat.all(axis=0)] = 1.0
    weight = weight / weight.sum(axis=0)
    estimate = (weight * values).sum(axis=0)
    total = np.einsum("kj,kl,kjl->jl", weight, weight, vcov)
    return CovarianceEstimates(estimate, total, names)


def _mean_curve(curves: list[Any]) -> Any:
    """Mean of the folds' curves with the standard error of the mean."""
    mean = curves[0].copy()
    mean["estimate"] = np.mean([c["estimate"] for c in curves], axis=0)
    mean["std_error"] = np.sqrt(np.sum([c["std_error"] ** 2 for c in curves], axis=0)) / len(curves)
    half = 1.959963984540054 * mean["std_error"]
    mean["conf_low"], mean["conf_high"] = mean["estimate"] - half, mean["estimate"] + half
    return mean[["priority", "q", "estimate", "std_error", "conf_low", "conf_high"]]
