"""The honest causal forest."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import Interval, fit_context
from causalfair._core.logging import warn
from causalfair._core.random import child_seed, root_seed
from causalfair._core.validation import check_level, clip_probability
from causalfair.exceptions import DataError, ParameterError, SmallSampleWarning
from causalfair.forest._base import EffectModel, Problem
from causalfair.forest._engine import Forest, ForestSpec, grow_forest
from causalfair.forest._origin import ModelArray
from causalfair.forest._sample import EffectSample

__all__ = ["CausalForest"]

FloatArray = NDArray[np.float64]
CLIP = 0.01
EFFECT, OUTCOME, PROPENSITY, VARIANCE = range(4)  # keys of the random streams


class CausalForest(EffectModel):
    """Honest causal forest for heterogeneous effects of one treatment.

    Each tree splits where effects differ, on one half of its sample, and averages the other half
    in its leaves. Outcome and treatment are centred first, so that the trees see what is left once
    their expectations given the covariates are taken out. In a randomised trial pass the known
    probability of treatment: it removes a nuisance forest and its noise.

    Parameters
    ----------
    n_trees : int, default 2000
        Number of trees, rounded up to a multiple of ``ci_group_size``. Intervals need many: 4,000
        or more is advised.
    min_leaf_size : int, default 5
        Least number of units below and above the node's mean treatment (treated and untreated, if
        binary) in each child.
    honesty : bool, default True
        Use different units to shape a tree and to fill its leaves.
    sample_fraction : float in (0, 1], default 0.5
        Share of the units (clusters) drawn for a tree; at most 0.5 with ``ci_group_size`` of 2 or
        more.
    max_features : int, optional
        Mean number of variables tried at a node, which is Poisson; ``ceil(sqrt(p) + 20)`` when
        None.
    alpha : float in [0, 0.25), default 0.05
        Least share of a node's variation of treatment that each child keeps.
    imbalance_penalty : float, default 0
        Penalty on uneven splits.
    ci_group_size : int, default 2
        Trees that share a half-sample; the spread between groups gives the variance. 1 turns
        intervals off.
    honesty_fraction : float in (0, 1), default 0.5
        Share of a tree's sample that shapes it.
    prune_empty_leaves : bool, default True
        Remove leaves that no unit fills; otherwise such a tree says nothing there.
    stabilize_splits : bool, default True
        Apply ``min_leaf_size`` to both arms and ``alpha`` to the variation of treatment; otherwise
        ``alpha`` limits the share of units only.
    equalize_cluster_weights : bool, default False
        Give each cluster the same weight, whatever its size.
    store_weights : bool, default False
        Keep what ``forest_weights`` needs.
    n_jobs : int, optional
        Threads; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : Estimates
        The average effect.
    scores_ : ndarray of shape (n_samples,)
        Doubly robust scores.
    sample_ : EffectSample
        Out-of-bag effects, residuals and propensities of the training rows.
    variable_importance_ : pandas.Series of shape (n_modifiers,)
        Share of splits on each variable, weighted by depth.
    nuisance_trees_ : int
        Trees of each nuisance forest; 0 where all nuisances were given.

    See Also
    --------
    rank_average_treatment_effect : Does the ranking by effect mean anything?
    RLearner, DRLearner : The same with any scikit-learn model.

    Notes
    -----
    Intervals cover the expectation of the forest at a point. Where that is biased (few rows, many
    covariates, sharp features) they undercover the effect itself. Cost is linear in trees and
    near-linear in rows; memory is proportional to data and nodes. Missing values in ``X`` are
    allowed: each split sends them to the side that fits better.

    References
    ----------
    .. [1] S. Athey, J. Tibshirani and S. Wager (2019). Generalized random forests. Annals of
       Statistics 47, 1148-1178, sections 2 and 6. doi:10.1214/18-AOS1709
    .. [2] S. Athey and S. Wager (2019). Estimating treatment effects with causal forests: an
       application. Observational Studies 5, 37-51. doi:10.1353/obs.2019.0001

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.forest import CausalForest
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 3))
    >>> w = rng.integers(0, 2, 400)
    >>> y = w * (X[:, 0] > 0) + rng.normal(size=400)
    >>> forest = CausalForest(200, random_state=1)
    >>> forest = forest.fit(X, y, treatment=w, nuisances={"propensity": 0.5})
    >>> low, high = forest.predict([[-2.0, 0, 0], [2.0, 0, 0]])
    >>> bool(low < high)
    True
    """

    _title: ClassVar[str] = "Causal forest"
    _citations: ClassVar[tuple[str, ...]] = ("athey2019generalized", "athey2019estimating")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_trees": [Interval(Integral, 1, None, closed="left")],
        "min_leaf_size": [Interval(Integral, 1, None, closed="left")],
        "honesty": ["boolean"],
        "sample_fraction": [Interval(Real, 0, 1, closed="right")],
        "max_features": [Interval(Integral, 1, None, closed="left"), None],
        "alpha": [Interval(Real, 0, 0.25, closed="left")],
        "imbalance_penalty": [Interval(Real, 0, None, closed="left")],
        "ci_group_size": [Interval(Integral, 1, None, closed="left")],
        "honesty_fraction": [Interval(Real, 0, 1, closed="neither")],
        "prune_empty_leaves": ["boolean"],
        "stabilize_splits": ["boolean"],
        "equalize_cluster_weights": ["boolean"],
        "store_weights": ["boolean"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        n_trees: int = 2000,
        *,
        min_leaf_size: int = 5,
        honesty: bool = True,
        sample_fraction: float = 0.5,
        max_features: int | None = None,
        alpha: float = 0.05,
        imbalance_penalty: float = 0.0,
        ci_group_size: int = 2,
        honesty_fraction: float = 0.5,
        prune_empty_leaves: bool = True,
        stabilize_splits: bool = True,
        equalize_cluster_weights: bool = False,
        store_weights: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_trees = n_trees
        self.min_leaf_size = min_leaf_size
        self.honesty = honesty
        self.sample_fraction = sample_fraction
        self.max_features = max_features
        self.alpha = alpha
        self.imbalance_penalty = imbalance_penalty
        self.ci_group_size = ci_group_size
        self.honesty_fraction = honesty_fraction
        self.prune_empty_leaves = prune_empty_leaves
        self.stabilize_splits = stabilize_splits
        self.equalize_cluster_weights = equalize_cluster_weights
        self.store_weights = store_weights
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        treatment: Any,
        nuisances: Any = None,
        covariates: Any = None,
        effect_modifiers: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> CausalForest:
        """Grow the forest.

        Parameters
        ----------
        X : frame or array of shape (n_samples, n_features)
            Covariates, numeric; missing values are allowed.
        y : array of shape (n_samples,) or str
            Outcome, or the name of its column.
        treatment : array of shape (n_samples,) or str
            Treatment: two values, or real numbers (then the effect is that of one unit more).
        nuisances : mapping, optional
            ``"outcome"``: expected outcome given covariates; ``"propensity"``: probability of
            treatment (its expectation, if real-valued). Arrays of shape (n_samples,) or numbers.
            What is not given is estimated out of bag by regression forests.
        covariates : "all", list of str or formula, optional
            What to adjust for; required where a role is a column name.
        effect_modifiers : list of str, optional
            Covariates the effect may vary with; all when None.
        cluster : array, str or list of str, optional
            Units of sampling and of dependence; trees draw whole clusters.
        sample_weight : array of shape (n_samples,) or str, optional
            Sampling weights.

        Returns
        -------
        CausalForest
            The fitted forest.

        Raises
        ------
        RoleError
            A role is missing or names an unknown column.
        DataError
            Missing or infinite values, wrong lengths, too few rows or clusters.
        IdentificationError
            The treatment does not vary, or a given propensity is 0 or 1.
        ParameterError
            Parameters that do not go together.
        """
        self._check_parameters(sample_weight)
        problem = Problem(
            X, y, owner="CausalForest.fit", treatment=treatment, nuisances=nuisances,
            binary_only=False, allow_nan=True, covariates=covariates,
            effect_modifiers=effect_modifiers, cluster=cluster, sample_weight=sample_weight,
        )  # fmt: skip
        root = root_seed(self.random_state)
        self._check_sizes(problem)
        everything = problem.data.matrix()
        modifiers = problem.data.matrix(problem.data.modifiers)
        outcome, propensity = self._nuisances(problem, everything, root)
        targets = np.column_stack([problem.y - outcome, problem.w - propensity, self._w(problem)])
        self.forest_ = self._grow(
            modifiers, targets, self._spec(), root, EFFECT, problem, "causal forest"
        )
        got = self.forest_.predict(modifiers, out_of_bag=_units(problem), n_jobs=self.n_jobs)
        self._check_spoken(got.n_trees, got.value)
        self.oob_variance_ = got.variance
        self.oob_n_trees_ = got.n_trees
        variance = self._treatment_variance(problem, everything, targets, propensity, root)
        sample = EffectSample(
            got.value, targets[:, 0], targets[:, 1], propensity, variance, problem.binary,
            self._averaging_weight(problem), problem.data.cluster, problem.data.sample_id(),
        )  # fmt: skip
        self._training_rows = _digest(modifiers)
        return self._complete(problem, sample, root)  # type: ignore[no-any-return]

    # Parts of the fit -------------------------------------------------------------------------

    def _check_parameters(self, sample_weight: Any) -> None:
        if self.ci_group_size > 1 and self.sample_fraction > 0.5:
            raise ParameterError(
                f"CausalForest.fit: sample_fraction={self.sample_fraction:g} cannot exceed 0.5 "
                f"when trees share half-samples (ci_group_size={self.ci_group_size}). Lower it, or "
                "set ci_group_size=1 and do without intervals."
            )
        if self.equalize_cluster_weights and sample_weight is not None:
            raise ParameterError(
                "CausalForest.fit: equalize_cluster_weights=True and sample_weight exclude each "
                "other; put the weight of each cluster into sample_weight."
            )

    def _check_sizes(self, problem: Problem) -> None:
        units = problem.n if problem.cluster is None else int(problem.cluster.max()) + 1
        if self.equalize_cluster_weights and problem.cluster is None:
            raise ParameterError(
                "CausalForest.fit: equalize_cluster_weights=True needs cluster=; there is none."
            )
        half = units if self.ci_group_size == 1 else units // 2
        drawn = math.floor(min(1.0, self.sample_fraction * units / max(half, 1)) * half)
        if drawn < 2:
            what = "rows" if problem.cluster is None else "clusters"
            raise DataError(
                f"CausalForest.fit: {units} {what} leave {drawn} for a tree (sample_fraction="
                f"{self.sample_fraction:g}); a tree needs two or more. Use more data or "
                "ci_group_size=1 with a larger sample_fraction."
            )
        if problem.cluster is not None and units < 2 * 10:
            warn(
                f"CausalForest.fit: {units} clusters are few for trees that draw a quarter of them "
                "to shape and to fill leaves; treat effects by covariates with care.",
                SmallSampleWarning,
            )

    def _spec(self) -> ForestSpec:
        return ForestSpec(
            n_trees=self.n_trees,
            min_leaf_size=self.min_leaf_size,
            honesty=self.honesty,
            honesty_fraction=self.honesty_fraction,
            prune=self.prune_empty_leaves,
            sample_fraction=self.sample_fraction,
            max_features=self.max_features,
            alpha=self.alpha,
            imbalance_penalty=self.imbalance_penalty,
            stabilize=self.stabilize_splits,
            group_size=self.ci_group_size,
            equalize=self.equalize_cluster_weights,
            store_members=self.store_weights,
        )

    def _grow(
        self, X: FloatArray, targets: FloatArray, spec: ForestSpec, root: Any, key: int,
        problem: Problem, desc: str,
    ) -> Forest:  # fmt: skip
        n_groups = math.ceil(spec.n_trees / spec.group_size)
        seeds = child_seed(root, key).generate_state(n_groups, np.uint64).astype(np.uint64)
        return grow_forest(
            X, targets, spec, seeds=seeds, cluster=problem.cluster, n_jobs=self.n_jobs, desc=desc
        )

    def _regress(
        self, X: FloatArray, target: FloatArray, root: Any, key: int, problem: Problem, desc: str
    ) -> FloatArray:
        """Out-of-bag regression forest of ``target`` on the covariates."""
        from dataclasses import replace

        spec = replace(
            self._spec(),
            n_trees=max(50, self.n_trees // 4),
            causal=False,
            group_size=1,
            store_members=False,
        )
        columns = np.column_stack([target, np.zeros(problem.n), self._w(problem)])
        forest = self._grow(X, columns, spec, root, key, problem, desc)
        got = forest.predict(X, out_of_bag=_units(problem), n_jobs=self.n_jobs)
        mean = np.average(target, weights=self._w(problem))
        return np.where(got.n_trees > 0, got.value, mean)

    def _nuisances(
        self, problem: Problem, X: FloatArray, root: Any
    ) -> tuple[FloatArray, FloatArray]:
        given = problem.given
        self.nuisance_trees_ = 0 if len(given) == 2 else max(50, self.n_trees // 4)
        self.clipped_ = 0
        if "outcome" in given:
            outcome = given["outcome"]
        else:
            outcome = self._regress(X, problem.y, root, OUTCOME, problem, "outcome forest")
        if "propensity" in given:
            return outcome, given["propensity"]
        propensity = self._regress(X, problem.w, root, PROPENSITY, problem, "propensity forest")
        if problem.binary:
            propensity, self.clipped_ = clip_probability(
                propensity, CLIP, owner=problem.owner, what="propensity"
            )
        return outcome, propensity

    def _treatment_variance(
        self, problem: Problem, X: FloatArray, targets: FloatArray, e: FloatArray, root: Any
    ) -> FloatArray:
        if problem.binary:
            return np.asarray(e * (1 - e))
        squared = targets[:, 1] ** 2
        variance = self._regress(X, squared, root, VARIANCE, problem, "treatment variance forest")
        floor = CLIP * float(np.average(squared, weights=self._w(problem)))
        self.clipped_ = int((variance < floor).sum())
        return np.maximum(variance, floor)

    def _w(self, problem: Problem) -> FloatArray:
        return np.ones(problem.n) if problem.weight is None else problem.weight

    def _averaging_weight(self, problem: Problem) -> FloatArray | None:
        if not self.equalize_cluster_weights or problem.cluster is None:
            return problem.weight
        weight = 1.0 / np.bincount(problem.cluster)[problem.cluster]
        return np.asarray(weight / weight.mean())

    def _check_spoken(self, n_trees: NDArray[np.int64], effect: FloatArray) -> None:
        silent = int((n_trees == 0).sum())
        if silent:
            raise DataError(
                f"CausalForest.fit: {silent} of {effect.size} rows are in the sample of every tree "
                f"that could speak for them (n_trees={self.n_trees}); grow more trees."
            )
        undefined = int(np.isnan(effect).sum())
        if undefined:
            raise DataError(
                f"CausalForest.fit: the treatment does not vary among the neighbours of "
                f"{undefined} of {effect.size} rows; grow more trees or raise min_leaf_size."
            )

    # After the fit ----------------------------------------------------------------------------

    def predict(self, X: Any = None) -> FloatArray:
        """Effect of the treatment given covariates.

        Parameters
        ----------
        X : frame or array of shape (n_rows, n_features), optional
            New rows with the covariates of ``fit``. None: the training rows, each by the trees that
            did not draw it (out of bag).

        Returns
        -------
        ndarray of shape (n_rows,)
            Effects, in units of the outcome per unit of treatment; NaN where no tree has a leaf.
        """
        check_is_fitted(self)
        if X is None:
            return ModelArray.tag(self.sample_.effect, "out-of-sample", self._identity)
        rows = self._new_rows(X, "predict")
        value = self.forest_.predict(rows, n_jobs=self.n_jobs).value
        if _digest(rows) == self._training_rows:
            return ModelArray.tag(value, "in-sample", self._identity)
        return value

    def predict_interval(self, X: Any = None, level: float = 0.95) -> FloatArray:
        """Pointwise confidence intervals of the effect.

        Parameters
        ----------
        X : frame or array of shape (n_rows, n_features), optional
            As for :meth:`predict`.
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        ndarray of shape (n_rows, 2)
            Lower and upper ends.

        Raises
        ------
        ParameterError
            The forest was grown with ``ci_group_size=1``.
        """
        from scipy.special import ndtri

        check_is_fitted(self)
        check_level(level)
        effect, error = self._effect_and_error(X, "predict_interval")
        half = ndtri((1 + level) / 2) * error
        return np.column_stack([effect - half, effect + half])

    def predict_std_error(self, X: Any = None) -> FloatArray:
        """Standard errors of the effect, by the bootstrap of little bags.

        Parameters
        ----------
        X : frame or array of shape (n_rows, n_features), optional
            As for :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_rows,)
            Standard errors.
        """
        check_is_fitted(self)
        return self._effect_and_error(X, "predict_std_error")[1]

    def _effect_and_error(self, X: Any, method: str) -> tuple[FloatArray, FloatArray]:
        if self.forest_.group_size == 1:
            raise ParameterError(
                f"CausalForest.{method} needs trees in groups; this forest has ci_group_size=1. "
                "Refit with ci_group_size=2."
            )
        if X is None:
            return self.sample_.effect, np.sqrt(self.oob_variance_)
        got = self.forest_.predict(self._new_rows(X, method), n_jobs=self.n_jobs)
        return got.value, np.sqrt(got.variance)

    def forest_weights(self, X: Any) -> Any:
        """Weights that the forest gives to training rows when it predicts at ``X``.

        Parameters
        ----------
        X : frame or array of shape (n_rows, n_features)
            Rows.

        Returns
        -------
        scipy.sparse.csr_array of shape (n_rows, n_samples)
            Rows sum to one. The prediction is the weighted regression slope of the centred outcome
            on the centred treatment.

        Raises
        ------
        ParameterError
            The forest was fitted without ``store_weights=True``.
        """
        check_is_fitted(self)
        if self.forest_.members is None:
            raise ParameterError(
                "CausalForest.forest_weights needs what store_weights=True keeps; refit with it."
            )
        return self.forest_.weights(self._new_rows(X, "forest_weights"))

    @property
    def variable_importance_(self) -> Any:
        """Share of splits on each variable at depths 1 to 4, weighted by depth to the power -2."""
        import pandas as pd

        check_is_fitted(self)
        counts = self.forest_.depth_counts
        at_depth = counts.sum(axis=1)
        share = counts / np.maximum(at_depth, 1)[:, None]
        weight = np.where(at_depth > 0, np.arange(1, 5) ** -2.0, 0.0)
        value = weight @ share / weight.sum() if weight.any() else np.zeros(counts.shape[1])
        return pd.Series(value, index=list(self.modifier_names_), name="importance")

    def _summary_header(self) -> list[tuple[str, str]]:
        trees = f"{self.forest_.n_trees:,}"
        return [*super()._summary_header(), ("trees", trees)]

    def _summary_tables(self) -> list[Any]:
        from causalfair.reporting import Table

        top = self.variable_importance_.sort_values(ascending=False, kind="stable").head(5)
        rows = [[str(name), f"{value:.3f}"] for name, value in top.items()]
        title = "Variable importance" + ("" if len(self.modifier_names_) < 6 else " (top five)")
        return [*super()._summary_tables(), Table(["", "share of splits"], rows, title)]

    def _summary_notes(self) -> list[str]:
        kind = "binary" if self.sample_.binary else "real-valued: effect of one unit more"
        source = (
            "nuisances given"
            if self.nuisance_trees_ == 0
            else f"nuisances by out-of-bag regression forests of {self.nuisance_trees_:,} trees"
        )
        e = self.sample_.propensity
        overlap = f"; propensity {e.min():.2f} to {e.max():.2f}" if self.sample_.binary else ""
        return [f"Treatment {kind}; {source}{overlap}; {self.clipped_} value(s) clipped."]


def _units(problem: Problem) -> NDArray[np.intp]:
    return np.arange(problem.n) if problem.cluster is None else problem.cluster


def _digest(rows: FloatArray) -> str:
    import hashlib

    return hashlib.blake2b(np.ascontiguousarray(rows).tobytes(), digest_size=8).hexdigest()
