"""Simulated text logs with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, RandomState

__all__ = [
    "make_bandit_texts",
    "make_headlines",
    "make_linear_reward",
    "make_popularity_iv",
    "make_preferences",
    "make_proximal_reward",
    "make_simpson_reward",
    "make_text_rates",
    "make_two_sources",
    "make_weekday_answers",
]

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
_SYLLABLES = (
    "ba",
    "co",
    "di",
    "fu",
    "ga",
    "he",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "ri",
    "so",
    "tu",
    "ve",
)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _vocabulary(size: int) -> list[str]:
    k = len(_SYLLABLES)
    return [
        _SYLLABLES[i % k] + _SYLLABLES[(i // k) % k] + _SYLLABLES[(7 * i + i // (k * k)) % k] + "x"
        for i in range(size)
    ]


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
    share = _sigmoid(-0.6 + load * popularity[:, None] * LOADS)
    attributes = (rng.random((n, 8)) < share).astype(float)
    topic = np.where(rng.random(n) < 0.5, section, rng.integers(0, n_categories, n))
    reward = attributes @ EFFECTS
    effect = confounding * popularity + 0.5 * np.sin(2 * np.pi * hour / 24)
    outcome = reward + effect + rng.normal(size=n)
    texts = _write(attributes, topic, rng)
    fresh = (rng.random((n_evaluation, 8)) < _sigmoid(-0.6)).astype(float)
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


def make_linear_reward(
    n: int = 2_000,
    *,
    overlap: float = 0.8,
    beta: float = -1.0,
    gamma: float = 3.0,
    exact: bool = False,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """One feature and one confounder: ``X = aW + sqrt(1 - a**2) V``, ``Y = beta X + gamma W + e``.

    Parameters
    ----------
    n : int, default 2000
        Rows.
    overlap : float, default 0.8
        Correlation ``a`` of the feature with the confounder.
    beta, gamma : float
        Effects of feature and confounder.
    exact : bool, default False
        Make the sample moments of W, V and e equal those of the population, so that every method
        gives its limit exactly.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``x``, ``w``, ``y``.
    truth : dict
        ``beta``, ``gamma`` and the limits of the slope by method.

    Examples
    --------
    >>> round(make_linear_reward(100, random_state=0)[1]["naive"], 10)
    1.4
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    draws = rng.normal(size=(n, 3))
    if exact:
        draws -= draws.mean(axis=0)
        draws = np.linalg.qr(draws)[0] * np.sqrt(n)
    w, v, e = draws.T
    x = overlap * w + np.sqrt(1 - overlap**2) * v
    frame = pd.DataFrame({"x": x, "w": w, "y": beta * x + gamma * w + e})
    truth = {
        "beta": beta, "gamma": gamma, "naive": beta + gamma * overlap,
        "residual_y": beta * (1 - overlap**2), "orthogonal": beta, "subtract": beta,
        "invariant": 0.0,
    }  # fmt: skip
    return frame, truth


def make_simpson_reward(
    n: int = 2_000, *, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """A binary text property that hurts and is used where outcomes are good.

    Parameters
    ----------
    n : int, default 2000
        Rows; rounded to a multiple of ten, with exact cell shares.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the noise.

    Returns
    -------
    frame : pandas.DataFrame
        ``a`` (property), ``w`` (confounder), ``y``.
    truth : dict
        ``effect`` -1, and the limits of the naive and outcome-only slopes, 1.4 and -0.64.

    Examples
    --------
    >>> make_simpson_reward(100, random_state=0)[1]["effect"]
    -1.0
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    m = max(n // 10, 2)
    w = np.repeat([0.0, 1.0], 5 * m)
    a = np.concatenate([np.repeat([1.0, 0.0], [m, 4 * m]), np.repeat([1.0, 0.0], [4 * m, m])])
    noise = rng.normal(size=len(w))
    for i in (0.0, 1.0):  # noise without any cell mean keeps the limits exact
        for j in (0.0, 1.0):
            cell = (w == i) & (a == j)
            noise[cell] -= noise[cell].mean()
    frame = pd.DataFrame({"a": a, "w": w, "y": -a + 4 * w + noise})
    return frame, {"effect": -1.0, "naive": 1.4, "residual_y": -0.64, "overlap_weight": 0.16}


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
    greetings = [f"greet{d}" for d in range(7)]
    answers = [
        " ".join(
            [
                greetings[weekday[i]],
                *np.array(list(words))[used[i]],
                *(vocabulary[j] for j in filler[i]),
            ]
        )
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


def make_popularity_iv(
    n: int = 5_000, *, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """Popularity moves the outcome, is moved by the text, and shares an unseen cause with it.

    ``P = 0.7 X + Z + U + v`` and ``Y = 0.5 X + 2 P + 3 U + e``; all other terms standard normal.

    Parameters
    ----------
    n : int, default 5000
        Rows.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``x``, ``popularity``, ``slot`` (the instrument), ``y``.
    truth : dict
        ``beta`` 0.5, ``gamma`` 2, and the limits of least squares and of the naive slope.

    Examples
    --------
    >>> make_popularity_iv(5, random_state=0)[1]["gamma"]
    2.0
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    x, z, u, v, e = rng.normal(size=(5, n))
    p = 0.7 * x + z + u + v
    frame = pd.DataFrame({"x": x, "popularity": p, "slot": z, "y": 0.5 * x + 2 * p + 3 * u + e})
    return frame, {"beta": 0.5, "gamma": 2.0, "ols_beta": -0.2, "ols_gamma": 3.0, "naive": 1.9}


def make_proximal_reward(
    n: int = 5_000, *, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """An unseen confounder with a proxy on the text's side and one on the outcome's side.

    Parameters
    ----------
    n : int, default 5000
        Rows.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``x``, ``text_proxy``, ``outcome_proxy``, ``y``.
    truth : dict
        ``beta`` 1, ``gamma`` 2, the naive limit 2, and 5/3 with the outcome proxy held fixed.

    Examples
    --------
    >>> make_proximal_reward(5, random_state=0)[1]["beta"]
    1.0
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    u, a, b, c, e = rng.normal(size=(5, n))
    x = u + a
    frame = pd.DataFrame({"x": x, "text_proxy": u + b, "outcome_proxy": u + c, "y": x + 2 * u + e})
    return frame, {"beta": 1.0, "gamma": 2.0, "naive": 2.0, "proxy_adjusted": 1 + 2 / 3}


def make_preferences(
    n_pairs: int = 4_000, n_features: int = 4, *, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """Pairwise judgements with a position effect and annotators who like length.

    Parameters
    ----------
    n_pairs : int, default 4000
        Judgements.
    n_features : int, default 4
        Features of the texts.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Differences ``d0, ...`` of features, ``shown_first``, ``length_gap``, ``stratum``, ``win``.
    truth : dict
        ``beta``, ``position`` and ``length`` effects on the log odds.

    Examples
    --------
    >>> make_preferences(5, random_state=0)[1]["position"]
    0.4
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    beta = np.linspace(1.0, -1.0, n_features)
    d = rng.normal(size=(n_pairs, n_features))
    length = 0.8 * d[:, 0] + 0.6 * rng.normal(size=n_pairs)
    first = rng.choice([-1.0, 1.0], n_pairs)
    win = rng.random(n_pairs) < _sigmoid(d @ beta + 0.5 * length + 0.4 * first)
    frame = pd.DataFrame(d, columns=[f"d{j}" for j in range(n_features)])
    frame = frame.assign(
        shown_first=first,
        length_gap=length,
        stratum=rng.integers(0, max(n_pairs // 5, 2), n_pairs),
        win=win.astype(float),
    )
    return frame, {"beta": beta, "position": 0.4, "length": 0.5}


def make_two_sources(
    n: int = 4_000,
    *,
    experimental_share: float = 0.1,
    bias: float = 1.0,
    n_features: int = 6,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Observational rows with a hidden cause, and some experiments of four texts each.

    Parameters
    ----------
    n : int, default 4000
        Rows.
    experimental_share : float, default 0.1
        Share of rows in experiments.
    bias : float, default 1
        Strength of the hidden cause in observational rows.
    n_features : int, default 6
        Features of the texts.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``x0, ...``, ``topic``, ``experiment`` (-1 where observational), ``y``.
    truth : dict
        ``beta`` and ``biased`` (what observational rows alone converge to).

    Examples
    --------
    >>> (make_two_sources(400, random_state=0)[0]["experiment"] >= 0).sum()
    40
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    m = int(round(n * experimental_share / 4)) * 4
    beta = np.linspace(1.0, -1.0, n_features)
    lean = np.where(np.arange(n_features) % 2 == 0, -1.0, 1.0) / np.sqrt(n_features)
    hidden = rng.normal(size=n)
    hidden[:m] = np.repeat(rng.normal(size=m // 4), 4)
    x = rng.normal(size=(n, n_features))
    x[m:] += bias * hidden[m:, None] * lean
    topic = rng.integers(0, 30, n)
    topic[:m] = np.repeat(rng.integers(0, 30, m // 4), 4)
    y = x @ beta + bias * hidden + np.linspace(-1, 1, 30)[topic] + rng.normal(size=n)
    experiment = np.concatenate([np.repeat(np.arange(m // 4), 4), np.full(n - m, -1)])
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(n_features)])
    frame = frame.assign(topic=topic, experiment=experiment, y=y)
    covariance = np.eye(n_features) + bias**2 * np.outer(lean, lean)
    shift = np.linalg.solve(covariance, bias**2 * lean)
    return frame, {"beta": beta, "biased": beta + shift}


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
        ``value`` of the new policy (text 1 with probability 0.3 everywhere), ``logged_value``.

    Examples
    --------
    >>> round(make_bandit_texts(10, random_state=0)[1]["value"], 2)
    0.45
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    context = rng.normal(size=n)
    p1 = _sigmoid(1.4 + context / max(overlap, 1e-6))
    text = (rng.random(n) < p1).astype(int)
    mean = np.where(text == 1, 0.1, 0.6) + 0.0 * context
    y = (rng.random(n) < mean).astype(float)
    frame = pd.DataFrame(
        {
            "context": context,
            "text": text,
            "propensity": np.where(text == 1, p1, 1 - p1),
            "new_propensity": np.where(text == 1, 0.3, 0.7),
            "y": y,
        }
    )
    return frame, {"value": 0.45, "logged_value": float((0.6 - 0.5 * p1).mean())}


def make_text_rates(
    n_tests: int = 300, n_arms: int = 4, *, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """Click rates of headlines inside tests: binomial arms with test effects.

    Parameters
    ----------
    n_tests : int, default 300
        Tests.
    n_arms : int, default 4
        Headlines a test.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``x0, ..., x3``, ``test``, ``clicks``, ``views``.
    truth : dict
        ``beta`` on the log odds.

    Examples
    --------
    >>> make_text_rates(3, 2, random_state=0)[0].shape
    (6, 7)
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    beta = np.array([0.3, -0.2, 0.1, 0.0])
    test = np.repeat(np.arange(n_tests), n_arms)
    level = rng.normal(-3.0, 0.5, n_tests)
    x = rng.normal(size=(len(test), 4)) + 0.5 * level[test][:, None]
    rate = _sigmoid(level[test] + (x - x.mean(axis=0)) @ beta + 0.1 * rng.normal(size=len(test)))
    views = rng.integers(500, 5_000, len(test))
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(4)])
    frame = frame.assign(test=test, clicks=rng.binomial(views, rate), views=views)
    return frame, {"beta": beta}
