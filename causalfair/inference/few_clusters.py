"""A test for few clusters: signs of the clusters' scores, drawn at random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, RandomState
from causalfair.exceptions import DataError, ParameterError
from causalfair.inference.estimates import Estimates
from causalfair.inference.tests import HypothesisTest
from causalfair.inference.vcov import cluster_sums

__all__ = ["wild_cluster_test"]

ENUMERATED = 13  # clusters up to which all sign patterns are gone through
BLOCK = 2_000_000
WEBB = np.sqrt([0.5, 1.0, 1.5])


def wild_cluster_test(
    estimates: Estimates,
    null: float = 0.0,
    *,
    weights: str = "rademacher",
    n_draws: int = 9_999,
    rng: RandomState = 0,
) -> HypothesisTest:
    """Test one estimate with clustered errors by a wild bootstrap of the clusters' scores.

    With few clusters neither the normal nor the t distribution is to be relied on. The scores under
    the hypothesis are added up within clusters and get random signs; up to 13 clusters all patterns
    of signs are gone through.

    Parameters
    ----------
    estimates : InfluenceEstimates
        One term, with one way of clustering.
    null : float, default 0.0
        Hypothesised value.
    weights : {"rademacher", "webb"}, default "rademacher"
        Random signs, or Webb's six points: smoother with fewer than twelve clusters.
    n_draws : int, default 9999
        Draws, where not all patterns are gone through.
    rng : int, SeedSequence, Generator or None, default 0
        Seed.

    Returns
    -------
    HypothesisTest
        Two-sided. With random signs the level is exact, in samples of any size, for scores whose
        cluster sums are symmetric.

    Raises
    ------
    DataError
        No clusters, several ways of clustering, no influence values, or more than one term.
    ParameterError
        Unknown weights.

    References
    ----------
    .. [1] P. Kline and A. Santos (2012). A score based approach to wild bootstrap inference.
       Journal of Econometric Methods 1, 23-41. doi:10.1515/2156-6674.1006

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.inference import InfluenceEstimates, wild_cluster_test
    >>> site = np.repeat(np.arange(30), 4)
    >>> y = 1.0 + site % 5 + np.tile([-0.2, -0.1, 0.1, 0.2], 30)
    >>> mean = InfluenceEstimates(y.mean(), y - y.mean(), ["mean"], cluster=site)
    >>> wild_cluster_test(mean).p_value < 0.001
    True
    """
    sums, size = _cluster_scores(estimates)
    return wild_score_test(
        sums + size * (float(estimates.estimate[0]) - null),
        "wild cluster bootstrap",
        f"{estimates.names[0]} = {null:g}",
        weights=weights,
        n_draws=n_draws,
        rng=rng,
    )


def wild_score_test(
    scores: FloatArray,
    name: str,
    null: str,
    *,
    weights: str,
    n_draws: int = 9_999,
    rng: RandomState = 0,
) -> HypothesisTest:
    """Two-sided test that clusters' scores (G,) have mean zero, by random weights for each."""
    if weights not in ("rademacher", "webb"):
        raise ParameterError(
            f"wild_cluster_test got weights={weights!r}; use 'rademacher' or 'webb'."
        )
    observed = float(_studentised(scores[None])[0])
    everything = weights == "rademacher" and scores.size <= ENUMERATED
    beyond = total = 0
    for signs in (
        _all_signs(scores.size) if everything else _draws(scores.size, weights, n_draws, rng)
    ):
        # Sums in another order differ in the last digits: those are ties.
        statistic = np.abs(_studentised(signs * scores))
        beyond += int((statistic >= abs(observed) * (1 - 1e-9)).sum())
        total += len(signs)
    p = beyond / total if everything else (1 + beyond) / (1 + total)
    return HypothesisTest(name, null, observed, p, None, "bootstrap")


def _cluster_scores(estimates: Estimates) -> tuple[FloatArray, FloatArray]:
    """Sums of influence (G,) and numbers of rows (G,) of the clusters."""
    owner = "wild_cluster_test"
    psi, cluster = estimates.influence, getattr(estimates, "cluster", None)
    if len(estimates.names) != 1:
        raise DataError(
            f"{owner} got {len(estimates.names)} terms; choose one, as in estimates['name']."
        )
    if psi is None or cluster is None:
        raise DataError(
            f"{owner} needs influence values and clusters; fit with cluster=, and give an average "
            "effect, a projection or a contrast."
        )
    if cluster.shape[1] != 1:
        raise DataError(f"{owner} takes one way of clustering; these estimates have "
                        f"{cluster.shape[1]}.")  # fmt: skip
    codes = cluster[:, 0]
    return cluster_sums(psi, codes).ravel(), np.bincount(codes).astype(np.float64)


def _studentised(scores: FloatArray) -> FloatArray:
    """Sum over standard error of the cluster scores, row by row."""
    G = scores.shape[1]
    total = scores.sum(axis=1)
    spread = ((scores - total[:, None] / G) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = total / np.sqrt(spread * G / (G - 1))
    return np.where(total == 0, 0.0, out)


def _all_signs(G: int) -> Iterator[FloatArray]:
    pattern = (np.arange(2**G)[:, None] >> np.arange(G)) & 1
    yield np.where(pattern == 1, 1.0, -1.0)


def _draws(G: int, weights: str, count: int, rng: RandomState) -> Iterator[FloatArray]:
    root, step = root_seed(rng), max(1, BLOCK // G)
    values = np.array([-1.0, 1.0]) if weights == "rademacher" else np.concatenate([-WEBB, WEBB])
    for block, start in enumerate(range(0, count, step)):
        yield generator(root, block).choice(values, (min(step, count - start), G))
