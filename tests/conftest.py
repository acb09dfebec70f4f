"""Threads, caches and slow-test selection for the whole suite."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

# Before numpy is imported: one thread, so that timings and bits do not depend on the machine.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# A cached kernel does not notice changes in other files: key the cache by all kernel sources.
_sources = sorted((Path(__file__).parents[1] / "causalfair").rglob("_kernels*.py"))
_digest = hashlib.blake2b(b"".join(p.read_bytes() for p in _sources), digest_size=8).hexdigest()
os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"causalfair-numba-{_digest}")
)

# Worker processes find functions of test modules as `tests.family.test_x`. The root comes last, so
# that an installed package is tested before the source folder.
sys.path.append(str(Path(__file__).parents[1]))

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# The same examples on every machine, however slow it is; `nox -s tests_slow` draws new ones.
settings.register_profile("fast", deadline=None, derandomize=True)
settings.register_profile("slow", deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the slow Monte-Carlo tests")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("slow" if config.getoption("--slow") else "fast")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow (nox -s tests_slow)")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with development data; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("development data not present")
    return SHARED_DATA
