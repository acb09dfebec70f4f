"""Every documented error and warning names the argument, the value and the remedy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from causalfair.datasets import make_invalid_iv
from causalfair.exceptions import (
    CausalFairWarning,
    ConvergenceError,
    DataError,
    IdentificationError,
    OverlapWarning,
    ParameterError,
    RoleError,
    WeakIdentificationWarning,
)
from causalfair.iv import MultiplyRobustATE

ROLES = {"treatment": "treatment", "instrument": "instrument", "covariates": ["x1", "x2"]}


@pytest.fixture(scope="module")
def frame():
    return make_invalid_iv(1000, random_state=11)[0]


@pytest.fixture(scope="module")
def fitted(frame):
    return MultiplyRobustATE().fit(frame, "y", **ROLES)


def fit(frame, **options):
    return MultiplyRobustATE(**options).fit(frame, "y", **ROLES)


@pytest.mark.parametrize("column", ["y", "treatment", "instrument"])
def test_missing_values_are_counted(frame, column):
    data = frame.copy()
    data.loc[:4, column] = np.nan
    with pytest.raises(DataError, match=rf"{column}.* has 5 missing value\(s\) in 1000 rows"):
        fit(data)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_covariates_must_be_finite(frame, bad):
    with pytest.raises(DataError, match="x1"):
        fit(frame.assign(x1=np.where(frame.index < 3, bad, frame.x1)))


def test_infinite_outcome(frame):
    with pytest.raises(DataError, match=r"y \('y'\) has 1 infinite value"):
        fit(frame.assign(y=np.where(frame.index == 0, np.inf, frame.y)))


def test_lengths_differ(frame):
    with pytest.raises(DataError, match="lengths differ"):
        MultiplyRobustATE().fit(
            frame[["x1"]].to_numpy(),
            frame.y.to_numpy()[:-1],
            treatment=frame.treatment.to_numpy(),
            instrument=frame.instrument.to_numpy(),
        )


def test_too_few_rows(frame):
    with pytest.raises(DataError, match="got 40 rows; it needs at least 50"):
        fit(frame[:40])


def test_too_few_rows_in_an_arm(frame):
    z = np.zeros(len(frame))
    z[:12] = 1
    with pytest.raises(DataError, match=r"got 12 rows with instrument 'instrument' = 1; .* 20"):
        fit(frame.assign(instrument=z))


def test_constant_instrument(frame):
    with pytest.raises(DataError, match=r"'instrument' takes one value \(1\) in all 1000 rows"):
        fit(frame.assign(instrument=1))


def test_multi_level_instrument_points_to_mrgenius(frame):
    with pytest.raises(DataError, match=r"takes 3 values; .* Use MRGenius"):
        fit(frame.assign(instrument=np.arange(len(frame)) % 3))


def test_constant_treatment(frame):
    with pytest.raises(DataError, match=r"no variation in treatment 'treatment'.*\(0\)"):
        fit(frame.assign(treatment=0))


def test_text_treatment_with_three_levels(frame):
    with pytest.raises(DataError, match="must be numeric"):
        fit(frame.assign(treatment=np.array(["a", "b", "c"])[np.arange(len(frame)) % 3]))


def test_treatment_constant_in_one_arm(frame):
    data = frame.assign(treatment=frame.treatment * frame.instrument)
    with pytest.warns(CausalFairWarning, match="one-sided non-compliance") as caught:
        est = fit(data)
    assert est._rows.constant_arm == 0
    assert caught[0].filename == __file__
    assert "One-sided non-compliance" in str(est.summary())
    with pytest.raises(DataError, match=r"one_sided=False\. Use one_sided='auto'"):
        fit(data, one_sided=False)
    assert fit(data, one_sided=True).estimates_ == est.estimates_


def test_one_sided_asked_for_but_not_there(frame):
    with pytest.raises(DataError, match="one_sided=True, but treatment 'treatment' varies"):
        fit(frame, one_sided=True)


def test_treatment_equal_to_instrument(frame):
    with pytest.raises(DataError, match="is a function of the instrument"):
        fit(frame.assign(treatment=frame.instrument))


def test_no_variance_shift_warns_and_gives_the_set(frame):
    g = np.random.default_rng(0)
    data = frame.assign(instrument=g.integers(0, 2, len(frame)))
    with pytest.warns(WeakIdentificationWarning) as caught:
        est = fit(data)
    text = str(caught[0].message)
    assert "no variance shift can be seen (F_het =" in text
    assert "robust 95% set for a constant effect is " in text
    assert est.robust_set()[0][0] == -np.inf
    assert est.relevance().f_het < 4
    assert "Use robust_set()" in est.relevance().verdict
    assert "Warning:" in str(est.summary())


def test_strong_instrument_with_complementary_uptake_is_useless():
    # lam0 + lam1 = 1: uptake 30 % to 70 %, a huge first stage and no variance shift.
    g = np.random.default_rng(1)
    z = g.integers(0, 2, 4000)
    a = (g.uniform(size=4000) < np.where(z == 1, 0.7, 0.3)).astype(float)
    y = a + g.normal(size=4000)
    with pytest.warns(WeakIdentificationWarning, match="no variance shift"):
        est = MultiplyRobustATE().fit(np.empty((4000, 0)), y, treatment=a, instrument=z)
    found = est.relevance().statistics
    assert found.first_stage_f > 300
    assert found.f_het < 4
    assert abs(found.lam0 + found.lam1 - 1) < 0.05


def test_sign_changes_of_the_shift_are_warned_of():
    g = np.random.default_rng(2)
    n = 4000
    x, z = g.uniform(-1, 1, n), g.integers(0, 2, n)
    # V1 > V0 for x > -0.4, V1 < V0 below.
    p = np.where(z == 1, 0.5, 1 / (1 + np.exp(-2.2 * (x + 0.4) - 1.0)) * 0.9)
    a = (g.uniform(size=n) < p).astype(float)
    with pytest.warns(WeakIdentificationWarning, match=r"D\(X\) changes sign"):
        MultiplyRobustATE().fit(x[:, None], a + g.normal(size=n), treatment=a, instrument=z)


def test_collinear_terms_are_dropped_with_a_warning_or_refused(frame, fitted):
    data = frame.assign(x3=2 * frame.x1 - frame.x2 + 1)
    roles = {**ROLES, "covariates": ["x1", "x2", "x3"]}
    with pytest.warns(CausalFairWarning, match="x3.*They were dropped"):
        est = MultiplyRobustATE().fit(data, "y", **roles)
    np.testing.assert_allclose(est.estimates_.estimate, fitted.estimates_.estimate, rtol=1e-9)
    with pytest.raises(ParameterError, match=r"x3.* or use strict=False"):
        MultiplyRobustATE(strict=True).fit(data, "y", **roles)


def test_poor_overlap_warns():
    g = np.random.default_rng(3)
    n = 3000
    x = g.normal(size=n)
    z = (g.uniform(size=n) < 1 / (1 + np.exp(-4 * x))).astype(float)
    a = (g.uniform(size=n) < np.where(z > 0, 0.5, 0.15)).astype(float)
    with pytest.warns(OverlapWarning, match=r"left the clipping range for \d+\.\d% of rows"):
        MultiplyRobustATE(clip=0.05).fit(
            x[:, None], a + g.normal(size=n), treatment=a, instrument=z
        )


def test_separated_instrument_model(frame):
    data = frame.assign(x1=frame.instrument + 0.01 * frame.x1)
    with pytest.raises(ConvergenceError, match="logistic regression for the instrument"):
        fit(data)


def test_singular_effect_equations(frame):
    # The effect is asked for in a direction in which the treatment does not vary at all.
    data = frame.assign(flag=(frame.x1 > 0.8).astype(float))
    data.loc[data.flag > 0, "treatment"] = 0.0
    with pytest.raises((IdentificationError, ConvergenceError)):
        MultiplyRobustATE(formulas={"effect": "~ flag", "treatment": "~ instrument * flag"}).fit(
            data, "y", **{**ROLES, "covariates": ["x1", "x2", "flag"]}
        )


def test_trim_drop_may_leave_nothing(frame):
    with pytest.raises(DataError, match="leaves no row"):
        fit(frame, trim="drop", min_variance_shift=0.26)


@pytest.mark.parametrize(
    ("formulas", "match"),
    [
        ({"efect": "~ x1"}, "key 'efect'. Did you mean 'effect'"),
        ({"effect": "x1"}, "starts with '~'"),
        ({"effect": "~ x1 + instrument"}, "this model is one of covariates alone"),
        ({"variance": "~ x1"}, "treatment is binary"),
        ({"effect": "~ x1 +* x2"}, "is not a formula"),
        ({"effect": "~ log(x1, 1, 2)"}, "cannot be built"),
        ({"instrument": "~ center(instrument)"}, "this model is one of covariates alone"),
    ],
)
def test_bad_formulas(frame, formulas, match):
    with pytest.raises(ParameterError, match=match):
        fit(frame, formulas=formulas)


def test_formula_with_an_unknown_column(frame):
    with pytest.raises(RoleError, match=r"uses 'x11', which is not a covariate. Did you mean"):
        fit(frame, formulas={"effect": "~ x11"})


def test_formula_whose_term_is_missing_somewhere(frame):
    with pytest.raises(DataError, match=r"formulas\['outcome'\].*'log\(x1\)' is not finite in"):
        fit(frame, formulas={"outcome": "~ instrument + log(x1)"})


def test_rows_without_weight_do_not_count(frame):
    few = np.where(np.arange(len(frame)) < 40, 1.0, 0.0)
    with pytest.raises(DataError, match="got 40 rows of positive weight; it needs at least 50"):
        MultiplyRobustATE().fit(frame, "y", **ROLES, sample_weight=few)
    with pytest.raises(DataError, match="got 0 rows with instrument 'instrument' = 0"):
        MultiplyRobustATE().fit(frame, "y", **ROLES, sample_weight=frame["instrument"])


@pytest.mark.parametrize(
    "options", [{"clip": 0.5}, {"trim": "no"}, {"one_sided": "yes"}, {"min_variance_shift": -1.0}]
)
def test_constructor_values_are_checked_in_fit(frame, options):
    with pytest.raises(ValueError, match=f"'{next(iter(options))}' parameter"):
        fit(frame, **options)


@pytest.mark.parametrize(
    "method",
    [
        "summary",
        "att",
        "robust_set",
        "relevance",
        "overlap",
        "leverage",
        "exclusion_tests",
        "sensitivity",
        "comparators",
        "direct_effect",
        "constant_effect",
        "plot_overlap",
    ],
)
def test_unfitted_access(method):
    with pytest.raises(NotFittedError):
        getattr(MultiplyRobustATE(), method)()


def test_post_estimation_mistakes(frame, fitted):
    with pytest.raises(DataError, match=r"groups has shape \(3,\).*1,000 rows"):
        fitted.gate([1, 2, 3])
    with pytest.raises(DataError, match="1000 distinct labels"):
        fitted.gate(np.arange(1000))
    with pytest.raises(DataError, match="X has 10 rows; give the covariates of the 1,000 rows"):
        fitted.cate(frame[["x1"]][:10])
    with pytest.raises(DataError, match="have rank 2"):
        fitted.best_linear_projection(frame[["x1"]].assign(one=1.0))
    with pytest.raises(ParameterError, match="kind='size'"):
        fitted.sensitivity(kind="size")
    with pytest.raises(ParameterError, match="level=95"):
        fitted.robust_set(95)
    with pytest.raises(DataError, match="negative"):
        fitted.weighted_effect(-np.ones(1000))


def test_att_needs_a_binary_treatment():
    data, _ = make_invalid_iv(600, treatment="continuous", random_state=0)
    est = fit(data)
    with pytest.raises(ParameterError, match="binary treatment; this one is continuous"):
        est.att()
    with pytest.raises(ParameterError, match="binary treatment; this one is continuous"):
        est.sensitivity(kind="modification")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "n=0"),
        ({"treatment": "count"}, "treatment='count'"),
        ({"variance_shift": 2.5}, "between 0 and 1.9"),
        ({"treatment": "continuous", "one_sided": True}, "one_sided=True"),
    ],
)
def test_simulator_parameters(options, match):
    with pytest.raises(ParameterError, match=match):
        make_invalid_iv(**options)


def test_input_is_not_modified(frame):
    before = frame.copy()
    fit(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_bounded_effect_needs_a_bounded_outcome(frame):
    with pytest.raises(ParameterError, match=r"outcome ranges from -\d+\.\d+ to"):
        fit(frame, effect_link="tanh")
    binary = frame.assign(y=(frame.y > 0).astype(float), treatment=frame.x1 + frame.instrument)
    with pytest.raises(ParameterError, match="the treatment is continuous"):
        fit(binary, effect_link="tanh")
