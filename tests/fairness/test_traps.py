"""Mistakes people make, and corners where an honest answer is "not estimable"."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency

from causalfair.datasets import make_weak_proxies
from causalfair.exceptions import (
    CausalFairWarning,
    DataError,
    ParameterError,
    SmallSampleWarning,
    WeakIdentificationWarning,
)
from causalfair.fairness import (
    PostProcessor,
    ProxyFairness,
    group_means,
    group_roc,
    randomized_response,
)
from causalfair.fairness._metrics import METRICS, gap_values, group_metric
from causalfair.fairness._profile import reference_df, strata_test
from causalfair.fairness._simulate import _DESIGNS, population_tensor

PROXIES = ["proxy_1", "proxy_2", "proxy_3"]
GAP = "demographic_parity"
P, H, T = _DESIGNS["heterogeneous"]


@pytest.fixture(scope="module")
def frame():
    return make_weak_proxies(6000, random_state=1)[0]


@pytest.fixture(scope="module")
def X(frame):
    return frame[PROXIES].to_numpy()


@pytest.fixture(scope="module")
def audit(X, frame):
    return ProxyFairness(random_state=0).fit(X, frame["y_pred"], y_true=frame["y_true"])


def fit(X, y_pred, y_true=None, sensitive_features=None, **options):
    return ProxyFairness(random_state=0, **options).fit(
        X, y_pred, y_true=y_true, sensitive_features=sensitive_features
    )


class TestCoding:
    def test_proxies_coded_from_one(self, X, frame):
        with pytest.raises(DataError, match=r"never takes the level 0 \(it takes 1, 2\).*recode"):
            fit(X + 1, frame["y_pred"])

    @pytest.mark.parametrize("name", ["y_pred", "y_true"])
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda y: y + 1, "has the level 2, but never the level 0"),
            (lambda y: 5 * y, "never the level 1"),
            (lambda y: 10**9 * y, "never the level 1"),
            (lambda y: 0 * y, r"takes one value \(0\)"),
        ],
    )
    def test_decisions_and_labels_with_holes(self, X, frame, name, change, message):
        values = {"y_pred": frame["y_pred"], "y_true": frame["y_true"]}
        values[name] = change(values[name])
        with pytest.raises(DataError, match=f"{name}.*{message}"):
            fit(X, values["y_pred"], values["y_true"])

    def test_a_proxy_given_twice_under_other_labels(self, X, frame):
        with pytest.raises(DataError, match="the same but for the names of their levels"):
            fit(np.column_stack([X, 1 - X[:, 0]]), frame["y_pred"])

    def test_missing_proxies_have_a_code(self, frame):
        holes = frame.assign(proxy_2=frame["proxy_2"].where(frame["proxy_2"] == 1))
        with pytest.raises(DataError, match=r"'proxy_2' has \d+ missing.*fillna\(-1\)"):
            ProxyFairness().fit(holes, "y_pred", proxies=PROXIES)

    def test_a_level_far_beyond_the_others(self, X, frame):
        with pytest.raises(DataError, match="level 2000000, but takes only 3 levels"):
            fit(np.where(np.arange(len(X))[:, None] == 0, 2_000_000, X), frame["y_pred"])

    def test_proxies_too_fine_for_a_dense_table_start_without_moments(self, monkeypatch):
        from causalfair.fairness import _models

        people, _ = make_weak_proxies(20_000, random_state=0)
        want = fit(people[PROXIES], people["y_pred"]).joint_
        monkeypatch.setattr(_models, "MAX_DENSE_CELLS", 7)
        monkeypatch.setattr(_models, "diagonalise", None)  # would be called on a dense table
        np.testing.assert_allclose(fit(people[PROXIES], people["y_pred"]).joint_, want, atol=1e-8)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"transition": [[[0.8, 0.2], [0.3]]]}, "not a table of numbers"),
            ({"transition": [[["a", "b"], ["c", "d"]]]}, "not a table of numbers"),
        ],
    )
    def test_matrices_that_are_no_matrices(self, X, frame, options, message):
        with pytest.raises(ParameterError, match=message):
            fit(X[:, :1], frame["y_pred"], model="known", **options)

    def test_counts_that_are_no_counts(self):
        with pytest.raises(DataError, match="array of counts"):
            ProxyFairness.from_counts("abc")
        with pytest.raises(ParameterError, match="one True or False for each of the 3"):
            ProxyFairness.from_counts(np.ones((2, 1, 2, 2, 2)), missing=True)


class TestArguments:
    def test_factors_stand_alone(self, X, frame):
        six = np.column_stack([X, make_weak_proxies(6000, random_state=5)[0][PROXIES]])
        factors = {"n_groups": 4, "factors": (2, 2), "proxy_factor": (0, 0, 0, 1, 1, 1)}
        with pytest.raises(ParameterError, match="factors= needs model='joint'"):
            fit(six, frame["y_pred"], model="local", **factors)
        with pytest.raises(ParameterError, match="cannot be combined with prevalence="):
            fit(six, frame["y_pred"], prevalence=[0.25] * 4, **factors)
        with pytest.raises(ParameterError, match="no sensitive_features"):
            fit(six, frame["y_pred"], sensitive_features=frame["group"], **factors)

    def test_posterior(self, audit, X):
        with pytest.raises(DataError, match="lengths differ"):
            audit.posterior(X, [0, 1], allow_individual=True)
        with pytest.raises(ParameterError, match="y_pred has the level 5"):
            audit.posterior(X, np.full(6000, 5), allow_individual=True)

    @pytest.mark.parametrize("n_bootstrap", [-1, 0, 1, 99])
    def test_too_few_draws(self, audit, n_bootstrap):
        for interval in ("bootstrap", "bca"):
            with pytest.raises(ParameterError, match="too few for an interval"):
                audit.disparity(GAP, interval=interval, n_bootstrap=n_bootstrap)
        with pytest.raises(ParameterError, match="at least 1"):
            audit.bootstrap(0)

    def test_sensitivity(self, audit):
        assert len(audit.sensitivity(gamma=0.1)) == 1
        with pytest.raises(ParameterError, match="one value or more"):
            audit.sensitivity(gamma=[])
        with pytest.raises(ParameterError, match=r"decision=7 must be one of 0\.\.1"):
            audit.sensitivity(decision=7)

    def test_scores(self, audit, X, frame):
        loss = frame["y_true"].to_numpy(float)
        with pytest.raises(DataError, match="y_pred has the level 3"):
            group_means(audit, X, loss, frame["y_pred"] + 2, frame["y_true"])
        with pytest.raises(DataError, match="lengths differ"):
            group_means(audit, X, loss, frame["y_pred"], frame["y_true"][:5])
        with pytest.raises(DataError, match="0 or 1 in every row"):
            group_roc(fit(X, frame["y_pred"]), X, loss, frame["y_pred"], loss + 1)

    def test_others(self, audit):
        with pytest.raises(ParameterError, match="metric must be one of.*None"):
            audit.disparity(None)
        with pytest.raises(ParameterError, match="positive number"):
            randomized_response([0, 1], "a lot")
        with pytest.raises(ParameterError, match="takes a fitted ProxyFairness; got str"):
            PostProcessor().fit("audit")


@pytest.fixture(scope="module")
def rare():
    """Three groups, the last with an estimated six rows."""
    sharp = [0.9 * np.eye(3) + 0.1 / 3] * 2 + [0.8 * np.eye(3) + 0.2 / 3]
    shares = np.array([0.6, 0.397, 0.003])
    N = 2000 * population_tensor(shares, _DESIGNS["three_groups"][1], sharp)
    with (
        pytest.warns(SmallSampleWarning, match="group 2"),
        pytest.warns(WeakIdentificationWarning),
    ):
        return ProxyFairness.from_counts(N, 3, random_state=0)


class TestComparisonsThatCannotBeMade:
    def test_rates_are_nan(self, rare):
        assert np.isnan(rare.group_rates_).tolist() == [[False] * 2, [False] * 2, [True] * 2]
        assert np.isnan(rare.rates_by_label_[:, 2]).all()

    @pytest.mark.parametrize("interval", ["delta", "bootstrap", "bca", "profile"])
    def test_the_other_comparison_stays(self, rare, interval):
        gaps = rare.disparity(GAP, interval=interval, n_bootstrap=200)
        assert np.isnan(gaps.estimate).tolist() == [False, True, True]
        assert np.isnan(gaps.p_value()).tolist() == [False, True, True]
        assert np.isnan(gaps.conf_int()[:, 0]).tolist() == [False, True, True]
        band = gaps.conf_int(simultaneous=True)
        assert np.isfinite(band[0]).all()
        assert np.isnan(band[1:]).all()
        assert "fewer than 10" in gaps.reasons[2]
        assert np.isfinite(gaps["P(f=1): 1 - 0"].estimate[0])

    @pytest.mark.parametrize("kind", ["max", "mean"])
    def test_scalars_built_on_it_are_nan(self, rare, kind):
        scalar = rare.disparity(GAP, kind=kind)
        assert np.isnan(scalar.estimate[0])
        assert np.isnan(scalar.conf_int()).all()
        assert "group 2" in scalar.reasons[0]

    def test_headline_terms_can_be_selected_and_adjusted(self, rare):
        est = rare.estimates_
        assert est["P(f=1): 1 - 0"].estimate[0] == pytest.approx(0.15)
        assert "could not be estimated" in est.test().reason
        for method in ("romano-wolf", "holm", "bh"):
            adjusted = est.p_adjust(method)
            assert np.isnan(adjusted).tolist() == np.isnan(est.estimate).tolist()
            assert (adjusted[~np.isnan(adjusted)] < 0.01).sum() >= 2
        assert "n/a" in str(rare.report())


class TestRatios:
    def test_are_compared_with_one(self, audit):
        ratio = audit.disparity(GAP, kind="ratio")
        difference = audit.disparity(GAP)
        z = np.log(ratio.estimate) / (ratio.std_error / ratio.estimate)
        assert ratio.null == 1.0
        assert ratio.p_value()[0] < 1e-6
        low, high = ratio.conf_int()[0]
        assert low * high == pytest.approx(ratio.estimate[0] ** 2)
        assert np.log(high / low) / (2 * 1.959964) * z[0] == pytest.approx(
            np.log(ratio.estimate[0]), rel=1e-5
        )
        assert ratio.p_value(ratio.estimate[0])[0] == pytest.approx(1.0)
        assert difference.p_value()[0] < 1e-6

    def test_no_disparity_is_not_significant(self):
        N = 5000 * population_tensor(P, np.tile(H[0], (2, 1)), T)
        ratio = ProxyFairness.from_counts(N, random_state=0).disparity(GAP, kind="ratio")
        assert ratio.estimate[0] == pytest.approx(1.0)
        assert ratio.to_frame()["p_value"][0] > 0.99


class TestPerfectProxies:
    def test_every_metric_is_the_ordinary_one(self, frame):
        """One perfect proxy: the audit knows the group, so every gap is the one in the rows."""
        table = np.column_stack([frame["group"], frame[["proxy_2", "proxy_3"]]])
        known = [np.eye(2), None, None]
        fitted = fit(table, frame["y_pred"], frame["y_true"], model="known", transition=known)
        G = pd.crosstab([frame["y_pred"], frame["y_true"]], frame["group"], normalize=True)
        for metric in METRICS:
            want = gap_values(group_metric(metric, 2, 2), G.to_numpy(), "difference")
            np.testing.assert_allclose(fitted.disparity(metric).estimate, want, atol=1e-10)
            np.testing.assert_allclose(fitted.direct(0, metric).estimate, want, atol=1e-10)


class TestSampling:
    """Standard errors follow how the rows were sampled, in every table."""

    def test_copies_in_clusters_do_not_count(self, frame):
        hidden = make_weak_proxies(3000, missing=0.1, random_state=2)[0]
        roles = {"y_pred": "y_pred", "y_true": "y_true", "proxies": PROXIES}
        once = ProxyFairness(random_state=0).fit(hidden, **roles, cluster=np.arange(3000))
        copies = pd.concat([hidden, hidden], ignore_index=True)
        twice = ProxyFairness(random_state=0).fit(
            copies, **roles, cluster=np.tile(np.arange(3000), 2)
        )
        columns = ["std_error", "conf_low", "conf_high", "bound_low"]
        one, two = (a.compare().to_frame().set_index("method")[columns] for a in (once, twice))
        np.testing.assert_allclose(two.to_numpy(), one.to_numpy(), atol=1e-6)
        careless = ProxyFairness(random_state=0).fit(copies, **roles).compare().to_frame()
        assert (careless["std_error"].dropna() < 0.8 * one["std_error"].dropna().to_numpy()).all()

    def test_tests_that_need_independent_rows_say_so(self, frame):
        seen = np.where(np.arange(6000) < 600, frame["group"], -1)
        fitted = ProxyFairness(random_state=0).fit(
            frame[PROXIES],
            frame["y_pred"],
            sensitive_features=seen,
            cluster=np.arange(6000) // 2,
        )
        table = fitted.fit_tests().to_frame().set_index("test")
        assert "clustered" in table.loc["G2", "reason"]
        assert "clustered" in table.loc["audited", "reason"]

    def test_constant_weights_change_nothing(self, frame, audit):
        X = frame[PROXIES].to_numpy()
        heavy = ProxyFairness(random_state=0).fit(
            X, frame["y_pred"], y_true=frame["y_true"], sample_weight=np.full(6000, 2.5)
        )
        for kind in ("bounds", "compare"):
            one, two = (getattr(a, kind)().to_frame() for a in (audit, heavy))
            for column in ("conf_low", "conf_high"):
                np.testing.assert_allclose(two[column], one[column], atol=0.02)
        ends = [a.disparity(GAP, interval="bca").conf_int()[0] for a in (audit, heavy)]
        np.testing.assert_allclose(ends[1], ends[0], atol=0.01)

    def test_validation_counts_enter_every_interval(self, frame):
        fitted = ProxyFairness(transition_counts=[200 * T[0]], random_state=0).fit(
            frame[["proxy_1"]], frame["y_pred"]
        )
        kinds = ("delta", "bootstrap", "profile")
        ends = [fitted.disparity(GAP, interval=k).conf_int()[0] for k in kinds]
        widths = [high - low for low, high in ends]
        assert max(widths) < 1.25 * min(widths)
        profile = fitted.disparity(GAP, interval="profile")
        assert profile.p_value(profile.estimate[0])[0] == pytest.approx(1.0, abs=1e-3)

    def test_a_stratum_without_rows(self):
        N = 4000 * population_tensor(P, H, T)
        N[0, 1] = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausalFairWarning)
            for model in ("joint", "local", "moments"):
                fitted = ProxyFairness.from_counts(N, model=model, random_state=0)
                assert fitted.joint_[1] == pytest.approx([0.0, 0.0], abs=1e-9)
                assert np.isfinite(fitted.disparity(GAP).estimate).all()


def test_bootstrap_tables_without_a_moment_solution_are_counted():
    N = np.random.default_rng(4).multinomial(400, population_tensor(P, H, T).ravel())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        weak = ProxyFairness.from_counts(
            N.reshape(2, 2, 2, 2, 2).astype(float), model="moments", random_state=0
        )
    with pytest.warns(WeakIdentificationWarning, match="of 200 bootstrap tables have no solution"):
        weak.disparity(GAP, interval="bootstrap", n_bootstrap=200)


class TestTwoProxies:
    def counts(self, outcomes, n=5000):
        return n * population_tensor(P, outcomes, T).sum(axis=-1)

    def test_strata_test_is_pearsons_for_two_groups(self):
        rng = np.random.default_rng(0)
        N = rng.poisson(self.counts(H)).astype(float)
        model = ProxyFairness.from_counts(N, model="two_view", random_state=0)._audit.model
        want = chi2_contingency(N.reshape(4, -1), correction=False).pvalue
        assert strata_test(model) == pytest.approx(want, rel=1e-6)

    def test_strata_that_tell_two_of_three_groups_apart_are_not_enough(self):
        p, _, T3 = _DESIGNS["three_groups"]
        H3 = 0.15 + 0.4 * np.eye(3, 4)
        for outcomes, df in ((H3, 1), (H3[[0, 0, 2]], 8)):
            N = 50_000 * population_tensor(p, outcomes, T3).sum(axis=-1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CausalFairWarning)
                fitted = ProxyFairness.from_counts(N, 3, model="two_view", random_state=0)
            assert reference_df(fitted._audit.model) == df

    def test_law_of_the_likelihood_ratio(self):
        strong = ProxyFairness.from_counts(self.counts(H), model="two_view", random_state=0)
        assert reference_df(strong._audit.model) == 1
        with pytest.warns(WeakIdentificationWarning):
            none = ProxyFairness.from_counts(
                self.counts(np.tile(H[0], (2, 1))), model="two_view", random_state=0
            )
        assert reference_df(none._audit.model) == 3
        anchored = ProxyFairness.from_counts(
            self.counts(H), model="known", transition=[T[0], None], random_state=0
        )
        assert reference_df(anchored._audit.model) == 1

    @pytest.mark.slow
    def test_profile_covers_where_there_is_no_disparity(self):
        rng = np.random.default_rng(0)
        N = self.counts(np.tile(H[0], (2, 1)), 1000)
        hits = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausalFairWarning)
            for _ in range(200):
                fitted = ProxyFairness.from_counts(
                    rng.multinomial(1000, N.ravel() / N.sum()).reshape(N.shape).astype(float),
                    model="two_view",
                    random_state=0,
                )
                hits += fitted.disparity(GAP, interval="profile").p_value()[0] > 0.05
        assert hits >= 181


class TestSensitivityIntervals:
    def test_without_dependence_they_are_those_of_the_gap(self, audit):
        table = audit.sensitivity(gamma=0.0).to_frame()
        gap = audit.disparity(GAP)
        assert table["low"][0] == pytest.approx(gap.estimate[0], abs=1e-9)
        ends = table[["conf_low", "conf_high"]].to_numpy()
        np.testing.assert_allclose(ends, gap.conf_int(), atol=2e-4)

    def test_they_contain_the_range(self, audit):
        table = audit.sensitivity().to_frame()
        assert (table["conf_low"] < table["low"]).all()
        assert (table["conf_high"] > table["high"]).all()

    def test_a_fit_without_likelihood_has_none(self, X, frame):
        moments = fit(X, frame["y_pred"], model="moments")
        assert np.isnan(moments.sensitivity(gamma=0.1).to_frame()["conf_low"]).all()


@pytest.mark.filterwarnings("ignore::causalfair.exceptions.WeakIdentificationWarning")
class TestScores:
    def test_the_mean_of_a_constant(self, audit, X, frame):
        found = group_means(audit, X, np.full(6000, 5.0), frame["y_pred"], frame["y_true"])
        np.testing.assert_allclose(found.estimate, 5.0, atol=1e-12)
        np.testing.assert_allclose(found.std_error, 0.0, atol=1e-12)

    @pytest.mark.parametrize("clustered", [False, True])
    def test_standard_errors_match_the_bootstrap(self, clustered):
        people = make_weak_proxies(3000, random_state=3)[0]
        if clustered:
            people = people.loc[people.index.repeat(2)].reset_index(drop=True)
        unit = np.arange(len(people)) // 2 if clustered else None
        rng = np.random.default_rng(0)
        people["score"] = people["y_true"] * (1 + people["group"]) + np.repeat(
            rng.normal(size=3000), 2 if clustered else 1
        )

        def both(rows, cluster):
            part = people.iloc[rows]
            X, f, y = part[PROXIES].to_numpy(), part["y_pred"], part["y_true"]
            fitted = ProxyFairness(random_state=0, n_starts=0).fit(X, f, y_true=y, cluster=cluster)
            means = group_means(fitted, X, part["score"], f, y, proxy=0, cluster=cluster)
            curves = group_roc(fitted, X, part["score"], f, y, proxy=0, cluster=cluster)
            return means, curves.auc

        means, auc = both(np.arange(len(people)), unit)
        draws = []
        for _ in range(25):
            rows = rng.integers(3000, size=3000)
            if clustered:
                rows = np.column_stack([2 * rows, 2 * rows + 1]).ravel()
            draws.append(np.concatenate([e.estimate for e in both(rows, None)]))
        spread = np.std(draws, axis=0)
        np.testing.assert_allclose(means.std_error, spread[:2], rtol=0.5)
        np.testing.assert_allclose(auc.std_error, spread[2:], rtol=0.5)

    def test_weights_and_clusters_of_the_fit_are_asked_for(self, X, frame):
        weight = np.random.default_rng(0).uniform(0.5, 1.5, 6000)
        fitted = ProxyFairness(random_state=0).fit(X, frame["y_pred"], sample_weight=weight)
        values = frame["y_true"].to_numpy(float)
        with pytest.raises(DataError, match="the fit had sample_weight="):
            group_means(fitted, X, values, frame["y_pred"])
        found = group_means(fitted, X, values, frame["y_pred"], sample_weight=3 * weight)
        plain = group_means(fit(X, frame["y_pred"]), X, values, frame["y_pred"])
        np.testing.assert_allclose(found.estimate, plain.estimate, atol=0.05)
        assert (found.std_error > plain.std_error).all()


class TestWarnings:
    def test_two_modes(self):
        """Two proxies that agree the wrong way round fit nearly as well."""
        p = np.array([0.5, 0.5])
        twist = [np.array([[0.7, 0.3], [0.3, 0.7]])] * 2
        Hs = np.array([[0.5, 0.5], [0.48, 0.52]])
        N = np.random.default_rng(1).poisson(300 * population_tensor(p, Hs, twist)).astype(float)
        with pytest.warns(CausalFairWarning) as caught:
            ProxyFairness.from_counts(N, model="two_view", random_state=0)
        assert any(issubclass(w.category, WeakIdentificationWarning) for w in caught)

    def test_labels_barely_determined(self):
        noisy = [
            np.array([[0.7, 0.3], [0.3, 0.7]]),
            np.array([[0.4, 0.6], [0.55, 0.45]]),
            np.array([[0.45, 0.55], [0.6, 0.4]]),
        ]
        N = 1e7 * population_tensor(np.array([0.6, 0.4]), H, noisy)
        with pytest.warns(WeakIdentificationWarning, match="nearly undetermined"):
            ProxyFairness.from_counts(N, random_state=0)
