"""Which experiment to run next."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward._fusion import check_linear, observational_probability, text_rows

__all__ = ["select_experiments"]

RULES = ("spread", "disagreement", "novelty", "smallest", "random")


def select_experiments(
    tests: Any,
    obs: Any,
    exp: Any = None,
    *,
    rule: str = "spread",
    seen: Any = None,
    random_state: Any = 0,
) -> Any:
    """Order possible experiments by what they would teach.

    Parameters
    ----------
    tests : sequence of arrays of shape (m_i, d), or of lists of str
        The texts of each possible test: their features, or raw text where ``obs`` was fitted on it.
    obs : DeconfoundedReward
        Reward from logs.
    exp : PairwiseReward, optional
        Reward from experiments so far, for ``rule="disagreement"``.
    rule : {"spread", "disagreement", "novelty", "smallest", "random"}, default "spread"
        Largest predicted spread (best with few experiments), largest disagreement of the two
        rewards about the order (best later), distance to what was seen, smallest spread, random.
    seen : array of shape (s, d) or list of str, optional
        Texts already tested, for ``rule="novelty"``.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random rule.

    Returns
    -------
    pandas.DataFrame
        ``test`` and ``score``, best first.

    Raises
    ------
    ParameterError
        Unknown rule, or what the rule needs is missing.

    Examples
    --------
    >>> from causalfair.datasets import make_linear_reward
    >>> from causalfair.reward import DeconfoundedReward
    >>> logs, _ = make_linear_reward(200, random_state=0)
    >>> obs = DeconfoundedReward().fit(logs, "y", embedding=["x"], numeric=["w"])
    >>> select_experiments([[[0.0], [1.0]], [[0.0], [3.0]]], obs)["test"].tolist()
    [1, 0]
    """
    import pandas as pd

    owner = "select_experiments"
    if rule not in RULES:
        raise ParameterError(f"{owner}: rule={rule!r} must be one of {', '.join(RULES)}.")
    mats = [_test(obs, one, f"tests[{i}]") for i, one in enumerate(tests)]
    if rule in ("spread", "smallest"):
        sign = 1.0 if rule == "spread" else -1.0
        values = np.array([sign * np.ptp(obs.predict(one)) for one in tests])
    elif rule == "disagreement":
        if exp is None:
            raise ParameterError(f'{owner}: rule="disagreement" needs exp=.')
        check_linear(obs, owner)
        values = np.array([_disagreement(m, obs, exp) for m in mats])
    elif rule == "novelty":
        if seen is None:
            raise ParameterError(f'{owner}: rule="novelty" needs seen=.')
        known = text_rows(obs, seen, "seen", owner)
        centre = [m.mean(axis=0) for m in mats]
        values = np.array([np.linalg.norm(known - c, axis=1).mean() for c in centre])
    else:
        values = generator(root_seed(random_state)).random(len(mats))
    frame = pd.DataFrame({"test": np.arange(len(mats)), "score": values})
    return frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _test(obs: Any, test: Any, name: str) -> FloatArray:
    if len(test) < 2:
        raise DataError(f"select_experiments: {name} has {len(test)} text(s); a test needs two.")
    return text_rows(obs, test, name, "select_experiments")


def _disagreement(m: FloatArray, obs: Any, exp: Any) -> float:
    i, j = np.triu_indices(len(m), 1)
    D = m[i] - m[j]
    return float(np.abs(observational_probability(obs, D)[0] - exp.win_probability(D)[0]).mean())
