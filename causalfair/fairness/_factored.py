"""Groups that are combinations of factors, with proxies of single factors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.fairness._latent import LatentFit, Spec, best_labelling, fit_latent
from causalfair.fairness._models import Model, start_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.fairness._tensor import PatternCounts


def factor_levels(factors: Sequence[int]) -> IntArray:
    """Level of each factor in each group: (n_groups, n_factors), last factor fastest."""
    return np.stack(
        np.unravel_index(np.arange(int(np.prod(factors))), tuple(factors)), axis=1
    ).astype(np.intp)


def factor_rows(factors: Sequence[int], proxy_factor: Sequence[int], m: int) -> IntArray:
    """Row of each proxy's error matrix used by each group: (m, K).

    Raises
    ------
    ParameterError
        Not one factor a proxy, or an unknown factor.
    """
    if len(proxy_factor) != m:
        raise ParameterError(
            f"proxy_factor has {len(proxy_factor)} entries, but there are {m} proxies."
        )
    if min(proxy_factor) < 0 or max(proxy_factor) >= len(factors):
        raise ParameterError(
            f"proxy_factor={list(proxy_factor)} must name factors 0..{len(factors) - 1}."
        )
    levels = factor_levels(factors)
    return np.stack([levels[:, f] for f in proxy_factor]).astype(np.intp)


def fit_factored(
    data: PatternCounts,
    spec: Spec,
    affinity: tuple[FloatArray, ...],
    rng: np.random.Generator,
    factors: Sequence[int],
    proxy_factor: Sequence[int],
) -> Model:
    """Maximum likelihood of the factored model; the levels of every factor are named apart.

    Raises
    ------
    IdentificationError
        A factor with fewer than two proxies, or with two and no informative strata.
    """
    for f in range(len(factors)):
        views = sum(1 for value in proxy_factor if value == f)
        if views < 3 and not (views == 2 and data.n_strata >= factors[f]):
            raise IdentificationError(
                f"Not identified: factor {f} has {views} proxies; each factor needs three, or two "
                "and as many strata of decision and label as it has levels."
            )
    starts = start_values(data, spec, affinity, rng)
    fit = fit_latent(data, spec, affinity, starts)
    fit = _name_factors(fit, spec, data, factors, proxy_factor)
    return Model("joint", data, spec, fit, affinity)


def _name_factors(
    fit: LatentFit,
    spec: Spec,
    data: PatternCounts,
    factors: Sequence[int],
    proxy_factor: Sequence[int],
) -> LatentFit:
    levels = factor_levels(factors)
    T = fit.T.copy()
    orders, margins = [], []
    for f, n_levels in enumerate(factors):
        share = np.array([fit.prevalence[levels[:, f] == v].sum() for v in range(n_levels)])
        mine = [j for j in range(data.n_proxies) if proxy_factor[j] == f]
        agreement = sum(
            fit.T[spec.tables[0, j], :n_levels, : data.n_levels[j]]
            @ np.eye(data.n_levels[j], n_levels)
            for j in mine
        )
        order, margin = best_labelling(share[:, None] * np.asarray(agreement))
        orders.append(order)
        margins.append(margin)
        for j in mine:
            r = int(spec.tables[0, j])
            T[r, :n_levels] = fit.T[r, :n_levels][order]
    renamed = np.stack([orders[f][levels[:, f]] for f in range(len(factors))], axis=1)
    column = np.ravel_multi_index(tuple(renamed.T), tuple(factors))
    return replace(fit, G=np.ascontiguousarray(fit.G[:, column]), T=T, label_margin=min(margins))
