"""What a budget buys if units are treated in order of effect per cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtri

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_level, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.forest import _toc
from causalfair.forest._origin import origin_of
from causalfair.forest._rate import check_origin, cluster_of_units, weights_of_units
from causalfair.inference import CovarianceEstimates

__all__ = ["CostCurve", "cost_curve"]

OWNER = "cost_curve"
GRID = np.linspace(0.02, 1.0, 50)


@dataclass(frozen=True)
class CostCurve:
    """Gain of treating in order of priority per cost, by budget.

    Attributes
    ----------
    estimates_ : Estimates
        ``area``: gain over spending the same at random, averaged over budgets.
    table : pandas.DataFrame
        Columns ``budget`` (share of the cost of treating all), ``spent`` and ``gain`` (a unit of
        the population), ``std_error``, ``random`` (gain of the same budget spent at random),
        ``lift`` and ``lift_std_error``.
    """

    _citations: ClassVar[tuple[str, ...]] = ("yadlowsky2025evaluating",)

    estimates_: Any
    table: Any

    def to_frame(self) -> Any:
        """The curve.

        Returns
        -------
        pandas.DataFrame
            A copy of ``table``.
        """
        return self.table.copy()

    def summary(self, level: float = 0.95) -> Any:
        """Printable table: area, and the gain of a few budgets.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table, estimates_table
        from causalfair.reporting.format import format_estimate

        rows = []
        for budget in (0.1, 0.2, 0.3, 0.5, 1.0):
            at = self.table.iloc[int(np.abs(self.table["budget"] - budget).argmin())]
            gain = format_estimate(at["gain"], at["std_error"])
            lift = format_estimate(at["lift"], at["lift_std_error"])
            rows.append([f"{budget:.0%}", gain.estimate, gain.std_error,
                         f"{at['random']:.3g}", lift.estimate, lift.std_error])  # fmt: skip
        columns = ["budget", "gain", "std. error", "at random", "more by", "std. error"]
        return Summary(
            "Gain by budget, in order of priority per cost", [],
            [estimates_table(self.estimates_, level), Table(columns, rows, None, "rrrrrr")],
            ["Area: gain beyond random spending, averaged over budgets.",
             "Valid if the priorities were learned on other data than the scores."],
        )  # fmt: skip

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def plot(self, *, ax: Any = None, level: float = 0.95) -> Any:
        """Draw the gain by budget with its pointwise band.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        level : float, default 0.95
            Level of the band.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        import pandas as pd

        from causalfair.reporting.plot import new_axes

        ax = new_axes(ax)
        table = self.table
        origin = table.iloc[:1] * 0.0  # nothing is gained for nothing
        table = pd.concat([origin, table], ignore_index=True)
        half = ndtri((1 + check_level(level)) / 2) * table["std_error"]
        ax.fill_between(
            table["budget"], table["gain"] - half, table["gain"] + half, alpha=0.18, linewidth=0
        )
        ax.plot(table["budget"], table["gain"], linewidth=2, label="by priority per cost")
        ax.plot(table["budget"], table["random"], color="0.4", linestyle=(0, (4, 3)),
                label="at random")  # fmt: skip
        ax.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
        ax.set_xlim(0.0, 1.0)
        ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        ax.set_xlabel("budget, as a share of what treating all would cost")
        ax.set_ylabel("gain a unit of the population")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        return ax


def cost_curve(
    priority: Any,
    scores: Any,
    cost: Any,
    *,
    cluster: Any = None,
    sample_weight: Any = None,
    priority_from: str = "other_data",
    n_bootstrap: int = 200,
    random_state: Any = None,
) -> CostCurve:
    """Gain by budget when units are treated in order of predicted effect per cost.

    Parameters
    ----------
    priority : array of shape (n_samples,)
        Predicted effects, learned on other data than the scores.
    scores : array of shape (n_samples,)
        Doubly robust scores.
    cost : array of shape (n_samples,) or float
        Cost of treating each unit, positive.
    cluster : array of shape (n_samples,), optional
        Clusters; half-samples draw whole ones.
    sample_weight : array of shape (n_samples,), optional
        Sampling weights.
    priority_from : {"other_data", "out_of_bag"}, default "other_data"
        ``"out_of_bag"`` accepts effects of the model that made the scores, as a heuristic.
    n_bootstrap : int, default 200
        Half-samples.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the half-samples.

    Returns
    -------
    CostCurve
        Curve, its area over random spending, and ``plot``.

    Raises
    ------
    DataError
        Lengths differ, or a cost is not positive.
    ParameterError
        Fewer than two half-samples; effects and scores of the same model and rows.

    Notes
    -----
    Gains are cumulative sums of scores over the sum of weights. A unit that the budget reaches in
    part counts in part, and units with equal effect per cost are treated alike. With equal costs
    the gain is ``q (TOC(q) + ATE)`` and the area is QINI but for half a unit.

    References
    ----------
    .. [1] S. Yadlowsky et al. (2025). Evaluating treatment prioritization rules via rank-weighted
       average treatment effects. Journal of the American Statistical Association 120, 38-51.
       doi:10.1080/01621459.2024.2393466

    Examples
    --------
    >>> from causalfair.forest import cost_curve
    >>> curve = cost_curve([4, 3, 2, 1.0], [4, 3, 2, 1.0], [1, 1, 2, 2.0], random_state=0)
    >>> bool(curve.estimates_.estimate[0] > 0)
    True
    """
    if not isinstance(n_bootstrap, int | np.integer) or n_bootstrap < 2:
        raise ParameterError(f"{OWNER}: n_bootstrap={n_bootstrap!r} must be 2 or more.")
    if priority_from not in ("other_data", "out_of_bag"):
        raise ParameterError(
            f"{OWNER}: priority_from={priority_from!r} is neither 'other_data' nor 'out_of_bag'."
        )
    check_origin(origin_of(priority), origin_of(scores), priority_from, OWNER)
    gamma = check_numeric(scores, "scores", owner=OWNER)
    effect = check_numeric(priority, "priority", owner=OWNER)
    price = np.full(gamma.size, cost, float) if np.ndim(cost) == 0 else cost
    price = check_numeric(price, "cost", owner=OWNER)
    check_lengths(owner=OWNER, scores=gamma, priority=effect, cost=price)
    if (price <= 0).any():
        raise DataError(
            f"{OWNER}: cost has {int((price <= 0).sum())} value(s) that are not positive; the "
            "order by effect per cost needs positive costs."
        )
    weight = weights_of_units(sample_weight, gamma, OWNER)
    codes = None if cluster is None else cluster_of_units(cluster, gamma, OWNER)
    ranking = _toc.rank_units(effect / price, gamma, weight)
    sorted_price = price[ranking.order]
    gain, random, spent, area = _curve(ranking, sorted_price, slice(None))
    root = root_seed(random_state)
    draws = [
        _curve(ranking, sorted_price, _toc.half_samples(ranking, codes, generator(root, r)))
        for r in range(n_bootstrap)
    ]
    spread = np.std([draw[0] for draw in draws], axis=0, ddof=1)
    lift = np.std([draw[0] - draw[1] for draw in draws], axis=0, ddof=1)
    variance = np.var([draw[3] for draw in draws], ddof=1)
    return CostCurve(
        CovarianceEstimates([area], [[variance]], ["area"]),
        _table(gain, spread, random, lift, spent),
    )


def _table(
    gain: FloatArray, error: FloatArray, random: FloatArray, lift: FloatArray, spent: FloatArray
) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {"budget": GRID, "spent": spent, "gain": gain, "std_error": error, "random": random,
         "lift": gain - random, "lift_std_error": lift}
    )  # fmt: skip


def _curve(ranking: _toc.Ranking, price: FloatArray, keep: Any) -> Any:
    """Gain, gain at random and money spent on the grid of budgets, and the area between."""
    weight, tie = ranking.weight[keep], ranking.tie[keep]
    first = np.flatnonzero(np.diff(tie, prepend=-1))
    total = weight.sum()
    gained = np.cumsum(np.add.reduceat(weight * ranking.score[keep], first)) / total
    paid = np.cumsum(np.add.reduceat(weight * price[keep], first)) / total
    gained, paid = np.r_[0.0, gained], np.r_[0.0, paid]
    spent = GRID * paid[-1]
    gain = np.interp(spent, paid, gained)
    share = paid / paid[-1]
    area = float(np.sum(np.diff(share) * (gained[1:] + gained[:-1]) / 2) - gained[-1] / 2)
    return gain, GRID * gained[-1], spent, area
