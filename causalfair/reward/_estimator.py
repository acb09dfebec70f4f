"""The estimator: a reward of texts in which their circumstances are held fixed."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.logging import warn
from causalfair._core.random import child_seed, generator, root_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_level
from causalfair.exceptions import (
    DataError,
    ParameterError,
    UnidentifiedFeatureWarning,
    WeakIdentificationWarning,
)
from causalfair.inference import RepeatedEstimates
from causalfair.reward._boosted import fit_boosted, make_learner
from causalfair.reward._data import RewardData, resolve_reward
from causalfair.reward._evidence import RewardEvidence
from causalfair.reward._methods import METHODS, Problem, fit_method, out_of_fold_scores
from causalfair.reward._ridge import UNIDENTIFIED
from causalfair.reward._score import calibration, identified_share, rank_table, ridge_posterior

__all__ = ["DeconfoundedReward"]

_METHOD_CITATIONS = {
    "orthogonal": ("robinson1988rootn",),
    "invariant": ("chen2024odin",),
    "residual_y": ("pryzant2018deconfounded",),
}


class DeconfoundedReward(RewardEvidence, CausalEstimator):
    """Reward of texts learnt from logs, with recorded circumstances held fixed.

    Use it when texts and outcomes were both driven by recorded circumstances and texts vary within
    them. The reward is ``r(t) = E[Y(t)]`` up to a constant: only differences are identified.

    Parameters
    ----------
    learner : {"ridge", "gbm"} or scikit-learn regressor, default "ridge"
        Linear reward on the text's features, or a flexible one.
    method : {"orthogonal", "subtract", "naive", "as_feature", "residual_y", "invariant"}
        ``"orthogonal"`` (default) removes the confounders from text and outcome; ``"subtract"``
        takes the estimated effect of the confounders off the outcome and then learns the reward
        [1]_. The others are the baselines it argues against.
    features : {"tfidf", "hashing", "sentence-transformers:<model>"}, callable or transformer
        How raw text becomes numbers.
    penalty : "cv", "gcv" or float, default "cv"
        Per-sample ridge penalty relative to the variances of the features; named style features
        are hardly penalised. ``"cv"`` uses grouped
        folds where there are clusters, repeated texts or experiments, else generalised
        cross-validation; ``"gcv"`` always the latter.
    n_folds : int, default 5
        Folds of cross-validation and of held-out scores.
    n_repeats : int, default 1
        Random splits of the held-out scores; the calibration slope aggregates them.
    numeric_basis : {"spline", "linear"}, default "spline"
        How numeric confounders enter: cubic B-splines with 5 columns, or a straight line.
    outcome : {"mean", "rank", "winsorize"}, default "mean"
        ``"rank"`` learns from mid-ranks, ``"winsorize"`` draws in the extreme half per cent of
        within-stratum deviations.
    trust : "cv" or float, default "cv"
        Weight of randomised rows relative to observational ones, where ``experiment`` is given.
    n_refits : int, default 10
        Refits on resampled clusters behind the standard errors of a flexible learner.
    post_treatment : sequence of str, default ()
        Names that must never be used as confounders, because the text moves them.
    solver : {"auto", "cg", "direct", "map"}, default "auto"
        Solver of the absorber.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of features, folds and refits.

    Attributes
    ----------
    coef_ : numpy.ndarray of shape (d,)
        Reward per unit of each feature; exactly zero where it is not identified.
    penalty_ : float
        Penalty in use; ``penalty_path_`` holds the losses.
    estimates_ : causalfair.inference.InfluenceEstimates
        Unpenalised effects of the named features: style of raw text, or embedding columns.
    calibration_ : causalfair.inference.Estimates or None
        Slope of the outcome on the out-of-fold reward, both within confounders; 1 is calibrated.
    confounder_effect_ : numpy.ndarray of shape (n,)
        Estimated effect of the circumstances on each outcome, centred.
    corrected_outcome_ : numpy.ndarray of shape (n,)
        Outcome less that effect: what preference labels and weights are made from.
    unidentified_ : tuple of str
        Features that are functions of the confounders.

    Raises
    ------
    IdentificationError
        Text does not vary within the strata of the confounders.

    See Also
    --------
    InstrumentedReward : Confounders that are confounded themselves.
    PairwiseReward : Preferences instead of outcomes.

    Notes
    -----
    With M the residual-maker of all confounders, ``beta = (X'M W X + n lambda D)^-1 X'M W y``.
    Assumes one version of each text, no interference, no unrecorded common cause of text choice and
    outcome, features that carry the text's effect, and additivity.

    References
    ----------
    .. [1] E. Loghmani (2025). Aligning language models with observational data: opportunities and
       risks from a causal perspective. arXiv:2506.00152
    .. [2] P. M. Robinson (1988). Root-N-consistent semiparametric regression. Econometrica 56,
       931-954. doi:10.2307/1912705

    Examples
    --------
    >>> from causalfair.datasets import make_simpson_reward
    >>> logs, truth = make_simpson_reward(200, random_state=0)
    >>> reward = DeconfoundedReward(penalty=0.0).fit(
    ...     logs, "y", embedding=["a"], categorical=["w"])
    >>> float(reward.coef_[0].round(6)), truth["naive"]
    (-1.0, 1.4)
    """

    _title: ClassVar[str] = "Deconfounded reward"
    _estimand: ClassVar[str] = (
        "difference in mean outcome between texts, circumstances held fixed (only differences "
        "between texts are identified)"
    )
    _assumptions: ClassVar[tuple[str, ...]] = (
        "one version of each text and no interference",
        "no unrecorded cause of both text choice and outcome",
        "the features carry the text's effect",
        "texts vary within the confounders (overlap)",
        "effects of text and circumstances add up",
    )
    _citations: ClassVar[tuple[str, ...]] = ("loghmani2025aligning",)
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "method": [StrOptions(set(METHODS))],
        "penalty": [StrOptions({"cv", "gcv"}), Interval(Real, 0, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "numeric_basis": [StrOptions({"spline", "linear"})],
        "outcome": [StrOptions({"mean", "rank", "winsorize"})],
        "trust": [StrOptions({"cv"}), Interval(Real, 0, None, closed="neither")],
        "n_refits": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        learner: Any = "ridge",
        *,
        method: str = "orthogonal",
        features: Any = "tfidf",
        penalty: Any = "cv",
        n_folds: int = 5,
        n_repeats: int = 1,
        numeric_basis: str = "spline",
        outcome: str = "mean",
        trust: Any = "cv",
        n_refits: int = 10,
        post_treatment: Any = (),
        solver: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.learner = learner
        self.method = method
        self.features = features
        self.penalty = penalty
        self.n_folds = n_folds
        self.n_repeats = n_repeats
        self.numeric_basis = numeric_basis
        self.outcome = outcome
        self.trust = trust
        self.n_refits = n_refits
        self.post_treatment = post_treatment
        self.solver = solver
        self.random_state = random_state

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        text: Any = None,
        embedding: Any = None,
        categorical: Any = None,
        numeric: Any = None,
        time: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
        trials: Any = None,
        experiment: Any = None,
    ) -> DeconfoundedReward:
        """Learn the reward.

        Parameters
        ----------
        X : table, array of shape (n, d), or list of str
            A table with the columns named below; or the embedding itself; or the texts.
        y : array of shape (n,) or str
            Outcome; with ``trials``, the number of successes.
        text : str or array of str, optional
            Raw text.
        embedding : list of str or array of shape (n, d), optional
            Columns that already represent the text.
        categorical, numeric, time : names, mapping or arrays, optional
            Confounders: factors of any number of levels, numbers, and time stamps, which become
            hour, weekday, month and a trend.
        cluster : array, str or list of str, optional
            Rows that depend on each other.
        sample_weight : array or str, optional
            Positive weights.
        trials : array or str, optional
            Trials behind each count of successes.
        experiment : array or str, optional
            Id of the randomised test of each row, -1 for observational rows.

        Returns
        -------
        DeconfoundedReward
            Itself.
        """
        from causalfair.reward import _assemble

        owner = f"{type(self).__name__}.fit"
        root = root_seed(self.random_state)
        data = resolve_reward(
            X, y, owner=owner, text=text, embedding=embedding, categorical=categorical,
            numeric=numeric, time=time, cluster=cluster, sample_weight=sample_weight, trials=trials,
            experiment=experiment, post_treatment=self.post_treatment,
        )  # fmt: skip
        problem = _assemble.make_problem(self, data, root, owner)
        self._data, self._problem = data, problem
        self._root = root
        self.mean_, self.reference_outcome_ = problem.mean, problem.y_mean
        self._fit_learner(problem)
        self._describe(data, problem)
        self._finish(data.roles, seed=root, folds=None)
        return self

    def _fit_learner(self, problem: Problem) -> None:
        penalty = self.penalty if not isinstance(self.penalty, str) else None
        sample = self._data.roles.sample_id()
        if isinstance(self.learner, str) and self.learner == "ridge":
            fit = fit_method(problem, self.method, penalty)
            self.coef_, self.penalty_, self.penalty_path_ = (
                fit.coef, fit.ridge.penalty, fit.ridge.path,
            )  # fmt: skip
            self._inference = fit.inference
            self._posterior: Any = ridge_posterior(fit, problem.X.shape[1])
            repeats = [out_of_fold_scores(problem.resplit(r), fit) for r in range(self.n_repeats)]
            effect = fit.confounder_effect
            self._method_fit: Any = fit
        else:
            boosted = fit_boosted(
                problem, make_learner(self.learner), self.method, n_refits=self.n_refits
            )
            repeats, effect = [boosted.scores], boosted.confounder_effect
            self._posterior, self._method_fit = boosted.ensemble, boosted
            self.backfit_gap_ = boosted.gap
        self.confounder_effect_ = effect
        self.corrected_outcome_ = problem.y - effect
        self.out_of_fold_scores_ = np.mean(repeats, axis=0)
        slopes = [calibration(scores, problem, sample_id=sample) for scores in repeats]
        self.calibration_ = slopes[0]
        if len(slopes) > 1 and all(slope is not None for slope in slopes):
            self.calibration_ = RepeatedEstimates(slopes)

    def _describe(self, data: RewardData, problem: Problem) -> None:
        from causalfair.reward import _assemble

        self.unidentified_ = tuple(
            name
            for name, share, block in zip(problem.names, problem.share, problem.blocks, strict=True)
            if share < UNIDENTIFIED and block != "text"
        )
        self.within_share_ = problem.share
        if self.unidentified_ and self.method in ("orthogonal", "subtract"):
            shown = ", ".join(self.unidentified_[:8])
            warn(
                f"{len(self.unidentified_)} feature(s) of the text are functions of the "
                f"confounders and get no reward: {shown}. Their effects are not identified.",
                UnidentifiedFeatureWarning,
            )
        residual = problem.confounders.residualize(self.out_of_fold_scores_)
        total = float(np.var(self.out_of_fold_scores_))
        self.overlap_ = float(np.mean(residual**2)) / total if total > 0 else 1.0
        if self.overlap_ < 0.1 and self.method in ("orthogonal", "subtract"):
            warn(
                f"only {self.overlap_:.1%} of the reward's variance lies within the confounders; "
                "the rest is extrapolation. Use coarser confounders or more varied logs.",
                WeakIdentificationWarning,
            )
        self.accuracy_, self.n_pairs_ = _assemble.held_out_accuracy(
            problem, self.out_of_fold_scores_
        )
        self.estimates_ = _assemble.named_estimates(
            self._method_fit, problem, self.calibration_, data.roles.sample_id()
        )
        self._text_name = data.roles.names.get("text")
        self._names, self._blocks = problem.names, problem.blocks
        self._project = getattr(self._method_fit, "project", None)
        if self.method == "subtract":
            self._project = None
        self._n_clusters = None if problem.cluster is None else self.estimates_.n_clusters
        self._embedding_names = data.embedding_names
        self._n_features = problem.X.shape[1]
        self._dof = max(
            float(data.n - self._n_features - problem.confounders.degrees_of_freedom()), 2.0
        )

    # Use --------------------------------------------------------------------------------------

    def _matrix(self, values: Any, owner: str) -> FloatArray:
        """Centred features of new texts, of a table or of an embedding."""
        from causalfair.reward import _assemble

        check_is_fitted(self)
        return _assemble.new_features(self, values, owner) - self.mean_

    def predict(self, X: Any) -> FloatArray:
        """Reward of texts, relative to the average logged text.

        Parameters
        ----------
        X : list of str, table or array of shape (n, d)
            Texts, or what ``fit`` was given to represent them. Circumstances are not needed.

        Returns
        -------
        numpy.ndarray of shape (n,)
            Rewards in units of the outcome.
        """
        matrix = self._matrix(X, "DeconfoundedReward.predict")
        if hasattr(self, "coef_"):
            return np.asarray(matrix @ self.coef_)
        return np.asarray(self._posterior.mean(matrix + self.mean_))

    def rank(
        self, candidates: Any, by: str = "mean", *, level: float = 0.95, n_draws: int = 2_000
    ) -> Any:
        """Order candidates.

        Parameters
        ----------
        candidates : list of str, table or array of shape (m, d)
            Texts to order.
        by : {"mean", "lcb", "p_best"}, default "mean"
            Reward, its lower confidence bound, or the probability of being the best.
        level : float, default 0.95
            One-sided level of the lower bound.
        n_draws : int, default 2000
            Draws behind the probabilities.

        Returns
        -------
        pandas.DataFrame
            Best first: ``rank, candidate, reward, std_error, lower, p_best, expected_rank,
            identified_share, extrapolated``. The spread is that of the ridge posterior.
        """
        if by not in ("mean", "lcb", "p_best"):
            raise ParameterError(f"by={by!r} must be 'mean', 'lcb' or 'p_best'.")
        check_level(level)
        matrix = self._matrix(candidates, "DeconfoundedReward.rank")
        share = np.ones(len(matrix))
        if hasattr(self, "coef_"):
            share = identified_share(matrix, self._inference)
        else:
            matrix = matrix + self.mean_
        raw = isinstance(candidates, (list, tuple)) and isinstance(candidates[0], str)
        labels = list(candidates) if raw else np.arange(len(matrix))
        rng = generator(child_seed(self._root, 9))
        return rank_table(
            labels, matrix, self._posterior, share, by=by, level=level, n_draws=n_draws, rng=rng
        )

    def contrast(self, a: Any, b: Any) -> Any:
        """Difference in reward between two texts, without shrinkage.

        Parameters
        ----------
        a, b : str, or array of shape (d,)
            The texts.

        Returns
        -------
        causalfair.inference.CovarianceEstimates
            One term with a clustered or HC1 standard error; zero with p-value 1 where the two
            have equal features.

        Raises
        ------
        ParameterError
            The learner is not linear.
        """
        from causalfair.reward import _assemble

        return _assemble.contrast(self, a, b)

    def explain(self, text: Any, *, top: int = 10) -> Any:
        """What a text's reward is made of.

        Parameters
        ----------
        text : str, or array of shape (d,)
            The text.
        top : int, default 10
            Largest contributions kept.

        Returns
        -------
        pandas.DataFrame
            ``part`` (n-gram or named feature), ``kind``, ``contribution``; n-grams count from zero,
            named features from the average logged text.
        """
        from causalfair.reward import _assemble

        return _assemble.explain(self, text, top)

    def compare(self, methods: Any = None, **options: Any) -> Any:
        """What each method would have taught, on the same features and folds.

        Parameters
        ----------
        methods : sequence of str, optional
            Methods; all when None.
        **options
            ``candidates``, ``truth`` and ``marker`` judge them on texts of known reward; see
            :class:`MethodComparison`.

        Returns
        -------
        MethodComparison
            Prints as a table; ``to_frame()``.
        """
        from causalfair.reward._compare import compare_methods

        return compare_methods(self, methods, **options)

    def diagnose(self, *, n_permutations: int = 20) -> Any:
        """Overlap, leftover confounding, placebo, sensitivity and amplification in one report.

        Parameters
        ----------
        n_permutations : int, default 20
            Within-stratum permutations of the placebo test.

        Returns
        -------
        RewardDiagnostics
            Prints as text; ``plot()``, ``to_frame()``.
        """
        from causalfair.reward._diagnostics import diagnose_reward

        return diagnose_reward(self, n_permutations=n_permutations)

    def make_pairs(self, **options: Any) -> Any:
        """Preference pairs of the logged texts, inside strata only.

        Parameters
        ----------
        **options
            ``by``, ``strata``, ``prompts``, ``min_gap``, ``min_prob``, ``max_per_stratum``,
            ``max_per_text``; see :func:`make_pairs`.

        Returns
        -------
        Pairs
            With ``to_trl(path, kind=...)``.
        """
        from causalfair.reward._pairs import pairs_of_reward

        return pairs_of_reward(self, **options)

    def sensitivity(self, a: Any, b: Any, *, level: float = 0.95) -> Any:
        """How strong an unrecorded cause must be to overturn a contrast.

        Parameters
        ----------
        a, b : str, or array of shape (d,)
            The texts.
        level : float, default 0.95
            Level of significance to explain away.

        Returns
        -------
        Sensitivity
            Partial R-squared and robustness values.
        """
        from causalfair.reward._sensitivity import sensitivity_of

        difference = self.contrast(a, b)
        return sensitivity_of(
            float(difference.estimate[0]), float(difference.std_error[0]), self._dof, level=level
        )

    # Machinery --------------------------------------------------------------------------------

    def _training(self, what: str) -> tuple[RewardData, Problem]:
        check_is_fitted(self)
        if not hasattr(self, "_problem"):
            raise DataError(
                f"{type(self).__name__}.{what} needs the training data, which are not pickled with "
                "the estimator; call fit again."
            )
        return self._data, self._problem

    def _project_rows(self) -> FloatArray:
        """(d, p) map from the text's features to the coefficients of the least-squares problem."""
        if self._project is not None:
            return np.asarray(self._project)
        return np.eye(self._n_features, len(self._inference.coef))

    def _least_squares(self) -> tuple[FloatArray, FloatArray, Any]:
        """Design, target and unpenalised table behind inference."""
        from causalfair.reward import _assemble

        _, problem = self._training("inference")
        return (*_assemble.least_squares(self._method_fit, problem), self._inference)

    def _influence(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Unpenalised rewards of centred rows, and their influence."""
        from causalfair.reward import _assemble

        _, problem = self._training("effects")
        return _assemble.influence(self._method_fit, problem, rows)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        for name in ("_data", "_problem", "_method_fit"):
            state.pop(name, None)
        return state

    def _cite_extra(self) -> tuple[str, ...]:
        used = _METHOD_CITATIONS.get(self.method, ())
        return (*used, "gaure2013ols", "cinelli2020making", "mundlak1978pooling")

    def _summary_header(self) -> list[tuple[str, str]]:
        pairs = super()._summary_header()
        return [*pairs, ("method", self.method), ("confounders", self._confounder_names)]

    def _summary_tables(self) -> list[Any]:
        from causalfair.reward import _assemble

        return _assemble.summary_tables(self)

    def _summary_notes(self) -> list[str]:
        return list(self._notes)
