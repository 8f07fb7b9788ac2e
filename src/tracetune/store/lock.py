"""One writing process at a time, by a lock file beside the database.

SQLite 3.7.0 to 3.51.2 has the WAL-reset bug: a checkpoint that overlaps another connection's commit can
skip committed pages and corrupt the file (sqlite.org/wal.html). Most Pythons carry such a version, and
SQLite checkpoints only inside a commit or when the last connection closes, so holding this lock over
every write transaction keeps the overlap from happening. It costs microseconds, so it is always held.
"""

import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracetune.core.errors import StorageError

WAIT_SECONDS = 30.0


@contextmanager
def write_lock(path: Path, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock file `path`. Raises StorageError when others keep it for `wait_seconds`.

    The kernel drops the lock with its process, however that ends: no stale lock can remain.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened ({error.strerror}); fix permissions or free space") from error
    try:
        _acquire(descriptor, path, wait_seconds)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{path}: another process has been writing for {wait_seconds:g} s; wait for it or stop it"
                ) from None
            # A random pause, so that a process writing in a tight loop cannot starve another.
            time.sleep(random.uniform(0.001, 0.01))
