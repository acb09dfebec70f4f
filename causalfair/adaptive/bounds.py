"""Calculators: radius, affordable queries and sample size for adaptively chosen questions.

All radii are simultaneous: with probability at least ``1 - beta`` every one of the k answers is
within the radius of its population value, however the questions were chosen from earlier answers.
Where a method promises less (a leaderboard's best entry) the ``guarantee`` column says so.

References
----------
.. [1] Dwork, Feldman, Hardt, Pitassi, Reingold and Roth (2015), Preserving statistical validity in
   adaptive data analysis, STOC. doi:10.1145/2746539.2746580
.. [2] Jung, Ligett, Neel, Roth, Sharifi-Malvajerdi and Shenfeld (2020), A new analysis of
   differential privacy's generalization guarantees, ITCS. arXiv:1909.03577
.. [3] Rogers, Roth, Smith, Srebro, Thakkar and Woodworth (2020), Guaranteed validity for empirical
   approaches to adaptive data analysis, AISTATS. arXiv:1906.09231
.. [4] Blum and Hardt (2015), The ladder: a reliable leaderboard, ICML. arXiv:1502.04585
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from causalfair.adaptive import _description as description
from causalfair.adaptive._methods import (
    ANY_QUERY,
    METHODS,
    Method,
    Situation,
    candidates,
    situation_of,
)
from causalfair.adaptive._search import largest_within, smallest_within
from causalfair.adaptive._tables import fixed, frame_of, text_of
from causalfair.adaptive._theorem import epoch_of
from causalfair.exceptions import ParameterError, VacuousGuaranteeError

__all__ = [
    "Comparison",
    "Recommendation",
    "WidthResult",
    "anytime",
    "compare",
    "max_queries",
    "recommend",
    "sample_size",
    "width",
]

_MOST_QUERIES = 10**12
_MOST_RECORDS = 10**13


def _check(n: int, k: int, beta: float) -> None:
    if isinstance(n, bool) or int(n) != n or n < 2:
        raise ParameterError(f"n must be an integer of at least 2 records. Got {n!r} instead.")
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise ParameterError(f"k must be an integer of at least 1 query. Got {k!r} instead.")
    _check_beta(beta)


def _check_beta(beta: float) -> None:
    if not 0 < beta < 1:
        raise ParameterError(f"beta must lie strictly between 0 and 1. Got {beta!r} instead.")


@dataclass(frozen=True, slots=True)
class WidthResult:
    """Radius of the tightest certified method, and which one it was.

    Attributes
    ----------
    radius : float
        Half-width that holds for all k answers at once, in units of the queries.
    method : str
        The method it belongs to.
    sigma : float or None
        Noise scale (or step, or threshold) that reaches it; ``None`` where there is none.
    guarantee : str
        ``"simultaneous"`` or ``"leaderboard"``.
    certified : bool
        Always true here: methods without a proof are not offered.
    vacuous : bool
        True when the radius is at least half the range, so that it says nothing.
    table : mapping
        Radius of every method that was considered.
    """

    radius: float
    method: str
    sigma: float | None
    guarantee: str
    n: int
    k: int
    beta: float
    value_range: float = 1.0
    certified: bool = True
    table: dict[str, float] = field(default_factory=dict)

    @property
    def vacuous(self) -> bool:
        """Whether the radius covers half the range or more."""
        return not self.radius < 0.5 * self.value_range


def width(
    n: int,
    k: int,
    beta: float = 0.05,
    method: str = "auto",
    *,
    value_range: float = 1.0,
    **situation: Any,
) -> WidthResult:
    """Radius within which k adaptively chosen answers hold simultaneously.

    Parameters
    ----------
    n : int
        Records in the holdout.
    k : int
        Number of queries.
    beta : float, default 0.05
        Allowed probability that any answer misses.
    method : str, default "auto"
        ``"auto"`` takes the smallest radius among the certified methods that apply to arbitrary
        adaptive queries (and to a finite `universe` where one is given); or a method's name.
    value_range : float, default 1.0
        ``hi - lo`` of the queries.
    **situation
        What else is known: ``rounds``, ``sizes`` (candidates per round), ``binary`` (0/1 values),
        ``universe`` (number of cells), ``budget`` (B), ``failures`` (failed guesses so far),
        ``sigma``, ``threshold``, ``eta``, ``n_train``.

    Returns
    -------
    WidthResult
        Radius, method and the comparison. A radius of half the range or more is flagged
        ``vacuous``.

    Raises
    ------
    ParameterError
        For n < 2, k < 1, beta outside (0, 1), or an unknown method or option.

    References
    ----------
    .. [1] Dwork et al. (2015), STOC. doi:10.1145/2746539.2746580

    Examples
    --------
    >>> from causalfair.adaptive import bounds
    >>> result = bounds.width(10_000, 100)
    >>> result.method, round(result.radius, 6), round(result.sigma, 5)
    ('gaussian', 0.100221, 0.01368)
    """
    _check(n, k, beta)
    if not (value_range > 0 and math.isfinite(value_range)):
        raise ParameterError(f"value_range must be above 0. Got {value_range!r} instead.")
    known = situation_of(situation)
    found = {
        name: METHODS[name].radius(int(n), int(k), beta, known)
        for name in candidates(method, known)
    }
    best = min(found, key=lambda name: found[name][0])
    radius, tuning = found[best]
    scaled = None if tuning is None else tuning * value_range
    return WidthResult(
        radius * value_range,
        best,
        scaled,
        METHODS[best].guarantee,
        int(n),
        int(k),
        beta,
        value_range,
        table={name: r * value_range for name, (r, _) in found.items()},
    )


def anytime(n: int, query: int, *, sigma: float, first: int = 100, beta: float = 0.05) -> float:
    """Radius of one of arbitrarily many Gaussian answers, valid whenever the analyst stops.

    The noise level is fixed and the number of queries is not: radii hold for all queries of an
    epoch, epochs double, and their error levels sum to `beta`.

    Parameters
    ----------
    n : int
        Records in the holdout.
    query : int
        Position of the query, from 1.
    sigma : float
        Noise level, the same for all queries.
    first : int, default 100
        Queries of the first epoch.
    beta : float, default 0.05
        Allowed probability that any answer ever misses.

    Returns
    -------
    float
        Radius on queries with range one; infinite once the noise is too small for so many.

    Examples
    --------
    >>> from causalfair.adaptive import bounds
    >>> [round(bounds.anytime(10_000, j, sigma=0.02), 3) for j in (1, 100, 101, 1_000)]
    [0.113, 0.113, 0.146, 0.314]
    """
    _check(n, query, beta)
    _check(n, first, beta)
    size, level = epoch_of(int(query), int(first), beta)
    return width(n, size, level, "gaussian", sigma=sigma).radius


def max_queries(
    n: int, width: float, beta: float = 0.05, method: str = "auto", **situation: Any
) -> int:
    """Largest number of queries whose answers all hold within `width`.

    Parameters
    ----------
    n : int
        Records in the holdout.
    width : float
        Radius wanted, on queries with range one.
    beta : float, default 0.05
        Allowed probability that any answer misses.
    method : str, default "auto"
        As in :func:`width`.
    **situation
        As in :func:`width`.

    Returns
    -------
    int
        Number of queries.

    Raises
    ------
    VacuousGuaranteeError
        Not even one query can be answered this precisely; the message gives the n needed.

    Examples
    --------
    >>> from causalfair.adaptive import bounds
    >>> bounds.max_queries(10_000, 0.1)
    99
    """
    _check(n, 1, beta)
    _check_width(width)
    known = situation_of(situation)
    most = 0
    for name in candidates(method, known):
        radius = _over_k(METHODS[name], n, beta, known)
        if radius(most + 1) <= width:  # this method affords more than those before
            most = largest_within(radius, width, cap=_MOST_QUERIES)
    if most == 0:
        needed = sample_size(1, width, beta, method, **situation)
        raise VacuousGuaranteeError(
            f"n={n} cannot answer a single query within {width:g} at beta={beta:g}; "
            f"{needed} records are needed, or a larger width."
        )
    return most


def sample_size(
    k: int, width: float, beta: float = 0.05, method: str = "auto", **situation: Any
) -> int:
    """Smallest holdout that answers k queries within `width`.

    Parameters
    ----------
    k : int
        Number of queries.
    width : float
        Radius wanted, on queries with range one.
    beta : float, default 0.05
        Allowed probability that any answer misses.
    method : str, default "auto"
        As in :func:`width`.
    **situation
        As in :func:`width`.

    Returns
    -------
    int
        Number of records.

    Raises
    ------
    VacuousGuaranteeError
        No sample size reaches the width (for example with a fixed `sigma` that is too large).

    Examples
    --------
    >>> from causalfair.adaptive import bounds
    >>> bounds.sample_size(100, 0.1)
    10044
    """
    _check(2, k, beta)
    _check_width(width)
    known = situation_of(situation)
    fewest = 0
    for name in candidates(method, known):
        radius = _over_n(METHODS[name], k, beta, known)
        if not fewest or radius(fewest - 1) <= width:  # it may need fewer than those before
            fewest = smallest_within(radius, width, cap=fewest - 1 if fewest else _MOST_RECORDS)
    if not fewest:
        raise VacuousGuaranteeError(
            f"No holdout answers {k} queries within {width:g} under method={method!r} and the "
            "options given; enlarge the width or drop the fixed noise level."
        )
    return fewest


def _over_k(method: Method, n: int, beta: float, known: Situation) -> Callable[[int], float]:
    return lambda k: method.radius(n, k, beta, known)[0]


def _over_n(method: Method, k: int, beta: float, known: Situation) -> Callable[[int], float]:
    return lambda n: method.radius(n, k, beta, known)[0]


def _check_width(width: float) -> None:
    if not (0 < width < math.inf):
        raise ParameterError(f"width must be above 0. Got {width!r} instead.")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Radius of every method at one (n, k, beta); prints as a table.

    Attributes
    ----------
    rows : tuple of (method, radius, guarantee, certified, condition)
        One row a method, certified ones first, in the order of their radius.
    """

    n: int
    k: int
    beta: float
    rows: tuple[tuple[str, float, str, bool, str], ...]

    def to_frame(self, native: str | None = None) -> Any:
        """Tidy table with columns method, radius, guarantee, certified, condition."""
        return frame_of(
            ("method", "radius", "guarantee", "certified", "condition"), self.rows, native
        )

    def __str__(self) -> str:
        return text_of(*self._parts())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return text_of(*self._parts(), html=True)

    def _parts(self) -> tuple[str, tuple[str, ...], list[list[str]]]:
        body = [
            [
                name,
                fixed(radius) if radius < 0.5 else "vacuous",
                guarantee,
                "yes" if certified else "no",
                condition,
            ]
            for name, radius, guarantee, certified, condition in self.rows
        ]
        title = f"Radius for n = {self.n:,}, k = {self.k:,}, beta = {self.beta:g} (range one)"
        return title, ("method", "radius", "guarantee", "certified", "applies when"), body


def compare(
    n: int, k: int, beta: float = 0.05, *, published: bool = True, **situation: Any
) -> Comparison:
    """Radius of every method, the bounds printed in the literature included.

    Parameters
    ----------
    n : int
        Records in the holdout.
    k : int
        Number of queries.
    beta : float, default 0.05
        Allowed probability that any answer misses.
    published : bool, default True
        Add the published bounds for Gaussian (one: Laplace) noise, optimised over their free
        parameters. They are comparisons and never used to certify an answer.
    **situation
        As in :func:`width`.

    Returns
    -------
    Comparison
        Rows in increasing order of radius; ``to_frame()`` gives a table.

    Examples
    --------
    >>> from causalfair.adaptive import bounds
    >>> frame = bounds.compare(10_000, 1_000, published=False).to_frame()
    >>> frame.query("method == 'gaussian'")["radius"].round(4).item()
    0.1938
    """
    from causalfair.adaptive._published import published_radii

    _check(n, k, beta)
    known = situation_of(situation)
    rows = [
        (
            name,
            method.radius(int(n), int(k), beta, known)[0],
            method.guarantee,
            True,
            method.condition,
        )
        for name, method in METHODS.items()
    ]
    rows = [row for row in rows if math.isfinite(row[1])]
    if "failures" not in situation and n >= 4:
        ten = description.guess_and_check_tau(n // 2, k - 1, beta, failures=min(10, k - 1))
        rows.append(
            ("guess_and_check (f=10)", ten, "simultaneous", True, "a guess for every answer")
        )
    rows.sort(key=lambda row: row[1])
    if published:
        extra = [
            (name, radius, "simultaneous", False, "published bound")
            for name, radius in published_radii(int(n), int(k), beta)
        ]
        rows += sorted(extra, key=lambda row: row[1])
    return Comparison(int(n), int(k), beta, tuple(rows))


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A mechanism, its radius and the reason it was chosen."""

    mechanism: str
    radius: float
    guarantee: str
    reason: str
    table: dict[str, float]

    def __str__(self) -> str:
        return f"{self.mechanism}: radius {fixed(self.radius)} ({self.guarantee}); {self.reason}."


def recommend(
    n: int,
    k: int,
    beta: float = 0.05,
    *,
    nonadaptive: bool = False,
    rounds: int | None = None,
    sizes: Sequence[int] | None = None,
    guess: bool = False,
    pass_fail: bool = False,
    best_only: bool = False,
    winner_only: bool = False,
    universe: int | None = None,
    binary: bool = False,
    budget: int = 10,
    failures: int = 0,
) -> Recommendation:
    """Tightest certified mechanism for what can be said before the first look.

    Parameters
    ----------
    n, k : int
        Records in the holdout and queries wanted.
    beta : float, default 0.05
        Allowed probability that any answer misses.
    nonadaptive : bool, default False
        All queries are written down before the first answer.
    rounds : int or None, default None
        At most this many rounds of adaptivity.
    sizes : sequence of int or None, default None
        Candidates in each round, when only winners are needed.
    guess : bool, default False
        A separate guess (training value) exists for each answer and is usually right.
    pass_fail : bool, default False
        Only a pass or fail per query is needed and few fail.
    best_only : bool, default False
        Only the best so far matters.
    winner_only : bool, default False
        Only the winner of each round is needed.
    universe : int or None, default None
        Number of cells of a finite universe.
    binary : bool, default False
        Every value is 0 or 1.
    budget : int, default 10
        Failures allowed to ``sparse_validate``.
    failures : int, default 0
        Failed guesses to plan for.

    Returns
    -------
    Recommendation
        Mechanism, radius, reason, and the radius of every candidate.

    Raises
    ------
    VacuousGuaranteeError
        Nothing certified is narrower than half the range; the message says how many queries this
        holdout affords and how many records the queries need.

    Examples
    --------
    >>> from causalfair.adaptive import bounds
    >>> print(bounds.recommend(10_000, 1_000, guess=True))
    guess_and_check: radius 0.0429 (simultaneous); a guess for every answer.
    """
    _check(n, k, beta)
    stated = {
        "nonadaptive": nonadaptive,
        "guess_and_check": guess,
        "sparse_validate": pass_fail,
        "ladder": best_only,
        "winner_only": winner_only or sizes is not None,
        "multiplicative_weights": universe is not None,
    }
    names = (*ANY_QUERY, *(name for name, said in stated.items() if said))
    known = situation_of(
        {
            "rounds": rounds,
            "sizes": sizes,
            "universe": universe,
            "binary": binary,
            "budget": budget,
            "failures": failures,
        }
    )
    table = {name: METHODS[name].radius(n, k, beta, known)[0] for name in names}
    best = min(table, key=lambda name: table[name])
    if not table[best] < 0.5:
        needed = sample_size(k, 0.25, beta, "gaussian")
        affordable = largest_within(
            lambda j: METHODS["gaussian"].radius(n, j, beta, known)[0], 0.49, cap=_MOST_QUERIES
        )
        raise VacuousGuaranteeError(
            f"No certified method answers k={k} adaptive queries on n={n} records within half "
            f"the range. Collect fresh data ({needed} records give a radius of 0.25), ask at most "
            f"{affordable} queries, or say more (guess=, rounds=, best_only=, universe=)."
        )
    return Recommendation(
        best, table[best], METHODS[best].guarantee, METHODS[best].condition, table
    )
