"""DebiasedATE: exact parts, contract, supplied nuisances, bad input, coverage."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor

from causalfair.datasets import make_invalid_iv
from causalfair.exceptions import (
    CausalFairWarning,
    DataError,
    OverlapWarning,
    ParameterError,
    WeakIdentificationWarning,
)
from causalfair.iv import DebiasedATE
from causalfair.iv._scores import (
    IVNuisances,
    direct_effect_scores,
    influence_scores,
)

NAMES = {"treatment": "treatment", "instrument": "instrument", "covariates": ["x1", "x2"]}
# Coverage of nominal 95 % intervals must lie in the 99 % binomial band of R draws.
BANDS = {40: (34, 40), 200: (181, 197)}


def linear(*, binary=True, **kwargs):
    line, logit = LinearRegression(), LogisticRegression(C=100.0)
    kwargs = {"n_repeats": 1, "random_state": 0, **kwargs}
    return DebiasedATE(logit, logit if binary else line, line, line, line, **kwargs)


@pytest.fixture(scope="module")
def study():
    return make_invalid_iv(3000, random_state=5)


@pytest.fixture(scope="module")
def fitted(study):
    frame, _ = study
    return linear(n_repeats=3).fit(frame, "y", **NAMES)


def test_recovers_the_truth(study, fitted):
    _, truth = study
    z = (fitted.estimates_.estimate - [truth["ate"], truth["direct effect"]]) / (
        fitted.estimates_.std_error
    )
    assert np.all(np.abs(z) < 3)
    assert fitted.estimates_.names == ("ATE", "direct effect")


def test_scores_come_from_the_stored_nuisances(study, fitted):
    frame, _ = study
    data = (frame[k].to_numpy(float) for k in ("instrument", "treatment", "y"))
    z, a, y = data
    assert fitted.scores_.shape == (3000, 3)
    for r, nu in enumerate(fitted.nuisances_):
        assert np.array_equal(fitted.scores_[:, r], influence_scores(z, a, y, nu))
        member = fitted.estimates_.members[r]
        de = direct_effect_scores(z, a, y, nu)
        np.testing.assert_allclose(member.estimate, [fitted.scores_[:, r].mean(), de.mean()])
        expected = [fitted.scores_[:, r].std() / np.sqrt(3000), de.std() / np.sqrt(3000)]
        np.testing.assert_allclose(member.std_error, expected)


def test_median_over_repeats(fitted):
    per = fitted.repeats_[fitted.repeats_["term"] == "ATE"]
    centre = np.median(per["estimate"])
    spread = np.median(per["std_error"] ** 2 + (per["estimate"] - centre) ** 2)
    assert fitted.estimates_["ATE"].estimate[0] == centre
    assert fitted.estimates_["ATE"].std_error[0] == pytest.approx(np.sqrt(spread), rel=1e-12)
    assert per["estimate"].nunique() == 3


def test_losses(study, fitted):
    frame, truth = study
    assert set(fitted.losses_) == {"instrument", "treatment", "effect", "outcome", "confounding"}
    p, z = truth["instrument"], frame["instrument"]
    best = -np.mean(z * np.log(p) + (1 - z) * np.log(1 - p))
    assert fitted.losses_["instrument"] == pytest.approx(best, abs=0.01)


def test_summary_reads_well(fitted):
    text = str(fitted.summary())
    assert max(map(len, text.splitlines())) <= 88
    for part in ("folds: 5 x 3", "log-loss", "LinearRegression", "median of repeats", "2SLS"):
        assert part in text
    assert "LogisticRegression" in fitted.summary().to_latex()
    assert "<table" in fitted._repr_html_()
    assert "nie2021quasi" in fitted.cite().bibtex()


def test_same_bits_for_any_number_of_workers(study):
    frame, _ = study
    boosting = {"max_iter": 5, "early_stopping": True}
    make = lambda jobs: DebiasedATE(  # noqa: E731
        HistGradientBoostingClassifier(**boosting),
        HistGradientBoostingClassifier(**boosting),
        HistGradientBoostingRegressor(**boosting),
        HistGradientBoostingRegressor(**boosting),
        HistGradientBoostingRegressor(**boosting),
        n_folds=2,
        n_repeats=2,
        n_jobs=jobs,
        random_state=11,
    )
    one, two = (make(jobs).fit(frame, "y", **NAMES) for jobs in (1, 2))
    assert np.array_equal(one.scores_, two.scores_)
    assert one.estimates_ == two.estimates_


def test_same_bits_for_any_table(study):
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    frame, _ = study
    est = linear(n_folds=2)
    by_name = est.fit(frame, "y", **NAMES).scores_
    tables = [pl.from_pandas(frame), pa.Table.from_pandas(frame)]
    for table in tables:
        assert np.array_equal(clone(est).fit(table, "y", **NAMES).scores_, by_name)
    arrays = clone(est).fit(
        frame[["x1", "x2"]].to_numpy(),
        frame["y"].to_numpy(),
        treatment=frame["treatment"].to_numpy(),
        instrument=frame["instrument"].to_numpy(),
    )
    assert np.array_equal(arrays.scores_, by_name)


def test_seed(study):
    frame, _ = study
    a, b, c = (linear(random_state=s).fit(frame, "y", **NAMES).scores_ for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_affine_outcome(study):
    frame, _ = study
    base = linear().fit(frame, "y", **NAMES).estimates_
    moved = linear().fit(frame.assign(y=3.0 * frame["y"] - 7.0), "y", **NAMES).estimates_
    np.testing.assert_allclose(moved.estimate, 3.0 * base.estimate, rtol=1e-8)
    np.testing.assert_allclose(moved.std_error, 3.0 * base.std_error, rtol=1e-8)


def test_direct_effects_do_not_move_the_answer(study):
    frame, _ = study
    base = linear().fit(frame, "y", **NAMES).estimates_
    shifted = frame.assign(y=frame["y"] + 5.0 * frame["instrument"] + 2.0 * frame["x1"])
    moved = linear().fit(shifted, "y", **NAMES).estimates_
    expected = base.estimate + np.array([0.0, 5.0])
    np.testing.assert_allclose(moved.estimate, expected, rtol=1e-7, atol=1e-7)


def test_weights(study):
    frame, _ = study
    w = np.random.default_rng(0).uniform(0.5, 2.0, len(frame))
    one = linear().fit(frame, "y", **NAMES, sample_weight=w)
    two = linear().fit(frame, "y", **NAMES, sample_weight=10.0 * w)
    np.testing.assert_allclose(one.scores_, two.scores_, rtol=1e-9)
    scaled = w / w.mean()
    phi = one.scores_[:, 0]
    assert one.estimates_.estimate[0] == pytest.approx(np.average(phi, weights=w))
    se = np.sqrt(np.sum((scaled * (phi - np.average(phi, weights=w))) ** 2)) / len(w)
    assert one.estimates_.std_error[0] == pytest.approx(se)


def test_clusters(study):
    frame, _ = study
    cluster = np.arange(len(frame)) // 10
    est = linear().fit(frame, "y", **NAMES, cluster=cluster)
    assert est.estimates_.n_clusters == 300
    phi = est.scores_[:, 0] - est.scores_[:, 0].mean()
    sums = np.bincount(cluster, weights=phi)
    expected = np.sqrt(300 / 299 * np.sum(sums**2)) / len(phi)
    assert est.estimates_.std_error[0] == pytest.approx(expected)
    assert "clusters: 300" in str(est.summary())


def test_post_estimation_methods_pool_repeats(study, fitted):
    frame, truth = study
    group = np.where(frame["x1"] > 0, "high", "low")
    gate = fitted.gate(group)
    assert gate.names == ("high", "low")
    assert abs(fitted.att().estimate[0] - truth["att"]) < 1.0
    blp = fitted.best_linear_projection(frame[["x1", "x2"]])
    assert np.all(np.abs(blp.estimate - [1.0, 1.5, -1.5]) < 4 * blp.std_error)
    assert len(fitted.robust_set()) == 1
    assert fitted.relevance().f_het > 50
    assert fitted.comparators().iloc[0]["estimate"] == fitted.estimates_.estimate[0]
    assert fitted.leverage().total_share < 0.5
    low, high = fitted.sensitivity(0.0).frame.iloc[0][["conf_low", "conf_high"]]
    np.testing.assert_allclose([low, high], fitted.conf_int()[0], rtol=1e-6)


def test_pickle_and_clone(fitted):
    data = pickle.dumps(fitted)
    again = pickle.loads(data)
    assert again.estimates_ == fitted.estimates_
    assert str(again.summary()) == str(fitted.summary())
    assert len(data) < 1e6 + 3000 * 8 * 60 * 3
    with pytest.raises(NotFittedError):
        clone(fitted).conf_int()


# Supplied nuisances --------------------------------------------------------------------------


def supplied(truth, keys):
    return {key: truth[key] for key in keys}


def test_all_supplied(study):
    frame, truth = study
    keys = ("instrument", "treatment0", "treatment1", "effect", "outcome0", "outcome1")
    est = DebiasedATE(random_state=0).fit(
        frame, "y", **NAMES, nuisances=supplied(truth, [*keys, "confounding"])
    )
    lam0, lam1 = truth["treatment0"], truth["treatment1"]
    nu = IVNuisances(
        pi=truth["instrument"], lam0=lam0, lam1=lam1,
        D=lam1 * (1 - lam1) - lam0 * (1 - lam0), beta=truth["effect"],
        mu0=truth["outcome0"], mu1=truth["outcome1"], omega=truth["confounding"],
    )  # fmt: skip
    z, a, y = (frame[k].to_numpy(float) for k in ("instrument", "treatment", "y"))
    np.testing.assert_allclose(est.scores_[:, 0], influence_scores(z, a, y, nu), rtol=1e-12)
    assert est.scores_.shape == (3000, 1)
    assert est.losses_ == {}
    assert str(est.summary()).count("supplied") == 5


def test_known_randomisation_probability(study):
    frame, _ = study
    est = linear(n_folds=2).fit(frame, "y", **NAMES, nuisances={"instrument": 0.5})
    assert np.all(est.nuisances_[0].pi == 0.5)
    assert "instrument" not in est.losses_


def test_supplied_effect(study):
    frame, truth = study
    est = linear(n_folds=2).fit(frame, "y", **NAMES, nuisances={"effect": truth["effect"]})
    assert np.array_equal(est.nuisances_[0].beta, truth["effect"])
    assert abs(est.estimates_.estimate[0] - 1.0) < 4 * est.estimates_.std_error[0]


def test_one_arm_is_enough_when_the_other_is_constant():
    frame, truth = make_invalid_iv(1000, one_sided=True, random_state=0)
    est = linear(n_folds=2, one_sided=True).fit(
        frame, "y", **NAMES, nuisances={"treatment1": truth["treatment1"]}
    )
    assert np.all(est.nuisances_[0].lam0 == 0.0)


@pytest.mark.parametrize(
    ("nuisances", "error", "match"),
    [
        ({"propensity": 0.5}, ParameterError, "key 'propensity'.* Keys: instrument"),
        ({"treatment0": 0.5}, ParameterError, "'treatment0' but not 'treatment1'"),
        ({"instrument": 1.5}, DataError, r"instrument'\] must lie in \[0, 1\]"),
        ({"instrument": [0.5, 0.5]}, DataError, "2 values for 3000 rows"),
        ({"confounding": 0.0}, ParameterError, "confounding but not the 'effect'"),
        ({"outcome0": 0.0, "outcome1": 0.0}, ParameterError, "outcome but not the 'effect'"),
        ({"variance0": 1.0, "variance1": 1.0}, ParameterError, "the treatment is binary"),
        ({"effect": np.nan}, DataError, "missing value"),
    ],
)
def test_bad_nuisances(study, nuisances, error, match):
    frame, _ = study
    with pytest.raises(error, match=match):
        linear().fit(frame, "y", **NAMES, nuisances=nuisances)


# Variants ------------------------------------------------------------------------------------


def test_one_sided():
    frame, truth = make_invalid_iv(3000, one_sided=True, random_state=3)
    with pytest.warns(CausalFairWarning, match="one-sided non-compliance"):
        est = linear().fit(frame, "y", **NAMES)
    assert abs(est.estimates_.estimate[0] - truth["ate"]) < 4 * est.estimates_.std_error[0]
    text = str(est.summary())
    assert "zero: one-sided" in text
    assert "One-sided non-compliance" in text
    quiet = linear(one_sided=True).fit(frame, "y", **NAMES)
    assert np.array_equal(quiet.scores_, est.scores_)
    with pytest.raises(DataError, match="one_sided=False"):
        linear(one_sided=False).fit(frame, "y", **NAMES)


def test_constant_treatment_in_the_other_arm():
    frame, truth = make_invalid_iv(3000, one_sided=True, random_state=3)
    flipped = frame.assign(instrument=1.0 - frame["instrument"], treatment=1.0 - frame["treatment"])
    est = linear(one_sided=True).fit(flipped, "y", **NAMES)
    assert np.all(est.nuisances_[0].lam1 == 1.0)
    # The roles of treated and untreated are swapped, so the effect changes sign.
    assert abs(est.estimates_.estimate[0] + truth["ate"]) < 4 * est.estimates_.std_error[0]


def test_continuous_treatment():
    frame, truth = make_invalid_iv(4000, treatment="continuous", random_state=2)
    est = linear(binary=False).fit(frame, "y", **NAMES)
    assert est.nuisances_[0].V1 is not None
    assert abs(est.estimates_.estimate[0] - truth["ate"]) < 4 * est.estimates_.std_error[0]
    with pytest.raises(ParameterError, match="binary treatment"):
        est.att()


def test_trim_drop(study):
    frame, _ = study
    with pytest.warns(OverlapWarning, match="clipping range"):
        kept = linear(trim="drop", clip=0.25).fit(frame, "y", **NAMES)
    pi = kept.nuisances_[0].pi
    inside = (pi > 0.25) & (pi < 0.75)
    assert 0 < inside.sum() < len(frame)
    assert kept.estimates_.estimate[0] == pytest.approx(kept.scores_[inside, 0].mean())
    assert f"{(~inside).sum():,} rows were left out" in str(kept.summary())
    with pytest.raises(DataError, match="leaves out all"):
        linear(trim="drop", min_variance_shift=0.9).fit(frame, "y", **NAMES)


def test_defaults_and_categories():
    frame, _ = make_invalid_iv(1200, random_state=0)
    frame["region"] = pd.Categorical(np.where(frame["x1"] > 0, "north", "south"))
    roles = {**NAMES, "covariates": ["x1", "x2", "region"]}
    est = DebiasedATE(n_folds=3, n_repeats=1, random_state=0).fit(frame, "y", **roles)
    assert "RidgeCV" in str(est.summary())
    with pytest.raises(DataError, match="region"):
        DebiasedATE(effect_learner="linear", n_repeats=1).fit(frame, "y", **roles)


def test_missing_covariates_pass_where_every_learner_takes_them(study):
    frame, _ = study
    holes = frame.copy()
    holes.loc[::10, "x1"] = np.nan
    tree, leaf = (
        HistGradientBoostingClassifier(max_iter=20),
        HistGradientBoostingRegressor(max_iter=20),
    )
    learners = (tree, tree, leaf, leaf, leaf)
    model = DebiasedATE(*learners, n_folds=2, n_repeats=1, random_state=0)
    with pytest.warns(WeakIdentificationWarning, match=r"D\(X\) changes sign: [34]\.\d% of rows"):
        est = model.fit(holes, "y", **NAMES)
    assert np.isfinite(est.estimates_.estimate).all()
    assert "2SLS" not in str(est.summary())
    with pytest.raises(DataError, match="x1"):
        linear().fit(holes, "y", **NAMES)


# Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.assign(y=f["y"].where(f.index != 3)), "y .* has 1 missing value"),
        (lambda f: f.assign(instrument=1.0), "instrument 'instrument' takes one value"),
        (lambda f: f.assign(instrument=np.arange(len(f)) % 3), "takes 3 values.* MRGenius"),
        (lambda f: f.assign(treatment=0.0), "no variation in treatment"),
        (lambda f: f.iloc[:40], "got 40 rows; it needs at least 50"),
        (lambda f: f.iloc[:120], "20 are needed to learn the nuisances"),
    ],
)
def test_bad_data(study, change, match):
    frame, _ = study
    with pytest.raises(DataError, match=match):
        linear().fit(change(frame), "y", **NAMES)


def test_no_covariates(study):
    frame, _ = study
    with pytest.raises(DataError, match=r"no covariates to learn from.* MultiplyRobustATE"):
        linear().fit(frame, "y", treatment="treatment", instrument="instrument", covariates=[])


def test_learners_without_what_their_slot_needs(study):
    frame, _ = study
    cases = {
        "instrument_learner": (LinearRegression(), "predict_proba"),
        "treatment_learner": (LinearRegression(), "predict_proba"),
        "effect_learner": (KNeighborsRegressor(), "sample_weight"),
        "outcome_learner": (object(), "fit"),
    }
    for slot, (learner, needed) in cases.items():
        with pytest.raises(TypeError, match=rf"{slot}=.*{needed}"):
            linear().set_params(**{slot: learner}).fit(frame, "y", **NAMES)
    with pytest.raises(TypeError, match=r"confounding_learner=.*sample_weight"):
        linear().set_params(confounding_learner=KNeighborsRegressor()).fit(
            frame, "y", **NAMES, sample_weight=np.ones(len(frame))
        )
    with pytest.raises(ParameterError, match=r"effect_learner='lin'.*'linear'"):
        linear().set_params(effect_learner="lin").fit(frame, "y", **NAMES)


def test_weak_identification_is_said_loudly():
    frame, _ = make_invalid_iv(1500, variance_shift=0.0, random_state=0)
    with pytest.warns(WeakIdentificationWarning) as caught:
        est = linear(n_folds=2).fit(frame, "y", **NAMES)
    texts = [str(w.message) for w in caught]
    assert any("no variance shift can be seen" in text for text in texts)
    assert any("changes sign" in text for text in texts)
    assert "no variance shift can be seen" in str(est.summary())


def test_poor_overlap_is_said(study):
    frame, _ = study
    with pytest.warns(OverlapWarning, match="clipping range"):
        linear(n_folds=2, clip=0.4).fit(frame, "y", **NAMES)


# Monte Carlo ---------------------------------------------------------------------------------


def coverage(draws, n, *, binary=True, **kwargs):
    """Estimates, standard errors and coverage of both terms over simulated studies."""
    estimates, errors = np.empty((draws, 2)), np.empty((draws, 2))
    for r in range(draws):
        frame, truth = make_invalid_iv(n, random_state=1000 + r, **kwargs)
        est = linear(
            binary=binary, random_state=r, one_sided=kwargs.get("one_sided", False), n_folds=3
        ).fit(frame, "y", **NAMES)
        estimates[r], errors[r] = est.estimates_.estimate, est.estimates_.std_error
    target = np.array([truth["ate"], truth["direct effect"]])
    inside = np.abs(estimates - target) < 1.959964 * errors
    return estimates - target, errors, inside.sum(axis=0)


def check_coverage(draws, errors, std_errors, covered):
    low, high = BANDS[draws]
    assert np.all((covered >= low) & (covered <= high)), covered
    bias_error = errors.std(axis=0) / np.sqrt(draws)
    assert np.all(np.abs(errors.mean(axis=0)) < 3 * bias_error + 0.03), errors.mean(axis=0)
    ratio = std_errors.mean(axis=0) / errors.std(axis=0)
    wide = 3.5 / np.sqrt(2 * draws)
    assert np.all(np.abs(ratio - 1) < wide), ratio


def test_coverage_small():
    check_coverage(40, *coverage(40, 3000))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kwargs", [{}, {"one_sided": True}, {"treatment": "continuous", "binary": False}]
)
def test_coverage(kwargs):
    check_coverage(200, *coverage(200, 4000, **kwargs))
