"""Log-likelihood against an independent latent-class package."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from causalfair.exceptions import CausalFairWarning
from causalfair.fairness import ProxyFairness
from causalfair.fairness._simulate import draw_levels

# the peer stops on a change of the mean log-likelihood; both maxima agree far below this, per row
PER_ROW = 1e-5


@pytest.mark.parametrize(
    ("K", "levels"),
    [(2, (2, 2, 2)), (3, (3, 4, 3, 5)), (4, (6, 5, 4, 6, 5))],
)
def test_loglikelihood_equals_stepmix(K, levels):
    StepMix = pytest.importorskip("stepmix").StepMix
    rng = np.random.default_rng(K)
    n = 3000
    group = draw_levels(np.tile(rng.dirichlet(np.full(K, 10.0)), (n, 1)), rng)
    codes = []
    for L in levels:
        table = 0.65 * np.eye(K, L) + 0.35 * rng.dirichlet(np.ones(L), size=K)
        codes.append(draw_levels(table[group], rng))
    X = np.column_stack(codes)
    cell = draw_levels(rng.dirichlet(np.ones(4), size=K)[group], rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        ours = ProxyFairness(K, random_state=0).fit(X, cell // 2, y_true=cell % 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = StepMix(
            n_components=K,
            measurement="categorical",
            n_init=8,
            max_iter=3000,
            abs_tol=1e-10,
            rel_tol=0,
            random_state=0,
            progress_bar=0,
            verbose=0,
        ).fit(np.column_stack([X, cell]))
        theirs = float(peer.score(np.column_stack([X, cell])))
    assert ours.loglik_ / n == pytest.approx(theirs, abs=PER_ROW)
