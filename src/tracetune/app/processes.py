"""A file's batches through several processes: the results in their order, few batches in memory at a time."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from tracetune.core.errors import TracetuneError

T = TypeVar("T")
R = TypeVar("R")


def map_batches(work: Callable[[T], R], batches: Iterable[T], processes: int, source: Path) -> Generator[R]:
    """`work` on each batch, in order; two batches a process are under way at most. With 0 `processes` it is done here.

    Everything sent is pickled, and a script that asks for processes guards its own start with
    `if __name__ == "__main__":`, because they are spawned. Raises what `batches` and `work` raise, and
    TracetuneError naming `source` when a process was killed.
    """
    if processes == 0:
        yield from map(work, batches)
        return
    # Spawned, not forked: the caller may have threads of JAX.
    context = multiprocessing.get_context("spawn")
    pending: deque[Future[R]] = deque()
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            for job in _jobs(pool, work, batches):
                pending.append(job)
                if len(pending) > 2 * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise TracetuneError(f"{source}: a process that read it was killed; run again with fewer") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _jobs(pool: ProcessPoolExecutor, work: Callable[[T], R], batches: Iterable[T]) -> Iterator[Future[R]]:
    try:
        for batch in batches:
            yield pool.submit(work, batch)
    except TracetuneError as error:
        # What stopped the reading is told in its turn, after the batches before it.
        stopped: Future[R] = Future()
        stopped.set_exception(error)
        yield stopped


def _end_with_parent() -> None:
    """A worker of a process that was killed would wait for ever: each holds both ends of the pipe it reads from."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
