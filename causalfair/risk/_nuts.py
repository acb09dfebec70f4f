"""Posterior sampling from a plain Python log density with gradient; nothing is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.compat import posterior_dataset
from causalfair._core.logging import warn
from causalfair._core.parallel import inner_threads
from causalfair._core.random import generator, int_seed
from causalfair._core.typing import FloatArray
from causalfair.exceptions import ConvergenceWarning

__all__ = [
    "Posterior",
    "SamplingHealth",
    "sample_posterior",
    "sampling_health",
    "warn_unless_healthy",
]

Density = Callable[[FloatArray], tuple[float, FloatArray]]


@dataclass(frozen=True)
class Posterior:
    """A log density on unconstrained coordinates, and what to report of a draw.

    Attributes
    ----------
    density : callable
        Maps coordinates (k,) to the log density and its gradient.
    report : callable
        Maps coordinates (k,) to named arrays.
    dims : mapping of str to tuple of str
        Dimensions of each reported array.
    coords : mapping of str to sequence of str
        Labels of the dimensions.
    """

    density: Density
    report: Callable[[FloatArray], Mapping[str, Any]]
    dims: Mapping[str, tuple[str, ...]]
    coords: Mapping[str, Sequence[str]]


def sample_posterior(
    posterior: Posterior,
    start: FloatArray,
    scale: FloatArray,
    *,
    draws: int,
    tune: int,
    chains: int,
    target_accept: float,
    seed: np.random.SeedSequence,
) -> Any:
    """Draws by the no-U-turn sampler of nutpie, as an ArviZ object.

    Chains start at ``start`` plus normal noise of a tenth of ``scale``. Same seed, same draws.
    """
    import nutpie

    n_dim = len(start)

    def make_density() -> Density:
        def density(x: FloatArray) -> tuple[float, FloatArray]:
            # The sampler cannot carry an exception: a point without a density is rejected.
            with np.errstate(all="ignore"):
                value, gradient = posterior.density(np.asarray(x))
            if not np.isfinite(value) or not np.isfinite(gradient).all():
                return -np.inf, np.zeros(n_dim)
            return value, gradient

        return density

    def make_report(_seed1: Any, _seed2: Any, _chain: Any) -> Callable[..., dict[str, Any]]:
        def report(x: FloatArray) -> dict[str, Any]:
            found = posterior.report(np.asarray(x))
            return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}

        return report

    def initial(chain_seed: int) -> FloatArray:
        noise = generator(seed, 1, int(chain_seed) % 2**32).normal(size=n_dim)
        return np.asarray(start + 0.1 * scale * noise)

    shapes = [
        tuple(len(posterior.coords[dim]) for dim in dims) for dims in posterior.dims.values()
    ]
    model = nutpie.compiled_pyfunc.from_pyfunc(
        n_dim,
        make_density,
        make_report,
        [np.dtype("float64")] * len(shapes),
        shapes,
        list(posterior.dims),
        coords={name: list(labels) for name, labels in posterior.coords.items()},
        dims=dict(posterior.dims),
        make_initial_point_fn=initial,
    )
    with inner_threads():
        return nutpie.sample(
            model,
            draws=draws,
            tune=tune,
            chains=chains,
            cores=1,
            target_accept=target_accept,
            seed=int_seed(seed, 0) % (2**31),
            progress_bar=False,
        )


@dataclass(frozen=True, slots=True)
class SamplingHealth:
    """Whether the draws can be trusted.

    Attributes
    ----------
    rhat : float
        Largest split R-hat over all quantities.
    ess : float
        Smallest effective sample size, of the bulk.
    divergences : int
        Divergent transitions.
    slowest : str
        Quantity with the smallest effective sample size.
    """

    rhat: float
    ess: float
    divergences: int
    slowest: str

    @property
    def ok(self) -> bool:
        """R-hat at most 1.01, at least 400 effective draws, no divergence."""
        return self.rhat <= 1.01 and self.ess >= 400 and self.divergences == 0

    def sentence(self) -> str:
        """For summaries and warnings."""
        return (
            f"largest R-hat {self.rhat:.3f}, smallest bulk ESS {self.ess:.0f} ({self.slowest}), "
            f"{self.divergences} divergence(s)"
        )


def sampling_health(posterior: Any, draws: Any = None) -> SamplingHealth:
    """R-hat, effective sample size and divergences of a sampled posterior, or part of it."""
    import arviz

    draws = posterior_dataset(posterior) if draws is None else draws
    rhat, ess = arviz.rhat(draws), arviz.ess(draws, method="bulk")
    lowest = {str(name): float(np.nanmin(ess[name])) for name in ess.data_vars}
    slowest = min(lowest, key=lambda name: lowest[name])
    stats = posterior["sample_stats"]
    return SamplingHealth(
        max(float(np.nanmax(rhat[name])) for name in rhat.data_vars),
        lowest[slowest],
        int(np.asarray(stats["diverging"]).sum()),
        slowest,
    )


def warn_unless_healthy(health: SamplingHealth, owner: str) -> None:
    """Say at once, and again in the summary, that the sampler did not converge."""
    if not health.ok:
        warn(
            f"{owner}: the sampler did not converge ({health.sentence()}); intervals may be wrong. "
            "Raise tune and draws, or target_accept where there are divergences; a weakly "
            "identified model needs more knowledge, not more draws.",
            ConvergenceWarning,
        )
