"""Every task of the project, each in its own environment.

``nox -l`` lists the sessions; ``nox -s tests -- -k citations`` passes arguments on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "types", "doctests"]

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
# One thread for linear algebra: faster in many small fits, and the same bits on every machine.
ENV = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
}
# Tests of one file share fixtures, so they go to one process. ``-- -n 0`` runs all in one.
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "loadfile")


def install(session: nox.Session, *groups: str, extras: str = "", options: tuple = ()) -> None:
    """Install the package as a user would get it, with the dependency groups of a task."""
    session.env.update(ENV)
    package = f".[{extras}]" if extras else "."
    session.install(*options, package, *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session
def demo(session: nox.Session) -> None:
    """Answer a real question: did 401(k) participation raise savings?"""
    install(session, extras="plot")
    session.run("python", "examples/demo_401k.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the fast test suite."""
    install(session, "test")
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session
def tests_slow(session: nox.Session) -> None:
    """Run everything, with the long Monte-Carlo and fault-injection tests."""
    install(session, "test")
    session.run("pytest", "--slow", *PARALLEL, *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, race and corrupt the ledger of reusable holdouts, a few hundred times."""
    install(session, "test")
    session.run("pytest", "--slow", "tests/adaptive/test_ledger.py", *session.posargs)


@nox.session
def tests_nojit(session: nox.Session) -> None:
    """Measure branch coverage: the suite as users run it, then the kernels as plain Python."""
    install(session, "test")
    session.run("pytest", "--cov", "--cov-report=", *PARALLEL)
    session.env["NUMBA_DISABLE_JIT"] = "1"
    # Kernels wrap integers around and divide by zero in silence; plain numpy warns of it.
    chosen = ("-m", "kernel", "-k", "not reference", "-W", "ignore::RuntimeWarning")
    coverage = ("--cov", "--cov-append", "--cov-report=term-missing:skip-covered")
    session.run("pytest", *chosen, *coverage, *PARALLEL, *session.posargs)


@nox.session(venv_backend="uv")
def tests_lowest(session: nox.Session) -> None:
    """Run the fast suite on the oldest versions the package declares."""
    install(session, "test", options=("--resolution", "lowest-direct"))
    # Old packages warn about the new ones beneath them; our own warnings stay errors.
    kinds = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
    quiet = [option for kind in kinds for option in ("-W", f"default::{kind}")]
    session.run("pytest", *quiet, *PARALLEL, *session.posargs)


@nox.session
def tests_noextras(session: nox.Session) -> None:
    """Check that nothing optional is needed to import and to fit."""
    install(session)
    session.install("pytest", "pytest-benchmark", "hypothesis")
    session.run("pytest", "tests/test_architecture.py", "tests/test_noextras.py", *session.posargs)


@nox.session
def tests_language(session: nox.Session) -> None:
    """Encode with neural models, and train on exported preferences with TRL."""
    install(session, "test", "language")
    chosen = ["tests/reward/test_encoders.py", "tests/reward/test_trl.py"]
    chosen += ["tests/imagery/test_torch.py", "tests/imagery/test_neural.py"]
    session.run("pytest", "--slow", *chosen, *session.posargs)


@nox.session
def doctests(session: nox.Session) -> None:
    """Run the examples in the docstrings."""
    install(session, "test")
    session.run("pytest", "--doctest-modules", "--pyargs", "causalfair", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, imports and docstrings."""
    install(session, "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("python", "tests/check_docstrings.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "types")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; every warning is an error."""
    install(session, "docs", extras="plot")
    out = ROOT / "docs" / "_build" / "html"
    session.run(
        "sphinx-build", "-n", "-W", "--keep-going", "-b", "html", "docs", str(out), *session.posargs
    )
    session.log("open %s", out / "index.html")


@nox.session
def bench(session: nox.Session) -> None:
    """Time estimators and kernels, cold and warm, beside their peers."""
    install(session, "test", "bench")
    session.run(
        "pytest",
        "tests/benchmarks",
        "--benchmark-only",
        *("-o", "addopts=-ra --strict-markers --import-mode=importlib"),
        *("-o", "python_files=bench_*.py"),
        *session.posargs,
    )


@nox.session
def validation(session: nox.Session) -> None:
    """Regenerate the Monte-Carlo tables of the documentation.

    ``nox -s validation -- iv --quick`` takes one family, in a small version that is compared with
    the stored tables.
    """
    install(session, "test")
    session.env["PYTHONPATH"] = str(ROOT / "tests")
    scripts = {path.stem: path for path in sorted((ROOT / "tests" / "validation").glob("[!_]*.py"))}
    chosen = [name for name in session.posargs if not name.startswith("-")]
    options = [name for name in session.posargs if name.startswith("-")]
    for name in chosen or scripts:
        if name not in scripts:
            session.error(f"no validation of {name!r}; there is: {', '.join(scripts)}")
        session.run("python", str(scripts[name]), *options)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the source archive."""
    session.install("build")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--installer", "pip")
