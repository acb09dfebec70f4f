"""Splitting and checking: mechanisms without noise, as pure transitions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.adaptive import _description as description
from causalfair.adaptive._mechanisms import Mechanism, Plan, at_least_one, positive
from causalfair.adaptive._noise import KeyedNoise
from causalfair.adaptive._state import Batch, Release, State, nothing, symmetric
from causalfair.exceptions import BudgetExhaustedError, ParameterError

CHECKS = ("kl", "clopper_pearson", "empirical_bernstein", "hoeffding")


class SplitRounds(Mechanism):
    """One fresh block of records for each round; queries of a round share its block."""

    name = "split_rounds"
    citations = ("dwork2015preserving",)

    def __init__(self, plan: Plan, *, rounds: int | None = None) -> None:
        super().__init__(plan)
        self.rounds = plan.k if rounds is None else at_least_one(rounds, "rounds")
        self.radius = description.split_radius(plan.n, plan.k, plan.beta, self.rounds)
        self.check_width()

    def rows(self, state: State) -> str:
        """The block of this round."""
        return f"block:{state.rounds_used}"

    def limit(self, state: State, batch: Batch) -> None:
        """Refuse a further round."""
        super().limit(state, batch)
        if state.rounds_used >= self.rounds:
            raise BudgetExhaustedError(
                f"All rounds={self.rounds} are used; ask several queries in one batch "
                "(ask_many), plan more rounds, or collect fresh data."
            )

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Exact value on the block; exact binomial, KL or McDiarmid interval."""
        del noise, vault
        level = math.log(2 * self.plan.k / self.plan.beta)
        intervals = np.array([check_interval("kl", batch, j, level) for j in range(len(batch))])
        lower = np.maximum(intervals[:, 0] - batch.pad, batch.lo)
        upper = np.minimum(intervals[:, 1] + batch.pad, batch.hi)
        radius = np.maximum(upper - batch.value, batch.value - lower)
        release = Release(batch.value.copy(), lower, upper, radius, ("answered",) * len(batch))
        return release, state.after(len(batch))

    def parameters(self) -> dict[str, Any]:
        """Rounds."""
        return {"rounds": self.rounds}


def check_interval(kind: str, batch: Batch, j: int, level: float) -> tuple[float, float]:
    """Interval for query j that misses with probability ``2 exp(-level)``, in raw units.

    Plain means of 0/1 values use the exact binomial interval where it is asked for or free; KL and
    empirical Bernstein need plain means; other statistics use bounded differences.
    """
    lo, span = float(batch.lo[j]), float(batch.span[j])
    h = (float(batch.value[j]) - lo) / span
    n = batch.count
    if n is None or kind == "hoeffding":
        reach = math.sqrt(level * float(batch.squares[j]) / 2) / span
        low, high = h - reach, h + reach
    elif kind == "clopper_pearson" or (kind == "kl" and batch.binary):
        if not batch.binary:
            raise ParameterError(
                "check='clopper_pearson' needs boolean query values; return a boolean array, or "
                "create the holdout with check='kl'."
            )
        low, high = description.clopper_pearson(round(h * n), n, 2 * math.exp(-level))
    elif kind == "kl":
        low, high = description.kl_interval(h, n, level)
    else:
        variance = 0.0 if batch.variance is None else float(batch.variance[j]) / span**2
        low, high = description.empirical_bernstein(h, variance, n, level)
    return lo + span * max(low, 0.0), lo + span * min(high, 1.0)


class SparseValidate(Mechanism):
    """Tell whether the holdout is within tau of a guess; stop after `budget` failures."""

    name = "sparse_validate"
    needs_guess = True
    citations = ("dwork2015generalization",)

    def __init__(self, plan: Plan, *, budget: int = 10, tau: float | None = None) -> None:
        super().__init__(plan)
        self.budget = at_least_one(budget, "budget")
        self.slack = description.sparse_validate_radius(plan.n, plan.k, self.budget, plan.beta)
        if tau is None:
            tau = 0.03 if plan.width is None else plan.width - self.slack
        self.radius = self.slack + max(tau, 0.0)
        self.require(tau > 0 and self.radius < 0.5)
        self.tau = max(float(tau), 0.0)

    def start(self) -> State:
        """Full budget of failures."""
        return State(budget_left=self.budget)

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Pass or fail for each query until the budget is gone."""
        del noise, vault
        scale = np.sqrt(batch.squares * self.plan.n)
        failed = np.abs(batch.value - batch.guess) > self.tau * scale
        left = state.budget_left or 0
        fails = np.flatnonzero(failed)
        answered = len(batch) if len(fails) < left else int(fails[left - 1]) + 1
        release = symmetric(
            batch.guess,
            scale * self.radius + batch.pad,
            batch,
            tuple("fail" if f else "pass" for f in failed),
        )
        bad = failed | (np.arange(len(batch)) >= answered)
        release.lower[bad], release.upper[bad] = batch.lo[bad], batch.hi[bad]
        release.radius[bad] = math.inf
        status = [*release.status[:answered], *["refused"] * (len(batch) - answered)]
        release.value[answered:] = math.nan
        left -= int(failed[:answered].sum())
        return replace(release, status=tuple(status)), state.after(
            answered,
            budget_left=left,
            failures=state.failures + int(failed[:answered].sum()),
            halted="" if left else "its budget of failed checks is spent",
        )

    def parameters(self) -> dict[str, Any]:
        """Tolerance and budget."""
        return {"tau": self.tau, "slack": self.slack, "budget": self.budget}


class GuessAndCheck(Mechanism):
    """Answer with the guess when the holdout's interval lies within tau of it.

    A pass costs almost nothing; a failure reveals the holdout mean to within ``2 gamma``.
    """

    name = "guess_and_check"
    needs_guess = True
    citations = ("rogers2020guaranteed",)

    def __init__(
        self,
        plan: Plan,
        *,
        tau: float | None = None,
        check: str = "kl",
        allow_doubling: bool = True,
    ) -> None:
        super().__init__(plan)
        if check not in CHECKS:
            raise ParameterError(f"check must be one of {', '.join(CHECKS)}. Got {check!r}.")
        self.check, self.allow_doubling = check, bool(allow_doubling)
        # a default follows the influences of each statistic (public, so known before the check); a
        # width that was asked for is kept
        self.follows = tau is None and plan.width is None
        if tau is None:
            tau = self._default_tau() if plan.width is None else plan.width
        positive(tau, "tau" if plan.width is None else "width")
        self.tau = float(tau)
        self.radius = self.tau
        first = description.check_log_inverse(0, 0, 0.0, plan.beta)
        self.require(self.tau < 0.5 and self.tau > math.sqrt(first / (2 * plan.n)))

    def _default_tau(self) -> float:
        """Room for five failures at the last query and two deviations of the guess."""
        last = self.plan.k - 1
        interval = description.guess_and_check_tau(
            self.plan.n, last, self.plan.beta, failures=min(5, last)
        )
        inverse = 1 / self.plan.n + (1 / self.plan.n_train if self.plan.n_train else 0.0)
        return interval + 2 * math.sqrt(0.25 * inverse)

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Check the guesses one after another; later checks see earlier failures."""
        del noise, vault
        q = len(batch)
        release = nothing(batch, "refused")
        status = ["refused"] * q
        for j in range(q):
            if state.halted:
                break
            answer, state = self._one(state, batch, j)
            release.value[j], release.radius[j], status[j] = answer
            release.lower[j] = max(release.value[j] - release.radius[j], batch.lo[j])
            release.upper[j] = min(release.value[j] + release.radius[j], batch.hi[j])
        after = state.after(0)  # each check has counted its query
        return replace(release, status=tuple(status), cost={"failures": after.failures}), after

    def _log_inverse(self, state: State, batch: Batch) -> float:
        """Log inverse error level of this check, known before it is made.

        A pass relies on the check interval and a failure on Hoeffding's. The KL and the exact
        interval lie within Hoeffding's, so one event covers both; the empirical Bernstein interval
        does not, and the two share the error level.
        """
        level = description.check_log_inverse(
            state.k_used, state.failures, state.log_desc, self.plan.beta
        )
        shared = self.check == "empirical_bernstein" and batch.count is not None
        return level + math.log(2) if shared else level

    def _one(self, state: State, batch: Batch, j: int) -> tuple[tuple[float, float, str], State]:
        lo, hi, span = float(batch.lo[j]), float(batch.hi[j]), float(batch.span[j])
        pad = float(batch.pad[j])
        level = self._log_inverse(state, batch)
        guess = min(max(float(batch.guess[j]), lo), hi)
        tau = self.tau * (
            math.sqrt(float(batch.squares[j]) * self.plan.n) if self.follows else span
        )
        low, high = check_interval(self.check, batch, j, level)
        if guess - tau <= low and high <= guess + tau:
            return (guess, tau + pad, "guess"), replace(state, k_used=state.k_used + 1)
        reach = math.sqrt(level * float(batch.squares[j]) / 2)
        while tau <= reach and self.allow_doubling and tau < span:
            tau *= 2  # tau and level are known before the check, so widening reveals nothing
        if tau <= reach:
            return (math.nan, math.inf, "refused"), replace(
                state,
                k_used=state.k_used + 1,
                failures=state.failures + 1,
                halted="it cannot certify tau any more",
            )
        gamma = (tau - reach) / span
        cells = max(1, math.ceil(1 / (2 * gamma)))
        cell = min(int((float(batch.value[j]) - lo) / span * cells), cells - 1)
        value = lo + span * (cell + 0.5) / cells
        return (value, tau + pad, "holdout"), replace(
            state,
            k_used=state.k_used + 1,
            failures=state.failures + 1,
            log_desc=state.log_desc + math.log(cells),
        )

    def parameters(self) -> dict[str, Any]:
        """Radius promised, kind of check."""
        return {"tau": self.tau, "check": self.check, "allow_doubling": self.allow_doubling}
