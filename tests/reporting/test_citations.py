from __future__ import annotations

import re

import pytest

from causalfair import __version__
from causalfair.exceptions import CausalFairError, CitationError
from causalfair.reporting import Citations
from causalfair.reporting._bibtex import BibtexError, Reference, parse_bibtex, plain_text
from causalfair.reporting.citations import bundled_references


def test_readable_reference():
    text = " ".join(str(Citations(["chernozhukov2018double"])).split())
    assert text.startswith("Chernozhukov, V., Chetverikov, D., Demirer, M., Duflo, E., Hansen, C.")
    assert "(2018). Double/debiased machine learning for treatment and structural" in text
    assert "The Econometrics Journal, 21(1), C1–C68. https://doi.org/10.1111/ectj.12097" in text


def test_software_comes_last_once_and_keys_keep_their_order():
    citations = Citations(["causalfair", "romano2005exact", "holm1979simple", "romano2005exact"])
    assert list(citations) == ["romano2005exact", "holm1979simple", "causalfair"]
    assert len(citations) == 3
    assert "holm1979simple" in citations
    assert f"Version {__version__}" in str(citations)
    assert citations == Citations(["romano2005exact"]) + Citations(["holm1979simple"])
    assert str(Citations()).startswith("The causalfair developers (")


def test_bibtex_reads_back():
    keys = list(bundled_references())
    again = parse_bibtex(Citations(keys).bibtex())
    assert again == dict(bundled_references())


def test_unknown_key_suggests():
    with pytest.raises(CitationError, match=r"'holm1979'.*Did you mean 'holm1979simple'") as caught:
        Citations(["holm1979"])
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, CausalFairError)
    assert str(caught.value).startswith("Citations got the key")


def test_lines_fit_and_html_links():
    citations = Citations(bundled_references())
    assert max(map(len, str(citations).splitlines())) <= 100  # a link is never broken
    source = citations._repr_html_()
    assert '<a href="https://doi.org/10.1111/ectj.12097">' in source
    assert "<details><summary>BibTeX</summary>" in source


@pytest.mark.parametrize("key", sorted(bundled_references()))
def test_every_entry_is_complete(key):
    entry = bundled_references()[key]
    assert entry.text("title")
    assert entry.authors()
    assert re.fullmatch(r"(19|20)\d\d", entry.text("year"))
    readable = " ".join(str(Citations([key])).split())
    assert not re.search(r"[{}\\]", readable)
    if entry.kind == "article":
        assert entry.text("journal")
    if entry.text("doi"):
        assert re.fullmatch(r"10\.\d{4,9}/\S+", entry.text("doi"))


def test_parser_reads_nesting_quotes_numbers_and_comments():
    source = r"""
    Text outside entries is ignored.
    % @article{commented, title = {x}}
    @Article{key1,
      Title = {A {Nested {Title}} and
               a line break},
      author = "B{\"u}hlmann, Peter and {The Group and Co} and van Dyk, David A.-B. and others",
      year = 2020
    }
    @book{key2, title = {T}, year = {1999},}
    """
    entries = parse_bibtex(source)
    assert list(entries) == ["key1", "key2"]
    entry = entries["key1"]
    assert entry.kind == "article"
    assert entry.text("title") == "A Nested Title and a line break"
    assert entry.authors() == ["Bühlmann, P.", "The Group and Co", "van Dyk, D. A.-B.", "et al."]
    assert entry.text("year") == "2020"
    assert entries["key2"].fields == {"title": "T", "year": "1999"}


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"B{\"u}hlmann", "Bühlmann"),
        (r"Erd\H{o}s", "Erdős"),
        (r"Fran\c{c}ois", "François"),
        (r"Mart{\'\i}nez", "Martínez"),
        (r"Mart\'{i}nez", "Martínez"),
        (r"S{\o}ren {\AA}ngstr\"om", "Søren Ångström"),
        (r"\v{C}ech", "Čech"),
        (r"A \& B, 50\%, x\_y", "A & B, 50%, x_y"),
        ("1--2 and 3---4", "1–2 and 3—4"),
        ("Stra{\\ss}e", "Straße"),
    ],
)
def test_markup_becomes_text(latex, text):
    assert plain_text(latex) == text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@article{a, title = {x}} @article{a, title = {y}}", "'a' is used twice"),
        ("@article{a, title = {x", "never closed"),
        ("@article{a, title = macro}", "values need braces, quotes or digits"),
        ("@article{a, title = {x} # {y}}", "expected 'name = value'"),
    ],
)
def test_broken_sources_raise(source, message):
    with pytest.raises(BibtexError, match=message):
        parse_bibtex(source)


def test_reference_without_fields():
    assert Reference("k", "misc").authors() == []
    assert Reference("k", "misc").text("title") == ""
