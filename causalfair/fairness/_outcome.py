"""Estimator of group outcomes from name and place probabilities."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.logging import warn
from causalfair._core.random import generator, root_seed
from causalfair._core.roles import resolve_roles
from causalfair.exceptions import ConvergenceWarning, DataError, ParameterError
from causalfair.fairness._encode import encode_levels
from causalfair.fairness._metrics import group_pairs
from causalfair.fairness._outcome_em import (
    OutcomeFit,
    default_pseudo_counts,
    fit_categorical,
    fit_linear,
    fit_mixed,
    group_table,
)
from causalfair.fairness._probability import check_probabilities
from causalfair.inference import DrawEstimates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray, IntArray, RandomState

MODELS = ("pooled", "saturated", "mixed", "linear")
OWNER = "OutcomeRegressionEM.fit"


class OutcomeRegressionEM(CausalEstimator):
    """Group differences in an outcome from P(group | name, place), by outcome regression.

    The weighted estimator needs the outcome to be independent of the group given names and places,
    which is false wherever there is a disparity. Here the outcome is instead independent of the
    *surname* given group and place: two people of one group in one area do not fare differently
    because of their names. EM alternates between updating each person's group probabilities with
    the outcome and refitting the outcome distribution of each group (and area).

    Parameters
    ----------
    model : {"pooled", "saturated", "mixed", "linear"}, default "pooled"
        "pooled": one outcome table a group. "saturated": one a group and area. "mixed": group
        intercepts and a normal random effect of each area (binary outcomes). "linear": a
        continuous, normal outcome with group means.
    prior_weight : float, default 1
        Pseudo-counts a group (spread over areas), distributed as the weighted estimate.
    n_bootstrap : int, default 100
        Replicates of the weighted bootstrap for standard errors.
    max_iter : int, default 1000
        Most EM steps.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random numbers.

    Attributes
    ----------
    group_outcomes_ : (K, n_outcomes) array, or (K,) means for "linear"
        P(outcome | group).
    memberships_ : (n, K) array
        P(group | name, place, outcome). Not labels.
    area_outcomes_ : (n_areas, K, n_outcomes) array or None
    loglik_ : float
    estimates_ : causalfair.inference.DrawEstimates
        Gaps between groups, ``"P(y=1): 1 - 0"``.

    See Also
    --------
    bisg : Makes the probabilities.
    weighted_disparity : What this corrects.
    ProxyFairness : Uses names and places as separate proxies, with no calibrated probabilities.

    References
    ----------
    .. [1] McCartan, Fisher, Goldin, Ho & Imai (2025), "Estimating racial disparities when race is
       not observed", JASA, doi:10.1080/01621459.2025.2526695.

    Examples
    --------
    >>> from causalfair.datasets import make_names_and_places
    >>> from causalfair.fairness import OutcomeRegressionEM
    >>> frame, truth = make_names_and_places(20_000, random_state=0)
    >>> fit = OutcomeRegressionEM(n_bootstrap=20, random_state=0).fit(
    ...     truth["probability"], frame["y_pred"])
    >>> bool(abs(fit.estimates_.estimate[0] - truth["demographic_parity"]) < 0.04)
    True
    """

    _title: ClassVar[str] = "Outcomes by unseen group: outcome-regression EM"
    _estimand: ClassVar[str] = "differences between groups in the distribution of the outcome"
    _assumptions: ClassVar[tuple[str, ...]] = (
        "the outcome is independent of the name given group and place",
        "the probabilities are calibrated in this population",
    )
    _citations: ClassVar[tuple[str, ...]] = ("mccartan2025estimating", "varadhan2008simple")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [StrOptions(set(MODELS))],
        "prior_weight": [Interval(Real, 0, None, closed="left")],
        "n_bootstrap": [Interval(Integral, 2, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state", np.random.SeedSequence, np.random.Generator],
    }

    def __init__(
        self,
        model: str = "pooled",
        *,
        prior_weight: float = 1.0,
        n_bootstrap: int = 100,
        max_iter: int = 1000,
        random_state: RandomState = None,
    ) -> None:
        self.model = model
        self.prior_weight = prior_weight
        self.n_bootstrap = n_bootstrap
        self.max_iter = max_iter
        self.random_state = random_state

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        area: Any = None,
        probability: Sequence[str] | None = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> OutcomeRegressionEM:
        """Fit by EM and bootstrap.

        Parameters
        ----------
        X : (n, K) array, or table
            P(group | name, place); or a table with ``probability`` naming its K columns.
        y : (n,) array or str
            Outcome: codes 0, 1, ..., or numbers for ``model="linear"``.
        area : (n,) array or str, optional
            Area of each person; needed for "saturated" and "mixed".
        probability : list of str, optional
            Columns of X that hold the probabilities.
        cluster : (n,) array or str, optional
            Clusters, resampled as wholes.
        sample_weight : (n,) array or str, optional
            Non-negative weights.

        Returns
        -------
        OutcomeRegressionEM
            Itself.

        Raises
        ------
        DataError
            Not probabilities, or an outcome that is not codes.
        ParameterError
            No area where one is needed.
        """
        root = root_seed(self.random_state)
        roles: dict[str, Any] = {"area": area}
        if probability is not None:
            roles |= {f"probability[{j}]": name for j, name in enumerate(probability)}
        data = resolve_roles(
            X,
            y,
            owner=OWNER,
            roles=roles,
            covariates=[],
            cluster=cluster,
            sample_weight=sample_weight,
            need_covariates=False,
        )
        if probability is None:
            prior = check_probabilities(np.asarray(X), OWNER)
        else:
            columns = [data.roles[f"probability[{j}]"] for j in range(len(probability))]
            prior = check_probabilities(np.stack(columns, axis=1), OWNER)
        self._check(data, area)
        weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
        problem = _Problem.of(self, data, np.ascontiguousarray(prior))
        fit = problem.fit(weight, self.max_iter)
        if not fit.converged:
            warn(
                f"EM did not converge in {self.max_iter} steps; raise max_iter.", ConvergenceWarning
            )
        self.group_outcomes_ = problem.table(fit, weight)
        self.memberships_ = fit.member.copy()
        self.area_outcomes_ = fit.theta if self.model in ("saturated", "mixed") else None
        self.loglik_ = fit.loglik
        self.spread_ = fit.spread
        self.n_steps_ = fit.n_steps
        draws = problem.bootstrap(fit, weight, data.cluster, self.n_bootstrap, root)
        self.estimates_ = problem.gaps(self.group_outcomes_, draws)
        return self._finish(data, seed=root)  # type: ignore[no-any-return]

    def _check(self, data: Any, area: Any) -> None:
        if self.model in ("saturated", "mixed") and area is None:
            raise ParameterError(f"{OWNER}: model={self.model!r} needs area=.")
        if data.y is None:
            raise DataError(f"{OWNER} needs y, the outcome.")

    def _summary_header(self) -> list[tuple[str, str]]:
        kept = [(k, v) for k, v in super()._summary_header() if not k.startswith("probability[")]
        return [*kept, ("model", self.model), ("bootstrap", f"{self.n_bootstrap} replicates")]


class _Problem:
    """Coded data of one fit and the model to run on them."""

    def __init__(
        self, model: str, prior: FloatArray, outcome: Any, area: IntArray, prior_weight: float
    ) -> None:
        self.model, self.prior, self.outcome, self.area = model, prior, outcome, area
        self.n_areas = int(area.max()) + 1
        self.n_outcomes = 0 if model == "linear" else max(int(outcome.max()) + 1, 2)
        self.prior_weight = prior_weight

    @classmethod
    def of(cls, estimator: OutcomeRegressionEM, data: Any, prior: FloatArray) -> _Problem:
        if estimator.model == "linear":
            outcome: Any = data.y
        else:
            outcome = encode_levels(data.y, "y", owner=OWNER).astype(np.intp)
            if estimator.model == "mixed" and outcome.max() > 1:
                raise ParameterError(
                    f"{OWNER}: model='mixed' is for a binary outcome; y has "
                    f"{int(outcome.max()) + 1} levels. Use 'saturated' or 'pooled'."
                )
        area = np.zeros(data.n, dtype=np.intp)
        if "area" in data.roles and estimator.model in ("saturated", "mixed"):
            area = np.unique(data.roles["area"], return_inverse=True)[1].ravel().astype(np.intp)
        return cls(estimator.model, prior, outcome, area, float(estimator.prior_weight))

    def fit(self, weight: FloatArray, max_iter: int, start: Any = None) -> OutcomeFit:
        if self.model == "linear":
            warm = None if start is None else (start.theta, start.spread**2)
            return fit_linear(self.prior, self.outcome, weight, start=warm)
        table = default_pseudo_counts(self.prior, self.outcome, weight, self.n_outcomes)
        pseudo = self.prior_weight * table + 1e-9
        if self.model == "mixed":
            return fit_mixed(
                self.prior,
                self.outcome,
                self.area,
                weight,
                pseudo,
                n_areas=self.n_areas,
                max_iter=max_iter,
            )[0]
        return fit_categorical(
            self.prior,
            self.outcome,
            self.area,
            weight,
            pseudo,
            n_areas=self.n_areas,
            start=None if start is None else start.theta,
            max_iter=max_iter,
        )

    def table(self, fit: OutcomeFit, weight: FloatArray) -> FloatArray:
        if self.model == "linear":
            return fit.theta
        return group_table(fit.member, self.outcome, weight, self.n_outcomes)

    def bootstrap(
        self, fit: OutcomeFit, weight: FloatArray, cluster: Any, n_draws: int, root: Any
    ) -> FloatArray:
        """Group tables under exponential weights on rows (or clusters), from a warm start."""
        rng = generator(root, 1)
        draws = []
        for _ in range(n_draws):
            if cluster is None:
                random = rng.exponential(size=len(weight))
            else:
                random = rng.exponential(size=int(cluster[:, 0].max()) + 1)[cluster[:, 0]]
            drawn = weight * random
            drawn *= len(drawn) / drawn.sum()
            draws.append(self.table(self.fit(drawn, 200, fit), drawn).ravel())
        return np.array(draws)

    def gaps(self, table: FloatArray, draws: FloatArray) -> DrawEstimates:
        wide = table.reshape(len(table), -1)
        shown = [1] if wide.shape[1] == 2 else list(range(wide.shape[1]))
        names, columns, point = [], [], []
        many = draws.reshape(len(draws), *wide.shape)
        for o in shown:
            label = "E[y]" if self.model == "linear" else f"P(y={o})"
            for b, a in group_pairs(len(wide)):
                names.append(f"{label}: {b} - {a}")
                columns.append(many[:, b, o] - many[:, a, o])
                point.append(wide[b, o] - wide[a, o])
        return DrawEstimates(np.stack(columns, axis=1), names, estimate=np.array(point))
