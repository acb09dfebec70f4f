"""Tables as text, HTML, LaTeX and Markdown: pure functions on strings."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

WIDTH = 88
_GAP = 3
_MIN_COLUMN = 8
_LATEX_TEXT_COLUMN = 32

# The characters a cell of a statistics table starts with, when the cell holds numbers.
_NUMERIC = re.compile(r"[\[({<>]?\s*[-+−]?(\d|\.\d|inf\b|n/a$)|^$")

STYLE = """\
<style>
.causalfair { overflow-x: auto; max-width: 60em; color: inherit; }
.causalfair table { border-collapse: collapse; margin: .6em 0; color: inherit; background: none; }
.causalfair caption { text-align: left; font-weight: 600; padding: .2em 0; color: inherit; }
.causalfair th, .causalfair td { padding: .2em .9em .2em 0; vertical-align: top; border: 0;
  background: none; color: inherit; text-align: left; font-weight: 400; }
.causalfair thead tr > * { border-bottom: 1px solid currentColor; font-weight: 600; }
.causalfair tbody tr:last-child > * { border-bottom: 1px solid currentColor; }
.causalfair .num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.causalfair .title { font-weight: 600; font-size: 1.1em; margin: .4em 0; }
.causalfair dl { display: flex; flex-wrap: wrap; gap: .1em 1.6em; margin: .4em 0; }
.causalfair dl > div { display: flex; gap: .45em; }
.causalfair dt { font-weight: 400; opacity: .75; }
.causalfair dt, .causalfair dd { margin: 0; }
.causalfair ul { margin: .4em 0; padding-left: 1.2em; font-size: .92em; }
</style>"""


def is_numeric_cell(text: str) -> bool:
    """Say whether a cell holds a number, an interval, a p-value, or nothing."""
    return _NUMERIC.match(text) is not None


# ---------------------------------------------------------------------------- text


def text_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], align: str, *, width: int = WIDTH
) -> str:
    """Lay a table out in at most ``width`` columns, wrapping the widest text columns."""
    cells = [list(columns), *[list(row) for row in rows]]
    widths = _fit_widths(cells, align, width - 1 - _GAP * (len(columns) - 1))
    lines = []
    for row in cells:
        wrapped = [_wrap_cell(text, size) for text, size in zip(row, widths, strict=True)]
        for parts in zip_longest(*wrapped, fillvalue=""):
            placed = [
                part.rjust(size) if side == "r" else part.ljust(size)
                for part, size, side in zip(parts, widths, align, strict=True)
            ]
            lines.append((" " + (" " * _GAP).join(placed)).rstrip())
    return "\n".join(lines)


def _fit_widths(cells: Sequence[Sequence[str]], align: str, available: int) -> list[int]:
    """Natural widths, cut at the widest column (text before numbers) until the table fits."""
    widths = [max(len(text) for text in column) for column in zip(*cells, strict=True)]
    while sum(widths) > available:
        text = [j for j, side in enumerate(align) if side == "l" and widths[j] > _MIN_COLUMN]
        candidates = text or list(range(len(widths)))
        widest = max(candidates, key=lambda j: widths[j])
        if widths[widest] <= 1:
            break
        widths[widest] -= 1
    return widths


def _wrap_cell(text: str, size: int) -> list[str]:
    if len(text) <= size:
        return [text]
    return textwrap.wrap(text, size, break_long_words=True, break_on_hyphens=False) or [""]


def text_pairs(pairs: Sequence[tuple[str, str]], *, width: int = WIDTH) -> str:
    """Flow ``label: value`` pairs over as few lines as they need."""
    lines: list[str] = []
    current = ""
    for label, value in pairs:
        piece = f"{label}: {value}" if label else value
        if current and len(current) + 4 + len(piece) <= width:
            current += "    " + piece
            continue
        if current:
            lines.extend(text_paragraph(current, width=width))
        current = " " + piece
    if current:
        lines.extend(text_paragraph(current, width=width))
    return "\n".join(lines)


def text_paragraph(text: str, *, width: int = WIDTH, hanging: str = "   ") -> list[str]:
    """Wrap one paragraph with a hanging indent; short text is kept as it is, spaces included."""
    if len(text) <= width:
        return [text]
    return textwrap.wrap(
        text.strip(),
        width,
        initial_indent=" ",
        subsequent_indent=hanging,
        break_long_words=True,
        break_on_hyphens=False,
    )


# ---------------------------------------------------------------------------- HTML


def html_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], align: str, title: str | None
) -> str:
    """Write a table with a caption, column headers and row headers."""

    def css(side: str) -> str:
        return ' class="num"' if side == "r" else ""

    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    head = "".join(
        f'<th scope="col"{css(side)}>{html.escape(name)}</th>' if name else f"<td{css(side)}></td>"
        for name, side in zip(columns, align, strict=True)
    )
    body = []
    for row in rows:
        cells = [f'<th scope="row"{css(align[0])}>{html.escape(row[0])}</th>'] if row else []
        cells += [
            f"<td{css(side)}>{html.escape(text)}</td>"
            for text, side in zip(row[1:], align[1:], strict=True)
        ]
        body.append("<tr>" + "".join(cells) + "</tr>")
    return (
        f"<table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>"
        + "\n".join(body)
        + "</tbody></table>"
    )


def html_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Write label and value pairs as a description list."""
    if not pairs:
        return ""
    items = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>"
        for label, value in pairs
    )
    return f"<dl>{items}</dl>"


def html_block(parts: Sequence[str], label: str) -> str:
    """Wrap parts in a labelled region that carries its own style for light and dark themes."""
    inner = "\n".join(part for part in parts if part)
    return (
        f'<div class="causalfair" role="region" aria-label="{html.escape(label)}" tabindex="0">\n'
        f"{STYLE}\n{inner}\n</div>"
    )


# ---------------------------------------------------------------------------- LaTeX

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "→": r"$\to$",
    "…": r"\ldots{}",
    "²": "$^2$",
    "·": r"$\cdot$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "Δ": r"$\Delta$",
    "θ": r"$\theta$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "π": r"$\pi$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "χ": r"$\chi$",
    "ω": r"$\omega$",
}


def latex_escape(text: str) -> str:
    """Escape text for LaTeX; a minus before a digit becomes a true minus."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w.)\]-])-(?=[\d.]|inf\b)", "$-$", escaped)


def latex_table(columns: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Write a booktabs ``tabular``; long text columns get a fixed share of the line."""
    cells = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(text) for text in column) for column in zip(*cells, strict=True)]
    wide = [j for j, side in enumerate(align) if side == "l" and widths[j] > _LATEX_TEXT_COLUMN]
    share = 0.8 / (len(wide) + 0.35 * (len(align) - len(wide))) if wide else 0.0
    spec = "".join(
        rf"p{{{share:.2f}\linewidth}}" if j in wide else side for j, side in enumerate(align)
    )

    def line(row: Sequence[str]) -> str:
        # An opening bracket at the start of a row would be read as the argument of \\.
        texts = [latex_escape(text) for text in row]
        if texts and texts[0].startswith("["):
            texts[0] = "{}" + texts[0]
        return " & ".join(texts) + r" \\"

    body = "\n".join(line(row) for row in rows)
    return (
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{line(columns)}\n\\midrule\n"
        f"{body}\n\\bottomrule\n\\end{{tabular}}"
    )


# ---------------------------------------------------------------------------- Markdown


def markdown_escape(text: str) -> str:
    """Escape what Markdown would read as markup inside a table cell."""
    escaped = re.sub(r"([\\|`*])", r"\\\1", text)
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)
    return re.sub(r"<(?=[A-Za-z/!])", r"\\<", escaped).replace("\n", " ")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Write a pipe table with aligned columns."""
    cells = [[markdown_escape(text) for text in row] for row in (columns, *rows)]
    widths = [max(3, *(len(text) for text in column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        placed = [
            text.rjust(size) if side == "r" else text.ljust(size)
            for text, size, side in zip(row, widths, align, strict=True)
        ]
        return "| " + " | ".join(placed) + " |"

    rule = [
        "-" * (size - 1) + ":" if side == "r" else "-" * size
        for size, side in zip(widths, align, strict=True)
    ]
    return "\n".join([line(cells[0]), "| " + " | ".join(rule) + " |", *map(line, cells[1:])])
