"""Leaderboards, winners and weights: mechanisms that reveal few bits, as pure transitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.adaptive import _description as description
from causalfair.adaptive._mechanisms import Mechanism, Plan, at_least_one, positive
from causalfair.adaptive._noise import KeyedNoise
from causalfair.adaptive._state import Batch, Release, State, nothing, symmetric
from causalfair.exceptions import BudgetExhaustedError, ParameterError


class Ladder(Mechanism):
    """Report the best loss so far, rounded to a grid, and only when it improves by a step."""

    name = "ladder"
    guarantee = "leaderboard"
    citations = ("blum2015ladder",)

    def __init__(self, plan: Plan, *, eta: float | None = None) -> None:
        super().__init__(plan)
        if eta is None:
            self.radius, self.eta = description.ladder_optimal(plan.n, plan.k, plan.beta)
        else:
            if not 0 < eta < 1:
                raise ParameterError(f"eta must lie strictly between 0 and 1. Got {eta!r}.")
            self.eta = float(eta)
            self.radius = description.ladder_radius(plan.n, plan.k, plan.beta, self.eta)
        self.check_width()

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Walk the submissions; exact halves of the grid round up."""
        del noise, vault
        loss = np.where(batch.loss_sign > 0, batch.value - batch.lo, batch.hi - batch.value)
        loss = loss / batch.span
        best, updates = state.best, 0
        board, status = np.empty(len(batch)), []
        for j, value in enumerate(loss):
            if best is None or value < best - self.eta:
                best = math.floor(value / self.eta + 0.5) * self.eta
                updates += 1
                status.append("improved")
            else:
                status.append("kept")
            board[j] = min(best, 1.0)
        shown = np.where(
            batch.loss_sign > 0, batch.lo + batch.span * board, batch.hi - batch.span * board
        )
        scale = np.sqrt(batch.squares * self.plan.n)
        radius = batch.span * self.eta + scale * (self.radius - self.eta) + batch.pad
        release = symmetric(shown, radius, batch, tuple(status), {"updates": updates})
        return release, state.after(
            len(batch),
            best=best,
            failures=state.failures + updates,
        )

    def parameters(self) -> dict[str, Any]:
        """Step."""
        return {"eta": self.eta}


class ParameterFreeLadder(Mechanism):
    """Ladder whose step is a paired standard error of the challenger against the leader."""

    name = "ladder_free"
    guarantee = "leaderboard"
    needs_vectors = True
    citations = ("blum2015ladder",)

    def __init__(self, plan: Plan, *, z: float = 1.0) -> None:
        super().__init__(plan)
        positive(z, "z")
        self.z, self.certified = float(z), False

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Accept a submission that beats the leader by z paired standard errors."""
        del noise
        if batch.vectors is None:
            raise ParameterError("mechanism='ladder_free' answers means only.")
        n = len(batch.vectors)
        best, leader = state.best, vault
        shown, status = np.empty(len(batch)), []
        for j in range(len(batch)):
            raw = batch.vectors[:, j]
            loss = ((raw - batch.lo[j]) if batch.loss_sign > 0 else (batch.hi[j] - raw)) / (
                batch.span[j]
            )
            step = np.std(loss if leader is None else loss - leader, ddof=1) / math.sqrt(n)
            if best is None or loss.mean() < best - self.z * step:
                best, leader = round(float(loss.mean()) * n) / n, loss
                status.append("improved")
            else:
                status.append("kept")
            sign = best * batch.span[j]
            shown[j] = batch.lo[j] + sign if batch.loss_sign > 0 else batch.hi[j] - sign
        radius = np.full(len(batch), math.inf)
        release = symmetric(
            shown, radius, batch, tuple(status), vault=None if leader is vault else leader
        )
        return release, state.after(
            len(batch),
            best=best,
        )

    def parameters(self) -> dict[str, Any]:
        """Standard errors a submission must gain."""
        return {"z": self.z}


class WinnerOnly(Mechanism):
    """Reveal only which candidate of a round is best, and if asked its value on a coarse grid."""

    name = "winner_only"

    def __init__(
        self, plan: Plan, *, sizes: Sequence[int] | None = None, value_cells: int | None = None
    ) -> None:
        super().__init__(plan)
        self.sizes = None if sizes is None else tuple(at_least_one(s, "sizes") for s in sizes)
        self.value_cells = None if value_cells is None else at_least_one(value_cells, "value_cells")
        per_round = math.log(self.value_cells or 1)
        if self.sizes is None:
            self.radius = self._radius(0.0, 0, plan.k)
        else:
            rounds = [s * math.exp(per_round) for s in self.sizes]
            logs = math.log(2 / plan.beta) + description.winner_log_candidates(rounds) - per_round
            self.radius = description.hoeffding(plan.n, logs)
        self.check_width()

    def _radius(self, log_desc: float, round_index: int, size: int) -> float:
        """Radius of a round whose size was not planned; weights over rounds sum to one."""
        level = (
            math.log(2 / self.plan.beta)
            - math.log(description.weight(round_index))
            + math.log(size)
            + log_desc
        )
        return description.hoeffding(self.plan.n, level)

    def limit(self, state: State, batch: Batch) -> None:
        """Planned rounds must be kept to."""
        super().limit(state, batch)
        if self.sizes is None:
            return
        t = state.rounds_used
        if t >= len(self.sizes):
            raise BudgetExhaustedError(
                f"All {len(self.sizes)} planned rounds are used; collect "
                "fresh data or create the holdout with more sizes."
            )
        if len(batch) > self.sizes[t]:
            raise BudgetExhaustedError(
                f"Round {t + 1} was planned for {self.sizes[t]} candidates "
                f"and got {len(batch)}; drop candidates."
            )

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Index of the smallest loss; ties go to the first."""
        del noise, vault
        winner = int(np.argmin(batch.loss_sign * batch.value))
        radius = (
            self.radius
            if self.sizes is not None
            else self._radius(state.log_desc, state.rounds_used, len(batch))
        )
        scale = np.sqrt(batch.squares * self.plan.n)
        release = nothing(batch, "not chosen")
        release.radius[:] = scale * radius + batch.pad
        status = list(release.status)
        status[winner] = "winner"
        size = len(batch)
        gained = math.log(size)
        if self.value_cells:
            gained += math.log(self.value_cells)
            self._reveal(release, batch, winner)
        after = state.after(size, log_desc=state.log_desc + gained)
        return replace(release, status=tuple(status), cost={"winner": winner}), after

    def _reveal(self, release: Release, batch: Batch, j: int) -> None:
        """Put the winner's value at the middle of its cell."""
        cells, span = self.value_cells or 1, float(batch.span[j])
        share = (float(batch.value[j]) - float(batch.lo[j])) / span
        release.value[j] = batch.lo[j] + span * (min(int(share * cells), cells - 1) + 0.5) / cells
        release.radius[j] += span * 0.5 / cells
        release.lower[j] = max(release.value[j] - release.radius[j], batch.lo[j])
        release.upper[j] = min(release.value[j] + release.radius[j], batch.hi[j])

    def parameters(self) -> dict[str, Any]:
        """Planned rounds, cells of the revealed value."""
        return {
            "sizes": None if self.sizes is None else list(self.sizes),
            "value_cells": self.value_cells,
        }


class MultiplicativeWeights(Mechanism):
    """Answer from a public distribution over cells, corrected when it is off by more than T."""

    name = "multiplicative_weights"
    needs_vectors = True
    citations = ("hardt2010multiplicative",)

    def __init__(self, plan: Plan, *, n_cells: int, threshold: float | None = None) -> None:
        super().__init__(plan)
        self.n_cells = n_cells
        if n_cells < 2 or n_cells > 2**24:
            raise ParameterError(f"The universe has {n_cells} cells; 2 to 2**24 are supported.")
        if threshold is None:
            self.radius, self.threshold = description.weights_optimal(
                plan.n, plan.k, plan.beta, n_cells
            )
        else:
            positive(threshold, "threshold")
            self.threshold = float(threshold)
            self.radius = description.weights_radius(
                plan.n, plan.k, plan.beta, n_cells, self.threshold
            )
        self.updates = description.weights_updates(n_cells, self.threshold)
        self.check_width()

    def initial_vault(self) -> FloatArray:
        """Uniform weights."""
        return np.full(self.n_cells, 1.0 / self.n_cells)

    def answer(
        self, state: State, batch: Batch, noise: KeyedNoise, vault: FloatArray | None
    ) -> tuple[Release, State]:
        """Answer each query from the weights, or from the data and update the weights."""
        del noise
        from causalfair.adaptive._weights import dot, update

        if vault is None or (batch.vectors is None and batch.lazy is None):
            raise ParameterError("mechanism='multiplicative_weights' needs queries on the cells.")
        weights, changed = vault, False
        quarter = self.threshold / 4
        cells = math.ceil(1 / (2 * quarter))
        shown, status = np.empty(len(batch)), []
        for j in range(len(batch)):
            if batch.lazy is not None:
                estimate = batch.lazy[j].mean(weights)
            else:
                f = np.ascontiguousarray(batch.vectors[:, j])  # type: ignore[index]
                estimate = dot(f, weights)
            truth = (float(batch.value[j]) - float(batch.lo[j])) / float(batch.span[j])
            if abs(estimate - truth) <= self.threshold:
                shown[j] = estimate
                status.append("public")
                continue
            released = (min(int(truth * cells), cells - 1) + 0.5) / cells
            step = 4 * (abs(released - estimate) - quarter)
            if batch.lazy is not None:
                f = batch.lazy[j].vector(self.n_cells)
            weights = update(weights, f, math.copysign(step, released - estimate))
            shown[j], changed = released, True
            status.append("updated")
        updates = status.count("updated")
        radius = batch.span * self.radius + batch.pad
        release = symmetric(
            batch.lo + batch.span * shown,
            radius,
            batch,
            tuple(status),
            {"updates": updates},
            weights if changed else None,
        )
        return release, state.after(
            len(batch),
            failures=state.failures + updates,
            log_desc=state.log_desc + updates * math.log(cells),
        )

    def parameters(self) -> dict[str, Any]:
        """Universe, threshold, most updates possible."""
        return {"n_cells": self.n_cells, "threshold": self.threshold, "updates": self.updates}
