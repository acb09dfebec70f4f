"""Choose the parameters of a forest by its out-of-bag error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair._core.logging import progress, warn
from causalfair._core.random import child_seed, generator, root_seed
from causalfair.exceptions import ConvergenceWarning, ParameterError
from causalfair.forest._base import Problem
from causalfair.forest._engine import ForestSpec, grow_forest
from causalfair.forest._estimator import CausalForest

__all__ = ["TunedForest", "tune_forest"]

FloatArray = NDArray[np.float64]
OWNER = "tune_forest"
PARAMETERS = (
    "min_leaf_size", "sample_fraction", "max_features", "alpha", "imbalance_penalty",
    "honesty_fraction", "prune_empty_leaves",
)  # fmt: skip
SPEC_NAMES = {"prune_empty_leaves": "prune"}
LEAST_ERRORS = 10
CANDIDATES = 1000


@dataclass(frozen=True)
class TunedForest:
    """Result of :func:`tune_forest`.

    Attributes
    ----------
    forest_ : CausalForest
        Unfitted forest with the parameters chosen.
    parameters_ : dict
        What was changed; empty where the defaults won.
    error_, default_error_ : float
        Debiased out-of-bag error of the best draw and of the defaults.
    draws_ : pandas.DataFrame
        Parameters drawn and their errors.
    """

    forest_: CausalForest
    parameters_: dict[str, Any]
    error_: float
    default_error_: float
    draws_: Any

    def __str__(self) -> str:
        if not self.parameters_:
            return (
                f"Tuned forest: the defaults stay (error {self.default_error_:.5g}, best draw "
                f"{self.error_:.5g})."
            )
        shown = ", ".join(f"{k}={v:.3g}" for k, v in self.parameters_.items())
        return (
            f"Tuned forest: {shown} (error {self.error_:.5g}, defaults {self.default_error_:.5g})."
        )

    __repr__ = __str__


def tune_forest(
    forest: CausalForest,
    X: Any,
    y: Any,
    *,
    treatment: Any,
    nuisances: Any = None,
    covariates: Any = None,
    effect_modifiers: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    parameters: Sequence[str] | None = None,
    n_draws: int = 50,
    n_trees: int = 200,
    n_trees_final: int = 800,
    random_state: Any = None,
) -> TunedForest:
    """Choose parameters of a causal forest by cross-validation on its out-of-bag trees.

    Parameters
    ----------
    forest : CausalForest
        Forest to start from; it stays as it is.
    X, y, treatment, nuisances, covariates, effect_modifiers, cluster, sample_weight : object
        As for :meth:`CausalForest.fit`.
    parameters : list of str, optional
        What to tune; all of ``min_leaf_size, sample_fraction, max_features, alpha,
        imbalance_penalty, honesty_fraction, prune_empty_leaves`` when None (the last two only
        where the forest is honest).
    n_draws : int, default 50
        Random draws of the parameters.
    n_trees : int, default 200
        Trees of each small forest.
    n_trees_final : int, default 800
        Trees of the forests that compare the best draw with the defaults.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    TunedForest
        Unfitted forest with the chosen parameters, and the errors behind the choice.

    Raises
    ------
    ParameterError
        An unknown parameter.

    Warns
    -----
    ConvergenceWarning
        Fewer than ten forests have an error, or all errors are equal; the defaults stay.

    Notes
    -----
    The error is the out-of-bag R-loss less its jackknife estimate of what finitely many trees add.
    A Gaussian process smooths it over the draws, its minimum among 1,000 new draws is refitted
    with more trees, and kept only if it beats the defaults.

    References
    ----------
    .. [1] X. Nie and S. Wager (2021). Quasi-oracle estimation of heterogeneous treatment effects.
       Biometrika 108, 299-319. doi:10.1093/biomet/asaa076

    Examples
    --------
    >>> from causalfair.datasets import make_heterogeneous_effects
    >>> from causalfair.forest import CausalForest, tune_forest
    >>> frame, _ = make_heterogeneous_effects(200, random_state=0)
    >>> tuned = tune_forest(
    ...     CausalForest(200), frame, "y", treatment="treatment", covariates="all",
    ...     nuisances={"propensity": 0.5, "outcome": 1.0}, n_draws=12, n_trees=30,
    ...     n_trees_final=50, random_state=0)
    >>> type(tuned.forest_).__name__
    'CausalForest'
    """
    names = _names(parameters, forest)
    problem = Problem(
        X, y, owner=OWNER, treatment=treatment, nuisances=nuisances, binary_only=False,
        allow_nan=True, covariates=covariates, effect_modifiers=effect_modifiers, cluster=cluster,
        sample_weight=sample_weight,
    )  # fmt: skip
    root = root_seed(random_state)
    search = _Search.of(forest, problem, names, root)
    rng = generator(root, 1)
    draws = rng.uniform(size=(n_draws, len(names)))
    errors = np.array(
        [
            search.error(search.values(u), n_trees, 2, k)
            for k, u in enumerate(progress(list(draws), "tuning"))
        ]
    )
    default = search.error({}, n_trees_final, 3)
    table = _table(search, draws, errors)
    usable = np.isfinite(errors)
    if usable.sum() < LEAST_ERRORS or np.ptp(errors[usable]) <= 1e-12 * abs(default):
        warn(
            f"{OWNER}: {int(usable.sum())} of {n_draws} forests have an out-of-bag error and they "
            f"differ by {np.ptp(errors[usable]) if usable.any() else 0:.2g}; the defaults stay. "
            "More rows, trees or draws may help.",
            ConvergenceWarning,
        )
        return TunedForest(search.forest, {}, np.nan, default, table)
    best = _smoothed_minimum(draws[usable], errors[usable], rng)
    chosen = search.values(best)
    error = search.error(chosen, n_trees_final, 4)
    if not error < default:
        return TunedForest(search.forest, {}, error, default, table)
    return TunedForest(search.forest.set_params(**chosen), chosen, error, default, table)


def _names(parameters: Sequence[str] | None, forest: CausalForest) -> list[str]:
    known = [p for p in PARAMETERS if forest.honesty or p not in PARAMETERS[-2:]]
    names = known if parameters is None else list(parameters)
    for name in names:
        if name not in known:
            raise ParameterError(
                f"{OWNER}: parameters has {name!r}, which cannot be tuned here; choose from "
                f"{', '.join(known)}."
            )
    if not names:
        raise ParameterError(f"{OWNER}: parameters is empty; name one or leave it out.")
    return names


@dataclass
class _Search:
    """Centred data and the map from the unit cube to parameters."""

    forest: CausalForest
    problem: Problem
    names: list[str]
    root: Any
    X: FloatArray
    targets: FloatArray

    @classmethod
    def of(cls, forest: CausalForest, problem: Problem, names: list[str], root: Any) -> _Search:
        from sklearn.base import clone

        copy = clone(forest)
        outcome, propensity = copy._nuisances(problem, problem.data.matrix(), child_seed(root, 0))
        targets = np.column_stack([problem.y - outcome, problem.w - propensity, copy._w(problem)])
        X = problem.data.matrix(problem.data.modifiers)
        return cls(clone(forest), problem, names, root, X, targets)

    def values(self, u: FloatArray) -> dict[str, Any]:
        """Parameters at a point of the unit cube."""
        n, p = self.X.shape
        maps: dict[str, Callable[[float], Any]] = {
            "min_leaf_size": lambda t: max(1, math.floor(2 ** (t * (math.log2(n) - 4)))),
            "sample_fraction": lambda t: 0.05 + 0.45 * t,
            "max_features": lambda t: max(1, math.ceil(min(p, math.sqrt(p) + 20) * t)),
            "alpha": lambda t: t / 4,
            "imbalance_penalty": lambda t: -math.log(max(t, 1e-12)),
            "honesty_fraction": lambda t: 0.5 + 0.3 * t,
            "prune_empty_leaves": lambda t: bool(t < 0.5),
        }
        return {name: maps[name](float(t)) for name, t in zip(self.names, u, strict=True)}

    def error(self, values: dict[str, Any], n_trees: int, *key: int) -> float:
        """Mean debiased out-of-bag error of a forest of single trees."""
        spec: ForestSpec = replace(
            self.forest._spec(),
            n_trees=n_trees,
            group_size=1,
            store_members=False,
            **{SPEC_NAMES.get(name, name): value for name, value in values.items()},
        )
        seeds = child_seed(self.root, *key).generate_state(n_trees, np.uint64)
        cluster, jobs = self.problem.cluster, self.forest.n_jobs
        grown = grow_forest(
            self.X, self.targets, spec, seeds=seeds.astype(np.uint64), cluster=cluster, n_jobs=jobs
        )
        units = np.arange(self.problem.n) if cluster is None else cluster
        errors = grown.errors(self.X, self.targets, out_of_bag=units, n_jobs=jobs)
        spoken = np.isfinite(errors)
        if not spoken.any():
            return math.nan
        return float(np.average(errors[spoken], weights=self.targets[spoken, 2]))


def _smoothed_minimum(
    draws: FloatArray, errors: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Point of the unit cube where a Gaussian process through the errors is lowest."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    scaled = (errors - errors.mean()) / errors.std()
    process = GaussianProcessRegressor(RBF(1.0, (0.1, 10.0)), alpha=0.5, random_state=0)
    process.fit(draws, scaled)
    candidates = rng.uniform(size=(CANDIDATES, draws.shape[1]))
    return np.asarray(candidates[int(np.argmin(process.predict(candidates)))])


def _table(search: _Search, draws: FloatArray, errors: FloatArray) -> Any:
    import pandas as pd

    return pd.DataFrame([search.values(u) for u in draws]).assign(error=errors)
