"""Tables of any library behind one face, and the covariate encoder.

narwhals reads pandas, polars and pyarrow; arrays become tables with columns ``x0, x1, ...``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np

from causalfair._core.formulas import build_design, formula_variables
from causalfair._core.typing import FloatArray
from causalfair._core.validation import missing_mask, suggest
from causalfair.exceptions import DataError, RoleError

__all__ = [
    "CovariateEncoder",
    "Table",
    "aggregate_counts",
    "as_table",
    "check_index",
    "fit_encoder",
    "is_lazy",
    "role_column",
    "to_native",
]


@dataclass(frozen=True)
class Table:
    """A user's table: a narwhals frame, or an array with made-up column names."""

    frame: Any
    array: Any
    columns: list[str]
    backend: str
    n: int
    index: Any

    def __len__(self) -> int:
        return self.n


def is_lazy(X: Any) -> bool:
    """True for frames whose rows are not in memory (polars LazyFrame, DuckDB, Dask, PySpark)."""
    import narwhals.stable.v2 as nw

    return isinstance(nw.from_native(X, pass_through=True), nw.LazyFrame)


def as_table(X: Any, *, owner: str) -> Table:
    """Wrap ``X``; refuse what has no rows in memory or no unambiguous columns."""
    import narwhals.stable.v2 as nw
    from narwhals.exceptions import DuplicateError

    try:
        native = nw.from_native(X, pass_through=True)
    except DuplicateError:
        names = [str(c) for c in X.columns]
        twice = next(c for c in names if names.count(c) > 1)
        raise RoleError(f"{owner}: X has two columns named {twice!r}; rename one.") from None
    if isinstance(native, nw.LazyFrame):
        raise DataError(
            f"{owner} needs the rows in memory and got a lazy frame ({type(X).__name__}); "
            "call .collect() (polars), .df() (DuckDB) or .compute() (Dask) first."
        )
    if isinstance(native, nw.DataFrame):
        columns = [str(c) for c in native.columns]
        if len(native) == 0:
            raise DataError(f"{owner}: X has no rows.")
        backend = str(native.implementation.value)
        index = X.index if native.implementation.is_pandas() else None
        if columns != list(native.columns):
            native = _with_text_names(X, columns, owner)
        return Table(native, None, columns, backend, len(native), index)
    return _array_table(X, owner)


def _with_text_names(X: Any, columns: list[str], owner: str) -> Any:
    """The same pandas table under names that are text: numbers are common, names are asked for."""
    import narwhals.stable.v2 as nw

    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise RoleError(f"{owner}: X has two columns that read {twice!r}; rename one.")
    return nw.from_native(X.set_axis(columns, axis=1), eager_only=True)


def _array_table(X: Any, owner: str) -> Table:
    if hasattr(X, "tocsr"):
        raise DataError(f"{owner} got a sparse matrix; only dense data are supported: X.toarray().")
    if isinstance(X, str) or X is None:
        raise DataError(f"{owner} got X={X!r}; give a table or an array (n_samples, n_features).")
    array = np.asarray(X)
    if array.ndim != 2:
        raise DataError(
            f"{owner}: X has shape {array.shape}; give a two-dimensional array "
            "(n_samples, n_features), for instance with X.reshape(-1, 1)."
        )
    if array.shape[0] == 0:
        raise DataError(f"{owner}: X has no rows (shape {array.shape}).")
    columns = [f"x{j}" for j in range(array.shape[1])]
    return Table(None, array, columns, "numpy", array.shape[0], None)


def role_column(table: Table, value: Any, role: str, owner: str) -> tuple[Any, str]:
    """Values (n,) of a role in their own dtype, and the name to show."""
    if isinstance(value, str):
        return _column_values(table, value), value
    check_index(table, value, role, owner)
    name = getattr(value, "name", None)
    array = np.asarray(value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"{owner}: {role} has shape {array.shape}; give a one-dimensional array "
            "(n_samples,) or the name of a column of X."
        )
    return array, name if isinstance(name, str) else role


def check_index(table: Table, value: Any, role: str, owner: str) -> None:
    """Refuse a pandas object whose index differs from that of X: rows match by position alone."""
    index: Any = value.index if hasattr(value, "iloc") else table.index
    comparable = table.index is not None and len(index) == len(table)
    if comparable and not index.equals(table.index):
        raise DataError(
            f"{owner}: the index of {role} differs from that of X. Rows are matched by "
            "position, never by index: sort both alike, then reset_index(drop=True)."
        )


def _column_values(table: Table, name: str) -> Any:
    if table.frame is None:
        return table.array[:, table.columns.index(name)]
    import narwhals.stable.v2 as nw

    series = table.frame[name]
    if series.dtype.is_numeric() and series.null_count():
        return series.cast(nw.Float64).to_numpy()
    if series.dtype in (nw.Categorical, nw.Enum):
        return np.asarray(series.cast(nw.String).to_list(), dtype=object)
    if series.dtype == nw.String:
        return np.asarray(series.to_list(), dtype=object)
    return np.asarray(series.to_numpy())


def _column_kind(table: Table, name: str) -> str:
    """``"number"``, ``"category"`` or ``"other"``."""
    if table.frame is None:
        return {"b": "number", "i": "number", "u": "number", "f": "number"}.get(
            table.array.dtype.kind, "object"
        )
    import narwhals.stable.v2 as nw

    dtype = table.frame[name].dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        return "number"
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return "category"
    return "object" if dtype == nw.Object else "other"


@dataclass(frozen=True)
class CovariateEncoder:
    """Makes the covariate frame of any table with the columns seen in ``fit``.

    Attributes
    ----------
    columns : tuple of str
        Columns read from the table.
    levels : dict of str to list of str
        Levels of the categorical columns.
    formula : formulaic model specification or None
        Where covariates were given as a formula.
    """

    columns: tuple[str, ...]
    levels: dict[str, list[str]]
    formula: Any = None
    allow_nan: bool = False

    def transform(self, X: Any, *, owner: str = "predict") -> Any:
        """Covariate frame (n, p) of new data, the same columns in the same order."""
        table = as_table(X, owner=owner)
        if table.frame is None and table.array.shape[1] == len(self.columns):
            table = Table(None, table.array, list(self.columns), "numpy", table.n, None)
        missing = [c for c in self.columns if c not in table.columns]
        if missing:
            raise RoleError(
                f"{owner}: X lacks {len(missing)} of the {len(self.columns)} covariates seen in "
                f"fit: {', '.join(missing[:8])}."
            )
        return self.encode(table, owner)

    def encode(self, table: Table, owner: str) -> Any:
        """Covariate frame of a wrapped table."""
        frame = _plain_frame(table, self.columns, self.levels, owner)
        _check_missing(frame, owner, self.allow_nan)
        if self.formula is None:
            return frame
        what = f"{owner}: the formula of the covariates"
        return _float_frame(build_design(self.formula, frame, what=what, error=DataError))

    @staticmethod
    def matrix(frame: Any, *, owner: str, columns: Sequence[str] | None = None) -> FloatArray:
        """(n, p) C-ordered float64 array of the numeric columns of a covariate frame."""
        part = frame if columns is None else frame[list(columns)]
        for name in part.columns:
            if part[name].dtype != np.float64:
                raise DataError(
                    f"{owner}: covariate {name!r} is categorical and this estimator needs numbers; "
                    f'give a formula such as "~ C({name})", or encode it first.'
                )
        return np.array(part, dtype=np.float64, order="C")


def fit_encoder(
    table: Table,
    chosen: list[str] | str,
    *,
    owner: str,
    taken: Mapping[str, str],
    allow_nan: bool = False,
) -> tuple[CovariateEncoder, Any]:
    """Encoder and covariate frame of the chosen columns or formula."""
    if isinstance(chosen, str):
        return _fit_formula(table, chosen, owner, taken)
    levels = _learn_levels(table, chosen, owner)
    encoder = CovariateEncoder(tuple(chosen), levels, allow_nan=allow_nan)
    return encoder, encoder.encode(table, owner)


def _learn_levels(table: Table, columns: Sequence[str], owner: str) -> dict[str, list[str]]:
    """Levels of the categories among the columns: those seen, in the order of their text.

    An order that a library declares is not used: not every library can declare one, and the same
    data must give the same bits from each.
    """
    levels = {}
    for name in columns:
        kind = _column_kind(table, name)
        if kind == "number":
            continue
        values = np.asarray(_column_values(table, name), dtype=object)
        kinds = {type(value) for value in values[~missing_mask(values)]}
        numeric = all(issubclass(one, (np.bool_, Number)) for one in kinds)
        if kind == "object" and numeric:
            continue
        if kind == "other" or not all(issubclass(one, (str, np.bool_, Number)) for one in kinds):
            dtype = table.frame[name].dtype if table.frame is not None else table.array.dtype
            raise DataError(
                f"{owner}: covariate {name!r} is neither a number nor a category (dtype {dtype}, "
                f"values of type {', '.join(sorted(one.__name__ for one in kinds))}); convert it "
                "first."
            )
        levels[name] = sorted({str(v) for v in values[~missing_mask(values)]})
    return levels


def _plain_frame(
    table: Table, columns: Sequence[str], levels: Mapping[str, list[str]], owner: str
) -> Any:
    import pandas as pd

    numeric = [c for c in columns if c not in levels]
    block = np.empty((len(table), len(numeric)), dtype=np.float64)
    for j, name in enumerate(numeric):
        block[:, j] = _as_float(table, name, owner)
    frame = pd.DataFrame(block, columns=pd.Index(numeric, dtype=object), copy=False)
    if not levels:
        return frame
    for name, known in levels.items():
        values = np.asarray(_column_values(table, name), dtype=object)
        absent = missing_mask(values)
        text = np.array([str(v) for v in values], dtype=object)
        text[absent] = None
        unknown = sorted(set(text[~absent]) - set(known))
        if unknown:
            raise DataError(
                f"{owner}: covariate {name!r} has level(s) not seen in fit: "
                f"{', '.join(map(repr, unknown[:5]))}. Known levels: {', '.join(known[:12])}."
            )
        frame[name] = pd.Categorical(text, categories=known)
    return frame[list(columns)]


def _as_float(table: Table, name: str, owner: str) -> FloatArray:
    if table.frame is None:
        values = table.array[:, table.columns.index(name)]
    else:
        import narwhals.stable.v2 as nw

        series = table.frame[name]
        if series.dtype.is_numeric() or series.dtype == nw.Boolean:
            series = series.cast(nw.Float64)
        values = series.to_numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{owner}: covariate {name!r} must be numeric as it was in fit; "
            f"got dtype {getattr(values, 'dtype', type(values))}."
        ) from error


def _check_missing(frame: Any, owner: str, allow_nan: bool) -> None:
    for name in frame.columns:
        column = frame[name]
        missing = int(column.isna().sum())
        if missing and not allow_nan:
            raise DataError(
                f"{owner}: covariate {name!r} has {missing} missing value(s) in {len(frame)} rows; "
                "drop or impute those rows, or use learners that accept missing values."
            )
        if column.dtype == np.float64 and np.isinf(column).any():
            count = int(np.isinf(column).sum())
            raise DataError(
                f"{owner}: covariate {name!r} has {count} infinite value(s); recode them."
            )


def _fit_formula(
    table: Table, formula: str, owner: str, taken: Mapping[str, str]
) -> tuple[CovariateEncoder, Any]:
    what = f"{owner}: covariates={formula!r}"
    used = formula_variables(formula, table.columns, what=what, error=RoleError)
    for name in sorted(used):
        if name not in table.columns:
            raise RoleError(
                f"{owner}: the formula {formula!r} uses {name!r}, but X has no such column."
                f"{suggest(name, table.columns)} Columns: {', '.join(table.columns[:12])}."
            )
        if name in taken.values():
            role = next(r for r, c in taken.items() if c == name)
            raise RoleError(
                f"{owner}: the formula {formula!r} uses {name!r}, which is given as {role}; "
                "a column plays one role."
            )
    columns = [c for c in table.columns if c in used]
    levels = _learn_levels(table, columns, owner)
    frame = _plain_frame(table, columns, levels, owner)
    _check_missing(frame, owner, allow_nan=False)
    matrix = build_design(formula, frame, what=what, error=RoleError)
    encoder = CovariateEncoder(tuple(columns), levels, matrix.model_spec)
    return encoder, _float_frame(matrix)


def _float_frame(matrix: Any) -> Any:
    """Design matrix without its intercept (estimators add their own), as C-ordered floats."""
    import pandas as pd

    names = [str(c) for c in matrix.columns if c != "Intercept"]
    values = np.array(pd.DataFrame(matrix)[names], dtype=np.float64, order="C")
    return pd.DataFrame(values, columns=pd.Index(names, dtype=object), copy=False)


def to_native(frame: Any, backend: str) -> Any:
    """Pandas frame in the library of the user's input (pandas for arrays and pyarrow)."""
    if backend != "polars":
        return frame
    from causalfair._core.optional import import_optional

    polars = import_optional("polars", extra="polars")
    return polars.DataFrame({str(c): frame[c].to_numpy() for c in frame.columns})


def aggregate_counts(frame: Any, columns: Sequence[str], *, weight: str | None = None) -> Any:
    """Count rows by the values of ``columns`` in the user's own engine.

    Parameters
    ----------
    frame : eager or lazy frame
        Anything narwhals can wrap: pandas, polars, pyarrow, a polars ``LazyFrame``, a DuckDB
        relation, a Dask or PySpark frame. Only the grouped table comes into memory.
    columns : sequence of str
        Columns to group by.
    weight : str, optional
        Column of weights to sum instead of counting.

    Returns
    -------
    pandas.DataFrame
        ``columns`` and ``count`` (float64), sorted by ``columns``.
    """
    import narwhals.stable.v2 as nw

    native = nw.from_native(frame)
    known = list(native.collect_schema().names())
    for name in [*columns, *([weight] if weight else [])]:
        if name not in known:
            raise RoleError(f"no column {name!r} in the table. Columns: {', '.join(known[:12])}.")
    total = nw.len() if weight is None else nw.col(weight).sum()
    grouped = native.lazy().group_by(*columns).agg(total.alias("count"))
    out = grouped.collect(backend="pandas").to_native()
    out["count"] = out["count"].astype(np.float64)
    return out.sort_values(list(columns), ignore_index=True)
