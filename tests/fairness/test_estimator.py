"""The estimator as users meet it: inputs, models, intervals, tables."""

from __future__ import annotations

import pickle

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone

from causalfair.datasets import make_clustered_features, make_weak_proxies
from causalfair.exceptions import DataError, ParameterError, RoleError
from causalfair.fairness import (
    ProxyFairness,
    count_tensor,
    group_means,
    group_roc,
    laplace_counts,
    nearest_neighbour_proxies,
    neighbour_fairness,
    randomized_response,
)
from causalfair.fairness._simulate import _DESIGNS, population_tensor

PROXIES = ["proxy_1", "proxy_2", "proxy_3"]
ROLES = {"y_pred": "y_pred", "y_true": "y_true", "proxies": PROXIES}


@pytest.fixture(scope="module")
def data():
    return make_weak_proxies(8000, random_state=1)


@pytest.fixture(scope="module")
def frame(data):
    return data[0]


@pytest.fixture(scope="module")
def audit(frame):
    return ProxyFairness(random_state=0).fit(frame, **ROLES)


def covers(estimates, truth, level=0.999):
    low, high = estimates.conf_int(level)[0]
    return low <= truth <= high


class TestInputs:
    def test_every_table_library_gives_the_same_bits(self, frame, audit):
        arrays = ProxyFairness(random_state=0).fit(
            frame[PROXIES].to_numpy(), frame["y_pred"].to_numpy(), y_true=frame["y_true"].to_numpy()
        )
        polars = ProxyFairness(random_state=0).fit(pl.from_pandas(frame), **ROLES)
        arrow = ProxyFairness(random_state=0).fit(pl.from_pandas(frame).to_arrow(), **ROLES)
        for other in (arrays, polars, arrow):
            assert np.array_equal(other.joint_, audit.joint_)
        assert isinstance(polars.to_frame(), pl.DataFrame)

    def test_lazy_frames_are_grouped_where_they_live(self, frame, audit):
        import dask.dataframe as dd

        connection = duckdb.connect()
        connection.register("people", frame)
        sources = [
            pl.from_pandas(frame).lazy(),
            connection.table("people"),
            dd.from_pandas(frame, npartitions=3),
        ]
        for source in sources:
            lazy = ProxyFairness(random_state=0).fit(source, **ROLES)
            assert np.array_equal(lazy.counts_, audit.counts_)
            assert np.array_equal(lazy.joint_, audit.joint_)
            assert lazy.n_obs_ == len(frame)
            N = count_tensor(source, "y_pred", "y_true", proxies=PROXIES)
            assert np.array_equal(N.reshape(4, -1), audit.counts_)
        connection.close()

    def test_lazy_weights_and_clusters(self, frame):
        rng = np.random.default_rng(0)
        table = frame.assign(w=rng.integers(1, 4, len(frame)), g=rng.integers(0, 200, len(frame)))
        for extra in ({"sample_weight": "w"}, {"cluster": "g"}):
            eager = ProxyFairness(random_state=0).fit(table, **ROLES, **extra)
            lazy = ProxyFairness(random_state=0).fit(pl.from_pandas(table).lazy(), **ROLES, **extra)
            one, two = (e.disparity("demographic_parity") for e in (eager, lazy))
            assert two.estimate[0] == pytest.approx(one.estimate[0], abs=1e-9)
            assert two.std_error[0] == pytest.approx(one.std_error[0], rel=1e-6)

    def test_lazy_frames_take_names_only(self, frame):
        with pytest.raises(RoleError, match="y_pred must be the name"):
            ProxyFairness().fit(pl.from_pandas(frame).lazy(), frame["y_pred"], proxies=PROXIES)

    def test_shards_on_disk(self, frame, audit):
        shards = [
            count_tensor(
                part[PROXIES], part["y_pred"], part["y_true"], n_levels=2, n_pred=2, n_labels=2
            )
            for part in (frame[:3000], frame[3000:3001], frame[3001:])
        ]
        assert np.array_equal(
            ProxyFairness.from_counts(sum(shards), random_state=0).joint_, audit.joint_
        )

    def test_integer_weights_repeat_rows_in_the_estimate(self, frame):
        weight = np.random.default_rng(0).integers(1, 4, len(frame))
        weighted = ProxyFairness(random_state=0).fit(frame, **ROLES, sample_weight=weight)
        repeated = ProxyFairness(random_state=0).fit(
            frame.loc[frame.index.repeat(weight)].reset_index(drop=True), **ROLES
        )
        np.testing.assert_allclose(weighted.joint_, repeated.joint_, atol=1e-9)

    def test_singleton_clusters_give_the_sandwich(self, frame, audit):
        clustered = ProxyFairness(random_state=0).fit(frame, **ROLES, cluster=np.arange(len(frame)))
        one, two = (a.disparity("demographic_parity") for a in (audit, clustered))
        assert two.estimate[0] == one.estimate[0]
        assert two.std_error[0] == pytest.approx(one.std_error[0], rel=0.05)

    def test_repeated_rows_in_clusters_widen_intervals(self, frame, audit):
        twice = pd.concat([frame, frame], ignore_index=True)
        person = np.tile(np.arange(len(frame)), 2)
        clustered = ProxyFairness(random_state=0).fit(twice, **ROLES, cluster=person)
        one, two = (a.disparity("demographic_parity") for a in (audit, clustered))
        assert two.std_error[0] == pytest.approx(one.std_error[0], rel=0.05)
        draws = clustered.disparity("demographic_parity", interval="bootstrap", n_bootstrap=200)
        assert draws.std_error[0] == pytest.approx(one.std_error[0], rel=0.25)

    def test_missing_proxies_are_summed_out(self):
        hidden, truth = make_weak_proxies(20_000, missing=0.15, random_state=3)
        fitted = ProxyFairness(random_state=0).fit(hidden, **ROLES)
        assert covers(fitted.disparity("demographic_parity"), truth["demographic_parity"])
        complete = hidden[(hidden[PROXIES] >= 0).all(axis=1)]
        fewer = ProxyFairness(random_state=0).fit(complete, **ROLES)
        more, less = (a.disparity("demographic_parity").std_error[0] for a in (fitted, fewer))
        assert more < less
        N = count_tensor(hidden[PROXIES], hidden["y_pred"], hidden["y_true"])
        assert N.shape == (2, 2, 3, 3, 3)
        again = ProxyFairness.from_counts(N, missing=[True] * 3, random_state=0)
        assert np.array_equal(again.joint_, fitted.joint_)

    def test_soft_proxies(self, data):
        frame, truth = data
        rng = np.random.default_rng(0)
        level = frame[PROXIES].to_numpy()[:, :, None] == np.arange(2)
        noise = rng.dirichlet([1.0, 1.0], size=(len(frame), 3))
        soft = 0.9 * level + 0.1 * noise
        binned = ProxyFairness(random_state=0).fit(soft, frame["y_pred"], y_true=frame["y_true"])
        assert [t.shape for t in binned.transition_] == [(2, 4)] * 3
        assert covers(binned.disparity("demographic_parity"), truth["demographic_parity"])
        moments = ProxyFairness(model="moments", random_state=0).fit(
            soft, frame["y_pred"], y_true=frame["y_true"]
        )
        gap = moments.disparity("demographic_parity")
        assert covers(gap, truth["demographic_parity"])
        with pytest.raises(ParameterError, match="soft proxies by moments"):
            moments.disparity("demographic_parity", interval="bootstrap")

    def test_hard_proxies_as_probabilities_give_the_closed_form(self, data):
        frame, _ = data
        soft = (frame[PROXIES].to_numpy()[:, :, None] == np.arange(2)).astype(float)
        one = ProxyFairness(model="moments", random_state=0).fit(soft, frame["y_pred"])
        two = ProxyFairness(model="moments", random_state=0).fit(frame[PROXIES], frame["y_pred"])
        np.testing.assert_allclose(one.joint_, two.joint_, atol=1e-9)
        np.testing.assert_allclose(
            one.disparity("demographic_parity").std_error,
            two.disparity("demographic_parity").std_error,
            rtol=1e-5,
        )

    def test_inputs_are_left_alone(self, frame):
        before = frame.copy()
        ProxyFairness(random_state=0).fit(frame, **ROLES)
        pd.testing.assert_frame_equal(frame, before)


class TestModels:
    @pytest.mark.parametrize("model", ["local", "moments", "tied", "two_view", "known"])
    def test_recovers_the_gap(self, model):
        frame, truth = make_weak_proxies(60_000, design="identical", random_state=2)
        proxies = PROXIES[:2] if model == "two_view" else PROXIES
        options = {"transition": truth["transition"]} if model == "known" else {}
        fitted = ProxyFairness(model=model, random_state=0, **options).fit(
            frame, "y_pred", y_true="y_true", proxies=proxies
        )
        assert covers(fitted.disparity("demographic_parity"), truth["demographic_parity"])

    def test_known_error_rates_of_one_proxy_equal_matrix_inversion(self, frame):
        table = _DESIGNS["heterogeneous"][2][0]
        fitted = ProxyFairness(model="known", transition=table).fit(
            frame[["proxy_1"]], frame["y_pred"]
        )
        joint = pd.crosstab(frame["y_pred"], frame["proxy_1"], normalize=True).to_numpy()
        np.testing.assert_allclose(fitted.joint_, joint @ np.linalg.inv(table), atol=1e-9)
        share = joint[:, 1].sum()  # Rogan & Gladen
        assert fitted.prevalence_[1] == pytest.approx((share - 0.15) / (1 - 0.15 - 0.3), abs=1e-9)

    def test_validation_counts_add_their_uncertainty(self, frame):
        table = _DESIGNS["heterogeneous"][2][0]
        exact = ProxyFairness(model="known", transition=[table]).fit(
            frame[["proxy_1"]], frame["y_pred"]
        )
        errors = [exact.disparity("demographic_parity").std_error[0]]
        for size in (1e7, 200.0):
            fitted = ProxyFairness(transition_counts=[size * table]).fit(
                frame[["proxy_1"]], frame["y_pred"]
            )
            np.testing.assert_allclose(fitted.joint_, exact.joint_, atol=1e-5)
            errors.append(fitted.disparity("demographic_parity").std_error[0])
        assert errors[1] == pytest.approx(errors[0], rel=1e-2)
        assert errors[2] > 1.2 * errors[0]

    def test_audited_rows_identify_one_proxy(self, data):
        frame, truth = data
        seen = np.where(np.random.default_rng(0).random(len(frame)) < 0.3, frame["group"], -1)
        fitted = ProxyFairness(random_state=0).fit(
            frame[["proxy_1"]], frame["y_pred"], sensitive_features=seen
        )
        assert covers(fitted.disparity("demographic_parity"), truth["demographic_parity"])
        assert len(fitted.transition_) == 1

    def test_a_full_audit_gives_the_ordinary_metrics(self, frame):
        fitted = ProxyFairness(random_state=0).fit(
            frame[PROXIES],
            frame["y_pred"],
            y_true=frame["y_true"],
            sensitive_features=frame["group"],
        )
        want = pd.crosstab([frame["y_pred"], frame["y_true"]], frame["group"], normalize=True)
        np.testing.assert_allclose(fitted.joint_, want.to_numpy(), atol=1e-10)
        names = set(fitted.fit_tests().to_frame()["test"])
        assert {"audited: proxy_1 x proxy_2", "audited: proxy_1 x decision and label"} <= names

    def test_known_shares_sharpen_the_estimate(self, frame, audit):
        shares = ProxyFairness(prevalence=[0.6, 0.4], random_state=0).fit(frame, **ROLES)
        np.testing.assert_allclose(shares.prevalence_, [0.6, 0.4], atol=1e-12)
        one, two = (a.disparity("demographic_parity").std_error[0] for a in (audit, shares))
        assert two < one
        assert "supplied shares" in set(shares.fit_tests().to_frame()["test"])

    def test_pseudo_counts_keep_off_the_boundary(self):
        p, H, T = _DESIGNS["heterogeneous"]
        edge = [np.array([[1.0, 0.0], [0.3, 0.7]]), T[1], T[2]]
        fitted = ProxyFairness.from_counts(
            5e3 * population_tensor(p, H, edge), pseudo_count=0.5, random_state=0
        )
        assert fitted.transition_[0].min() > 1e-5

    def test_local_survives_a_proxy_that_copies_the_decision(self):
        frame, truth = make_weak_proxies(60_000, design="copied_decision", random_state=0)
        joint = ProxyFairness(random_state=0).fit(frame, **ROLES)
        table = joint.fit_tests().to_frame().set_index("test")
        assert table.loc["G2", "p_value"] < 1e-6
        assert table.loc["global against partial (prediction)", "p_value"] < 1e-6
        assert not covers(joint.disparity("demographic_parity"), truth["demographic_parity"], 0.95)
        local = ProxyFairness(model="local", random_state=0).fit(frame, **ROLES)
        assert covers(local.disparity("demographic_parity"), truth["demographic_parity"])

    def test_nearest_neighbours(self):
        frame, truth = make_clustered_features(3000, random_state=0)
        features = frame[[f"x_{k}" for k in range(1, 6)]]
        copies = nearest_neighbour_proxies(
            features, frame["proxy"], sensitive_features=frame["group"]
        )
        assert copies.clusterability > 0.95
        assert (copies.neighbours != np.arange(3000)[:, None]).all()
        fitted, gaps = neighbour_fairness(
            features, frame["proxy"], frame["y_pred"], n_bootstrap=40, random_state=0
        )
        assert gaps.std_error[0] > fitted.disparity("demographic_parity").std_error[0]
        assert covers(gaps, truth["demographic_parity"])

    def test_a_duplicate_row_is_not_its_own_neighbour(self):
        found = nearest_neighbour_proxies([[0.0], [0.0], [1.0], [2.5]], [0, 1, 1, 0])
        assert found.neighbours.tolist() == [[2, 3], [2, 3], [0, 3], [2, 0]]
        with pytest.raises(DataError, match="three distinct rows"):
            nearest_neighbour_proxies([[0.0], [0.0], [1.0]], [0, 1, 1])


class TestInference:
    def test_the_four_intervals_agree_in_large_samples(self, audit):
        ends = [
            audit.disparity("demographic_parity", interval=kind).conf_int()[0]
            for kind in ("delta", "bootstrap", "bca", "profile")
        ]
        for other in ends[1:]:
            np.testing.assert_allclose(other, ends[0], atol=0.006)

    def test_profile_ends_have_the_critical_deviance(self, audit):
        gap = audit.disparity("demographic_parity", interval="profile")
        for end in gap.conf_int(0.9)[0]:
            assert gap.p_value(end)[0] == pytest.approx(0.1, abs=2e-3)

    def test_profile_needs_a_plain_likelihood(self, frame):
        moments = ProxyFairness(model="moments", random_state=0).fit(frame, **ROLES)
        with pytest.raises(ParameterError, match="interval='bootstrap'"):
            moments.disparity("demographic_parity", interval="profile")

    def test_max_and_mean_have_no_wald_interval(self, audit):
        signed = audit.disparity("equalized_odds")
        ends = signed.conf_int(simultaneous=True)
        for kind, reduce in (("max", np.max), ("mean", np.mean)):
            scalar = audit.disparity("equalized_odds", kind=kind)
            assert scalar.estimate[0] == pytest.approx(reduce(np.abs(signed.estimate)))
            assert np.isnan(scalar.std_error[0])
            low, high = scalar.conf_int()[0]
            assert 0 <= low <= scalar.estimate[0] <= high
        assert audit.disparity("equalized_odds", kind="max").conf_int()[0, 1] == pytest.approx(
            np.abs(ends).max(), rel=0.05
        )

    def test_an_interval_of_a_small_gap_reaches_zero(self):
        p, H, T = _DESIGNS["heterogeneous"]
        N = 5000 * population_tensor(p, np.tile(H[0], (2, 1)), T)
        scalar = ProxyFairness.from_counts(N, random_state=0).disparity(
            "demographic_parity", kind="max"
        )
        low, high = scalar.conf_int()[0]
        assert low == 0.0
        assert high > 0.01

    def test_ratio(self, audit):
        ratio = audit.disparity("demographic_parity", kind="ratio")
        rates = audit.group_rates_[:, 1]
        assert ratio.estimate[0] == pytest.approx(rates[1] / rates[0])

    def test_selected_terms_keep_their_interval(self, audit):
        both = audit.disparity("equalized_odds", interval="bootstrap", n_bootstrap=200)
        name = both.names[1]
        assert np.array_equal(both[name].conf_int()[0], both.conf_int()[1])
        assert np.array_equal(both[name].p_value(), both.p_value()[1:])

    def test_every_metric(self, audit):
        G = audit.joint_.reshape(2, 2, 2)
        p = audit.prevalence_
        want = {
            "accuracy_parity": (G[0, 0] + G[1, 1]) / p,
            "predictive_parity": G[1, 1] / G[1].sum(axis=0),
            "base_rate": G[:, 1].sum(axis=0) / p,
            "equal_opportunity": G[1, 1] / G[:, 1].sum(axis=0),
            "error_rate_ratio": (G[0, 1] + G[1, 0]) / (G[0, 0] + G[1, 1]),
            "treatment_equality": G[0, 1] / G[1, 0],
        }
        for metric, values in want.items():
            found = audit.disparity(metric)
            assert found.estimate[0] == pytest.approx(values[1] - values[0], abs=1e-12)
            assert 0 < found.std_error[0] < 0.5
        assert len(audit.disparity("calibration").names) == 2

    def test_group_means_of_a_decision_equal_its_rates(self, frame, audit):
        X = frame[PROXIES].to_numpy()
        found = group_means(
            audit, X, frame["y_pred"].to_numpy(float), frame["y_pred"], frame["y_true"], proxy=0
        )
        np.testing.assert_allclose(found.estimate, audit.group_rates_[:, 1], atol=0.03)
        gap = found.contrast({"mean: 1": 1, "mean: 0": -1})
        wald = audit.disparity("demographic_parity")
        assert gap.std_error[0] == pytest.approx(wald.std_error[0], rel=0.35)

    def test_group_roc(self):
        frame, _ = make_weak_proxies(40_000, random_state=5)
        rng = np.random.default_rng(0)
        score = frame["y_true"] * (1 + frame["group"]) + rng.normal(size=len(frame))
        fitted = ProxyFairness(random_state=0).fit(frame, **ROLES)
        curves = group_roc(
            fitted, frame[PROXIES].to_numpy(), score, frame["y_pred"], frame["y_true"]
        )
        from sklearn.metrics import roc_auc_score

        for a in range(2):
            rows = frame["group"] == a
            want = roc_auc_score(frame["y_true"][rows], score[rows])
            assert abs(curves.auc.estimate[a] - want) < 4 * curves.auc.std_error[a]
            assert curves.auc.std_error[a] < 0.02
        assert (np.diff(curves.true_positive, axis=1) <= 0).all()


class TestPrivacy:
    def test_randomised_response_needs_no_knowledge_of_it(self):
        frame, truth = make_weak_proxies(60_000, random_state=4)
        noisy = randomized_response(frame[PROXIES], 2.0, n_levels=2, random_state=0)
        fitted = ProxyFairness(random_state=0).fit(noisy, frame["y_pred"])
        assert covers(fitted.disparity("demographic_parity"), truth["demographic_parity"])
        stay = np.exp(2) / (np.exp(2) + 1)
        Q = np.array([[stay, 1 - stay], [1 - stay, stay]])
        for found, table in zip(fitted.transition_, truth["transition"], strict=True):
            np.testing.assert_allclose(found, table @ Q, atol=0.06)

    def test_noisy_counts(self, frame, audit):
        N = count_tensor(frame[PROXIES], frame["y_pred"], frame["y_true"])
        noisy = laplace_counts(N, 2.0, random_state=0)
        fitted = ProxyFairness.from_counts(noisy, random_state=0)
        one, two = (a.disparity("demographic_parity").estimate[0] for a in (audit, fitted))
        assert two == pytest.approx(one, abs=0.05)

    def test_posterior_on_request_only(self, frame, audit):
        X = frame[PROXIES].to_numpy()
        guess = audit.posterior(X, frame["y_pred"], frame["y_true"], allow_individual=True)
        np.testing.assert_allclose(guess.sum(axis=1), 1.0, atol=1e-12)
        assert (guess.argmax(axis=1) == frame["group"]).mean() > 0.75
        accuracy = audit.diagnostics().to_frame().set_index("quantity")["value"]
        prior = audit.posterior(X, allow_individual=True)
        assert prior.max(axis=1).mean() == pytest.approx(
            accuracy["accuracy of all proxies"], abs=0.01
        )


class TestTables:
    def test_compare_puts_everything_side_by_side(self, audit):
        table = audit.compare("equalized_odds").to_frame()
        assert table["method"].unique().tolist() == [
            "direct (proxy_1)",
            "direct (proxy_2)",
            "direct (proxy_3)",
            "weighted",
            "global",
            "partial (prediction)",
            "partial (label)",
            "local",
            "bounds",
        ]
        direct = table[table["method"] == "direct (proxy_1)"]["estimate"].to_numpy()
        np.testing.assert_allclose(direct, audit.direct(0, "equalized_odds").estimate)

    def test_bounds_contain_the_direct_and_weighted_values(self, audit):
        table = audit.compare().to_frame().set_index("method")
        low, high = table.loc["bounds", ["bound_low", "bound_high"]]
        for method in ("weighted", "global"):
            assert low <= table.loc[method, "estimate"] <= high

    def test_two_view_says_why_local_cannot_be_had(self, frame):
        fitted = ProxyFairness(model="two_view", random_state=0).fit(
            frame, "y_pred", y_true="y_true", proxies=PROXIES[:2]
        )
        table = fitted.compare().to_frame().set_index("method")
        assert np.isnan(table.loc["local", "estimate"])
        assert "at least three proxies" in table.loc["local", "reason"]

    def test_leave_one_out_needs_four_proxies(self):
        p, H, T = _DESIGNS["heterogeneous"]
        four = [*T, np.array([[0.8, 0.2], [0.3, 0.7]])]
        rng = np.random.default_rng(0)
        N = rng.multinomial(20_000, population_tensor(p, H, four).ravel())
        fitted = ProxyFairness.from_counts(
            N.reshape(2, 2, 2, 2, 2, 2).astype(float), random_state=0
        )
        table = fitted.fit_tests().to_frame().set_index("test")
        assert {f"without proxy {j}" for j in range(1, 5)} <= set(table.index)
        usable = table.loc[[f"without proxy {j}" for j in range(1, 5)], "p_value"].dropna()
        assert (usable > 1e-3).all()
        assert len(usable) >= 2

    def test_parametric_bootstrap_where_cells_are_thin(self):
        rng = np.random.default_rng(0)
        N = rng.multinomial(700, population_tensor(*_DESIGNS["three_groups"]).ravel())
        import warnings

        from causalfair.exceptions import CausalFairWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausalFairWarning)
            fitted = ProxyFairness.from_counts(
                N.reshape(2, 2, 3, 3, 3).astype(float), 3, random_state=0
            )
            table = fitted.fit_tests().to_frame().set_index("test")
        assert 0.01 < table.loc["G2 (parametric bootstrap)", "p_value"] <= 1

    def test_report_states_what_no_test_can_see(self, audit):
        text = str(audit.report())
        assert "No test can see a cause that all proxies share" in text
        assert "demographic parity under different assumptions" in text
        for line in text.splitlines():
            assert len(line) <= 88
        assert "<table" in audit.report()._repr_html_()

    def test_summary_and_house_services(self, audit, frame):
        assert all(len(line) <= 88 for line in str(audit.summary()).splitlines())
        assert "tabular" in audit.summary().to_latex()
        assert "Weak proxies" in str(audit.cite())
        assert audit.provenance().to_json()
        assert set(audit.to_frame().columns) >= {"term", "estimate", "std_error", "conf_low"}
        light = pickle.dumps(audit)
        assert len(light) < 1_000_000
        again = pickle.loads(light)
        assert np.array_equal(
            again.disparity("demographic_parity", interval="bootstrap").conf_int(),
            audit.disparity("demographic_parity", interval="bootstrap").conf_int(),
        )
        assert np.array_equal(clone(audit).fit(frame, **ROLES).joint_, audit.joint_)

    def test_plots(self, audit):
        for table in (
            audit.compare(),
            audit.bounds(),
            audit.sensitivity(),
            audit.sensitivity("proxies"),
        ):
            assert table.plot() is not None
        with pytest.raises(ParameterError, match="no picture"):
            audit.diagnostics().plot()

    def test_threads_do_not_change_the_bits(self, audit, frame):
        import numba

        threads = numba.get_num_threads()
        try:
            numba.set_num_threads(1)
            one = ProxyFairness(random_state=0).fit(frame, **ROLES)
            draws = one.bootstrap(50)
        finally:
            numba.set_num_threads(threads)
        assert np.array_equal(one.joint_, audit.joint_)
        assert np.array_equal(draws, audit.bootstrap(50))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:PyTensor could not link")
def test_bayesian_model_has_the_same_likelihood(audit):
    from causalfair.fairness._bayes import build_model

    built = build_model(audit._audit.model)
    fit = audit._audit.model.fit
    compiled = built["counts"] if "counts" in built.named_vars else built.potentials[0]
    inputs = {built["G"]: fit.G.ravel()}
    inputs |= {built[f"T_{j}"]: audit.transition_[j] for j in range(3)}
    value = compiled.eval(inputs)
    assert float(value) == pytest.approx(audit.loglik_, rel=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:PyTensor could not link")
def test_bayes_agrees_with_the_likelihood_in_large_samples(frame, audit):
    bayes = ProxyFairness(model="bayes", random_state=0).fit(frame, **ROLES)
    one, two = (a.disparity("demographic_parity") for a in (audit, bayes))
    assert two.estimate[0] == pytest.approx(one.estimate[0], abs=0.01)
    assert two.std_error[0] == pytest.approx(one.std_error[0], rel=0.2)
