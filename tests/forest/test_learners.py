"""Meta-learners: closed forms, folds, roles and bad input."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor

from causalfair.exceptions import DataError, IdentificationError, ParameterError
from causalfair.forest import DRLearner, RLearner, SLearner, TLearner, XLearner

LEARNERS = (RLearner, DRLearner, TLearner, SLearner, XLearner)
ROLES = {"treatment": "w", "covariates": ["a", "b", "c", "d"]}
CONSTANT = DummyRegressor()
LINE = LinearRegression()
QUICK = (LINE, LogisticRegression())  # the default learners choose penalties by cross-validation
EXACT = 1e-10
ORIGIN = [[0.0] * 4]


def difference_in_means(trial):
    return trial.loc[trial["w"] == 1, "y"].mean() - trial.loc[trial["w"] == 0, "y"].mean()


@pytest.mark.parametrize("kind", LEARNERS)
def test_effects_are_found_and_do_not_depend_on_workers(kind, trial):
    outcome = LinearRegression() if kind is not SLearner else None
    model = kind(outcome, LogisticRegression(), random_state=1, n_folds=3)
    model.fit(trial, "y", cluster="site", **ROLES)
    threshold = 0.6 if kind is SLearner else 0.9
    assert np.corrcoef(model.predict(), trial["a"])[0, 1] > threshold
    assert np.corrcoef(model.predict(trial[list("abcd")]), trial["a"])[0, 1] > threshold
    assert abs(model.estimates_.estimate[0] - 1) < 4 * model.estimates_.std_error[0]
    assert "Calibration" in str(model.summary())
    assert "kunzel" in model.cite().bibtex() or "nie" in model.cite().bibtex() or kind is DRLearner
    with joblib.parallel_config("threading"):  # fresh processes take seconds to start
        two = clone(model).set_params(n_jobs=2).fit(trial, "y", cluster="site", **ROLES)
    np.testing.assert_array_equal(model.predict(), two.predict())
    np.testing.assert_array_equal(
        model.predict(trial[list("abcd")]), two.predict(trial[list("abcd")])
    )


def test_r_learner_with_a_constant_is_the_residual_regression(trial):
    given = {"outcome": 0.3, "propensity": 0.45}
    model = RLearner(effect_learner=CONSTANT).fit(trial, "y", nuisances=given, **ROLES)
    y, w = trial["y"] - 0.3, trial["w"] - 0.45
    assert model.predict(ORIGIN)[0] == pytest.approx((y * w).sum() / (w * w).sum(), rel=EXACT)


def test_r_learner_with_ridge_is_its_closed_form(trial):
    given = {"outcome": 0.3, "propensity": 0.45}
    model = RLearner(effect_learner=Ridge(7.0)).fit(trial, "y", nuisances=given, **ROLES)
    y, w = trial["y"].to_numpy() - 0.3, trial["w"].to_numpy() - 0.45
    design = w[:, None] * np.column_stack([np.ones(600), trial[list("abcd")]])
    penalty = 7.0 * np.diag([0.0, 1, 1, 1, 1])  # the intercept is not penalised
    beta = np.linalg.solve(design.T @ design + penalty, design.T @ y)
    new = np.array([[1.0, -1, 0.5, 2]])
    assert model.predict(new)[0] == pytest.approx(beta[0] + new[0] @ beta[1:], rel=1e-8)


def test_dr_learner_with_a_constant_is_the_average_effect(trial):
    model = DRLearner(CONSTANT, None, CONSTANT, random_state=2)
    model.fit(trial, "y", nuisances={"propensity": 0.5}, **ROLES)
    folds = model.nuisances_.folds[:, 0]
    y, w = trial["y"].to_numpy(), trial["w"].to_numpy()
    scores = np.empty(600)
    for fold in range(5):
        out, test = folds != fold, folds == fold
        mu = [y[out & (w == arm)].mean() for arm in (0, 1)]
        scores[test] = (
            mu[1] - mu[0]
            + 2 * w[test] * (y[test] - mu[1])
            - 2 * (1 - w[test]) * (y[test] - mu[0])
        )  # fmt: skip
    assert model.predict(ORIGIN)[0] == pytest.approx(scores.mean(), rel=EXACT)


@pytest.mark.parametrize("kind", [TLearner, XLearner])
def test_constant_arms_give_the_difference_in_means(kind, trial):
    options = {"effect_learner": CONSTANT} if kind is XLearner else {}
    model = kind(CONSTANT, **options).fit(trial, "y", nuisances={"propensity": 0.5}, **ROLES)
    assert model.predict(ORIGIN)[0] == pytest.approx(difference_in_means(trial), rel=EXACT)


def test_s_learner_with_least_squares_is_the_coefficient(trial):
    model = SLearner(*QUICK).fit(trial, "y", **ROLES)
    design = np.column_stack([np.ones(600), trial[list("abcd")], trial["w"]])
    beta = np.linalg.lstsq(design, trial["y"].to_numpy(), rcond=None)[0]
    np.testing.assert_allclose(model.predict(trial[list("abcd")]), beta[-1], rtol=1e-9)


def test_linear_dr_learner_has_coefficients_and_intervals(trial):
    model = DRLearner(LINE, effect_learner="linear", random_state=0)
    model.fit(trial, "y", nuisances={"propensity": 0.5}, effect_modifiers=["a"], **ROLES)
    est = model.coefficients_
    assert est.names == ("(intercept)", "a")
    assert np.all(np.abs(est.estimate - 1) < 4 * est.std_error)
    interval = model.predict_interval(ORIGIN)
    np.testing.assert_allclose(interval[0], est.conf_int()[0], rtol=1e-9)
    with pytest.raises(ParameterError, match="needs X"):
        model.predict_interval()
    with pytest.raises(ParameterError, match="effect_learner='linear'"):
        RLearner(*QUICK, LINE).fit(trial, "y", **ROLES).predict_interval(ORIGIN)


def test_out_of_fold_effects_do_not_see_their_row(trial):
    model = RLearner(LinearRegression(), LogisticRegression(), LinearRegression(), random_state=0)
    before = model.fit(trial, "y", **ROLES).predict().copy()
    fold = model.nuisances_.folds[:, 0]
    changed = trial.copy()
    changed.loc[0, "y"] += 1000.0
    after = clone(model).fit(changed, "y", **ROLES).predict()
    same = fold == fold[0]
    np.testing.assert_allclose(after[same], before[same], rtol=1e-9)
    assert np.abs(after[~same] - before[~same]).min() > 1e-3


def test_real_valued_treatment():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 2))
    w = X[:, 1] + rng.normal(size=800)
    y = (1 + X[:, 0]) * w + rng.normal(size=800)
    model = RLearner(random_state=0).fit(X, y, treatment=w)
    assert abs(model.estimates_.estimate[0] - 1) < 4 * model.estimates_.std_error[0]
    assert model.predict([[1.0, 0]])[0] == pytest.approx(2, abs=0.4)
    with pytest.raises(DataError, match="must take two values"):
        DRLearner().fit(X, y, treatment=w)


def test_missing_values_need_learners_that_accept_them(trial):
    holes = trial.copy()
    holes.loc[3, "a"] = np.nan
    with pytest.raises(DataError, match="'a' has 1 missing"):
        RLearner().fit(holes, "y", **ROLES)
    trees = HistGradientBoostingRegressor(max_iter=10), HistGradientBoostingClassifier(max_iter=10)
    model = RLearner(*trees, trees[0], n_folds=2).fit(holes, "y", **ROLES)
    assert np.isfinite(model.predict()).all()


def test_bad_input(trial):
    with pytest.raises(TypeError, match="does not accept sample_weight"):
        RLearner(effect_learner=KNeighborsRegressor()).fit(trial, "y", **ROLES)
    with pytest.raises(ParameterError, match="Use RLearner or DRLearner"):
        TLearner().fit(trial, "y", effect_modifiers=["a"], **ROLES)
    with pytest.raises(ValueError, match="'n_folds' parameter of DRLearner"):
        DRLearner(n_folds=1).fit(trial, "y", **ROLES)
    few = trial.assign(w=(np.arange(600) < 7).astype(int))
    with pytest.raises(IdentificationError, match="needs two of each"):
        TLearner(LINE, random_state=0).fit(few, "y", nuisances={"propensity": 0.5}, **ROLES)
    with pytest.raises(AttributeError, match="effect_learner='linear'"):
        _ = DRLearner(*QUICK, LINE, random_state=0).fit(trial, "y", **ROLES).coefficients_


class Counted(LinearRegression):
    """A line that counts how often a line was fitted."""

    fits = 0

    def fit(self, X, y, sample_weight=None):
        Counted.fits += 1
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("given", [{"propensity": 0.5}, None, {"outcome": 0.3}])
@pytest.mark.parametrize("kind", LEARNERS)
def test_a_model_that_only_ranks_others_is_the_same_and_cheaper(kind, given, trial):
    """Rankings are learned once a fold: effects and scores of the training rows are left out."""
    model = kind(Counted(), LogisticRegression(), n_folds=3, random_state=1)
    if kind not in (TLearner, SLearner):
        model.set_params(effect_learner=LINE)
    new = trial[list("abcd")].iloc[:50]
    roles = {**ROLES, "nuisances": given, "cluster": "site"}
    Counted.fits = 0
    want = model.fit(trial, "y", **roles).predict(new)
    whole, Counted.fits = Counted.fits, 0
    got = clone(model)._fit_predictor(trial, "y", **roles).predict(new)
    np.testing.assert_array_equal(got, want)
    assert Counted.fits <= 0.4 * whole


def test_what_is_learned_how_often(trial):
    """Known propensity, three folds: nothing is fitted that is not used."""
    counts = {}
    for kind in (DRLearner, RLearner, XLearner):
        Counted.fits = 0
        kind(Counted(), effect_learner=LINE, n_folds=3).fit(
            trial, "y", nuisances={"propensity": 0.5}, **ROLES
        )
        counts[kind] = Counted.fits
    # Expected outcome over folds (3); then for each fold (3) and for all rows (1):
    assert counts[DRLearner] == 3 + (3 + 1) * 3 * 2  # each arm over inner folds
    assert counts[RLearner] == 3 + 3 * 3  # expected outcome over inner folds; all rows have it
    assert counts[XLearner] == 3 + (3 + 1) * 2  # each arm
