"""Small data sets that many tests share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="session")
def trial():
    """A randomised trial: effect 1 + x0, 600 rows in 60 clusters."""
    rng = np.random.default_rng(12)
    n = 600
    X = rng.normal(size=(n, 4))
    w = rng.integers(0, 2, n)
    y = X[:, 1] + w * (1 + X[:, 0]) + rng.normal(size=n)
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    return frame.assign(w=w, y=y, site=np.arange(n) // 10)
