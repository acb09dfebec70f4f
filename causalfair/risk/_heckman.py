"""Risk of a continuous outcome that is seen only where somebody chose to look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import StrOptions, fit_context
from causalfair._core.typing import FloatArray
from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.inference import CovarianceEstimates
from causalfair.inference.estimates import numerical_jacobian
from causalfair.risk._selection_base import SelectionProblem
from causalfair.risk._selection_estimator import SELECTION_CONSTRAINTS, SelectionEstimator
from causalfair.risk._selection_fit import TwoStep, fit_probit, two_step
from causalfair.risk._selection_likelihood import (
    HeckmanLikelihood,
    decision_form,
    mills_ratio,
)

__all__ = ["HeckmanRisk"]


class HeckmanRisk(SelectionEstimator):
    r"""Mean of a continuous outcome for everybody, when it is seen only for those chosen.

    Use it when the outcome is a number (a glucose level, a loss, a wage) and whoever decided whom
    to measure knew more than the covariates. Outcome and decision have jointly normal errors
    [1]_; this is the Gaussian member of the models in which the decision rests on the outcome
    itself: ``P(T=1|Y,x) = Phi(alpha Y + x' beta_Delta)``.

    Parameters
    ----------
    method : {"ml", "two-step", "bayes"}, default "ml"
        Maximum likelihood; probit and least squares with the inverse Mills ratio, with the
        corrected covariance; or the posterior.
    prevalence : float, optional
        Known mean of the outcome over everybody, tested or not. Needs ``prevalence_sd``.
    prevalence_sd : float, optional
        How well it is known. There is no default.
    expertise : list of str, optional
        Covariates along which testing may depart from risk; along all others the decision follows
        the outcome alone (``beta_Delta = 0``). None leaves testing free.
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
        ``"selection:<column>"`` (probit coefficients of the decision), ``"risk:<column>"``
        (coefficients of the outcome), ``"sigma"``, ``"correlation"`` of the errors and
        ``"prevalence"``, the mean of E[Y|x]
        over these rows.
    posterior_ : arviz.InferenceData
        Draws, with ``method="bayes"``.
    conflict_ : Conflict or None
        The prevalence the data imply alone, beside the imposed one.
    expertise_test_ : HypothesisTest or None
        Likelihood-ratio test of the ties.
    loglik_ : float
        Log-likelihood at the maximum.

    See Also
    --------
    BivariateProbitSelection : The same for a binary outcome.
    DomainConstrainedRisk : Logit links, other laws of the unobservable.

    Notes
    -----
    With error standard deviation s and correlation c the decision on the outcome has
    :math:`\alpha=(c/s)/\sqrt{1-c^2}` and :math:`\beta_\Delta=(\beta_T-(c/s)\beta_Y)/\sqrt{1-c^2}`;
    :meth:`decision` reports them. The likelihood is maximised over
    :math:`(\beta_T,\beta_Y,\log s,\operatorname{atanh} c)` on standardised columns, by BFGS from
    several starts and Newton steps. If both equations have the same columns the correlation is
    identified by the shape of the normal law alone; a prevalence, ties or a column of the decision
    only make it firm.

    References
    ----------
    .. [1] Heckman, J. J. (1979). Sample selection bias as a specification error. Econometrica 47,
       153-161. doi:10.2307/1912352
    .. [2] Toomet, O. and Henningsen, A. (2008). Sample selection models in R: package
       sampleSelection. Journal of Statistical Software 27(7). doi:10.18637/jss.v027.i07
    .. [3] Balachandar, S., Garg, N. and Pierson, E. (2024). Domain constraints improve risk
       prediction when outcome data is missing. ICLR. arXiv:2312.03878

    Examples
    --------
    >>> from causalfair.datasets import make_heckman_selection
    >>> from causalfair.risk import HeckmanRisk
    >>> frame, truth = make_heckman_selection(3000, random_state=0)
    >>> est = HeckmanRisk(expertise=["x1"]).fit(
    ...     frame, "y", tested="tested", covariates=["x1", "x2", "x3", "x4"])
    >>> low, high = est.estimates_["correlation"].conf_int()[0]
    >>> bool(low < truth["correlation"] < high)
    True
    """

    _title: ClassVar[str] = "Mean outcome of everybody from those chosen (Heckman selection)"
    _estimand: ClassVar[str] = "E[Y|x] of everybody, tested or not, and what drives the decision."
    _assumptions: ClassVar[tuple[str, ...]] = (
        "outcome linear in the covariates with normal errors",
        "decision a probit whose error is jointly normal with that of the outcome",
        "the knowledge imposed (prevalence, expertise) is right",
    )
    _citations: ClassVar[tuple[str, ...]] = ("heckman1979sample", "toomet2008sample")
    _binary: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "method": [StrOptions({"ml", "two-step", "bayes"})],
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
    ) -> HeckmanRisk:
        """Fit the two equations.

        Parameters
        ----------
        X : frame or array of shape (n_samples, p)
            Table of all columns, or the covariates.
        y : array of shape (n_samples,) or str
            Outcome; ignored, and may be NaN, where ``tested`` is 0.
        tested : array of shape (n_samples,) or str
            Who was chosen, binary.
        covariates : "all", list of str or formula, optional
            Columns of the model; required when a role is a column name.
        outcome_covariates : list of str, optional
            Those that enter the outcome; all when None.
        testing_covariates : list of str, optional
            Those that enter the decision; all when None. A covariate that moves the decision and
            not the outcome identifies the correlation.
        row_kind : array of shape (n_samples,) or str, optional
            ``"usual"``, ``"by_design"`` (tested at random), ``"pending"``, ``"late"`` (untested,
            learnt afterwards) or ``"covariates_only"`` a row.
        cluster : array of shape (n_samples,) or (n_samples, c), or str, optional
            Cluster labels.
        sample_weight : array of shape (n_samples,) or str, optional
            Non-negative weights.

        Returns
        -------
        HeckmanRisk
            The fitted estimator.

        Raises
        ------
        DataError
            Outcomes missing among the tested, or unusable roles.
        IdentificationError
            Nobody or everybody was tested, or the likelihood is flat.
        ParameterError
            A prevalence without ``prevalence_sd``, or options that exclude one another.
        ConvergenceError
            The likelihood has no interior maximum.
        """
        owner = "HeckmanRisk.fit"
        self._check_two_step(cluster, sample_weight, row_kind, owner)
        checked = self._read(
            X, y, owner, tested=tested, covariates=covariates, row_kind=row_kind,
            cluster=cluster, sample_weight=sample_weight,
        )  # fmt: skip
        problem = self._fit(checked, outcome_covariates, testing_covariates, owner)
        root = None
        if self.method == "ml":
            self._fit_likelihood(problem, owner)
        elif self.method == "bayes":
            root = self._fit_posterior(problem, owner)
        else:
            self._store_two_step(problem, two_step(problem.rows, owner=owner))
        self._finish(checked.data, seed=root)
        return self

    def _likelihood(self) -> HeckmanLikelihood:
        return HeckmanLikelihood()

    def _check_two_step(self, cluster: Any, weight: Any, row_kind: Any, owner: str) -> None:
        if self.method != "two-step":
            return
        knowledge = {"prevalence": self.prevalence, "expertise": self.expertise}
        roles = {"cluster": cluster, "sample_weight": weight, "row_kind": row_kind}
        for name, value in {**knowledge, **roles}.items():
            if value is not None:
                raise ParameterError(
                    f'{owner}: {name} cannot be used with method="two-step", whose corrected '
                    'covariance is for plain rows without constraints; use method="ml".'
                )

    def _starts(self, problem: SelectionProblem, owner: str) -> list[FloatArray]:
        """Two-step estimates with a tame correlation, and the same with other correlations."""
        rows = problem.rows
        try:
            steps = two_step(rows, owner=owner)
            testing, outcome = steps.testing, steps.outcome
            sigma, tame = steps.sigma, float(np.clip(steps.correlation, -0.9, 0.9))
        except IdentificationError:  # collinear second step: start from the tested alone
            decided, seen = rows.decision != 0, rows.seen
            testing, _ = fit_probit(
                rows.testing[decided], rows.decision[decided], rows.weight[decided], owner=owner
            )
            outcome = np.asarray(
                np.linalg.lstsq(rows.outcome[seen], rows.y[seen], rcond=None)[0], dtype=np.float64
            )
            sigma, tame = float(np.std(rows.y[seen] - rows.outcome[seen] @ outcome)), 0.0
        return [
            np.concatenate([testing[~problem.tied], outcome, [np.log(sigma), np.arctanh(c)]])
            for c in (tame, 0.3, -0.3)
        ]

    def _store_two_step(self, problem: SelectionProblem, steps: TwoStep) -> None:
        p, q = len(steps.testing), len(steps.outcome)
        rows, scale = problem.rows, problem.y_scale
        share = rows.weight / rows.weight.sum()

        def report(theta: FloatArray) -> FloatArray:
            outcome = scale * (theta[p : p + q] @ problem.outcome_map)
            outcome[0] += problem.y_center
            mean = problem.y_center + scale * (share @ rows.outcome @ theta[p : p + q])
            # The Mills coefficient is correlation times sigma.
            return np.concatenate(
                [theta[:p] @ problem.testing_map, outcome, [scale * theta[-1], mean]]
            )

        theta = np.concatenate([steps.testing, steps.outcome, [steps.mills]])
        jacobian = numerical_jacobian(report, theta)
        names = [name for name in problem.terms() if name not in ("sigma", "correlation")]
        names.insert(p + q, "inverse Mills ratio")
        vcov = jacobian @ steps.vcov @ jacobian.T
        self.estimates_ = CovarianceEstimates(report(theta), vcov, names)
        self.sigma_, self.correlation_ = scale * steps.sigma, steps.correlation
        self.condition_, self.expertise_test_ = None, None

    def _conditional(self, theta: FloatArray, X: FloatArray, given: str | None) -> FloatArray:
        t, mean = self._indices(theta, X)
        if given is None:
            return mean
        slope = theta[-2] if self.method == "two-step" else theta[-3] * theta[-2]
        shift = mills_ratio(t) if given == "tested" else -mills_ratio(-t)
        return np.asarray(mean + slope * shift)

    def predict(self, X: Any, *, given: Literal["tested", "untested"] | None = None) -> FloatArray:
        """Mean outcome of new rows.

        Parameters
        ----------
        X : frame or array of shape (m, p)
            New rows with the covariates of ``fit``.
        given : {"tested", "untested"}, optional
            Mean given the decision; of everybody when None.

        Returns
        -------
        numpy.ndarray of shape (m,)
            Means.
        """
        return self._predict(X, given, "HeckmanRisk.predict")

    def decision(self) -> Any:
        """The decision as a function of the outcome itself.

        Returns
        -------
        Estimates
            ``"alpha"`` and, for every column, ``"testing:<column>"``: how the decision departs
            from risk along it, ``beta_Delta`` of ``P(T=1|Y,x) = Phi(alpha Y + x' beta_Delta)``.
        """
        check_is_fitted(self)
        if self.method == "two-step":
            raise ParameterError(
                "HeckmanRisk.decision needs sigma and correlation with a joint covariance, which "
                'two steps do not give; use method="ml".'
            )
        testing = [self._design.names[j] for j in self._testing_at]
        outcome = [self._design.names[j] for j in self._outcome_at]
        union = [n for n in self._design.names if n in testing or n in outcome]
        at_t = [testing.index(n) if n in testing else None for n in union]
        at_y = [outcome.index(n) if n in outcome else None for n in union]
        p = len(testing)

        def form(theta: FloatArray) -> FloatArray:
            beta_t = np.array([0.0 if j is None else theta[j] for j in at_t])
            beta_y = np.array([0.0 if j is None else theta[p + j] for j in at_y])
            alpha, delta = decision_form(beta_t, beta_y, theta[-3], theta[-2])
            return np.concatenate([[alpha], delta])

        return self.estimates_.transform(form, ["alpha", *(f"testing:{n}" for n in union)])

    def _summary_notes(self) -> list[str]:
        notes = super()._summary_notes()
        if self.method == "two-step":
            notes.append(f"sigma {self.sigma_:.4g}, correlation {self.correlation_:.3f}.")
        return notes

    def _cite_extra(self) -> tuple[str, ...]:
        constrained = self.prevalence is not None or self.expertise is not None
        return ("balachandar2024domain",) if constrained else ()
