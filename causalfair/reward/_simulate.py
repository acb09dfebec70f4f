"""Simulated text logs with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, RandomState

__all__ = ["make_bandit_texts", "make_headlines", "make_weekday_answers"]

ATTRIBUTES = ("number", "question", "shock", "how_to", "hope", "insider", "urgent", "jargon")
EFFECTS = np.array([0.30, 0.20, -0.40, 0.25, 0.50, 0.0, -0.25, -0.30])
LOADS = np.array([0.0, 0.0, 1.5, 0.0, 1.0, 1.2, 1.2, -1.2])
_WORDS = {
    "number": ("seven", "twelve"),
    "question": ("why", "which"),
    "shock": ("shock", "shocking"),
    "how_to": ("how", "guide"),
    "hope": ("hope", "hopeful"),
    "insider": ("insider", "secret"),
    "urgent": ("urgent", "breaking"),
    "jargon": ("paradigm", "leverage"),
}
_SYLLABLES = "bacodifugahekilomunaperisotuve"


def _vocabulary(size: int) -> list[str]:
    """Distinct made-up words of seven letters."""
    k = len(_SYLLABLES) // 2

    def syllable(i: int) -> str:
        return _SYLLABLES[2 * (i % k) : 2 * (i % k) + 2]

    return [syllable(i) + syllable(i // k) + syllable(7 * i + i // k**2) + "x" for i in range(size)]


def _write(attributes: FloatArray, topic: Any, rng: np.random.Generator) -> list[str]:
    """One headline a row: attribute words, five filler words, a topic word, in random order."""
    vocabulary = _vocabulary(400)
    zipf = 1 / np.arange(1, 401)
    filler = rng.choice(400, size=(len(attributes), 5), p=zipf / zipf.sum())
    choice = rng.integers(0, 2, size=attributes.shape)
    order = rng.random((len(attributes), 14))
    texts = []
    for i, row in enumerate(attributes):
        words = [_WORDS[ATTRIBUTES[j]][choice[i, j]] for j in np.flatnonzero(row)]
        words += [vocabulary[j] for j in filler[i]] + [f"topic{topic[i]}"]
        texts.append(" ".join(words[k] for k in np.argsort(order[i, : len(words)])))
    return texts


def make_headlines(
    n: int = 6_000,
    n_categories: int = 20,
    *,
    entangle: float = 1.0,
    confounding: float = 1.0,
    randomised: bool = False,
    n_evaluation: int = 2_000,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Headlines whose harmful words live in popular sections.

    Parameters
    ----------
    n : int, default 6000
        Headlines.
    n_categories : int, default 20
        Sections, with popularity from -1.5 to 1.5.
    entangle : float, default 1
        How strongly the section decides which words are used.
    confounding : float, default 1
        How strongly the section's popularity moves the outcome.
    randomised : bool, default False
        Words independent of the section, as in an experiment.
    n_evaluation : int, default 2000
        Fresh headlines, words independent of sections, to judge a reward on.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``headline``, ``section``, ``hour``, ``outcome``.
    truth : dict
        ``reward`` (n,), ``confounder_effect`` (n,), ``effects`` of the words, ``attributes``,
        ``evaluation_texts``, ``evaluation_reward``, ``evaluation_attributes``.

    Examples
    --------
    >>> frame, truth = make_headlines(10, random_state=0)
    >>> list(frame.columns)
    ['headline', 'section', 'hour', 'outcome']
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    section = rng.integers(0, n_categories, n)
    popularity = np.linspace(-1.5, 1.5, n_categories)[section]
    hour = rng.integers(0, 24, n)
    load = 0.0 if randomised else 0.8 * entangle
    share = expit(-0.6 + load * popularity[:, None] * LOADS)
    attributes = (rng.random((n, 8)) < share).astype(float)
    topic = np.where(rng.random(n) < 0.5, section, rng.integers(0, n_categories, n))
    reward = attributes @ EFFECTS
    effect = confounding * popularity + 0.5 * np.sin(2 * np.pi * hour / 24)
    outcome = reward + effect + rng.normal(size=n)
    texts = _write(attributes, topic, rng)
    fresh = (rng.random((n_evaluation, 8)) < expit(-0.6)).astype(float)
    evaluation = _write(fresh, rng.integers(0, n_categories, n_evaluation), rng)
    frame = pd.DataFrame(
        {"headline": texts, "section": [f"s{c}" for c in section], "hour": hour, "outcome": outcome}
    )
    truth = {
        "reward": reward,
        "confounder_effect": effect,
        "effects": dict(zip(ATTRIBUTES, EFFECTS.tolist(), strict=True)),
        "attributes": pd.DataFrame(attributes, columns=list(ATTRIBUTES)),
        "evaluation_texts": evaluation,
        "evaluation_reward": fresh @ EFFECTS,
        "evaluation_attributes": pd.DataFrame(fresh, columns=list(ATTRIBUTES)),
    }
    return frame, truth


def make_weekday_answers(
    n: int = 4_000, *, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """Answers to questions: a greeting that is a function of the weekday, and quality words.

    Parameters
    ----------
    n : int, default 4000
        Answers.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``question``, ``answer``, ``weekday``, ``age_days``, ``score``.
    truth : dict
        ``reward`` (n,), ``weekday_effect`` (7,), ``quality`` effects of the words.

    Examples
    --------
    >>> make_weekday_answers(5, random_state=0)[0].shape
    (5, 5)
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    weekday = rng.integers(0, 7, n)
    age = rng.exponential(20.0, n)
    effect = np.linspace(-1.0, 1.0, 7)
    words = {"example": 0.6, "source": 0.4, "maybe": -0.3, "simply": -0.5}
    used = rng.random((n, 4)) < 0.4
    vocabulary = _vocabulary(60)
    filler = rng.integers(0, 60, (n, 4))
    names = np.array(list(words))
    answers = [
        " ".join([f"greet{weekday[i]}", *names[used[i]], *(vocabulary[j] for j in filler[i])])
        for i in range(n)
    ]
    reward = used @ np.array(list(words.values()))
    score = reward + effect[weekday] + 0.5 * np.log1p(age) + rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "question": rng.integers(0, n // 4 + 1, n),
            "answer": answers,
            "weekday": weekday,
            "age_days": age,
            "score": score,
        }
    )
    return frame, {"reward": reward, "weekday_effect": effect, "quality": words}


def make_bandit_texts(
    n: int = 4_000, *, overlap: float = 1.0, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """Two texts logged by a context-dependent policy, to value a new policy off the log.

    Parameters
    ----------
    n : int, default 4000
        Rows.
    overlap : float, default 1
        Small values make the logging policy nearly deterministic given the context.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``context``, ``text`` (0/1), ``propensity`` of the logged text, ``new_propensity`` of it
        under the new policy, ``y``.
    truth : dict
        ``value`` of the new policy (text 1 with probability 0.3 everywhere), ``logged_value``,
        ``means`` of the two texts.

    Examples
    --------
    >>> round(make_bandit_texts(10, random_state=0)[1]["value"], 2)
    0.45
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    context = rng.normal(size=n)
    p1 = expit(1.4 + context / max(overlap, 1e-6))
    text = (rng.random(n) < p1).astype(int)
    y = (rng.random(n) < np.where(text == 1, 0.1, 0.6)).astype(float)
    frame = pd.DataFrame(
        {
            "context": context,
            "text": text,
            "propensity": np.where(text == 1, p1, 1 - p1),
            "new_propensity": np.where(text == 1, 0.3, 0.7),
            "y": y,
        }
    )
    logged = float((0.6 - 0.5 * p1).mean())
    return frame, {"value": 0.45, "logged_value": logged, "means": (0.6, 0.1)}
