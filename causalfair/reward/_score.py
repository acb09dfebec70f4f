"""Scores of texts: uncertainty of the reward, ranking, and how well scores order held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray, IntArray
from causalfair.reward._methods import MethodFit, Problem
from causalfair.reward._ridge import Sandwich

__all__ = [
    "Posterior",
    "calibration",
    "identified_share",
    "pairwise_accuracy",
    "rank_table",
    "ridge_posterior",
    "spearman",
]

MOST_PAIRS = 2_000  # pairs a stratum in held-out accuracy


@dataclass(frozen=True)
class Posterior:
    """Law of the coefficients used for ranking: Gaussian, or an ensemble.

    Attributes
    ----------
    coef : (d,); root : (d, d) with ``root @ root.T`` the covariance ``sigma^2 (A + lambda D)^-1``.
    """

    coef: FloatArray
    root: FloatArray

    def std(self, X: FloatArray) -> FloatArray:
        """Standard deviation (n,) of the rewards of rows of ``X``."""
        return np.asarray(np.sqrt(((X @ self.root) ** 2).sum(axis=1)))

    def draw(self, X: FloatArray, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """Joint draws (n_draws, n) of the rewards."""
        noise = rng.standard_normal((n_draws, self.root.shape[1]))
        return np.asarray(X @ self.coef + noise @ (X @ self.root).T)


def ridge_posterior(fit: MethodFit, d: int) -> Posterior:
    """Covariance ``sigma^2 (A + lambda D)^-1`` of a ridge, mapped to the text's coefficients."""
    gram = fit.gram
    kept = gram.kept
    b = fit.ridge.coef
    rss = max(float(gram.yy - 2 * b @ gram.xy + b @ gram.xx @ b), 0.0)
    system = gram.xx + fit.ridge.penalty * np.diag(gram.weight)
    values, vectors = np.linalg.eigh(system[np.ix_(kept, kept)])
    live = values > 1e-12 * float(np.max(values, initial=1e-300))
    half = np.zeros((len(b), int(live.sum())))
    half[kept] = vectors[:, live] / np.sqrt(values[live])
    half *= np.sqrt(rss / gram.n)
    project = np.eye(d, len(b)) if fit.project is None else fit.project
    return Posterior(fit.coef, project @ half)


def calibration(scores: FloatArray, problem: Problem, *, sample_id: str | None = None) -> Any:
    """Slope of the outcome on out-of-fold scores, both residualised inside their fold, or None."""
    from causalfair.inference import InfluenceEstimates

    s, y, w = problem.held_out(scores), problem.held_out(problem.y), problem.weight
    total = float(w @ s**2)
    if total <= 1e-14 * float(w @ (scores - scores.mean()) ** 2) or total == 0.0:
        return None
    slope = float(w @ (s * y)) / total
    psi = len(y) * w * s * (y - slope * s) / total
    return InfluenceEstimates(
        [slope], (psi - psi.mean())[:, None], ["calibration slope"], cluster=problem.cluster,
        sample_id=sample_id,
    )  # fmt: skip


def identified_share(X: FloatArray, table: Sandwich) -> FloatArray:
    """Share (n,) of each centred row that lies in directions identified within strata."""
    scaled = X * table.root[: X.shape[1]]
    length = (scaled**2).sum(axis=1)
    inside = ((scaled @ table.basis[: X.shape[1]]) ** 2).sum(axis=1)
    return np.asarray(np.where(length > 0, inside / np.where(length > 0, length, 1.0), 1.0))


def pairwise_accuracy(
    scores: FloatArray, outcome: FloatArray, strata: IntArray, seed: np.random.SeedSequence
) -> tuple[float, int]:
    """Share of within-stratum pairs that the scores order as the outcome does, and their number.

    Ties of scores count half; pairs with equal outcomes do not count.
    """
    from causalfair.reward import _kernels

    codes = np.unique(strata, return_inverse=True)[1].reshape(-1).astype(np.int32)
    order, pointer = _kernels.counting_sort(codes, int(codes.max()) + 1)
    key = np.uint64(seed.generate_state(1, np.uint64)[0])
    first, second = _kernels.stratum_pairs(order, pointer, MOST_PAIRS, key)
    gap = outcome[first] - outcome[second]
    told = scores[first] - scores[second]
    use = gap != 0
    if not use.any():
        return float("nan"), 0
    agree = np.sign(gap[use]) * np.sign(told[use])
    return float((agree > 0).mean() + 0.5 * (agree == 0).mean()), int(use.sum())


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Rank correlation with mid-ranks; zero where one side is constant."""
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _block(n_texts: int) -> int:
    """Draws held in memory at once: about two million rewards."""
    return max(1, 2_000_000 // n_texts)


def _draw_ranks(
    posterior: Any, X: FloatArray, first: FloatArray, n_draws: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Probability (n,) of being best and expected rank (n,), block of draws by block."""
    from scipy.stats import rankdata

    best, ranks = np.zeros(len(X)), np.zeros(len(X))
    draws, done = first, 0
    while True:
        top = draws == draws.max(axis=1, keepdims=True)
        best += (top / top.sum(axis=1, keepdims=True)).sum(axis=0)
        ranks += rankdata(-draws, axis=1, method="average").sum(axis=0)
        done += len(draws)
        if done >= n_draws:
            return best / done, ranks / done
        draws = posterior.draw(X, min(len(first), n_draws - done), rng)


def rank_table(
    texts: Any,
    X: FloatArray,
    posterior: Any,
    share: FloatArray,
    *,
    by: str,
    level: float,
    n_draws: int,
    rng: np.random.Generator,
) -> Any:
    """Candidates in order: reward, spread, probability of being best, expected rank."""
    import pandas as pd
    from scipy.special import ndtri
    from scipy.stats import rankdata

    first = posterior.draw(X, min(n_draws, _block(len(X))), rng)
    mean = np.asarray(X @ posterior.coef) if hasattr(posterior, "coef") else first.mean(axis=0)
    spread = posterior.std(X)
    p_best, ranks = _draw_ranks(posterior, X, first, n_draws, rng)
    lower = mean + ndtri(1 - level) * spread
    frame = pd.DataFrame(
        {
            "candidate": texts,
            "reward": mean,
            "std_error": spread,
            "lower": lower,
            "p_best": p_best,
            "expected_rank": ranks,
            "identified_share": share,
            "extrapolated": share < 0.5,
        }
    )
    key = {"mean": "reward", "lcb": "lower", "p_best": "p_best"}[by]
    frame.insert(0, "rank", rankdata(-frame[key].to_numpy(), method="average"))
    return frame.sort_values(["rank"], kind="stable")
