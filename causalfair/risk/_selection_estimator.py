"""The common part of HeckmanRisk and BivariateProbitSelection."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import Interval, StrOptions, posterior_dataset
from causalfair._core.random import root_seed
from causalfair._core.sampling import Convergence, judge
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_level
from causalfair.exceptions import ParameterError
from causalfair.inference import DrawEstimates, HypothesisTest
from causalfair.inference.estimates import numerical_jacobian
from causalfair.reporting import Table
from causalfair.risk._data import SelectiveRows, read_rows
from causalfair.risk._design import fit_design
from causalfair.risk._nuts import ADVICE, Posterior, sample_posterior
from causalfair.risk._selection_base import (
    STRAINED,
    Conflict,
    SelectionProblem,
    build_problem,
    conflict_of,
    fit_without_prevalence,
    likelihood_estimates,
)
from causalfair.risk._selection_fit import MaximumLikelihood, SelectionObjective, maximise
from causalfair.risk._selection_likelihood import SelectionLikelihood
from causalfair.risk._selection_profile import profile_of

__all__ = ["SELECTION_CONSTRAINTS", "SelectionEstimator", "check_prevalence"]

SELECTION_CONSTRAINTS: dict[str, Any] = {
    "prevalence": [Real, None],
    "prevalence_sd": [Interval(Real, 0, None, closed="neither"), None],
    "expertise": [str, list, tuple, None],
    "covariance": [StrOptions({"robust", "model"})],
    "draws": [Interval(Integral, 10, None, closed="left")],
    "tune": [Interval(Integral, 10, None, closed="left")],
    "chains": [Interval(Integral, 1, None, closed="left")],
    "target_accept": [Interval(Real, 0, 1, closed="neither")],
}
PRIOR_SD = 3.0


def check_prevalence(prevalence: Any, prevalence_sd: Any, owner: str) -> None:
    """A prevalence comes with its standard deviation.

    Raises
    ------
    ParameterError
        One without the other.
    """
    if (prevalence is None) != (prevalence_sd is None):
        names = ("prevalence", "prevalence_sd")
        given, missing = names if prevalence_sd is None else names[::-1]
        raise ParameterError(
            f"{owner} got {given} without {missing}. There is no default: a wrong prevalence held "
            "tightly is worse than none, so say how well it is known."
        )


class SelectionEstimator(CausalEstimator):
    """Fitting, constraints, posterior and prediction of the normal selection models."""

    _binary: ClassVar[bool] = True
    prevalence: float | None
    prevalence_sd: float | None
    expertise: Sequence[str] | None
    method: str
    covariance: str
    draws: int
    tune: int
    chains: int
    target_accept: float
    random_state: Any
    condition_: float | None
    expertise_test_: HypothesisTest | None

    def __init__(
        self,
        method: str = "ml",
        *,
        prevalence: float | None = None,
        prevalence_sd: float | None = None,
        expertise: Sequence[str] | None = None,
        covariance: str = "robust",
        draws: int = 1000,
        tune: int = 1000,
        chains: int = 4,
        target_accept: float = 0.9,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.prevalence = prevalence
        self.prevalence_sd = prevalence_sd
        self.expertise = expertise
        self.covariance = covariance
        self.draws = draws
        self.tune = tune
        self.chains = chains
        self.target_accept = target_accept
        self.random_state = random_state

    def _likelihood(self) -> SelectionLikelihood:
        raise NotImplementedError

    def _read(self, X: Any, y: Any, owner: str, **roles: Any) -> SelectiveRows:
        check_prevalence(self.prevalence, self.prevalence_sd, owner)
        return read_rows(X, y, owner=owner, binary=self._binary, **roles)

    def _fit(
        self,
        checked: SelectiveRows,
        outcome_covariates: Sequence[str] | None,
        testing_covariates: Sequence[str] | None,
        owner: str,
    ) -> SelectionProblem:
        self._design = fit_design(checked.data, checked.weight, owner=owner)
        problem = build_problem(
            checked,
            self._design,
            self._likelihood(),
            outcome_covariates=outcome_covariates,
            testing_covariates=testing_covariates,
            expertise=self.expertise,
            known=self.prevalence is not None,
            owner=owner,
        )
        self._testing_at = [self._design.names.index(n) for n in problem.testing_names]
        self._outcome_at = [self._design.names.index(n) for n in problem.outcome_names]
        self._tied_names = [
            n for n, t in zip(problem.testing_names, problem.tied, strict=True) if t
        ]
        self.conflict_: Conflict | None = None
        self._health: Convergence | None = None
        self._maximum: Any = None
        # A prevalence makes the correlation firm where the outcome is binary, ties where it is not.
        firm = self.prevalence is not None if self._binary else bool(problem.tied.any())
        self._weak = not firm and not problem.excludes
        self._counts = _row_counts(checked)
        return problem

    # Maximum likelihood ---------------------------------------------------------------------------

    def _fit_likelihood(self, problem: SelectionProblem, owner: str) -> None:
        starts = self._starts(problem, owner)
        model_based = self.covariance == "model"
        objective, without = problem.objective(), None
        if self.prevalence is not None and self.prevalence_sd is not None:
            without = fit_without_prevalence(problem, starts, owner)
            starts = starts if without is None else [without.free, *starts]
            objective = problem.objective(self.prevalence, self._total_sd(problem, starts[0]))
        found = maximise(objective, starts, owner=owner)
        self.loglik_, self.condition_ = found.value, found.condition
        # A sum over dependent or weighted rows is no likelihood that could be profiled.
        plain = problem.checked.data.cluster is None and not self._weighted(problem.checked)
        if without is not None and self.prevalence is not None and self.prevalence_sd is not None:
            self.conflict_ = conflict_of(
                problem, without, found, self.prevalence, self.prevalence_sd,
                independent=plain, model_based=model_based, owner=owner,
            )  # fmt: skip
        scale = (problem.y_center, problem.y_scale)
        self._maximum = (objective, found.free, *scale) if plain else None
        self.expertise_test_ = self._expertise_test(problem, found, owner)
        self.estimates_ = likelihood_estimates(problem, objective, found, model_based=model_based)
        self._after_maximum(problem, found.free)

    @staticmethod
    def _weighted(checked: SelectiveRows) -> bool:
        return checked.data.sample_weight is not None and checked.n_rows == checked.data.n

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: no rows."""
        state = dict(super().__getstate__())
        return state | ({"_maximum": None} if "_maximum" in state else {})

    def profile_interval(
        self, term: str = "correlation", level: float = 0.95
    ) -> tuple[float, float]:
        """Interval by profile likelihood: the values a likelihood-ratio test does not reject.

        Where the correlation rests on the shape of the normal law alone it is hardly identified:
        its estimate may run to one, and intervals from standard errors cover far too rarely. This
        one keeps its level, and may reach from end to end.

        Parameters
        ----------
        term : {"correlation", "prevalence"}, default "correlation"
            Correlation of the errors, or mean outcome of these rows where no prevalence was
            imposed.
        level : float, default 0.95
            Level.

        Returns
        -------
        low, high : float
            Ends; a correlation of 1 or -1 where nothing rules it out.

        Raises
        ------
        ParameterError
            Another method than ``"ml"``, rows with clusters or sampling weights, or a model that
            was pickled and has no rows any more.
        """
        owner = f"{type(self).__name__}.profile_interval"
        check_is_fitted(self)
        check_level(level)
        if self._maximum is None:
            raise ParameterError(
                f'{owner} needs a fit with method="ml" to rows without clusters and sampling '
                "weights, in the session that fitted it; refit, or use estimates_.conf_int()."
            )
        objective, free, center, scale = self._maximum
        low, high = profile_of(term, objective, free, owner).interval(level)
        if term == "correlation":
            return low, high
        return center + scale * low, center + scale * high

    def _after_maximum(self, problem: SelectionProblem, free: FloatArray) -> None:
        """What a subclass stores of the maximum."""

    def _total_sd(self, problem: SelectionProblem, free: FloatArray) -> float:
        """Of the prevalence and of the sample's own average around the population's."""
        assert self.prevalence_sd is not None
        mean = problem.y_scale * problem.objective().mean_outcome(free)[2]
        share = problem.rows.weight / problem.rows.weight.sum()
        spread = float(share @ (mean - share @ mean) ** 2) / problem.rows.weight.sum()
        return float(np.sqrt(self.prevalence_sd**2 + spread))

    def _starts(self, problem: SelectionProblem, owner: str) -> list[FloatArray]:
        raise NotImplementedError

    def _expertise_test(
        self, problem: SelectionProblem, found: MaximumLikelihood, owner: str
    ) -> HypothesisTest | None:
        """Likelihood-ratio test of the ties, against free testing coefficients."""
        from scipy.special import chdtrc

        count = int(problem.tied.sum())
        if not count:
            return None
        import dataclasses

        loose = dataclasses.replace(problem, tied=np.zeros_like(problem.tied))
        tied = problem.objective(self.prevalence, self.prevalence_sd)
        df = count - int(tied.ratio_is_free)
        null = f"testing follows risk along {', '.join(self._tied_names)}"
        if df < 1:
            return HypothesisTest(
                "expertise", null, np.nan, np.nan, 0, reason="one tie only sets the ratio"
            )
        objective = loose.objective(self.prevalence, self.prevalence_sd)
        start, _ = tied.expand(found.free)
        free = maximise(objective, [start[: objective.n_free]], owner=owner)
        value = max(0.0, 2.0 * (free.value - tied.value(found.free)[0]))
        return HypothesisTest("expertise", null, value, float(chdtrc(df, value)), df)

    # Posterior ------------------------------------------------------------------------------------

    def _fit_posterior(self, problem: SelectionProblem, owner: str) -> Any:
        objective = problem.objective(self.prevalence, self.prevalence_sd)
        mode = _posterior_mode(objective, np.zeros(objective.n_free))
        if self.prevalence is not None:
            objective = problem.objective(self.prevalence, self._total_sd(problem, mode.x))
            mode = _posterior_mode(objective, mode.x)
        density = _log_posterior(objective)
        root = root_seed(self.random_state)
        names = problem.terms()
        p, q = problem.rows.n_testing, problem.rows.n_outcome
        dims: dict[str, tuple[str, ...]] = {"selection": ("testing_feature",), "risk": ("feature",)}
        dims.update(dict.fromkeys(names[p + q :], ()))

        def report(free: FloatArray) -> dict[str, Any]:
            values = problem.report(objective, free)
            single = dict(zip(names[p + q :], values[p + q :], strict=True))
            return {"selection": values[:p], "risk": values[p : p + q], **single}

        self.posterior_ = sample_posterior(
            Posterior(
                density,
                report,
                dims,
                {"testing_feature": problem.testing_names, "feature": problem.outcome_names},
            ),
            mode.x,
            np.sqrt(np.clip(np.diag(mode.hess_inv), 1e-12, None)),
            draws=self.draws,
            tune=self.tune,
            chains=self.chains,
            target_accept=self.target_accept,
            seed=root,
        )
        self._health = judge(self.posterior_, list(dims))
        self._health.warn(owner, ADVICE)
        dataset = posterior_dataset(self.posterior_)
        columns = [np.asarray(dataset[name]).reshape(self.chains * self.draws, -1) for name in dims]
        self.estimates_ = DrawEstimates(np.hstack(columns), names)
        self.condition_, self.expertise_test_ = None, None
        return root

    # Prediction -----------------------------------------------------------------------------------

    def _conditional(self, theta: FloatArray, X: FloatArray, given: str | None) -> FloatArray:
        """E[Y|x], or given the decision, of one value of the reported parameters."""
        raise NotImplementedError

    def _raw_design(self, X: Any, owner: str) -> FloatArray:
        encoder = self._design.encoder
        matrix = encoder.matrix(encoder.transform(X, owner=owner), owner=owner)
        return np.column_stack([np.ones(len(matrix)), matrix])

    def _indices(self, theta: FloatArray, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        p, q = len(self._testing_at), len(self._outcome_at)
        return (
            X[:, self._testing_at] @ theta[:p],
            X[:, self._outcome_at] @ theta[p : p + q],
        )

    def _predict(self, X: Any, given: str | None, owner: str) -> FloatArray:
        check_is_fitted(self)
        _check_given(given, owner)
        design = self._raw_design(X, owner)
        if isinstance(self.estimates_, DrawEstimates):
            thinned = _thinned(self.estimates_.draws)
            return np.asarray(
                np.mean([self._conditional(draw, design, given) for draw in thinned], axis=0)
            )
        return self._conditional(self.estimates_.estimate, design, given)

    def predict_interval(
        self, X: Any, level: float = 0.95, *, given: str | None = None
    ) -> FloatArray:
        """Intervals of the predicted risk (not of single outcomes).

        Parameters
        ----------
        X : frame or array of shape (m, p)
            New rows with the covariates of ``fit``.
        level : float, default 0.95
            Level.
        given : {"tested", "untested"}, optional
            Risk given the decision; of everybody when None.

        Returns
        -------
        numpy.ndarray of shape (m, 2)
            Lower and upper ends: quantiles of the posterior, or the delta method.
        """
        owner = f"{type(self).__name__}.predict_interval"
        check_is_fitted(self)
        check_level(level)
        _check_given(given, owner)
        design = self._raw_design(X, owner)
        if isinstance(self.estimates_, DrawEstimates):
            tail = (1 - level) / 2
            thinned = _thinned(self.estimates_.draws)
            values = np.array([self._conditional(draw, design, given) for draw in thinned])
            return np.asarray(np.quantile(values, [tail, 1 - tail], axis=0).T)
        return self._delta_interval(design, level, given)

    def _delta_interval(self, design: FloatArray, level: float, given: str | None) -> FloatArray:
        from scipy.special import expit, logit, ndtri

        theta = np.array(self.estimates_.estimate)
        point = self._conditional(theta, design, given)
        jacobian = numerical_jacobian(lambda v: self._conditional(v, design, given), theta)
        error = np.sqrt(np.einsum("ij,jk,ik->i", jacobian, self.estimates_.vcov, jacobian))
        half = float(ndtri((1 + level) / 2)) * error
        if not self._binary:
            return np.column_stack([point - half, point + half])
        # On the logit scale, so that the ends are probabilities.
        slope = np.clip(point * (1 - point), 1e-300, None)
        center = logit(point)
        return np.column_stack([expit(center - half / slope), expit(center + half / slope)])

    # Reports --------------------------------------------------------------------------------------

    def _summary_header(self) -> list[tuple[str, str]]:
        tested, untested, other = self._counts
        pairs = [
            *super()._summary_header(),
            ("tested", f"{tested:,}"),
            ("untested", f"{untested:,}"),
        ]
        if other:
            pairs.append(("other rows", f"{other:,}"))
        how = {"bayes": "posterior", "two-step": "two-step, corrected"}.get(
            self.method, f"{self.covariance} covariance"
        )
        return [*pairs, ("method", self.method), ("std. error", how)]

    def _summary_notes(self) -> list[str]:
        notes = []
        if self._tied_names:
            notes.append(f"Expertise: testing follows risk along {', '.join(self._tied_names)}.")
        if self.conflict_ is not None:
            notes.append(self.conflict_.sentence())
        if self._health is not None:
            notes.append(f"Sampler: {self._health}.")
        if self._weak and self.method == "ml":
            notes.append(
                "The correlation is weakly identified: its standard error is no guide; "
                "profile_interval() keeps its level."
            )
        return notes

    def check(self) -> Table:
        """Diagnostics of the fit, each with what it means.

        Returns
        -------
        causalfair.reporting.Table
            One row a diagnostic: its value and its meaning.
        """
        check_is_fitted(self)
        rows = []
        if self.condition_ is not None:
            weak = self.condition_ > STRAINED
            meaning = "nearly flat: add knowledge or an excluded covariate" if weak else "fine"
            rows.append(["condition of information", f"{self.condition_:.2g}", meaning])
        if self._health is not None:
            meaning = "converged" if self._health.ok else "did not converge: do not use the draws"
            rows.append(["sampler", str(self._health), meaning])
        if self.conflict_ is not None:
            against = abs(self.conflict_.z) > 2
            meaning = "the data contradict the prevalence" if against else "no conflict"
            rows.append(["prevalence conflict", f"z = {self.conflict_.z:.2f}", meaning])
        if self.expertise_test_ is not None:
            rejected = self.expertise_test_.p_value < 0.05
            meaning = "the data reject the ties" if rejected else "the ties fit"
            rows.append(["expertise", str(self.expertise_test_), meaning])
        if self._maximum is None:
            low, high = self.estimates_["correlation"].conf_int()[0]
        else:
            low, high = self.profile_interval()
        meaning = "selection on what X does not hold is not shown"
        if low > 0:
            meaning = "testers see more than X"
        elif high < 0:
            meaning = "testers pick low risk: recode the outcome"
        rows.append(["correlation", f"[{low:.2f}, {high:.2f}]", meaning])
        return Table(["", "value", "meaning"], rows, "Diagnostics")


def _row_counts(checked: SelectiveRows) -> tuple[int, int, int]:
    tested = int(np.isin(checked.code, (1, 2)).sum())
    untested = int((checked.code == 0).sum())
    return tested, untested, checked.n - tested - untested


def _check_given(given: str | None, owner: str) -> None:
    if given not in (None, "tested", "untested"):
        raise ParameterError(f"{owner} got given={given!r}; use None, 'tested' or 'untested'.")


def _thinned(draws: FloatArray, most: int = 500) -> FloatArray:
    """At most 500 draws, evenly spaced: predictions need no more."""
    step = max(1, len(draws) // most)
    return draws[::step]


def _posterior_mode(objective: SelectionObjective, start: FloatArray) -> Any:
    density = _log_posterior(objective)

    def loss(free: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = density(free)
        return (-value, -gradient) if np.isfinite(value) else (1e12, np.zeros_like(free))

    return minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-4})


def _log_posterior(objective: SelectionObjective) -> Any:
    """Log-likelihood plus priors.

    Normal coefficients (sd 3 on standardised columns), half-normal sigma (3 standard deviations of
    the outcome), standard normal atanh correlation and log ratio.
    """
    loose = objective.n_free - len(objective.likelihood.extras) - objective.ratio_is_free
    has_sigma = "log_sigma" in objective.likelihood.extras

    def density(free: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = objective.value(free)
        gradient = np.array(gradient)
        beta = free[:loose]
        value -= 0.5 * float(beta @ beta) / PRIOR_SD**2
        gradient[:loose] -= beta / PRIOR_SD**2
        at = loose
        if has_sigma:
            scaled = np.exp(2.0 * free[at]) / PRIOR_SD**2
            value += free[at] - 0.5 * scaled
            gradient[at] += 1.0 - scaled
            at += 1
        rest = free[at:]
        value -= 0.5 * float(rest @ rest)
        gradient[at:] -= rest
        return float(value), gradient

    return density
