"""Each mechanism as a pure transition, against its algorithm and its exact values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import adaptive as naive

from causalfair.adaptive import Conjunction, accounting, bounds
from causalfair.adaptive import _description as description
from causalfair.adaptive._build import MECHANISMS
from causalfair.adaptive._checks import GuessAndCheck, SparseValidate, SplitRounds, check_interval
from causalfair.adaptive._experiments import bit_batch
from causalfair.adaptive._leaders import (
    Ladder,
    MultiplicativeWeights,
    ParameterFreeLadder,
    WinnerOnly,
)
from causalfair.adaptive._mechanisms import Gaussian, Laplace, Naive, Plan
from causalfair.adaptive._noise import (
    KeyedNoise,
    commitment,
    key_from_seed,
    matches,
    new_key,
    release_grid,
    to_grid,
)
from causalfair.adaptive._private import (
    CalibratedVariance,
    NoisyArgmin,
    StableQuantile,
    Thresholdout,
    Voting,
)
from causalfair.adaptive._session import stable_batch
from causalfair.adaptive._state import Batch
from causalfair.adaptive._thresholdout import scan
from causalfair.adaptive._weights import decode_cells, encode_cells, kl_divergence, update
from causalfair.exceptions import BudgetExhaustedError, ParameterError, VacuousGuaranteeError


def losses_batch(losses, n=10_000, sign=1):
    """Batch of means with the given values on range [0, 1]."""
    values = np.asarray(losses, dtype=float)
    q, one = len(values), np.ones(len(values))
    return Batch(
        value=values,
        lo=0 * one,
        hi=one,
        influence=one / n,
        squares=one / n,
        pad=0 * one,
        guess=np.full(q, math.nan),
        count=n,
        loss_sign=sign,
    )


# ------------------------------------------------------------------------------------------ noise
def test_noise_is_a_function_of_key_stream_and_counter(noise):
    whole = noise.uniform("answer", 0, 50)
    assert np.array_equal(whole[20:30], noise.uniform("answer", 20, 10))
    assert not np.any(whole == noise.uniform("eta", 0, 50))
    assert not np.any(whole == KeyedNoise(b"l" * 32).uniform("answer", 0, 50))
    assert "kkk" not in repr(noise)


def test_noise_has_the_right_law(noise):
    from scipy import stats

    assert stats.kstest(noise.uniform("u", 0, 20_000), "uniform").pvalue > 1e-3
    assert stats.kstest(noise.normal("n", 0, 20_000), "norm").pvalue > 1e-3
    assert stats.kstest(noise.laplace("l", 0, 20_000), "laplace").pvalue > 1e-3
    assert stats.kstest(noise.gumbel("g", 0, 20_000), "gumbel_r").pvalue > 1e-3
    assert sorted(noise.permutation("p", 100)) == list(range(100))


def test_uniforms_stay_inside_the_unit_interval(noise):
    u = noise.uniform("answer", 0, 5_000)
    assert u.min() > 0
    assert u.max() < 1
    assert np.isfinite(noise.normal("answer", 0, 5_000)).all()


def test_commitment_and_grid():
    key = new_key()
    assert len(key) == 32
    assert key != new_key()
    assert matches(key, commitment(key))
    assert not matches(key_from_seed(1), commitment(key))
    grid = release_grid(0.01368)
    assert grid == 2.0 ** math.floor(math.log2(0.01368 / 1024))
    assert float(to_grid(np.array(0.123456789), grid) / grid) % 1 == 0


# --------------------------------------------------------------------------------- noisy answers
def test_gaussian_answers_are_the_mean_plus_keyed_noise(bits, noise):
    engine = Gaussian(Plan(2_000, 100, 0.05))
    batch = bit_batch(bits)
    release, after = engine.answer(engine.start(), batch, noise, None)
    z = noise.normal("answer", 0, 60)
    grid = release_grid(engine.sigma)
    assert np.allclose(release.value, to_grid(bits.mean(axis=0) + engine.sigma * z, grid))
    assert np.allclose(release.value / grid, np.rint(release.value / grid))
    assert np.allclose(release.radius, engine.radius + grid / 2)
    assert after.k_used == 60
    assert after.mu2_used == pytest.approx(60 / (2_000 * engine.sigma) ** 2)


@pytest.mark.parametrize(
    "name",
    [
        "gaussian",
        "laplace",
        "naive",
        "guess_and_check",
        "ladder",
        "sparse_validate",
        "multiplicative_weights",
    ],
)
def test_a_batch_is_the_sequence_of_its_queries(name, bits, noise):
    params = {"multiplicative_weights": {"n_cells": 2_000}}.get(name, {})
    engine = MECHANISMS[name](Plan(2_000, 100, 0.05, n_train=2_000, force=True), **params)
    guess = np.full(60, 0.5)
    batch = replace(bit_batch(bits, guess=guess), vectors=bits.astype(float))
    together, end = engine.answer(engine.start(), batch, noise, engine.initial_vault())
    state, vault, single = engine.start(), engine.initial_vault(), []
    for j in range(60):
        one = replace(
            bit_batch(bits[:, j : j + 1], guess=guess[j : j + 1]),
            vectors=bits[:, j : j + 1].astype(float),
        )
        release, state = engine.answer(state, one, noise, vault)
        vault = vault if release.vault is None else release.vault
        single.append(release)
    assert np.array_equal(together.value, [r.value[0] for r in single], equal_nan=True)
    assert np.array_equal(together.radius, [r.radius[0] for r in single])
    assert together.status == tuple(r.status[0] for r in single)
    assert end.mu2_used == pytest.approx(state.mu2_used, rel=1e-12)
    assert replace(end, rounds_used=0, mu2_used=0.0) == replace(state, rounds_used=0, mu2_used=0.0)


def test_other_statistics_scale_the_noise_by_their_influence(bits, noise):
    engine = Gaussian(Plan(2_000, 100, 0.05))
    one = np.ones(1)
    wide = Batch(
        value=3 * one,
        lo=0 * one,
        hi=6 * one,
        influence=6 * one / 500,
        squares=one,
        pad=0 * one,
        guess=one,
        kind="tpr",
    )
    release, _ = engine.answer(engine.start(), wide, noise, None)
    scale = 6 / 500 * 2_000
    assert release.radius[0] == pytest.approx(
        scale * engine.radius + release_grid(scale * engine.sigma) / 2
    )


def test_declared_statistic_is_tighter_and_exclusive(noise):
    profile = ((1 / 1000, 1000), (1 / 4000, 4000))
    engine = Gaussian(Plan(5_000, 50, 0.05, profile=profile, statistic="auc"))
    assert round(engine.radius, 4) == 0.2955
    elsewhere = replace(losses_batch([0.5], 5_000), scale=np.array([math.inf]))
    with pytest.raises(ParameterError, match="created for statistic='auc'"):
        engine.answer(engine.start(), elsewhere, noise, None)


def test_laplace_counts_pure_releases(bits, noise):
    engine = Laplace(Plan(2_000, 100, 0.05))
    _, after = engine.answer(engine.start(), bit_batch(bits), noise, None)
    assert after.eps0_count == 60
    assert engine.radius > Gaussian(Plan(2_000, 100, 0.05)).radius * 1.4


def test_spent_budget_widens_a_continued_ledger():
    fresh = Gaussian(Plan(10_000, 100, 0.05))
    spent = fresh.plan.k / (10_000 * fresh.sigma) ** 2
    continued = Gaussian(Plan(10_000, 100, 0.05, spent_mu2=spent))
    assert fresh.radius < continued.radius < 2 * fresh.radius


# ------------------------------------------------------------------------------------ thresholdout
def test_thresholdout_scan_is_the_published_algorithm():
    rng = np.random.default_rng(0)
    for seed in range(200):
        q, budget = int(rng.integers(1, 60)), int(rng.integers(1, 6))
        train = rng.random(q)
        holdout = train + rng.normal(size=q) * 0.2
        gammas, etas, xis = rng.laplace(size=budget + 1), rng.laplace(size=q), rng.laplace(size=q)
        gammas, etas, xis = 0.05 * gammas, 0.05 * etas, 0.05 * xis
        expected = naive.thresholdout(holdout, train, 0.1, budget, gammas, etas, xis)
        hits, answered = scan(np.abs(holdout - train) - etas, 0.1 + gammas, budget)
        ours = list(train[:answered]) + [None] * (q - answered)
        for used, hit in enumerate(hits):
            ours[hit] = holdout[hit] + xis[used]
        assert ours == expected, seed


@pytest.mark.parametrize("cuts", [(60,), (1,) * 60, (7, 13, 40)])
def test_thresholdout_batch_equals_sequential(bits, noise, cuts):
    engine = Thresholdout(
        Plan(2_000, 60, 0.05, n_train=2_000, force=True), threshold=0.01, sigma=0.003, budget=8
    )
    guess = np.full(60, 0.5) + 0.02 * np.random.default_rng(1).standard_normal(60)
    whole, end = engine.answer(engine.start(), bit_batch(bits, guess=guess), noise, None)
    state, values, first = engine.start(), [], 0
    for size in cuts:
        part = slice(first, first + size)
        first += size
        if state.halted:
            values += [math.nan] * size
            continue
        release, state = engine.answer(
            state, bit_batch(bits[:, part], guess=guess[part]), noise, None
        )
        values += list(release.value)
    assert np.array_equal(whole.value, values, equal_nan=True)
    assert replace(end, rounds_used=0) == replace(state, rounds_used=0)


def test_thresholdout_without_noise_is_plain_thresholding(noise):
    plan = Plan(10_000, 6, 0.05, n_train=10_000, force=True)
    engine = Thresholdout(plan, threshold=0.05, sigma=1e-9, budget=2)
    values = np.array([0.5, 0.56, 0.54, 0.30, 0.9, 0.5])
    batch = replace(losses_batch(values), guess=np.full(6, 0.5))
    release, after = engine.answer(engine.start(), batch, noise, None)
    assert release.status == ("training", "holdout", "training", "holdout", "refused", "refused")
    assert np.allclose(release.value[:4], [0.5, 0.56, 0.5, 0.30], atol=1e-6)
    assert np.isnan(release.value[4:]).all()
    assert after.budget_left == 0
    assert after.halted
    assert after.gamma_index == 2


def test_thresholdout_keeps_its_budget_when_guesses_are_exact(bits, noise):
    plan = Plan(2_000, 60, 0.05, n_train=2_000, force=True)
    engine = Thresholdout(plan, threshold=0.01, sigma=1e-9, budget=3)
    batch = bit_batch(bits, guess=bits.mean(axis=0))
    release, after = engine.answer(engine.start(), batch, noise, None)
    assert set(release.status) == {"training"}
    assert (after.budget_left, after.gamma_index, after.eps0_count) == (3, 0, 0)


def test_thresholdout_one_sided_bounds_one_side(noise):
    plan = Plan(10**6, 10, 0.05, n_train=10**6)
    engine = Thresholdout(plan, threshold=0.05, sigma=1e-4, budget=2, one_sided=True)
    batch = replace(losses_batch([0.7, 0.3], 10**6, -1), guess=np.array([0.5, 0.5]))
    release, _ = engine.answer(engine.start(), batch, noise, None)
    assert release.status == ("training", "holdout")  # accuracy: only optimism is checked
    assert release.upper[0] == 1.0
    assert release.lower[0] > 0
    assert release.upper[1] < 1


def test_science_settings_are_not_certified(noise):
    engine = Thresholdout(Plan(10_000, 10, 0.05, n_train=10_000), preset="science")
    assert not engine.certified
    assert engine.threshold == pytest.approx(0.04)
    assert engine.sigma == pytest.approx(0.01)
    assert engine.radius == math.inf
    batch = replace(losses_batch([0.5, 0.9]), guess=np.array([0.5, 0.5]))
    release, after = engine.answer(engine.start(), batch, noise, None)
    assert release.status == ("training", "holdout")
    assert after.budget_left is None


# ---------------------------------------------------------------------------------------- checking
def test_sparse_validate(noise):
    engine = SparseValidate(Plan(5_000, 10, 0.05), budget=2, tau=0.05)
    batch = replace(losses_batch([0.5, 0.6, 0.52, 0.9, 0.5], 5_000), guess=np.full(5, 0.5))
    release, after = engine.answer(engine.start(), batch, noise, None)
    assert release.status == ("pass", "fail", "pass", "fail", "refused")
    assert release.radius[0] == pytest.approx(
        0.05 + description.sparse_validate_radius(5_000, 10, 2, 0.05)
    )
    assert (release.lower[1], release.upper[1]) == (0, 1)
    assert after.halted
    assert after.k_used == 4


def test_guess_and_check_passes_only_when_the_interval_fits(noise):
    engine = GuessAndCheck(Plan(5_000, 100, 0.05), tau=0.05)
    level = description.check_log_inverse(0, 0, 0.0, 0.05)
    low, high = description.kl_interval(0.5, 5_000, level)
    edge = 0.05 - max(0.5 - low, high - 0.5)  # how far the guess may be off
    for shift, status in ((edge - 1e-6, "guess"), (edge + 1e-6, "holdout")):
        batch = replace(losses_batch([0.5], 5_000), guess=np.array([0.5 + shift]))
        release, after = engine.answer(engine.start(), batch, noise, None)
        assert release.status == (status,)
        assert after.failures == (status == "holdout")
    assert abs(release.value[0] - 0.5) <= 0.05 - math.sqrt(level / 10_000)
    assert after.log_desc == pytest.approx(
        math.log(math.ceil(1 / (2 * (0.05 - math.sqrt(level / 10_000)))))
    )


def test_bernstein_checks_share_the_error_level_with_the_fallback(noise):
    # 5,000 values of variance .01: a pass uses the Bernstein interval, a failure Hoeffding's, and
    # neither event contains the other, so each gets half of the error level
    plan = Plan(5_000, 100, 0.05)
    level = description.check_log_inverse(0, 0, 0.0, 0.05) + math.log(2)
    _, high = description.empirical_bernstein(0.5, 0.01, 5_000, level)
    engine = GuessAndCheck(plan, tau=0.05, check="empirical_bernstein")
    edge = 0.05 - (high - 0.5)
    for shift, status in ((edge - 1e-6, "guess"), (edge + 1e-6, "holdout")):
        guess, variance = np.array([0.5 + shift]), np.array([0.01])
        batch = replace(losses_batch([0.5], 5_000), guess=guess, variance=variance)
        release, after = engine.answer(engine.start(), batch, noise, None)
        assert release.status == (status,)
    reach = math.sqrt(level / 10_000)
    assert after.log_desc == pytest.approx(math.log(math.ceil(1 / (2 * (0.05 - reach)))))


def test_guess_and_check_doubles_or_halts(noise):
    bad = replace(losses_batch([0.5], 400), guess=np.array([0.9]))
    stubborn = GuessAndCheck(Plan(400, 50, 0.05, force=True), tau=0.05, allow_doubling=False)
    release, after = stubborn.answer(stubborn.start(), bad, noise, None)
    assert release.status == ("refused",)
    assert "cannot certify" in after.halted
    with pytest.raises(BudgetExhaustedError, match="cannot certify tau"):
        stubborn.limit(after, bad)
    flexible = GuessAndCheck(Plan(400, 50, 0.05, force=True), tau=0.05)
    release, after = flexible.answer(flexible.start(), bad, noise, None)
    assert release.status == ("holdout",)
    assert release.radius[0] in (0.1, 0.2)
    assert abs(release.value[0] - 0.5) <= release.radius[0]


def test_default_tau_follows_the_statistic_and_a_given_one_is_kept(noise):
    auc = replace(
        losses_batch([0.7], 5_000),
        squares=np.array([4 / 5_000]),
        count=None,
        guess=np.array([0.7]),
        kind="auc",
    )
    engine = GuessAndCheck(Plan(5_000, 100, 0.05))
    release, _ = engine.answer(engine.start(), auc, noise, None)
    assert (release.status, release.radius[0]) == (("guess",), pytest.approx(2 * engine.tau))
    fixed = GuessAndCheck(Plan(5_000, 100, 0.05), tau=0.1)
    release, _ = fixed.answer(fixed.start(), auc, noise, None)
    assert (release.status, release.radius[0]) == (("guess",), pytest.approx(0.1))


@pytest.mark.parametrize("kind", ["kl", "clopper_pearson", "empirical_bernstein", "hoeffding"])
def test_check_intervals_cover(kind):
    rng = np.random.default_rng(3)
    level, misses = math.log(2 / 0.1), 0
    for _ in range(400):
        sample = rng.random((300, 1)) < 0.2
        batch = replace(bit_batch(sample), variance=np.array([sample.var(ddof=1)]))
        low, high = check_interval(kind, batch, 0, level)
        misses += not low <= 0.2 <= high
    assert misses <= 55  # 99.9 % point of a binomial with 400 draws at 0.1


def test_exact_interval_needs_boolean_values():
    batch = replace(losses_batch([0.5]), binary=False)
    with pytest.raises(ParameterError, match="needs boolean query values"):
        check_interval("clopper_pearson", batch, 0, 3.0)


def test_split_rounds(bits, noise):
    engine = SplitRounds(Plan(2_000, 10, 0.05), rounds=2)
    assert engine.rows(engine.start()) == "block:0"
    batch = bit_batch(bits[:1_000, :5])
    release, after = engine.answer(engine.start(), batch, noise, None)
    low, high = description.clopper_pearson(int(bits[:1_000, 0].sum()), 1_000, 0.05 / 10)
    assert (release.lower[0], release.upper[0]) == pytest.approx((low, high))
    assert engine.rows(after) == "block:1"
    _, after = engine.answer(after, batch, noise, None)
    with pytest.raises(BudgetExhaustedError, match="rounds=2 are used"):
        engine.limit(after, bit_batch(bits[:, :0]))


# ------------------------------------------------------------------------------------------ ladder
def test_ladder_example(noise):
    engine = Ladder(Plan(10_000, 10, 0.05, force=True), eta=0.02)
    release, _ = engine.answer(engine.start(), losses_batch([0.5, 0.49, 0.455, 0.449]), noise, None)
    assert np.allclose(release.value, [0.5, 0.5, 0.46, 0.46])
    assert release.status == ("improved", "kept", "improved", "kept")


@settings(max_examples=100)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.sampled_from([0.02, 0.05, 0.1]))
def test_ladder_never_rises_and_follows_exact_arithmetic(thousandths, eta):
    # offset by a quarter of a thousandth: no value sits on a rounding or acceptance boundary
    losses = [(t + 0.25) / 1001 for t in thousandths]
    engine = Ladder(Plan(1_000, 100, 0.05, force=True), eta=eta)
    release, _ = engine.answer(engine.start(), losses_batch(losses), KeyedNoise(b"x"), None)
    assert np.all(np.diff(release.value) <= 0)
    assert np.allclose(release.value, np.minimum(naive.ladder(losses, eta), 1.0))


def test_ladder_rounds_exact_halves_up(noise):
    engine = Ladder(Plan(1_000, 10, 0.05, force=True), eta=0.25)
    release, _ = engine.answer(engine.start(), losses_batch([0.375]), noise, None)
    assert release.value[0] == 0.5


def test_ladder_of_scores_goes_up(noise):
    engine = Ladder(Plan(10_000, 10, 0.05, force=True), eta=0.02)
    release, _ = engine.answer(
        engine.start(), losses_batch([0.5, 0.545, 0.51], sign=-1), noise, None
    )
    assert np.allclose(release.value, [0.5, 0.54, 0.54])


def test_parameter_free_ladder_is_a_paired_test(noise):
    rng = np.random.default_rng(0)
    base = rng.random((500, 1)) < 0.5
    better = base.copy()
    better[np.flatnonzero(base[:, 0])[:5]] = False  # 5 fewer errors, none new
    worse = ~base
    batch = bit_batch(np.column_stack((base, worse, better)), keep=True)
    engine = ParameterFreeLadder(Plan(500, 10, 0.05))
    assert not engine.certified
    release, after = engine.answer(engine.start(), batch, noise, None)
    assert release.status == ("improved", "kept", "improved")
    assert after.best == pytest.approx(better.mean())
    assert np.array_equal(release.vault, better[:, 0])


# ------------------------------------------------------------------------------------ winner only
def test_winner_only_reveals_an_index(noise):
    engine = WinnerOnly(Plan(10_000, 1_000, 0.05), sizes=[100] * 10)
    assert round(engine.radius, 6) == 0.049875
    release, after = engine.answer(engine.start(), losses_batch([0.4, 0.2, 0.2]), noise, None)
    assert release.cost == {"winner": 1}
    assert np.isnan(release.value).all()
    assert after.log_desc == pytest.approx(math.log(3))
    with pytest.raises(BudgetExhaustedError, match="planned for 100 candidates and got 101"):
        engine.limit(after, losses_batch(np.full(101, 0.5)))


def test_winner_only_can_reveal_a_coarse_value(noise):
    engine = WinnerOnly(Plan(10_000, 100, 0.05), value_cells=50)
    release, after = engine.answer(engine.start(), losses_batch([0.4, 0.213]), noise, None)
    assert release.value[1] == pytest.approx(0.21)
    assert np.isnan(release.value[0])
    assert after.log_desc == pytest.approx(math.log(2) + math.log(50))


def test_unplanned_rounds_share_the_error_level():
    engine = WinnerOnly(Plan(10_000, 10_000, 0.05))
    later = engine._radius(3 * math.log(100), 3, 100)
    planned = description.winner_only_radius(10_000, [100] * 4, 0.05)
    assert planned < later < 1.1 * planned


# ------------------------------------------------------------------------- multiplicative weights
def test_weights_update_of_one_query():
    inside = np.arange(8) < 4
    weights = update(np.full(8, 1 / 8), inside.astype(float), 0.7)
    assert weights[inside].sum() == pytest.approx(math.exp(0.7) / (math.exp(0.7) + 1))
    assert np.allclose(weights, naive.update(np.full(8, 1 / 8), inside, 0.7))


def test_weights_potential_falls_with_every_update(noise):
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.full(64, 0.1))
    engine = MultiplicativeWeights(Plan(10**5, 500, 0.05, force=True), n_cells=64, threshold=0.1)
    state, weights = engine.start(), engine.initial_vault()
    potential = kl_divergence(p, weights)
    drop = 2 * (0.1**2 - 4 * 0.025**2)
    for _ in range(500):
        f = (rng.random(64) < 0.5).astype(float)
        batch = replace(losses_batch([f @ p]), vectors=f[:, None])
        release, state = engine.answer(state, batch, noise, weights)
        assert abs(release.value[0] - f @ p) <= 0.1 + 1e-12
        if release.vault is not None:
            weights = release.vault
            now = kl_divergence(p, weights)
            assert now <= potential - drop + 1e-12
            potential = now
    assert 0 < state.failures <= engine.updates


def test_cells_round_trip():
    codes = decode_cells([2, 3, 4])
    assert np.array_equal(encode_cells(codes, [2, 3, 4]), np.arange(24))


def test_conjunction():
    universe = decode_cells([2] * 5)
    weights = np.random.default_rng(0).dirichlet(np.ones(32))
    query = Conjunction((0, 3))
    assert np.array_equal(query.vector(32), query(universe))
    assert query.mean(weights) == pytest.approx(naive.conjunction_mean(weights, (0, 3), 5))
    with pytest.raises(ParameterError, match="distinct positions"):
        Conjunction((1, 1))
    with pytest.raises(ValueError, match="names column 9"):
        Conjunction((9,)).mask(5)


# ------------------------------------------------------------------------------------------ others
def test_naive_radius_is_the_union_bound(bits, noise):
    engine = Naive(Plan(2_000, 60, 0.05), nonadaptive=True)
    release, _ = engine.answer(engine.start(), bit_batch(bits), noise, None)
    assert engine.certified
    assert np.allclose(release.radius, math.sqrt(math.log(2 * 60 / 0.05) / 4_000))
    assert not Naive(Plan(2_000, 60, 0.05)).certified


def test_votes_average_to_the_mean(noise):
    sample = np.random.default_rng(0).random((1_000, 1)) < 0.3
    engine = Voting(Plan(1_000, 200, 0.05), votes=400)
    state, values = engine.start(), []
    for _ in range(200):
        release, state = engine.answer(state, bit_batch(sample, keep=True), noise, None)
        values.append(release.value[0])
    assert not engine.certified
    assert np.mean(values) == pytest.approx(sample.mean(), abs=4 * math.sqrt(0.21 / 80_000))


def test_noise_follows_the_variance_of_the_query(noise):
    rng = np.random.default_rng(0)
    engine = CalibratedVariance(Plan(2_000, 50, 0.05))
    assert not engine.certified
    assert engine.t == pytest.approx(2_000 / 10)
    shares = {0.5: 0.5 / math.sqrt(200), 0.0: 1 / 200}  # sd of a coin over root t; floor 1 / t
    for share, deviation in shares.items():
        bits = np.repeat(rng.random((2_000, 1)) < share, 400, axis=1)
        release, after = engine.answer(engine.start(), bit_batch(bits, keep=True), noise, None)
        z = noise.normal("answer", 0, 400)
        expected = np.clip(bits[:, 0].mean() + deviation * z, 0, 1)
        assert np.allclose(release.value, expected, atol=1e-3 * deviation + 1e-4)
        assert after.k_used == 400
    rate = 10 * math.log(100) / 2_000
    assert engine.radius == pytest.approx(4 * max(math.sqrt(rate) / 2, rate))


def test_what_is_written_from_memory_is_never_certified():
    # statements whose source was not checked, and settings without a theorem
    plan = Plan(10_000, 10, 0.05, n_train=10_000)
    for name, params in {
        "voting": {},
        "calibrated_variance": {},
        "ladder_free": {},
        "thresholdout": {"preset": "science"},
        "naive": {},
    }.items():
        assert not MECHANISMS[name](plan, **params).certified, name
    table = bounds.compare(10_000, 100).to_frame().set_index("method")
    published = ["dfhprr15", "dfhprr15_pure", "ns15", "bnsssu16", "jung20", "jung20_gdp"]
    assert not table.loc[[*published, "rogers20", "mutual_information"], "certified"].any()


def test_noisy_argmin_prefers_the_smallest_loss():
    engine = NoisyArgmin(Plan(10_000, 10_000, 0.05), epsilon=0.1, rounds=10)
    batch = losses_batch([0.5, 0.45, 0.5])
    winners = [
        engine.answer(engine.start(), batch, KeyedNoise(bytes([s])), None)[0].cost["winner"]
        for s in range(100)
    ]
    # Gumbel scale 2 / (10000 * 0.1) = 0.002: the odds are exp(25) to one
    assert set(winners) == {1}
    assert engine.radius == accounting.gap(accounting.PureCompositionF(0.1, 10), 0.05)


def test_noisy_argmin_follows_the_exponential_mechanism():
    engine = NoisyArgmin(Plan(100, 10**6, 0.05, force=True), epsilon=1.0, rounds=10**5)
    batch = losses_batch([0.50, 0.51], n=100)
    wins = sum(
        engine.answer(engine.start(), batch, KeyedNoise(s.to_bytes(2, "big")), None)[0].cost[
            "winner"
        ]
        == 0
        for s in range(4_000)
    )
    share = 1 / (1 + math.exp(-0.01 / 0.02))  # exp(eps * loss / (2 * sensitivity))
    assert wins / 4_000 == pytest.approx(share, abs=4 * math.sqrt(0.25 / 4_000))


def test_stable_quantile_finds_the_median(noise):
    rng = np.random.default_rng(0)
    estimates = rng.normal(2.0, 0.5, (5_000, 1))
    engine = StableQuantile(Plan(5_000, 2, 0.05), grid_size=512)
    batch = stable_batch(estimates, np.zeros(1), np.full(1, 4.0))
    release, after = engine.answer(engine.start(), batch, noise, None)
    from scipy import stats

    share = stats.norm.cdf(release.value[0], 2.0, 0.5)
    assert abs(share - 0.5) <= release.radius[0] + 0.01
    assert release.radius[0] == pytest.approx(bounds.width(5_000, 2 * 9).radius, abs=1e-4)
    assert after.k_used == 1


# -------------------------------------------------------------------------------- bad parameters
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Gaussian(p, sigma=0), "sigma must be a finite number above 0"),
        (lambda p: Gaussian(p, sigma="big"), "sigma must be"),
        (lambda p: Thresholdout(p, threshold=-1), "threshold must be at least 0"),
        (lambda p: Thresholdout(p, budget=0), "budget must be at least 1"),
        (lambda p: Thresholdout(p, sigma=-1), "sigma must be"),
        (lambda p: Thresholdout(p, preset="nature"), "preset must be 'science' or None"),
        (lambda p: SparseValidate(p, budget=0), "budget must be an integer of at least 1"),
        (lambda p: GuessAndCheck(p, check="exact"), "check must be one of"),
        (lambda p: GuessAndCheck(p, tau=-0.1), "tau must be"),
        (lambda p: Ladder(p, eta=1.0), "eta must lie strictly between 0 and 1"),
        (lambda p: ParameterFreeLadder(p, z=0), "z must be"),
        (lambda p: WinnerOnly(p, sizes=[3, 0]), "sizes must be an integer of at least 1"),
        (lambda p: MultiplicativeWeights(p, n_cells=1), "2 to 2\\*\\*24 are supported"),
        (lambda p: MultiplicativeWeights(p, n_cells=8, threshold=0), "threshold must be"),
        (lambda p: Voting(p, votes=-3), "votes must be at least 1"),
        (lambda p: NoisyArgmin(p, epsilon=0), "epsilon must be"),
        (lambda p: NoisyArgmin(p, rounds=0), "rounds must be at least 1"),
        (lambda p: StableQuantile(p, grid_size=1), "grid_size must be at least 2"),
        (lambda p: SplitRounds(p, rounds=0), "rounds must be an integer of at least 1"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ParameterError, match=message):
        make(Plan(10_000, 10, 0.05, n_train=10_000))


@pytest.mark.parametrize(
    "name",
    [
        "gaussian",
        "laplace",
        "split_rounds",
        "ladder",
        "sparse_validate",
        "guess_and_check",
        "thresholdout",
    ],
)
def test_vacuous_parameters_are_refused_unless_forced(name):
    with pytest.raises(VacuousGuaranteeError, match="force=True"):
        MECHANISMS[name](Plan(40, 5_000, 0.05, n_train=40))
    assert MECHANISMS[name](Plan(40, 5_000, 0.05, n_train=40, force=True)).radius > 0.4


def test_vacuous_gaussian_says_how_many_records_are_needed():
    with pytest.raises(VacuousGuaranteeError, match=r"radius of 0\.05 for 100 queries needs n=\d+"):
        Gaussian(Plan(10_000, 100, 0.05, width=0.05))
