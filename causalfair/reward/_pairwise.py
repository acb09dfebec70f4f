"""Bradley-Terry rewards from preferences, with nuisances that are fitted and then dropped."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.crossfit import make_folds
from causalfair._core.random import child_seed, root_seed
from causalfair._core.roles import resolve_roles
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_matrix
from causalfair.exceptions import ConvergenceError, DataError, IdentificationError

__all__ = ["PairwiseReward", "bradley_terry"]

GRID = 10.0 ** np.linspace(-4, 1, 6)


def bradley_terry(
    D: FloatArray,
    win: FloatArray,
    weight: FloatArray,
    penalty: FloatArray,
    offset: FloatArray | None = None,
    *,
    max_iter: int = 100,
) -> tuple[FloatArray, FloatArray]:
    """Penalised logistic regression without intercept, by Newton's method.

    Parameters
    ----------
    D : numpy.ndarray of shape (n, k)
        Differences, first text less second.
    win : numpy.ndarray of shape (n,)
        Share of wins of the first text; a tie is one half.
    weight : numpy.ndarray of shape (n,)
        Weights.
    penalty : numpy.ndarray of shape (k,)
        Ridge penalty of each coefficient, per unit of weight.
    offset : numpy.ndarray of shape (n,), optional
        Known part of the log odds.
    max_iter : int, default 100
        Newton steps.

    Returns
    -------
    coef : numpy.ndarray of shape (k,)
        Coefficients.
    hessian : numpy.ndarray of shape (k, k)
        Mean Hessian of the penalised negative log-likelihood.
    """
    total = weight.sum()
    coef = np.zeros(D.shape[1])
    base = np.zeros(len(D)) if offset is None else offset

    def loss(b: FloatArray) -> float:
        eta = base + D @ b
        return float(weight @ (np.logaddexp(0, eta) - win * eta) / total + penalty @ b**2 / 2)

    value = loss(coef)
    for _ in range(max_iter):
        p = expit(base + D @ coef)
        gradient = D.T @ (weight * (p - win)) / total + penalty * coef
        hessian = (D * (weight * p * (1 - p))[:, None]).T @ D / total + np.diag(penalty)
        step = np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
        decrement = float(gradient @ step)
        if decrement < 1e-22 * max(1.0, abs(value)):
            return coef, hessian
        size = 1.0
        # Near the end a step gains less than the rounding of the loss; it is a good step still.
        slack = 4 * np.finfo(float).eps * max(1.0, abs(value))
        while (
            new := loss(coef - size * step)
        ) > value + slack - 1e-4 * size * decrement and size > 1e-8:
            size /= 2
        if size <= 1e-8:
            return coef, hessian
        coef, value = coef - size * step, new
        if np.abs(coef).max() > 500:
            break
    raise ConvergenceError(
        f"bradley_terry: coefficients run away (largest {np.abs(coef).max():.3g}): some feature "
        "separates all wins from all losses. Use a positive penalty."
    )


class PairwiseReward(CausalEstimator):
    """Bradley-Terry reward from pairwise outcomes, conditional on strata.

    ``P(i beats j) = sigmoid((x_i - x_j)'beta + nuisance'gamma)``. Anything that is constant within
    a stratum cancels inside its pairs; what differs within a pair (position on the page, age,
    length for annotators who like length) goes into ``nuisance``, is fitted, and is dropped when
    scoring.

    Parameters
    ----------
    penalty : "cv" or float, default "cv"
        Ridge penalty relative to the variances of the differences; ``"cv"`` by held-out
        log-likelihood, folds grouped by cluster.
    n_folds : int, default 5
        Folds of the cross-validation.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the folds.

    Attributes
    ----------
    coef_ : numpy.ndarray of shape (d,)
        Penalised reward per unit of each feature.
    nuisance_coef_ : numpy.ndarray of shape (q,)
        Coefficients of the nuisances.
    estimates_ : causalfair.inference.InfluenceEstimates
        Coefficients with the sandwich covariance, clustered where ``cluster`` is given.

    References
    ----------
    .. [1] R. A. Bradley and M. E. Terry (1952). Rank analysis of incomplete block designs.
       Biometrika 39, 324-345. doi:10.1093/biomet/39.3-4.324

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((4, 1))
    >>> reward = PairwiseReward(penalty=0.0).fit(one, np.array([1.0, 1.0, 1.0, 0.0]))
    >>> bool(np.isclose(reward.coef_[0], np.log(3)))
    True
    """

    _title: ClassVar[str] = "Pairwise reward"
    _estimand: ClassVar[str] = "log odds that a text is preferred, per unit of each feature"
    _assumptions: ClassVar[tuple[str, ...]] = (
        "preferences follow the Bradley-Terry model",
        "within a pair, what differs besides the text is in the nuisances",
    )
    _citations: ClassVar[tuple[str, ...]] = ("bradley1952rank",)
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "penalty": [StrOptions({"cv"}), Interval(Real, 0, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, penalty: Any = "cv", *, n_folds: int = 5, random_state: Any = None) -> None:
        self.penalty = penalty
        self.n_folds = n_folds
        self.random_state = random_state

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        covariates: Any = None,
        nuisance: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> PairwiseReward:
        """Learn the reward.

        Parameters
        ----------
        X : table or array of shape (n_pairs, d)
            Differences of the texts' features, first less second.
        y : array of shape (n_pairs,) or str
            Win of the first text: 1, 0, or a share such as 0.5 for a tie.
        covariates : list of str, "all" or formula, optional
            Columns of a table that hold the differences.
        nuisance : list of str or array of shape (n_pairs, q), optional
            Differences that are fitted but are no part of the reward.
        cluster : array, str or list of str, optional
            Strata, tests or annotators.
        sample_weight : array or str, optional
            Weights, such as the certainty of each label.

        Returns
        -------
        PairwiseReward
            Itself.
        """
        from causalfair.inference import InfluenceEstimates

        owner = "PairwiseReward.fit"
        root = root_seed(self.random_state)
        named = isinstance(nuisance, (list, tuple)) and all(isinstance(v, str) for v in nuisance)
        if covariates is None and named and hasattr(X, "columns") and not isinstance(y, str):
            covariates = [c for c in X.columns if c not in nuisance]
        data = resolve_roles(
            X, y, owner=owner, covariates=covariates, cluster=cluster, sample_weight=sample_weight
        )
        D, N = data.matrix(), _nuisance(X, nuisance, data.n, owner)
        assert data.y is not None
        self._check(D, data.y, owner)
        weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
        full = np.hstack([D, N])
        scale = np.concatenate([(weight[:, None] * D**2).mean(axis=0), np.zeros(N.shape[1])])
        self.penalty_ = (
            self._choose(full, data.y, weight, scale, data.cluster, root)
            if isinstance(self.penalty, str)
            else float(self.penalty)
        )
        d = D.shape[1]
        coef, _ = bradley_terry(full, data.y, weight, self.penalty_ * scale)
        self.coef_, self.nuisance_coef_ = coef[:d], coef[d:]
        # Intervals use the lightest penalty: frequentist inference wants none.
        free = np.full(len(scale), 0.0) if self.penalty_ == 0 else 1e-6 * scale
        plain, hessian = bradley_terry(full, data.y, weight, free)
        gap = data.y - expit(full @ plain)
        psi = (weight * gap)[:, None] * full @ np.linalg.pinv(hessian, hermitian=True)
        names = [*data.covariate_names, *(f"nuisance {j}" for j in range(N.shape[1]))]
        self.estimates_ = InfluenceEstimates(
            plain, psi - psi.mean(axis=0), names, cluster=data.cluster, sample_id=data.sample_id()
        )
        self._finish(data, seed=root)
        return self

    @staticmethod
    def _check(D: FloatArray, win: FloatArray, owner: str) -> None:
        outside = int(((win < 0) | (win > 1)).sum())
        if outside:
            raise DataError(
                f"{owner}: y is the win of the first text and must lie in [0, 1]; {outside} "
                f"value(s) do not (range {win.min():g} to {win.max():g})."
            )
        if not np.any(D):
            raise IdentificationError(
                f"{owner}: all differences are zero: the two texts of every pair have equal "
                "features."
            )

    def _choose(
        self, full: FloatArray, win: FloatArray, weight: FloatArray, scale: FloatArray,
        cluster: Any, root: Any,
    ) -> float:  # fmt: skip
        folds = make_folds(len(win), self.n_folds, seed=child_seed(root, 0), groups=cluster)
        losses = np.zeros(len(GRID))
        for j, penalty in enumerate(GRID):
            for fold in range(self.n_folds):
                train, test = folds != fold, folds == fold
                coef, _ = bradley_terry(full[train], win[train], weight[train], penalty * scale)
                eta = full[test] @ coef
                losses[j] += weight[test] @ (np.logaddexp(0, eta) - win[test] * eta)
        return float(GRID[int(np.argmin(losses))])

    def predict(self, X: Any) -> FloatArray:
        """Reward of texts, nuisances left out.

        Parameters
        ----------
        X : array of shape (n, d) or table
            Features of texts, or their differences.

        Returns
        -------
        numpy.ndarray of shape (n,)
            Log-odds scale.
        """
        check_is_fitted(self)
        if hasattr(X, "columns"):
            X = X[list(self.feature_names_in_)]
        matrix = check_matrix(X, "X", owner="PairwiseReward.predict")
        if matrix.shape[1] != len(self.coef_):
            raise DataError(
                f"PairwiseReward.predict: X has {matrix.shape[1]} features; the reward has "
                f"{len(self.coef_)}."
            )
        return np.asarray(matrix @ self.coef_)

    def win_probability(self, D: Any) -> tuple[FloatArray, FloatArray]:
        """Probability that the first text wins, and its delta-method variance.

        Parameters
        ----------
        D : array of shape (n, d)
            Differences of features.

        Returns
        -------
        probability, variance : numpy.ndarray of shape (n,)
            From the unpenalised fit.
        """
        d = len(self.coef_)
        matrix = check_matrix(D, "D", owner="PairwiseReward.win_probability")
        p = expit(matrix @ self.estimates_.estimate[:d])
        V = self.estimates_.vcov[:d, :d]
        return p, (p * (1 - p)) ** 2 * np.einsum("ij,jk,ik->i", matrix, V, matrix)


def _nuisance(X: Any, nuisance: Any, n: int, owner: str) -> FloatArray:
    if nuisance is None:
        return np.empty((n, 0))
    if isinstance(nuisance, str):
        nuisance = [nuisance]
    if isinstance(nuisance, (list, tuple)) and all(isinstance(v, str) for v in nuisance):
        return np.column_stack([np.asarray(X[c], dtype=np.float64) for c in nuisance])
    array = np.asarray(nuisance, dtype=np.float64)
    matrix = check_matrix(array[:, None] if array.ndim == 1 else array, "nuisance", owner=owner)
    if len(matrix) != n:
        raise DataError(f"{owner}: nuisance has {len(matrix)} rows and X has {n}.")
    return matrix
