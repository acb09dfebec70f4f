"""Density ratios from samples, and what they balance."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.crossfit import out_of_fold
from causalfair._core.learners import default_classifier
from causalfair._core.random import root_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_matrix, check_numeric
from causalfair.exceptions import DataError

__all__ = ["density_ratio", "ratio_balance"]

CLIP = 1e-6


def density_ratio(
    X_old: Any,
    X_new: Any,
    *,
    learner: Any = None,
    n_folds: int = 5,
    cluster_old: Any = None,
    cluster_new: Any = None,
    random_state: Any = None,
) -> FloatArray:
    """Ratio of new to logged density at the logged rows, from samples of both.

    Parameters
    ----------
    X_old : array of shape (n_old, p)
        Texts (and contexts) that were logged, as features. A coarse representation gives the
        marginalised ratio, of smaller variance, valid where the outcome depends on it alone.
    X_new : array of shape (n_new, p)
        Samples of the new policy.
    learner : classifier, optional
        Separates the two; by default the library's default classifier.
    n_folds : int, default 5
        Folds of the cross-fit.
    cluster_old, cluster_new : arrays of shape (n_old,) and (n_new,), optional
        Contexts or articles, in the same labels on both sides; they do not straddle folds.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    numpy.ndarray of shape (n_old,)
        ``p / (1 - p) * n_old / n_new``, normalised to mean one.

    Raises
    ------
    DataError
        The two samples have different columns, or one cluster argument is missing.

    References
    ----------
    .. [1] Y. Saito and T. Joachims (2022). Off-policy evaluation for large action spaces via
       embeddings. ICML. arXiv:2202.06317

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> old, new = rng.normal(size=(4000, 1)), rng.normal(0.5, size=(4000, 1))
    >>> ratio = density_ratio(old, new, learner=LogisticRegression(), random_state=0)
    >>> want = np.exp(0.5 * old[:, 0] - 0.125)
    >>> bool(np.corrcoef(np.log(ratio), np.log(want))[0, 1] > 0.999)
    True
    """
    import pandas as pd

    owner = "density_ratio"
    old, new = check_matrix(X_old, "X_old", owner=owner), check_matrix(X_new, "X_new", owner=owner)
    if old.shape[1] != new.shape[1]:
        raise DataError(
            f"{owner}: X_old has {old.shape[1]} columns and X_new {new.shape[1]}; both need the "
            "same features."
        )
    if (cluster_old is None) != (cluster_new is None):
        raise DataError(f"{owner}: give both cluster_old= and cluster_new=, or neither.")
    groups = None
    if cluster_old is not None:
        check_lengths(owner=owner, X_old=old, cluster_old=cluster_old)
        check_lengths(owner=owner, X_new=new, cluster_new=cluster_new)
        both = np.concatenate([np.asarray(cluster_old), np.asarray(cluster_new)])
        groups = np.unique(both, return_inverse=True)[1].reshape(-1)
    X = pd.DataFrame(np.vstack([old, new]), columns=[f"x{j}" for j in range(old.shape[1])])
    label = np.repeat([0.0, 1.0], [len(old), len(new)])
    p = out_of_fold(
        default_classifier(*X.shape) if learner is None else learner,
        X, label, n_folds=n_folds, seed=root_seed(random_state), method="predict_proba",
        groups=groups, stratify=label,
    )[: len(old)]  # fmt: skip
    p = np.clip(p, CLIP, 1 - CLIP)
    ratio = p / (1 - p) * len(old) / len(new)
    return np.asarray(ratio / ratio.mean())


def ratio_balance(ratio: Any, X_old: Any, X_new: Any, names: Any = None) -> Any:
    """How far weighted logged rows are from samples of the new policy, feature by feature.

    Parameters
    ----------
    ratio : array of shape (n_old,)
        Density ratios.
    X_old, X_new : arrays of shape (n_old, p) and (n_new, p)
        Features of both.
    names : sequence of str, optional
        Names of the features.

    Returns
    -------
    pandas.DataFrame
        ``feature``, and the gap to the new policy's mean, in its standard deviations, ``before``
        and ``after`` weighting. After weighting it should be near zero.

    Examples
    --------
    >>> ratio_balance([0.5, 1.5], [[0.0], [1.0]], [[0.5], [1.0]]).round(2).values.tolist()
    [['x0', -1.0, 0.0]]
    """
    import pandas as pd

    owner = "ratio_balance"
    rho = check_numeric(ratio, "ratio", owner=owner)
    old, new = check_matrix(X_old, "X_old", owner=owner), check_matrix(X_new, "X_new", owner=owner)
    check_lengths(owner=owner, ratio=rho, X_old=old)
    if old.shape[1] != new.shape[1]:
        raise DataError(f"{owner}: X_old has {old.shape[1]} columns and X_new {new.shape[1]}.")
    spread = new.std(axis=0)
    safe = np.where(spread > 0, spread, 1.0)
    centre = new.mean(axis=0)
    labels = [f"x{j}" for j in range(old.shape[1])] if names is None else list(names)
    weighted = np.average(old, axis=0, weights=rho)
    return pd.DataFrame(
        {
            "feature": labels,
            "before": (old.mean(axis=0) - centre) / safe,
            "after": (weighted - centre) / safe,
        }
    )
