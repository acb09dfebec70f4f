"""Constraint of fairlearn's reductions with signed weights in place of group indicators.

Imported only where fairlearn is installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from fairlearn.reductions import ErrorRate
from fairlearn.reductions._moments.moment import ClassificationMoment

from causalfair.exceptions import DataError


class CorrectedParity(ClassificationMoment):
    """Parity of true groups, from proxy codes and their error matrix.

    Every group mean is E[w_a(proxy) h(X)], divided for the events of equalised odds by
    E[w_a(proxy) 1{Y = y}]; weights may be negative, which the cost-sensitive oracle turns into a
    flipped label.

    Parameters
    ----------
    weights : (L, K) array
        Signed weights by proxy level and group.
    events : tuple
        Labels to condition on; ``(None,)`` for demographic parity.
    tolerance : float
        Largest difference of a group from the whole.
    """

    short_name = "CorrectedParity"

    def __init__(self, weights: Any, events: tuple[int | None, ...], tolerance: float) -> None:
        super().__init__()
        self.weights = weights
        self.events = events
        self.tolerance = tolerance

    def default_objective(self) -> Any:
        """Return the misclassification rate."""
        return ErrorRate()

    def load_data(self, X: Any, y: Any, *, sensitive_features: Any) -> None:
        """Store the data and build the linear form of every constraint."""
        codes = np.asarray(sensitive_features).ravel().astype(np.intp)
        if codes.min() < 0 or codes.max() >= len(self.weights):
            raise DataError(
                f"sensitive_features must hold the proxy's levels 0..{len(self.weights) - 1}; got "
                f"{codes.min()} to {codes.max()}."
            )
        labels = pd.Series(np.asarray(y).ravel())
        super().load_data(X, labels, sensitive_features=pd.Series(codes))
        group_weight = self.weights[codes]
        columns, keys = [], []
        for event in self.events:
            happens = np.ones(len(codes)) if event is None else (labels.to_numpy() == event) * 1.0
            for a in range(self.weights.shape[1]):
                mass = group_weight[:, a] * happens
                form = mass / mass.mean() - happens / happens.mean()
                for sign, name in ((1.0, "+"), (-1.0, "-")):
                    columns.append(sign * form)
                    keys.append((name, "all" if event is None else f"label={event}", a))
        self.forms = np.column_stack(columns)
        self._keys = pd.MultiIndex.from_tuples(keys, names=["sign", "event", "group"])

    @property
    def index(self) -> Any:
        """Name the constraints."""
        return self._keys

    def gamma(self, predictor: Any) -> Any:
        """Return the signed gap of every group to the whole, for a predictor."""
        decision = np.squeeze(np.asarray(predictor(self.X)))
        return pd.Series(self.forms.T @ decision / len(decision), index=self._keys)

    def bound(self) -> Any:
        """Return the tolerance of every constraint."""
        return pd.Series(self.tolerance, index=self._keys)

    def project_lambda(self, lambda_vec: Any) -> Any:
        """Cancel the parts of a multiplier pair that offset each other."""
        plus, minus = lambda_vec["+"], lambda_vec["-"]
        net = plus - minus
        return pd.concat(
            [net.clip(lower=0), (-net).clip(lower=0)], keys=["+", "-"], names=["sign"]
        ).reindex(self._keys)

    def signed_weights(self, lambda_vec: Any) -> Any:
        """Return the gain of predicting 1 in each row."""
        return pd.Series(-(self.forms @ lambda_vec.reindex(self._keys).to_numpy()))
