"""Posterior draws: how they are made, and what is derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.random import generator, int_seed
from causalfair.exceptions import ConvergenceWarning
from causalfair.risk._mode import Mode, find_mode, normal_draws
from causalfair.risk._nested import MAX_PARETO_K, resampled_draws

if TYPE_CHECKING:
    from causalfair._core.sampling import Convergence
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.risk._model import Law, Layout, Natural, Problem

MAX_PREDICTION_DRAWS = 400
DRAWS_STREAM, NUTS_STREAM = 1, 2
FAR_DRAWS = 64
LIKELIHOOD_MOVE = 1e-4


@dataclass(frozen=True)
class Posterior:
    """Draws of the coordinates and how they came about.

    Attributes
    ----------
    mode : Mode
        Mode, with the problem and its quadrature.
    theta : (chains, draws, k) float array
        Draws of the coordinates.
    convergence : Convergence or None
        Of NUTS.
    pareto_k : float or None
        Of importance resampling.
    statistics : dict of str to array
        The sampler's own statistics.
    """

    mode: Mode
    theta: FloatArray
    convergence: Convergence | None
    pareto_k: float | None
    statistics: dict[str, Any]

    def flat(self) -> FloatArray:
        """Draws (B, k)."""
        return self.theta.reshape(-1, self.theta.shape[-1])


def draw_posterior(problem: Problem, settings: Any, root: Any, *, owner: str) -> Posterior:
    """Draws by the sampler that ``settings`` (an estimator) names."""
    mode = find_mode(problem, owner=owner)
    if settings.sampler == "map":
        theta = normal_draws(mode, settings.draws, generator(root, DRAWS_STREAM))
        return Posterior(mode, theta[None], None, None, {})
    if settings.sampler == "laplace":
        drawn = resampled_draws(mode, settings.draws, generator(root, DRAWS_STREAM))
        if drawn.pareto_k > MAX_PARETO_K:
            warn(
                f"{owner}: the quick approximation is poor (Pareto k {drawn.pareto_k:.2f}, want at "
                f'most {MAX_PARETO_K}). Use sampler="nutpie".',
                ConvergenceWarning,
            )
        _check_quadrature(mode.problem, drawn.draws, owner)
        return Posterior(mode, drawn.draws[None], None, drawn.pareto_k, {})
    return _draw_nuts(mode, settings, root, owner)


def _draw_nuts(mode: Mode, settings: Any, root: Any, owner: str) -> Posterior:
    from causalfair._core.sampling import convergence
    from causalfair.risk._sampling import sample

    theta, trace = sample(
        mode, sampler=settings.sampler, draws=settings.draws, tune=settings.tune,
        chains=settings.chains, seed=int_seed(root, NUTS_STREAM),
        target_accept=settings.target_accept,
    )  # fmt: skip
    natural = mode.problem.natural(theta.reshape(-1, theta.shape[-1]))
    named = {
        name: values.reshape(theta.shape[:2])
        for name, values in natural_terms(mode.problem.layout, natural, original=False).items()
    }
    judged = convergence(named, trace)
    judged.warn(
        owner, "Draw longer (tune, draws), add a constraint, or fix alpha or sigma; see check()."
    )
    keys = ("diverging", "energy", "logp", "lp", "n_steps", "tree_depth", "depth")
    kept = {k: np.asarray(trace["sample_stats"][k]) for k in keys if k in trace["sample_stats"]}
    _check_quadrature(mode.problem, theta.reshape(-1, theta.shape[-1]), owner)
    return Posterior(mode, theta, judged, None, kept)


def _check_quadrature(problem: Problem, theta: FloatArray, owner: str) -> None:
    """Warn where twice the nodes would move the log-likelihood of some draw."""
    if problem.law.unobservables == "none" or not len(problem.law.nodes):
        return
    reach = len(problem.law.nodes) / (12.0 if problem.law.unobservables == "normal" else 8.0 / 3)
    finer = problem.with_law(problem.law.with_rule(reach))
    some = theta[:: max(1, len(theta) // FAR_DRAWS)]
    moves = [abs(finer.value_and_gradient(t)[0] - problem.value_and_gradient(t)[0]) for t in some]
    total = float(problem.arrays["weight"].sum())
    if max(moves) > max(LIKELIHOOD_MOVE * total, 0.1):
        warn(
            f"{owner}: the quadrature is too coarse for sigma in the tail of the posterior (the "
            f"log-likelihood moves by {max(moves):.2g}). Fix sigma, or tighten its prior.",
            ConvergenceWarning,
        )


def natural_terms(layout: Layout, draws: Natural, *, original: bool) -> dict[str, FloatArray]:
    """Named draws: ``risk:``, ``testing:``, ``alpha``, ``sigma`` and pooling scales.

    ``log alpha:`` of a decision maker is over the common alpha.
    """
    beta = layout.beta_original(draws.beta) if original else draws.beta
    delta = layout.delta_original(draws.delta) if original else draws.delta
    terms = {f"risk:{name}": beta[:, j] for j, name in enumerate(layout.beta_names)}
    terms |= {f"testing:{name}": delta[:, j] for j, name in enumerate(layout.delta_names)}
    n_free = len(layout.delta_names)
    terms |= {f"log alpha:{m}": delta[:, n_free + j] for j, m in enumerate(layout.weight_names)}
    terms |= {"alpha": draws.alpha, "sigma": draws.sigma}
    return terms | {name: draws.pools[:, j] for j, name in enumerate(layout.pool_names())}


def code_probabilities(
    codes: tuple[int, ...], X: FloatArray, W: FloatArray, maker: IntArray, draws: Natural, law: Law
) -> FloatArray:
    """Probability of some codes for each draw and row: (len(codes), n_draws, n_rows)."""
    from causalfair.risk import _kernels

    return np.asarray(
        _kernels.probabilities(
            np.array(codes),
            X,
            W,
            maker,
            draws.beta,
            draws.delta,
            draws.alpha,
            draws.sigma,
            law.nodes,
            law.weights,
        )
    )


def risk_draws(
    X: FloatArray, W: FloatArray, maker: IntArray, draws: Natural, law: Law, given: str | None
) -> FloatArray:
    """Draws (n_draws, n_rows) of the risk of everybody, of the untested, or of the tested."""
    if given is None:
        return np.asarray(code_probabilities((4,), X, W, maker, draws, law)[0])
    if given == "untested":
        both, none = code_probabilities((7, 0), X, W, maker, draws, law)
    else:
        both, none = code_probabilities((2, 5), X, W, maker, draws, law)
    return np.asarray(both / none)


def mean_risks(problem: Problem, draws: Natural, member: IntArray, n_groups: int) -> FloatArray:
    """Weighted mean risk of each draw in each group (B, n_groups), over all rows."""
    weight = problem.cells.weight
    out = np.empty((len(draws), n_groups))
    block = max(1, int(2e6 // max(len(weight), 1)))
    for first in range(0, len(draws), block):
        part = slice(first, first + block)
        some = type(draws)(
            draws.beta[part], draws.delta[part], draws.alpha[part], draws.sigma[part],
            draws.pools[part],
        )  # fmt: skip
        risk = risk_draws(*problem.columns, some, problem.law, None)
        for g in range(n_groups):
            inside = weight * (member == g)
            out[part, g] = risk @ inside / inside.sum()
    return out
