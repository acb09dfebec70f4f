"""Many, multi-level and continuous instruments: closed forms, an independent GMM, sizes, errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from naive import iv as naive

from causalfair.datasets import make_invalid_instruments
from causalfair.exceptions import (
    ConvergenceError,
    DataError,
    ParameterError,
    RoleError,
    WeakIdentificationWarning,
)
from causalfair.iv import MRGenius, MultiplyRobustATE

G4 = ["g1", "g2", "g3", "g4"]


def data(n=3000, seed=0, **kwargs):
    kwargs = {"variance_shift": 3.0, **kwargs}
    return make_invalid_instruments(n, n_instruments=4, random_state=seed, **kwargs)[0]


def fit(frame, instrument=G4, covariates=(), cluster=None, sample_weight=None, **options):
    return MRGenius(**options).fit(
        frame,
        "y",
        treatment="treatment",
        instrument=instrument,
        covariates=list(covariates),
        cluster=cluster,
        sample_weight=sample_weight,
    )


def test_one_instrument_closed_form():
    f = data()
    g, a, y = f.g1.to_numpy(), f.treatment.to_numpy(), f.y.to_numpy()
    h = g - g.mean()
    r = a - a.mean() - h * (h @ a) / (h @ h)
    est = fit(f, "g1")
    assert abs(est.estimates_.estimate[0] - (h * r) @ y / ((h * r) @ a)) < 1e-10
    direct = h @ (y - est.estimates_.estimate[0] * a) / (h @ h)
    assert est.estimates_.names == ("ATE", "direct effect")
    assert abs(est.estimates_.estimate[1] - direct) < 1e-10


def test_binary_instrument_agrees_with_the_multiply_robust_estimator():
    f = data().assign(z=lambda d: (d.g1 > 0).astype(float))
    est = fit(f, "z")
    other = MultiplyRobustATE(clip=0, min_variance_shift=0).fit(
        f, "y", treatment="treatment", instrument="z", covariates=[]
    )
    np.testing.assert_allclose(est.estimates_.estimate, other.estimates_.estimate, rtol=1e-10)
    np.testing.assert_allclose(est.estimates_.std_error, other.estimates_.std_error, rtol=1e-10)
    for a, b in zip(est.robust_set()[0], other.robust_set()[0], strict=True):
        assert abs(a - b) < 1e-6


CASES = [
    {},
    {"residualize": True},
    {"treatment": "logistic"},
    {"treatment": "multiplicative"},
    {"outcome": "multiplicative"},
]


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("K", [1, 3])
def test_against_an_independent_gmm(options, K):
    kind = options.get("outcome", "additive")
    f = data(900, seed=3, outcome=kind, effect=0.5)
    g = np.random.default_rng(1)
    f["x"] = f.g4 + g.normal(size=len(f))
    if options.get("treatment") == "logistic":
        f["treatment"] = (f.treatment > 0.8).astype(float)
    if options.get("treatment") == "multiplicative":
        f["treatment"] = np.exp(0.4 * f.treatment / f.treatment.std())
    count = g.integers(1, 3, len(f)).astype(float)
    names = G4[:K]
    with np.errstate(all="raise", under="ignore"):
        est = fit_quietly(f, names, ["x"], sample_weight=count, **options)
    w = count * len(f) / count.sum()
    X = np.column_stack([np.ones(len(f)), (f.x - f.x.mean()) / f.x.std(ddof=0)])
    beta, psi, J = naive.genius_two_step(
        f[names].to_numpy(), f.treatment.to_numpy(), f.y.to_numpy(), X, w, **options
    )
    np.testing.assert_allclose(est.estimates_.estimate[0], beta, rtol=1e-5, atol=1e-7)
    scale = np.abs(w * psi).max()
    np.testing.assert_allclose(est.estimates_.influence[:, 0], w * psi, rtol=0, atol=3e-5 * scale)
    if K > 1:
        np.testing.assert_allclose(est.j_test_.statistic, J, rtol=1e-4)
        assert est.j_test_.df == K - 1


def fit_quietly(f, names, covariates, **kwargs):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeakIdentificationWarning)
        return fit(f, names, covariates, **kwargs)


def test_two_step_iterated_and_continuously_updated():
    f = data(6000)
    first, second, third = (fit(f, method=m) for m in ("gmm", "iterated", "cue"))
    assert second.n_updates_ > 1
    for a, b in ((first, second), (first, third)):
        gap = abs(a.estimates_.estimate[0] - b.estimates_.estimate[0])
        assert 1e-9 < gap < first.estimates_.std_error[0]
    # The continuously updated criterion is the S statistic at its own minimum.
    moments = third._moments
    at = third.estimates_.estimate[0]
    near = [moments.objective(at + d) for d in (-1e-3, 1e-3)]
    assert moments.objective(at) < min(near)
    np.testing.assert_allclose(third.j_test_.statistic, moments.objective(at), rtol=1e-9)


def test_cue_does_not_depend_on_scaling_of_the_instruments():
    f = data(3000)
    mixed = f.assign(g1=3 * f.g1 - f.g2, g2=f.g2 + 0.5 * f.g3)
    for method in ("cue", "gmm"):
        one, two = fit(f, method=method), fit(mixed, method=method)
        np.testing.assert_allclose(
            one.estimates_.estimate[0], two.estimates_.estimate[0], rtol=1e-6
        )


def test_robust_set_inverts_the_s_statistic():
    est = fit(data(4000, seed=2))
    ((low, high),) = est.robust_set()
    limit = 9.487729036781154  # chi-squared(4), 95 %
    for edge in (low, high):
        assert abs(est._moments.objective(edge) - limit) < 1e-6
    assert low < est.estimates_.estimate[0] < high


def test_affine_equivariance_in_the_outcome():
    f = data(2000)
    one, two = fit(f), fit(f.assign(y=5 - 2 * f.y))
    np.testing.assert_allclose(two.estimates_.estimate, -2 * one.estimates_.estimate, rtol=1e-9)
    shifted = fit(f.assign(y=f.y + 0.7 * f.treatment))
    np.testing.assert_allclose(
        shifted.estimates_.estimate[0], one.estimates_.estimate[0] + 0.7, rtol=1e-9
    )


def test_weights_replicate_and_clusters():
    f = data(2000, seed=5)
    count = np.random.default_rng(0).integers(1, 4, len(f))
    rows = np.repeat(np.arange(len(f)), count)
    weighted = fit(f, sample_weight=count)
    repeated = fit(f.iloc[rows].reset_index(drop=True), cluster=rows)
    # The weight matrices differ by the common factor G/(G-1), so the estimates are the same.
    np.testing.assert_allclose(
        weighted.estimates_.estimate, repeated.estimates_.estimate, rtol=1e-9
    )
    factor = np.sqrt(2000 / 1999)
    np.testing.assert_allclose(
        repeated.estimates_.std_error, factor * weighted.estimates_.std_error, rtol=1e-8
    )


@pytest.mark.parametrize("form", ["frame", "array", "polars"])
def test_forms_of_the_instruments(form):
    import polars as pl

    f = data(2000, seed=6)
    base = fit(f)
    if form == "polars":
        other = fit(pl.from_pandas(f))
    else:
        G = f[G4] if form == "frame" else f[G4].to_numpy()
        other = MRGenius().fit(np.empty((len(f), 0)), f.y, treatment=f.treatment, instrument=G)
    assert np.array_equal(base.estimates_.estimate, other.estimates_.estimate)
    assert np.array_equal(base.estimates_.std_error, other.estimates_.std_error)


def test_indicators_of_a_multi_level_instrument():
    f = data(3000, seed=7)
    text = f.assign(g1=np.array(["none", "one", "two"])[f.g1.astype(int)])
    number = fit(f, "g1", instrument_terms="indicators")
    label = fit(text, "g1")
    assert label.j_test_.df == 1
    assert label.estimates_.names == ("ATE", "direct effect: g1[one]", "direct effect: g1[two]")
    np.testing.assert_allclose(label.estimates_.estimate, number.estimates_.estimate, rtol=1e-9)


def test_continuous_instrument_quadratic_and_variance_terms():
    g = np.random.default_rng(8)
    n = 8000
    z, u = g.normal(size=n), g.normal(size=n)
    a = 0.5 * z + u + np.exp(0.3 * z) * g.normal(size=n)
    y = 1.0 * a + 0.4 * z + u + g.normal(size=n)
    X = np.empty((n, 0))
    for terms, df in (("linear", None), ("quadratic", 1), ("variance", None)):
        est = MRGenius(instrument_terms=terms).fit(X, y, treatment=a, instrument=z)
        low, high = est.conf_int(0.999)[0]
        assert low < 1.0 < high
        assert est.j_test_.df == df


def test_covariates_that_shift_the_instrument_are_adjusted_for():
    g = np.random.default_rng(9)
    n = 20_000
    x = g.normal(size=n)
    u = g.normal(size=n)
    z = 0.8 * x + g.normal(size=n)
    a = 0.5 * z + x + u + np.sqrt(1 + 0.5 * (z + 4).clip(0)) * g.normal(size=n)
    y = 1.0 * a + 0.4 * z + 2 * x + u + g.normal(size=n)
    est = MRGenius(residualize=True).fit(x[:, None], y, treatment=a, instrument=z)
    assert abs(est.estimates_.estimate[0] - 1) < 4 * est.estimates_.std_error[0]
    assert est.estimates_.std_error[0] < 0.2


@pytest.mark.parametrize(
    ("change", "options", "error", "match"),
    [
        ({"g1": 1.0}, {}, DataError, "instrument 'g1' takes one value"),
        ({"treatment": 2.0}, {}, DataError, r"no variation in treatment 'treatment'"),
        ({}, {"outcome": "multiplicative"}, DataError, "zero or positive"),
        ({}, {"treatment": "multiplicative"}, DataError, "zero or positive"),
        ({}, {"treatment": "logistic"}, DataError, "must take two values"),
        ({}, {"outcome": "multiplicative", "residualize": True}, ParameterError, "residualize"),
        ({}, {"method": "liml"}, ValueError, "'method' parameter"),
    ],
)
def test_bad_input(change, options, error, match):
    with pytest.raises(error, match=match):
        fit(data(400).assign(**change), **options)


def test_redundant_and_repeated_instruments():
    f = data(400).assign(g5=lambda d: d.g1 + d.g2)
    with pytest.raises(DataError, match="g5 are linear combinations"):
        fit(f, [*G4, "g5"])
    with pytest.raises(RoleError, match="name each instrument once"):
        fit(f, ["g1", "g1"])


def test_unbounded_multiplicative_effect_is_an_error():
    g = np.random.default_rng(0)
    z = g.integers(0, 2, 300)
    a = z + (1 + z) * g.normal(size=300)
    y = np.zeros(300)
    y[np.argsort(a)[-3:]] = 1.0
    with pytest.raises(ConvergenceError, match="do not bound the effect"):
        MRGenius("multiplicative").fit(np.empty((300, 0)), y, treatment=a, instrument=z)


def test_no_variance_shift_warns():
    f = data(2000, variance_shift=0.0)
    with pytest.warns(WeakIdentificationWarning, match=r"no variance shift .* 4 instrument term"):
        est = fit(f)
    assert est.relevance().p_value > 0.001
    assert np.isinf(est.robust_set()[0][0])


def test_comparators_and_summary():
    from linearmodels.iv import IV2SLS

    f = data()
    est = fit(f)
    table = est.comparators().set_index("term")
    iv = IV2SLS(f.y, pd.DataFrame({"c": np.ones(len(f))}), f.treatment, f[G4]).fit(
        cov_type="robust"
    )
    np.testing.assert_allclose(
        table.loc["2SLS", ["estimate", "std_error"]].astype(float),
        [iv.params["treatment"], iv.std_errors["treatment"]],
        rtol=1e-9,
    )
    assert abs(table.loc["Lewbel", "estimate"] - 1.0) < 6 * table.loc["Lewbel", "std_error"]
    text = str(est.summary())
    assert "do all instruments agree?" in text
    assert max(map(len, text.splitlines())) <= 88


def monte_carlo(R, n, **kwargs):
    out = []
    for seed in range(R):
        options = {k: v for k, v in kwargs.items() if k in ("method", "residualize", "outcome")}
        simulate = {k: v for k, v in kwargs.items() if k in ("outcome", "effect", "disagreement")}
        f, truth = make_invalid_instruments(n, n_instruments=4, random_state=seed, **simulate)
        est = fit_quietly(f, G4, [], **options)
        low, high = est.conf_int()[0]
        inside = False
        if "outcome" not in kwargs:
            inside = any(a <= truth["ate"] <= b for a, b in est.robust_set())
        out.append(
            (
                est.estimates_.estimate[0] - truth["ate"],
                low <= truth["ate"] <= high,
                est.j_test_.p_value < 0.05,
                inside,
            )
        )
    return np.array(out, dtype=float)


def test_coverage_and_size_of_j_small():
    out = monte_carlo(60, 5000)
    assert abs(out[:, 0].mean()) < 0.05
    assert out[:, 1].sum() >= 51
    assert out[:, 2].sum() <= 9
    assert out[:, 3].sum() >= 51


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"method": "cue"}, {"residualize": True}, {"outcome": "multiplicative", "effect": 0.5}],
    ids=str,
)
def test_coverage_and_size_of_j(options):
    out = monte_carlo(500, 12_000, **options)
    assert 462 <= out[:, 1].sum() <= 487
    assert 10 <= out[:, 2].sum() <= 42
    if "outcome" not in options:
        assert 462 <= out[:, 3].sum() <= 487


def test_j_detects_an_instrument_that_breaks_its_moment():
    out = monte_carlo(20, 5000, disagreement=0.6)
    assert out[:, 2].mean() > 0.8
