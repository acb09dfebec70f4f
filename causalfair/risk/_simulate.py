"""Selectively labelled data whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair.exceptions import DataError, ParameterError
from causalfair.risk import _data
from causalfair.risk._design import INTERCEPT
from causalfair.risk._model import Law

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from causalfair._core.typing import FloatArray, RandomState

__all__ = ["make_selective_decisions", "make_selective_labels"]

LAWS = ("uniform", "normal")


def row_probabilities(
    codes: Sequence[int], a: FloatArray, d: FloatArray, alpha: float, sigma: float, law: str
) -> FloatArray:
    """Probability of each code in each row (len(codes), n), at known scores."""
    from causalfair.risk import _kernels

    rule = Law(law, alpha, sigma, np.empty(0), np.empty(0)).with_rule(
        2 * max(1.0, sigma * max(1.0, alpha))
    )
    one = np.ones((1, 1))
    out = _kernels.probabilities(
        np.asarray(codes), np.ascontiguousarray(a[:, None]), np.ascontiguousarray(d[:, None]),
        np.zeros(len(a), dtype=np.intp), one, one, np.array([float(alpha)]),
        np.array([float(sigma)]), rule.nodes, rule.weights,
    )  # fmt: skip
    return np.asarray(out[:, 0])


def make_selective_labels(
    n: int = 5000,
    *,
    n_features: int = 4,
    unobservables: str = "uniform",
    sigma: float = 2.0,
    alpha: float = 1.0,
    deviates: Sequence[str] = ("x1",),
    risk_intercept: float = -2.0,
    testing_intercept: float = 2.0,
    jitter: float = 0.1,
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Outcomes seen only for those whom somebody who sees more than X chose to test.

    The synthetic study of Balachandar, Garg and Pierson (2024): risk score r = x'b + Z, outcome
    with log odds r, decision with log odds alpha r + x'd, where d is zero but for the intercept and
    the features in ``deviates``.

    Parameters
    ----------
    n : int, default 5000
        Rows.
    n_features : int, default 4
        Standard normal features ``x1, x2, ...``.
    unobservables : {"uniform", "normal"}, default "uniform"
        Z uniform on [0, sigma], or normal with standard deviation sigma.
    sigma : float, default 2.0
        Scale of Z.
    alpha : float, default 1.0
        Weight of the risk score in the decision.
    deviates : sequence of str, default ("x1",)
        Features along which decisions deviate from risk.
    risk_intercept, testing_intercept : float, default -2.0 and 2.0
        Intercepts of b and d.
    jitter : float, default 0.1
        Standard deviation of both intercepts and sigma (and alpha for normal Z) around these
        values.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame of n rows
        ``x1, ...``, ``tested`` and ``y``, which is NaN where nobody tested.
    truth : dict
        ``risk`` and ``testing`` (coefficients by name), ``alpha``, ``sigma``, ``prevalence`` (share
        of positives in these rows), ``expected_prevalence``, ``y`` (all outcomes), ``z``,
        ``risk_proba``, ``risk_untested``, ``risk_tested`` and ``testing_proba`` of each row, and
        ``deviates``.

    Raises
    ------
    ParameterError
        A feature or a law that does not exist.

    Examples
    --------
    >>> from causalfair.datasets import make_selective_labels
    >>> frame, truth = make_selective_labels(500, random_state=0)
    >>> bool(frame["y"].isna().equals(frame["tested"] == 0))
    True
    """
    import pandas as pd

    names = [f"x{j + 1}" for j in range(n_features)]
    wrong = [name for name in deviates if name not in names]
    if wrong or unobservables not in LAWS:
        what, known = (wrong[0], names) if wrong else (unobservables, LAWS)
        raise ParameterError(
            f"make_selective_labels got {what!r}; it must be one of {', '.join(known)}."
        )
    rng = generator(root_seed(random_state))
    X = rng.normal(size=(n, n_features))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    beta = np.concatenate([[rng.normal(risk_intercept, jitter)], rng.normal(size=n_features)])
    delta = np.concatenate([[rng.normal(testing_intercept, jitter)], rng.normal(size=n_features)])
    delta[1:] *= np.isin(names, list(deviates))
    scale = abs(rng.normal(sigma, jitter))
    weight = abs(rng.normal(alpha, jitter)) if unobservables == "normal" else alpha
    z = rng.uniform(0, scale, n) if unobservables == "uniform" else rng.normal(0, scale, n)
    a, d = beta[0] + X @ beta[1:], delta[0] + X @ delta[1:]
    y = _bernoulli(rng, a + z)
    tested = _bernoulli(rng, weight * (a + z) + d)
    frame = pd.DataFrame(X, columns=names)
    frame["tested"] = tested.astype(int)
    frame["y"] = np.where(tested, y, np.nan)
    codes = (_data.UNTESTED, _data.POSITIVE, _data.LATE_POSITIVE)
    p0, p11, p01 = row_probabilities(codes, a, d, weight, scale, unobservables)
    columns = [INTERCEPT, *names]
    truth = {
        "risk": dict(zip(columns, beta.tolist(), strict=True)),
        "testing": dict(zip(columns, delta.tolist(), strict=True)),
        "alpha": float(weight),
        "sigma": float(scale),
        "prevalence": float(y.mean()),
        "expected_prevalence": float((p11 + p01).mean()),
        "y": y.astype(int),
        "z": z,
        "risk_proba": p11 + p01,
        "risk_untested": p01 / p0,
        "risk_tested": p11 / (1 - p0),
        "testing_proba": 1 - p0,
        "deviates": tuple(deviates),
    }
    return frame, truth


def _bernoulli(rng: np.random.Generator, log_odds: FloatArray) -> Any:
    from scipy.special import expit

    return rng.uniform(size=len(log_odds)) < expit(log_odds)


def make_selective_decisions(
    frame: Any,
    y: str,
    *,
    observed: Sequence[str],
    hidden: Sequence[str],
    share_tested: float = 0.3,
    alpha: float = 1.0,
    deviations: Mapping[str, float] | None = None,
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Simulated decision makers on real outcomes: hide what they saw, and whom they did not test.

    Takes a table in which every outcome is known, fits a logistic risk model on the observed and
    the hidden columns, and tests with log odds ``alpha * risk score + deviations + constant``. The
    hidden columns and the outcomes of the untested are then left out, so that the truth about the
    untested is known.

    Parameters
    ----------
    frame : pandas.DataFrame
        Table without missing values in the columns used.
    y : str
        Column of the outcome, 0 or 1.
    observed, hidden : sequence of str
        Numeric columns the analyst sees, and columns only the decision maker sees.
    share_tested : float, default 0.3
        Share of rows tested.
    alpha : float, default 1.0
        Weight of the risk score in the decision.
    deviations : mapping of str to float, optional
        Change in the log odds of a test per unit of an observed column, beyond risk.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the decisions.

    Returns
    -------
    table : pandas.DataFrame
        The observed columns, ``tested``, and ``y`` (NaN where untested).
    truth : dict
        ``y`` (all outcomes), ``prevalence``, ``prevalence_untested``, ``risk_score`` and
        ``testing_proba`` of each row, and ``z_sd``, the standard deviation of what the hidden
        columns add to the risk score.

    Raises
    ------
    DataError
        Missing values, or an outcome that is not 0 or 1.
    ParameterError
        A share outside (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from causalfair.datasets import make_selective_decisions
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"age": rng.normal(size=400), "glucose": rng.normal(size=400)})
    >>> table["ill"] = (table["age"] + table["glucose"] + rng.logistic(size=400) > 1).astype(int)
    >>> seen, truth = make_selective_decisions(
    ...     table, "ill", observed=["age"], hidden=["glucose"], random_state=1
    ... )
    >>> list(seen.columns)
    ['age', 'tested', 'ill']
    """
    from scipy.optimize import brentq
    from scipy.special import expit
    from sklearn.linear_model import LogisticRegression

    owner = "make_selective_decisions"
    if not 0 < share_tested < 1:
        raise ParameterError(f"{owner} got share_tested={share_tested!r}; it lies in (0, 1).")
    used = [*observed, *hidden, y]
    gaps = int(frame[used].isna().to_numpy().sum())
    outcome = np.asarray(frame[y], dtype=float)
    if gaps or not np.isin(outcome, (0, 1)).all():
        raise DataError(
            f"{owner}: the columns used have {gaps} missing value(s), and {y!r} must be 0 or 1 in "
            "every row; drop incomplete rows first."
        )
    columns = np.asarray(frame[[*observed, *hidden]], dtype=float)
    standard = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    model = LogisticRegression(C=100.0, max_iter=1000).fit(standard, outcome)
    score = model.decision_function(standard)
    extra = standard[:, len(observed) :] @ model.coef_[0, len(observed) :]
    seen = np.column_stack([np.ones(len(columns)), standard[:, : len(observed)]])
    extra = extra - seen @ np.linalg.lstsq(seen, extra, rcond=None)[0]
    index = alpha * score
    for name, slope in (deviations or {}).items():
        index = index + slope * np.asarray(frame[name], dtype=float)
    constant = brentq(lambda c: float(expit(index + c).mean()) - share_tested, -60, 60)
    rng = generator(root_seed(random_state))
    tested = _bernoulli(rng, index + constant)
    table = frame[list(observed)].reset_index(drop=True).copy()
    table["tested"] = tested.astype(int)
    table[y] = np.where(tested, outcome, np.nan)
    truth = {
        "y": outcome.astype(int),
        "prevalence": float(outcome.mean()),
        "prevalence_untested": float(outcome[~tested].mean()),
        "risk_score": score,
        "testing_proba": expit(index + constant),
        "z_sd": float(extra.std()),
    }
    return table, truth
