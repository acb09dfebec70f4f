"""Threshold tests: whether groups are searched on less evidence."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import Interval, StrOptions, fit_context, posterior_dataset
from causalfair._core.logging import warn
from causalfair._core.random import generator, root_seed
from causalfair._core.roles import resolve_roles
from causalfair._core.sampling import Convergence, judge
from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError, WeakIdentificationWarning
from causalfair.inference import DrawEstimates
from causalfair.inference.estimates import Estimates
from causalfair.reporting import Table, estimates_table
from causalfair.risk._nuts import ADVICE, sample_posterior
from causalfair.risk._outcome_test import benchmark_rates, outcome_rates, read_cells, shuffled_cells
from causalfair.risk._threshold_checks import check_table, predictive_share, surprises
from causalfair.risk._threshold_geometry import (
    CELL_NAMES,
    EFFECTS,
    whiten,
    whitened_posterior,
)
from causalfair.risk._threshold_model import ThresholdModel, ThresholdPriors, named_priors

__all__ = ["ThresholdTest"]


class ThresholdTest(CausalEstimator):
    r"""Thresholds of evidence above which members of each group are searched.

    Hit rates mislead: a group with more people just above a common threshold has a lower hit rate
    without any discrimination (infra-marginality). This test models how risk is distributed in
    every group and place and infers the threshold itself from search *and* hit rates [1]_, [2]_.

    Parameters
    ----------
    form : {"discriminant", "beta"}, default "discriminant"
        Law of the signal an officer sees: normal for the innocent and the guilty, or a beta law of
        the risk itself, which is 10 to 100 times slower.
    priors : {"published", "weak", "wide"} or ThresholdPriors, default "published"
        Those of [2]_ (stops across a country) or [1]_ (county-level traffic stops); weaker
        ones; the wide alternative of [1]_, which learns how much places differ; or your own
        (``ThresholdPriors(learn_places=True)`` learns it too). :meth:`check` says where data and
        prior disagree.
    draws, tune, chains : int
        Of the no-U-turn sampler.
    target_accept : float, default 0.8
        Of the sampler.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed. The same seed gives the same draws.

    Attributes
    ----------
    estimates_ : DrawEstimates
        ``"threshold:<group>"``: mean threshold over places, weighted by the stops of all groups
        there, as a probability of guilt.
    posterior_ : arviz.InferenceData
        Draws of group thresholds, group parameters and the rates and threshold of every cell.
    cells_ : pandas.DataFrame
        One row a group and place: counts, observed and fitted rates, threshold.
    groups_ : tuple of str
        Groups, in the order of the estimates.
    place_spread_ : DrawEstimates or None
        Standard deviations of the places' effects on ``"guilt"`` and ``"signal"``, where learnt.
    convergence_ : Convergence
        R-hat, effective sizes, divergences: worst over all but the cells.

    See Also
    --------
    outcome_test : Hit rates compared.

    Notes
    -----
    **Discriminant form.** In group r and place d a share :math:`\phi` is guilty
    (:math:`\operatorname{logit}\phi=\phi_r+\phi_d`); the signal is N(0,1) for the innocent and
    N(:math:`\delta`,1) for the guilty (:math:`\log\delta=\delta_r+\delta_d`); whoever signals more
    than t is searched. **Beta form.** Risk is Beta(:math:`\lambda\phi,\lambda(1-\phi)`) and who
    exceeds t is searched. Thresholds vary between places around a group mean: the published
    discriminant model has none, which would pull the thresholds of thin cells to zero.

    **Computation.** Coordinates are search rates, which data know best, with thresholds solved for,
    whitened by a normal approximation of the posterior: given what groups and regions share, places
    are independent, so that the cost is linear in the cells. The density has several modes, sought
    from several sizes of the places' effects; the one of most mass is sampled. Masses are computed
    in logs from the tail that matters, never as one minus a distribution function. One compiled
    evaluation with its gradient costs about half a microsecond a cell, four in the beta form.

    References
    ----------
    .. [1] Simoiu, C., Corbett-Davies, S. and Goel, S. (2017). The problem of infra-marginality in
       outcome tests for discrimination. Annals of Applied Statistics 11, 1193-1216.
       doi:10.1214/17-AOAS1058
    .. [2] Pierson, E., Corbett-Davies, S. and Goel, S. (2018). Fast threshold tests for detecting
       discrimination. AISTATS. arXiv:1702.08536

    Examples
    --------
    >>> import warnings
    >>> from causalfair.datasets import make_threshold_searches
    >>> from causalfair.risk import ThresholdTest
    >>> frame, truth = make_threshold_searches(4, random_state=0)
    >>> test = ThresholdTest(priors="weak", draws=50, tune=50, chains=2, random_state=0)
    >>> with warnings.catch_warnings():  # far too few draws
    ...     warnings.simplefilter("ignore")
    ...     test = test.fit(
    ...         frame, "hits", searches="searches", stops="stops", group="group", place="place")
    >>> test.groups_
    ('black', 'hispanic', 'white')
    """

    _title: ClassVar[str] = "Threshold test"
    _estimand: ClassVar[str] = (
        "probability of guilt above which people of each group are searched, averaged over places "
        "weighted by all stops there."
    )
    _assumptions: ClassVar[tuple[str, ...]] = (
        "within a group and place everybody above one threshold is searched",
        "the law of the signal is of the form chosen",
        "a hit is recorded alike for all groups",
    )
    _citations: ClassVar[tuple[str, ...]] = ("simoiu2017problem", "pierson2018fast")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "form": [StrOptions({"discriminant", "beta"})],
        "priors": [StrOptions({"published", "weak", "wide"}), ThresholdPriors],
        "draws": [Interval(Integral, 10, None, closed="left")],
        "tune": [Interval(Integral, 10, None, closed="left")],
        "chains": [Interval(Integral, 1, None, closed="left")],
        "target_accept": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        form: Literal["discriminant", "beta"] = "discriminant",
        *,
        priors: Literal["published", "weak", "wide"] | ThresholdPriors = "published",
        draws: int = 1000,
        tune: int = 1000,
        chains: int = 4,
        target_accept: float = 0.8,
        random_state: Any = None,
    ) -> None:
        self.form = form
        self.priors = priors
        self.draws = draws
        self.tune = tune
        self.chains = chains
        self.target_accept = target_accept
        self.random_state = random_state

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        searches: Any,
        stops: Any,
        group: Any,
        place: Any = None,
        region: Any = None,
    ) -> ThresholdTest:
        """Infer the thresholds.

        Parameters
        ----------
        X : frame or array
            Table of counts, one row a group and place; rows of the same cell are added.
        y : array of shape (n_cells,) or str
            Hits: searches that found something.
        searches : array of shape (n_cells,) or str
            Searches.
        stops : array of shape (n_cells,) or str
            Stops: everybody who might have been searched.
        group : array of shape (n_cells,) or str
            Group of the people stopped.
        place : array of shape (n_cells,) or str, optional
            Place; one place when None.
        region : array of shape (n_cells,) or str, optional
            Region each place belongs to, such as its state; places then vary around their region.

        Returns
        -------
        ThresholdTest
            The fitted estimator.

        Raises
        ------
        DataError
            Counts that are negative, not whole, or larger than what they are part of.
        IdentificationError
            Fewer than two groups, or a group without any search.
        """
        owner = "ThresholdTest.fit"
        roles = {
            "searches": searches, "stops": stops, "group": group, "place": place, "region": region
        }  # fmt: skip
        data = resolve_roles(X, y, owner=owner, roles=roles, covariates=[], need_covariates=False)
        cells = read_cells(data, owner=owner)
        root = root_seed(self.random_state)
        self.groups_, self._data_cells = cells.groups, cells
        model = ThresholdModel(cells, self._priors(), self.form)
        self.posterior_, self.convergence_, draws = self._sample(model, root, owner)
        self._store(model, draws, root)
        self._finish(data, seed=root)
        return self

    def _priors(self) -> ThresholdPriors:
        return named_priors(self.priors, self.form) if isinstance(self.priors, str) else self.priors

    def _sample(
        self, model: ThresholdModel, root: np.random.SeedSequence, owner: str
    ) -> tuple[Any, Convergence, dict[str, FloatArray]]:
        """Posterior, its convergence, and draws (B, ...) of what is reported."""
        trace = sample_posterior(
            whitened_posterior(model, whiten(model)),
            np.zeros(model.n_dim),
            np.ones(model.n_dim),
            draws=self.draws,
            tune=self.tune,
            chains=self.chains,
            target_accept=self.target_accept,
            seed=root,
        )
        dataset = posterior_dataset(trace)
        names = [str(name) for name in dataset.data_vars]
        health = judge(trace, [name for name in names if name not in CELL_NAMES])
        health.warn(owner, ADVICE)
        shape = (self.chains * self.draws, -1)
        return trace, health, {name: np.asarray(dataset[name]).reshape(shape) for name in names}

    def _store(
        self, model: ThresholdModel, draws: dict[str, FloatArray], root: np.random.SeedSequence
    ) -> None:
        import pandas as pd

        cells = model.cells
        self.estimates_ = DrawEstimates(
            draws["threshold"], [f"threshold:{name}" for name in cells.groups]
        )
        with np.errstate(invalid="ignore"):
            observed = cells.hits / cells.searches
        self.cells_ = pd.DataFrame(
            {
                "group": [cells.groups[g] for g in cells.group],
                "place": [cells.places[p] for p in cells.place],
                "stops": cells.stops,
                "searches": cells.searches,
                "hits": cells.hits,
                "search_rate": cells.searches / cells.stops,
                "search_rate_fitted": draws["search_rate"].mean(axis=0),
                "hit_rate": observed,
                "hit_rate_fitted": draws["hit_rate"].mean(axis=0),
                "threshold": draws["cell_threshold"].mean(axis=0),
            }
        )
        self.group_parameters_ = {
            name: DrawEstimates(draws[name], cells.groups)
            for name in ("guilt", "signal", "location", "spread")
        }
        self.place_spread_ = None
        if model.priors.learn_places:
            self.place_spread_ = DrawEstimates(draws["place_sd"], EFFECTS)
        self._surprise = surprises(self.group_parameters_, model.priors)
        self._inside = predictive_share(cells, draws["hit_rate"], generator(root, 2))
        if self._surprise:
            warn(
                f"ThresholdTest.fit: {self._surprise[0]} Data and prior disagree, so that the "
                'thresholds lean on the prior; try priors="weak" or ThresholdPriors of your own.',
                WeakIdentificationWarning,
            )

    def _cite_extra(self) -> tuple[str, ...]:
        return ("papaspiliopoulos2007general",) if self.place_spread_ is not None else ()

    # What follows from the draws ------------------------------------------------------------------

    def differences(self, reference: str | None = None) -> Estimates:
        """Differences of thresholds from those of a reference group.

        Parameters
        ----------
        reference : str, optional
            The group; the one with most stops when None.

        Returns
        -------
        DrawEstimates
            ``"<group> - <reference>"``: below zero where the group is searched on less evidence.
        """
        check_is_fitted(self)
        stops = np.bincount(self._data_cells.group, weights=self._data_cells.stops)
        chosen = self.groups_[int(np.argmax(stops))] if reference is None else reference
        if chosen not in self.groups_:
            raise ParameterError(
                f"ThresholdTest.differences got reference={reference!r}; groups: "
                f"{', '.join(self.groups_)}."
            )
        base = self.groups_.index(chosen)
        others = [j for j in range(len(self.groups_)) if j != base]
        weights = np.zeros((len(others), len(self.groups_)))
        weights[np.arange(len(others)), others] = 1.0
        weights[:, base] = -1.0
        names = [f"{self.groups_[j]} - {chosen}" for j in others]
        found: Estimates = self.estimates_.transform(lambda t: weights @ t, names)
        return found

    def outcome_test(self) -> Estimates:
        """Hit rates by group: the outcome test, with its warning.

        Returns
        -------
        InfluenceEstimates
            ``"hit rate:<group>"``, clustered by place where there are several.
        """
        check_is_fitted(self)
        return outcome_rates(self._data_cells, "ThresholdTest.outcome_test")

    def benchmark_test(self) -> Estimates:
        """Search rates by group: the benchmark test.

        Returns
        -------
        InfluenceEstimates
            ``"search rate:<group>"``, clustered by place where there are several.
        """
        check_is_fitted(self)
        return benchmark_rates(self._data_cells)

    def placebo_test(self, random_state: Any = 0) -> Estimates:
        """Thresholds of made-up groups: people of each place dealt at random into groups.

        Parameters
        ----------
        random_state : int, SeedSequence, Generator, RandomState or None
            Seed of the dealing.

        Returns
        -------
        DrawEstimates
            Differences from the largest group, which should all be near zero.
        """
        check_is_fitted(self)
        seed = root_seed(random_state)
        cells = shuffled_cells(self._data_cells, generator(seed, 0))
        owner = "ThresholdTest.placebo_test"
        _, _, found = self._sample(ThresholdModel(cells, self._priors(), self.form), seed, owner)
        draws = found["threshold"]
        base = int(np.argmax(np.bincount(cells.group, weights=cells.stops)))
        others = [j for j in range(len(cells.groups)) if j != base]
        names = [f"placebo {self.groups_[j]} - {self.groups_[base]}" for j in others]
        return DrawEstimates(draws[:, others] - draws[:, [base]], names)

    def check(self) -> Table:
        """Fit to the data, convergence of the sampler, agreement of data and prior.

        Returns
        -------
        causalfair.reporting.Table
            One row a diagnostic.
        """
        check_is_fitted(self)
        return check_table(self.cells_, self._inside, self.convergence_, self._surprise)

    def _summary_header(self) -> list[tuple[str, str]]:
        c = self._data_cells
        pairs = [("hits" if k == "outcome" else k, v) for k, v in super()._summary_header()]
        pairs = [pair for pair in pairs if pair[0] != "n"]
        return [
            *pairs,
            ("cells", f"{c.n:,}"),
            ("places", f"{len(c.places):,}"),
            ("total stops", f"{c.stops.sum():,.0f}"),
            ("form", self.form),
            ("priors", self.priors if isinstance(self.priors, str) else "own"),
        ]

    def _summary_tables(self) -> list[Any]:
        tables = [estimates_table(self.differences(), title="Differences of thresholds")]
        tables.append(estimates_table(outcome_rates(self._data_cells, None), title="Hit rates"))
        if self.place_spread_ is not None:
            title = "Standard deviations of the effects of places"
            tables.append(estimates_table(self.place_spread_, title=title))
        return tables

    def _summary_notes(self) -> list[str]:
        notes = [
            "Hit rates do not tell discrimination: they average over everybody searched, not over "
            "those at the threshold (infra-marginality)."
        ]
        notes.append(f"Sampler: {self.convergence_}.")
        return notes
