"""Treatment rules of a few cuts, the best there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_lengths, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.forest._calibration import numeric_columns

__all__ = ["PolicyTree", "learn_policy_tree"]

OWNER = "learn_policy_tree"
ROUNDING = 1e-12  # a split has to gain more than this share of the sum of absolute gains


@dataclass(frozen=True)
class _Leaf:
    treat: bool
    n: int


@dataclass(frozen=True)
class _Split:
    feature: int
    cut: float
    low: _Leaf | _Split
    high: _Leaf | _Split


@dataclass(frozen=True)
class PolicyTree:
    """A rule that treats by one or two cuts.

    Attributes
    ----------
    feature_names : tuple of str
        Columns it was learned on.
    gain : float
        Mean gain over treating nobody on the rows it was learned from: too good, so evaluate the
        rule with :func:`policy_value` on other rows.
    """

    _citations: ClassVar[tuple[str, ...]] = ("athey2021policy",)

    feature_names: tuple[str, ...]
    gain: float
    _root: _Leaf | _Split

    def predict(self, X: Any) -> FloatArray:
        """Whether the rule treats each row.

        Parameters
        ----------
        X : frame or array of shape (n_rows, n_features)
            The columns the rule was learned on.

        Returns
        -------
        ndarray of shape (n_rows,)
            1 or 0.

        Raises
        ------
        DataError
            Other columns, or missing values.
        """
        values, names = numeric_columns(X, "PolicyTree.predict")
        if len(names) != len(self.feature_names):
            raise DataError(
                f"PolicyTree.predict got {len(names)} column(s); the rule was learned on "
                f"{len(self.feature_names)}: {', '.join(self.feature_names)}."
            )
        if hasattr(X, "columns") and tuple(names) != self.feature_names:
            raise DataError(
                f"PolicyTree.predict got columns {', '.join(names)}; the rule was learned on "
                f"{', '.join(self.feature_names)}, in that order."
            )
        out = np.empty(len(values))
        _assign(self._root, values, np.arange(len(values)), out)
        return out

    def __str__(self) -> str:
        return "\n".join(_lines(self._root, self.feature_names, ""))

    __repr__ = __str__


def learn_policy_tree(
    X: Any,
    scores: Any,
    *,
    depth: int = 2,
    cost: float = 0.0,
    max_cuts: int = 64,
    min_leaf_size: int = 1,
    sample_weight: Any = None,
) -> PolicyTree:
    """Find the rule of at most two levels of cuts with the largest gain.

    Parameters
    ----------
    X : frame or array of shape (n_samples, n_features)
        Numeric characteristics a rule may use: few and meaningful, such as land cover or survey
        answers, not components of image features.
    scores : array of shape (n_samples,)
        Doubly robust scores.
    depth : {1, 2}, default 2
        Levels of cuts.
    cost : float, default 0.0
        Cost of treating a unit, in units of the outcome.
    max_cuts : int, default 64
        Cuts tried in a column: all, or so many quantiles where it has more distinct values.
    min_leaf_size : int, default 1
        Fewest rows on each side of a cut.
    sample_weight : array of shape (n_samples,), optional
        Sampling weights.

    Returns
    -------
    PolicyTree
        Prints as a list of cuts; ``predict(X)`` applies it.

    Raises
    ------
    ParameterError
        Depth is neither 1 nor 2, or another option is out of range.
    DataError
        Missing values, or lengths that differ.

    See Also
    --------
    policy_value : Value of a rule, on rows that did not teach it.

    Notes
    -----
    The search is exhaustive over pairs of columns and their cuts, from tables of the gains by pairs
    of intervals: about p^2 (n + cuts^2) additions. Of equally good rules the one with fewer cuts,
    then with earlier columns, is taken.

    References
    ----------
    .. [1] S. Athey and S. Wager (2021). Policy learning with observational data. Econometrica 89,
       133-161, section 2. doi:10.3982/ECTA15732

    Examples
    --------
    >>> from causalfair.forest import learn_policy_tree
    >>> rule = learn_policy_tree([[1.0], [2.0], [3.0], [4.0]], [-1.0, -2.0, 3.0, 1.0], depth=1)
    >>> rule
    x0 <= 2: do not treat (2)
    x0 > 2: treat (2)
    >>> rule.predict([[2.5]]).tolist()
    [1.0]
    """
    for name, value, low in (("max_cuts", max_cuts, 1), ("min_leaf_size", min_leaf_size, 1)):
        if value < low:
            raise ParameterError(f"{OWNER}: {name}={value!r} must be {low} or more.")
    if depth not in (1, 2):
        raise ParameterError(f"{OWNER}: depth={depth!r} is neither 1 nor 2.")
    values, names = numeric_columns(X, OWNER)
    gain = check_numeric(scores, "scores", owner=OWNER) - cost
    check_lengths(owner=OWNER, X=values, scores=gain)
    if sample_weight is not None:
        weight = check_numeric(sample_weight, "sample_weight", owner=OWNER)
        check_lengths(owner=OWNER, scores=gain, sample_weight=weight)
        gain = gain * weight / weight.mean()
    search = _Search(values, gain, max_cuts, min_leaf_size)
    root = search.tree(np.arange(gain.size), depth)
    out = np.empty(gain.size)
    _assign(root, values, np.arange(gain.size), out)
    return PolicyTree(tuple(names), float(np.mean(gain * out)), root)


class _Search:
    """Intervals of each column, and the best trees over them.

    Attributes
    ----------
    cuts : list of ndarray
        Cuts of each column; a row goes low where its value is at most the cut.
    codes : ndarray of shape (n, p)
        Number of cuts below each value.
    """

    def __init__(self, X: FloatArray, gain: FloatArray, max_cuts: int, least: int) -> None:
        self.gain, self.least = gain, least
        self.margin = ROUNDING * float(np.abs(gain).sum())
        self.cuts = [_cuts(column, max_cuts) for column in X.T]
        self.codes: IntArray = np.column_stack(
            [np.searchsorted(cuts, column) for cuts, column in zip(self.cuts, X.T, strict=True)]
        )

    def tree(self, rows: IntArray, depth: int) -> _Leaf | _Split:
        """Best tree of at most ``depth`` levels over some rows."""
        total = float(self.gain[rows].sum())
        best, found = max(total, 0.0), None
        for level in range(1, depth + 1):
            value, feature, cut = self._one(rows) if level == 1 else self._two(rows)
            if value > best + self.margin:
                best, found = value, (feature, cut, level)
        if found is None:
            return _Leaf(total > 0, rows.size)
        feature, cut, level = found
        low = self.codes[rows, feature] <= cut
        parts = (self.tree(rows[side], level - 1) for side in (low, ~low))
        return _Split(feature, float(self.cuts[feature][cut]), *parts)

    def _table(self, rows: IntArray, first: int, second: int) -> tuple[FloatArray, FloatArray]:
        """Gains and numbers of rows by intervals of two columns."""
        shape = (len(self.cuts[first]) + 1, len(self.cuts[second]) + 1)
        cell = self.codes[rows, first] * shape[1] + self.codes[rows, second]
        size = shape[0] * shape[1]
        sums, count = self._totals(cell, rows, size)
        return sums.reshape(shape), count.reshape(shape)

    def _totals(self, cell: IntArray, rows: IntArray, size: int) -> tuple[FloatArray, FloatArray]:
        """Gains and numbers of rows by cell, (size,) each."""
        sums = np.asarray(np.bincount(cell, self.gain[rows], size), dtype=np.float64)
        return sums, np.bincount(cell, minlength=size).astype(np.float64)

    def _one(self, rows: IntArray) -> tuple[float, int, int]:
        """Value, column and cut of the best single cut."""
        best = (-np.inf, 0, 0)
        for feature, cuts in enumerate(self.cuts):
            if not len(cuts):
                continue
            sums, count = self._totals(self.codes[rows, feature], rows, len(cuts) + 1)
            value = self._cut_values(sums[None], count[None])[0]
            at = int(value.argmax())
            if value[at] > best[0] + self.margin:
                best = (float(value[at]), feature, at)
        return best

    def _two(self, rows: IntArray) -> tuple[float, int, int]:
        """Value, column and cut of the root of the best tree with two levels."""
        best = (-np.inf, 0, 0)
        for feature, cuts in enumerate(self.cuts):
            if not len(cuts):
                continue
            sides: list[Any] = [None, None]
            for other in range(len(self.cuts)):
                sums, count = self._table(rows, feature, other)
                below, n_below = np.cumsum(sums, axis=0)[:-1], np.cumsum(count, axis=0)[:-1]
                for side, (s, c) in enumerate(
                    ((below, n_below), (sums.sum(axis=0) - below, count.sum(axis=0) - n_below))
                ):
                    value = np.maximum(s.sum(axis=1), 0.0)  # no further cut
                    if len(self.cuts[other]):
                        value = np.maximum(value, self._cut_values(s, c).max(axis=1))
                    value = np.where(c.sum(axis=1) >= self.least, value, -np.inf)
                    sides[side] = value if other == 0 else np.maximum(sides[side], value)
            value = sides[0] + sides[1]
            at = int(value.argmax())
            if value[at] > best[0] + self.margin:
                best = (float(value[at]), feature, at)
        return best

    def _cut_values(self, sums: FloatArray, count: FloatArray) -> FloatArray:
        """Gain of the better action on either side of each cut; rows of ``sums`` are apart."""
        low, n_low = np.cumsum(sums, axis=1)[:, :-1], np.cumsum(count, axis=1)[:, :-1]
        high, n_high = sums.sum(axis=1)[:, None] - low, count.sum(axis=1)[:, None] - n_low
        value = np.maximum(low, 0.0) + np.maximum(high, 0.0)
        return np.where(np.minimum(n_low, n_high) >= self.least, value, -np.inf)


def _cuts(column: FloatArray, most: int) -> FloatArray:
    distinct = np.unique(column)
    if distinct.size - 1 <= most:
        return distinct[:-1]
    shares = np.arange(1, most + 1) / (most + 1)
    cuts = np.unique(np.quantile(column, shares, method="lower"))
    return np.asarray(cuts[cuts < distinct[-1]])


def _assign(node: _Leaf | _Split, X: FloatArray, rows: IntArray, out: FloatArray) -> None:
    if isinstance(node, _Leaf):
        out[rows] = float(node.treat)
        return
    low = X[rows, node.feature] <= node.cut
    _assign(node.low, X, rows[low], out)
    _assign(node.high, X, rows[~low], out)


def _lines(node: _Leaf | _Split, names: tuple[str, ...], indent: str) -> list[str]:
    if isinstance(node, _Leaf):
        return [f"{indent}{'treat' if node.treat else 'do not treat'} all ({node.n:,})"]
    out = []
    for sign, part in (("<=", node.low), (">", node.high)):
        head = f"{indent}{names[node.feature]} {sign} {node.cut:.4g}:"
        if isinstance(part, _Leaf):
            out.append(f"{head} {'treat' if part.treat else 'do not treat'} ({part.n:,})")
        else:
            out += [head, *_lines(part, names, indent + "  ")]
    return out
