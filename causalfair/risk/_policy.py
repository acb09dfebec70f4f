"""What tests find as decided, by risk alone, and by group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.inference import DrawEstimates
from causalfair.risk._model import Natural
from causalfair.risk._posterior import code_probabilities

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.risk._model import Law

BISECTIONS = 40


def suboptimality(
    X: FloatArray, W: FloatArray, maker: IntArray, draws: Natural, law: Law
) -> DrawEstimates:
    """Positives per test as decided, by predicted risk, and without deviations."""
    both, tested, risk = code_probabilities((2, 5, 4), X, W, maker, draws, law)
    n_tests = tested.sum(axis=1)
    decided = both.sum(axis=1) / n_tests
    # Rank on the posterior mean: a policy must be chosen before the truth is known.
    order = np.argsort(-risk.mean(axis=0), kind="stable")
    found = np.cumsum(risk[:, order], axis=1)
    chosen = np.clip(np.round(n_tests).astype(int), 1, risk.shape[1]) - 1
    ranked = found[np.arange(len(found)), chosen] / (chosen + 1)
    plain = _without_deviations(X, draws, law, n_tests)
    missed = 1 - both.sum(axis=1) / risk.sum(axis=1)
    return DrawEstimates(
        np.column_stack([decided, ranked, plain, ranked - decided, plain - decided, missed]),
        ["as decided", "by predicted risk", "without deviations", "gain by predicted risk",
         "gain without deviations", "share of positives missed"],
    )  # fmt: skip


def _without_deviations(X: FloatArray, draws: Natural, law: Law, n_tests: FloatArray) -> FloatArray:
    """Yield with one deviation and one alpha for all, at the same number of tests."""
    ones, nobody = np.ones((len(X), 1)), np.zeros(len(X), dtype=np.intp)
    low, high = np.full(len(draws), -60.0), np.full(len(draws), 60.0)
    both = tested = np.zeros((len(draws), 1))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        flat = Natural(draws.beta, middle[:, None], draws.alpha, draws.sigma, draws.pools)
        both, tested = code_probabilities((2, 5), X, ones, nobody, flat, law)
        above = tested.sum(axis=1) > n_tests
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    return np.asarray(both.sum(axis=1) / tested.sum(axis=1))


def compare_groups(
    X: FloatArray, W: FloatArray, maker: IntArray, draws: Natural, law: Law, by: Any
) -> DrawEstimates:
    """Risk, testing, and testing at equal risk of each level of ``by``."""
    both, tested, risk = code_probabilities((2, 5, 4), X, W, maker, draws, law)
    deviation = draws.delta[:, : W.shape[1]] @ W.T
    deviation = deviation - deviation.mean(axis=1, keepdims=True)
    text = np.asarray([str(v) for v in by])
    terms: dict[str, FloatArray] = {}
    for level in np.unique(text):
        inside = text == level
        positives, tests = both[:, inside].sum(axis=1), tested[:, inside].sum(axis=1)
        everybody, n = risk[:, inside].sum(axis=1), int(inside.sum())
        terms[f"risk, {level}"] = everybody / n
        terms[f"tested, {level}"] = tests / n
        terms[f"risk of the tested, {level}"] = positives / tests
        terms[f"risk of the untested, {level}"] = (everybody - positives) / (n - tests)
        terms[f"testing at equal risk, {level}"] = deviation[:, inside].mean(axis=1)
    return DrawEstimates(np.column_stack(list(terms.values())), list(terms))
