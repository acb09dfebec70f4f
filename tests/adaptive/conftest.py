"""Small holdouts and helpers shared by the adaptive tests."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.adaptive import ReusableHoldout
from causalfair.adaptive._experiments import bit_batch
from causalfair.adaptive._noise import KeyedNoise


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(4_000, 4))
    y = (X[:, 0] + rng.normal(size=4_000) > 0).astype(int)
    return X, y


@pytest.fixture
def training():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(3_000, 4))
    y = (X[:, 0] + rng.normal(size=3_000) > 0).astype(int)
    return X, y


@pytest.fixture
def noise():
    return KeyedNoise(b"k" * 32)


@pytest.fixture
def gaussian(data):
    return ReusableHoldout.create(None, *data, mechanism="gaussian", max_queries=100)


@pytest.fixture
def bits():
    return np.random.default_rng(7).random((2_000, 60)) < 0.5


@pytest.fixture
def bit_queries():
    return bit_batch
