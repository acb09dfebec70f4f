"""Kernels and compiled paths against obvious twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import fairness as naive

from causalfair.fairness import _kernels, count_tensor
from causalfair.fairness._information import covariance, curvature, make_layout, pack, unpack
from causalfair.fairness._latent import log_likelihood, make_spec, run_em
from causalfair.fairness._models import default_affinity, fit_joint
from causalfair.fairness._outcome_em import fit_categorical
from causalfair.fairness._simulate import _DESIGNS, population_tensor
from causalfair.fairness._soft import SoftMoments, third_moment
from causalfair.fairness._tensor import cell_table, count_rows, from_tensor

pytestmark = pytest.mark.kernel


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 200),
    m=st.integers(1, 4),
    labelled=st.booleans(),
    weighted=st.booleans(),
    missing=st.booleans(),
)
def test_count_tensor_twin(seed, n, m, labelled, weighted, missing):
    rng = np.random.default_rng(seed)
    levels = rng.integers(2, 4, size=m)
    X = np.stack([rng.integers(-1 if missing else 0, L, size=n) for L in levels], axis=1)
    y_pred, y_true = rng.integers(0, 2, n), rng.integers(0, 3, n) if labelled else None
    weight = rng.random(n) + 0.1 if weighted else None
    N = count_tensor(
        X,
        y_pred,
        y_true,
        sample_weight=weight,
        n_levels=[int(v) for v in levels],
        n_pred=2,
        n_labels=3,
    )
    shape = (2, 3 if labelled else 1, *(levels + (X.min(axis=0) < 0)))
    assert N.shape == shape
    np.testing.assert_allclose(N, naive.count_tensor(X, y_pred, y_true, weight, shape), atol=1e-10)


def test_wide_tables_keep_only_the_patterns_that_occur():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 60, size=(500, 4))
    X[:, 0] = 59
    data = count_rows(
        X, rng.integers(0, 2, 500), None, None, n_pred=2, n_labels=1, n_levels=[60] * 4
    )
    assert data.n == 500
    assert len(data.patterns) == len(np.unique(X, axis=0))


def sample(seed=0, n=3000, missing=False):
    rng = np.random.default_rng(seed)
    p, H, T = _DESIGNS["three_groups"]
    N = rng.multinomial(n, population_tensor(p, H, T).ravel()).reshape(2, 2, 3, 3, 3)
    flags = (False, False, missing)
    if missing:
        hidden = np.floor(N * 0.2)
        N = np.concatenate([N - hidden, hidden.sum(axis=-1, keepdims=True)], axis=-1)
    return from_tensor(N.astype(float), missing=flags)


@pytest.mark.parametrize("missing", [False, True])
def test_em_step_twin(missing):
    data = sample(missing=missing)
    spec = make_spec(data, 3)
    rng = np.random.default_rng(1)
    G = rng.dirichlet(np.ones(12)).reshape(4, 3)
    tables = [rng.dirichlet(np.ones(3), size=3) for _ in range(3)]
    T = np.stack(tables)
    new_g, new_t = np.empty_like(G), np.empty_like(T)
    loglik = _kernels.em_step(
        data.counts,
        data.patterns,
        spec.tables,
        spec.rows,
        spec.fixed,
        spec.shares,
        0.0,
        spec.prior_t,
        G,
        T,
        new_g,
        new_t,
    )
    want = naive.log_likelihood(data.counts, data.patterns, G, tables)
    assert loglik == pytest.approx(want, rel=1e-12)
    assert log_likelihood(data, spec, G, T) == pytest.approx(want, rel=1e-12)
    naive_g, naive_t = naive.em_step(data.counts, data.patterns, G, tables)
    np.testing.assert_allclose(new_g, naive_g, atol=1e-13)
    np.testing.assert_allclose(new_t, np.stack(naive_t), atol=1e-13)


def test_acceleration_climbs_at_least_as_high_as_plain_em():
    data = sample()
    spec = make_spec(data, 3)
    G0 = np.outer(data.stratum_totals() / data.n, [0.4, 0.35, 0.25])
    T0 = np.stack([0.7 * np.eye(3) + 0.1] * 3)
    fast = run_em(data, spec, G0, T0)
    G, T = G0, list(T0)
    for _ in range(400):
        G, T = naive.em_step(data.counts, data.patterns, G, T)
    plain = naive.log_likelihood(data.counts, data.patterns, G, T)
    assert fast.loglik >= plain - 1e-9
    assert fast.loglik == pytest.approx(plain, abs=0.05)
    assert run_em(data, spec, fast.G, fast.T).loglik == pytest.approx(fast.loglik, abs=1e-6)


def test_many_views_do_not_underflow():
    rng = np.random.default_rng(0)
    m, L = 60, 40
    T = rng.dirichlet(np.full(L, 0.2), size=2)
    codes = rng.integers(0, L, size=(300, m))
    data = count_rows(
        codes, rng.integers(0, 2, 300), None, None, n_pred=2, n_labels=1, n_levels=[L] * m
    )
    spec = make_spec(data, 2)
    tables = np.stack([np.maximum(T, 1e-9)] * m)
    G = np.full((2, 2), 0.25)
    new_g, new_t = np.empty_like(G), np.empty_like(tables)
    loglik = _kernels.em_step(
        data.counts,
        data.patterns,
        spec.tables,
        spec.rows,
        spec.fixed,
        spec.shares,
        0.0,
        spec.prior_t,
        G,
        tables,
        new_g,
        new_t,
    )
    logs = np.log(tables[0])[:, codes].sum(axis=2) + np.log(0.25)
    want = np.logaddexp(logs[0], logs[1]).sum()
    assert want < -300 * 200
    assert loglik == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("missing", [False, True])
def test_score_and_information_against_finite_differences(missing):
    data = sample(missing=missing)
    spec = make_spec(data, 3)
    rng = np.random.default_rng(2)
    G = rng.dirichlet(np.full(12, 5.0)).reshape(4, 3)
    T = np.stack([rng.dirichlet(np.full(3, 5.0), size=3) for _ in range(3)])
    layout = make_layout(spec)
    theta = pack(layout, G, T)

    def at(phi):
        moved = theta * np.exp(phi)
        for block in layout.blocks:
            moved[block] *= theta[block].sum() / moved[block].sum()
        return unpack(layout, moved, T)

    point = curvature(data, spec, layout, G, T, expected=False)
    h = 1e-5
    for k in (0, 5, 13, 20, 30):
        step = np.zeros(len(theta))
        step[k] = h
        up, down = log_likelihood(data, spec, *at(step)), log_likelihood(data, spec, *at(-step))
        assert (up - down) / (2 * h) == pytest.approx(point.score[k], rel=1e-5, abs=1e-3)
        ahead = curvature(data, spec, layout, *at(step), expected=False).score
        behind = curvature(data, spec, layout, *at(-step), expected=False).score
        np.testing.assert_allclose(
            -(ahead - behind) / (2 * h), point.hessian[:, k], rtol=1e-4, atol=1e-2
        )


def test_influence_reproduces_the_information_and_the_sandwich():
    data = sample(n=30_000)
    affinity = default_affinity(data.n_levels, 3)
    model = fit_joint("joint", data, make_spec(data, 3), affinity, np.random.default_rng(0))
    plain = covariance(data, model.spec, model.fit)
    robust = covariance(data, model.spec, model.fit, robust=True)
    weighted = plain.influence * data.counts.ravel()[:, None]
    np.testing.assert_allclose(weighted.sum(axis=0), 0.0, atol=1e-4)
    size = model.fit.G.size
    ratio = np.sqrt(np.diag(robust.vcov)[:size] / np.diag(plain.vcov)[:size])
    np.testing.assert_allclose(ratio, 1.0, atol=0.1)


def test_outcome_em_twin():
    rng = np.random.default_rng(0)
    n, K, areas = 120, 3, 2
    prior = rng.dirichlet(np.ones(K), size=n)
    outcome, area = rng.integers(0, 3, n), rng.integers(0, areas, n)
    weight = rng.random(n) + 0.5
    pseudo = rng.dirichlet(np.ones(3), size=K)
    fit = fit_categorical(prior, outcome, area, weight, pseudo, n_areas=areas, tol=1e-13)
    theta, member = naive.outcome_em(prior, outcome, area, weight, 3, pseudo, 800)
    np.testing.assert_allclose(fit.theta, theta, atol=1e-5)
    np.testing.assert_allclose(fit.member, member, atol=1e-5)


def test_soft_third_moment_twin():
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(3), size=(200, 3))
    stratum = rng.integers(0, 4, 200)
    soft = SoftMoments(q, stratum, np.ones(200))
    np.testing.assert_allclose(third_moment(soft, 4), naive.third_moment(q, stratum, 4), atol=1e-10)


def test_cluster_table_adds_up_to_the_counts():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 2, size=(400, 3)), rng.integers(0, 2, 400)
    data = count_rows(X, y, None, None, n_pred=2, n_labels=1, n_levels=[2, 2, 2])
    table = cell_table(data, X, y, None, rng.integers(0, 9, 400))
    assert table.shape == (9, data.counts.size)
    np.testing.assert_allclose(np.asarray(table.sum(axis=0)).ravel(), data.counts.ravel())
