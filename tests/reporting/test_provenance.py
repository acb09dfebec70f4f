from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import Ridge

from causalfair import __version__
from causalfair.exceptions import ParameterError
from causalfair.reporting import Provenance


class Toy(BaseEstimator):
    def __init__(self, learner=None, n_folds=5, extra=None):
        self.learner = learner
        self.n_folds = n_folds
        self.extra = extra

    def provenance(self):
        return Provenance.of(self, RECORD)


RECORD = {
    "seed": 2**100 + 1,
    "spawn_key": (1, 2),
    "fingerprint": "abc123",
    "n": 9275,
    "roles": {"y": "net_tfa", "treatment": "p401"},
    "warnings": ["12 of 9,275 probabilities clipped"],
    "seconds": 1.25,
    "folds": "f00d",
}


@pytest.fixture
def document() -> Provenance:
    return Provenance.of(Toy(Ridge(alpha=2.0)), RECORD)


def test_document_states_what_made_the_result(document):
    assert document.estimator.endswith("test_provenance.Toy")
    assert document.params == {"extra": None, "learner": "Ridge(alpha=2.0)", "n_folds": 5}
    assert document.versions["causalfair"] == __version__
    assert document.versions["numpy"] == np.__version__
    assert "scikit-learn" in document.versions
    assert document.seed == 2**100 + 1
    assert (document.n, document.folds, document.fingerprint) == (9275, "f00d", "abc123")


def test_round_trip(document):
    again = Provenance.from_json(document.to_json())
    assert again == document
    assert again.seconds == 1.25
    assert again.to_json() == document.to_json()
    assert json.loads(document.to_json())["roles"]["treatment"] == "p401"


def test_wall_time_is_not_compared(document):
    later = dataclasses.replace(document, seconds=99.0)
    assert later == document
    assert document.check(later)
    assert "agree" in str(document.check(later))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fingerprint": "zzz"}, "fingerprint: recorded 'abc123', now 'zzz'"),
        ({"seed": 3}, "seed: recorded"),
        ({"params": {"n_folds": 2}}, "params['n_folds']: recorded 5, now 2"),
        ({"folds": None}, "folds: recorded 'f00d', now None"),
        ({"versions": {}}, "versions['numpy']: recorded"),
        ({"warnings": ()}, "warnings: recorded"),
    ],
)
def test_check_names_each_difference(document, change, sentence):
    verdict = document.check(dataclasses.replace(document, **change))
    assert not verdict
    assert any(sentence in text for text in verdict.differences)
    assert sentence in str(verdict)


def test_check_takes_a_fitted_estimator(document):
    assert document.check(Toy(Ridge(alpha=2.0)))
    verdict = document.check(Toy(Ridge(alpha=1.0)))
    assert verdict.differences == ("params['learner']: recorded 'Ridge(alpha=2.0)', now 'Ridge()'",)


def test_parameters_become_plain_without_addresses_or_data():
    extra = {
        "f": np.mean,
        "array": np.arange(1000.0),
        "object": object(),
        "pair": (np.float64(1.5), math.inf),
        "flag": np.bool_(True),
    }
    document = Provenance.of(Toy(extra=extra), RECORD)
    plain = document.params["extra"]
    assert plain["f"] == "numpy.mean"
    assert plain["array"].startswith("array(shape=(1000,), dtype=float64, blake2b=")
    assert plain["object"] == "<object object>"
    assert plain["pair"] == [1.5, "inf"]
    assert plain["flag"] is True
    assert Provenance.from_json(document.to_json()) == document
    assert "NaN" not in document.to_json()
    changed = {**extra, "array": np.arange(1000.0) + 1e-12}
    assert Provenance.of(Toy(extra=changed), RECORD) != document


def test_nothing_random_and_no_folds():
    record = {"n": 3, "roles": {}, "fingerprint": "x", "seed": None}
    document = Provenance.of(Toy(), record)
    assert document.seed is None
    assert document.folds is None
    assert math.isnan(Provenance.from_json(document.to_json()).seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "format 1"),
        ('{"format": 99}', "format 1"),
        ('{"format": 1, "estimator": "x"}', "missing or unknown entries: fingerprint"),
    ],
)
def test_foreign_documents_raise(text, message):
    with pytest.raises(ParameterError, match=message):
        Provenance.from_json(text)


def test_renders(document):
    assert str(document).startswith("Provenance\n estimator: ")
    assert "rows: 9,275" in str(document)
    assert "warning: 12 of 9,275" in repr(document)
    assert max(map(len, str(document).splitlines())) <= 88
    assert "<details><summary>JSON</summary>" in document._repr_html_()
