from __future__ import annotations

import html.parser
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalfair.exceptions import ParameterError
from causalfair.reporting import Summary, Table, estimates_table
from causalfair.reporting._render import latex_escape, markdown_escape

LONG = "HistGradientBoostingRegressor(max_iter=200, learning_rate=0.05, early_stopping=True, x=1)"


@pytest.fixture
def summary(estimates) -> Summary:
    return Summary(
        "Average effect",
        [("outcome", "net_tfa"), ("treatment", "p401"), ("n", "9,275"), ("note", "word " * 40)],
        [
            estimates_table(estimates),
            Table(["nuisance", "learner", "loss"], [["outcome", LONG, "RMSE 56.9"]], "Nuisances"),
        ],
        ["Assumes: " + "the instrument moves the variance of the treatment; " * 4, "Cite: it."],
    )


def test_table_of_estimates(estimates):
    table = estimates_table(estimates, level=0.9)
    assert list(table.columns) == ["", "estimate", "std. error", "90% interval", "p"]
    assert table.rows[0] == ("ATE", "7.6", "2.2", "[4.0, 11.2]", "<0.001")
    assert table.rows[1] == ("direct effect", "-0.500", "0.021", "[-0.535, -0.465]", "<0.001")
    assert table.to_frame()["estimate"].tolist() == [7.6142, -0.5]


def test_text_is_aligned():
    table = Table(["", "estimate", "95% interval"], [["ATE", "7.6", "[3.3, 11.9]"]])
    assert str(table).splitlines() == [
        "       estimate   95% interval",
        " ATE        7.6    [3.3, 11.9]",
    ]


def test_no_line_is_wider_than_88(summary):
    assert max(map(len, str(summary).splitlines())) <= 88
    for piece in ("net_tfa", "p401", "9,275", "learning_rate=0.05,", "Cite: it."):
        assert piece in str(summary)
    assert repr(summary) == str(summary)


@given(
    st.integers(1, 6).flatmap(
        lambda width: st.lists(
            st.lists(st.text("ab -[0.,", max_size=120), min_size=width, max_size=width),
            min_size=1,
            max_size=4,
        )
    )
)
def test_any_table_fits_and_keeps_its_characters(rows):
    table = Table([f"c{j}" for j in range(len(rows[0]))], rows)
    text = str(table)
    assert max(map(len, text.splitlines())) <= 88
    expected = "".join(sorted(re.sub(r"\s", "", "".join("".join(row) for row in rows))))
    body = re.sub(r"c\d", "", text)
    assert "".join(sorted(re.sub(r"\s", "", body))) == expected


def test_wrong_shapes_raise():
    with pytest.raises(ParameterError, match="2 columns, but row 0 has 1 cells"):
        Table(["a", "b"], [["1"]])
    with pytest.raises(ParameterError, match="align='x' does not fit 1 columns"):
        Table(["a"], [["1"]], align="x")


def test_alignment_follows_the_cells():
    rows = [["a", "1.2", "ridge", "<0.001"], ["b", "[-1, 2]", "lasso", "n/a"]]
    assert Table(["", "x", "learner", "p"], rows).align == "lrlr"


class _Balanced(html.parser.HTMLParser):
    """Every tag that opens must close, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_well_formed_escaped_and_accessible():
    source = Summary(
        "<title>", [("a", "x & y")], [Table(["", "b"], [["<script>", "1"]], "T")], ["<i>"]
    )._repr_html_()
    parser = _Balanced()
    parser.feed(source)
    assert parser.open == []
    assert {"<title>", "x & y", "<script>", "<i>"} <= set(parser.text)
    assert "<caption>T</caption>" in source
    assert '<th scope="col"' in source
    assert '<th scope="row"' in source
    # Colours come from the page, so that dark themes work; nothing is loaded from elsewhere.
    assert not re.search(r"#[0-9a-fA-F]{3}|rgb|white(?!-space)|black|https?:|src=", source)


def test_latex_needs_only_booktabs(summary):
    source = summary.to_latex(label="tab:effect")
    commands = set(re.findall(r"\\([a-zA-Z]+)", source))
    known = {"begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule"}
    known |= {"par", "medskip", "emph", "parbox", "footnotesize", "linewidth"}
    assert commands <= known
    assert source.count("{") == source.count("}")
    assert r"net\_tfa" in source
    assert r"\label{tab:effect}" in source
    for row in re.findall(r"\\midrule\n(.*?)\n\\bottomrule", source, re.DOTALL):
        assert all(line.endswith(r" \\") for line in row.splitlines())


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a_b & 5% #1 $x$", r"a\_b \& 5\% \#1 \$x\$"),
        ("p<0.001", "p$<$0.001"),
        ("-0.5 [-1.2, -inf] a-b 5 x-1", "$-$0.5 [$-$1.2, $-$inf] a-b 5 x-1"),
        ("{x}^2~\\", r"\{x\}\textasciicircum{}2\textasciitilde{}\textbackslash{}"),
        ("β ≤ 1 × 2", r"$\beta$ $\leq$ 1 $\times$ 2"),
    ],
)
def test_latex_escapes(text, latex):
    assert latex_escape(text) == latex


def test_row_that_opens_with_a_bracket_is_not_an_argument():
    source = Table(["interval", "n"], [["a", "1"], ["[1, 2]", "3"]]).to_latex()
    assert "{}[1, 2] & 3" in source


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("A|Z", r"A\|Z"),
        ("net_tfa", "net_tfa"),
        ("_x_", r"\_x\_"),
        ("2*3", r"2\*3"),
        ("<0.001", "<0.001"),
        ("<b>", r"\<b>"),
    ],
)
def test_markdown_escapes(text, markdown):
    assert markdown_escape(text) == markdown


def test_markdown_table_has_one_rule_and_equal_cells(summary):
    lines = summary.to_markdown().splitlines()
    assert lines[0] == "### Average effect"
    rows = [line for line in lines if line.startswith("| ") and "interval" in line]
    after = lines[lines.index(rows[0]) + 1]
    assert after.count("|") == rows[0].count("|") == 6
    assert re.fullmatch(r"\|( -+:? \|)+", after)


def test_frames(summary):
    assert summary.to_frame()["term"].tolist() == ["ATE", "direct effect"]
    assert summary.tables[1].to_frame()["loss"].tolist() == ["RMSE 56.9"]
    with pytest.raises(ParameterError, match="has no table"):
        Summary("empty").to_frame()


def test_equality_and_pickle(summary):
    again = pickle.loads(pickle.dumps(summary))
    assert again == summary
    assert Table(["a"], [["1"]]) != Table(["a"], [["2"]])
