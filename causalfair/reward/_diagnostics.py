"""One report on a fitted reward: overlap, leftover confounding, placebo, amplification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.crossfit import out_of_fold
from causalfair._core.random import child_seed, generator
from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError
from causalfair.reward._methods import MethodFit, Problem, fit_method, out_of_fold_scores
from causalfair.reward._ridge import coefficients, make_gram
from causalfair.reward._sensitivity import sensitivity_of

__all__ = ["RewardDiagnostics", "amplification", "diagnose_reward"]


@dataclass(frozen=True)
class RewardDiagnostics:
    """What speaks for and against a fitted reward.

    Attributes
    ----------
    variance : dict
        Shares of the outcome's variance: ``confounders``, ``text`` within them, ``rest``.
    naive_share : float
        Share of the naive reward's variance that the confounders explain; reward_share: of this
        reward's. A non-zero share is no evidence of leftover confounding.
    leftover : dict
        Cross-fitted R-squared of the residual on the confounders, and its permutation p-value.
    placebo : dict
        Out-of-fold R-squared within strata of the outcome (``real``), of outcomes permuted within
        strata (``permuted``) and the p-value.
    overlap : pandas.DataFrame
        Share of each feature's variance that is left within the confounders.
    effects : pandas.DataFrame
        Named features: estimate, robustness value, amplification under fine-tuning.
    """

    variance: dict[str, float]
    naive_share: float
    reward_share: float
    leftover: dict[str, float]
    placebo: dict[str, float]
    overlap: Any
    effects: Any
    condition: float
    calibration: Any
    unidentified: tuple[str, ...]

    def to_frame(self) -> Any:
        """All figures, one row each.

        Returns
        -------
        pandas.DataFrame
            ``check, value, reading``.
        """
        import pandas as pd

        return pd.DataFrame(self._rows(), columns=["check", "value", "reading"])

    def _rows(self) -> list[tuple[str, float, str]]:
        p = self.placebo
        rows = [
            ("outcome: share of confounders", self.variance["confounders"], ""),
            ("outcome: share of text within them", self.variance["text"], ""),
            ("naive reward: share of confounders", self.naive_share, "credit for company kept"),
            ("this reward: share of confounders", self.reward_share, "entangled, not confounded"),
            (
                "residual on confounders, R2",
                self.leftover["r2"],
                f"p {self.leftover['p']:.2f}; want 0",
            ),
            ("held-out R2 within strata", p["real"], "want above 0"),
            ("the same, outcomes permuted", p["permuted"], f"p {p['p']:.2f}; want 0"),
            ("least overlap of a feature", float(self.overlap["share"].min()), "0: not identified"),
            ("condition number", self.condition, ""),
        ]
        if self.calibration is not None:
            rows.append(("calibration slope", float(self.calibration.estimate[0]), "want 1"))
        return rows

    def summary(self) -> Any:
        """The report as text, HTML, LaTeX or Markdown.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table

        rows = [[name, f"{value:.3g}", note] for name, value, note in self._rows()]
        notes = []
        if self.unidentified:
            notes.append(f"Not identified: {', '.join(self.unidentified[:12])}.")
        tables = [Table(["check", "value", "reading"], rows, align="lrl")]
        if len(self.effects):
            shown = [[str(r["term"]), *(f"{r[c]:.3g}" for c in self.effects.columns[1:])]
                     for _, r in self.effects.head(12).iterrows()]  # fmt: skip
            tables.append(Table([c.replace("_", " ") for c in self.effects.columns], shown))
        return Summary("Diagnostics of the reward", [], tables, notes)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def plot(self, *, ax: Any = None) -> Any:
        """Variance left within the confounders, feature by feature.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.reporting.plot import new_axes

        axes = new_axes(ax)
        values = np.sort(self.overlap["share"].to_numpy())
        axes.plot(values, np.linspace(0, 1, len(values)), linewidth=2)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("share of a feature's variance left within the confounders")
        axes.set_ylabel("share of features")
        axes.spines[["top", "right"]].set_visible(False)
        return axes


def amplification(share: Any, effect: Any, temperature: float = 0.5) -> FloatArray:
    """Frequency of a feature after fine-tuning with a KL penalty.

    Parameters
    ----------
    share : array
        Frequency before, in (0, 1).
    effect : array
        Reward of having the feature.
    temperature : float, default 0.5
        Strength of the KL penalty, in units of the reward.

    Returns
    -------
    numpy.ndarray
        ``p e^(d/t) / (1 - p + p e^(d/t))``.

    Examples
    --------
    >>> float(amplification(0.5, 0.5, 0.5).round(4))
    0.7311
    """
    if not temperature > 0:
        raise ParameterError(f"temperature={temperature!r} must be positive.")
    p, d = np.asarray(share, float), np.asarray(effect, float)
    odds = np.exp(np.clip(d / temperature, -700, 700))
    return np.asarray(p * odds / (1 - p + p * odds))


def diagnose_reward(reward: Any, *, n_permutations: int) -> RewardDiagnostics:
    """All checks of a fitted reward."""
    if n_permutations < 1:
        raise ParameterError(f"n_permutations={n_permutations!r} must be at least 1.")
    _, problem = reward._training("diagnose")
    scores = reward.out_of_fold_scores_
    y, w = problem.y_within, problem.weight
    total = float(w @ (problem.y - problem.y_mean) ** 2)
    within = problem.confounders.residualize(scores)
    error = y - within
    naive = fit_method(problem, "naive", None)
    overlap = _overlap(problem)
    values = np.linalg.eigvalsh(make_gram(problem.within, y, w, kept=problem.share > 0).xx)
    live = values[values > 1e-10 * values.max()]
    return RewardDiagnostics(
        variance={
            "confounders": 1 - float(w @ y**2) / total,
            "text": float(w @ y**2 - w @ error**2) / total,
            "rest": float(w @ error**2) / total,
        },
        naive_share=_share(problem, out_of_fold_scores(problem, naive)),
        reward_share=_share(problem, scores),
        leftover=_leftover(problem, error, child_seed(reward._root, 10)),
        placebo=_placebo(reward, problem, n_permutations),
        overlap=overlap,
        effects=_effects(reward, problem, naive),
        condition=float(live.max() / live.min()),
        calibration=reward.calibration_,
        unidentified=reward.unidentified_,
    )


def _share(problem: Problem, scores: FloatArray) -> float:
    centred = scores - np.average(scores, weights=problem.weight)
    left = problem.confounders.residualize(scores)
    total = float(problem.weight @ centred**2)
    return 1 - float(problem.weight @ left**2) / total if total > 0 else 0.0


def _overlap(problem: Problem) -> Any:
    import pandas as pd

    return pd.DataFrame({"feature": problem.names, "share": problem.share}).sort_values(
        "share", ignore_index=True
    )


def _leftover(
    problem: Problem, error: FloatArray, seed: np.random.SeedSequence
) -> dict[str, float]:
    """R2 of a flexible learner that predicts the residual from the confounders."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    frame = problem.confounders.frame()
    if not frame.shape[1]:
        return {"r2": 0.0, "p": 1.0}
    learner = HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=15, min_samples_leaf=20)
    n = len(error)
    k = min(5, n // 2)
    fitted = out_of_fold(learner, frame, error, n_folds=k, seed=seed, groups=problem.split)
    r2 = 1 - float(((error - fitted) ** 2).sum() / ((error - error.mean()) ** 2).sum())
    # Sign flips of clusters give the law of the covariance of residual and prediction under none.
    product = (fitted - fitted.mean()) * error
    groups = np.arange(n) if problem.split is None else problem.split
    sums = np.bincount(groups, product)
    rng = generator(seed, 1)
    flips = rng.choice([-1.0, 1.0], size=(999, len(sums))) @ sums
    return {"r2": r2, "p": float((1 + (flips >= sums.sum()).sum()) / 1000)}


def _placebo(reward: Any, problem: Problem, n_permutations: int) -> dict[str, float]:
    """Held-out R2 within strata, for the outcome and for outcomes permuted within strata."""
    if not isinstance(reward._method_fit, MethodFit):
        scores = problem.held_out(reward.out_of_fold_scores_)
        y, w = problem.held_out(problem.y), problem.weight
        real = 1 - float(w @ (y - scores) ** 2) / float(w @ y**2)
        return {"real": real, "permuted": float("nan"), "p": float("nan")}
    penalty = reward.penalty_
    strata = problem.confounders.strata()
    order = np.argsort(strata, kind="stable")
    cells = np.split(order, np.flatnonzero(np.diff(strata[order])) + 1)
    # What numeric confounders explain stays where it is; the rest moves.
    rest = (
        problem.y - problem.y_within
        if not problem.confounders.is_pure
        else np.zeros_like(problem.y)
    )
    moving = problem.y - rest
    outcomes = np.empty((len(moving), 1 + n_permutations))
    outcomes[:, 0] = moving
    for b in range(n_permutations):
        rng = generator(problem.seed, 11, b)
        for own in cells:
            outcomes[own, 1 + b] = moving[rng.permutation(own)]
    real, *found = _held_out_r2(problem, rest[:, None] + outcomes, penalty)
    return {
        "real": float(real),
        "permuted": float(np.mean(found)),
        "p": float((1 + np.sum(np.asarray(found) >= real)) / (n_permutations + 1)),
    }


def _held_out_r2(problem: Problem, Y: FloatArray, penalty: float) -> FloatArray:
    """R2 (m,) of out-of-fold rewards within held-out strata, for m outcomes (n, m)."""
    lost = total = np.zeros(Y.shape[1])
    for train, test, rows in problem.parts():
        target = train.confounders.residualize(Y[problem.folds != problem.folds[rows[0]]])
        gram = make_gram(
            train.within, target[:, 0], train.weight, kept=train.share > 0, blocks=train.blocks
        )
        xy = train.within.T @ (train.weight[:, None] * target) / gram.n
        held = test.confounders.residualize(Y[rows])
        lost = lost + test.weight @ (held - test.within @ coefficients(gram, xy, penalty)) ** 2
        total = total + test.weight @ held**2
    return np.asarray(1 - lost / np.where(total > 0, total, np.inf) - (total <= 0))


def _effects(reward: Any, problem: Problem, naive: MethodFit) -> Any:
    """Named features: robustness value, and how often a fine-tuned policy would use them."""
    import pandas as pd

    names = [n for n in reward.estimates_.names if n in problem.names]
    rows = []
    scale = max(float(np.std(problem.y)), 1e-12)
    for name in names:
        j = problem.names.index(name)
        term = reward.estimates_[name]
        estimate, spread = float(term.estimate[0]), float(term.std_error[0])
        used = problem.X[:, j] > np.median(problem.X[:, j])
        share = float(np.clip(used.mean(), 0.01, 0.99))
        step = float(np.std(problem.X[:, j]))
        value = sensitivity_of(estimate, spread, reward._dof).robustness
        rows.append(
            {
                "term": name,
                "estimate": estimate,
                "naive": float(naive.inference.coef[j]),
                "robustness": value,
                "share": share,
                "share_tuned": float(amplification(share, estimate * step / scale)),
                "share_tuned_naive": float(
                    amplification(share, float(naive.inference.coef[j]) * step / scale)
                ),
            }
        )
    return pd.DataFrame(rows)
