"""Small text, HTML and frame helpers over the reporting package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def fixed(value: float, digits: int = 4) -> str:
    """A radius or share with a fixed number of decimals."""
    return f"{value:.{digits}f}"


def frame_of(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], native: str | None = None
) -> Any:
    """Tidy frame of the user's library (pandas unless told otherwise)."""
    import pandas as pd

    frame = pd.DataFrame([list(row) for row in rows], columns=list(columns))
    if native in (None, "pandas"):
        return frame
    from causalfair._core.optional import import_optional

    import_optional(str(native), extra="all")
    import narwhals.stable.v2 as nw

    return nw.from_dict(
        {c: frame[c].tolist() for c in columns},
        backend=native,  # type: ignore[arg-type]
    ).to_native()


def text_of(
    title: str, columns: Sequence[str], body: Sequence[Sequence[str]], *, html: bool = False
) -> str:
    """One table as text, or as HTML."""
    from causalfair.reporting import Summary, Table

    summary = Summary(title, [], [Table(list(columns), [list(row) for row in body])], [])
    return summary._repr_html_() if html else str(summary)
