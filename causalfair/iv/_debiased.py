"""Average effect with an invalid instrument by cross-fitted machine learning."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np

from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.crossfit import CrossFitter, fold_hash
from causalfair._core.learners import (
    accepts_missing,
    default_classifier,
    default_regressor,
    describe_learner,
)
from causalfair._core.random import root_seed
from causalfair._core.roles import RoleData, resolve_roles
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError
from causalfair.iv._candidates import check_slot_learner, needs_classifier
from causalfair.iv._combinations import SLOTS, combination_nuisances
from causalfair.iv._data import InstrumentData, OneSided, check_instrument_data
from causalfair.iv._known import known_nuisances
from causalfair.iv._learned import effects_of, loss_text, one_sided_note, record_of
from causalfair.iv._learning import learn_fold
from causalfair.iv._plan import IVData, LearningPlan, gather
from causalfair.iv._results import InvalidInstrumentBase
from causalfair.iv._scores import IVNuisances, influence_scores
from causalfair.reporting import Table

__all__ = ["DebiasedATE"]

SUPPLIED = "supplied"


class DebiasedATE(InvalidInstrumentBase):
    r"""Average effect with an instrument that may act on the outcome, by machine learning.

    Use it when the instrument may reach the outcome by another road than the treatment, so that
    two-stage least squares would be biased, and the covariates are many or act in unknown ways.
    Five nuisances are learned by any scikit-learn style learners, always on other rows than they
    are scored on; the estimate is the mean of a score that their errors enter only as products.

    Parameters
    ----------
    instrument_learner : classifier, optional
        For P(Z=1|X); needs ``predict_proba``. Every learner left at None is the package's default
        for the size of the data: penalised linear for few cells, else gradient boosting.
    treatment_learner : classifier or regressor, optional
        For E[A|Z=z,X] by arm of the instrument, a classifier if the treatment is binary; a
        regressor also learns Var(A|Z=z,X) of a continuous treatment.
    outcome_learner : regressor, optional
        For E[Y|Z=z,X] and E[Y - beta(X) A|Z=z,X] by arm of the instrument.
    effect_learner : regressor or {"t", "const", "linear"}, optional
        For the effect beta(X), by a weighted regression on residuals, so that it must take
        ``sample_weight``. ``"t"``: ratio of arm-wise regressions of ``outcome_learner``;
        ``"const"``: no heterogeneity; ``"linear"``: least squares on the covariates.
    confounding_learner : regressor, optional
        For the residual covariance omega(X) = Cov(A, Y - beta(X) A|Z,X).
    n_folds : int, default 5
        Folds, stratified on instrument and binary treatment; clusters stay together.
    n_repeats : int, default 5
        Random partitions. The estimate is the median over them, and their spread is in the standard
        error.
    inner_folds : int, default 2
        Folds of the inner cross-fit that makes the residuals from which effect and confounding are
        learned.
    one_sided : {"auto"} or bool, default "auto"
        Treatment without variation in one arm of the instrument (one-sided non-compliance):
        ``"auto"`` switches to that case with a warning, ``True`` without, ``False`` refuses it.
    trim : {"clip", "drop"}, default "clip"
        What happens to rows whose probability is beyond ``clip`` or whose variance shift is below
        ``min_variance_shift``: raised to the bound, or left out of the average (a row that is
        beyond in any repeat is left out of all). Leaving out changes the target population, and
        the summary says so.
    clip : float, default 0.01
        Bound on P(Z=1|X) from 0 and from 1.
    min_variance_shift : float, optional
        Least ``|D(X)|``; by default 0.02 for a binary treatment (0.25 is the most there can be),
        else 5 % of the median.
    n_jobs : int, optional
        Workers; one task is one fold of one repeat.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the folds and of every learner whose own ``random_state`` is None. The same seed
        gives the same bits for any ``n_jobs``.

    Attributes
    ----------
    estimates_ : RepeatedEstimates
        ``"ATE"`` and ``"direct effect"``; InfluenceEstimates with one repeat.
    repeats_ : pandas.DataFrame
        Estimate and standard error of both terms in every repeat.
    nuisances_ : tuple of IVNuisances
        Held-out nuisance values of every row, one entry a repeat.
    scores_ : ndarray of shape (n_samples, n_repeats)
        Score phi of every row; their mean is the average effect of that repeat.
    losses_ : dict of str to float
        Out-of-sample loss of every learned nuisance: log-loss for the instrument and a binary
        treatment, else root mean squared error.
    n_obs_ : int
        Number of rows.

    See Also
    --------
    SelectiveATE : Chooses among candidate learners.
    MultiplyRobustATE : The same estimand with parametric models.

    Notes
    -----
    **Estimand and score.** :math:`E[Y(1,z)-Y(0,z)]`. With
    :math:`D(X)=Var(A|Z=1,X)-Var(A|Z=0,X)`,

    .. math:: \varphi = \frac{2Z-1}{f(Z|X) D(X)}
        \left[(A-\lambda(Z,X))(Y-\beta(X)A-\mu(Z,X))-\omega(X)\right]+\beta(X).

    **Rates.** The standard error is right if the products of errors along the path
    omega - pi - beta - lambda - mu vanish faster than :math:`n^{-1/2}`. Learners that cannot fit
    the truth bias the estimate: compare several with :class:`SelectiveATE`.

    **Effect.** With residuals :math:`r_A, r_Y` of an inner cross-fit,
    :math:`q(X)=E[r_A r_Y|X]` and :math:`s=(Z-\pi)D`, the effect minimises
    :math:`\sum\{r_A r_Y-q(X)-\beta(X)s\}^2`; with one-sided non-compliance
    :math:`\sum\{r_Y-\beta(X)r_A\}^2` over the arm with a choice, where omega is zero.

    **Small arms.** Every training part needs 20 treated and 20 untreated rows in each arm.

    References
    ----------
    .. [1] Sun, B., Cui, Y. and Tchetgen Tchetgen, E. (2022). Selective machine learning of the
       average treatment effect with an invalid instrumental variable. JMLR 23.
       arXiv:1907.11882.
    .. [2] Chernozhukov, V. et al. (2018). Double/debiased machine learning for treatment and
       structural parameters. Econometrics Journal 21, C1-C68. doi:10.1111/ectj.12097.
    .. [3] Nie, X. and Wager, S. (2021). Quasi-oracle estimation of heterogeneous treatment effects.
       Biometrika 108, 299-319. doi:10.1093/biomet/asaa076.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression, LogisticRegression
    >>> from causalfair.datasets import make_invalid_iv
    >>> from causalfair.iv import DebiasedATE
    >>> frame, truth = make_invalid_iv(8000, random_state=1)
    >>> line, logit = LinearRegression(), LogisticRegression()
    >>> est = DebiasedATE(logit, logit, line, line, line, n_repeats=2, random_state=0).fit(
    ...     frame, "y", treatment="treatment", instrument="instrument", covariates=["x1", "x2"])
    >>> low, high = est.conf_int()[0]
    >>> bool(low < truth["ate"] < high)
    True
    """

    _title: ClassVar[str] = "Average effect with an invalid instrument (debiased machine learning)"
    _estimand: ClassVar[str] = (
        "average effect of the treatment on the outcome, instrument held fixed; the instrument may "
        "act on the outcome directly."
    )
    _assumptions: ClassVar[tuple[str, ...]] = (
        "instrument as good as random given the covariates",
        "no additive interaction of treatment or instrument with unmeasured causes of the outcome",
        "no additive interaction of the instrument with unmeasured causes of the treatment",
        "the instrument shifts the variance of the treatment",
        "learners accurate enough that products of their errors are negligible",
    )
    _citations: ClassVar[tuple[str, ...]] = ("sun2022selective", "chernozhukov2018double")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "inner_folds": [Interval(Integral, 2, None, closed="left")],
        "one_sided": [StrOptions({"auto"}), "boolean"],
        "trim": [StrOptions({"clip", "drop"})],
        "clip": [Interval(Real, 0, 0.5, closed="neither")],
        "min_variance_shift": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        instrument_learner: Any = None,
        treatment_learner: Any = None,
        outcome_learner: Any = None,
        effect_learner: Any = None,
        confounding_learner: Any = None,
        *,
        n_folds: int = 5,
        n_repeats: int = 5,
        inner_folds: int = 2,
        one_sided: OneSided = "auto",
        trim: Literal["clip", "drop"] = "clip",
        clip: float = 0.01,
        min_variance_shift: float | None = None,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.instrument_learner = instrument_learner
        self.treatment_learner = treatment_learner
        self.outcome_learner = outcome_learner
        self.effect_learner = effect_learner
        self.confounding_learner = confounding_learner
        self.n_folds = n_folds
        self.n_repeats = n_repeats
        self.inner_folds = inner_folds
        self.one_sided = one_sided
        self.trim = trim
        self.clip = clip
        self.min_variance_shift = min_variance_shift
        self.n_jobs = n_jobs
        self.random_state = random_state

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
        nuisances: Mapping[str, Any] | None = None,
    ) -> DebiasedATE:
        """Learn the nuisances out of fold and average the score.

        Parameters
        ----------
        X : frame or array of shape (n_samples, p)
            Table of all columns, or the covariates.
        y : array of shape (n_samples,) or str
            Outcome.
        treatment : array of shape (n_samples,) or str
            Treatment; binary if it takes two values, else continuous.
        instrument : array of shape (n_samples,) or str
            Binary instrument.
        covariates : "all", list of str or formula, optional
            What to adjust for; required when a role is a column name.
        cluster : array of shape (n_samples,) or (n_samples, c), or str, optional
            Cluster labels; folds keep the clusters of the first way together.
        sample_weight : array of shape (n_samples,) or str, optional
            Non-negative weights, for the learners and for the average.
        nuisances : mapping of str to array of shape (n_samples,) or float, optional
            Nuisance values of your own, which are then not learned. Keys: ``"instrument"``
            (P(Z=1|X), such as the known probability of a randomised instrument), ``"treatment0"``
            and ``"treatment1"`` (E[A|Z=z,X]), ``"variance0"`` and ``"variance1"`` (of a continuous
            treatment), ``"effect"``, and with the effect ``"outcome0"``, ``"outcome1"``
            (E[Y - beta A|Z=z,X]) and ``"confounding"``. Give out-of-sample predictions: values
            fitted to the same rows bias the estimate.

        Returns
        -------
        DebiasedATE
            The fitted estimator.

        Raises
        ------
        DataError
            If the roles do not vary as needed, there are fewer than 50 rows or 20 in an arm, or a
            training part has too few rows in an arm.
        ParameterError
            If ``nuisances`` has unknown or incomplete keys.
        TypeError
            If a learner lacks what its slot needs.
        """
        owner = "DebiasedATE.fit"
        data = resolve_roles(
            X,
            y,
            owner=owner,
            covariates=covariates,
            roles={"treatment": treatment, "instrument": instrument},
            cluster=cluster,
            sample_weight=sample_weight,
            allow_nan=self._accepts_missing(),
        )
        checked = check_instrument_data(data, one_sided=self.one_sided)
        plan = self._plan(data, checked, known_nuisances(nuisances, checked, owner=owner))
        bundle = IVData.of(data.covariates, checked)
        to_learn = plan.to_learn(bundle)
        if to_learn and not data.covariate_names:
            raise DataError(
                f"{owner}: there are no covariates to learn from. Name some in covariates=, or use "
                "MultiplyRobustATE, which needs none."
            )
        root = root_seed(self.random_state)
        # Nothing to learn: every split would give the same answer.
        fitter = CrossFitter(
            self.n_folds,
            self.n_repeats if to_learn else 1,
            stratify=bundle.cells,
            groups=bundle.groups,
            n_jobs=self.n_jobs,
            random_state=root,
        )
        folds = fitter.map(partial(learn_fold, data=bundle, plan=plan), data.n)
        fits = [gather(repeat, bundle, plan) for repeat in folds]
        self._store(
            data, checked, tuple(combination_nuisances(found, (0,) * 5) for found, _ in fits)
        )
        self._describe(plan, to_learn, [losses for _, losses in fits], binary=checked.binary)
        self._warn_about_identification()
        self._finish(data, seed=root, folds=fold_hash(fitter.folds(data.n)))
        return self

    # Learners ------------------------------------------------------------------------------------

    def _given(self) -> dict[str, Any]:
        return {slot: getattr(self, f"{slot}_learner") for slot in SLOTS}

    def _accepts_missing(self) -> bool:
        """Whether NaN in X may pass: only where every learner is given and takes it."""
        return all(
            hasattr(learner, "fit") and accepts_missing(learner)
            for learner in self._given().values()
        )

    def _plan(
        self, data: RoleData, checked: InstrumentData, known: Mapping[str, FloatArray]
    ) -> LearningPlan:
        n, p = data.n, len(data.covariate_names)
        learners: dict[str, dict[str, Any]] = {}
        for slot, given in self._given().items():
            if slot in known:
                learners[slot] = {SUPPLIED: None}
                continue
            classifier = needs_classifier(slot, binary=checked.binary)
            default = default_classifier if classifier else default_regressor
            learner = default(n, p) if given is None else given
            check_slot_learner(learner, slot, binary=checked.binary)
            learners[slot] = {"": learner}
        if isinstance(learners["effect"].get(""), str) and learners["effect"][""] == "linear":
            data.matrix()  # numeric covariates only: say so before anything is learned
        return LearningPlan(
            learners,
            inner_folds=self.inner_folds,
            clip=float(self.clip),
            floor=None if self.min_variance_shift is None else float(self.min_variance_shift),
            known=known,
        )

    # Results -------------------------------------------------------------------------------------

    def _store(
        self, data: RoleData, checked: InstrumentData, nuisances: tuple[IVNuisances, ...]
    ) -> None:
        """Keep estimates, held-out nuisance values and comparators; no covariates."""
        z, a, y = checked.z, checked.a, checked.y
        self._n_dropped, weight = 0, checked.weight
        if self.trim == "drop":
            self._n_dropped, weight = _drop_rows(nuisances, checked)
        phi = tuple(influence_scores(z, a, y, nu) for nu in nuisances)
        self._rows = record_of(data, checked, nuisances, phi, weight)
        self.estimates_ = effects_of(self._rows)
        self.nuisances_, self.scores_ = nuisances, np.column_stack(phi)
        self.repeats_ = self._repeats_frame()
        self._codings = checked.codings()

    def _repeats_frame(self) -> Any:
        import pandas as pd

        members = getattr(self.estimates_, "members", (self.estimates_,))
        parts = [member.to_frame().assign(repeat=r) for r, member in enumerate(members)]
        columns = ["repeat", "term", "estimate", "std_error", "conf_low", "conf_high"]
        return pd.concat(parts, ignore_index=True)[columns]

    def _describe(
        self,
        plan: LearningPlan,
        to_learn: tuple[str, ...],
        losses: list[dict[str, FloatArray]],
        *,
        binary: bool,
    ) -> None:
        """Learner and out-of-sample loss of every nuisance, for the summary."""
        self.losses_, self._learner_lines = {}, []
        for slot in SLOTS:
            if slot not in to_learn:
                source = "supplied" if slot in plan.known else "zero: one-sided"
                self._learner_lines.append([slot, source, ""])
                continue
            mean = float(np.mean([loss[slot][0] for loss in losses]))
            kind = "log-loss" if needs_classifier(slot, binary=binary) else "RMSE"
            self.losses_[slot] = mean if kind == "log-loss" else float(np.sqrt(mean))
            learner = plan.learners[slot][""]
            shown = repr(learner) if isinstance(learner, str) else describe_learner(learner)
            self._learner_lines.append([slot, shown, loss_text(kind, self.losses_[slot])])

    def _summary_header(self) -> list[tuple[str, str]]:
        repeats = len(self.nuisances_)
        return [
            *super()._summary_header(),
            *self._codings,
            ("folds", f"{self.n_folds} x {repeats} (inner {self.inner_folds})"),
            ("std. error", "influence function" + (", median of repeats" if repeats > 1 else "")),
        ]

    def _summary_tables(self) -> list[Any]:
        learners = Table(["nuisance", "learner", "out-of-fold loss"], self._learner_lines)
        return [learners, *super()._summary_tables()]

    def _summary_notes(self) -> list[str]:
        notes = one_sided_note(self._rows)
        if self._n_dropped:
            notes.append(
                f"Target population changed: {self._n_dropped:,} rows were left out by trim='drop'."
            )
        return notes

    def _cite_extra(self) -> tuple[str, ...]:
        return () if isinstance(self.effect_learner, str) else ("nie2021quasi",)


def _drop_rows(
    nuisances: tuple[IVNuisances, ...], checked: InstrumentData
) -> tuple[int, FloatArray | None]:
    """Weights without the rows that were clipped or floored in any repeat."""
    dropped = np.zeros(checked.n, dtype=bool)
    for nu in nuisances:
        for rows in (nu.clipped, nu.floored):
            if rows is not None:
                dropped |= rows
    count = int(dropped.sum())
    if count == 0:
        return 0, checked.weight
    weight = np.where(dropped, 0.0, 1.0 if checked.weight is None else checked.weight)
    if weight.sum() <= 0.0:
        raise DataError(
            f"trim='drop' leaves out all {checked.n} rows; lower clip or min_variance_shift, or "
            "use trim='clip'."
        )
    return count, np.asarray(weight * (checked.n / weight.sum()))
