"""Bayesian latent-class model on the count table (PyMC)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.compat import posterior_dataset
from causalfair._core.logging import warn
from causalfair._core.random import int_seed
from causalfair._core.sampling import judge, run_nuts
from causalfair.exceptions import ParameterError, WeakIdentificationWarning
from causalfair.fairness._inference import Audit, JointCovariance
from causalfair.fairness._latent import LatentFit, log_likelihood

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray
    from causalfair.fairness._models import Model

DIAGONAL, OFF_DIAGONAL = 4.0, 1.0
DRAWS, TUNE, CHAINS = 1000, 1000, 4
MAX_OVERLAP = 0.5


def build_model(model: Model) -> Any:
    """PyMC model of the counts, the group summed out.

    Dirichlet priors: flat on the joint table, 4 on the diagonal and 1 off it for error matrices,
    which keeps the labels in place. The cost does not depend on the number of rows.

    Parameters
    ----------
    model : Model
        A likelihood fit: its data and specification are used.

    Returns
    -------
    pymc.Model
        Variables ``G`` (n_strata * K,) and ``T_j`` (K, L_j).
    """
    import pymc as pm
    import pytensor.tensor as pt

    data, spec = model.data, model.spec
    K = spec.n_groups
    switch: Any = pt.where
    with pm.Model() as built:
        if spec.shares.size:
            columns = [pm.Dirichlet(f"G_{a}", np.ones(data.n_strata)) for a in range(K)]
            table = pt.stack(columns, axis=1) * spec.shares
            pm.Deterministic("G", table.ravel())
        else:
            table = pm.Dirichlet("G", np.ones(data.n_strata * K)).reshape((data.n_strata, K))
        emission = pt.ones((len(data.patterns), K))
        for j in range(data.n_proxies):
            r = int(spec.tables[0, j])
            levels = spec.table_levels[r]
            if spec.fixed[r]:
                rates = pt.as_tensor_variable(spec.known[r, :K, :levels])
            else:
                prior = np.full((K, levels), OFF_DIAGONAL)
                prior += (DIAGONAL - OFF_DIAGONAL) * model.affinity[j].T
                prior += spec.prior_t[r, :K, :levels]
                rates = pm.Dirichlet(f"T_{j}", prior)
            level = data.patterns[:, j]
            seen = (level >= 0)[:, None]
            emission = emission * switch(seen, rates[:, np.maximum(level, 0)].T, 1.0)
        q = table @ emission.T
        pm.Potential("counts", (data.counts * pt.log(q)).sum())
    return built


def with_posterior(audit: Audit, estimator: Any) -> Audit:
    """Sample the posterior and put its mean in place of the likelihood fit."""
    model = audit.model
    if (model.spec.tables != model.spec.tables[0]).any() or audit.units is not None:
        raise ParameterError("model='bayes' is for the global model of independent rows.")
    if audit.weighted:
        raise ParameterError("model='bayes' has no sampling weights; use model='joint'.")
    trace = run_nuts(
        build_model(model), sampler="nutpie", draws=DRAWS, tune=TUNE, chains=CHAINS,
        seed=int_seed(audit.root, 9), target_accept=0.8,
    )  # fmt: skip
    posterior = posterior_dataset(trace)
    errors = [f"T_{j}" for j in range(model.data.n_proxies) if f"T_{j}" in posterior]
    judge(trace, ["G", *errors]).warn(
        "ProxyFairness.fit", "Where there are several modes, compare with model='joint'."
    )
    S, K = model.fit.G.shape
    draws = np.asarray(posterior["G"]).reshape(-1, S, K)
    T = model.fit.T.copy()
    for j in range(model.data.n_proxies):
        r = int(model.spec.tables[0, j])
        if not model.spec.fixed[r]:
            table = np.asarray(posterior[f"T_{j}"])
            T[r, :, : table.shape[-1]] = table.mean(axis=(0, 1))
            _warn_overlap(table.reshape(-1, *table.shape[2:]), model.affinity[j], j)
    G = draws.mean(axis=0)
    fit = LatentFit(
        G,
        T,
        log_likelihood(model.data, model.spec, G, T),
        gradient=model.fit.gradient,
        label_margin=model.fit.label_margin,
    )
    estimator.posterior_ = trace
    flat = draws.reshape(len(draws), -1)
    law = JointCovariance(np.cov(flat, rowvar=False), np.zeros((model.data.counts.size, S * K)), 0)
    return replace(audit, model=replace(model, name="bayes", fit=fit), law=law, draws=draws)


def _warn_overlap(draws: FloatArray, affinity: FloatArray, j: int) -> None:
    """Warn when the posterior of the diagonal is hardly narrower than its prior."""
    levels = draws.shape[-1]
    if affinity.shape[0] != affinity.shape[1]:
        return
    total = DIAGONAL + (levels - 1) * OFF_DIAGONAL
    prior_sd = np.sqrt(DIAGONAL * (total - DIAGONAL) / (total**2 * (total + 1)))
    ratio = float(np.diagonal(draws.std(axis=0)).max() / prior_sd)
    if ratio > MAX_OVERLAP:
        warn(
            f"The posterior of the error rates of proxy {j + 1} is {ratio:.0%} as wide as "
            "its prior: "
            "the data say little about them.",
            WeakIdentificationWarning,
        )
