"""The odds identity, bounds and contraction: closed forms, coverage, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from causalfair.datasets import make_judges
from causalfair.exceptions import (
    DataError,
    IdentificationError,
    ParameterError,
    WeakIdentificationWarning,
)
from causalfair.inference import InfluenceEstimates
from causalfair.risk import DecisionShiftEstimator, contraction_curve, selection_bounds
from causalfair.risk._bounds import gamma_scores, imbens_manski

LOGIT = {"tested_learner": LogisticRegression(), "outcome_learner": LogisticRegression()}
EMPTY = np.empty((1000, 0))
TESTED = np.repeat([0, 1, 1], [500, 300, 200])
OUTCOME = np.repeat([np.nan, 0.0, 1.0], [500, 300, 200])


def rasch(n, seed, *, law="normal", shift=1.0):
    """Outcome and decision logistic in one risk score with an unobservable of some law."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    z = {
        "normal": lambda: rng.normal(size=n),
        "uniform": lambda: rng.uniform(0, 2, n),
        "two-point": lambda: rng.choice([-1.0, 1.5], n),
        "exponential": lambda: rng.exponential(1.0, n),
    }[law]()
    score = x + z - 1.5
    y = (rng.random(n) < expit(score)).astype(float)
    t = rng.random(n) < expit(score + shift)
    frame = pd.DataFrame({"y": np.where(t, y, np.nan), "tested": t.astype(int), "x": x})
    return frame, y, expit(score)


def test_intercept_only_example():
    """P0 = .5, P10 = .3, P11 = .2, p = .26: untested risk .12 exactly, shift ln 5."""
    est = DecisionShiftEstimator(prevalence=0.26, prevalence_sd=0.01)
    est.fit(EMPTY, OUTCOME, tested=TESTED)
    found = dict(zip(est.estimates_.names, est.estimates_.estimate, strict=True))
    assert abs(found["shift"] - np.log(5)) < 1e-12
    assert abs(found["risk of the untested"] - 0.12) < 1e-12
    assert abs(found["positives missed"] - 0.06 / 0.26) < 1e-12


def test_variance_of_the_shift_has_its_closed_form():
    est = DecisionShiftEstimator(prevalence=0.26, prevalence_sd=0.01)
    est.fit(EMPTY, OUTCOME, tested=TESTED)
    q, m, p, n = 0.2, 0.3, 0.26, 1000
    expected = ((1 - m) / m + q * (1 - q) / (p - q) ** 2 - 2 * q / (p - q)) / n
    expected += 0.01**2 / (p - q) ** 2
    assert abs(est.estimates_["shift"].std_error[0] - np.sqrt(expected)) < 1e-12


def test_analytic_derivatives_are_those_of_the_closed_form():
    est = DecisionShiftEstimator(prevalence=0.26, prevalence_sd=0.01)
    est.fit(EMPTY, OUTCOME, tested=TESTED)
    assumed = DecisionShiftEstimator(shift=float(np.log(5))).fit(EMPTY, OUTCOME, tested=TESTED)
    np.testing.assert_allclose(assumed.estimates_.estimate, est.estimates_.estimate, atol=1e-12)
    # The same map by central differences.
    from causalfair.inference.estimates import numerical_jacobian
    from causalfair.risk._decision_shift import _closed_form_jacobian

    def solved(v):
        q, m, p = v
        return np.array([np.log(m) - np.log(p - q), p, (p - q) / (1 - q - m), (p - q) / p])

    point = np.array([0.2, 0.3, 0.26])
    exact = _closed_form_jacobian(*(v[None] for v in point))
    np.testing.assert_allclose(exact, numerical_jacobian(solved, point), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("law", ["normal", "uniform", "two-point", "exponential"])
def test_any_law_of_the_unobservable(law):
    """40 data sets of 4,000: bias within 3 errors of the mean, coverage in the 99 % band."""
    hits, found = 0, []
    for seed in range(40):
        frame, _, probability = rasch(4000, seed, law=law)
        known = float(probability.mean())
        est = DecisionShiftEstimator(prevalence=known, prevalence_sd=1e-3)
        est.fit(frame, "y", tested="tested", covariates=[])
        low, high = est.estimates_["shift"].conf_int()[0]
        hits += low < 1.0 < high
        found.append(est.shift_[0])
    assert abs(np.mean(found) - 1.0) < 3 * np.std(found) / np.sqrt(40)
    assert hits >= 34


def test_risks_of_rows_and_the_parametric_check():
    frame, y, _ = rasch(6000, 1)
    est = DecisionShiftEstimator(
        prevalence=float(y.mean()), prevalence_sd=0.005, random_state=0, **LOGIT
    ).fit(frame, "y", tested="tested", covariates=["x"])
    untested = (frame["tested"] == 0).to_numpy()
    for low, high in ((-9, -0.5), (-0.5, 0.5), (0.5, 9)):
        inside = untested & (frame["x"] > low).to_numpy() & (frame["x"] < high).to_numpy()
        error = np.sqrt(y[inside].var() / inside.sum())
        assert abs(est.risk_untested_[inside].mean() - y[inside].mean()) < 4 * error + 0.02
    assert est.infeasible_ < 0.01
    np.testing.assert_allclose(est.predict_proba(frame), est.risk_, atol=0.02)
    tested = est.predict_proba(frame, given="tested")
    assert (tested > est.predict_proba(frame, given="untested")).all()
    good = est.compare(est.risk_untested_).to_frame()
    assert (good["z"].astype(float).abs() < 3.5).all()
    bad = est.compare(np.clip(3 * est.risk_untested_, 0, 1)).to_frame()
    assert (bad["z"].astype(float) < -3).any()


def test_groups_clusters_and_weights():
    frame, y, _ = rasch(4000, 2)
    group = np.where(frame["x"] > 0, "high", "low")
    known = {g: float(y[group == g].mean()) for g in ("high", "low")}
    est = DecisionShiftEstimator(prevalence=known, prevalence_sd=0.01).fit(
        frame, "y", tested="tested", covariates=[], group=group
    )
    for g, share in known.items():
        part = group == g
        alone = DecisionShiftEstimator(prevalence=share, prevalence_sd=0.01).fit(
            frame[part].reset_index(drop=True), "y", tested="tested", covariates=[]
        )
        term = est.estimates_[f"shift:{g}"]
        assert abs(term.estimate[0] - alone.shift_[0]) < 1e-12
        assert abs(term.std_error[0] - alone.estimates_["shift"].std_error[0]) < 1e-10
    assert len(est.sensitivity([0.0, 1.0])) == 4
    weight = np.where(np.arange(4000) % 2 == 0, 2.0, 1.0)
    weighted = DecisionShiftEstimator(shift=1.0).fit(
        frame, "y", tested="tested", covariates=[], sample_weight=weight
    )
    doubled = pd.concat([frame, frame[weight == 2]], ignore_index=True)
    plain = DecisionShiftEstimator(shift=1.0).fit(doubled, "y", tested="tested", covariates=[])
    np.testing.assert_allclose(weighted.estimates_.estimate, plain.estimates_.estimate, rtol=1e-12)
    assert isinstance(plain.estimates_, InfluenceEstimates)


def test_sensitivity_curve_falls_and_says_what_is_possible():
    est = DecisionShiftEstimator(shift=1.0).fit(EMPTY, OUTCOME, tested=TESTED)
    curve = est.sensitivity([-3.0, 0.0, 2.0])
    np.testing.assert_allclose(curve["prevalence"], 0.2 + np.exp([3.0, 0.0, -2.0]) * 0.3)
    assert curve["possible"].tolist() == [False, True, True]
    assert (curve["conf_low"] < curve["prevalence"]).all()


def test_bad_knowledge_of_the_shift():
    fit = {"X": EMPTY, "y": OUTCOME, "tested": TESTED}
    with pytest.raises(ParameterError, match="needs a prevalence"):
        DecisionShiftEstimator().fit(**fit)
    with pytest.raises(ParameterError, match="prevalence without prevalence_sd"):
        DecisionShiftEstimator(prevalence=0.3).fit(**fit)
    with pytest.raises(ParameterError, match=r"impossible: .* into \(0.2, 0.7\)"):
        DecisionShiftEstimator(prevalence=0.1, prevalence_sd=0.01).fit(**fit)
    with pytest.raises(ParameterError, match="groups are all"):
        DecisionShiftEstimator(prevalence={"a": 0.3}, prevalence_sd=0.1).fit(**fit)
    with pytest.warns(WeakIdentificationWarning, match="hardly above"):
        DecisionShiftEstimator(prevalence=0.205, prevalence_sd=0.01).fit(**fit)
    with pytest.raises(ParameterError, match="no covariates"):
        DecisionShiftEstimator(shift=1.0).fit(**fit).predict_proba(EMPTY)
    none = np.where(OUTCOME == 0, 1.0, OUTCOME)
    with pytest.raises(IdentificationError, match="none of the 500 outcomes seen is 0"):
        DecisionShiftEstimator(shift=1.0).fit(EMPTY, none, tested=TESTED)


# Bounds -------------------------------------------------------------------------------------------


def test_worst_case_bounds_and_their_interval():
    bounds = selection_bounds(EMPTY, OUTCOME, tested=TESTED)
    line = bounds.to_frame().iloc[0]
    assert (line["lower"], line["upper"]) == pytest.approx((0.2, 0.7), abs=1e-14)
    # Wide bounds: the one-sided quantile at each end.
    se = np.sqrt(np.array([0.2 * 0.8, 0.7 * 0.3]) / 1000)
    assert line["conf_low"] == pytest.approx(0.2 - 1.6448536 * se[0], abs=1e-6)
    assert line["conf_high"] == pytest.approx(0.7 + 1.6448536 * se[1], abs=1e-6)
    assert "worst case" in str(bounds)


def test_imbens_manski_is_two_sided_at_a_point():
    est = InfluenceEstimates([0.3, 0.3], np.tile([[1.0], [-1.0]], (50, 2)), ["lower", "upper"])
    low, high = imbens_manski(est, 0.95)
    assert (high - low) / 2 / est.std_error[0] == pytest.approx(1.959964, abs=1e-5)


def test_gamma_scores_with_true_nuisances_have_the_right_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400_000)
    pi, mu = expit(x), expit(x - 1)
    t = (rng.random(x.size) < pi).astype(float)
    y = t * (rng.random(x.size) < mu)
    scores = gamma_scores(t, y, pi, mu, (0.5, 1.0))
    expected = [np.mean(mu * (pi + g * (1 - pi))) for g in (0.5, 1.0)]
    assert np.abs(scores.mean(axis=0) - expected).max() < 4 * scores.std() / np.sqrt(x.size)


def test_selection_bounded_given_covariates_covers():
    hits = 0
    for seed in range(20):
        frame, _, probability = rasch(1500, 100 + seed)
        bounds = selection_bounds(
            frame, "y", tested="tested", covariates=["x"], gamma=(0.3, 1.0), n_folds=3,
            random_state=0, **LOGIT,
        ).to_frame()  # fmt: skip
        line = bounds.iloc[1]
        hits += line["conf_low"] < probability.mean() < line["conf_high"]
        assert bounds.iloc[0]["lower"] - 0.02 < line["lower"]
        assert line["upper"] < bounds.iloc[0]["upper"]
    assert hits >= 18


def test_an_instrument_narrows_and_a_plot_draws():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    frame, truth = make_judges(4000, 8, random_state=1)
    bounds = selection_bounds(frame, "y", tested="released", covariates=[], instrument="judge")
    table = bounds.to_frame().set_index("assumption")
    assert table.loc["instrument", "lower"] > table.loc["none (worst case)", "lower"]
    assert table.loc["instrument", "upper"] < table.loc["none (worst case)", "upper"]
    assert (
        table.loc["instrument", "conf_low"]
        < truth["y"].mean()
        < table.loc["instrument", "conf_high"]
    )
    axes = bounds.plot(model=bounds.estimates["instrument"]["lower"])
    assert len(axes.get_yticklabels()) == 4
    pyplot.close(axes.figure)


def test_bad_bounds_are_named():
    with pytest.raises(ParameterError, match="smaller first"):
        selection_bounds(EMPTY, OUTCOME, tested=TESTED, gamma=(2.0, 1.0))
    with pytest.raises(ParameterError, match="given covariates"):
        selection_bounds(EMPTY, OUTCOME, tested=TESTED, gamma=(0.5, 1.0))


# Contraction --------------------------------------------------------------------------------------


def test_contraction_by_hand():
    judge = np.array(["a"] * 6 + ["b"] * 4)
    released = np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0])
    y = np.array([0, 1, 0, 1, np.nan, np.nan, 0, np.nan, np.nan, np.nan])
    risk = np.array([0.1, 0.4, 0.2, 0.3, 0.9, 0.05, 0.5, 0.5, 0.5, 0.5])
    curve = contraction_curve(risk, y, tested=released, decision_maker=judge,
                              rates=[1 / 6, 0.5, 4 / 6], n_bootstrap=50, random_state=0)  # fmt: skip
    assert curve.decision_maker == "a"
    assert curve.n_cases == 6
    # Of six cases keep 1, 3, 4 of the four released, least risk first: 0, 1, 2 failures.
    np.testing.assert_allclose(curve.frame["failure_rate"], [0, 1 / 6, 2 / 6], atol=1e-12)
    assert curve.makers["acceptance_rate"].tolist() == pytest.approx([4 / 6, 1 / 4])


def test_contraction_covers_the_true_failure_rate():
    """30 data sets in which decision makers see what the score sees: 26 is the 1 % point."""
    hits = 0
    for seed in range(30):
        frame, truth = make_judges(4000, 8, unobserved=0.0, random_state=seed)
        curve = contraction_curve(
            frame["x"], frame["y"], tested=frame["released"], decision_maker=frame["judge"],
            rates=[0.4], n_bootstrap=200, random_state=seed,
        ).frame.iloc[0]  # fmt: skip
        expected = truth["failure_rate"](frame["x"], 0.4)
        hits += curve["conf_low"] < expected < curve["conf_high"]
    assert hits >= 26


def test_contraction_is_seeded_and_refuses_what_it_cannot_know():
    frame, _ = make_judges(1000, 5, random_state=0)
    data = {"tested": frame["released"], "decision_maker": frame["judge"]}
    one, two = (
        contraction_curve(frame["x"], frame["y"], random_state=1, n_bootstrap=50, **data).frame
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(one, two)
    with pytest.raises(ParameterError, match="who accepts most"):
        contraction_curve(frame["x"], frame["y"], rates=[0.99], **data)
    with pytest.raises(DataError, match="must be 0 or 1 where tested"):
        contraction_curve(frame["x"], frame["y"] + 1, **data)
    with pytest.raises(DataError, match="lengths differ"):
        contraction_curve(frame["x"][:10], frame["y"], **data)
    pyplot = pytest.importorskip("matplotlib.pyplot")
    axes = contraction_curve(frame["x"], frame["y"], n_bootstrap=50, **data).plot()
    pyplot.close(axes.figure)


def test_lazy_counts_give_the_same_answer():
    polars = pytest.importorskip("polars")
    frame, y, _ = rasch(2000, 5)
    known = {"prevalence": float(y.mean()), "prevalence_sd": 0.01}
    frame = frame.assign(x=frame["x"].round())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeakIdentificationWarning)
        eager = DecisionShiftEstimator(**known).fit(frame, "y", tested="tested", covariates=[])
        lazy = DecisionShiftEstimator(**known).fit(
            polars.from_pandas(frame).lazy(), "y", tested="tested", covariates=[]
        )
    np.testing.assert_allclose(lazy.estimates_.estimate, eager.estimates_.estimate, rtol=1e-10)
    np.testing.assert_allclose(lazy.estimates_.std_error, eager.estimates_.std_error, rtol=1e-10)
