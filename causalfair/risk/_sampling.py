"""NUTS on the coordinates whitened by the mode and its curvature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.compat import posterior_dataset
from causalfair._core.sampling import run_nuts, sample_nutpie
from causalfair.risk._model import ARRAYS

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray
    from causalfair.risk._mode import Mode

__all__ = ["build_model"]

_compiled: dict[int, Any] = {}


def model_data(mode: Mode) -> dict[str, Any]:
    """Centre, factor and the kernel's arrays, in the order of its arguments."""
    return {
        "centre": mode.theta, "factor": np.ascontiguousarray(mode.factor),
        **{name: mode.problem.arrays[name] for name in ARRAYS},
    }  # fmt: skip


def build_model(mode: Mode) -> Any:
    """PyMC model of the posterior.

    The coordinates ``z`` are standard around the mode: ``theta = centre + factor z``. Everything
    else is data, so that a compiled model serves other data sets too.

    Parameters
    ----------
    mode : Mode
        Mode of the problem.

    Returns
    -------
    pymc.Model
        Free variable ``z``.
    """
    import pymc as pm

    from causalfair.risk._op import WhitenedLogPosterior

    with pm.Model() as model:
        data = [pm.Data(name, value) for name, value in model_data(mode).items()]
        z = pm.Flat("z", shape=len(mode.theta))
        outputs: Any = WhitenedLogPosterior()(z, *data)
        pm.Potential("log_posterior", outputs[0])
    return model


def sample(
    mode: Mode, *, sampler: str, draws: int, tune: int, chains: int, seed: int, target_accept: float
) -> tuple[FloatArray, Any]:
    """Draws (chains, draws, k) of the coordinates, and the sampler's trace."""
    options: dict[str, Any] = {
        "draws": draws, "tune": tune, "chains": chains, "seed": seed,
        "target_accept": target_accept,
    }  # fmt: skip
    if sampler == "pymc":
        trace = run_nuts(build_model(mode), sampler=sampler, **options)
    else:
        k = len(mode.theta)
        if k not in _compiled:
            import nutpie

            _compiled[k] = nutpie.compile_pymc_model(build_model(mode))
        trace = sample_nutpie(_compiled[k].with_data(**model_data(mode)), **options)
    z = np.asarray(posterior_dataset(trace)["z"])
    return mode.theta + z @ mode.factor.T, trace
