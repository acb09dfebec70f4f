"""Work on blocks of pixels: on threads, or where dask runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np

from causalfair._core.logging import progress
from causalfair._core.optional import import_optional
from causalfair._core.parallel import effective_jobs, inner_threads, map_threads
from causalfair._core.typing import IntArray
from causalfair.imagery._pixels import Block, Decoder
from causalfair.imagery._sequence import ImageSequence

__all__ = ["map_blocks", "threads_of"]

Result = TypeVar("Result")
Item = tuple[IntArray, slice]
AHEAD = 4  # blocks in flight a dask thread


def map_blocks(
    task: Callable[[Block], Result],
    sequence: ImageSequence,
    *,
    images: Any = None,
    n_jobs: int | None = None,
    own_threads: bool = False,
    desc: str | None = None,
) -> Iterator[tuple[IntArray, slice, Result]]:
    """Apply ``task`` to every block of a sequence; yield image numbers, frames and its results.

    A dask array is read where dask runs, on the workers of a cluster if a client is connected, and
    ``task`` is sent there. Everything else is read on threads of this process. Only a few results
    wait at a time, and they do not depend on where the work was done. Libraries that ``task`` calls
    get one thread, unless it has ``own_threads``, as a network has.
    """
    threads = sequence._threads(n_jobs)
    plan = sequence._blocks(images=images, threads=threads)
    if sequence._is_dask:
        size, run = AHEAD * _dask_threads(), partial(_run_on_dask, task, sequence, own_threads)
    else:
        size, run = threads, partial(_run_on_threads, task, sequence, threads, own_threads)
    batches = [plan[i : i + size] for i in range(0, len(plan), size)]
    for batch in progress(batches, desc):
        for (numbers, frames), result in zip(batch, run(batch), strict=True):
            yield numbers, frames, result


def threads_of(own_threads: bool) -> Any:
    """Context in which libraries have one thread, or as many as they like."""
    return nullcontext() if own_threads else inner_threads(1)


def _run_on_threads(
    task: Any, sequence: ImageSequence, threads: int, own_threads: bool, batch: list[Item]
) -> Any:
    with threads_of(own_threads):
        return map_threads(partial(_read_and_do, task, sequence), batch, n_jobs=threads)


def _read_and_do(task: Any, sequence: ImageSequence, item: Item) -> Any:
    return task(sequence.read(*item))


def _run_on_dask(task: Any, sequence: ImageSequence, own_threads: bool, batch: list[Item]) -> Any:
    """One dask task a block; what is the same for all blocks enters the graph once."""
    dask = import_optional("dask", extra="dask")
    common = (task, sequence._decoder(), own_threads)
    shared = dask.delayed(common, traverse=False, pure=False)
    on_worker = dask.delayed(_decode_and_do, pure=False)
    return dask.compute(*(on_worker(shared, *sequence._lazy(*item), *item) for item in batch))


def _decode_and_do(
    shared: tuple[Any, Decoder, bool], raw: Any, mask: Any, images: IntArray, frames: slice
) -> Any:
    """Run on a worker, where the pixels of one block have arrived as a numpy array."""
    task, decode, own_threads = shared
    with threads_of(own_threads):
        return task(decode(np.asarray(raw), mask, images, frames))


def _dask_threads() -> int:
    """Threads of the connected cluster, or cores of this machine."""
    distributed: Any = sys.modules.get("distributed")  # a client is there only if it is
    if distributed is not None:
        try:
            threads: int = sum(distributed.default_client().nthreads().values())
            return max(1, threads)
        except ValueError:  # no client is connected
            pass
    return effective_jobs(-1)
