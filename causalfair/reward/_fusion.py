"""Observational and experimental evidence together, and which experiment to run next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from causalfair._core.crossfit import make_folds
from causalfair._core.random import child_seed, root_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_matrix
from causalfair.exceptions import DataError, ParameterError

__all__ = ["Fusion", "fuse", "inverse_variance_weight", "select_experiments"]


@dataclass(frozen=True)
class Fusion:
    """Win probabilities of pairs from two sources.

    Attributes
    ----------
    table : pandas.DataFrame
        ``observational``, ``experimental``, ``weight`` of the observational one, ``probability``
        and ``rmse``; one row a pair.
    bias : float
        Estimated bias of the observational probabilities, towards their favourite.
    bias_squared : float
        Its square less its sampling variance, not below zero.
    """

    table: Any
    bias: float
    bias_squared: float

    def to_frame(self) -> Any:
        """The table as a pandas frame.

        Returns
        -------
        pandas.DataFrame
            One row a pair.
        """
        return self.table.copy()

    def __repr__(self) -> str:
        weight = float(self.table["weight"].mean())
        return (
            f"Fusion of {len(self.table)} pairs: observational bias {self.bias:+.3f}, mean weight of "
            f"the observational source {weight:.2f}"
        )


def inverse_variance_weight(
    variance_observational: Any, variance_experimental: Any, bias_squared: Any
) -> tuple[FloatArray, FloatArray]:
    """Weight of a biased source next to an unbiased one, and the mean squared error reached.

    Parameters
    ----------
    variance_observational, variance_experimental : array
        Variances of the two sources.
    bias_squared : array
        Squared bias of the observational one.

    Returns
    -------
    weight, mse : numpy.ndarray
        ``w = V_U / (b^2 + V_B + V_U)`` and ``V_U (b^2 + V_B) / (b^2 + V_B + V_U)``.

    Examples
    --------
    >>> weight, mse = inverse_variance_weight(0.01, 0.09, 0.04)
    >>> float(weight.round(4)), float(mse.round(5))
    (0.6429, 0.03214)
    """
    vb, vu, b2 = (
        np.asarray(a, float) for a in (variance_observational, variance_experimental, bias_squared)
    )
    total = b2 + vb + vu
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, vu / safe, 0.5), np.where(total > 0, vu * (b2 + vb) / safe, 0.0)


def observational_probability(reward: Any, D: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``Phi(d'beta / s_d)`` of a linear reward and its variance, by Gauss-Hermite quadrature."""
    mean = D @ reward.coef_
    spread = np.sqrt(((D @ reward._posterior.root) ** 2).sum(axis=1))
    safe = np.where(spread > 0, spread, 1.0)
    z = np.where(spread > 0, mean / safe, 0.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    weights = weights / weights.sum()
    draws = ndtr(z[:, None] + nodes)
    first = draws @ weights
    return ndtr(z), np.maximum((draws**2) @ weights - first**2, 0.0)


def fuse(
    obs: Any,
    exp: Any,
    a: Any,
    b: Any,
    *,
    tests: Any = None,
    method: str = "ivw",
    random_state: Any = 0,
) -> Fusion:
    """Join a deconfounded observational reward with a pairwise experimental one.

    Parameters
    ----------
    obs : DeconfoundedReward
        Linear reward from logs.
    exp : PairwiseReward
        Reward from randomised tests, on the same features.
    a, b : array of shape (m, d)
        Features of the two texts of the pairs wanted.
    tests : tuple (D, win, test) of arrays, optional
        Differences (n, d), wins (n,) and test ids (n,) of the experiments: the bias of ``obs`` is
        estimated on halves of the tests that the experimental fit did not see. Without it the
        observational source is taken as unbiased.
    method : {"ivw", "grounding"}, default "ivw"
        Inverse-variance fusion of probabilities; or experimental pairs refitted on top of the
        observational score, with a ridge-penalised linear correction (needs ``tests``).
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the split of the tests.

    Returns
    -------
    Fusion
        Probabilities that the first text is better.

    References
    ----------
    .. [1] N. Kallus, A. M. Puli, U. Shalit (2018). Removing hidden confounding by experimental
       grounding. NeurIPS. arXiv:1810.11646

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.datasets import make_two_sources
    >>> from causalfair.reward import DeconfoundedReward, PairwiseReward
    >>> logs, truth = make_two_sources(random_state=0)
    >>> names = [f"x{j}" for j in range(6)]
    >>> obs = DeconfoundedReward().fit(logs, "y", embedding=names, categorical=["topic"])
    >>> tested = logs[logs.experiment >= 0]
    >>> first, second = tested[names].to_numpy()[::2], tested[names].to_numpy()[1::2]
    >>> win = (tested.y.to_numpy()[::2] > tested.y.to_numpy()[1::2]).astype(float)
    >>> exp = PairwiseReward().fit(first - second, win)
    >>> fuse(obs, exp, first[:3], second[:3]).to_frame().shape
    (3, 5)
    """
    import pandas as pd

    if method not in ("ivw", "grounding"):
        raise ParameterError(f"method={method!r} must be 'ivw' or 'grounding'.")
    if not hasattr(obs, "coef_"):
        raise ParameterError('fuse needs a linear observational reward: learner="ridge".')
    A, B = (check_matrix(m, name, owner="fuse") for m, name in ((a, "a"), (b, "b")))
    check_lengths(owner="fuse", a=A, b=B)
    D = A - B
    theta_b, var_b = observational_probability(obs, D)
    if method == "grounding":
        return _grounding(obs, D, theta_b, tests, random_state)
    theta_u, var_u = exp.win_probability(D)
    bias, bias_squared = 0.0, 0.0
    if tests is not None:
        bias, bias_squared = _bias(obs, exp, tests, random_state)
    weight, mse = inverse_variance_weight(var_b, var_u, bias_squared)
    joined = weight * theta_b + (1 - weight) * theta_u
    table = pd.DataFrame(
        {"observational": theta_b, "experimental": theta_u, "weight": weight,
         "probability": joined, "rmse": np.sqrt(mse)}
    )  # fmt: skip
    return Fusion(table, bias, bias_squared)


def _check_tests(tests: Any) -> tuple[FloatArray, FloatArray, Any]:
    if tests is None or len(tests) != 3:
        raise DataError("fuse: tests must be (differences, wins, test ids).")
    D, win, ids = check_matrix(tests[0], "tests", owner="fuse"), *map(np.asarray, tests[1:])
    check_lengths(owner="fuse", differences=D, wins=win, ids=ids)
    codes = np.unique(ids, return_inverse=True)[1].reshape(-1)
    if codes.max() < 3:
        raise DataError(f"fuse: {codes.max() + 1} tests are too few to split; give at least 4.")
    return D, win.astype(float), codes


def _bias(obs: Any, exp: Any, tests: Any, random_state: Any) -> tuple[float, float]:
    """Cross-fitted bias of the observational probability, every pair facing its favourite.

    The bias is antisymmetric in the order of a pair: without that orientation it averages to zero.
    """
    from sklearn.base import clone

    D, win, codes = _check_tests(tests)
    folds = make_folds(len(win), 2, seed=child_seed(root_seed(random_state), 0), groups=codes)
    gaps = np.empty(len(win))
    for fold in (0, 1):
        train, test = folds != fold, folds == fold
        half = clone(exp).fit(D[train], win[train], cluster=codes[train])
        theta_b, _ = observational_probability(obs, D[test])
        theta_u, _ = half.win_probability(D[test])
        gaps[test] = np.where(theta_b >= 0.5, theta_b - theta_u, theta_u - theta_b)
    sums = np.bincount(codes, gaps - gaps.mean())
    variance = float((sums**2).sum()) / len(gaps) ** 2
    bias = float(gaps.mean())
    return bias, max(0.0, bias**2 - variance)


def _grounding(
    obs: Any, D: FloatArray, theta_b: FloatArray, tests: Any, random_state: Any
) -> Fusion:
    """Experimental pairs on ``c * observational score + x'theta``, the correction penalised."""
    import pandas as pd

    from causalfair.reward._pairwise import PairwiseReward

    if tests is None:
        raise DataError('fuse: method="grounding" needs tests=(differences, wins, test ids).')
    T, win, codes = _check_tests(tests)
    score = (T @ obs.coef_)[:, None]
    scale = max(float(score.std()), 1e-12)
    fitted = PairwiseReward(random_state=random_state).fit(
        T, win, nuisance=score / scale, cluster=codes
    )
    trust = max(float(fitted.nuisance_coef_[0]), 0.0)
    eta = trust * (D @ obs.coef_) / scale + D @ fitted.coef_
    p = 1 / (1 + np.exp(-eta))
    table = pd.DataFrame(
        {"observational": theta_b, "experimental": 1 / (1 + np.exp(-D @ fitted.coef_)),
         "weight": np.full(len(D), trust), "probability": p, "rmse": np.full(len(D), np.nan)}
    )  # fmt: skip
    return Fusion(table, float("nan"), float("nan"))


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
    tests : sequence of arrays of shape (m_i, d)
        Features of the texts of each possible test.
    obs : DeconfoundedReward
        Reward from logs.
    exp : PairwiseReward, optional
        Reward from experiments so far, for ``rule="disagreement"``.
    rule : {"spread", "disagreement", "novelty", "smallest", "random"}, default "spread"
        Largest predicted spread (best with few experiments), largest disagreement of the two
        rewards about the order (best later), distance to what was seen, smallest spread, random.
    seen : array of shape (s, d), optional
        Features already tested, for ``rule="novelty"``.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random rule.

    Returns
    -------
    pandas.DataFrame
        ``test`` and ``score``, best first.

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

    mats = [check_matrix(t, f"tests[{i}]", owner="select_experiments") for i, t in enumerate(tests)]
    if rule in ("spread", "smallest"):
        values = np.array([np.ptp(m @ obs.coef_) for m in mats])
        values = -values if rule == "smallest" else values
    elif rule == "disagreement":
        if exp is None:
            raise ParameterError('select_experiments: rule="disagreement" needs exp=.')
        values = np.array([_disagreement(m, obs, exp) for m in mats])
    elif rule == "novelty":
        if seen is None:
            raise ParameterError('select_experiments: rule="novelty" needs seen=.')
        known = check_matrix(seen, "seen", owner="select_experiments")
        centre = [m.mean(axis=0) for m in mats]
        values = np.array([np.linalg.norm(known - c, axis=1).mean() for c in centre])
    elif rule == "random":
        values = np.random.default_rng(root_seed(random_state)).random(len(mats))
    else:
        raise ParameterError(
            f"rule={rule!r} must be 'spread', 'disagreement', 'novelty', 'smallest' or 'random'."
        )
    frame = pd.DataFrame({"test": np.arange(len(mats)), "score": values})
    return frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _disagreement(m: FloatArray, obs: Any, exp: Any) -> float:
    i, j = np.triu_indices(len(m), 1)
    D = m[i] - m[j]
    return float(np.abs(observational_probability(obs, D)[0] - exp.win_probability(D)[0]).mean())
