"""Cross-fitting: no leak, same bits, clusters whole, losses and counts right."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causalfair._core.crossfit import (
    CrossFitter,
    FoldTask,
    NuisanceSpec,
    make_folds,
    out_of_fold,
)
from causalfair._core.learners import (
    accepts_missing,
    default_classifier,
    default_regressor,
    fit_learner,
    predict_learner,
    seeded,
)
from causalfair._core.random import root_seed
from causalfair.exceptions import DataError, OverlapWarning, ParameterError


class Memoriser(RegressorMixin, BaseEstimator):
    """Returns the outcome of a row it has seen, and NaN for any other: a leak shows at once."""

    def fit(self, X, y):
        self.seen_ = dict(zip(np.asarray(X)[:, 0].tolist(), y, strict=True))
        return self

    def predict(self, X):
        return np.array([self.seen_.get(x, np.nan) for x in np.asarray(X)[:, 0].tolist()])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(120, 2)), columns=["a", "b"])
    y = X["a"].to_numpy() + rng.normal(size=120)
    return X, y


def test_a_memoriser_never_meets_its_own_rows(data):
    X, y = data
    fitter = CrossFitter(4, 2, random_state=0)
    table = fitter.run([NuisanceSpec("m", Memoriser(), y, X)], 120)
    assert np.isnan(table["m"]).all()
    assert np.isnan(out_of_fold(Memoriser(), X, y, n_folds=3, seed=root_seed(0))).all()


def test_predictions_equal_the_loop_written_out(data):
    X, y = data
    fitter = CrossFitter(3, 2, random_state=3)
    table = fitter.run([NuisanceSpec("m", LinearRegression(), y, X)], 120)
    for repeat in range(2):
        for fold in range(3):
            train = table.folds[:, repeat] != fold
            want = LinearRegression().fit(X[train], y[train]).predict(X[~train])
            np.testing.assert_array_equal(table["m"][~train, repeat], want)
    want_loss = np.mean([np.sqrt(np.mean((y - table["m"][:, r]) ** 2)) for r in range(2)])
    assert table.losses["m", ""] == pytest.approx(want_loss)


def test_rows_restrict_learning_only(data):
    X, y = data
    rows = X["b"].to_numpy() > 0
    table = CrossFitter(3, random_state=0).run(
        [NuisanceSpec("m", LinearRegression(), y, X, rows=rows)], 120
    )
    fold0 = table.folds[:, 0] == 0
    want = LinearRegression().fit(X[~fold0 & rows], y[~fold0 & rows]).predict(X[fold0])
    np.testing.assert_array_equal(table["m"][fold0, 0], want)
    assert np.isfinite(table["m"]).all()


def test_dependent_nuisances_get_out_of_fold_predictions(data):
    X, y = data
    specs = [
        NuisanceSpec("m", LinearRegression(), y, X),
        NuisanceSpec("v", LinearRegression(), lambda p: (y - p["m"]) ** 2, X, depends_on=("m",)),
    ]
    table = CrossFitter(3, random_state=0).run(specs, 120)
    alone = CrossFitter(3, random_state=0).run(specs[:1], 120)
    np.testing.assert_array_equal(table["m"], alone["m"])
    target = (y - table["m"][:, 0]) ** 2
    fold0 = table.folds[:, 0] == 0
    want = LinearRegression().fit(X[~fold0], target[~fold0]).predict(X[fold0])
    np.testing.assert_array_equal(table["v"][fold0, 0], want)
    with pytest.raises(ParameterError, match="'v' depends on 'm'"):
        CrossFitter(3).run(specs[1:], 120)


def test_candidates_are_kept_apart(data):
    X, y = data
    learners = {"linear": LinearRegression(), "forest": RandomForestRegressor(5)}
    spec = NuisanceSpec("m", learners, y, X)
    table = CrossFitter(3, random_state=0, keep_learners=True).run([spec], 120)
    assert set(table.losses) == {("m", "linear"), ("m", "forest")}
    assert len(table.fitted["m", "forest"][0]) == 3
    assert table.rows()[0][:2] == ["m", "linear (LinearRegression)"]


def test_same_bits_for_any_number_of_workers(data):
    X, y = data
    spec = NuisanceSpec("m", RandomForestRegressor(5), y, X)
    runs = [CrossFitter(3, 2, n_jobs=jobs, random_state=5).run([spec], 120)["m"] for jobs in (1, 2)]
    np.testing.assert_array_equal(*runs)
    other = CrossFitter(3, 2, random_state=6).run([spec], 120)["m"]
    assert not np.array_equal(runs[0], other)


def test_another_nuisance_changes_no_earlier_stream(data):
    X, y = data
    forest = NuisanceSpec("m", RandomForestRegressor(3), y, X)
    alone = CrossFitter(3, random_state=5).run([forest], 120)["m"]
    extra = NuisanceSpec("later", RandomForestRegressor(3), y, X)
    np.testing.assert_array_equal(
        CrossFitter(3, random_state=5).run([forest, extra], 120)["m"], alone
    )


def test_probabilities_are_clipped_and_counted(data):
    X, _ = data
    a = (X["a"].to_numpy() > 0).astype(float)
    spec = NuisanceSpec("e", LogisticRegression(C=1e4), a, X, method="predict_proba")
    with pytest.warns(OverlapWarning, match="of the e lie below"):
        table = CrossFitter(3, stratify=a, random_state=0).run([spec], 120, owner="T.fit")
    assert table.clipped["e", ""] > 12
    assert table["e"].min() == 0.01
    assert table.rows()[0][2].startswith("log-loss")


def shape_of(task: FoldTask) -> tuple[int, int, int]:
    assert not set(task.train) & set(task.test)
    return task.repeat, task.fold, len(task.test)


def test_map_visits_every_fold_in_order():
    out = CrossFitter(4, 2, n_jobs=2, random_state=0).map(partial(shape_of), 40)
    assert out == [[(r, f, 10) for f in range(4)] for r in range(2)]


def test_clusters_never_straddle_folds():
    groups = np.repeat(np.arange(20), 6)
    strata = np.tile([0, 0, 1], 40)
    for stratify in (None, strata):
        folds = make_folds(120, 4, seed=root_seed(0), groups=groups, stratify=stratify)
        for g in range(20):
            assert len(set(folds[groups == g])) == 1
        assert set(folds) == set(range(4))


def test_strata_are_kept_in_proportion():
    strata = np.array(["treated"] * 10 + ["control"] * 30)
    folds = make_folds(40, 5, seed=root_seed(0), stratify=strata)
    assert [int((folds[:10] == k).sum()) for k in range(5)] == [2] * 5


def test_impossible_folds_say_so():
    seed = root_seed(0)
    with pytest.raises(DataError, match="n_folds=5 needs at least as many rows; there are 3"):
        make_folds(3, 5, seed=seed)
    with pytest.raises(DataError, match="as many clusters; there are 2"):
        make_folds(40, 5, seed=seed, groups=np.repeat([0, 1], 20))
    strata = np.array(["treated"] * 3 + ["control"] * 30)
    with pytest.raises(DataError, match=r"only 3 row\(s\) with treated.*n_folds=3"):
        make_folds(33, 5, seed=seed, stratify=strata)
    one = np.repeat([0, 1, 2, 3, 4], 8)
    lone = np.where(one == 2, "treated", "control")
    with pytest.raises(DataError, match=r"all 8 row\(s\) with treated fall in fold"):
        make_folds(40, 5, seed=seed, groups=one, stratify=lone)
    with pytest.raises(ParameterError, match="n_folds=1 must be an integer of at least 2"):
        CrossFitter(1)


def test_learners_that_lack_what_a_slot_needs(data):
    X, y = data
    spec = NuisanceSpec("e", LinearRegression(), y, X, method="predict_proba")
    with pytest.raises(TypeError, match=r"e learner=.*predict_proba"):
        CrossFitter(2).run([spec], 120)
    with pytest.raises(TypeError, match=r"effect_learner=.*sample_weight"):
        fit_learner(
            Memoriser(), X, y, seed=root_seed(0), sample_weight=np.ones(120), slot="effect_learner"
        )


def test_weights_reach_the_last_step_of_a_pipeline(data):
    X, y = data
    w = np.where(np.arange(120) < 60, 1.0, 0.0)
    pipe = make_pipeline(StandardScaler(with_mean=False, with_std=False), LinearRegression())
    model = fit_learner(pipe, X, y, seed=root_seed(0), sample_weight=w)
    want = LinearRegression().fit(X[:60], y[:60]).predict(X)
    np.testing.assert_allclose(predict_learner(model, X), want)


def test_nested_seeds_are_set_and_given_ones_kept():
    pipe = make_pipeline(StandardScaler(), RandomForestRegressor())
    assert (
        seeded(pipe, root_seed(1)).get_params()["randomforestregressor__random_state"] is not None
    )
    assert pipe.get_params()["randomforestregressor__random_state"] is None
    assert seeded(RandomForestRegressor(random_state=3), root_seed(1)).random_state == 3


def test_default_learners_follow_size_and_take_categories(data):
    X, y = data
    small, large = default_regressor(500, 3), default_regressor(5000, 3)
    assert type(large).__name__ == "HistGradientBoostingRegressor"
    assert accepts_missing(large)
    assert not accepts_missing(large, LinearRegression())
    frame = X.assign(c=pd.Categorical(np.where(np.arange(120) % 2, "u", "v")))
    a = (y > 0).astype(float)
    for learner in (small, large):
        predict_learner(fit_learner(learner, frame, y, seed=root_seed(0)), frame)
    for learner in (default_classifier(500, 3), default_classifier(5000, 3)):
        model = fit_learner(learner, frame, a, seed=root_seed(0))
        p = predict_learner(model, frame, "predict_proba")
        assert np.mean((p > 0.5) == a) > 0.5


def test_a_class_never_seen_has_probability_zero(data):
    X, _ = data
    from sklearn.dummy import DummyClassifier

    model = fit_learner(DummyClassifier(), X, np.zeros(120), seed=root_seed(0))
    assert (predict_learner(model, X, "predict_proba") == 0).all()
