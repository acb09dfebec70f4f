"""Simulated rewards of texts that are numbers already, with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import RandomState

__all__ = [
    "make_linear_reward",
    "make_popularity_iv",
    "make_preferences",
    "make_proximal_reward",
    "make_simpson_reward",
    "make_text_rates",
    "make_two_sources",
]


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
    n_pairs: int = 4_000,
    n_features: int = 4,
    *,
    n_annotators: int = 5,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Pairwise judgements with a position effect and annotators who like length, some more.

    Parameters
    ----------
    n_pairs : int, default 4000
        Judgements.
    n_features : int, default 4
        Features of the texts.
    n_annotators : int, default 5
        Annotators; their taste for length runs from 0.2 to 0.8.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Differences ``d0, ...`` of features, ``shown_first`` (1 or -1), ``length_gap``,
        ``annotator``, ``stratum``, ``win``.
    truth : dict
        ``beta``, ``position`` and mean ``length`` effects on the log odds, and
        ``length_by_annotator``.

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
    annotator = rng.integers(0, n_annotators, n_pairs)
    taste = np.linspace(0.2, 0.8, n_annotators) if n_annotators > 1 else np.array([0.5])
    win = rng.random(n_pairs) < expit(d @ beta + taste[annotator] * length + 0.4 * first)
    frame = pd.DataFrame(d, columns=[f"d{j}" for j in range(n_features)])
    frame = frame.assign(
        shown_first=first,
        length_gap=length,
        annotator=annotator,
        stratum=rng.integers(0, max(n_pairs // 5, 2), n_pairs),
        win=win.astype(float),
    )
    truth = {"beta": beta, "position": 0.4, "length": 0.5, "length_by_annotator": taste}
    return frame, truth


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
    >>> int((make_two_sources(400, random_state=0)[0]["experiment"] >= 0).sum())
    40
    """
    import pandas as pd

    rng = generator(root_seed(random_state))
    m = round(n * experimental_share / 4) * 4
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


def make_text_rates(
    n_tests: int = 300,
    n_arms: int = 4,
    *,
    concentration: float = 2_000.0,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Click rates of headlines inside tests: beta-binomial arms with test effects.

    Parameters
    ----------
    n_tests : int, default 300
        Tests.
    n_arms : int, default 4
        Headlines a test.
    concentration : float, default 2000
        Of the beta law of an arm's rate around what its features say: the larger, the closer.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        ``x0, ..., x3``, ``test``, ``clicks``, ``views``.
    truth : dict
        ``beta`` on the log odds, ``rate`` of every arm.

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
    mean = expit(level[test] + (x - x.mean(axis=0)) @ beta)
    rate = rng.beta(concentration * mean, concentration * (1 - mean))
    views = rng.integers(500, 5_000, len(test))
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(4)])
    frame = frame.assign(test=test, clicks=rng.binomial(views, rate), views=views)
    return frame, {"beta": beta, "rate": rate}
