"""Pictures of a ledger: answers with radius, budget burn-down, width against queries."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from causalfair._core.optional import import_optional
from causalfair.adaptive import bounds
from causalfair.adaptive._open import Parts
from causalfair.adaptive._report import history
from causalfair.exceptions import ParameterError

_WIDTH_METHODS = ("nonadaptive", "guess_and_check", "ladder", "gaussian", "laplace", "split_rounds")


def plot(parts: Parts, kind: str, ax: Any = None) -> Any:
    """Draw one of the three pictures."""
    kinds = {"answers": _answers, "budget": _budget, "width": _width}
    if kind not in kinds:
        raise ParameterError(f"kind must be one of {', '.join(kinds)}. Got {kind!r}.")
    if ax is None:
        _, ax = import_optional("matplotlib.pyplot", extra="plot").subplots(figsize=(7, 3.6))
    kinds[kind](parts, ax)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _answers(parts: Parts, ax: Any) -> None:
    answers = [a for a in history(parts) if math.isfinite(a.value)]
    index = np.array([a.query_index for a in answers])
    value = np.array([a.value for a in answers])
    reach = np.array([[a.value - a.lower, a.upper - a.value] for a in answers]).T.reshape(2, -1)
    if len(answers) > 60:
        ax.fill_between(
            index,
            value - reach[0],
            value + reach[1],
            alpha=0.2,
            lw=0,
            color="C0",
            step="mid",
            label="simultaneous interval",
        )
        ax.plot(index, value, ".", ms=3, color="C0", label="released value")
    else:
        ax.errorbar(
            index,
            value,
            yerr=np.maximum(reach, 0),
            fmt="none",
            ecolor="C0",
            alpha=0.5,
            lw=1.5,
            label="simultaneous interval",
        )
        _by_status(answers, index, value, ax)
    guesses = _guesses(parts)
    if guesses:
        ax.plot(*zip(*guesses, strict=True), "x", ms=3.5, color="0.45", label="guess (training)")
    ax.set_xlabel("query")
    ax.set_ylabel("population value")
    ax.set_title(f"{parts.session.mechanism.name}: answers so far", loc="left")
    if answers:
        ax.legend(frameon=False, fontsize="small")


def _guesses(parts: Parts) -> list[tuple[int, float]]:
    """Position and value of every guess that was compared with the holdout."""
    found = []
    for row in parts.session.ledger.rows():
        packed = json.loads(row["answer"])
        found += [
            (packed["first"] + j, guess)
            for j, guess in enumerate(packed["guess"])
            if math.isfinite(guess)
        ]
    return found


def _by_status(answers: list[Any], index: Any, value: Any, ax: Any) -> None:
    """One marker for each thing that can happen, so that budget-costly answers stand out."""
    names = {
        "training": "training value",
        "guess": "guess",
        "holdout": "from the holdout",
        "answered": "released value",
    }
    status = np.array([a.status for a in answers])
    for number, name in enumerate(dict.fromkeys(status.tolist())):
        chosen = status == name
        ax.plot(
            index[chosen],
            value[chosen],
            "os^Dv"[number % 5],
            ms=4,
            color=f"C{number}",
            label=names.get(name, name),
        )


def _budget(parts: Parts, ax: Any) -> None:
    """Queries left, and failures left where the mechanism counts them."""
    engine = parts.session.mechanism
    states = [json.loads(row["cost"]) for row in parts.session.ledger.rows()]
    used = np.array([0, *(state["k_used"] for state in states)])
    ax.step(used, 1 - used / engine.plan.k, where="post", label="queries")
    budget = getattr(engine, "budget", None)
    if budget:
        left = np.array([budget, *(state["budget_left"] for state in states)])
        ax.step(used, left / budget, where="post", label="failures or exceedances")
    ax.set_xlim(0, engine.plan.k)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("queries asked")
    ax.set_ylabel("share of budget left")
    ax.set_title(f"{engine.name}: budget", loc="left")
    ax.legend(frameon=False, fontsize="small")


def _width(parts: Parts, ax: Any) -> None:
    """Radius of every method at this holdout's size, over the number of queries."""
    n, beta = max(4, parts.n_records), parts.meta["beta"]
    ks = np.unique(np.round(np.logspace(0, 6, 37)).astype(int))
    for number, method in enumerate(_WIDTH_METHODS):
        radius = np.array([bounds.width(n, int(k), beta, method).radius for k in ks])
        shown = radius < 0.5
        ax.plot(
            ks[shown],
            radius[shown],
            color=f"C{number}",
            label=method.replace("_", " "),
            ls="--" if method in ("nonadaptive", "ladder", "guess_and_check") else "-",
        )
    engine = parts.session.mechanism
    if engine.radius < 0.5:
        ax.plot([engine.plan.k], [engine.radius], "k*", ms=10, label="this holdout")
    ax.set_xscale("log")
    ax.set_ylim(0, 0.5)
    ax.set_xlabel("number of queries")
    ax.set_ylabel("radius (range one)")
    ax.set_title(
        f"n = {n:,}, error level {beta:g}; dashed: needs more than any query",
        loc="left",
        fontsize="medium",
    )
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
