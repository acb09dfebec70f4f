"""What a question returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, overload

from causalfair.adaptive._tables import fixed, frame_of, text_of
from causalfair.exceptions import ParameterError


@dataclass(frozen=True, slots=True)
class Answer:
    """One released value with its simultaneous interval.

    Attributes
    ----------
    value : float
        Released value; NaN where the mechanism reveals none.
    lower, upper : float
        Interval for the population value, cut to the declared range.
    radius : float
        Half-width before cutting.
    method : str
        Mechanism that answered.
    certified : bool
        Whether the interval is proved to hold for all answers at once.
    query_index : int
        Position among all queries of the ledger, from 1.
    spent, remaining : int
        Queries used after this one, and queries left.
    status : str
        What happened: ``answered``, ``guess``, ``holdout``, ``training``, ``pass``, ``fail``,
        ``improved``, ``kept``, ``winner``, ``not chosen``, ``public``, ``updated``, ``quantile``,
        ``refused``.
    query_id : str
        Name under which the answer is stored; asking again under it is free.
    """

    value: float
    lower: float
    upper: float
    radius: float
    method: str
    certified: bool
    query_index: int
    spent: int
    remaining: int
    status: str = "answered"
    query_id: str = ""

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        shown = "no value" if math.isnan(self.value) else fixed(self.value)
        proof = "certified" if self.certified else "not certified"
        return (
            f"{shown} in [{fixed(self.lower)}, {fixed(self.upper)}]  ({self.method}: "
            f"{self.status}, {proof}; {self.remaining} left)"
        )

    __repr__ = __str__

    def ratio(self, other: Answer) -> Answer:
        """Ratio of two answers of one ledger, such as precision or recall, at no further cost.

        The interval is ``[(a - w)/(b + v), (a + w)/(b - v)]`` and holds whenever both intervals
        do; it has no upper end where the denominator's interval reaches zero.

        Parameters
        ----------
        other : Answer
            The denominator, a quantity that is not negative.

        Returns
        -------
        Answer
            Value and interval of the ratio; the radius is half the length of the interval.
        """
        if self.lower < 0 or other.lower < 0 or other.upper <= 0:
            raise ParameterError(
                "ratio needs a numerator and a denominator that are not negative. Got intervals "
                f"[{self.lower:.4g}, {self.upper:.4g}] and [{other.lower:.4g}, {other.upper:.4g}]."
            )
        upper = self.upper / other.lower if other.lower > 0 else math.inf
        lower = self.lower / other.upper
        return replace(
            self,
            value=self.value / other.value if other.value > 0 else math.nan,
            lower=lower,
            upper=upper,
            radius=(upper - lower) / 2,
            certified=self.certified and other.certified,
            status="ratio",
            query_id=f"{self.query_id} / {other.query_id}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping."""
        return asdict(self)


_COLUMNS = ("query_id", "value", "lower", "upper", "radius", "status", "certified", "query_index")


class Answers(Sequence[Answer]):
    """Answers of a batch, in order; prints as a table.

    Parameters
    ----------
    answers : sequence of Answer
        The answers.
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = tuple(answers)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Answer]: ...
    def __getitem__(self, index: int | slice) -> Answer | Sequence[Answer]:
        return self._answers[index]

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._answers)

    @property
    def winner(self) -> int | None:
        """Index of the chosen candidate where the mechanism chooses one."""
        for index, answer in enumerate(self._answers):
            if answer.status == "winner":
                return index
        return None

    def to_frame(self, native: str | None = None) -> Any:
        """Table with one row an answer.

        Parameters
        ----------
        native : str, optional
            Frame library; pandas by default.

        Returns
        -------
        DataFrame
            Columns query_id, value, lower, upper, radius, status, certified, query_index.
        """
        rows = [[getattr(answer, name) for name in _COLUMNS] for answer in self._answers]
        return frame_of(_COLUMNS, rows, native)

    def __str__(self) -> str:
        return text_of(*self._parts())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return text_of(*self._parts(), html=True)

    def _parts(self) -> tuple[str, tuple[str, ...], list[list[str]]]:
        body = [
            [
                a.query_id,
                "" if math.isnan(a.value) else fixed(a.value),
                fixed(a.lower),
                fixed(a.upper),
                a.status,
            ]
            for a in self._answers[:50]
        ]
        more = "" if len(self) <= 50 else f" (first 50 of {len(self)})"
        return f"Answers{more}", ("query", "value", "lower", "upper", "status"), body
