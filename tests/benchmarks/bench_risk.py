"""Cost of the likelihood, of a fit by rows, and of effective samples beside a plain Stan program.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_risk.py --benchmark-only``. The Stan
program is skipped where ``pystan`` is not installed.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

from causalfair.datasets import make_selective_labels
from causalfair.exceptions import CausalFairWarning
from causalfair.risk import DomainConstrainedRisk
from causalfair.risk._constraints import read_expertise, read_prevalence
from causalfair.risk._data import read_rows
from causalfair.risk._design import fit_design
from causalfair.risk._mode import find_mode
from causalfair.risk._model import DEFAULT_PRIORS, Law, Layout, build_problem

COLUMNS = ["x1", "x2", "x3", "x4"]
DRAWS = TUNE = 1000
STAN_DRAWS, STAN_TUNE, CHAINS = 200, 300, 2
STAN = """
functions { real D(real x, real s) { return log1p_exp(x + s) - log1p_exp(x); } }
data {
  int N; int M; int F;
  matrix[N, M] X; matrix[N, F] W;
  array[N] int T; array[N] int Y;
}
parameters { vector[M] beta; vector[F] delta; real<lower=0> sigma; }
model {
  vector[N] a = X * beta;
  vector[N] d = W * delta;
  beta ~ normal(0, 3);
  delta ~ normal(0, 3);
  sigma ~ normal(0, 3);
  for (i in 1:N) {
    real gap = D(a[i] + d[i], sigma) - D(a[i], sigma);
    if (T[i] == 0) target += log(sigma - D(a[i] + d[i], sigma)) - log(sigma);
    else if (Y[i] == 0) target += log(gap / -expm1(-d[i])) - log(sigma);
    else target += log(D(a[i], sigma) - gap / expm1(d[i])) - log(sigma);
  }
}
"""


def problem(n: int, unobservables: str = "uniform"):
    frame, _ = make_selective_labels(n, unobservables=unobservables, random_state=0)
    rows = read_rows(frame, "y", tested="tested", covariates=COLUMNS, owner="bench")
    design = fit_design(rows.data, rows.weight, owner="bench")
    free = read_expertise(["x1"], design.names, 3.0, owner="bench")
    law = Law(unobservables, 1.0, None, np.empty(0), np.empty(0)).with_rule(4.0)
    nothing = read_prevalence(None, None, rows, owner="bench")
    layout = Layout(design, free, "", (), "", ())
    Z = design.standardise(rows.data.matrix())
    return build_problem(rows, layout, law, nothing, DEFAULT_PRIORS, Z)


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_value_and_gradient_for_5000_rows(benchmark, law):
    one = problem(5000, law)
    theta = find_mode(one, owner="bench").theta
    benchmark(one.value_and_gradient, theta)
    if law == "uniform":
        assert benchmark.stats["min"] < 1e-3


def test_aggregated_fit_does_not_depend_on_rows(benchmark):
    def seconds(n: int) -> float:
        frame, _ = make_selective_labels(n, n_features=2, random_state=0)
        frame[["x1", "x2"]] = frame[["x1", "x2"]].round().clip(-2, 2)
        table = frame.groupby(["x1", "x2", "tested", "y"], dropna=False).size()
        counts = table.rename("count").reset_index()
        start = time.perf_counter()
        DomainConstrainedRisk(sampler="laplace", draws=300, random_state=0, expertise=["x1"]).fit(
            counts, "y", tested="tested", covariates=["x1", "x2"], sample_weight="count"
        )
        return time.perf_counter() - start

    small = min(seconds(5_000) for _ in range(2))
    large = benchmark.pedantic(lambda: seconds(1_000_000), rounds=2, iterations=1)
    benchmark.extra_info["ratio, two hundred times the rows"] = large / small
    assert large < 3 * small + 0.2


def test_effective_samples_per_second(benchmark):
    frame, _ = make_selective_labels(5000, random_state=0)

    def fit(draws: int, tune: int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausalFairWarning)
            return DomainConstrainedRisk(
                expertise=["x1"], draws=draws, tune=tune, chains=CHAINS, random_state=0
            ).fit(frame, "y", tested="tested", covariates=COLUMNS)

    start = time.perf_counter()
    fit(20, 20)
    benchmark.extra_info["first fit, with compilation"] = time.perf_counter() - start
    model = benchmark.pedantic(fit, args=(DRAWS, TUNE), rounds=1, iterations=1)
    wall = benchmark.stats["min"]
    benchmark.extra_info["bulk ESS of the slowest parameter"] = model.convergence_.ess_bulk
    benchmark.extra_info["ESS a second"] = model.convergence_.ess_bulk / wall
    benchmark.extra_info["quick path, seconds"] = _quick_seconds(frame)


def _quick_seconds(frame) -> float:
    start = time.perf_counter()
    DomainConstrainedRisk(expertise=["x1"], sampler="laplace", random_state=0).fit(
        frame, "y", tested="tested", covariates=COLUMNS
    )
    return time.perf_counter() - start


def test_plain_stan_program(benchmark):
    stan = pytest.importorskip("stan")
    import arviz as az

    one = problem(5000)
    code = one.arrays["code"]
    X, W = one.arrays["X"], one.arrays["W"]
    data = {
        "N": len(X), "M": X.shape[1], "F": W.shape[1], "X": X.tolist(), "W": W.tolist(),
        "T": (code > 0).astype(int).tolist(), "Y": (code == 2).astype(int).tolist(),
    }  # fmt: skip
    start = time.perf_counter()
    built = stan.build(STAN, data=data, random_seed=1)
    benchmark.extra_info["compilation, seconds"] = time.perf_counter() - start
    fit = benchmark.pedantic(
        built.sample,
        kwargs={"num_chains": CHAINS, "num_samples": STAN_DRAWS, "num_warmup": STAN_TUNE},
        rounds=1, iterations=1,
    )  # fmt: skip
    draws = np.concatenate([fit["beta"], fit["delta"], fit["sigma"]])
    draws = draws.reshape(len(draws), STAN_DRAWS, CHAINS).transpose(0, 2, 1)
    slowest = min(float(az.ess(one)) for one in draws)
    benchmark.extra_info["bulk ESS of the slowest parameter"] = slowest
    benchmark.extra_info["ESS a second"] = slowest / benchmark.stats["min"]
