"""Evaluating questions on the rows of a holdout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.adaptive import _build
from causalfair.adaptive._metrics import Metric, compared_groups
from causalfair.adaptive._open import Parts
from causalfair.adaptive._queries import (
    ModelMetric,
    Query,
    Rows,
    batch_from_sums,
    column_sums,
    guarded,
    make_batch,
    relative,
)
from causalfair.adaptive._session import stable_batch
from causalfair.adaptive._state import Batch
from causalfair.exceptions import DataError, ParameterError


def batch_of(parts: Parts, queries: Sequence[Query], part: str) -> Batch:
    """Empirical facts of questions on a part of the rows."""
    engine = parts.session.mechanism
    if engine.name == "multiplicative_weights":
        return _cell_batch(parts, queries)
    if engine.name == "stable_quantile":
        return _estimator_batch(parts, queries)
    where = "check" if "check" in parts.blocks.parts else part
    keep = engine.needs_vectors or getattr(engine, "check", "") == "empirical_bernstein"
    guesses = _guesses(parts, queries)
    batch = make_batch(
        queries,
        parts.blocks.rows(where),
        parts.decoy,
        guesses,
        keep=keep,
        reference=parts.reference,
    )
    if parts.train is not None or "guess" not in parts.blocks.parts:
        return batch
    return replace(batch, guessed=np.array([query.guess is None for query in queries]))


def _guesses(parts: Parts, queries: Sequence[Query]) -> FloatArray:
    """Guesses given, else the same question on the training data, else on the guess part."""
    guesses = _build.null_guesses(len(queries))
    if not parts.session.mechanism.needs_guess:
        return guesses
    open_ = [j for j, query in enumerate(queries) if query.guess is None]
    for j, query in enumerate(queries):
        if query.guess is not None:
            guesses[j] = query.guess
    if not open_:
        return guesses
    rows = _guess_rows(parts)
    asked = [queries[j] for j in open_]
    batch = make_batch(asked, rows, parts.decoy, _build.null_guesses(len(asked)), keep=False)
    guesses[open_] = batch.value
    return guesses


def _guess_rows(parts: Parts) -> Rows:
    if parts.train is not None:
        X, y = parts.train
        return Rows(X, y, None, None, None, len(X))
    if "guess" in parts.blocks.parts:
        return parts.blocks.rows("guess")
    raise ParameterError(
        f"mechanism={parts.session.mechanism.name!r} needs a guess for every question: pass "
        "guess=, or train=(X, y) when creating (and opening) the holdout."
    )


def matrix_batch(parts: Parts, values: Any, lo: float, hi: float, guesses: Any, part: str) -> Batch:
    """Batch of the columns of an (n, q) array; one pass, no copy larger than a block."""
    engine = parts.session.mechanism
    sealed = parts.blocks.sealed
    plain = sealed.groups is None and sealed.weights is None
    given = (
        np.asarray(guesses, dtype=float)
        if guesses is not None
        else _build.null_guesses(values.shape[1])
    )
    if engine.needs_guess and np.isnan(given).any():
        raise ParameterError(f"mechanism={engine.name!r} needs guesses= for an array of queries.")
    if not plain or engine.needs_vectors or getattr(engine, "check", "") == "empirical_bernstein":
        queries = [
            Query(values[:, j], lo, hi, None if math.isnan(g) else float(g))
            for j, g in enumerate(given)
        ]
        return batch_of(parts, queries, part)
    index = parts.blocks.parts["check" if "check" in parts.blocks.parts else part]
    chosen = values if index is None else values[index]
    batch = batch_from_sums(
        column_sums(chosen, lo, hi),
        len(chosen),
        lo,
        hi,
        given,
        binary=values.dtype == np.bool_ and lo == 0 and hi == 1,
    )
    return scaled(parts, batch, np.full(len(chosen), 1 / len(chosen)))


def scaled(parts: Parts, batch: Batch, influence: FloatArray) -> Batch:
    """The batch with the scale of queries that have these record influences times their range."""
    if parts.reference is None:
        return batch
    return replace(batch, scale=batch.span * relative(influence, parts.reference))


def _cell_batch(parts: Parts, queries: Sequence[Query]) -> Batch:
    """Queries as vectors over the cells of the universe."""
    from causalfair.adaptive._weights import Conjunction, decode_cells

    codes = None
    columns = []
    lo = np.array([query.lo for query in queries], dtype=float)
    hi = np.array([query.hi for query in queries], dtype=float)
    n, q = parts.n_records, len(queries)
    facts: dict[str, Any] = {
        "lo": lo,
        "hi": hi,
        "influence": (hi - lo) / n,
        "squares": (hi - lo) ** 2 / n,
        "pad": np.full(q, 1e-12),
        "count": n,
        "guess": _build.null_guesses(q),
        "kind": "cells",
    }
    if set(parts.cells) == {2} and all(
        isinstance(query.source, Conjunction) and query.lo == 0 and query.hi == 1
        for query in queries
    ):
        lazy = tuple(query.source for query in queries)
        share = np.array([query.mean(np.asarray(parts.histogram)) for query in lazy])
        return Batch(value=share, lazy=lazy, **facts)
    for query in queries:
        f = query.source
        if callable(f):
            codes = decode_cells(parts.cells) if codes is None else codes
            f = f(codes)  # the universe is public: errors may speak
        f = np.asarray(f)
        if f.shape != (parts.n_answers,) or f.dtype.kind not in "biuf":
            raise DataError(
                f"A query must give one number for each of the {parts.n_answers} "
                f"cells. Got shape {f.shape} of dtype {f.dtype}."
            )
        share = (f.astype(float) - query.lo) / (query.hi - query.lo)
        columns.append(np.clip(np.where(np.isfinite(share), share, 0.0), 0.0, 1.0))
    vectors = np.column_stack(columns)
    share = np.asarray(parts.histogram) @ vectors
    return Batch(value=lo + (hi - lo) * share, vectors=vectors, **facts)


def _estimator_batch(parts: Parts, queries: Sequence[Query]) -> Batch:
    """Estimates on every group of records; an estimator that fails there counts as lo."""
    names = [name for name in parts.blocks.parts if name.startswith("block:")]
    estimates = np.empty((len(names), len(queries)))
    for i, name in enumerate(names):
        rows = parts.blocks.rows(name)
        for j, query in enumerate(queries):
            estimates[i, j] = _estimate(query, rows, parts.decoy)
    return stable_batch(
        estimates,
        np.array([q.lo for q in queries], dtype=float),
        np.array([q.hi for q in queries], dtype=float),
    )


def _estimate(query: Query, rows: Rows, decoy: Callable[[Rows], Rows]) -> float:
    def number(r: Rows) -> float:
        return float(query.source(r.X) if r.y is None else query.source(r.X, r.y))

    if not callable(query.source):
        raise DataError(
            "mechanism='stable_quantile' asks for an estimator: a function of (X, y) "
            "that returns one number."
        )
    estimate = guarded(number, rows, decoy)
    return math.nan if estimate is None else float(estimate)


def model_metric(
    parts: Parts, model: Any, name: str, kind: Metric, options: dict[str, Any]
) -> tuple[ModelMetric, float, float]:
    """A metric as a query, with its range; groups and labels are public."""
    known = ("hi", "positive", "sensitive_features", "levels")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ParameterError(
            f"score does not take {', '.join(unknown)}; it takes {', '.join(known)}."
        )
    if parts.blocks.sealed.y is None:
        raise DataError("score needs outcomes: create the holdout with y.")
    limit = options.get("hi")
    unbounded = name in ("log_loss", "squared_error", "absolute_error")
    if unbounded and (limit is None or not 0 < limit < math.inf):
        raise ParameterError(
            f"metric={name!r} is unbounded: declare lo, hi; e.g. clip log-loss at "
            "5 with hi=5. The clipped value is then what is estimated."
        )
    positive = options.get("positive", parts.classes[-1] if parts.classes else 1)
    group, levels = None, None
    if kind.needs_groups:
        group, levels = compared_groups(
            parts.blocks.sealed.X, name, options.get("sensitive_features"), options.get("levels")
        )
    source = ModelMetric(model, name, positive, limit, group, levels)
    lo = -1.0 if kind.needs_groups else 0.0
    return source, lo, float(limit) if unbounded else 1.0  # type: ignore[arg-type]
