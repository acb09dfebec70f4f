"""What the normal selection models share: from a table to estimates, by likelihood or posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair._core.validation import suggest
from causalfair.exceptions import (
    ConvergenceError,
    IdentificationError,
    ParameterError,
    RoleError,
    WeakIdentificationWarning,
)
from causalfair.inference import CovarianceEstimates, InfluenceEstimates
from causalfair.inference.estimates import Estimates, numerical_jacobian
from causalfair.risk._data import (
    DESIGN_NEGATIVE,
    DESIGN_POSITIVE,
    LATE_NEGATIVE,
    LATE_POSITIVE,
    NEGATIVE,
    PENDING,
    POSITIVE,
    UNTESTED,
    SelectiveRows,
)
from causalfair.risk._design import INTERCEPT, Design
from causalfair.risk._selection_fit import MaximumLikelihood, SelectionObjective, maximise
from causalfair.risk._selection_likelihood import SelectionLikelihood, SelectionRows

__all__ = ["Conflict", "SelectionProblem", "build_problem", "likelihood_estimates"]

CONFLICT = 2.0
STRAINED = 1e4


@dataclass(frozen=True)
class SelectionProblem:
    """Standardised rows of a selection model and the way back to the user's scale.

    Attributes
    ----------
    checked : SelectiveRows
        The table.
    rows : SelectionRows
        Standardised designs; the outcome standardised where it is continuous.
    likelihood : SelectionLikelihood
        Which model.
    testing_names, outcome_names : tuple of str
        Columns of the two designs.
    testing_map, outcome_map : float arrays
        ``b_original = b_standardised @ map``.
    y_center, y_scale : float
        Of the outcome; 0 and 1 where it is binary.
    tied, partner : arrays
        See :class:`SelectionObjective`.
    """

    checked: SelectiveRows
    rows: SelectionRows
    likelihood: SelectionLikelihood
    testing_names: tuple[str, ...]
    outcome_names: tuple[str, ...]
    testing_map: FloatArray
    outcome_map: FloatArray
    y_center: float
    y_scale: float
    tied: Any
    partner: Any

    def objective(
        self, prevalence: float | None = None, prevalence_sd: float | None = None
    ) -> SelectionObjective:
        """Log-likelihood with a known mean outcome, both on the user's scale."""
        known = prevalence is not None and prevalence_sd is not None
        return SelectionObjective(
            self.rows,
            self.likelihood,
            self.tied,
            self.partner,
            (prevalence - self.y_center) / self.y_scale if prevalence is not None else None,
            prevalence_sd / self.y_scale if known and prevalence_sd is not None else None,
        )

    @property
    def excludes(self) -> bool:
        """Whether some column moves the decision only."""
        return bool(set(self.testing_names) - set(self.outcome_names))

    def terms(self) -> tuple[str, ...]:
        """Names of the reported parameters."""
        names = [f"selection:{name}" for name in self.testing_names]
        names += [f"risk:{name}" for name in self.outcome_names]
        if "log_sigma" in self.likelihood.extras:
            names.append("sigma")
        return (*names, "correlation", "prevalence")

    def report(self, objective: SelectionObjective, free: FloatArray) -> FloatArray:
        """Reported parameters of one value of the free parameters."""
        theta, _ = objective.expand(free)
        p, q = self.rows.n_testing, self.rows.n_outcome
        testing = theta[:p] @ self.testing_map
        outcome = self.y_scale * (theta[p : p + q] @ self.outcome_map)
        outcome[0] += self.y_center
        sigma = [] if len(theta) == p + q + 1 else [self.y_scale * np.exp(theta[-2])]
        mean = self.y_center + self.y_scale * objective.mean_outcome(free)[0]
        return np.concatenate([testing, outcome, sigma, [np.tanh(theta[-1]), mean]])


def _columns(
    given: Sequence[str] | None, design: Design, role: str, owner: str
) -> tuple[tuple[str, ...], list[int]]:
    """Names and positions of the columns of one equation, the intercept first."""
    if given is None:
        return design.names, list(range(design.d))
    chosen = [given] if isinstance(given, str) else list(given)
    for name in chosen:
        if name not in design.names[1:]:
            raise RoleError(
                f"{owner}: {role} names {name!r}, which is not a covariate."
                f"{suggest(str(name), design.names[1:])} Covariates: {', '.join(design.names[1:])}."
            )
    names = tuple(n for n in design.names if n == INTERCEPT or n in chosen)
    return names, [design.names.index(n) for n in names]


def _tied(
    expertise: Sequence[str] | None,
    testing: tuple[str, ...],
    outcome: tuple[str, ...],
    owner: str,
) -> tuple[Any, Any]:
    """Testing columns tied to the outcome: those not among the features of ``expertise``."""
    partner = np.array([outcome.index(n) if n in outcome else 0 for n in testing], dtype=np.intp)
    if expertise is None:
        return np.zeros(len(testing), dtype=bool), partner
    free = [expertise] if isinstance(expertise, str) else list(expertise)
    for name in free:
        if name not in testing:
            raise ParameterError(
                f"{owner}: expertise names {name!r}, which is not in the testing equation."
                f"{suggest(str(name), testing)} Columns: {', '.join(testing[1:])}."
            )
    tied = np.array([n != INTERCEPT and n not in free and n in outcome for n in testing])
    return tied, partner


def build_problem(
    checked: SelectiveRows,
    design: Design,
    likelihood: SelectionLikelihood,
    *,
    outcome_covariates: Sequence[str] | None,
    testing_covariates: Sequence[str] | None,
    expertise: Sequence[str] | None,
    known: bool,
    owner: str,
) -> SelectionProblem:
    """Designs of the two equations and what each row says."""
    full = design.standardise(checked.data.matrix())
    back = design.original_scale(np.eye(design.d))
    testing, at_t = _columns(testing_covariates, design, "testing_covariates", owner)
    outcome, at_y = _columns(outcome_covariates, design, "outcome_covariates", owner)
    tied, partner = _tied(expertise, testing, outcome, owner)
    code = checked.code
    positive = (NEGATIVE, POSITIVE, PENDING)
    decision = np.where(np.isin(code, positive), 1.0, 0.0)
    decision -= np.isin(code, (UNTESTED, LATE_NEGATIVE, LATE_POSITIVE))
    seen = np.isin(
        code,
        (NEGATIVE, POSITIVE, DESIGN_NEGATIVE, DESIGN_POSITIVE, LATE_NEGATIVE, LATE_POSITIVE),
    )
    y = np.where(seen, checked.y, 0.0)
    center, scale = 0.0, 1.0
    if "log_sigma" in likelihood.extras:
        center = float(np.average(y[seen], weights=checked.weight[seen]))
        scale = float(np.sqrt(np.average((y[seen] - center) ** 2, weights=checked.weight[seen])))
        if not scale > 0:
            raise IdentificationError(
                f"{owner}: y takes one value ({center:g}) in all {int(seen.sum())} rows where it "
                "was seen; it must vary."
            )
        y = np.where(seen, (y - center) / scale, 0.0)
    if len(outcome) >= int(seen.sum()):
        raise IdentificationError(
            f"{owner}: {len(outcome)} outcome coefficients and only {int(seen.sum())} outcomes "
            "seen; use fewer covariates."
        )
    problem = SelectionProblem(
        checked=checked,
        rows=SelectionRows(
            np.ascontiguousarray(full[:, at_t]),
            np.ascontiguousarray(full[:, at_y]),
            decision,
            seen,
            y,
            checked.weight,
        ),
        likelihood=likelihood,
        testing_names=testing,
        outcome_names=outcome,
        testing_map=back[np.ix_(at_t, at_t)],
        outcome_map=back[np.ix_(at_y, at_y)],
        y_center=center,
        y_scale=scale,
        tied=tied,
        partner=partner,
    )
    if not known and not tied.any() and not problem.excludes:
        warn(
            f"{owner}: no covariate moves the decision only, so the correlation rests on the shape "
            "of the normal law alone. Name one in testing_covariates, or give prevalence= or "
            "expertise=.",
            WeakIdentificationWarning,
        )
    return problem


@dataclass(frozen=True, slots=True)
class Conflict:
    """The prevalence the data imply without the constraint, beside the one imposed.

    Attributes
    ----------
    implied, implied_sd, imposed, imposed_sd : float
        The two and their standard errors.
    z : float
        Their distance in standard errors: where rows are independent, the signed root of the
        likelihood ratio, since the implied standard error is no guide where the model is weakly
        identified.
    """

    implied: float
    implied_sd: float
    imposed: float
    imposed_sd: float
    z: float

    def sentence(self) -> str:
        """For the summary."""
        return (
            f"Prevalence: {self.imposed:.4g} (sd {self.imposed_sd:.2g}) was imposed; without it "
            f"the data say {self.implied:.4g} (sd {self.implied_sd:.2g}), z = {self.z:.1f}."
        )


def likelihood_estimates(
    problem: SelectionProblem,
    objective: SelectionObjective,
    found: MaximumLikelihood,
    *,
    model_based: bool,
) -> Estimates:
    """Reported parameters with their covariance or, where rows tell all, their influence."""
    jacobian = numerical_jacobian(lambda free: problem.report(objective, free), found.free)
    point = problem.report(objective, found.free)
    names, data, rows = problem.terms(), problem.checked.data, problem.rows
    share = rows.weight / rows.weight.sum()
    scores = objective.scores(found.free)
    influence = len(rows.y) * scores @ found.inverse @ jacobian.T
    known = objective.prevalence_sd is not None
    if not model_based and not known and problem.checked.n_rows == data.n:
        influence -= share @ influence
        return InfluenceEstimates(
            point,
            influence,
            names,
            cluster=data.cluster,
            sample_weight=data.sample_weight,
            sample_id=data.sample_id(),
        )
    # Knowledge from outside is one more observation; counted rows count as often as they occur.
    vcov = jacobian @ found.inverse @ jacobian.T
    if not model_based:
        meat = (scores * rows.weight[:, None]).T @ scores
        if data.cluster is not None:
            columns = [str(j) for j in range(scores.shape[1])]
            clustered = InfluenceEstimates(
                np.zeros(scores.shape[1]), scores - share @ scores, columns,
                cluster=data.cluster, sample_weight=data.sample_weight,
            )  # fmt: skip
            meat = clustered.vcov * len(rows.y) ** 2
        elif data.sample_weight is not None and problem.checked.n_rows == data.n:
            meat = (scores * rows.weight[:, None] ** 2).T @ scores
        if objective.prevalence_sd is not None:
            slope = objective.mean_outcome(found.free)[1] / objective.prevalence_sd
            meat = meat + np.outer(slope, slope)
        vcov = jacobian @ found.inverse @ meat @ found.inverse @ jacobian.T
    return CovarianceEstimates(point, vcov, names)


def fit_without_prevalence(
    problem: SelectionProblem, starts: list[FloatArray], owner: str
) -> MaximumLikelihood | None:
    """Maximum without the prevalence; None where the data alone do not identify the model."""
    try:
        return maximise(problem.objective(), starts, owner=owner)
    except (ConvergenceError, IdentificationError):
        return None


def conflict_of(
    problem: SelectionProblem,
    without: MaximumLikelihood,
    within: MaximumLikelihood,
    prevalence: float,
    prevalence_sd: float,
    *,
    independent: bool,
    model_based: bool,
    owner: str,
) -> Conflict:
    """Set the prevalence against what the data say without it; warn if they contradict it."""
    objective = problem.objective()
    free = likelihood_estimates(problem, objective, without, model_based=model_based)["prevalence"]
    mean = problem.y_scale * objective.mean_outcome(without.free)[2]
    share = problem.rows.weight / problem.rows.weight.sum()
    sampling = float(share @ (mean - share @ mean) ** 2) / problem.rows.weight.sum()
    # The prevalence is the population's; the rows' own mean scatters around it.
    implied, implied_sd = float(free.estimate[0]), float(np.hypot(free.std_error[0], sampling**0.5))
    distance = implied - prevalence
    z = distance / float(np.hypot(implied_sd, prevalence_sd))
    if independent:
        z = float(np.sign(distance) * np.sqrt(2 * max(without.value - within.value, 0.0)))
    conflict = Conflict(implied, implied_sd, prevalence, prevalence_sd, z)
    if abs(z) > CONFLICT:
        warn(
            f"{owner}: the data contradict the prevalence. {conflict.sentence()} A wrong "
            "prevalence held tightly is worse than none: check its source and population, or raise "
            "prevalence_sd.",
            WeakIdentificationWarning,
        )
    return conflict
