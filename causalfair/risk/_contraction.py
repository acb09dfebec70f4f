"""Evaluate a risk score where outcomes are seen for released cases only, by contraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, RandomState
from causalfair._core.validation import check_binary, check_lengths, check_level, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.reporting.plot import new_axes

__all__ = ["ContractionCurve", "contraction_curve"]


@dataclass(frozen=True)
class ContractionCurve:
    """Failure rate of a risk score at every acceptance rate that can be evaluated.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row a rate: ``acceptance_rate, failure_rate, conf_low, conf_high``.
    decision_maker : object
        The most lenient decision maker, whose cases are used.
    n_cases : int
        Number of these cases.
    makers : pandas.DataFrame
        One row a decision maker: ``decision_maker, n, acceptance_rate, failure_rate``.
    level : float
        Level of the intervals.
    """

    frame: Any
    decision_maker: Any
    n_cases: int
    makers: Any
    level: float

    def to_frame(self) -> Any:
        """The curve as a table.

        Returns
        -------
        pandas.DataFrame
            A copy of ``frame``.
        """
        return self.frame.copy()

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the curve with its band, and every decision maker as a point.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        ax = new_axes(ax)
        f = self.frame
        ax.fill_between(
            f["acceptance_rate"], f["conf_low"], f["conf_high"], alpha=0.25, linewidth=0
        )
        ax.plot(f["acceptance_rate"], f["failure_rate"], label="risk score")
        ax.plot(
            self.makers["acceptance_rate"], self.makers["failure_rate"], "o", color="0.45",
            markersize=4, label="decision makers",
        )  # fmt: skip
        ax.set_xlabel("acceptance rate")
        ax.set_ylabel("failures, share of all cases")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        return ax


def contraction_curve(
    risk: Any,
    y: Any,
    *,
    tested: Any,
    decision_maker: Any,
    rates: Any = None,
    level: float = 0.95,
    n_bootstrap: int = 999,
    random_state: RandomState = None,
) -> ContractionCurve:
    """Failure rate of deciding by a risk score, from the cases of the most lenient decision maker.

    Outcomes of cases that were not accepted are unknown. But among the cases of the decision maker
    who accepts most, a score that accepts fewer only has to refuse some that were accepted: drop
    the riskiest of them until the wanted share of *all* her cases is left, and count failures [1]_.

    Parameters
    ----------
    risk : array of shape (n_samples,)
        The score; higher is riskier.
    y : array of shape (n_samples,)
        Failure, 0 or 1; ignored, and may be NaN, where ``tested`` is 0.
    tested : array of shape (n_samples,)
        Who was accepted (released, lent to): where the outcome was seen.
    decision_maker : array of shape (n_samples,)
        Who decided.
    rates : array of shape (m,), optional
        Acceptance rates; 25 from 0 to that of the chosen decision maker when None.
    level : float, default 0.95
        Level of the pointwise intervals.
    n_bootstrap : int, default 999
        Resamples of her cases.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the resamples.

    Returns
    -------
    ContractionCurve
        ``to_frame()``, ``plot()``.

    Raises
    ------
    DataError
        Lengths differ, a risk or an outcome of an accepted case is missing, or it is not binary.
    ParameterError
        A rate above that of the most lenient decision maker.

    Notes
    -----
    Cases must be assigned to decision makers at random: otherwise her cases are not like the
    others'. In a resample in which she accepts less than a rate, all she accepted count.

    References
    ----------
    .. [1] Lakkaraju, H., Kleinberg, J., Leskovec, J., Ludwig, J. and Mullainathan, S. (2017). The
       selective labels problem. KDD, 275-284. doi:10.1145/3097983.3098066

    Examples
    --------
    >>> from causalfair.datasets import make_judges
    >>> from causalfair.risk import contraction_curve
    >>> frame, truth = make_judges(3000, 10, random_state=0)
    >>> curve = contraction_curve(
    ...     frame["x"], frame["y"], tested=frame["released"], decision_maker=frame["judge"],
    ...     rates=[0.3, 0.5], random_state=0)
    >>> list(curve.to_frame().columns)
    ['acceptance_rate', 'failure_rate', 'conf_low', 'conf_high']
    """
    owner = "contraction_curve"
    check_level(level)
    if n_bootstrap < 20:
        raise ParameterError(f"{owner} got n_bootstrap={n_bootstrap}; use at least 20.")
    score = check_numeric(risk, "risk", owner=owner)
    accepted = check_binary(tested, "tested", owner=owner).values == 1
    maker = np.asarray(decision_maker)
    outcome = np.asarray(y, dtype=float)
    check_lengths(owner=owner, risk=score, y=outcome, tested=accepted, decision_maker=maker)
    bad = accepted & ~np.isin(outcome, (0.0, 1.0))
    if bad.any():
        raise DataError(
            f"{owner}: y must be 0 or 1 where tested is 1; row {int(np.flatnonzero(bad)[0])} has "
            f"{outcome[bad][0]} ({int(bad.sum())} such row(s))."
        )
    makers = _makers(maker, accepted, outcome)
    best = int(np.argmax(makers["acceptance_rate"].to_numpy()))
    chosen, top = makers["decision_maker"].iloc[best], float(makers["acceptance_rate"].iloc[best])
    if not top > 0:
        raise DataError(f"{owner}: no case was accepted, so no outcome is known.")
    grid = np.linspace(0.0, top, 26)[1:] if rates is None else np.asarray(rates, dtype=float)
    if (grid <= 0).any() or (grid > top + 1e-12).any():
        raise ParameterError(
            f"{owner} got rates from {grid.min():.3g} to {grid.max():.3g}; they must lie in "
            f"(0, {top:.3g}], the acceptance rate of {chosen!r}, who accepts most."
        )
    hers = maker == chosen
    order = np.argsort(np.where(accepted, score, np.inf)[hers], kind="stable")
    kept = accepted[hers][order]
    failed = np.where(kept, outcome[hers][order], 0.0)
    curve = _failures(np.ones((1, len(kept))), kept, failed, grid)[0]
    rng = generator(root_seed(random_state), 0)
    draws = np.vstack(
        [
            _failures(
                rng.multinomial(len(kept), np.full(len(kept), 1 / len(kept)), size=block), kept,
                failed, grid,
            )
            for block in _blocks(n_bootstrap, len(kept))
        ]
    )  # fmt: skip
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    import pandas as pd

    frame = pd.DataFrame(
        {"acceptance_rate": grid, "failure_rate": curve, "conf_low": low, "conf_high": high}
    )
    return ContractionCurve(frame, chosen, int(hers.sum()), makers, level)


def _makers(maker: Any, accepted: Any, outcome: FloatArray) -> Any:
    import pandas as pd

    names, codes = np.unique(maker, return_inverse=True)
    n = np.bincount(codes)
    failures = np.bincount(codes, weights=np.where(accepted, np.nan_to_num(outcome), 0.0))
    return pd.DataFrame(
        {
            "decision_maker": names,
            "n": n,
            "acceptance_rate": np.bincount(codes, weights=accepted) / n,
            "failure_rate": failures / n,
        }
    )


def _failures(weight: Any, kept: Any, failed: FloatArray, grid: FloatArray) -> FloatArray:
    """Failure rates (B, m): cases in order of risk, accepted first, with weights (B, n)."""
    total = weight.sum(axis=1)
    cases = np.cumsum(weight * kept, axis=1)
    failures = np.cumsum(weight * failed, axis=1)
    out = np.empty((len(weight), len(grid)))
    for b in range(len(weight)):
        # The case at the margin counts in part, so that the curve is continuous.
        x = np.concatenate([[0.0], cases[b]])
        f = np.concatenate([[0.0], failures[b]])
        out[b] = np.interp(grid * total[b], x, f) / total[b]
    return out


def _blocks(count: int, n: int) -> list[int]:
    """Sizes of blocks of resamples that hold about two million weights."""
    size = max(1, 2_000_000 // max(n, 1))
    return [min(size, count - done) for done in range(0, count, size)]
