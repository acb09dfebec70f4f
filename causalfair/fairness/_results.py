"""Tables of findings: text, HTML, frames and plots from one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from causalfair.reporting import Summary


@dataclass(frozen=True, repr=False, eq=False)
class AuditTable:
    """A titled table with notes.

    Parameters
    ----------
    title : str
        What the table shows.
    data : pandas.DataFrame
        The numbers.
    notes : tuple of str
        What a reader must know next to the numbers.
    headings : mapping of str to str
        Columns shown and their headings; all when empty.
    plotter : callable, optional
        Draws the table on given axes.
    extra : object
        What the table was made from: test objects, curves, estimates.

    Examples
    --------
    >>> import pandas as pd
    >>> from causalfair.fairness import AuditTable
    >>> AuditTable("Shares", pd.DataFrame({"group": [0, 1], "share": [0.6, 0.4]})).to_frame().shape
    (2, 2)
    """

    title: str
    data: Any
    notes: tuple[str, ...] = ()
    headings: Mapping[str, str] | None = None
    plotter: Callable[[Any, Any], Any] | None = None
    extra: Any = None

    def to_frame(self) -> Any:
        """The numbers as a pandas frame (a copy).

        Returns
        -------
        pandas.DataFrame
            The numbers, a copy.
        """
        return self.data.copy()

    def summary(self) -> Summary:
        """The table as a :class:`causalfair.reporting.Summary`.

        Returns
        -------
        causalfair.reporting.Summary
            Title, table and notes.
        """
        from causalfair.reporting import Summary, Table

        shown = self.headings or {str(c): str(c).replace("_", " ") for c in self.data.columns}
        rows = [
            [format_cell(value, column) for value, column in zip(record, shown, strict=True)]
            for record in self.data[list(shown)].itertuples(index=False, name=None)
        ]
        return Summary(
            self.title, [], [Table(list(shown.values()), rows, data=self.data)], list(self.notes)
        )

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the table where it has a picture.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.exceptions import ParameterError
        from causalfair.reporting.plot import new_axes

        if self.plotter is None:
            raise ParameterError(f"the table {self.title!r} has no picture; use to_frame().")
        return self.plotter(self, new_axes(ax))

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def __len__(self) -> int:
        return len(self.data)


def format_cell(value: Any, column: str = "") -> str:
    """Short text of one cell: numbers to four decimals, p-values and counts as such."""
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return _format_float(float(value), column)
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)


def _format_float(number: float, column: str) -> str:
    if not np.isfinite(number):
        return "n/a" if np.isnan(number) else f"{number}"
    if column == "p_value":
        from causalfair.reporting import format_p

        return format_p(number)
    if column == "df" or (abs(number) >= 1 and number == int(number)):
        return f"{number:.0f}"
    if number != 0 and not 1e-3 <= abs(number) < 1e5:
        return f"{number:.2g}"
    return f"{number:.4f}" if abs(number) < 10 else f"{number:.1f}"


def interval_plot(table: AuditTable, ax: Any) -> Any:
    """Horizontal intervals, one row a line of the table; identified sets as thick bars."""
    data = table.data
    shown = [c for c in ("method", "term") if c in data.columns]
    if len(shown) == 2 and data["term"].nunique() == 1:  # the axis says which gap it is
        shown = ["method"]
    labels = [" ".join(str(row[c]) for c in shown) for _, row in data.iterrows()]
    position = np.arange(len(data))[::-1]
    for y, (_, row) in zip(position, data.iterrows(), strict=True):
        low, high, value = row["conf_low"], row["conf_high"], row["estimate"]
        if not np.isfinite(low) or not np.isfinite(high):
            ax.text(0.0, y, "not estimable", va="center", fontsize="small", color="0.4")
            continue
        ax.plot([low, high], [y, y], color="0.3", linewidth=1.2)
        if "bound_low" in data.columns and np.isfinite(row["bound_low"]):
            ax.plot(
                [row["bound_low"], row["bound_high"]],
                [y, y],
                color="0.3",
                linewidth=4.0,
                solid_capstyle="butt",
                alpha=0.6,
            )
        if np.isfinite(value):
            ax.plot([value], [y], "o", color="C0", markersize=5)
    ax.axvline(0.0, color="0.7", linewidth=0.8)
    ax.set_yticks(position, labels)
    ax.set_xlabel(str(data["term"].iloc[0]) if shown == ["method"] else "gap")
    ax.spines[["top", "right"]].set_visible(False)
    return ax
