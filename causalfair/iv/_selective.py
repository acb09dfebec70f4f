"""Average effect with an invalid instrument, choosing among candidate learners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np

from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.crossfit import CrossFitter, fold_hash
from causalfair._core.learners import describe_learner
from causalfair._core.random import root_seed
from causalfair._core.roles import resolve_roles
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError
from causalfair.iv._candidates import needs_classifier, resolve_candidates
from causalfair.iv._choice import (
    by_fold,
    choose,
    full_index,
    nested_choice,
    pad_index,
    smooth_scores,
)
from causalfair.iv._combinations import CandidateNuisances, combination_nuisances
from causalfair.iv._data import OneSided, check_instrument_data
from causalfair.iv._learned import effects_of, loss_text, one_sided_note, record_of
from causalfair.iv._learning import learn_fold
from causalfair.iv._plan import IVData, LearningPlan, gather
from causalfair.iv._reports import number
from causalfair.iv._results import InvalidInstrumentBase
from causalfair.iv._scores import IVNuisances, influence_scores, score_ate
from causalfair.iv._selection import NuisanceSelection, check_combinations, softmin_weights
from causalfair.reporting import Table

__all__ = ["SelectiveATE"]

_NOTES = {
    "plain": "Intervals ignore that the learners were selected; inference='nested' repeats the "
    "selection inside every training part, so that no scored row took part in it.",
    "nested": "Selection was repeated inside every training part: no scored row took part in the "
    "choice of its learners.",
    "smooth": "The estimate averages all combinations with weights that fall with their risk.",
}


class SelectiveATE(InvalidInstrumentBase):
    r"""Average effect with an invalid instrument, by the learners whose estimate moves least.

    Use it when you do not know which learners suit the data. The estimate is right as soon as the
    nuisances of one of four sets are learned well; if so, swapping the learners of the *other*
    nuisances does not move it. Every combination of candidate learners is scored on held-out rows,
    and the one whose estimate moves least under such swaps is chosen.

    Parameters
    ----------
    candidates : list or mapping
        What to choose from, in one of three forms. A list of ready-made families among
        ``"linear"``, ``"quadratic"`` (penalised, with squares and products), ``"boosting"`` and
        ``"forest"``. A mapping from family name to family: one of those names, a pair (classifier,
        regressor), or a mapping from slot to learner. Or a mapping from slot to (mapping from name
        to learner), the slots being ``"instrument"``, ``"treatment"``, ``"effect"``, ``"outcome"``
        and ``"confounding"``; a slot left out gets the package's default learner. An effect
        candidate may also be ``"t"``, ``"const"`` or ``"linear"``, as in :class:`DebiasedATE`.
    criterion : {"mixed-minimax", "minimax"}, default "mixed-minimax"
        ``"mixed-minimax"``: for each set, the largest squared difference between any two
        combinations that agree with the candidate on the set, summed over the sets. ``"minimax"``:
        the largest squared difference from the candidate itself, over swaps and sets.
    inference : {"plain", "nested", "smooth"}, default "plain"
        ``"plain"``: standard error of the chosen combination, selection ignored. ``"nested"``:
        selection repeated inside every training part, valid as ordinary cross-fitting, ``n_folds``
        times the cost. ``"smooth"``: average of all combinations, weights
        ``exp(-smoothing * risk / SE**2)``.
    n_folds : int, default 5
        Folds, stratified on instrument and binary treatment; clusters stay together.
    inner_folds : int, default 2
        Folds of the inner cross-fit that makes residuals.
    outcome_given : {"family", "effect"}, default "family"
        Outcome and confounding candidates depend on an effect. ``"family"``: each is learned once,
        for the effect candidate of the same name (of the first name, if it has no namesake);
        ``"effect"``: once for every effect candidate, at that many times the cost.
    smoothing : float, default 1.0
        Rate of the weights of ``inference="smooth"``.
    one_sided : {"auto"} or bool, default "auto"
        Treatment without variation in one arm of the instrument (one-sided non-compliance):
        ``"auto"`` switches to that case with a warning, ``True`` without, ``False`` refuses it.
        There omega is zero and the sets are three.
    clip : float, default 0.01
        Bound on P(Z=1|X) from 0 and from 1, the same for all candidates.
    min_variance_shift : float, optional
        Least ``|D(X)|``; by default 0.02 for a binary treatment, else 5 % of the median.
    n_jobs : int, optional
        Workers; one task is one fold.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the folds and of every learner whose own ``random_state`` is None. Adding a
        candidate changes no other candidate's predictions.

    Attributes
    ----------
    estimates_ : InfluenceEstimates
        ``"ATE"`` and ``"direct effect"``.
    selected_ : dict of str to str
        Chosen candidate of every nuisance.
    risk_table_ : pandas.DataFrame
        Every combination, best first: names, the part of every set (``"part:..."``), ``risk``,
        ``estimate``, ``selected``, and ``weight`` for ``inference="smooth"``.
    family_estimates_ : pandas.DataFrame
        The estimate each family gives when it is used for every nuisance.
    nested_selection_ : pandas.DataFrame or None
        Chosen candidates of every fold for ``inference="nested"``.
    losses_ : pandas.DataFrame
        Out-of-sample loss of every candidate, columns ``nuisance, candidate, learner, measure,
        loss, selected``.
    selection_ : NuisanceSelection
        The choice on all rows, with risks as arrays.
    nuisances_ : IVNuisances
        Held-out nuisance values of the chosen combination; with ``inference="nested"`` of the
        combination chosen for the row's fold.
    scores_ : ndarray of shape (n_samples,)
        Score phi of every row; their mean is the average effect.
    n_obs_ : int
        Number of rows.

    See Also
    --------
    DebiasedATE : One learner a nuisance, repeated splits.
    select_nuisances : The rule alone, for any multiply robust functional.

    Notes
    -----
    The sets are the minimal vertex covers of the path confounding - instrument - effect -
    treatment - outcome, whose edges are the products of errors in the bias. Effect candidates
    learn from residuals of their own family.

    **Cost.** Learning is linear in the number of candidates. Scoring is :math:`O(K_\pi K_\lambda
    (K_\beta+K_\mu+K_\omega)n)`, not :math:`O(K^5 n)`, because the mean score is affine in the
    last three. More than a million combinations are refused.

    **Smoothing.** With ``inference="smooth"`` both terms and everything that rests on ``scores_``
    (:meth:`gate`, :meth:`cate`, :meth:`best_linear_projection`) average all combinations;
    diagnostics and :meth:`sensitivity` use the nuisances of the best one.

    References
    ----------
    .. [1] Sun, B., Cui, Y. and Tchetgen Tchetgen, E. (2022). Selective machine learning of the
       average treatment effect with an invalid instrumental variable. JMLR 23.
       arXiv:1907.11882.
    .. [2] Cui, Y. and Tchetgen Tchetgen, E. (2024). Selective machine learning of doubly robust
       functionals. Biometrika 111, 517-535. doi:10.1093/biomet/asad055.

    Examples
    --------
    >>> from causalfair.datasets import make_invalid_iv
    >>> from causalfair.iv import SelectiveATE
    >>> frame, truth = make_invalid_iv(4000, random_state=0)
    >>> est = SelectiveATE(["linear", "quadratic"], random_state=0).fit(
    ...     frame, "y", treatment="treatment", instrument="instrument", covariates=["x1", "x2"])
    >>> len(est.risk_table_), sorted(est.selected_)
    (32, ['confounding', 'effect', 'instrument', 'outcome', 'treatment'])
    """

    _title: ClassVar[str] = "Average effect with an invalid instrument (selected learners)"
    _estimand: ClassVar[str] = (
        "average effect of the treatment on the outcome, instrument held fixed; the instrument may "
        "act on the outcome directly."
    )
    _assumptions: ClassVar[tuple[str, ...]] = (
        "instrument as good as random given the covariates",
        "no additive interaction of treatment or instrument with unmeasured causes of the outcome",
        "no additive interaction of the instrument with unmeasured causes of the treatment",
        "the instrument shifts the variance of the treatment",
        "the candidates include learners that suit the nuisances of one set",
    )
    _citations: ClassVar[tuple[str, ...]] = ("sun2022selective", "cui2024selective")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "candidates": [list, tuple, Mapping],
        "criterion": [StrOptions({"mixed-minimax", "minimax"})],
        "inference": [StrOptions({"plain", "nested", "smooth"})],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "inner_folds": [Interval(Integral, 2, None, closed="left")],
        "outcome_given": [StrOptions({"family", "effect"})],
        "smoothing": [Interval(Real, 0, None, closed="left")],
        "one_sided": [StrOptions({"auto"}), "boolean"],
        "clip": [Interval(Real, 0, 0.5, closed="neither")],
        "min_variance_shift": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        candidates: Any,
        *,
        criterion: Literal["mixed-minimax", "minimax"] = "mixed-minimax",
        inference: Literal["plain", "nested", "smooth"] = "plain",
        n_folds: int = 5,
        inner_folds: int = 2,
        outcome_given: Literal["family", "effect"] = "family",
        smoothing: float = 1.0,
        one_sided: OneSided = "auto",
        clip: float = 0.01,
        min_variance_shift: float | None = None,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.candidates = candidates
        self.criterion = criterion
        self.inference = inference
        self.n_folds = n_folds
        self.inner_folds = inner_folds
        self.outcome_given = outcome_given
        self.smoothing = smoothing
        self.one_sided = one_sided
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
    ) -> SelectiveATE:
        """Learn every candidate out of fold, choose, and average the score.

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
            Non-negative weights, for the learners, the choice and the average.

        Returns
        -------
        SelectiveATE
            The fitted estimator.

        Raises
        ------
        DataError
            If the roles do not vary as needed, there are fewer than 50 rows or 20 in an arm, or a
            training part has too few rows in an arm.
        ParameterError
            If ``candidates`` has none of the forms above, or makes over a million combinations.
        TypeError
            If a learner lacks what its slot needs.
        """
        owner = "SelectiveATE.fit"
        data = resolve_roles(
            X,
            y,
            owner=owner,
            covariates=covariates,
            roles={"treatment": treatment, "instrument": instrument},
            cluster=cluster,
            sample_weight=sample_weight,
        )
        checked = check_instrument_data(data, one_sided=self.one_sided)
        if not data.covariate_names:
            raise DataError(
                f"{owner}: there are no covariates to learn from. Name some in covariates=, or use "
                "MultiplyRobustATE, which needs none."
            )
        bundle = IVData.of(data.covariates, checked)
        plan = self._plan(bundle)
        if "linear" in [c for c in plan.learners["effect"].values() if isinstance(c, str)]:
            data.matrix()  # numeric covariates only: say so before anything is learned
        root = root_seed(self.random_state)
        fitter = CrossFitter(
            self.n_folds,
            1,
            stratify=bundle.cells,
            groups=bundle.groups,
            n_jobs=self.n_jobs,
            random_state=root,
        )
        folds = fitter.folds(data.n)[:, 0]
        learned = fitter.map(partial(learn_fold, data=bundle, plan=plan), data.n)[0]
        candidates, losses = gather(learned, bundle, plan)
        self.selection_ = choose(bundle, plan, candidates, losses, folds, self.criterion)
        nuisances, phi, direct = self._scored(bundle, plan, candidates, fitter)
        self._rows = record_of(data, checked, (nuisances,), (phi,), checked.weight)
        self.estimates_ = effects_of(self._rows, direct)
        self.nuisances_, self.scores_ = nuisances, phi
        self._codings = checked.codings()
        self._describe(plan, losses, candidates, binary=checked.binary)
        self._warn_about_identification()
        self._finish(data, seed=root, folds=fold_hash(folds[:, None]))
        return self

    def _plan(self, data: IVData) -> LearningPlan:
        learners = resolve_candidates(
            self.candidates, binary=data.binary, n=data.n, p=data.X.shape[1]
        )
        if data.constant_arm is not None:
            learners["confounding"] = {"zero": None}
        check_combinations([len(names) for names in learners.values()], owner="SelectiveATE.fit")
        return LearningPlan(
            learners,
            inner_folds=self.inner_folds,
            clip=float(self.clip),
            floor=None if self.min_variance_shift is None else float(self.min_variance_shift),
            outcome_given=self.outcome_given,
        )

    def _scored(
        self, data: IVData, plan: LearningPlan, candidates: CandidateNuisances, fitter: CrossFitter
    ) -> tuple[IVNuisances, FloatArray, FloatArray | None]:
        """Nuisances, scores of the effect, and of the direct effect where they differ."""
        nuisances = combination_nuisances(candidates, full_index(self.selection_))
        self.nested_selection_, self._weights = None, None
        if self.inference == "nested":
            work = partial(
                nested_choice,
                data=data,
                plan=plan,
                criterion=self.criterion,
                n_folds=self.n_folds,
            )
            nested = fitter.map(work, data.n, desc="nested selection")[0]
            folds = fitter.folds(data.n)[:, 0]
            nuisances = by_fold(candidates, [full_index(choice) for choice in nested], folds)
            self.nested_selection_ = _nested_frame(nested)
        phi = influence_scores(data.z, data.a, data.y, nuisances)
        if self.inference != "smooth":
            return nuisances, phi, None
        w = np.ones(data.n) if data.weight is None else data.weight
        variance = np.mean((w * (phi - np.average(phi, weights=w))) ** 2) / data.n
        self._weights = softmin_weights(self.selection_.risk, float(self.smoothing / variance))
        weights = self._weights.reshape(candidates.counts)
        return nuisances, *smooth_scores(data, candidates, weights)

    # Results -------------------------------------------------------------------------------------

    def _describe(
        self,
        plan: LearningPlan,
        losses: Mapping[str, FloatArray],
        candidates: CandidateNuisances,
        *,
        binary: bool,
    ) -> None:
        """Risk table, losses and the estimate of every family."""
        chosen = self.selection_
        self.selected_ = chosen.chosen
        self.risk_table_ = chosen.to_frame(weights=self._weights)
        self.losses_ = _loss_frame(plan, losses, chosen, binary=binary)
        self.family_estimates_ = self._families(plan, candidates)

    def _families(self, plan: LearningPlan, candidates: CandidateNuisances) -> Any:
        """Estimate of every family that has a candidate in every slot."""
        import pandas as pd

        rows, slots = self._rows, self.selection_.slots
        lines = []
        for name in plan.names(slots[0]):
            if not all(name in plan.names(slot) for slot in slots):
                continue
            place = tuple(plan.names(slot).index(name) for slot in slots)
            nuisances = combination_nuisances(candidates, pad_index(place))
            phi = influence_scores(rows.z, rows.a, rows.y, nuisances)
            one = rows.estimates([score_ate(phi, rows.weight)])
            low, high = one.conf_int()[0]
            risk = float(self.selection_.risk[place])
            lines.append((name, one.estimate[0], one.std_error[0], low, high, risk))
        columns = ["family", "estimate", "std_error", "conf_low", "conf_high", "risk"]
        return pd.DataFrame(lines, columns=columns)

    def _summary_header(self) -> list[tuple[str, str]]:
        return [
            *super()._summary_header(),
            *self._codings,
            ("folds", f"{self.n_folds} (inner {self.inner_folds})"),
            ("criterion", self.criterion),
            ("combinations", f"{self.selection_.risk.size:,}"),
            ("std. error", f"influence function, {self.inference}"),
        ]

    def _summary_tables(self) -> list[Any]:
        best = self.losses_[self.losses_["selected"]]
        chosen = Table(
            ["nuisance", "selected", "learner", "out-of-fold loss", "of"],
            [
                [r.nuisance, r.candidate, r.learner, loss_text(r.measure, r.loss),
                 str(int((self.losses_["nuisance"] == r.nuisance).sum()))]
                for r in best.itertuples(index=False)
            ],
        )  # fmt: skip
        tables = [chosen]
        if len(self.family_estimates_):
            lines = [
                [r.family, number(r.estimate), number(r.std_error, 2), number(r.risk)]
                for r in self.family_estimates_.itertuples(index=False)
            ]
            lines.append(["(selected)", "", "", number(float(self.selection_.risk.min()))])
            tables.append(Table(["one family everywhere", "ATE", "std. error", "risk"], lines))
        return [*tables, *super()._summary_tables()]

    def _summary_notes(self) -> list[str]:
        notes = [*one_sided_note(self._rows), _NOTES[self.inference]]
        if self.selection_.tied > 1:
            notes.append(
                f"{self.selection_.tied} combinations share the smallest risk; the one with the "
                "smallest predictive losses was taken."
            )
        return notes


def _loss_frame(
    plan: LearningPlan, losses: Mapping[str, FloatArray], chosen: NuisanceSelection, *, binary: bool
) -> Any:
    import pandas as pd

    lines = []
    for slot in chosen.slots:
        log = needs_classifier(slot, binary=binary)
        for name, loss in zip(plan.names(slot), losses[slot], strict=True):
            learner = plan.learners[slot][name]
            shown = repr(learner) if isinstance(learner, str) else describe_learner(learner)
            value = float(loss if log else np.sqrt(loss))
            measure = "log-loss" if log else "RMSE"
            lines.append((slot, name, shown, measure, value, chosen.chosen[slot] == name))
    columns = ["nuisance", "candidate", "learner", "measure", "loss", "selected"]
    return pd.DataFrame(lines, columns=columns)


def _nested_frame(nested: Sequence[NuisanceSelection]) -> Any:
    import pandas as pd

    return pd.DataFrame([{"fold": s, **choice.chosen} for s, choice in enumerate(nested)])
