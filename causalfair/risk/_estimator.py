"""The domain-constrained Bayesian risk model."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.frames import as_table, role_column
from causalfair._core.logging import warn
from causalfair._core.random import generator, root_seed
from causalfair._core.validation import check_level
from causalfair.exceptions import (
    DataError,
    ParameterError,
    WeakIdentificationWarning,
)
from causalfair.inference import DrawEstimates
from causalfair.risk import _checks, _policy
from causalfair.risk._constraints import read_expertise, read_prevalence
from causalfair.risk._data import level_codes, read_rows, warn_of_separation
from causalfair.risk._design import fit_design
from causalfair.risk._exact import maximum_likelihood
from causalfair.risk._mode import Mode
from causalfair.risk._model import DEFAULT_PRIORS, Law, Layout, build_problem
from causalfair.risk._posterior import (
    MAX_PREDICTION_DRAWS,
    Posterior,
    code_probabilities,
    draw_posterior,
    mean_risks,
    natural_terms,
    risk_draws,
)
from causalfair.risk._reports import RiskReports
from causalfair.risk._robust import robust_draws

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray

__all__ = ["DomainConstrainedRisk"]

CONFLICT_STREAM, ML_STREAM = 3, 4
GIVEN = (None, "untested", "tested")
LARGE_SIGMA = 15.0


class DomainConstrainedRisk(RiskReports):
    """Risk of everybody from outcomes seen only for those somebody chose to test.

    A doctor tests, a lender lends, an officer searches: outcomes exist for the chosen only, and
    the choice used things that are not in the data. Risk is estimated for the tested and the
    untested together with what drives testing beyond risk, with two kinds of outside knowledge:
    the prevalence, and the features along which testing may deviate from risk.

    Parameters
    ----------
    unobservables : {"uniform", "normal", "none"}, default "uniform"
        Law of what the decision maker sees beyond X: uniform on [0, sigma] (closed form for
        ``alpha=1``), normal with standard deviation sigma, or nothing (tested-only regression).
    prevalence : float or mapping of group to float, optional
        Known mean risk, of everybody or of groups.
    prevalence_sd : float or mapping of group to float, optional
        Its standard error, as a statement about the mean risk of these rows, required with
        ``prevalence``: a wrong prevalence held tightly is worse than none. Of a population from
        which n rows are a sample, add up to ``p (1 - p) / n`` to its square. Zero is allowed for
        ``sampler="ml"``.
    expertise : list of str or mapping of str to float, optional
        Features along which testing may deviate from risk; along all others it follows risk. The
        intercept is always free. A mapping gives each deviation its own prior standard deviation.
        None leaves all free, ``[]`` none but the intercept.
    alpha : float or None, default 1.0
        Weight of the risk score in the decision; inferred when None.
    sigma : float or None, default None
        Scale of the unobservable; inferred when None.
    sampler : {"nutpie", "pymc", "laplace", "map", "ml"}, default "nutpie"
        NUTS; a Laplace approximation nested in sigma with importance resampling (seconds); a normal
        approximation at the mode; or maximum likelihood without priors, which can hold the
        prevalence exactly.
    draws, tune, chains : int, default 1000, 1000 and 4
        Draws and warm-up a chain, and chains. Quick samplers give ``draws`` in all.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.
    priors : mapping, optional
        Scales of the priors: ``"coefficients"`` (normal, on standardised columns), ``"sigma"``,
        ``"alpha"``, ``"pooling"`` (half-normal). Defaults 3, 3, 3 and 1.
    allow_weak : bool, default False
        Fit although both alpha and sigma are inferred with no expertise constraint.
    target_accept : float, default 0.9
        Acceptance rate NUTS aims at.
    vary_alpha : bool, default False
        Let every decision maker weigh risk in their own way: log alpha_j is normal around the log
        of ``alpha``, with a spread that is learnt. Needs ``decision_maker`` in :meth:`fit`.

    Attributes
    ----------
    estimates_ : DrawEstimates
        Terms ``risk:<feature>`` and ``testing:<feature>`` (deviation of testing from risk) per unit
        of the feature, ``alpha``, ``sigma``, ``prevalence`` (mean risk of the rows). With
        ``vary_alpha`` also ``log alpha:<decision maker>``, over the common one.
    posterior_ : arviz.InferenceData or xarray.DataTree
        The draws, on standardised columns, with the log-likelihood of the rows and predicted
        counts.
    conflicts_ : list
        Each imposed prevalence beside what the data alone imply.
    loglik_ : float
        Log-likelihood at the mode.

    See Also
    --------
    DecisionShiftEstimator : No law of the unobservable, no sampling; needs a prevalence.
    selection_bounds : What holds without any model.
    prevalence_sensitivity : Refits over a grid of prevalences.

    Notes
    -----
    With r = x'b + Z, outcome log odds r and decision log odds alpha r + x'd, a row contributes the
    integral over Z of what was seen. Sampling coordinates are about the marginal logit coefficients
    of outcome and decision, which the data inform well, standardised around the mode. Rows with
    equal covariates are added up, so that cost follows the number of distinct rows. sigma and alpha
    cannot both be learnt from binary data without a constraint on the deviations. Sampling weights
    and clusters widen the draws by a sandwich covariance.

    References
    ----------
    .. [1] S. Balachandar, N. Garg and E. Pierson (2024). Domain constraints improve risk prediction
       when outcome data is missing. ICLR. arXiv:2312.03878

    Examples
    --------
    >>> from causalfair.datasets import make_selective_labels
    >>> from causalfair.risk import DomainConstrainedRisk
    >>> frame, truth = make_selective_labels(1000, n_features=2, random_state=1)
    >>> model = DomainConstrainedRisk(
    ...     prevalence=truth["prevalence"], prevalence_sd=0.02, expertise=["x1"],
    ...     sampler="laplace", draws=200, random_state=0,
    ... ).fit(frame, "y", tested="tested", covariates=["x1", "x2"])
    >>> model.predict_proba(frame).shape
    (1000,)
    """

    _title: ClassVar[str] = "Risk with selectively observed outcomes"
    _estimand: ClassVar[str] = "P(Y = 1 | X) of the tested and the untested"
    _citations: ClassVar[tuple[str, ...]] = ("balachandar2024domain",)
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "unobservables": [StrOptions({"uniform", "normal", "none"})],
        "alpha": [Interval(Real, 0, None, closed="neither"), None],
        "sigma": [Interval(Real, 0, 54, closed="left"), None],
        "sampler": [StrOptions({"nutpie", "pymc", "laplace", "map", "ml"})],
        "draws": [Interval(Integral, 20, None, closed="left")],
        "tune": [Interval(Integral, 20, None, closed="left")],
        "chains": [Interval(Integral, 1, None, closed="left")],
        "allow_weak": ["boolean"],
        "vary_alpha": ["boolean"],
        "target_accept": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        unobservables: str = "uniform",
        *,
        prevalence: Any = None,
        prevalence_sd: Any = None,
        expertise: Any = None,
        alpha: float | None = 1.0,
        sigma: float | None = None,
        sampler: str = "nutpie",
        draws: int = 1000,
        tune: int = 1000,
        chains: int = 4,
        random_state: Any = None,
        priors: Any = None,
        allow_weak: bool = False,
        target_accept: float = 0.9,
        vary_alpha: bool = False,
    ) -> None:
        self.unobservables = unobservables
        self.prevalence = prevalence
        self.prevalence_sd = prevalence_sd
        self.expertise = expertise
        self.alpha = alpha
        self.sigma = sigma
        self.sampler = sampler
        self.draws = draws
        self.tune = tune
        self.chains = chains
        self.random_state = random_state
        self.priors = priors
        self.allow_weak = allow_weak
        self.target_accept = target_accept
        self.vary_alpha = vary_alpha

    @property
    def _assumptions(self) -> tuple[str, ...]:  # type: ignore[override]
        along = ["the intercept", *(["any feature"] if self.expertise is None else self.expertise)]
        return (
            "outcome and decision independent given X and Z",
            f"Z independent of X, {self.unobservables}",
            f"testing deviates from risk only along {', '.join(map(str, along))}",
        )

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        tested: Any,
        covariates: Any = None,
        group: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
        decision_maker: Any = None,
        row_kind: Any = None,
    ) -> DomainConstrainedRisk:
        """Fit the model.

        Parameters
        ----------
        X : frame or array of shape (n, p)
            The table; a lazy frame (polars, DuckDB, Dask) is counted in its own engine.
        y : array of shape (n,) or str
            Outcome 0 or 1; ignored, and possibly missing, where untested.
        tested : array of shape (n,) or str
            Whether the decision maker chose to test.
        covariates : list of str, "~ formula" or "all", optional
            Features; required where a role is named.
        group : array of shape (n,) or str, optional
            Groups with their own level of risk and of testing, partially pooled.
        cluster : array of shape (n,) or str, optional
            Clusters of dependent rows.
        sample_weight : array of shape (n,) or str, optional
            Sampling weights.
        decision_maker : array of shape (n,) or str, optional
            Who decided; each has a leniency of their own, partially pooled, and with ``vary_alpha``
            a weight of risk.
        row_kind : array of shape (n,) or str, optional
            ``"usual"``, ``"by_design"`` (tested at random), ``"pending"`` (result to come),
            ``"late"`` (untested, outcome learnt later) or ``"covariates_only"``.

        Returns
        -------
        DomainConstrainedRisk
            The fitted model.

        Raises
        ------
        DataError
            Values that cannot be used.
        IdentificationError
            Nothing to learn from, or a prevalence that the data exclude.
        ParameterError
            Parameters that do not go together.
        ConvergenceError
            The mode was not found.
        """
        owner = f"{type(self).__name__}.fit"
        rows = read_rows(
            X, y, tested=tested, owner=owner, covariates=covariates, group=group,
            decision_maker=decision_maker, row_kind=row_kind, cluster=cluster,
            sample_weight=sample_weight,
        )  # fmt: skip
        warn_of_separation(rows, owner)
        priors = self._priors(owner)
        root = root_seed(self.random_state)
        design = fit_design(rows.data, rows.weight, owner=owner)
        free = read_expertise(self.expertise, design.names, priors["coefficients"], owner=owner)
        self._check_makers(rows.maker_levels, owner)
        law = self._law(free.restricted, owner)
        prevalence = read_prevalence(
            self.prevalence, self.prevalence_sd, rows, owner=owner, exact=self.sampler == "ml"
        )
        names = rows.data.names
        self.layout_ = Layout(
            design, free, names.get("group", "group"), rows.group_levels,
            names.get("decision_maker", "decision_maker"), rows.maker_levels,
            self.vary_alpha,
        )  # fmt: skip
        units = self._units(rows)
        Z = design.standardise(rows.data.matrix())
        problem = build_problem(rows, self.layout_, law, prevalence, priors, Z, merge=units is None)
        posterior = self._draw(problem, units, root, owner)
        self._store(posterior, priors, root, owner)
        self._finish(rows.data, seed=root)
        self.n_obs_ = rows.n_rows
        return self

    def _priors(self, owner: str) -> dict[str, float]:
        given = dict(self.priors or {})
        unknown = set(given) - set(DEFAULT_PRIORS)
        if unknown or any(not float(v) > 0 for v in given.values()):
            raise ParameterError(
                f"{owner} got priors={self.priors!r}; give positive scales for any of "
                f"{', '.join(DEFAULT_PRIORS)}."
            )
        return {**DEFAULT_PRIORS, **{k: float(v) for k, v in given.items()}}

    def _check_makers(self, levels: tuple[str, ...], owner: str) -> None:
        if self.vary_alpha and len(levels) < 2:
            raise ParameterError(
                f"{owner}: vary_alpha=True gives every decision maker a weight of risk, and there "
                f"are {len(levels)}; give decision_maker= with two or more, or alpha=None for one "
                "weight learnt from all."
            )

    def _law(self, restricted: bool, owner: str) -> Law:
        if self.unobservables == "none":
            law = Law("none", 1.0, 0.0, np.empty(0), np.empty(0), self.vary_alpha)
        else:
            both = self.alpha is None and self.sigma is None
            if both and not restricted and not self.allow_weak:
                raise ParameterError(
                    f"{owner}: alpha=None and sigma=None with no expertise constraint. Binary data "
                    "hardly tell a spread of the unobservable from its weight in the decision: fix "
                    "one of them, name the features along which testing may deviate "
                    "(expertise=[...]), or say allow_weak=True."
                )
            if self.sigma == 0:
                raise ParameterError(f'{owner}: sigma=0 is unobservables="none".')
            law = Law(
                self.unobservables, self.alpha, self.sigma, np.empty(0), np.empty(0),
                self.vary_alpha,
            )  # fmt: skip
        reach = 3.0 if law.sigma is None else law.sigma * max(1.0, law.alpha or 1.0)
        return law.with_rule(max(reach, 2.0))

    def _units(self, rows: Any) -> Any:
        """Independent units of the rows, where a plain posterior would be too narrow."""
        data = rows.data
        if data.cluster is not None:
            if data.cluster.shape[1] > 1:
                raise DataError(f"{type(self).__name__}.fit: give one way of clustering.")
            return data.cluster[:, 0]
        weighted = data.sample_weight is not None and rows.n == rows.n_rows
        return np.arange(rows.n) if weighted and np.ptp(rows.weight) > 0 else None

    def _draw(self, problem: Any, units: Any, root: Any, owner: str) -> Posterior:
        if self.sampler != "ml":
            posterior = draw_posterior(problem, self, root, owner=owner)
            return posterior if units is None else robust_draws(posterior, units)
        if problem.n_pools:
            raise ParameterError(
                f'{owner}: sampler="ml" has no priors, and groups and decision makers are pooled '
                'by one. Use sampler="laplace", or give indicators of the groups as covariates.'
            )
        found = maximum_likelihood(problem, units=units, owner=owner)
        values, vectors = np.linalg.eigh(found.covariance)
        # The symmetric root: another sign of an eigenvector would be another set of draws.
        factor = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
        normal = generator(root, ML_STREAM).normal(size=(self.draws, len(found.theta)))
        mode = Mode(found.problem, found.theta, found.value, found.covariance, factor)
        return Posterior(mode, (found.theta + normal @ factor.T)[None], None, None, {})

    def _store(self, posterior: Posterior, priors: Any, root: Any, owner: str) -> None:
        problem = posterior.mode.problem
        self.law_ = problem.law
        likelihood = problem.without_prior().without_prevalence()
        self.loglik_ = likelihood.value_and_gradient(posterior.mode.theta)[0]
        draws = problem.natural(posterior.flat())
        self._natural = draws
        self._chains = posterior.theta.shape[0]
        self._statistics = posterior.statistics
        self._problem, self._native, self._root = problem, None, root
        self.convergence_ = posterior.convergence
        everybody = np.zeros(len(problem.cells.weight), dtype=np.intp)
        mean = mean_risks(problem, draws, everybody, 1)[:, 0]
        terms = {**natural_terms(self.layout_, draws, original=True), "prevalence": mean}
        point = None
        if self.sampler in ("map", "ml"):
            at = problem.natural(posterior.mode.theta)
            there = natural_terms(self.layout_, at, original=True)
            there["prevalence"] = mean_risks(problem, at, everybody, 1)[:, 0]
            point = [float(v[0]) for v in there.values()]
        self.estimates_ = DrawEstimates(
            np.column_stack(list(terms.values())), list(terms), estimate=point
        )
        self.conflicts_ = []
        if problem.prevalence and self.sampler != "ml":
            rng = generator(root, CONFLICT_STREAM)
            self.conflicts_ = _checks.conflicts(problem, rng, owner=owner)
        self._predictive = _checks.predictive_checks(problem, draws)
        findings = _checks.sampling_findings(posterior, self.sampler)
        findings += _checks.predictive_findings(self._predictive)
        findings += _checks.overlap_findings(problem, draws, priors)
        if problem.law.sigma is None and self.sampler != "ml":
            findings.append(_checks.prior_finding(draws, mean, priors["sigma"]))
        findings += _checks.conflict_findings(self.conflicts_)
        findings.append(_checks.spread_finding(mean))
        self._findings = tuple(findings)
        self._warn(draws, mean, owner)

    def _warn(self, draws: Any, mean: FloatArray, owner: str) -> None:
        for one in self.conflicts_:
            if abs(one.z) > _checks.CONFLICT:
                whom = "" if one.name == "all" else f" of group {one.name}"
                warn(
                    f"{owner}: the imposed prevalence {one.imposed:.3g} (sd {one.imposed_sd:.2g})"
                    f"{whom} conflicts with {one.mean:.3g} (sd {one.sd:.2g}), which the data imply "
                    f"without it: z = {one.z:.1f}. Check the value, or widen prevalence_sd.",
                    WeakIdentificationWarning,
                )
        if float(np.median(draws.sigma)) > LARGE_SIGMA or mean.std() > _checks.WIDE:
            warn(
                f"{owner}: the level of risk is hardly identified (mean risk {mean.mean():.2g}, sd "
                f"{mean.std():.2g}; sigma about {np.median(draws.sigma):.2g}). Impose a prevalence "
                "or expertise, or fix sigma.",
                WeakIdentificationWarning,
            )

    # Predictions --------------------------------------------------------------------------------

    def _matrices(
        self, X: Any, group: Any, maker: Any, method: str
    ) -> tuple[FloatArray, FloatArray, IntArray]:
        check_is_fitted(self)
        owner = f"{type(self).__name__}.{method}"
        layout: Layout = self.layout_
        codes: list[Any] = []
        for value, name, levels, what in (
            (group, layout.group_name, layout.group_levels, "group"),
            (maker, layout.maker_name, layout.maker_levels, "decision_maker"),
        ):
            if not levels:
                codes.append(None)
                continue
            table = as_table(X, owner=owner)
            source = name if value is None else value
            if isinstance(source, str) and source not in table.columns:
                raise DataError(
                    f"{owner}: the model was fitted with {what}={name!r}; X has no such column, so "
                    f"give {what}= with one entry a row."
                )
            codes.append(
                level_codes(role_column(table, source, what, owner)[0], levels, what, owner)
            )
        Z = layout.design.matrix(X, owner=owner)
        return layout.matrices(Z, *codes)

    def _some_draws(self) -> Any:
        return self._natural.thinned(MAX_PREDICTION_DRAWS)

    def _risk(self, X: Any, given: str | None, group: Any, maker: Any, method: str) -> FloatArray:
        if given not in GIVEN:
            raise ParameterError(
                f"{type(self).__name__}.{method} got given={given!r}; use None, 'untested' or "
                "'tested'."
            )
        matrices = self._matrices(X, group, maker, method)
        return risk_draws(*matrices, self._some_draws(), self.law_, given)

    def predict_proba(
        self, X: Any, *, given: str | None = None, group: Any = None, decision_maker: Any = None
    ) -> FloatArray:
        """Risk of each row, its posterior mean.

        Parameters
        ----------
        X : frame or array of shape (n, p)
            Rows.
        given : {None, "untested", "tested"}, default None
            Condition on the decision: what the decision maker saw is in it.
        group, decision_maker : array of shape (n,) or str, optional
            Where the model was fitted with them and X has no such column.

        Returns
        -------
        ndarray of shape (n,)
            P(Y = 1 | X), or given the decision.
        """
        drawn = self._risk(X, given, group, decision_maker, "predict_proba")
        return np.asarray(drawn.mean(axis=0))

    def predict_interval(
        self,
        X: Any,
        level: float = 0.95,
        *,
        given: str | None = None,
        group: Any = None,
        decision_maker: Any = None,
    ) -> FloatArray:
        """Posterior interval of each row's risk.

        Parameters
        ----------
        X : frame or array of shape (n, p)
            Rows.
        level : float, default 0.95
            Probability.
        given : {None, "untested", "tested"}, default None
            As in :meth:`predict_proba`.
        group, decision_maker : array of shape (n,) or str, optional
            As in :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (n, 2)
            Lower and upper ends, equal-tailed.
        """
        check_level(level)
        drawn = self._risk(X, given, group, decision_maker, "predict_interval")
        tail = (1 - level) / 2
        return np.asarray(np.quantile(drawn, [tail, 1 - tail], axis=0).T)

    def predict_tested(
        self, X: Any, *, group: Any = None, decision_maker: Any = None
    ) -> FloatArray:
        """Probability that each row is tested, its posterior mean.

        Parameters
        ----------
        X : frame or array of shape (n, p)
            Rows.
        group, decision_maker : array of shape (n,) or str, optional
            As in :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (n,)
            P(tested | X).
        """
        matrices = self._matrices(X, group, decision_maker, "predict_tested")
        drawn = code_probabilities((5,), *matrices, self._some_draws(), self.law_)
        return np.asarray(drawn[0].mean(axis=0))

    def suboptimality(
        self, X: Any, *, group: Any = None, decision_maker: Any = None
    ) -> DrawEstimates:
        """What the same number of tests would find if they went by risk alone.

        Parameters
        ----------
        X : frame or array of shape (n, p)
            The population to allocate tests in.
        group, decision_maker : array of shape (n,) or str, optional
            As in :meth:`predict_proba`.

        Returns
        -------
        DrawEstimates
            Positives per test ``as decided``, ``by predicted risk`` (highest risk given X first),
            ``without deviations`` (one decision maker, at the same rate), the gains of the last
            two over the first, and ``share of positives missed`` as decided.
        """
        matrices = self._matrices(X, group, decision_maker, "suboptimality")
        return _policy.suboptimality(*matrices, self._some_draws(), self.law_)

    def compare_groups(
        self, X: Any, by: Any, *, group: Any = None, decision_maker: Any = None
    ) -> DrawEstimates:
        """Risk and testing by group, and testing of each group at equal risk.

        Parameters
        ----------
        X : frame or array of shape (n, p)
            Rows.
        by : array of shape (n,) or str
            Groups to compare; any grouping of the rows.
        group, decision_maker : array of shape (n,) or str, optional
            As in :meth:`predict_proba`.

        Returns
        -------
        DrawEstimates
            For each level ``risk``, ``tested``, ``risk of the tested``, ``risk of the untested``
            and ``testing at equal risk`` (mean deviation, log odds, relative to everybody; with
            ``vary_alpha`` at a risk of one half).
        """
        owner = f"{type(self).__name__}.compare_groups"
        values, _ = role_column(as_table(X, owner=owner), by, "by", owner)
        matrices = self._matrices(X, group, decision_maker, "compare_groups")
        return _policy.compare_groups(*matrices, self._some_draws(), self.law_, values)
