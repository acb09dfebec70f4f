from __future__ import annotations

import pytest

from causalfair.datasets import make_image_sequence_trial
from causalfair.forest import CausalForest
from causalfair.imagery import ImageSequenceCATE, SequenceFeatures, SpectralFeatures


@pytest.fixture(scope="session")
def trial():
    return make_image_sequence_trial(400, size=16, noise=0.7, random_state=3)


@pytest.fixture(scope="session")
def spectral():
    return SequenceFeatures(SpectralFeatures())


@pytest.fixture(scope="session")
def fitted(trial, spectral):
    frame, truth = trial
    return ImageSequenceCATE(spectral, CausalForest(200), random_state=1).fit(
        truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5
    )
