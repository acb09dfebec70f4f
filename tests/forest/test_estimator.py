"""CausalForest: averages, errors, roles and bad input."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
from sklearn.base import clone

from causalfair.exceptions import (
    CausalFairWarning,
    DataError,
    IdentificationError,
    OverlapWarning,
    ParameterError,
    RoleError,
    SmallSampleWarning,
)
from causalfair.forest import CausalForest
from causalfair.forest._sample import EffectSample

EXACT = 1e-10
ROLES = {"treatment": "w", "covariates": ["a", "b", "c", "d"]}


@pytest.fixture(scope="module")
def fitted(trial):
    forest = CausalForest(300, random_state=1, store_weights=True)
    return forest.fit(trial, "y", nuisances={"propensity": 0.5}, **ROLES)


def test_effects_are_found(fitted, trial):
    effect = fitted.predict()
    assert np.corrcoef(effect, trial["a"])[0, 1] > 0.85
    assert abs(fitted.estimates_.estimate[0] - 1) < 3 * fitted.estimates_.std_error[0]
    assert fitted.variable_importance_.idxmax() == "a"
    assert fitted.variable_importance_.sum() == pytest.approx(1)


def test_scores_are_the_usual_augmented_inverse_probability_weighting(fitted):
    s = fitted.sample_
    w, e = s.w_residual + s.propensity, s.propensity
    m = np.linspace(-1, 1, s.n)  # any expected outcome: it cancels
    mu0, mu1 = m - e * s.effect, m + (1 - e) * s.effect
    y = m + s.y_residual
    usual = mu1 - mu0 + w / e * (y - mu1) - (1 - w) / (1 - e) * (y - mu0)
    np.testing.assert_allclose(fitted.scores_, usual, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("level", "effect"), [(0.0, 0.0), (3.0, 0.0), (3.0, -2.0)])
def test_scores_of_constant_nuisances_average_to_the_difference_in_means(level, effect):
    rng = np.random.default_rng(0)
    y, w = rng.normal(size=30), np.arange(30) % 3 == 0
    p = np.full(30, w.mean())
    constant = np.full(30, effect)
    sample = EffectSample(constant, y - level, w - p, p, p * (1 - p), True)
    assert sample.scores.mean() == pytest.approx(y[w].mean() - y[~w].mean(), abs=1e-12)
    if level == effect == 0:
        np.testing.assert_allclose(sample.scores, w * y / p - (1 - w) * y / (1 - p))


def test_average_is_the_mean_score_with_its_standard_error(fitted):
    gamma = np.asarray(fitted.scores_)
    est = fitted.average_effect()
    assert est.estimate[0] == pytest.approx(gamma.mean(), rel=EXACT)
    assert est.std_error[0] == pytest.approx(gamma.std(ddof=1) / np.sqrt(gamma.size), rel=EXACT)


def test_clustered_average(trial):
    forest = CausalForest(200, random_state=1)
    forest.fit(trial, "y", cluster="site", nuisances={"propensity": 0.5}, **ROLES)
    gamma = np.asarray(forest.scores_)
    sums = (gamma - gamma.mean()).reshape(60, 10).sum(axis=1)
    want = np.sqrt(np.sum(sums**2) * 60 / 59) / 600
    assert forest.estimates_.std_error[0] == pytest.approx(want, rel=EXACT)
    drawn = np.unpackbits(forest.forest_.drawn, axis=1, bitorder="little")[:, :60]
    assert set(drawn.sum(axis=1)) == {30}


@pytest.mark.parametrize(("target", "sign"), [("treated", 1), ("control", -1)])
def test_average_over_an_arm_with_equal_odds_is_its_mean_score(trial, target, sign):
    forest = CausalForest(200, random_state=1)
    forest.fit(trial, "y", nuisances={"propensity": 0.5, "outcome": 0.0}, **ROLES)
    s = forest.sample_
    own = s.treated if sign > 0 else ~s.treated
    error = s.error
    want = s.effect[own].mean() + sign * (error[own].mean() - error[~own].mean())
    est = forest.average_effect(target)
    assert est.estimate[0] == pytest.approx(want, rel=EXACT)
    assert 0.05 < est.std_error[0] < 0.2


def test_overlap_average_is_a_regression_with_hc3_errors(fitted):
    s = fitted.sample_
    fit = sm.OLS(s.y_residual, sm.add_constant(s.w_residual)).fit(cov_type="HC3")
    est = fitted.average_effect("overlap")
    assert est.estimate[0] == pytest.approx(fit.params[1], rel=EXACT)
    assert est.std_error[0] == pytest.approx(fit.bse[1], rel=EXACT)


def test_projection_and_calibration_are_regressions_with_hc3_errors(fitted, trial):
    s = fitted.sample_
    fit = sm.OLS(s.scores, sm.add_constant(trial[["a", "b"]].to_numpy())).fit(cov_type="HC3")
    est = fitted.best_linear_projection(trial[["a", "b"]])
    assert est.names == ("(intercept)", "a", "b")
    np.testing.assert_allclose(est.estimate, fit.params, rtol=1e-9)
    np.testing.assert_allclose(est.std_error, fit.bse, rtol=1e-9)
    design = np.column_stack([s.effect * 0 + s.effect.mean(), s.effect - s.effect.mean()])
    fit = sm.OLS(s.y_residual, design * s.w_residual[:, None]).fit(cov_type="HC3")
    test = fitted.calibration_test()
    np.testing.assert_allclose(test.estimate, fit.params, rtol=1e-9)
    np.testing.assert_allclose(test.std_error, fit.bse, rtol=1e-9)
    np.testing.assert_allclose(test.p_value, fit.pvalues / 2, rtol=1e-7)


def test_projection_on_nothing_is_the_average(fitted):
    est = fitted.best_linear_projection()
    assert est.estimate[0] == pytest.approx(fitted.estimates_.estimate[0], rel=EXACT)


def test_projection_on_a_dummy_gives_group_averages(fitted, trial):
    high = trial["a"] > 0
    est = fitted.best_linear_projection(high.astype(float))
    low_mean = fitted.average_effect(subset=~high.to_numpy()).estimate[0]
    high_mean = fitted.average_effect(subset=high.to_numpy()).estimate[0]
    np.testing.assert_allclose(est.estimate, [low_mean, high_mean - low_mean], rtol=1e-9)


def test_calibration_of_the_truth_without_noise(trial):
    from causalfair.forest._calibration import calibration_test
    from causalfair.forest._sample import EffectSample

    tau, v = trial["a"].to_numpy() + 1, trial["w"].to_numpy() - 0.5
    half, quarter = np.full(600, 0.5), np.full(600, 0.25)
    perfect = calibration_test(EffectSample(tau, v * tau, v, half, quarter, True))
    np.testing.assert_allclose(perfect.estimate, [1, 1], rtol=1e-12)
    flat = calibration_test(EffectSample(0 * tau + 2, v * 2, v, half, quarter, True))
    assert flat.estimate[0] == pytest.approx(1)
    assert np.isnan(flat.estimate[1])
    assert np.isnan(flat.p_value[1])
    assert "same predicted effect" in str(flat)


def test_intervals_and_weights(fitted, trial):
    new = trial[["a", "b", "c", "d"]].iloc[:7]
    effect, interval = fitted.predict(new), fitted.predict_interval(new, level=0.9)
    np.testing.assert_allclose(interval.mean(axis=1), effect, rtol=1e-12)
    half = (interval[:, 1] - interval[:, 0]) / 2
    np.testing.assert_allclose(half / fitted.predict_std_error(new), 1.6448536, rtol=1e-6)
    weights = fitted.forest_weights(new)
    assert weights.shape == (7, 600)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    assert np.isfinite(fitted.predict_interval()).all()


def test_known_propensity_and_stratified_covariates_change_only_what_they_should(trial):
    a = CausalForest(100, random_state=3).fit(trial, "y", **ROLES)
    assert a.nuisance_trees_ == 50
    b = CausalForest(100, random_state=3).fit(
        trial, "y", nuisances={"propensity": np.full(600, 0.5), "outcome": 0.0}, **ROLES
    )
    assert b.nuisance_trees_ == 0
    np.testing.assert_array_equal(b.sample_.propensity, 0.5)


def test_same_seed_same_bits_and_frames_of_every_library(trial):
    one = CausalForest(60, random_state=5, n_jobs=1).fit(trial, "y", **ROLES)
    two = CausalForest(60, random_state=5, n_jobs=2).fit(pl.from_pandas(trial), "y", **ROLES)
    np.testing.assert_array_equal(one.predict(), two.predict())
    np.testing.assert_array_equal(one.predict_interval(), two.predict_interval())
    assert isinstance(two.to_frame(), pl.DataFrame)
    X = trial[["a", "b", "c", "d"]].to_numpy()
    arrays = CausalForest(60, random_state=5).fit(X, trial["y"], treatment=trial["w"].to_numpy())
    np.testing.assert_array_equal(one.predict(), arrays.predict())
    other = CausalForest(60, random_state=6).fit(trial, "y", **ROLES)
    assert not np.array_equal(one.predict(), other.predict())
    again = clone(one).fit(trial, "y", **ROLES)
    np.testing.assert_array_equal(one.predict(), again.predict())


def test_float32_data_give_what_their_float64_copy_gives(trial):
    X = trial[["a", "b", "c", "d"]].to_numpy(np.float32)
    roles = {"treatment": trial["w"].to_numpy(), "nuisances": {"propensity": 0.5, "outcome": 0.0}}
    one, two = (
        CausalForest(60, random_state=5).fit(x, trial["y"], **roles) for x in (X, X.astype(float))
    )
    np.testing.assert_array_equal(one.predict(), two.predict())
    np.testing.assert_array_equal(one.predict(X[:9]), two.predict(X[:9].astype(float)))


def test_pickle_keeps_predictions_and_no_training_table(fitted, trial):
    copy = pickle.loads(pickle.dumps(fitted))
    new = trial[["a", "b", "c", "d"]].iloc[:5]
    np.testing.assert_array_equal(copy.predict(new), fitted.predict(new))
    np.testing.assert_array_equal(copy.scores_, fitted.scores_)


def test_missing_covariates_are_split_on(trial):
    holes = trial.copy()
    holes.loc[holes["a"] > 0.3, "a"] = np.nan  # missing means a large effect
    forest = CausalForest(200, random_state=1).fit(holes, "y", **ROLES)
    effect = forest.predict()
    missing = holes["a"].isna().to_numpy()
    assert effect[missing].mean() > effect[~missing].mean() + 0.7
    assert np.isfinite(forest.predict(pd.DataFrame([[np.nan] * 4], columns=list("abcd")))).all()


def test_effect_modifiers_are_the_only_splitting_variables(trial):
    forest = CausalForest(60, random_state=1)
    forest.fit(trial, "y", effect_modifiers=["b", "c"], **ROLES)
    assert list(forest.variable_importance_.index) == ["b", "c"]
    shifted = trial.assign(a=99.0)
    np.testing.assert_array_equal(
        forest.predict(trial[list("abcd")]), forest.predict(shifted[list("abcd")])
    )


def test_real_valued_treatment_is_an_average_slope():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 3))
    w = X[:, 1] + rng.normal(size=1500)
    y = (1 + (X[:, 0] > 0)) * w + X[:, 1] + rng.normal(size=1500)
    forest = CausalForest(400, random_state=0).fit(X, y, treatment=w)
    assert abs(forest.estimates_.estimate[0] - 1.5) < 4 * forest.estimates_.std_error[0]
    assert forest.predict([[2.0, 0, 0]])[0] - forest.predict([[-2.0, 0, 0]])[0] > 0.6
    with pytest.raises(ParameterError, match="needs a binary treatment"):
        forest.average_effect("treated")


def test_weights_two_equal_duplicated_rows_in_averages(trial):
    from causalfair.forest._sample import EffectSample, average_effect

    rng = np.random.default_rng(1)
    parts = [rng.normal(size=50) for _ in range(2)]
    v = rng.integers(0, 2, 50) - 0.4
    e, s2 = np.full(50, 0.4), np.full(50, 0.24)
    weight = rng.integers(1, 4, 50).astype(float)
    again = np.repeat(np.arange(50), weight.astype(int))
    for target in ("all", "treated", "control", "overlap"):
        a = average_effect(EffectSample(*parts, v, e, s2, True, weight), target, "t")
        rows = (p[again] for p in (*parts, v, e, s2))
        b = average_effect(EffectSample(*rows, True), target, "t")
        np.testing.assert_allclose(a.estimate, b.estimate, rtol=1e-12)


def test_equal_cluster_weights(trial):
    uneven = trial.assign(site=np.where(trial["site"] < 30, trial["site"] // 2, trial["site"]))
    forest = CausalForest(100, equalize_cluster_weights=True, random_state=0)
    forest.fit(uneven, "y", cluster="site", **ROLES)
    by_site = pd.Series(np.asarray(forest.scores_)).groupby(uneven["site"].to_numpy()).mean()
    assert forest.estimates_.estimate[0] == pytest.approx(by_site.mean(), rel=1e-9)


def test_summary_reads_well(fitted):
    text = str(fitted.summary())
    assert max(map(len, text.splitlines())) <= 88
    for part in ("ATE", "Calibration", "Variable importance", "differential prediction"):
        assert part in text
    assert "athey" in fitted.cite().bibtex().lower()
    assert "<table" in fitted._repr_html_()


BAD = {
    "no treatment": (RoleError, "treatment=None", {"treatment": None}),
    "unknown column": (RoleError, "no such column", {"treatment": "q"}),
    "constant": (IdentificationError, "takes one value", {"treatment": np.ones(600)}),
    "short": (DataError, "lengths differ", {"treatment": np.arange(5) % 2}),
    "nuisance key": (ParameterError, "has the key 'm_hat'", {"nuisances": {"m_hat": 0.0}}),
    "nuisance size": (DataError, "3 values for 600", {"nuisances": {"outcome": [1.0, 2, 3]}}),
    "sure propensity": (IdentificationError, "strictly between 0 and 1",
                        {"nuisances": {"propensity": 1.0}}),
    "modifier": (RoleError, "not a covariate", {"effect_modifiers": ["zz"]}),
    "missing outcome": (DataError, "missing value", {"y": np.r_[np.nan, np.zeros(599)]}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_roles(case, trial):
    error, match, change = BAD[case]
    roles = {**ROLES, "y": "y", **change}
    with pytest.raises(error, match=match):
        CausalForest(10).fit(trial, **roles)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sample_fraction": 0.8}, "cannot exceed 0.5"),
        ({"equalize_cluster_weights": True}, "needs cluster="),
    ],
)
def test_parameters_that_do_not_go_together(change, match, trial):
    with pytest.raises(ParameterError, match=match):
        CausalForest(10, **change).fit(trial, "y", **ROLES)


@pytest.mark.parametrize(
    "change", [{"n_trees": 0}, {"alpha": 0.3}, {"min_leaf_size": 0}, {"honesty": "yes"}]
)
def test_parameter_ranges(change, trial):
    with pytest.raises(ValueError, match=f"'{next(iter(change))}' parameter of CausalForest"):
        CausalForest(**change).fit(trial, "y", **ROLES)


def test_too_little_data_and_too_few_trees(trial):
    with pytest.raises(DataError, match="a tree needs two or more"):
        CausalForest(10).fit(trial.iloc[:3], "y", **ROLES)
    with pytest.raises(DataError, match="grow more trees"):
        CausalForest(2).fit(trial, "y", **ROLES)


def test_poor_overlap_and_few_clusters_warn(trial):
    e = np.where(trial["a"] > 0, 0.97, 0.5)
    with pytest.warns(OverlapWarning, match="target='overlap'"):
        CausalForest(60).fit(trial, "y", nuisances={"propensity": e}, **ROLES)
    with pytest.warns(SmallSampleWarning, match="12 clusters"):
        CausalForest(60).fit(trial, "y", cluster=trial["site"].to_numpy() // 5, **ROLES)
    assert issubclass(OverlapWarning, CausalFairWarning)


def test_questions_the_forest_cannot_answer(trial):
    forest = CausalForest(60, ci_group_size=1, random_state=0).fit(trial, "y", **ROLES)
    with pytest.raises(ParameterError, match="ci_group_size=2"):
        forest.predict_interval()
    with pytest.raises(ParameterError, match="store_weights=True"):
        forest.forest_weights(trial[list("abcd")])
    with pytest.raises(ParameterError, match="'all', 'treated'"):
        forest.average_effect("everyone")
    with pytest.raises(DataError, match="600 training rows"):
        forest.average_effect(subset=np.ones(5, bool))
    with pytest.raises(IdentificationError, match="collinear"):
        forest.best_linear_projection(np.ones(600))
    with pytest.raises(DataError, match="lengths differ"):
        forest.best_linear_projection(np.ones(5))
