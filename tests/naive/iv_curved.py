"""A study that linear learners get wrong: instrument, effect and outcome models are curved."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

ATE = 1.0


def curved_study(n: int, seed: int) -> pd.DataFrame:
    """Binary treatment, invalid instrument, quadratic pi, beta and mu; average effect 1."""
    rng = np.random.default_rng(seed)
    x1, x2, u = rng.uniform(-1, 1, (3, n))
    bump = x1**2 - 1 / 3
    z = (rng.random(n) < expit(0.2 + x1 - x2 + 2.0 * bump)).astype(float)
    a = (rng.random(n) < expit(-2.1 + 1.6 * z + (0.7 * z - 0.2) * x1) + 0.08 * u).astype(float)
    beta = ATE + 1.5 * (x1 - x2) + 3.0 * bump
    mu = 0.5 + z + 2.0 * x1 - x2 + 4.0 * bump * (1 + z)
    y = beta * a + mu + (2.5 + 2.0 * x1) * u + rng.normal(size=n)
    return pd.DataFrame({"y": y, "a": a, "z": z, "x1": x1, "x2": x2})
