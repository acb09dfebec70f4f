"""From held-out nuisance values to what the post-estimation methods work on."""

from __future__ import annotations

import numpy as np

from causalfair._core.roles import RoleData
from causalfair._core.typing import FloatArray
from causalfair.inference import Estimates
from causalfair.iv._data import InstrumentData
from causalfair.iv._record import IVRecord, balance_of, baseline_comparators, design_matrix
from causalfair.iv._scores import IVNuisances, Scores, direct_effect_scores, weighted_mean

__all__ = ["effects_of", "loss_text", "one_sided_note", "record_of"]


def record_of(
    data: RoleData,
    checked: InstrumentData,
    nuisances: tuple[IVNuisances, ...],
    phi: tuple[FloatArray, ...],
    weight: FloatArray | None,
) -> IVRecord:
    """Record that the post-estimation methods work on."""
    names: tuple[str, ...]
    if data.covariates.isna().to_numpy().any():
        # Linear comparators and balance need complete covariates.
        X, names = np.empty((data.n, 0)), ()
        comparators: list[tuple[str, str, Estimates]] = []
    else:
        X, names = design_matrix(data)
        comparators = baseline_comparators(checked, X, data.sample_id())
    pi = np.median([nu.pi for nu in nuisances], axis=0)
    return IVRecord(
        z=checked.z,
        a=checked.a,
        y=checked.y,
        nuisances=nuisances,
        phi=phi,
        weight=weight,
        cluster=checked.cluster,
        sample_id=data.sample_id(),
        constant_arm=checked.constant_arm,
        balance=balance_of(checked, X, names, pi),
        comparators=tuple(comparators),
    )


def effects_of(rows: IVRecord, direct: FloatArray | None = None) -> Estimates:
    """Average effect and direct effect of the instrument, in every repeat.

    ``direct`` are scores of the direct effect where they are not those at the stored nuisances.
    """
    z, a, y = rows.z, rows.a, rows.y

    def both(nu: IVNuisances, phi: FloatArray) -> Scores:
        second = direct_effect_scores(z, a, y, nu, phi) if direct is None else direct
        columns = np.column_stack([phi, second])
        mean = weighted_mean(columns, rows.weight)
        return Scores(("ATE", "direct effect"), mean, columns - mean)

    return rows.over_repeats(both)


def one_sided_note(rows: IVRecord) -> list[str]:
    """What the answer rests on when one arm has a constant treatment."""
    if rows.constant_arm is None:
        return []
    return [
        "One-sided non-compliance: the answer rests on no unmeasured confounding in the arm with a "
        "choice."
    ]


def loss_text(kind: str, loss: float) -> str:
    """``"RMSE 1.23"``."""
    return f"{kind} {loss:.3g}"
