"""The threshold test: masses, gradients, root search, recovery, errors."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from naive import threshold as naive
from scipy.special import betainc, expit, log_ndtr, ndtr

from causalfair.datasets import load_police_searches, make_threshold_searches
from causalfair.exceptions import (
    CausalFairWarning,
    ConvergenceWarning,
    DataError,
    IdentificationError,
    ParameterError,
    WeakIdentificationWarning,
)
from causalfair.risk import ThresholdPriors, ThresholdTest, _kernels_threshold, outcome_test
from causalfair.risk._kernels_signal import solve_threshold
from causalfair.risk._kernels_threshold import (
    threshold_coordinates,
    threshold_masses,
    threshold_whitened,
)
from causalfair.risk._threshold_checks import predictive_share
from causalfair.risk._threshold_geometry import (
    _approximation,
    _arrow,
    _blocks,
    _curvature,
    _modes,
    _rescaled,
    evidence,
    posterior_mode,
    whiten,
)
from causalfair.risk._threshold_model import SearchCells, ThresholdModel, named_priors

ROLES = {"searches": "searches", "stops": "stops", "group": "group", "place": "place"}


BETA = [False, True]


def by_distribution_functions(beta, f, e, u):
    """P(search and hit), P(search and miss), P(no search)."""
    phi, size = expit(f), np.exp(e)
    if beta:
        a, b, t = size * phi, size * (1 - phi), expit(u)
        hit, miss = phi * betainc(b, a + 1, 1 - t), (1 - phi) * betainc(b + 1, a, 1 - t)
        return hit, miss, betainc(a, b, t)
    stay = phi * ndtr(u - size) + (1 - phi) * ndtr(u)
    return phi * ndtr(size - u), (1 - phi) * ndtr(-u), stay


@pytest.mark.kernel
@pytest.mark.parametrize("beta", BETA)
def test_masses_equal_distribution_functions(beta):
    rng = np.random.default_rng(0)
    f, e, u = rng.normal(-2, 1, 200), rng.normal(1.5, 0.7, 200), rng.normal(-1, 1, 200)
    hit, miss, stay = by_distribution_functions(beta, f, e, u)
    found = threshold_masses(beta, f, e, u)
    # The distribution functions themselves lose digits far out: relative to 1e-10 of all people.
    np.testing.assert_allclose(np.exp(found[:, 0]), hit, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(np.exp(found[:, 1]), miss, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found[:, 2], np.log((hit + miss) / stay), rtol=1e-10, atol=1e-10)


@pytest.mark.kernel
@pytest.mark.parametrize("beta", BETA)
def test_masses_equal_their_twin(beta):
    rng = np.random.default_rng(1)
    f, e, u = rng.uniform(-5, 1, 40), rng.uniform(-0.5, 4, 40), rng.uniform(-5, 2, 40)
    for found, *cell in zip(threshold_masses(beta, f, e, u), f, e, u, strict=True):
        hit, miss, stay, _ = np.real(naive.masses(beta, *cell))
        expected = [np.log(hit), np.log(miss), np.log((hit + miss) / stay)]
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("u", [12.0, 45.0, -45.0])
def test_far_tails_stay_finite_where_one_minus_a_distribution_function_is_zero(u):
    f, e, at = np.array([-2.0]), np.array([0.5]), np.array([u])
    hit, miss, rate = threshold_masses(False, f, e, at)[0]
    phi, size = expit(-2.0), np.exp(0.5)
    assert hit == pytest.approx(np.log(phi) + log_ndtr(size - u), rel=1e-12)
    assert miss == pytest.approx(np.log1p(-phi) + log_ndtr(-u), rel=1e-12)
    stay = np.logaddexp(np.log(phi) + log_ndtr(u - size), np.log1p(-phi) + log_ndtr(u))
    assert rate == pytest.approx(np.logaddexp(hit, miss) - stay, rel=1e-12)


@pytest.mark.kernel
@pytest.mark.parametrize("beta", BETA)
@pytest.mark.parametrize("start", [-8.0, 0.0, 9.0])
def test_the_threshold_with_a_given_search_rate(beta, start):
    rng = np.random.default_rng(1)
    f, e, rate = rng.normal(-2, 0.5, 50), rng.normal(1, 0.3, 50), rng.normal(-3, 1.5, 50)
    u = np.array([solve_threshold(beta, *cell, start) for cell in zip(f, e, rate, strict=True)])
    np.testing.assert_allclose(threshold_masses(beta, f, e, u)[:, 2], rate, atol=1e-9)


def few_cells(region=False):
    place = np.repeat(np.arange(4), 3)
    stops = np.array([900, 700, 400] * 4, dtype=float)
    searches = np.round(stops * np.tile([0.05, 0.08, 0.1], 4) * np.repeat([1, 1.3, 0.7, 1.1], 3))
    hits = np.round(searches * np.tile([0.5, 0.4, 0.3], 4))
    return SearchCells(
        stops, searches, hits, np.tile(np.arange(3), 4), place, ("a", "b", "c"),
        tuple("wxyz"), np.array([0, 0, 1, 1]) if region else None, ("n", "s") if region else (),
    )  # fmt: skip


def model_and_point(form, region, learn=False):
    priors = replace(named_priors("weak", form), learn_places=learn)
    model = ThresholdModel(few_cells(region), priors, form)
    rng = np.random.default_rng(2)
    x = 0.3 * rng.normal(size=model.n_dim)
    if learn:
        x[model.scales] = 0.8, 1.3
        model.held = np.vstack([rng.uniform(size=(3, 2)), [0.0, 1.0], [0.5, 1.5]])
    model.anchor_at(x)
    return model, x


@pytest.mark.kernel
@pytest.mark.parametrize("form", ["discriminant", "beta"])
@pytest.mark.parametrize(
    ("region", "jacobian", "learn"), [(False, 0.0, False), (True, 1.0, False), (True, 1.0, True)]
)
def test_log_density_and_gradient_equal_the_twin(form, region, jacobian, learn):
    """Gradients by complex steps of the definition."""
    model, x = model_and_point(form, region, learn)
    value, gradient = model.density(x, jacobian=jacobian)
    near = model.anchor[:, 0]
    given = (model.beta, model.cells, model.priors, near, model.held, bool(jacobian))
    steps = [naive.log_posterior(x + 1e-30j * row, *given) for row in np.eye(len(x))]
    assert value == pytest.approx(steps[0].real, rel=1e-10)
    expected = np.imag(steps) / 1e-30
    np.testing.assert_allclose(gradient, expected, atol=1e-8 * np.abs(expected).max())


@pytest.mark.kernel
@pytest.mark.parametrize("form", ["discriminant", "beta"])
def test_gradient_of_the_marginal_density(form):
    model, x = model_and_point(form, True)
    gap = model.marginal(x)[1] - model.density(x, jacobian=0.0)[1]

    def correction(x):
        return model.marginal(x)[0] - model.density(x, jacobian=0.0)[0]

    steps = 1e-5 * np.eye(model.n_dim)
    numeric = [(correction(x + s) - correction(x - s)) / 2e-5 for s in steps]
    np.testing.assert_allclose(gap, numeric, atol=1e-5)


@pytest.mark.kernel
def test_where_a_root_search_starts_does_not_matter():
    model, x = model_and_point("discriminant", True)
    value, gradient = model.density(x)
    model.anchor_at(x + 1.0)
    again = model.density(x)
    assert again[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(again[1], gradient, atol=1e-9 * np.abs(gradient).max())


@pytest.mark.kernel
def test_the_jacobian_makes_the_density_that_of_thresholds():
    """Change of variables: the density in rates over that in thresholds is |du/drate|."""
    model, x = model_and_point("discriminant", False)
    gap = model.density(x)[0] - model.density(x, jacobian=0.0)[0]
    assert gap == pytest.approx(np.log(np.abs(model.anchor[:, 6])).sum(), abs=1e-10)


@pytest.mark.parametrize("form", ["discriminant", "beta"])
@pytest.mark.parametrize(("region", "learn"), [(False, False), (True, False), (True, True)])
def test_whitened_coordinates_are_a_linear_map_of_the_density(form, region, learn):
    model, _ = model_and_point(form, region, learn)
    linear, layout = whiten(model), (model.n_common, model.first, model.layout[-1])
    eye = np.eye(model.n_dim)
    matrix = np.array(
        [threshold_coordinates(z, *linear.arrays, *layout) - linear.centre for z in eye]
    ).T
    z = 0.3 * np.random.default_rng(3).normal(size=model.n_dim)
    x = linear.centre + matrix @ z
    np.testing.assert_allclose(threshold_coordinates(z, *linear.arrays, *layout), x, atol=1e-12)
    value, gradient = threshold_whitened(z, *linear.arrays, model.beta, *model.arrays)
    expected = model.density(x)
    assert value == pytest.approx(expected[0], rel=1e-12)
    by_hand = matrix.T @ expected[1]
    np.testing.assert_allclose(gradient, by_hand, atol=1e-12 * np.abs(expected[1]).max() + 1e-9)


def test_whitening_inverts_the_curvature():
    """On a posterior that is normal to begin with: the arrow's root is that of its precision."""
    model, x = model_and_point("discriminant", True)
    rng = np.random.default_rng(0)
    k, n = model.n_shared, model.n_dim
    precision = np.diag(rng.uniform(1, 3, n))
    for block in _blocks(model):
        size = block.stop - block.start
        precision[block, block] += np.full((size, size), 0.3)
    region = model.cells.region
    for d, block in enumerate(_blocks(model)):
        own = [*range(12), 12 + region[d], 14 + region[d]]
        cross = 0.05 * rng.normal(size=(len(own), block.stop - block.start))
        precision[np.ix_(own, np.arange(n)[block])] = cross
        precision[np.ix_(np.arange(n)[block], own)] = cross.T
    curvature = _curvature(lambda v: -precision @ v, model, x)
    linear = _arrow(model, x, curvature)
    layout = (model.n_common, model.first, model.layout[-1])
    root = np.array([threshold_coordinates(z, *linear.arrays, *layout) - x for z in np.eye(n)]).T
    np.testing.assert_allclose(root.T @ precision @ root, np.eye(n), atol=1e-6)
    assert k == 16


def places_that_differ(sd, n_places=25, seed=5):
    """Two groups of one law; guilt differs between places with a standard deviation."""
    rng = np.random.default_rng(seed)
    place, group = np.repeat(np.arange(n_places), 2), np.tile([0, 1], n_places)
    f = -2.0 + sd * rng.standard_normal(n_places)[place]
    e, u = np.full(2 * n_places, 0.7), 1.0 + 0.2 * rng.standard_normal(2 * n_places)
    hit, miss, _ = by_distribution_functions(False, f, e, u)
    stops = np.full(2 * n_places, 4000)
    searches = rng.binomial(stops, hit + miss)
    hits = rng.binomial(searches, hit / (hit + miss))
    counts = [values.astype(float) for values in (stops, searches, hits)]
    return SearchCells(*counts, group, place, ("a", "b"), tuple(map(str, range(n_places))))


LEARNT = ThresholdPriors(
    guilt=(-2.0, 0.5), signal=(0.7, 0.1), threshold_spread=0.5, learn_places=True
)


@pytest.mark.parametrize("sd", [0.1, 0.6])
def test_how_much_places_differ_is_found_whatever_the_scale_of_its_prior(sd):
    cells = places_that_differ(sd)
    found = []
    for scale in (0.5, 2.0):
        priors = replace(LEARNT, place_guilt=scale, place_signal=scale)
        model = ThresholdModel(cells, priors, "discriminant")
        found.append(scale * np.abs(whiten(model).centre[model.scales]))
    # Twenty-five effects know their own standard deviation to a seventh.
    assert found[0][0] == pytest.approx(sd, rel=3 / 7)
    assert found[0][1] < 0.15
    np.testing.assert_allclose(found[1], found[0], atol=0.02, rtol=0.05)


def test_of_several_modes_the_one_of_most_mass_is_taken():
    """Two groups that differ in hits: guilt or signal may explain it, and places say which."""
    cells = places_that_differ(0.6)
    priors = ThresholdPriors(guilt=(-2.0, 1.0), signal=(0.5, 1.0), threshold_spread=0.5)
    model = ThresholdModel(cells, priors, "discriminant")
    bounds = [evidence(model, _approximation(model, mode)) for mode in _modes(model)]
    assert evidence(model, whiten(model)) == pytest.approx(max(bounds), abs=1e-3)


def test_evidence_of_a_normal_density_is_its_integral(monkeypatch):
    """Where the density is normal with the whitening's own moments the bound is exact."""
    model, x = model_and_point("discriminant", True)
    linear = whiten(model)

    def standard(z, *_):
        return -0.5 * z @ z, -z

    monkeypatch.setattr(_kernels_threshold, "threshold_whitened", standard)
    k = model.n_shared
    places = [np.diag(f[: b.stop - b.start]) for f, b in
              zip(linear.factor, _blocks(model), strict=True)]  # fmt: skip
    log_det = np.log(np.concatenate([np.diag(linear.root), *places])).sum()
    assert len(np.concatenate(places)) + k == len(x)
    assert evidence(model, linear) == pytest.approx(log_det, abs=1e-9)


def test_an_em_step_of_the_spread_is_that_of_normal_effects():
    """Points whose effects have sd 0.4 and are known exactly move the spread to 0.4."""
    model = ThresholdModel(places_that_differ(0.1, 400), LEARNT, "discriminant")
    centre = np.zeros(model.n_dim)
    centre[model.scales] = 5.0
    effects = np.sqrt(0.4**2 / (0.1 * 5.0) ** 2) * np.random.default_rng(0).choice([-1, 1], 400)
    point = centre.copy()
    starts = model.n_shared + 2 * np.arange(400) + model.first[:-1]
    point[starts] = point[starts + 1] = effects
    for _ in range(12):
        step = point[starts] / point[starts].std() * (4.0 / centre[model.scales][0])
        point[starts] = point[starts + 1] = step
        centre, move = _rescaled(model, centre, [point])
    assert move < 1e-3
    # In units of the prior's scale of 0.1; the prior itself pulls by 16 / 400.
    assert centre[model.scales] == pytest.approx([4.0, 4.0], rel=0.03)


def test_the_mode_reproduces_the_counts():
    cells = few_cells()
    model = ThresholdModel(cells, named_priors("weak", "discriminant"), "discriminant")
    found = model.report(posterior_mode(model))
    np.testing.assert_allclose(found["search_rate"], cells.searches / cells.stops, rtol=0.25)
    np.testing.assert_allclose(found["hit_rate"], cells.hits / cells.searches, atol=0.1)


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
    assert 0.8 <= test._inside <= 1.0
    assert test.convergence_.divergences == 0
    assert test.place_spread_ is None
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


def test_the_predictive_share_is_that_of_binomial_intervals():
    """Hits drawn from the fitted rates lie in their 95 % interval; shifted ones do not."""
    rng = np.random.default_rng(0)
    searches, rate = rng.integers(200, 400, 2000).astype(float), rng.uniform(0.2, 0.6, 2000)
    cells = SearchCells(
        10 * searches, searches, rng.binomial(searches.astype(int), rate).astype(float),
        np.zeros(2000, int), np.arange(2000), ("a",), tuple(map(str, range(2000))),
    )  # fmt: skip
    draws = np.tile(rate, (300, 1))
    # Discrete counts: an interval holds a little more than 95 %.
    assert 0.94 < predictive_share(cells, draws, rng) < 0.975
    assert predictive_share(cells, draws + 0.2, rng) < 0.1


def test_the_spread_of_places_is_learnt_and_reported():
    cells = places_that_differ(0.6)
    table = pd.DataFrame(
        {
            "stops": cells.stops, "searches": cells.searches, "hits": cells.hits,
            "group": np.array(cells.groups)[cells.group], "place": cells.place,
        }
    )  # fmt: skip
    priors = replace(LEARNT, place_guilt=1.0, place_signal=1.0)
    test = ThresholdTest(priors=priors, draws=200, tune=300, chains=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        test.fit(table, "hits", **ROLES)
    spread = test.place_spread_["guilt"]
    assert abs(spread.estimate[0] - 0.6) < 3 * spread.std_error[0]
    assert spread.conf_int()[0][0] > 0.3
    low, high = test.differences("a").conf_int(0.99)[0]
    assert low < 0 < high
    assert "effects of places" in str(test.summary())
    assert "papaspiliopoulos2007general" in test.cite()
    assert test.posterior_["posterior"]["place_sd"].dims[-1] == "effect"


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


@pytest.mark.parametrize("form", ["discriminant", "beta"])
def test_wide_priors_learn_how_much_places_differ(form):
    wide = named_priors("wide", form)
    assert wide.learn_places
    assert wide.as_array().tolist() == [0.0, 2.0, 0.0, 2.0, 0.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]


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
