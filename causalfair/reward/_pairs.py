"""Preference pairs inside strata, and files that preference trainers load."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from causalfair._core.optional import import_optional
from causalfair._core.random import child_seed, root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward._features import style_features

__all__ = ["Pairs", "as_reward_function", "make_pairs"]

KINDS = ("preference", "reward", "unpaired", "prompt", "sft")


@dataclass(frozen=True)
class Pairs:
    """Pairs of logged texts, the better one first.

    Attributes
    ----------
    chosen, rejected : (m,) row numbers of the logs.
    margin : (m,) difference in reward, or in corrected outcome; probability : (m,) that it is real.
    texts : texts of all rows; prompts : prompts of all rows, or None.
    scores : (n,) value of every row that the pairs were made from.
    reason : why there are no pairs, where there are none.
    """

    chosen: IntArray
    rejected: IntArray
    margin: FloatArray
    probability: FloatArray
    texts: list[str]
    prompts: list[str] | None
    scores: FloatArray
    strata: IntArray
    card: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    def __len__(self) -> int:
        return len(self.chosen)

    def __repr__(self) -> str:
        if not len(self):
            return f"Pairs: none ({self.reason})"
        return (
            f"Pairs: {len(self):,} in {len(np.unique(self.strata[self.chosen])):,} strata, mean "
            f"probability {self.probability.mean():.3f}"
        )

    @property
    def weight(self) -> FloatArray:
        """Weight (m,) of each pair: twice the distance of its probability from one half."""
        return np.asarray(2 * self.probability - 1)

    def to_frame(self) -> Any:
        """One row a pair.

        Returns
        -------
        pandas.DataFrame
            ``chosen, rejected`` texts, their rows, ``margin, probability, weight``.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "chosen": [self.texts[i] for i in self.chosen],
                "rejected": [self.texts[j] for j in self.rejected],
                "chosen_row": self.chosen,
                "rejected_row": self.rejected,
                "margin": self.margin,
                "probability": self.probability,
                "weight": self.weight,
            }
        )

    def balance(self, columns: Any = None) -> Any:
        """Gap between chosen and rejected texts in every confounder, and in length.

        Parameters
        ----------
        columns : mapping of str to array of shape (n,), optional
            Numeric columns of the logs.

        Returns
        -------
        pandas.DataFrame
            ``column, chosen, rejected, gap`` in standard deviations.
        """
        import pandas as pd

        style = style_features(self.texts)
        items = {"tokens": style[:, 0], "characters": style[:, 1], **dict(columns or {})}
        rows = []
        for name, values in items.items():
            array = np.asarray(values, dtype=float)
            a, b = array[self.chosen].mean(), array[self.rejected].mean()
            spread = float(array.std())
            rows.append((name, a, b, (a - b) / spread if spread > 0 else 0.0))
        return pd.DataFrame(rows, columns=["column", "chosen", "rejected", "gap"])

    def records(
        self, kind: str = "preference", *, conversational: bool = False, dead_zone: float = 0.1,
        temperature: float = 1.0, random_state: Any = 0,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Rows of an export; see :meth:`to_trl`.

        Parameters
        ----------
        kind, conversational, dead_zone, temperature, random_state
            As for :meth:`to_trl`.

        Returns
        -------
        list of dict
            One dictionary a row.
        """
        if kind not in KINDS:
            raise ParameterError(f"kind={kind!r} must be one of {', '.join(KINDS)}.")
        if kind != "reward" and self.prompts is None:
            raise DataError(
                f"to_trl: kind={kind!r} needs prompts; give make_pairs(prompts=...), or use "
                'kind="reward", whose prompt is implicit.'
            )
        prompts = self.prompts or [""] * len(self.texts)

        def prompt(i: int) -> Any:
            return [{"role": "user", "content": prompts[i]}] if conversational else prompts[i]

        def answer(i: int) -> Any:
            text = self.texts[i]
            return [{"role": "assistant", "content": text}] if conversational else text

        if kind in ("preference", "reward"):
            return [
                {
                    **({"prompt": prompt(i)} if kind == "preference" else {}),
                    "chosen": answer(i),
                    "rejected": answer(j),
                    "margin": float(m),
                }
                for i, j, m in zip(self.chosen, self.rejected, self.margin, strict=True)
            ]
        if kind == "prompt":
            return [{"prompt": prompt(i)} for i in _first_rows(prompts)]
        if kind == "unpaired":
            zone = dead_zone * float(self.scores.std())
            centre = float(np.median(self.scores))
            rows = np.flatnonzero(np.abs(self.scores - centre) > zone)
            return [
                {
                    "prompt": prompt(i),
                    "completion": answer(i),
                    "label": bool(self.scores[i] > centre),
                }
                for i in rows
            ]
        rows = _resample(self.scores, temperature, random_state)
        return [{"prompt": prompt(i), "completion": answer(i)} for i in rows]

    def to_trl(
        self, path: Any, kind: str = "preference", *, conversational: bool = False,
        dead_zone: float = 0.1, temperature: float = 1.0, random_state: Any = 0,
    ) -> Path:  # fmt: skip
        """Write the pairs in the format of TRL's trainers, with a card beside them.

        Parameters
        ----------
        path : path
            ``.jsonl`` or ``.parquet``.
        kind : {"preference", "reward", "unpaired", "prompt", "sft"}, default "preference"
            ``prompt, chosen, rejected, margin`` (DPO); the same without prompt (reward trainer);
            ``prompt, completion, label`` (KTO); ``prompt`` alone (GRPO, RLOO); ``prompt,
            completion`` resampled by ``exp(score / temperature)`` (SFT).
        conversational : bool, default False
            Write messages with roles instead of strings.
        dead_zone : float, default 0.1
            Texts within so many standard deviations of the median get no label (unpaired).
        temperature : float, default 1
            Standard deviations of score per unit of log weight (SFT).
        random_state : int, SeedSequence, Generator, RandomState or None
            Seed of the resampling (SFT).

        Returns
        -------
        pathlib.Path
            The file; ``<name>.card.json`` stands beside it.
        """
        rows = self.records(
            kind, conversational=conversational, dead_zone=dead_zone, temperature=temperature,
            random_state=random_state,
        )  # fmt: skip
        target = Path(path)
        if target.suffix == ".parquet":
            import pandas as pd

            pd.DataFrame(rows).to_parquet(target, index=False)
        elif target.suffix == ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
            target.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        else:
            raise ParameterError(f"to_trl: path={str(path)!r} must end in .jsonl or .parquet.")
        card = {**self.card, "kind": kind, "rows": len(rows)}
        if len(self):
            card["label_smoothing"] = float(np.mean(1 - self.probability))
        target.with_suffix(".card.json").write_text(
            json.dumps(card, ensure_ascii=False, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        return target

    def to_dataset(self, kind: str = "preference", **options: Any) -> Any:
        """The export as a ``datasets.Dataset``.

        Parameters
        ----------
        kind : str, default "preference"
            As for :meth:`to_trl`.
        **options
            As for :meth:`to_trl`.

        Returns
        -------
        datasets.Dataset
            In memory.
        """
        module = import_optional("datasets", extra="text")
        return module.Dataset.from_list(self.records(kind, **options))


def _first_rows(prompts: Sequence[str]) -> list[int]:
    seen: dict[str, int] = {}
    for row, prompt in enumerate(prompts):
        seen.setdefault(prompt, row)
    return list(seen.values())


def _resample(scores: FloatArray, temperature: float, random_state: Any) -> IntArray:
    if not temperature > 0:
        raise ParameterError(f"temperature={temperature!r} must be positive.")
    spread = max(float(scores.std()), 1e-12)
    weight = np.exp(np.clip((scores - scores.mean()) / (spread * temperature), -5, 5))
    rng = np.random.default_rng(root_seed(random_state))
    return np.asarray(np.sort(rng.choice(len(scores), len(scores), p=weight / weight.sum())))


def make_pairs(
    score: Any,
    variance: Any,
    strata: Any,
    texts: Sequence[str],
    *,
    prompts: Sequence[str] | None = None,
    min_gap: float = 0.0,
    min_prob: float = 0.7,
    max_per_stratum: int = 50,
    max_per_text: int = 10,
    difference_variance: Callable[[IntArray, IntArray], FloatArray] | None = None,
    card: dict[str, Any] | None = None,
    random_state: Any = 0,
) -> Pairs:
    """Pairs of texts that share a stratum, kept where their order is likely to be real.

    Parameters
    ----------
    score : array of shape (n,)
        Reward or corrected outcome of each text.
    variance : array of shape (n,) or None
        Variance of each score, independent between texts.
    strata : array of shape (n,)
        Pairs are made inside strata only (same prompt, same confounders).
    texts : sequence of str
        The n texts.
    prompts : sequence of str, optional
        The n prompts.
    min_gap : float, default 0
        Smallest difference in score.
    min_prob : float, default 0.7
        Smallest probability ``Phi(gap / sd)`` that the order is right.
    max_per_stratum, max_per_text : int
        Caps; the most certain pairs are kept.
    difference_variance : callable, optional
        Variance of the differences of rows i and j, where scores are correlated.
    card : dict, optional
        What to write beside an export.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the pairs drawn in strata with very many texts.

    Returns
    -------
    Pairs
        Possibly none, with the reason.

    Examples
    --------
    >>> pairs = make_pairs([1.0, 0.0, 5.0], [0.1, 0.1, 0.1], [0, 0, 1], ["a", "b", "c"])
    >>> pairs.to_frame()[["chosen", "rejected"]].values.tolist()
    [['a', 'b']]
    """
    from causalfair.reward import _kernels

    values = np.asarray(score, dtype=float)
    n = len(values)
    if len(texts) != n or len(strata) != n or (prompts is not None and len(prompts) != n):
        raise DataError(
            f"make_pairs: lengths differ (score {n}, strata {len(strata)}, texts {len(texts)}"
            f"{'' if prompts is None else f', prompts {len(prompts)}'})."
        )
    codes = np.unique(np.asarray(strata), return_inverse=True)[1].reshape(-1).astype(np.int32)
    order, pointer = _kernels.counting_sort(codes, int(codes.max()) + 1)
    seed = np.uint64(child_seed(root_seed(random_state), 0).generate_state(1, np.uint64)[0])
    first, second = _kernels.stratum_pairs(order, pointer, 20 * max_per_stratum, seed)
    swap = values[first] < values[second]
    chosen, rejected = np.where(swap, second, first), np.where(swap, first, second)
    gap = values[chosen] - values[rejected]
    if difference_variance is not None:
        spread = np.sqrt(difference_variance(chosen, rejected))
    else:
        own = np.asarray(variance, dtype=float)
        spread = np.sqrt(own[chosen] + own[rejected])
    probability = np.where(spread > 0, ndtr(gap / np.where(spread > 0, spread, 1.0)), 0.5)
    probability = np.where((spread == 0) & (gap > 0), 1.0, probability)
    fit = (gap > 0) & (gap >= min_gap) & (probability >= min_prob)
    reason = _reason(len(first), int(fit.sum()), min_prob, min_gap)
    keep = _capped(
        np.flatnonzero(fit), chosen, rejected, probability, codes, max_per_stratum, max_per_text
    )
    return Pairs(
        chosen[keep], rejected[keep], gap[keep], probability[keep], list(texts),
        None if prompts is None else list(prompts), values, codes, dict(card or {}), reason,
    )  # fmt: skip


def _reason(found: int, fit: int, min_prob: float, min_gap: float) -> str:
    if not found:
        return "every stratum has one text; use coarser strata"
    if not fit:
        return f"none of {found} pairs has probability {min_prob:g} and gap {min_gap:g}; lower them"
    return ""


def _capped(
    rows: IntArray, chosen: IntArray, rejected: IntArray, probability: FloatArray,
    codes: Any, per_stratum: int, per_text: int,
) -> IntArray:  # fmt: skip
    """Greedy: the most certain pairs first, within both caps."""
    order = rows[np.argsort(-probability[rows], kind="stable")]
    in_stratum = np.zeros(int(codes.max()) + 1, dtype=int)
    in_text = np.zeros(len(codes), dtype=int)
    keep, seen = [], set()
    for row in order.tolist():
        i, j = int(chosen[row]), int(rejected[row])
        s = codes[i]
        if (i, j) in seen or in_stratum[s] >= per_stratum:
            continue
        if in_text[i] >= per_text or in_text[j] >= per_text:
            continue
        seen.add((i, j))
        in_stratum[s] += 1
        in_text[i] += 1
        in_text[j] += 1
        keep.append(row)
    return np.sort(np.array(keep, dtype=np.intp))


def pairs_of_reward(
    reward: Any, *, by: str = "reward", strata: Any = None, prompts: Any = None, **options: Any
) -> Pairs:
    """Pairs of the logged texts of a fitted reward."""
    data, problem = reward._training("make_pairs")
    if data.texts is None:
        raise DataError("make_pairs needs the raw text: fit with text=.")
    if by not in ("reward", "outcome"):
        raise ParameterError(f"by={by!r} must be 'reward' or 'outcome'.")
    if strata is None:
        strata = problem.confounders.strata()
    elif isinstance(strata, str):
        if strata not in data.categorical:
            raise DataError(
                f"make_pairs: strata={strata!r} is not a categorical confounder of the fit "
                f"({', '.join(data.categorical) or 'none'}); give an array of labels instead."
            )
        strata = data.categorical[strata]
    card = {
        "library": "causalfair", "method": reward.method, "penalty": getattr(reward, "penalty_", None),
        "confounders": list(problem.confounders.names), "n": data.n, "by": by,
    }  # fmt: skip
    common = {
        "prompts": prompts,
        "card": card,
        "random_state": child_seed(reward._root, 8),
    } | options
    if by == "outcome":
        residual = problem.confounders.residualize(reward.corrected_outcome_)
        noise = (
            float(
                np.average((residual - problem.within @ reward.coef_) ** 2, weights=problem.weight)
            )
            if hasattr(reward, "coef_")
            else float(np.average(residual**2, weights=problem.weight))
        )
        variance = noise / problem.weight
        return make_pairs(reward.corrected_outcome_, variance, strata, data.texts, **common)
    scores = reward.predict(problem.X if data.embedding is not None else data.texts)

    def spread(i: IntArray, j: IntArray) -> FloatArray:
        gap = problem.X[i] - problem.X[j]
        if not hasattr(reward, "coef_"):
            raise ParameterError('make_pairs(by="reward") needs learner="ridge"; use by="outcome".')
        return np.asarray(((gap @ reward._posterior.root) ** 2).sum(axis=1))

    return make_pairs(scores, None, strata, data.texts, difference_variance=spread, **common)


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

    Examples
    --------
    >>> class Length:
    ...     def predict(self, texts):
    ...         return [len(t) for t in texts]
    >>> as_reward_function(Length())(["p"], [[{"role": "assistant", "content": "abc"}]])
    [3.0]
    """

    def score(prompts: Any = None, completions: Any = (), **_: Any) -> list[float]:  # noqa: ARG001
        texts = [c if isinstance(c, str) else str(c[-1]["content"]) for c in completions]
        return [float(r) for r in reward.predict(texts)]

    return score
