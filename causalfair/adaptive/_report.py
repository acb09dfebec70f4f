"""Reports and exports of a ledger; nothing secret leaves it here."""

from __future__ import annotations

import json
import math
from typing import Any

from causalfair.adaptive import bounds
from causalfair.adaptive._answer import Answer
from causalfair.adaptive._open import Parts
from causalfair.adaptive._session import answers_of
from causalfair.adaptive._tables import fixed

_WORDS = {
    "simultaneous": "all answers at once",
    "leaderboard": "the best so far only",
}


def history(parts: Parts) -> list[Answer]:
    """Every answer given so far."""
    session = parts.session
    return [
        answer
        for row in session.ledger.rows()
        for answer in answers_of(
            {"answer": json.loads(row["answer"])},
            row["query_id"],
            session.mechanism.name,
            session.certified,
        )
    ]


def report(parts: Parts) -> Any:
    """Summary for a reader who was not there."""
    from causalfair.reporting import Summary, Table

    session = parts.session
    engine, state = session.mechanism, session.ledger.state()
    head, _, closed = session.ledger.head()
    plan = engine.plan
    header = [
        ("mechanism", engine.name),
        ("records", f"{parts.n_records:,}"),
        ("error level", f"{parts.meta['beta']:g}"),
        ("radius", fixed(engine.radius) if engine.radius < 1 else "none"),
        ("interval holds for", _WORDS[engine.guarantee]),
        ("certified", "yes" if session.certified else "no"),
        ("queries", f"{state.k_used} of {plan.k}"),
        ("rounds", str(state.rounds_used)),
    ]
    if state.budget_left is not None:
        header.append(("failures left", str(state.budget_left)))
    if engine.name in ("guess_and_check", "multiplicative_weights", "ladder"):
        header.append(("failures or updates", str(state.failures)))
    settings = [[name, _show(value)] for name, value in engine.parameters().items()]
    tables = [Table(["parameter", "value"], settings, title="Settings")] if settings else []
    n = max(2, parts.n_records)
    table = bounds.compare(n, plan.k, parts.meta["beta"], published=False)
    rows = [
        [name, fixed(radius) if radius < 0.5 else "vacuous", condition]
        for name, radius, _, _, condition in table.rows
    ]
    tables.append(
        Table(
            ["method", "radius", "applies when"],
            rows,
            title="What other methods would give (range one)",
        )
    )
    return Summary("Reusable holdout", header, tables, _notes(parts, head, closed))


def _notes(parts: Parts, head: str, closed: str) -> list[str]:
    notes = [
        "Assumes: independent rows, seen by analyst and models only through answers; holdout not "
        "in any training data; preprocessing not fitted on it.",
        f"Ledger head {head}; key commitment {parts.meta['key_commitment']}. Note them: a file "
        "cannot show by itself that it was replaced by an older copy.",
    ]
    if parts.session.ledger.path is None:
        notes.append(
            "In memory: nothing survives this process, and other holdouts made of the "
            "same rows are not known here."
        )
    if parts.meta["insecure"]:
        notes.append("The noise is predictable (insecure_seed=True): not certified.")
    if parts.meta["parent"]:
        notes.append(f"Continues {parts.meta['parent']}; its budget is included.")
    if closed:
        notes.append(f"Closed: {closed}.")
    notes.append(
        "Nested cross-validation and the bootstrap do not repair adaptivity across "
        "analyses: they describe one fixed procedure. Cite: holdout.cite()."
    )
    return notes


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "none" if value is None else str(value)


def export(parts: Parts) -> dict[str, Any]:
    """Plain public content of the ledger."""
    session = parts.session
    state = session.ledger.state().to_dict()
    hidden = ("gamma_index",)
    return {
        "meta": session.ledger.meta(),
        "state": {name: value for name, value in state.items() if name not in hidden},
        "answers": [_plain(answer) for answer in history(parts)],
        "head_hash": session.ledger.head()[0],
    }


def _plain(answer: Answer) -> dict[str, Any]:
    """Answer without NaN or infinity, which JSON does not know."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in answer.to_dict().items()
    }
