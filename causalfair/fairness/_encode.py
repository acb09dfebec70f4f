"""From the user's arrays, tables and lazy frames to integer codes and counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.frames import is_lazy
from causalfair.exceptions import DataError, ParameterError, RoleError
from causalfair.fairness._tensor import PatternCounts, cell_table, count_rows, from_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import ArrayLike, FloatArray, IntArray

OWNER = "ProxyFairness.fit"
ROLE_ARGUMENTS = ("y_pred", "y_true", "sensitive_features")


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
    """Refuse proxies that cannot inform about K groups, and identical proxies."""
    for j in range(data.n_proxies):
        seen = int((data.margin(j).sum(axis=0) > 0).sum())
        if seen < n_groups:
            raise DataError(
                f"{owner}: proxy {names[j]!r} carries no information about {n_groups} "
                "groups: it takes "
                f"{seen} level(s). Drop it, or lower n_groups."
            )
    for i in range(data.n_proxies):
        for j in range(i + 1, data.n_proxies):
            if data.n_levels[i] != data.n_levels[j]:
                continue
            both = (data.patterns[:, i] >= 0) & (data.patterns[:, j] >= 0)
            differ = both & (data.patterns[:, i] != data.patterns[:, j])
            if both.any() and data.counts[:, differ].sum() == 0:
                raise DataError(
                    f"{owner}: proxies {names[i]!r} and {names[j]!r} are identical: conditional "
                    "independence is impossible. Keep one of them."
                )


def to_counts(rows: Rows, n_groups: int) -> PatternCounts:
    """Count coded rows; audited rows become a last view whose error matrix is the identity."""
    n_labels = 1 if rows.label is None else max(int(rows.label.max()) + 1, 2)
    n_pred = max(int(rows.prediction.max()) + 1, 2)
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


def count_tensor(
    X: Any,
    y_pred: Any,
    y_true: Any = None,
    *,
    proxies: Any = None,
    sample_weight: ArrayLike | None = None,
    n_pred: int | None = None,
    n_labels: int | None = None,
    n_levels: Sequence[int] | int | None = None,
) -> FloatArray:
    """Count rows by decision, label and level of every proxy: all that the estimators read.

    Tensors of the same shape from several shards add up, and :meth:`ProxyFairness.from_counts` fits
    their sum. Give ``n_pred``, ``n_labels`` and ``n_levels`` when a shard may not show every level.

    Parameters
    ----------
    X : (n, m) int array or table
        Proxies as levels 0, 1, 2, ...; -1 marks a missing value and is counted as a further, last
        level. A lazy frame (polars, DuckDB, Dask, PySpark) is grouped in its own engine.
    y_pred : (n,) int array or str
        Decisions 0, 1, ..., or the name of their column.
    y_true : (n,) int array or str, optional
        Outcome labels.
    proxies : list of str, optional
        Proxy columns of a table.
    sample_weight : (n,) array or str, optional
        Non-negative weights.
    n_pred, n_labels : int, optional
        Number of decisions and of labels; by default the largest seen plus one (at least 2).
    n_levels : sequence of int, or int, optional
        Number of levels of each proxy.

    Returns
    -------
    (n_pred, n_labels or 1, L_1, ..., L_m) float array
        Where proxy j has missing values its last level is "missing": pass ``missing=`` to
        ``from_counts``.

    Raises
    ------
    DataError
        Values that are not levels, lengths that differ, no rows, or a table too wide to hold.

    Notes
    -----
    One pass over the rows, O(n m), with private histograms of a fixed number of blocks.

    Examples
    --------
    >>> from causalfair.fairness import count_tensor
    >>> N = count_tensor([[0, 1], [1, 1], [0, 0]], [1, 1, 0])
    >>> N.shape, float(N.sum())
    ((2, 1, 2, 2), 3.0)
    """
    owner = "count_tensor"
    named = any(isinstance(v, str) for v in (y_pred, y_true, sample_weight)) or proxies is not None
    if named or is_lazy(X):
        reader = read_lazy if is_lazy(X) else read_rows
        rows = reader(
            X,
            y_pred,
            y_true=y_true,
            proxies=proxies,
            sensitive_features=None,
            cluster=None,
            sample_weight=sample_weight,
            owner=owner,
        )
        codes, prediction, label, weight = rows.codes, rows.prediction, rows.label, rows.weight
    else:
        codes, prediction, label, weight = _plain_arrays(X, y_pred, y_true, sample_weight, owner)
    m = codes.shape[1]
    seen = [int(codes[:, j].max()) + 1 for j in range(m)]
    levels = _requested_levels(n_levels, seen, owner)
    shape_pred = _requested(n_pred, max(int(prediction.max()) + 1, 2), "n_pred", owner)
    shape_label = 1
    if label is not None:
        shape_label = _requested(n_labels, max(int(label.max()) + 1, 2), "n_labels", owner)
    missing = codes.min(axis=0) < 0
    shape = (shape_pred, shape_label, *(v + int(b) for v, b in zip(levels, missing, strict=True)))
    from causalfair.fairness._tensor import MAX_DENSE_CELLS, _count_dense

    if float(np.prod(np.array(shape, dtype=float))) > MAX_DENSE_CELLS:
        raise DataError(
            f"{owner}: a table of shape {shape} is too wide to hold. Give the rows to "
            "ProxyFairness.fit, which keeps only the patterns that occur."
        )
    radix = np.array(shape[2:], dtype=np.int64)
    return _count_dense(codes, prediction, label, weight, radix, shape_label, shape)


def _plain_arrays(
    X: Any, y_pred: Any, y_true: Any, sample_weight: Any, owner: str
) -> tuple[IntArray, IntArray, IntArray | None, FloatArray | None]:
    from causalfair._core.validation import check_lengths

    codes = encode_levels(X, "X", owner=owner, allow_missing=True)
    if codes.ndim != 2:
        raise DataError(f"{owner} got X of shape {codes.shape}; give proxies as (n, m).")
    prediction = encode_levels(y_pred, "y_pred", owner=owner)
    label = None if y_true is None else encode_levels(y_true, "y_true", owner=owner)
    arrays: dict[str, Any] = {"X": codes, "y_pred": prediction}
    if label is not None:
        arrays["y_true"] = label
    weight = None
    if sample_weight is not None:
        weight = np.asarray(sample_weight, dtype=np.float64)
        arrays["sample_weight"] = weight
        if not np.isfinite(weight).all() or (weight < 0).any() or weight.sum() == 0:
            raise DataError(
                f"{owner}: sample_weight must be finite and non-negative, with a positive sum."
            )
    check_lengths(owner=owner, **arrays)
    return np.ascontiguousarray(codes), prediction, label, weight


def _requested(wanted: int | None, seen: int, name: str, owner: str) -> int:
    if wanted is None:
        return seen
    if wanted < seen:
        raise ParameterError(f"{owner} got {name}={wanted}, but the data show {seen} levels.")
    return wanted


def _requested_levels(
    wanted: Sequence[int] | int | None, seen: Sequence[int], owner: str
) -> list[int]:
    if wanted is None:
        return list(seen)
    chosen = [wanted] * len(seen) if isinstance(wanted, int) else list(wanted)
    if len(chosen) != len(seen):
        raise ParameterError(
            f"{owner} got n_levels for {len(chosen)} proxies, but X has {len(seen)}."
        )
    return [
        _requested(w, s, f"n_levels[{j}]", owner)
        for j, (w, s) in enumerate(zip(chosen, seen, strict=True))
    ]


def check_tensor(N: ArrayLike, missing: Sequence[bool] | None) -> PatternCounts:
    """Check a tensor of counts and turn it into patterns."""
    owner = "ProxyFairness.from_counts"
    tensor = np.asarray(N, dtype=np.float64)
    if tensor.ndim < 3:
        raise DataError(
            f"{owner} got N of shape {tensor.shape}; it needs (n_pred, n_labels or 1, L_1, "
            "..., L_m)."
        )
    if not np.isfinite(tensor).all() or (tensor < 0).any():
        raise DataError(f"{owner}: N must be finite and non-negative; it holds counts.")
    if tensor.sum() == 0:
        raise DataError(f"{owner}: N is all zero (n = 0).")
    if missing is not None and len(missing) != tensor.ndim - 2:
        raise ParameterError(
            f"{owner} got missing for {len(missing)} proxies, but N has {tensor.ndim - 2}."
        )
    return from_tensor(tensor, missing=missing)
