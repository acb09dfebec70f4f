"""Cost of the learning estimators: against their learners' own fitting, and in candidates.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_iv_ml.py --benchmark-only``. The ratios
are in the column ``extra_info`` of the JSON that pytest-benchmark writes.
"""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import pytest
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from causalfair.datasets import make_invalid_iv
from causalfair.iv import DebiasedATE, minimal_covers, select_nuisances
from causalfair.iv._combinations import PATH, SLOTS, CandidateNuisances, fold_means

ROLES = {"treatment": "treatment", "instrument": "instrument"}

# What a study says about itself is not what is timed.
pytestmark = pytest.mark.filterwarnings("ignore::causalfair.exceptions.CausalFairWarning")


class Clock:
    """Processor seconds the learners spent in ``fit``: other work does not lengthen them."""

    seconds: ClassVar[float] = 0.0
    fits: ClassVar[int] = 0


class Timed:
    """Adds to the clock what ``fit`` takes."""

    def fit(self, X, y, sample_weight=None):
        start = time.process_time()
        fitted = super().fit(X, y, sample_weight=sample_weight)
        Clock.seconds += time.process_time() - start
        Clock.fits += 1
        return fitted


class BoostingClassifier(Timed, HistGradientBoostingClassifier):
    pass


class BoostingRegressor(Timed, HistGradientBoostingRegressor):
    pass


class ForestClassifier(Timed, RandomForestClassifier):
    pass


class ForestRegressor(Timed, RandomForestRegressor):
    pass


LEARNERS = {
    "boosting": (BoostingClassifier(), BoostingRegressor()),
    "forest": (
        ForestClassifier(min_samples_leaf=10),
        ForestRegressor(min_samples_leaf=10, max_features=0.5),
    ),
}


def study(n, p=10):
    frame, _ = make_invalid_iv(n, random_state=0)
    rng = np.random.default_rng(0)
    return frame.assign(**{f"x{j}": rng.normal(size=n) for j in range(3, p + 1)})


@pytest.mark.parametrize(("family", "n"), [("boosting", 5_000), ("boosting", 20_000),
                                           ("forest", 5_000)])  # fmt: skip
def test_cost_over_the_learners_own_fitting(benchmark, family, n):
    frame = study(n)
    names = [name for name in frame if name.startswith("x")]
    classifier, regressor = LEARNERS[family]
    est = DebiasedATE(
        classifier, classifier, regressor, regressor, regressor, n_repeats=1, random_state=0
    )

    def fit():
        Clock.seconds, Clock.fits = 0.0, 0
        start = time.process_time()
        est.fit(frame, "y", **ROLES, covariates=names)
        return (time.process_time() - start) / Clock.seconds

    ratio = benchmark.pedantic(fit, rounds=1, warmup_rounds=1, iterations=1)
    benchmark.extra_info["total over fitting time"] = round(ratio, 3)
    benchmark.extra_info["learners fitted"] = Clock.fits
    assert ratio < 1.2


@pytest.mark.filterwarnings("ignore")
def test_peer_doubleml_iivm(benchmark):
    """A local average treatment effect with a valid instrument: five fits a fold."""
    doubleml = pytest.importorskip("doubleml")
    frame = study(5_000)
    names = [name for name in frame if name.startswith("x")]
    classifier, regressor = LEARNERS["boosting"]

    def fit():
        Clock.seconds, Clock.fits = 0.0, 0
        start = time.process_time()
        data = doubleml.DoubleMLData(
            frame, y_col="y", d_cols="treatment", z_cols="instrument", x_cols=names
        )
        doubleml.DoubleMLIIVM(data, regressor, classifier, classifier, n_folds=5).fit()
        return (time.process_time() - start) / Clock.seconds

    ratio = benchmark.pedantic(fit, rounds=1, warmup_rounds=1, iterations=1)
    benchmark.extra_info["total over fitting time"] = round(ratio, 3)
    benchmark.extra_info["learners fitted"] = Clock.fits


def candidates(counts, n):
    rng = np.random.default_rng(0)
    k_pi, k_lam, k_beta, k_mu, k_omega = counts
    return CandidateNuisances(
        pi=rng.uniform(0.2, 0.8, (k_pi, n)),
        clipped=np.zeros((k_pi, n), dtype=bool),
        lam=rng.uniform(0.1, 0.9, (k_lam, 2, n)),
        V=None,
        D=rng.uniform(0.05, 0.2, (k_lam, n)),
        floored=np.zeros((k_lam, n), dtype=bool),
        beta=rng.normal(size=(k_beta, n)),
        mu=rng.normal(size=(1, k_mu, 2, n)),
        omega=rng.normal(size=(1, k_omega, n)),
    )


@pytest.mark.parametrize("slot", SLOTS)
def test_scoring_is_linear_in_the_candidates_of_a_nuisance(benchmark, slot):
    """Four to sixteen candidates of one nuisance, four of each other: 4,096 combinations."""
    n = 50_000
    rng = np.random.default_rng(1)
    z, a = (rng.random((2, n)) < 0.5).astype(float)
    y, folds = rng.normal(size=n), np.arange(n) % 5

    def seconds(k):
        counts = [k if one == slot else 4 for one in SLOTS]
        every = candidates(counts, n)
        start = time.process_time()
        fold_means(z, a, y, every, folds)
        return time.process_time() - start

    small = min(seconds(4) for _ in range(5))
    large = benchmark.pedantic(lambda: min(seconds(16) for _ in range(5)), rounds=1, iterations=1)
    benchmark.extra_info["ratio, four times the candidates"] = round(large / small, 2)
    assert large / small < 5.0


def test_scoring_five_candidates_each(benchmark):
    """3,125 combinations on 50,000 rows: milliseconds a combination would be minutes."""
    n = 50_000
    rng = np.random.default_rng(1)
    z, a = (rng.random((2, n)) < 0.5).astype(float)
    y, folds = rng.normal(size=n), np.arange(n) % 5
    every = candidates((5,) * 5, n)
    values = benchmark.pedantic(fold_means, args=(z, a, y, every, folds), rounds=3, iterations=1)
    assert values.shape == (5, 5, 5, 5, 5, 5)
    assert benchmark.stats["mean"] < 5.0


@pytest.mark.parametrize("k", [3, 5, 10])
def test_choosing(benchmark, k):
    """Risk of k**5 combinations, up to 100,000."""
    values = np.random.default_rng(0).normal(size=(5, *(k,) * 5))
    names = {slot: [str(j) for j in range(k)] for slot in SLOTS}
    run = lambda: select_nuisances(values, names, covers=minimal_covers(PATH))  # noqa: E731
    benchmark.pedantic(run, rounds=1, iterations=1)
    assert benchmark.stats["mean"] < 60.0
