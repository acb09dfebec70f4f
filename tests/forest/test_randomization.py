"""Randomisation test of one effect for all."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from causalfair.exceptions import DataError, IdentificationError, ParameterError
from causalfair.forest import randomization_test, rank_average_treatment_effect


def qini_of(priority, y, w, expected, effect):
    scores = effect + 4 * (w - 0.5) * (y - expected - (w - 0.5) * effect)
    got = rank_average_treatment_effect(priority, scores, method="qini", n_bootstrap=2)
    return got.estimates_.estimate[0]


def test_statistic_and_p_value_are_those_of_all_assignments():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=8), rng.normal(size=8)
    w = np.array([1, 0, 1, 0, 0, 1, 1, 0.0])
    effect = y[w == 1].mean() - y[w == 0].mean()
    # With equal arms the difference in means is the plug-in; the mean is the outcome model.
    test = randomization_test(x, y, treatment=w, n_draws=4000, random_state=0)
    observed = qini_of(x, y, w, y.mean(), effect)
    assert test.statistic == pytest.approx(observed, abs=1e-12)
    every = []
    for treated in combinations(range(8), 4):
        again = np.isin(np.arange(8), treated).astype(float)
        moved = y + (again - w) * effect
        shifted = moved[again == 1].mean() - moved[again == 0].mean()
        # the outcome model stays; it is the mean of y, not of the outcomes drawn
        every.append(qini_of(x, moved, again, y.mean(), shifted))
    exact = np.mean(np.array(every) >= observed - 1e-12)
    assert test.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))


def test_loss_is_the_fall_of_the_r_loss():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=300), np.arange(300) % 2.0
    y = w * (1 + x) + rng.normal(size=300)
    test = randomization_test(x, y, treatment=w, statistic="loss", n_draws=99, random_state=0)
    residual, step = y - y.mean(), w - 0.5
    effect = (step @ residual) / (step @ step)
    with_priority = effect + x - x.mean()
    want = np.mean((residual - effect * step) ** 2) - np.mean(
        (residual - with_priority * step) ** 2
    )
    assert test.statistic == pytest.approx(want)
    assert test.p_value == 0.01


@pytest.mark.parametrize("statistic", ["qini", "loss"])
@pytest.mark.parametrize("clustered", [False, True])
def test_level(statistic, clustered):
    rng = np.random.default_rng(5)
    reject = 0
    site = np.arange(120) // 4
    unit, count = (site, 30) if clustered else (np.arange(120), 120)
    for r in range(150):
        x = rng.normal(size=count)[unit]
        w = (rng.permutation(count) % 3 == 0).astype(float)[unit]
        y = x + w + rng.normal(size=30)[site] + rng.normal(size=120)
        roles = {"cluster": unit} if clustered else {}
        test = randomization_test(
            x, y, treatment=w, statistic=statistic, n_draws=99, random_state=r, **roles
        )
        reject += test.p_value <= 0.05
    assert reject <= 150 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 150))


def test_strata_and_clusters_are_drawn_as_they_were():
    from causalfair.forest._randomization import _Assignment

    block = np.repeat([0, 1, 1], 8)
    cluster = np.arange(24) // 2
    w = np.array([1, 0, 0, 1, 1, 0, 1, 1, 0, 0, 1, 0.0])[cluster]
    design = _Assignment(w, block, cluster)
    for seed in range(20):
        drawn = design.draw(np.random.default_rng(seed))
        assert (drawn[::2] == drawn[1::2]).all()
        for b in (0, 1):
            assert drawn[block == b].sum() == w[block == b].sum()
    np.testing.assert_allclose(design.probability, np.r_[np.full(8, 0.5), np.full(16, 0.5)])


def test_same_seed_same_p_value():
    rng = np.random.default_rng(1)
    x, w, y = rng.normal(size=40), np.arange(40) % 2, rng.normal(size=40)
    given = {"priority": x, "y": y, "treatment": w, "n_draws": 99}
    first, again, other = (randomization_test(**given, random_state=s) for s in (0, 0, 1))
    assert first == again
    assert first.p_value != other.p_value or first.statistic == other.statistic
    assert str(first).startswith("randomisation test of one effect for all: QINI = ")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"statistic": "auc"}, ParameterError, "statistic='auc'"),
        ({"n_draws": 5}, ParameterError, "n_draws=5"),
        ({"priority": np.arange(3.0)}, DataError, "20"),
        ({"treatment": np.zeros(20)}, IdentificationError, "treatment takes one value"),
        ({"strata": np.arange(20) % 2}, IdentificationError, "2 of 2 strata have one arm only"),
        ({"cluster": np.arange(20) // 4}, IdentificationError, "treatment varies within clusters"),
        ({"cluster": np.arange(20) % 2, "strata": np.arange(20) // 10}, DataError, "divide a"),
        ({"strata": np.arange(5)}, DataError, r"strata has shape \(5,\) for 20"),
    ],
)
def test_bad_input(change, error, match):
    given = {"priority": np.arange(20.0), "y": np.arange(20.0) % 7, "treatment": np.arange(20) % 2}
    with pytest.raises(error, match=match):
        randomization_test(**given | change)
