"""What holds for every estimator of every family."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks, get_tags
from specimens import SPECIMENS, Specimen, as_arrays

from causalfair.exceptions import CausalFairWarning
from causalfair.inference import Estimates

TIDY = ["term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]


@pytest.fixture(autouse=True)
def _deliberate_warnings_are_no_matter():
    """Small specimens may well be weakly identified; anything else is still an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        yield


@pytest.fixture(params=SPECIMENS, scope="module")
def specimen(request) -> Specimen:
    return SPECIMENS[request.param]


@pytest.fixture(scope="module")
def fitted(specimen):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        return specimen.fit()


def same(left: Estimates, right: Estimates) -> bool:
    return left == right


def test_constructor_only_stores(specimen):
    estimator = specimen.estimator()
    for name, value in specimen.parameters.items():
        assert getattr(estimator, name) is value
    assert clone(estimator).get_params().keys() == estimator.get_params().keys()
    assert not [name for name in vars(estimator) if name.endswith("_")]
    get_tags(estimator)


# scikit-learn's own checks that ask for no data; those that fit tiny made-up tables without roles
# have no meaning here, and what they check is checked below on data that has them.
SKLEARN_CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_get_params_invariance",
    "check_no_attributes_set_in_init",
    "check_set_params",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("check", SKLEARN_CHECKS)
def test_scikit_learn_checks(specimen, check):
    getattr(estimator_checks, check)(specimen.make.__name__, specimen.estimator())


def test_roles_are_routed_as_metadata(specimen):
    from sklearn import config_context

    roles = [role for role in specimen.roles if role != "covariates"]
    with config_context(enable_metadata_routing=True):
        estimator = specimen.estimator().set_fit_request(**dict.fromkeys(roles, True))
        requests = estimator.get_metadata_routing().fit.requests
    assert {role: requests[role] for role in roles} == dict.fromkeys(roles, True)


def test_unfitted_access_is_named(specimen):
    estimator = specimen.estimator()
    for method in ("summary", "to_frame", "conf_int", "provenance"):
        with pytest.raises(NotFittedError):
            getattr(estimator, method)()
    assert type(estimator).__name__ in estimator._repr_html_()


def test_fit_returns_self_and_leaves_the_data_alone(specimen):
    frame = specimen.frame()
    before = frame.copy(deep=True)
    estimator = specimen.estimator()
    assert estimator.fit(frame, specimen.y, **specimen.roles) is estimator
    pd.testing.assert_frame_equal(frame, before)


def test_same_bits_for_every_frame_library(specimen, fitted):
    frame = specimen.frame()
    for convert in (pl.from_pandas, pa.Table.from_pandas):
        assert same(specimen.fit(convert(frame)).estimates_, fitted.estimates_)


def test_same_bits_for_arrays(specimen, fitted):
    X, y, roles = as_arrays(specimen)
    estimator = specimen.estimator().fit(X, y, **roles)
    np.testing.assert_array_equal(estimator.estimates_.estimate, fitted.estimates_.estimate)
    np.testing.assert_array_equal(estimator.estimates_.vcov, fitted.estimates_.vcov)


def test_refit_and_workers_change_nothing_and_another_seed_does(specimen, fitted):
    again = specimen.fit()
    assert same(again.estimates_, fitted.estimates_)
    again.fit(specimen.frame(), specimen.y, **specimen.roles)
    assert same(again.estimates_, fitted.estimates_)
    if specimen.has("n_jobs"):
        assert same(specimen.fit(n_jobs=2).estimates_, fitted.estimates_)
    if specimen.seed_matters and "random_state" in specimen.parameters:
        assert not same(specimen.fit(random_state=99).estimates_, fitted.estimates_)


def test_pickle_is_small_and_whole(specimen, fitted):
    blob = pickle.dumps(fitted)
    terms = len(fitted.estimates_)
    assert len(blob) < 1_000_000 + 8 * fitted.n_obs_ * (20 + terms)
    assert same(pickle.loads(blob).estimates_, fitted.estimates_)


def test_tidy_frames(specimen, fitted):
    frame = fitted.to_frame()
    assert list(frame.columns)[: len(TIDY)] == TIDY
    assert len(frame) == len(fitted.estimates_.names)
    assert (frame["conf_low"] <= frame["conf_high"]).all()
    assert isinstance(specimen.fit(pl.from_pandas(specimen.frame())).to_frame(), pl.DataFrame)


def test_summary_in_every_format(fitted):
    summary = fitted.summary()
    assert max(map(len, str(summary).splitlines())) <= 88
    assert "Assumes" in str(summary)
    assert "<table" in summary._repr_html_()
    assert "\\toprule" in summary.to_latex()
    assert "|" in summary.to_markdown()
    assert fitted._repr_html_() == summary._repr_html_()


def test_citations_and_provenance(specimen, fitted):
    assert "@" in fitted.cite().bibtex()
    assert "causalfair" in fitted.cite().bibtex()
    document = fitted.provenance()
    assert json.loads(document.to_json())
    assert document == specimen.fit().provenance()


def test_plot_draws_on_given_axes(fitted):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, axes = pyplot.subplots()
    assert fitted.plot(ax=axes) is axes
    pyplot.close(figure)


def test_a_misspelt_column_is_named(specimen):
    role = next(iter(specimen.roles))
    value = specimen.roles[role]
    wrong = f"{value}x" if isinstance(value, str) else [f"{value[0]}x", *value[1:]]
    name = wrong if isinstance(wrong, str) else wrong[0]
    with pytest.raises(ValueError, match=f"{name}.*Did you mean"):
        specimen.estimator().fit(specimen.frame(), specimen.y, **{**specimen.roles, role: wrong})


def test_missing_outcomes_are_counted(specimen):
    frame = specimen.frame().copy()
    frame[specimen.y] = frame[specimen.y].astype(float)
    frame.loc[frame.index[:3], specimen.y] = np.nan
    with pytest.raises(ValueError, match="3 missing"):
        specimen.fit(frame)
