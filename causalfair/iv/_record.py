"""What is kept of a fit: data, nuisance values and scores of every row, and the comparators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from causalfair._core.roles import RoleData
from causalfair._core.typing import FloatArray, IntArray
from causalfair.inference import Estimates, InfluenceEstimates, RepeatedEstimates
from causalfair.iv import _scores as scores
from causalfair.iv._comparators import baseline_scores
from causalfair.iv._data import InstrumentData
from causalfair.iv._diagnostics import standardized_differences
from causalfair.iv._scores import IVNuisances, Scores

__all__ = [
    "IVRecord",
    "balance_of",
    "baseline_comparators",
    "design_matrix",
    "separate_estimates",
]


@dataclass(frozen=True, slots=True)
class IVRecord:
    """What the post-estimation methods need of a fit; covariates are not among it.

    Attributes
    ----------
    z, a, y : (n,)
        Instrument and treatment as coded 0/1 (or continuous treatment), and outcome.
    nuisances, phi
        One entry a repeat of sample splitting: held-out nuisance values and scores.
    weight : (n,) or None
        Weights that sum to ``n``: sample weights, zero for rows trimmed away.
    cluster : (n, c) or None
        Cluster codes.
    sample_id : str
        Identity of the rows.
    constant_arm : int or None
        Arm of the instrument without variation in the treatment.
    balance : tuple
        Covariate names, standardised differences before and after weighting.
    comparators : tuple of (name, what it rests on, Estimates)
        Other estimators, fitted on the same rows; estimates without influence values.
    targets : Mapping of str to Estimates
        ``"ATT"``, ``"covariance slope"`` and ``"modification slope"`` where the estimator has
        better influence values than the scores at fixed nuisances.
    """

    z: FloatArray
    a: FloatArray
    y: FloatArray
    nuisances: tuple[IVNuisances, ...]
    phi: tuple[FloatArray, ...]
    weight: FloatArray | None
    cluster: IntArray | None
    sample_id: str
    constant_arm: int | None
    balance: tuple[tuple[str, ...], FloatArray, FloatArray]
    comparators: tuple[tuple[str, str, Estimates], ...] = ()
    targets: Mapping[str, Estimates] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.y.size)

    def estimates(self, parts: list[Scores]) -> Estimates:
        """Estimates from one :class:`Scores` a repeat (or a single one)."""
        members = [
            InfluenceEstimates(
                part.estimate,
                part.influence,
                part.names,
                cluster=self.cluster,
                sample_weight=self.weight,
                sample_id=self.sample_id,
            )
            for part in parts
        ]
        return members[0] if len(members) == 1 else RepeatedEstimates(members)

    def over_repeats(self, function: Callable[[IVNuisances, FloatArray], Scores]) -> Estimates:
        """Apply a score function to every repeat."""
        return self.estimates(
            [function(nu, phi) for nu, phi in zip(self.nuisances, self.phi, strict=True)]
        )

    def typical(self) -> int:
        """Repeat whose average effect is nearest the median over repeats."""
        means = np.array([float(scores.weighted_mean(phi, self.weight)) for phi in self.phi])
        return int(np.argmin(np.abs(means - np.median(means))))


def design_matrix(data: RoleData) -> tuple[FloatArray, tuple[str, ...]]:
    """Numeric covariates (n, p) with indicators for categories, no intercept, and their names."""
    frame = data.covariates
    if all(frame[name].dtype == np.float64 for name in frame.columns):
        return data.matrix(), data.covariate_names
    import pandas as pd

    wide = pd.get_dummies(frame, drop_first=True, dtype=np.float64)
    return np.array(wide, dtype=np.float64, order="C"), tuple(map(str, wide.columns))


def separate_estimates(
    found: Scores, cluster: IntArray | None, weight: FloatArray | None, sample_id: str
) -> dict[str, Estimates]:
    """One light estimate a term; apart, so that a missing one does not spoil the others."""
    return {
        name: InfluenceEstimates(
            found.estimate[k : k + 1],
            found.influence[:, k : k + 1],
            [name],
            cluster=cluster,
            sample_weight=weight,
            sample_id=sample_id,
        ).drop_influence()
        for k, name in enumerate(found.names)
    }


def baseline_comparators(
    data: InstrumentData, X: FloatArray, sample_id: str
) -> list[tuple[str, str, Estimates]]:
    """OLS, 2SLS and Wald on the same rows, with what each rests on."""
    exogenous = np.column_stack([np.ones(data.n), X])
    found = baseline_scores(data.z, data.a, data.y, exogenous, data.weight)
    rests = {
        "OLS": "no unmeasured confounding, linear",
        "2SLS": "valid instrument, linear",
        "Wald (no covariates)": "valid instrument, as if randomised",
    }
    each = separate_estimates(found, data.cluster, data.weight, sample_id)
    return [(name, rests[name], estimate) for name, estimate in each.items()]


def balance_of(
    data: InstrumentData, X: FloatArray, names: tuple[str, ...], pi: FloatArray
) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    """Standardised differences of the covariates for :class:`IVRecord`."""
    if X.shape[1] == 0:
        return (), np.zeros(0), np.zeros(0)
    before, after = standardized_differences(data.z, X, pi, data.weight)
    return names, before, after
