"""Post-estimation methods: bands, lines, reports and plots."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from causalfair.datasets import make_invalid_iv
from causalfair.iv import MultiplyRobustATE

mpl.use("Agg")
import matplotlib.pyplot as plt

ROLES = {"treatment": "treatment", "instrument": "instrument", "covariates": ["x1", "x2"]}


@pytest.fixture(scope="module")
def frame():
    return make_invalid_iv(6000, random_state=21)


@pytest.fixture(scope="module")
def est(frame):
    return MultiplyRobustATE().fit(frame[0], "y", **ROLES)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_best_linear_projection_finds_the_effect_function(frame, est):
    found = est.best_linear_projection(frame[0][["x1", "x2"]])
    truth = np.array([1.0, 1.5, -1.5])
    assert found.names == ("Intercept", "x1", "x2")
    assert np.all(np.abs(found.estimate - truth) < 4 * found.std_error)
    constant = est.best_linear_projection(
        frame[0][["x1"]].assign(x1=frame[0].x1 > 2), covariates=[]
    )
    np.testing.assert_allclose(constant.estimate, est.estimates_.estimate[:1], rtol=1e-10)


def test_cate_band_is_the_projection_with_wider_uniform_intervals(frame, est):
    at = pd.DataFrame({"x1": np.linspace(-1, 1, 21), "x2": 0.0})
    band = est.cate(frame[0][["x1", "x2"]], at=at)
    coef = est.best_linear_projection(frame[0][["x1", "x2"]]).estimate
    np.testing.assert_allclose(band.effect, coef[0] + coef[1] * at.x1, rtol=1e-10)
    table = band.to_frame()
    assert (table.band_low < table.conf_low).all()
    assert (table.band_high > table.conf_high).all()
    half = (table.band_high - table.estimate) / table.std_error
    np.testing.assert_allclose(half, half.iloc[0])
    # Two coefficients in play: between the pointwise and the Scheffe quantile.
    assert 1.96 < half.iloc[0] < np.sqrt(5.991464547107979) + 0.05
    assert "Effect over 21 rows" in str(band)


def test_cate_takes_a_formula_and_shows_the_users_columns(frame, est):
    at = pd.DataFrame({"x1": np.linspace(-0.9, 0.9, 7)})
    band = est.cate(frame[0], at=at, covariates="~ bs(x1, df=4)")
    assert list(band.frame.columns[:2]) == ["x1", "estimate"]
    np.testing.assert_array_equal(band.frame["x1"], at["x1"])
    assert abs(band.effect[3] - 1.0) < 5 * band.frame["std_error"][3]
    axes = band.plot()
    assert axes.get_xlabel() == "x1"


def test_gates_average_to_the_whole(frame, est):
    groups = np.where(frame[0].x1 > 0.3, "high", "low")
    found = est.gate(groups)
    share = [(groups == name).mean() for name in found.names]
    np.testing.assert_allclose(
        np.dot(share, found.estimate), est.estimates_.estimate[0], rtol=1e-10
    )
    as_weight = est.weighted_effect(groups == "high")
    np.testing.assert_allclose(as_weight.estimate[0], found["high"].estimate[0], rtol=1e-10)
    np.testing.assert_allclose(as_weight.std_error[0], found["high"].std_error[0], rtol=1e-10)


def test_att_is_near_the_truth(frame, est):
    found = est.att()
    assert abs(found.estimate[0] - frame[1]["att"]) < 4 * found.std_error[0]


@pytest.mark.parametrize("kind", ["covariance", "modification"])
def test_sensitivity_line(est, kind):
    report = est.sensitivity([0.0, 0.1], kind=kind)
    table = report.to_frame()
    np.testing.assert_allclose(table.estimate[0], est.estimates_.estimate[0])
    np.testing.assert_allclose(table.std_error[0], est.estimates_.std_error[0])
    slope = (table.estimate[1] - table.estimate[0]) / 0.1
    nu = est.nuisances_
    plug_in = -np.mean(1 / nu.D) if kind == "covariance" else np.mean(1 / (1 - nu.lam0 - nu.lam1))
    assert abs(slope / plug_in - 1) < 0.2
    at_zero = est.sensitivity(report.breakdown.zero, kind=kind).to_frame()
    assert abs(at_zero.estimate[0]) < 1e-12
    edge = est.sensitivity(report.breakdown.interval, kind=kind).to_frame()
    assert min(abs(edge.conf_low[0]), abs(edge.conf_high[0])) < 1e-9
    assert abs(report.breakdown.interval) < abs(report.breakdown.zero)
    assert ("correlation" in table) == (kind == "covariance")


def test_violating_the_condition_moves_the_estimate_by_delta_over_D():
    # Z x U interaction in the outcome: omega_1 - omega_0 = delta, known.
    g = np.random.default_rng(0)
    n = 200_000
    z = g.integers(0, 2, n)
    u = g.uniform(-1, 1, n)
    a = (g.uniform(size=n) < np.where(z == 1, 0.4, 0.12) + 0.1 * u).astype(float)
    gap = 3.0
    y = a + (2 + gap * z) * u + g.normal(size=n)
    est = MultiplyRobustATE().fit(np.empty((n, 0)), y, treatment=a, instrument=z)
    delta = 0.1 * gap / 3
    corrected = est.sensitivity(delta).to_frame()
    assert corrected.conf_low[0] < 1.0 < corrected.conf_high[0]
    assert not est.conf_int()[0, 0] < 1.0 < est.conf_int()[0, 1]


def test_reports_print_within_88_columns(frame, est):
    reports = [est.relevance(), est.overlap(), est.leverage(), est.exclusion_tests(),
               est.sensitivity(), est.cate(frame[0][["x1"]]), est.summary()]  # fmt: skip
    for report in reports:
        text = str(report)
        assert max(map(len, text.splitlines())) <= 88
        assert "<" in report._repr_html_()
        assert repr(report) == text


def test_tables_of_reports(est):
    assert set(est.relevance().to_frame()) == {"statistic", "value"}
    assert list(est.exclusion_tests().to_frame().term) == [
        "direct effect", "valid-instrument ATE - ATE"]  # fmt: skip
    rows = est.leverage(7).to_frame()
    assert len(rows) == 7
    assert rows.share.is_monotonic_decreasing
    balance = est.overlap().balance.set_index("covariate")
    assert (balance.after.abs() < balance.before.abs()).all()
    assert balance.before["x1"] > 0.4


def test_direct_effect_is_a_term(est):
    assert est.direct_effect().estimate[0] == est.estimates_["direct effect"].estimate[0]


def test_plots(est):
    assert est.plot_sensitivity().get_ylabel() == "average effect"
    axes = est.plot_overlap()
    assert axes.get_xlabel() == "P(instrument = 1 | covariates)"
    assert all("instrument" in t.get_text() for t in axes.get_legend().get_texts())
    assert est.plot() is not None
    _, mine = plt.subplots()
    assert est.sensitivity(kind="modification").plot(ax=mine) is mine


def test_citation_is_known(est):
    assert "sun2022selective" in est.cite().bibtex()


def test_a_comparator_without_solution_is_shown_as_missing(frame, monkeypatch):
    from causalfair.exceptions import IdentificationError
    from causalfair.iv import _parametric

    solve = _parametric.fit_outcome

    def fails_for_m2(design, first, moments):
        if moments == _parametric.COVERS["M2: treatment, effect, confounding"]:
            raise IdentificationError("singular")
        return solve(design, first, moments)

    monkeypatch.setattr(_parametric, "fit_outcome", fails_for_m2)
    est = MultiplyRobustATE().fit(frame[0], "y", **ROLES)
    table = est.comparators().set_index("term")
    assert np.isnan(table.loc["M2 only", "estimate"])
    assert table.loc["M2 only", "rests_on"].endswith("(no solution)")
    assert np.isfinite(table.drop("M2 only")["estimate"]).all()
    assert "n/a" in str(est.summary())


def test_relevance_statistics_match_statsmodels_without_covariates(frame):
    import statsmodels.api as sm
    from statsmodels.stats.diagnostic import het_breuschpagan

    data = frame[0]
    est = MultiplyRobustATE(clip=0).fit(data, "y", **{**ROLES, "covariates": []})
    z = sm.add_constant(data.instrument.to_numpy())
    first = sm.OLS(data.treatment, z).fit(cov_type="HC0")
    statistic, p_value, *_ = het_breuschpagan(first.resid, z, robust=True)
    found = est.relevance().statistics
    np.testing.assert_allclose(found.breusch_pagan, statistic, rtol=1e-9)
    np.testing.assert_allclose(found.breusch_pagan_p, p_value, rtol=1e-6)
    # The score form of the first-stage F: residuals under no effect of the instrument.
    assert abs(found.first_stage_f / first.tvalues.iloc[1] ** 2 - 1) < 0.15
    np.testing.assert_allclose(found.variance1, np.var(data.treatment[data.instrument == 1]))


def test_clusters_and_weights_reach_every_answer(frame):
    data = frame[0][:3000]
    groups = np.arange(3000) // 6
    weight = 1.0 + (data.x1 > 0)
    est = MultiplyRobustATE().fit(data, "y", **ROLES, cluster=groups, sample_weight=weight)
    plain = MultiplyRobustATE().fit(data, "y", **ROLES)
    for name in ("att", "constant_effect", "direct_effect"):
        one, two = getattr(est, name)(), getattr(plain, name)()
        assert one.estimate[0] != two.estimate[0]
        assert one.n_clusters == 500
    assert est.robust_set() != plain.robust_set()
    assert "clusters: 500" in str(est.summary())
    assert "sampling weights" in str(est.summary())
    joint = est.gate(data.x1 > 0)
    wide = np.diff(joint.conf_int(simultaneous=True))
    assert (wide > np.diff(joint.conf_int())).all()
