"""Rows and files that preference trainers load, and the reward as they call it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from causalfair._core.optional import import_optional
from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError, ParameterError

__all__ = ["as_reward_function", "export_rows", "write_rows"]

KINDS = ("preference", "reward", "unpaired", "prompt", "sft", "weighted")
LOG_WEIGHT = 5.0  # e^5 is 148: no text is repeated much more often


class _Writer:
    """Strings, or messages with roles."""

    def __init__(self, pairs: Any, conversational: bool) -> None:
        self.pairs = pairs
        self.conversational = conversational

    def _as(self, role: str, text: str) -> Any:
        return [{"role": role, "content": text}] if self.conversational else text

    def prompt(self, row: int) -> dict[str, Any]:
        return {"prompt": self._as("user", self.pairs.prompts[row])}

    def text(self, row: int) -> Any:
        return self._as("assistant", self.pairs.texts[row])


def export_rows(
    pairs: Any, kind: str = "preference", *, conversational: bool = False, dead_zone: float = 0.1,
    temperature: float = 1.0, random_state: Any = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of one export; see :meth:`Pairs.to_trl`."""
    if kind not in KINDS:
        raise ParameterError(f"to_trl: kind={kind!r} must be one of {', '.join(KINDS)}.")
    if kind != "reward" and pairs.prompts is None:
        raise DataError(
            f"to_trl: kind={kind!r} needs prompts; give make_pairs(prompts=...), or use "
            'kind="reward", whose prompt is implicit.'
        )
    write = _Writer(pairs, conversational)
    if kind in ("preference", "reward"):
        rows = _preferences(pairs, write, with_prompt=kind == "preference")
    elif kind == "prompt":
        rows = [write.prompt(i) for i in _first_rows(pairs.prompts)]
    elif kind == "unpaired":
        rows = _labelled(pairs, write, dead_zone)
    else:
        rows = _demonstrations(pairs, write, kind, temperature, random_state)
    if not rows:
        raise DataError(
            f"to_trl: no row for kind={kind!r}: {pairs.reason or 'no text stands out'}."
        )
    return rows


def _preferences(pairs: Any, write: _Writer, *, with_prompt: bool) -> list[dict[str, Any]]:
    return [
        {
            **(write.prompt(i) if with_prompt else {}),
            "chosen": write.text(i),
            "rejected": write.text(j),
            "margin": float(margin),
        }
        for i, j, margin in zip(
            pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.margin, strict=True
        )
    ]


def _first_rows(prompts: list[str]) -> list[int]:
    seen: dict[str, int] = {}
    for row, prompt in enumerate(prompts):
        seen.setdefault(prompt, row)
    return list(seen.values())


def _labelled(pairs: Any, write: _Writer, dead_zone: float) -> list[dict[str, Any]]:
    if not dead_zone >= 0:
        raise ParameterError(f"to_trl: dead_zone={dead_zone!r} must be 0 or more.")
    distance = pairs.scores - pairs.scores.mean()
    rows = np.flatnonzero(np.abs(distance) > dead_zone * float(pairs.scores.std()))
    return [
        {**write.prompt(i), "completion": write.text(i), "label": bool(distance[i] > 0)}
        for i in rows.tolist()
    ]


def _demonstrations(
    pairs: Any, write: _Writer, kind: str, temperature: float, random_state: Any
) -> list[dict[str, Any]]:
    weight = _tilt(pairs.scores, temperature)
    if kind == "weighted":
        return [
            {**write.prompt(i), "completion": write.text(i), "weight": float(w)}
            for i, w in enumerate(weight)
        ]
    rng = generator(root_seed(random_state))
    n = len(weight)
    rows = np.sort(rng.choice(n, n, p=weight / weight.sum()))
    return [{**write.prompt(i), "completion": write.text(i)} for i in rows.tolist()]


def _tilt(scores: FloatArray, temperature: float) -> FloatArray:
    """Weights ``exp(score / temperature)`` of standardised scores, clipped, with mean one."""
    if not temperature > 0:
        raise ParameterError(f"to_trl: temperature={temperature!r} must be positive.")
    spread = float(scores.std())
    if spread == 0:
        return np.ones(len(scores))
    log_weight = (scores - scores.mean()) / (spread * temperature)
    weight = np.exp(np.clip(log_weight, -LOG_WEIGHT, LOG_WEIGHT))
    return np.asarray(weight / weight.mean())


def write_rows(rows: list[dict[str, Any]], target: Path, card: dict[str, Any]) -> Path:
    """Write rows as JSON lines or Parquet, and the card beside them."""
    if target.suffix == ".parquet":
        arrow = import_optional("pyarrow", extra="text")
        import_optional("pyarrow.parquet", extra="text").write_table(
            arrow.Table.from_pylist(rows), target
        )
    elif target.suffix == ".jsonl":
        with target.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        raise ParameterError(f"to_trl: path={str(target)!r} must end in .jsonl or .parquet.")
    target.with_suffix(".card.json").write_text(
        json.dumps(card, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    return target


def as_reward_function(reward: Any) -> Callable[..., list[float]]:
    """The reward as trainers of the GRPO family call it.

    Parameters
    ----------
    reward : DeconfoundedReward
        Fitted on raw text.

    Returns
    -------
    callable
        ``f(prompts, completions, **kwargs) -> list of float``; completions are strings or lists of
        messages, of which the last is scored.

    Raises
    ------
    DataError
        A completion is neither a text nor a list of messages whose content is text.

    Examples
    --------
    >>> class Length:
    ...     def predict(self, texts):
    ...         return [len(t) for t in texts]
    >>> as_reward_function(Length())(["p"], [[{"role": "assistant", "content": "abc"}]])
    [3.0]
    """

    def deconfounded_reward(
        prompts: Any = None,  # noqa: ARG001
        completions: Any = (),
        **_: Any,
    ) -> list[float]:
        texts = [_content(row, completion) for row, completion in enumerate(completions)]
        return [float(value) for value in reward.predict(texts)] if texts else []

    return deconfounded_reward


def _content(row: int, completion: Any) -> str:
    text = completion
    if isinstance(completion, (list, tuple)) and completion:
        last = completion[-1]
        text = last.get("content") if isinstance(last, dict) else None
    if not isinstance(text, str):
        raise DataError(
            f"reward function: completion {row} is {completion!r}; give a string, or messages "
            "whose last content is a string."
        )
    return text
