"""A minimal stand-in for estimates, so that reporting is tested on its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from scipy import special


@dataclass
class PlainEstimates:
    names: tuple[str, ...]
    estimate: np.ndarray
    std_error: np.ndarray
    influence: np.ndarray | None = field(default=None)

    def conf_int(self, level: float = 0.95) -> np.ndarray:
        half = special.ndtri(0.5 + level / 2) * self.std_error
        return np.column_stack([self.estimate - half, self.estimate + half])

    def p_value(self) -> np.ndarray:
        return 2 * special.ndtr(-np.abs(self.estimate / self.std_error))

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        low, high = self.conf_int(level).T
        return pd.DataFrame(
            {"term": self.names, "estimate": self.estimate, "conf_low": low, "conf_high": high}
        )


@pytest.fixture
def estimates() -> PlainEstimates:
    return PlainEstimates(
        ("ATE", "direct effect"), np.array([7.6142, -0.5]), np.array([2.1873, 0.0213])
    )
