"""A small reader of BibTeX, enough for the references that come with the package."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from causalfair.exceptions import CausalFairError

_ENTRY = re.compile(r"@(\w+)\s*\{\s*([^\s,{}]+)\s*,")
_FIELD = re.compile(r"\s*([\w-]+)\s*=\s*")

# LaTeX accents and the Unicode combining marks they stand for.
_ACCENTS = {
    '"': "\u0308",
    "'": "\u0301",
    "`": "\u0300",
    "^": "\u0302",
    "~": "\u0303",
    "=": "\u0304",
    ".": "\u0307",
    "c": "\u0327",
    "v": "\u030c",
    "u": "\u0306",
    "H": "\u030b",
    "k": "\u0328",
    "r": "\u030a",
}
_LETTERS = {
    r"\ss": "ß",
    r"\o": "ø",
    r"\O": "Ø",
    r"\l": "ł",
    r"\L": "Ł",
    r"\ae": "æ",
    r"\AE": "Æ",
    r"\aa": "å",
    r"\AA": "Å",
    r"\i": "ı",
}


class BibtexError(CausalFairError, ValueError):
    """A BibTeX source cannot be read."""


@dataclass(frozen=True)
class Reference:
    """One entry of a bibliography.

    Attributes
    ----------
    key : str
        Citation key.
    kind : str
        Kind of entry, in lower case: ``article``, ``book``, ``software``, ...
    fields : mapping
        Field names in lower case and their values as written, outer delimiters removed.
    """

    key: str
    kind: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Value of a field as plain text, empty when there is none."""
        return plain_text(self.fields.get(name, ""))

    def authors(self) -> list[str]:
        """Names as written in a reference list, ``Last, F. M.``."""
        return [_short_name(name) for name in _split_names(self.fields.get("author", ""))]

    def bibtex(self) -> str:
        """Write the entry as BibTeX, one field a line."""
        width = max((len(name) for name in self.fields), default=0)
        lines = [f"  {name.ljust(width)} = {{{value}}}," for name, value in self.fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])


def parse_bibtex(source: str) -> dict[str, Reference]:
    """Read all entries of a BibTeX source.

    Text outside entries is ignored, and so is an entry on a line that starts with ``%``. String
    macros and concatenation are not understood and raise.
    """
    references: dict[str, Reference] = {}
    position = 0
    while match := _ENTRY.search(source, position):
        if _in_comment(source, match.start()):
            position = match.end()
            continue
        kind, key = match.group(1).lower(), match.group(2)
        fields, position = _read_fields(source, match.end(), key)
        if key in references:
            raise BibtexError(f"The citation key {key!r} is used twice; give each entry its own.")
        references[key] = Reference(key, kind, fields)
    return references


def _in_comment(source: str, position: int) -> bool:
    start = source.rfind("\n", 0, position) + 1
    return source[start:position].lstrip().startswith("%")


def _read_fields(source: str, position: int, key: str) -> tuple[dict[str, str], int]:
    fields: dict[str, str] = {}
    while True:
        match = _FIELD.match(source, position)
        if match is None:
            closing = re.compile(r"\s*\}").match(source, position)
            if closing is None:
                found = source[position : position + 20]
                raise BibtexError(
                    f"Entry {key!r}: expected 'name = value' or the closing brace, got {found!r}."
                )
            return fields, closing.end()
        value, position = _read_value(source, match.end(), key)
        fields[match.group(1).lower()] = re.sub(r"\s+", " ", value).strip()
        comma = re.compile(r"\s*,").match(source, position)
        position = comma.end() if comma else position


def _read_value(source: str, position: int, key: str) -> tuple[str, int]:
    opening = source[position : position + 1]
    if opening not in ("{", '"'):
        number = re.compile(r"\d+").match(source, position)
        if number is None:
            raise BibtexError(
                f"Entry {key!r}: values need braces, quotes or digits, got {opening!r}."
            )
        return number.group(), number.end()
    depth = 0
    for index in range(position, len(source)):
        character = source[index]
        if index > position and source[index - 1] == "\\":
            continue
        if character == '"' and opening == '"' and depth == 0 and index > position:
            return source[position + 1 : index], index + 1
        depth += (character == "{") - (character == "}")
        if character == "}" and opening == "{" and depth == 0:
            return source[position + 1 : index], index + 1
    raise BibtexError(f"Entry {key!r}: the value that starts with {opening!r} is never closed.")


def plain_text(value: str) -> str:
    r"""Turn LaTeX markup into text: accents, dashes, escaped characters and braces.

    Examples
    --------
    >>> plain_text(r"B{\"u}hlmann, {Tchetgen Tchetgen} \& Erd\H{o}s, 1--2")
    'Bühlmann, Tchetgen Tchetgen & Erdős, 1–2'
    """
    accent = re.compile(r"""\\(?:(["'`^~=.])|([cvuHkr])(?=[{\s]))\s*\{?\s*(\\?[A-Za-z])\s*\}?""")

    def combine(match: re.Match[str]) -> str:
        mark = _ACCENTS[match.group(1) or match.group(2)]
        letter = match.group(3).lstrip("\\")
        return unicodedata.normalize("NFC", letter + mark)

    text = accent.sub(combine, value)
    text = re.sub(
        r"\\(?:ss|o|O|l|L|ae|AE|aa|AA|i)(?![A-Za-z])\s*",
        lambda match: _LETTERS[match.group().strip()],
        text,
    )
    text = re.sub(r"\\([&%$#_])", r"\1", text)
    text = text.replace("---", "—").replace("--", "–").replace("~", " ")
    return re.sub(r"\s+", " ", re.sub(r"[{}]", "", text)).strip()


def _split_names(value: str) -> list[str]:
    """Split at `` and `` outside braces."""
    names, depth, start = [], 0, 0
    for index, character in enumerate(value):
        depth += (character == "{") - (character == "}")
        if depth == 0 and value.startswith(" and ", index):
            names.append(value[start:index])
            start = index + 5
    return [name.strip() for name in [*names, value[start:]] if name.strip()]


def _short_name(name: str) -> str:
    if name == "others":
        return "et al."
    if name.startswith("{") and name.endswith("}") and name.count("{") == 1:
        return plain_text(name)
    last, comma, first = name.partition(",")
    if not comma:
        first, _, last = name.rpartition(" ")
    initials = " ".join(
        "-".join(f"{part[0]}." for part in word.split("-") if part)
        for word in plain_text(first).split()
    )
    return f"{plain_text(last)}, {initials}" if initials else plain_text(last)
