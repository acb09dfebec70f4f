"""Fairness metrics as functions of the joint table of stratum and group.

Everything follows from G (S, K), so each metric is a smooth map from G to group values; gaps,
ratios and their gradients are built on top of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import ParameterError

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray

METRICS = (
    "demographic_parity",
    "equalized_odds",
    "equal_opportunity",
    "accuracy_parity",
    "predictive_parity",
    "calibration",
    "base_rate",
    "error_rate_ratio",
    "treatment_equality",
)
NEEDS_LABEL = frozenset(METRICS) - {"demographic_parity"}
MIN_GROUP_COUNT = 10.0


@dataclass(frozen=True, slots=True)
class GroupMetric:
    """A metric as ratios of sums of entries of G.

    ``numerator`` and ``denominator`` are (n_components, S) 0/1 arrays: the value of component i in
    group a is numerator[i] @ G[:, a] / denominator[i] @ G[:, a]. ``names`` (n_components,).
    """

    numerator: FloatArray
    denominator: FloatArray
    names: tuple[str, ...]

    def values(self, G: FloatArray) -> FloatArray:
        """Group values (..., n_components, K) for G of shape (..., S, K)."""
        top = self.numerator @ G
        bottom = self.denominator @ G
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(top / bottom)

    def support(self, G: FloatArray) -> FloatArray:
        """Probability of the denominator (n_components, K)."""
        return np.asarray(self.denominator @ G)

    def gradient(self, G: FloatArray) -> FloatArray:
        """Derivative of the value of component i in group a by G[s, a]: (n_components, K, S)."""
        bottom = self.denominator @ G
        value = self.values(G)
        top = self.numerator[:, None, :] - value[:, :, None] * self.denominator[:, None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(top / bottom[:, :, None])


def group_metric(metric: str, n_pred: int, n_labels: int, *, every: bool = False) -> GroupMetric:
    """Describe a metric for ``n_pred`` decisions and ``n_labels`` labels.

    With a binary decision the component of decision 0 repeats that of decision 1 and is left out,
    unless ``every`` is set.

    Raises
    ------
    ParameterError
        Unknown metric, or a metric that needs labels where there are none.
    """
    if metric not in METRICS:
        from causalfair._core.validation import suggest

        raise ParameterError(
            f"metric must be one of {', '.join(METRICS)}; got {metric!r}."
            f"{suggest(str(metric), METRICS)}"
        )
    if metric in NEEDS_LABEL and n_labels < 2:
        raise ParameterError(
            f"metric {metric!r} needs y_true: it compares decisions with outcome labels, and this "
            "fit had none. Give y_true= to fit, or ask for 'demographic_parity'."
        )
    k = np.repeat(np.arange(n_pred), n_labels)  # decision of each stratum
    y = np.tile(np.arange(n_labels), n_pred)  # label of each stratum
    decisions = list(range(n_pred)) if every or n_pred > 2 else [n_pred - 1]
    parts: list[tuple[FloatArray, FloatArray, str]] = []
    one = np.ones(n_pred * n_labels)
    if metric == "demographic_parity":
        parts = [(k == d, one, f"P(f={d})") for d in decisions]
    elif metric == "equalized_odds":
        parts = [
            ((k == d) & (y == v), y == v, f"P(f={d}|Y={v})")
            for v in range(n_labels)
            for d in decisions
        ]
    elif metric == "equal_opportunity":
        parts = [((k == 1) & (y == 1), y == 1, "P(f=1|Y=1)")]
    elif metric == "accuracy_parity":
        parts = [(k == y, one, "P(f=Y)")]
    elif metric == "predictive_parity":
        parts = [((k == 1) & (y == 1), k == 1, "P(Y=1|f=1)")]
    elif metric == "calibration":
        parts = [((k == d) & (y == 1), k == d, f"P(Y=1|f={d})") for d in range(n_pred)]
    elif metric == "base_rate":
        labels = [1] if n_labels == 2 else list(range(n_labels))
        parts = [(y == v, one, f"P(Y={v})") for v in labels]
    elif metric == "error_rate_ratio":
        parts = [(k != y, k == y, "P(f!=Y)/P(f=Y)")]
    else:
        parts = [((k == 0) & (y == 1), (k == 1) & (y == 0), "FN/FP")]
    return GroupMetric(
        np.array([p[0] for p in parts], dtype=np.float64),
        np.array([p[1] for p in parts], dtype=np.float64),
        tuple(p[2] for p in parts),
    )


@dataclass(frozen=True, slots=True)
class Gaps:
    """Signed comparisons of pairs of groups.

    ``values`` (t,) with ``gradient`` (t, S, K) by G, ``names`` (t,), and for each term the pair
    ``(a, b)`` and the component. Terms whose groups are too small are nan, with ``reasons``.
    """

    values: FloatArray
    gradient: FloatArray
    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    components: tuple[int, ...]
    reasons: tuple[str | None, ...]


def group_pairs(n_groups: int) -> list[tuple[int, int]]:
    """All pairs (b, a) with a < b: the gap is group b minus group a."""
    return [(b, a) for a, b in combinations(range(n_groups), 2)]


def pairwise_gaps(metric: GroupMetric, G: FloatArray, n: float, kind: str) -> Gaps:
    """Differences or ratios between all pairs of groups, with gradients."""
    n_groups = G.shape[1]
    values, slope, support = metric.values(G), metric.gradient(G), metric.support(G)
    out, grads, names, pairs, comps, reasons = [], [], [], [], [], []
    for i, component in enumerate(metric.names):
        for b, a in group_pairs(n_groups):
            grad = np.zeros(G.shape)
            if kind == "ratio":
                with np.errstate(invalid="ignore", divide="ignore"):
                    value = values[i, b] / values[i, a]
                    grad[:, b] = slope[i, b] / values[i, a]
                    grad[:, a] = -slope[i, a] * value / values[i, a]
            else:
                value = values[i, b] - values[i, a]
                grad[:, b] = slope[i, b]
                grad[:, a] = -slope[i, a]
            small = [g for g in (a, b) if n * support[i, g] < MIN_GROUP_COUNT]
            reason = None
            if small:
                expected = n * support[i, small[0]]
                reason = (
                    f"group {small[0]} has an estimated {expected:.1f} rows in the denominator of "
                    f"{component} (fewer than {MIN_GROUP_COUNT:.0f})"
                )
                value, grad = np.nan, np.full(G.shape, np.nan)
            word = "/" if kind == "ratio" else "-"
            out.append(float(value))
            grads.append(grad)
            names.append(f"{component}: {b} {word} {a}")
            pairs.append((b, a))
            comps.append(i)
            reasons.append(reason)
    return Gaps(
        np.array(out), np.array(grads), tuple(names), tuple(pairs), tuple(comps), tuple(reasons)
    )


def gap_values(metric: GroupMetric, G: FloatArray, kind: str) -> FloatArray:
    """Pairwise gaps for many tables at once: G (..., S, K) -> (..., t), in the same order."""
    values = metric.values(G)
    columns = []
    for i in range(len(metric.names)):
        for b, a in group_pairs(G.shape[-1]):
            if kind == "ratio":
                with np.errstate(invalid="ignore", divide="ignore"):
                    columns.append(values[..., i, b] / values[..., i, a])
            else:
                columns.append(values[..., i, b] - values[..., i, a])
    return np.stack(columns, axis=-1)


def fairness_matrix(G: FloatArray, n_pred: int, n_labels: int) -> FloatArray:
    """Group rates H[a, k] = P(decision k | group a): (K, n_pred)."""
    table = G.reshape(n_pred, n_labels, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((table.sum(axis=1) / table.sum(axis=(0, 1))).T)


def rates_by_label(G: FloatArray, n_pred: int, n_labels: int) -> FloatArray:
    """P(decision k | label y, group a): (n_labels, K, n_pred)."""
    table = G.reshape(n_pred, n_labels, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = table / table.sum(axis=0)
    return np.asarray(rates.transpose(1, 2, 0))


def fused_accuracy(
    prevalence: FloatArray, tables: list[FloatArray], *, max_cells: int = 1_000_000
) -> tuple[float, list[float]]:
    """Bayes accuracy of guessing the group from all proxies together, and from each alone.

    This is how far the proxies give an individual's group away; nan when the table is too wide.
    """
    alone = [float((prevalence[:, None] * t).max(axis=0).sum()) for t in tables]
    if float(np.prod([float(t.shape[1]) for t in tables])) > max_cells:
        return float("nan"), alone
    joint = prevalence[:, None]
    for table in tables:
        joint = (joint[:, :, None] * table[:, None, :]).reshape(len(prevalence), -1)
    return float(joint.max(axis=0).sum()), alone
