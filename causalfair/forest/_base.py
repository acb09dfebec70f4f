"""What every effect model can say once it is fitted."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.logging import warn
from causalfair._core.roles import RoleData, resolve_roles
from causalfair._core.validation import check_binary, check_numeric, missing_mask
from causalfair.exceptions import (
    DataError,
    IdentificationError,
    OverlapWarning,
    ParameterError,
    RoleError,
)
from causalfair.forest._calibration import CalibrationTest, best_linear_projection, calibration_test
from causalfair.forest._groups import GroupEffects, group_average_effects
from causalfair.forest._origin import ModelArray
from causalfair.forest._sample import EffectSample, average_effect

__all__ = ["EffectModel", "Problem"]

FloatArray = NDArray[np.float64]
POOR_OVERLAP = 0.05


class Problem:
    """Roles of an effect model, resolved and checked.

    Attributes
    ----------
    data : RoleData
        The rows.
    y, w : ndarray of shape (n,)
        Outcome and treatment (coded 0/1 where it is binary).
    levels : tuple or None
        Original values of a binary treatment.
    given : dict
        Nuisances the user brought: "outcome" and "propensity", each (n,).
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        *,
        owner: str,
        treatment: Any,
        nuisances: Any,
        binary_only: bool,
        allow_nan: bool,
        **roles: Any,
    ) -> None:
        if treatment is None:
            raise RoleError(f"{owner} got treatment=None; give an array or the name of a column.")
        if y is None:
            raise RoleError(f"{owner} got y=None; give an array or the name of a column.")
        self.owner = owner
        self.data: RoleData = resolve_roles(
            X, y, owner=owner, roles={"treatment": treatment}, allow_nan=allow_nan, **roles
        )
        if self.data.y is None:
            raise RoleError(f"{owner} got no outcome; give y.")
        self.y: FloatArray = self.data.y
        self.n = self.data.n
        self._read_treatment(self.data.roles["treatment"], binary_only)
        self.given = self._read_nuisances(nuisances)

    @property
    def weight(self) -> FloatArray | None:
        """Sampling weights with mean one."""
        return self.data.sample_weight

    @property
    def cluster(self) -> NDArray[np.intp] | None:
        """Codes of the first way of clustering."""
        return None if self.data.cluster is None else self.data.cluster[:, 0]

    @property
    def binary(self) -> bool:
        """Whether the treatment takes two values."""
        return self.levels is not None

    def _read_treatment(self, values: Any, binary_only: bool) -> None:
        array = np.asarray(values)
        distinct = np.unique(array[~missing_mask(array)])
        if distinct.size < 2:
            raise IdentificationError(
                f"{self.owner}: treatment takes one value ({distinct[0]!r}) in all {self.n} rows; "
                "it must vary."
            )
        self.levels: tuple[Any, Any] | None = None
        if distinct.size == 2 or binary_only:
            role = check_binary(array, "treatment", owner=self.owner)
            self.w, self.levels = role.values, role.levels
        else:
            self.w = check_numeric(array, "treatment", owner=self.owner)

    def _read_nuisances(self, nuisances: Any) -> dict[str, FloatArray]:
        given: dict[str, FloatArray] = {}
        for name, value in dict(nuisances or {}).items():
            if name not in ("outcome", "propensity"):
                raise ParameterError(
                    f"{self.owner}: nuisances has the key {name!r}; it takes 'outcome' (expected "
                    "outcome given covariates) and 'propensity' (probability of treatment)."
                )
            array = np.full(self.n, value, float) if np.ndim(value) == 0 else value
            given[name] = check_numeric(array, f"nuisances[{name!r}]", owner=self.owner)
            if given[name].size != self.n:
                raise DataError(
                    f"{self.owner}: nuisances[{name!r}] has {given[name].size} values for "
                    f"{self.n} rows; give one a row, or one number."
                )
        if self.binary and "propensity" in given:
            e = given["propensity"]
            outside = int(((e <= 0) | (e >= 1)).sum())
            if outside:
                raise IdentificationError(
                    f"{self.owner}: nuisances['propensity'] must lie strictly between 0 and 1; "
                    f"{outside} of {self.n} value(s) do not (range {e.min():.4g} to "
                    f"{e.max():.4g}). Rows that are always or never treated have no comparison: "
                    "leave them out."
                )
        return given

    def check_overlap(self, propensity: FloatArray) -> None:
        """Warn where treated and untreated rows hardly overlap."""
        if not self.binary:
            return
        low, high = propensity.min(), propensity.max()
        if low <= POOR_OVERLAP or high >= 1 - POOR_OVERLAP:
            warn(
                f"{self.owner}: the probability of treatment ranges from {low:.3f} to {high:.3f}; "
                "averages over all rows rest on few comparisons. Consider "
                "average_effect(target='overlap').",
                OverlapWarning,
            )


class EffectModel(CausalEstimator):
    """Base of models of heterogeneous effects.

    A subclass sets ``sample_`` (an :class:`EffectSample`) in ``fit`` and writes ``predict``.
    """

    _estimand: ClassVar[str] = "average effect E[Y(1) - Y(0)], and its variation with covariates"
    _assumptions: ClassVar[tuple[str, ...]] = (
        "no unmeasured confounding given the covariates (holds by design in a randomised trial)",
        "overlap: every row could have been treated or not",
        "one row's (or cluster's) treatment does not act on another's outcome",
    )

    sample_: EffectSample

    def _complete(
        self, problem: Problem, sample: EffectSample, seed: Any, folds: Any = None
    ) -> Any:
        """Store what was learned of the rows and the average effect."""
        problem.check_overlap(sample.propensity)
        self.sample_ = sample
        self.treatment_levels_ = problem.levels
        self.modifier_names_ = tuple(problem.data.modifiers)
        self.__dict__.pop("_calibration", None)  # of an earlier fit
        self.estimates_ = average_effect(sample, "all", problem.owner)
        self._finish(problem.data, seed=seed, folds=folds)
        return self

    @property
    def _identity(self) -> str:
        return f"{type(self).__name__}:{self._record['fingerprint']}"

    def _new_rows(self, X: Any, method: str) -> FloatArray:
        """Effect modifiers of new rows, (n, p)."""
        frame = self._encoder.transform(X, owner=f"{type(self).__name__}.{method}")
        return self._encoder.matrix(
            frame, owner=f"{type(self).__name__}.{method}", columns=self.modifier_names_
        )

    @property
    def scores_(self) -> FloatArray:
        """Doubly robust scores (n,) of the training rows; their mean is the average effect."""
        check_is_fitted(self)
        return ModelArray.tag(self.sample_.scores, "scores", self._identity)

    def average_effect(self, target: str = "all", *, subset: Any = None) -> Any:
        """Doubly robust average effect.

        Parameters
        ----------
        target : {"all", "treated", "control", "overlap"}, default "all"
            Population to average over. ``"overlap"`` weights rows by the variance of their
            treatment, and stays precise where overlap is poor.
        subset : bool or int array of shape (n_samples,), optional
            Training rows to average over.

        Returns
        -------
        causalfair.inference.Estimates
            One term: ``ATE``, ``ATT``, ``ATC`` or ``ATO``.

        Raises
        ------
        ParameterError
            Unknown target, or an arm of a treatment that is not binary.
        DataError
            The subset is empty or has the wrong length.

        Notes
        -----
        Errors are clustered where the model was fitted with clusters. ``"overlap"`` regresses the
        outcome residual on the treatment residual, with HC3 errors.
        """
        check_is_fitted(self)
        owner = f"{type(self).__name__}.average_effect"
        return average_effect(self._subset(subset, owner), target, owner)

    def _subset(self, subset: Any, owner: str) -> EffectSample:
        if subset is None:
            return self.sample_
        rows = np.asarray(subset)
        if rows.dtype.kind == "b" and rows.shape != (self.sample_.n,):
            raise DataError(
                f"{owner}: subset has shape {rows.shape} for {self.sample_.n} training rows; give "
                "one Boolean a row, or row numbers."
            )
        if rows.dtype.kind not in "biu":
            raise DataError(
                f"{owner}: subset has dtype {rows.dtype}; give Booleans or row numbers."
            )
        return self.sample_.rows(rows)

    def group_average_effects(self, n_groups: int = 5) -> GroupEffects:
        """Average effects of groups of training rows ranked by their out-of-sample effects.

        Parameters
        ----------
        n_groups : int, default 5
            Groups of equal size, ranked within the folds of the learner where it has folds.

        Returns
        -------
        GroupEffects
            A heuristic, for the model that ranks the rows also makes their scores. Use
            :func:`group_average_effects` with a model fitted to other rows for a claim.
        """
        check_is_fitted(self)
        sample = self.sample_
        return group_average_effects(
            sample.effect, sample.scores, n_groups=n_groups, fold=self._fold_of_row(),
            cluster=None if sample.cluster is None else sample.cluster[:, 0],
            sample_weight=sample.sample_weight, priority_from="out_of_bag",
        )  # fmt: skip

    def _fold_of_row(self) -> Any:
        """Fold whose model ranks each row; None where all rows have the same."""
        return None

    def best_linear_projection(self, X: Any = None) -> Any:
        """Best linear approximation of the effect by the columns of ``X``.

        Parameters
        ----------
        X : frame, Series or array of shape (n_samples,) or (n_samples, k), optional
            Numeric characteristics of the training rows. None: the constant only, which is the
            average effect.

        Returns
        -------
        causalfair.inference.Estimates
            Terms ``(intercept)`` and one a column. HC3 errors, or clustered.

        References
        ----------
        .. [1] V. Semenova and V. Chernozhukov (2021). Debiased machine learning of conditional
           average treatment effects and other causal functions. Econometrics Journal 24, 264-289.
           doi:10.1093/ectj/utaa027
        """
        check_is_fitted(self)
        owner = f"{type(self).__name__}.best_linear_projection"
        return best_linear_projection(X, self.sample_, owner)

    def calibration_test(self) -> CalibrationTest:
        """Test whether the model found the average effect and its variation.

        Returns
        -------
        CalibrationTest
            Two terms, both one for a perfect model: ``mean prediction`` and
            ``differential prediction``. A differential above zero says that effects differ and that
            the model ranks them to some extent.
        """
        check_is_fitted(self)
        return self._calibration

    @cached_property
    def _calibration(self) -> CalibrationTest:
        return calibration_test(self.sample_)

    def _summary_header(self) -> list[tuple[str, str]]:
        pairs = super()._summary_header()
        effect = self.sample_.effect
        pairs.append(("effect, sd over rows", f"{np.std(effect):.3g}"))
        return pairs

    def _summary_tables(self) -> list[Any]:
        return [*super()._summary_tables(), self._calibration.table()]
