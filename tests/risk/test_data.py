"""Roles, row kinds, designs and every input that cannot be used."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from causalfair.exceptions import DataError, IdentificationError, RoleError
from causalfair.risk import _data
from causalfair.risk._data import level_codes, read_rows
from causalfair.risk._design import fit_design


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "dose": rng.integers(0, 4, 400),
            "sex": rng.integers(0, 2, 400),
            "tested": rng.integers(0, 2, 400),
            "clinic": rng.choice(["a", "b"], 400),
        }
    )
    table["y"] = np.where(table["tested"] == 1, rng.integers(0, 2, 400), np.nan)
    return table


def read(table, y="y", tested="tested", covariates=("dose", "sex"), **roles):
    return read_rows(
        table, y, tested=tested, owner="Risk.fit", covariates=list(covariates), **roles
    )


def test_outcomes_of_the_untested_do_not_matter(frame):
    rows = read(frame)
    changed = frame.copy()
    changed.loc[changed["tested"] == 0, "y"] = 99.0
    again = read(changed)
    np.testing.assert_array_equal(rows.code, again.code)
    np.testing.assert_array_equal(rows.y, again.y)
    assert rows.data.fingerprint() == again.data.fingerprint()
    assert rows.share(_data.UNTESTED) == pytest.approx((frame["tested"] == 0).mean())


def test_row_kinds(frame):
    kind = np.full(400, "usual", dtype=object)
    tested = np.flatnonzero(frame["tested"] == 1)
    untested = np.flatnonzero(frame["tested"] == 0)
    kind[tested[:3]], kind[tested[3:6]] = "by_design", "pending"
    kind[untested[:4]], kind[untested[4:6]] = "late", "covariates_only"
    frame.loc[tested[3:6], "y"] = np.nan
    frame.loc[untested[:4], "y"] = [0, 1, 1, 0]
    code = read(frame, row_kind=kind).code
    assert (code[tested[3:6]] == _data.PENDING).all()
    assert list(code[untested[:4]]) == [6, 7, 7, 6]
    assert (code[untested[4:6]] == _data.UNUSED).all()
    assert set(code[tested[:3]]) <= {_data.DESIGN_NEGATIVE, _data.DESIGN_POSITIVE}
    for bad, row, match in [
        ("late", tested[0], "was tested"),
        ("pending", untested[0], "was not tested"),
        ("odd", 0, "row_kind has the value 'odd'"),
    ]:
        wrong = kind.copy()
        wrong[row] = bad
        with pytest.raises(DataError, match=match):
            read(frame, row_kind=wrong)


def test_lazy_frames_are_counted_where_they_live(frame):
    import duckdb

    rows = read(frame, group="clinic")
    lazy = [pl.from_pandas(frame).lazy(), duckdb.from_df(frame)]
    for table in lazy:
        counted = read(table, group="clinic")
        assert counted.n < 60
        assert counted.n_rows == 400
        for code in (_data.UNTESTED, _data.NEGATIVE, _data.POSITIVE):
            assert counted.share(code) == pytest.approx(rows.share(code))
        left = fit_design(rows.data, rows.weight, owner="Risk.fit")
        right = fit_design(counted.data, counted.weight, owner="Risk.fit")
        np.testing.assert_allclose(left.scale, right.scale)
        np.testing.assert_allclose(left.center, right.center)
    with pytest.raises(RoleError, match="every role is a column name"):
        read(lazy[0], tested=frame["tested"].to_numpy())
    with pytest.raises(DataError, match="no clusters"):
        read(lazy[0], cluster="clinic")


def test_dask_frames_are_counted(frame):
    dask = pytest.importorskip("dask.dataframe")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dask support is moving")
        counted = read(dask.from_pandas(frame, npartitions=2))
    assert counted.n_rows == 400
    assert counted.n < 60


def test_weights_of_lazy_frames_are_summed(frame):
    frame["w"] = np.arange(400) / 200
    rows, counted = (
        read(frame, sample_weight="w"),
        read(pl.from_pandas(frame).lazy(), sample_weight="w"),
    )
    assert counted.share(2) == pytest.approx(rows.share(2))
    assert counted.weight.sum() == pytest.approx(400)


def test_design_standardises_numbers_and_leaves_indicators(frame):
    rows = read(frame)
    design = fit_design(rows.data, rows.weight, owner="Risk.fit")
    Z = design.matrix(frame, owner="predict")
    assert design.names == ("intercept", "dose", "sex")
    np.testing.assert_allclose(Z[:, 1].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(Z[:, 1].std(), 1)
    np.testing.assert_array_equal(Z[:, 2], frame["sex"])
    beta = np.array([[0.3, -0.7, 1.1]])
    raw = np.column_stack([np.ones(400), frame[["dose", "sex"]]])
    np.testing.assert_allclose(raw @ design.original_scale(beta)[0], Z @ beta[0])


def test_errors_name_what_is_wrong(frame):
    bad = frame.copy()
    first = int(np.flatnonzero(frame["tested"] == 1)[0])
    bad.loc[first, "y"] = np.nan
    with pytest.raises(DataError, match=rf"1 missing value.*first in row {first}"):
        read(bad)
    bad.loc[first, "y"] = 3
    with pytest.raises(DataError, match=rf"row {first} has 3"):
        read(bad)
    with pytest.raises(DataError, match="tested.*two values"):
        read(frame.assign(tested=np.arange(400)))
    with pytest.raises(DataError, match="1 missing"):
        read(frame.assign(tested=np.where(np.arange(400) == 5, np.nan, frame["tested"])))
    with pytest.raises(RoleError, match="Did you mean 'tested'"):
        read(frame, tested="teste")
    with pytest.raises(DataError, match="lengths differ"):
        read(frame[["dose", "sex"]].to_numpy(), frame["y"].to_numpy()[:5],
             frame["tested"].to_numpy(), covariates=["x0"])  # fmt: skip
    with pytest.raises(DataError, match="needs both y and tested"):
        read(frame, tested=None)


def test_what_cannot_be_estimated(frame):
    full = frame.assign(y=frame["y"].fillna(0), tested=1)
    with pytest.raises(IdentificationError, match="plain regression"):
        read(full)
    with pytest.raises(IdentificationError, match="no row was tested"):
        read(full.assign(tested=0))
    with pytest.raises(IdentificationError, match=r"none of the .* outcomes seen is 1"):
        read(frame.assign(y=0))
    rows = read(frame.assign(five=5.0), covariates=("dose", "five"))
    with pytest.raises(IdentificationError, match="five take one value"):
        fit_design(rows.data, rows.weight, owner="Risk.fit")
    rows = read(
        frame.assign(twice=2 * frame["dose"] + frame["sex"]), covariates=("dose", "sex", "twice")
    )
    with pytest.raises(IdentificationError, match="linear combinations"):
        fit_design(rows.data, rows.weight, owner="Risk.fit")
    with pytest.raises(DataError, match="at least two"):
        read(frame.iloc[:1])


def test_levels_not_seen_are_named():
    np.testing.assert_array_equal(level_codes([2.0, 1], ("1", "2"), "group", "p"), [1, 0])
    with pytest.raises(DataError, match="group 'c' was not seen"):
        level_codes(["c"], ("a", "b"), "group", "predict")
