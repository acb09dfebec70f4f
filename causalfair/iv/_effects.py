"""Estimands beside the average effect, from stored scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.roles import RoleData, resolve_roles
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_level, check_no_missing
from causalfair.exceptions import DataError, ParameterError
from causalfair.inference import Estimates
from causalfair.iv import _scores as scores
from causalfair.iv._projection import cate_band, project_effect
from causalfair.iv._record import IVRecord
from causalfair.iv._reports import CateBand

__all__ = ["EffectMethods"]

MOST_GROUPS = 200


class EffectMethods:
    """Effects on the treated, in groups and by covariates."""

    _rows: IVRecord
    estimates_: Any

    def direct_effect(self) -> Estimates:
        """Direct effect of the instrument on the outcome, the treatment held fixed.

        Returns
        -------
        Estimates
            Term ``"direct effect"``; zero under the exclusion restriction.
        """
        check_is_fitted(self)
        found: Estimates = self.estimates_["direct effect"]
        return found

    def att(self) -> Estimates:
        """Average effect on the treated, for a binary treatment.

        Returns
        -------
        Estimates
            Term ``"ATT"``.

        Raises
        ------
        ParameterError
            If the treatment is continuous.
        """
        check_is_fitted(self)
        rows = self._rows
        self._needs_binary_treatment("att")
        if "ATT" in rows.targets:
            return rows.targets["ATT"]
        return rows.over_repeats(lambda nu, phi: scores.score_att(rows.a, nu, phi, rows.weight))

    def gate(self, groups: Any) -> Estimates:
        """Average effects in groups defined by covariates.

        Parameters
        ----------
        groups : array of shape (n_samples,)
            Group label of every row given to ``fit``, in that order. Groups must be defined by
            variables measured before the instrument.

        Returns
        -------
        Estimates
            One term a group, in sort order; ``conf_int(simultaneous=True)`` covers all at once.
        """
        check_is_fitted(self)
        labels, codes = self._group_codes(groups)
        weight = self._rows.weight
        return self._rows.over_repeats(
            lambda _, phi: scores.score_groups(phi, codes, labels, weight)
        )

    def weighted_effect(self, target: Any) -> Estimates:
        """Average effect in a population reweighted by a known function of the covariates.

        Parameters
        ----------
        target : array of shape (n_samples,)
            Non-negative weights, one for every row given to ``fit``.

        Returns
        -------
        Estimates
            Term ``"weighted ATE"``.
        """
        check_is_fitted(self)
        w = self._row_array(target, "target")
        if (w < 0).any() or w.sum() <= 0:
            raise DataError(
                f"{type(self).__name__}.weighted_effect: target has {int((w < 0).sum())} negative "
                f"value(s) and sums to {w.sum():.4g}; give non-negative weights, not all zero."
            )
        weight = self._rows.weight
        return self._rows.over_repeats(lambda _, phi: scores.score_weighted(phi, w, weight))

    def best_linear_projection(self, X: Any, *, covariates: Any = "all") -> Estimates:
        """Best linear projection of the effect on covariates.

        Parameters
        ----------
        X : frame or array of shape (n_samples, p)
            Covariates of the rows given to ``fit``, in that order.
        covariates : "all", list of str or formula, default "all"
            What to project on.

        Returns
        -------
        Estimates
            ``"Intercept"`` and one term a column, HC1 standard errors.
        """
        check_is_fitted(self)
        owner = f"{type(self).__name__}.best_linear_projection"
        return project_effect(self._rows, self._covariates_of(X, covariates, owner)).estimates

    def cate(
        self, X: Any, *, at: Any = None, covariates: Any = "all", level: float = 0.95
    ) -> CateBand:
        """Effect as a function of covariates: a linear projection with a uniform band.

        Parameters
        ----------
        X : frame or array of shape (n_samples, p)
            Covariates of the rows given to ``fit``, in that order.
        at : frame or array of shape (m, p), optional
            Rows to evaluate the effect on; those of ``X`` when None.
        covariates : "all", list of str or formula, default "all"
            Which columns, or a formula such as ``"~ bs(age, df=4)"`` for a curve.
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        CateBand
            ``frame`` with pointwise and uniform intervals; ``plot()``.
        """
        check_is_fitted(self)
        check_level(level)
        data = self._covariates_of(X, covariates, f"{type(self).__name__}.cate")
        return cate_band(self._rows, data, X if at is None else at, level)

    def _needs_binary_treatment(self, what: str) -> None:
        if not self._rows.nuisances[0].binary_treatment:
            raise ParameterError(
                f"{what} is for a binary treatment; this one is continuous. Use gate() or "
                "best_linear_projection() instead."
            )

    def _row_array(self, values: Any, name: str) -> FloatArray:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (self._rows.n,) or not np.isfinite(array).all():
            raise DataError(
                f"{name} has shape {array.shape}; give one finite number for each of the "
                f"{self._rows.n:,} rows of the fit."
            )
        return array

    def _group_codes(self, groups: Any) -> tuple[tuple[str, ...], IntArray]:
        array = np.asarray(groups)
        if array.shape != (self._rows.n,):
            raise DataError(
                f"gate: groups has shape {array.shape}; give one label for each of the "
                f"{self._rows.n:,} rows of the fit."
            )
        check_no_missing(array, "groups", owner="gate")
        levels, codes = np.unique(array, return_inverse=True)
        if len(levels) > MOST_GROUPS:
            raise DataError(
                f"gate: groups has {len(levels)} distinct labels; give at most {MOST_GROUPS} "
                "groups, or use best_linear_projection() for a continuous covariate."
            )
        weight = np.ones(self._rows.n) if self._rows.weight is None else self._rows.weight
        empty = [str(v) for j, v in enumerate(levels) if weight[codes == j].sum() == 0]
        if empty:
            raise DataError(f"gate: no row with positive weight in group(s) {', '.join(empty)}.")
        return tuple(str(level) for level in levels), codes.astype(np.intp)

    def _covariates_of(self, X: Any, covariates: Any, owner: str) -> RoleData:
        data = resolve_roles(X, owner=owner, covariates=covariates)
        if data.n != self._rows.n:
            raise DataError(
                f"{owner}: X has {data.n:,} rows; give the covariates of the {self._rows.n:,} rows "
                "of the fit, in the same order."
            )
        return data
