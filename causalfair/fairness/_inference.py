"""Uncertainty of functions of the joint table: delta method, tensor bootstrap, BCa, clusters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.fairness._information import covariance
from causalfair.fairness._latent import Spec, best_labelling
from causalfair.fairness._models import Model, fit_moments, fit_tied
from causalfair.inference import CovarianceEstimates, InfluenceEstimates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.fairness._metrics import Gaps

BOOTSTRAP_STEPS = 150
BOOTSTRAP_TOL = 1e-8
MAX_BOOTSTRAP_FLOATS = 40_000_000


@dataclass(frozen=True, slots=True)
class Audit:
    """A fitted model and how its rows were sampled.

    Attributes
    ----------
    model : Model
    units : sparse (n_units, n_cells) array or None
        Weight of each cluster in each cell; None when rows are independent.
    unit_codes : (n_units, c) int array or None
        Cluster of each unit, one column a way of clustering.
    weighted : bool
        Whether rows carry weights.
    root : numpy.random.SeedSequence
        Root of the random streams.
    law : JointCovariance or None
        Law of G where it cannot be had from the counts (soft proxies by moments, posterior draws).
    draws : (B, S, K) array or None
        Posterior draws of G.
    """

    model: Model
    units: Any
    unit_codes: IntArray | None
    weighted: bool
    root: np.random.SeedSequence
    law: JointCovariance | None = None
    draws: FloatArray | None = None

    def rng(self, key: int) -> np.random.Generator:
        """Generator of one purpose."""
        from causalfair._core.random import generator

        return generator(self.root, key)


@dataclass(frozen=True, slots=True)
class JointCovariance:
    """Sampling law of the joint table G, flattened to S * K entries.

    ``vcov`` (SK, SK); ``influence`` (n_cells, SK) of one row in each cell; ``rank_deficiency``
    counts directions of the parameter space the data say nothing about.
    """

    vcov: FloatArray
    influence: FloatArray
    rank_deficiency: int


def is_likelihood(model: Model) -> bool:
    """Whether the model maximises the likelihood (so that its information is its precision)."""
    if model.name == "moments":
        return False
    return not (model.name == "tied" and np.isnan(model.fit.gradient))


def joint_covariance(audit: Audit) -> JointCovariance:
    """Covariance and influence of G."""
    if audit.law is not None:
        return audit.law
    model = audit.model
    size = model.fit.G.size
    if is_likelihood(model):
        found = covariance(model.data, model.spec, model.fit, robust=audit.weighted)
        return JointCovariance(
            found.vcov[:size, :size], found.influence[:, :size], found.rank_deficiency
        )
    influence = numerical_influence(model)
    weighted = influence * model.data.squared.ravel()[:, None]
    return JointCovariance(influence.T @ weighted / model.data.n**2, influence, 0)


def numerical_influence(model: Model) -> FloatArray:
    """Influence of one row of each cell on G by central differences of the moment estimator."""
    data = model.data
    counts = data.counts.ravel()
    out = np.zeros((counts.size, model.fit.G.size))
    for cell in np.flatnonzero(counts > 0):
        step = 1e-4 * counts[cell]
        ends = []
        for sign in (1.0, -1.0):
            moved = counts.copy()
            moved[cell] += sign * step
            ends.append(refit_moments(model, moved.reshape(data.counts.shape)).ravel())
        out[cell] = data.n * (ends[0] - ends[1]) / (2.0 * step)
    return out


def refit_moments(model: Model, counts: FloatArray) -> FloatArray:
    """G of a moment estimator on other counts, classes named as in ``model``."""
    data = model.data.with_counts(counts)
    rng = np.random.default_rng(0)  # the contractions: the same for every table
    if model.name == "tied":
        return fit_tied(data, 2, model.affinity, rng).fit.G
    return fit_moments(data, model.spec.n_groups, model.affinity, rng).fit.G


# ------------------------------------------------------------------------------------- bootstrap
def draw_counts(audit: Audit, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Resampled count tables (B, S, P): multinomial, clusters, or scaled Poisson for weights."""
    data = audit.model.data
    shape = (n_draws, *data.counts.shape)
    if audit.units is not None:
        n_units = audit.units.shape[0]
        picks = rng.multinomial(n_units, np.full(n_units, 1.0 / n_units), size=n_draws)
        return np.ascontiguousarray((audit.units.T @ picks.T).T, dtype=float).reshape(shape)
    counts, squared = data.counts.ravel(), data.squared.ravel()
    if audit.weighted:
        # scale * Poisson with the mean and variance of the weighted count
        scale = np.divide(squared, counts, out=np.zeros_like(counts), where=counts > 0)
        rate = np.divide(counts, scale, out=np.zeros_like(counts), where=scale > 0)
        return np.asarray(rng.poisson(rate, size=(n_draws, counts.size)) * scale).reshape(shape)
    total = round(data.n)
    return rng.multinomial(total, counts / counts.sum(), size=n_draws).astype(float).reshape(shape)


def draw_prior(spec: Spec, n_draws: int, rng: np.random.Generator) -> FloatArray:
    """Resampled counts of validation samples (B, R, K, L); (1, R, K, L) where there are none."""
    counts = spec.prior_t - np.where(spec.prior_t > 0, spec.prior_g, 0.0)
    out = spec.prior_t[None]
    if not counts.any():
        return out
    out = np.repeat(out, n_draws, axis=0)
    for r, a in zip(*np.nonzero(counts.sum(axis=2)), strict=True):
        total = counts[r, a].sum()
        drawn = rng.multinomial(max(round(total), 1), counts[r, a] / total, size=n_draws)
        out[:, r, a] += drawn * (total / max(round(total), 1)) - counts[r, a]
    return np.ascontiguousarray(np.maximum(out, 0.0))


def refit_counts(
    model: Model, counts: FloatArray, prior_t: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Refit on many tables: (G (B, S, K), log-likelihood (B,)); classes keep their names."""
    if not is_likelihood(model):
        refitted = np.stack([_try_moments(model, c) for c in counts])
        return refitted, np.full(len(counts), np.nan)
    from causalfair.fairness import _kernels

    spec, fit = model.spec, model.fit
    n_draws = len(counts)
    out_g = np.empty((n_draws, *fit.G.shape))
    out_t = np.empty((n_draws, *fit.T.shape))
    out_ll = np.empty(n_draws)
    # an entry at exactly zero can never leave it again
    G = np.maximum(fit.G, 1e-10)
    T = _lift(spec, fit.T)
    _kernels.bootstrap_fits(
        counts,
        model.data.patterns,
        spec.tables,
        spec.rows,
        spec.fixed,
        spec.shares,
        spec.prior_g,
        spec.prior_t[None] if prior_t is None else prior_t,
        G,
        T,
        BOOTSTRAP_STEPS,
        BOOTSTRAP_TOL,
        out_g,
        out_t,
        out_ll,
    )
    return realign(model, out_g, out_t), out_ll


def _lift(spec: Spec, T: FloatArray) -> FloatArray:
    lifted = T.copy()
    for r, (n_rows, n_levels) in enumerate(zip(spec.table_rows, spec.table_levels, strict=True)):
        if not spec.fixed[r]:
            lifted[r, :n_rows, :n_levels] = np.maximum(T[r, :n_rows, :n_levels], 1e-10)
    return lifted


def _try_moments(model: Model, counts: FloatArray) -> FloatArray:
    try:
        return refit_moments(model, counts)
    except IdentificationError:  # a replicate without a moment solution is reported as missing
        return np.full(model.fit.G.shape, np.nan)


def realign(model: Model, G: FloatArray, T: FloatArray) -> FloatArray:
    """Rename the classes of refits so that their tables are closest to the original ones."""
    from causalfair.fairness._latent import can_relabel

    if not can_relabel(model.spec):
        return G
    reference = model.fit.T
    distance = ((T[:, :, :, None, :] - reference[None, :, None, :, :]) ** 2).sum(axis=(1, 4))
    identity = np.einsum("baa->b", distance)
    out = G.copy()
    # only draws in which some pair of classes would do better exchanged need an assignment
    swapped = distance + distance.transpose(0, 2, 1)
    diagonal = np.einsum("baa->ba", distance)
    paired = diagonal[:, :, None] + diagonal[:, None, :]
    suspicious = np.flatnonzero(((swapped < paired - 1e-12).any(axis=(1, 2))) & (identity > 0))
    for b in suspicious:
        order, _ = best_labelling(-distance[b])
        out[b] = G[b][:, order]
    return out


def bootstrap_joint(audit: Audit, n_draws: int, *, key: int = 1) -> FloatArray:
    """Bootstrap draws of G (B, S, K) in blocks of bounded memory; posterior draws for Bayes."""
    if audit.draws is not None:
        return audit.draws
    if n_draws < 1:
        raise ParameterError(f"n_bootstrap={n_draws} must be at least 1.")
    if audit.law is not None:
        raise ParameterError(
            "the tensor bootstrap needs counts, and soft proxies by moments have none; use "
            "interval='delta', or model='joint', which bins them."
        )
    rng = audit.rng(key)
    size = audit.model.data.counts.size
    block = max(1, min(n_draws, MAX_BOOTSTRAP_FLOATS // max(size, 1)))
    parts = []
    for start in range(0, n_draws, block):
        counts = draw_counts(audit, min(block, n_draws - start), rng)
        prior_t = draw_prior(audit.model.spec, len(counts), rng)
        parts.append(refit_counts(audit.model, counts, prior_t)[0])
    return np.concatenate(parts)


def jackknife_joint(audit: Audit) -> tuple[FloatArray, FloatArray]:
    """Leave-one-out values of G (J, S, K) and how many rows (or clusters) share each value."""
    data = audit.model.data
    if audit.units is not None:
        rows = np.asarray(audit.units.todense(), dtype=np.float64).reshape(-1, *data.counts.shape)
        return refit_counts(audit.model, data.counts[None] - rows)[0], np.ones(len(rows))
    counts, squared = data.counts.ravel(), data.squared.ravel()
    cells = np.flatnonzero(counts > 0)
    # the typical weight of a row of the cell, and how many such rows there are
    weight = squared[cells] / counts[cells]
    tables = np.repeat(data.counts[None], len(cells), axis=0)
    flat = tables.reshape(len(cells), -1)
    flat[np.arange(len(cells)), cells] -= np.minimum(weight, counts[cells])
    return refit_counts(audit.model, tables)[0], counts[cells] / weight


def bca_interval(
    estimate: FloatArray, draws: FloatArray, jackknife: FloatArray, count: FloatArray, level: float
) -> FloatArray:
    """Bias-corrected and accelerated intervals (k, 2) from draws (B, k) and jackknife (J, k)."""
    from scipy.special import ndtr, ndtri

    out = np.empty((len(estimate), 2))
    for t in range(len(estimate)):
        values = draws[:, t]
        below = np.clip(
            (values < estimate[t]).mean() + 0.5 * (values == estimate[t]).mean(),
            0.5 / len(values),
            1 - 0.5 / len(values),
        )
        z0 = ndtri(below)
        distance = np.average(jackknife[:, t], weights=count) - jackknife[:, t]
        spread = (count * distance**2).sum() ** 1.5
        acceleration = (count * distance**3).sum() / (6.0 * spread) if spread > 0 else 0.0
        ends = []
        for z in ndtri([(1 - level) / 2, (1 + level) / 2]):
            shifted = z0 + (z0 + z) / (1.0 - acceleration * (z0 + z))
            ends.append(float(np.quantile(values, ndtr(shifted))))
        out[t] = ends
    return out


# --------------------------------------------------------------------------------- delta method
def delta_estimates(
    audit: Audit, gaps: Gaps, law: JointCovariance
) -> InfluenceEstimates | CovarianceEstimates:
    """Estimates of gaps from the law of G; by cluster where rows are clustered."""
    jacobian = gaps.gradient.reshape(len(gaps.values), -1)
    return smooth_estimates(audit, gaps.values, jacobian, gaps.names, law)


def smooth_estimates(
    audit: Audit,
    values: FloatArray,
    jacobian: FloatArray,
    names: Sequence[str],
    law: JointCovariance,
) -> InfluenceEstimates | CovarianceEstimates:
    """Estimates of smooth functions of G with Jacobian (t, SK)."""
    known = np.isfinite(values) & np.isfinite(jacobian).all(axis=1)
    safe = np.where(known[:, None], jacobian, 0.0)
    if audit.units is None:
        vcov = safe @ law.vcov @ safe.T
        vcov[~known, :] = np.nan
        vcov[:, ~known] = np.nan
        return CovarianceEstimates(values, vcov, tuple(names))
    clustered = cluster_estimates(
        audit, values[known], safe[known], [n for n, k in zip(names, known, strict=True) if k], law
    )
    if known.all():
        return clustered
    vcov = np.full((len(values), len(values)), np.nan)
    vcov[np.ix_(known, known)] = clustered.vcov
    return CovarianceEstimates(values, vcov, tuple(names), df=clustered.df)


def cluster_estimates(
    audit: Audit,
    values: FloatArray,
    jacobian: FloatArray,
    names: Sequence[str],
    law: JointCovariance,
) -> InfluenceEstimates:
    """Influence of each cluster: rows of a cluster enter through its row of cell counts only."""
    by_cell = law.influence @ jacobian.T
    total = audit.model.data.n
    n_units = audit.units.shape[0]
    psi = np.asarray(audit.units @ by_cell) * (n_units / total)
    psi -= psi.mean(axis=0)
    return InfluenceEstimates(values, psi, [str(name) for name in names], cluster=audit.unit_codes)


def with_model(audit: Audit, model: Model) -> Audit:
    """Return the same rows under another model."""
    return replace(audit, model=model)
