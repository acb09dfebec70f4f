"""Feature selection on a reusable holdout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from causalfair._core.typing import BoolArray, FloatArray
from causalfair.adaptive._answer import Answers
from causalfair.adaptive._evaluate import scaled
from causalfair.adaptive._holdout import ReusableHoldout
from causalfair.adaptive._queries import UNITS, batch_from_sums, column_blocks
from causalfair.adaptive._sklearn import CHOOSERS, LADDERS
from causalfair.adaptive._state import Batch
from causalfair.exceptions import DataError, ParameterError

__all__ = ["HoldoutFeatureSelector"]


class HoldoutFeatureSelector(SelectorMixin, BaseEstimator):
    """Keep features whose association with the outcome holds up on the holdout.

    Each feature is one question, all of them one batch. Features and outcome are standardised with
    training moments; the question is the mean of their product, clipped to ``[-clip, clip]``.

    Parameters
    ----------
    holdout : ReusableHoldout
        Holdout with the same features.
    k_best : int, optional
        Keep this many features with the largest released association.
    threshold : float, optional
        Keep features whose released association is at least this large in absolute value.
    score : {"correlation", "auc"}, default "correlation"
        Clipped correlation, or area under the curve minus one half.
    clip : float, default 4.0
        Products of standardised values are clipped here; the clipped mean is the estimand.
    query_id : str, optional
        Name of the batch.

    Attributes
    ----------
    values_, radius_ : (n_features,) arrays
        Released associations and the radius of each.
    training_values_ : (n_features,) array
        The same on the training data.

    See Also
    --------
    HoldoutSearchCV : Model search.

    References
    ----------
    .. [1] Dwork et al. (2015), The reusable holdout, Science 349:636-638.
       doi:10.1126/science.aaa9375

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.adaptive import HoldoutFeatureSelector, ReusableHoldout
    >>> rng = np.random.default_rng(1)
    >>> y = rng.choice([-1, 1], 40_000)
    >>> X = rng.normal(size=(40_000, 5))
    >>> X[:, 0] += y
    >>> holdout = ReusableHoldout.create(None, X[20_000:], y[20_000:], max_queries=5)
    >>> selector = HoldoutFeatureSelector(holdout, k_best=1).fit(X[:20_000], y[:20_000])
    >>> selector.get_support()
    array([ True, False, False, False, False])
    """

    def __init__(
        self,
        holdout: ReusableHoldout,
        *,
        k_best: int | None = None,
        threshold: float | None = None,
        score: str = "correlation",
        clip: float = 4.0,
        query_id: str | None = None,
    ) -> None:
        self.holdout = holdout
        self.k_best = k_best
        self.threshold = threshold
        self.score = score
        self.clip = clip
        self.query_id = query_id

    def fit(self, X: Any, y: Any) -> HoldoutFeatureSelector:
        """Standardise on the training data and ask one batch.

        Parameters
        ----------
        X : array or frame of shape (n_samples, n_features)
            Training rows.
        y : array of shape (n_samples,)
            Training outcomes, numeric; two classes for ``score="auc"``.

        Returns
        -------
        HoldoutFeatureSelector
            Itself.
        """
        if (self.k_best is None) == (self.threshold is None):
            raise ParameterError(
                "Give exactly one of k_best and threshold. Got "
                f"k_best={self.k_best!r}, threshold={self.threshold!r}."
            )
        if self.score not in ("correlation", "auc"):
            raise ParameterError(f"score must be 'correlation' or 'auc'. Got {self.score!r}.")
        if not self.clip > 0:
            raise ParameterError(f"clip must be above 0. Got {self.clip!r}.")
        matrix, target = validate_data(self, X, y, dtype=[np.float64, np.float32])
        asked = _Association(self, matrix, np.asarray(target, dtype=float))
        answers = asked.ask()
        half = 0.5 if self.score == "auc" else 0.0
        self.values_ = np.array([a.value for a in answers]) - half
        self.radius_ = np.array([a.radius for a in answers])
        self.training_values_ = asked.training - half
        return self

    def _get_support_mask(self) -> BoolArray:
        check_is_fitted(self, "values_")
        size = np.abs(np.nan_to_num(self.values_))
        if self.threshold is not None:
            return np.asarray(size >= self.threshold)
        mask = np.zeros(len(size), dtype=bool)
        mask[np.argsort(-size, kind="stable")[: self.k_best]] = True
        return mask


class _Association:
    """One batch of associations between features and outcome."""

    def __init__(self, selector: HoldoutFeatureSelector, X: FloatArray, y: FloatArray) -> None:
        self.selector, self.holdout = selector, selector.holdout
        blocks = [X[:, block] for block in column_blocks(*X.shape)]
        self.centre = np.concatenate([b.mean(axis=0, dtype=np.float64) for b in blocks])
        spread = np.concatenate([b.std(axis=0, dtype=np.float64) for b in blocks])
        self.scale = 1.0 / np.where(spread > 0, spread, 1.0)
        self.y_centre, self.y_scale = float(y.mean()), float(y.std()) or 1.0
        self.clip = float(selector.clip)
        self.positive = float(np.max(y))
        if self.holdout.mechanism in (*CHOOSERS, *LADDERS):
            raise ParameterError(
                f"mechanism={self.holdout.mechanism!r} does not release a value for each feature; "
                "use 'guess_and_check', 'gaussian' or 'thresholdout'."
            )
        self.training = self._values(X, y)

    def _target(self, y: Any) -> FloatArray:
        return np.ascontiguousarray((np.asarray(y, dtype=float) - self.y_centre) / self.y_scale)

    def _values(self, X: FloatArray, y: FloatArray) -> FloatArray:
        if self.selector.score == "auc":
            from causalfair.adaptive._metrics import auc

            hit = y == self.positive
            if hit.all() or not hit.any():
                raise DataError("score='auc' needs two classes in y.")
            return np.array([auc(hit, X[:, j]) for j in range(X.shape[1])])
        return self.clip * (2 * self._sums(X, y) / (UNITS * len(X)) - 1)

    def _sums(self, X: FloatArray, y: Any) -> FloatArray:
        return product_sums(X, self.centre, self.scale, self._target(y), self.clip)

    def ask(self) -> Answers:
        """Ask for all features at once."""
        lo, hi = (0.0, 1.0) if self.selector.score == "auc" else (-self.clip, self.clip)
        return self.holdout._exchange_columns(
            self._batch, len(self.centre), lo, hi, self.selector.query_id, kind=self.selector.score
        )

    def _batch(self, part: str) -> Batch:
        parts = self.holdout._parts
        sealed = parts.blocks.sealed
        if sealed.groups is not None or sealed.weights is not None:
            raise ParameterError(
                "HoldoutFeatureSelector needs a holdout without groups and sample_weight."
            )
        rows = parts.blocks.rows("check" if "check" in parts.blocks.parts else part)
        X = np.asarray(rows.X)
        X = X if X.dtype in (np.float32, np.float64) else X.astype(float)
        if X.ndim != 2 or X.shape[1] != len(self.centre):
            raise DataError(
                f"The holdout must have the {len(self.centre)} features of the "
                "training data, all numeric."
            )
        if self.selector.score == "auc":
            return self._auc_batch(X, np.asarray(rows.y, dtype=float))
        batch = batch_from_sums(
            self._sums(X, rows.y),
            len(X),
            -self.clip,
            self.clip,
            self.training.copy(),
            binary=False,
            kind="correlation",
        )
        return scaled(parts, batch, np.full(len(X), 1 / len(X)))

    def _auc_batch(self, X: FloatArray, y: FloatArray) -> Batch:
        q, hit = X.shape[1], y == self.positive
        influence = np.where(hit, 1 / hit.sum(), 1 / (~hit).sum())
        values = self._values(np.nan_to_num(X, nan=-math.inf), y)
        full = np.full
        batch = Batch(
            value=values,
            lo=np.zeros(q),
            hi=np.ones(q),
            influence=full(q, influence.max()),
            squares=full(q, influence @ influence),
            pad=full(q, 1e-12),
            guess=self.training.copy(),
            kind="auc",
            loss_sign=-1,
        )
        return scaled(self.holdout._parts, batch, influence)


def product_sums(
    X: FloatArray, centre: FloatArray, scale: FloatArray, t: FloatArray, clip: float
) -> FloatArray:
    """Exact integer sums of the clipped products of every standardised column of X with t."""
    from causalfair.adaptive import _kernels

    out = np.zeros(X.shape[1], dtype=np.int64)
    _kernels.product_sums(np.ascontiguousarray(X), centre, scale, t, clip, out)
    return out.astype(np.float64)
