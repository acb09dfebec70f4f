"""Check the docstrings of all public names with numpydoc; prints what is wrong and fails.

Run by ``nox -s lint``. Sections, parameters and returns are checked on the live objects, so that
dataclasses, properties and inherited methods are seen as users see them.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpydoc.validate import validate

CHECKS = {
    "GL06": "unknown section",
    "GL07": "sections out of order",
    "GL08": "no docstring",
    "GL09": "deprecation out of place",
    "PR01": "parameters not documented",
    "PR02": "unknown parameters",
    "PR03": "parameters out of order",
    "PR04": "parameter without type",
    "PR07": "parameter without description",
    "PR10": "space before the colon",
    "RT03": "return value without description",
    "SS04": "leading spaces",
}
PARTS = ("inference", "reporting", "forest", "iv", "imagery", "reward", "fairness")
PARTS += ("risk", "adaptive", "datasets")


def public_names(package: Path) -> Iterator[tuple[str, Any]]:
    """Everything public with its dotted name, each method of a class once."""
    seen: set[str] = set()
    for part in PARTS:
        module = importlib.import_module(f"causalfair.{part}")
        for node in ast.parse((package / part / "__init__.pyi").read_text("utf-8")).body:
            if not isinstance(node, ast.ImportFrom):
                continue
            for alias in node.names:
                name = f"causalfair.{part}.{alias.asname or alias.name}"
                thing = getattr(module, alias.asname or alias.name)
                if inspect.ismodule(thing):
                    yield from listed(name, thing)
                    continue
                yield name, thing
                if inspect.isclass(thing):
                    for member, function in members(thing):
                        if function.__qualname__ not in seen:
                            seen.add(function.__qualname__)
                            yield f"{name}.{member}", function


def listed(name: str, module: Any) -> Iterator[tuple[str, Any]]:
    """What a public module lists in ``__all__``, protocols aside."""
    for public in module.__all__:
        thing = getattr(module, public)
        if not getattr(thing, "_is_protocol", False):
            yield f"{name}.{public}", thing


def members(thing: type) -> Iterator[tuple[str, Any]]:
    """Public methods that the package itself defines, on the class or a base of it."""
    for member in dir(thing):
        value = inspect.getattr_static(thing, member)
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        home = getattr(function, "__module__", "") or ""
        if inspect.isfunction(function) and home.startswith("causalfair") and member[0] != "_":
            yield member, function


def main() -> int:
    import causalfair

    found = 0
    for name, thing in public_names(Path(causalfair.__file__).parent):
        # The fields of a dataclass may be described as attributes instead of parameters.
        skipped = {"PR01"} if dataclasses.is_dataclass(thing) else set()
        for code, message in validate(name)["errors"]:
            if code in CHECKS and code not in skipped:
                sys.stdout.write(f"{name}: {code} {message}\n")
                found += 1
    sys.stdout.write(f"{found} problem(s) in docstrings\n")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
