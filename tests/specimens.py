"""One small, quick instance of every public estimator, for the checks that hold for all of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from causalfair.imagery import ImageSequenceCATE


@dataclass(frozen=True)
class Specimen:
    """How to make an estimator and how to fit it on a frame.

    ``seed_matters`` says whether the ``random_state`` changes the result: not where it only seeds
    the starts of an optimiser.
    """

    make: Callable[..., Any]
    frame: Callable[[], pd.DataFrame]
    y: str
    roles: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed_matters: bool = True

    def estimator(self, **changes: Any) -> Any:
        return self.make(**{**self.parameters, **changes})

    def fit(self, X: Any = None, **changes: Any) -> Any:
        table = self.frame() if X is None else X
        return self.estimator(**changes).fit(table, self.y, **self.roles)

    def has(self, parameter: str) -> bool:
        return parameter in inspect.signature(self.make).parameters


@functools.cache
def invalid_iv() -> pd.DataFrame:
    from causalfair.datasets import make_invalid_iv

    frame, _ = make_invalid_iv(1200, random_state=4)
    return frame


def iv_specimens() -> dict[str, Specimen]:
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

    from causalfair import iv

    roles = {"treatment": "treatment", "instrument": "instrument", "covariates": ["x1", "x2"]}
    learners = {
        "instrument_learner": LogisticRegression(),
        "treatment_learner": LogisticRegression(),
        "outcome_learner": LinearRegression(),
        "effect_learner": LinearRegression(),
        "confounding_learner": LinearRegression(),
    }
    pair = {
        "linear": {slot.removesuffix("_learner"): learner for slot, learner in learners.items()},
        "ridge": {
            slot.removesuffix("_learner"): (
                LogisticRegression(C=0.1)
                if slot in ("instrument_learner", "treatment_learner")
                else Ridge(10.0)
            )
            for slot in learners
        },
    }
    candidates = {
        slot: {family: chosen[slot] for family, chosen in pair.items()} for slot in pair["linear"]
    }
    seeded = {"random_state": 0, "n_folds": 2}
    common = {"frame": invalid_iv, "y": "y", "roles": roles}
    return {
        "MultiplyRobustATE": Specimen(iv.MultiplyRobustATE, **common),
        "MRGenius": Specimen(iv.MRGenius, **common),
        "DebiasedATE": Specimen(
            iv.DebiasedATE, **common, parameters={**learners, **seeded, "n_repeats": 2}
        ),
        "SelectiveATE": Specimen(
            iv.SelectiveATE, **common, parameters={"candidates": candidates, **seeded}
        ),
    }


@functools.cache
def trial() -> pd.DataFrame:
    from causalfair.datasets import make_heterogeneous_effects

    frame, _ = make_heterogeneous_effects(300, setup="B", n_covariates=5, random_state=4)
    return frame


def forest_specimens() -> dict[str, Specimen]:
    from sklearn.linear_model import LinearRegression, LogisticRegression

    from causalfair import forest

    columns = [name for name in trial().columns if name.startswith("x")]
    common: dict[str, Any] = {
        "frame": trial, "y": "y", "roles": {"treatment": "treatment", "covariates": columns}
    }  # fmt: skip
    arms = {
        "outcome_learner": LinearRegression(), "propensity_learner": LogisticRegression(),
        "n_folds": 2, "random_state": 0,
    }  # fmt: skip
    staged = {**arms, "effect_learner": LinearRegression()}
    return {
        "CausalForest": Specimen(
            forest.CausalForest, **common, parameters={"n_trees": 60, "random_state": 0}
        ),
        "RLearner": Specimen(forest.RLearner, **common, parameters=staged),
        "DRLearner": Specimen(forest.DRLearner, **common, parameters=staged),
        "XLearner": Specimen(forest.XLearner, **common, parameters=staged),
        "TLearner": Specimen(forest.TLearner, **common, parameters=arms),
        "SLearner": Specimen(forest.SLearner, **common, parameters=arms),
    }


class EffectsOnFixedImages(ImageSequenceCATE):
    """The images are always the same, so that what varies in the common checks is the table."""

    def fit(self, X: Any, y: Any, *, treatment: Any, covariates: Any = None) -> Any:
        images = np.random.default_rng(0).random((300, 2, 4, 4, 2), dtype=np.float32)
        return super().fit(images, y, X=X, treatment=treatment, covariates=covariates)


def imagery_specimens() -> dict[str, Specimen]:
    from causalfair import forest, imagery

    columns = [name for name in trial().columns if name.startswith("x")]
    return {
        "ImageSequenceCATE": Specimen(
            EffectsOnFixedImages, trial, "y", {"treatment": "treatment", "covariates": columns},
            {
                "representation": imagery.SequenceFeatures(imagery.SpectralFeatures()),
                "learner": forest.CausalForest(60), "scheme": "split", "random_state": 0,
            },
        ),
    }  # fmt: skip


@functools.cache
def selective() -> pd.DataFrame:
    from causalfair.datasets import make_selective_labels

    frame, _ = make_selective_labels(400, n_features=2, random_state=4)
    # A missing outcome counts as missing only where somebody looked.
    return frame.sort_values("tested", ascending=False, kind="stable", ignore_index=True)


@functools.cache
def measured() -> pd.DataFrame:
    from causalfair.datasets import make_heckman_selection

    frame, _ = make_heckman_selection(500, n_covariates=2, random_state=4)
    return frame.sort_values("tested", ascending=False, kind="stable", ignore_index=True)


@functools.cache
def searches() -> pd.DataFrame:
    from causalfair.datasets import make_threshold_searches

    frame, _ = make_threshold_searches(3, thresholds={"a": 0.3, "b": 0.2}, random_state=4)
    return frame


def risk_specimens() -> dict[str, Specimen]:
    from sklearn.linear_model import LogisticRegression

    from causalfair import risk

    roles = {"tested": "tested", "covariates": ["x1", "x2"]}
    quick = {"sampler": "laplace", "draws": 100, "random_state": 0}
    knowledge = {"prevalence": 0.4, "prevalence_sd": 0.05, "expertise": []}
    logit = LogisticRegression()
    learned = {"tested_learner": logit, "outcome_learner": logit, "n_folds": 2, "random_state": 0}
    few = {"priors": "weak", "draws": 20, "tune": 30, "chains": 2, "random_state": 0}
    counts = {name: name for name in ("searches", "stops", "group", "place")}
    known = {"prevalence": 0.4, "prevalence_sd": 0.05}
    return {
        "DomainConstrainedRisk": Specimen(
            risk.DomainConstrainedRisk, selective, "y", roles, {**quick, **knowledge}
        ),
        "HeckmanRisk": Specimen(risk.HeckmanRisk, measured, "y", roles),
        "BivariateProbitSelection": Specimen(
            risk.BivariateProbitSelection, selective, "y", roles, known
        ),
        "DecisionShiftEstimator": Specimen(
            risk.DecisionShiftEstimator,
            selective,
            "y",
            roles,
            {**known, **learned},
            seed_matters=False,
        ),
        "ThresholdTest": Specimen(risk.ThresholdTest, searches, "hits", counts, few),
    }


@functools.cache
def decisions() -> pd.DataFrame:
    from causalfair.datasets import make_weak_proxies

    return make_weak_proxies(5000, design="identical", random_state=4)[0]


@functools.cache
def named_people() -> pd.DataFrame:
    from causalfair.datasets import make_names_and_places

    frame, truth = make_names_and_places(1500, random_state=4)
    return frame.assign(p_0=truth["probability"][:, 0], p_1=truth["probability"][:, 1])


def fairness_specimens() -> dict[str, Specimen]:
    from causalfair import fairness

    return {
        "ProxyFairness": Specimen(
            fairness.ProxyFairness,
            decisions,
            "y_pred",
            {"y_true": "y_true", "proxies": ["proxy_1", "proxy_2", "proxy_3"]},
            parameters={"random_state": 0},
            seed_matters=False,
        ),
        "OutcomeRegressionEM": Specimen(
            fairness.OutcomeRegressionEM,
            named_people,
            "y_pred",
            {"probability": ["p_0", "p_1"]},
            parameters={"n_bootstrap": 20, "random_state": 0},
        ),
    }


@functools.cache
def texts(name: str) -> pd.DataFrame:
    from causalfair import datasets

    frame, _ = getattr(datasets, name)(300, random_state=4)
    return frame.assign(place=np.arange(300) % 7)


def reward_specimens() -> dict[str, Specimen]:
    from causalfair import reward

    def on(name: str) -> Callable[[], pd.DataFrame]:
        return functools.partial(texts, name)

    held = {"embedding": ["x"], "categorical": "place"}
    # The seed splits the rows for held-out scores; the unpenalised effects need no split.
    unseeded: dict[str, Any] = {"parameters": {"random_state": 0}, "seed_matters": False}
    return {
        "DeconfoundedReward": Specimen(
            reward.DeconfoundedReward, on("make_linear_reward"), "y", {**held, "numeric": "w"},
            **unseeded,
        ),
        "InstrumentedReward": Specimen(
            reward.InstrumentedReward, on("make_popularity_iv"), "y",
            {**held, "endogenous": "popularity", "instruments": "slot"}, **unseeded,
        ),
        "ProximalReward": Specimen(
            reward.ProximalReward, on("make_proximal_reward"), "y",
            {**held, "outcome_proxy": "outcome_proxy", "text_proxy": "text_proxy"},
            **unseeded,
        ),
        "PairwiseReward": Specimen(
            reward.PairwiseReward, on("make_preferences"), "win",
            {"covariates": ["d0", "d1", "d2", "d3"], "nuisance": "length_gap"},
            **unseeded,
        ),
    }  # fmt: skip


SPECIMENS: dict[str, Specimen] = {
    **iv_specimens(),
    **forest_specimens(),
    **imagery_specimens(),
    **reward_specimens(),
    **fairness_specimens(),
    **risk_specimens(),
}
# Roles that name the columns of X itself.
OF_X = ("covariates", "proxies", "probability", "embedding")


def as_arrays(specimen: Specimen) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The same fit in terms of plain arrays: ``X, y, roles``."""
    frame = specimen.frame()
    roles = dict(specimen.roles)
    columns = next((roles.pop(role) for role in OF_X if role in roles), [])
    arrays = {
        role: frame[value].to_numpy() if isinstance(value, str) else value
        for role, value in roles.items()
    }
    return frame[columns].to_numpy(), frame[specimen.y].to_numpy(), arrays
