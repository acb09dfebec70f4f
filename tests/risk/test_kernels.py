"""Kernels against exact values, against plain quadrature, and gradients against complex steps."""

from __future__ import annotations

import numpy as np
import pytest
from naive import risk as naive

from causalfair.risk import _kernels

pytestmark = pytest.mark.kernel

NONE = np.empty(0)
# Relative errors: rounding of a handful of operations, on cells as small as 1e-30.
VALUE, GRADIENT = 1e-10, 1e-8


def uniform(code, a, d, sigma):
    """P(code), and derivatives of its log in a, d and sigma."""
    ga, gd = np.empty(1), np.empty(1)
    value, gs = _kernels.rows_uniform(
        np.array([a]), np.array([d]), np.array([code], np.int8), np.ones(1), sigma, ga, gd
    )
    return np.exp(value), np.array([ga[0], gd[0], gs])


def quadrature(code, a, d, alpha, sigma, rule):
    ga, gd, gl = np.empty(1), np.empty(1), np.empty(1)
    value, gs = _kernels.rows_quadrature(
        np.array([a]), np.array([d]), np.zeros(1, np.intp), np.array([code], np.int8), np.ones(1),
        np.array([alpha]), sigma, *rule, ga, gd, gl,
    )  # fmt: skip
    return np.exp(value), np.array([ga[0], gd[0], gs, gl[0]])


@pytest.mark.parametrize(
    ("a", "d", "sigma", "expected"),
    [
        (0, 0, 1, [0.379885493041722, 0.231058578630005, 0.389055928328273, 0.620114506958278]),
        (-1, 2, 2, [0.13233716797224, 0.425208551823411, 0.442454280204349, 0.5]),
        (0.5, -1.5, 3, [0.395444558825083, 0.0710389981775634, 0.533516442997353,
                        0.851891144697505]),
        (-20, 1, 0.5, [0.999999992730694, 7.2693063750844e-9, 1.98431035420332e-17,
                       2.67422838681316e-9]),
        (-2, 1e-9, 2, [0.716890415051115, 0.190398539120392, 0.0927110458284929,
                       0.283109584758486]),
    ],
)  # fmt: skip
def test_exact_values_of_the_uniform_law(a, d, sigma, expected):
    got = [uniform(code, a, d, sigma)[0] for code in (0, 1, 2, 4)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("a", "d", "alpha", "sigma", "expected"),
    [
        (0, 0, 1, 1, [0.5, 0.206620964141907, 0.293379035858093, 0.5]),
        (-1, 0.5, 1.5, 2, [0.613247394529224, 0.145722779976756, 0.24102982549402,
                           0.352273561474131]),
        (-3, 2, 0.5, 1, [0.384023948934655, 0.566882208163105, 0.0490938429022398,
                         0.0693238580042858]),
    ],
)  # fmt: skip
def test_exact_values_of_the_normal_law(a, d, alpha, sigma, expected):
    rule = naive.normal_rule()
    got = [quadrature(code, a, d, alpha, sigma, rule)[0] for code in (0, 1, 2, 4)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def complex_gradient(code, a, d, alpha, sigma, rule):
    """Derivatives of log P by complex steps."""
    point = np.array([a, d, sigma, alpha], dtype=complex)
    out = np.empty(4)
    for k in range(4):
        step = point.copy()
        step[k] += 1e-30j
        p = naive.cell(code, step[0], step[1], step[3], step[2], rule)
        out[k] = (p.imag / 1e-30) / p.real
    return out


def grid():
    rng = np.random.default_rng(5)
    fixed = [
        (a, d, s)
        for a in (-16.0, -6.0, -1.0, 0.0, 4.0, 20.0)
        for d in (-8.0, -1.0, -1.1e-4, -1e-9, 0.0, 0.9e-4, 3.0, 8.0)
        for s in (1e-8, 1e-6, 0.3, 2.0, 12.0)
    ]
    random = zip(
        rng.uniform(-16, 20, 300), rng.uniform(-8, 8, 300), np.exp(rng.uniform(-14, 2.5, 300)),
        strict=True,
    )  # fmt: skip
    return fixed + [tuple(map(float, row)) for row in random]


@pytest.mark.parametrize("code", range(8))
def test_closed_forms_are_the_integrals_over_the_whole_range(code):
    for a, d, sigma in grid():
        rule = naive.uniform_rule(sigma)
        value, gradient = uniform(code, a, d, sigma)
        expected = naive.cell(code, a, d, 1.0, sigma, rule)
        assert abs(value / expected - 1) < VALUE, (a, d, sigma)
        by_step = complex_gradient(code, a, d, 1.0, sigma, rule)[:3]
        gap = np.abs(gradient - by_step)
        # In sigma the two terms of size 1 / sigma cancel; the sampler moves log sigma.
        gap[2] *= min(sigma, 1.0)
        assert gap.max() < GRADIENT, (a, d, sigma, gradient, by_step)


@pytest.mark.parametrize("code", range(8))
def test_quadrature_kernel_is_the_definition(code):
    rng = np.random.default_rng(code)
    for rule in (naive.normal_rule(90), naive.uniform_rule(3.0), (np.zeros(1), np.ones(1))):
        for _ in range(40):
            a, d = rng.uniform(-12, 12), rng.uniform(-8, 8)
            alpha, sigma = rng.uniform(0.1, 3), np.exp(rng.uniform(-8, 1.2))
            value, gradient = quadrature(code, a, d, alpha, sigma, rule)
            assert abs(value / naive.cell(code, a, d, alpha, sigma, rule) - 1) < VALUE
            by_step = complex_gradient(code, a, d, alpha, sigma, rule)
            np.testing.assert_allclose(gradient, by_step, atol=GRADIENT, rtol=GRADIENT)


def test_nothing_overflows_far_out():
    for sigma in (1e-12, 1.0, 54.0):
        for a in (-1e4, -400.0, 400.0, 1e4):
            for d in (-1e4, 0.0, 1e4):
                for code in range(8):
                    value, gradient = uniform(code, a, d, sigma)
                    assert np.isfinite(value)
                    assert np.isfinite(gradient).all()
                    value, gradient = quadrature(code, a, d, 2.0, sigma, naive.normal_rule(60))
                    assert np.isfinite(value)
                    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(("a", "d", "sigma"), [(-1.0, 0.7, 2.0), (0.4, -2.0, 0.5), (2.0, 1.0, 6.0)])
def test_cells_add_up_and_order_themselves(a, d, sigma):
    p = [uniform(code, a, d, sigma)[0] for code in range(8)]
    assert p[0] + p[1] + p[2] == pytest.approx(1, abs=1e-14)
    assert p[6] + p[7] == pytest.approx(p[0], rel=1e-13)
    assert p[2] + p[7] == pytest.approx(p[4], rel=1e-13)
    assert p[3] + p[4] == pytest.approx(1, abs=1e-14)
    assert p[5] == pytest.approx(1 - p[0], rel=1e-13)
    # The odds identity of alpha = 1, and the order that any spread of Z implies.
    assert p[1] == pytest.approx(np.exp(d) * p[7], rel=1e-12)
    assert p[2] / p[5] > p[4] > p[7] / p[0]
    assert p[2] * p[6] > p[1] * p[7]


def problem(rng, *, sigma, alpha, mean_z, var_z, prior, vary=False, n=60):
    """Two features, a group, two decision makers whose weights of risk may vary."""
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2)), rng.integers(0, 2, n)])
    maker = rng.integers(0, 2, n)
    makers = np.eye(2)[maker]
    data = {
        "maker": maker,
        "X": X, "W": np.ascontiguousarray(np.column_stack([X[:, :2], X[:, 3], makers])),
        "link": np.array([0, 1, -1, -1, -1]), "code": rng.integers(0, 9, n).astype(np.int8),
        "weight": rng.uniform(0, 2, n), "prev_group": rng.integers(-1, 2, n),
        "prev_weight": rng.uniform(0.5, 2, n), "prev_value": np.array([0.2, 0.4]),
        "prev_sd": np.array([0.05, 0.02]), "sigma": sigma, "alpha": alpha, "mean_z": mean_z,
        "var_z": var_z, "prior": prior, "sd_beta": np.array([3.0, 2.0, 1.0, 3.0]),
        "pool_beta": np.array([-1, -1, -1, 0]), "sd_delta": np.full(5, 3.0),
        "pool_delta": np.array([-1, -1, 1, 2, 2]), "tau_scale": np.ones(3),
        "held_beta": np.array([0.0, 0.0, 0.0, 0.7]), "held_delta": np.array([0, 0, 0, 0.4, 1.0]),
        "alpha_scale": 3.0, "sigma_scale": 2.5,
    }  # fmt: skip
    if vary:
        more = {
            "link": [-1, -1], "sd_delta": [3.0, 3.0], "pool_delta": [3, 3], "tau_scale": [0.8],
            "held_delta": [0.2, 0.9],
        }  # fmt: skip
        data |= {name: np.append(data[name], values) for name, values in more.items()}
    return data


def kernel(theta, data, rule):
    options = np.array([
        -1.0 if data["alpha"] is None else data["alpha"],
        -1.0 if data["sigma"] is None else data["sigma"],
        data["mean_z"], data["var_z"], data["alpha_scale"], data["sigma_scale"],
        float(data["prior"]),
    ])  # fmt: skip
    keys = (
        "X",
        "W",
        "maker",
        "code",
        "weight",
        "prev_group",
        "prev_weight",
        "prev_value",
        "prev_sd",
        "link",
    )
    last = (
        "sd_beta", "pool_beta", "sd_delta", "pool_delta", "held_beta", "held_delta", "tau_scale"
    )  # fmt: skip
    return _kernels.log_posterior(
        theta, *(data[k] for k in keys), *rule, *(data[k] for k in last), options
    )


@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize(
    "law", ["uniform", "uniform-alpha", "normal", "none", "uniform-vary", "normal-vary"]
)
def test_log_posterior_and_its_gradient(law, prior):
    rng = np.random.default_rng(3)
    settings = {
        "uniform": {"sigma": None, "alpha": 1.0, "mean_z": 0.5, "var_z": 1 / 12},
        "uniform-alpha": {"sigma": None, "alpha": None, "mean_z": 0.5, "var_z": 1 / 12},
        "uniform-vary": {
            "sigma": None, "alpha": 1.0, "mean_z": 0.5, "var_z": 1 / 12, "vary": True
        },
        "normal": {"sigma": None, "alpha": None, "mean_z": 0.0, "var_z": 1.0},
        "normal-vary": {"sigma": 1.2, "alpha": None, "mean_z": 0.0, "var_z": 1.0, "vary": True},
        "none": {"sigma": 0.0, "alpha": 1.0, "mean_z": 0.0, "var_z": 1.0},
    }[law]  # fmt: skip
    data = problem(rng, **settings, prior=prior)
    rule = {
        "uniform": naive.uniform_rule(8.0),
        "normal": naive.normal_rule(120),
        "none": (np.zeros(1), np.ones(1)),
    }[law.split("-")[0]]
    free = (data["sigma"] is None) + (data["alpha"] is None)
    own, pools = len(data["link"]), len(data["tau_scale"])
    theta = np.concatenate([rng.normal(size=4 + own) * 0.7, rng.normal(size=free) * 0.3,
                            rng.normal(size=pools) * 0.3])  # fmt: skip
    value, gradient = kernel(theta, data, (NONE, NONE) if law == "uniform" else rule)
    assert value == pytest.approx(naive.log_posterior(theta, data, rule), rel=1e-12)
    for k in range(len(theta)):
        step = theta.astype(complex)
        step[k] += 1e-30j
        expected = naive.log_posterior(step, data, rule).imag / 1e-30
        assert gradient[k] == pytest.approx(expected, rel=1e-8, abs=1e-8), k


def test_values_outside_the_range_are_minus_infinity_with_a_zero_gradient():
    rng = np.random.default_rng(3)
    data = problem(rng, sigma=None, alpha=1.0, mean_z=0.5, var_z=1 / 12, prior=True)
    for bad in (60.0, np.nan, -np.inf):
        theta = np.zeros(13)
        theta[9] = bad
        value, gradient = kernel(theta, data, (NONE, NONE))
        assert value == -np.inf
        assert not gradient.any()


def test_probabilities_of_draws_are_those_of_the_rows():
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(7), rng.normal(size=7)])
    beta, delta = rng.normal(size=(3, 2)), rng.normal(size=(3, 1))
    codes, W = np.array([0, 1, 2, 4, 7]), np.ascontiguousarray(X[:, :1])
    alpha, sigma = np.array([1.0, 1.0, 1.0]), np.array([0.5, 2.0, 4.0])
    rule, one = naive.uniform_rule(4.0), np.zeros(7, dtype=np.intp)
    closed = _kernels.probabilities(codes, X, W, one, beta, delta, alpha, sigma, NONE, NONE)
    summed = _kernels.probabilities(codes, X, W, one, beta, delta, alpha, sigma, *rule)
    np.testing.assert_allclose(closed, summed, rtol=1e-11)
    for k, code in enumerate(codes):
        expected = naive.cell(code, X[4] @ beta[2], W[4] @ delta[2], 1.0, 4.0, rule)
        assert closed[k, 2, 4] == pytest.approx(expected, rel=1e-11)
    # Deviations beyond the columns of W: log weights of two decision makers.
    maker, own = np.arange(7) % 2, rng.normal(size=(3, 2))
    more = np.column_stack([delta, own])
    varying = _kernels.probabilities(codes, X, W, maker, beta, more, alpha, sigma, *rule)
    for k, code in enumerate(codes):
        for i in (3, 4):
            weight = np.exp(own[2, maker[i]])
            expected = naive.cell(code, X[i] @ beta[2], W[i] @ delta[2], weight, 4.0, rule)
            assert varying[k, 2, i] == pytest.approx(expected, rel=1e-11)
