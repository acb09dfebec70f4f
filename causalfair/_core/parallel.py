"""The one place that starts workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from causalfair._core.logging import progress
from causalfair._core.options import get_option

__all__ = ["effective_jobs", "inner_threads", "map_tasks", "map_threads"]

_limited: ContextVar[tuple[int, int] | None] = ContextVar("causalfair_threads", default=None)
Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def inner_threads(limit: int | None = None) -> Iterator[None]:
    """Limit BLAS and OpenMP threads: small fits on many threads cost ten times one thread.

    Parameters
    ----------
    limit : int, optional
        Number of threads; the option ``inner_threads`` when None.

    Yields
    ------
    None
        Nothing; the limit holds until the block ends.
    """
    from threadpoolctl import threadpool_limits

    threads = limit or get_option("inner_threads")
    # Limiting scans every loaded library, a few milliseconds: as long as a small fit. Inside a
    # block with the same limit it is repeated only if modules were imported since, for they may
    # have brought a library.
    if _limited.get() == (threads, len(sys.modules)):
        yield
        return
    with threadpool_limits(limits=threads):
        token = _limited.set((threads, len(sys.modules)))
        try:
            yield
        finally:
            _limited.reset(token)


def _one_task(fn: Callable[[Task], Result], task: Task, threads: int, *, worker: bool) -> Result:
    """Run one task with its threads limited; in a worker, Numba's threads too."""
    with inner_threads(threads):
        if not (worker and "numba" in sys.modules):
            return fn(task)
        import numba

        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, before))
        try:
            return fn(task)
        finally:
            numba.set_num_threads(before)


def map_tasks(
    fn: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    n_jobs: int | None = None,
    desc: str | None = None,
) -> list[Result]:
    """Apply ``fn`` to every task, in order, on as many workers as asked for.

    Parameters
    ----------
    fn : callable
        Function of one task. With more than one worker it must be picklable: a module-level
        function, or a ``functools.partial`` of one (large arrays in it travel by memory map).
    tasks : sequence
        The tasks. Each carries its own seed, so results never depend on ``n_jobs``.
    n_jobs : int, optional
        Workers, -1 for one a core. None takes the option ``n_jobs``, then an enclosing
        ``joblib.parallel_config``, then 1.
    desc : str, optional
        What is running, for the progress line.

    Returns
    -------
    list
        Results in the order of the tasks.

    Examples
    --------
    >>> map_tasks(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    jobs = get_option("n_jobs") if n_jobs is None else n_jobs
    threads: int = get_option("inner_threads")
    if len(tasks) <= 1 or effective_jobs(jobs) == 1:
        return [_one_task(fn, task, threads, worker=False) for task in progress(tasks, desc)]
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    # Some backends give all results at once: then progress jumps to the end.
    one_by_one = get_active_backend()[0].supports_return_generator
    results: Any = Parallel(n_jobs=jobs, return_as="generator" if one_by_one else "list")(
        delayed(_one_task)(fn, task, threads, worker=True) for task in tasks
    )
    return list(progress(_Counted(results, len(tasks)), desc))


def map_threads(
    fn: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    n_jobs: int | None = None,
    desc: str | None = None,
) -> list[Result]:
    """Apply ``fn`` on threads of this process: for compiled work that needs no interpreter lock.

    Parameters
    ----------
    fn : callable
        Function of one task; it may share arrays with the others, each writing its own part.
    tasks : sequence
        The tasks.
    n_jobs : int, optional
        Threads, resolved as in :func:`map_tasks`.
    desc : str, optional
        What is running, for the progress line.

    Returns
    -------
    list
        Results in the order of the tasks.

    Examples
    --------
    >>> map_threads(abs, [-1, 2, -3], n_jobs=2)
    [1, 2, 3]
    """
    threads = effective_jobs(get_option("n_jobs") if n_jobs is None else n_jobs)
    if threads == 1 or len(tasks) <= 1:
        return [fn(task) for task in progress(tasks, desc)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        return list(progress(_Counted(pool.map(fn, tasks), len(tasks)), desc))


def effective_jobs(n_jobs: int | None) -> int:
    """Number of workers meant by ``n_jobs``: joblib's reading of None and of negative numbers."""
    if n_jobs == 1:
        return 1
    from joblib import effective_n_jobs

    jobs: Any = n_jobs  # None is allowed, whatever the stub says
    return int(effective_n_jobs(jobs))


class _Counted:
    """A generator that knows how many items will come."""

    def __init__(self, items: Iterator[Any], total: int) -> None:
        self._items, self._total = items, total

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return self._total
