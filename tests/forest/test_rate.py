"""RATE: exact small cases, twins, bootstrap, comparison, misuse."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from naive import forest as naive
from sklearn.dummy import DummyRegressor

from causalfair.datasets import make_heterogeneous_effects
from causalfair.exceptions import DataError, ParameterError
from causalfair.forest import (
    CausalForest,
    SLearner,
    rank_average_treatment_effect,
    validate_ranking,
)
from causalfair.forest._toc import rank_units, rate, rate_influence

mpl.use("Agg")
EXACT = 1e-12
SCORES = np.array([2, -1, 3, 0.5, -2, 1, 4, 0])
PRIORITY = np.array([0.9, 0.1, 0.8, 0.4, 0.2, 0.5, 0.7, 0.3])


def value(priority, scores, method="autoc", **options):
    options = {"n_bootstrap": 2, "random_state": 0, **options}
    rate = rank_average_treatment_effect(priority, scores, method=method, **options)
    return rate.estimates_.estimate[0]


def test_four_units():
    gamma = np.array([4.0, 3, 2, 1])
    assert value(gamma, gamma) == pytest.approx(0.75, abs=EXACT)
    assert value(gamma, gamma, "qini") == pytest.approx(0.3125, abs=EXACT)
    rate = rank_average_treatment_effect(gamma, gamma, q=[0.25, 0.5, 0.75, 1], random_state=0)
    np.testing.assert_allclose(rate.toc_["estimate"], [1.5, 1, 0.5, 0], atol=EXACT)
    np.testing.assert_allclose(rate.toc_["gain"], [1, 1.75, 2.25, 2.5], atol=EXACT)


def test_eight_units():
    assert value(PRIORITY, SCORES) == pytest.approx(1.0627232142857143, abs=EXACT)
    assert value(PRIORITY, SCORES, "qini") == pytest.approx(0.45703125, abs=EXACT)
    q = [0.25, 0.5, 0.75, 1, 0.1, 0.3, 0.6]
    rate = rank_average_treatment_effect(PRIORITY, SCORES, q=q, random_state=0)
    want = [1.5625, 1.5625, 0.8125, 0, 1.0625, 1.8125, 1.2291666666666667]
    np.testing.assert_allclose(rate.toc_["estimate"], want, atol=EXACT)


def test_ties():
    tied = [3, 1, 3, 2, 1, 2, 3, 1]
    assert value(tied, SCORES) == pytest.approx(1.2215773809523810, abs=EXACT)
    assert value(tied, SCORES, "qini") == pytest.approx(0.46875, abs=EXACT)
    assert value(np.ones(8), SCORES) == pytest.approx(0, abs=EXACT)
    assert value(np.ones(8), SCORES, "qini") == pytest.approx(0, abs=EXACT)


def test_weights_are_not_quite_duplicates():
    def two_units(weight):
        return rate(rank_units(np.array([2.0, 1]), np.array([0.0, 1]), weight), np.ones_like)

    assert two_units(np.array([1.0, 2])) == pytest.approx(-2 / 9, abs=EXACT)
    thrice = rank_units(np.array([2.0, 1, 1]), np.array([0.0, 1, 1]), np.ones(3))
    assert rate(thrice, np.ones_like) == pytest.approx(-5 / 18, abs=EXACT)
    weight = np.array([1, 2, 3, 1, 2, 1, 1, 2])
    again = np.repeat(np.arange(8), weight)
    q = np.linspace(0.05, 1, 20)
    a = rank_average_treatment_effect(PRIORITY, SCORES, q=q, sample_weight=weight, random_state=0)
    b = rank_average_treatment_effect(PRIORITY[again], SCORES[again], q=q, random_state=0)
    np.testing.assert_allclose(a.toc_["estimate"], b.toc_["estimate"], atol=EXACT)


@pytest.mark.parametrize(
    ("draw", "autoc", "qini"),
    [
        (lambda r, n: r.normal(size=n), 0.90319, 0.28209479),
        (lambda r, n: r.uniform(size=n), 0.25, 1 / 12),
        (lambda r, n: r.exponential(size=n), 1.0, 0.25),
        (lambda r, n: (r.uniform(size=n) < 0.3) * 1.0, -0.3 * np.log(0.3), 0.105),
    ],
)
def test_population_values(draw, autoc, qini):
    tau = draw(np.random.default_rng(0), 200_000)
    assert value(tau, tau) == pytest.approx(autoc, rel=0.02)
    assert value(tau, tau, "qini") == pytest.approx(qini, rel=0.02)


floats = st.floats(-100, 100).map(lambda x: round(x, 3))


@settings(max_examples=40)
@given(
    scores=arrays(float, 12, elements=floats),
    priority=arrays(float, 12, elements=st.integers(0, 6).map(float)),
    weight=arrays(float, 12, elements=st.integers(1, 5).map(float)),
    method=st.sampled_from(["autoc", "qini"]),
)
def test_agrees_with_the_definition(scores, priority, weight, method):
    want, toc = naive.rate(priority, scores, method, weight)
    got = rank_average_treatment_effect(
        priority, scores, method=method, sample_weight=weight, n_bootstrap=2, random_state=0,
        q=np.cumsum(weight[np.argsort(-priority, kind="stable")]) / weight.sum(),
    )  # fmt: skip
    np.testing.assert_allclose(got.estimates_.estimate[0], want, atol=1e-10)
    np.testing.assert_allclose(got.toc_["estimate"], toc, atol=1e-10)


def test_invariances():
    rng = np.random.default_rng(0)
    gamma, priority = rng.normal(size=50), rng.normal(size=50)
    for method in ("autoc", "qini"):
        base = value(priority, gamma, method)
        assert value(priority, gamma + 7, method) == pytest.approx(base, abs=1e-12)
        assert value(priority, 3 * gamma, method) == pytest.approx(3 * base, abs=1e-12)
        assert value(np.exp(priority), gamma, method) == pytest.approx(base, abs=1e-12)
    assert value(-priority, gamma, "qini") == pytest.approx(-value(priority, gamma, "qini"))
    assert value(-priority, gamma) != pytest.approx(-value(priority, gamma))
    as_weight = value(priority, gamma, lambda q: q)
    assert as_weight == pytest.approx(value(priority, gamma, "qini"), abs=EXACT)


@pytest.mark.parametrize("method", ["autoc", "qini"])
def test_influence_equals_its_definition(method):
    rng = np.random.default_rng(1)
    gamma, priority = rng.normal(size=60), rng.normal(size=60)
    got = rate_influence(rank_units(priority, gamma, np.ones(60)), method)
    np.testing.assert_allclose(got, naive.rate_influence(priority, gamma, method), atol=1e-12)


@pytest.mark.parametrize("method", ["autoc", "qini"])
def test_errors_agree_with_the_spread_over_samples(method):
    rng = np.random.default_rng(2)
    estimates, influence, bootstrap = [], [], []
    for draw in range(300):
        priority = rng.normal(size=400)
        gamma = 0.5 * priority + rng.normal(size=400) * 2
        fast = rank_average_treatment_effect(priority, gamma, method=method, std_error="influence")
        estimates.append(fast.estimates_.estimate[0])
        influence.append(fast.estimates_.std_error[0])
        if draw < 40:
            slow = rank_average_treatment_effect(
                priority, gamma, method=method, n_bootstrap=100, q=[1.0], random_state=draw
            )
            bootstrap.append(slow.estimates_.std_error[0])
    spread = np.std(estimates)
    assert 0.86 < np.mean(influence) / spread < 1.10
    assert 0.88 < np.mean(bootstrap) / spread < 1.12


def test_clusters_widen_the_error():
    rng = np.random.default_rng(3)
    site = np.repeat(np.arange(100), 10)
    gamma = rng.normal(size=100)[site] * 2 + rng.normal(size=1000)
    priority = rng.normal(size=100)[site] + 0.01 * rng.normal(size=1000)
    for kind in ("influence", "bootstrap"):
        errors = [
            rank_average_treatment_effect(
                priority, gamma, cluster=c, std_error=kind, random_state=0
            ).estimates_.std_error[0]
            for c in (None, site)
        ]
        assert errors[1] > 1.8 * errors[0]


def test_comparison_is_paired():
    rng = np.random.default_rng(4)
    tau = rng.normal(size=800)
    gamma = tau + 3 * rng.normal(size=800)
    both = {"good": tau, "almost": tau + 0.05 * rng.normal(size=800)}
    for kind in ("influence", "bootstrap"):
        rate = rank_average_treatment_effect(both, gamma, std_error=kind, random_state=0)
        assert rate.estimates_.names == ("AUTOC: good", "AUTOC: almost", "AUTOC: almost - good")
        est, se = rate.estimates_.estimate, rate.estimates_.std_error
        assert est[2] == pytest.approx(est[1] - est[0], abs=1e-12)
        assert se[2] < 0.3 * se[0]
        assert len(str(rate).splitlines()) > 5


def test_same_seed_same_errors():
    a, b, c = (
        rank_average_treatment_effect(PRIORITY, SCORES, random_state=s).estimates_.std_error[0]
        for s in (1, 1, 2)
    )
    assert a == b != c


def test_curve_and_plot():
    rate = rank_average_treatment_effect({"a": PRIORITY, "b": -PRIORITY}, SCORES, random_state=0)
    assert list(rate.toc_.columns[:4]) == ["priority", "q", "estimate", "std_error"]
    ends = rate.toc_[rate.toc_["q"] == 1.0]
    np.testing.assert_allclose(ends["estimate"], 0, atol=EXACT)
    np.testing.assert_allclose(ends["std_error"], 0, atol=EXACT)
    ax = rate.plot()
    assert len(ax.lines) == 3
    assert "share treated" in ax.get_xlabel()
    assert "yadlowsky" in rate.cite().bibtex().lower()
    assert list(rate.to_frame()["term"]) == list(rate.estimates_.names)


def test_priorities_of_the_model_that_made_the_scores_are_refused(trial):
    X = trial[["a", "b", "c", "d"]]
    forest = CausalForest(60, random_state=0).fit(X, trial["y"], treatment=trial["w"].to_numpy())
    with pytest.raises(ParameterError, match="same model and rows"):
        rank_average_treatment_effect(forest.predict(), forest.scores_)
    with pytest.raises(ParameterError, match="same model and rows"):
        rank_average_treatment_effect(-forest.predict()[:50], forest.scores_[:50])
    with pytest.raises(ParameterError, match="rows that trained the model"):
        rank_average_treatment_effect(forest.predict(X), forest.scores_)
    rate = rank_average_treatment_effect(
        forest.predict(), forest.scores_, priority_from="out_of_bag", random_state=0
    )
    assert "one-sided and heuristic" in str(rate)
    from scipy.stats import norm

    assert rate.p_value[0] == pytest.approx(norm.sf(rate.ratio[0]))
    outside = rank_average_treatment_effect(X["a"], forest.scores_, random_state=0)
    assert outside.ratio[0] > 3


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"method": "auc"}, ParameterError, "'autoc' nor 'qini'"),
        ({"priority_from": "folds"}, ParameterError, "three times as often"),
        ({"priority_from": "here"}, ParameterError, "not one of"),
        ({"std_error": "jackknife"}, ParameterError, "neither 'bootstrap'"),
        ({"std_error": "influence", "priority": [1, 1, 2, 3]}, ParameterError, "equal values"),
        ({"std_error": "influence", "method": np.sqrt}, ParameterError, "needs std_error"),
        ({"n_bootstrap": 1}, ParameterError, "must be 2 or more"),
        ({"q": [0.0, 0.5]}, ParameterError, "must lie in"),
        ({"scores": [1.0, 2, 3]}, DataError, "lengths differ"),
        ({"scores": [1.0, 2, 3, np.nan]}, DataError, "missing value"),
        ({"sample_weight": [1, -1, 1, 1]}, DataError, "negative value"),
        ({"cluster": [1, 1, 2, 2]}, DataError, "2 clusters"),
        ({"priority": {}}, ParameterError, "empty"),
    ],
)
def test_bad_input(change, error, match):
    arguments = {"priority": [4, 3, 2, 1], "scores": [1.0, 2, 3, 4], **change}
    with pytest.raises(error, match=match):
        rank_average_treatment_effect(
            arguments.pop("priority"), arguments.pop("scores"), **arguments
        )


@pytest.mark.parametrize("method", ["autoc", "qini"])
def test_ranking_nobody_above_another_is_exactly_no_evidence(method):
    """Equal priorities, and priorities that differ by rounding only."""
    scores = np.random.default_rng(0).normal(size=60)
    rounding = 0.3 * (1 + np.random.default_rng(1).integers(-2, 3, 60) * np.finfo(float).eps)
    got = rank_average_treatment_effect(
        {"constant": np.full(60, 7.0), "rounding": rounding, "ranked": scores},
        scores, method=method, random_state=0,
    )  # fmt: skip
    assert got.estimates_.estimate[:2].tolist() == [0, 0]
    assert got.estimates_.std_error[:2].tolist() == [0, 0]
    assert got.ratio[:2].tolist() == [0, 0]
    assert got.p_value[:2].tolist() == [1, 1]
    assert got.p_value[2] < 0.001
    curve = got.toc_[got.toc_["priority"] == "constant"]
    assert (curve["estimate"] == 0).all()


def test_flat_folds_do_not_count():
    """A model that ranks nobody leaves a test of no use with p = 1."""
    frame, _ = make_heterogeneous_effects(200, setup="B", random_state=0)
    model = SLearner(DummyRegressor())
    check = validate_ranking(
        model,
        frame,
        "y",
        treatment="treatment",
        covariates="all",
        nuisances={"propensity": 0.5},
        random_state=0,
    )
    assert (check.test_.statistic, check.p_value) == (0, 1)
    assert (check.to_frame()["p_value"] == 1).all()
