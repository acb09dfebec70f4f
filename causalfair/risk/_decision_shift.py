"""Risk of the untested from the odds identity: no law of the unobservable, no sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import Interval, fit_context
from causalfair._core.crossfit import CrossFitter, NuisanceSpec
from causalfair._core.learners import default_classifier, predict_learner
from causalfair._core.logging import warn
from causalfair._core.random import root_seed
from causalfair._core.typing import BoolArray, FloatArray
from causalfair._core.validation import check_numeric
from causalfair.exceptions import (
    DataError,
    IdentificationError,
    OverlapWarning,
    ParameterError,
    WeakIdentificationWarning,
)
from causalfair.inference import CovarianceEstimates, InfluenceEstimates
from causalfair.inference.estimates import Estimates
from causalfair.reporting import Table
from causalfair.risk._data import (
    NEGATIVE,
    POSITIVE,
    UNTESTED,
    SelectiveRows,
    level_codes,
    read_rows,
)
from causalfair.risk._selection_estimator import check_prevalence

__all__ = ["DecisionShiftEstimator"]

ALL = "all"


class DecisionShiftEstimator(CausalEstimator):
    r"""Risk of everybody from a known prevalence, whatever the decision maker saw.

    If outcome and decision are logistic in the same risk score, the decision with weight one, then
    for *any* law of the unobservable

    .. math:: P(T=1,Y=0|x) = e^{\delta(x)}\,P(T=0,Y=1|x),

    where :math:`\delta` is how much more the log-odds of testing are than those of the outcome. A
    prevalence for everybody, or for each group, pins :math:`\delta` in closed form, and with it
    the risk of the untested. Seconds at any size; no sampling.

    Parameters
    ----------
    prevalence : float or mapping of str to float, optional
        Known share of positives among everybody, or of each group. Needs ``prevalence_sd``.
    prevalence_sd : float or mapping of str to float, optional
        How well it is known. There is no default.
    shift : float or mapping of str to float, optional
        An assumed shift, in place of a prevalence: without either it is not identified.
    tested_learner : classifier, optional
        For P(T=1|x), with ``predict_proba``.
    outcome_learner : classifier, optional
        For P(Y=1|T=1,x), with ``predict_proba``.
    n_folds : int, default 5
        Folds of the cross-fit of the two learners.
    n_jobs : int, optional
        Workers.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of folds and learners. Group-level estimates do not depend on it.

    Attributes
    ----------
    estimates_ : Estimates
        Of every group: ``"shift"``, ``"prevalence"``, ``"risk of the untested"`` and ``"positives
        missed"`` (share of positives who were not tested); with groups as ``"shift:<group>"``, ...
    risk_, risk_untested_ : ndarray of shape (n_samples,)
        Out-of-fold risk of every row, and its risk given that it was not tested.
    infeasible_ : float
        Share of rows in which the untested risk had to be cut at one: where it is large, the
        assumed shift cannot be constant.

    See Also
    --------
    DomainConstrainedRisk : The parametric model, which this one checks.
    selection_bounds : What holds without any model.

    Notes
    -----
    With q = mean(T Y) and m = mean(T (1-Y)) of a group, :math:`\hat\delta=\log m-\log(p-q)`. Its
    variance is that of the influence function plus :math:`s_p^2/(p-q)^2`. Averages over a group
    need no model of x: the cross-fitted learners serve the risks of single rows, and a
    cross-fitted average corrected by its influence function is the closed form itself.

    References
    ----------
    .. [1] Rasch, G. (1960). Probabilistic Models for Some Intelligence and Attainment Tests.
       Danish Institute for Educational Research.
    .. [2] Balachandar, S., Garg, N. and Pierson, E. (2024). Domain constraints improve risk
       prediction when outcome data is missing. ICLR. arXiv:2312.03878

    Examples
    --------
    Half were not tested, three in ten tested negative and two in ten positive; a quarter and a
    hundredth are known to be positive.

    >>> import numpy as np
    >>> from causalfair.risk import DecisionShiftEstimator
    >>> tested = np.repeat([0, 1, 1], [500, 300, 200])
    >>> y = np.repeat([np.nan, 0.0, 1.0], [500, 300, 200])
    >>> est = DecisionShiftEstimator(prevalence=0.26, prevalence_sd=0.01).fit(
    ...     np.empty((1000, 0)), y, tested=tested)
    >>> float(est.estimates_["risk of the untested"].estimate[0].round(12))
    0.12
    """

    _title: ClassVar[str] = "Risk from the odds identity (decision shift)"
    _estimand: ClassVar[str] = (
        "how testing departs from risk on the log-odds scale, and the risk of those not tested."
    )
    _assumptions: ClassVar[tuple[str, ...]] = (
        "outcome and decision are logistic in one risk score, which enters the decision with "
        "weight one",
        "the shift is constant within a group",
        "the prevalence, with its standard deviation, is that of these rows' population",
    )
    _citations: ClassVar[tuple[str, ...]] = ("rasch1960probabilistic", "balachandar2024domain")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "prevalence": [Real, Mapping, None],
        "prevalence_sd": [Real, Mapping, None],
        "shift": [Real, Mapping, None],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        prevalence: float | Mapping[str, float] | None = None,
        prevalence_sd: float | Mapping[str, float] | None = None,
        *,
        shift: float | Mapping[str, float] | None = None,
        tested_learner: Any = None,
        outcome_learner: Any = None,
        n_folds: int = 5,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.prevalence = prevalence
        self.prevalence_sd = prevalence_sd
        self.shift = shift
        self.tested_learner = tested_learner
        self.outcome_learner = outcome_learner
        self.n_folds = n_folds
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        tested: Any,
        covariates: Any = None,
        group: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> DecisionShiftEstimator:
        """Solve for the shift and learn the risks.

        Parameters
        ----------
        X : frame or array of shape (n_samples, p)
            Table of all columns, or the covariates; with no covariates only group-level
            quantities are estimated.
        y : array of shape (n_samples,) or str
            Outcome, 0 or 1; ignored, and may be NaN, where ``tested`` is 0.
        tested : array of shape (n_samples,) or str
            Who was tested, binary.
        covariates : "all", list of str or formula, optional
            What risk depends on; required when a role is a column name.
        group : array of shape (n_samples,) or str, optional
            Groups with a prevalence each.
        cluster : array of shape (n_samples,) or (n_samples, c), or str, optional
            Cluster labels.
        sample_weight : array of shape (n_samples,) or str, optional
            Non-negative weights.

        Returns
        -------
        DecisionShiftEstimator
            The fitted estimator.

        Raises
        ------
        DataError
            Unusable roles.
        IdentificationError
            Nobody or everybody was tested, or one outcome only.
        ParameterError
            Neither a prevalence nor a shift, or an impossible prevalence.
        """
        owner = "DecisionShiftEstimator.fit"
        self._check_knowledge(owner)
        rows = read_rows(
            X, y, tested=tested, owner=owner, covariates=covariates, group=group,
            cluster=cluster, sample_weight=sample_weight,
        )  # fmt: skip
        groups = rows.group_levels or (ALL,)
        codes = np.zeros(rows.n, dtype=np.intp) if rows.group is None else rows.group
        known = None if self.prevalence is None else _per_group(self.prevalence, groups, owner)
        shares = group_shares(rows, codes, groups)
        self.groups_, self._shares = groups, shares
        if known is not None:
            self._check_possible(known, shares, owner)
        self.estimates_ = self._estimates(shares, known, groups, owner)
        self.shift_ = self.estimates_[_terms("shift", groups)].estimate
        root = root_seed(self.random_state)
        self._learned: dict[str, list[Any]] = {}
        self._loss_rows: list[list[str]] = []
        folds = None
        if rows.data.covariate_names:
            folds = self._learn(rows, codes, root, owner)
        self._finish(rows.data, seed=root, folds=folds)
        return self

    def _check_knowledge(self, owner: str) -> None:
        check_prevalence(self.prevalence, self.prevalence_sd, owner)
        if (self.prevalence is None) == (self.shift is None):
            raise ParameterError(
                f"{owner} needs a prevalence (with prevalence_sd) or an assumed shift, and not "
                "both: from the data alone the shift is not identified. sensitivity() and "
                "selection_bounds show what holds for a range of shifts."
            )

    def _check_possible(self, known: FloatArray, shares: Estimates, owner: str) -> None:
        g = len(self.groups_)
        sd = _per_group(self.prevalence_sd, self.groups_, owner)
        if (sd <= 0).any():
            raise ParameterError(f"{owner}: prevalence_sd={self.prevalence_sd!r} must be positive.")
        q, m = shares.estimate[:g], shares.estimate[g : 2 * g]
        for j, name in enumerate(self.groups_):
            low, high = q[j], 1.0 - m[j]
            if not low < known[j] < high:
                raise ParameterError(
                    f"{owner}: prevalence={known[j]:g} of group {name!r} is impossible: the "
                    f"outcomes seen force it into ({low:.4g}, {high:.4g})."
                )
            if known[j] - low < 2 * sd[j]:
                warn(
                    f"{owner}: the prevalence of group {name!r} ({known[j]:.4g} +/- {sd[j]:.2g}) "
                    f"is hardly above the positives already found ({low:.4g}), so the shift is "
                    "hardly determined; read the interval of the risk of the untested.",
                    WeakIdentificationWarning,
                )

    def _estimates(
        self, shares: Estimates, known: FloatArray | None, groups: tuple[str, ...], owner: str
    ) -> Estimates:
        g = len(groups)
        names = [
            term for kind in ("shift", "prevalence", "risk of the untested", "positives missed")
            for term in _terms(kind, groups)
        ]  # fmt: skip
        if known is None:
            shift = _per_group(self.shift, groups, owner)

            def assumed(theta: FloatArray) -> FloatArray:
                q, m = theta[:g], theta[g : 2 * g]
                missed = np.exp(-shift) * m
                risk = q + missed
                return np.concatenate([shift, risk, missed / (1.0 - q - m), missed / risk])

            return shares.transform(assumed, names)
        sd = _per_group(self.prevalence_sd, groups, owner)
        outside = CovarianceEstimates(known, np.diag(sd**2), _terms("known", groups))

        def solved(theta: FloatArray) -> FloatArray:
            q, m, p = theta[:g], theta[g : 2 * g], theta[2 * g :]
            missed = p - q
            with np.errstate(invalid="ignore", divide="ignore"):
                shift = np.log(m) - np.log(missed)
            return np.concatenate([shift, p, missed / (1.0 - q - m), missed / p])

        def slopes(theta: FloatArray) -> FloatArray:
            return _closed_form_jacobian(theta[:g], theta[g : 2 * g], theta[2 * g :])

        return shares.combine(outside, independent=True).transform(solved, names, jac=slopes)

    # Risks of single rows -------------------------------------------------------------------------

    def _learn(
        self, rows: SelectiveRows, codes: Any, root: np.random.SeedSequence, owner: str
    ) -> str:
        n, features = rows.n, rows.data.covariates
        chosen = np.isin(rows.code, (NEGATIVE, POSITIVE))
        decided: BoolArray = chosen | (rows.code == UNTESTED)
        default = default_classifier(n, len(rows.data.covariate_names))
        weight = None if rows.data.sample_weight is None and rows.n == rows.n_rows else rows.weight
        specs = [
            NuisanceSpec("tested", self.tested_learner or default, rows.tested, features,
                         decided, "predict_proba", weight),
            NuisanceSpec("outcome if tested", self.outcome_learner or default,
                         np.where(chosen, np.nan_to_num(rows.y), 0.0), features, chosen,
                         "predict_proba", weight),
        ]  # fmt: skip
        fitter = CrossFitter(
            self.n_folds,
            stratify=rows.code,
            groups=rows.data.cluster,
            n_jobs=self.n_jobs,
            random_state=root,
            keep_learners=True,
            clip=1e-3,
        )
        table = fitter.run(specs, n, owner=owner)
        self._learned = {spec.name: table.fitted[spec.name, ""][0] for spec in specs}
        self._loss_rows = table.rows()
        tested, positive = table["tested"][:, 0], table["outcome if tested"][:, 0]
        self.risk_, self.risk_untested_, cut = apply_shift(tested, positive, self.shift_[codes])
        self.infeasible_ = float(cut.mean())
        if self.infeasible_ > 0.05:
            warn(
                f"{owner}: in {self.infeasible_:.0%} of rows the shift makes more untested "
                "positives than there are untested; the risk was cut at one. A constant shift does "
                "not fit: use groups, or the parametric model.",
                OverlapWarning,
            )
        self._codes, self._rows_seen = codes, _Seen(rows.code, rows.y, rows.weight)
        return table.fold_hash()

    def _learned_probability(self, name: str, frame: Any) -> FloatArray:
        models = self._learned[name]
        values = np.mean([predict_learner(m, frame, "predict_proba") for m in models], axis=0)
        return np.asarray(np.clip(values, 1e-3, 1 - 1e-3))

    def predict_proba(self, X: Any, *, given: str | None = None, group: Any = None) -> FloatArray:
        """Risk of new rows, from the averaged learners of all folds.

        Parameters
        ----------
        X : frame or array of shape (m, p)
            New rows with the covariates of ``fit``.
        given : {"tested", "untested"}, optional
            Risk given the decision; of everybody when None.
        group : array of shape (m,), optional
            Group of each row; required when there are groups.

        Returns
        -------
        numpy.ndarray of shape (m,)
            Probabilities.
        """
        owner = "DecisionShiftEstimator.predict_proba"
        check_is_fitted(self)
        if not self._learned:
            raise ParameterError(f"{owner}: fit had no covariates, so there is no risk to predict.")
        if given not in (None, "tested", "untested"):
            raise ParameterError(f"{owner} got given={given!r}; use None, 'tested' or 'untested'.")
        frame = self._encoder.transform(X, owner=owner)
        if (group is None) != (self.groups_ == (ALL,)):
            raise ParameterError(
                f"{owner}: group is {'missing' if group is None else 'given'}; "
                f"groups of fit: {', '.join(self.groups_)}."
            )
        codes = np.zeros(len(frame), dtype=np.intp)
        if group is not None:
            codes = level_codes(group, self.groups_, "group", owner)
        positive = self._learned_probability("outcome if tested", frame)
        if given == "tested":
            return positive
        tested = self._learned_probability("tested", frame)
        risk, untested, _ = apply_shift(tested, positive, self.shift_[codes])
        return risk if given is None else untested

    # Sensitivity and checks -----------------------------------------------------------------------

    def sensitivity(self, shifts: Sequence[float] | None = None, level: float = 0.95) -> Any:
        """Prevalence and risk of the untested for a range of shifts.

        Parameters
        ----------
        shifts : sequence of float, optional
            Shifts; 25 values around those estimated when None.
        level : float, default 0.95
            Level of the intervals, which count sampling error only.

        Returns
        -------
        pandas.DataFrame
            One row a group and shift: ``prevalence`` with ``conf_low`` and ``conf_high``,
            ``risk_untested``, and ``possible``: whether it is at most one.
        """
        check_is_fitted(self)
        import pandas as pd

        g = len(self.groups_)
        grid = np.asarray(
            np.linspace(self.shift_.min() - 3, self.shift_.max() + 3, 25)
            if shifts is None
            else shifts,
            dtype=float,
        )
        parts = []
        for shift in grid:
            factor = float(np.exp(-shift))
            found = self._shares.transform(
                partial(_shifted_prevalence, factor=factor, g=g), _terms("prevalence", self.groups_)
            )
            interval = found.conf_int(level)
            q, m = self._shares.estimate[:g], self._shares.estimate[g : 2 * g]
            untested = factor * m / (1.0 - q - m)
            parts.append(
                pd.DataFrame(
                    {
                        "group": self.groups_, "shift": shift, "prevalence": found.estimate,
                        "conf_low": interval[:, 0], "conf_high": interval[:, 1],
                        "risk_untested": untested, "possible": untested <= 1.0,
                    }
                )
            )  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def compare(self, risk_untested: Any, *, n_bins: int = 5) -> Table:
        """Check a parametric model: its untested risks against those of the odds identity.

        Parameters
        ----------
        risk_untested : array of shape (n_samples,)
            The model's risk given not tested, for the rows of ``fit`` in their order.
        n_bins : int, default 5
            Bins of equal size by the model's risk.

        Returns
        -------
        causalfair.reporting.Table
            One row a bin: mean untested risk by the model and by the identity, and the
            standardised gap; beyond 3 the two disagree. The gap counts the sampling error of the
            tested negatives in the bin, at the estimated shift.
        """
        owner = "DecisionShiftEstimator.compare"
        check_is_fitted(self)
        if not self._learned:
            raise ParameterError(f"{owner} needs covariates in fit.")
        model = check_numeric(risk_untested, "risk_untested", owner=owner)
        seen = self._rows_seen
        if len(model) != len(seen.code):
            raise DataError(f"{owner}: {len(model)} risks for {len(seen.code)} rows of fit.")
        edges = np.quantile(model, np.linspace(0, 1, n_bins + 1)[1:-1])
        bins = np.searchsorted(edges, model, side="right")
        # A tested negative stands for exp(-shift) untested positives.
        stands = np.where(seen.code == NEGATIVE, np.exp(-self.shift_[self._codes]), 0.0)
        untested = (seen.code == UNTESTED).astype(float)
        rows = []
        for b in range(n_bins):
            w = seen.weight * (bins == b)
            below = float(w @ untested)
            if below == 0:
                continue
            identity = float(w @ stands) / below
            expected = float(w @ (untested * model)) / below
            residual = w * (stands - untested * expected)
            spread = float(np.sqrt(np.sum((residual - residual.sum() / len(w)) ** 2))) / below
            z = (identity - expected) / spread if spread > 0 else np.nan
            rows.append([f"{b + 1}", f"{expected:.3f}", f"{identity:.3f}", f"{z:.1f}"])
        return Table(
            ["bin", "model", "odds identity", "z"], rows, "Risk of the untested", align="lrrr"
        )

    def _summary_header(self) -> list[tuple[str, str]]:
        source = "assumed shift" if self.prevalence is None else "known prevalence"
        pairs = [*super()._summary_header(), ("identified by", source)]
        return pairs if not self._learned else [*pairs, ("folds", str(self.n_folds))]

    def _summary_tables(self) -> list[Any]:
        if not self._loss_rows:
            return []
        return [Table(["nuisance", "learner", "out-of-fold loss"], self._loss_rows)]

    def _summary_notes(self) -> list[str]:
        if not self._learned:
            return []
        return [f"Untested risk cut at one in {self.infeasible_:.1%} of rows."]


class _Seen:
    """What :meth:`DecisionShiftEstimator.compare` needs of the rows."""

    def __init__(self, code: Any, y: FloatArray, weight: FloatArray) -> None:
        self.code, self.y, self.weight = code, y, weight


def _terms(kind: str, groups: tuple[str, ...]) -> list[str]:
    return [kind] if groups == (ALL,) else [f"{kind}:{name}" for name in groups]


def _per_group(value: Any, groups: tuple[str, ...], owner: str) -> FloatArray:
    """One value a group.

    Raises
    ------
    ParameterError
        A mapping that names other groups than there are.
    """
    if not isinstance(value, Mapping):
        return np.full(len(groups), float(value))
    given = {str(key): float(v) for key, v in value.items()}
    if set(given) != set(groups):
        raise ParameterError(
            f"{owner}: values are given for {', '.join(sorted(given))}, but the groups are "
            f"{', '.join(groups)}."
        )
    return np.array([given[name] for name in groups])


def group_shares(rows: SelectiveRows, codes: Any, groups: tuple[str, ...]) -> Estimates:
    """mean(T Y) and mean(T (1 - Y)) of every group, with their influence.

    Raises
    ------
    IdentificationError
        A group in which nobody tested negative, or all were tested.
    """
    used = np.isin(rows.code, (UNTESTED, NEGATIVE, POSITIVE))
    share = rows.weight / rows.weight.sum()
    columns, estimate = [], []
    for code, kind in ((POSITIVE, "positives"), (NEGATIVE, "negatives")):
        for g, name in enumerate(groups):
            member = used & (codes == g)
            hit = (rows.code == code) & member
            size = float(share @ member)
            mean = float(share @ hit) / size if size > 0 else 0.0
            if (code == NEGATIVE and not 0 < mean < 1) or size == 0:
                raise IdentificationError(
                    f"DecisionShiftEstimator.fit: group {name!r} has no tested {kind}; its shift "
                    "is not determined. Merge it with another group."
                )
            estimate.append(mean)
            columns.append(member * (hit - mean) / size)
    names = [*_terms("q", groups), *_terms("m", groups)]
    psi = np.column_stack(columns)
    if rows.n_rows != rows.n:  # counted rows: each counts as often as it occurs
        vcov = (psi * rows.weight[:, None]).T @ psi / rows.n_rows**2
        return CovarianceEstimates(np.array(estimate), vcov, names)
    return InfluenceEstimates(
        np.array(estimate), psi, names, cluster=rows.data.cluster,
        sample_weight=rows.data.sample_weight, sample_id=rows.data.sample_id(),
    )  # fmt: skip


def _shifted_prevalence(theta: FloatArray, *, factor: float, g: int) -> FloatArray:
    return np.asarray(theta[:g] + factor * theta[g : 2 * g])


def _closed_form_jacobian(q: FloatArray, m: FloatArray, p: FloatArray) -> FloatArray:
    """Derivatives of (shift, p, untested risk, missed share) in (q, m, p), group by group."""
    g, rest, gap = len(q), 1.0 - q - m, p - q
    diagonal, zero = np.eye(g), np.zeros((g, g))
    return np.vstack(
        [
            np.hstack([diagonal / gap, diagonal / m, -diagonal / gap]),
            np.hstack([zero, zero, diagonal]),
            np.hstack(
                [
                    diagonal * (gap - rest) / rest**2,
                    diagonal * gap / rest**2,
                    diagonal / rest,
                ]
            ),
            np.hstack([-diagonal / p, zero, diagonal * q / p**2]),
        ]
    )


def apply_shift(
    tested: FloatArray, positive: FloatArray, shift: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Risk of all, risk of the untested, and where the latter had to be cut at one."""
    missed = np.exp(-shift) * tested * (1.0 - positive)
    cut: BoolArray = missed > 1.0 - tested
    missed = np.minimum(missed, 1.0 - tested)
    return tested * positive + missed, missed / (1.0 - tested), cut
