"""Candidate learners of :class:`SelectiveATE`, in the forms a user may give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from causalfair._core.learners import (
    BOOSTING,
    Method,
    check_learner,
    default_classifier,
    default_regressor,
    linear_pipeline,
)
from causalfair._core.validation import suggest
from causalfair.exceptions import ParameterError
from causalfair.iv._combinations import SLOTS
from causalfair.iv._effect import EFFECT_RULES

__all__ = ["FAMILIES", "check_slot_learner", "needs_classifier", "resolve_candidates"]

Candidates = dict[str, dict[str, Any]]
FAMILIES = ("linear", "quadratic", "boosting", "forest")
"""Ready-made families: a classifier and a regressor each."""


def needs_classifier(slot: str, *, binary: bool) -> bool:
    """Whether the slot predicts a probability."""
    return slot == "instrument" or (slot == "treatment" and binary)


def check_slot_learner(learner: Any, slot: str, *, binary: bool, name: str = "") -> None:
    """Raise ``TypeError`` naming the slot where a learner lacks what its slot needs."""
    label = f"{slot}_learner" + (f" {name!r}" if name else "")
    if slot == "effect" and isinstance(learner, str):
        if learner not in EFFECT_RULES:
            raise ParameterError(
                f"{label}={learner!r} must be a learner or one of {list(EFFECT_RULES)}."
                f"{suggest(learner, EFFECT_RULES)}"
            )
        return
    method: Method = "predict_proba" if needs_classifier(slot, binary=binary) else "predict"
    check_learner(learner, slot=label, method=method, weights=slot == "effect")


def resolve_candidates(candidates: Any, *, binary: bool, n: int, p: int) -> Candidates:
    """Candidates of every slot, in the order given.

    Parameters
    ----------
    candidates : list or mapping
        A list of names among ``FAMILIES``; a mapping from family name to family; or a mapping from
        slot to (mapping from name to learner). A family is one of those names, a pair (classifier,
        regressor), or a mapping from slot to learner.
    binary : bool
        Whether the treatment is binary, so that its slot needs classifiers.
    n, p : int
        Rows and covariates, for the learner of a slot without candidates.

    Returns
    -------
    dict of slot to dict of name to learner

    Raises
    ------
    ParameterError
        Not one of these forms.
    TypeError
        A learner lacks what its slot needs.
    """
    if isinstance(candidates, Mapping):
        given = dict(candidates)
    elif isinstance(candidates, (list, tuple)) and all(isinstance(c, str) for c in candidates):
        given = {name: name for name in candidates}
    else:
        raise ParameterError(
            f"candidates={candidates!r} must be a list of family names {list(FAMILIES)}, a mapping "
            "from family name to (classifier, regressor), or a mapping from slot to a mapping from "
            "name to learner."
        )
    if not given:
        raise ParameterError("candidates is empty; give at least two families to choose from.")
    by_slot = set(given) <= set(SLOTS)
    slots = _from_slots(given) if by_slot else _from_families(given, binary=binary)
    for slot in SLOTS:
        if not slots[slot]:
            classifier = needs_classifier(slot, binary=binary)
            slots[slot] = {
                "default": (default_classifier if classifier else default_regressor)(n, p)
            }
        for name, learner in slots[slot].items():
            check_slot_learner(learner, slot, binary=binary, name=name)
    return slots


def _from_slots(given: Mapping[str, Any]) -> Candidates:
    for slot, learners in given.items():
        if not isinstance(learners, Mapping):
            raise ParameterError(
                f"candidates[{slot!r}]={learners!r} must be a mapping from name to learner, for "
                f"instance {{'linear': RidgeCV()}}."
            )
    return {slot: dict(given.get(slot, {})) for slot in SLOTS}


def _from_families(given: Mapping[str, Any], *, binary: bool) -> Candidates:
    slots: Candidates = {slot: {} for slot in SLOTS}
    for name, family in given.items():
        for slot, learner in _family(name, family, binary=binary).items():
            slots[slot][name] = learner
    return slots


def _family(name: str, family: Any, *, binary: bool) -> dict[str, Any]:
    """Learner of every slot of one family."""
    if isinstance(family, str):
        if family not in FAMILIES:
            raise ParameterError(
                f"candidates names the family {family!r}.{suggest(family, FAMILIES)} Families: "
                f"{', '.join(FAMILIES)}; or give a pair (classifier, regressor)."
            )
        family = _BUILDERS[family]()
    if isinstance(family, Mapping):
        unknown = [slot for slot in family if slot not in SLOTS]
        if unknown:
            raise ParameterError(
                f"candidates[{name!r}] has the slot {unknown[0]!r}.{suggest(unknown[0], SLOTS)} "
                f"Slots: {', '.join(SLOTS)}."
            )
        return dict(family)
    if not (isinstance(family, tuple) and len(family) == 2):
        raise ParameterError(
            f"candidates[{name!r}]={family!r} must be a pair (classifier, regressor), one of "
            f"{list(FAMILIES)}, or a mapping from slot to learner: the instrument and a binary "
            "treatment need a classifier, the other slots a regressor."
        )
    classifier, regressor = family
    return {
        slot: classifier if needs_classifier(slot, binary=binary) else regressor for slot in SLOTS
    }


def _linear() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression, RidgeCV

    return linear_pipeline(LogisticRegression(max_iter=1000)), linear_pipeline(RidgeCV())


def _quadratic() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    def quadratic(model: Any) -> Any:
        squares = PolynomialFeatures(2, include_bias=False)
        return linear_pipeline(make_pipeline(squares, StandardScaler(), model))

    return (
        quadratic(LogisticRegression(C=0.1, max_iter=1000)),
        quadratic(RidgeCV((0.1, 1.0, 10.0, 100.0))),
    )


def _boosting() -> tuple[Any, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return HistGradientBoostingClassifier(**BOOSTING), HistGradientBoostingRegressor(**BOOSTING)


def _forest() -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    options: dict[str, Any] = {"n_estimators": 200, "min_samples_leaf": 10, "max_features": 0.5}
    return (
        linear_pipeline(RandomForestClassifier(**options)),
        linear_pipeline(RandomForestRegressor(**options)),
    )


_BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "linear": _linear,
    "quadratic": _quadratic,
    "boosting": _boosting,
    "forest": _forest,
}
