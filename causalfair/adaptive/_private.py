"""Thresholdout, votes, noisy choice and stable quantiles, as pure transitions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray, IntArray
from causalfair.adaptive import _description as description
from causalfair.adaptive import _theorem as theorem
from causalfair.adaptive._mechanisms import Mechanism, Plan, positive
from causalfair.adaptive._noise import KeyedNoise, release_grid, to_grid
from causalfair.adaptive._state import Batch, Release, State, nothing, symmetric
from causalfair.adaptive.accounting import PureCompositionF, gap
from causalfair.exceptions import BudgetExhaustedError, ParameterError


class Thresholdout(Mechanism):
    """Answer with the training value unless it disagrees with the holdout by more than a noisy T.

    gamma, the noise of the threshold, is redrawn only after an exceedance; the budget is checked
    before every query, also inside a batch.
    """

    name = "thresholdout"
    needs_guess = True
    citations = ("dwork2015generalization", "dwork2015reusable")

    def __init__(
        self,
        plan: Plan,
        *,
        threshold: float | None = None,
        sigma: float | str = "optimal",
        budget: int | None = None,
        one_sided: bool = False,
        preset: str | None = None,
    ) -> None:
        super().__init__(plan)
        if preset not in (None, "science"):
            raise ParameterError(f"preset must be 'science' or None. Got {preset!r} instead.")
        self.science, self.one_sided = preset == "science", bool(one_sided)
        root = math.sqrt(plan.n)
        if threshold is not None and not threshold >= 0:
            raise ParameterError(f"threshold must be at least 0. Got {threshold!r} instead.")
        if budget is not None and budget < 1:
            raise ParameterError(f"budget must be at least 1. Got {budget!r} instead.")
        if sigma != "optimal":
            positive(sigma, "sigma")
        if self.science:
            self.threshold = 4 / root if threshold is None else float(threshold)
            self.sigma = 1 / root if sigma == "optimal" else float(sigma)
            self.budget: int | None = budget
            self.certified = False
            return
        self.threshold = (
            theorem.default_threshold(plan.n, plan.n_train)
            if threshold is None
            else float(threshold)
        )
        self.budget = max(1, min(10, plan.k)) if budget is None else int(budget)
        arguments = (plan.n, plan.k, plan.beta, self.threshold)
        width = (
            theorem.thresholdout_optimal(*arguments, self.budget)
            if sigma == "optimal"
            else theorem.thresholdout_width(*arguments, float(sigma), self.budget)
        )
        self.sigma, self.radius = width.scale, width.radius
        self.check_width()

    def start(self) -> State:
        """The first threshold noise is the one with index 0."""
        return State(budget_left=self.budget)

    def _noise(self, noise: KeyedNoise, stream: str, start: int, count: int) -> FloatArray:
        if self.science:
            return noise.normal(stream, start, count)
        factor = {"eta": 4.0, "gamma": 2.0, "xi": 1.0}[stream]
        return factor * noise.laplace(stream, start, count)

    def _gamma(self, noise: KeyedNoise, index: int) -> float:
        if self.science:  # the experiment redraws nothing but the comparison noise
            return 0.0
        return float(self._noise(noise, "gamma", index, 1)[0]) * self.sigma

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Scan for the next exceedance, release it, refresh gamma, go on."""
        del vault
        from causalfair.adaptive._thresholdout import scan

        q = len(batch)
        scale = batch.influence * self.plan.n
        excess = (
            batch.guess - batch.value
            if self.one_sided and batch.loss_sign < 0
            else batch.value - batch.guess
            if self.one_sided
            else np.abs(batch.value - batch.guess)
        ) / scale
        eta = self._noise(noise, "eta", state.k_used, q) * self.sigma
        left = q if state.budget_left is None else state.budget_left
        highest = state.gamma_index + min(left, q) + 1
        gammas = np.array([self._gamma(noise, i) for i in range(state.gamma_index, highest)])
        hits, answered = scan(excess - eta, self.threshold + gammas, left)
        value = batch.guess.copy()
        if len(hits):
            xi = self._noise(noise, "xi", state.gamma_index, len(hits)) * self.sigma * scale[hits]
            grid = release_grid(self.sigma * scale[hits])
            value[hits] = to_grid(batch.value[hits] + xi, grid)
        release = self._release(batch, value, scale, hits, answered)
        budget = None if state.budget_left is None else state.budget_left - len(hits)
        return release, state.after(
            answered,
            budget_left=budget,
            gamma_index=state.gamma_index + len(hits),
            eps0_count=state.eps0_count + 2 * len(hits),
            halted="its budget of exceedances is spent" if budget == 0 else "",
        )

    def _release(
        self, batch: Batch, value: FloatArray, scale: FloatArray, hits: IntArray, answered: int
    ) -> Release:
        radius = scale * self.radius + release_grid(self.sigma * scale) / 2 + batch.pad
        status = np.full(len(batch), "training", dtype=object)
        status[hits] = "holdout"
        status[answered:] = "refused"
        release = symmetric(
            value, radius, batch, tuple(str(s) for s in status), {"exceedances": len(hits)}
        )
        if answered < len(batch):
            void = nothing(batch, "refused")
            for field in ("value", "lower", "upper", "radius"):
                getattr(release, field)[answered:] = getattr(void, field)[answered:]
        if self.one_sided:  # pessimistic training values pass unchecked: one bound remains
            unchecked = status == "training"
            end, limit = (
                (release.upper, batch.hi) if batch.loss_sign < 0 else (release.lower, batch.lo)
            )
            end[unchecked] = limit[unchecked]
        return release

    def parameters(self) -> dict[str, Any]:
        """Threshold, noise level, budget."""
        return {
            "threshold": self.threshold,
            "sigma": self.sigma,
            "budget": self.budget,
            "one_sided": self.one_sided,
            "preset": "science" if self.science else None,
        }


class Voting(Mechanism):
    """Mean of Bernoulli votes of randomly drawn records; its bound is not verified here."""

    name = "voting"
    needs_vectors = True
    citations = ("blanc2023subsampling",)

    def __init__(self, plan: Plan, *, votes: int | None = None) -> None:
        super().__init__(plan)
        self.votes = max(1, round(plan.n / math.sqrt(plan.k))) if votes is None else int(votes)
        if self.votes < 1:
            raise ParameterError(f"votes must be at least 1. Got {votes!r} instead.")
        self.certified = False
        from causalfair.adaptive._published import mutual_information_gap

        information = 4 * plan.k * self.votes / plan.n
        gap_part = mutual_information_gap(plan.n, information, plan.beta / 2)
        self.radius = gap_part + description.hoeffding(self.votes, math.log(4 * plan.k / plan.beta))

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Draw records and votes."""
        del vault
        if batch.vectors is None or batch.count is None:
            raise ParameterError("mechanism='voting' answers plain means only.")
        n, q = batch.vectors.shape
        draws = noise.uniform("vote", 2 * state.k_used * self.votes, 2 * q * self.votes)
        pick = np.minimum((draws[: q * self.votes] * n).astype(np.intp), n - 1)
        columns = np.repeat(np.arange(q), self.votes)
        share = (batch.vectors[pick, columns] - batch.lo[columns]) / batch.span[columns]
        votes = (draws[q * self.votes :] < share).reshape(q, self.votes).mean(axis=1)
        value = batch.lo + batch.span * votes
        radius = batch.span * self.radius + batch.pad
        return symmetric(value, radius, batch, ("answered",) * q), state.after(q)

    def parameters(self) -> dict[str, Any]:
        """Votes an answer."""
        return {"votes": self.votes}


class CalibratedVariance(Mechanism):
    """Gaussian noise that follows the sample deviation of each query; not verified here.

    The published statement bounds the mean of the largest error in units of ``max(r sd, r^2)``,
    with ``r^2 = sqrt(2k) ln(2k) / n``, by four. The radius shown is that bound at the largest
    deviation that the range allows, a typical size and no interval with a probability.
    """

    name = "calibrated_variance"
    needs_vectors = True
    citations = ("feldman2018calibrating",)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.certified = False
        root = math.sqrt(2 * plan.k)
        self.t = plan.n / root
        rate = root * math.log(2 * plan.k) / plan.n
        self.radius = 4 * max(math.sqrt(rate) / 2, rate)

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Add noise of variance ``max(V/t, 1/t^2)``, V the sample variance on range one."""
        del vault
        if batch.vectors is None or batch.count is None:
            raise ParameterError("mechanism='calibrated_variance' answers plain means only.")
        q, span = len(batch), batch.span
        variance = batch.vectors.var(axis=0) / span**2
        z = noise.normal("answer", state.k_used, q)
        value = batch.value + span * z * np.sqrt(np.maximum(variance / self.t, 1 / self.t**2))
        radius = span * self.radius + batch.pad
        return symmetric(value, radius, batch, ("answered",) * q), state.after(q)

    def parameters(self) -> dict[str, Any]:
        """Records that the noise of one answer stands for."""
        return {"t": self.t}


class NoisyArgmin(Mechanism):
    """Index of the candidate with the smallest loss, chosen with Gumbel noise (pure privacy)."""

    name = "noisy_argmin"
    citations = ("dwork2014algorithmic",)

    def __init__(self, plan: Plan, *, epsilon: float = 0.1, rounds: int = 10) -> None:
        super().__init__(plan)
        positive(epsilon, "epsilon")
        if rounds < 1:
            raise ParameterError(f"rounds must be at least 1. Got {rounds!r} instead.")
        self.epsilon, self.rounds = float(epsilon), int(rounds)
        self.radius = gap(PureCompositionF(self.epsilon, self.rounds), plan.beta)
        self.check_width()

    def limit(self, state: State, batch: Batch) -> None:
        """Rounds are the budget here."""
        super().limit(state, batch)
        if state.rounds_used >= self.rounds:
            raise BudgetExhaustedError(
                f"All rounds={self.rounds} are used; collect fresh data or plan more rounds."
            )

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Release the index that minimises the noisy loss."""
        del vault
        loss = batch.loss_sign * batch.value
        scale = 2 * float(np.max(batch.influence)) / self.epsilon
        score = -loss / scale + noise.gumbel("argmin", state.k_used, len(batch))
        winner = int(np.argmax(score))
        release = nothing(batch, "not chosen")
        status = list(release.status)
        status[winner] = "winner"
        release.radius[:] = self.radius * batch.influence * self.plan.n + batch.pad
        return replace(release, status=tuple(status), cost={"winner": winner}), state.after(
            len(batch),
            eps0_count=state.eps0_count + 1,
        )

    def parameters(self) -> dict[str, Any]:
        """Privacy of a round and number of rounds."""
        return {"epsilon": self.epsilon, "rounds": self.rounds}


class StableQuantile(Mechanism):
    """Noisy binary search for the median of an estimator over disjoint groups of records.

    The value lies between the ``1/2 - w`` and ``1/2 + w`` quantiles of the estimator's own
    sampling distribution at the group size; w, the radius, is a probability.
    """

    name = "stable_quantile"
    needs_vectors = True
    citations = ("feldman2017generalization",)

    def __init__(self, plan: Plan, *, grid_size: int = 256) -> None:
        super().__init__(plan)
        if grid_size < 2:
            raise ParameterError(f"grid_size must be at least 2. Got {grid_size!r} instead.")
        self.grid_size = int(grid_size)
        self.steps = math.ceil(math.log2(self.grid_size))
        found = theorem.gaussian_optimal(
            theorem.mean_profile(plan.n), plan.k * self.steps, plan.beta, plan.spent_mu2
        )
        self.sigma, self.radius = found.scale, found.radius
        self.check_width()

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Search each query's grid with noisy counts of estimates at most a."""
        del vault
        if batch.vectors is None:
            raise ParameterError("mechanism='stable_quantile' needs an estimator for every query.")
        q = len(batch)
        value = np.empty(q)
        grid = float(release_grid(self.sigma))
        for j in range(q):
            z = noise.normal("answer", (state.k_used + j) * self.steps, self.steps)
            low, high = 0, self.grid_size - 1
            for step in range(self.steps):
                if low == high:
                    break
                middle = (low + high) // 2
                a = batch.lo[j] + batch.span[j] * middle / (self.grid_size - 1)
                share = float(np.mean(batch.vectors[:, j] <= a))
                noisy = float(to_grid(np.asarray(share + self.sigma * z[step]), grid))
                low, high = (low, middle) if noisy >= 0.5 else (middle + 1, high)
            value[j] = batch.lo[j] + batch.span[j] * low / (self.grid_size - 1)
        release = Release(
            value,
            batch.lo.copy(),
            batch.hi.copy(),
            np.full(q, self.radius + grid / 2),
            ("quantile",) * q,
        )
        used = q * self.steps / (self.plan.n * self.sigma) ** 2
        return release, state.after(
            q,
            mu2_used=state.mu2_used + used,
        )

    def parameters(self) -> dict[str, Any]:
        """Grid and noise level."""
        return {"grid_size": self.grid_size, "sigma": self.sigma, "steps": self.steps}
