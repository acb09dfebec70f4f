"""Scores on given nuisances: identities that hold exactly, and the multiply robust remainder."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from causalfair.iv import _diagnostics, _scores, _sensitivity, _weak

rng = np.random.default_rng(20)
Z95 = 1.959963984540054


def one_cell(*, wrong: frozenset[str] = frozenset()):
    """Every (z, a, y) of a discrete law with its probability, and nuisances, some of them wrong.

    One X cell; Y takes two values given (z, a), so all expectations are finite sums.
    """
    pi, lam = 0.4, {0: 0.3, 1: 0.55}
    beta, mu = 1.3, {0: 0.5, 1: 1.7}
    # omega must be equal in both arms: choose E[Y|z,a] so that it is.
    omega = 0.21
    rows, prob = [], []
    for z in (0, 1):
        V = lam[z] * (1 - lam[z])
        # e = Y - beta A - mu has conditional mean (a - lam) omega / V, hence Cov(A, e) = omega.
        for a in (0, 1):
            mean = beta * a + mu[z] + (a - lam[z]) * omega / V
            for sign in (-1.0, 1.0):
                rows.append((z, a, mean + sign * 0.7))
                pz = pi if z else 1 - pi
                pa = lam[z] if a else 1 - lam[z]
                prob.append(0.5 * pz * pa)
    z, a, y = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    n = len(rows)
    off = {"pi": 0.25, "lam": 0.13, "beta": -2.0, "mu": 0.9, "omega": -0.4}
    shift = {name: (off[name] if name in wrong else 0.0) for name in off}
    l0, l1 = lam[0] + shift["lam"], lam[1] - 0.5 * shift["lam"]
    full = lambda value: np.full(n, value)  # noqa: E731
    nu = _scores.IVNuisances(
        pi=full(pi + shift["pi"]),
        lam0=full(l0),
        lam1=full(l1),
        D=full(l1 * (1 - l1) - l0 * (1 - l0)),
        beta=full(beta + shift["beta"]),
        mu0=full(mu[0] + shift["mu"]),
        mu1=full(mu[1] - shift["mu"]),
        omega=full(omega + shift["omega"]),
    )
    return z, a, y, np.array(prob), nu, beta, mu[1] - mu[0]


COVERS = [{"pi", "lam"}, {"lam", "beta", "omega"}, {"beta", "omega", "mu"}, {"pi", "beta", "mu"}]
MODELS = ("pi", "lam", "beta", "omega", "mu")


@pytest.mark.parametrize(
    "wrong", [c for k in range(6) for c in itertools.combinations(MODELS, k)], ids="-".join
)
def test_score_is_unbiased_exactly_on_the_covers(wrong):
    z, a, y, prob, nu, beta, _ = one_cell(wrong=frozenset(wrong))
    phi = _scores.influence_scores(z, a, y, nu)
    right = set(MODELS) - set(wrong)
    bias = prob @ phi - beta
    if any(cover <= right for cover in COVERS):
        assert abs(bias) < 1e-12
    else:
        assert abs(bias) > 1e-3


def test_direct_effect_score_at_the_truth():
    z, a, y, prob, nu, _, direct = one_cell()
    assert abs(prob @ _scores.direct_effect_scores(z, a, y, nu) - direct) < 1e-12


def test_one_sided_score_is_the_aipw_score_among_the_encouraged():
    n = 500
    z = rng.binomial(1, 0.4, n).astype(float)
    lam1 = rng.uniform(0.3, 0.7, n)
    a = z * (rng.uniform(size=n) < lam1)
    y = rng.normal(size=n) + a
    pi, beta, mu0, mu1 = (rng.uniform(0.3, 0.7, n) for _ in range(4))
    nu = _scores.IVNuisances(pi, 0 * lam1, lam1, lam1 * (1 - lam1), beta, mu0, mu1, 0 * lam1)
    m0, m1 = mu1, mu1 + beta
    aipw = z / pi * (a * (y - m1) / lam1 - (1 - a) * (y - m0) / (1 - lam1)) + m1 - m0
    np.testing.assert_allclose(_scores.influence_scores(z, a, y, nu), aipw, rtol=0, atol=1e-12)


def random_moments(seed, strength):
    g = np.random.default_rng(seed)
    v = g.normal(strength, 1.0, 300)
    u = 0.7 * v + g.normal(0, 1, 300)
    M = np.column_stack([u, v])
    return M.mean(0), np.cov(M.T, bias=True) / 300


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("strength", [0.0, 0.05, 0.1, 0.5])
def test_robust_set_is_the_inverted_score_test(seed, strength):
    (u, v), vcov = random_moments(seed, strength)
    intervals = _weak.robust_set(u, v, vcov, 1.6448536269514722)
    grid = np.concatenate([np.linspace(-30, 30, 6001), [-1e7, 1e7]])
    variance = vcov[0, 0] - 2 * grid * vcov[0, 1] + grid**2 * vcov[1, 1]
    accepted = (u - grid * v) ** 2 <= 2.705543454095404 * variance
    inside = np.any([(low <= grid) & (grid <= high) for low, high in intervals], axis=0)
    np.testing.assert_array_equal(accepted, inside)
    if len(intervals) == 1 and np.isfinite(intervals[0]).all():
        assert intervals[0][0] <= u / v <= intervals[0][1]


def test_robust_set_degenerate_lead():
    c = 3.841458820694124
    vcov = np.array([[1.0, 0.0], [0.0, 1.0 / c]])
    assert _weak.robust_set(0.0, 0.0, 0.0 * vcov, Z95) == [(-np.inf, np.inf)]
    intervals = _weak.robust_set(0.0, 1e-9, np.array([[1.0, 0.1], [0.1, 1.0]]), Z95)
    assert intervals == [(-np.inf, np.inf)]


def test_breakdown_is_where_the_interval_touches_zero():
    vcov = np.array([[0.04, -0.01], [-0.01, 0.09]])
    result = _sensitivity.breakdown(2.0, -5.0, vcov, Z95)
    assert result.zero == 0.4
    d = result.interval
    variance = vcov[0, 0] + 2 * d * vcov[0, 1] + d**2 * vcov[1, 1]
    assert 0 < d < result.zero
    assert abs(2.0 - 5.0 * d - 1.959963984540054 * np.sqrt(variance)) < 1e-12
    assert _sensitivity.breakdown(0.1, -5.0, vcov, Z95).interval == 0.0


def test_best_linear_projection_matches_statsmodels_hc1():
    sm = pytest.importorskip("statsmodels.api")
    n = 200
    basis = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    phi = basis @ [1.0, 2.0, -1.0] + rng.normal(size=n) * (1 + basis[:, 1] ** 2)
    ours = _scores.best_linear_projection(phi, basis, ("1", "x", "w"))
    theirs = sm.OLS(phi, basis).fit(cov_type="HC1")
    np.testing.assert_allclose(ours.estimate, theirs.params, rtol=1e-10)
    vcov = ours.influence.T @ ours.influence / n**2
    np.testing.assert_allclose(vcov, theirs.cov_params(), rtol=1e-8)


def test_groups_average_to_the_whole_and_weights_replicate_rows():
    n = 90
    phi = rng.normal(size=n)
    codes = rng.integers(0, 3, n)
    count = rng.integers(1, 4, n)
    weight = count * n / count.sum()
    labels = ("a", "b", "c")
    weighted = _scores.score_groups(phi, codes, labels, weight)
    repeated = _scores.score_groups(np.repeat(phi, count), np.repeat(codes, count), labels)
    np.testing.assert_allclose(weighted.estimate, repeated.estimate, rtol=0, atol=1e-12)
    shares = [weight[codes == k].sum() / n for k in range(3)]
    total = _scores.score_ate(phi, weight).estimate[0]
    assert abs(np.dot(shares, weighted.estimate) - total) < 1e-12


def test_leverage_finds_the_planted_row_and_leaves_it_out():
    z, a, y, _, nu, _, _ = one_cell()
    z, a, y = (np.tile(c, 10) for c in (z, a, y))
    nu = nu.take(np.tile(np.arange(8), 10))
    y = y.copy()
    y[17] += 1e4
    phi = _scores.influence_scores(z, a, y, nu)
    rows = _diagnostics.leverage_rows(z, nu, phi)
    assert rows.row[0] == 17
    assert rows.share[0] > 0.9
    np.testing.assert_allclose(rows.leave_out[0], np.delete(phi, 17).mean(), rtol=1e-9)


def test_floor_keeps_the_sign_and_counts():
    D, floored = _scores.floor_variance_shift(np.array([0.5, 0.001, -0.001, 0.0, -0.3]), 0.02)
    np.testing.assert_array_equal(D, [0.5, 0.02, -0.02, 0.02, -0.3])
    np.testing.assert_array_equal(floored, [False, True, True, True, False])
