"""Randomisation test of the hypothesis that the effect is the same for all."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_binary, check_lengths, check_no_missing, check_numeric
from causalfair.exceptions import DataError, IdentificationError, ParameterError
from causalfair.inference import HypothesisTest

__all__ = ["randomization_test"]

OWNER = "randomization_test"
BLOCK = 64  # assignments held at a time


def randomization_test(
    priority: Any,
    y: Any,
    *,
    treatment: Any,
    outcome: Any = None,
    strata: Any = None,
    cluster: Any = None,
    statistic: str = "qini",
    n_draws: int = 1000,
    random_state: Any = None,
) -> HypothesisTest:
    """Test "the effect is the same for all" by drawing the assignment again as it was drawn.

    Parameters
    ----------
    priority : array of shape (n_samples,)
        Any fixed score, made without these outcomes: effects predicted by a model of other units,
        a baseline covariate, an image feature.
    y : array of shape (n_samples,)
        Outcome.
    treatment : array of shape (n_samples,)
        Binary treatment.
    outcome : array of shape (n_samples,), optional
        Predictions of the outcome that do not use the treatment of the unit, to take out noise; the
        mean of the stratum when None.
    strata : array of shape (n_samples,), optional
        Strata within which treatment was assigned, a fixed number in each.
    cluster : array of shape (n_samples,), optional
        Groups that were assigned as a whole; the treatment must be constant in each.
    statistic : {"qini", "loss"}, default "qini"
        QINI of the priority, or the fall of the R-loss when the priority replaces a constant effect
        (the priority then has to be a predicted effect).
    n_draws : int, default 1000
        Assignments drawn.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    HypothesisTest
        One-sided: large values say that units of high priority gain more.

    Raises
    ------
    DataError
        Lengths differ, or strata divide a cluster.
    IdentificationError
        A stratum has one arm only, or the treatment varies within a cluster.
    ParameterError
        Unknown statistic, or too few draws.

    Notes
    -----
    Under a constant effect the outcome of every unit under another assignment is known up to the
    effect; the average effect is put in for it and estimated anew in every draw. The p-value is
    ``(1 + #{T* >= T}) / (1 + n_draws)``. It is exact if the effect is known, and correct in large
    samples with the estimate.

    References
    ----------
    .. [1] P. Ding, A. Feller and L. Miratrix (2016). Randomization inference for treatment effect
       variation. Journal of the Royal Statistical Society B 78, 655-671, section 3.
       doi:10.1111/rssb.12124

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.forest import randomization_test
    >>> rng = np.random.default_rng(0)
    >>> x, w = rng.normal(size=(2, 200)), np.arange(200) % 2
    >>> y = w * (1 + x[0]) + x[1]
    >>> randomization_test(x[0], y, treatment=w, random_state=0).p_value < 0.01
    True
    """
    if statistic not in ("qini", "loss"):
        raise ParameterError(f"{OWNER}: statistic={statistic!r} is neither 'qini' nor 'loss'.")
    if not isinstance(n_draws, int | np.integer) or n_draws < 19:
        raise ParameterError(f"{OWNER}: n_draws={n_draws!r} must be 19 or more, for p = 0.05.")
    score = check_numeric(priority, "priority", owner=OWNER)
    target = check_numeric(y, "y", owner=OWNER)
    w = check_binary(np.asarray(treatment), "treatment", owner=OWNER).values
    check_lengths(owner=OWNER, y=target, priority=score, treatment=w)
    if np.ptp(w) == 0:
        raise IdentificationError(
            f"{OWNER}: treatment takes one value in all {w.size} units; it must vary."
        )
    block = _codes(strata, "strata", target.size)
    design = _Assignment(w, block, None if cluster is None else _codes(cluster, "cluster", w.size))
    mean = np.bincount(block, weights=target) / np.bincount(block)
    expected = mean[block] if outcome is None else check_numeric(outcome, "outcome", owner=OWNER)
    check_lengths(owner=OWNER, y=target, outcome=expected)
    weigh = _qini_weights(score) if statistic == "qini" else score - score.mean()
    value, residual = _observed(target - expected, w, design.probability, weigh, statistic)
    root = root_seed(random_state)
    larger = 0
    for start in range(0, n_draws, BLOCK):
        count = min(BLOCK, n_draws - start)
        drawn = np.column_stack([design.draw(generator(root, start + b)) for b in range(count)])
        again = _statistics(residual, drawn, design.probability, weigh, statistic)
        larger += int((again >= value - 1e-12 * abs(value)).sum())
    return HypothesisTest(
        "randomisation", "one effect for all", value, (1 + larger) / (1 + n_draws), None,
        "QINI" if statistic == "qini" else "fall of the R-loss",
    )  # fmt: skip


class _Assignment:
    """Complete randomisation of units or clusters within strata."""

    def __init__(self, w: FloatArray, block: IntArray, cluster: IntArray | None) -> None:
        self.unit = np.arange(w.size) if cluster is None else cluster
        first = np.unique(self.unit, return_index=True)[1]
        self.w, self.block = w[first], block[first]
        if (self.w[self.unit] != w).any():
            raise IdentificationError(
                f"{OWNER}: the treatment varies within clusters, so clusters were not assigned as "
                "a whole. Leave cluster out; give strata=cluster if it was drawn within each."
            )
        if (self.block[self.unit] != block).any():
            raise DataError(f"{OWNER}: strata divide a cluster; give strata of whole clusters.")
        size = np.bincount(self.block)
        share = np.bincount(self.block, weights=self.w) / size
        if ((share == 0) | (share == 1)).any():
            raise IdentificationError(
                f"{OWNER}: {int(((share == 0) | (share == 1)).sum())} of {size.size} strata have "
                "one arm only; leave those units out or merge strata."
            )
        self.probability: FloatArray = share[self.block][self.unit]
        self.order = np.argsort(self.block, kind="stable")

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """Another assignment of the units, (n,)."""
        # Sorting by (stratum, random number) puts a random order within each stratum.
        shuffled = np.lexsort((rng.random(self.w.size), self.block))
        drawn = np.empty_like(self.w)
        drawn[shuffled] = self.w[self.order]
        return np.asarray(drawn[self.unit])


def _codes(values: Any, name: str, n: int) -> IntArray:
    if values is None:
        return np.zeros(n, dtype=np.intp)
    array = np.asarray(values)
    check_no_missing(array, name, owner=OWNER)
    if array.shape != (n,):
        raise DataError(f"{OWNER}: {name} has shape {array.shape} for {n} units.")
    return np.asarray(np.unique(array, return_inverse=True)[1], dtype=np.intp)


def _qini_weights(score: FloatArray) -> FloatArray:
    """Weights c with QINI = sum(c * scores), averaged over ties; they sum to zero."""
    n = score.size
    _, code, count = np.unique(-score, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    middle = last - (count - 1) / 2  # mean rank from the top
    return np.asarray((((n + 1) / 2 - middle) / n**2)[code.ravel()])


def _observed(
    centred: FloatArray, w: FloatArray, e: FloatArray, weigh: FloatArray, statistic: str
) -> tuple[float, FloatArray]:
    """Statistic of the data, and what is left of outcomes under a constant effect."""
    tilt = (w - e) / (e * (1 - e))
    effect = (tilt * centred).sum() / (tilt * (w - e)).sum()
    residual = centred - (w - e) * effect
    return float(_statistics(residual, w[:, None], e, weigh, statistic)[0]), residual


def _statistics(
    residual: FloatArray, drawn: FloatArray, e: FloatArray, weigh: FloatArray, statistic: str
) -> FloatArray:
    """Statistics (B,) of assignments (n, B), the constant effect estimated anew in each."""
    step = drawn - e[:, None]
    tilt = step / (e * (1 - e))[:, None]
    shift = (tilt * residual[:, None]).sum(axis=0) / (tilt * step).sum(axis=0)
    left = residual[:, None] - step * shift
    if statistic == "qini":
        return np.asarray(weigh @ (tilt * left))
    moved = step * weigh[:, None]
    return np.asarray((2 * left * moved - moved**2).mean(axis=0))
