"""Constant effect with many, multi-level or continuous invalid instruments."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from scipy.special import chdtrc
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import StrOptions, fit_context
from causalfair._core.logging import warn
from causalfair._core.parallel import inner_threads
from causalfair._core.roles import RoleData, resolve_roles
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_level
from causalfair.exceptions import ParameterError, WeakIdentificationWarning
from causalfair.inference import (
    HypothesisTest,
    InfluenceEstimates,
    clustered_vcov,
    iid_vcov,
)
from causalfair.iv._comparators import baseline_scores, lewbel_score
from causalfair.iv._genius_data import GeniusData, GeniusOptions, direct_effects, j_test, prepare
from causalfair.iv._gmm import Criterion, GmmFit, LinearMoments, fit_gmm, s_statistic_set
from causalfair.iv._instruments import instrument_roles
from causalfair.iv._moments import MomentModel
from causalfair.iv._record import separate_estimates
from causalfair.iv._reports import number
from causalfair.iv._results import WEAK, format_set
from causalfair.iv._scores import Scores, join_scores, weighted_mean
from causalfair.reporting import Table, format_estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MRGenius"]


class MRGenius(CausalEstimator):
    r"""Constant effect with instruments that may all be invalid (GENIUS).

    Use it with one or many instruments of any kind (genotypes, doses, several encouragements) that
    may each act on the outcome directly. Identification comes from the instruments changing the
    variance of the treatment; no instrument needs to be valid. With several instruments the effect
    is over-identified, and the J statistic tests it. For one binary instrument and an effect that
    varies with covariates use :class:`MultiplyRobustATE`.

    Parameters
    ----------
    outcome : {"additive", "multiplicative"}, default "additive"
        ``"additive"``: the effect is a difference. ``"multiplicative"``: the log ratio of means per
        unit of treatment, for an outcome that is zero or positive.
    treatment : {"additive", "logistic", "multiplicative"}, default "additive"
        Model of the treatment's mean: linear; logistic, for a binary treatment; or log-linear with
        no interaction of instrument and unmeasured causes on the ratio scale, for a treatment that
        is zero or positive.
    method : {"gmm", "iterated", "cue"}, default "gmm"
        Two-step, iterated or continuously updated weight matrix. They agree for one instrument.
    instrument_terms : {"linear", "indicators", "quadratic", "variance"}, default "linear"
        Functions of the instruments in the moments: the numeric instruments themselves; one
        indicator a level; themselves and their squares; or the one function that the fitted
        variance of the treatment (quadratic in the instruments) suggests. Text instruments get
        indicators.
    residualize : bool, default False
        Replace the outcome by its residual given instruments and covariates (additive outcome,
        additive treatment). More precise where the outcome is well predicted; small errors in the
        mean of the treatment then matter only as products.

    Attributes
    ----------
    estimates_ : InfluenceEstimates
        ``"ATE"`` (or ``"log ratio"``) and, if additive, the ``"direct effect"`` of each instrument:
        its coefficient in a linear model of ``Y - ATE * A``.
    j_test_ : HypothesisTest
        Test that all instruments agree.
    n_updates_ : int
        Updates of the weight matrix.

    See Also
    --------
    MultiplyRobustATE : One binary instrument, effect that varies with covariates.

    Notes
    -----
    Moments :math:`E[(G_k-E[G_k|X])\,r\,(Y-\beta A)]=0` with :math:`r=A-E[A|G,X]`
    (multiplicative treatment: :math:`r=A e^{-\eta(G,X)}-1`; multiplicative outcome:
    :math:`Y e^{-\beta A}` instead of :math:`Y-\beta A`). Covariates enter linearly in all means.
    Standard errors, the weight matrix and the J statistic account for the estimated means of the
    instruments and of the treatment.

    **Assumptions.** The instruments are as good as random given the covariates; no additive
    interaction of instruments or treatment with unmeasured causes in the outcome, nor of
    instruments with unmeasured causes in the treatment; the effect is constant; the variance of the
    treatment depends on the instruments. The mean of the treatment is as modelled, and the mean of
    the instruments given the covariates, or else the confounding covariance, is linear.

    References
    ----------
    .. [1] Tchetgen Tchetgen, E., Sun, B. and Walter, S. (2021). The GENIUS approach to robust
       Mendelian randomization inference. Statistical Science 36(3), 443-464.
       doi:10.1214/20-STS802
    .. [2] Lewbel, A. (2012). Using heteroscedasticity to identify and estimate mismeasured and
       endogenous regressor models. Journal of Business & Economic Statistics 30(1), 67-80.
       doi:10.1080/07350015.2012.643126

    Examples
    --------
    >>> from causalfair.datasets import make_invalid_instruments
    >>> from causalfair.iv import MRGenius
    >>> frame, truth = make_invalid_instruments(20_000, n_instruments=4, random_state=0)
    >>> est = MRGenius().fit(frame, "y", treatment="treatment",
    ...                      instrument=["g1", "g2", "g3", "g4"], covariates=[])
    >>> low, high = est.conf_int()[0]
    >>> bool(low < truth["ate"] < high)
    True
    """

    _title: ClassVar[str] = "Constant effect with invalid instruments (GENIUS)"
    _estimand: ClassVar[str] = (
        "constant effect of one unit of treatment on the outcome, instruments held fixed; every "
        "instrument may act on the outcome directly."
    )
    _assumptions: ClassVar[tuple[str, ...]] = (
        "instruments as good as random given the covariates",
        "no interaction of treatment or instruments with unmeasured causes of the outcome",
        "no interaction of the instruments with unmeasured causes of the treatment",
        "the instruments shift the variance of the treatment",
    )
    _citations: ClassVar[tuple[str, ...]] = ("tchetgen2021genius", "lewbel2012using")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "outcome": [StrOptions({"additive", "multiplicative"})],
        "treatment": [StrOptions({"additive", "logistic", "multiplicative"})],
        "method": [StrOptions({"gmm", "iterated", "cue"})],
        "instrument_terms": [StrOptions({"linear", "indicators", "quadratic", "variance"})],
        "residualize": ["boolean"],
    }

    def __init__(
        self,
        outcome: Literal["additive", "multiplicative"] = "additive",
        treatment: Literal["additive", "logistic", "multiplicative"] = "additive",
        *,
        method: Literal["gmm", "iterated", "cue"] = "gmm",
        instrument_terms: Literal["linear", "indicators", "quadratic", "variance"] = "linear",
        residualize: bool = False,
    ) -> None:
        self.outcome = outcome
        self.treatment = treatment
        self.method = method
        self.instrument_terms = instrument_terms
        self.residualize = residualize

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        treatment: Any,
        instrument: Any,
        covariates: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> MRGenius:
        """Fit the means and the effect.

        Parameters
        ----------
        X : frame or array of shape (n_samples, p)
            Table of all columns, or the covariates.
        y : array of shape (n_samples,) or str
            Outcome.
        treatment : array of shape (n_samples,) or str
            Treatment.
        instrument : array of shape (n_samples,) or (n_samples, K), frame, str or list of str
            One or several instruments.
        covariates : "all", list of str or formula, optional
            What to adjust for; required when a role is a column name, ``[]`` for none.
        cluster : array of shape (n_samples,) or (n_samples, c), or str, optional
            Cluster labels for the standard errors.
        sample_weight : array of shape (n_samples,) or str, optional
            Non-negative weights.

        Returns
        -------
        MRGenius
            The fitted estimator.

        Raises
        ------
        DataError
            If treatment or an instrument does not vary, or does not fit the model asked for.
        IdentificationError
            If the instruments are redundant.
        ConvergenceError
            If a model or the criterion has no minimum.
        """
        owner = "MRGenius.fit"
        if self.residualize and (self.outcome, self.treatment) != ("additive", "additive"):
            raise ParameterError(
                f"{owner}: residualize=True needs outcome='additive' and treatment='additive'; got "
                f"outcome={self.outcome!r} and treatment={self.treatment!r}."
            )
        data = resolve_roles(
            X,
            y,
            owner=owner,
            covariates=covariates,
            roles={"treatment": treatment, **instrument_roles(instrument, owner)},
            cluster=cluster,
            sample_weight=sample_weight,
        )
        options = GeniusOptions(
            self.outcome, self.treatment, self.instrument_terms, self.residualize
        )
        with inner_threads():
            prepared = prepare(data, options)
            model = MomentModel(prepared.design)
            criterion = Criterion(model, lambda influence: self._covariance(data, influence))
            found = fit_gmm(criterion, self.method)
            self._store(data, prepared, criterion, found)
            self._warn_if_weak()
        self._finish(data)
        return self

    @staticmethod
    def _covariance(data: RoleData, influence: FloatArray) -> FloatArray:
        """Covariance matrix of the weighted mean of influence values."""
        centred = influence - weighted_mean(influence, data.sample_weight)
        if data.sample_weight is not None:
            centred = centred * data.sample_weight[:, None]
        if data.cluster is None:
            return iid_vcov(centred)
        return clustered_vcov(centred, data.cluster)

    def _store(
        self, data: RoleData, prepared: GeniusData, criterion: Criterion, found: GmmFit
    ) -> None:
        """Keep estimates, the J test and what the robust set needs."""

        def estimates(part: Scores) -> InfluenceEstimates:
            return InfluenceEstimates(
                part.estimate,
                part.influence,
                part.names,
                cluster=data.cluster,
                sample_weight=data.sample_weight,
                sample_id=data.sample_id(),
            )

        name = "ATE" if self.outcome == "additive" else "log ratio"
        effect = Scores((name,), np.array([found.beta]), found.influence[:, None])
        parts = [effect]
        design = prepared.design
        if self.outcome == "additive":
            parts.append(direct_effects(prepared, found))
        self.estimates_ = estimates(join_scores(*parts))
        self.j_test_ = j_test(found)
        self.n_updates_ = found.n_updates
        shift = criterion.linear
        if shift is None:
            additive = MomentModel(replace(design, outcome="additive"))
            shift = Criterion(additive, lambda m: self._covariance(data, m)).linear
        assert shift is not None  # an additive outcome gives linear moments
        self._moments: LinearMoments = shift
        columns = (prepared.terms.columns, design.a, design.y, prepared.exogenous)
        beside = join_scores(
            baseline_scores(*columns, data.sample_weight),
            lewbel_score(*columns, data.sample_weight),
        )
        self._beside = separate_estimates(
            beside, data.cluster, data.sample_weight, data.sample_id()
        )

    def _warn_if_weak(self) -> None:
        K = self._moments.v.size
        f_het = self._moments.strength() / K
        if f_het >= WEAK:
            return
        unseen = float(chdtrc(float(K), self._moments.strength())) > 0.05
        how = "no variance shift can be seen" if unseen else "the variance shift is weak"
        robust = ""
        if self.outcome == "additive":
            robust = f" The robust 95% set is {format_set(self.robust_set())}."
        warn(
            f"MRGenius.fit: {how} (F_het = {f_het:.2f} with {K} instrument term(s), {WEAK:g} or "
            f"more wanted): normal intervals are unreliable.{robust} See relevance().",
            WeakIdentificationWarning,
        )

    def relevance(self) -> HypothesisTest:
        """Test that no instrument shifts the variance of the treatment.

        Returns
        -------
        HypothesisTest
            Wald statistic, chi-squared with one degree of freedom an instrument term.
        """
        check_is_fitted(self)
        K = self._moments.v.size
        statistic = self._moments.strength()
        return HypothesisTest(
            "Wald", "no variance shift", statistic, float(chdtrc(float(K), statistic)), df=float(K)
        )

    def robust_set(self, level: float = 0.95) -> list[tuple[float, float]]:
        """Confidence set that holds however weak the identification.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        list of (low, high)
            All effects at which the instruments are jointly compatible with their moments;
            unbounded when the data cannot tell, empty when no effect fits all instruments.

        Raises
        ------
        ParameterError
            For a multiplicative outcome.
        """
        check_is_fitted(self)
        check_level(level)
        if self.outcome != "additive":
            raise ParameterError("robust_set is for outcome='additive'.")
        ate = self.estimates_["ATE"]
        return s_statistic_set(
            self._moments, float(ate.estimate[0]), float(ate.std_error[0]), level
        )

    def comparators(self, level: float = 0.95) -> pd.DataFrame:
        """Other estimators on the same rows.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        pandas.DataFrame
            ``term, rests_on, estimate, std_error, conf_low, conf_high``.
        """
        import pandas as pd

        check_is_fitted(self)
        rests = {
            "OLS": "no unmeasured confounding, linear",
            "2SLS": "all instruments valid, linear",
            "Wald (no covariates)": "all instruments valid, as if randomised",
            "Lewbel": "heteroscedasticity; usual std. error",
        }
        main = self.estimates_[self.estimates_.names[:1]]
        lines = []
        for name, rests_on, estimate in [
            (main.names[0], "see summary()", main),
            *((name, rests[name], each) for name, each in self._beside.items()),
        ]:
            low, high = estimate.conf_int(level)[0]
            lines.append([name, rests_on, estimate.estimate[0], estimate.std_error[0], low, high])
        columns = ["term", "rests_on", "estimate", "std_error", "conf_low", "conf_high"]
        return pd.DataFrame(lines, columns=columns)

    def _summary_header(self) -> list[tuple[str, str]]:
        pairs = [
            pair for pair in super()._summary_header() if not pair[0].startswith("instrument:")
        ]
        if self._moments.v.size > 1:
            pairs.append(("instrument terms", str(self._moments.v.size)))
        pairs.append(("method", self.method))
        return pairs

    def _summary_tables(self) -> list[Any]:
        K = self._moments.v.size
        lines = [["variance shift F_het (10 or more wanted)", number(self._moments.strength() / K)]]
        if self.outcome == "additive":
            lines.append(["robust 95% set", format_set(self.robust_set())])
        if self.j_test_.reason is None:
            J = self.j_test_
            text = f"{number(J.statistic)} on {K - 1} df, p = {number(J.p_value, 2)}"
            lines.append(["J, do all instruments agree?", text])
        beside = []
        for row in self.comparators().iloc[1:].to_dict("records"):
            cells = format_estimate(
                row["estimate"], row["std_error"], row["conf_low"], row["conf_high"]
            )
            beside.append([row["term"], cells.estimate, cells.std_error, row["rests_on"]])
        return [
            Table(["identification", "value"], lines),
            Table(["other estimators", "estimate", "std. error", "rests on"], beside),
        ]
