"""From a question to numbers: record values, exact integer sums, influences of records.

Error messages must not depend on holdout values. A question that fails on the holdout is run again
on a decoy (rows without information); what fails there too is shown, anything else is charged.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.adaptive._metrics import Statistic, find_metric, predict
from causalfair.adaptive._sealed import Sealed
from causalfair.adaptive._state import Batch
from causalfair.exceptions import DataError, ParameterError

UNITS = 1 << 20
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Query:
    """One question: a function of (X, y), or an array with one value a holdout row."""

    source: Any
    lo: float = 0.0
    hi: float = 1.0
    guess: float | None = None
    query_id: str | None = None
    kind: str = "mean"
    loss_sign: int = 1

    def __post_init__(self) -> None:
        for name, value in (("lo", self.lo), ("hi", self.hi)):
            if not (isinstance(value, (int, float, np.number)) and math.isfinite(value)):
                raise ParameterError(
                    f"declare lo, hi as finite numbers; e.g. clip log-loss at 5. "
                    f"Got {name}={value!r}."
                )
        if not self.lo < self.hi:
            raise ParameterError(f"lo must be below hi. Got lo={self.lo!r}, hi={self.hi!r}.")
        if self.guess is not None and not math.isfinite(self.guess):
            raise ParameterError(f"guess must be a finite number. Got {self.guess!r}.")


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A fitted model and a metric, as a query."""

    model: Any
    metric: str
    positive: Any = 1
    limit: float | None = None
    sensitive: Any = None  # function of X that gives group labels
    levels: tuple[Any, Any] | None = None

    def statistic(self, X: Any, y: Any) -> Statistic:
        """Evaluate on rows."""
        _, metric = find_metric(self.metric)
        predicted = predict(self.model, X, metric.prediction, self.positive)
        extra: dict[str, Any] = {"positive": self.positive, "limit": self.limit}
        if metric.needs_groups:
            extra |= {"sensitive": self.sensitive(X), "levels": self.levels}
        return metric.compute(np.asarray(y), predicted, **extra)


def to_units(values: Any, lo: float, hi: float) -> FloatArray:
    """Values in whole units of ``(hi - lo) / 2**20``; non-finite ones become lo, others clip.

    Units are integers below 2**20 held in float64, so sums of up to 2**33 of them are exact in any
    order.
    """
    share = (np.asarray(values, dtype=np.float64) - lo) * (UNITS / (hi - lo))
    share = np.where(np.isfinite(share), share, 0.0)
    return np.asarray(np.rint(np.clip(share, 0.0, float(UNITS))))


@dataclass(frozen=True, slots=True)
class Rows:
    """Some holdout rows with what the influence of a record needs."""

    X: Any
    y: Any
    index: IntArray | None
    share: FloatArray | None  # weight of each row in a mean (sums to one); None when equal
    groups: IntArray | None  # record number of each row; None when rows are records
    n_rows: int

    def record_influence(self, influence: FloatArray) -> FloatArray:
        """Sum row influences to records."""
        if self.groups is None:
            return influence
        return np.asarray(np.bincount(self.groups, weights=influence))

    @property
    def equal(self) -> bool:
        """Whether every row is a record of the same weight."""
        return self.share is None and self.groups is None

    @property
    def mean_influence(self) -> FloatArray:
        """Influence of each record on a mean with range one."""
        share = self.share if self.share is not None else np.full(self.n_rows, 1 / self.n_rows)
        return self.record_influence(share)


def rows_of(sealed: Sealed, index: IntArray | None) -> Rows:
    """Cut rows out of the sealed data."""
    from causalfair.adaptive._sealed import take

    weights = None if sealed.weights is None else take(sealed.weights, index)
    groups = None if sealed.groups is None else take(sealed.groups, index)
    if groups is not None:
        groups = np.unique(groups, return_inverse=True)[1]
    n = len(sealed) if index is None else len(index)
    return Rows(
        take(sealed.X, index),
        take(sealed.y, index),
        index,
        None if weights is None else weights / weights.sum(),
        groups,
        n,
    )


def evaluate(source: Any, rows: Rows) -> Any:
    """Raw result of a question on rows: values, or a statistic."""
    if isinstance(source, ModelMetric):
        return source.statistic(rows.X, rows.y)
    if callable(source):
        return source(rows.X) if rows.y is None else source(rows.X, rows.y)
    return source if rows.index is None else source[rows.index]


def check_array(source: Any, n_rows: int) -> None:
    """Shape and dtype of an array query, before any data are touched."""
    if callable(source) or isinstance(source, ModelMetric):
        return
    array = np.asarray(source)
    if array.ndim != 1 or len(array) != n_rows or array.dtype.kind not in "biuf":
        raise DataError(
            f"A query must give one number a holdout row: expected shape ({n_rows},) of numbers, "
            f"got shape {array.shape} of dtype {array.dtype}."
        )


def checked_result(result: Any, n_rows: int) -> Any:
    """Result of a question as a statistic or a vector of the right length."""
    if isinstance(result, Statistic):
        return result
    values = np.asarray(result)
    if values.shape != (n_rows,) or values.dtype.kind not in "biuf":
        raise DataError(
            f"A query must return one number a row: expected shape ({n_rows},) of numbers, got "
            f"shape {values.shape} of dtype {values.dtype} on rows without information. Return "
            "model.predict(X) == y, not its mean."
        )
    return values


def guarded(call: Callable[[Rows], Any], rows: Rows, decoy: Callable[[Rows], Rows]) -> Any:
    """Evaluate on the holdout without letting an error or a warning speak about it.

    Returns ``None`` when the call works on the decoy but not on the holdout: the question is then
    charged and answered as if every value were lo.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(rows)
    except Exception:  # any error may quote holdout values; none is passed on
        failed = True
    if failed:
        call(decoy(rows))
    return None


def run(source: Any, rows: Rows, decoy: Callable[[Rows], Rows]) -> Any:
    """Values or statistic of a question; ``None`` where only the holdout makes it fail."""
    return guarded(lambda r: checked_result(evaluate(source, r), r.n_rows), rows, decoy)


@dataclass(slots=True)
class _Part:
    value: float
    influence: float
    squares: float
    pad: float
    variance: float
    plain: bool
    binary: bool
    vector: FloatArray | None
    scale: float = math.nan


def relative(influence: FloatArray, reference: FloatArray) -> float:
    """Largest ratio of influences, record by record; infinite where only the reference is zero."""
    ratio = np.divide(
        influence, reference, out=np.where(influence > 0, np.inf, 0.0), where=reference > 0
    )
    return float(ratio.max())


def _from_values(
    values: FloatArray | BoolArray, query: Query, rows: Rows, *, keep: bool, influence: FloatArray
) -> _Part:
    span = query.hi - query.lo
    binary = values.dtype == np.bool_ and query.lo == 0 and query.hi == 1
    units = values * float(UNITS) if binary else to_units(values, query.lo, query.hi)
    n = rows.n_rows
    if rows.share is None:
        mean = float(units.sum()) / (UNITS * n)
    else:  # exactly rounded, so independent of the order of the rows
        mean = math.fsum((units * rows.share).tolist()) / UNITS
    equal = rows.equal
    biggest = 1 / n if equal else float(influence.max())
    squares = 1 / n if equal else float(influence @ influence)
    variance = float(np.var(units, ddof=1)) * (span / UNITS) ** 2 if keep and n > 1 else 0.0
    vector = np.asarray(query.lo + units * (span / UNITS)) if keep else None
    return _Part(
        query.lo + span * mean,
        biggest * span,
        squares * span**2,
        0.0 if binary else span / (2 * UNITS),
        variance,
        equal,
        binary,
        vector,
    )


def _from_statistic(found: Statistic, rows: Rows, reference: FloatArray | None) -> _Part:
    influence = rows.record_influence(found.influence)
    value = found.value if math.isfinite(found.value) else found.lo
    part = _Part(
        value, float(influence.max()), float(influence @ influence), 1e-12, 0.0, False, False, None
    )
    if reference is not None:
        part.scale = relative(influence, reference)
    return part


def make_batch(
    queries: Sequence[Query],
    rows: Rows,
    decoy: Callable[[Rows], Rows],
    guesses: FloatArray,
    *,
    keep: bool,
    reference: FloatArray | None = None,
) -> Batch:
    """Empirical facts of several questions on the same rows.

    `reference` holds the influence of each record on the statistic that the ledger was made for.
    """
    influence = np.empty(0) if rows.equal else rows.mean_influence
    of_mean = math.nan if reference is None else relative(rows.mean_influence, reference)
    parts = []
    for query in queries:
        found = run(query.source, rows, decoy)
        if found is None:
            found = np.full(rows.n_rows, query.lo)
        if isinstance(found, Statistic) and found.vector is not None:
            found = np.asarray(found.vector)
        if isinstance(found, Statistic):
            parts.append(_from_statistic(found, rows, reference))
        else:
            parts.append(_from_values(found, query, rows, keep=keep, influence=influence))
            parts[-1].scale = of_mean * (query.hi - query.lo)
    batch = _assemble(queries, parts, guesses, rows)
    if reference is None:
        return batch
    return replace(batch, scale=np.array([part.scale for part in parts]))


def _assemble(
    queries: Sequence[Query], parts: Sequence[_Part], guesses: FloatArray, rows: Rows
) -> Batch:
    plain = all(part.plain for part in parts)
    vectors = None
    if all(part.vector is not None for part in parts):
        vectors = np.column_stack([part.vector for part in parts])  # type: ignore[misc]
    return Batch(
        value=np.array([part.value for part in parts]),
        lo=np.array([query.lo for query in queries], dtype=float),
        hi=np.array([query.hi for query in queries], dtype=float),
        influence=np.array([part.influence for part in parts]),
        squares=np.array([part.squares for part in parts]),
        pad=np.array([part.pad for part in parts]),
        guess=guesses,
        count=rows.n_rows if plain else None,
        binary=all(part.binary for part in parts),
        variance=np.array([part.variance for part in parts]),
        loss_sign=queries[0].loss_sign,
        kind=queries[0].kind,
        vectors=vectors,
    )


def column_sums(values: Any, lo: float, hi: float) -> FloatArray:
    """Exact sums of units of every column of an (n, q) array, in blocks of bounded memory."""
    values = np.asarray(values)
    n, q = values.shape
    if values.dtype == np.bool_ and lo == 0 and hi == 1:
        return np.asarray(np.count_nonzero(values, axis=0) * float(UNITS))
    blocks = column_blocks(n, q)
    return np.concatenate([to_units(values[:, block], lo, hi).sum(axis=0) for block in blocks])


def column_blocks(n: int, q: int) -> list[slice]:
    """Blocks of columns of an (n, q) table, each of bounded memory."""
    step = max(1, _BLOCK_BYTES // (8 * max(n, 1)))
    return [slice(j, j + step) for j in range(0, q, step)]


def batch_from_sums(
    sums: FloatArray,
    n: int,
    lo: float,
    hi: float,
    guesses: FloatArray,
    *,
    binary: bool,
    kind: str = "mean",
    loss_sign: int = 1,
) -> Batch:
    """Batch of q plain means whose unit sums are known."""
    q, span = len(sums), hi - lo
    full = np.full
    return Batch(
        value=lo + span * sums / (UNITS * n),
        lo=full(q, float(lo)),
        hi=full(q, float(hi)),
        influence=full(q, span / n),
        squares=full(q, span**2 / n),
        pad=full(q, 0.0 if binary else span / (2 * UNITS)),
        guess=guesses,
        count=n,
        binary=binary,
        variance=None,
        kind=kind,
        loss_sign=loss_sign,
    )
