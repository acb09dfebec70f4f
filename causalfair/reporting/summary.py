"""Tables and summaries that render as text, HTML, LaTeX and Markdown."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causalfair.exceptions import ParameterError
from causalfair.reporting import _render
from causalfair.reporting.format import format_estimate, format_p, format_percent

if TYPE_CHECKING:
    from causalfair.inference import Estimates

__all__ = ["Summary", "Table", "estimates_table"]


@dataclass(frozen=True)
class Table:
    """A table of text, ready to print.

    Parameters
    ----------
    columns : sequence of str
        Column headings; the first column names the rows and may have an empty heading.
    rows : sequence of sequence of str
        Cells, one sequence a row, each as long as ``columns``. Cells that are not text are turned
        into text by ``str``.
    title : str, optional
        Caption.
    align : str, optional
        One letter a column, ``"l"`` or ``"r"``. By default the first column is set left, and every
        other column right if all its cells are numbers, intervals or p-values, else left.
    data : DataFrame, optional
        The numbers behind the text, which :meth:`to_frame` returns when they are given.

    Examples
    --------
    >>> print(Table(["", "estimate", "95% interval"], [["ATE", "7.6", "[3.3, 11.9]"]]))
           estimate   95% interval
     ATE        7.6    [3.3, 11.9]
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None
    align: str | None = None
    data: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        columns = tuple(str(name) for name in self.columns)
        rows = tuple(tuple(str(cell) for cell in row) for row in self.rows)
        for number, row in enumerate(rows):
            if len(row) != len(columns):
                raise ParameterError(
                    f"Table has {len(columns)} columns, but row {number} has {len(row)} cells: "
                    f"{list(row)}. Give every row one cell a column."
                )
        align = self.align or _default_align(columns, rows)
        if len(align) != len(columns) or set(align) - {"l", "r"}:
            raise ParameterError(
                f"align={self.align!r} does not fit {len(columns)} columns; give one letter a "
                f"column, 'l' or 'r'."
            )
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "align", align)

    @property
    def _sides(self) -> str:
        return self.align or ""

    def __str__(self) -> str:
        body = _render.text_table(self.columns, self.rows, self._sides)
        if not self.title:
            return body
        return "\n".join([*_render.text_paragraph(" " + self.title), body])

    def _html_table(self) -> str:
        return _render.html_table(self.columns, self.rows, self._sides, self.title)

    def _repr_html_(self) -> str:
        return _render.html_block([self._html_table()], self.title or "Table")

    def to_latex(self) -> str:
        """Write the table as a ``tabular`` that needs no package but booktabs.

        Returns
        -------
        str
            LaTeX source, escaped; the title is not part of it.
        """
        return _render.latex_table(self.columns, self.rows, self._sides)

    def to_markdown(self) -> str:
        """Write the table as a Markdown pipe table.

        Returns
        -------
        str
            Markdown source, the title in bold above the table.
        """
        body = _render.markdown_table(self.columns, self.rows, self._sides)
        return f"**{_render.markdown_escape(self.title)}**\n\n{body}" if self.title else body

    def to_frame(self) -> Any:
        """Return the table as a data frame.

        Returns
        -------
        DataFrame
            The numbers behind the table where there are any, else a pandas frame of its text.
        """
        if self.data is not None:
            return self.data
        import pandas as pd

        return pd.DataFrame([list(row) for row in self.rows], columns=list(self.columns))


@dataclass(frozen=True)
class Summary:
    """A result as a referee wants to read it: title, facts, tables and notes.

    Parameters
    ----------
    title : str
        First line.
    header : sequence of (str, str)
        Facts as label and value: roles, number of rows, folds, kind of standard error.
    tables : sequence of Table
        Tables; the first is the main one.
    notes : sequence of str
        Sentences below the tables: assumptions, warnings, how to cite.

    Examples
    --------
    >>> table = Table(["", "estimate"], [["ATE", "7.6"]])
    >>> print(Summary("Average effect", [("outcome", "net_tfa"), ("n", "9,275")], [table], []))
    Average effect
     outcome: net_tfa    n: 9,275
    <BLANKLINE>
           estimate
     ATE        7.6
    """

    title: str
    header: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        pairs = tuple((str(label), str(value)) for label, value in self.header)
        object.__setattr__(self, "header", pairs)
        object.__setattr__(self, "tables", tuple(self.tables))
        object.__setattr__(self, "notes", tuple(str(note) for note in self.notes))

    def __str__(self) -> str:
        top = "\n".join(_render.text_paragraph(self.title, hanging=" "))
        if self.header:
            top += "\n" + _render.text_pairs(self.header)
        notes = [line for note in self.notes for line in _render.text_paragraph(" " + note)]
        return "\n\n".join([top, *map(str, self.tables), *(["\n".join(notes)] if notes else [])])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        parts = [
            f'<p class="title">{html.escape(self.title)}</p>',
            _render.html_pairs(self.header),
            *[table._html_table() for table in self.tables],
            f"<ul>{notes}</ul>" if notes else "",
        ]
        return _render.html_block(parts, self.title)

    def to_latex(self, *, label: str | None = None) -> str:
        r"""Write the summary as a ``table`` float that needs no package but booktabs.

        Parameters
        ----------
        label : str, optional
            Label for ``\ref``.

        Returns
        -------
        str
            LaTeX source: the title as caption, the tables, then header and notes in small print.
        """
        escape = _render.latex_escape
        facts = "; ".join(f"{name}: {value}" if name else value for name, value in self.header)
        small = [escape(text) for text in (facts, *self.notes) if text]
        blocks = []
        for table in self.tables:
            title = f"\\emph{{{escape(table.title)}}}\\par\n" if table.title else ""
            blocks.append(title + table.to_latex())
        lines = ["\\begin{table}[htbp]", "\\centering", f"\\caption{{{escape(self.title)}}}"]
        if label:
            lines.append(f"\\label{{{label}}}")
        lines.append("\n\\par\\medskip\n".join(blocks))
        if small:
            lines.append("\\par\\medskip")
            lines.append("\\parbox{\\linewidth}{\\footnotesize " + "\\par\n".join(small) + "}")
        return "\n".join([*lines, "\\end{table}"])

    def to_markdown(self) -> str:
        """Write the summary as Markdown.

        Returns
        -------
        str
            Markdown source: heading, facts, tables and notes.
        """
        escape = _render.markdown_escape
        facts = " · ".join(
            f"{escape(name)}: **{escape(value)}**" if name else escape(value)
            for name, value in self.header
        )
        notes = "\n".join(f"- {escape(note)}" for note in self.notes)
        parts = [
            f"### {escape(self.title)}",
            facts,
            *(table.to_markdown() for table in self.tables),
            notes,
        ]
        return "\n\n".join(part for part in parts if part)

    def to_frame(self) -> Any:
        """Return the main table as a data frame.

        Returns
        -------
        DataFrame
            The first table, see :meth:`Table.to_frame`.

        Raises
        ------
        ParameterError
            The summary has no table.
        """
        if not self.tables:
            raise ParameterError(f"The summary {self.title!r} has no table to turn into a frame.")
        return self.tables[0].to_frame()


def estimates_table(
    estimates: Estimates, level: float = 0.95, *, title: str | None = None
) -> Table:
    """Lay estimates out as a table: point, standard error, interval and p-value.

    Parameters
    ----------
    estimates : Estimates
        Any estimates of :mod:`causalfair.inference`.
    level : float, default=0.95
        Level of the pointwise intervals.
    title : str, optional
        Caption of the table.

    Returns
    -------
    Table
        One row a term; standard errors have two significant digits, estimate and interval the
        same decimals. The p-value is that of the null of zero. ``to_frame`` gives the numbers.
    """
    intervals = estimates.conf_int(level=level)
    p_values = estimates.p_value()
    rows = []
    for j, name in enumerate(estimates.names):
        cells = format_estimate(
            float(estimates.estimate[j]),
            float(estimates.std_error[j]),
            float(intervals[j, 0]),
            float(intervals[j, 1]),
        )
        row = [str(name), cells.estimate, cells.std_error, cells.interval]
        # A term held fixed is not tested; "n/a" would say that a test was wanted.
        fixed = estimates.std_error[j] == 0 and math.isnan(p_values[j])
        rows.append([*row, "" if fixed else format_p(float(p_values[j]))])
    columns = ["", "estimate", "std. error", f"{format_percent(level, 3)} interval", "p"]
    return Table(columns, rows, title, "lrrrr", estimates.to_frame(level=level))


def _default_align(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    sides = ["l"] * len(columns)
    for j in range(1, len(columns)):
        if rows and all(_render.is_numeric_cell(row[j]) for row in rows):
            sides[j] = "r"
    return "".join(sides)
