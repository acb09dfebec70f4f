"""Mechanisms that add noise, and the exact baseline: pure transitions (state, batch) -> release."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.adaptive import _description as description
from causalfair.adaptive import _theorem as theorem
from causalfair.adaptive._noise import KeyedNoise, release_grid, to_grid
from causalfair.adaptive._state import Batch, Release, State, symmetric
from causalfair.exceptions import BudgetExhaustedError, ParameterError, VacuousGuaranteeError


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fixed before the first query: n independent records, k queries, error level beta."""

    n: int
    k: int
    beta: float
    width: float | None = None
    n_train: int | None = None
    profile: theorem.Profile | None = None  # influences of the declared statistic, if unequal
    statistic: str = "mean"
    span: float = 1.0  # range of the declared statistic
    spent_mu2: float = 0.0
    force: bool = False

    @property
    def influences(self) -> theorem.Profile:
        """Profile of the declared statistic; a plain mean when none was declared."""
        return self.profile or theorem.mean_profile(self.n)


class Mechanism(ABC):
    """One way to answer. Subclasses hold parameters only; everything that changes is a State."""

    name: ClassVar[str]
    guarantee: ClassVar[str] = "simultaneous"
    needs_guess: ClassVar[bool] = False
    needs_vectors: ClassVar[bool] = False
    citations: ClassVar[tuple[str, ...]] = ()

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.certified = True
        self.radius = math.inf  # on range one, for a plain mean

    def start(self) -> State:
        """State before the first query."""
        return State()

    def rows(self, state: State) -> str:
        """Rows the next batch is evaluated on: ``all``, ``check`` or ``block:<t>``."""
        del state
        return "all"

    def initial_vault(self) -> FloatArray | None:
        """Secret array that goes with the state; most mechanisms need none."""
        return None

    @abstractmethod
    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Release for a batch and the state after it."""

    def parameters(self) -> dict[str, Any]:
        """Public parameters, for the report."""
        return {}

    def limit(self, state: State, batch: Batch) -> None:
        """Refuse a batch that does not fit, before anything is spent."""
        if state.halted:
            raise BudgetExhaustedError(
                f"This holdout has stopped answering ({state.halted}). Collect fresh data."
            )
        if state.k_used + len(batch) > self.plan.k:
            raise BudgetExhaustedError(
                f"The holdout was created for max_queries={self.plan.k}; {state.k_used} are used "
                f"and {len(batch)} more were asked. Nothing was spent. Ask fewer, or collect "
                "fresh data."
            )

    def require(self, condition: bool) -> None:
        """Refuse parameters whose radius would cover everything, unless forced."""
        if condition or self.plan.force:
            return
        from causalfair.adaptive import bounds

        k, n, beta = self.plan.k, self.plan.n, self.plan.beta
        target = self.plan.width or 0.25
        hint = f"choose another mechanism (bounds.recommend({n}, {k}, {beta:g}, ...))"
        if self.plan.profile is not None:
            hint = "its width follows the smallest classes, groups or effective number of records"
        elif self.name in ("gaussian", "laplace"):
            needed = bounds.sample_size(k, target, beta, self.name)
            hint = f"a radius of {target:g} for {k} queries needs n={needed}"
        wanted = f", wider than width={target:g}" if self.plan.width else ""
        raise VacuousGuaranteeError(
            f"mechanism={self.name!r} with n={n}, max_queries={k}, beta={beta:g} has radius "
            f"{self.radius:.3g}{wanted} on a range of {self.plan.span:g}: {hint}; or lower "
            "max_queries, or pass force=True to build it anyway."
        )

    def check_width(self) -> None:
        """The radius must beat half the range, and the width the user asked for."""
        wanted = self.plan.width
        self.require(
            self.radius < 0.5 * self.plan.span and (wanted is None or self.radius <= wanted)
        )


class Naive(Mechanism):
    """Exact empirical answers; valid only for queries fixed in advance."""

    name = "naive"

    def __init__(self, plan: Plan, *, nonadaptive: bool = False) -> None:
        super().__init__(plan)
        self.nonadaptive = bool(nonadaptive)
        self.certified = self.nonadaptive
        self.radius = description.nonadaptive_radius(plan.n, plan.k, plan.beta)

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Return the empirical values with their union-bound radius."""
        del noise, vault
        level = math.log(2 * self.plan.k / self.plan.beta)
        radius = np.sqrt(batch.squares * level / 2) + batch.pad
        q = len(batch)
        return symmetric(batch.value, radius, batch, ("answered",) * q), state.after(q)

    def parameters(self) -> dict[str, Any]:
        """Whether the user declared the queries fixed in advance."""
        return {"nonadaptive": self.nonadaptive}


class Gaussian(Mechanism):
    """``q(S) + sigma Z``; the noise level is chosen from (n, k, beta) alone."""

    name = "gaussian"
    citations: ClassVar[tuple[str, ...]] = (
        "dwork2015preserving",
        "dong2022gaussian",
        "jung2020new",
    )

    def __init__(self, plan: Plan, *, sigma: float | str = "optimal") -> None:
        super().__init__(plan)
        profile = plan.influences
        if sigma == "optimal":
            width = theorem.gaussian_optimal(profile, plan.k, plan.beta, plan.spent_mu2)
        else:
            positive(sigma, "sigma")
            width = theorem.gaussian_width(profile, plan.k, plan.beta, float(sigma), plan.spent_mu2)
        self.sigma, self.width = width.scale, width
        self.radius = width.radius
        self.check_width()

    def scales(self, batch: Batch) -> FloatArray:
        """Factor per query between a mean of range one and the query asked."""
        if batch.scale is None:
            return batch.influence / min(c for c, _ in self.plan.influences)
        if not np.isfinite(batch.scale).all():
            raise ParameterError(
                f"This holdout was created for statistic={self.plan.statistic!r} and cannot "
                f"answer {batch.kind!r}, which depends on other records; create it with "
                "statistic='mean' to mix statistics."
            )
        return batch.scale

    def draw(self, noise: KeyedNoise, start: int, count: int) -> FloatArray:
        """Standard noise of the answers."""
        return noise.normal("answer", start, count)

    def spend(self, state: State, q: int) -> State:
        """Budget after q answers."""
        largest = max(c for c, _ in self.plan.influences)
        return state.after(q, mu2_used=state.mu2_used + q * (largest / self.sigma) ** 2)

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Add noise, round to the release grid, widen the radius by what rounding can do."""
        del vault
        scale = self.scales(batch)
        grid = release_grid(scale * self.sigma)
        z = self.draw(noise, state.k_used, len(batch))
        value = to_grid(batch.value + scale * self.sigma * z, grid)
        radius = scale * self.radius + grid / 2 + batch.pad
        after = self.spend(state, len(batch))
        return symmetric(value, radius, batch, ("answered",) * len(batch)), after

    def parameters(self) -> dict[str, Any]:
        """Noise level and the two parts of the radius."""
        return {
            "sigma": self.sigma,
            "noise_part": self.width.noise,
            "gap_part": self.width.gap,
            "statistic": self.plan.statistic,
        }


class Laplace(Gaussian):
    """Laplace noise: pure privacy, at a radius 1.5 to 1.7 times larger."""

    name = "laplace"
    citations = ("dwork2015preserving", "kairouz2015composition")

    def __init__(self, plan: Plan, *, sigma: float | str = "optimal") -> None:
        if plan.profile is not None:
            raise ParameterError("mechanism='laplace' answers statistic='mean' only.")
        Mechanism.__init__(self, plan)
        if sigma == "optimal":
            width = theorem.laplace_optimal(plan.n, plan.k, plan.beta)
        else:
            positive(sigma, "sigma")
            width = theorem.laplace_width(plan.n, plan.k, plan.beta, float(sigma))
        self.sigma, self.width, self.radius = width.scale, width, width.radius
        self.check_width()

    def draw(self, noise: KeyedNoise, start: int, count: int) -> FloatArray:
        """Laplace noise of scale one."""
        return noise.laplace("answer", start, count)

    def spend(self, state: State, q: int) -> State:
        """Each answer is one pure private release."""
        return state.after(q, eps0_count=state.eps0_count + q)


def positive(value: Any, name: str) -> None:
    """Check a scale or a probability-like number above 0."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not value > 0
        or (not math.isfinite(value))
    ):
        raise ParameterError(f"{name} must be a finite number above 0. Got {value!r} instead.")


def at_least_one(value: Any, name: str) -> int:
    """Check a count."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ParameterError(f"{name} must be an integer of at least 1. Got {value!r} instead.")
    return int(value)
