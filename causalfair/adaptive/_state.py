"""What mechanisms read and write: the state of the budget, a batch of queries, their release."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class State:
    """Everything a mechanism remembers between queries (one row of the ledger).

    Attributes
    ----------
    k_used, rounds_used : int
        Queries and rounds answered so far.
    mu2_used : float
        Sum of squared Gaussian signal-to-noise ratios of one record.
    eps0_count : int
        Pure private releases so far.
    log_desc : float
        Log number of transcripts that the discrete parts could have produced.
    budget_left : int or None
        Thresholdout and SparseValidate: failures that can still be afforded.
    gamma_index : int
        Index of the threshold noise in force.
    failures : int
        Failed guesses, or updates.
    best : float or None
        Ladder: the value on the board.
    halted : str
        Reason why no further query is answered; empty while alive.
    """

    k_used: int = 0
    rounds_used: int = 0
    mu2_used: float = 0.0
    eps0_count: int = 0
    log_desc: float = 0.0
    budget_left: int | None = None
    gamma_index: int = 0
    failures: int = 0
    best: float | None = None
    halted: str = ""

    def after(self, queries: int, **changes: Any) -> State:
        """State after one more round of so many queries, with what else has changed."""
        return replace(
            self, k_used=self.k_used + queries, rounds_used=self.rounds_used + 1, **changes
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping for the ledger."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Batch:
    """Empirical facts about q queries on the rows a mechanism asked for; arrays have length q.

    Attributes
    ----------
    value, lo, hi : (q,)
        Empirical value and declared range.
    influence : (q,)
        Largest change of the value when one record is replaced.
    scale : (q,) or None
        Largest ratio of a record's influence to its influence on the statistic that the ledger was
        made for; ``None`` where that is a plain mean of equal records.
    squares : (q,)
        Sum over records of squared influences.
    pad : (q,)
        What rounding record values to the integer grid can move the value.
    count : int or None
        Number of independent records when every value is a plain mean, else ``None``.
    binary : bool
        Values are declared 0/1 (boolean dtype).
    variance : (q,) or None
        Unbiased variance of the record values, for empirical Bernstein checks.
    guess : (q,)
        Guesses; NaN where there is none.
    guessed : (q,) bool or None
        Where the guess comes from holdout rows set aside for it, and so needs noise.
    loss_sign : int
        1 when lower is better, -1 when higher is better.
    kind : str
        Name of the statistic.
    vectors : (n, q) or None
        Record values (values on the cells of a universe), only for mechanisms that need them.
    lazy : tuple or None
        Queries with ``mean(weights)`` and ``vector(n_cells)``, in place of `vectors`.
    """

    value: FloatArray
    lo: FloatArray
    hi: FloatArray
    influence: FloatArray
    squares: FloatArray
    pad: FloatArray
    guess: FloatArray
    count: int | None = None
    binary: bool = False
    variance: FloatArray | None = None
    loss_sign: int = 1
    kind: str = "mean"
    vectors: FloatArray | None = None
    lazy: tuple[Any, ...] | None = None
    guessed: BoolArray | None = None
    scale: FloatArray | None = None

    @property
    def span(self) -> FloatArray:
        """Declared range of each query."""
        return self.hi - self.lo

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True, slots=True)
class Release:
    """What leaves the holdout: values with intervals, and the price."""

    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    radius: FloatArray
    status: tuple[str, ...]
    cost: dict[str, Any] = field(default_factory=dict)
    vault: FloatArray | None = None  # new secret array state, stored with the ledger


def symmetric(
    value: FloatArray,
    radius: FloatArray,
    batch: Batch,
    status: tuple[str, ...],
    cost: dict[str, Any] | None = None,
    vault: FloatArray | None = None,
) -> Release:
    """Clip values to their range and put the interval around them."""
    clipped = np.clip(value, batch.lo, batch.hi)
    return Release(
        clipped,
        np.maximum(clipped - radius, batch.lo),
        np.minimum(clipped + radius, batch.hi),
        radius,
        status,
        cost or {},
        vault,
    )


def nothing(batch: Batch, status: str) -> Release:
    """A refusal: no value, the whole range as interval."""
    q = len(batch)
    return Release(
        np.full(q, math.nan), batch.lo.copy(), batch.hi.copy(), np.full(q, math.inf), (status,) * q
    )
