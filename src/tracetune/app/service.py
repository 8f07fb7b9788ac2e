"""What a long-lived service holds open, and whether it may be sent work."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tracetune.app.compute import end_shared_compute
from tracetune.app.database import check_database
from tracetune.app.worker import Supervisor
from tracetune.core.errors import TracetuneError
from tracetune.core.home import home_folder
from tracetune.store.open import open_store

LEAST_FREE_BYTES = 256 * 2**20


class Readiness(NamedTuple):
    """Each False names what is missing; the database must answer, in this code's schema."""

    database: bool
    disk: bool

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""
        return self.database and self.disk


@contextmanager
def running_service(home: Path, *, run_slots: int) -> Iterator[None]:
    """Hold the store open, so that no request waits for it, and take up to `run_slots` runs from the queue.

    The schema is brought up to date first. Runs that work when this ends go on by themselves.
    """
    home_folder(home).mkdir(mode=0o700, parents=True, exist_ok=True)
    with open_store(home):
        supervisor = Supervisor(home, run_slots)
        if run_slots:
            supervisor.start()
        try:
            yield
        finally:
            supervisor.stop()
            end_shared_compute(home)


def readiness(home: Path) -> Readiness:
    """Does the database answer, and is there room to write?"""
    try:
        check_database(home)
        database = True
    except TracetuneError:
        database = False
    return Readiness(database=database, disk=_has_room(home_folder(home)))


def _has_room(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free >= LEAST_FREE_BYTES
    except OSError:
        return False
