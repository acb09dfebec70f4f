"""Cost of the parametric estimator, in rows and against two-stage least squares of linearmodels.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_iv.py --benchmark-only``.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from causalfair.datasets import make_invalid_instruments
from causalfair.iv import MRGenius, MultiplyRobustATE

ROLES = {"treatment": "treatment", "instrument": "instrument"}


def study(n: int, p: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    z = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.5 * X[:, 0]))).astype(float)
    u = rng.normal(size=n)
    propensity = 1 / (1 + np.exp(2.6 - 1.6 * z - 0.3 * X[:, 1] - 0.5 * u))
    a = (rng.uniform(size=n) < propensity).astype(float)
    y = (1 + X[:, 1]) * a + z + X[:, 0] + u + rng.normal(size=n)
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(p)])
    return frame.assign(instrument=z, treatment=a, y=y)


def fit(frame: pd.DataFrame) -> MultiplyRobustATE:
    names = [name for name in frame.columns if name.startswith("x")]
    return MultiplyRobustATE().fit(frame, "y", **ROLES, covariates=names)


@pytest.mark.parametrize("n", [10_000, 100_000, 1_000_000])
def test_parametric_rows(benchmark, n):
    frame = study(n)
    start = time.process_time()
    rounds = 1 if n == 1_000_000 else 3
    benchmark.pedantic(fit, args=(frame,), rounds=rounds, iterations=1)
    # Processor time, which other work on the machine does not lengthen; the fit uses one thread.
    processor = (time.process_time() - start) / rounds
    benchmark.extra_info["processor seconds"] = processor
    assert processor < 10.0


def test_parametric_cost_is_linear_in_rows(benchmark):
    def seconds(n: int) -> float:
        frame = study(n)
        start = time.process_time()
        fit(frame)
        return time.process_time() - start

    small = min(seconds(100_000) for _ in range(2))
    large = benchmark.pedantic(lambda: seconds(400_000), rounds=1, iterations=1)
    benchmark.extra_info["ratio, four times the rows"] = large / small
    assert large / small < 6.0


@pytest.mark.filterwarnings("ignore")
def test_peer_iv2sls(benchmark):
    from linearmodels.iv import IV2SLS

    frame = study(1_000_000)
    exogenous = frame[[f"x{j}" for j in range(5)]].assign(const=1.0)
    run = lambda: IV2SLS(frame.y, exogenous, frame.treatment, frame.instrument).fit(  # noqa: E731
        cov_type="robust"
    )
    benchmark.pedantic(run, rounds=1, iterations=1)


@pytest.mark.parametrize("method", ["gmm", "cue"])
def test_genius_many_instruments(benchmark, method):
    frame, _ = make_invalid_instruments(50_000, n_instruments=20, random_state=0)
    names = [f"g{k}" for k in range(1, 21)]
    run = lambda: MRGenius(method=method).fit(  # noqa: E731
        frame, "y", treatment="treatment", instrument=names, covariates=[]
    )
    benchmark.pedantic(run, rounds=1, iterations=1)
