"""Small exact tools: conformal radius, random effects, flipped feedback, weights, sparse ridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtrc

from causalfair._core.crossfit import make_folds
from causalfair._core.learners import fit_learner, predict_learner
from causalfair._core.random import child_seed, generator, root_seed
from causalfair._core.typing import FloatArray, RandomState
from causalfair._core.validation import check_level, check_numeric
from causalfair.exceptions import ConvergenceError, DataError, ParameterError
from causalfair.reward._absorb import Absorber, factorize

__all__ = [
    "RandomEffects",
    "absorbed_ridge",
    "conformal_radius",
    "independence_weights",
    "random_effects",
    "unflip_rate",
]


def conformal_radius(residuals: Any, level: float = 0.95) -> float:
    """Half-width that covers the next outcome with at least the given probability.

    Parameters
    ----------
    residuals : array of shape (n,)
        Held-out residuals, exchangeable with the next one.
    level : float, default 0.95
        Coverage.

    Returns
    -------
    float
        The ``ceil((n + 1) level)``-th smallest absolute residual; infinite where n is smaller.

    Examples
    --------
    >>> conformal_radius(range(1, 51), 0.9)
    46.0
    """
    check_level(level)
    sizes = np.sort(np.abs(check_numeric(residuals, "residuals", owner="conformal_radius")))
    rank = int(np.ceil((len(sizes) + 1) * level - 1e-9))
    return float(sizes[rank - 1]) if rank <= len(sizes) else float("inf")


def unflip_rate(rate: Any, *, false_positive: float, false_negative: float) -> Any:
    """True rate behind a rate of noisy binary feedback.

    Parameters
    ----------
    rate : float or array
        Observed share of ones.
    false_positive, false_negative : float
        Probability that a true 0 is recorded as 1, and a true 1 as 0; their sum is below 1.

    Returns
    -------
    float or numpy.ndarray
        ``(rate - false_positive) / (1 - false_positive - false_negative)``; sampling error can
        take it outside [0, 1].

    Raises
    ------
    ParameterError
        The rates are no probabilities, or together at least one.

    Examples
    --------
    >>> round(unflip_rate(0.38, false_positive=0.1, false_negative=0.2), 10)
    0.4
    """
    if not (false_positive >= 0 and false_negative >= 0 and false_positive + false_negative < 1):
        raise ParameterError(
            f"unflip_rate: false_positive={false_positive!r} and false_negative={false_negative!r} "
            "must be at least 0 and sum to less than 1; otherwise feedback says nothing."
        )
    return (rate - false_positive) / (1 - false_positive - false_negative)


@dataclass(frozen=True, slots=True)
class RandomEffects:
    """Slopes of one score within groups, by a random effect, and with group means added.

    Attributes
    ----------
    within, random, mundlak : slopes of fixed effects, random effects, and random effects with group
        means; the last equals the first.
    sigma2, tau2 : variances within and between groups.
    test : robust Wald test that the group means have no coefficient.
    """

    within: float
    random: float
    mundlak: float
    sigma2: float
    tau2: float
    test: Any


def random_effects(
    score: Any, y: Any, group: Any, *, sigma2: float | None = None, tau2: float | None = None
) -> RandomEffects:
    """Random effects, and the test of Mundlak whether they would do.

    Parameters
    ----------
    score : array of shape (n,)
        A score of the text.
    y : array of shape (n,)
        Outcome.
    group : array of shape (n,)
        Groups.
    sigma2, tau2 : float, optional
        Variances within and between groups; estimated when None.

    Returns
    -------
    RandomEffects
        Slopes and test.

    Raises
    ------
    DataError
        The score does not vary within groups, or there are fewer than three groups.

    References
    ----------
    .. [1] Y. Mundlak (1978). On the pooling of time series and cross section data. Econometrica 46,
       69-85. doi:10.2307/1913646

    Examples
    --------
    >>> import numpy as np
    >>> group = np.repeat(np.arange(50), 4)
    >>> level = np.random.default_rng(0).normal(size=50)[group]
    >>> x = np.random.default_rng(1).normal(size=200) + level
    >>> found = random_effects(x, x + 2 * level, group, sigma2=1.0, tau2=4.0)
    >>> round(found.within, 6), found.random > 1.01
    (1.0, True)
    """
    from causalfair.inference import HypothesisTest
    from causalfair.inference.vcov import clustered_vcov

    x = check_numeric(score, "score", owner="random_effects")
    out = check_numeric(y, "y", owner="random_effects")
    codes = factorize(group)[0]
    size = np.bincount(codes)
    if len(size) < 3:
        raise DataError(f"random_effects: {len(size)} group(s); at least 3 are needed.")
    mean_x, mean_y = np.bincount(codes, x) / size, np.bincount(codes, out) / size
    x_in, y_in = x - mean_x[codes], out - mean_y[codes]
    total = float(x_in @ x_in)
    if total <= 1e-14 * float(x @ x):
        raise DataError("random_effects: the score does not vary within groups.")
    within = float(x_in @ y_in) / total
    if sigma2 is None:
        room = max(len(x) - len(size) - 1, 1)
        sigma2 = float(((y_in - within * x_in) ** 2).sum()) / room
    if tau2 is None:  # between regression of group means, less the noise of a mean
        gap = mean_y - np.polyval(np.polyfit(mean_x, mean_y, 1), mean_x)
        tau2 = max(0.0, float(gap @ gap) / (len(size) - 2) - sigma2 * float(np.mean(1 / size)))
    theta = 1 - np.sqrt(sigma2 / np.maximum(sigma2 + size * tau2, np.finfo(float).tiny))
    shrunk = out - (theta * mean_y)[codes]
    one, own = 1 - theta[codes], x - (theta * mean_x)[codes]
    between = ((1 - theta) * mean_x)[codes]
    plain = np.linalg.lstsq(np.column_stack([own, one]), shrunk, rcond=None)[0]
    design = np.column_stack([own, one, between])
    coef = np.linalg.lstsq(design, shrunk, rcond=None)[0]
    inverse = np.linalg.pinv(design.T @ design / len(x), hermitian=True)
    psi = design * (shrunk - design @ coef)[:, None] @ inverse
    variance = float(clustered_vcov(psi - psi.mean(axis=0), codes[:, None].astype(np.intp))[2, 2])
    value = float(coef[2] ** 2 / variance) if variance > 0 else float("nan")
    test = HypothesisTest(
        "Mundlak", "group means have no effect of their own", value, float(chdtrc(1, value)), 1
    )
    return RandomEffects(within, float(plain[0]), float(coef[0]), sigma2, tau2, test)


def independence_weights(
    text: Any,
    confounders: Any,
    *,
    method: str = "permutation",
    n_permutations: int = 10,
    n_folds: int = 5,
    random_state: RandomState = None,
) -> FloatArray:
    """Weights that make text and circumstances independent.

    Parameters
    ----------
    text : array of shape (n,) or (n, d)
        A property of the text, or its features.
    confounders : array of shape (n,) or (n, k)
        Circumstances.
    method : {"permutation", "discrete"}, default "permutation"
        ``"permutation"`` separates the rows from rows with circumstances permuted by a cross-fitted
        classifier; ``"discrete"`` is ``p(a) p(w) / p(a, w)`` for one discrete column each.
    n_permutations : int, default 10
        Permutations averaged over.
    n_folds : int, default 5
        Folds of the classifier.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    numpy.ndarray of shape (n,)
        Weights with mean one, those of ``"permutation"`` cut at their 99th percentile.

    Raises
    ------
    ParameterError
        The method is unknown.
    DataError
        Lengths differ, or ``"discrete"`` was given more than one column.

    References
    ----------
    .. [1] D. Arbour, D. Dimmery, A. Sondhi (2021). Permutation weighting. ICML. arXiv:1901.01230

    Examples
    --------
    >>> import numpy as np
    >>> w = np.repeat([0, 1], 50)
    >>> a = np.concatenate([np.repeat([1, 0], [10, 40]), np.repeat([1, 0], [40, 10])])
    >>> sorted(set(independence_weights(a, w, method="discrete").round(10).tolist()))
    [0.625, 2.5]
    """
    if method not in ("permutation", "discrete"):
        raise ParameterError(f"method={method!r} must be 'permutation' or 'discrete'.")
    A, W = (np.asarray(v).reshape(len(v), -1) for v in (text, confounders))
    if len(A) != len(W):
        raise DataError(f"independence_weights: text has {len(A)} rows and confounders {len(W)}.")
    if method == "discrete":
        if A.shape[1] != 1 or W.shape[1] != 1:
            raise DataError(
                "independence_weights: method='discrete' is for one column each; got "
                f"{A.shape[1]} and {W.shape[1]}. Use method='permutation'."
            )
        a, w = factorize(A[:, 0])[0], factorize(W[:, 0])[0]
        cell = a.astype(np.intp) * (int(w.max()) + 1) + w
        joint = np.bincount(cell)
        return np.asarray(np.bincount(a)[a] * np.bincount(w)[w] / (len(a) * joint[cell]))
    from sklearn.ensemble import HistGradientBoostingClassifier

    learner = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, learning_rate=0.1)
    root, n = root_seed(random_state), len(A)
    A, W = A.astype(np.float64), W.astype(np.float64)
    total = np.zeros(n)
    for b in range(n_permutations):
        mixed = np.hstack([A, W[generator(root, b).permutation(n)]])
        stacked = np.vstack([np.hstack([A, W]), mixed])
        label = np.repeat([0.0, 1.0], n)
        folds = make_folds(n, n_folds, seed=child_seed(root, b, 0))
        for fold in range(n_folds):
            train, test = np.tile(folds != fold, 2), np.flatnonzero(folds == fold)
            model = fit_learner(
                learner, stacked[train], label[train], seed=child_seed(root, b, 1, fold)
            )
            p = np.clip(predict_learner(model, stacked[test], "predict_proba"), 1e-6, 1 - 1e-6)
            total[test] += p / (1 - p)
    cut = np.minimum(total, np.quantile(total, 0.99))
    return np.asarray(cut / cut.mean())


def absorbed_ridge(
    X: Any, y: Any, absorber: Absorber, penalty: float, *, tol: float = 1e-12
) -> FloatArray:
    """Ridge with absorbed factors on a sparse matrix that is never made dense.

    Parameters
    ----------
    X : sparse or dense array of shape (n, d)
        Features.
    y : array of shape (n,)
        Outcome.
    absorber : Absorber
        Fitted, without weights, to the factors.
    penalty : float
        Per-sample penalty, the same for all columns.
    tol : float, default 1e-12
        Relative residual at which conjugate gradients stop.

    Returns
    -------
    numpy.ndarray of shape (d,)
        Solution of ``(X'MX / n + penalty I) b = X'My / n``.

    Raises
    ------
    ConvergenceError
        The iterations did not get there.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> X = sparse.random(60, 5, 0.5, random_state=0, format="csr")
    >>> absorber = Absorber().fit(np.repeat(np.arange(6), 10))
    >>> absorbed_ridge(X, X @ np.ones(5), absorber, 1e-8).round(4).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    from scipy.sparse.linalg import LinearOperator, cg

    if not penalty > 0:
        raise ParameterError(f"absorbed_ridge: penalty={penalty!r} must be positive.")
    n, d = X.shape
    right = X.T @ absorber.residualize(check_numeric(y, "y", owner="absorbed_ridge")) / n

    def apply(b: FloatArray) -> FloatArray:
        return np.asarray(X.T @ absorber.residualize(X @ b) / n + penalty * b)

    system = LinearOperator((d, d), matvec=apply, dtype=np.float64)
    coef, left = cg(system, right, rtol=tol, maxiter=20 * d + 200)
    if left:
        gap = float(np.linalg.norm(apply(coef) - right)) / max(float(np.linalg.norm(right)), 1e-300)
        raise ConvergenceError(
            f"absorbed_ridge: residual {gap:.1e} after {20 * d + 200} steps, wanted {tol:g}. Raise "
            "penalty or tol."
        )
    return np.asarray(coef)
