"""Simulated studies in which the effect varies with covariates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, RandomState
from causalfair.exceptions import ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["make_cluster_trial", "make_heterogeneous_effects"]

LEAST_COLUMNS = 5


def make_heterogeneous_effects(
    n: int = 1000,
    *,
    setup: str = "B",
    n_covariates: int = 10,
    noise: float = 1.0,
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Simulate one of the four designs of Nie and Wager (2021).

    The outcome is ``b(x) + (w - 1/2) tau(x) + noise``. In A effects are smooth and the propensity
    is difficult; B is a randomised trial; in C the propensity is easy, the baseline difficult and
    the effect constant; in D the arms have nothing in common.

    Parameters
    ----------
    n : int, default 1000
        Number of rows.
    setup : {"A", "B", "C", "D"}, default "B"
        Design.
    n_covariates : int, default 10
        Number of covariates, five or more; those from the sixth on do nothing.
    noise : float, default 1
        Standard deviation of the outcome's noise.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame of shape (n, n_covariates + 2)
        Columns ``x0, x1, ...``, ``treatment`` and ``y``.
    truth : mapping
        ``effect``, ``propensity`` and ``outcome`` (expected given covariates), each (n,), and
        ``ate``, their sample average effect.

    Raises
    ------
    ParameterError
        An unknown design, or fewer than five covariates.

    References
    ----------
    .. [1] X. Nie and S. Wager (2021). Quasi-oracle estimation of heterogeneous treatment effects.
       Biometrika 108, 299-319, section 5. doi:10.1093/biomet/asaa076

    Examples
    --------
    >>> from causalfair.datasets import make_heterogeneous_effects
    >>> frame, truth = make_heterogeneous_effects(100, setup="A", random_state=0)
    >>> frame.shape, truth["effect"].shape
    ((100, 12), (100,))
    """
    if setup not in ("A", "B", "C", "D"):
        raise ParameterError(f"setup={setup!r} is not one of 'A', 'B', 'C', 'D'.")
    if n_covariates < LEAST_COLUMNS:
        raise ParameterError(
            f"n_covariates={n_covariates!r} must be at least {LEAST_COLUMNS}: the designs use five."
        )
    rng = generator(root_seed(random_state), 0)
    shape = (n, n_covariates)
    X = rng.uniform(size=shape) if setup == "A" else rng.normal(size=shape)
    baseline, propensity, effect = _design(setup, X)
    treatment = (rng.uniform(size=n) < propensity).astype(np.int64)
    y = baseline + (treatment - 0.5) * effect + noise * rng.normal(size=n)
    truth = {
        "effect": effect,
        "propensity": propensity,
        "outcome": baseline + (propensity - 0.5) * effect,
        "ate": float(effect.mean()),
    }
    return _frame(X, treatment=treatment, y=y), truth


def _design(setup: str, X: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Baseline b, propensity e and effect tau of a design."""
    x1, x2, x3, x4, x5 = X[:, :5].T
    if setup == "A":
        wave = np.sin(np.pi * x1 * x2)
        return wave + 2 * (x3 - 0.5) ** 2 + x4 + x5 / 2, np.clip(wave, 0.1, 0.9), (x1 + x2) / 2
    if setup == "B":
        baseline = np.maximum(np.maximum(x1 + x2, x3), 0) + np.maximum(x4 + x5, 0)
        return baseline, np.full(len(X), 0.5), x1 + np.logaddexp(0, x2)
    if setup == "C":
        return 2 * np.logaddexp(0, x1 + x2 + x3), expit(-(x2 + x3)), np.ones(len(X))
    first, second = np.maximum(x1 + x2 + x3, 0), np.maximum(x4 + x5, 0)
    return (first + second) / 2, 1 / (1 + np.exp(-x1) + np.exp(-x2)), first - second


def _frame(X: FloatArray, **columns: Any) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    return frame.assign(**columns)


def make_cluster_trial(
    n_clusters: int = 100,
    *,
    cluster_size: int = 20,
    correlation: float = 0.2,
    heterogeneity: float = 1.0,
    missing: float = 0.0,
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Simulate a trial that assigns whole clusters, such as schools, to treatment.

    Half of the clusters are treated. The effect is ``1 + heterogeneity * (x0 + z) / 2``, where
    ``x0`` is a characteristic of the unit and ``z`` one of its cluster (column ``x1``).

    Parameters
    ----------
    n_clusters : int, default 100
        Number of clusters, two or more.
    cluster_size : int, default 20
        Mean size; sizes are Poisson and at least one.
    correlation : float in [0, 1), default 0.2
        Share of the outcome's noise variance that lies between clusters.
    heterogeneity : float, default 1
        Strength of effect variation; 0 for none.
    missing : float in [0, 1), default 0
        Share of missing values in ``x0, x2, x3``.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``x0, ..., x3``, ``cluster``, ``treatment`` and ``y``.
    truth : mapping
        ``effect`` (n,), ``propensity`` (0.5), ``ate``.

    Raises
    ------
    ParameterError
        A parameter outside its range.

    Examples
    --------
    >>> from causalfair.datasets import make_cluster_trial
    >>> frame, truth = make_cluster_trial(50, random_state=0)
    >>> int(frame["cluster"].nunique())
    50
    """
    if n_clusters < 2 or cluster_size < 1:
        raise ParameterError(
            f"n_clusters={n_clusters!r} and cluster_size={cluster_size!r} must be at least 2 and 1."
        )
    for name, value in (("correlation", correlation), ("missing", missing)):
        if not 0 <= value < 1:
            raise ParameterError(f"{name}={value!r} must lie in [0, 1).")
    rng = generator(root_seed(random_state), 0)
    sizes = np.maximum(rng.poisson(cluster_size, n_clusters), 1)
    cluster = np.repeat(np.arange(n_clusters), sizes)
    n = cluster.size
    X = rng.normal(size=(n, 4))
    X[:, 1] = rng.normal(size=n_clusters)[cluster]
    treated = rng.permutation(n_clusters) < n_clusters // 2
    effect = 1 + heterogeneity * (X[:, 0] + X[:, 1]) / 2
    noise = np.sqrt(correlation) * rng.normal(size=n_clusters)[cluster]
    noise = noise + np.sqrt(1 - correlation) * rng.normal(size=n)
    treatment = treated[cluster].astype(np.int64)
    y = X[:, 2] + treatment * effect + noise
    holes = rng.uniform(size=(n, 3)) < missing
    X[:, [0, 2, 3]] = np.where(holes, np.nan, X[:, [0, 2, 3]])
    truth = {"effect": effect, "propensity": 0.5, "ate": float(effect.mean())}
    return _frame(X, cluster=cluster, treatment=treatment, y=y), truth
