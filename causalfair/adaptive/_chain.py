"""What the ledger's log must satisfy: a hash chain, and counters that add up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from causalfair.adaptive._state import State

CLOSING = "close"  # kind of the row that ends a ledger
ROW = ("i", "query_id", "kind", "params", "answer", "cost", "t", "pid")


def canonical(content: Any) -> str:
    """JSON with sorted keys and exact floats."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=True)


def chain(previous: str, row: Mapping[str, Any]) -> str:
    """SHA-256 of the previous hash and the row."""
    return hashlib.sha256((previous + canonical(dict(row))).encode()).hexdigest()


def genesis(meta: Mapping[str, Any]) -> str:
    """First link: the hash of everything fixed at creation."""
    return hashlib.sha256(canonical(dict(meta)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Audit:
    """Outcome of a check of the whole ledger; true when nothing is wrong."""

    problems: tuple[str, ...]
    n_log: int
    head_hash: str

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        if not self.problems:
            return f"Ledger intact: {self.n_log} answers, head {self.head_hash[:16]}."
        return "Ledger altered:\n" + "\n".join(f" - {text}" for text in self.problems)

    __repr__ = __str__


def chain_problems(
    meta: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[str], str]:
    """What is wrong with the links of the chain, and its last hash."""
    previous = genesis(meta)
    for position, row in enumerate(rows, start=1):
        content = {name: row[name] for name in ROW}
        if row["prev_hash"] != previous or row["hash"] != chain(previous, content):
            return [f"row {row['i']} was edited, or a row before it is missing"], previous
        if row["i"] != position:
            return [f"row {position} is missing"], previous
        previous = row["hash"]
    return [], previous


def budget_problems(
    meta: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], state: State
) -> list[str]:
    """Counters that run backwards, overspend, or do not lead to the state."""
    problems, used, asked = [], 0, 0
    for row in rows:
        answer, after = json.loads(row["answer"]), json.loads(row["cost"])["k_used"]
        if after < used:
            problems.append(f"row {row['i']} lowers the number of queries used")
        used = after
        if any(status != "refused" for status in answer["status"]):
            if not asked < answer["first"] <= used:
                problems.append(f"row {row['i']} answers a query that was not charged")
            asked = answer["first"]
    if used > meta["max_queries"]:
        problems.append(f"{used} queries were answered of {meta['max_queries']} in the budget")
    last = json.loads(rows[-1]["cost"]) if rows else {}
    told = {name: value for name, value in last.items() if not name.startswith("_")}
    if rows and state.to_dict() != told:
        problems.append("the state does not follow from the last row")
    if not rows and state.k_used:
        problems.append("the state claims queries that the log does not hold")
    return problems
