"""Choice among candidate nuisance learners by how little the estimate moves.

Generic in the functional. A multiply robust functional has an error that is a sum of products of
nuisance errors over the edges of a graph whose nodes are the nuisances, so it is right as soon as
the nuisances of one *vertex cover* are right. If a cover is learned well, swapping the learners
outside it must not move the estimate. The selector takes the estimate of every combination of
candidates on every split and returns the combination whose estimate moves least.

The average effect with an invalid instrument has the path omega - pi - beta - lambda - mu; a doubly
robust functional has the single edge propensity - outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MAX_COMBINATIONS",
    "NuisanceSelection",
    "check_combinations",
    "minimal_covers",
    "pseudo_risk",
    "select_nuisances",
    "softmin_weights",
]

MAX_COMBINATIONS = 1_000_000
CRITERIA = ("mixed-minimax", "minimax")
_BLOCK = 512
# Risks closer than this share of the largest risk differ only by rounding.
_TIE = 1e-12


def minimal_covers(edges: Sequence[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Minimal vertex covers of a graph: the smallest sets of nuisances that must be right.

    Parameters
    ----------
    edges : sequence of pairs
        Products of nuisance errors in the remainder of the score.

    Returns
    -------
    tuple of tuples
        Sets that meet every edge and of which no part does, smallest first; inside a set the nodes
        keep the order in which the edges name them.

    Examples
    --------
    >>> minimal_covers([("propensity", "outcome")])
    (('propensity',), ('outcome',))
    """
    nodes = tuple(dict.fromkeys(node for edge in edges for node in edge))
    found: list[tuple[str, ...]] = []
    for size in range(len(nodes) + 1):
        for subset in combinations(nodes, size):
            chosen = set(subset)
            covers = all(chosen & {left, right} for left, right in edges)
            if covers and not any(set(smaller) <= chosen for smaller in found):
                found.append(subset)
    return tuple(found)


def check_combinations(counts: Sequence[int], *, owner: str) -> int:
    """Count the combinations of candidates, and refuse more than one million."""
    total = int(np.prod([int(k) for k in counts], dtype=object))
    if total > MAX_COMBINATIONS:
        raise ParameterError(
            f"{owner}: {' x '.join(map(str, counts))} candidates make {total:,} combinations, more "
            f"than {MAX_COMBINATIONS:,}; give fewer candidates for some nuisances."
        )
    return total


@dataclass(frozen=True, slots=True)
class NuisanceSelection:
    """A chosen combination of candidate learners and the whole risk table behind it.

    Attributes
    ----------
    slots : tuple of str
        Nuisances, in the order of the axes of the arrays below.
    names : tuple of tuples of str
        Candidates of each nuisance.
    covers : tuple of tuples of str
        Sets of nuisances that make the estimate right when they are right.
    criterion : {"mixed-minimax", "minimax"}
        Rule that chose.
    parts : ndarray of shape (n_covers, K_1, ..., K_m)
        Squared movement of the estimate with each cover held fixed, the maximum over swaps of the
        other nuisances' learners, averaged over splits.
    risk : ndarray of shape (K_1, ..., K_m)
        Sum of the parts over covers (``"mixed-minimax"``) or their maximum (``"minimax"``).
    estimate : ndarray of shape (K_1, ..., K_m)
        Mean estimate of each combination over the splits.
    index : tuple of int
        The chosen combination.
    tied : int
        Combinations whose risk is the smallest up to rounding; 1 when the choice is unique.
    """

    slots: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    covers: tuple[tuple[str, ...], ...]
    criterion: str
    parts: FloatArray
    risk: FloatArray
    estimate: FloatArray
    index: tuple[int, ...]
    tied: int

    @property
    def chosen(self) -> dict[str, str]:
        """Chosen candidate of each nuisance."""
        return {
            slot: names[k]
            for slot, names, k in zip(self.slots, self.names, self.index, strict=True)
        }

    def to_frame(self, *, weights: FloatArray | None = None) -> pd.DataFrame:
        """Risk table, one row a combination, best first.

        Parameters
        ----------
        weights : ndarray of shape (K_1, ..., K_m), optional
            Weights of the combinations, for a last column ``weight``.

        Returns
        -------
        pandas.DataFrame
            One column a nuisance with the candidate's name, one column a cover with its part
            (``"part:pi+lambda"`` style), then ``risk``, ``estimate`` and ``selected``.
        """
        import pandas as pd

        grid = np.unravel_index(np.arange(self.risk.size), self.risk.shape)
        columns: dict[str, Any] = {
            slot: np.asarray(names, dtype=object)[index]
            for slot, names, index in zip(self.slots, self.names, grid, strict=True)
        }
        for cover, part in zip(self.covers, self.parts, strict=True):
            columns["part:" + "+".join(cover)] = part.ravel()
        chosen = np.zeros(self.risk.shape, dtype=bool)
        chosen[self.index] = True
        columns |= {
            "risk": self.risk.ravel(),
            "estimate": self.estimate.ravel(),
            "selected": chosen.ravel(),
        }
        if weights is not None:
            columns["weight"] = weights.ravel()
        # The chosen row first, also among rows whose risk is the same.
        order = np.lexsort((~chosen.ravel(), self.risk.ravel()))
        first = np.flatnonzero(chosen.ravel())
        order = np.concatenate([first, order[order != first[0]]])
        return pd.DataFrame(columns).iloc[order].reset_index(drop=True)


def select_nuisances(
    estimates: FloatArray,
    names: Mapping[str, Sequence[str]],
    *,
    covers: Sequence[Sequence[str]],
    criterion: str = "mixed-minimax",
    losses: Mapping[str, Sequence[float]] | None = None,
) -> NuisanceSelection:
    """Choose the combination of candidate learners whose estimate moves least.

    For a cover M and a combination k, the *mixed-minimax* rule looks at all pairs of combinations
    that agree with k on M and takes their largest mean squared difference over splits; it chooses
    the combination with the smallest sum over covers. The *minimax* rule compares k itself with
    those combinations and chooses the smallest maximum over covers.

    Parameters
    ----------
    estimates : ndarray of shape (n_splits, K_1, ..., K_m)
        Estimate of every combination on the validation part of every split. All combinations must
        use the same splits, clipping and floors.
    names : mapping of str to sequence of str
        Nuisances in the order of the axes, with the names of their candidates.
    covers : sequence of sequences of str
        Sets of nuisances; see :func:`minimal_covers`.
    criterion : {"mixed-minimax", "minimax"}, default "mixed-minimax"
        Rule.
    losses : mapping of str to sequence of float, optional
        Cross-validated predictive loss of each candidate. Ties in the risk go to the smaller sum of
        losses relative to the best in each nuisance, then to the order given.

    Returns
    -------
    NuisanceSelection
        Chosen combination and the risk table.

    Raises
    ------
    ParameterError
        Shapes, covers or the criterion do not fit, an estimate is not finite, or there are more
        than one million combinations.

    References
    ----------
    .. [1] Y. Cui and E. Tchetgen Tchetgen, "Selective machine learning of doubly robust
       functionals", Biometrika 111(2), 2024, doi:10.1093/biomet/asad055.
    .. [2] B. Sun, Y. Cui and E. Tchetgen Tchetgen, "Selective machine learning of the average
       treatment effect with an invalid instrumental variable", JMLR 23, 2022, arXiv:1907.11882.

    Examples
    --------
    Two propensity and two outcome learners of a doubly robust mean; with the second propensity
    learner the estimate does not care about the outcome learner:

    >>> estimates = np.array([[[1.0, 3.0], [2.0, 2.1]]])
    >>> chosen = select_nuisances(
    ...     estimates,
    ...     {"propensity": ["linear", "trees"], "outcome": ["linear", "trees"]},
    ...     covers=minimal_covers([("propensity", "outcome")]),
    ... )
    >>> chosen.chosen
    {'propensity': 'trees', 'outcome': 'trees'}
    """
    slots = tuple(names)
    candidates = tuple(tuple(names[slot]) for slot in slots)
    values = _check_estimates(estimates, slots, candidates)
    sets = _check_covers(covers, slots)
    parts = np.stack(
        [pseudo_risk(values, [slots.index(s) for s in cover], criterion) for cover in sets]
    )
    risk = parts.sum(axis=0) if criterion == "mixed-minimax" else parts.max(axis=0)
    index, tied = _smallest(risk, slots, losses)
    return NuisanceSelection(
        slots, candidates, sets, criterion, parts, risk, values.mean(axis=0), index, tied
    )


def _check_estimates(
    estimates: FloatArray, slots: tuple[str, ...], names: tuple[tuple[str, ...], ...]
) -> FloatArray:
    values = np.asarray(estimates, dtype=np.float64)
    counts = tuple(len(group) for group in names)
    if values.ndim != len(slots) + 1 or values.shape[1:] != counts or values.shape[0] == 0:
        raise ParameterError(
            f"select_nuisances: estimates has shape {values.shape}; the candidates need (n_splits, "
            f"{', '.join(map(str, counts))}) with n_splits at least 1."
        )
    check_combinations(counts, owner="select_nuisances")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ParameterError(
            f"select_nuisances: {bad} of {values.size} estimates are not finite; drop the "
            "candidates that produce them, or raise the clip and the floor."
        )
    return values


def _check_covers(
    covers: Sequence[Sequence[str]], slots: tuple[str, ...]
) -> tuple[tuple[str, ...], ...]:
    sets = tuple(tuple(cover) for cover in covers)
    unknown = sorted({slot for cover in sets for slot in cover} - set(slots))
    if unknown or not sets:
        raise ParameterError(
            f"select_nuisances: covers={list(sets)} must be sets of the nuisances {list(slots)}"
            + (f"; unknown: {unknown}." if unknown else " and there must be at least one.")
        )
    return sets


def pseudo_risk(values: FloatArray, fixed: Sequence[int], criterion: str) -> FloatArray:
    """Largest mean squared movement of the estimate with the axes ``fixed`` held.

    Parameters
    ----------
    values : ndarray of shape (n_splits, K_1, ..., K_m)
        Estimates.
    fixed : sequence of int
        Axes (0 is the first nuisance) of the cover.
    criterion : {"mixed-minimax", "minimax"}
        Maximum over all pairs of swaps, or over swaps away from the combination itself.

    Returns
    -------
    ndarray of shape (K_1, ..., K_m)
    """
    if criterion not in CRITERIA:
        raise ParameterError(f"criterion={criterion!r} must be one of {list(CRITERIA)}.")
    shape = values.shape[1:]
    free = [axis for axis in range(len(shape)) if axis not in fixed]
    order = [*fixed, *free]
    moved = np.moveaxis(values, 0, -1).transpose(*order, len(shape))
    groups = moved.reshape(int(np.prod([shape[a] for a in fixed], dtype=int)), -1, values.shape[0])
    if criterion == "mixed-minimax":
        diameter = np.array([_diameter(points) for points in groups])
        result = np.broadcast_to(diameter[:, None], groups.shape[:2])
    else:
        result = np.stack([_farthest(points) for points in groups])
    tensor = result.reshape([shape[a] for a in order])
    return np.ascontiguousarray(tensor.transpose(np.argsort(order)))


def _diameter(points: FloatArray) -> float:
    """Largest mean squared difference between two rows of ``points`` (m, n_splits)."""
    radius = np.sqrt(np.mean((points - points.mean(axis=0)) ** 2, axis=1))
    start = points[int(np.argmax(radius))]
    reached = np.sqrt(np.mean((points - start) ** 2, axis=1).max())
    # Triangle inequality: a pair can only beat `reached` if both ends lie far from the centre.
    keep = points[radius + radius.max() >= reached * (1.0 - 1e-12)]
    return max(float(block.max()) for block in _squared_distances(keep, keep))


def _farthest(points: FloatArray) -> FloatArray:
    """Mean squared difference from each row of ``points`` to the row farthest from it."""
    return np.concatenate([b.max(axis=1) for b in _squared_distances(points, points)])


def _squared_distances(left: FloatArray, right: FloatArray) -> Iterator[FloatArray]:
    """Yield blocks of rows of the matrix of mean squared differences.

    Differences are taken before squaring: the shorter ``x'x + y'y - 2 x'y`` loses the digits that
    tell two close combinations apart.
    """
    for first in range(0, len(left), _BLOCK):
        rows = left[first : first + _BLOCK]
        total = np.zeros((len(rows), len(right)))
        for split in range(left.shape[1]):
            total += (rows[:, split, None] - right[None, :, split]) ** 2
        yield total / left.shape[1]


def _smallest(
    risk: FloatArray, slots: tuple[str, ...], losses: Mapping[str, Sequence[float]] | None
) -> tuple[tuple[int, ...], int]:
    """Index of the smallest risk; ties by predictive loss, then by the order given."""
    tied = np.argwhere(risk <= risk.min() + _TIE * risk.max())
    if losses is not None and len(tied) > 1:
        relative = []
        for slot in slots:
            loss = np.asarray(losses[slot], dtype=np.float64)
            best = loss.min()
            relative.append(loss / best if best > 0 else loss - best)
        score = np.array([sum(r[k] for r, k in zip(relative, row, strict=True)) for row in tied])
        row = tied[int(np.argmin(score))]
    else:
        row = tied[0]
    return tuple(int(k) for k in row), len(tied)


def softmin_weights(risk: FloatArray, rate: float) -> FloatArray:
    """Weights proportional to ``exp(-rate * risk)``, summing to one."""
    weight = np.exp(-rate * (risk - risk.min()))
    return np.asarray(weight / weight.sum())
