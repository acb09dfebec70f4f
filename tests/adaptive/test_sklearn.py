"""The glue to scikit-learn: scorer, search, selection, early stopping."""

from __future__ import annotations

import pickle
import warnings
from contextlib import contextmanager

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalfair.adaptive import (
    HoldoutEarlyStopping,
    HoldoutFeatureSelector,
    HoldoutSearchCV,
    ReusableHoldout,
)
from causalfair.exceptions import BudgetExhaustedError, CausalFairWarning, ParameterError

GRID = {"C": [0.001, 0.1, 1.0]}


@pytest.fixture(scope="module")
def samples():
    X, y = make_classification(9_000, n_features=10, random_state=0)
    return (X[:3_000], y[:3_000]), (X[3_000:], y[3_000:])


def holdout_of(samples, path=None, **kwargs):
    settings = {"mechanism": "gaussian", "max_queries": 60} | kwargs
    return ReusableHoldout.create(path, *samples[1], **settings)


@contextmanager
def workers(backend):
    """Kind of the workers; fresh processes take seconds to start."""
    with joblib.parallel_config(backend), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a threaded test process
        yield


# ------------------------------------------------------------------------------------------ scorer
def test_grid_search_asks_one_question_a_candidate(samples):
    holdout = holdout_of(samples)
    search = GridSearchCV(
        LogisticRegression(),
        GRID,
        cv=holdout.cv(),
        scoring=holdout.scorer("accuracy"),
        error_score="raise",
    )
    search.fit(*samples[0])
    assert holdout.remaining == 57
    assert set(search.cv_results_["mean_test_score"]) == set(holdout.to_frame()["value"])


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("multiprocessing", id="forked workers"),
        pytest.param("loky", id="fresh workers", marks=pytest.mark.slow),
    ],
)
def test_workers_share_the_ledger(samples, tmp_path, backend):
    holdout = holdout_of(samples, tmp_path / "a.ledger")
    scorer = holdout.scorer("accuracy")
    assert len(pickle.dumps(scorer)) < 2_000
    search = GridSearchCV(
        LogisticRegression(), GRID, cv=holdout.cv(), scoring=scorer, error_score="raise", n_jobs=2
    )
    with workers(backend):
        search.fit(*samples[0])
    assert holdout.remaining == 57
    assert holdout.audit()


def test_scorer_under_metadata_routing(samples):
    holdout = holdout_of(samples)
    with sklearn.config_context(enable_metadata_routing=True):
        GridSearchCV(
            LogisticRegression().set_fit_request(sample_weight=True),
            GRID,
            cv=holdout.cv(),
            scoring=holdout.scorer("accuracy"),
            error_score="raise",
        ).fit(*samples[0], sample_weight=np.ones(3_000))
    assert holdout.remaining == 57


def test_scorer_negates_losses_and_a_repeated_model_is_free(samples):
    holdout = holdout_of(samples)
    model = LogisticRegression().fit(*samples[0])
    scorer = holdout.scorer("brier")
    first = scorer(model, *samples[0])
    assert first <= 0
    assert scorer(model, *samples[0]) == first
    assert holdout.remaining == 59


def test_scorer_takes_the_training_value_as_guess(samples):
    holdout = holdout_of(samples, mechanism="guess_and_check", check_fraction=1.0)
    model = LogisticRegression().fit(*samples[0])
    value = holdout.scorer("accuracy")(model, *samples[0])
    assert value == model.score(*samples[0])


def test_exhaustion_stops_a_search(samples):
    holdout = holdout_of(samples, max_queries=2)
    search = GridSearchCV(
        LogisticRegression(),
        GRID,
        cv=holdout.cv(),
        scoring=holdout.scorer("accuracy"),
        error_score="raise",
    )
    with pytest.raises(BudgetExhaustedError, match="max_queries=2"):
        search.fit(*samples[0])


def test_scorer_refuses_mechanisms_without_values(samples):
    with pytest.raises(ParameterError, match="use HoldoutSearchCV"):
        holdout_of(samples, mechanism="winner_only").scorer("accuracy")
    assert "accuracy" in repr(holdout_of(samples).scorer("accuracy"))


# ------------------------------------------------------------------------------------------ search
@pytest.mark.parametrize(
    ("mechanism", "status"),
    [
        ("winner_only", "winner"),
        ("gaussian", "answered"),
        ("ladder", "improved"),
        ("guess_and_check", None),
        ("noisy_argmin", "winner"),
    ],
)
def test_search_under_every_release(samples, mechanism, status):
    kwargs = {"epsilon": 0.3, "rounds": 2} if mechanism == "noisy_argmin" else {}
    holdout = holdout_of(samples, mechanism=mechanism, **kwargs)
    search = HoldoutSearchCV(LogisticRegression(), GRID, holdout).fit(*samples[0])
    assert holdout.remaining == 57
    assert status is None or search.best_answer_.status == status
    assert search.best_params_ in [{"C": c} for c in GRID["C"]]
    assert search.predict(samples[1][0]).shape == (6_000,)
    assert search.predict_proba(samples[1][0]).shape == (6_000, 2)
    assert search.decision_function(samples[1][0]).shape == (6_000,)
    assert search.score(*samples[1]) > 0.7
    assert list(search.classes_) == [0, 1]
    assert search.n_features_in_ == 10
    assert len(search.cv_results_["training_value"]) == 3
    assert not hasattr(search, "transform")


def test_winner_is_the_best_candidate(samples):
    holdout = holdout_of(samples, mechanism="winner_only")
    search = HoldoutSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 25]}, holdout)
    search.fit(*samples[0])
    scores = [KNeighborsClassifier(k).fit(*samples[0]).score(*samples[1]) for k in (1, 25)]
    assert search.best_index_ == int(np.argmax(scores))
    assert np.isnan(search.best_answer_.value)


def test_search_shares_the_holdout_through_clone_and_nesting(samples):
    holdout = holdout_of(samples)
    search = HoldoutSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()),
        {"logisticregression__C": [0.1, 1]},
        holdout,
    )
    copy = clone(search)
    assert copy.holdout is holdout
    assert copy.get_params()["estimator__logisticregression__C"] == 1.0
    make_pipeline(StandardScaler(), copy).fit(*samples[0])
    assert holdout.remaining == 58


def test_search_is_free_under_the_same_name(samples):
    holdout = holdout_of(samples)
    first = HoldoutSearchCV(LogisticRegression(), GRID, holdout, query_id="grid").fit(*samples[0])
    again = HoldoutSearchCV(LogisticRegression(), GRID, holdout, query_id="grid").fit(*samples[0])
    assert holdout.remaining == 57
    assert first.best_params_ == again.best_params_


def test_random_search_repeats_and_bits_do_not_depend_on_jobs(samples):
    from scipy.stats import loguniform

    picked = []
    for n_jobs in (1, 2):
        holdout = holdout_of(samples, mechanism="naive", nonadaptive=True)
        search = HoldoutSearchCV(
            LogisticRegression(),
            {"C": loguniform(1e-3, 1)},
            holdout,
            n_iter=4,
            random_state=5,
            n_jobs=n_jobs,
        )
        with workers("threading"):
            search.fit(*samples[0])
        picked.append((search.cv_results_["params"], list(search.cv_results_["value"])))
    assert picked[0] == picked[1]


def test_search_of_a_regression(samples):
    X, y = samples[1]
    holdout = ReusableHoldout.create(None, X, y.astype(float), mechanism="ladder", max_queries=9)
    search = HoldoutSearchCV(
        LinearRegression(),
        {"fit_intercept": [True, False]},
        holdout,
        metric="mse",
        metric_options={"hi": 1.0},
    ).fit(*samples[0])
    assert not hasattr(search, "predict_proba")
    assert 0 < search.best_answer_.value < 0.5


def test_no_candidate_beats_the_board(samples):
    holdout = holdout_of(samples, mechanism="ladder")
    HoldoutSearchCV(LogisticRegression(), GRID, holdout).fit(*samples[0])
    with pytest.warns(CausalFairWarning, match="No candidate improved"):
        again = HoldoutSearchCV(LogisticRegression(), GRID, holdout).fit(*samples[0])
    assert not hasattr(again, "best_estimator_")


def test_metadata_routing(samples):
    weight = np.ones(3_000)
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogisticRegression().set_fit_request(sample_weight=True)
        search = HoldoutSearchCV(model, GRID, holdout_of(samples))
        search.fit(*samples[0], sample_weight=weight)
        assert "sample_weight" in str(search.get_metadata_routing())
    plain = HoldoutSearchCV(LogisticRegression(), GRID, holdout_of(samples))
    plain.fit(*samples[0], sample_weight=weight)


# --------------------------------------------------------------------------------------- selection
@pytest.fixture(scope="module")
def signal():
    rng = np.random.default_rng(0)
    y = rng.choice([-1, 1], 20_000)
    X = rng.normal(size=(20_000, 12))
    X[:, :3] += 0.8 * y[:, None]
    return (X[:10_000], y[:10_000]), (X[10_000:], y[10_000:])


@pytest.mark.parametrize("score", ["correlation", "auc"])
def test_selector_keeps_the_signal(signal, score):
    holdout = holdout_of(signal, mechanism="guess_and_check", max_queries=24)
    selector = HoldoutFeatureSelector(holdout, k_best=3, score=score).fit(*signal[0])
    assert list(np.flatnonzero(selector.get_support())) == [0, 1, 2]
    assert holdout.remaining == 12
    assert np.all(selector.radius_ > 0)


def test_selector_values_are_clipped_correlations(signal):
    holdout = holdout_of(signal, mechanism="naive", nonadaptive=True)
    selector = HoldoutFeatureSelector(holdout, threshold=0.3, clip=4.0).fit(*signal[0])
    (X, y), (H, h) = signal
    product = (H - X.mean(axis=0)) / X.std(axis=0) * ((h - y.mean()) / y.std())[:, None]
    expected = np.clip(product, -4, 4).mean(axis=0)
    assert np.allclose(selector.values_, expected, atol=1e-5)
    assert list(np.flatnonzero(selector.get_support())) == [0, 1, 2]


def test_selector_in_a_pipeline_with_frames(signal):
    (X, y), (H, h) = signal
    names = [f"f{j}" for j in range(12)]
    frame, held = pd.DataFrame(X, columns=names), pd.DataFrame(H, columns=names)
    holdout = ReusableHoldout.create(None, held, h, max_queries=24)
    selector = HoldoutFeatureSelector(holdout, k_best=3).set_output(transform="pandas")
    pipe = make_pipeline(clone(selector), LogisticRegression()).fit(frame, y)
    assert list(pipe[0].transform(frame).columns) == ["f0", "f1", "f2"]
    assert list(pipe[0].get_feature_names_out()) == ["f0", "f1", "f2"]
    assert pipe.score(held, h) > 0.8


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "exactly one of k_best and threshold"),
        ({"k_best": 1, "threshold": 0.1}, "exactly one of k_best and threshold"),
        ({"k_best": 1, "score": "f"}, "score must be 'correlation' or 'auc'"),
        ({"k_best": 1, "clip": 0}, "clip must be above 0"),
    ],
)
def test_selector_arguments(signal, kwargs, message):
    with pytest.raises(ParameterError, match=message):
        HoldoutFeatureSelector(holdout_of(signal), **kwargs).fit(*signal[0])


def test_selector_needs_values_and_the_same_features(signal):
    with pytest.raises(ParameterError, match="does not release a value for each feature"):
        HoldoutFeatureSelector(holdout_of(signal, mechanism="ladder"), k_best=1).fit(*signal[0])
    with pytest.raises(ValueError, match="must have the 5 features"):
        HoldoutFeatureSelector(holdout_of(signal), k_best=1).fit(signal[0][0][:, :5], signal[0][1])


# ---------------------------------------------------------------------------------- early stopping
def test_early_stopping_by_partial_fit(samples):
    holdout = holdout_of(samples, mechanism="ladder", max_queries=40)
    stopping = HoldoutEarlyStopping(
        SGDClassifier(random_state=0), holdout, max_rounds=40, patience=4
    ).fit(*samples[0])
    assert stopping.n_rounds_ == stopping.best_round_ + 4
    assert 40 - holdout.remaining == stopping.n_rounds_
    assert stopping.history_[stopping.best_round_ - 1].status == "improved"
    assert stopping.score(*samples[1]) > 0.7


def test_early_stopping_by_warm_start(samples):
    holdout = holdout_of(samples, mechanism="ladder", max_queries=40)
    stopping = HoldoutEarlyStopping(
        RandomForestClassifier(max_depth=3, random_state=0), holdout, patience=2, step=3
    ).fit(*samples[0])
    assert len(stopping.best_estimator_.estimators_) == 3 * stopping.best_round_
    assert stopping.predict(samples[1][0]).shape == (6_000,)


def test_early_stopping_arguments(samples):
    ladder = holdout_of(samples, mechanism="ladder")
    with pytest.raises(ParameterError, match="needs a holdout with mechanism='ladder'"):
        HoldoutEarlyStopping(SGDClassifier(), holdout_of(samples)).fit(*samples[0])
    with pytest.raises(ParameterError, match="patience must be at least 1"):
        HoldoutEarlyStopping(SGDClassifier(), ladder, patience=0).fit(*samples[0])
    with pytest.raises(ParameterError, match="neither partial_fit nor warm_start"):
        HoldoutEarlyStopping(KNeighborsClassifier(), ladder).fit(*samples[0])
