"""From held-out candidates to the chosen combination, and to its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from causalfair._core.crossfit import FoldTask, make_folds
from causalfair._core.parallel import inner_threads
from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.iv._combinations import (
    PATH,
    SLOTS,
    CandidateNuisances,
    combination_nuisances,
    fold_means,
    smoothed_nuisances,
)
from causalfair.iv._learning import learn_fold
from causalfair.iv._plan import IVData, LearningPlan, gather
from causalfair.iv._scores import IVNuisances, direct_effect_scores, influence_scores
from causalfair.iv._selection import NuisanceSelection, minimal_covers, select_nuisances

__all__ = [
    "Index",
    "by_fold",
    "choose",
    "full_index",
    "nested_choice",
    "pad_index",
    "smooth_scores",
]

Index = tuple[int, int, int, int, int]


def choose(
    data: IVData,
    plan: LearningPlan,
    candidates: CandidateNuisances,
    losses: Mapping[str, FloatArray],
    folds: IntArray,
    criterion: str,
) -> NuisanceSelection:
    """Score every combination on every fold and choose.

    Where one arm has a constant treatment, omega is known and its slot takes no part.
    """
    with inner_threads():
        values = fold_means(data.z, data.a, data.y, candidates, folds, data.weight)
    slots, path = list(SLOTS), list(PATH)
    if data.constant_arm is not None:
        values, slots, path = values[..., 0], slots[:-1], path[1:]
    return select_nuisances(
        values,
        {slot: plan.names(slot) for slot in slots},
        covers=minimal_covers(path),
        criterion=criterion,
        losses={slot: losses[slot].tolist() for slot in slots},
    )


def full_index(selection: NuisanceSelection) -> Index:
    """Chosen combination over all five slots."""
    return pad_index(selection.index)


def pad_index(index: Sequence[int]) -> Index:
    """Five places; a slot that took no part has one candidate."""
    pi, lam, beta, mu, omega = (*index, 0)[:5]
    return pi, lam, beta, mu, omega


def nested_choice(
    task: FoldTask, *, data: IVData, plan: LearningPlan, criterion: str, n_folds: int
) -> NuisanceSelection:
    """Selection that sees nothing but the training rows of ``task``."""
    part = data.take(task.train)
    # Children of the fold's seed beyond those its own learners use (keys are below 2**32).
    folds = make_folds(
        part.n,
        n_folds,
        seed=child_seed(task.seed, 2**32),
        stratify=part.cells,
        groups=part.groups,
    )
    inner = [
        FoldTask(
            task.repeat,
            j,
            np.flatnonzero(folds != j),
            np.flatnonzero(folds == j),
            child_seed(task.seed, 2**32, j),
        )
        for j in range(n_folds)
    ]
    learned = [learn_fold(one, data=part, plan=plan) for one in inner]
    candidates, losses = gather(learned, part, plan)
    return choose(part, plan, candidates, losses, folds, criterion)


def by_fold(
    candidates: CandidateNuisances, indices: Sequence[Index], folds: IntArray
) -> IVNuisances:
    """Nuisance values of a combination that may differ from fold to fold."""
    parts = [combination_nuisances(candidates, index) for index in indices]
    rows = np.arange(len(folds))
    values: dict[str, Any] = {}
    for item in fields(IVNuisances):
        columns = [getattr(part, item.name) for part in parts]
        values[item.name] = None if columns[0] is None else np.stack(columns)[folds, rows]
    return IVNuisances(**values)


def smooth_scores(
    data: IVData, candidates: CandidateNuisances, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Scores of the average and of the direct effect, averaged over all combinations."""
    z, a, y = data.z, data.a, data.y
    phi, direct = np.zeros(data.n), np.zeros(data.n)
    for share, nuisances in smoothed_nuisances(candidates, weights):
        own = influence_scores(z, a, y, nuisances)
        phi += share * own
        direct += share * direct_effect_scores(z, a, y, nuisances, own)
    return phi, direct
