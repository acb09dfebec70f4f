"""Quick draws: smoothed weights and the nested approximation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from causalfair.risk._pareto import pareto_fit, smoothed_log_weights


@pytest.mark.parametrize("shape", [0.1, 0.5, 0.9])
def test_pareto_shape_is_found(shape):
    x = stats.genpareto.rvs(shape, scale=2.0, size=20_000, random_state=1)
    k, scale = pareto_fit(x)
    assert k == pytest.approx(shape, abs=0.05)
    assert scale == pytest.approx(2.0, rel=0.1)


def test_smoothing_keeps_the_order_and_tells_bad_proposals_from_good():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    close = stats.norm.logpdf(x, 0.1, 1.0) - stats.norm.logpdf(x)
    smoothed, k = smoothed_log_weights(close)
    assert k < 0.3
    np.testing.assert_array_equal(
        np.argsort(smoothed, kind="stable"), np.argsort(close, kind="stable")
    )
    far = stats.norm.logpdf(x, 0.0, 4.0) - stats.norm.logpdf(x)
    assert smoothed_log_weights(far)[1] > 0.7
