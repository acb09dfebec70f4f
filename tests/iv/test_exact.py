"""Exact answers: closed forms, invariances and replication, to rounding.

Tolerances: 1e-10 for closed forms, 1e-9 for invariances (they pass through refitted models).
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from causalfair.datasets import make_invalid_iv
from causalfair.exceptions import OverlapWarning, SmallSampleWarning
from causalfair.iv import MultiplyRobustATE

ROLES = {"treatment": "treatment", "instrument": "instrument", "covariates": ["x1", "x2"]}


def fit(frame, y="y", **kwargs):
    options = {
        k: kwargs.pop(k)
        for k in ("formulas", "clip", "min_variance_shift", "one_sided")
        if k in kwargs
    }
    return MultiplyRobustATE(**{"clip": 0.0, "min_variance_shift": 0.0, **options}).fit(
        frame, y, **{**ROLES, **kwargs}
    )


@pytest.fixture(scope="module")
def frame():
    return make_invalid_iv(1500, random_state=7)[0]


@pytest.fixture(scope="module")
def base(frame):
    return fit(frame)


def covariance(a, y):
    return np.mean(a * y) - np.mean(a) * np.mean(y)


@pytest.mark.parametrize("treatment", ["binary", "continuous"])
def test_without_covariates_it_is_the_ratio_of_arm_differences(treatment):
    data, _ = make_invalid_iv(800, treatment=treatment, random_state=3)
    est = fit(data, covariates=[])
    z, a, y = (data[k].to_numpy() for k in ("instrument", "treatment", "y"))
    C = [covariance(a[z == k], y[z == k]) for k in (0, 1)]
    V = [a[z == k].var() for k in (0, 1)]
    assert abs(est.estimates_.estimate[0] - (C[1] - C[0]) / (V[1] - V[0])) < 1e-10
    phi = est.scores_ - est.scores_.mean()
    plug_in = np.sqrt(np.mean(phi**2) / phi.size)
    assert abs(est.estimates_.std_error[0] - plug_in) < 1e-10 * plug_in
    np.testing.assert_allclose(est.estimates_.influence[:, 0], phi, atol=1e-9 * np.abs(phi).max())


@pytest.mark.parametrize("treatment", ["binary", "continuous"])
def test_saturated_in_discrete_covariates(treatment):
    data, _ = make_invalid_iv(3000, treatment=treatment, random_state=4)
    g = np.random.default_rng(0)
    data["cell"] = np.array(["a", "b", "c"])[g.integers(0, 3, len(data))]
    formulas = {
        "effect": "~ cell",
        "confounding": "~ cell",
        "instrument": "~ cell",
        "treatment": "~ cell * instrument",
        "outcome": "~ cell * instrument",
    }
    if treatment == "continuous":
        formulas["variance"] = "~ cell * instrument"
    est = fit(data, formulas=formulas, covariates=["cell"])
    total = 0.0
    for _, part in data.groupby("cell"):
        z, a, y = (part[k].to_numpy() for k in ("instrument", "treatment", "y"))
        C = [covariance(a[z == k], y[z == k]) for k in (0, 1)]
        V = [a[z == k].var() for k in (0, 1)]
        total += len(part) / len(data) * (C[1] - C[0]) / (V[1] - V[0])
    assert abs(est.estimates_.estimate[0] - total) < 1e-10 * abs(total)
    plug_in = np.sqrt(np.var(est.scores_) / len(data))
    assert abs(est.estimates_.std_error[0] / plug_in - 1) < 1e-9


def test_noise_free_outcome_returns_the_mean_effect(frame):
    data = frame.copy()
    beta = 2.0 - 1.5 * data.x1 + 0.5 * data.x2
    data["y"] = beta * data.treatment + 3.0 * data.instrument * (1 + data.x2) - data.x1
    for formulas in (None, {"confounding": "~ 1"}, {"confounding": "~ x1 * x2"}):
        est = fit(data, formulas=formulas)
        assert abs(est.estimates_.estimate[0] - beta.mean()) < 1e-10
        np.testing.assert_allclose(est.nuisances_.beta, beta, atol=1e-10)


def test_scale_and_shift_of_the_outcome(frame, base):
    est = fit(frame.assign(y=-3.0 * frame.y + 11.0))
    np.testing.assert_allclose(est.estimates_.estimate, -3.0 * base.estimates_.estimate, rtol=1e-9)
    np.testing.assert_allclose(est.estimates_.std_error, 3.0 * base.estimates_.std_error, rtol=1e-9)


def test_flipped_instrument(frame, base):
    est = fit(frame.assign(instrument=1 - frame.instrument))
    np.testing.assert_allclose(
        est.estimates_.estimate, [1, -1] * base.estimates_.estimate, rtol=1e-9
    )
    np.testing.assert_allclose(est.estimates_.std_error, base.estimates_.std_error, rtol=1e-9)


def test_flipped_treatment(frame, base):
    est = fit(frame.assign(treatment=1 - frame.treatment))
    np.testing.assert_allclose(
        est.estimates_.estimate, [-1, 1] * base.estimates_.estimate, rtol=1e-9
    )
    np.testing.assert_allclose(est.estimates_.std_error, base.estimates_.std_error, rtol=1e-9)


def test_more_direct_effect_moves_only_the_direct_effect(frame, base):
    est = fit(frame.assign(y=frame.y + 2.5 * frame.instrument - 4 * frame.x2))
    np.testing.assert_allclose(
        est.estimates_.estimate, np.add(base.estimates_.estimate, [0, 2.5]), rtol=1e-9
    )
    np.testing.assert_allclose(est.estimates_.std_error, base.estimates_.std_error, rtol=1e-9)


def test_more_effect_moves_only_the_effect(frame, base):
    more = 0.7 - 1.1 * frame.x1 + 2.0 * frame.x2
    est = fit(frame.assign(y=frame.y + more * frame.treatment))
    np.testing.assert_allclose(
        est.estimates_.estimate, np.add(base.estimates_.estimate, [more.mean(), 0]), rtol=1e-9
    )


def test_row_order_and_linear_maps_of_the_covariates(frame, base):
    shuffled = fit(frame.sample(frac=1, random_state=1).reset_index(drop=True))
    np.testing.assert_allclose(shuffled.estimates_.estimate, base.estimates_.estimate, rtol=1e-9)
    np.testing.assert_allclose(shuffled.estimates_.std_error, base.estimates_.std_error, rtol=1e-9)
    mapped = fit(frame.assign(x1=100 + 3 * frame.x1 - frame.x2, x2=1e-3 * (frame.x1 + frame.x2)))
    np.testing.assert_allclose(mapped.estimates_.estimate, base.estimates_.estimate, rtol=1e-9)
    np.testing.assert_allclose(mapped.estimates_.std_error, base.estimates_.std_error, rtol=1e-9)


@pytest.mark.parametrize("never", [0, 1])
@pytest.mark.parametrize("value", [0, 1])
def test_one_sided_is_augmented_inverse_probability_weighting(never, value):
    data, _ = make_invalid_iv(2000, one_sided=True, random_state=5)
    if never == 1:
        data["instrument"] = 1 - data.instrument
    if value == 1:
        data["treatment"] = 1 - data.treatment
    est = fit(data, one_sided=True)
    nu = est.nuisances_
    z, a, y = (data[k].to_numpy(float) for k in ("instrument", "treatment", "y"))
    choice = (z != never).astype(float)
    share = nu.pi if never == 0 else 1 - nu.pi
    lam, mu = (nu.lam1, nu.mu1) if never == 0 else (nu.lam0, nu.mu0)
    m1, m0 = mu + nu.beta, mu
    aipw = choice / share * (a * (y - m1) / lam - (1 - a) * (y - m0) / (1 - lam)) + m1 - m0
    np.testing.assert_allclose(est.scores_, aipw, rtol=0, atol=1e-10 * np.abs(aipw).max())


def test_integer_weights_are_replicated_rows(frame):
    count = np.random.default_rng(2).integers(1, 4, len(frame))
    weighted = fit(frame, sample_weight=count)
    rows = np.repeat(np.arange(len(frame)), count)
    # Copies of a row are one cluster: their influence values add up.
    repeated = fit(frame.iloc[rows].reset_index(drop=True), cluster=rows)
    np.testing.assert_allclose(
        weighted.estimates_.estimate, repeated.estimates_.estimate, rtol=1e-10
    )
    groups = len(frame)
    ratio = repeated.estimates_.std_error / weighted.estimates_.std_error
    np.testing.assert_allclose(ratio, np.sqrt(groups / (groups - 1)), rtol=1e-9)
    for name in ("att", "constant_effect"):
        one, two = getattr(weighted, name)(), getattr(repeated, name)()
        np.testing.assert_allclose(one.estimate, two.estimate, rtol=1e-9)
    a, b = weighted.comparators(), repeated.comparators()
    np.testing.assert_allclose(a["estimate"], b["estimate"], rtol=1e-8)


def test_singleton_clusters_add_the_small_sample_factor(frame, base):
    est = fit(frame, cluster=np.arange(len(frame)))
    n = len(frame)
    np.testing.assert_allclose(
        est.estimates_.std_error, base.estimates_.std_error * np.sqrt(n / (n - 1)), rtol=1e-12
    )


def test_robust_set_is_the_grid_inversion_of_the_score_test(base):
    nu, rows = base.nuisances_, base._rows
    r = rows.a - np.where(rows.z > 0.5, nu.lam1, nu.lam0)
    ry = rows.y - np.where(rows.z > 0.5, nu.mu1 + nu.beta * nu.lam1, nu.mu0 + nu.beta * nu.lam0)
    V = nu.pi * nu.lam1 * (1 - nu.lam1) + (1 - nu.pi) * nu.lam0 * (1 - nu.lam0)
    u = (rows.z - nu.pi) * (r * ry - nu.omega - nu.beta * V)
    v = (rows.z - nu.pi) * (r**2 - V)
    ((low, high),) = base.robust_set(0.95)
    for b, inside in (
        (low + 1e-6, True),
        (low - 1e-6, False),
        (high - 1e-6, True),
        (high + 1e-6, False),
    ):
        score = u - b * v
        accepted = score.mean() ** 2 / (score.var() / score.size) <= 3.841458820694124
        assert accepted is np.bool_(inside) or bool(accepted) == inside
    assert low < u.mean() / v.mean() < high
    np.testing.assert_allclose(base.constant_effect().estimate[0], u.mean() / v.mean(), rtol=1e-12)


def test_same_bits_from_every_frame_library(frame, base):
    import polars as pl
    import pyarrow as pa

    arrays = MultiplyRobustATE(clip=0.0, min_variance_shift=0.0).fit(
        frame[["x1", "x2"]].to_numpy(),
        frame.y.to_numpy(),
        treatment=frame.treatment.to_numpy(),
        instrument=frame.instrument.to_numpy(),
    )
    for other in (fit(pl.from_pandas(frame)), fit(pa.Table.from_pandas(frame)), arrays):
        assert np.array_equal(other.estimates_.estimate, base.estimates_.estimate)
        assert np.array_equal(other.estimates_.std_error, base.estimates_.std_error)
    assert isinstance(fit(pl.from_pandas(frame)).to_frame(), pl.DataFrame)


def test_coding_of_the_roles_is_reported(frame, base):
    text = frame.assign(
        treatment=np.where(frame.treatment > 0, "yes", "no"),
        instrument=np.where(frame.instrument > 0, "town", "away"),
    )
    est = fit(text)
    assert np.array_equal(est.estimates_.estimate, base.estimates_.estimate)
    assert "'no' is 0, 'yes' is 1" in str(est.summary())
    assert fit(frame.astype({"treatment": bool})).estimates_ == base.estimates_


def test_formulas_reproduce_the_default(frame, base):
    formulas = {
        "instrument": "~ x1 + x2",
        "treatment": "~ (x1 + x2) * instrument",
        "outcome": "~ (x1 + x2) * instrument",
        "effect": "~ x1 + x2",
        "confounding": "~ x1 + x2",
    }
    est = fit(frame, formulas=formulas)
    np.testing.assert_allclose(est.estimates_.estimate, base.estimates_.estimate, rtol=1e-10)
    np.testing.assert_allclose(est.estimates_.std_error, base.estimates_.std_error, rtol=1e-10)


def test_the_instrument_inside_a_transform_is_seen(frame):
    """A linear transform of the instrument spans the same models, and so gives the same answer."""
    plain = fit(frame, formulas={"treatment": "~ instrument * x1", "outcome": "~ instrument + x1"})
    inside = fit(
        frame,
        formulas={
            "treatment": "~ center(instrument) * x1",
            "outcome": "~ scale(instrument) + x1",
        },
    )
    np.testing.assert_allclose(inside.estimates_.estimate, plain.estimates_.estimate, rtol=1e-9)
    np.testing.assert_allclose(inside.estimates_.std_error, plain.estimates_.std_error, rtol=1e-9)


def test_constant_outcome_has_no_effect_at_all(frame):
    est = fit(frame.assign(y=3.0))
    np.testing.assert_allclose(est.estimates_.estimate, 0.0, atol=1e-12)
    assert est.estimates_.std_error.max() < 1e-12
    assert abs(est.att().estimate[0]) < 1e-12


def test_few_clusters_widen_every_interval_alike(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)
        est = fit(frame, cluster=np.arange(len(frame)) % 8)
        report = est.sensitivity([0.0])
        ((low, high),) = est.robust_set()
        ratio = est._ratio_moments()
    at_zero = report.frame.loc[0, ["conf_low", "conf_high"]].to_numpy(float)
    np.testing.assert_allclose(at_zero, est.estimates_["ATE"].conf_int()[0], rtol=1e-12)
    t = est.estimates_.critical_value()
    assert t == pytest.approx(2.3646242510103)
    for end in (low, high):
        gap = ratio.contrast({"u": 1.0, "v": -end})
        assert abs(gap.statistic()[0]) == pytest.approx(t, rel=1e-8)


def test_categorical_covariates_become_indicators(frame):
    data = frame.assign(kind=pd.Categorical(np.where(frame.x1 > 0, "p", "q")))
    named = fit(data, covariates=["kind"])
    number = fit(data.assign(kind=(frame.x1 > 0).astype(float)), covariates=["kind"])
    np.testing.assert_allclose(named.estimates_.estimate, number.estimates_.estimate, rtol=1e-9)


def test_ols_and_2sls_match_statsmodels_and_linearmodels(frame, base):
    import statsmodels.api as sm
    from linearmodels.iv import IV2SLS

    X = sm.add_constant(frame[["x1", "x2"]])
    table = base.comparators().set_index("term")
    ols = sm.OLS(frame.y, X.assign(a=frame.treatment)).fit(cov_type="HC0")
    np.testing.assert_allclose(
        table.loc["OLS", ["estimate", "std_error"]].astype(float),
        [ols.params["a"], ols.bse["a"]],
        rtol=1e-9,
    )
    iv = IV2SLS(frame.y, X, frame.treatment, frame.instrument).fit(cov_type="robust")
    np.testing.assert_allclose(
        table.loc["2SLS", ["estimate", "std_error"]].astype(float),
        [iv.params["treatment"], iv.std_errors["treatment"]],
        rtol=1e-9,
    )
    wald = IV2SLS(frame.y, X[["const"]], frame.treatment, frame.instrument).fit(cov_type="robust")
    np.testing.assert_allclose(
        table.loc["Wald (no covariates)", ["estimate", "std_error"]].astype(float),
        [wald.params["treatment"], wald.std_errors["treatment"]],
        rtol=1e-9,
    )


def test_valid_instrument_ate_without_covariates_is_the_wald_ratio(frame):
    est = fit(frame, covariates=[])
    table = est.comparators().set_index("term")
    np.testing.assert_allclose(
        table.loc["valid-instrument ATE", "estimate"], table.loc["2SLS", "estimate"], rtol=1e-9
    )
    np.testing.assert_allclose(
        table.loc["valid-instrument ATE", "std_error"], table.loc["2SLS", "std_error"], rtol=1e-9
    )


def test_every_cover_alone_agrees_without_covariates(frame):
    table = fit(frame, covariates=[]).comparators().set_index("term")
    for cover in ("M1 only", "M2 only", "M3 only", "M4 only"):
        np.testing.assert_allclose(
            table.loc[cover, "estimate"], table.loc["ATE", "estimate"], rtol=1e-9
        )
        np.testing.assert_allclose(
            table.loc[cover, "std_error"], table.loc["ATE", "std_error"], rtol=1e-8
        )


def test_trim_drop_averages_over_the_kept_rows_only():
    data, _ = make_invalid_iv(2000, random_state=9)
    trimmed = MultiplyRobustATE(trim="drop", clip=0.3, min_variance_shift=0.1)
    with pytest.warns(OverlapWarning, match=r"clipping range for 35\.0% of rows"):
        est = trimmed.fit(data, "y", **ROLES)
    nu = est.nuisances_
    kept = ~(nu.floored | nu.clipped)
    assert 100 < kept.sum() < 1900
    np.testing.assert_allclose(est.estimates_.estimate[0], est.scores_[kept].mean(), rtol=1e-12)
    assert f"{(~kept).sum():,} rows were left out" in str(est.summary())
    whole = est.gate(np.zeros(2000, dtype=int))
    np.testing.assert_allclose(whole.estimate[0], est.estimates_.estimate[0], rtol=1e-12)


def test_pickle_is_small_and_refit_is_idempotent(frame, base):
    import pickle

    size = len(pickle.dumps(base))
    assert size < 1_000_000 + 40 * len(frame) * 8
    again = base.fit(frame, "y", **ROLES)
    assert again.estimates_ == pickle.loads(pickle.dumps(base)).estimates_


def bounded_study(n, seed):
    g = np.random.default_rng(seed)
    x, u = g.uniform(-1, 1, n), g.uniform(-1, 1, n)
    z = (g.uniform(size=n) < 0.5).astype(float)
    a = (g.uniform(size=n) < np.where(z > 0, 0.5, 0.1) + 0.08 * u).astype(float)
    beta = np.tanh(0.2 + 0.2 * x)
    y = (g.uniform(size=n) < 0.35 + beta * a + 0.1 * z + 0.15 * u).astype(float)
    return x[:, None], y, a, z, beta.mean()


def test_bounded_effect_of_a_binary_outcome():
    X, y, a, z, truth = bounded_study(40_000, 1)
    bounded = MultiplyRobustATE(effect_link="tanh").fit(X, y, treatment=a, instrument=z)
    linear = MultiplyRobustATE().fit(X, y, treatment=a, instrument=z)
    for est in (bounded, linear):
        assert abs(est.estimates_.estimate[0] - truth) < 4 * est.estimates_.std_error[0]
    gap = bounded.estimates_.estimate - linear.estimates_.estimate
    assert np.all(np.abs(gap) < 0.2 * linear.estimates_.std_error)
    assert np.abs(bounded.nuisances_.beta).max() < 1.0


def test_bounded_effect_without_covariates_is_the_same_ratio():
    _, y, a, z, _ = bounded_study(3000, 2)
    none = np.empty((len(y), 0))
    one = MultiplyRobustATE(effect_link="tanh", clip=0).fit(none, y, treatment=a, instrument=z)
    two = MultiplyRobustATE(clip=0).fit(none, y, treatment=a, instrument=z)
    np.testing.assert_allclose(one.estimates_.estimate, two.estimates_.estimate, rtol=1e-9)
    np.testing.assert_allclose(one.estimates_.std_error, two.estimates_.std_error, rtol=1e-8)


def test_same_bits_for_any_number_of_threads():
    from threadpoolctl import threadpool_limits

    data, _ = make_invalid_iv(20_000, random_state=8)
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            found.append(fit(data).estimates_)
    assert found[0] == found[1]
