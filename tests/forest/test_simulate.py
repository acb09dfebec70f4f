"""Simulators: shapes, seeds and the moments they promise."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.datasets import load_school_trial, make_cluster_trial, make_heterogeneous_effects
from causalfair.exceptions import ParameterError


@pytest.mark.parametrize("setup", ["A", "B", "C", "D"])
def test_designs_have_their_conditional_means(setup):
    frame, truth = make_heterogeneous_effects(20_000, setup=setup, random_state=0)
    w, y = frame["treatment"].to_numpy(), frame["y"].to_numpy()
    e, m, tau = truth["propensity"], truth["outcome"], truth["effect"]
    noise = y - m - (w - e) * tau
    assert abs(noise.mean()) < 0.03
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert abs(np.mean((w - e) * (1 + tau))) < 0.03
    assert truth["ate"] == pytest.approx(tau.mean())
    x = frame[[f"x{j}" for j in range(5)]].to_numpy()
    assert np.abs(np.corrcoef(noise, x.T)[0, 1:]).max() < 0.03


def test_design_b_at_a_point():
    _, truth = make_heterogeneous_effects(5, setup="B", noise=0, random_state=1)
    frame, _ = make_heterogeneous_effects(5, setup="B", noise=0, random_state=1)
    x = frame[[f"x{j}" for j in range(5)]].to_numpy()
    np.testing.assert_allclose(truth["effect"], x[:, 0] + np.log1p(np.exp(x[:, 1])))
    baseline = np.maximum.reduce([x[:, 0] + x[:, 1], x[:, 2], 0 * x[:, 0]])
    baseline = baseline + np.maximum(x[:, 3] + x[:, 4], 0)
    np.testing.assert_allclose(frame["y"], baseline + (frame["treatment"] - 0.5) * truth["effect"])


def test_cluster_trial():
    frame, truth = make_cluster_trial(200, correlation=0.3, missing=0.1, random_state=0)
    assert frame.groupby("cluster")["treatment"].nunique().max() == 1
    assert frame.groupby("cluster")["treatment"].first().sum() == 100
    assert frame["x0"].isna().mean() == pytest.approx(0.1, abs=0.02)
    assert not frame["x1"].isna().any()
    full, truth = make_cluster_trial(400, correlation=0.3, random_state=0)
    noise = full["y"] - full["x2"] - full["treatment"] * truth["effect"]
    between = noise.groupby(full["cluster"]).mean().var()
    assert between == pytest.approx(0.3 + 0.7 / 20, rel=0.2)
    _, none = make_cluster_trial(20, heterogeneity=0, random_state=0)
    assert np.ptp(none["effect"]) == 0


def test_seeds():
    for make in (make_heterogeneous_effects, make_cluster_trial):
        a, b, c = (make(random_state=s)[0] for s in (1, 1, 2))
        assert a.equals(b)
        assert not a.equals(c)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: make_heterogeneous_effects(setup="E"), "'A', 'B', 'C', 'D'"),
        (lambda: make_heterogeneous_effects(n_covariates=3), "at least 5"),
        (lambda: make_cluster_trial(1), "at least 2"),
        (lambda: make_cluster_trial(correlation=1.0), "correlation=1.0"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ParameterError, match=match):
        call()


def test_school_trial():
    frame, roles = load_school_trial(return_roles=True)
    assert frame.shape == (17_299, 16)
    assert frame["school"].nunique() == 851
    assert frame.groupby("school")["treatment"].nunique().max() == 1
    assert frame["female"].isna().mean() == pytest.approx(0.0947, abs=1e-3)
    assert set(roles["covariates"]) < set(frame.columns)
    assert load_school_trial(as_frame="polars").shape == (17_299, 16)
