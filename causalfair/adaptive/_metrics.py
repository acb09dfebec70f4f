"""Metrics of a model as statistics with known record influences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.typing import BoolArray, FloatArray
from causalfair.exceptions import DataError, ParameterError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Statistic:
    """Value of one query on some rows.

    Attributes
    ----------
    value : float
        Empirical value.
    influence : (n,) array
        Largest change of the value when that row is replaced (counts that the metric conditions
        on, such as class sizes, are fixed and public).
    lo, hi : float
        Range of the value.
    vector : (n,) array or None
        Row values when the statistic is a plain mean of them.
    """

    value: float
    influence: FloatArray
    lo: float
    hi: float
    vector: FloatArray | BoolArray | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """How to compute a metric: the prediction it needs and the direction that is better."""

    prediction: str  # "label", "score", "probability", "value"
    sign: int  # 1 when lower is better
    compute: Callable[..., Statistic]
    needs_groups: bool = False


def _mean(vector: Array, lo: float, hi: float) -> Statistic:
    n = len(vector)
    span = hi - lo
    return Statistic(float(np.mean(vector)), np.full(n, span / max(n, 1)), lo, hi, vector)


def _accuracy(y: Array, p: Array, **_: Any) -> Statistic:
    return _mean(np.asarray(y == p), 0.0, 1.0)


def _error(y: Array, p: Array, **_: Any) -> Statistic:
    return _mean(np.asarray(y != p), 0.0, 1.0)


def _brier(y: Array, p: Array, *, positive: Any, **_: Any) -> Statistic:
    return _mean((p - (y == positive)) ** 2, 0.0, 1.0)


def _log_loss(y: Array, p: Array, *, positive: Any, limit: float | None, **_: Any) -> Statistic:
    top = _need(limit, "log_loss")
    with np.errstate(divide="ignore"):
        loss = -np.log(np.where(y == positive, p, 1 - p))
    return _mean(np.minimum(loss, top), 0.0, top)


def _squared(y: Array, p: Array, *, limit: float | None, **_: Any) -> Statistic:
    top = _need(limit, "squared_error")
    return _mean(np.minimum((y - p) ** 2, top), 0.0, top)


def _absolute(y: Array, p: Array, *, limit: float | None, **_: Any) -> Statistic:
    top = _need(limit, "absolute_error")
    return _mean(np.minimum(np.abs(y - p), top), 0.0, top)


def _need(limit: float | None, name: str) -> float:
    if limit is None or not 0 < limit < np.inf:
        raise ParameterError(
            f"metric={name!r} is unbounded: declare lo, hi; e.g. clip log-loss at 5 with hi=5. "
            "The clipped value is what is then estimated."
        )
    return float(limit)


def auc(y: BoolArray, score: FloatArray) -> float:
    """Probability that a positive row scores above a negative one; ties count one half."""
    order = np.argsort(score, kind="stable")
    ranked, hits = score[order], y[order]
    first = np.searchsorted(ranked, ranked, side="left")
    last = np.searchsorted(ranked, ranked, side="right")
    n1 = int(hits.sum())
    n0 = len(y) - n1
    ranks = (first + last + 1) / 2.0
    return float((ranks[hits].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def _auc(y: Array, p: Array, *, positive: Any, **_: Any) -> Statistic:
    hit = np.asarray(y == positive)
    n1 = int(hit.sum())
    n0 = len(hit) - n1
    _both(n1, n0, "auc", "positive and negative rows")
    score = np.where(np.isnan(p), -np.inf, p)
    return Statistic(auc(hit, score), np.where(hit, 1 / n1, 1 / n0), 0.0, 1.0)


def _both(a: int, b: int, name: str, what: str) -> None:
    if a == 0 or b == 0:
        raise ParameterError(f"metric={name!r} needs {what} in the holdout.")


def _rate(condition: str) -> Callable[..., Statistic]:
    """Share of positive predictions among rows that satisfy the condition."""

    def compute(y: Array, p: Array, *, positive: Any, **_: Any) -> Statistic:
        rows = _condition(condition, y, positive)
        count = int(rows.sum())
        _both(count, 1, condition, "rows of the class it conditions on")
        value = float(np.mean(p[rows] == positive))
        return Statistic(value, np.where(rows, 1 / count, 0.0), 0.0, 1.0)

    return compute


def _condition(name: str, y: Array, positive: Any) -> BoolArray:
    if name == "tpr":
        return np.asarray(y == positive)
    if name == "fpr":
        return np.asarray(y != positive)
    return np.ones(len(y), dtype=bool)


def _gap(condition: str) -> Callable[..., Statistic]:
    """Difference of a rate between two groups; group and class counts are fixed."""

    def compute(
        y: Array, p: Array, *, positive: Any, sensitive: Array, levels: tuple[Any, Any], **_: Any
    ) -> Statistic:
        rows = _condition(condition, y, positive)
        first, second = rows & (sensitive == levels[0]), rows & (sensitive == levels[1])
        a, b = int(first.sum()), int(second.sum())
        _both(a, b, f"{condition}_gap", "rows of both groups")
        hit = p == positive
        value = float(hit[first].mean() - hit[second].mean())
        return Statistic(value, first / a + second / b, -1.0, 1.0)

    return compute


def _accuracy_gap(
    y: Array, p: Array, *, sensitive: Array, levels: tuple[Any, Any], **_: Any
) -> Statistic:
    first, second = sensitive == levels[0], sensitive == levels[1]
    a, b = int(first.sum()), int(second.sum())
    _both(a, b, "accuracy_gap", "rows of both groups")
    hit = np.asarray(y == p)
    return Statistic(
        float(hit[first].mean() - hit[second].mean()), first / a + second / b, -1.0, 1.0
    )


METRICS: dict[str, Metric] = {
    "accuracy": Metric("label", -1, _accuracy),
    "error": Metric("label", 1, _error),
    "brier": Metric("probability", 1, _brier),
    "log_loss": Metric("probability", 1, _log_loss),
    "squared_error": Metric("value", 1, _squared),
    "absolute_error": Metric("value", 1, _absolute),
    "auc": Metric("score", -1, _auc),
    "tpr": Metric("label", -1, _rate("tpr")),
    "fpr": Metric("label", 1, _rate("fpr")),
    "selection_rate": Metric("label", 1, _rate("selection")),
    "tpr_gap": Metric("label", 1, _gap("tpr"), True),
    "fpr_gap": Metric("label", 1, _gap("fpr"), True),
    "selection_rate_gap": Metric("label", 1, _gap("selection"), True),
    "accuracy_gap": Metric("label", 1, _accuracy_gap, True),
}
ALIASES = {
    "roc_auc": "auc",
    "mse": "squared_error",
    "mae": "absolute_error",
    "demographic_parity": "selection_rate_gap",
    "equal_opportunity": "tpr_gap",
    "accuracy_parity": "accuracy_gap",
    "recall": "tpr",
}


def find_metric(name: str) -> tuple[str, Metric]:
    """Metric by name or usual alias."""
    key = ALIASES.get(name, name)
    if key not in METRICS:
        from causalfair._core.validation import suggest

        hint = suggest(name, [*METRICS, *ALIASES])
        raise ParameterError(
            f"metric={name!r} is unknown.{hint} Known: {', '.join([*METRICS, *ALIASES])}."
        )
    return key, METRICS[key]


def compared_groups(
    X: Any, metric: str, chosen: Any, levels: Any
) -> tuple[Callable[[Any], Any], tuple[Any, Any]]:
    """Group labels as a function of X, and the two groups that a metric compares."""
    if chosen is None:
        raise ParameterError(
            f"metric={metric!r} compares groups: pass sensitive_features=, a column "
            "of X or a function of X."
        )
    if callable(chosen):
        group = chosen
    elif hasattr(X, "columns"):
        if chosen not in list(X.columns):
            raise DataError(
                f"sensitive_features={chosen!r} is not a column of X. Columns: "
                f"{', '.join(map(str, X.columns))}."
            )
        group = Column(chosen)
    else:
        group = Column(int(chosen))
    if levels is None:
        found = np.unique(np.asarray(group(X)))
        if len(found) != 2:
            raise ParameterError(
                f"sensitive_features has {len(found)} groups; name the two to "
                "compare with levels=(a, b)."
            )
        levels = (found[0], found[1])
    return group, (levels[0], levels[1])


@dataclass(frozen=True, slots=True)
class Column:
    """Group labels from a column."""

    name: Any

    def __call__(self, X: Any) -> Array:
        return np.asarray(X[self.name] if hasattr(X, "columns") else X[:, self.name])


def conditional_influence(statistic: str, X: Any, y: Any, options: Mapping[str, Any]) -> FloatArray:
    """Influence of each row on a metric that conditions on classes or groups."""
    name, kind = find_metric(statistic)
    if kind.prediction in ("probability", "value") or name in ("accuracy", "error"):
        raise ParameterError(
            f"statistic={statistic!r} is a plain mean: leave statistic='mean'. Others condition on "
            "public counts: auc, tpr, fpr and the differences between groups."
        )
    if y is None:
        raise ParameterError(f"statistic={statistic!r} needs outcomes: create the holdout with y.")
    target = np.asarray(y)
    extra: dict[str, Any] = {"positive": options.get("positive", np.unique(target)[-1])}
    if kind.needs_groups:
        chosen = options.get("sensitive_features")
        if callable(chosen):
            raise ParameterError("sensitive_features must name a column of X here, not a function.")
        group, levels = compared_groups(X, name, chosen, options.get("levels"))
        extra |= {"sensitive": group(X), "levels": levels}
    predicted = np.zeros(len(target)) if kind.prediction == "score" else target
    return np.asarray(kind.compute(target, predicted, **extra).influence, dtype=np.float64)


def predict(model: Any, X: Any, prediction: str, positive: Any) -> Array:
    """What the metric needs from the model."""
    if prediction in ("label", "value"):
        return np.asarray(model.predict(X))
    if hasattr(model, "predict_proba"):
        classes = list(getattr(model, "classes_", [0, 1]))
        column = classes.index(positive) if positive in classes else -1
        return np.asarray(model.predict_proba(X))[:, column]
    if prediction == "score" and hasattr(model, "decision_function"):
        return np.asarray(model.decision_function(X))
    raise ParameterError(
        f"{type(model).__name__} has no predict_proba, which this metric needs; choose a metric "
        "of predicted labels, or a model with probabilities."
    )
