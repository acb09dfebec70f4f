"""Special cases with closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from naive import reward as naive

from causalfair.datasets import (
    make_linear_reward,
    make_popularity_iv,
    make_proximal_reward,
    make_simpson_reward,
)
from causalfair.reward import (
    Absorber,
    DeconfoundedReward,
    InstrumentedReward,
    PairwiseReward,
    ProximalReward,
    amplification,
    best_of_n_curve,
    inverse_variance_weight,
    off_policy_value,
    partial_r2,
    robustness_value,
    tilt_frontier,
)

EXACT = 1e-10


def slope(frame, method, penalty=0.0, **options):
    reward = DeconfoundedReward(method=method, penalty=penalty, numeric_basis="linear")
    return float(reward.fit(frame, "y", embedding=["x"], numeric=["w"], **options).coef_[0])


@pytest.mark.parametrize(
    ("method", "want"),
    [("naive", 1.4), ("residual_y", -0.36), ("orthogonal", -1), ("subtract", -1), ("invariant", 0)],
)
def test_a_scalar_gaussian(method, want):
    frame, truth = make_linear_reward(500, exact=True, random_state=0)
    assert slope(frame, method) == pytest.approx(want, abs=EXACT)
    assert truth[method] == pytest.approx(want, abs=EXACT)


@pytest.mark.parametrize(("penalty", "want"), [(0.1, -0.386), (1.0, 0.3095)])
def test_a_penalised_feature_changes_sign(penalty, want):
    frame, _ = make_linear_reward(500, exact=True, random_state=0)
    a, b, g, lam = 0.8, -1.0, 3.0, penalty
    formula = (b * (1 + lam - a**2) + g * a * lam) / ((1 + lam) ** 2 - a**2)
    assert slope(frame, "as_feature", penalty) == pytest.approx(formula, abs=EXACT)
    assert formula == pytest.approx(want, abs=5e-4)


def test_a_backfitting_rounds():
    frame, _ = make_linear_reward(500, exact=True, random_state=0)
    x, w, y = frame["x"].to_numpy(), frame["w"].to_numpy(), frame["y"].to_numpy()
    b, found = 0.0, []
    for _ in range(4):
        g = w * (w @ (y - b * x)) / (w @ w)
        b = float(x @ (y - g) / (x @ x))
        found.append(b)
    np.testing.assert_allclose(found, [-(1 - 0.8 ** (2 * t)) for t in (1, 2, 3, 4)], atol=EXACT)
    np.testing.assert_allclose(found, [-0.36, -0.5904, -0.7379, -0.8322], atol=5e-5)


def test_a_standard_error():
    frame, _ = make_linear_reward(500, exact=True, random_state=0)
    reward = DeconfoundedReward(penalty=0.0, numeric_basis="linear").fit(
        frame, "y", embedding=["x"], numeric=["w"]
    )
    X = np.column_stack([frame["x"], np.ones(500), frame["w"]])
    inverse = np.linalg.inv(X.T @ X)
    e = frame["y"].to_numpy() - X @ (inverse @ X.T @ frame["y"].to_numpy())
    want = np.sqrt((inverse @ (X * e[:, None] ** 2).T @ X @ inverse)[0, 0] * 500 / 497)
    assert reward.estimates_.std_error[0] == pytest.approx(want, rel=1e-10)
    assert want == pytest.approx(1 / np.sqrt(500 * 0.36), rel=0.1)


def test_b_simpson():
    frame, truth = make_simpson_reward(200, random_state=0)
    for method, want in [("naive", 1.4), ("residual_y", -0.64), ("orthogonal", -1.0)]:
        reward = DeconfoundedReward(method=method, penalty=0.0).fit(
            frame, "y", embedding=["a"], categorical=["w"]
        )
        assert reward.coef_[0] == pytest.approx(want, abs=EXACT)
    within = Absorber().fit(frame["w"].to_numpy()).residualize(frame["a"].to_numpy())
    assert np.mean(within**2) == pytest.approx(truth["overlap_weight"], abs=EXACT)
    a, w = frame["a"].to_numpy(), frame["w"].to_numpy()
    weight = np.where(a == w, 0.5 / 0.8, 0.5 / 0.2)
    assert set(weight) == {0.625, 2.5}
    assert weight.sum() ** 2 / (weight**2).sum() / len(a) == pytest.approx(0.64, abs=EXACT)


def case_c(n=400):
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(n, 4))
    w, v1, v2, e = (np.linalg.qr(draws - draws.mean(axis=0))[0] * np.sqrt(n)).T
    x1, x2 = 0.9 * w + np.sqrt(0.19) * v1, v2
    return pd.DataFrame({"x1": x1, "x2": x2, "w": w, "y": x1 + 0.5 * x2 + 2 * w + e})


@pytest.mark.parametrize(
    ("method", "want"),
    [
        ("naive", (2.8, 0.5)),
        ("residual_y", (0.19, 0.5)),
        ("invariant", (0, 0.5)),
        ("orthogonal", (1, 0.5)),
        ("subtract", (1, 0.5)),
    ],
)
def test_c_order_flips(method, want):
    reward = DeconfoundedReward(method=method, penalty=0.0, numeric_basis="linear").fit(
        case_c(), "y", embedding=["x1", "x2"], numeric=["w"]
    )
    np.testing.assert_allclose(reward.coef_, want, atol=EXACT)


def test_d_instrument():
    frame, truth = make_popularity_iv(40_000, random_state=0)
    plain = DeconfoundedReward(penalty=0.0, numeric_basis="linear").fit(
        frame, "y", embedding=["x"], numeric=["popularity"]
    )
    se = plain.estimates_.std_error[0]
    assert abs(plain.coef_[0] - truth["ols_beta"]) < 3 * se
    naive_slope = DeconfoundedReward(penalty=0.0).fit(frame, "y", embedding=["x"])
    assert abs(naive_slope.coef_[0] - truth["naive"]) < 3 * naive_slope.estimates_.std_error[0]
    reward = InstrumentedReward(penalty=0.0).fit(
        frame, "y", embedding=["x"], endogenous=["popularity"], instruments=["slot"]
    )
    est = reward.estimates_
    assert (np.abs(est.estimate - [0.5, 2]) < 3 * est.std_error).all()
    # subtracting the instrumented effect and regressing is two-stage least squares exactly
    x, p, z, y = (frame[c].to_numpy() - frame[c].mean() for c in ("x", "popularity", "slot", "y"))
    W, Z = np.column_stack([x, p]), np.column_stack([x, z])
    iv = np.linalg.solve(Z.T @ W, Z.T @ y)
    np.testing.assert_allclose([reward.coef_[0], reward.endogenous_effect_[0]], iv, atol=1e-9)
    np.testing.assert_allclose(est.estimate, iv, atol=1e-9)
    e = y - W @ iv
    bread = np.linalg.inv(Z.T @ W)
    V = bread @ ((Z * e[:, None] ** 2).T @ Z) @ bread.T
    np.testing.assert_allclose(est.std_error, np.sqrt(np.diag(V)), rtol=1e-8)
    assert reward.wu_hausman_.p_value < 1e-6
    ((low, high),) = reward.robust_set()
    assert low < 2 < high
    assert high - low < 0.1


def test_e_proximal():
    frame, truth = make_proximal_reward(40_000, random_state=1)
    held = DeconfoundedReward(penalty=0.0, numeric_basis="linear").fit(
        frame, "y", embedding=["x"], numeric=["outcome_proxy"]
    )
    assert abs(held.coef_[0] - truth["proxy_adjusted"]) < 3 * held.estimates_.std_error[0]
    reward = ProximalReward(penalty=0.0).fit(
        frame, "y", embedding=["x"], outcome_proxy="outcome_proxy", text_proxy="text_proxy"
    )
    assert (np.abs(reward.estimates_.estimate - [1, 2]) < 3 * reward.estimates_.std_error).all()


def test_g_gram_identity_and_degrees_of_freedom():
    rng = np.random.default_rng(3)
    codes, X = rng.integers(0, 9, 150), rng.normal(size=(150, 4))
    within = Absorber().fit(codes).residualize(X)
    counts = np.bincount(codes)
    means = np.column_stack([np.bincount(codes, c) for c in X.T]) / counts[:, None]
    np.testing.assert_allclose(
        within.T @ within, X.T @ X - (counts[:, None] * means).T @ means, atol=EXACT
    )
    y = rng.normal(size=150)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(y=y, f=codes)
    reward = DeconfoundedReward(penalty=0.3).fit(
        frame, "y", embedding=list("abcd"), categorical=["f"]
    )
    D = np.diag((within**2).mean(axis=0))
    hat = within @ np.linalg.solve(within.T @ within / 150 + 0.3 * D, within.T / 150)
    np.testing.assert_allclose(within @ reward.coef_, hat @ y, atol=EXACT)
    assert reward._method_fit.ridge.df == pytest.approx(np.trace(hat), abs=EXACT)


def test_h_bradley_terry():
    wins, losses = 30, 12
    D = np.ones((wins + losses, 1))
    win = np.repeat([1.0, 0.0], [wins, losses])
    reward = PairwiseReward(penalty=0.0).fit(D, win)
    assert reward.coef_[0] == pytest.approx(np.log(wins / losses), abs=EXACT)
    assert reward.estimates_.std_error[0] == pytest.approx(np.sqrt(1 / wins + 1 / losses), abs=1e-8)


def test_i_best_of_n():
    ranks = np.arange(1.0, 11)
    curve = best_of_n_curve(ranks, ranks, sizes=[1, 3, 4, 10])
    np.testing.assert_allclose(curve["gold"], [5.5, 8.25, 4 * 11 / 5, 10], atol=EXACT)
    assert curve["kl"].iloc[2] == pytest.approx(0.6363, abs=5e-5)
    rng = np.random.default_rng(0)
    proxy, gold = rng.integers(0, 4, 8).astype(float), rng.normal(size=8)
    for n in (1, 2, 5, 8):
        got = best_of_n_curve(proxy, gold, sizes=[n])["gold"].iloc[0]
        assert got == pytest.approx(naive.best_of_n(proxy, gold, n), abs=EXACT)
    from scipy.special import ndtri

    grid = ndtri((np.arange(200_000) + 0.5) / 200_000)
    curve = best_of_n_curve(grid, 0.5 * grid, sizes=[2, 4, 16, 64])
    np.testing.assert_allclose(curve["proxy"], [0.5642, 1.0294, 1.7660, 2.3437], atol=2e-4)
    np.testing.assert_allclose(curve["gold"], 0.5 * curve["proxy"], atol=EXACT)


def test_j_tilt():
    from scipy.special import ndtri

    mean, spread, tau = 0.3, 0.8, 0.7
    r = mean + spread * ndtri((np.arange(400_000) + 0.5) / 400_000)
    row = tilt_frontier(r, r, strengths=[tau]).iloc[0]
    assert row["value"] == pytest.approx(mean + tau * spread**2, abs=1e-4)
    assert row["kl"] == pytest.approx(tau**2 * spread**2 / 2, abs=1e-4)
    assert row["ess_share"] == pytest.approx(np.exp(-(tau**2) * spread**2), abs=1e-3)


def two_texts(n=1_000):
    """Exact shares: text 1 with probability 0.8, outcome means 0.1 and 0.6."""
    text = np.repeat([1, 0], [8 * n // 10, 2 * n // 10])
    y = np.concatenate(
        [np.repeat([1.0, 0.0], [8 * n // 100, 72 * n // 100]),
         np.repeat([1.0, 0.0], [12 * n // 100, 8 * n // 100])]
    )  # fmt: skip
    old, new = np.where(text == 1, 0.8, 0.2), np.where(text == 1, 0.3, 0.7)
    model = np.where(text == 1, 0.1, 0.6)
    return y, old, new, model


def test_k_two_text_policy():
    y, old, new, model = two_texts()
    n = len(y)
    fitted_new = np.full(n, 0.3 * 0.1 + 0.7 * 0.6)
    for method in ("dm", "ips", "snips", "dr", "sndr"):
        value = off_policy_value(
            y,
            propensity=old,
            new_propensity=new,
            fitted=model,
            fitted_new=fitted_new,
            method=method,
        )
        assert value.estimates_["value"].estimate[0] == pytest.approx(0.45, abs=EXACT)
        variance = n * value.estimates_["value"].std_error[0] ** 2
        if method == "ips":
            assert variance == pytest.approx(1.2788, abs=5e-5)
        if method == "dr":
            assert variance == pytest.approx(0.5981, abs=5e-5)


def test_l_sensitivity():
    t, dof = 4.184445, 783
    assert robustness_value(t, dof) == pytest.approx(0.1388, abs=5e-5)
    assert robustness_value(t, dof, level=0.95) == pytest.approx(0.0763, abs=5e-5)
    assert partial_r2(t, dof) == pytest.approx(0.0219, abs=5e-5)


def test_l_omitted_variable_bias_is_the_bound():
    from causalfair.reward import bias_bound

    rng = np.random.default_rng(5)
    n = 300
    d, z = rng.normal(size=(2, n))
    d = d + 0.7 * z
    y = d + 2 * z + rng.normal(size=n)
    d, z, y = (a - a.mean() for a in (d, z, y))
    short = d @ y / (d @ d)
    rest = y - short * d
    se = np.sqrt(rest @ rest / (n - 2) / (d @ d))
    longer = np.linalg.lstsq(np.column_stack([d, z]), y, rcond=None)[0]
    zd = z - d * (d @ z) / (d @ d)
    r2_y = (zd @ rest) ** 2 / ((zd @ zd) * (rest @ rest))
    r2_d = (d @ z) ** 2 / ((d @ d) * (z @ z))
    assert bias_bound(se, n - 2, r2_outcome=r2_y, r2_text=r2_d) == pytest.approx(
        abs(short - longer[0]), rel=1e-10
    )


def test_m_inverse_variance_weighting():
    weight, mse = inverse_variance_weight(0.01, 0.09, 0.04)
    assert (round(float(weight), 4), round(float(mse), 5)) == (0.6429, 0.03214)
    assert inverse_variance_weight(0.01, 1e-14, 0.04)[0] < 1e-12
    assert inverse_variance_weight(0.01, 0.09, 1e14)[0] < 1e-12


def base(seed=0, n=240):
    rng = np.random.default_rng(seed)
    f, g = rng.integers(0, 12, n), rng.integers(0, 5, n)
    X = rng.normal(size=(n, 3)) + 0.2 * f[:, None]
    y = X @ [1.0, -0.5, 0.2] + 0.3 * f + rng.normal(size=n)
    return pd.DataFrame(X, columns=list("abc")).assign(
        f=f, g=g, y=y, test=np.repeat(np.arange(n // 4), 4)
    )


def fit(frame, **options):
    roles = {"embedding": list("abc"), "categorical": ["f", "g"]} | options
    return DeconfoundedReward(penalty=0.1).fit(frame, "y", **roles)


def test_p_function_of_the_stratum_is_not_identified():
    from causalfair.exceptions import UnidentifiedFeatureWarning

    frame = base().assign(d=lambda t: 2.0 * t["f"] - t["g"])
    with pytest.warns(UnidentifiedFeatureWarning, match="1 feature.* no reward: d"):
        reward = fit(frame, embedding=list("abcd"))
    assert reward.coef_[3] == 0.0
    assert reward.unidentified_ == ("d",)
    assert reward.estimates_["d"].estimate[0] == 0.0
    np.testing.assert_allclose(reward.coef_[:3], fit(frame).coef_, atol=EXACT)


def test_q_stratum_effects_change_nothing():
    frame = base()
    rng = np.random.default_rng(1)
    shifted = frame.assign(y=frame["y"] + 50 * rng.normal(size=12)[frame["f"]])
    np.testing.assert_allclose(fit(frame).coef_, fit(shifted).coef_, atol=1e-9)


def test_r_affine_outcomes():
    frame = base()
    want = fit(frame)
    got = fit(frame.assign(y=-3 * frame["y"] + 7))
    np.testing.assert_allclose(got.coef_, -3 * want.coef_, atol=1e-9)
    np.testing.assert_allclose(got.estimates_.std_error, 3 * want.estimates_.std_error, rtol=1e-8)


def test_s_without_confounders_all_methods_coincide():
    frame = base()
    found = [
        DeconfoundedReward(method=m, penalty=0.1).fit(frame, "y", embedding=list("abc")).coef_
        for m in ("orthogonal", "subtract", "naive", "as_feature", "residual_y", "invariant")
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=EXACT)


def test_t_duplicated_rows():
    frame = base().assign(row=np.arange(240))
    once = fit(frame, cluster="row")
    twice = fit(pd.concat([frame, frame], ignore_index=True), cluster="row")
    np.testing.assert_allclose(twice.coef_, once.coef_, atol=EXACT)
    k = 3 + once._problem.confounders.degrees_of_freedom()
    factor = np.sqrt((479 / (480 - k)) / (239 / (240 - k)))
    np.testing.assert_allclose(
        twice.estimates_.std_error, factor * once.estimates_.std_error, rtol=1e-9
    )


def test_clustered_errors_equal_the_joint_regression():
    frame = base()
    reward = DeconfoundedReward(penalty=0.0).fit(
        frame, "y", embedding=list("abc"), categorical=["f", "g"], cluster="test"
    )
    W = np.hstack([naive.dummies(frame["f"]), naive.dummies(frame["g"])])
    coef, V = naive.clustered_ols(
        frame[list("abc")].to_numpy(), frame["y"].to_numpy(), W, frame["test"].to_numpy()
    )
    np.testing.assert_allclose(reward.coef_, coef, atol=1e-9)
    np.testing.assert_allclose(reward.estimates_.vcov, V, rtol=1e-8)
    difference = reward.contrast(np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    row = np.array([1.0, -1, 0])
    assert difference.std_error[0] == pytest.approx(np.sqrt(row @ V @ row), rel=1e-8)


def test_amplification():
    assert amplification(0.2, 0.0) == pytest.approx(0.2)
    odds = 0.25 * np.exp(0.3 / 0.5)
    assert amplification(0.2, 0.3, 0.5) == pytest.approx(odds / (1 + odds))
