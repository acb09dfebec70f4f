"""Estimates: closed forms, invariances, every refusal."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from causalfair.exceptions import DataError, ParameterError, SmallSampleWarning
from causalfair.inference import (
    CovarianceEstimates,
    DrawEstimates,
    Estimates,
    InfluenceEstimates,
    RepeatedEstimates,
)


def means(Y: np.ndarray, names=None, **options) -> InfluenceEstimates:
    names = names or [f"m{j}" for j in range(Y.shape[1])]
    w = options.get("sample_weight")
    theta = np.average(Y, axis=0, weights=w)
    return InfluenceEstimates(theta, Y - theta, names, **options)


@pytest.fixture
def Y() -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.multivariate_normal([0, 1, 2], [[1, 0.5, 0], [0.5, 2, 0], [0, 0, 3]], size=400)


def test_mean_has_its_textbook_error(Y):
    est = means(Y)
    np.testing.assert_allclose(est.vcov, np.cov(Y, rowvar=False, bias=True) / 400, atol=1e-15)
    small = means(Y, small_sample=True)
    np.testing.assert_allclose(small.vcov, np.cov(Y, rowvar=False) / 400, atol=1e-15)
    half = stats.norm.ppf(0.975) * est.std_error
    np.testing.assert_allclose(
        est.conf_int(), np.column_stack([est.estimate - half, est.estimate + half]), atol=1e-12
    )
    np.testing.assert_allclose(
        est.p_value(), 2 * stats.norm.sf(np.abs(est.estimate / est.std_error)), rtol=1e-10
    )


def test_singleton_clusters_equal_independent_rows_with_the_factor(Y):
    est = means(Y, cluster=np.arange(400))
    np.testing.assert_allclose(est.vcov, means(Y).vcov * 400 / 399, rtol=1e-12)


def test_cluster_errors_equal_statsmodels(Y):
    import statsmodels.api as sm

    groups = np.repeat(np.arange(80), 5)
    fit = sm.OLS(Y[:, 0], np.ones(400)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    est = means(Y[:, :1], cluster=groups)
    assert est.std_error[0] == pytest.approx(fit.bse[0] * np.sqrt(80 / 79), rel=1e-12)


def test_two_way_clusters_equal_inclusion_and_exclusion_by_hand(Y):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 40, 400), rng.integers(0, 50, 400)
    est = means(Y, cluster=np.column_stack([a, b]))
    both = np.unique(np.column_stack([a, b]), axis=0, return_inverse=True)[1].reshape(-1)
    want = means(Y, cluster=a).vcov + means(Y, cluster=b).vcov - means(Y, cluster=both).vcov
    np.testing.assert_allclose(est.vcov, want, rtol=1e-12)
    nested = means(Y, cluster=np.column_stack([np.repeat(np.arange(80), 5), np.arange(400)]))
    np.testing.assert_allclose(
        nested.vcov, means(Y, cluster=np.repeat(np.arange(80), 5)).vcov, rtol=1e-12
    )


def test_multiway_covariance_that_is_not_one_is_repaired_with_a_warning():
    a, b = np.repeat([0, 1], 2), np.tile([0, 1], 2)
    psi = np.array([[1.0], [-1.0], [-1.0], [1.0]])
    with pytest.warns(SmallSampleWarning, match="Only 2 clusters"):
        est = InfluenceEstimates([0.0], psi, ["a"], cluster=np.c_[a, b])
    with pytest.warns(SmallSampleWarning, match="not positive semi-definite"):
        vcov = est.vcov
    assert vcov[0, 0] == 0


def test_integer_weights_equal_replication_clustered_by_row(Y):
    counts = np.random.default_rng(0).integers(1, 4, 400)
    weighted = means(Y, sample_weight=counts * 400 / counts.sum())
    rows = np.repeat(np.arange(400), counts)
    replicated = means(Y[rows], cluster=rows)
    np.testing.assert_allclose(weighted.estimate, replicated.estimate, rtol=1e-12)
    np.testing.assert_allclose(weighted.vcov * 400 / 399, replicated.vcov, rtol=1e-10)


def test_few_clusters_use_t_and_warn(Y):
    with pytest.warns(SmallSampleWarning, match="Only 10 clusters"):
        est = means(Y, cluster=np.repeat(np.arange(10), 40))
    assert est.df == 9
    width = np.diff(est.conf_int())[:, 0]
    np.testing.assert_allclose(width, 2 * stats.t.ppf(0.975, 9) * est.std_error, rtol=1e-10)
    np.testing.assert_allclose(est.p_value(), 2 * stats.t.sf(np.abs(est.statistic()), 9), rtol=1e-8)


@settings(max_examples=30)
@given(
    arrays(np.float64, (12, 2), elements=st.floats(-10, 10)),
    st.floats(0.1, 50),
    st.permutations(range(12)),
)
def test_scaling_and_row_order(Y, scale, order):
    est, scaled, moved = means(Y), means(scale * Y), means(Y[list(order)])
    np.testing.assert_allclose(scaled.std_error, scale * est.std_error, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(moved.vcov, est.vcov, rtol=1e-8, atol=1e-12)


def test_influence_must_have_mean_zero(Y):
    with pytest.raises(DataError, match="influence column 0 has mean 1"):
        InfluenceEstimates([0.0], np.ones((5, 1)), ["a"])
    with pytest.raises(DataError, match="shape"):
        InfluenceEstimates([0.0, 1.0], np.zeros((5, 1)), ["a", "b"])
    with pytest.raises(DataError, match="1 names for 2"):
        InfluenceEstimates([0.0, 1.0], np.zeros((5, 2)), ["a"])


def test_contrasts_and_arithmetic_are_linear_algebra(Y):
    est = means(Y, sample_id="s")
    d = est.contrast({"m1": 1, "m0": -1}, name="gap")
    gap = Y[:, 1] - Y[:, 0]
    assert d.names == ("gap",)
    assert d.estimate[0] == pytest.approx(gap.mean())
    assert d.std_error[0] == pytest.approx(gap.std() / 20)
    minus = est["m1"] - est["m0"]
    assert minus.std_error[0] == pytest.approx(d.std_error[0])
    assert minus.names == ("m1 - m0",)
    np.testing.assert_allclose((2 * est + est / 2).estimate, 2.5 * est.estimate)
    np.testing.assert_allclose((1 - est).estimate, 1 - est.estimate)
    np.testing.assert_allclose((est - 1).vcov, est.vcov)
    with pytest.raises(KeyError, match="no term 'm9'"):
        est["m9"]
    with pytest.raises(DataError, match="cannot combine 3"):
        est - est["m0"]


def test_other_samples_must_be_declared(Y):
    a, b = means(Y, sample_id="s"), means(Y + 1, sample_id="t")
    with pytest.raises(DataError, match="independent=True"):
        a - b
    joint = a["m0"].combine(b["m1"], independent=True)
    assert joint.vcov[0, 1] == 0
    with pytest.raises(DataError, match="same rows, so they are not independent"):
        a.combine(a, independent=True)
    unknown = means(Y)
    with pytest.raises(DataError, match="not known to come from the same rows"):
        unknown + means(Y)
    with pytest.raises(DataError, match="clustered differently"):
        a - means(Y, sample_id="s", cluster=np.repeat(np.arange(40), 10))


def test_delta_method_is_exact_for_its_jacobian(Y):
    est = means(Y + 5)
    ratio = est.transform(lambda t: t[1] / t[0], ["ratio"])
    t = est.estimate
    jac = np.array([[-t[1] / t[0] ** 2, 1 / t[0], 0]])
    np.testing.assert_allclose(ratio.vcov, jac @ est.vcov @ jac.T, rtol=1e-8)
    given_jacobian = est.transform(lambda t: t[1] / t[0], ["ratio"], jac=lambda _: jac)
    np.testing.assert_allclose(given_jacobian.vcov, jac @ est.vcov @ jac.T, rtol=1e-12)


def test_joint_wald(Y):
    est = means(Y)
    gap = est.estimate - 1
    want = gap @ np.linalg.solve(est.vcov, gap)
    test = est.test(null=1)
    assert test.statistic == pytest.approx(want, rel=1e-8)
    assert test.p_value == pytest.approx(stats.chi2.sf(want, 3), rel=1e-6)
    assert test.df == 3
    doubled = Estimates.concat([means(Y, sample_id="s"), means(Y, sample_id="s")])
    assert doubled.test(null=1).df == 3
    assert doubled.test(null=1).statistic == pytest.approx(want, rel=1e-6)


def test_equivalence(Y):
    one = means(Y)["m0"]
    test = one.equivalence_test(-1, 1)
    lower = stats.norm.sf((one.estimate[0] + 1) / one.std_error[0])
    upper = stats.norm.sf((1 - one.estimate[0]) / one.std_error[0])
    assert test.p_value == pytest.approx(max(lower, upper), rel=1e-8)
    with pytest.raises(ParameterError, match="select one"):
        means(Y).equivalence_test(-1, 1)
    with pytest.raises(ParameterError, match="must be below"):
        one.equivalence_test(1, -1)


def test_simultaneous_band_is_wider_than_pointwise_and_narrower_than_bonferroni(Y):
    est = means(Y)
    band = np.diff(est.conf_int(simultaneous=True))[:, 0] / (2 * est.std_error)
    assert np.ptp(band) < 1e-12
    assert stats.norm.ppf(0.975) < band[0] < stats.norm.ppf(1 - 0.025 / 3) + 0.05
    # The normal law of the same covariance gives the same band up to Monte-Carlo error.
    normal = np.diff(est.drop_influence().conf_int(simultaneous=True))[:, 0] / (2 * est.std_error)
    np.testing.assert_allclose(normal, band, rtol=0.02)


def test_repeated_splits_follow_the_definition(Y):
    members = [means(Y + shift) for shift in (0.0, 0.1, 0.5)]
    rep = RepeatedEstimates(members)
    np.testing.assert_allclose(rep.estimate, members[1].estimate)
    spread = [m.std_error**2 + (m.estimate - rep.estimate) ** 2 for m in members]
    np.testing.assert_allclose(rep.std_error**2, np.median(spread, axis=0))
    mean = RepeatedEstimates(members, "mean")
    np.testing.assert_allclose(mean.estimate, np.mean([m.estimate for m in members], axis=0))
    gap = rep.contrast({"m1": 1, "m0": -1})
    assert gap.std_error[0] == pytest.approx(members[0].contrast({"m1": 1, "m0": -1}).std_error[0])
    assert np.linalg.eigvalsh(rep.vcov)[0] >= 0
    assert rep.conf_int(simultaneous=True).shape == (3, 2)
    with pytest.raises(ParameterError, match="aggregate='max'"):
        RepeatedEstimates(members, "max")
    with pytest.raises(DataError, match="members is empty"):
        RepeatedEstimates([])


def test_repeated_splits_join_member_by_member(Y):
    a = RepeatedEstimates([means(Y + s, sample_id="s") for s in (0.0, 0.1, 0.5)])
    b = means(Y, sample_id="s")
    gap = a["m0"] - b["m0"]
    assert gap.estimate[0] == pytest.approx(0.1)
    assert gap.std_error[0] == pytest.approx(0.1)  # the splits' spread is all there is


def test_draws(Y):
    est = DrawEstimates(Y, ["a", "b", "c"])
    np.testing.assert_allclose(est.estimate, Y.mean(axis=0))
    np.testing.assert_allclose(est.std_error, Y.std(axis=0, ddof=1))
    np.testing.assert_allclose(est.conf_int(0.9), np.quantile(Y, [0.05, 0.95], axis=0).T)
    np.testing.assert_allclose(est.probability(1.0), (Y > 1).mean(axis=0))
    squared = est.transform(lambda t: t**2, ["a2", "b2", "c2"])
    np.testing.assert_allclose(squared.draws, Y**2)
    np.testing.assert_allclose((est["a"] + est["b"]).draws[:, 0], Y[:, 0] + Y[:, 1])
    np.testing.assert_allclose(est.p_value(null=100), 1 / len(Y))
    for bad in (np.full((5, 1), np.nan), np.zeros((1, 1))):
        with pytest.raises(DataError, match="draws has"):
            DrawEstimates(bad, ["a"])


def test_a_term_held_fixed_is_not_tested(Y):
    est = DrawEstimates(np.column_stack([Y[:, 0], np.full(len(Y), 0.1)]), ["a", "fixed"])
    assert est.std_error[1] == 0
    assert np.isnan(est.p_value()[1])
    assert np.isfinite(est.p_value()[0])
    assert np.isnan(est.p_adjust("holm")[1])
    line = next(row for row in str(est).splitlines() if "fixed" in row)
    assert line.rstrip().endswith("]")


def test_highest_density_interval_is_the_shortest():
    draws = np.random.default_rng(0).exponential(size=2000)
    hdi = DrawEstimates(draws, ["a"], interval="hdi").conf_int(0.9)[0]
    tails = DrawEstimates(draws, ["a"]).conf_int(0.9)[0]
    assert hdi[1] - hdi[0] < tails[1] - tails[0]
    assert ((draws >= hdi[0]) & (draws <= hdi[1])).mean() >= 0.9
    assert hdi[0] < 0.02


def test_tidy_frame(Y):
    frame = means(Y).to_frame()
    assert list(frame.columns) == [
        "term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high",
    ]  # fmt: skip
    assert isinstance(frame, pd.DataFrame)
    assert isinstance(means(Y).to_frame(native="polars"), pl.DataFrame)
    table = means(Y).__maketables_coef_table__
    assert list(table.columns) == ["b", "se", "t", "p", "ci95l", "ci95u"]


def test_immutable_picklable_and_printable(Y):
    est = means(Y)
    with pytest.raises(ValueError, match="read-only"):
        est.estimate[0] = 1
    with pytest.raises(AttributeError):
        est.cluster = None
    assert pickle.loads(pickle.dumps(est)) == est
    assert est != means(Y + 1)
    light = est.drop_influence()
    assert light.influence is None
    np.testing.assert_array_equal(light.vcov, est.vcov)
    assert "m0" in repr(est)
    assert "<table" in est._repr_html_()
    assert str(est.test()) == repr(est.test())


def test_selecting_a_term_leaves_the_missing_ones_behind():
    vcov = np.full((2, 2), np.nan)
    vcov[0, 0] = 4.0
    both = CovarianceEstimates([1.0, 2.0], vcov, ["known", "unknown"])
    assert both["known"].std_error.tolist() == [2.0]
    assert both.contrast({"known": -1.0}).std_error.tolist() == [2.0]
    assert both["known"].with_names(["a"]).names == ("a",)
    assert "does not apply" in str(both.test())
    assert both["known"].test().p_value == pytest.approx(0.6170750774519738)


def test_a_name_that_two_terms_share_names_neither(Y):
    twice = means(Y)[["m0", "m1"]].with_names(["a", "a"])
    with pytest.raises(ParameterError, match="2 terms are called 'a'.*with_names"):
        twice["a"]
    with pytest.raises(ParameterError, match="contrast got no weights"):
        means(Y).contrast({})


def test_numpy_numbers_on_the_left_and_products_of_estimates(Y):
    est = means(Y)
    assert np.float64(2.0) * est == est * 2
    assert np.float64(2.0) - est == -est + 2
    assert np.arange(len(est)) - est == -est + np.arange(len(est))
    for other in (est, None, np.arange(len(est))):
        with pytest.raises(TypeError, match="operand"):
            est * other
        with pytest.raises(TypeError, match="operand"):
            est / other


def test_the_scale_of_weights_does_not_matter(Y):
    w = np.random.default_rng(4).random(len(Y)) + 0.5
    one, seven = means(Y, sample_weight=w), means(Y, sample_weight=7 * w)
    np.testing.assert_allclose(seven.std_error, one.std_error, rtol=1e-12)
    by_hand = np.sqrt((w / w.mean()) ** 2 @ (Y[:, 0] - one.estimate[0]) ** 2) / len(Y)
    assert one.std_error[0] == pytest.approx(by_hand, rel=1e-12)
    for bad in (-w, np.zeros(len(Y)), w[1:], np.full(len(Y), np.nan)):
        with pytest.raises(DataError, match="must be finite and non-negative"):
            InfluenceEstimates([0.0], np.zeros((len(Y), 1)), ["a"], sample_weight=bad)


def test_few_clusters_widen_simultaneous_bands_too(Y):
    with pytest.warns(SmallSampleWarning):
        est = means(Y, cluster=np.arange(len(Y)) % 12)
    pointwise = est.critical_value()
    assert pointwise == pytest.approx(stats.t.ppf(0.975, 11))
    assert pointwise < est.critical_value(simultaneous=True) < stats.t.ppf(1 - 0.025 / 3, 11) + 0.1
    one = est["m1"]
    assert one.critical_value(simultaneous=True) == one.critical_value()
    null = np.array([0.3, 1.0, 2.0])
    adjusted, plain = est.p_adjust(null=null), est.p_value(null)
    assert (adjusted >= plain).all()
    assert (adjusted <= np.minimum(3.2 * plain, 1.0)).all()


def test_critical_values(Y):
    est = means(Y)
    assert est.critical_value() == pytest.approx(1.959963984540054)
    low, high = est.conf_int(0.9)[0]
    assert high - low == pytest.approx(2 * est.critical_value(0.9) * est.std_error[0])
    assert est.critical_value(simultaneous=True) > est.critical_value()
    with pytest.raises(ParameterError, match="level=95"):
        est.critical_value(95)


def test_hooks_for_tables_of_models(Y):
    est = means(Y)
    assert est.__maketables_stat__("N") == len(Y)
    assert est.__maketables_stat__("r2") is None
    assert est.__maketables_default_stat_keys__ == ["N"]
    assert est.__maketables_vcov_info__ == {"vcov_type": "influence function"}
    light = est.drop_influence()
    assert light.__maketables_default_stat_keys__ == []
    assert light.__maketables_vcov_info__ == {"vcov_type": "covariance"}
    rows = [est.__maketables_coef_table__.loc["m0", c] for c in ("b", "se", "ci95l")]
    np.testing.assert_array_equal(rows, [est.estimate[0], est.std_error[0], est.conf_int()[0, 0]])


def test_covariance_estimates_check_shapes():
    with pytest.raises(DataError, match=r"vcov has shape \(1, 1\)"):
        CovarianceEstimates([1.0, 2.0], [[1.0]], ["a", "b"])
    est = CovarianceEstimates([1.0], [[4.0]], ["a"], df=5)
    assert est.conf_int()[0, 1] == pytest.approx(1 + 2 * stats.t.ppf(0.975, 5))
