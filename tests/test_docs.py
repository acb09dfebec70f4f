"""What the documents promise is there: the commands, the example, the version."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
from pathlib import Path

import pytest

import causalfair

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(one) for one in node.decorator_list)
    }


def test_readme_has_exactly_two_commands_for_existing_sessions():
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(commands) == 2
    assert [re.search(r"nox -s (\w+)$", line).group(1) for line in commands] == ["demo", "tests"]
    assert {"demo", "tests"} <= sessions()


def test_ci_runs_the_second_command_then_lint_types_and_doctests():
    second = blocks("sh")[-1].strip().splitlines()[-1]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.index(second) < script.index("nox -s lint types doctests")
    assert {"lint", "types", "doctests"} <= sessions()


def test_readme_example_prints_what_it_says():
    (code,) = blocks("python")
    (shown,) = blocks("text")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue().strip() == shown.strip()


@pytest.mark.parametrize("name", ["CITATION.cff", "CHANGELOG.md", "LICENSE"])
def test_house_files_exist(name):
    assert (ROOT / name).stat().st_size > 0


def test_citation_file_states_the_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {causalfair.__version__}\n" in text


PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.rst")
    if not {"_build", "generated", "auto_examples", "_templates"} & set(path.parts)
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "docs")))
def test_examples_on_the_pages_run(path):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed = doctest.testfile(str(path), module_relative=False, optionflags=flags).failed
    assert failed == 0


def test_every_folder_of_examples_has_a_header():
    folders = {path.parent for path in (ROOT / "examples").rglob("plot_*.py")}
    missing = [folder for folder in folders if not (folder / "GALLERY_HEADER.rst").exists()]
    assert not missing, "sphinx-gallery leaves out folders without GALLERY_HEADER.rst"


def test_references_are_listed_on_one_page_only():
    listing = [path.name for path in PAGES if ".. bibliography::" in path.read_text("utf-8")]
    assert listing == ["references.rst"], "a key in two lists cannot be linked to"
