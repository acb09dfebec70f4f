"""Flexible rewards: any regressor of the text, with the confounders' part backfitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.learners import fit_learner, predict_learner
from causalfair._core.logging import warn
from causalfair._core.random import child_seed, generator
from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError, WeakIdentificationWarning
from causalfair.reward._methods import Problem

__all__ = ["BoostedFit", "Ensemble", "fit_boosted", "make_learner"]

ROUNDS = 10
SETTLED = 1e-3


@dataclass
class BoostedFit:
    """A flexible reward.

    Attributes
    ----------
    model : fitted regressor of the text's features.
    scores : (n,) out-of-fold rewards; confounder_effect : (n,) centred ĝ(W).
    gap : distance between the two starts of the backfit, in standard deviations of y.
    ensemble : refits on resampled clusters.
    """

    method: str
    model: Any
    scores: FloatArray
    confounder_effect: FloatArray
    gap: float
    rounds: int
    ensemble: Ensemble
    blank: int = 0


@dataclass
class Ensemble:
    """Rewards of refits on resampled clusters, centred on the main fit."""

    model: Any
    members: list[Any]
    offset: float
    blank: int = 0

    def _design(self, X: FloatArray) -> FloatArray:
        if not self.blank:
            return X
        return np.hstack([X, np.full((len(X), self.blank), np.nan)])

    def mean(self, X: FloatArray) -> FloatArray:
        """Rewards (n,) of the main fit."""
        return predict_learner(self.model, self._design(X), "predict") - self.offset

    def _spreads(self, X: FloatArray) -> FloatArray:
        design = self._design(X)
        rewards = np.array([predict_learner(m, design, "predict") for m in self.members])
        return np.asarray(rewards - rewards.mean(axis=1, keepdims=True))

    def std(self, X: FloatArray) -> FloatArray:
        """Standard deviation (n,) over the members."""
        return np.asarray(self._spreads(X).std(axis=0, ddof=1))

    def draw(self, X: FloatArray, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """Draws (n_draws, n): the main fit plus Gaussian mixtures of the members' deviations."""
        spread = self._spreads(X)
        spread = spread - spread.mean(axis=0)
        mix = rng.standard_normal((n_draws, len(spread))) / np.sqrt(len(spread) - 1)
        return np.asarray(self.mean(X) + mix @ spread)


def make_learner(learner: Any) -> Any:
    """The regressor behind ``learner=``."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    if learner == "gbm":
        return HistGradientBoostingRegressor(
            max_iter=150, learning_rate=0.08, max_leaf_nodes=15, min_samples_leaf=20
        )
    if isinstance(learner, str) or not hasattr(learner, "fit"):
        raise ParameterError(
            f"learner={learner!r} must be 'ridge', 'gbm' or a scikit-learn regressor."
        )
    return learner


def fit_boosted(problem: Problem, learner: Any, method: str, *, n_refits: int) -> BoostedFit:
    """Fit a flexible reward by one of the methods.

    Parameters
    ----------
    problem : Problem
        The data.
    learner : estimator
        Regressor of the text's features.
    method : str
        ``"orthogonal"`` and ``"subtract"`` backfit; the others are the baselines.
    n_refits : int
        Refits on resampled clusters, for standard errors.

    Returns
    -------
    BoostedFit
        Model, out-of-fold scores, confounder effect and ensemble.

    Warns
    -----
    WeakIdentificationWarning
        The backfit ends elsewhere from its two starts.
    """
    if method == "invariant":
        raise ParameterError(
            'method="invariant" projects linear coefficients and needs learner="ridge"; '
            f"got learner={learner!r}."
        )
    X, y, blank, gap, rounds = problem.X, problem.y, 0, 0.0, 0
    effect = np.zeros_like(y)
    if method in ("orthogonal", "subtract"):
        effect, gap, rounds = _backfit(problem, learner)
    elif method == "residual_y":
        effect = problem.confounders.fitted(y)
    elif method == "as_feature":
        extra = problem.confounders.frame()
        X, blank = np.hstack([X, extra]), extra.shape[1]
    effect = effect - np.average(effect, weights=problem.weight)
    target = y - effect
    model = _fit(problem, learner, X, target, np.arange(len(y)), 0)
    scores = _out_of_fold(problem, learner, X, target, blank)
    members = [_refit(problem, learner, X, target, b) for b in range(n_refits)]
    offset = float(np.average(_predict(model, problem.X, blank), weights=problem.weight))
    return BoostedFit(
        method, model, scores - offset, effect, gap, rounds,
        Ensemble(model, members, offset, blank), blank,
    )  # fmt: skip


def _backfit(problem: Problem, learner: Any) -> tuple[FloatArray, float, int]:
    """ĝ from two starts, zero and E[y | W]; both must meet."""
    ends, rounds = [], 0
    scale = float(problem.y.std())
    for start in (np.zeros_like(problem.y), problem.confounders.fitted(problem.y)):
        effect = start
        for turn in range(1, ROUNDS + 1):
            out = _out_of_fold(problem, learner, problem.X, problem.y - effect, 0)
            new = problem.confounders.fitted(problem.y - out)
            moved = float(np.sqrt(np.mean((new - effect - np.mean(new - effect)) ** 2)))
            effect, rounds = new, max(rounds, turn)
            if moved < SETTLED * scale:
                break
        ends.append(effect - effect.mean())
    gap = float(np.sqrt(np.mean((ends[0] - ends[1]) ** 2))) / scale
    if gap > 0.05:
        warn(
            f"the backfit ends {gap:.2f} standard deviations of y apart from its two starts after "
            f"{rounds} rounds: text and confounders overlap too little to be told apart. Use "
            'learner="ridge", or coarser confounders.',
            WeakIdentificationWarning,
        )
    return (ends[0] + ends[1]) / 2, gap, rounds


def _fit(problem: Problem, learner: Any, X: FloatArray, y: FloatArray, rows: Any, key: int) -> Any:
    uniform = bool(np.ptp(problem.weight) == 0)
    return fit_learner(
        learner, X[rows], y[rows], seed=child_seed(problem.seed, 3, key),
        sample_weight=None if uniform else problem.weight[rows],
    )  # fmt: skip


def _predict(model: Any, X: FloatArray, blank: int) -> FloatArray:
    design = np.hstack([X, np.full((len(X), blank), np.nan)]) if blank else X
    return predict_learner(model, design, "predict")


def _out_of_fold(
    problem: Problem, learner: Any, X: FloatArray, y: FloatArray, blank: int
) -> FloatArray:
    out = np.empty(len(y))
    d = problem.X.shape[1]
    for fold in range(problem.n_folds):
        train = np.flatnonzero(problem.folds != fold)
        test = np.flatnonzero(problem.folds == fold)
        model = _fit(problem, learner, X, y, train, 1 + fold)
        out[test] = _predict(model, X[test, :d], blank)
    return out


def _refit(problem: Problem, learner: Any, X: FloatArray, y: FloatArray, b: int) -> Any:
    """A refit on clusters (or rows) drawn with replacement."""
    rng = generator(problem.seed, 4, b)
    groups = problem.split
    if groups is None:
        rows = rng.integers(0, len(y), len(y))
    else:
        order = np.argsort(groups, kind="stable")
        bounds = np.searchsorted(groups[order], np.arange(groups.max() + 2))
        drawn = rng.integers(0, groups.max() + 1, groups.max() + 1)
        rows = np.concatenate([order[bounds[g] : bounds[g + 1]] for g in drawn])
    return _fit(problem, learner, X, y, rows, 100 + b)
