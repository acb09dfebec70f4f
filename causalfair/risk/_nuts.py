"""Posterior sampling from a plain Python log density with gradient; nothing is compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.parallel import inner_threads
from causalfair._core.random import generator, int_seed
from causalfair._core.sampling import sample_nutpie
from causalfair._core.typing import FloatArray

__all__ = ["ADVICE", "Posterior", "sample_posterior"]

ADVICE = (
    "Raise tune and draws, or target_accept where there are divergences; a weakly identified model "
    "needs more knowledge, not more draws."
)
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

    shapes = [tuple(len(posterior.coords[dim]) for dim in dims) for dims in posterior.dims.values()]
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
        return sample_nutpie(
            model, draws=draws, tune=tune, chains=chains, seed=int_seed(seed, 0) % 2**31,
            target_accept=target_accept, low_rank=True,
        )  # fmt: skip
