"""The selector: covers, affine sums, risks, ties, and its doubly robust special case."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import iv_ml as naive

from causalfair.exceptions import ParameterError
from causalfair.iv._combinations import (
    SLOTS,
    CandidateNuisances,
    combination_nuisances,
    fold_means,
    smoothed_nuisances,
)
from causalfair.iv._scores import direct_effect_scores, influence_scores
from causalfair.iv._selection import (
    check_combinations,
    minimal_covers,
    pseudo_risk,
    select_nuisances,
    softmin_weights,
)

FULL_PATH = [
    ("confounding", "instrument"),
    ("instrument", "effect"),
    ("effect", "treatment"),
    ("treatment", "outcome"),
]


def random_candidates(rng, n, counts, *, nested=False):
    k_pi, k_lam, k_beta, k_mu, k_omega = counts
    lam = rng.uniform(0.1, 0.9, (k_lam, 2, n))
    D = lam[:, 1] * (1 - lam[:, 1]) - lam[:, 0] * (1 - lam[:, 0])
    first = k_beta if nested else 1
    return CandidateNuisances(
        pi=rng.uniform(0.2, 0.8, (k_pi, n)),
        clipped=np.zeros((k_pi, n), dtype=bool),
        lam=lam,
        V=None,
        D=np.where(np.abs(D) < 0.02, 0.02, D),
        floored=np.abs(D) < 0.02,
        beta=rng.normal(size=(k_beta, n)),
        mu=rng.normal(size=(first, k_mu, 2, n)),
        omega=rng.normal(size=(first, k_omega, n)),
    )


def random_data(rng, n):
    z = (rng.random(n) < 0.5).astype(float)
    a = (rng.random(n) < 0.4).astype(float)
    return z, a, rng.normal(size=n), rng.integers(0, 3, n), rng.uniform(0.5, 2.0, n)


def test_covers_of_the_path_are_the_four_sets():
    assert {frozenset(c) for c in minimal_covers(FULL_PATH)} == {
        frozenset({"instrument", "treatment"}),
        frozenset({"treatment", "effect", "confounding"}),
        frozenset({"effect", "confounding", "outcome"}),
        frozenset({"instrument", "effect", "outcome"}),
    }


def test_covers_with_one_sided_noncompliance():
    assert {frozenset(c) for c in minimal_covers(FULL_PATH[1:])} == {
        frozenset({"instrument", "treatment"}),
        frozenset({"treatment", "effect"}),
        frozenset({"effect", "outcome"}),
    }


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")).filter(
            lambda e: e[0] != e[1]
        ),
        min_size=1,
        max_size=8,
    )
)
def test_covers_equal_enumeration(edges):
    found = minimal_covers(edges)
    assert {frozenset(c) for c in found} == naive.covers_by_enumeration(edges)
    assert len(found) == len(set(map(frozenset, found)))


@pytest.mark.parametrize("nested", [False, True])
def test_fold_means_equal_brute_force(nested):
    rng = np.random.default_rng(1)
    z, a, y, folds, w = random_data(rng, 40)
    candidates = random_candidates(rng, 40, (2, 3, 2, 3, 2), nested=nested)
    fast = fold_means(z, a, y, candidates, folds, w)
    slow = naive.combination_means(z, a, y, candidates, folds, w)
    assert fast.shape == (3, 2, 3, 2, 3, 2)
    np.testing.assert_allclose(fast, slow, rtol=1e-10, atol=1e-10)


def test_fold_means_are_the_means_of_the_scores_across_blocks():
    rng = np.random.default_rng(2)
    n = 40_000  # several blocks a fold
    z, a, y, folds, w = random_data(rng, n)
    candidates = random_candidates(rng, n, (1, 2, 2, 1, 2))
    fast = fold_means(z, a, y, candidates, folds, w)
    for index in product(*map(range, candidates.counts)):
        phi = influence_scores(z, a, y, combination_nuisances(candidates, index))
        for fold in range(3):
            rows = folds == fold
            expected = np.average(phi[rows], weights=w[rows])
            assert fast[(fold, *index)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("nested", [False, True])
def test_smoothed_scores_are_the_weighted_average_of_all_scores(nested):
    rng = np.random.default_rng(3)
    z, a, y, _, _ = random_data(rng, 30)
    candidates = random_candidates(rng, 30, (2, 2, 3, 2, 2), nested=nested)
    weights = rng.random(candidates.counts)
    weights[0, 1] = 0.0
    weights /= weights.sum()
    for score in (influence_scores, direct_effect_scores):
        brute = sum(
            weights[index] * score(z, a, y, combination_nuisances(candidates, index))
            for index in product(*map(range, candidates.counts))
        )
        parts = smoothed_nuisances(candidates, weights)
        assert len(parts) == 3
        fast = sum(share * score(z, a, y, nuisances) for share, nuisances in parts)
        np.testing.assert_allclose(fast, brute, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("criterion", ["mixed-minimax", "minimax"])
@settings(max_examples=15)
@given(st.data())
def test_risk_equals_brute_force(criterion, data):
    counts = tuple(data.draw(st.lists(st.integers(1, 3), min_size=5, max_size=5)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    values = rng.normal(size=(2, *counts))
    if data.draw(st.booleans()):
        values = np.round(values)  # ties
    covers = minimal_covers(FULL_PATH)
    axes = [[SLOTS.index(slot) for slot in cover] for cover in covers]
    slow = naive.risk_parts(values, axes, criterion)
    fast = np.stack([pseudo_risk(values, fixed, criterion) for fixed in axes])
    np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-14)


def test_pruned_diameter_on_many_points():
    rng = np.random.default_rng(4)
    values = rng.standard_t(2, size=(3, 1, 900))
    left = values[:, 0].T
    expected = max(np.mean((left - row) ** 2, axis=1).max() for row in left)
    assert pseudo_risk(values, [0], "mixed-minimax")[0, 0] == pytest.approx(expected, rel=1e-12)


def aipw_fold_means(rng, n=600, n_folds=3):
    """AIPW means of a toy problem with two propensity and three outcome learners."""
    x = rng.uniform(-1, 1, n)
    e = 1 / (1 + np.exp(-2 * x))
    t = (rng.random(n) < e).astype(float)
    y = 3 * x**2 + t + rng.normal(size=n)
    propensities = [np.full(n, 0.5), e]
    outcomes = [(np.zeros(n), np.ones(n)), (3 * x**2, 3 * x**2 + 1), (x, x + 1)]
    folds = np.arange(n) % n_folds
    values = np.zeros((n_folds, 2, 3))
    for k, p in enumerate(propensities):
        for ell, (m0, m1) in enumerate(outcomes):
            phi = m1 - m0 + t * (y - m1) / p - (1 - t) * (y - m0) / (1 - p)
            values[:, k, ell] = [phi[folds == s].mean() for s in range(n_folds)]
    return values


def test_reduces_to_the_doubly_robust_rule():
    for seed in range(20):
        values = aipw_fold_means(np.random.default_rng(seed))
        chosen = select_nuisances(
            values,
            {"propensity": ["constant", "true"], "outcome": ["zero", "true", "line"]},
            covers=minimal_covers([("propensity", "outcome")]),
        )
        assert chosen.index == naive.doubly_robust_rule(values)


def test_selected_table():
    rng = np.random.default_rng(5)
    names = {"p": ["a", "b"], "q": ["c", "d", "e"]}
    values = rng.normal(size=(4, 2, 3))
    result = select_nuisances(values, names, covers=[["p"], ["q"]], criterion="mixed-minimax")
    frame = result.to_frame()
    assert list(frame.columns) == ["p", "q", "part:p", "part:q", "risk", "estimate", "selected"]
    assert len(frame) == 6
    assert frame["risk"].is_monotonic_increasing
    assert frame["selected"].tolist() == [True] + [False] * 5
    np.testing.assert_allclose(frame["part:p"] + frame["part:q"], frame["risk"])
    assert result.chosen == {"p": frame["p"][0], "q": frame["q"][0]}
    k = names["p"].index(frame["p"][0]), names["q"].index(frame["q"][0])
    assert frame["estimate"][0] == pytest.approx(values[:, *k].mean())


def test_ties_go_to_the_smaller_loss_then_to_the_order_given():
    values = np.zeros((2, 2, 2))
    names = {"p": ["a", "b"], "q": ["c", "d"]}
    covers = [["p"], ["q"]]
    plain = select_nuisances(values, names, covers=covers)
    assert plain.index == (0, 0)
    assert plain.tied == 4
    by_loss = select_nuisances(
        values, names, covers=covers, losses={"p": [2.0, 1.0], "q": [1.0, 3.0]}
    )
    assert by_loss.index == (1, 0)


def test_minimax_and_mixed_minimax_can_differ():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        values = rng.normal(size=(2, 3, 3))
        names = {"p": "abc", "q": "def"}
        args = {"names": names, "covers": [["p"], ["q"]]}
        mixed = select_nuisances(values, criterion="mixed-minimax", **args)
        plain = select_nuisances(values, criterion="minimax", **args)
        assert np.all(plain.parts <= mixed.parts + 1e-15)
        seen.add(mixed.index == plain.index)
    assert seen == {True, False}


def test_softmin_weights():
    risk = np.array([[1.0, 2.0], [3.0, 1e9]])
    w = softmin_weights(risk, 1.0)
    assert w.sum() == pytest.approx(1.0)
    assert w[0, 0] / w[0, 1] == pytest.approx(np.e)
    assert w[1, 1] == 0.0
    np.testing.assert_allclose(softmin_weights(risk, 0.0), 0.25)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"values": np.zeros((2, 2, 3))}, "shape"),
        ({"values": np.full((2, 2, 2), np.nan)}, "8 of 8 estimates are not finite"),
        ({"covers": [["p"], ["r"]]}, "unknown: \\['r'\\]"),
        ({"covers": []}, "at least one"),
        ({"criterion": "best"}, "criterion='best'"),
    ],
)
def test_bad_input(kwargs, match):
    values = kwargs.pop("values", np.zeros((2, 2, 2)))
    arguments = {"covers": [["p"], ["q"]], **kwargs}
    with pytest.raises(ParameterError, match=match):
        select_nuisances(values, {"p": ["a", "b"], "q": ["c", "d"]}, **arguments)


def test_too_many_combinations():
    assert check_combinations([10] * 6, owner="x") == 1_000_000
    with pytest.raises(ParameterError, match="1,048,576 combinations"):
        check_combinations([16] * 5, owner="SelectiveATE.fit")
