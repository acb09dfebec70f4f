"""The ArviZ object of a fit: draws, log-likelihood of the cells, predicted counts, constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.compat import draws_object
from causalfair._core.logging import warn
from causalfair.exceptions import CausalFairWarning
from causalfair.risk import _data
from causalfair.risk._posterior import code_probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causalfair._core.typing import FloatArray
    from causalfair.risk._model import Layout, Natural, Problem

# Of log-likelihood and predictions: 200 MB.
MOST_NUMBERS = 25_000_000
TINY = 1e-300
SEEN = {"untested": _data.UNTESTED, "negative": _data.NEGATIVE, "positive": _data.POSITIVE}


def native_posterior(
    layout: Layout, draws: Natural, prevalence: FloatArray, statistics: Mapping[str, Any],
    problem: Problem | None, *, chains: int, rng: np.random.Generator, owner: str,
) -> Any:  # fmt: skip
    """ArviZ object on standardised columns; what needs the rows only where ``problem`` has them."""

    def by_chain(values: FloatArray) -> FloatArray:
        return values.reshape(chains, -1, *values.shape[1:])

    n_free = len(layout.delta_names)
    groups: dict[str, dict[str, Any]] = {
        "posterior": {
            "beta_Y": by_chain(draws.beta), "beta_Delta": by_chain(draws.delta[:, :n_free]),
            "alpha": by_chain(draws.alpha), "sigma": by_chain(draws.sigma),
            "prevalence": by_chain(prevalence),
        },
        "sample_stats": dict(statistics),
    }  # fmt: skip
    if layout.weight_names:
        groups["posterior"]["log_alpha"] = by_chain(draws.delta[:, n_free:])
    if problem is not None:
        size = len(draws) * len(problem.cells.weight)
        if size > MOST_NUMBERS:
            warn(
                f"{owner} leaves out log_likelihood and posterior_predictive: {len(draws):,} draws "
                f"of {len(problem.cells.weight):,} distinct rows are more than {MOST_NUMBERS:,} "
                "numbers. Fit with fewer draws, or on a sample of the rows, to have them.",
                CausalFairWarning,
            )
        else:
            groups["log_likelihood"] = {"cell": by_chain(cell_log_likelihood(problem, draws))}
            counts = by_chain(predicted_counts(problem, draws, rng))
            groups["posterior_predictive"] = {"count": counts}
            groups["observed_data"] = {"count": seen_counts(problem)}
        groups["constant_data"] = _constants(problem)
    return draws_object(
        groups,
        coords={
            "feature": list(layout.beta_names), "free_feature": list(layout.delta_names),
            "seen": list(SEEN), "decision_maker": list(layout.maker_levels),
        },
        dims={
            "beta_Y": ["feature"], "beta_Delta": ["free_feature"], "count": ["seen"],
            "log_alpha": ["decision_maker"],
            "cell": ["cell_dim"], "x": ["cell_dim", "feature"], "code": ["cell_dim"],
            "weight": ["cell_dim"],
        },
    )  # fmt: skip


def _constants(problem: Problem) -> dict[str, Any]:
    known = problem.prevalence
    imposed = {"prevalence_value": known.value, "prevalence_sd": known.sd} if known else {}
    cells = {"code": problem.cells.code, "weight": problem.cells.weight}
    return {"x": problem.arrays["X"], **cells, **imposed}


def cell_log_likelihood(problem: Problem, draws: Natural) -> FloatArray:
    """Log-likelihood (n_draws, n_cells) of all the rows of each cell."""
    code, weight = problem.cells.code, problem.arrays["weight"]
    out = np.zeros((len(draws), len(code)))
    for one in np.unique(code[code != _data.UNUSED]):
        inside = np.flatnonzero(code == one)
        p = code_probabilities((int(one),), *problem.columns_of(inside), draws, problem.law)[0]
        out[:, inside] = weight[inside] * np.log(np.maximum(p, TINY))
    return out


def seen_counts(problem: Problem) -> FloatArray:
    """Weight of the untested, of the tested negatives and of the tested positives."""
    code, weight = problem.cells.code, problem.cells.weight
    return np.array([float(weight[code == one].sum()) for one in SEEN.values()])


def predicted_counts(problem: Problem, draws: Natural, rng: np.random.Generator) -> FloatArray:
    """The same counts (n_draws, 3) simulated from each draw, for the rows decided as usual."""
    usual = np.isin(problem.cells.code, list(SEEN.values()))
    columns = problem.columns_of(usual)
    weight = problem.cells.weight[usual]
    # A cell of whole weight is so many rows; a sampling weight counts one row so often.
    size = np.maximum(np.rint(weight), 1.0).astype(np.int64)
    each = weight / size
    tested, both = code_probabilities((5, 2), *columns, draws, problem.law)
    chosen = rng.binomial(size, np.minimum(tested, 1.0))
    positive = rng.binomial(chosen, np.minimum(both / tested, 1.0))
    return np.column_stack([(size - chosen) @ each, (chosen - positive) @ each, positive @ each])
