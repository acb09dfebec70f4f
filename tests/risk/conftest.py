"""Fits shared by the tests; NUTS is compiled once a session."""

from __future__ import annotations

import pytest

from causalfair.datasets import make_selective_labels
from causalfair.risk import DomainConstrainedRisk

COLUMNS = ["x1", "x2"]


@pytest.fixture(scope="session")
def labels():
    return make_selective_labels(1500, n_features=2, random_state=11)


@pytest.fixture(scope="session")
def constrained(labels):
    """Parameters of the model with both constraints."""
    _, truth = labels
    return {
        "prevalence": truth["prevalence"], "prevalence_sd": 0.02, "expertise": ["x1"],
        "random_state": 0,
    }  # fmt: skip


@pytest.fixture(scope="session")
def quick(labels, constrained):
    frame, _ = labels
    model = DomainConstrainedRisk(sampler="laplace", draws=1000, **constrained)
    return model.fit(frame, "y", tested="tested", covariates=COLUMNS)


@pytest.fixture(scope="session")
def sampled(labels, constrained):
    frame, _ = labels
    model = DomainConstrainedRisk(draws=500, tune=500, chains=4, **constrained)
    return model.fit(frame, "y", tested="tested", covariates=COLUMNS)
