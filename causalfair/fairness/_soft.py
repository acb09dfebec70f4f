"""Soft proxies by moments: probabilities take the place of indicators in every moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.fairness._inference import JointCovariance, numerical_influence
from causalfair.fairness._models import Model, default_affinity, fit_moments
from causalfair.fairness._tensor import PatternCounts

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.fairness._encode import Rows

ROW_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class SoftMoments:
    """Probabilities (n, 3, K), stratum (n,) and weight (n,) of rows."""

    probability: FloatArray
    stratum: IntArray
    weight: FloatArray

    @classmethod
    def of(cls, X: FloatArray, rows: Rows) -> SoftMoments:
        """Take three soft proxies.

        Raises
        ------
        ParameterError
            Not three proxies.
        """
        if X.shape[1] != 3:
            raise ParameterError(
                f"model='moments' with soft proxies takes exactly three; X has {X.shape[1]}. Use "
                "model='joint', which bins any number of them."
            )
        n_labels = 1 if rows.label is None else max(int(rows.label.max()) + 1, 2)
        stratum = rows.prediction.astype(np.intp) * n_labels
        if rows.label is not None:
            stratum = stratum + rows.label
        weight = np.ones(len(X)) if rows.weight is None else rows.weight
        return cls(np.ascontiguousarray(X, dtype=np.float64), stratum, weight)


def third_moment(soft: SoftMoments, n_strata: int) -> FloatArray:
    """Sum over rows of q1 (x) q2 (x) q3 by stratum: (n_strata, K, K, K)."""
    from causalfair.fairness import _kernels

    q = soft.probability
    K = q.shape[2]
    out = np.zeros((_kernels.N_BLOCKS, n_strata, K, K, K))
    first, second, third = (np.ascontiguousarray(q[:, j]) for j in range(3))
    _kernels.soft_third_moment(first, second, third, soft.stratum, soft.weight, out)
    return np.asarray(out.sum(axis=0))


def fit_soft(
    data: PatternCounts, soft: SoftMoments, n_groups: int, rng: np.random.Generator
) -> tuple[Model, JointCovariance]:
    """Moment fit of the soft tensor, with the row-level law of G.

    The tensor of mean outer products has the same class structure as a tensor of counts, with
    tau_j[a] = E[q_j | A = a] in place of the error matrices.
    """
    tensor = third_moment(soft, data.n_strata)
    grid = np.stack(np.unravel_index(np.arange(n_groups**3), (n_groups,) * 3), axis=1)
    counts = tensor.reshape(data.n_strata, -1)
    pattern = PatternCounts(
        counts, grid.astype(np.intp), (n_groups,) * 3, data.n_pred, data.n_labels, counts
    )
    try:
        model = fit_moments(pattern, n_groups, default_affinity((n_groups,) * 3, n_groups), rng)
    except IdentificationError as error:
        raise IdentificationError(f"{error} (soft proxies by moments)") from error
    return model, _row_law(model, soft)


def _row_law(model: Model, soft: SoftMoments) -> JointCovariance:
    """Covariance of G from the influence of single rows, in blocks."""
    by_cell = numerical_influence(model)
    n_strata, n_patterns = model.data.counts.shape
    by_stratum = by_cell.reshape(n_strata, n_patterns, -1)
    size = by_cell.shape[1]
    total = np.zeros((size, size))
    mean = np.zeros(size)
    for start in range(0, len(soft.stratum), ROW_BLOCK):
        rows = slice(start, start + ROW_BLOCK)
        q, s, w = soft.probability[rows], soft.stratum[rows], soft.weight[rows]
        profile = np.einsum("na,nb,nc->nabc", q[:, 0], q[:, 1], q[:, 2]).reshape(len(s), -1)
        psi = np.empty((len(s), size))
        for k in range(n_strata):
            psi[s == k] = profile[s == k] @ by_stratum[k]
        psi *= w[:, None]
        total += psi.T @ psi
        mean += psi.sum(axis=0)
    n = soft.weight.sum()
    return JointCovariance(total / n**2 - np.outer(mean, mean) / n**3, by_cell, 0)
