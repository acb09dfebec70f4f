"""Risk of a binary outcome by the probit with selection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import ndtr
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import StrOptions, fit_context
from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError, WeakIdentificationWarning
from causalfair.risk._bivariate import bivariate_normal_cdf
from causalfair.risk._selection_base import SelectionProblem
from causalfair.risk._selection_estimator import SELECTION_CONSTRAINTS, SelectionEstimator
from causalfair.risk._selection_fit import fit_probit
from causalfair.risk._selection_likelihood import ProbitLikelihood

__all__ = ["BivariateProbitSelection"]


class BivariateProbitSelection(SelectionEstimator):
    r"""Risk of a binary outcome for everybody, when it is seen only for those chosen.

    The probit with selection [1]_: a probit outcome and a probit decision whose errors are
    correlated, because the decision maker saw part of what makes the outcome. It is the reduced
    form of the normal model in which testing rests on risk and its departures
    (``P(T=1|r,x) = Phi(alpha r + x' beta_Delta)``, risk score r with a normal unobservable).

    Parameters
    ----------
    method : {"ml", "bayes"}, default "ml"
        Maximum likelihood or the posterior.
    prevalence : float, optional
        Known share of positives among everybody, tested or not. Needs ``prevalence_sd``.
    prevalence_sd : float, optional
        How well it is known. There is no default.
    expertise : list of str, optional
        Covariates along which testing may depart from risk; along all others the testing
        coefficient is the risk coefficient times one common ratio. None leaves testing free.
    covariance : {"robust", "model"}, default "robust"
        Sandwich covariance, clustered where clusters are given, or the inverse information.
    draws, tune, chains : int
        Of the posterior sampler.
    target_accept : float, default 0.9
        Of the posterior sampler.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the posterior sampler.

    Attributes
    ----------
    estimates_ : Estimates
        ``"selection:<column>"`` (decision), ``"risk:<column>"`` (outcome), ``"correlation"`` and
        ``"prevalence"``, the mean risk of these rows.
    posterior_ : arviz.InferenceData
        Draws, with ``method="bayes"``.
    conflict_ : Conflict or None
        The prevalence the data imply alone, beside the imposed one.
    expertise_test_ : HypothesisTest or None
        Likelihood-ratio test of the ties.
    ratio_ : float or None
        Common ratio of tied coefficients, with ``method="ml"``.
    loglik_ : float
        Log-likelihood at the maximum.

    See Also
    --------
    HeckmanRisk : The same for a continuous outcome.
    DomainConstrainedRisk : Logit links, other laws of the unobservable.

    Notes
    -----
    P(Y=1,T=1|x) = Phi2(x'b_Y, x'b_T; rho). In terms of the structural model
    :math:`b_Y=\beta_Y/\sqrt{1+\sigma^2}`,
    :math:`b_T=(\alpha\beta_Y+\beta_\Delta)/\sqrt{1+\alpha^2\sigma^2}` and
    :math:`\rho=\alpha\sigma^2/\sqrt{(1+\sigma^2)(1+\alpha^2\sigma^2)}`: the scale of the
    unobservable and the weight of risk are not separately identified from binary data, which is
    why the reduced form is fitted. With ties, the ratio of coefficients identifies both, as long
    as it lies between rho and 1/rho; :meth:`structure` reports them.

    References
    ----------
    .. [1] Van de Ven, W. P. M. M. and Van Praag, B. M. S. (1981). The demand for deductibles in
       private health insurance. Journal of Econometrics 17, 229-252.
       doi:10.1016/0304-4076(81)90028-2
    .. [2] Genz, A. (2004). Numerical computation of rectangular bivariate and trivariate normal
       and t probabilities. Statistics and Computing 14, 251-260.
       doi:10.1023/B:STCO.0000035304.20635.31

    Examples
    --------
    >>> from causalfair.datasets import make_probit_selection
    >>> from causalfair.risk import BivariateProbitSelection
    >>> frame, truth = make_probit_selection(4000, random_state=0)
    >>> est = BivariateProbitSelection(prevalence=truth["prevalence"], prevalence_sd=0.01).fit(
    ...     frame, "y", tested="tested", covariates=["x1", "x2", "x3"])
    >>> low, high = est.estimates_["correlation"].conf_int()[0]
    >>> bool(low < truth["correlation"] < high)
    True
    """

    ratio_: float | None

    _title: ClassVar[str] = "Risk of everybody from those tested (probit with selection)"
    _estimand: ClassVar[str] = "P(Y=1|x) of everybody, tested or not, and what drives the decision."
    _assumptions: ClassVar[tuple[str, ...]] = (
        "outcome and decision are probits with jointly normal errors",
        "a larger risk makes testing more likely if the correlation is positive",
        "the knowledge imposed (prevalence, expertise) is right",
    )
    _citations: ClassVar[tuple[str, ...]] = ("vandeven1981demand", "genz2004numerical")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "method": [StrOptions({"ml", "bayes"})],
        **SELECTION_CONSTRAINTS,
    }

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        tested: Any,
        covariates: Any = None,
        outcome_covariates: Sequence[str] | None = None,
        testing_covariates: Sequence[str] | None = None,
        row_kind: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> BivariateProbitSelection:
        """Fit the two equations.

        Parameters
        ----------
        X : frame or array of shape (n_samples, p)
            Table of all columns, or the covariates. A lazy frame is counted by its engine.
        y : array of shape (n_samples,) or str
            Outcome, 0 or 1; ignored, and may be NaN, where ``tested`` is 0.
        tested : array of shape (n_samples,) or str
            Who was chosen, binary.
        covariates : "all", list of str or formula, optional
            Columns of the model; required when a role is a column name.
        outcome_covariates : list of str, optional
            Those that enter the outcome; all when None.
        testing_covariates : list of str, optional
            Those that enter the decision; all when None.
        row_kind : array of shape (n_samples,) or str, optional
            ``"usual"``, ``"by_design"`` (tested at random), ``"pending"``, ``"late"`` (untested,
            learnt afterwards) or ``"covariates_only"`` a row.
        cluster : array of shape (n_samples,) or (n_samples, c), or str, optional
            Cluster labels.
        sample_weight : array of shape (n_samples,) or str, optional
            Non-negative weights.

        Returns
        -------
        BivariateProbitSelection
            The fitted estimator.

        Raises
        ------
        DataError
            Outcomes that are missing among the tested, or not binary.
        IdentificationError
            Nobody or everybody was tested, one outcome only, or the likelihood is flat.
        ParameterError
            A prevalence without ``prevalence_sd``, or one that the data make impossible.
        ConvergenceError
            The likelihood has no interior maximum.
        """
        owner = "BivariateProbitSelection.fit"
        checked = self._read(
            X, y, owner, tested=tested, covariates=covariates, row_kind=row_kind,
            cluster=cluster, sample_weight=sample_weight,
        )  # fmt: skip
        check_possible(self.prevalence, self.prevalence_sd, checked, owner)
        problem = self._fit(checked, outcome_covariates, testing_covariates, owner)
        root = None
        if self.method == "ml":
            self._fit_likelihood(problem, owner)
        else:
            root = self._fit_posterior(problem, owner)
            self.ratio_ = None
        self._finish(checked.data, seed=root)
        return self

    def _likelihood(self) -> ProbitLikelihood:
        return ProbitLikelihood()

    def _starts(self, problem: SelectionProblem, owner: str) -> list[FloatArray]:
        """Two probits, the outcome's on those tested, and three correlations."""
        rows = problem.rows
        decided, seen = rows.decision != 0, rows.seen
        testing, _ = fit_probit(
            rows.testing[decided], rows.decision[decided], rows.weight[decided], owner=owner
        )
        sign = np.where(rows.y[seen] > 0.5, 1.0, -1.0)
        outcome, _ = fit_probit(rows.outcome[seen], sign, rows.weight[seen], owner=owner)
        ratio = [0.0] if problem.objective().ratio_is_free else []
        return [
            np.concatenate([testing[~problem.tied], outcome, [np.arctanh(c)], ratio])
            for c in (0.0, 0.6, -0.6)
        ]

    def _after_maximum(self, problem: SelectionProblem, free: FloatArray) -> None:
        self.ratio_ = float(np.exp(free[-1])) if problem.objective().ratio_is_free else None
        rho = float(self.estimates_["correlation"].estimate[0])
        if self.ratio_ is not None and not 0 < rho < self.ratio_ < 1 / max(rho, 1e-300):
            warn(
                f"BivariateProbitSelection.fit: the ties give a ratio of {self.ratio_:.3g} with "
                f"correlation {rho:.3g}; a decision that rests on risk needs a positive "
                "correlation and a ratio between it and its inverse. The ties are doubtful.",
                WeakIdentificationWarning,
            )

    def _conditional(self, theta: FloatArray, X: FloatArray, given: str | None) -> FloatArray:
        t, b = self._indices(theta, X)
        if given is None:
            return np.asarray(ndtr(b))
        sign = 1.0 if given == "tested" else -1.0
        return np.asarray(bivariate_normal_cdf(b, sign * t, sign * theta[-2]) / ndtr(sign * t))

    def predict_proba(
        self, X: Any, *, given: Literal["tested", "untested"] | None = None
    ) -> FloatArray:
        """Risk P(Y=1|x) of new rows.

        Parameters
        ----------
        X : frame or array of shape (m, p)
            New rows with the covariates of ``fit``.
        given : {"tested", "untested"}, optional
            Risk given the decision; of everybody when None.

        Returns
        -------
        numpy.ndarray of shape (m,)
            Probabilities.
        """
        return self._predict(X, given, "BivariateProbitSelection.predict_proba")

    def predict_tested(self, X: Any) -> FloatArray:
        """Probability P(T=1|x) of being chosen.

        Parameters
        ----------
        X : frame or array of shape (m, p)
            New rows with the covariates of ``fit``.

        Returns
        -------
        numpy.ndarray of shape (m,)
            Probabilities.
        """
        check_is_fitted(self)
        design = self._raw_design(X, "BivariateProbitSelection.predict_tested")
        return np.asarray(ndtr(self._indices(self.estimates_.estimate, design)[0]))

    def structure(self) -> dict[str, float]:
        """Weight of risk and scale of the unobservable, where ties identify them.

        Returns
        -------
        dict
            ``"alpha"`` and ``"sigma"``.

        Raises
        ------
        ParameterError
            Without ties both are free: binary data cannot tell them apart.
        """
        check_is_fitted(self)
        if self.ratio_ is None:
            raise ParameterError(
                "BivariateProbitSelection.structure needs ties (expertise=) fitted by maximum "
                "likelihood: without them sigma and alpha have identical likelihoods."
            )
        rho = float(self.estimates_["correlation"].estimate[0])
        share = rho / self.ratio_  # sigma**2 / (1 + sigma**2)
        if not 0 < share < 1 or not rho * self.ratio_ < 1:
            raise ParameterError(
                f"correlation {rho:.3g} and ratio {self.ratio_:.3g} fit no positive weight of risk."
            )
        sigma2 = share / (1.0 - share)
        # ratio * rho = alpha**2 sigma**2 / (1 + alpha**2 sigma**2)
        scaled = rho * self.ratio_ / (1.0 - rho * self.ratio_)
        return {"alpha": float(np.sqrt(scaled / sigma2)), "sigma": float(np.sqrt(sigma2))}

    def _cite_extra(self) -> tuple[str, ...]:
        constrained = self.prevalence is not None or self.expertise is not None
        return ("balachandar2024domain",) if constrained else ()


def check_possible(prevalence: Any, prevalence_sd: Any, checked: Any, owner: str) -> None:
    """A prevalence outside what the outcomes seen force it into is an error or, if near, fitted.

    Raises
    ------
    ParameterError
        It lies more than three standard deviations outside.
    """
    if prevalence is None:
        return
    from causalfair.risk._data import POSITIVE, UNTESTED

    low = checked.share(POSITIVE)
    high = low + checked.share(UNTESTED)
    slack = 3.0 * prevalence_sd
    if not low - slack < prevalence < high + slack or not 0 < prevalence < 1:
        raise ParameterError(
            f"{owner}: prevalence={prevalence:g} is impossible: the outcomes seen force it into "
            f"({low:.4g}, {high:.4g})."
        )
