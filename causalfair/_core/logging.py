"""Loggers, warnings that point at the user's line, and progress on standard error."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from causalfair._core.options import get_option

__all__ = ["get_logger", "progress", "recorded_warnings", "warn"]

T = TypeVar("T")
_PACKAGE = str(Path(__file__).parents[1])
recorded_warnings: ContextVar[list[str] | None] = ContextVar("causalfair_warnings", default=None)


def get_logger(family: str) -> logging.Logger:
    """Logger of one family; silent until the user adds a handler."""
    logger = logging.getLogger(f"causalfair.{family}")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the user's line, and let the running fit repeat the message in its summary."""
    record = recorded_warnings.get()
    if record is not None and message not in record:
        record.append(message)
    warnings.warn(message, category, stacklevel=_user_stacklevel())


def _user_stacklevel() -> int:
    """Depth of the first frame outside the package, as seen from :func:`warn`."""
    frame = sys._getframe(2)
    level = 2
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE) or _is_wrapper(frame.f_code.co_filename)
    ):
        frame = frame.f_back
        level += 1
    return level


def _is_wrapper(filename: str) -> bool:
    """Decorators of the standard library and scikit-learn stand between us and the user."""
    return filename.endswith(("sklearn/base.py", "contextlib.py"))


def progress(iterable: Iterable[T], desc: str | None = None) -> Iterator[T]:
    """Yield from ``iterable``, writing ``desc: done/total`` to standard error where switched on.

    On a terminal one line is rewritten; elsewhere a line is written at each tenth of the work.
    """
    if desc is None or not get_option("progress"):
        yield from iterable
        return
    total = len(iterable) if isinstance(iterable, Sized) else None
    rewrite = sys.stderr.isatty()
    start, last = time.perf_counter(), 0
    done = 0
    for done, item in enumerate(iterable, start=1):
        yield item
        share = int(10 * done / total) if total else done
        if rewrite or share > last:
            last = share
            text = f"{desc}: {done}/{total or '?'} ({time.perf_counter() - start:.0f} s)"
            sys.stderr.write(f"\r{text}" if rewrite else f"{text}\n")
            sys.stderr.flush()
    if rewrite and done:
        sys.stderr.write("\n")
