"""What to cite: keys of the bundled references, as a readable list and as BibTeX."""

from __future__ import annotations

import difflib
import functools
import html
import re
import textwrap
from collections.abc import Iterable, Iterator
from importlib import resources
from types import MappingProxyType

from causalfair.exceptions import CitationError
from causalfair.reporting._bibtex import Reference, parse_bibtex
from causalfair.reporting._render import WIDTH, html_block

__all__ = ["Citations"]

SOFTWARE_KEY = "causalfair"


class Citations:
    """The works an analysis stands on, the software last.

    Parameters
    ----------
    keys : iterable of str
        Citation keys. Repeated keys count once; the order is kept. The package itself is added at
        the end where it is not among them.

    Raises
    ------
    CitationError
        A key is not among the bundled references.

    Examples
    --------
    >>> citations = Citations(["holm1979simple"])
    >>> list(citations)
    ['holm1979simple', 'causalfair']
    >>> print(str(citations).splitlines()[0])
    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian
    >>> print(citations.bibtex().splitlines()[0])
    @article{holm1979simple,
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        wanted = [key for key in dict.fromkeys(keys) if key != SOFTWARE_KEY]
        self._references = tuple(_lookup(key) for key in [*wanted, SOFTWARE_KEY])

    @property
    def keys(self) -> tuple[str, ...]:
        """Citation keys, in order."""
        return tuple(reference.key for reference in self._references)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self._references)

    def __contains__(self, key: object) -> bool:
        return key in self.keys

    def __eq__(self, other: object) -> bool:
        return self.keys == other.keys if isinstance(other, Citations) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.keys)

    def __add__(self, other: Citations) -> Citations:
        return Citations([*self.keys, *other.keys])

    def __str__(self) -> str:
        return "\n".join(
            textwrap.fill(
                _sentence(reference),
                WIDTH,
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for reference in self._references
        )

    def __repr__(self) -> str:
        return str(self)

    def bibtex(self) -> str:
        """Write the references as BibTeX.

        Returns
        -------
        str
            One entry after another, ready for a ``.bib`` file.
        """
        return "\n\n".join(reference.bibtex() for reference in self._references) + "\n"

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{_html_sentence(one)}</li>" for one in self._references)
        source = html.escape(self.bibtex())
        folded = f"<details><summary>BibTeX</summary><pre>{source}</pre></details>"
        return html_block([f"<ul>{items}</ul>", folded], "References")


@functools.cache
def bundled_references() -> MappingProxyType[str, Reference]:
    """Read the references that come with the package, once."""
    from causalfair import __version__

    source = resources.files("causalfair").joinpath("references.bib").read_text(encoding="utf-8")
    references = parse_bibtex(source)
    software = references[SOFTWARE_KEY]
    references[SOFTWARE_KEY] = Reference(
        software.key, software.kind, {**software.fields, "version": __version__}
    )
    return MappingProxyType(references)


def _lookup(key: str) -> Reference:
    references = bundled_references()
    if key in references:
        return references[key]
    close = difflib.get_close_matches(str(key), references, n=3)
    hint = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
    raise CitationError(f"Citations got the key {key!r}, which is not in references.bib.{hint}")


def _sentence(reference: Reference) -> str:
    """Write one reference: authors (year). Title. Journal, volume(number), pages. Link."""
    authors = reference.authors()
    if len(authors) > 1 and authors[-1] != "et al.":
        names = f"{', '.join(authors[:-1])} and {authors[-1]}"
    else:
        names = " ".join(authors)
    parts = [f"{names} ({reference.text('year')})", reference.text("title")]
    parts += [text for text in (_venue(reference), _link(reference)) if text]
    return " ".join(part if re.search(r"https?:\S+$", part) else f"{part}." for part in parts)


def _venue(reference: Reference) -> str:
    text = reference.text
    place = text("journal") or text("booktitle") or text("publisher") or text("institution")
    issue = text("volume") + (f"({text('number')})" if text("number") else "")
    version = f"Version {text('version')}" if text("version") else ""
    return ", ".join(part for part in (place, issue, text("pages"), version) if part)


def _link(reference: Reference) -> str:
    if reference.text("doi"):
        return f"https://doi.org/{reference.text('doi')}"
    if reference.text("eprint"):
        return f"https://arxiv.org/abs/{reference.text('eprint')}"
    return reference.text("url")


def _html_sentence(reference: Reference) -> str:
    text, link = html.escape(_sentence(reference)), html.escape(_link(reference))
    return text.replace(link, f'<a href="{link}">{link}</a>') if link else text
