"""Roles: every frame library, every mistake a newcomer makes."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from causalfair._core.frames import aggregate_counts, is_lazy, to_native
from causalfair._core.roles import resolve_roles
from causalfair.exceptions import DataError, RoleError

CONVERT = {
    "pandas": lambda f: f,
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
}


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    n = 40
    return pd.DataFrame(
        {
            "wage": rng.normal(size=n),
            "treated": rng.integers(0, 2, n),
            "z": rng.integers(0, 2, n).astype(bool),
            "age": rng.integers(20, 60, n),
            "region": rng.choice(["north", "south", "west"], n),
            "firm": np.repeat(np.arange(10), 4),
            "w": rng.random(n) + 0.5,
        }
    )


def resolve(X, y="wage", *, roles=None, **options):
    return resolve_roles(X, y, owner="Toy.fit", roles=roles or {"treatment": "treated"}, **options)


@pytest.mark.parametrize("library", CONVERT)
def test_every_library_gives_the_same_data(frame, library):
    want = resolve(frame, covariates=["age", "region"], cluster="firm", sample_weight="w")
    got = resolve(
        CONVERT[library](frame), covariates=["age", "region"], cluster="firm", sample_weight="w"
    )
    assert got.fingerprint() == want.fingerprint()
    assert got.sample_id() == want.sample_id()
    assert got.backend == library
    assert got.names == {"y": "wage", "treatment": "treated"}
    pd.testing.assert_frame_equal(got.covariates, want.covariates)


def test_all_means_every_column_without_a_role(frame):
    data = resolve(frame, covariates="all", cluster="firm", sample_weight="w")
    assert data.covariate_names == ("z", "age", "region")


def test_arrays_make_every_column_a_covariate():
    X = np.arange(12.0).reshape(6, 2)
    data = resolve(X, np.arange(6), roles={"treatment": [0, 1, 0, 1, 0, 1]})
    assert data.covariate_names == ("x0", "x1")
    np.testing.assert_array_equal(data.matrix(), X)
    assert data.matrix().flags.c_contiguous


def test_formula_and_its_transform_of_new_data(frame):
    data = resolve(frame, covariates="~ age + C(region)")
    assert data.covariate_names == ("age", "C(region)[T.south]", "C(region)[T.west]")
    again = data.encoder.transform(frame.iloc[:5])
    np.testing.assert_array_equal(again, data.covariates.iloc[:5])
    # A stateful transform keeps what it learned in fit.
    centred = resolve(frame, covariates="~ center(age)")
    shifted = centred.encoder.transform(frame.assign(age=frame["age"] + 1))
    np.testing.assert_allclose(shifted - centred.covariates, 1.0)


def test_transform_takes_arrays_and_refuses_new_levels(frame):
    data = resolve(frame, covariates=["age", "firm"])
    X = frame[["age", "firm"]].to_numpy(float)
    np.testing.assert_array_equal(data.encoder.transform(X), data.covariates)
    levels = resolve(frame, covariates=["region"]).encoder
    with pytest.raises(DataError, match="level\\(s\\) not seen in fit: 'east'"):
        levels.transform(pd.DataFrame({"region": ["north", "east"]}))
    with pytest.raises(RoleError, match="lacks 1 of the 1 covariates"):
        levels.transform(frame[["age", "w"]])


def test_matrix_refuses_categories_with_a_remedy(frame):
    with pytest.raises(DataError, match=r"'region' is categorical.*~ C\(region\)"):
        resolve(frame, covariates=["region"]).matrix()


def test_weights_are_normalised_and_clusters_coded(frame):
    data = resolve(frame, covariates=[], cluster=["firm", "region"], sample_weight="w")
    assert data.sample_weight.sum() == pytest.approx(40)
    assert data.cluster.shape == (40, 2)
    assert data.covariates.shape == (40, 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"covariates": None}, RoleError, "covariates= is required.*Remaining columns: z, age"),
        ({"covariates": ["agee"]}, RoleError, "no such column. Did you mean 'age'"),
        ({"covariates": ["age", "age"]}, RoleError, "names 'age' twice"),
        ({"covariates": ["treated"]}, RoleError, "'treated' is given as treatment"),
        ({"covariates": "age"}, RoleError, "give a list of columns"),
        ({"covariates": "~ age + agee"}, RoleError, "uses 'agee'"),
        ({"covariates": "~ age + wage"}, RoleError, "uses 'wage', which is given as y"),
        ({"covariates": "~ age +* z"}, RoleError, "is not a formula"),
        ({"y": "wages"}, RoleError, "got y='wages'.*Did you mean 'wage'"),
        ({"roles": {"treatment": "wage"}}, RoleError, "given as y and as treatment"),
        ({"y": np.arange(39.0)}, DataError, "lengths differ .*X 40, y 39"),
        ({"cluster": "w2"}, RoleError, "cluster='w2'"),
        ({"sample_weight": -np.ones(40)}, DataError, "40 negative value"),
        ({"cluster": np.zeros(40)}, DataError, "at least two clusters"),
        ({"effect_modifiers": ["ag"]}, RoleError, "'ag', which is not a covariate"),
        ({"covariates": {"age", "z"}}, RoleError, "covariates of type set; give a list"),
        ({"covariates": np.ones((40, 2))}, RoleError, r"ndarray of shape \(40, 2\).*belong into X"),
        ({"covariates": 3}, RoleError, "covariates of type int"),
        ({"covariates": "~ age + open('x')."}, RoleError, "is not a formula"),
        ({"covariates": "~ log(age, 1, 2)"}, RoleError, "cannot be built: Unable to evaluate"),
        ({"cluster": []}, DataError, r"cluster has shape \(0,\)"),
        ({"cluster": np.ones((40, 2, 2))}, DataError, r"cluster has shape \(40, 2, 2\)"),
        ({"y": np.ones(40) * 1j}, DataError, "must be numeric; got values such as 1j"),
        ({"y": np.array(["2020-01-01"] * 40, dtype="M8[D]")}, DataError, "must be numeric"),
    ],
)
def test_mistakes(frame, change, error, message):
    options = {"y": "wage", "covariates": ["age"]} | change
    with pytest.raises(error, match=message):
        resolve(frame, **options)


def test_missing_values_are_counted_never_dropped(frame):
    frame.loc[[1, 4], "wage"] = np.nan
    with pytest.raises(DataError, match=r"y \('wage'\) has 2 missing value\(s\) in 40 rows"):
        resolve(frame, covariates=["age"])
    frame["wage"] = 1.0
    frame["age"] = frame["age"].astype(float)
    frame.loc[3, "age"] = np.nan
    with pytest.raises(DataError, match="covariate 'age' has 1 missing"):
        resolve(frame, covariates=["age"])
    assert np.isnan(resolve(frame, covariates=["age"], allow_nan=True).matrix()).sum() == 1
    frame.loc[3, "age"] = np.inf
    with pytest.raises(DataError, match="infinite"):
        resolve(frame, covariates=["age"], allow_nan=True)


def test_indexes_never_align(frame):
    shuffled = frame["wage"].sample(frac=1, random_state=0)
    with pytest.raises(DataError, match="index of y differs"):
        resolve(frame.drop(columns="wage"), shuffled, covariates=["age"])
    firms = frame["firm"].iloc[::-1]
    for cluster in (firms, firms.to_frame()):
        with pytest.raises(DataError, match="index of cluster differs"):
            resolve(frame, covariates=["age"], cluster=cluster)


def test_unusable_tables(frame):
    lazy = pl.from_pandas(frame).lazy()
    with pytest.raises(DataError, match=r"lazy frame.*collect"):
        resolve(lazy, covariates=["age"])
    assert is_lazy(lazy)
    twice = pd.concat([frame, frame[["age"]]], axis=1)
    with pytest.raises(RoleError, match="two columns named 'age'"):
        resolve(twice, covariates=["age"])
    with pytest.raises(DataError, match="no rows"):
        resolve(frame.iloc[:0], covariates=["age"])
    with pytest.raises(DataError, match=r"shape \(4,\)"):
        resolve(np.arange(4.0), np.arange(4.0))
    from scipy import sparse

    with pytest.raises(DataError, match="sparse"):
        resolve(sparse.eye(4).tocsr(), np.arange(4.0))


def test_dates_are_refused(frame):
    frame["day"] = pd.Timestamp("2020-01-01")
    frame["date"] = pd.Timestamp("2020-01-01").date()
    for name, kind in (("day", "datetime"), ("date", "date")):
        with pytest.raises(DataError, match=f"{name!r} is neither a number.*of type {kind}"):
            resolve(frame, covariates=[name])


@pytest.mark.parametrize(
    "formula", ["~ log(age - 40)", "~ age:log(age - 40)", "~ I(1 / (age - 40))"]
)
def test_a_term_that_is_missing_somewhere_never_loses_its_rows(frame, formula):
    frame["age"] = 20 + np.arange(40)
    with pytest.raises(DataError, match=r"the term '.*' is not finite in \d+ of 40 rows"):
        resolve(frame, covariates=formula)
    fitted = resolve(frame.assign(age=frame["age"] + 30), covariates=formula).encoder
    with pytest.raises(DataError, match="is not finite in"):
        fitted.transform(frame, owner="cate")


def test_columns_named_by_numbers(frame):
    table = pd.DataFrame(np.arange(80.0).reshape(40, 2))
    treated = frame["treated"].to_numpy()
    data = resolve(table, frame["wage"].to_numpy(), roles={"treatment": treated})
    assert data.covariate_names == ("0", "1")
    np.testing.assert_array_equal(data.matrix(), table)
    assert list(table.columns) == [0, 1]
    chosen = resolve(table, frame["wage"], roles={"treatment": treated}, covariates=[1])
    np.testing.assert_array_equal(chosen.matrix()[:, 0], table[1])
    with pytest.raises(RoleError, match="two columns that read '1'"):
        resolve(table.set_axis([1, "1"], axis=1), frame["wage"], roles={"treatment": treated})


def test_levels_are_those_seen_whatever_a_library_declares(frame):
    declared = frame.assign(
        region=pd.Categorical(frame["region"], ["west", "east", "south", "north"])
    )
    want = resolve(frame, covariates=["region", "age"]).covariates
    enum = pl.from_pandas(frame).with_columns(
        pl.col("region").cast(pl.Enum(["west", "south", "north", "east"]))
    )
    for table in (declared, pl.from_pandas(declared), pa.Table.from_pandas(declared), enum):
        pd.testing.assert_frame_equal(resolve(table, covariates=["region", "age"]).covariates, want)


def test_decimals_are_numbers_and_mixed_labels_make_clusters(frame):
    frame["price"] = [Decimal(k) / 4 for k in range(40)]
    assert resolve(frame, covariates=["price"]).matrix()[3, 0] == 0.75
    mixed = np.array([1, "1", "b", 2] * 10, dtype=object)
    assert np.unique(resolve(frame, covariates=[], cluster=mixed).cluster).size == 3


def test_counts_in_the_users_engine(frame):
    duckdb = pytest.importorskip("duckdb")
    dask = pytest.importorskip("dask.dataframe")
    want = frame.groupby(["treated", "region"]).size()
    relation = duckdb.from_df(frame)
    lazy_frames = {
        "pandas": frame,
        "polars": pl.from_pandas(frame).lazy(),
        "duckdb": relation,
        "dask": dask.from_pandas(frame, npartitions=3),
    }
    for name, lazy in lazy_frames.items():
        counts = aggregate_counts(lazy, ["treated", "region"])
        assert counts["count"].tolist() == want.tolist(), name
        weighted = aggregate_counts(lazy, ["treated"], weight="w")
        np.testing.assert_allclose(
            weighted["count"], frame.groupby("treated")["w"].sum(), err_msg=name
        )
    with pytest.raises(RoleError, match="no column 'nope'"):
        aggregate_counts(frame, ["nope"])


def test_output_follows_polars():
    out = to_native(pd.DataFrame({"a": [1.0], "t": ["x"]}), "polars")
    assert isinstance(out, pl.DataFrame)
    assert out["t"].to_list() == ["x"]
