"""The one place that runs NUTS and judges whether its chains may be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.compat import posterior_dataset
from causalfair._core.logging import warn
from causalfair._core.options import get_option
from causalfair._core.typing import FloatArray
from causalfair.exceptions import ConvergenceWarning

__all__ = ["Convergence", "convergence", "judge", "run_nuts", "sample_nutpie"]

MAX_RHAT, MIN_ESS, MIN_EBFMI = 1.01, 400.0, 0.3


def run_nuts(
    model: Any, *, sampler: str, draws: int, tune: int, chains: int, seed: int, target_accept: float
) -> Any:
    """Sample a PyMC model; the same seed gives the same draws.

    Parameters
    ----------
    model : pymc.Model
        The model.
    sampler : {"nutpie", "pymc"}
        Who runs NUTS.
    draws, tune, chains : int
        Per chain, and chains.
    seed : int
        Seed.
    target_accept : float
        Acceptance rate aimed at.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        What the sampler gives.
    """
    import pymc as pm

    if sampler == "nutpie":
        import nutpie

        with warnings.catch_warnings():
            # Of PyTensor's generated code; nothing the user could do.
            warnings.filterwarnings("ignore", r"np\.dot\(\) is faster on contiguous arrays")
            compiled = nutpie.compile_pymc_model(model)
        return sample_nutpie(
            compiled, draws=draws, tune=tune, chains=chains, seed=seed,
            target_accept=target_accept,
        )  # fmt: skip
    with model:
        return pm.sample(
            draws=draws, tune=tune, chains=chains, cores=1, random_seed=seed,
            target_accept=target_accept, progressbar=bool(get_option("progress")),
            compute_convergence_checks=False,
        )  # fmt: skip


def sample_nutpie(
    compiled: Any,
    *,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    target_accept: float,
    low_rank: bool = False,
) -> Any:
    """Sample a model that nutpie has compiled already.

    ``low_rank`` adapts a mass matrix with correlations, for posteriors of many parameters that
    share a few strong directions.
    """
    import nutpie

    return nutpie.sample(
        compiled, draws=draws, tune=tune, chains=chains, seed=seed, save_warmup=False,
        target_accept=target_accept, progress_bar=bool(get_option("progress")),
        low_rank_modified_mass_matrix=low_rank,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Convergence:
    """What the chains say of themselves, worst over the parameters.

    Attributes
    ----------
    rhat : float
        Rank-normalised split R-hat.
    ess_bulk, ess_tail : float
        Effective sample sizes of the centre and of the tails.
    ebfmi : float
        Energy Bayesian fraction of missing information, the lowest of the chains.
    divergences : int
        Divergent transitions after warm-up.
    worst : str
        Parameter with the largest R-hat.
    """

    rhat: float
    ess_bulk: float
    ess_tail: float
    ebfmi: float
    divergences: int
    worst: str

    @property
    def ok(self) -> bool:
        """Whether all criteria are met."""
        return not self.complaints()

    def complaints(self) -> list[str]:
        """One clause for each criterion that is not met."""
        found = []
        if not self.rhat <= MAX_RHAT:
            found.append(f"R-hat {self.rhat:.3f} ({self.worst}), want at most {MAX_RHAT}")
        if not self.ess_bulk >= MIN_ESS:
            found.append(f"bulk effective size {self.ess_bulk:.0f}, want {MIN_ESS:.0f}")
        if not self.ess_tail >= MIN_ESS:
            found.append(f"tail effective size {self.ess_tail:.0f}, want {MIN_ESS:.0f}")
        if self.divergences:
            found.append(f"{self.divergences} divergence(s), want none")
        if not self.ebfmi >= MIN_EBFMI:
            found.append(f"E-BFMI {self.ebfmi:.2f}, want {MIN_EBFMI}")
        return found

    def __str__(self) -> str:
        return (
            f"R-hat {self.rhat:.3f}, bulk ESS {self.ess_bulk:.0f}, tail ESS {self.ess_tail:.0f}, "
            f"{self.divergences} divergence(s)"
        )

    def warn(self, owner: str, advice: str) -> None:
        """Warn where a criterion is not met."""
        if not self.ok:
            warn(
                f"{owner}: the sampler did not converge: {'; '.join(self.complaints())}. {advice}",
                ConvergenceWarning,
            )


def convergence(draws: Mapping[str, FloatArray], trace: Any) -> Convergence:
    """Judge named draws (chains, draws) and the sampler's own statistics."""
    import arviz

    # Typed stubs of ArviZ leave these without annotations.
    az: Any = arviz
    rhat, bulk, tail = {}, [], []
    for name, values in draws.items():
        if np.ptp(values) > 0:
            rhat[name] = float(az.rhat(values))
            bulk.append(float(az.ess(values, method="bulk")))
            tail.append(float(az.ess(values, method="tail")))
    statistics = trace["sample_stats"]
    energy = np.asarray(statistics["energy"])
    fraction = (np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)
    worst = max(rhat, key=lambda name: rhat[name])
    return Convergence(
        rhat[worst], min(bulk), min(tail), float(fraction.min()),
        int(np.asarray(statistics["diverging"]).sum()), worst,
    )  # fmt: skip


def judge(trace: Any, names: Sequence[str]) -> Convergence:
    """Judge the named variables of a trace, element by element."""
    posterior = posterior_dataset(trace)
    draws: dict[str, FloatArray] = {}
    for name in names:
        values = np.asarray(posterior[name])
        flat = values.reshape(*values.shape[:2], -1)
        draws |= {f"{name}[{j}]": flat[:, :, j] for j in range(flat.shape[2])}
    return convergence(draws, trace)
