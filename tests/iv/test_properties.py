"""Properties on random shapes: equivariance, permutation, robust sets, conditioned bases."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from causalfair.iv import _basis, _scores, _sensitivity, _weak
from causalfair.iv._logistic import fit_logistic

few = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)


def normal(level):
    return float(ndtri((1 + level) / 2))


def random_case(seed, n):
    g = np.random.default_rng(seed)
    z = (g.uniform(size=n) < 0.5).astype(float)
    z[:2] = (0.0, 1.0)
    a, y = g.normal(size=n), g.normal(size=n)
    arrays = {k: g.normal(size=n) for k in ("lam0", "lam1", "beta", "mu0", "mu1", "omega")}
    nu = _scores.IVNuisances(pi=g.uniform(0.1, 0.9, n), D=g.uniform(0.1, 2, n),
                             V0=g.uniform(0.5, 1, n), V1=g.uniform(1, 2, n), **arrays)  # fmt: skip
    return z, a, y, nu


@few
@given(seed=seeds, n=st.integers(2, 60), c=st.floats(-100, 100))
def test_scores_are_affine_in_the_outcome(seed, n, c):
    z, a, y, nu = random_case(seed, n)
    from dataclasses import replace

    scaled = replace(nu, beta=c * nu.beta, mu0=c * nu.mu0, mu1=c * nu.mu1, omega=c * nu.omega)
    for score in (_scores.influence_scores, _scores.direct_effect_scores):
        one, two = score(z, a, y, nu), score(z, a, c * y, scaled)
        np.testing.assert_allclose(two, c * one, rtol=1e-9, atol=1e-9 * (1 + np.abs(c * one).max()))


@few
@given(seed=seeds, n=st.integers(2, 60))
def test_flipping_the_instrument_keeps_the_effect_and_flips_the_direct_effect(seed, n):
    z, a, y, nu = random_case(seed, n)
    flip = _scores.IVNuisances(pi=1 - nu.pi, lam0=nu.lam1, lam1=nu.lam0, D=-nu.D, beta=nu.beta,
                               mu0=nu.mu1, mu1=nu.mu0, omega=nu.omega, V0=nu.V1, V1=nu.V0)  # fmt: skip
    phi = _scores.influence_scores(z, a, y, nu)
    np.testing.assert_allclose(_scores.influence_scores(1 - z, a, y, flip), phi, rtol=1e-9)
    de = _scores.direct_effect_scores(z, a, y, nu)
    other = _scores.direct_effect_scores(1 - z, a, y, flip)
    np.testing.assert_allclose(other, -de, rtol=1e-7, atol=1e-8 * (1 + np.abs(de).max()))


@few
@given(seed=seeds, scale=st.floats(1e-6, 1e6), level=st.floats(0.5, 0.999))
def test_robust_sets_are_equivariant_and_nested(seed, scale, level):
    g = np.random.default_rng(seed)
    u, v = g.normal(size=2)
    root = g.normal(size=(2, 2))
    vcov = root @ root.T * 0.3
    found = _weak.robust_set(u, v, vcov, normal(level))
    S = np.diag([scale, 1.0])
    scaled = _weak.robust_set(scale * u, v, S @ vcov @ S, normal(level))
    assert len(found) == len(scaled)
    for (a, b), (c, d) in zip(found, scaled, strict=True):
        np.testing.assert_allclose([c, d], [scale * a, scale * b], rtol=1e-6)
    wider = _weak.robust_set(u, v, vcov, normal(0.5 + level / 2))
    inside = lambda x, pieces: any(low - 1e-9 <= x <= high + 1e-9 for low, high in pieces)  # noqa: E731
    for x in np.linspace(-5, 5, 41):
        if inside(x, found):
            assert inside(x, wider)
    assert inside(u / v, found)


@few
@given(seed=seeds)
def test_breakdown_never_exceeds_the_zero_of_the_estimate(seed):
    g = np.random.default_rng(seed)
    estimate, slope = g.normal(size=2) * 3
    root = g.normal(size=(2, 2)) * 0.3
    found = _sensitivity.breakdown(estimate, slope, root @ root.T, normal(0.95))
    assert abs(found.interval) <= abs(found.zero) + 1e-9


@few
@given(seed=seeds, n=st.integers(12, 80), k=st.integers(1, 6), copies=st.integers(0, 3))
def test_conditioned_basis_spans_the_same_space_and_drops_repeats(seed, n, k, copies):
    g = np.random.default_rng(seed)
    terms = np.column_stack([np.ones(n), 10.0 ** g.integers(-3, 4, k) * g.normal(size=(n, k))])
    mixed = terms @ g.normal(size=(k + 1, copies)) if copies else np.empty((n, 0))
    every = np.column_stack([terms, mixed])
    names = [f"t{j}" for j in range(every.shape[1])]
    basis = _basis.condition_basis(every, every, every, names)
    assert basis.names == tuple(names[: k + 1])
    assert basis.dropped == tuple(names[k + 1 :])
    np.testing.assert_allclose(basis.observed.T @ basis.observed / n, np.eye(k + 1), atol=1e-8)
    np.testing.assert_allclose(terms @ basis.transform, basis.observed, atol=1e-7)


@few
@given(seed=seeds, n=st.integers(80, 200))
def test_logistic_solves_its_score_equations(seed, n):
    g = np.random.default_rng(seed)
    basis = np.column_stack([np.ones(n), g.normal(size=(n, 2))])
    t = (g.uniform(size=n) < 1 / (1 + np.exp(-basis @ [0.2, 0.5, -0.5]))).astype(float)
    w = g.uniform(0.5, 2, n)
    coef = fit_logistic(basis, t, w, what="the test")
    p = 1 / (1 + np.exp(-basis @ coef))
    assert np.abs(basis.T @ (w * (t - p))).max() < 1e-9 * n
