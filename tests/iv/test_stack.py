"""The analytic Jacobian and every target's gradient against a complex-step derivative."""

from __future__ import annotations

import numpy as np
import pytest
from naive import iv as naive

from causalfair.iv import _parametric
from causalfair.iv._basis import condition_basis, instrument_basis, main_effects
from causalfair.iv._models import Design


def make_design(seed=1, n=400, *, binary=True, weighted=True, link="identity"):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    z = rng.binomial(1, 1 / (1 + np.exp(-X[:, 0]))).astype(float)
    u = rng.normal(size=n)
    if binary:
        p = 1 / (1 + np.exp(1.5 - 1.2 * z - 0.4 * X[:, 1] - 0.5 * u))
        a = rng.binomial(1, p).astype(float)
    else:
        a = z + X[:, 0] + u + (1 + 0.8 * z) * rng.normal(size=n)
    y = (1 + X[:, 1]) * a + z + X[:, 0] + u + rng.normal(size=n)
    if link == "tanh":
        y = (y > np.median(y)).astype(float)
    weight = rng.integers(1, 4, n).astype(float) if weighted else np.ones(n)
    weight *= n / weight.sum()
    base, names = main_effects(X, ["x1", "x2"])
    plain = condition_basis(base, base, base, names)
    *arrays, joint = instrument_basis(base, names, z)
    both = condition_basis(*arrays, joint)
    bases = {"instrument": plain, "treatment": both, "outcome": both, "confounding": plain}
    if not binary:
        *arrays, some = instrument_basis(base, names, z, interact=False)
        bases["variance"] = condition_basis(*arrays, some)
    bases["effect"] = plain
    return Design(z, a, y, weight, bases, binary, effect_link=link)


def parameters(fit):
    coef = {**fit.stack.first.coef, **fit.stack.block.coef}
    sizes = {name: coef[name].size for name in fit.stack.names}
    return np.concatenate([coef[name] for name in fit.stack.names]), sizes


KINDS = [(True, "identity"), (False, "identity"), (True, "tanh")]


@pytest.mark.parametrize(("binary", "link"), KINDS)
def test_equations_vanish_and_jacobian_is_exact(binary, link):
    design = make_design(binary=binary, link=link)
    fit = _parametric.fit_multiply_robust(design, clip=0.01)
    theta, sizes = parameters(fit)

    def total(t):
        return design.weight @ naive.estimating_functions(t, sizes, design) / design.y.size

    scale = np.abs(naive.estimating_functions(theta, sizes, design)).mean(axis=0)
    assert np.max(np.abs(total(theta)) / scale) < 1e-10
    J = naive.complex_step(total, theta)
    np.testing.assert_allclose(fit.stack.jacobian, J, rtol=0, atol=1e-12 * np.abs(J).max())


@pytest.mark.parametrize(("binary", "link"), KINDS)
@pytest.mark.parametrize("floor", [0.0, 0.06])
def test_target_influence_is_the_stacked_sandwich(binary, link, floor):
    design = make_design(binary=binary, link=link)
    fit = _parametric.fit_multiply_robust(design, clip=0.2, floor=floor if binary else None)
    theta, sizes = parameters(fit)
    n = design.y.size
    nu = fit.nuisances
    fixed = {"floored": nu.floored, "D_floor": nu.D, "clipped": nu.clipped, "pi_clip": nu.pi}
    assert nu.clipped.any()
    g = naive.estimating_functions(theta, sizes, design)
    J = naive.complex_step(
        lambda t: design.weight @ naive.estimating_functions(t, sizes, design) / n, theta
    )
    influence_theta = -np.linalg.solve(J, g.T).T
    scores = naive.target_scores(theta, sizes, design, **fixed)
    for group in (fit.effects, fit.extra, fit.covers):
        for k, name in enumerate(group.names):
            if name not in scores:
                continue
            gradient = naive.complex_step(
                lambda t, name=name: np.array(
                    [design.weight @ naive.target_scores(t, sizes, design, **fixed)[name] / n]
                ),
                theta,
            )[0]
            estimate = design.weight @ scores[name] / n
            np.testing.assert_allclose(group.estimate[k], estimate, rtol=1e-11)
            centred = scores[name] - estimate
            if name == "ATT":
                centred = scores[name] - estimate * design.a / np.average(
                    design.a, weights=design.weight
                )
            expected = centred + influence_theta @ gradient
            scale = np.abs(expected).max()
            np.testing.assert_allclose(group.influence[:, k], expected, rtol=0, atol=1e-9 * scale)


def cover_moments(theta, sizes, design, name):
    """Estimating functions of one cover, from its definition."""
    z, a, y = design.z, design.a, design.y
    full = dict(zip(sizes, naive.unpack(theta, sizes).values(), strict=True))
    b = {k: x.observed for k, x in design.bases.items()}
    pi = naive.expit(b["instrument"] @ full["instrument"])
    lam = [
        naive.expit(x @ full["treatment"])
        for x in (design.bases["treatment"].at0, design.bases["treatment"].at1)
    ]
    lam_z = np.where(z > 0.5, lam[1], lam[0])
    D = lam[1] * (1 - lam[1]) - lam[0] * (1 - lam[0])
    mu = b["outcome"] @ full["outcome"] if "outcome" in full else 0
    omega = b["confounding"] @ full["confounding"] if "confounding" in full else 0
    e = y - (b["effect"] @ full["effect"]) * a - mu
    r = a - lam_z if name.startswith("M2") else a
    s = z - pi if name.startswith("M4") else z - 0.5
    out = [b["instrument"] * (z - pi)[:, None], b["treatment"] * (a - lam_z)[:, None]]
    if "outcome" in full:
        out.append(b["outcome"] * e[:, None])
    if "confounding" in full:
        out.append(b["confounding"] * (r * e - omega)[:, None])
    out.append(b["effect"] * (D * s * (r * e - omega))[:, None])
    return np.hstack(out)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_cover_comparators_solve_their_own_equations(k):
    from causalfair.iv._models import fit_first_stage, fit_outcome
    from causalfair.iv._stack import Stack

    design = make_design()
    fit = _parametric.fit_multiply_robust(design, clip=0.01)
    name = fit.covers.names[k]
    first = fit_first_stage(design)
    block = fit_outcome(design, first, _parametric.COVERS[name])
    stack = Stack.build(design, first, block)
    coef = {**first.coef, **block.coef}
    sizes = {part: coef[part].size for part in stack.names}
    theta = np.concatenate([coef[part] for part in stack.names])

    def total(t):
        return design.weight @ cover_moments(t, sizes, design, name) / design.y.size

    g = cover_moments(theta, sizes, design, name)
    assert np.max(np.abs(total(theta)) / np.abs(g).mean(axis=0)) < 1e-10
    J = naive.complex_step(total, theta)
    np.testing.assert_allclose(stack.jacobian, J, rtol=0, atol=1e-12 * np.abs(J).max())
    np.testing.assert_allclose(
        fit.covers.estimate[k], np.average(block.beta, weights=design.weight)
    )
