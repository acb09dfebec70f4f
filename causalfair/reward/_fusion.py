"""Observational and experimental evidence together, and which experiment to run next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, ndtr

from causalfair._core.crossfit import make_folds
from causalfair._core.random import child_seed, root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_lengths, check_matrix, check_numeric
from causalfair.exceptions import DataError, ParameterError

__all__ = ["Fusion", "check_linear", "fuse", "inverse_variance_weight", "text_rows"]


@dataclass(frozen=True)
class Fusion:
    """Win probabilities of pairs from two sources.

    Attributes
    ----------
    table : pandas.DataFrame
        ``observational`` and ``experimental`` probabilities that the first text is better, and the
        joint ``probability``; one row a pair. Inverse-variance fusion adds the ``weight`` of the
        observational source and ``rmse``, the root of the mean squared error reached.
    bias : float
        Mean bias of the observational probabilities, towards their favourite; NaN for grounding.
    bias_squared : float
        Mean of its square less its sampling variance, not below zero; NaN for grounding.
    trust : float or None
        Log odds per unit of observational reward that grounding found; None for fusion.
    coef : numpy.ndarray of shape (d,) or None
        Joint reward per unit of each feature, on the log-odds scale; None for fusion of
        probabilities, which is no function of single texts.
    """

    table: Any
    bias: float
    bias_squared: float
    trust: float | None = None
    coef: FloatArray | None = None

    def to_frame(self) -> Any:
        """The table as a pandas frame.

        Returns
        -------
        pandas.DataFrame
            One row a pair.
        """
        return self.table.copy()

    def predict(self, X: Any) -> FloatArray:
        """Joint reward of texts.

        Parameters
        ----------
        X : array of shape (n, d)
            Features.

        Returns
        -------
        numpy.ndarray of shape (n,)
            Log-odds scale.

        Raises
        ------
        ParameterError
            The sources were joined pair by pair.
        """
        if self.coef is None:
            raise ParameterError(
                'Fusion.predict: method="ivw" joins probabilities of pairs and gives no reward of '
                'single texts; use method="grounding", or a reward fitted with experiment=.'
            )
        return np.asarray(check_matrix(X, "X", owner="Fusion.predict") @ self.coef)

    def cite(self) -> Any:
        """References of the method.

        Returns
        -------
        causalfair.reporting.Citations
            Prints as text; ``bibtex()`` gives BibTeX.
        """
        from causalfair.reporting import Citations

        own = "loghmani2026reward" if self.coef is None else "kallus2018removing"
        return Citations((own, "causalfair"))

    def __repr__(self) -> str:
        if self.trust is not None:
            return (
                f"Fusion of {len(self.table)} pairs by grounding: {self.trust:.3g} log odds per "
                "unit of observational reward"
            )
        weight = float(self.table["weight"].mean())
        return (
            f"Fusion of {len(self.table)} pairs: observational bias {self.bias:+.3f}, mean weight "
            f"of the observational source {weight:.2f}"
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
    variance = np.maximum((draws**2) @ weights - first**2, 0.0)
    return ndtr(z), np.where(spread > 0, variance, 0.0)  # equal features: one half for certain


def fuse(
    obs: Any,
    exp: Any,
    a: Any,
    b: Any,
    *,
    tests: Any = None,
    method: str = "ivw",
    bias_bins: int = 1,
    random_state: Any = 0,
) -> Fusion:
    """Join a deconfounded observational reward with a pairwise experimental one.

    Parameters
    ----------
    obs : DeconfoundedReward
        Linear reward from logs.
    exp : PairwiseReward
        Reward from randomised tests, on the same features.
    a, b : array of shape (m, d), or list of str
        The two texts of the pairs wanted: their features, or raw text where ``obs`` was fitted on
        raw text (and ``exp`` on differences of ``obs.featurizer_.transform``).
    tests : tuple (D, win, test) of arrays, optional
        Differences (n, d), wins (n,) and test ids (n,) of the experiments: the bias of ``obs`` is
        estimated on halves of the tests that the experimental fit did not see. Without it the
        observational source is taken as unbiased.
    method : {"ivw", "grounding"}, default "ivw"
        Inverse-variance fusion of probabilities; or experimental pairs refitted on top of the
        observational score, with a ridge-penalised linear correction (needs ``tests``). The
        score's weight is kept from being negative.
    bias_bins : int, default 1
        Bins of the observational source's confidence ``|p - 1/2|`` with a bias of their own.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the split of the tests.

    Returns
    -------
    Fusion
        Probabilities that the first text is better.

    Raises
    ------
    ParameterError
        ``obs`` is not linear, or an option is unknown.
    DataError
        Shapes differ, or there are fewer than four tests.

    Notes
    -----
    Fusion weighs the observational probability by ``V_U / (b^2 + V_B + V_U)``. The bias of an
    observational reward is antisymmetric in the order of a pair, so every test pair is turned to
    face the observational favourite before averaging; in random order it would cancel. The
    sampling variance of the estimated bias is taken off its square. The observational probability
    is the certainty about an order, which long logs push to 0 or 1 whatever the size of the
    difference; that, too, counts as bias here.

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
        raise ParameterError(f"fuse: method={method!r} must be 'ivw' or 'grounding'.")
    if bias_bins < 1:
        raise ParameterError(f"fuse: bias_bins={bias_bins!r} must be at least 1.")
    check_linear(obs, "fuse")
    A, B = (text_rows(obs, m, name, "fuse") for m, name in ((a, "a"), (b, "b")))
    check_lengths(owner="fuse", a=A, b=B)
    D = A - B
    theta_b, var_b = observational_probability(obs, D)
    theta_u, var_u = exp.win_probability(D)
    table = pd.DataFrame({"observational": theta_b, "experimental": theta_u})
    if method == "grounding":
        return _grounding(obs, D, table, tests, random_state)
    bias, squared = 0.0, np.zeros(len(D))
    if tests is not None:
        bias, squared = _bias(obs, tests, theta_b, bias_bins, random_state)
    weight, mse = inverse_variance_weight(var_b, var_u, squared)
    joined = weight * theta_b + (1 - weight) * theta_u
    table = table.assign(weight=weight, probability=joined, rmse=np.sqrt(mse))
    return Fusion(table, bias, float(squared.mean()))


def check_linear(obs: Any, owner: str) -> None:
    """Refuse a reward without coefficients."""
    if not hasattr(obs, "coef_"):
        raise ParameterError(f'{owner} needs a linear observational reward: learner="ridge".')


def text_rows(obs: Any, values: Any, name: str, owner: str) -> FloatArray:
    """Features (m, d) of texts, centred where they are given raw."""
    if len(values) and isinstance(values[0], str):
        return np.asarray(obs._matrix(values, owner))
    matrix = check_matrix(values, name, owner=owner)
    if matrix.shape[1] != obs._n_features:
        raise DataError(
            f"{owner}: {name} has {matrix.shape[1]} features; the observational reward has "
            f"{obs._n_features}."
        )
    return matrix


def _check_tests(tests: Any, width: int) -> tuple[FloatArray, FloatArray, IntArray]:
    if tests is None or len(tests) != 3:
        raise DataError("fuse: tests must be (differences, wins, test ids).")
    D = check_matrix(tests[0], "tests", owner="fuse")
    win = check_numeric(tests[1], "wins", owner="fuse")
    ids = np.asarray(tests[2])
    check_lengths(owner="fuse", differences=D, wins=win, ids=ids)
    if D.shape[1] != width:
        raise DataError(f"fuse: tests have {D.shape[1]} features; the reward has {width}.")
    if ((win < 0) | (win > 1)).any():
        raise DataError("fuse: wins of the tests must lie in [0, 1]: the share of the first text.")
    codes = np.unique(ids, return_inverse=True)[1].reshape(-1)
    if codes.max() < 3:
        raise DataError(f"fuse: {codes.max() + 1} tests are too few to split; give at least 4.")
    return D, win, codes


def _bias(
    obs: Any, tests: Any, wanted: FloatArray, bins: int, random_state: Any
) -> tuple[float, FloatArray]:
    """Mean cross-fitted bias, and its squared size for the pairs wanted, by bin of confidence."""
    D, win, codes = _check_tests(tests, len(obs.coef_))
    folds = make_folds(len(win), 2, seed=child_seed(root_seed(random_state), 0), groups=codes)
    theta_u = np.empty(len(win))
    for fold in (0, 1):
        train, test = folds != fold, folds == fold
        coef = light_fit(D[train], win[train])
        theta_u[test] = expit(D[test] @ coef)
    theta_b, _ = observational_probability(obs, D)
    turn = np.where(theta_b >= 0.5, 1.0, -1.0)  # every pair faces its observational favourite
    gaps = turn * (theta_b - theta_u)
    confidence = np.abs(theta_b - 0.5)
    # Edges are observed values below the largest, so that no bin is empty.
    edges = np.unique(np.quantile(confidence, np.arange(1, bins) / bins, method="lower"))
    edges = edges[edges < confidence.max()]
    own, asked = (np.searchsorted(edges, c) for c in (confidence, np.abs(wanted - 0.5)))
    squares = [_bias_squared(gaps[own == k], codes[own == k]) for k in range(len(edges) + 1)]
    return float(gaps.mean()), np.array(squares)[asked]


def light_fit(D: FloatArray, win: FloatArray) -> FloatArray:
    """Coefficients with the vanishing penalty of the pairwise reward's win probabilities."""
    from causalfair.reward._pairwise import bradley_terry

    return bradley_terry(D, win, np.ones(len(win)), 1e-6 * (D**2).mean(axis=0))[0]


def _bias_squared(gaps: FloatArray, codes: IntArray) -> float:
    """Square of the mean less its sampling variance by tests, not below zero."""
    sums = np.bincount(codes, gaps - gaps.mean())
    return max(0.0, float(gaps.mean()) ** 2 - float((sums**2).sum()) / len(gaps) ** 2)


def _grounding(obs: Any, D: FloatArray, table: Any, tests: Any, random_state: Any) -> Fusion:
    """Experimental pairs on ``c * observational score + x'theta``, the correction penalised."""
    from causalfair.reward._pairwise import PairwiseReward

    if tests is None:
        raise DataError('fuse: method="grounding" needs tests=(differences, wins, test ids).')
    T, win, codes = _check_tests(tests, len(obs.coef_))
    score = (T @ obs.coef_)[:, None]
    scale = max(float(score.std()), 1e-12)
    model = PairwiseReward(random_state=random_state)
    fitted = model.fit(T, win, nuisance=score / scale, cluster=codes)
    trust = float(fitted.nuisance_coef_[0]) / scale
    if trust < 0:  # the likelihood is concave: under the constraint the weight is zero
        trust, fitted = 0.0, PairwiseReward(random_state=random_state).fit(T, win, cluster=codes)
    coef = trust * obs.coef_ + fitted.coef_
    table = table.assign(probability=expit(D @ coef))
    return Fusion(table, float("nan"), float("nan"), trust, coef)
