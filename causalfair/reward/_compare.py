"""What each method would have taught, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward._boosted import fit_boosted, make_learner
from causalfair.reward._methods import METHODS, Problem, fit_method, out_of_fold_scores
from causalfair.reward._score import calibration, spearman

__all__ = ["MethodComparison", "best_of_n_curve", "compare_methods"]


_HEADS = {"pairs_right": "pairs", "confounder_share": "confounders", "marker_share": "marker"}


@dataclass(frozen=True)
class MethodComparison:
    """One row a method.

    Attributes
    ----------
    table : pandas.DataFrame
        ``method``, ``penalty``, ``calibration`` (slope of the outcome on the out-of-fold reward
        within confounders), ``pairs_right`` (held-out pairs in strata ordered as their outcomes),
        ``confounder_share`` (share of the reward's variance the confounders explain) and
        ``agreement`` (rank correlation with the fitted reward). With known truth also
        ``spearman``, ``pair_accuracy``, ``best_of_n_gain`` and ``marker_share``.
    rewards : dict of str to numpy.ndarray
        Reward of each row, or of each candidate, by method.
    """

    table: Any
    rewards: dict[str, FloatArray]
    notes: tuple[str, ...] = ()

    def to_frame(self) -> Any:
        """The table as a pandas frame.

        Returns
        -------
        pandas.DataFrame
            One row a method.
        """
        return self.table.copy()

    def agreement(self) -> Any:
        """Rank correlations between the rewards of the methods.

        Returns
        -------
        pandas.DataFrame
            Symmetric matrix of Spearman correlations.
        """
        import pandas as pd

        names = list(self.rewards)
        values = [[spearman(self.rewards[a], self.rewards[b]) for b in names] for a in names]
        return pd.DataFrame(values, index=names, columns=names)

    def _summary(self) -> Any:
        from causalfair.reporting import Summary, Table

        learnt = ["penalty", "calibration", "pairs_right", "confounder_share", "agreement"]
        judged = [c for c in self.table.columns if c not in ("method", *learnt)]
        tables = [Table(*self._cells(learnt), align="lrrrrr")]
        if judged:
            title = "Against the truth, on the candidates"
            tables.append(Table(*self._cells(judged), title=title, align="l" + "r" * len(judged)))
        return Summary("What each method would have taught", [], tables, list(self.notes))

    def _cells(self, columns: list[str]) -> tuple[list[str], list[list[str]]]:
        rows = [
            [str(row["method"]), *(_cell(row[c]) for c in columns)]
            for _, row in self.table.iterrows()
        ]
        return ["method", *(_HEADS.get(c, c.replace("_", " ")) for c in columns)], rows

    def __repr__(self) -> str:
        return str(self._summary())

    def _repr_html_(self) -> str:
        return str(self._summary()._repr_html_())


def _cell(value: float) -> str:
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.3g}"


def compare_methods(
    estimator: Any,
    methods: Sequence[str] | None,
    *,
    candidates: Any = None,
    truth: Any = None,
    marker: Any = None,
    best_of: int = 16,
) -> MethodComparison:
    """Refit every method on the estimator's own features, folds and outcome.

    Parameters
    ----------
    estimator : DeconfoundedReward
        A fitted estimator that still holds its training data.
    methods : sequence of str or None
        Methods; all when None.
    candidates : list of str, table or array, optional
        Texts to score; the logged texts when None.
    truth : array of shape (m,), optional
        True reward of the candidates.
    marker : bool array of shape (m,), optional
        Candidates that carry a spurious property; its share among best-of-n picks is shown.
    best_of : int, default 16
        Candidates to choose from in the best-of-n columns.

    Returns
    -------
    MethodComparison
        The table.
    """
    import pandas as pd

    from causalfair.reward._assemble import held_out_accuracy

    _, problem = estimator._training("compare")
    wanted = (
        METHODS if methods is None else tuple([methods] if isinstance(methods, str) else methods)
    )
    matrix = None
    if candidates is not None:
        matrix = estimator._matrix(candidates, "DeconfoundedReward.compare")
    for name, values in (("truth", truth), ("marker", marker)):
        if values is not None and (matrix is None or len(values) != len(matrix)):
            raise DataError(
                f"compare: {name} needs candidates of the same length; got {len(values)} and "
                f"{0 if matrix is None else len(matrix)}."
            )
    rows, rewards, notes, own = [], {}, [], estimator.predict if matrix is not None else None
    reference = estimator.out_of_fold_scores_ if own is None else own(candidates)
    for method in wanted:
        try:
            scores, reward, penalty = _one(estimator, problem, method, matrix)
        except ParameterError as error:
            if methods is not None:
                raise
            notes.append(f"{method} is left out: {error}")
            continue
        slope = calibration(scores, problem)
        rewards[method] = reward
        row = {
            "method": method,
            "penalty": penalty,
            "calibration": np.nan if slope is None else float(slope.estimate[0]),
            "pairs_right": held_out_accuracy(problem, scores)[0],
            "confounder_share": _explained(problem, scores),
            "agreement": spearman(reward, reference),
        }
        if truth is not None:
            row |= _against_truth(reward, np.asarray(truth, float), marker, best_of, problem.seed)
        rows.append(row)
    return MethodComparison(pd.DataFrame(rows), rewards, tuple(notes))


def _one(
    estimator: Any, problem: Problem, method: str, matrix: FloatArray | None
) -> tuple[FloatArray, FloatArray, float]:
    """Out-of-fold scores, rewards of the candidates (or rows), and the penalty."""
    if isinstance(estimator.learner, str) and estimator.learner == "ridge":
        fixed = estimator.penalty if not isinstance(estimator.penalty, str) else None
        fit = fit_method(problem, method, fixed)
        scores = out_of_fold_scores(problem, fit)
        reward = scores if matrix is None else matrix @ fit.coef
        return scores, reward, fit.ridge.penalty
    boosted = fit_boosted(problem, make_learner(estimator.learner), method, n_refits=2)
    reward = boosted.scores
    if matrix is not None:
        reward = boosted.ensemble.mean(matrix + problem.mean)
    return boosted.scores, reward, np.nan


def _explained(problem: Problem, scores: FloatArray) -> float:
    """Share of the variance of scores that the confounders explain."""
    centred = scores - np.average(scores, weights=problem.weight)
    total = float(problem.weight @ centred**2)
    left = problem.confounders.residualize(scores)
    return 1 - float(problem.weight @ left**2) / total if total > 0 else 0.0


def _against_truth(
    reward: FloatArray, truth: FloatArray, marker: Any, best_of: int, seed: Any
) -> dict[str, float]:
    rng = np.random.default_rng(child_seed(seed, 6))
    i, j = rng.integers(0, len(truth), (2, 20_000))
    use = truth[i] != truth[j]
    agree = np.sign(reward[i] - reward[j])[use] * np.sign(truth[i] - truth[j])[use]
    gain = best_of_n_curve(reward, truth, sizes=[best_of])["gain"].iloc[0]
    out = {
        "spearman": spearman(reward, truth),
        "pair_accuracy": float((agree > 0).mean() + 0.5 * (agree == 0).mean()),
        f"best_of_{best_of}_gain": float(gain),
    }
    if marker is not None:
        flags = np.asarray(marker, dtype=float)
        curve = best_of_n_curve(reward, flags, sizes=[best_of])
        out["marker_share"] = float(curve["gold"].iloc[0])
    return out


def best_of_n_curve(proxy: Any, gold: Any, sizes: Sequence[int] | None = None) -> Any:
    """Mean gold value of the best of n candidates by proxy, without bias or simulation.

    Parameters
    ----------
    proxy : array of shape (N,)
        Reward used to choose.
    gold : array of shape (N,)
        What is wanted: a true reward, or a noisy measurement of it.
    sizes : sequence of int, optional
        Values of n; powers of two up to N when None.

    Returns
    -------
    pandas.DataFrame
        ``n``, ``gold``, ``gain`` over choosing at random, ``proxy`` and the bound ``kl`` on the
        divergence from the sampling policy, ``log n - (n - 1)/n``.

    Raises
    ------
    DataError
        Lengths that differ, or a size outside 1, ..., N.

    Notes
    -----
    With candidates sorted by proxy, ``sum_k C(k-1, n-1) / C(N, n) g_(k)``, the mean over all
    subsets of size n drawn without replacement; tied proxies share their mean gold value.

    References
    ----------
    .. [1] L. Gao, J. Schulman, J. Hilton (2023). Scaling laws for reward model overoptimization.
       arXiv:2210.10760

    Examples
    --------
    >>> best_of_n_curve(range(1, 11), range(1, 11), sizes=[3])["gold"].round(2).tolist()
    [8.25]
    """
    import pandas as pd
    from scipy.special import gammaln

    p, g = np.asarray(proxy, dtype=float), np.asarray(gold, dtype=float)
    if p.ndim != 1 or p.shape != g.shape or not len(p):
        raise DataError(
            f"best_of_n_curve: proxy has shape {p.shape} and gold {g.shape}; give two arrays (N,)."
        )
    if not (np.isfinite(p).all() and np.isfinite(g).all()):
        raise DataError(
            "best_of_n_curve: proxy and gold must be finite; drop the other candidates."
        )
    total = len(p)
    wanted = [2**k for k in range(int(np.log2(total)) + 1)] if sizes is None else list(sizes)
    if any(n < 1 or n > total for n in wanted):
        raise DataError(f"best_of_n_curve: sizes={wanted} must lie in 1, ..., {total}.")
    order = np.argsort(p, kind="stable")
    sorted_p, sorted_g = p[order], g[order]
    _, first, counts = np.unique(sorted_p, return_index=True, return_counts=True)
    sorted_g = np.repeat(np.add.reduceat(sorted_g, first) / counts, counts)
    k = np.arange(1, total + 1)
    rows = []
    for n in wanted:
        live = k >= n
        log_weight = np.full(total, -np.inf)
        log_weight[live] = (
            gammaln(k[live]) - gammaln(n) - gammaln(k[live] - n + 1)
            - (gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1))
        )  # fmt: skip
        weight = np.exp(log_weight)
        weight /= weight.sum()
        rows.append(
            {"n": n, "gold": weight @ sorted_g, "gain": weight @ sorted_g - g.mean(),
             "proxy": weight @ sorted_p, "kl": np.log(n) - (n - 1) / n}
        )  # fmt: skip
    return pd.DataFrame(rows)
