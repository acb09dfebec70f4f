"""Simulated decisions that hide outcomes: linear, probit, thresholds, judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import betainc, expit, ndtr

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, RandomState
from causalfair.exceptions import ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "make_heckman_selection",
    "make_judges",
    "make_probit_selection",
    "make_threshold_searches",
]


def _covariates(n: int, p: int, rng: np.random.Generator, least: int, owner: str) -> FloatArray:
    if n < 10 or p < least:
        raise ParameterError(
            f"{owner} got n={n} and n_covariates={p}; use n >= 10, n_covariates >= {least}."
        )
    return rng.standard_normal((n, p))


def _table(X: FloatArray, y: FloatArray, tested: Any) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(X, columns=[f"x{j + 1}" for j in range(X.shape[1])])
    frame.insert(0, "tested", tested.astype(int))
    frame.insert(0, "y", np.where(tested, y, np.nan))
    return frame


def make_heckman_selection(
    n: int = 5000,
    n_covariates: int = 4,
    *,
    sigma: float = 2.0,
    correlation: float = 0.5,
    free: tuple[int, ...] = (1,),
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    r"""Simulate a continuous outcome measured only where a decision on it fell.

    Covariates are standard normal, outcome coefficients too with intercept -2; the decision is a
    probit with intercept 2 whose error is correlated with the outcome's. Along the covariates not
    in ``free`` the decision follows the outcome alone.

    Parameters
    ----------
    n : int, default 5000
        Rows.
    n_covariates : int, default 4
        Covariates.
    sigma : float, default 2.0
        Standard deviation of the outcome's error.
    correlation : float, default 0.5
        Of the two errors.
    free : tuple of int, default (1,)
        Covariates (from 1) along which the decision departs from the outcome.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``y`` (NaN where not tested), ``tested``, ``x1``, ``x2``, ...
    truth : Mapping
        ``"risk"`` and ``"selection"`` (coefficients, the intercept first), ``"sigma"``,
        ``"correlation"``, ``"alpha"``, ``"testing"`` (beta_Delta), ``"prevalence"`` (mean outcome
        of everybody), and for every row ``"mean"`` (E[Y|x]) and ``"y"``, seen or not.

    Raises
    ------
    ParameterError
        A size or parameter out of range.

    References
    ----------
    .. [1] Balachandar, S., Garg, N. and Pierson, E. (2024). Domain constraints improve risk
       prediction when outcome data is missing. ICLR. arXiv:2312.03878

    Examples
    --------
    >>> from causalfair.datasets import make_heckman_selection
    >>> frame, truth = make_heckman_selection(500, random_state=0)
    >>> list(frame.columns), truth["correlation"]
    (['y', 'tested', 'x1', 'x2', 'x3', 'x4'], 0.5)
    """
    owner = "make_heckman_selection"
    if not (sigma > 0 and -1 < correlation < 1):
        raise ParameterError(
            f"{owner} got sigma={sigma!r}, correlation={correlation!r}; use sigma > 0 and a "
            "correlation inside (-1, 1)."
        )
    rng = generator(root_seed(random_state))
    X = _covariates(n, n_covariates, rng, 1, owner)
    beta_y = rng.standard_normal(n_covariates + 1)
    beta_y[0] = -2.0
    slope, root = correlation / sigma, np.sqrt(1.0 - correlation**2)
    beta_t = slope * beta_y
    for j in free:
        beta_t[j] = rng.standard_normal()
    beta_t[0] = 2.0
    design = np.column_stack([np.ones(n), X])
    error = sigma * rng.standard_normal(n)
    chance = slope * error + root * rng.standard_normal(n)
    mean = design @ beta_y
    tested = design @ beta_t + chance > 0
    truth = {
        "risk": beta_y,
        "selection": beta_t,
        "sigma": sigma,
        "correlation": correlation,
        "alpha": slope / root,
        "testing": (beta_t - slope * beta_y) / root,
        "prevalence": -2.0,
        "mean": mean,
        "y": mean + error,
    }
    return _table(X, mean + error, tested), truth


def make_probit_selection(
    n: int = 5000,
    n_covariates: int = 3,
    *,
    sigma: float = 1.5,
    alpha: float = 1.0,
    intercept: float = -1.0,
    free: tuple[int, ...] = (1,),
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Simulate a binary outcome tested by somebody who sees more, with probit links.

    ``P(Y=1) = Phi(r)``, ``P(T=1) = Phi(alpha r + x' beta_Delta)``, risk score
    ``r = x' beta_Y + Z`` with Z normal.

    Parameters
    ----------
    n : int, default 5000
        Rows.
    n_covariates : int, default 3
        Covariates.
    sigma : float, default 1.5
        Standard deviation of the unobservable.
    alpha : float, default 1.0
        Weight of risk in the decision.
    intercept : float, default -1.0
        Intercept of the risk score.
    free : tuple of int, default (1,)
        Covariates (from 1) along which the decision departs from risk.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``y`` (NaN where not tested), ``tested``, ``x1``, ``x2``, ...
    truth : Mapping
        ``"risk"`` and ``"selection"`` (reduced-form coefficients, the intercept first),
        ``"correlation"``, ``"alpha"``, ``"sigma"``, ``"prevalence"`` (mean risk of the rows), and
        for every row ``"probability"`` (P(Y=1|x)) and ``"y"``, seen or not.

    Raises
    ------
    ParameterError
        A size or parameter out of range.

    Examples
    --------
    >>> from causalfair.datasets import make_probit_selection
    >>> frame, truth = make_probit_selection(500, random_state=0)
    >>> round(truth["correlation"], 3)
    0.692
    """
    owner = "make_probit_selection"
    if not (sigma > 0 and alpha > 0):
        raise ParameterError(f"{owner} got sigma={sigma!r}, alpha={alpha!r}; both are positive.")
    rng = generator(root_seed(random_state))
    X = _covariates(n, n_covariates, rng, 1, owner)
    beta_y = np.concatenate([[intercept], rng.normal(0.0, 0.7, n_covariates)])
    delta = np.zeros(n_covariates + 1)
    delta[0] = 0.5
    for j in free:
        delta[j] = rng.normal(0.0, 0.7)
    design = np.column_stack([np.ones(n), X])
    score = design @ beta_y + sigma * rng.standard_normal(n)
    y = (rng.random(n) < ndtr(score)).astype(float)
    tested = rng.random(n) < ndtr(alpha * score + design @ delta)
    wide, wide_t = np.sqrt(1 + sigma**2), np.sqrt(1 + alpha**2 * sigma**2)
    probability = ndtr(design @ beta_y / wide)
    truth = {
        "risk": beta_y / wide,
        "selection": (alpha * beta_y + delta) / wide_t,
        "correlation": float(alpha * sigma**2 / (wide * wide_t)),
        "alpha": alpha,
        "sigma": sigma,
        "prevalence": float(probability.mean()),
        "probability": probability,
        "y": y,
    }
    return _table(X, y, tested), truth


def make_threshold_searches(
    n_places: int = 20,
    *,
    thresholds: Mapping[str, float] | None = None,
    stops: int = 2000,
    signal: str = "beta",
    spread: float = 0.4,
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Simulate searches of several groups in many places, with known thresholds.

    Every person stopped has a probability of carrying contraband, drawn from the group's and
    place's law; whoever lies above the threshold is searched.

    Parameters
    ----------
    n_places : int, default 20
        Places.
    thresholds : mapping of str to float, optional
        Group to median threshold on the probability scale; by default 0.30 for ``"white"``, 0.20
        for ``"black"`` and 0.15 for ``"hispanic"``.
    stops : int, default 2000
        Mean number of stops of a group in a place.
    signal : {"beta", "discriminant"}, default "beta"
        Law of the probability: beta, or the posterior of guilt given a normal signal.
    spread : float, default 0.4
        Standard deviation of the logit threshold between places.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        One row a place and group: ``place``, ``group``, ``stops``, ``searches``, ``hits``.
    truth : Mapping
        ``"thresholds"``: group to the mean threshold over places, weighted by the stops of all
        groups; and for every row ``"threshold"``, ``"search_rate"``, ``"hit_rate"``.

    Raises
    ------
    ParameterError
        A size or parameter out of range.

    Examples
    --------
    >>> from causalfair.datasets import make_threshold_searches
    >>> frame, truth = make_threshold_searches(5, random_state=0)
    >>> frame.shape, sorted(truth["thresholds"])
    ((15, 5), ['black', 'hispanic', 'white'])
    """
    if signal not in ("beta", "discriminant") or n_places < 1 or stops < 1:
        raise ParameterError(
            f"make_threshold_searches got signal={signal!r}, n_places={n_places}, stops={stops}; "
            "signal is 'beta' or 'discriminant', sizes are positive."
        )
    import pandas as pd

    given = {"white": 0.30, "black": 0.20, "hispanic": 0.15} if thresholds is None else thresholds
    rng = generator(root_seed(random_state))
    groups = list(given)
    at_group = np.tile(np.arange(len(groups)), n_places)
    at_place = np.repeat(np.arange(n_places), len(groups))
    base = np.array([np.log(v / (1 - v)) for v in given.values()])
    logit_t = base[at_group] + spread * rng.standard_normal(len(at_group))
    share = rng.normal(-2.2, 0.2, len(groups))[at_group] + rng.normal(0, 0.1, n_places)[at_place]
    count = rng.poisson(stops * rng.uniform(0.3, 1.7, n_places)[at_place]) + 1
    threshold = expit(logit_t)
    if signal == "beta":
        total = np.exp(rng.normal(1.5, 0.1, len(groups))[at_group])
        a, b = total * expit(share), total * (1 - expit(share))
        searched = betainc(b, a, 1 - threshold)
        hit = expit(share) * betainc(b, a + 1, 1 - threshold)
    else:
        delta = np.exp(rng.normal(0.7, 0.1, len(groups))[at_group])
        cut = (logit_t - share + delta**2 / 2) / delta
        hit = expit(share) * ndtr(delta - cut)
        searched = hit + (1 - expit(share)) * ndtr(-cut)
    searches = rng.binomial(count, searched)
    hits = rng.binomial(searches, hit / searched)
    frame = pd.DataFrame(
        {
            "place": [f"place {p + 1}" for p in at_place],
            "group": [groups[g] for g in at_group],
            "stops": count,
            "searches": searches,
            "hits": hits,
        }
    )
    weight = frame.groupby("place")["stops"].transform("sum").to_numpy(dtype=float)
    means = {
        name: float(np.average(threshold[at_group == g], weights=weight[at_group == g]))
        for g, name in enumerate(groups)
    }
    truth = {
        "thresholds": means,
        "threshold": threshold,
        "search_rate": searched,
        "hit_rate": hit / searched,
    }
    return frame, truth


def make_judges(
    n: int = 5000,
    n_judges: int = 20,
    *,
    unobserved: float = 1.0,
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Simulate cases assigned at random to judges of different leniency.

    A case fails (``y = 1``) with probability S(x + unobserved z - 0.5); a judge sees x and z and
    releases the share of cases given by her leniency, uniform on (0.1, 0.9), those of least risk.

    Parameters
    ----------
    n : int, default 5000
        Cases.
    n_judges : int, default 20
        Judges.
    unobserved : float, default 1.0
        Weight of what judges see and the table does not hold.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``y`` (failure; NaN where not released), ``released``, ``judge``, ``x``.
    truth : Mapping
        ``"leniency"`` (one a judge), and for every case ``"probability"`` given x and z, ``"y"``
        whether released or not, and ``"failure_rate"``: a function of a score and a rate that
        gives the failure rate of releasing that share of all cases, lowest scores first.

    Raises
    ------
    ParameterError
        A size out of range.

    Examples
    --------
    >>> from causalfair.datasets import make_judges
    >>> frame, truth = make_judges(400, 4, random_state=0)
    >>> frame["judge"].nunique(), truth["leniency"].shape
    (4, (4,))
    """
    if n_judges < 1 or n < 10 * n_judges:
        raise ParameterError(
            f"make_judges got n={n}, n_judges={n_judges}; give at least ten cases a judge."
        )
    import pandas as pd

    rng = generator(root_seed(random_state))
    x, z = rng.standard_normal((2, n))
    score = x + unobserved * z
    probability = expit(score - 0.5)
    y = (rng.random(n) < probability).astype(float)
    judge = rng.integers(n_judges, size=n)
    leniency = rng.uniform(0.1, 0.9, n_judges)
    cut = np.sqrt(1 + unobserved**2) * _normal_quantile(leniency)
    released = score < cut[judge]
    frame = pd.DataFrame(
        {
            "y": np.where(released, y, np.nan),
            "released": released.astype(int),
            "judge": [f"judge {j + 1}" for j in judge],
            "x": x,
        }
    )

    def failure_rate(risk: Any, rate: float) -> float:
        kept = np.argsort(np.asarray(risk), kind="stable")[: round(rate * n)]
        return float(probability[kept].sum() / n)

    return frame, {
        "leniency": leniency,
        "probability": probability,
        "y": y,
        "failure_rate": failure_rate,
    }


def _normal_quantile(p: FloatArray) -> FloatArray:
    from scipy.special import ndtri

    return np.asarray(ndtri(p))
