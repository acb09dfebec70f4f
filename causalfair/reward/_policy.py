"""Value of a new text policy from logs of an old one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.random import child_seed, root_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_numeric
from causalfair.exceptions import DataError, OverlapWarning, ParameterError
from causalfair.reward._density import density_ratio
from causalfair.reward._off_policy import policy_mean, read_ratio, shrink

__all__ = ["PolicyValue", "off_policy_value"]

SHRINKING = ("switch", "dros", "clip")
METHODS = ("dm", "ips", "snips", "dr", "sndr", *SHRINKING)
LEAST_ESS = 30.0
ROUNDING = 1e-12


@dataclass(frozen=True)
class PolicyValue:
    """Value of a policy, and its difference to the logged one on the same rows.

    Attributes
    ----------
    estimates_ : causalfair.inference.Estimates
        Terms ``value``, ``logged`` and ``difference``.
    ess : float
        Effective sample size of the weights; max_share : largest share of one row.
    mean_ratio : causalfair.inference.HypothesisTest
        Test that the density ratio has mean one.
    method : str
        Estimator in use; ``"dm"`` where the weights were too poor for a point claim.
    ratio : numpy.ndarray of shape (n,)
        Density ratios, before any shrinking; threshold : the constant that shrank them, or None.
    """

    estimates_: Any
    ess: float
    max_share: float
    mean_ratio: Any
    method: str
    ratio: FloatArray
    threshold: float | None = None
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

    def to_dict(self) -> dict[str, Any]:
        """Estimates and diagnostics as plain values.

        Returns
        -------
        dict
            ``value``, ``logged``, ``difference`` with standard errors, and the diagnostics.
        """
        terms = zip(
            self.estimates_.names,
            self.estimates_.estimate.tolist(),
            self.estimates_.std_error.tolist(),
            strict=True,
        )
        return {
            **{name: {"estimate": value, "std_error": se} for name, value, se in terms},
            "method": self.method, "ess": self.ess, "max_share": self.max_share,
            "threshold": self.threshold, "mean_ratio_p": self.mean_ratio.p_value,
        }  # fmt: skip

    def cite(self) -> Any:
        """References of the estimator.

        Returns
        -------
        causalfair.reporting.Citations
            Prints as text; ``bibtex()`` gives BibTeX.
        """
        from causalfair.reporting import Citations

        own = {"snips": "swaminathan2015self", "sndr": "swaminathan2015self"}
        own |= {"switch": "wang2017optimal", "dros": "su2020doubly"}
        keys = [
            "dudik2011doubly",
            *([own[self.method]] if self.method in own else []),
            "causalfair",
        ]
        return Citations(tuple(keys))

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
        from causalfair.reporting.format import format_p

        header = [
            ("method", self.method), ("n", f"{len(self.ratio):,}"),
            ("effective sample size", f"{self.ess:,.0f}"),
            ("largest weight share", f"{self.max_share:.1%}"),
            ("mean ratio is one", f"p {format_p(self.mean_ratio.p_value)}"),
        ]  # fmt: skip
        if self.threshold is not None:
            header.append(("threshold", f"{self.threshold:.3g}"))
        table = estimates_table(self.estimates_, level)
        return Summary("Value of a new text policy", header, [table], list(self.notes))

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())


def off_policy_value(
    y: Any,
    *,
    new_texts: Any = None,
    ratio: Any = None,
    propensity: Any = None,
    new_propensity: Any = None,
    logp_old: Any = None,
    logp_new: Any = None,
    fitted: Any = None,
    fitted_new: Any = None,
    method: str | None = None,
    threshold: Any = "auto",
    cluster: Any = None,
    random_state: Any = 0,
) -> PolicyValue:
    """Mean outcome under a new text policy.

    Parameters
    ----------
    y : array of shape (n,) or DeconfoundedReward
        Logged outcomes; under confounding ``reward.corrected_outcome_``. Or a fitted reward, with
        ``new_texts``: outcome, cross-fitted models and clusters are then its own.
    new_texts : list of str, table or array, optional
        Samples of the new policy, as the reward takes them; their density against the logged texts
        is estimated. Circumstances stay as logged.
    ratio : array of shape (n,), optional
        New over logged probability of each logged text given its context.
    propensity, new_propensity : array of shape (n,), optional
        Probabilities of the logged text under the two policies.
    logp_old, logp_new : array of shape (n,), optional
        Their logarithms, as language models give them.
    fitted : array of shape (n,), optional
        Cross-fitted outcome model at the logged texts; needed by all but ``"ips"`` and ``"snips"``.
    fitted_new : array of shape (n,), optional
        The model averaged over the new policy's texts in each row's context.
    method : {"dm", "ips", "snips", "dr", "sndr", "switch", "dros", "clip"}, optional
        Direct method, inverse propensity, self-normalised, doubly robust, self-normalised doubly
        robust, and three shrunken kinds: model where the ratio is large, optimistic shrinkage,
        clipped ratios. By default ``"sndr"``, or ``"snips"`` without a model.
    threshold : "auto" or float, default "auto"
        Largest ratio trusted by ``"switch"`` and ``"clip"``, or the shrinkage ``lambda`` of
        ``"dros"``; ``"auto"`` minimises an estimate of the mean squared error.
    cluster : array of shape (n,), optional
        Rows that depend on each other.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the density ratio, with ``new_texts``.

    Returns
    -------
    PolicyValue
        Value, logged value and difference with diagnostics.

    Raises
    ------
    DataError
        No ratio can be formed, a propensity is not in (0, 1], or the effective sample size is below
        30 and there is no model to fall back on.

    Warns
    -----
    OverlapWarning
        The effective sample size is below a tenth of the rows; below 30 the direct method is
        reported alone, as an extrapolation.

    Notes
    -----
    With ratio rho, model m and its mean m_new under the new policy: ``dm = mean(m_new)``, ``ips =
    mean(rho y)``, ``dr = mean(m_new + rho (y - m))``, and the self-normalised kinds divide by
    ``mean(rho)``. Standard errors are those of the influence values, with the model and an
    estimated ratio taken as given. The shrunken kinds aim at a smaller mean squared error of the
    point estimate; their standard error is that of ``"dr"``, since the variance of the shrunken
    ratios would leave out the bias.

    References
    ----------
    .. [1] M. Dudik, J. Langford, L. Li (2011). Doubly robust policy evaluation and learning. ICML.
       arXiv:1103.4601
    .. [2] Y.-X. Wang, A. Agarwal, M. Dudik (2017). Optimal and adaptive off-policy evaluation in
       contextual bandits. ICML. arXiv:1612.01205
    .. [3] Y. Su, M. Dimakopoulou, A. Krishnamurthy, M. Dudik (2020). Doubly robust off-policy
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
    extra = 0.0
    if new_texts is not None:
        given = (ratio, propensity, new_propensity, logp_old, logp_new, fitted, fitted_new)
        if any(one is not None for one in given):
            raise ParameterError(
                "off_policy_value: with new_texts= the ratio and the model come from the reward; "
                "leave the other arrays out."
            )
        found = _from_reward(y, new_texts, random_state)
        y, ratio, fitted, fitted_new, extra = found[:5]
        cluster = found[5] if cluster is None else cluster
    elif hasattr(y, "corrected_outcome_"):
        raise DataError(
            "off_policy_value: a fitted reward needs new_texts=, samples of the new policy; with "
            "known probabilities give reward.corrected_outcome_ as y."
        )
    if method is None:
        method = "snips" if fitted is None else "sndr"
    if method not in METHODS:
        raise ParameterError(f"method={method!r} must be one of {', '.join(METHODS)}.")
    probabilities = (ratio, propensity, new_propensity, logp_old, logp_new)
    return _evaluate(y, probabilities, fitted, fitted_new, method, threshold, cluster, extra)


def _from_reward(reward: Any, new_texts: Any, random_state: Any) -> tuple[Any, ...]:
    """Outcome, ratio, cross-fitted models, sampling variance of the new texts, and clusters."""
    from causalfair.reward._methods import fold_coefficients

    if not hasattr(reward, "corrected_outcome_"):
        raise DataError(
            f"off_policy_value: new_texts= goes with a fitted reward as y; got "
            f"{type(reward).__name__}."
        )
    data, problem = reward._training("off_policy_value")
    matrix = reward._matrix(new_texts, "off_policy_value")
    base = reward.reference_outcome_
    scores = reward.out_of_fold_scores_
    if hasattr(reward, "coef_"):
        coefs = np.array(fold_coefficients(problem, reward._method_fit))
        scores = np.einsum("ij,ij->i", problem.centred, coefs[problem.folds])
        fitted_new = base + (coefs @ matrix.mean(axis=0))[problem.folds]
    else:
        fitted_new = np.full(len(problem.y), base + float(np.mean(reward.predict(new_texts))))
    extra = float(np.var(reward.predict(new_texts), ddof=1)) / len(matrix)
    seed = child_seed(root_seed(random_state), 0)
    ratio = density_ratio(problem.centred, matrix, random_state=seed)
    return reward.corrected_outcome_, ratio, base + scores, fitted_new, extra, data.roles.cluster


def _evaluate(
    y: Any, probabilities: tuple[Any, ...], fitted: Any, fitted_new: Any, method: str,
    threshold: Any, cluster: Any, extra: float,
) -> PolicyValue:  # fmt: skip
    owner = "off_policy_value"
    outcome = check_numeric(y, "y", owner=owner)
    zero = np.zeros(len(outcome))
    models = method not in ("ips", "snips")
    if models and (fitted is None or fitted_new is None):
        raise DataError(
            f"{owner}: method={method!r} needs fitted= (outcome model at the logged texts) and "
            'fitted_new= (at the new policy\'s texts); without a model use method="snips".'
        )
    m = check_numeric(fitted, "fitted", owner=owner) if models else zero
    m_new = check_numeric(fitted_new, "fitted_new", owner=owner) if models else zero
    bare = method == "dm" and all(one is None for one in probabilities)
    rho = zero + 1 if bare else read_ratio(*probabilities)
    check_lengths(owner=owner, y=outcome, ratio=rho, fitted=m, fitted_new=m_new, cluster=cluster)
    if rho.sum() <= 0:
        raise DataError(f"{owner}: every ratio is zero: the new policy never writes a logged text.")
    ess = float(rho.sum() ** 2 / (rho**2).sum())
    used, notes = _trusted(method, models, ess, len(outcome))
    kept, chosen = rho, None
    if used in SHRINKING:
        kept, chosen = shrink(used, outcome, rho, m, threshold)
    psi, value = policy_mean(used, outcome, rho, m, m_new, kept)
    return _result(used, value, psi, outcome, rho, ess, cluster, chosen, notes, extra)


def _trusted(method: str, models: bool, ess: float, n: int) -> tuple[str, tuple[str, ...]]:
    """The method that the weights allow, and notes."""
    owner = "off_policy_value"
    if method == "dm":
        return method, ("the direct method extrapolates where the logs hold no such text.",)
    notes: tuple[str, ...] = ()
    used = method
    if ess < LEAST_ESS:
        message = f"effective sample size {ess:.1f} is below {LEAST_ESS:g}"
        if not models:
            raise DataError(
                f"{owner}: {message} of {n} rows: the logs say nothing about this policy. Give an "
                'outcome model and use method="dm", or choose a policy closer to the logged one.'
            )
        used = "dm"
        notes = (f"{message}: the value is the direct method's, an extrapolation.",)
    if ess < 0.1 * n:
        warn(
            f"{owner}: effective sample size {ess:.0f} of {n} rows; few logged texts are ones the "
            "new policy writes.",
            OverlapWarning,
        )
    return used, notes


def _result(
    method: str, value: float, psi: FloatArray, y: FloatArray, rho: FloatArray, ess: float,
    cluster: Any, threshold: float | None, notes: tuple[str, ...], extra: float,
) -> PolicyValue:  # fmt: skip
    from scipy.special import ndtr

    from causalfair.inference import CovarianceEstimates, HypothesisTest, InfluenceEstimates

    logged = y - y.mean()
    gap = psi - logged
    gap[np.abs(gap) <= ROUNDING * max(np.abs(psi).max(), np.abs(logged).max())] = 0.0
    names = ["value", "logged", "difference"]
    influence = np.column_stack([psi, logged, gap - gap.mean()])
    estimates: Any = InfluenceEstimates(
        [value, y.mean(), value - y.mean()], influence, names,
        cluster=cluster,
    )  # fmt: skip
    if extra > 0:  # the new texts are a sample as well
        side = np.array([1.0, 0.0, 1.0])
        vcov = estimates.vcov + extra * np.outer(side, side)
        estimates = CovarianceEstimates(estimates.estimate, vcov, names)
    spread = float(rho.std() / np.sqrt(len(rho)))
    z = float(rho.mean() - 1) / spread if spread > 1e-12 else 0.0
    test = HypothesisTest(
        "mean ratio", "the density ratio has mean one", z, float(2 * ndtr(-abs(z))), None,
        distribution="normal",
    )  # fmt: skip
    share = float(rho.max() / rho.sum())
    return PolicyValue(estimates, ess, share, test, method, rho, threshold, notes)
