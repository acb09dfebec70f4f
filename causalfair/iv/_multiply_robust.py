"""The parametric multiply robust estimator."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np

from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.parallel import inner_threads
from causalfair._core.roles import RoleData, resolve_roles
from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError
from causalfair.inference import Estimates, InfluenceEstimates
from causalfair.iv._data import InstrumentData, OneSided, check_instrument_data
from causalfair.iv._formulas import build_bases, check_formulas
from causalfair.iv._models import Design
from causalfair.iv._parametric import ParametricFit, fit_multiply_robust
from causalfair.iv._results import (
    InvalidInstrumentBase,
    IVRecord,
    balance_of,
    baseline_comparators,
    design_matrix,
    separate_estimates,
)
from causalfair.iv._scores import Scores

__all__ = ["MultiplyRobustATE"]


class MultiplyRobustATE(InvalidInstrumentBase):
    r"""Average treatment effect with an instrument that may act on the outcome directly.

    Use it when treatment and outcome share unmeasured causes, a binary instrument shifts the
    treatment, but the instrument may also reach the outcome by another road, so that two-stage
    least squares would be biased. Identification comes from the instrument changing the
    *conditional variance* of the treatment. Five parametric models are fitted; the estimate is
    right when any one of four subsets of them is (see Notes). With many covariates or unknown
    functional forms use :class:`DebiasedATE` or :class:`SelectiveATE`.

    Parameters
    ----------
    formulas : mapping of str to str, optional
        Formulas of the nuisance models, keys ``"instrument"`` (P(Z=1|X), logistic),
        ``"treatment"`` (E[A|Z,X], logistic for a binary treatment, else linear), ``"effect"``
        (beta(X)), ``"outcome"`` (E[Y - beta(X) A|Z,X]), ``"confounding"`` (omega(X)) and, for a
        continuous treatment, ``"variance"`` (Var(A|Z,X)). The token ``instrument`` in a formula is
        the instrument. A model without a formula gets main effects; ``treatment`` and ``outcome``
        get the instrument and its interactions too, ``variance`` the instrument alone.
    one_sided : {"auto"} or bool, default "auto"
        Treatment without variation in one arm of the instrument (one-sided non-compliance):
        ``"auto"`` switches to that case with a warning, ``True`` without, ``False`` refuses it.
    trim : {"clip", "drop"}, default "clip"
        What happens to rows whose probability is beyond ``clip`` or whose variance shift is below
        ``min_variance_shift``: raised to the bound, or left out of the average. Leaving out changes
        the target population, and the summary says so.
    clip : float, default 0.01
        Bound on P(Z=1|X) from 0 and from 1.
    min_variance_shift : float, optional
        Least ``|D(X)|``; by default 0.02 for a binary treatment (0.25 is the most there can be),
        else 5 % of the median.
    effect_link : {"identity", "tanh"}, default "identity"
        ``"tanh"`` keeps the effect given covariates between -1 and 1, for a binary treatment and an
        outcome between 0 and 1.
    strict : bool, default False
        Refuse redundant terms in a model instead of dropping them with a warning.

    Attributes
    ----------
    estimates_ : InfluenceEstimates
        ``"ATE"`` and ``"direct effect"`` with sandwich influence values.
    nuisances_ : IVNuisances
        Fitted nuisance values of every row, arrays of shape (n_samples,).
    scores_ : ndarray of shape (n_samples,)
        Score phi of every row; their mean is the average effect.
    n_obs_ : int
        Number of rows.

    See Also
    --------
    DebiasedATE : The same estimand with machine learning and cross-fitting.
    SelectiveATE : Chooses among candidate learners.
    MRGenius : Many, multi-level or continuous instruments; constant effect.

    Notes
    -----
    **Estimand.** :math:`E[Y(1,z)-Y(0,z)]`, the effect of the treatment with the instrument held
    fixed. With :math:`D(X)=Var(A|Z=1,X)-Var(A|Z=0,X)` the score is

    .. math:: \varphi = \frac{2Z-1}{f(Z|X) D(X)}
        \left[(A-\lambda(Z,X))(Y-\beta(X)A-\mu(Z,X))-\omega(X)\right]+\beta(X).

    **Assumptions.** (1) The instrument is as good as random given X. (2) In the outcome, no
    additive interaction of the treatment, or of the instrument, with unmeasured causes. (3) In the
    treatment, no additive interaction of the instrument with unmeasured causes. (4) The instrument
    shifts the variance of the treatment given X: for a binary treatment it fails when
    :math:`\lambda_1=\lambda_0` but also when :math:`\lambda_0+\lambda_1=1`. (5) Overlap.

    **Robustness.** Consistent if the models of one of these sets are right: {instrument,
    treatment}, {treatment, effect, confounding}, {effect, confounding, outcome}, {instrument,
    effect, outcome}. The sandwich standard error is right in each; it accounts for all estimated
    models through an analytic Jacobian. :meth:`gate`, :meth:`best_linear_projection`,
    :meth:`cate`, :meth:`robust_set` and the second of :meth:`exclusion_tests` use influence values
    at fixed nuisances, which are right when all models are.

    **Cost.** Linear in rows: :math:`O(n k^2)` with k coefficients.

    References
    ----------
    .. [1] Sun, B., Cui, Y. and Tchetgen Tchetgen, E. (2022). Selective machine learning of the
       average treatment effect with an invalid instrumental variable. JMLR 23, sections 2-3.
       arXiv:1907.11882.

    Examples
    --------
    >>> from causalfair.datasets import make_invalid_iv
    >>> from causalfair.iv import MultiplyRobustATE
    >>> frame, truth = make_invalid_iv(20_000, random_state=1)
    >>> est = MultiplyRobustATE().fit(
    ...     frame, "y", treatment="treatment", instrument="instrument", covariates=["x1", "x2"])
    >>> low, high = est.conf_int()[0]
    >>> bool(low < truth["ate"] < high)
    True
    """

    _title: ClassVar[str] = "Average effect with an invalid instrument (multiply robust)"
    _estimand: ClassVar[str] = (
        "average effect of the treatment on the outcome, instrument held fixed; the instrument may "
        "act on the outcome directly."
    )
    _assumptions: ClassVar[tuple[str, ...]] = (
        "instrument as good as random given the covariates",
        "no additive interaction of treatment or instrument with unmeasured causes of the outcome",
        "no additive interaction of the instrument with unmeasured causes of the treatment",
        "the instrument shifts the variance of the treatment",
    )
    _citations: ClassVar[tuple[str, ...]] = ("sun2022selective",)
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "formulas": [Mapping, None],
        "one_sided": [StrOptions({"auto"}), "boolean"],
        "trim": [StrOptions({"clip", "drop"})],
        "clip": [Interval(Real, 0, 0.5, closed="left")],
        "min_variance_shift": [Interval(Real, 0, None, closed="left"), None],
        "effect_link": [StrOptions({"identity", "tanh"})],
        "strict": ["boolean"],
    }

    def __init__(
        self,
        formulas: Mapping[str, str] | None = None,
        *,
        one_sided: OneSided = "auto",
        trim: Literal["clip", "drop"] = "clip",
        clip: float = 0.01,
        min_variance_shift: float | None = None,
        effect_link: Literal["identity", "tanh"] = "identity",
        strict: bool = False,
    ) -> None:
        self.formulas = formulas
        self.one_sided = one_sided
        self.trim = trim
        self.clip = clip
        self.min_variance_shift = min_variance_shift
        self.effect_link = effect_link
        self.strict = strict

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
    ) -> MultiplyRobustATE:
        """Fit all models and the effect.

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
            What to adjust for; required when a role is a column name, ``[]`` for none.
        cluster : array of shape (n_samples,) or (n_samples, c), or str, optional
            Cluster labels for the standard errors.
        sample_weight : array of shape (n_samples,) or str, optional
            Non-negative weights, applied to every estimating equation.

        Returns
        -------
        MultiplyRobustATE
            The fitted estimator.

        Raises
        ------
        DataError
            If the roles do not vary as needed, or there are fewer than 50 rows or 20 in an arm.
        IdentificationError
            If the equations for the effect are singular.
        ConvergenceError
            If a logistic model is separated.
        """
        owner = "MultiplyRobustATE.fit"
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
        with inner_threads():  # one thread: small products are faster, and the bits are the same
            fit = self._fit_models(data, checked)
            self._store(data, checked, fit)
            self._warn_about_identification()
        self._finish(data)
        return self

    def _fit_models(self, data: RoleData, checked: InstrumentData) -> ParametricFit:
        """Build the bases and solve all equations."""
        bases = build_bases(
            data.covariates,
            checked.z,
            check_formulas(self.formulas, data.owner, binary=checked.binary),
            binary=checked.binary,
            constant_arm=checked.constant_arm,
            owner=data.owner,
            strict=self.strict,
        )
        design = Design(
            checked.z,
            checked.a,
            checked.y,
            np.ones(data.n) if checked.weight is None else checked.weight,
            bases,
            checked.binary,
            checked.constant_arm,
            checked.constant_value,
            self._checked_link(checked),
        )
        floor = None if self.min_variance_shift is None else float(self.min_variance_shift)
        return fit_multiply_robust(
            design, clip=float(self.clip), floor=floor, drop=self.trim == "drop"
        )

    def _checked_link(self, checked: InstrumentData) -> str:
        if self.effect_link == "tanh":
            low, high = float(checked.y.min()), float(checked.y.max())
            if not checked.binary or low < 0.0 or high > 1.0:
                raise ParameterError(
                    "MultiplyRobustATE.fit: effect_link='tanh' needs a binary treatment and an "
                    f"outcome between 0 and 1; the outcome ranges from {low:.4g} to {high:.4g} and "
                    f"the treatment is {'binary' if checked.binary else 'continuous'}. Use "
                    "effect_link='identity'."
                )
        return self.effect_link

    def _store(self, data: RoleData, checked: InstrumentData, fit: ParametricFit) -> None:
        """Keep estimates, nuisance values and the comparators; no covariates."""

        def estimates(part: Scores) -> InfluenceEstimates:
            return InfluenceEstimates(
                part.estimate,
                part.influence,
                part.names,
                cluster=checked.cluster,
                sample_weight=checked.weight,
                sample_id=data.sample_id(),
            )

        X, names = design_matrix(data)
        comparators: list[tuple[str, str, Estimates]] = baseline_comparators(
            checked, X, data.sample_id()
        )
        covers = separate_estimates(fit.covers, checked.cluster, checked.weight, data.sample_id())
        for name, alone in covers.items():
            cover, models = name.split(": ")
            solved = "" if np.isfinite(alone.estimate[0]) else " (no solution)"
            comparators.append((f"{cover} only", f"models of {models}{solved}", alone))
        extra = estimates(fit.extra)
        self.nuisances_, self.scores_ = fit.nuisances, fit.phi
        self.estimates_ = estimates(fit.effects)
        self._n_dropped = 0 if fit.keep is None else int((~fit.keep).sum())
        self._codings = checked.codings()
        self._rows = IVRecord(
            z=checked.z,
            a=checked.a,
            y=checked.y,
            nuisances=(fit.nuisances,),
            phi=(fit.phi,),
            weight=_target_weight(checked, fit),
            cluster=checked.cluster,
            sample_id=data.sample_id(),
            constant_arm=checked.constant_arm,
            balance=balance_of(checked, X, names, fit.nuisances.pi),
            comparators=tuple(comparators),
            targets={name: extra[name] for name in extra.names},
        )

    def _summary_header(self) -> list[tuple[str, str]]:
        pairs = super()._summary_header()
        pairs += self._codings
        pairs.append(("std. error", "sandwich, all models"))
        return pairs

    def _summary_notes(self) -> list[str]:
        notes = []
        if self._rows.constant_arm is not None:
            notes.append(
                "One-sided non-compliance: the answer rests on no unmeasured confounding in the "
                "arm with a choice."
            )
        if self._n_dropped:
            notes.append(
                f"Target population changed: {self._n_dropped:,} rows were left out by trim='drop'."
            )
        return notes


def _target_weight(checked: InstrumentData, fit: ParametricFit) -> FloatArray | None:
    """Weights of the target population: none on rows left out."""
    if fit.keep is None:
        return checked.weight
    base = np.ones(checked.n) if checked.weight is None else checked.weight
    weight = base * fit.keep
    return np.asarray(weight * (checked.n / weight.sum()))
