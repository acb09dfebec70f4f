"""From the user's arrays, tables and lazy frames to integer codes and counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import DataError, RoleError
from causalfair.fairness._tensor import PatternCounts, cell_table, count_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray, IntArray

OWNER = "ProxyFairness.fit"
MAX_LEVELS = 100_000


@dataclass(frozen=True, slots=True)
class Rows:
    """Coded rows, or groups of equal rows with their counts.

    ``codes`` (n, m) with -1 for missing; ``prediction`` (n,); ``label`` (n,) or None; ``audited``
    (n,) with -1 for unknown, or None; ``cluster`` (n, c) or None; ``weight`` and ``squared`` (n,)
    or None; ``weighted`` tells sampling weights from plain frequencies; ``role_data`` describes the
    source.
    """

    codes: IntArray
    prediction: IntArray
    label: IntArray | None
    audited: IntArray | None
    cluster: IntArray | None
    weight: FloatArray | None
    squared: FloatArray | None
    weighted: bool
    proxy_names: tuple[str, ...]
    role_data: Any
    affinity: tuple[FloatArray, ...] | None = None


def encode_levels(values: Any, name: str, *, owner: str, allow_missing: bool = False) -> IntArray:
    """Check that values are levels 0, 1, 2, ... and return them as integers.

    Raises
    ------
    DataError
        Not integers, negative (other than -1 where missing values may occur), or no rows.
    """
    array = np.asarray(values)
    if array.size == 0:
        raise DataError(f"{owner}: {name} is empty (n = 0); give at least one row.")
    if array.dtype.kind == "b":
        return array.astype(np.intp)
    missing = "; -1 marks a missing value" if allow_missing else ""
    if array.dtype.kind == "O":
        array = _from_objects(array, name, owner, missing)
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            raise DataError(
                f"{owner}: {name} has {int(bad.sum())} missing or infinite value(s), the first in "
                f"row {int(np.argwhere(bad)[0][0])}. Levels are integers 0, 1, 2, ...{missing}."
            )
        if (array != np.floor(array)).any():
            first = array[array != np.floor(array)][0]
            raise DataError(
                f"{owner}: {name} has values that are not integers (for instance {first:g}). "
                f"Levels are integers 0, 1, 2, ...{missing}. For probabilities give soft proxies "
                "of shape (n, m, K); for scores use bins."
            )
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{owner}: {name} has dtype {array.dtype}. Code its levels as integers 0, 1, 2, ... "
            f"first, for instance with pandas.factorize(..., sort=True){missing}."
        )
    lowest = int(array.min())
    if lowest < (-1 if allow_missing else 0):
        raise DataError(
            f"{owner}: {name} has the negative value {lowest}. Levels are integers 0, 1, 2, ..."
            f"{missing}."
        )
    return array


def _from_objects(array: Any, name: str, owner: str, missing: str) -> Any:
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{owner}: {name} holds {type(array.ravel()[0]).__name__} values such as "
            f"{array.ravel()[0]!r}. Code its levels as integers 0, 1, 2, ... first, for instance "
            f"with pandas.factorize(..., sort=True){missing}."
        ) from None


def is_soft(X: Any) -> bool:
    """Whether X is an array of group probabilities (n, m, K)."""
    return isinstance(X, np.ndarray) and X.ndim == 3


def proxy_columns(X: Any, proxies: Any, taken: Sequence[str], owner: str) -> list[str] | None:
    """Names of the proxy columns of a table; None for an array.

    Raises
    ------
    RoleError
        Columns were named for other roles but not for the proxies, or a name is unknown.
    """
    import narwhals.stable.v2 as nw

    from causalfair._core.validation import suggest

    wrapped = nw.from_native(X, pass_through=True)
    if not isinstance(wrapped, nw.DataFrame | nw.LazyFrame):
        if proxies is not None:
            raise RoleError(
                f"{owner} got proxies={proxies!r} with an array X; name columns only of a table, "
                "or leave proxies out: every column of the array is a proxy."
            )
        return None
    columns = list(wrapped.collect_schema().names())
    if proxies is None:
        if taken:
            left = [c for c in columns if c not in taken]
            raise RoleError(
                f"{owner}: columns are named for other roles ({', '.join(taken)}), so name the "
                f"proxies too: proxies=[...]. Remaining columns: {', '.join(left)}."
            )
        return columns
    chosen = [proxies] if isinstance(proxies, str) else list(proxies)
    for name in chosen:
        if name not in columns:
            raise RoleError(
                f"{owner} got the proxy {name!r}, but X has no such column."
                f"{suggest(str(name), columns)} Columns: {', '.join(columns[:12])}."
            )
    if len(set(chosen)) < len(chosen):
        raise RoleError(f"{owner}: proxies={chosen} names a column twice.")
    return chosen


def read_rows(
    X: Any,
    y_pred: Any,
    *,
    y_true: Any,
    proxies: Any,
    sensitive_features: Any,
    cluster: Any,
    sample_weight: Any,
    owner: str = OWNER,
) -> Rows:
    """Resolve roles and code the rows of an eager table or array."""
    from causalfair._core.roles import resolve_roles

    taken = [
        v
        for v in (y_pred, y_true, sensitive_features, cluster, sample_weight)
        if isinstance(v, str)
    ]
    names = proxy_columns(X, proxies, taken, owner)
    if names is None:
        matrix = np.asarray(X)
        if matrix.ndim == 1:
            matrix = matrix[:, None]
        if matrix.ndim != 2:
            raise DataError(
                f"{owner} got X of shape {matrix.shape}; give proxies as (n, m), or soft proxies "
                "as (n, m, K)."
            )
        labels = tuple(f"proxy {j + 1}" for j in range(matrix.shape[1]))
        columns: list[Any] = [matrix[:, j] for j in range(matrix.shape[1])]
        table: Any = matrix
    else:
        labels, columns, table = tuple(names), list(names), X
    if not columns:
        raise DataError(f"{owner} got no proxies: X has no columns.")
    if len(table) == 0:
        raise DataError(f"{owner}: X is empty (n = 0); give at least one row.")
    if y_pred is None:
        raise DataError(f"{owner} needs y_pred, the decisions to audit, as codes 0, 1, 2, ...")
    for label, column in zip(labels, columns, strict=True):
        _refuse_missing(X[column] if isinstance(column, str) else column, label, owner)
    roles = {"y_pred": y_pred, "y_true": y_true, "sensitive_features": sensitive_features}
    data = resolve_roles(
        table,
        None,
        owner=owner,
        roles={**roles, **{f"proxies[{j}]": c for j, c in enumerate(columns)}},
        covariates=[],
        cluster=cluster,
        sample_weight=sample_weight,
        need_covariates=False,
    )
    codes = [
        encode_levels(
            data.roles[f"proxies[{j}]"], f"proxy {label!r}", owner=owner, allow_missing=True
        )
        for j, label in enumerate(labels)
    ]
    return Rows(
        np.ascontiguousarray(np.stack(codes, axis=1)),
        encode_levels(data.roles["y_pred"], "y_pred", owner=owner),
        _optional_levels(data.roles.get("y_true"), "y_true", owner),
        _optional_levels(data.roles.get("sensitive_features"), "sensitive_features", owner, True),
        data.cluster,
        data.sample_weight,
        None if data.sample_weight is None else data.sample_weight**2,
        data.sample_weight is not None,
        labels,
        data,
    )


def _refuse_missing(values: Any, label: str, owner: str) -> None:
    from causalfair._core.validation import missing_mask

    count = int(missing_mask(np.asarray(values)).sum())
    if count:
        raise DataError(
            f"{owner}: proxy {label!r} has {count} missing value(s) in {len(values)} rows. Code a "
            "missing proxy as -1, for instance with fillna(-1): it is then summed out."
        )


def _optional_levels(
    values: Any, name: str, owner: str, allow_missing: bool = False
) -> IntArray | None:
    if values is None:
        return None
    return encode_levels(values, name, owner=owner, allow_missing=allow_missing)


def read_lazy(
    X: Any,
    y_pred: Any,
    *,
    y_true: Any,
    proxies: Any,
    sensitive_features: Any,
    cluster: Any,
    sample_weight: Any,
    owner: str = OWNER,
) -> Rows:
    """Group a lazy frame by every role in its own engine; only the groups come into memory."""
    import narwhals.stable.v2 as nw

    from causalfair._core.frames import aggregate_counts

    given = {
        "y_pred": y_pred,
        "y_true": y_true,
        "sensitive_features": sensitive_features,
        "cluster": cluster,
        "sample_weight": sample_weight,
    }
    for role, value in given.items():
        if value is not None and not isinstance(value, str):
            raise RoleError(
                f"{owner}: X is a lazy frame, so {role} must be the name of one of its "
                "columns; got "
                f"{type(value).__name__}."
            )
    named = {role: value for role, value in given.items() if value is not None}
    chosen = proxy_columns(X, proxies, list(named.values()), owner)
    if chosen is None or y_pred is None:
        raise RoleError(f"{owner}: name proxies= and y_pred= among the columns of the lazy frame.")
    keys = [*chosen, *(v for r, v in named.items() if r != "sample_weight")]
    table = aggregate_counts(X, keys, weight=sample_weight)
    squared = table["count"].to_numpy(dtype=np.float64)
    if sample_weight is not None:
        second = nw.from_native(X).with_columns(
            (nw.col(sample_weight) * nw.col(sample_weight)).alias("__squared_weight")
        )
        squared = aggregate_counts(second.to_native(), keys, weight="__squared_weight")[
            "count"
        ].to_numpy(dtype=np.float64)
    rows = read_rows(
        table.drop(columns="count"),
        y_pred,
        y_true=y_true,
        proxies=chosen,
        sensitive_features=sensitive_features,
        cluster=cluster,
        sample_weight=None,
        owner=owner,
    )
    weight = table["count"].to_numpy(dtype=np.float64)
    if (weight < 0).any() or weight.sum() <= 0:
        raise DataError(
            f"{owner}: the weights of {sample_weight!r} must be non-negative, not all 0."
        )
    n = weight.sum()
    if sample_weight is not None:  # weights get mean one, as for a table in memory
        n = aggregate_counts(X, keys)["count"].sum()
        scale = n / weight.sum()
        weight, squared = weight * scale, squared * scale**2
    return replace(
        rows,
        weight=weight,
        squared=squared,
        weighted=sample_weight is not None,
        role_data=replace(rows.role_data, n=round(n)),
    )


def bin_soft(
    X: FloatArray, n_bins: int, *, owner: str = OWNER
) -> tuple[IntArray, tuple[FloatArray, ...]]:
    """Turn group probabilities (n, m, K) into levels (n, m) and the affinity of level to group.

    Two groups: quantile bins of P(A = 1). More: the likeliest group, split at its median
    confidence. The affinity of a level is the mean probability vector of its rows.
    """
    check_soft(X, owner=owner)
    n, m, n_groups = X.shape
    codes = np.empty((n, m), dtype=np.intp)
    affinity = []
    for j in range(m):
        q = X[:, j]
        if n_groups == 2:
            edges = np.unique(np.quantile(q[:, 1], np.linspace(0, 1, n_bins + 1)[1:-1]))
            level = np.searchsorted(edges, q[:, 1], side="right")
        else:
            guess = q.argmax(axis=1)
            level = 2 * guess
            for a in range(n_groups):
                rows = guess == a
                if rows.any():
                    level[rows] += q[rows, a] > np.median(q[rows, a])
        _, level = np.unique(level, return_inverse=True)
        codes[:, j] = level
        counts = np.bincount(level)
        affinity.append(
            np.stack(
                [np.bincount(level, weights=q[:, a]) / counts for a in range(n_groups)], axis=1
            )
        )
    return codes, tuple(affinity)


def check_soft(X: FloatArray, *, owner: str) -> None:
    """Rows of soft proxies must be non-negative and sum to one."""
    if X.shape[0] == 0:
        raise DataError(f"{owner}: X is empty (n = 0); give at least one row.")
    if not np.isfinite(X).all():
        raise DataError(
            f"{owner}: soft proxies have {int((~np.isfinite(X)).sum())} missing values."
        )
    total = X.sum(axis=2)
    bad = (np.abs(total - 1.0) > 1e-6) | (X < 0).any(axis=2)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise DataError(
            f"{owner}: soft proxy {j + 1} of row {i} is {np.round(X[i, j], 4).tolist()} (sum "
            f"{total[i, j]:.4g}); every row must be non-negative and sum to 1."
        )


def check_levels(data: PatternCounts, n_groups: int, names: Sequence[str], *, owner: str) -> None:
    """Refuse proxies that cannot inform about K groups, and proxies that repeat each other."""
    for j in range(data.n_proxies):
        seen = data.margin(j).sum(axis=0) > 0
        if data.n_levels[j] > MAX_LEVELS:
            raise DataError(
                f"{owner}: proxy {names[j]!r} has the level {data.n_levels[j] - 1}, but takes only "
                f"{int(seen.sum())} levels. Recode them as 0, 1, 2, ..."
            )
        if seen.sum() < n_groups:
            raise DataError(
                f"{owner}: proxy {names[j]!r} carries no information about {n_groups} groups: it "
                f"takes {int(seen.sum())} level(s). Drop it, or lower n_groups."
            )
        if not seen[:n_groups].all():
            raise DataError(
                f"{owner}: proxy {names[j]!r} never takes the level "
                f"{int(np.argmin(seen[:n_groups]))} (it takes "
                f"{', '.join(map(str, np.flatnonzero(seen)[:6]))}). Level a speaks for group a, so "
                f"the levels 0 to {n_groups - 1} are needed; recode the proxy."
            )
    for i in range(data.n_proxies):
        for j in range(i + 1, data.n_proxies):
            _refuse_repeated(data.views([i, j]).complete().patterns, names[i], names[j], owner)


def _refuse_repeated(pairs: IntArray, first: str, second: str, owner: str) -> None:
    """Pairs (r, 2) of levels that occur together: one-to-one means one proxy given twice."""
    one_to_one = all(len(np.unique(pairs[:, v])) == len(pairs) for v in (0, 1))
    if one_to_one and len(pairs) > 0:
        same = bool((pairs[:, 0] == pairs[:, 1]).all())
        how = "identical" if same else "the same but for the names of their levels"
        raise DataError(
            f"{owner}: proxies {first!r} and {second!r} are {how}: conditional independence is "
            "impossible. Keep one of them."
        )


def check_codes(codes: IntArray, name: str) -> None:
    """Refuse decisions or labels that do not vary, or whose codes have holes.

    A hole is nearly always a coding slip (1 and 2, or 0 and 5), and would read as a level that
    nobody of any group has.
    """
    top = int(codes.max())
    if top == int(codes.min()):
        raise DataError(
            f"{OWNER}: {name} takes one value ({top}) in all rows; there is nothing to compare."
        )
    seen = np.bincount(codes) > 0 if top < len(codes) else np.isin(np.arange(len(codes)), codes)
    if top >= len(codes) or not seen.all():
        raise DataError(
            f"{OWNER}: {name} has the level {top}, but never the level {int(np.argmin(seen))}. "
            "Levels are 0, 1, 2, ... without holes; recode them, for instance with "
            "pandas.factorize(..., sort=True)."
        )


def to_counts(rows: Rows, n_groups: int) -> PatternCounts:
    """Count coded rows; audited rows become a last view whose error matrix is the identity."""
    check_codes(rows.prediction, "y_pred")
    if rows.label is not None:
        check_codes(rows.label, "y_true")
    n_labels = 1 if rows.label is None else int(rows.label.max()) + 1
    n_pred = int(rows.prediction.max()) + 1
    codes = rows.codes
    levels = [max(int(codes[:, j].max()) + 1, 1) for j in range(codes.shape[1])]
    if rows.audited is not None:
        if int(rows.audited.max()) >= n_groups:
            raise DataError(
                f"{OWNER}: sensitive_features has the level {int(rows.audited.max())}, but "
                "n_groups="
                f"{n_groups}; levels are 0..{n_groups - 1} and -1 for unknown."
            )
        codes = np.ascontiguousarray(np.column_stack([codes, rows.audited]))
        levels.append(n_groups)
    data = count_rows(
        codes,
        rows.prediction,
        rows.label,
        rows.weight,
        n_pred=n_pred,
        n_labels=n_labels,
        n_levels=levels,
    )
    if rows.weight is None or rows.squared is None:
        return data
    second = count_rows(
        codes,
        rows.prediction,
        rows.label,
        rows.squared,
        n_pred=n_pred,
        n_labels=n_labels,
        n_levels=levels,
    )
    return replace(data, squared=second.counts)


def cluster_cells(rows: Rows, data: PatternCounts) -> tuple[Any, IntArray]:
    """Weight of every cluster (or combination of clusters) in every cell, and the cluster codes."""
    assert rows.cluster is not None
    units, unit = np.unique(rows.cluster, axis=0, return_inverse=True)
    codes = rows.codes
    if rows.audited is not None:
        codes = np.column_stack([codes, rows.audited])
    stratum = rows.prediction * data.n_labels
    if rows.label is not None:
        stratum = stratum + rows.label
    return cell_table(data, codes, stratum, rows.weight, unit.ravel()), units.astype(np.intp)
