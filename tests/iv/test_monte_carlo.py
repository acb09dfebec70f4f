"""Multiple robustness and coverage by simulation: a small run always, the full one with --slow."""

from __future__ import annotations

import numpy as np
import pytest
from validation import iv as validation
from validation._tables import summarise


def run(right, replications, seed=10, n=4000):
    rows = validation.simulate_models(right, replications, n=n, seed=seed)
    return summarise(rows, 1.0)


@pytest.mark.parametrize("cover", list(validation.COVERS))
def test_covers_small(cover):
    out = run(validation.COVERS[cover], 60)
    assert abs(out["bias"]) < 4 * out["bias_mc_error"] + 0.01
    assert out["coverage"] * 60 >= 51  # 99.5 % of binomial(60, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("cover", list(validation.COVERS))
def test_covers(cover):
    out = run(validation.COVERS[cover], 1000)
    assert abs(out["bias"]) < 0.04
    assert 931 <= round(out["coverage"] * 1000) <= 967
    assert 0.9 < out["mean SE"] / out["SD"] < 1.1


@pytest.mark.parametrize("name", list(validation.NON_COVERS))
def test_non_covers_are_biased(name):
    out = run(validation.NON_COVERS[name], 25, n=20_000)
    assert abs(out["bias"]) > 4 * out["bias_mc_error"]


def test_influence_standard_error_is_wrong_where_the_sandwich_is_right():
    # With the treatment model wrong (M3) the plug-in standard error undercovers.
    rows = validation.simulate_models(
        validation.COVERS["M3: effect, confounding, outcome"], 60, n=4000, seed=12
    )
    plug_in = np.mean([row["plug_in"] for row in rows])
    sandwich = np.mean([row["std_error"] for row in rows])
    spread = np.std([row["estimate"] for row in rows])
    assert plug_in < 0.85 * sandwich
    assert abs(sandwich / spread - 1) < 0.35


def test_two_stage_least_squares_is_far_off():
    frame, _ = validation.make_invalid_iv(4000, random_state=0)
    est = validation.MultiplyRobustATE().fit(frame, "y", **validation.ROLES)
    table = est.comparators().set_index("term")
    assert table.loc["2SLS", "estimate"] > 4


@pytest.mark.filterwarnings("ignore::causalfair.exceptions.CausalFairWarning")
def test_robust_set_without_and_with_identification():
    table = {}
    for shift in (0.0, 1.0):
        inside, unbounded = 0, 0
        for r in range(60):
            frame, _ = validation.make_invalid_iv(
                2000, heterogeneity=0.0, variance_shift=shift, random_state=r
            )
            est = validation.MultiplyRobustATE().fit(frame, "y", **validation.ROLES)
            found = est.robust_set()
            inside += any(low <= 1.0 <= high for low, high in found)
            unbounded += bool(np.isinf(found).any())
        table[shift] = (inside, unbounded)
    assert table[0.0][0] >= 51
    assert table[1.0][0] >= 51
    assert table[0.0][1] >= 50
    assert table[1.0][1] == 0


def test_exclusion_tests_have_size_and_power():
    reject = {}
    for direct in (0.0, 1.0):
        hits = np.zeros(2)
        for r in range(60):
            frame, _ = validation.make_invalid_iv(4000, direct=direct, random_state=r)
            est = validation.MultiplyRobustATE(validation.RIGHT).fit(frame, "y", **validation.ROLES)
            hits += est.exclusion_tests().estimates.p_value() < 0.05
        reject[direct] = hits
    assert (reject[0.0] <= 8).all()
    assert (reject[1.0] >= 55).all()
