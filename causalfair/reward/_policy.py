"""Value of a new text policy from logs of an old one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.crossfit import out_of_fold
from causalfair._core.learners import default_classifier
from causalfair._core.logging import warn
from causalfair._core.random import root_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_matrix, check_numeric
from causalfair.exceptions import DataError, OverlapWarning, ParameterError

__all__ = ["PolicyValue", "density_ratio", "off_policy_value", "tilt_frontier"]

METHODS = ("dm", "ips", "snips", "dr", "sndr", "switch", "dros")
LEAST_ESS = 30.0


@dataclass(frozen=True)
class PolicyValue:
    """Value of a policy, and its difference to the logged one on the same rows.

    Attributes
    ----------
    estimates_ : causalfair.inference.InfluenceEstimates
        Terms ``value``, ``logged`` and ``difference``.
    ess : float
        Effective sample size of the weights; max_share : largest share of one row.
    mean_ratio : causalfair.inference.HypothesisTest
        Test that the density ratio has mean one.
    method : str
        Estimator in use; ``"dm"`` where the weights were too poor for a point claim.
    """

    estimates_: Any
    ess: float
    max_share: float
    mean_ratio: Any
    method: str
    notes: tuple[str, ...] = ()

    def to_frame(self, level: float = 0.95) -> Any:
        """Tidy table of the three terms.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        pandas.DataFrame
            One row a term.
        """
        return self.estimates_.to_frame(level)

    def summary(self, level: float = 0.95) -> Any:
        """Value, difference and diagnostics of the weights.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, estimates_table

        header = [
            ("method", self.method), ("effective sample size", f"{self.ess:,.0f}"),
            ("largest weight share", f"{self.max_share:.1%}"),
        ]  # fmt: skip
        table = estimates_table(self.estimates_, level)
        return Summary("Value of a new text policy", header, [table], list(self.notes))

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())


def density_ratio(
    X_old: Any, X_new: Any, *, learner: Any = None, n_folds: int = 5, random_state: Any = None
) -> FloatArray:
    """Ratio of new to logged density at the logged rows, from samples of both.

    Parameters
    ----------
    X_old : array of shape (n_old, p)
        Texts (and contexts) that were logged, as features.
    X_new : array of shape (n_new, p)
        Samples of the new policy.
    learner : classifier, optional
        Separates the two; by default the library's default classifier.
    n_folds : int, default 5
        Folds of the cross-fit.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    numpy.ndarray of shape (n_old,)
        ``p / (1 - p) * n_old / n_new``, normalised to mean one.
    """
    old, new = (
        check_matrix(a, name, owner="density_ratio")
        for a, name in ((X_old, "X_old"), (X_new, "X_new"))
    )
    if old.shape[1] != new.shape[1]:
        raise DataError(
            f"density_ratio: X_old has {old.shape[1]} columns and X_new {new.shape[1]}."
        )
    X = np.vstack([old, new])
    label = np.repeat([0.0, 1.0], [len(old), len(new)])
    model = default_classifier(*X.shape) if learner is None else learner
    p = out_of_fold(
        model, X, label, n_folds=n_folds, seed=root_seed(random_state), method="predict_proba",
        stratify=label,
    )[: len(old)]  # fmt: skip
    p = np.clip(p, 1e-6, 1 - 1e-6)
    ratio = p / (1 - p) * len(old) / len(new)
    return np.asarray(ratio / ratio.mean())


def _ratio(
    ratio: Any, propensity: Any, new_propensity: Any, logp_old: Any, logp_new: Any
) -> FloatArray:
    owner = "off_policy_value"
    if ratio is not None:
        out = check_numeric(ratio, "ratio", owner=owner)
        if (out < 0).any():
            raise DataError(f"{owner}: ratio has {(out < 0).sum()} negative value(s).")
        return out
    if propensity is not None and new_propensity is not None:
        old = check_numeric(propensity, "propensity", owner=owner)
        bad = np.flatnonzero((old <= 0) | (old > 1))
        if len(bad):
            raise DataError(
                f"{owner}: propensity must lie in (0, 1]; {len(bad)} value(s) do not (row {bad[0]}: "
                f"{old[bad[0]]:g}). A logged text cannot have had probability zero."
            )
        return check_numeric(new_propensity, "new_propensity", owner=owner) / old
    if logp_old is not None and logp_new is not None:
        gap = check_numeric(logp_new, "logp_new", owner=owner) - check_numeric(
            logp_old, "logp_old", owner=owner
        )
        return np.asarray(np.exp(np.clip(gap, -700, 700)))
    raise DataError(
        f"{owner} needs ratio=, or propensity= and new_propensity=, or logp_old= and logp_new=; "
        "from samples of the new policy, ratio=density_ratio(...)."
    )


def off_policy_value(
    y: Any,
    *,
    ratio: Any = None,
    propensity: Any = None,
    new_propensity: Any = None,
    logp_old: Any = None,
    logp_new: Any = None,
    fitted: Any = None,
    fitted_new: Any = None,
    method: str = "sndr",
    threshold: Any = "auto",
    cluster: Any = None,
) -> PolicyValue:
    """Mean outcome under a new text policy.

    Parameters
    ----------
    y : array of shape (n,)
        Logged outcomes; under confounding ``reward.corrected_outcome_``.
    ratio : array of shape (n,), optional
        New over logged probability of each logged text given its context.
    propensity, new_propensity : array of shape (n,), optional
        Probabilities of the logged text under the two policies.
    logp_old, logp_new : array of shape (n,), optional
        Their logarithms, as language models give them.
    fitted : array of shape (n,), optional
        Cross-fitted outcome model at the logged texts; needed by ``"dm"``, ``"dr"``, ``"sndr"``,
        ``"switch"`` and ``"dros"``.
    fitted_new : array of shape (n,), optional
        The model averaged over the new policy's texts in each row's context.
    method : {"dm", "ips", "snips", "dr", "sndr", "switch", "dros"}, default "sndr"
        Direct method, inverse propensity, self-normalised, doubly robust, self-normalised doubly
        robust, switch, doubly robust with optimistic shrinkage.
    threshold : "auto" or float, default "auto"
        Ratio above which ``"switch"`` uses the model, or the shrinkage ``lambda`` of ``"dros"``;
        ``"auto"`` minimises an estimate of the mean squared error.
    cluster : array of shape (n,), optional
        Rows that depend on each other.

    Returns
    -------
    PolicyValue
        Value, logged value and difference with diagnostics.

    Warns
    -----
    OverlapWarning
        The effective sample size is below a tenth of the rows; below 30 the direct method is
        reported alone, as an extrapolation.

    References
    ----------
    .. [1] M. Dudik, J. Langford, L. Li (2011). Doubly robust policy evaluation and learning. ICML.
       arXiv:1103.4601
    .. [2] Y. Su, M. Dimakopoulou, A. Krishnamurthy, M. Dudik (2020). Doubly robust off-policy
       evaluation with shrinkage. ICML. arXiv:1907.09623

    Examples
    --------
    >>> from causalfair.datasets import make_bandit_texts
    >>> logs, truth = make_bandit_texts(4000, random_state=0)
    >>> value = off_policy_value(logs.y, propensity=logs.propensity,
    ...                          new_propensity=logs.new_propensity, method="snips")
    >>> bool(abs(value.estimates_["value"].estimate[0] - truth["value"]) < 0.05)
    True
    """
    owner = "off_policy_value"
    if method not in METHODS:
        raise ParameterError(f"method={method!r} must be one of {', '.join(METHODS)}.")
    outcome = check_numeric(y, "y", owner=owner)
    n = len(outcome)
    zero = np.zeros(n)
    models = method not in ("ips", "snips")
    if models and (fitted is None or fitted_new is None):
        raise DataError(
            f"{owner}: method={method!r} needs fitted= (outcome model at the logged texts) and "
            'fitted_new= (at the new policy\'s texts); without a model use method="snips".'
        )
    m = check_numeric(fitted, "fitted", owner=owner) if models else zero
    m_new = check_numeric(fitted_new, "fitted_new", owner=owner) if models else zero
    direct_only = method == "dm" and ratio is None and propensity is None and logp_old is None
    rho = (
        np.ones(n) if direct_only else _ratio(ratio, propensity, new_propensity, logp_old, logp_new)
    )
    check_lengths(owner=owner, y=outcome, ratio=rho, fitted=m, fitted_new=m_new, cluster=cluster)
    if rho.sum() <= 0:
        raise DataError(f"{owner}: every ratio is zero: the new policy never writes a logged text.")
    ess = float(rho.sum() ** 2 / (rho**2).sum())
    notes: list[str] = []
    used = method
    if ess < LEAST_ESS and method != "dm":
        message = f"effective sample size {ess:.1f} is below {LEAST_ESS:g}"
        if not models:
            raise DataError(
                f"{owner}: {message} of {n} rows: the logs say nothing about this policy. Give an "
                'outcome model and use method="dm", or choose a policy closer to the logged one.'
            )
        used = "dm"
        notes.append(f"{message}: the value is the direct method's, an extrapolation.")
    if ess < 0.1 * n and method != "dm":
        warn(
            f"{owner}: effective sample size {ess:.0f} of {n} rows; few logged texts are ones the "
            "new policy writes.",
            OverlapWarning,
        )
    psi, value = _value(used, outcome, rho, m, m_new, threshold)
    return _result(used, value, psi, outcome, rho, ess, cluster, tuple(notes))


def _value(
    method: str, y: FloatArray, rho: FloatArray, m: FloatArray, m_new: FloatArray, threshold: Any
) -> tuple[FloatArray, float]:
    """Influence values (n,) around the value, and the value."""
    if method == "dm":
        return m_new - m_new.mean(), float(m_new.mean())
    if method in ("switch", "dros"):
        rho = _shrunk(method, y, rho, m, threshold)
    correction = rho * (y - m)
    if method in ("snips", "sndr"):
        scale = rho.mean()
        shift = float(correction.mean() / scale)
        psi = m_new - m_new.mean() + (correction - shift * rho) / scale
        return psi, float(m_new.mean()) + shift
    total = m_new + correction
    return total - total.mean(), float(total.mean())


def _shrunk(
    method: str, y: FloatArray, rho: FloatArray, m: FloatArray, threshold: Any
) -> FloatArray:
    """Ratios cut or shrunk; the constant minimises variance plus squared bias bound."""

    def apply(t: float) -> FloatArray:
        return np.where(rho <= t, rho, 0.0) if method == "switch" else t * rho / (rho**2 + t)

    if not isinstance(threshold, str):
        if not threshold > 0:
            raise ParameterError(f"threshold={threshold!r} must be positive.")
        return apply(float(threshold))
    grid = np.quantile(rho[rho > 0], [0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0])
    grid = grid if method == "switch" else np.append(grid**2, 1e12)
    errors = []
    for t in grid:
        w = apply(float(t))
        spread = np.var(w * (y - m)) / len(y)
        bias = np.mean((w - rho) * (y - m))
        errors.append(spread + bias**2)
    return apply(float(grid[int(np.argmin(errors))]))


def _result(
    method: str, value: float, psi: FloatArray, y: FloatArray, rho: FloatArray, ess: float,
    cluster: Any, notes: tuple[str, ...],
) -> PolicyValue:  # fmt: skip
    from scipy.special import ndtr

    from causalfair.inference import HypothesisTest, InfluenceEstimates

    logged = y - y.mean()
    influence = np.column_stack([psi, logged, psi - logged])
    estimates = InfluenceEstimates(
        [value, y.mean(), value - y.mean()], influence, ["value", "logged", "difference"],
        cluster=cluster,
    )  # fmt: skip
    spread = float(rho.std() / np.sqrt(len(rho)))
    z = float((rho.mean() - 1) / spread) if spread > 0 else 0.0
    test = HypothesisTest(
        "mean ratio", "the density ratio has mean one", z, float(2 * ndtr(-abs(z))), None,
        distribution="normal",
    )  # fmt: skip
    return PolicyValue(estimates, ess, float(rho.max() / rho.sum()), test, method, notes)


def tilt_frontier(
    reward: Any, outcome: Any = None, *, temperatures: Any = None, cluster: Any = None
) -> Any:
    """Value and divergence of the policies ``pi ~ pi_0 exp(tau r)``; no new samples are needed.

    Parameters
    ----------
    reward : DeconfoundedReward or array of shape (n,)
        A fitted reward, whose out-of-fold scores and corrected outcome are used; or out-of-fold
        scores.
    outcome : array of shape (n,), optional
        Outcome net of confounding, with scores given as an array.
    temperatures : sequence of float, optional
        Values of tau; by default eight up to where the effective sample size is a tenth.
    cluster : array of shape (n,), optional
        Rows that depend on each other.

    Returns
    -------
    pandas.DataFrame
        ``tau, value, std_error, conf_low, conf_high, kl, ess_share``.

    Examples
    --------
    >>> import numpy as np
    >>> r = np.random.default_rng(0).normal(size=10_000)
    >>> frontier = tilt_frontier(r, r, temperatures=[0.0, 0.5])
    >>> frontier["value"].round(1).tolist()
    [0.0, 0.5]
    """
    import pandas as pd

    from causalfair.inference import InfluenceEstimates

    if hasattr(reward, "out_of_fold_scores_"):
        scores, y = reward.out_of_fold_scores_, reward.corrected_outcome_
        clusters = reward._training("tilt_frontier")[1].cluster if cluster is None else cluster
    else:
        if outcome is None:
            raise DataError("tilt_frontier: outcome= is needed where scores are given as an array.")
        scores = check_numeric(reward, "reward", owner="tilt_frontier")
        y = check_numeric(outcome, "outcome", owner="tilt_frontier")
        clusters = cluster
    check_lengths(owner="tilt_frontier", reward=scores, outcome=y)
    if temperatures is None:
        spread = max(float(scores.std()), 1e-12)
        temperatures = np.linspace(0, np.sqrt(np.log(10)) / spread, 8)
    rows = []
    for tau in temperatures:
        log_weight = tau * (scores - scores.max())
        weight = np.exp(log_weight)
        share = weight / weight.mean()
        value = float((share * y).mean())
        psi = share * (y - value)
        est = InfluenceEstimates([value], (psi - psi.mean())[:, None], ["v"], cluster=clusters)
        low, high = est.conf_int()[0]
        kl = tau * float((share * scores).mean()) - float(
            np.log(weight.mean()) + tau * scores.max()
        )
        rows.append(
            {"tau": float(tau), "value": value, "std_error": float(est.std_error[0]),
             "conf_low": low, "conf_high": high, "kl": max(kl, 0.0),
             "ess_share": float(1 / np.mean(share**2))}
        )  # fmt: skip
    return pd.DataFrame(rows)
