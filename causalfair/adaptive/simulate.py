"""Attacks and classical experiments with known answers.

Every function returns ``(frame, truth)``: a pandas frame of what was seen and a mapping with the
quantities it should be compared with.

References
----------
.. [1] Dwork, Feldman, Hardt, Pitassi, Reingold and Roth (2015), Generalization in adaptive data
   analysis and holdout reuse, NeurIPS. arXiv:1506.02629
.. [2] Freedman (1983), A note on screening regression equations, American Statistician 37:152-155.
.. [3] Blum and Hardt (2015), The ladder, ICML. arXiv:1502.04585
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

from causalfair._core.logging import progress
from causalfair._core.random import generator, root_seed
from causalfair._core.typing import RandomState
from causalfair.adaptive._experiments import (
    FEATURE_COUNTS,
    analyst_run,
    feature_experiment,
    freedman_run,
    ladder_attack_run,
    weights_run,
)
from causalfair.exceptions import ParameterError

__all__ = [
    "correlated_classifier",
    "coverage",
    "freedman",
    "guess_and_check_analyst",
    "leaderboard_attack",
    "multiplicative_weights_demo",
    "reusable_holdout_experiment",
]


def _counts(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or int(value) != value or value < 1:
            raise ParameterError(f"{name} must be an integer of at least 1. Got {value!r}.")


def correlated_classifier(
    n: int = 10_000,
    k: int = 1_000,
    sigma: float = 0.0,
    *,
    n_runs: int = 1,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, float]]:
    """Vote of features that looked good: a worthless classifier with a fine holdout accuracy.

    Agreement bits are fair coins. The analyst asks for the accuracy of ``k - 1`` features, then for
    the accuracy of the majority vote of all features signed by the answers. Every population
    accuracy is one half.

    Parameters
    ----------
    n, k : int
        Holdout rows and queries.
    sigma : float, default 0.0
        Gaussian noise on the answers; 0 is the naive holdout.
    n_runs : int, default 1
        Repetitions.
    random_state : int, optional
        Seed.

    Returns
    -------
    frame : DataFrame
        ``run``, ``accuracy`` (empirical accuracy of the vote), ``max_error`` (largest error of any
        released answer).
    truth : dict
        ``accuracy`` (0.5) and ``expected_accuracy`` of the vote on the holdout.

    Examples
    --------
    >>> from causalfair.adaptive import simulate
    >>> frame, truth = simulate.correlated_classifier(2_000, 200, random_state=0)
    >>> round(truth["expected_accuracy"], 4)
    0.5994
    """
    import pandas as pd

    from causalfair.adaptive import _kernels

    _counts(n=n, k=k, n_runs=n_runs)
    if not sigma >= 0:
        raise ParameterError(f"sigma must be at least 0. Got {sigma!r}.")
    root = root_seed(random_state)
    rows = []
    for run in progress(range(n_runs), desc="runs" if n_runs > 1 else None):
        rng = generator(root, run)
        bits = rng.integers(0, 2, (n, k - 1), dtype=np.uint8).view(bool)
        answers = bits.mean(axis=0) + sigma * rng.standard_normal(k - 1)
        signs = np.where(answers >= 0.5, 1.0, -1.0)
        accuracy = float(_kernels.majority_accuracy(bits, signs)) if k > 1 else 0.5
        final = accuracy + sigma * float(rng.standard_normal())
        errors = np.abs(np.append(answers, final) - 0.5)
        rows.append((run, accuracy, float(errors.max())))
    # Phi(sqrt(2(k-1)/(pi n)) / sqrt(1 + 4 n sigma^2))
    shift = math.sqrt(2 * (k - 1) / (math.pi * n)) / math.sqrt(1 + 4 * n * sigma**2)
    truth = {"accuracy": 0.5, "expected_accuracy": float(special.ndtr(shift))}
    return pd.DataFrame(rows, columns=["run", "accuracy", "max_error"]), truth


def reusable_holdout_experiment(
    n: int = 10_000,
    d: int = 10_000,
    *,
    n_signal: int = 0,
    shift: float = 0.06,
    counts: tuple[int, ...] = FEATURE_COUNTS,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Feature selection on a naive and on a Thresholdout holdout, with the fresh-data truth.

    Features are standard normal and the outcome is a fair sign; with `n_signal` the first features
    have mean ``shift * y``. Features are kept whose correlation with the outcome exceeds
    ``1/sqrt(n)`` in absolute value on training and holdout data with equal sign; the k largest on
    the training data vote. Thresholdout uses ``T = 4/sqrt(n)`` and Gaussian noise of sd
    ``1/sqrt(n)``, which no theory certifies.

    Parameters
    ----------
    n, d : int
        Rows of each of the three samples, and features. The full size runs in column blocks.
    n_signal : int, default 0
        Features with signal.
    shift : float, default 0.06
        Their mean.
    counts : tuple of int
        Numbers of features in the vote.
    random_state : int, optional
        Seed.

    Returns
    -------
    frame : DataFrame
        ``method`` (standard, thresholdout), ``k``, and the accuracies ``train``, ``holdout`` (as
        reported) and ``fresh``.
    truth : dict
        ``n_selected`` by method, ``exceedances``, ``signal_found``, ``expected_selected``.

    Examples
    --------
    >>> from causalfair.adaptive import simulate
    >>> frame, truth = simulate.reusable_holdout_experiment(500, 400, counts=(10,), random_state=0)
    >>> sorted(frame["method"])
    ['standard', 'thresholdout']
    """
    import pandas as pd

    _counts(n=n, d=d)
    if not 0 <= n_signal <= d:
        raise ParameterError(f"n_signal must lie between 0 and d={d}. Got {n_signal!r}.")
    rows, truth = feature_experiment(n, d, n_signal, shift, counts, root_seed(random_state))
    return pd.DataFrame(rows, columns=["method", "k", "train", "holdout", "fresh"]), truth


def freedman(
    n: int = 100, p: int = 50, *, n_runs: int = 200, random_state: RandomState = None
) -> tuple[Any, dict[str, float]]:
    """Screen pure-noise regressors at p < 0.25, refit, and find "significance".

    Parameters
    ----------
    n, p : int
        Rows and regressors.
    n_runs : int, default 200
        Repetitions.
    random_state : int, optional
        Seed.

    Returns
    -------
    frame : DataFrame
        ``r2_first``, ``n_kept``, ``r2_second``, ``n_25``, ``n_05`` (kept regressors with second
        p-value below 0.25 and 0.05), ``f_p_value``, ``r2_fresh``.
    truth : dict
        ``r2_first`` and ``n_kept`` expected under noise; the true R2 is 0.

    Examples
    --------
    >>> from causalfair.adaptive import simulate
    >>> simulate.freedman(n_runs=2, random_state=0)[1]["n_kept"]
    12.5
    """
    import pandas as pd

    _counts(n=n, p=p, n_runs=n_runs)
    if n < p + 3:
        raise ParameterError(f"n must be at least p + 3 = {p + 3}. Got {n}.")
    root = root_seed(random_state)
    rows = [freedman_run(n, p, generator(root, run)) for run in range(n_runs)]
    truth = {"r2": 0.0, "r2_first": p / (n - 1), "n_kept": p / 4}
    columns = ["r2_first", "n_kept", "r2_second", "n_25", "n_05", "f_p_value", "r2_fresh"]
    return pd.DataFrame(rows, columns=columns), truth


def leaderboard_attack(
    n: int = 4_000,
    k: int = 400,
    *,
    board: str = "exact",
    n_runs: int = 1,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, float]]:
    """Boost random submissions against a leaderboard.

    Labels are fair coins. The attacker submits k random answers and hands in the majority vote of
    those that the board liked: loss at most one half (``"exact"``), or those that moved the board
    (``"ladder"``, ``"ladder_free"``).

    Parameters
    ----------
    n, k : int
        Labels and submissions.
    board : {"exact", "ladder", "ladder_free"}, default "exact"
        What the board reveals.
    n_runs : int, default 1
        Repetitions.
    random_state : int, optional
        Seed.

    Returns
    -------
    frame : DataFrame
        ``loss`` of the final submission on the board's labels and ``n_used`` submissions in it.
    truth : dict
        ``loss`` (0.5) and ``expected_exact_loss``.

    Examples
    --------
    >>> from causalfair.adaptive import simulate
    >>> frame, truth = simulate.leaderboard_attack(k=400, random_state=0)
    >>> round(truth["expected_exact_loss"], 4)
    0.4292
    """
    import pandas as pd

    _counts(n=n, k=k, n_runs=n_runs)
    if board not in ("exact", "ladder", "ladder_free"):
        raise ParameterError(f"board must be 'exact', 'ladder' or 'ladder_free'. Got {board!r}.")
    root = root_seed(random_state)
    rows = [ladder_attack_run(n, k, board, generator(root, run)) for run in range(n_runs)]
    shift = math.sqrt(k / 2) * math.sqrt(2 / math.pi) / math.sqrt(n)
    truth = {"loss": 0.5, "expected_exact_loss": float(special.ndtr(-shift))}
    return pd.DataFrame(rows, columns=["loss", "n_used"]), truth


def guess_and_check_analyst(
    n: int = 10_000,
    *,
    tau: float = 0.1,
    beta: float = 0.05,
    guess_sd: float = 0.01,
    adapt_every: int = 100,
    max_queries: int = 5_000,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """An analyst who combines what looked good every so often, against Guess-and-Check.

    Half of the records make the guesses (with noise), half check them. Every `adapt_every`-th query
    is the majority vote of all features so far, signed by the answers.

    Parameters
    ----------
    n : int
        Records.
    tau, beta : float
        Radius wanted, allowed failure probability.
    guess_sd : float, default 0.01
        Noise of the guesses.
    adapt_every : int, default 100
        Queries between votes.
    max_queries : int, default 5000
        Stop here.
    random_state : int, optional
        Seed.

    Returns
    -------
    frame : DataFrame
        One row an answer: ``value``, ``truth``, ``error``, ``status``.
    truth : dict
        ``answered``, ``violations``, ``failures``, ``gaussian_queries`` (what the worst-case
        Gaussian bound affords at this width).

    Examples
    --------
    >>> from causalfair.adaptive import simulate
    >>> _, truth = simulate.guess_and_check_analyst(4_000, max_queries=150, random_state=0)
    >>> truth["violations"]
    0
    """
    import pandas as pd

    _counts(n=n, adapt_every=adapt_every, max_queries=max_queries)
    rng = generator(root_seed(random_state), 0)
    rows, truth = analyst_run(n, tau, beta, guess_sd, adapt_every, max_queries, rng)
    return pd.DataFrame(rows, columns=["value", "truth", "error", "status"]), truth


def multiplicative_weights_demo(
    n: int = 100_000,
    n_columns: int = 16,
    *,
    threshold: float = 0.05,
    n_queries: int = 20_000,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Random one- to three-way conjunctions on a product distribution over ``2**n_columns`` cells.

    Parameters
    ----------
    n : int
        Records.
    n_columns : int, default 16
        Binary columns.
    threshold : float, default 0.05
        Disagreement that triggers an update.
    n_queries : int, default 20000
        Questions.
    random_state : int, optional
        Seed.

    Returns
    -------
    frame : DataFrame
        ``value``, ``sample`` (empirical mean), ``truth``, ``updated``.
    truth : dict
        ``updates``, ``most_updates``, ``max_sample_error``, ``max_error``.

    Examples
    --------
    >>> from causalfair.adaptive import simulate
    >>> _, truth = simulate.multiplicative_weights_demo(5_000, 8, n_queries=200, random_state=0)
    >>> truth["updates"] <= truth["most_updates"]
    True
    """
    import pandas as pd

    _counts(n=n, n_columns=n_columns, n_queries=n_queries)
    rng = generator(root_seed(random_state), 0)
    rows, truth = weights_run(n, n_columns, threshold, n_queries, rng)
    return pd.DataFrame(rows, columns=["value", "sample", "truth", "updated"]), truth


def coverage(
    mechanism: str,
    attack: str = "correlated",
    *,
    n: int = 2_000,
    k: int = 100,
    beta: float = 0.05,
    n_runs: int = 200,
    random_state: RandomState = None,
    **params: Any,
) -> tuple[Any, dict[str, float]]:
    """Monte-Carlo coverage of a mechanism's intervals, all at once, against an attack.

    Parameters
    ----------
    mechanism : str
        As in :meth:`causalfair.adaptive.ReusableHoldout.create`.
    attack : {"correlated", "boosting", "greedy"}, default "correlated"
        Vote of features signed by their answers; vote of the submissions that looked good; or a
        climb in which every question depends on the answer before it. Mechanisms that release
        winners only are always climbed.
    n, k : int
        Records and queries.
    beta : float, default 0.05
        Allowed failure probability.
    n_runs : int, default 200
        Repetitions.
    random_state : int, optional
        Seed.
    **params
        Parameters of the mechanism.

    Returns
    -------
    frame : DataFrame
        ``covered`` (every interval holds), ``max_error``, ``final_value`` by run.
    truth : dict
        ``target`` coverage ``1 - beta`` and the nominal ``radius``.

    Examples
    --------
    >>> from causalfair.adaptive import simulate
    >>> frame, _ = simulate.coverage("gaussian", n_runs=5, random_state=0)
    >>> bool(frame["covered"].all())
    True
    """
    import pandas as pd

    from causalfair.adaptive._attacks import ATTACKS, build, play

    _counts(n=n, k=k, n_runs=n_runs)
    if attack not in ATTACKS:
        raise ParameterError(f"attack must be one of {', '.join(ATTACKS)}. Got {attack!r}.")
    root = root_seed(random_state)
    engine = build(mechanism, n, k, beta, params)
    rows = [
        play(engine, attack, n, k, generator(root, run))
        for run in progress(range(n_runs), desc=f"{mechanism} x {attack}")
    ]
    truth = {"target": 1 - beta, "radius": float(engine.radius)}
    return pd.DataFrame(rows, columns=["covered", "max_error", "final_value"]), truth
