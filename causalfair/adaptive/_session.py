"""One exchange with the ledger: evaluate, lock, check, answer, commit, return."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair.adaptive._answer import Answer
from causalfair.adaptive._chain import canonical
from causalfair.adaptive._ledger import Ledger
from causalfair.adaptive._mechanisms import Mechanism
from causalfair.adaptive._noise import KeyedNoise
from causalfair.adaptive._state import Batch, Release, State
from causalfair.exceptions import BudgetExhaustedError, CausalFairWarning, ParameterError

BatchOf = Callable[[str], Batch]
_ARRAYS = ("value", "lower", "upper", "radius")


@dataclass(frozen=True, slots=True)
class Session:
    """Everything an exchange needs; holds no data."""

    ledger: Ledger
    mechanism: Mechanism
    noise: KeyedNoise
    certified: bool
    guess_sigma: float | None = None  # noise on guesses made from the guess part


def exchange(
    session: Session, ids: Sequence[str], public: dict[str, Any], batch_of: BatchOf, *, as_one: bool
) -> list[Answer]:
    """Answers of a batch, stored under one identifier (`as_one`) or one each.

    All of a batch is answered in one transaction, or nothing is.
    """
    names = list(ids[:1]) if as_one else list(ids)
    while True:
        stored = {name: session.ledger.find(name) for name in names}
        missing = [i for i, name in enumerate(names) if stored[name] is None]
        if missing:
            if not _commit(session, names, missing, public, batch_of, as_one=as_one):
                continue  # another process answered the same identifier meanwhile
            stored = {name: session.ledger.find(name) for name in names}
        return [answer for name in names for answer in unpack(session, name, stored[name], public)]


def _commit(
    session: Session,
    names: list[str],
    missing: list[int],
    public: dict[str, Any],
    batch_of: BatchOf,
    *,
    as_one: bool,
) -> bool:
    mechanism = session.mechanism
    part = mechanism.rows(session.ledger.state())
    batch = _subset(_batch(batch_of, part, mechanism), missing, as_one=as_one)
    with session.ledger.transaction() as transaction:
        if any(transaction.find(names[i]) is not None for i in missing):
            return False
        if transaction.closed:
            raise BudgetExhaustedError(f"This ledger is closed: {transaction.closed}.")
        before = transaction.state
        mechanism.limit(before, batch)
        if mechanism.rows(before) != part:
            batch = _subset(batch_of(mechanism.rows(before)), missing, as_one=as_one)
        if session.guess_sigma is not None:
            batch = _noisy_guess(batch, session, before)
        release, after = mechanism.answer(before, batch, session.noise, transaction.vault())
        rows = _rows(
            session, names, missing, public, release, batch.guess, after, before, as_one=as_one
        )
        transaction.append(rows, after)
        if release.vault is not None:
            transaction.write_vault(release.vault)
    _advise(mechanism, before, after)
    return True


def _batch(batch_of: BatchOf, part: str, mechanism: Mechanism) -> Batch:
    """Evaluate on the part; a split ledger that is used up is refused before any block is cut."""
    name, _, number = part.partition(":")
    if name == "block" and int(number) >= getattr(mechanism, "rounds", 0):
        part = "block:0"  # the limit below refuses; nothing of this block is used
    return batch_of(part)


def _noisy_guess(batch: Batch, session: Session, state: State) -> Batch:
    """Noise on guesses made from holdout rows; a guess that was given is public already."""
    if batch.guessed is None:
        return batch
    z = session.noise.normal("guess", state.k_used, len(batch))
    scale = batch.span * (session.guess_sigma or 0.0) * batch.guessed
    return replace(batch, guess=batch.guess + scale * z)


def _subset(batch: Batch, keep: list[int], *, as_one: bool) -> Batch:
    if as_one or len(keep) == len(batch):
        return batch
    arrays = {
        name: getattr(batch, name)[keep]
        for name in ("value", "lo", "hi", "influence", "squares", "pad", "guess")
    }
    return replace(
        batch,
        **arrays,
        variance=None if batch.variance is None else batch.variance[keep],
        guessed=None if batch.guessed is None else batch.guessed[keep],
        vectors=None if batch.vectors is None else batch.vectors[:, keep],
    )


def _rows(
    session: Session,
    names: list[str],
    missing: list[int],
    public: dict[str, Any],
    release: Release,
    guess: FloatArray,
    after: State,
    before: State,
    *,
    as_one: bool,
) -> list[dict[str, str]]:
    """Log rows; the state after the batch is part of each, so the chain covers the budget."""
    cost = canonical({**after.to_dict(), **{f"_{k}": v for k, v in release.cost.items()}})
    packed: dict[str, Any] = {name: getattr(release, name).tolist() for name in _ARRAYS}
    packed |= {
        "status": list(release.status),
        "guess": guess.tolist(),
        "first": before.k_used + 1,
        "left": 0 if after.halted else session.mechanism.plan.k - after.k_used,
    }
    if as_one:
        return [
            {
                "query_id": names[0],
                "kind": "batch",
                "params": canonical(public),
                "answer": canonical(packed),
                "cost": cost,
            }
        ]
    rows = []
    for position, i in enumerate(missing):
        one = {
            name: packed[name][position : position + 1] for name in (*_ARRAYS, "status", "guess")
        }
        one |= {"first": before.k_used + 1 + position, "left": packed["left"]}
        rows.append(
            {
                "query_id": names[i],
                "kind": "query",
                "params": canonical(public),
                "answer": canonical(one),
                "cost": cost,
            }
        )
    return rows


def unpack(
    session: Session, name: str, stored: dict[str, Any] | None, public: dict[str, Any]
) -> list[Answer]:
    """Answers of a log row; the question must have been described in the same way."""
    if stored is None:
        raise ParameterError(f"No answer is stored under query_id={name!r}.")
    if stored["params"] != public:
        raise ParameterError(
            f"query_id={name!r} was used before for another question ({stored['params']}, now "
            f"{public}); give each question its own query_id."
        )
    return answers_of(stored, name, session.mechanism.name, session.certified)


def answers_of(stored: dict[str, Any], name: str, method: str, certified: bool) -> list[Answer]:
    """Answer objects of a stored row."""
    packed = stored["answer"]
    count = len(packed["value"])
    return [
        Answer(
            value=float(packed["value"][j]),
            lower=float(packed["lower"][j]),
            upper=float(packed["upper"][j]),
            radius=float(packed["radius"][j]),
            method=method,
            certified=certified and packed["status"][j] != "refused",
            query_index=packed["first"] + j,
            spent=packed["first"] + count - 1,
            remaining=packed["left"],
            status=packed["status"][j],
            query_id=name if count == 1 else f"{name}/{j}",
        )
        for j in range(count)
    ]


def _advise(mechanism: Mechanism, before: State, after: State) -> None:
    """Say early that the budget runs out faster than planned."""
    plan = mechanism.plan
    budget = getattr(mechanism, "budget", None)
    if mechanism.name == "thresholdout" and budget and after.k_used <= plan.k / 10:
        half = budget / 2
        if (before.budget_left or 0) >= half > (after.budget_left or 0):
            warn(
                f"Thresholdout has spent more than half of its budget ({budget}) within the first "
                "tenth of its queries: the training values are optimistic. Change the analysis "
                "before it stops answering.",
                CausalFairWarning,
            )
    if mechanism.name == "guess_and_check" and before.failures <= 5 < after.failures:
        warn(
            f"{after.failures} guesses have failed the check; each further failure widens what "
            "can be certified. Use better guesses (regularise, more training data).",
            CausalFairWarning,
        )


def refused(answers: Sequence[Answer], session: Session) -> None:
    """Raise when a single question was charged but not answered."""
    if len(answers) == 1 and answers[0].status == "refused":
        reason = session.ledger.state().halted or "its budget is spent"
        raise BudgetExhaustedError(
            f"The holdout did not answer: {reason}. {answers[0].spent} of "
            f"{session.mechanism.plan.k} queries are used. Collect fresh data."
        )


def stable_batch(estimates: FloatArray, lo: FloatArray, hi: FloatArray) -> Batch:
    """Batch of estimator values over M groups of records, shape (M, q)."""
    m, q = estimates.shape
    inside = np.where(np.isfinite(estimates), estimates, lo)
    return Batch(
        value=np.full(q, math.nan),
        lo=lo,
        hi=hi,
        influence=np.full(q, 1 / m),
        squares=np.full(q, 1 / m),
        pad=np.zeros(q),
        guess=np.full(q, math.nan),
        count=m,
        vectors=np.clip(inside, lo, hi),
        kind="quantile",
    )
