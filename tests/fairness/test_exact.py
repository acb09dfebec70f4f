"""Special cases with closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from naive import fairness as naive

from causalfair.fairness import ProxyFairness
from causalfair.fairness._latent import make_spec
from causalfair.fairness._metrics import fairness_matrix, gap_values, group_metric
from causalfair.fairness._models import (
    default_affinity,
    fit_joint,
    fit_local,
    fit_moments,
    fit_partial,
    fit_tied,
)
from causalfair.fairness._moments import (
    attenuation,
    binary_closed_form,
    binary_moments,
    calibrate_joint,
    calibrate_posterior,
    diagonalise,
    direct_error_bound,
    proxy_posterior,
    signed_weights,
    solve_binary,
)
from causalfair.fairness._simulate import _DESIGNS, population_tensor
from causalfair.fairness._tensor import from_tensor

INTEGER = np.array(
    [[163, 57, 57, 27, 57, 27, 27, 33], [57, 27, 27, 33, 27, 33, 33, 83]], dtype=float
).reshape(2, 1, 2, 2, 2)
EXACT = 1e-8


def population(design="heterogeneous"):
    p, H, T = _DESIGNS[design]
    return p, H, T, population_tensor(p, H, T)


def random_population(K, seed, m=3, levels=None):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(K, 20.0))
    H = rng.dirichlet(np.ones(4), size=K)
    T = []
    for j in range(m):
        L = K if levels is None else levels[j]
        extra = rng.dirichlet(np.ones(L), size=K)
        T.append(0.6 * np.eye(K, L) + 0.4 * extra)
    return p, H, T, population_tensor(p, H, T)


class TestIntegerTensor:
    """768 rows with an exact solution in integers."""

    def test_joint_fit_and_standard_errors(self):
        audit = ProxyFairness.from_counts(INTEGER, random_state=0)
        assert audit.prevalence_ == pytest.approx([2 / 3, 1 / 3], abs=EXACT)
        for table in audit.transition_:
            np.testing.assert_allclose(table, [[0.75, 0.25], [0.25, 0.75]], atol=EXACT)
        np.testing.assert_allclose(audit.joint_, [[1 / 2, 1 / 12], [1 / 6, 1 / 4]], atol=EXACT)
        np.testing.assert_allclose(audit.group_rates_[:, 1], [0.25, 0.75], atol=EXACT)
        gap = audit.disparity("demographic_parity")
        assert gap.estimate[0] == pytest.approx(0.5, abs=EXACT)
        assert gap.std_error[0] == pytest.approx(0.0520581, abs=5e-8)
        shares = audit._law.vcov.reshape(2, 2, 2, 2)[:, 1, :, 1].sum()
        assert np.sqrt(shares) == pytest.approx(0.0430272, abs=5e-8)

    def test_goodness_of_fit_is_zero(self):
        table = ProxyFairness.from_counts(INTEGER, random_state=0).fit_tests().to_frame()
        row = table.set_index("test").loc["G2"]
        assert row["statistic"] == pytest.approx(0.0, abs=1e-9)
        assert row["df"] == 6

    def test_direct_gap_is_attenuated_by_rho(self):
        audit = ProxyFairness.from_counts(INTEGER, random_state=0)
        assert audit.direct(0).estimate[0] == pytest.approx(8 / 35, abs=1e-12)
        rho = attenuation(np.array([2 / 3, 1 / 3]), np.array([[0.75, 0.25], [0.25, 0.75]]))
        assert rho == pytest.approx(16 / 35, abs=1e-12)

    def test_two_proxies_and_the_decision_give_the_same(self):
        audit = ProxyFairness.from_counts(INTEGER.sum(axis=-1), model="two_view", random_state=0)
        np.testing.assert_allclose(audit.joint_, [[1 / 2, 1 / 12], [1 / 6, 1 / 4]], atol=EXACT)

    def test_moments(self):
        pooled = INTEGER.sum(axis=(0, 1))
        assert pooled.ravel().tolist() == [220, 84, 84, 60, 84, 60, 60, 116]
        found = binary_moments(pooled)
        np.testing.assert_allclose(found.mean, 5 / 12, atol=1e-15)
        np.testing.assert_allclose(found.pair, 1 / 18, atol=1e-15)
        assert found.triple == pytest.approx(1 / 108, abs=1e-15)
        p1, high = solve_binary(found)
        assert p1 == pytest.approx(1 / 3, abs=1e-12)
        np.testing.assert_allclose(high, [[0.25, 0.75]] * 3, atol=1e-12)


@pytest.mark.parametrize("K", [2, 3, 4, 5, 6])
def test_moments_and_likelihood_recover_any_population(K):
    p, H, T, N = random_population(K, seed=K)
    data, affinity = from_tensor(N), default_affinity((K,) * 3, K)
    rng = np.random.default_rng(0)
    truth = (p[:, None] * H).T
    moments = fit_moments(data, K, affinity, rng)
    np.testing.assert_allclose(moments.fit.G, truth, atol=1e-10)
    joint = fit_joint("joint", data, make_spec(data, K), affinity, rng)
    np.testing.assert_allclose(joint.fit.G, truth, atol=1e-10)
    for j in range(3):
        np.testing.assert_allclose(joint.tables()[j], T[j], atol=1e-10)
    found = diagonalise(N.sum(axis=(0, 1)), K, rng=rng)
    assert found is not None
    np.testing.assert_allclose(np.sort(found.prevalence), np.sort(p), atol=1e-10)


def test_closed_form_equals_diagonalisation():
    _, _, _, N = population()
    closed = binary_closed_form(N.sum(axis=(0, 1)))
    np.testing.assert_allclose(closed.prevalence, [0.6, 0.4], atol=1e-12)
    for j, table in enumerate(_DESIGNS["heterogeneous"][2]):
        np.testing.assert_allclose(closed.tables[j], table, atol=1e-12)


def test_rectangular_and_more_than_three_proxies():
    p, H, _T, N = random_population(3, seed=8, m=4, levels=[3, 5, 4, 3])
    data = from_tensor(N)
    rng = np.random.default_rng(1)
    affinity = default_affinity(data.n_levels, 3)
    for model in (
        fit_joint("joint", data, make_spec(data, 3), affinity, rng),
        fit_moments(data, 3, affinity, rng),
    ):
        np.testing.assert_allclose(model.fit.G, (p[:, None] * H).T, atol=1e-9)


def test_local_and_partial_models_recover_a_global_population():
    p, H, _, N = population("three_groups")
    data, affinity = from_tensor(N), default_affinity((3, 3, 3), 3)
    rng = np.random.default_rng(0)
    joint = fit_joint("joint", data, make_spec(data, 3), affinity, rng)
    truth = (p[:, None] * H).T
    for model in (
        fit_local(data, joint, rng),
        fit_partial(data, joint, "prediction"),
        fit_partial(data, joint, "label"),
    ):
        np.testing.assert_allclose(model.fit.G, truth, atol=1e-10)


def test_a_perfect_proxy_makes_direct_and_calibrated_equal():
    p, H, T, _ = population()
    tables = [np.eye(2), T[1], T[2]]
    audit = ProxyFairness.from_counts(
        1e4 * population_tensor(p, H, tables), random_state=0, model="known", transition=tables
    )
    truth = audit_gap(p, H)
    assert audit.disparity("demographic_parity").estimate[0] == pytest.approx(truth, abs=1e-10)
    assert audit.direct(0).estimate[0] == pytest.approx(truth, abs=1e-12)
    known = ProxyFairness.from_counts(
        1e4 * population_tensor(p, H, [np.eye(2)]), model="known", transition=[np.eye(2)]
    )
    np.testing.assert_allclose(known.joint_, (p[:, None] * H).T, atol=1e-12)


def audit_gap(p, H, metric="demographic_parity"):
    return gap_values(group_metric(metric, 2, 2), (p[:, None] * H).T, "difference")[0]


def test_no_disparity_stays_no_disparity():
    p, H, T, _ = population()
    flat = np.tile(H[0], (2, 1))
    audit = ProxyFairness.from_counts(1e4 * population_tensor(p, flat, T), random_state=0)
    assert audit.disparity("demographic_parity").estimate[0] == pytest.approx(0.0, abs=1e-10)
    assert audit.direct(0).estimate[0] == pytest.approx(0.0, abs=1e-12)


def test_permuting_a_proxys_labels_permutes_its_table():
    _p, _H, _T, N = population("three_groups")
    turned = N[..., [1, 2, 0]]
    base = ProxyFairness.from_counts(1e4 * N, 3, random_state=0)
    other = ProxyFairness.from_counts(1e4 * turned, 3, random_state=0)
    np.testing.assert_allclose(other.transition_[2], base.transition_[2][:, [1, 2, 0]], atol=1e-9)
    np.testing.assert_allclose(other.joint_, base.joint_, atol=1e-10)


def test_order_of_proxies_does_not_matter():
    _, _, _, N = population()
    base = ProxyFairness.from_counts(1e4 * N, random_state=0)
    other = ProxyFairness.from_counts(1e4 * np.moveaxis(N, 4, 2), random_state=0)
    np.testing.assert_allclose(other.joint_, base.joint_, atol=1e-10)
    np.testing.assert_allclose(other.transition_[0], base.transition_[2], atol=1e-9)


def test_duplicating_rows_halves_variances():
    rng = np.random.default_rng(3)
    _, _, _, N = population()
    counts = rng.multinomial(6000, N.ravel()).reshape(N.shape).astype(float)
    once = ProxyFairness.from_counts(counts, random_state=0).disparity("demographic_parity")
    twice = ProxyFairness.from_counts(2 * counts, random_state=0).disparity("demographic_parity")
    assert twice.estimate[0] == pytest.approx(once.estimate[0], abs=1e-9)
    assert twice.vcov[0, 0] == pytest.approx(once.vcov[0, 0] / 2, rel=1e-6)


def test_shards_add_up_to_the_same_bits():
    rng = np.random.default_rng(4)
    _, _, _, N = population()
    shards = [rng.multinomial(2000, N.ravel()).reshape(N.shape).astype(float) for _ in range(3)]
    whole = ProxyFairness.from_counts(sum(shards), random_state=0)
    again = ProxyFairness.from_counts(shards[2] + shards[0] + shards[1], random_state=0)
    assert np.array_equal(whole.joint_, again.joint_)


def test_attenuation_identity_and_error_bound():
    p, H, T, N = population()
    rates = fairness_matrix((p[:, None] * H).T, 2, 2)
    for j, table in enumerate(T):
        axes = tuple(2 + i for i in range(3) if i != j)
        by_proxy = N.sum(axis=(1, *axes))  # (f, c)
        direct = (by_proxy / by_proxy.sum(axis=0)).T
        gap = direct[1, 1] - direct[0, 1]
        assert gap == pytest.approx(attenuation(p, table) * 0.2, abs=1e-12)
        posterior = proxy_posterior(p, table)
        np.testing.assert_allclose(direct, posterior @ rates, atol=1e-12)
        np.testing.assert_allclose(calibrate_posterior(direct, posterior), rates, atol=1e-12)
        bound = direct_error_bound(rates, p, [table, table])
        assert (np.abs(direct - rates).max(axis=0) <= bound + 1e-12).all()


def test_error_bound_holds_under_any_dependence():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.dirichlet([4.0, 4.0])
        rates = rng.dirichlet([1.0, 1.0], size=2)
        conditional = [rng.dirichlet([1.0, 1.0], size=2) for _ in range(2)]
        seen = np.stack([conditional[k].T @ (p * rates[:, k]) for k in range(2)], axis=1)
        direct = seen / seen.sum(axis=1, keepdims=True)
        bound = direct_error_bound(rates, p, conditional)
        assert (np.abs(direct - rates).max(axis=0) <= bound + 1e-12).all()


def test_signed_weights_recover_group_means():
    p, H, T, N = population("three_groups")
    G = (p[:, None] * H).T
    for j in range(3):
        axes = tuple(1 + i for i in range(3) if i != j)
        joint = N.reshape(4, 3, 3, 3).sum(axis=axes)  # (s, c)
        np.testing.assert_allclose(calibrate_joint(joint, T[j]), G, atol=1e-12)
        w = signed_weights(T[j], p)
        np.testing.assert_allclose(joint @ w, H.T, atol=1e-12)


def test_direct_rates_of_three_groups():
    p, _, T, _ = population("three_groups")
    rates = np.array([[0.7, 0.3], [0.5, 0.5], [0.4, 0.6]])
    direct = proxy_posterior(p, T[0]) @ rates
    np.testing.assert_allclose(direct[:, 1], [0.332258, 0.480000, 0.517021], atol=5e-7)


def test_tied_model_is_inconsistent_as_documented():
    _, _, _, N = population()
    data = from_tensor(N)
    tied = fit_tied(data, 2, default_affinity((2, 2, 2), 2), np.random.default_rng(0))
    assert tied.fit.prevalence[1] == pytest.approx(0.360987, abs=5e-7)
    np.testing.assert_allclose(
        tied.tables()[0], [[0.695749, 0.304251], [0.273530, 0.726470]], atol=5e-7
    )
    rates = fairness_matrix(tied.fit.G, 2, 2)
    assert rates[1, 1] - rates[0, 1] == pytest.approx(0.213562, abs=5e-7)


def test_tied_model_is_exact_for_identical_proxies():
    for design in ("identical",):
        p, H, T, N = population(design)
        audit = ProxyFairness.from_counts(1e4 * N, model="tied", random_state=0)
        np.testing.assert_allclose(audit.joint_, (p[:, None] * H).T, atol=1e-10)
        np.testing.assert_allclose(audit.transition_[1], T[0], atol=1e-10)


def test_tied_model_for_three_groups_by_em():
    p, H, T, _ = population("three_groups")
    N = population_tensor(p, H, [T[0]] * 3)
    audit = ProxyFairness.from_counts(1e4 * N, 3, model="tied", random_state=0)
    np.testing.assert_allclose(audit.joint_, (p[:, None] * H).T, atol=1e-8)


def test_shared_cause_fits_perfectly_and_is_wrong():
    """The documented warning: no test can see a cause that all proxies share."""
    p, H, T, _ = population()
    keep = np.array([[0.85, 0.15], [0.15, 0.85]])
    q = np.einsum("a,as,au,ub,uc,ud->sbcd", p, H, keep, *T).reshape(2, 2, 2, 2, 2)
    audit = ProxyFairness.from_counts(1e6 * q, random_state=0)
    assert audit.prevalence_ == pytest.approx([0.57, 0.43], abs=1e-9)
    expected = 0.24 * 0.7 / (0.57 * 0.43) * 0.2
    assert expected == pytest.approx(0.137087, abs=5e-7)
    assert audit.disparity("demographic_parity").estimate[0] == pytest.approx(expected, abs=1e-9)
    tests = audit.fit_tests()
    assert tests.to_frame().set_index("test").loc["G2", "statistic"] == pytest.approx(0, abs=1e-6)
    assert any("cause that all proxies share" in note for note in tests.notes)


def test_population_twin():
    p, H, T, N = population("three_groups")
    np.testing.assert_allclose(N.reshape(4, 3, 3, 3), naive.population(p, H, T), atol=1e-15)


def test_factored_intersections():
    """Sex by race, two factors with proxies of their own."""
    rng = np.random.default_rng(5)
    p = np.array([0.35, 0.25, 0.22, 0.18])
    H = rng.dirichlet(np.ones(4) * 2, size=4)
    A = [
        np.array([[0.85, 0.15], [0.2, 0.8]]),
        np.array([[0.75, 0.25], [0.3, 0.7]]),
        np.array([[0.7, 0.3], [0.15, 0.85]]),
    ]
    B = [
        np.array([[0.8, 0.2], [0.25, 0.75]]),
        np.array([[0.9, 0.1], [0.3, 0.7]]),
        np.array([[0.65, 0.35], [0.2, 0.8]]),
    ]
    T = [t[[0, 0, 1, 1]] for t in A] + [t[[0, 1, 0, 1]] for t in B]
    audit = ProxyFairness.from_counts(
        1e5 * population_tensor(p, H, T),
        4,
        factors=(2, 2),
        proxy_factor=(0, 0, 0, 1, 1, 1),
        random_state=0,
    )
    np.testing.assert_allclose(audit.prevalence_, p, atol=1e-8)
    np.testing.assert_allclose(audit.joint_, (p[:, None] * H).T, atol=1e-8)
