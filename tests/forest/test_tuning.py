"""Tuning: the maps, the choice against the defaults, warnings."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.exceptions import ConvergenceWarning, ParameterError
from causalfair.forest import CausalForest, tune_forest
from causalfair.forest._tuning import PARAMETERS

ROLES = {"treatment": "w", "covariates": ["a", "b", "c", "d"]}
SMALL = {"n_draws": 12, "n_trees": 30, "n_trees_final": 60, "random_state": 0}
GIVEN = {"nuisances": {"propensity": 0.5, "outcome": 0.0}}


def test_best_draw_is_kept_only_if_it_beats_the_defaults(trial):
    tuned = tune_forest(CausalForest(100), trial, "y", **ROLES, **GIVEN, **SMALL)
    assert list(tuned.draws_.columns) == [*PARAMETERS, "error"]
    if tuned.error_ < tuned.default_error_:
        assert tuned.forest_.get_params().items() >= tuned.parameters_.items()
        assert tuned.parameters_
    else:
        assert not tuned.parameters_
    assert "Tuned forest" in str(tuned)
    again = tune_forest(CausalForest(100, n_jobs=2), trial, "y", **ROLES, **GIVEN, **SMALL)
    assert again.error_ == tuned.error_
    assert np.isfinite(tuned.forest_.fit(trial, "y", **ROLES).estimates_.estimate).all()


def test_a_useless_default_is_replaced(trial):
    stump = CausalForest(100, min_leaf_size=60)  # no cut is admissible
    tuned = tune_forest(stump, trial, "y", **ROLES, **GIVEN, **SMALL, parameters=["min_leaf_size"])
    assert tuned.parameters_["min_leaf_size"] < 30
    assert tuned.error_ < tuned.default_error_
    assert stump.min_leaf_size == 60


def test_ranges(trial):
    tuned = tune_forest(CausalForest(50), trial, "y", **ROLES, **GIVEN, **SMALL)
    draws = tuned.draws_
    assert draws["min_leaf_size"].between(1, 600 / 16).all()
    assert draws["sample_fraction"].between(0.05, 0.5).all()
    assert draws["max_features"].between(1, 4).all()
    assert draws["alpha"].between(0, 0.25).all()
    assert (draws["imbalance_penalty"] >= 0).all()
    assert draws["honesty_fraction"].between(0.5, 0.8).all()


def test_constant_errors_keep_the_defaults(trial):
    flat = trial.assign(y=trial["w"] * 2.0)
    given = {"nuisances": {"propensity": 0.5, "outcome": 1.0}}
    with pytest.warns(ConvergenceWarning, match="the defaults stay"):
        tuned = tune_forest(CausalForest(50), flat, "y", **ROLES, **given, **SMALL)
    assert tuned.parameters_ == {}


def test_unknown_parameters(trial):
    with pytest.raises(ParameterError, match="cannot be tuned"):
        tune_forest(CausalForest(), trial, "y", **ROLES, parameters=["depth"])
    with pytest.raises(ParameterError, match="cannot be tuned"):
        tune_forest(
            CausalForest(honesty=False), trial, "y", **ROLES, parameters=["honesty_fraction"]
        )
