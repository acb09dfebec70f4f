"""The base class on the smallest estimator there is: adjusted difference through cross-fitting."""

from __future__ import annotations

import pickle
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import Interval, fit_context
from causalfair._core.crossfit import CrossFitter, NuisanceSpec
from causalfair._core.learners import default_classifier, default_regressor
from causalfair._core.logging import warn
from causalfair._core.random import root_seed
from causalfair._core.roles import resolve_roles
from causalfair._core.scores import weighted_mean_score
from causalfair._core.validation import check_binary
from causalfair.exceptions import CausalFairWarning


class AIPW(CausalEstimator):
    """Augmented inverse-probability weighting, to exercise the spine."""

    _title = "Average treatment effect"
    _estimand = "mean difference between treating everyone and no one"
    _assumptions = ("no unmeasured confounding", "overlap")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_jobs": [None, int],
        "random_state": ["random_state"],
    }

    def __init__(self, n_folds=3, *, n_jobs=None, random_state=None):
        self.n_folds = n_folds
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context
    def fit(self, X, y, *, treatment, covariates=None, cluster=None, sample_weight=None):
        data = resolve_roles(
            X, y, owner="AIPW.fit", covariates=covariates, roles={"treatment": treatment},
            cluster=cluster, sample_weight=sample_weight,
        )  # fmt: skip
        a = check_binary(data.roles["treatment"], "treatment", owner="AIPW.fit").values
        n, p = data.covariates.shape
        root = root_seed(self.random_state)
        fitter = CrossFitter(
            self.n_folds, stratify=a, groups=data.cluster, n_jobs=self.n_jobs, random_state=root
        )
        specs = [
            NuisanceSpec("e", default_classifier(n, p), a, data.covariates, method="predict_proba"),
            NuisanceSpec("m1", default_regressor(n, p), data.y, data.covariates, rows=a == 1),
            NuisanceSpec("m0", default_regressor(n, p), data.y, data.covariates, rows=a == 0),
        ]
        table = fitter.run(specs, n)
        e, m1, m0 = (table[s.name][:, 0] for s in specs)
        phi = m1 - m0 + a * (data.y - m1) / e - (1 - a) * (data.y - m0) / (1 - e)
        self.estimates_ = weighted_mean_score(
            phi, ["ATE"], cluster=data.cluster, sample_weight=data.sample_weight,
            sample_id=data.sample_id(),
        )  # fmt: skip
        warn("the toy says so", CausalFairWarning)
        return self._finish(data, seed=root, folds=table.fold_hash())


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 300
    x = rng.normal(size=(n, 2))
    a = rng.random(n) < 1 / (1 + np.exp(-x[:, 0]))
    y = 2.0 * a + x[:, 0] + rng.normal(size=n)
    return pd.DataFrame(
        {"y": y, "a": a, "x0": x[:, 0], "x1": x[:, 1], "g": np.repeat(np.arange(60), 5)}
    )


def fit(X: Any, **options: Any) -> AIPW:
    with pytest.warns(CausalFairWarning, match="the toy says so"):
        return AIPW(**{"random_state": 1} | options).fit(
            X, "y", treatment="a", covariates=["x0", "x1"]
        )


def test_same_bits_for_every_frame_library_and_arrays(frame):
    want = fit(frame).estimates_
    assert abs(want.estimate[0] - 2) < 4 * want.std_error[0]
    assert fit(pl.from_pandas(frame)).estimates_ == want
    assert fit(pa.Table.from_pandas(frame)).estimates_ == want
    with pytest.warns(CausalFairWarning):
        arrays = AIPW(random_state=1).fit(
            frame[["x0", "x1"]].to_numpy(), frame["y"].to_numpy(), treatment=frame["a"].to_numpy()
        )
    assert arrays.estimates_ == want


def test_same_bits_for_any_number_of_workers_and_other_bits_for_other_seeds(frame):
    want = fit(frame).estimates_
    assert fit(frame, n_jobs=2).estimates_ == want
    assert fit(frame, random_state=2).estimates_ != want


def test_refit_is_idempotent_and_inputs_are_left_alone(frame):
    before = frame.copy()
    estimator = fit(frame)
    first = estimator.estimates_
    with pytest.warns(CausalFairWarning):
        estimator.fit(frame, "y", treatment="a", covariates=["x0", "x1"])
    assert estimator.estimates_ == first
    pd.testing.assert_frame_equal(frame, before)


def test_clone_pickle_and_size(frame):
    estimator = fit(frame)
    assert clone(estimator).get_params() == estimator.get_params()
    blob = pickle.dumps(estimator)
    assert len(blob) < 50_000 + 8 * len(frame)
    assert pickle.loads(blob).estimates_ == estimator.estimates_


def test_frames_follow_the_input_library(frame):
    assert isinstance(fit(frame).to_frame(), pd.DataFrame)
    out = fit(pl.from_pandas(frame)).to_frame()
    assert isinstance(out, pl.DataFrame)
    assert out.columns[:3] == ["term", "estimate", "std_error"]


def test_summary_tells_what_a_referee_asks(frame):
    estimator = fit(frame)
    text = str(estimator.summary())
    for part in ("Average treatment effect", "300", "ATE", "no unmeasured confounding", "the toy"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 88
    assert "<table" in estimator._repr_html_()
    assert "\\toprule" in estimator.summary().to_latex()


def test_regression_tables_read_estimators(frame):
    estimator = fit(frame)
    assert estimator.__maketables_depvar__ == "y"
    assert estimator.__maketables_stat__("N") == 300
    assert estimator.__maketables_stat__("r2") is None
    assert estimator.__maketables_default_stat_keys__ == ["N"]
    assert estimator.__maketables_vcov_info__["vcov_type"] == "influence function"
    assert estimator.__maketables_coef_table__.index[0] == "ATE"
    maketables = pytest.importorskip("maketables")
    shown = maketables.ETable([estimator, estimator.estimates_]).make(type="tex")
    assert "ATE" in shown


def test_cite_and_provenance(frame):
    estimator = fit(frame)
    assert "causalfair" in estimator.cite().bibtex()
    document = estimator.provenance().to_json()
    assert '"n_folds": 3' in document
    assert fit(frame).provenance() == estimator.provenance()


def test_unfitted_access_and_bad_parameters(frame):
    with pytest.raises(NotFittedError):
        AIPW().summary()
    with pytest.raises(NotFittedError):
        AIPW().conf_int()
    with pytest.raises(ValueError, match="n_folds"):
        AIPW(n_folds=1).fit(frame, "y", treatment="a", covariates="all")
    assert "AIPW" in AIPW()._repr_html_()


def test_warnings_point_at_the_callers_file(frame):
    with pytest.warns(CausalFairWarning) as caught:
        AIPW(random_state=1).fit(frame, "y", treatment="a", covariates=["x0", "x1"])
    assert caught[0].filename == __file__
