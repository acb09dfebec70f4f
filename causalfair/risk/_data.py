"""From the user's table to rows with a decision, and an outcome where somebody looked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.logging import warn
from causalfair.exceptions import (
    DataError,
    IdentificationError,
    RoleError,
    WeakIdentificationWarning,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.roles import RoleData
    from causalfair._core.typing import FloatArray, IntArray

# What a row says of (decision, outcome). A code is 2 * kind + outcome where the outcome is known.
UNTESTED, NEGATIVE, POSITIVE = 0, 1, 2
DESIGN_NEGATIVE, DESIGN_POSITIVE, PENDING, LATE_NEGATIVE, LATE_POSITIVE, UNUSED = 3, 4, 5, 6, 7, 8
N_CODES = 9
ROW_KINDS = ("usual", "by_design", "pending", "late", "covariates_only")


@dataclass(frozen=True, slots=True)
class SelectiveRows:
    """Checked rows of a selectively labelled table.

    Attributes
    ----------
    data : RoleData
        Covariates, clusters and weights; its ``y`` is 0 where no outcome is used.
    y : (n,) float array
        Outcome; NaN where it is not used.
    tested : (n,) float array
        1 where the unit was tested.
    code : (n,) int8 array
        What the row says, ``UNTESTED`` to ``UNUSED``; for outcomes that are not binary every
        outcome seen counts as ``POSITIVE``.
    weight : (n,) float array
        Sampling weight times frequency; sums to ``n_rows``.
    n_rows : int
        Rows of the user's table, before any aggregation.
    group, maker : (n,) int array or None
        Codes of the groups and of the decision makers.
    group_levels, maker_levels : tuple of str
        Their names.
    """

    data: RoleData
    y: FloatArray
    tested: FloatArray
    code: Any
    weight: FloatArray
    n_rows: int
    group: IntArray | None
    group_levels: tuple[str, ...]
    maker: IntArray | None
    maker_levels: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of rows in memory."""
        return len(self.tested)

    def share(self, *codes: int) -> float:
        """Weighted share of rows with one of these codes, among those with a decision."""
        used = self.code != UNUSED
        return float(self.weight[np.isin(self.code, codes)].sum() / self.weight[used].sum())


def read_rows(
    X: Any,
    y: Any,
    *,
    tested: Any,
    owner: str,
    covariates: Any = None,
    group: Any = None,
    decision_maker: Any = None,
    row_kind: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    binary: bool = True,
) -> SelectiveRows:
    """Resolve the roles of a selectively labelled table and check them.

    Parameters
    ----------
    X : frame or array of shape (n, p)
        The table; a lazy frame is aggregated in its own engine.
    y : array or str
        Outcome; ignored where ``tested`` is 0.
    tested : array or str
        Decision, binary.
    owner : str
        Who asks, for messages.
    covariates, cluster, sample_weight
        As in :func:`causalfair._core.roles.resolve_roles`.
    group, decision_maker : array or str, optional
        Levels of groups and of decision makers.
    row_kind : array or str, optional
        One of ``ROW_KINDS`` a row.
    binary : bool, default True
        Whether the outcome must be 0 or 1.

    Raises
    ------
    DataError, RoleError, IdentificationError
        See the messages.
    """
    from causalfair._core.frames import is_lazy
    from causalfair._core.roles import resolve_roles
    from causalfair._core.validation import check_binary

    named = {"tested": tested, "group": group, "decision_maker": decision_maker}
    named["row_kind"] = row_kind
    frequency, n_rows = None, None
    if is_lazy(X):
        X, frequency, n_rows = _aggregate(X, y, named, covariates, cluster, sample_weight, owner)
        sample_weight = frequency
    data = resolve_roles(
        X,
        y,
        owner=owner,
        covariates=covariates,
        roles=named,
        cluster=cluster,
        sample_weight=sample_weight,
        missing_y=True,
    )
    if data.y is None or "tested" not in data.roles:
        raise DataError(f"{owner} needs both y and tested: the outcome and who was tested.")
    label = f"tested ({data.names['tested']!r})"
    decision = check_binary(data.roles["tested"], label, owner=owner).values
    code = _codes(data, decision, data.roles.get("row_kind"), owner, binary)
    seen = (code != UNTESTED) & (code != PENDING) & (code != UNUSED)
    _require_variation(code, data, owner, binary)
    group_codes, group_levels = _levels(data.roles.get("group"))
    maker_codes, maker_levels = _levels(data.roles.get("decision_maker"))
    n_rows = data.n if n_rows is None else n_rows
    weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
    outcome = np.where(seen, data.y, np.nan)
    return SelectiveRows(
        data=_without_unseen(data, np.where(seen, data.y, 0.0), lazy=frequency is not None),
        y=outcome,
        tested=decision,
        code=code,
        weight=weight * (n_rows / data.n),
        n_rows=n_rows,
        group=group_codes,
        group_levels=group_levels,
        maker=maker_codes,
        maker_levels=maker_levels,
    )


def _without_unseen(data: RoleData, y: FloatArray, *, lazy: bool) -> RoleData:
    """Role data whose fingerprint does not depend on outcomes nobody used."""
    from dataclasses import replace

    return replace(
        data, y=y, sample_weight=data.sample_weight, backend="pandas" if lazy else data.backend
    )


def _codes(data: RoleData, decision: FloatArray, kind: Any, owner: str, binary: bool) -> Any:
    """Code of each row; checks that every outcome which is needed is there and is 0 or 1."""
    assert data.y is not None
    name = data.names["y"]
    kinds = np.full(data.n, "usual") if kind is None else np.asarray([str(k) for k in kind])
    unknown = sorted(set(kinds) - set(ROW_KINDS))
    if unknown:
        raise DataError(
            f"{owner}: row_kind has the value {str(unknown[0])!r}; its values are "
            f"{', '.join(map(repr, ROW_KINDS))}."
        )
    needed = ((kinds == "usual") & (decision == 1)) | np.isin(kinds, ("by_design", "late"))
    absent = needed & np.isnan(data.y)
    if absent.any():
        raise DataError(
            f"{owner}: y ({name!r}) has {int(absent.sum())} missing value(s) in tested rows, "
            f"the first in row {int(np.flatnonzero(absent)[0])}. Drop those rows, or mark results "
            'not yet known with row_kind="pending".'
        )
    bad = needed & ~np.isin(data.y, (0.0, 1.0))
    if binary and bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{owner}: y ({name!r}) must be 0 or 1 in tested rows; row {first} has "
            f"{data.y[first]:g} ({int(bad.sum())} such row(s)). Recode it."
        )
    positive = data.y != 0 if binary else np.ones(data.n, dtype=bool)
    wrong = np.isin(kinds, ("pending", "by_design")) & (decision == 0)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{owner}: row {first} is marked {str(kinds[first])!r} but was not tested; only tested "
            "rows are tested by design or have a result to come."
        )
    wrong = (kinds == "late") & (decision == 1)
    if wrong.any():
        raise DataError(
            f"{owner}: row {int(np.flatnonzero(wrong)[0])} is marked 'late' but was tested; late "
            "outcomes are those of untested rows learnt afterwards."
        )
    code = np.where(decision == 1, np.where(positive, POSITIVE, NEGATIVE), UNTESTED)
    code = np.where(
        kinds == "by_design", np.where(positive, DESIGN_POSITIVE, DESIGN_NEGATIVE), code
    )
    code = np.where(kinds == "late", np.where(positive, LATE_POSITIVE, LATE_NEGATIVE), code)
    code = np.where(kinds == "pending", PENDING, code)
    return np.where(kinds == "covariates_only", UNUSED, code).astype(np.int8)


def _require_variation(code: Any, data: RoleData, owner: str, binary: bool) -> None:
    """Raise where nothing can be learnt of the decision or of the outcome."""
    if data.n < 2:
        raise DataError(f"{owner} got {data.n} row; give at least two.")
    decided = code[~np.isin(code, (UNUSED, DESIGN_NEGATIVE, DESIGN_POSITIVE))]
    chosen = np.isin(decided, (NEGATIVE, POSITIVE, PENDING))
    name = data.names["tested"]
    if chosen.all() or not chosen.any():
        which, advice = (
            ("every row was tested", "no outcome is missing: use a plain regression")
            if chosen.any()
            else ("no row was tested", "without a tested row nothing is known of the outcome")
        )
        raise IdentificationError(f"{owner}: {which} by choice ({name!r} is constant); {advice}.")
    if not binary:
        return
    known = np.isin(code, (POSITIVE, DESIGN_POSITIVE, LATE_POSITIVE))
    known_not = np.isin(code, (NEGATIVE, DESIGN_NEGATIVE, LATE_NEGATIVE))
    if not known.any() or not known_not.any():
        word = "1" if not known.any() else "0"
        raise IdentificationError(
            f"{owner}: none of the {int((known | known_not).sum())} outcomes seen is {word}, so "
            "the risk cannot be estimated; bounds (selection_bounds) are what the data allow."
        )


def warn_of_separation(rows: SelectiveRows, owner: str) -> None:
    """Name the covariates at whose larger, or smaller, values everybody or nobody is tested."""
    chosen = np.isin(rows.code, (NEGATIVE, POSITIVE, PENDING))
    left = np.isin(rows.code, (UNTESTED, LATE_NEGATIVE, LATE_POSITIVE))
    matrix, names = rows.data.matrix(), rows.data.covariate_names
    found = [
        name
        for name, column in zip(names, matrix.T, strict=True)
        if column[left].max() <= column[chosen].min() or column[chosen].max() <= column[left].min()
    ]
    if found:
        warn(
            f"{owner}: the covariate(s) {', '.join(found)} separate the tested from the untested, "
            "so that only priors keep their coefficients finite and nothing is seen of risk on one "
            "side. Leave them out, or merge levels.",
            WeakIdentificationWarning,
        )


def _levels(values: Any) -> tuple[Any, tuple[str, ...]]:
    if values is None:
        return None, ()
    text = np.asarray([_text(v) for v in values])
    levels, codes = np.unique(text, return_inverse=True)
    return codes.astype(np.intp), tuple(map(str, levels))


def _text(value: Any) -> str:
    """Level as text; whole floats as integers, so that every frame library gives the same name."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def level_codes(values: Any, levels: Sequence[str], what: str, owner: str) -> IntArray:
    """Codes of new values among the levels seen in ``fit``.

    Raises
    ------
    DataError
        A level was not seen.
    """
    order = {level: i for i, level in enumerate(levels)}
    text = [_text(v) for v in np.asarray(values)]
    unknown = sorted(set(text) - set(order))
    if unknown:
        raise DataError(
            f"{owner}: {what} {unknown[0]!r} was not seen in fit; known: "
            f"{', '.join(list(levels)[:12])}."
        )
    return np.array([order[t] for t in text], dtype=np.intp)


def _aggregate(
    X: Any, y: Any, named: Any, covariates: Any, cluster: Any, sample_weight: Any, owner: str
) -> tuple[Any, FloatArray, int]:
    """Count the rows of a lazy frame by value, in its own engine."""
    import narwhals.stable.v2 as nw

    from causalfair._core.frames import aggregate_counts

    roles = {"y": y, **named}
    for role, value in {**roles, "sample_weight": sample_weight}.items():
        if value is not None and not isinstance(value, str):
            raise RoleError(
                f"{owner}: with a lazy frame every role is a column name; {role} is an array."
            )
    if cluster is not None:
        raise DataError(
            f"{owner}: a lazy frame is aggregated, so its rows have no clusters; collect it first."
        )
    columns = [str(c) for c in nw.from_native(X).collect_schema().names()]
    used = [v for v in roles.values() if v is not None]
    if covariates == "all":
        covariates = [c for c in columns if c not in (*used, sample_weight)]
    if covariates is None or isinstance(covariates, str):
        raise RoleError(
            f"{owner}: with a lazy frame give covariates as a list of columns, or 'all'; got "
            f"{covariates!r}."
        )
    keys = list(dict.fromkeys([*used, *covariates]))
    table = aggregate_counts(X, keys)
    n_rows = int(table["count"].sum())
    counts = table.pop("count")
    if sample_weight is not None:
        counts = aggregate_counts(X, keys, weight=sample_weight)["count"]
    return table, np.asarray(counts, dtype=float), n_rows
