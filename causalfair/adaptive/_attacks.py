"""Attacks played against mechanisms without a ledger, for coverage tables.

All labels are fair coins, so every population accuracy is one half.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray
from causalfair.adaptive._build import check_arguments, check_params
from causalfair.adaptive._experiments import bit_batch
from causalfair.adaptive._mechanisms import Mechanism, Plan
from causalfair.adaptive._noise import KeyedNoise
from causalfair.adaptive._private import NoisyArgmin
from causalfair.adaptive._queries import batch_from_sums
from causalfair.adaptive._state import Batch, Release

ATTACKS = ("correlated", "boosting", "greedy")
_TRUTH = 0.5
_CHOICE = 10  # candidates in a round of mechanisms that reveal a winner


def build(mechanism: str, n: int, k: int, beta: float, params: dict[str, Any]) -> Mechanism:
    """Mechanism with a training sample as large as the holdout."""
    cls = check_arguments(mechanism, k, beta)
    check_params(cls, params, ("n_cells",))
    return cls(Plan(n, k, beta, n_train=n, force=True), **params)


class _Table:
    """Holdout bits, training bits, and the exchange with one mechanism."""

    def __init__(self, engine: Mechanism, bits: BoolArray, train: BoolArray, key: bytes) -> None:
        self.engine, self.bits, self.train = engine, bits, train
        self.noise = KeyedNoise(key)
        self.state, self.vault = engine.start(), engine.initial_vault()
        self.covered, self.max_error = True, 0.0
        self.last: Release | None = None

    def ask(self, vectors: BoolArray, guesses: FloatArray) -> Release:
        """Play one batch and note whether its intervals hold."""
        part = self.engine.rows(self.state)
        rows = self._rows(part, len(vectors))
        batch = bit_batch(vectors[rows], keep=self.engine.needs_vectors, guess=guesses)
        release, self.state = self.engine.answer(self.state, batch, self.noise, self.vault)
        if release.vault is not None:
            self.vault = release.vault
        self._score(release, batch)
        return release

    def _rows(self, part: str, n: int) -> slice:
        if not part.startswith("block:"):
            return slice(None)
        size = n // int(getattr(self.engine, "rounds", 1))
        t = int(part.partition(":")[2])
        return slice(t * size, (t + 1) * size)

    def _score(self, release: Release, batch: Batch) -> None:
        if isinstance(self.engine, NoisyArgmin) or np.isnan(release.value).all():
            chosen = [j for j, status in enumerate(release.status) if status == "winner"]
            errors = np.abs(batch.value[chosen] - _TRUTH)
            self.covered &= bool(np.all(errors <= release.radius[chosen]))
            self.max_error = max(self.max_error, float(errors.max(initial=0.0)))
            return
        shown = ~np.isnan(release.value) & (np.asarray(release.status) != "refused")
        inside = (release.lower[shown] <= _TRUTH) & (release.upper[shown] >= _TRUTH)
        self.covered &= bool(inside.all())
        errors = np.abs(release.value[shown] - _TRUTH)
        self.max_error = max(self.max_error, float(errors.max(initial=0.0)))


def play(
    engine: Mechanism, attack: str, n: int, k: int, rng: np.random.Generator
) -> tuple[bool, float, float]:
    """One run: whether every interval held, the largest error, the last value."""
    bits = rng.integers(0, 2, (n, k), dtype=np.uint8).view(bool)
    train = rng.integers(0, 2, (n, k), dtype=np.uint8).view(bool)
    table = _Table(engine, bits, train, rng.bytes(32))
    if engine.name in ("winner_only", "noisy_argmin"):
        return _climb(table, k)
    if engine.name == "multiplicative_weights":
        return _on_cells(table, attack, n, k, rng)
    if attack == "greedy":
        return _greedy(table, k, rng)
    features = slice(0, k - 1)
    release = table.ask(bits[:, features], train[:, features].mean(axis=0))
    if attack == "correlated":
        signs = np.where(np.nan_to_num(release.value, nan=0.5) >= 0.5, 1.0, -1.0)
    else:
        liked = _liked(engine, release)
        signs = np.where(liked, 1.0, 0.0)
    return _final(table, signs)


def _liked(engine: Mechanism, release: Release) -> BoolArray:
    if engine.guarantee == "leaderboard":
        return np.array([status == "improved" for status in release.status])
    return np.asarray(np.nan_to_num(release.value, nan=0.0) >= 0.5)


def _votes(bits: BoolArray, signs: FloatArray) -> BoolArray:
    """Signed majority of all columns but the last, which decides ties.

    Ties must be fair: counting them as misses would move the population value away from one half.
    """
    total = np.where(bits[:, :-1], 1.0, -1.0) @ signs
    return np.asarray(np.where(total == 0, bits[:, -1], total > 0))


def _final(table: _Table, signs: FloatArray) -> tuple[bool, float, float]:
    if table.state.halted:
        return table.covered, table.max_error, math.nan
    vote = _votes(table.bits, signs)[:, None]
    guess = np.array([_votes(table.train, signs).mean()])
    release = table.ask(vote, guess)
    return table.covered, table.max_error, float(release.value[0])


def _flips(shape: tuple[int, int], rng: np.random.Generator) -> BoolArray:
    """Random tenths of the rows, one for each column."""
    return np.asarray(rng.random(shape) < 0.1)


def _greedy(table: _Table, k: int, rng: np.random.Generator) -> tuple[bool, float, float]:
    """Change a tenth of the predictions at random and keep the change if the answer is a record.

    Mechanisms with a limited number of rounds get as many candidates at once as they need.
    """
    size = math.ceil(k / int(getattr(table.engine, "rounds", k)))
    here, there = table.bits[:, :1], table.train[:, :1]
    best, value = -math.inf, math.nan
    for first in range(0, k, size):
        if table.state.halted:
            break
        count = min(size, k - first)
        vectors = here ^ _flips((len(here), count), rng)
        trained = there ^ _flips((len(there), count), rng)
        release = table.ask(vectors, trained.mean(axis=0))
        values = np.nan_to_num(release.value, nan=-math.inf)
        chosen = int(np.argmax(values))
        value = float(release.value[chosen])
        board = table.engine.guarantee == "leaderboard"
        if release.status[chosen] == "improved" if board else values[chosen] > best:
            best = values[chosen]
            here, there = vectors[:, [chosen]], trained[:, [chosen]]
    return table.covered, table.max_error, value


def _climb(table: _Table, k: int) -> tuple[bool, float, float]:
    """Rounds of candidates, each the running vote plus one fresh feature; keep the winner.

    The engine minimises losses, so a small mean is what it likes; coverage is symmetric.
    """
    score = np.zeros(len(table.bits))
    rounds = (
        int(getattr(table.engine, "rounds", math.inf))
        if hasattr(table.engine, "rounds")
        else k // _CHOICE
    )
    for t in range(min(rounds, k // _CHOICE)):
        fresh = np.where(table.bits[:, t * _CHOICE : (t + 1) * _CHOICE], 1.0, -1.0)
        candidates = (score[:, None] * 2 + fresh) > 0  # odd totals: no ties
        release = table.ask(candidates, np.full(_CHOICE, _TRUTH))
        score = score + fresh[:, release.status.index("winner")]
    return table.covered, table.max_error, math.nan


def _on_cells(
    table: _Table, attack: str, n: int, k: int, rng: np.random.Generator
) -> tuple[bool, float, float]:
    """Fair coins over the cells, attacked by an analyst who knows the population."""
    n_cells = int(table.engine.parameters()["n_cells"])
    counts = np.bincount(rng.integers(0, n_cells, n), minlength=n_cells)
    histogram = np.asarray(counts / n, dtype=np.float64)
    f = rng.random((n_cells, k)) < 0.5
    score, best, value = np.zeros(n_cells), -math.inf, math.nan
    here = f[:, 0]
    for j in range(k):
        query = f[:, j]
        if attack == "greedy":
            query = here ^ _flips((n_cells, 1), rng)[:, 0]
        elif j == k - 1:
            query = score > 0
        truth = float(query.mean())
        batch = batch_from_sums(np.array([0.0]), n, 0.0, 1.0, np.array([math.nan]), binary=False)
        batch = replace(
            batch, value=np.array([histogram @ query]), vectors=query[:, None].astype(np.float64)
        )
        release, table.state = table.engine.answer(table.state, batch, table.noise, table.vault)
        table.vault = table.vault if release.vault is None else release.vault
        value = float(release.value[0])
        table.covered &= abs(value - truth) <= float(release.radius[0])
        table.max_error = max(table.max_error, abs(value - truth))
        gain = value - truth
        if gain > best:
            best, here = gain, query
        liked = gain > 0 if attack == "boosting" else 1.0 if gain >= 0 else -1.0
        score += liked * np.where(query, 1.0, -1.0)
    return table.covered, table.max_error, value
