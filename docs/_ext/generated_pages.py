"""Pages written from the package itself before the documentation is read.

The API reference follows the public stubs, the citation page the estimators' ``cite()``, and the
validation page the stored tables, so that none of them can fall behind.
"""

from __future__ import annotations

import ast
import csv
import importlib
import inspect
import shutil
from pathlib import Path
from typing import Any

PARTS = (
    ("iv", "Invalid instruments"),
    ("forest", "Causal forests"),
    ("imagery", "Image sequences"),
    ("reward", "Deconfounded rewards"),
    ("fairness", "Fairness without labels"),
    ("risk", "Selectively tested outcomes"),
    ("adaptive", "Reusable holdouts"),
    ("datasets", "Data"),
    ("inference", "Inference"),
    ("reporting", "Reporting"),
    ("exceptions", "Errors and warnings"),
)
CARDS = {
    "iv": "The average effect of a confounded treatment, when the instrument may act on the "
    "outcome by a road of its own.",
    "forest": "Honest forests, meta-learners, and curves that say whether targeting by them pays.",
    "imagery": "Who gains more, read from satellite images over time.",
    "reward": "What a text itself earns, apart from when, where and to whom it was shown.",
    "fairness": "Group disparities when the sensitive attribute was never recorded and only weak "
    "proxies are.",
    "risk": "Risks of everybody, when only those somebody chose to test have an outcome.",
    "adaptive": "Valid answers to questions that were chosen after seeing earlier answers.",
    "datasets": "Real studies, bundled or fetched, and simulators that return the truth with the "
    "data.",
    "inference": "Clusters, simultaneous bands, contrasts, delta method and multiplicity, from "
    "influence functions.",
}


# Columns of the stored tables whose names are for programs.
HEADINGS = {"bias_mc_error": "MC error of bias"}


def heading(text: str, line: str = "=") -> list[str]:
    return [text, line * len(text), ""]


def public_names(package: Path, part: str) -> list[str]:
    """Names a stub makes public, or ``__all__`` of a plain module; none for a part not there."""
    stub = package / part / "__init__.pyi"
    if not stub.exists():
        known = (package / f"{part}.py").exists()
        return list(importlib.import_module(f"causalfair.{part}").__all__) if known else []
    return [
        alias.asname or alias.name
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def sections(part: str, names: list[str]) -> list[tuple[str, list[str]]]:
    """Sort public names into estimators and other classes, functions, and submodules."""
    module = importlib.import_module(f"causalfair.{part}")
    kinds: dict[str, list[str]] = {"Estimators": [], "Classes": [], "Functions": [], "Modules": []}
    for name in names:
        thing = getattr(module, name)
        if inspect.isclass(thing):
            kinds["Estimators" if hasattr(thing, "fit") else "Classes"].append(name)
        else:
            kinds["Modules" if inspect.ismodule(thing) else "Functions"].append(name)
    return [(kind, sorted(found)) for kind, found in kinds.items() if found]


def write_api(package: Path, out: Path) -> None:
    lines = [*heading("API reference"), "Every public name, by the part it lives in.", ""]
    written = []
    for part, title in PARTS:
        names = public_names(package, part)
        if not names:
            continue
        written.append(part)
        page = [*heading(f"{title}: causalfair.{part}")]
        page += [f".. automodule:: causalfair.{part}", "   :no-members:", ""]
        for kind, found in sections(part, names):
            page += [*heading(kind, "-"), f".. currentmodule:: causalfair.{part}", ""]
            if kind == "Modules":
                page += module_pages(part, found, out)
                continue
            page += [".. autosummary::", f"   :toctree: {part}", ""]
            page += [*(f"   {name}" for name in found), ""]
        write(out / f"{part}.rst", page)
    lines += [".. toctree::", "   :maxdepth: 1", "", *(f"   {part}" for part in written)]
    lines += ["   options", ""]
    write(out / "index.rst", lines)
    options = [*heading("Options"), ".. currentmodule:: causalfair", "", ".. autosummary::"]
    options += ["   :toctree: options", ""]
    options += ["   set_options", "   get_option", "   option_context"]
    write(out / "options.rst", options)


def module_pages(part: str, names: list[str], out: Path) -> list[str]:
    """Write one page a public submodule, and the table of contents that leads to them."""
    for name in names:
        module = f"causalfair.{part}.{name}"
        write(
            out / part / f"{name}.rst",
            [*heading(module), f".. automodule:: {module}", "   :members:", ""],
        )
    return [".. toctree::", "   :maxdepth: 1", "", *(f"   {part}/{name}" for name in names), ""]


def write_cards(package: Path, source: Path) -> None:
    """Landing page: one card a family, to its method page where there is one, else to its API."""
    lines = [":orphan:", "", ".. grid:: 1 2 3 3", "   :gutter: 3", ""]
    for part, title in PARTS:
        if part not in CARDS or not public_names(package, part):
            continue
        method = (source / "methods" / f"{part}.rst").exists()
        lines += [
            f"   .. grid-item-card:: {title}",
            f"      :link: /methods/{part}" if method else f"      :link: /generated/api/{part}",
            "      :link-type: doc",
            "",
            f"      {CARDS[part]}",
            "",
        ]
    write(source / "generated" / "cards.rst", lines)


def write_methods(source: Path) -> None:
    """Contents of the method pages, family by family in the order of the API."""
    order = [part for part, _ in PARTS]
    pages = [path.stem for path in (source / "methods").glob("*.rst") if path.stem != "index"]

    def place(page: str) -> tuple[int, str]:
        part = page.partition("_")[0]
        return (order.index(part) if part in order else len(order), page)

    lines = [":orphan:", "", ".. toctree::", "   :maxdepth: 1", ""]
    write(
        source / "generated" / "methods.rst",
        [*lines, *(f"   /methods/{page}" for page in sorted(pages, key=place))],
    )


def write_citations(package: Path, out: Path) -> None:
    """List what each estimator asks to cite."""
    lines: list[str] = []
    for part, title in PARTS:
        rows = []
        for name in public_names(package, part):
            thing: Any = getattr(importlib.import_module(f"causalfair.{part}"), name)
            keys = getattr(thing, "_citations", ())
            if inspect.isclass(thing) and keys:
                cited = ", ".join(f":cite:t:`{key}`" for key in keys)
                rows.append(f"   * - :class:`~causalfair.{part}.{name}`\n     - {cited}")
        if rows:
            lines += [*heading(title, "-"), ".. list-table::", "   :widths: 30 70", "", *rows, ""]
    write(out / "cite_methods.rst", [":orphan:", "", *lines])


def write_validation(tables: Path, out: Path) -> None:
    """Show every stored Monte-Carlo table under its family."""
    lines: list[str] = []
    titles = dict(PARTS)
    for part, title in titles.items():
        found = sorted(tables.glob(f"{part}_*.csv"))
        if not found:
            continue
        lines += heading(title, "-")
        prose = tables / f"{part}.rst"
        if prose.exists():
            lines += [prose.read_text(encoding="utf-8"), ""]
        for path in found:
            name = path.stem.removeprefix(f"{part}_").replace("_", " ")
            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file))
            lines += [f".. list-table:: {name[:1].upper()}{name[1:]}", "   :header-rows: 1"]
            lines += ["   :class: table-sm", ""]
            for row in (header, *rows):
                cells = [HEADINGS.get(cell, cell) if row is header else short(cell) for cell in row]
                lines += [f"   {'* ' if j == 0 else '  '}- {cell}" for j, cell in enumerate(cells)]
            lines.append("")
    write(out / "validation_tables.rst", [":orphan:", "", *lines])


def short(cell: str) -> str:
    """Show a number with at most three significant digits; leave text and counts alone."""
    try:
        value = float(cell)
    except ValueError:
        return cell.replace("*", r"\*").replace("|", r"\|")
    return cell if value.is_integer() else f"{value:.3g}"


def write(path: Path, lines: list[str]) -> None:
    """Write a page, leaving it alone where nothing changed, so that rebuilds stay quick."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines).rstrip() + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def generate(app: Any, _config: Any) -> None:
    import causalfair

    package = Path(causalfair.__file__).parent
    source = Path(app.srcdir)
    write_api(package, source / "generated" / "api")
    write_cards(package, source)
    write_methods(source)
    write_citations(package, source / "generated")
    write_validation(source / "_data" / "validation", source / "generated")


def clean(app: Any, exception: Exception | None) -> None:
    """Nothing generated is kept when a build fails half-way."""
    if exception is not None:
        shutil.rmtree(Path(app.srcdir) / "generated", ignore_errors=True)


def setup(app: Any) -> dict[str, Any]:
    # Before Sphinx looks for the files to read.
    app.connect("config-inited", generate)
    app.connect("build-finished", clean)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
