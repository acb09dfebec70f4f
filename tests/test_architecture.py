"""Rules of the whole package, checked on its source: layers, light import, references, ..."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from causalfair.reporting._bibtex import parse_bibtex

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "causalfair"
SOURCES = sorted(PACKAGE.rglob("*.py"))

FAMILIES = ("iv", "imagery", "reward", "fairness", "risk", "adaptive")
# A module may import, at module level, its own layer and those below it.
LAYERS = {"exceptions": 0, "_core": 0, "inference": 1, "reporting": 2, "forest": 3}
LAYERS |= dict.fromkeys(FAMILIES, 4)
LAYERS |= {"datasets": 5}
HEAVY = ("pandas", "sklearn", "scipy.stats", "numba", "statsmodels", "pymc", "matplotlib")


def part_of(path: Path) -> str:
    """First-level part of the package a file belongs to, such as ``iv`` or ``exceptions``."""
    return path.relative_to(PACKAGE).parts[0].partition(".")[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path, nodes: list[ast.AST]) -> set[str]:
    """Parts of the package that some statements import, relative imports resolved."""
    package = ["causalfair", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            pieces = name.split(".")
            if pieces[0] == "causalfair" and len(pieces) > 1 and pieces[1] in LAYERS:
                found.add(pieces[1])
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def runtime_nodes(path: Path) -> list[ast.AST]:
    """Statements at module level, those for type checkers only left out."""
    return [node for node in tree_of(path).body if not is_type_checking(node)]


def public_names(part: str) -> list[str]:
    stub = PACKAGE / part / "__init__.pyi" if part else PACKAGE / "__init__.pyi"
    return [
        alias.asname or alias.name
        for node in tree_of(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


PUBLIC = [
    (part, name)
    for part in ("inference", "reporting", "forest", *FAMILIES, "datasets")
    for name in public_names(part)
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layers(path):
    part = part_of(path)
    if part not in LAYERS:
        return
    above = {name for name in imports_of(path, runtime_nodes(path)) if LAYERS[name] > LAYERS[part]}
    assert not above, f"{part} must not import {sorted(above)} at module level"
    others = imports_of(path, list(ast.walk(tree_of(path)))) & set(FAMILIES) - {part}
    if part != "datasets":
        assert not others, f"{part} must not import the families {sorted(others)} anywhere"


def test_every_part_of_the_package_has_a_layer():
    parts = {part_of(path) for path in SOURCES} - {"__init__", "_version"}
    assert parts == set(LAYERS)


def run_python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOADED = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"


def test_import_is_light():
    assert run_python(f"import causalfair; {LOADED}", EAGER_IMPORT="") == ""


def test_reaching_a_family_is_light():
    reach = "; ".join(f"causalfair.{part}" for part in ("inference", "datasets", *FAMILIES))
    assert run_python(f"import causalfair; {reach}; {LOADED}", EAGER_IMPORT="") == ""


def test_every_public_name_imports_eagerly():
    run_python("import causalfair", EAGER_IMPORT="1")


def test_lazy_names_are_those_of_the_stubs():
    for part in ("", "inference", "reporting", "forest", *FAMILIES, "datasets"):
        module = importlib.import_module(f"causalfair.{part}".rstrip("."))
        assert sorted(module.__all__) == sorted(public_names(part)), part


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_prints_or_touches_global_random_state(path):
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called != "print", f"line {node.lineno}: return text or log it"
        assert not re.fullmatch(r"(np|numpy)\.random\.(seed|rand|randn|normal)", called)
        assert not called.endswith("warnings.warn") or part_of(path) == "_core", (
            f"line {node.lineno}: use causalfair._core.logging.warn"
        )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_numba_only_in_kernels(path):
    names = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    if "numba" in names:
        assert path.name.startswith("_kernels") or part_of(path) == "_core"


@pytest.mark.parametrize(("part", "name"), PUBLIC, ids=lambda value: value)
def test_every_public_name_is_documented(part, name):
    thing = getattr(importlib.import_module(f"causalfair.{part}"), name)
    assert inspect.getdoc(thing), f"causalfair.{part}.{name} has no docstring"
    if not inspect.isclass(thing):
        return
    for member, value in vars(thing).items():
        if member.startswith("_") or not (callable(value) or isinstance(value, property)):
            continue
        assert inspect.getdoc(value), f"causalfair.{part}.{name}.{member} has no docstring"


# ---------------------------------------------------------------------------- references

CITE_ROLE = re.compile(r":(?:footcite|cite)(?::\w+)?:`([^`]+)`")


def strings(node: ast.AST) -> set[str]:
    return {
        one.value
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    }


def keys_in_code() -> set[str]:
    """Keys in constants whose name speaks of citations, and in ``_cite_extra``."""
    found: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any("citations" in ast.unparse(target).lower() for target in targets):
                    found |= strings(node.value)
            if isinstance(node, ast.FunctionDef) and node.name == "_cite_extra":
                body = [one for one in node.body if not isinstance(one, ast.Expr)]
                found |= {text for one in body for text in strings(one)}
    return {text for text in found if re.fullmatch(r"[a-z][a-z0-9_-]*\d{4}[a-z0-9_-]*", text)}


def keys_in_text() -> set[str]:
    paths = [*SOURCES, *(ROOT / "docs").rglob("*.rst"), *(ROOT / "examples").rglob("*.py")]
    paths = [path for path in paths if "_build" not in path.parts and "generated" not in path.parts]
    roles = [role for path in paths for role in CITE_ROLE.findall(path.read_text("utf-8"))]
    return {key.strip() for role in roles for key in role.split(",")}


def bibliography() -> set[str]:
    return set(parse_bibtex((PACKAGE / "references.bib").read_text(encoding="utf-8")))


def test_every_cited_key_exists():
    missing = (keys_in_code() | keys_in_text()) - bibliography()
    assert not missing, f"cited, but not in references.bib: {sorted(missing)}"


def test_every_reference_is_cited():
    unused = bibliography() - keys_in_code() - keys_in_text() - {"causalfair"}
    assert not unused, f"in references.bib, but cited nowhere: {sorted(unused)}"


# ---------------------------------------------------------------------------- the repository


def test_nothing_users_read_names_a_development_path():
    folders = [PACKAGE, ROOT / "docs", ROOT / "examples", ROOT / ".ci"]
    kinds = {".py", ".pyi", ".rst", ".md", ".toml", ".bib", ".cff", ".css", ""}
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    paths += [path for path in ROOT.iterdir() if path.suffix in kinds]
    for path in paths:
        if path.is_file() and not {"_build", "auto_examples", ".git"} & set(path.parts):
            text = path.read_text(encoding="utf-8")
            assert "../shared" not in text, path
            assert not re.search(r"(?<![\w.])/(?:work|root)/", text), path
