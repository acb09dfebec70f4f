"""What a fitted reward can say about single texts, and what may speak against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtrc, ndtr

from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_level, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.inference.few_clusters import wild_score_test
from causalfair.inference.vcov import cluster_sums
from causalfair.reward._corrections import conformal_radius, random_effects
from causalfair.reward._methods import Problem
from causalfair.reward._ridge import UNIDENTIFIED, make_gram, sandwich
from causalfair.reward._sensitivity import bias_bound

__all__ = ["NegativeControl", "RewardEvidence"]

MOST_CANDIDATES = 2_000


@dataclass(frozen=True)
class NegativeControl:
    """Reward of an outcome that the text cannot move.

    Attributes
    ----------
    test : HypothesisTest that the text explains nothing of it.
    coef : (d,) its unpenalised reward per unit of each feature.
    """

    test: Any
    coef: FloatArray


class RewardEvidence:
    """Inference on candidates and checks of a fitted linear reward."""

    def effects(self, candidates: Any) -> Any:
        """Unpenalised rewards of candidates, jointly, relative to the average logged text.

        Parameters
        ----------
        candidates : list of str, table or array of shape (m, d)
            Texts.

        Returns
        -------
        causalfair.inference.InfluenceEstimates
            One term a candidate: ``conf_int(simultaneous=True)`` covers all of them at once,
            ``draws()`` is a bootstrap ensemble of rewards, differences carry their covariance.

        Raises
        ------
        ParameterError
            The learner is not linear.
        """
        from causalfair.inference import InfluenceEstimates

        owner = f"{type(self).__name__}.effects"
        problem = _linear(self, owner)
        matrix = self._matrix(candidates, owner)  # type: ignore[attr-defined]
        if len(matrix) > MOST_CANDIDATES:
            raise DataError(
                f"{owner}: {len(matrix)} candidates; the joint law is kept for at most "
                f"{MOST_CANDIDATES}. Rank them first and take the best."
            )
        value, psi = self._influence(matrix)  # type: ignore[attr-defined]
        raw = isinstance(candidates, (list, tuple)) and isinstance(candidates[0], str)
        names = [f"{i}: {_short(candidates[i])}" if raw else str(i) for i in range(len(matrix))]
        sample = self._data.roles.sample_id()  # type: ignore[attr-defined]
        return InfluenceEstimates(
            value, psi - psi.mean(axis=0), names, cluster=problem.cluster, sample_id=sample
        )

    def win_probability(self, a: Any, b: Any) -> float:
        """Probability that text ``a`` has the higher reward, from the unpenalised contrast.

        Parameters
        ----------
        a, b : str, or array of shape (d,)
            The texts.

        Returns
        -------
        float
            ``Phi(difference / std_error)``; one half where their features are equal.
        """
        gap = self.contrast(a, b)  # type: ignore[attr-defined]
        spread = float(gap.std_error[0])
        return float(ndtr(gap.estimate[0] / spread)) if spread > 0 else 0.5

    def score_test(self, a: Any, b: Any, *, n_draws: int = 9_999) -> Any:
        """Test of a contrast by a wild bootstrap of cluster scores, for few clusters.

        Parameters
        ----------
        a, b : str, or array of shape (d,)
            The texts.
        n_draws : int, default 9999
            Draws of Webb's six-point weights.

        Returns
        -------
        causalfair.inference.HypothesisTest
            Of equal rewards; the scores are those under that hypothesis.
        """
        from causalfair.inference import HypothesisTest

        owner = f"{type(self).__name__}.score_test"
        problem = _linear(self, owner)
        one = [x if not isinstance(x, str) else [x] for x in (a, b)]
        left, right = (self._matrix(x, owner)[0] for x in one)  # type: ignore[attr-defined]
        design, target, table = self._least_squares()  # type: ignore[attr-defined]
        row = table.inverse @ ((left - right) @ self._project_rows())  # type: ignore[attr-defined]
        scale = float(((left - right) @ self._project_rows()) @ row)  # type: ignore[attr-defined]
        null = "the texts have equal rewards"
        if not scale > 0:
            return HypothesisTest(
                "Score", null, np.nan, np.nan, None, "bootstrap", "their features are equal"
            )
        gap = float((left - right) @ self._project_rows() @ table.coef)  # type: ignore[attr-defined]
        restricted = table.coef - row * gap / scale
        scores = problem.weight * (target - design @ restricted) * (design @ row)
        codes = np.arange(len(scores)) if problem.cluster is None else problem.cluster[:, 0]
        return wild_score_test(
            cluster_sums(scores[:, None], codes).ravel(), "Score", null,
            weights="webb", n_draws=n_draws, rng=child_seed(self._root, 12),  # type: ignore[attr-defined]
        )  # fmt: skip

    def predict_interval(self, X: Any, level: float = 0.95) -> FloatArray:
        """Conformal interval of the corrected outcome of a future showing of each text.

        Parameters
        ----------
        X : list of str, table or array of shape (m, d)
            Texts.
        level : float, default 0.95
            Coverage.

        Returns
        -------
        numpy.ndarray of shape (m, 2)
            Interval of the outcome in average circumstances. It covers one noisy future outcome,
            not the reward; infinite where too few rows were held out.
        """
        check_level(level)
        _, problem = self._training("predict_interval")  # type: ignore[attr-defined]
        centre = self.predict(X) + problem.y_mean  # type: ignore[attr-defined]
        fitted = self.out_of_fold_scores_ + problem.y_mean  # type: ignore[attr-defined]
        radius = conformal_radius(self.corrected_outcome_ - fitted, level)  # type: ignore[attr-defined]
        return np.column_stack([centre - radius, centre + radius])

    def negative_control(self, y: Any) -> NegativeControl:
        """Learn an outcome that the text cannot move; the text should explain nothing of it.

        Parameters
        ----------
        y : array of shape (n,)
            Negative-control outcome of the same rows, such as yesterday's.

        Returns
        -------
        NegativeControl
            Wald test, and the spurious reward: ``coef_ - delta * control.coef`` takes it out.
        """
        from causalfair.inference import HypothesisTest

        owner = f"{type(self).__name__}.negative_control"
        problem = _linear(self, owner)
        values = check_numeric(y, "y", owner=owner)
        if len(values) != len(problem.y):
            raise DataError(f"{owner}: y has {len(values)} rows; fit saw {len(problem.y)}.")
        table = _plain_fit(problem, problem.confounders.residualize(values))
        spread, axes = np.linalg.eigh(table.vcov * np.outer(table.root, table.root))
        live = spread > 1e-12 * max(float(spread.max()), np.finfo(float).tiny)
        rotated = axes[:, live].T @ (table.coef * table.root)
        statistic, df = float((rotated**2 / spread[live]).sum()), int(live.sum())
        test = HypothesisTest(
            "Wald", "the text does not move the control", statistic,
            float(chdtrc(df, statistic)), df,
        )  # fmt: skip
        return NegativeControl(test, table.coef)

    def benchmark(self, a: Any, b: Any, *, strength: float = 1.0) -> Any:
        """How far a contrast would move with an unrecorded cause like a recorded one.

        Parameters
        ----------
        a, b : str, or array of shape (d,)
            The texts.
        strength : float, default 1
            Strength of the unrecorded cause, as a multiple of the recorded one.

        Returns
        -------
        pandas.DataFrame
            One row a confounder: ``r2_text`` and ``r2_outcome`` of the unrecorded cause, the bound
            ``bias`` on what it could do, and ``low``, the estimate moved toward zero by it.

        Notes
        -----
        The contrast is read as the effect of one score of the text, the direction that the
        regression weighs for it.

        References
        ----------
        .. [1] C. Cinelli and C. Hazlett (2020). Making sense of sensitivity: extending omitted
           variable bias. JRSS B 82, 39-67. doi:10.1111/rssb.12348
        """
        import pandas as pd

        owner = f"{type(self).__name__}.benchmark"
        problem = _linear(self, owner)
        if not strength > 0:
            raise ParameterError(f"{owner}: strength={strength!r} must be positive.")
        one = [x if not isinstance(x, str) else [x] for x in (a, b)]
        left, right = (self._matrix(x, owner)[0] for x in one)  # type: ignore[attr-defined]
        estimate = self.contrast(a, b)  # type: ignore[attr-defined]
        value = float(estimate.estimate[0])
        _, _, table = self._least_squares()  # type: ignore[attr-defined]
        score = (
            problem.centred
            @ (
                table.inverse @ ((left - right) @ self._project_rows())  # type: ignore[attr-defined]
            )[: problem.X.shape[1]]
        )
        full = _two_r2(problem.confounders, score, problem)
        rows = []
        for name in problem.confounders.names:
            short = _two_r2(problem.confounders.without(name), score, problem)
            r2_d = strength * (1 - full[0] / short[0]) / (full[0] / short[0])
            r2_y = _outcome_strength(1 - full[0] / short[0], 1 - full[1] / short[1], strength)
            bias = np.inf
            if r2_d < 1 and r2_y < 1:
                spread = float(estimate.std_error[0])
                bias = bias_bound(spread, self._dof, r2_outcome=r2_y, r2_text=r2_d)  # type: ignore[attr-defined]
            low = np.sign(value) * (abs(value) - bias)
            rows.append((name, min(r2_d, 1.0), min(r2_y, 1.0), bias, low))
        return pd.DataFrame(rows, columns=["confounder", "r2_text", "r2_outcome", "bias", "low"])

    def mundlak_test(self) -> Any:
        """Test whether stratum means of the reward matter: would a random effect do.

        Returns
        -------
        causalfair.inference.HypothesisTest
            Of equal slopes within and between the levels of the largest factor, robust to unequal
            variances and clustered by level; rejection says that the strata confound.

        Raises
        ------
        ParameterError
            No factor was held fixed.

        References
        ----------
        .. [1] Y. Mundlak (1978). On the pooling of time series and cross section data. Econometrica
           46, 69-85. doi:10.2307/1913646
        """
        _, problem = self._training("mundlak_test")  # type: ignore[attr-defined]
        group = problem.confounders.finest()
        if group is None:
            raise ParameterError(
                f"{type(self).__name__}.mundlak_test needs a categorical confounder; none was "
                "given."
            )
        return random_effects(self.out_of_fold_scores_, problem.y, group).test  # type: ignore[attr-defined]


def _linear(reward: Any, owner: str) -> Problem:
    _, problem = reward._training(owner.rpartition(".")[2])
    if not hasattr(reward, "coef_"):
        raise ParameterError(f'{owner} needs learner="ridge"; other learners have no coefficients.')
    assert isinstance(problem, Problem)
    return problem


def _plain_fit(problem: Problem, target: FloatArray) -> Any:
    """Unpenalised regression of any residualised outcome on the residualised text."""
    kept = problem.share >= UNIDENTIFIED
    gram = make_gram(problem.within, target, problem.weight, kept=kept, blocks=problem.blocks)
    return sandwich(
        gram, problem.within, target, problem.weight, cluster=problem.cluster,
        n_used=len(target) - problem.confounders.n_singletons,
        df_absorbed=problem.confounders.degrees_of_freedom(),
    )  # fmt: skip


def _two_r2(confounders: Any, score: FloatArray, problem: Problem) -> tuple[float, float]:
    """Residual sums of squares of the score, and of the outcome given the score."""
    s, y, w = confounders.residualize(score), confounders.residualize(problem.y), problem.weight
    left = float(w @ s**2)
    return left, float(w @ y**2) - float(w @ (s * y)) ** 2 / left


def _outcome_strength(r2_d: float, r2_y: float, k: float) -> float:
    """Partial R-squared with the outcome of a cause ``k`` times as strong as the benchmark."""
    if k * r2_d >= 1 or r2_y >= 1:
        return 1.0
    shared = k * r2_d**2 / ((1 - k * r2_d) * (1 - r2_d))
    if shared >= 1:
        return 1.0
    bound = ((np.sqrt(k) + np.sqrt(shared)) ** 2 / (1 - shared)) * r2_y / (1 - r2_y)
    return float(min(bound, 1.0))


def _short(text: str, width: int = 40) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
