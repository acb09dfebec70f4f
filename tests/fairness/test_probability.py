"""Names, places, probabilities, bounds, sensitivity, mitigation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import fairness as naive

from causalfair.datasets import make_names_and_places, make_weak_proxies
from causalfair.exceptions import DataError, IdentificationError, ParameterError
from causalfair.fairness import (
    OutcomeRegressionEM,
    PostProcessor,
    ProxyFairness,
    bifsg,
    bisg,
    clean_name,
    corrected_reduction,
    covariance_checks,
    frechet_bounds,
    group_blind_threshold,
    linear_disparity,
    randomized_response,
    rescaled_tolerance,
    response_inverse,
    response_matrix,
    threshold_disparity,
    weighted_disparity,
)
from causalfair.fairness._bounds import imbens_manski
from causalfair.fairness._metrics import group_metric
from causalfair.fairness._mitigation import post_processing
from causalfair.fairness._moments import attenuation
from causalfair.fairness._sensitivity import (
    break_even,
    corrected_joint,
    decision_dependence_bounds,
    dependence_curve,
    gap_contrast,
)
from causalfair.fairness._simulate import _DESIGNS, population_tensor

NAMES = pd.DataFrame(
    {"white": [800, 150, 50], "black": [300, 680, 20]},
    index=["SMITH", "WASHINGTON", "ALL OTHER NAMES"],
)
FIRST = pd.DataFrame({"white": [60, 40], "black": [20, 80]}, index=["EMILY", "LAKISHA"])
PLACES = pd.DataFrame({"white": [900, 100, 0], "black": [100, 300, 0]}, index=["a", "b", "empty"])


class TestNames:
    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            ("Smith", ("SMITH",)),
            ("  o'neil jr. ", ("ONEIL",)),
            ("O NEIL", ("ONEIL",)),
            ("Mac Arthur III", ("MACARTHUR",)),
            ("García-Lopez", ("GARCIA", "LOPEZ")),
            ("de la Cruz", ("DELACRUZ",)),
            ("van der Berg-Smith Sr", ("VANDERBERG", "SMITH")),
            ("", ()),
            (None, ()),
            (float("nan"), ()),
        ],
    )
    def test_clean_name(self, name, parts):
        assert clean_name(name) == parts

    def test_bisg_is_bayes_rule(self):
        found = bisg(["Smith"], ["a"], surname_counts=NAMES, geography_counts=PLACES)
        mass = np.array([0.8 * 900, 0.3 * 100])
        np.testing.assert_allclose(found.probability[0], mass / mass.sum(), atol=1e-12)
        assert found.groups == ("white", "black")

    def test_counts_are_not_multiplied_by_the_surname_share_twice(self):
        """P(s | r) is C / sum_s C: scaling how common a surname is overall changes nothing."""
        names = NAMES.drop(index="ALL OTHER NAMES")
        scaled = names.copy()
        scaled.loc["SMITH"] *= 3
        base = bisg(["Smith"], ["a"], surname_counts=names, geography_counts=PLACES).probability
        column = scaled / scaled.sum()
        mass = column.loc["SMITH"].to_numpy() * PLACES.loc["a"].to_numpy()
        other = bisg(["Smith"], ["a"], surname_counts=scaled, geography_counts=PLACES).probability
        np.testing.assert_allclose(other[0], mass / mass.sum(), atol=1e-12)
        wrong = (names / names.sum()).loc["SMITH"].to_numpy() * names.loc["SMITH"].to_numpy()
        assert not np.allclose(base[0], wrong / wrong.sum(), atol=1e-3)

    def test_unmatched_names_and_places(self):
        found = bisg(
            ["Zzyzx", "Smith", "Smith"],
            ["a", "nowhere", "empty"],
            surname_counts=NAMES,
            geography_counts=PLACES,
        )
        other = np.array([0.05 * 900, 0.02 * 100])
        national = np.array([0.8 * 1000, 0.3 * 400])
        np.testing.assert_allclose(found.probability[0], other / other.sum(), atol=1e-12)
        np.testing.assert_allclose(found.probability[1:], [national / national.sum()] * 2)
        assert found.match_rates["surname"] == pytest.approx(2 / 3)
        assert found.match_rates["place"] == pytest.approx(1 / 3)

    def test_without_a_catch_all_row_an_unknown_name_says_nothing(self):
        found = bisg(["Zzyzx"], ["b"], surname_counts=NAMES.iloc[:2], geography_counts=PLACES)
        np.testing.assert_allclose(found.probability[0], [0.25, 0.75])

    def test_hyphenated_names_are_averaged(self):
        one, two, both = (
            bisg([n], ["a"], surname_counts=NAMES, geography_counts=PLACES).probability[0]
            for n in ("Smith", "Washington", "Smith-Washington")
        )
        np.testing.assert_allclose(both, (one + two) / 2, atol=1e-12)

    def test_bifsg_multiplies_by_the_first_name(self):
        found = bifsg(
            ["Smith"],
            ["Lakisha"],
            ["a"],
            surname_counts=NAMES,
            first_name_counts=FIRST,
            geography_counts=PLACES,
        )
        mass = np.array([0.8 * 0.4 * 900, 0.3 * 0.8 * 100])
        np.testing.assert_allclose(found.probability[0], mass / mass.sum(), atol=1e-12)

    def test_tables_are_checked(self):
        with pytest.raises(DataError, match="groups"):
            bisg(
                ["x"], surname_counts=NAMES.rename(columns={"black": "c"}), geography_counts=PLACES
            )
        with pytest.raises(DataError, match="negative or missing"):
            bisg(["x"], surname_counts=-NAMES, geography_counts=PLACES)
        with pytest.raises(DataError, match="1 entries and geographies 2"):
            bisg(["x"], ["a", "b"], surname_counts=NAMES, geography_counts=PLACES)
        with pytest.raises(DataError, match="pandas frame of counts"):
            bisg(["x"], surname_counts=NAMES.to_numpy(), geography_counts=PLACES)


@pytest.fixture(scope="module")
def population():
    """Cells of (A, b, O) with known probabilities, as weighted rows."""
    rng = np.random.default_rng(0)
    rows = []
    for b in (0.1, 0.35, 0.6, 0.9):
        share = rng.uniform(0.5, 1.5)
        for a in (0, 1):
            rate = rng.uniform(0.2, 0.8)
            for o in (0, 1):
                mass = share * (b if a else 1 - b) * (rate if o else 1 - rate)
                rows.append((a, b, o, mass))
    frame = pd.DataFrame(rows, columns=["a", "b", "o", "w"])
    frame["w"] /= frame["w"].sum()
    return frame


class TestWeighting:
    def test_bias_identities_hold_exactly(self, population):
        f = population
        w = f["w"].to_numpy()

        def mean(x):
            return float((w * x).sum())

        share = mean(f["a"])
        gap = mean(f["a"] * f["o"]) / share - mean((1 - f["a"]) * f["o"]) / (1 - share)
        within_b = within_a = 0.0
        for _, g in f.groupby("b"):
            v = g["w"] / g["w"].sum()
            cov = (v * g["a"] * g["o"]).sum() - (v * g["a"]).sum() * (v * g["o"]).sum()
            within_b += g["w"].sum() * cov
        for _, g in f.groupby("a"):
            v = g["w"] / g["w"].sum()
            cov = (v * g["b"] * g["o"]).sum() - (v * g["b"]).sum() * (v * g["o"]).sum()
            within_a += g["w"].sum() * cov
        var_a, var_b = share * (1 - share), mean(f["b"] ** 2) - mean(f["b"]) ** 2
        weighted = weighted_disparity(f["b"], f["o"], sample_weight=w).estimate[0]
        linear = linear_disparity(f["b"], f["o"], sample_weight=w).estimate[0]
        assert weighted == pytest.approx(gap - within_b / var_a, abs=1e-12)
        assert linear == pytest.approx(gap + within_a / var_b, abs=1e-12)
        assert weighted == pytest.approx(linear * var_b / var_a, abs=1e-12)

    def test_standard_errors_match_the_bootstrap(self):
        frame, truth = make_names_and_places(3000, random_state=0)
        b, y = truth["probability"], frame["y_pred"].to_numpy(float)
        rng = np.random.default_rng(0)
        for estimator in (weighted_disparity, linear_disparity, threshold_disparity):
            draws = []
            for _ in range(300):
                rows = rng.integers(len(y), size=len(y))
                draws.append(estimator(b[rows], y[rows]).estimate[0])
            assert estimator(b, y).std_error[0] == pytest.approx(np.std(draws), rel=0.15)

    def test_covariance_checks_bracket(self):
        frame, truth = make_names_and_places(20_000, random_state=0)
        table = covariance_checks(truth["probability"], frame["y_pred"], frame["group"])
        first, second = table.to_frame()["estimate"]
        assert first > 0
        assert abs(second) < 0.01

    def test_probabilities_are_checked(self):
        with pytest.raises(DataError, match=r"1 row\(s\).*row 1"):
            weighted_disparity([[0.5, 0.5], [0.7, 0.7]], [0, 1])
        with pytest.raises(DataError, match="do not vary enough"):
            linear_disparity([0.5, 0.5, 0.5], [0, 1, 1])
        with pytest.raises(DataError, match="nobody is classified"):
            threshold_disparity([0.2, 0.1, 0.3], [0, 1, 1])


class TestOutcomeRegression:
    def test_removes_the_bias_of_weighting(self):
        frame, truth = make_names_and_places(40_000, random_state=0)
        fit = OutcomeRegressionEM(n_bootstrap=30, random_state=0).fit(
            truth["probability"], frame["y_pred"]
        )
        weighted = weighted_disparity(truth["probability"], frame["y_pred"]).estimate[0]
        gap = truth["demographic_parity"]
        assert abs(weighted - gap) > 0.05
        assert abs(fit.estimates_.estimate[0] - gap) < 4 * fit.estimates_.std_error[0]
        np.testing.assert_allclose(fit.memberships_.sum(axis=1), 1.0, atol=1e-12)

    @pytest.mark.parametrize("model", ["saturated", "mixed"])
    def test_models_by_area(self, model):
        frame, truth = make_names_and_places(40_000, random_state=1)
        fit = OutcomeRegressionEM(model, n_bootstrap=10, random_state=0).fit(
            truth["probability"], frame["y_pred"], area=frame["area"]
        )
        assert abs(fit.estimates_.estimate[0] - truth["demographic_parity"]) < 0.03
        assert fit.area_outcomes_.shape[1:] == (2, 2)

    def test_wrong_where_the_outcome_depends_on_the_surname(self):
        frame, truth = make_names_and_places(40_000, outcome_depends_on="surname", random_state=0)
        fit = OutcomeRegressionEM(n_bootstrap=10, random_state=0).fit(
            truth["probability"], frame["y_pred"]
        )
        weighted = weighted_disparity(truth["probability"], frame["y_pred"]).estimate[0]
        gap = truth["demographic_parity"]
        assert abs(weighted - gap) < 0.02 < abs(fit.estimates_.estimate[0] - gap)

    def test_continuous_outcomes(self):
        frame, truth = make_names_and_places(20_000, random_state=0)
        y = 1.5 * frame["group"] + np.random.default_rng(0).normal(size=len(frame))
        fit = OutcomeRegressionEM("linear", n_bootstrap=10, random_state=0).fit(
            truth["probability"], y
        )
        assert fit.estimates_.estimate[0] == pytest.approx(1.5, abs=0.06)
        assert fit.spread_ == pytest.approx(1.0, abs=0.03)

    def test_table_and_names(self):
        frame, truth = make_names_and_places(2000, random_state=0)
        table = frame.assign(p0=truth["probability"][:, 0], p1=truth["probability"][:, 1])
        fit = OutcomeRegressionEM(n_bootstrap=5, random_state=0).fit(
            table, "y_pred", probability=["p0", "p1"], cluster="area"
        )
        assert "outcome-regression" in str(fit.summary())
        assert "surname" not in str(fit.cite()) or fit.cite()

    def test_errors(self):
        frame, truth = make_names_and_places(200, random_state=0)
        with pytest.raises(ParameterError, match="needs area="):
            OutcomeRegressionEM("mixed").fit(truth["probability"], frame["y_pred"])
        with pytest.raises(ParameterError, match="binary outcome"):
            OutcomeRegressionEM("mixed").fit(
                truth["probability"], frame["y_pred"] * 2, area=frame["area"]
            )
        with pytest.raises(DataError, match="not probabilities|summing to"):
            OutcomeRegressionEM().fit(truth["probability"] * 2, frame["y_pred"])


class TestBounds:
    @settings(max_examples=25)
    @given(seed=st.integers(0, 10_000), K=st.integers(2, 3))
    def test_closed_form_equals_the_linear_programme(self, seed, K):
        rng = np.random.default_rng(seed)
        a, r = rng.dirichlet(np.ones(K), size=4), rng.random(4)
        weight = rng.random(4) + 0.2
        table = frechet_bounds(a, r, sample_weight=weight).to_frame()
        other = None if K == 2 else 0
        low, high = naive.frechet_lp(a, r, weight, 1, other)
        row = table.iloc[0]
        assert row["bound_low"] == pytest.approx(low, abs=1e-7)
        assert row["bound_high"] == pytest.approx(high, abs=1e-7)

    def test_label_rates_by_brute_force(self):
        """Both extremes of a TPR gap are attained and none lies beyond."""
        rng = np.random.default_rng(1)
        a, q1, q0 = np.array([0.3, 0.8]), np.array([0.4, 0.2]), np.array([0.3, 0.5])
        table = frechet_bounds(a, q1, negative=q0).to_frame().iloc[0]
        best = []
        for _ in range(20_000):
            tops, bottoms, possible = np.zeros(2), np.zeros(2), True
            for z in range(2):
                # P(A = 1, f = k, Y = 1 | z) anywhere inside its own Frechet limits
                t = rng.choice([0.0, 1.0, rng.random()], size=2)
                lo1, hi1 = max(0, a[z] + q1[z] - 1), min(a[z], q1[z])
                lo0, hi0 = max(0, a[z] + q0[z] - 1), min(a[z], q0[z])
                x1, x0 = lo1 + t[0] * (hi1 - lo1), lo0 + t[1] * (hi0 - lo0)
                possible &= x1 + x0 <= a[z] and q1[z] - x1 + q0[z] - x0 <= 1 - a[z]
                tops += [q1[z] - x1, x1]
                bottoms += [q0[z] - x0, x0]
            if possible:
                rate = tops / (tops + bottoms)
                best.append(rate[1] - rate[0])
        assert table["bound_high"] >= max(best) - 1e-9
        assert table["bound_low"] <= min(best) + 1e-9
        assert len(best) > 1000

    def test_imbens_manski(self):
        from scipy.stats import norm

        low, high = imbens_manski(0.0, 0.0, 1.0, 1.0, 0.95)
        assert (low, high) == pytest.approx((-1.959964, 1.959964), abs=1e-5)
        low, high = imbens_manski(0.0, 100.0, 1.0, 1.0, 0.95)
        assert low == pytest.approx(-norm.ppf(0.95), abs=1e-6)

    def test_residuals_do_not_move_the_bounds_but_widen_the_interval(self):
        rng = np.random.default_rng(0)
        n = 20_000
        b, r = rng.random(n), rng.random(n)
        f = (rng.random(n) < r).astype(float)
        plain = frechet_bounds(b, r).to_frame().iloc[0]
        noisy = frechet_bounds(b, r, y_pred=f).to_frame().iloc[0]
        assert noisy["bound_low"] == pytest.approx(plain["bound_low"], abs=0.03)
        assert noisy["bound_low"] - noisy["conf_low"] > plain["bound_low"] - plain["conf_low"]

    def test_bounds_of_an_audit_equal_bounds_of_its_rows(self):
        frame, _ = make_weak_proxies(4000, random_state=0)
        X = frame[["proxy_1", "proxy_2", "proxy_3"]]
        audit = ProxyFairness(random_state=0).fit(X, frame["y_pred"])
        prior = audit.posterior(X, allow_individual=True)
        rate = frame.groupby(list(X.columns))["y_pred"].transform("mean")
        rows = frechet_bounds(prior, rate, y_pred=frame["y_pred"]).to_frame().iloc[0]
        cells = audit.bounds().to_frame().iloc[0]
        for column in ("bound_low", "bound_high", "conf_low", "conf_high"):
            assert cells[column] == pytest.approx(rows[column], abs=1e-9)


class TestSensitivity:
    JOINT_P = _DESIGNS["heterogeneous"][0]

    def setup_method(self):
        p, H, T = _DESIGNS["heterogeneous"]
        rates = np.stack([H[:, :2].sum(axis=1), H[:, 2:].sum(axis=1)], axis=1)
        self.p, self.table = p, T[0]
        self.joint = T[0].T @ (p[:, None] * rates)
        self.contrast = gap_contrast(p, 1, 0, 1, 2)

    @pytest.mark.parametrize(
        ("gamma", "low", "high"),
        [
            (0.0, 0.2, 0.2),
            (0.02, 0.133, 0.258),
            (0.05, 0.022, 0.331),
            (0.1, -0.128, 0.428),
            (1.0, -0.331, 0.544),
        ],
    )
    def test_reference_values(self, gamma, low, high):
        found = decision_dependence_bounds(self.joint, self.table, self.p, gamma, self.contrast)
        assert found == pytest.approx((low, high), abs=6e-4)

    def test_break_even(self):
        star = break_even(self.joint, self.table, self.p, self.contrast)
        low, _ = decision_dependence_bounds(self.joint, self.table, self.p, star, self.contrast)
        assert low == pytest.approx(0.0, abs=1e-3)

    def test_dependence_between_proxies_is_undone_exactly(self):
        p1, c = 0.4, 0.05
        rates = np.array([[0.15, 0.7], [0.3, 0.8], [0.4, 0.65]])
        q = np.zeros((2, 2, 2, 2))
        decision = np.array([[0.55, 0.45], [0.35, 0.65]])
        for a, share in ((0, 1 - p1), (1, p1)):
            pair = np.outer([1 - rates[0, a], rates[0, a]], [1 - rates[1, a], rates[1, a]])
            pair += c * np.array([[1, -1], [-1, 1]])
            third = np.array([1 - rates[2, a], rates[2, a]])
            q += share * np.einsum("s,ab,c->sabc", decision[a], pair, third)
        found, high, G = corrected_joint(q, (0, 1), c)
        assert found == pytest.approx(p1, abs=1e-10)
        np.testing.assert_allclose(high, rates, atol=1e-10)
        np.testing.assert_allclose(G, (np.array([1 - p1, p1])[:, None] * decision).T, atol=1e-10)
        metric = group_metric("demographic_parity", 2, 1)
        curve = dependence_curve(q, (0, 1), metric)
        assert curve.covariance[0] == 0.0
        assert curve.largest >= c
        assert np.interp(c, curve.covariance, curve.gap) == pytest.approx(0.2, abs=1e-3)
        assert curve.value_for(0.2) == pytest.approx(c, abs=2e-3)

    def test_dependence_that_differs_between_groups(self):
        """Covariances c_a move the pair by their mean and the third moment by p0 p1 d3 (c1 - c0)."""
        p1, c = 0.4, (0.02, 0.07)
        rates = np.array([[0.15, 0.7], [0.3, 0.8], [0.4, 0.65]])
        q = np.zeros((1, 2, 2, 2))
        for a, share in ((0, 1 - p1), (1, p1)):
            pair = np.outer([1 - rates[0, a], rates[0, a]], [1 - rates[1, a], rates[1, a]])
            pair += c[a] * np.array([[1, -1], [-1, 1]])
            q[0] += share * np.einsum("ab,c->abc", pair, [1 - rates[2, a], rates[2, a]])
        mean = (1 - p1) * c[0] + p1 * c[1]
        skew = p1 * (1 - p1) * (rates[2, 1] - rates[2, 0]) * (c[1] - c[0])
        found, high, _ = corrected_joint(q, (0, 1), mean, skew)
        assert found == pytest.approx(p1, abs=1e-10)
        np.testing.assert_allclose(high, rates, atol=1e-10)


class TestPrivacy:
    def test_matrix_and_inverse(self):
        for K, epsilon in ((2, 0.7), (3, 1.0), (6, 4.0)):
            Q = response_matrix(K, epsilon)
            np.testing.assert_allclose(Q.sum(axis=1), 1.0, atol=1e-14)
            np.testing.assert_allclose(Q @ response_inverse(K, epsilon), np.eye(K), atol=1e-12)
            assert Q.max() / Q.min() == pytest.approx(np.exp(epsilon))
        np.testing.assert_array_equal(response_matrix(3, np.inf), np.eye(3))

    def test_response_follows_the_matrix(self):
        values = np.tile([0, 1, 2], 40_000)
        answer = randomized_response(values, 1.0, n_levels=3, random_state=0)
        seen = pd.crosstab(values, answer, normalize="index").to_numpy()
        np.testing.assert_allclose(seen, response_matrix(3, 1.0), atol=0.01)
        assert (randomized_response([-1, 0], 1.0, n_levels=2, random_state=0)[0]) == -1

    def test_no_noise_gives_the_direct_estimate(self):
        frame, _ = make_weak_proxies(3000, random_state=0)
        table = response_matrix(2, np.inf)
        audit = ProxyFairness(model="known", transition=table).fit(
            frame[["proxy_1"]], frame["y_pred"]
        )
        gap = audit.disparity("demographic_parity").estimate[0]
        assert gap == pytest.approx(audit.direct().estimate[0], abs=1e-12)

    def test_errors(self):
        with pytest.raises(ParameterError, match="positive number"):
            randomized_response([0, 1], 0.0)
        with pytest.raises(DataError, match="0 to 5"):
            randomized_response([0, 5], 1.0, n_levels=2)
        with pytest.raises(DataError, match="dtype"):
            randomized_response([0.5], 1.0)


class TestMitigation:
    P = np.array([0.6, 0.4])
    TABLE = np.array([[0.8, 0.2], [0.25, 0.75]])

    def joint(self):
        H = _DESIGNS["heterogeneous"][1]
        return (self.P[:, None] * H).T.reshape(2, 2, 2)

    def test_reference_values(self):
        free, error, rates = post_processing(self.joint(), self.TABLE, "equalized_odds", 1.0)
        assert error == pytest.approx(0.32, abs=1e-10)
        assert rates[0, 0] - rates[0, 1] == pytest.approx(-0.2273, abs=5e-5)
        assert rates[1, 0] - rates[1, 1] == pytest.approx(-0.1333, abs=5e-5)
        _, fair_error, fair = post_processing(self.joint(), self.TABLE, "equalized_odds", 0.0)
        assert fair_error == pytest.approx(0.3846, abs=5e-5)
        np.testing.assert_allclose(fair[:, 0], fair[:, 1], atol=1e-9)
        assert free.shape == (2, 2)

    def test_group_blind_decisions_cost_more(self):
        _, seeing, _ = post_processing(self.joint(), self.TABLE, "equalized_odds", 0.05)
        _, blind, _ = post_processing(self.joint(), None, "equalized_odds", 0.05)
        assert blind >= seeing

    def test_decisions_are_fair_to_the_true_groups(self):
        frame, _ = make_weak_proxies(60_000, random_state=7)
        names = ["proxy_1", "proxy_2", "proxy_3"]
        audit = ProxyFairness(random_state=0).fit(frame, "y_pred", y_true="y_true", proxies=names)
        before = frame.pivot_table(index="y_true", columns="group", values="y_pred")
        fair = PostProcessor(random_state=0).fit(audit)
        frame["fair"] = fair.predict(frame["y_pred"], frame["proxy_1"])
        after = frame.pivot_table(index="y_true", columns="group", values="fair")
        assert (before[1] - before[0]).abs().min() > 0.1
        assert (after[1] - after[0]).abs().max() < 0.05
        with pytest.raises(DataError, match="needs proxy="):
            fair.predict(frame["y_pred"])
        assert "equalized_odds" in repr(fair)

    def test_rescaled_tolerance_is_rho(self):
        rho = attenuation(self.P, self.TABLE)
        assert rescaled_tolerance(0.1, self.P, self.TABLE) == pytest.approx(0.1 * rho)
        with pytest.raises(ParameterError, match="two groups"):
            rescaled_tolerance(0.1, [1 / 3] * 3, np.eye(3))

    def test_group_blind_threshold(self):
        tpr = np.array([[1, 0.9, 0.6, 0], [1, 0.8, 0.5, 0]])
        fpr = np.array([[1, 0.4, 0.1, 0], [1, 0.3, 0.1, 0]])
        mixture, error = group_blind_threshold(tpr, fpr, [0.4, 0.5], [0.6, 0.4], tolerance=0.05)
        assert mixture.sum() == pytest.approx(1.0)
        assert np.abs((tpr[0] - tpr[1]) @ mixture) <= 0.05 + 1e-9
        assert 0 < error < 0.5
        with pytest.raises(IdentificationError, match="raise the tolerance"):
            group_blind_threshold(tpr[:, 1:2], fpr[:, 1:2], [0.4, 0.5], [0.6, 0.4])

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_corrected_reduction_is_fair_to_the_true_groups(self):
        pytest.importorskip("fairlearn")
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(0)
        n = 20_000
        group = (rng.random(n) < 0.4).astype(int)
        proxy = np.where(rng.random(n) < 0.2, 1 - group, group)
        X = np.column_stack([1.5 * group + rng.normal(size=n), rng.normal(size=n)])
        y = (X.sum(axis=1) + rng.normal(size=n) > 0.5).astype(int)
        table = np.array([[0.8, 0.2], [0.2, 0.8]])
        plain = LogisticRegression().fit(X, y).predict(X)
        gap = plain[group == 1].mean() - plain[group == 0].mean()
        reduction = corrected_reduction(
            LogisticRegression(),
            transition=table,
            prevalence=[0.6, 0.4],
            tolerance=0.02,
            max_iter=20,
        ).fit(X, y, sensitive_features=proxy)
        fair = reduction.predict(X, random_state=0)
        assert gap > 0.3
        assert abs(fair[group == 1].mean() - fair[group == 0].mean()) < 0.07
        with pytest.raises(ParameterError, match="needs a fitted audit"):
            corrected_reduction(LogisticRegression())

    def test_errors(self):
        frame, _ = make_weak_proxies(3000, random_state=0)
        audit = ProxyFairness(random_state=0).fit(
            frame[["proxy_1", "proxy_2", "proxy_3"]], frame["y_pred"]
        )
        with pytest.raises(ParameterError, match="binary labels"):
            PostProcessor().fit(audit)
        with pytest.raises(ParameterError, match="choose one of"):
            PostProcessor("calibration").fit(audit)
        with pytest.raises(ParameterError, match="not fitted"):
            PostProcessor().predict([0, 1])


def test_population_tensor_sums_to_one():
    for p, H, T in _DESIGNS.values():
        assert population_tensor(p, H, T).sum() == pytest.approx(1.0)
