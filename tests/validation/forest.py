"""Monte-Carlo tables of the forest family, stored for the documentation.

``nox -s validation -- forest`` rewrites ``docs/_data/validation/forest_*.csv``;
``--quick`` runs fewer replications and compares with the stored tables instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from scipy.stats import binom
from validation._tables import Table, run

from causalfair.datasets import make_cluster_trial, make_heterogeneous_effects
from causalfair.forest import (
    CausalForest,
    group_average_effects,
    randomization_test,
    rank_average_treatment_effect,
    validate_ranking,
)

RATES = {"autoc": 0.90319, "qini": 0.28209479}  # of a standard normal effect ranked perfectly


def row(name: str, estimates: list[float], errors: list[float], truth: list[float]) -> dict:
    estimate, error = np.array(estimates), np.array(errors)
    gap = estimate - np.array(truth)
    spread = gap.std(ddof=1)
    return {
        "estimator": name,
        "bias": gap.mean(),
        "SD": spread,
        "mean SE": error.mean(),
        "SE / SD": error.mean() / spread,
        "coverage": np.mean(np.abs(gap) < 1.959964 * error),
    }


def rate_coverage(replications: int) -> Iterator[dict]:
    """RATE of a perfect ranking in a trial with known propensity; n = 1,000."""
    for method, truth in RATES.items():
        for kind in ("bootstrap", "influence"):
            estimates, errors = [], []
            for seed in range(replications):
                rng = np.random.default_rng([1, seed])
                tau = rng.normal(size=1000)
                w = rng.integers(0, 2, 1000)
                y = tau * w + rng.normal(size=1000)
                gamma = 4 * (w - 0.5) * (y - tau / 2)
                rate = rank_average_treatment_effect(
                    tau, gamma, method=method, std_error=kind, q=[1.0], random_state=seed
                )
                estimates.append(rate.estimates_.estimate[0])
                errors.append(rate.estimates_.std_error[0])
            yield row(f"{method.upper()}, {kind}", estimates, errors, [truth] * replications)


def average_coverage(replications: int) -> Iterator[dict]:
    """Average effects of a forest of 200 trees; n = 800, or 60 clusters of 15."""
    designs: dict[str, Callable] = {
        "randomised (setup B)": lambda seed: trial(seed, "B", known=True),
        "observational (setup A)": lambda seed: trial(seed, "A", known=False),
        "cluster randomised": cluster_trial,
    }
    for design, make in designs.items():
        collected: dict[str, tuple[list, list, list]] = {}
        for seed in range(replications):
            forest, truth = make(seed)
            for target, value in truth.items():
                est = forest.average_effect(target)
                store = collected.setdefault(est.names[0], ([], [], []))
                for cell, number in zip(
                    store, (est.estimate[0], est.std_error[0], value), strict=True
                ):
                    cell.append(number)
        for name, (estimates, errors, truths) in collected.items():
            yield row(f"{design}: {name}", estimates, errors, truths)


def trial(seed: int, setup: str, *, known: bool) -> tuple[CausalForest, dict[str, float]]:
    frame, truth = make_heterogeneous_effects(800, setup=setup, n_covariates=5, random_state=seed)
    given = {"propensity": truth["propensity"]} if known else None
    forest = CausalForest(200, random_state=seed).fit(
        frame, "y", treatment="treatment", covariates="all", nuisances=given
    )
    tau, e = truth["effect"], truth["propensity"]
    w = frame["treatment"].to_numpy() == 1
    overlap = np.average(tau, weights=e * (1 - e))
    sample = {"all": tau.mean(), "treated": tau[w].mean(), "overlap": overlap}
    population = population_effects(setup)
    return forest, {target: population.get(target, value) for target, value in sample.items()}


def cluster_trial(seed: int) -> tuple[CausalForest, dict[str, float]]:
    frame, _ = make_cluster_trial(60, cluster_size=15, random_state=seed)
    forest = CausalForest(200, random_state=seed).fit(
        frame, "y", treatment="treatment", covariates=["x0", "x1", "x2", "x3"], cluster="cluster",
        nuisances={"propensity": 0.5},
    )  # fmt: skip
    return forest, {"all": 1.0}


@cache
def population_effects(setup: str) -> dict[str, float]:
    _, truth = make_heterogeneous_effects(2_000_000, setup=setup, n_covariates=5, random_state=0)
    tau, e = truth["effect"], truth["propensity"]
    weights = {"all": np.ones_like(e), "treated": e, "overlap": e * (1 - e)}
    return {target: float(np.average(tau, weights=w)) for target, w in weights.items()}


def ranking_tests(replications: int) -> Iterator[dict]:
    """Share of rejections at 5 % without (size) and with (power) heterogeneity; n = 600."""
    for name, strength in (("no heterogeneity", 0.0), ("weak heterogeneity", 0.5)):
        rejected: dict[str, list[bool]] = {"sequential": [], "split": [], "naive folds": []}
        for seed in range(replications):
            rng = np.random.default_rng([2, seed])
            X = rng.normal(size=(600, 4))
            w = rng.integers(0, 2, 600)
            y = X[:, 1] + w * (1 + strength * X[:, 0]) + rng.normal(size=600)
            roles = {"treatment": w, "nuisances": {"propensity": 0.5}}
            forest = CausalForest(100, random_state=seed)
            for scheme in ("sequential", "split"):
                check = validate_ranking(
                    forest, X, y, **roles, scheme=scheme, n_bootstrap=60, random_state=seed
                )
                rejected[scheme].append(check.p_value < 0.05)
            rejected["naive folds"].append(naive_folds(forest, X, y, w, seed) < 0.05)
        for scheme, hits in rejected.items():
            low, high = binom.ppf([0.005, 0.995], replications, 0.05) / replications
            yield {
                "data": name,
                "test": scheme,
                "rejections": np.mean(hits),
                "99% band of 5%": f"{low:.3f} to {high:.3f}" if strength == 0 else "",
            }


def naive_folds(
    forest: CausalForest, X: np.ndarray, y: np.ndarray, w: np.ndarray, seed: int
) -> float:
    """What not to do: average the ratios of five ordinary cross-fitting folds."""
    from scipy.stats import norm
    from sklearn.base import clone

    scores = np.asarray(clone(forest).fit(X, y, treatment=w, nuisances={"propensity": 0.5}).scores_)
    fold = np.random.default_rng([3, seed]).permutation(600) % 5
    ratios = []
    for k in range(5):
        train, test = fold != k, fold == k
        model = clone(forest).fit(
            X[train], y[train], treatment=w[train], nuisances={"propensity": 0.5}
        )
        rate = rank_average_treatment_effect(
            np.asarray(model.predict(X[test])), scores[test], n_bootstrap=60, q=[1.0],
            random_state=seed,
        )  # fmt: skip
        ratios.append(rate.ratio[0])
    return float(2 * norm.sf(abs(sum(ratios)) / np.sqrt(5)))


def rate_size(replications: int) -> Iterator[dict]:
    """Share of 5 % tests of a RATE that reject where all effects are equal and units are few."""
    for method in RATES:
        for n in (60, 240):
            rejected = 0
            for seed in range(replications):
                priority, gamma = np.random.default_rng([3, seed]).normal(size=(2, n))
                rate = rank_average_treatment_effect(
                    priority, gamma, method=method, q=[1.0], random_state=seed
                ).estimates_
                rejected += abs(rate.estimate[0]) > 1.959964 * rate.std_error[0]
            yield {
                "test": method.upper(),
                "units": n,
                "replications": replications,
                "rejections": rejected / replications,
            }


def heterogeneity_tests(replications: int) -> Iterator[dict]:
    """Share of 5 % tests of one effect for all that reject, with and without heterogeneity."""
    for design, clusters, size in (("200 units", 200, 1), ("24 clusters of 10", 24, 10)):
        for name, strength in (("one effect", 0.0), ("effects differ", 0.6)):
            rejected: dict[str, list[bool]] = {}
            for seed in range(replications):
                for test, p in p_values(clusters, size, strength, seed).items():
                    rejected.setdefault(test, []).append(p < 0.05)
            for test, hits in rejected.items():
                yield {"data": f"{design}, {name}", "test": test, "rejections": np.mean(hits)}


def p_values(clusters: int, size: int, strength: float, seed: int) -> dict[str, float]:
    """P-values of tests that use a covariate of the cluster as a fixed priority."""
    rng = np.random.default_rng([4, seed])
    site = np.repeat(np.arange(clusters), size)
    x = rng.normal(size=clusters)[site]
    w = rng.permutation(np.arange(clusters) % 2)[site].astype(float)
    shared = 0.5 * rng.normal(size=clusters)[site] if size > 1 else 0.0
    y = 0.5 * x + w * (1 + strength * x) + shared + rng.normal(size=site.size)
    whole = {"cluster": site} if size > 1 else {}
    given = {"treatment": w, "n_draws": 199, "random_state": seed}
    scores = 4 * (w - 0.5) * (y - y.mean())
    groups = group_average_effects(x, scores, n_groups=3, **whole)
    out = {
        "randomisation, QINI": randomization_test(x, y, **given, **whole).p_value,
        "randomisation, R-loss": randomization_test(
            x, y, statistic="loss", **given, **whole
        ).p_value,
        "highest less lowest third": groups.estimates_.p_value()[-1],
    }
    if size > 1:
        out["randomisation, clusters ignored"] = randomization_test(x, y, **given).p_value
    return out


TABLES = {
    "forest_rate_coverage": Table(rate_coverage, 500, 100),
    "forest_rate_size": Table(rate_size, 4000, 400),
    "forest_average_coverage": Table(average_coverage, 200, 40),
    "forest_ranking_tests": Table(ranking_tests, 200, 30),
    "forest_heterogeneity_tests": Table(heterogeneity_tests, 1000, 100),
}


if __name__ == "__main__":
    run(__doc__, TABLES)
