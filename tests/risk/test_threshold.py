"""The threshold test: masses, gradients, root search, recovery, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import betainc, expit, ndtr

from causalfair.datasets import load_police_searches, make_threshold_searches
from causalfair.exceptions import (
    CausalFairWarning,
    ConvergenceWarning,
    DataError,
    IdentificationError,
    ParameterError,
    WeakIdentificationWarning,
)
from causalfair.risk import ThresholdPriors, ThresholdTest, outcome_test
from causalfair.risk._kernels_normal import threshold_masses, threshold_solutions
from causalfair.risk._threshold import posterior_mode
from causalfair.risk._threshold_model import SearchCells, ThresholdModel, named_priors

ROLES = {"searches": "searches", "stops": "stops", "group": "group", "place": "place"}


def masses(beta, f, e, u):
    out = np.empty((len(f), 3))
    threshold_masses(beta, f, e, u, out)
    return out


def twin(beta, f, e, u):
    """P(search and hit), P(search and miss), P(no search) from distribution functions."""
    phi, size = expit(f), np.exp(e)
    if beta:
        a, b, t = size * phi, size * (1 - phi), expit(u)
        hit, miss = phi * betainc(b, a + 1, 1 - t), (1 - phi) * betainc(b + 1, a, 1 - t)
        return hit, miss, betainc(a, b, t)
    stay = phi * ndtr(u - size) + (1 - phi) * ndtr(u)
    return phi * ndtr(size - u), (1 - phi) * ndtr(-u), stay


@pytest.mark.parametrize(("beta", "tolerance"), [(True, 1e-6), (False, 1e-12)])
def test_masses_equal_their_twin_and_add_to_one(beta, tolerance):
    rng = np.random.default_rng(0)
    f, e, u = rng.normal(-2, 1, 200), rng.normal(1.5, 0.7, 200), rng.normal(-1, 1, 200)
    found = np.exp(masses(beta, f, e, u))
    np.testing.assert_allclose(found, np.column_stack(twin(beta, f, e, u)), rtol=tolerance)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-7)


def test_far_tails_stay_finite_where_one_minus_a_distribution_function_is_zero():
    f, e, u = np.array([-2.0]), np.array([0.5]), np.array([12.0])
    found = masses(False, f, e, u)
    assert np.isfinite(found).all()
    assert 1 - ndtr(12.0) == 0.0
    assert found[0, 1] < -70


@pytest.mark.parametrize("beta", [True, False])
def test_the_threshold_with_a_given_search_rate(beta):
    rng = np.random.default_rng(1)
    f, e, rate = rng.normal(-2, 0.5, 50), rng.normal(1, 0.3, 50), rng.normal(-3, 1.5, 50)
    u = np.empty(50)
    threshold_solutions(beta, f, e, rate, np.zeros(50), u)
    found = masses(beta, f, e, u)
    search = np.logaddexp(found[:, 0], found[:, 1])
    np.testing.assert_allclose(search - found[:, 2], rate, atol=1e-6)


def few_cells(region=False):
    place = np.repeat(np.arange(4), 3)
    stops = np.array([900, 700, 400] * 4, dtype=float)
    searches = np.round(stops * np.tile([0.05, 0.08, 0.1], 4) * np.repeat([1, 1.3, 0.7, 1.1], 3))
    hits = np.round(searches * np.tile([0.5, 0.4, 0.3], 4))
    return SearchCells(
        stops, searches, hits, np.tile(np.arange(3), 4), place, ("a", "b", "c"),
        tuple("wxyz"), np.array([0, 0, 1, 1]) if region else None, ("n", "s") if region else (),
    )  # fmt: skip


@pytest.mark.parametrize("form", ["discriminant", "beta"])
@pytest.mark.parametrize("region", [False, True])
@pytest.mark.parametrize("which", ["density", "marginal"])
def test_gradient_of_the_log_density(form, region, which):
    model = ThresholdModel(few_cells(region), named_priors("weak", form), form)
    x = 0.3 * np.random.default_rng(2).normal(size=model.n_dim)
    _, gradient = getattr(model, which)(x)
    step = 1e-5 * np.eye(model.n_dim)
    fn = getattr(model, which)
    numeric = [(fn(x + s)[0] - fn(x - s)[0]) / 2e-5 for s in step]
    np.testing.assert_allclose(gradient, numeric, atol=2e-5 * np.abs(numeric).max())


def test_the_jacobian_makes_the_density_that_of_thresholds():
    """Change of variables: the density in rates over that in thresholds is |du/drate|."""
    model = ThresholdModel(few_cells(), named_priors("weak", "discriminant"), "discriminant")
    x = 0.2 * np.random.default_rng(3).normal(size=model.n_dim)
    f, e, rate = model.coordinates(x)
    up, down = model._solve(f, e, rate + 1e-4), model._solve(f, e, rate - 1e-4)
    gap = model.density(x)[0] - model.density(x, jacobian=0.0)[0]
    assert abs(gap - np.log(np.abs(up - down) / 2e-4).sum()) < 1e-5


def test_the_mode_reproduces_the_counts():
    cells = few_cells()
    model = ThresholdModel(cells, named_priors("weak", "discriminant"), "discriminant")
    search, hit = model.rates(posterior_mode(model))
    np.testing.assert_allclose(search, cells.searches / cells.stops, rtol=0.25)
    np.testing.assert_allclose(hit, cells.hits / cells.searches, atol=0.1)


@pytest.fixture(scope="module")
def fitted():
    frame, truth = make_threshold_searches(
        8, thresholds={"a": 0.35, "b": 0.12}, stops=4000, signal="discriminant", random_state=3
    )
    # What a study would know: the signal's strength, here that of the simulation.
    priors = ThresholdPriors(
        guilt=(-2.2, 0.3),
        signal=(0.7, 0.1),
        threshold_spread=0.5,
        place_guilt=0.1,
        place_signal=0.05,
    )
    test = ThresholdTest(priors=priors, draws=150, tune=200, chains=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        test.fit(frame, "hits", **ROLES)
    return test, frame, truth


def test_recovery_of_thresholds_and_of_their_difference(fitted):
    test, _, truth = fitted
    expected = np.array([truth["thresholds"][g] for g in test.groups_])
    gap = (test.estimates_.estimate - expected) / test.estimates_.std_error
    assert np.abs(gap).max() < 3
    difference = test.differences(reference="a")
    assert difference.names == ("b - a",)
    low, high = difference.conf_int()[0]
    assert low < expected[1] - expected[0] < high
    assert high < 0


def test_fitted_rates_and_reports(fitted):
    test, _, truth = fitted
    cells = test.cells_
    assert len(cells) == 16
    assert np.corrcoef(cells["search_rate"], cells["search_rate_fitted"])[0, 1] > 0.99
    assert np.abs(cells["hit_rate_fitted"] - truth["hit_rate"][np.lexsort(
        (np.tile([0, 1], 8), np.repeat([f"place {p + 1}" for p in range(8)], 2))
    )]).mean() < 0.05  # fmt: skip
    text = str(test.summary())
    assert "infra-marginality" in text
    assert "b - a" in text or "a - b" in text
    assert "RMSE" in str(test.check())
    assert set(test.posterior_.posterior.dims) >= {"group", "cell"}
    rates = test.benchmark_test()
    assert rates.names == ("search rate:a", "search rate:b")
    assert "simoiu2017problem" in test.cite()


def test_the_outcome_test_always_warns(fitted):
    test, frame, _ = fitted
    with pytest.warns(CausalFairWarning, match="infra-marginality"):
        rates = test.outcome_test()
    with pytest.warns(CausalFairWarning, match="outcome_test"):
        same = outcome_test(frame, "hits", **ROLES)
    assert rates == same
    by_hand = frame.groupby("group")[["hits", "searches"]].sum()
    np.testing.assert_allclose(rates.estimate, by_hand["hits"] / by_hand["searches"], atol=1e-14)


@pytest.mark.slow
def test_random_groups_do_not_differ(fitted):
    test, _, _ = fitted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = test.placebo_test(random_state=1)
    low, high = found.conf_int(0.99)[0]
    assert low < 0 < high


def test_one_place_and_rows_of_the_same_cell():
    frame, _ = make_threshold_searches(3, random_state=0)
    with pytest.warns(CausalFairWarning):
        rates = outcome_test(frame, "hits", searches="searches", stops="stops", group="group")
    share = rates.estimate
    total = frame.groupby("group")["searches"].sum()
    np.testing.assert_allclose(rates.std_error, np.sqrt(share * (1 - share) / total))


def test_a_prior_in_conflict_is_named():
    frame, _ = make_threshold_searches(3, random_state=0)
    test = ThresholdTest(draws=20, tune=30, chains=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.warns(WeakIdentificationWarning, match="lean on the prior"):
            test.fit(frame, "hits", **ROLES)
    assert "in conflict" in str(test.check())


def test_bad_input_is_named():
    frame, _ = make_threshold_searches(4, random_state=0)
    test = ThresholdTest()
    with pytest.raises(DataError, match="Are the roles swapped"):
        test.fit(frame, "searches", **{**ROLES, "searches": "hits"})
    with pytest.raises(DataError, match=r"stops must be counts; row 2 has -5"):
        test.fit(
            frame.assign(stops=np.where(np.arange(12) == 2, -5, frame["stops"])), "hits", **ROLES
        )
    with pytest.raises(IdentificationError, match="group takes one value"):
        test.fit(frame.assign(group="a"), "hits", **ROLES)
    black = (frame["group"] == "black").to_numpy()
    none = {name: np.where(black, 0, frame[name]) for name in ("hits", "searches")}
    with pytest.raises(IdentificationError, match="never searched"):
        test.fit(frame.assign(**none), "hits", **ROLES)
    with pytest.raises(DataError, match="lies in one region"):
        test.fit(frame.assign(state=list("abcdefghijkl")), "hits", region="state", **ROLES)
    with pytest.raises(ParameterError, match="must be positive"):
        ThresholdPriors(threshold_spread=0.0)
    with pytest.raises(ParameterError, match="signal is"):
        make_threshold_searches(4, signal="gamma")


def test_bundled_searches():
    frame, roles = load_police_searches(return_roles=True)
    assert frame.shape == (1130, 7)
    assert frame["group"].nunique() == 3
    assert (frame["hits"] <= frame["searches"]).all()
    assert (frame["searches"] <= frame["stops"]).all()
    assert set(roles) == {"y", "searches", "stops", "group", "place", "region"}
    assert load_police_searches(as_frame="polars").columns == list(frame.columns)
