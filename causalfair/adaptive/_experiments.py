"""One run of each classical experiment, on plain arrays."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import special

from causalfair._core.random import generator
from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.adaptive import _description as description
from causalfair.adaptive import bounds
from causalfair.adaptive._checks import GuessAndCheck
from causalfair.adaptive._leaders import Ladder, MultiplicativeWeights, ParameterFreeLadder
from causalfair.adaptive._mechanisms import Mechanism, Plan
from causalfair.adaptive._noise import KeyedNoise
from causalfair.adaptive._queries import UNITS, batch_from_sums
from causalfair.adaptive._state import Batch
from causalfair.adaptive._weights import Conjunction

FEATURE_COUNTS = (0, 10, 20, 30, 45, 70, 100, 150, 200, 250, 300, 400, 500)
_BLOCK = 500
_NO_NOISE = KeyedNoise(b"no noise is drawn")
Float32 = np.ndarray[Any, np.dtype[np.float32]]


# ------------------------------------------------------------------ feature selection (2015)
def _block(
    root: np.random.SeedSequence,
    sample: int,
    block: int,
    y: FloatArray,
    d: int,
    n_signal: int,
    shift: float,
) -> Float32:
    """Features ``block * 500, ...`` of one sample, always the same for the same seed."""
    first = block * _BLOCK
    width = min(_BLOCK, d - first)
    X = generator(root, 1, sample, block).standard_normal((len(y), width), dtype=np.float32)
    signal = max(0, min(n_signal - first, width))
    if signal:
        X[:, :signal] += (shift * y[:, None]).astype(np.float32)
    return X


def feature_experiment(
    n: int,
    d: int,
    n_signal: int,
    shift: float,
    counts: tuple[int, ...],
    root: np.random.SeedSequence,
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Rows (method, k, train, holdout, fresh) and what was selected."""
    ys = [generator(root, 0, s).choice(np.array([-1.0, 1.0]), n) for s in range(3)]
    n_blocks = math.ceil(d / _BLOCK)

    def block(sample: int, b: int) -> Float32:
        return _block(root, sample, b, ys[sample], d, n_signal, shift)

    train, held = (
        np.concatenate(
            [ys[s].astype(np.float32) @ block(s, b) / n for b in range(n_blocks)]
        ).astype(float)
        for s in (0, 1)
    )
    noise = generator(root, 2)
    answers, exceeded = _thresholdout_values(train, held, n, noise)
    chosen = {"standard": _select(train, held, n), "thresholdout": _select(train, answers, n)}
    top = max(counts)
    ranked = {m: c[np.argsort(-np.abs(train[c]), kind="stable")][:top] for m, c in chosen.items()}
    needed = np.unique(np.concatenate(list(ranked.values())))
    columns = {s: _columns(lambda b, s=s: block(s, b), needed, n) for s in range(3)}
    rows: list[tuple[Any, ...]] = []
    for method, features in ranked.items():
        at = np.searchsorted(needed, features)
        signs = np.sign(train[features])
        for k in counts:
            accuracy = [_vote_accuracy(columns[s], at[:k], signs[:k], ys[s]) for s in range(3)]
            if method == "thresholdout":
                value, hit = _thresholdout_values(
                    np.array(accuracy[:1]), np.array(accuracy[1:2]), n, noise
                )
                accuracy[1], exceeded = float(value[0]), exceeded + hit
            rows.append((method, k, *accuracy))
    truth = {
        "n_selected": {m: len(c) for m, c in chosen.items()},
        "exceedances": int(exceeded),
        "signal_found": {m: int((c < n_signal).sum()) for m, c in chosen.items()},
        "expected_selected": 2 * d * float(special.ndtr(-1.0)) ** 2,
        "fresh_accuracy": 0.5,
    }
    return rows, truth


def _select(train: FloatArray, held: FloatArray, n: int) -> IntArray:
    cut = 1 / math.sqrt(n)
    return np.flatnonzero(
        (np.abs(train) > cut) & (np.abs(held) > cut) & (np.sign(train) == np.sign(held))
    )


def _thresholdout_values(
    train: FloatArray, held: FloatArray, n: int, rng: np.random.Generator
) -> tuple[FloatArray, int]:
    """Settings of the experiment: T = 4/sqrt(n), Gaussian noise of sd 1/sqrt(n), no budget."""
    sd = 1 / math.sqrt(n)
    over = np.abs(train - held) > 4 * sd + sd * rng.standard_normal(len(train))
    return np.where(over, held + sd * rng.standard_normal(len(train)), train), int(over.sum())


def _columns(block: Any, needed: IntArray, n: int) -> Float32:
    out = np.empty((n, len(needed)), dtype=np.float32)
    for b in np.unique(needed // _BLOCK):
        inside = needed // _BLOCK == b
        out[:, inside] = block(int(b))[:, needed[inside] - b * _BLOCK]
    return out


def _vote_accuracy(X: Float32, at: IntArray, signs: FloatArray, y: FloatArray) -> float:
    vote = X[:, at] @ signs.astype(np.float32) if len(at) else np.zeros(len(y))
    return float(np.mean(np.where(vote == 0, 0.5, np.sign(vote) == y)))


# -------------------------------------------------------------------------------- Freedman (1983)
def _ols(X: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, float, float]:
    """Coefficients with intercept, p-values of the slopes, R2, p-value of the F test."""
    design = np.column_stack((np.ones(len(y)), X))
    coef, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ coef
    df, p = len(y) - design.shape[1], X.shape[1]
    rss, tss = float(residual @ residual), float(((y - y.mean()) ** 2).sum())
    spread = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * rss / df)
    t = coef[1:] / spread[1:]
    p_values = special.betainc(df / 2, 0.5, df / (df + t * t))
    r2 = 1 - rss / tss
    f_p = float(special.betainc(df / 2, p / 2, 1 - r2)) if p else 1.0
    return np.asarray(coef, dtype=np.float64), np.asarray(p_values, dtype=np.float64), r2, f_p


def freedman_run(n: int, p: int, rng: np.random.Generator) -> tuple[float, ...]:
    """Both fits of one run, and the second one on fresh data."""
    X, y = rng.standard_normal((n, p)), rng.standard_normal(n)
    _, p_values, r2_first, _ = _ols(X, y)
    kept = np.flatnonzero(p_values < 0.25)
    coef, second, r2_second, f_p = _ols(X[:, kept], y)
    fresh_X, fresh_y = rng.standard_normal((n, len(kept))), rng.standard_normal(n)
    error = fresh_y - coef[0] - fresh_X @ coef[1:]
    r2_fresh = 1 - float(error @ error) / float(((fresh_y - fresh_y.mean()) ** 2).sum())
    return (
        r2_first,
        float(len(kept)),
        r2_second,
        float((second < 0.25).sum()),
        float((second < 0.05).sum()),
        f_p,
        r2_fresh,
    )


# ------------------------------------------------------------------------------------ leaderboard
def ladder_attack_run(n: int, k: int, board: str, rng: np.random.Generator) -> tuple[float, float]:
    """Loss of the boosted submission and number of submissions in it."""
    wrong = rng.integers(0, 2, (n, k), dtype=np.uint8).view(bool)
    if board == "exact":
        liked = wrong.mean(axis=0) <= 0.5
    else:
        plan = Plan(n, k, 0.05, force=True)
        engine: Mechanism = Ladder(plan) if board == "ladder" else ParameterFreeLadder(plan)
        batch = bit_batch(wrong, keep=board == "ladder_free")
        release, _ = engine.answer(engine.start(), batch, _NO_NOISE, None)
        liked = np.array([status == "improved" for status in release.status])
    votes = wrong[:, liked].mean(axis=1) if liked.any() else np.full(n, 0.5)
    return float(np.mean(np.where(votes == 0.5, 0.5, votes > 0.5))), float(liked.sum())


def bit_batch(bits: BoolArray, *, keep: bool = False, guess: FloatArray | None = None) -> Batch:
    """Batch of plain means of 0/1 columns with range [0, 1]."""
    n, q = bits.shape
    guesses = np.full(q, math.nan) if guess is None else guess
    batch = batch_from_sums(
        np.count_nonzero(bits, axis=0) * float(UNITS), n, 0.0, 1.0, guesses, binary=True
    )
    if not keep:
        return batch
    return replace(batch, vectors=bits.astype(float))


# -------------------------------------------------------------------------------- guess and check
def analyst_run(
    n: int,
    tau: float,
    beta: float,
    guess_sd: float,
    adapt_every: int,
    max_queries: int,
    rng: np.random.Generator,
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Answers until the mechanism halts, doubles tau, or the limit is reached."""
    half = n // 2
    engine = GuessAndCheck(Plan(half, max_queries, beta), tau=tau, allow_doubling=False)
    state, rows = engine.start(), []
    votes = np.zeros(n)
    for query in range(max_queries):
        if (query + 1) % adapt_every == 0:
            coin = rng.integers(0, 2, n, dtype=np.uint8).view(bool)
            bits = np.where(votes == 0, coin, votes > 0)  # fair ties keep the truth at one half
        else:
            bits = rng.integers(0, 2, n, dtype=np.uint8).view(bool)
        guess = float(bits[:half].mean()) + guess_sd * float(rng.standard_normal())
        batch = bit_batch(bits[half:, None], guess=np.array([guess]))
        release, state = engine.answer(state, batch, _NO_NOISE, None)
        if state.halted:
            break
        value = float(release.value[0])
        votes += (1.0 if value >= 0.5 else -1.0) * np.where(bits, 1.0, -1.0)
        rows.append((value, 0.5, abs(value - 0.5), release.status[0]))
    truth = {
        "answered": len(rows),
        "violations": sum(row[2] > tau for row in rows),
        "failures": state.failures,
        "gaussian_queries": bounds.max_queries(n, tau, beta),
    }
    return rows, truth


# ------------------------------------------------------------------------- multiplicative weights
def weights_run(
    n: int, n_columns: int, threshold: float, n_queries: int, rng: np.random.Generator
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Conjunction queries answered one after another."""
    shares = rng.uniform(0.2, 0.8, n_columns)
    codes = (rng.random((n, n_columns)) < shares).astype(np.intp)
    powers = 1 << np.arange(n_columns - 1, -1, -1)
    histogram = np.bincount(codes @ powers, minlength=2**n_columns) / n
    plan = Plan(n, n_queries, 0.05, force=True)
    engine = MultiplicativeWeights(plan, n_cells=2**n_columns, threshold=threshold)
    state, weights = engine.start(), engine.initial_vault()
    rows: list[tuple[Any, ...]] = []
    for _ in range(n_queries):
        columns = rng.choice(n_columns, rng.integers(1, min(3, n_columns) + 1), replace=False)
        query = Conjunction(columns.tolist())
        sample = query.mean(histogram)
        one = np.ones(1)
        batch = Batch(
            value=one * sample,
            lo=one * 0,
            hi=one,
            influence=one / n,
            squares=one / n,
            pad=one * 0,
            guess=one * math.nan,
            count=n,
            lazy=(query,),
        )
        release, state = engine.answer(state, batch, _NO_NOISE, weights)
        weights = weights if release.vault is None else release.vault
        rows.append(
            (
                float(release.value[0]),
                sample,
                float(np.prod(shares[columns])),
                release.status[0] == "updated",
            )
        )
    table = np.array([row[:3] for row in rows])
    truth = {
        "updates": state.failures,
        "most_updates": description.weights_updates(2**n_columns, threshold),
        "max_sample_error": float(np.abs(table[:, 0] - table[:, 1]).max()),
        "max_error": float(np.abs(table[:, 0] - table[:, 2]).max()),
    }
    return rows, truth
