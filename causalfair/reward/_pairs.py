"""Preference pairs of logged texts, inside strata only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from causalfair._core.optional import import_optional
from causalfair._core.random import child_seed, root_seed, uint64_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward._export import export_rows, write_rows
from causalfair.reward._features import as_texts, style_features, text_codes

__all__ = ["Pairs", "make_pairs", "pairs_of_reward"]

CHUNK = 65_536  # pairs whose features are held in memory at once


@dataclass(frozen=True)
class Pairs:
    """Pairs of logged texts, the better one first.

    Attributes
    ----------
    chosen, rejected : (m,) row numbers of the logs.
    margin : (m,) difference in reward, or in corrected outcome; probability : (m,) that it is real.
    texts : texts of all rows; prompts : prompts of all rows, or None.
    scores : (n,) value of every row that the pairs were made from; strata : (n,) codes.
    card : what is written beside an export.
    reason : why there are no pairs, where there are none.
    confounders : name -> (n,) circumstances, for ``balance``.
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
    confounders: Mapping[str, Any] = field(default_factory=dict)

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

    @property
    def flip_probability(self) -> float:
        """Mean probability that the order of a pair is wrong; the label smoothing of robust DPO."""
        return float(np.mean(1 - self.probability)) if len(self) else 0.0

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
        """Gap between chosen and rejected texts in length and in every confounder.

        A confounder that defines the strata has gap zero. A gap in length is no error, but a
        fine-tune will learn it.

        Parameters
        ----------
        columns : mapping of str to array of shape (n,), optional
            Further columns of the logs.

        Returns
        -------
        pandas.DataFrame
            ``column, chosen, rejected, gap``: means and their difference in standard deviations;
            for categories the share of texts that would have to change category, means missing.
        """
        import pandas as pd

        used = np.concatenate([self.chosen, self.rejected])
        style = np.zeros((len(self.texts), 2))
        style[used] = style_features([self.texts[i] for i in used])[:, :2]
        items = {"tokens": style[:, 0], "characters": style[:, 1]}
        rows = [
            self._gap(k, v) for k, v in {**items, **self.confounders, **(columns or {})}.items()
        ]
        return pd.DataFrame(rows, columns=["column", "chosen", "rejected", "gap"])

    def _gap(self, name: str, values: Any) -> tuple[str, float, float, float]:
        array = np.asarray(values)
        left, right = array[self.chosen], array[self.rejected]
        if not len(self):
            return name, np.nan, np.nan, np.nan
        if array.dtype.kind not in "biuf" or name in self.card.get("categorical", ()):
            both = np.concatenate([left, right]).astype(str)
            codes = np.unique(both, return_inverse=True)[1].reshape(-1)
            sides = np.repeat([1.0, -1.0], len(left))
            return (
                name,
                np.nan,
                np.nan,
                float(np.abs(np.bincount(codes, sides)).sum() / 2 / len(left)),
            )
        a, b = float(left.mean()), float(right.mean())
        spread = float(np.concatenate([left, right]).std())
        return name, a, b, (a - b) / spread if spread > 0 else 0.0

    def records(self, kind: str = "preference", **options: Any) -> list[dict[str, Any]]:
        """Rows of an export, as :meth:`to_trl` writes them.

        Parameters
        ----------
        kind : str, default "preference"
            As for :meth:`to_trl`.
        **options
            As for :meth:`to_trl`.

        Returns
        -------
        list of dict
            One dictionary a row.
        """
        return export_rows(self, kind, **options)

    def to_trl(
        self, path: Any, kind: str = "preference", *, conversational: bool = False,
        dead_zone: float = 0.1, temperature: float = 1.0, random_state: Any = 0,
    ) -> Path:  # fmt: skip
        """Write the pairs in the format of TRL's trainers, with a card beside them.

        Parameters
        ----------
        path : path
            ``.jsonl`` or ``.parquet``.
        kind : {"preference", "reward", "unpaired", "prompt", "sft", "weighted"}
            ``"preference"`` (default): ``prompt, chosen, rejected, margin`` (DPO). ``"reward"``:
            the same without prompt (reward trainer). ``"unpaired"``: ``prompt, completion, label``
            of every text (KTO). ``"prompt"``: each prompt once (GRPO and RLOO, with
            :func:`as_reward_function`). ``"sft"``: ``prompt, completion`` drawn in proportion to
            ``exp(score / temperature)``. ``"weighted"``: every text once, with that ``weight``.
        conversational : bool, default False
            Write messages with roles instead of strings.
        dead_zone : float, default 0.1
            Texts within so many standard deviations of the average text get no label (unpaired).
        temperature : float, default 1
            Standard deviations of score per unit of log weight, which is clipped at 5 either way
            (sft, weighted).
        random_state : int, SeedSequence, Generator, RandomState or None
            Seed of the draw (sft).

        Returns
        -------
        pathlib.Path
            The file; ``<name>.card.json`` stands beside it.

        Raises
        ------
        DataError
            There is nothing to write, or prompts are needed and were not given.
        """
        rows = self.records(
            kind, conversational=conversational, dead_zone=dead_zone, temperature=temperature,
            random_state=random_state,
        )  # fmt: skip
        card = {**self.card, "kind": kind, "rows": len(rows), "pairs": len(self)}
        if len(self):
            card["label_smoothing"] = self.flip_probability
        return write_rows(rows, Path(path), card)

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
    confounders: Mapping[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    random_state: Any = 0,
) -> Pairs:
    """Pairs of texts that share a stratum, kept where their order is likely to be real.

    Parameters
    ----------
    score : array of shape (n,)
        Reward or corrected outcome of each text; raw outcomes are comparable only where the strata
        hold every circumstance fixed.
    variance : array of shape (n,) or None
        Variance of each score, independent between texts; None with ``difference_variance``.
    strata : array of shape (n,)
        Pairs are made inside strata only (same prompt, same confounders).
    texts : sequence of str
        The n texts; two rows with the same text are never paired.
    prompts : sequence of str, optional
        The n prompts; both texts of a pair then share their prompt.
    min_gap : float, default 0
        Smallest difference in score.
    min_prob : float, default 0.7
        Smallest probability ``Phi(gap / sd)`` that the order is right.
    max_per_stratum, max_per_text : int
        Caps; the most certain pairs are kept.
    difference_variance : callable, optional
        Variance of the differences of rows i and j, where scores are correlated.
    confounders : mapping of str to array of shape (n,), optional
        Circumstances, for :meth:`Pairs.balance`.
    card : dict, optional
        What to write beside an export.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the pairs drawn in strata with very many texts.

    Returns
    -------
    Pairs
        Possibly none, with the reason.

    Raises
    ------
    DataError
        Lengths differ, or a score or variance is not usable.

    Examples
    --------
    >>> pairs = make_pairs([1.0, 0.0, 5.0], [0.1, 0.1, 0.1], [0, 0, 1], ["a", "b", "c"])
    >>> pairs.to_frame()[["chosen", "rejected"]].values.tolist()
    [['a', 'b']]
    """
    owner = "make_pairs"
    _check_options(min_gap, min_prob, max_per_stratum, max_per_text)
    values = check_numeric(score, "score", owner=owner)
    words = as_texts(texts, owner=owner)
    asked = None if prompts is None else as_texts(prompts, owner=owner)
    _check_lengths(values, strata, words, asked)
    codes = _cells(strata, asked)
    first, second = _candidates(codes, text_codes(words), max_per_stratum, random_state)
    swap = values[first] < values[second]
    chosen, rejected = np.where(swap, second, first), np.where(swap, first, second)
    gap = values[chosen] - values[rejected]
    spread = _spread(chosen, rejected, variance, difference_variance, len(values))
    safe = np.where(spread > 0, spread, 1.0)
    probability = np.where(spread > 0, ndtr(gap / safe), np.where(gap > 0, 1.0, 0.5))
    fit = (gap > 0) & (gap >= min_gap) & (probability >= min_prob)
    keep = _capped(fit, chosen, rejected, probability, codes, max_per_stratum, max_per_text)
    reason = _reason(codes, len(first), len(keep), min_prob, min_gap)
    return Pairs(
        chosen[keep], rejected[keep], gap[keep], probability[keep], words, asked, values, codes,
        dict(card or {}), reason, dict(confounders or {}),
    )  # fmt: skip


def _check_options(min_gap: float, min_prob: float, per_stratum: int, per_text: int) -> None:
    if not min_gap >= 0:
        raise ParameterError(f"make_pairs: min_gap={min_gap!r} must be 0 or more.")
    if not 0.5 <= min_prob < 1:
        raise ParameterError(
            f"make_pairs: min_prob={min_prob!r} must lie in [0.5, 1): the better text of a pair "
            "has at least even odds."
        )
    for name, value in (("max_per_stratum", per_stratum), ("max_per_text", per_text)):
        if value < 1:
            raise ParameterError(f"make_pairs: {name}={value!r} must be at least 1.")


def _check_lengths(
    values: FloatArray, strata: Any, texts: list[str], prompts: list[str] | None
) -> None:
    sizes = {"score": len(values), "strata": len(strata), "texts": len(texts)}
    if prompts is not None:
        sizes["prompts"] = len(prompts)
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"make_pairs: lengths differ ({shown}); every row needs one of each.")


def _cells(strata: Any, prompts: list[str] | None) -> IntArray:
    """Codes of the strata, split by prompt."""
    codes = np.unique(np.asarray(strata), return_inverse=True)[1].reshape(-1)
    if prompts is not None:
        own = np.unique(np.asarray(prompts, dtype=object), return_inverse=True)[1].reshape(-1)
        pair = codes * (int(own.max()) + 1) + own
        codes = np.unique(pair, return_inverse=True)[1].reshape(-1)
    return np.asarray(codes, dtype=np.int32)


def _candidates(
    codes: IntArray, same: IntArray, per_stratum: int, random_state: Any
) -> tuple[IntArray, IntArray]:
    """Distinct pairs inside strata whose texts differ: all, or a draw in very large strata."""
    from causalfair.reward import _kernels

    order, pointer = _kernels.counting_sort(codes, int(codes.max()) + 1)
    key = uint64_seed(root_seed(random_state), 0)
    first, second = _kernels.stratum_pairs(order, pointer, max(20 * per_stratum, 1_000), key)
    _, once = np.unique(first * len(codes) + second, return_index=True)
    first, second = first[once], second[once]
    differ = same[first] != same[second]
    return first[differ], second[differ]


def _spread(
    i: IntArray, j: IntArray, variance: Any, difference: Any, n: int
) -> FloatArray:  # fmt: skip
    if difference is not None:
        parts = [
            difference(i[a : a + CHUNK], j[a : a + CHUNK]) for a in range(0, max(len(i), 1), CHUNK)
        ]
        return np.asarray(np.sqrt(np.concatenate(parts)))
    if variance is None:
        raise DataError("make_pairs: variance= is needed where difference_variance= is not given.")
    own = check_numeric(variance, "variance", owner="make_pairs")
    if len(own) != n or (own < 0).any():
        raise DataError(
            f"make_pairs: variance needs {n} values of 0 or more; got {len(own)}, "
            f"{int((own < 0).sum())} of them negative."
        )
    return np.asarray(np.sqrt(own[i] + own[j]))


def _reason(codes: IntArray, found: int, kept: int, min_prob: float, min_gap: float) -> str:
    if kept:
        return ""
    if found:
        return f"none of {found} pairs has probability {min_prob:g} and gap {min_gap:g}; lower them"
    if int(codes.max()) + 1 == len(codes):
        return "every stratum has one text; use coarser strata"
    return "no stratum has two different texts; use coarser strata"


def _capped(
    fit: Any, chosen: IntArray, rejected: IntArray, probability: FloatArray, codes: IntArray,
    per_stratum: int, per_text: int,
) -> IntArray:  # fmt: skip
    """Rows of the pairs that stay: the most certain first, within both caps."""
    from causalfair.reward import _kernels_pairs

    rows = np.flatnonzero(fit)
    order = rows[np.argsort(-probability[rows], kind="stable")]
    kept = _kernels_pairs.cap_pairs(
        order, chosen, rejected, codes, int(codes.max()) + 1, per_stratum, per_text
    )
    return np.flatnonzero(kept)


def pairs_of_reward(
    reward: Any, *, by: str = "reward", strata: Any = None, prompts: Any = None, **options: Any
) -> Pairs:
    """Pairs of the logged texts of a fitted reward."""
    data, problem = reward._training("make_pairs")
    if data.texts is None:
        raise DataError("make_pairs needs the raw text: fit with text=.")
    if by not in ("reward", "outcome"):
        raise ParameterError(f"make_pairs: by={by!r} must be 'reward' or 'outcome'.")
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
        "library": "causalfair", "method": reward.method, "by": by, "n": data.n,
        "penalty": getattr(reward, "penalty_", None),
        "confounders": list(problem.confounders.names), "categorical": list(data.categorical),
    }  # fmt: skip
    common = {
        "prompts": prompts, "card": card, "random_state": child_seed(reward._root, 8),
        "confounders": {**data.categorical, **data.numeric},
    } | options  # fmt: skip
    if by == "outcome":
        score = reward.corrected_outcome_ - reward.reference_outcome_
        return make_pairs(score, _noise(reward, problem), strata, data.texts, **common)
    score, difference = _reward_scores(reward, problem)
    return make_pairs(score, None, strata, data.texts, difference_variance=difference, **common)


def _noise(reward: Any, problem: Any) -> FloatArray:
    """Variance (n,) of each corrected outcome around its text's reward."""
    left = problem.confounders.residualize(reward.corrected_outcome_)
    if hasattr(reward, "coef_"):
        left = left - problem.within @ reward.coef_
    else:
        left = left - problem.confounders.residualize(reward.out_of_fold_scores_)
    room = max(1 - problem.confounders.degrees_of_freedom() / len(left), 1 / len(left))
    return np.asarray(np.average(left**2, weights=problem.weight) / room / problem.weight)


def _reward_scores(
    reward: Any, problem: Any
) -> tuple[FloatArray, Callable[[IntArray, IntArray], FloatArray]]:
    """Rewards (n,) of the logged texts, and the variance of their differences."""
    if hasattr(reward, "coef_"):
        draws = problem.centred @ reward._posterior.root
        score = problem.centred @ reward.coef_
        divisor = 1
    else:
        draws = np.ascontiguousarray(reward._posterior._spreads(problem.X).T)
        draws -= draws.mean(axis=1, keepdims=True)
        score = reward._posterior.mean(problem.X)
        divisor = draws.shape[1] - 1

    def difference(i: IntArray, j: IntArray) -> FloatArray:
        return np.asarray(((draws[i] - draws[j]) ** 2).sum(axis=1) / divisor)

    return score, difference
