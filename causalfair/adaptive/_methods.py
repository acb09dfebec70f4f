"""The methods the calculators choose among, and what the user can say about a situation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from causalfair.adaptive import _description as description
from causalfair.adaptive import _theorem as theorem
from causalfair.exceptions import ParameterError

_NOT_APPLICABLE = (math.inf, None)


@dataclass(frozen=True, slots=True)
class Situation:
    """What the user can say about the questions before the first one is asked."""

    rounds: int | None = None
    sizes: tuple[int, ...] | None = None
    binary: bool = False
    universe: int | None = None
    budget: int = 10
    failures: int = 0
    sigma: float | None = None
    threshold: float | None = None
    eta: float | None = None
    n_train: int | None = None


Radius = tuple[float, float | None]  # radius on range one, and the tuning value it uses


def _gaussian(n: int, k: int, beta: float, s: Situation) -> Radius:
    profile = theorem.mean_profile(n)
    found = (
        theorem.gaussian_optimal(profile, k, beta)
        if s.sigma is None
        else theorem.gaussian_width(profile, k, beta, s.sigma)
    )
    return found.radius, found.scale


def _laplace(n: int, k: int, beta: float, s: Situation) -> Radius:
    found = (
        theorem.laplace_optimal(n, k, beta)
        if s.sigma is None
        else theorem.laplace_width(n, k, beta, s.sigma)
    )
    return found.radius, found.scale


def _thresholdout(n: int, k: int, beta: float, s: Situation) -> Radius:
    threshold = s.threshold
    if threshold is None:
        threshold = theorem.default_threshold(n, s.n_train)
    found = (
        theorem.thresholdout_optimal(n, k, beta, threshold, s.budget)
        if s.sigma is None
        else theorem.thresholdout_width(n, k, beta, threshold, s.sigma, s.budget)
    )
    return found.radius, found.scale


def _split(n: int, k: int, beta: float, s: Situation) -> Radius:
    rounds = min(k, s.rounds or k)
    if s.binary:
        return description.clopper_pearson_radius(n // rounds, beta / k), None
    return description.split_radius(n, k, beta, rounds), None


def _winner(n: int, k: int, beta: float, s: Situation) -> Radius:
    if s.sizes is None and s.rounds is None:
        return _NOT_APPLICABLE
    sizes = s.sizes or _even_sizes(k, s.rounds or 1)
    return description.winner_only_radius(n, sizes, beta), None


def _even_sizes(k: int, rounds: int) -> tuple[int, ...]:
    each, extra = divmod(k, rounds)
    return tuple([each + 1] * extra + [each] * (rounds - extra if each else 0))


def _guess(n: int, k: int, beta: float, s: Situation) -> Radius:
    n_check = n // 2
    if n_check < 2:
        return _NOT_APPLICABLE
    failures = min(s.failures, k - 1)
    return description.guess_and_check_tau(n_check, k - 1, beta, failures=failures), None


def _weights(n: int, k: int, beta: float, s: Situation) -> Radius:
    if s.universe is None:
        return _NOT_APPLICABLE
    return description.weights_optimal(n, k, beta, s.universe)


def _ladder(n: int, k: int, beta: float, s: Situation) -> Radius:
    if s.eta is not None:
        return description.ladder_radius(n, k, beta, s.eta), s.eta
    return description.ladder_optimal(n, k, beta)


@dataclass(frozen=True, slots=True)
class Method:
    radius: Callable[[int, int, float, Situation], Radius]
    guarantee: str  # "simultaneous", "leaderboard"
    condition: str


METHODS: dict[str, Method] = {
    "nonadaptive": Method(
        lambda n, k, b, _s: (description.nonadaptive_radius(n, k, b), None),
        "simultaneous",
        "queries fixed in advance",
    ),
    "split_rounds": Method(_split, "simultaneous", "fresh records each round"),
    "gaussian": Method(_gaussian, "simultaneous", "any queries"),
    "laplace": Method(_laplace, "simultaneous", "any queries, pure"),
    "thresholdout": Method(_thresholdout, "simultaneous", "guesses, at most B wrong"),
    "guess_and_check": Method(_guess, "simultaneous", "a guess for every answer"),
    "sparse_validate": Method(
        lambda n, k, b, s: (description.sparse_validate_radius(n, k, s.budget, b), None),
        "simultaneous",
        "few fail (plus tau)",
    ),
    "winner_only": Method(_winner, "simultaneous", "only winners revealed"),
    "multiplicative_weights": Method(_weights, "simultaneous", "finite universe of cells"),
    "ladder": Method(_ladder, "leaderboard", "only the best so far"),
}
ANY_QUERY = ("gaussian", "laplace", "split_rounds")


def situation_of(options: dict[str, Any]) -> Situation:
    known = Situation.__dataclass_fields__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ParameterError(
            f"Unknown option(s) {', '.join(unknown)}; the calculators take {', '.join(known)}."
        )
    if options.get("sizes") is not None:
        options["sizes"] = tuple(int(size) for size in options["sizes"])
        if not options["sizes"] or min(options["sizes"]) < 1:
            raise ParameterError(f"sizes must be positive integers. Got {options['sizes']!r}.")
    for name, low in (("rounds", 1), ("budget", 1), ("universe", 2), ("failures", 0)):
        value = options.get(name)
        if value is not None and value < low:
            raise ParameterError(f"{name} must be at least {low}. Got {value!r} instead.")
    for name in ("sigma", "eta"):
        value = options.get(name)
        if value is not None and not value > 0:
            raise ParameterError(f"{name} must be above 0. Got {value!r} instead.")
    if options.get("eta") is not None and not options["eta"] < 1:
        raise ParameterError(f"eta must be below 1. Got {options['eta']!r} instead.")
    if options.get("threshold") is not None and options["threshold"] < 0:
        raise ParameterError(f"threshold must be at least 0. Got {options['threshold']!r}.")
    return Situation(**options)


def candidates(method: str, situation: Situation) -> tuple[str, ...]:
    if method == "auto":
        extra = ("multiplicative_weights",) if situation.universe else ()
        return (*ANY_QUERY, *extra)
    if method not in METHODS:
        raise ParameterError(
            f"method must be 'auto' or one of {', '.join(METHODS)}. Got {method!r} instead."
        )
    return (method,)
