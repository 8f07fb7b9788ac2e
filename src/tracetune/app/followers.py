"""Runs of several processes: process 0 writes what a person reads, the others keep theirs out of sight.

Every process takes the same steps and meets the others in each of them, so all run the same code; a follower's log,
metrics and manifest go to a folder that is thrown away, and only its part of a checkpoint is kept.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from tracetune.app.runs import RunFolder
from tracetune.app.stop import StopRequest
from tracetune.engine import hosts


@contextmanager
def own_folder(shared: RunFolder) -> Iterator[RunFolder]:
    """Where this process writes: the run's folder for process 0."""
    if hosts.leads():
        yield shared
        return
    with TemporaryDirectory(prefix="tracetune-follower-") as scratch:
        yield RunFolder(Path(scratch), shared.output)


@contextmanager
def own_stream(stream: TextIO) -> Iterator[TextIO]:
    """Where this process tells how it goes: nowhere but for process 0."""
    if hosts.leads():
        yield stream
        return
    with Path(os.devnull).open("w") as nowhere:
        yield nowhere


def settle_stop(stop: StopRequest) -> None:
    """A request to stop that any process got is every process's, at the same step."""
    if hosts.num_processes() > 1:
        stop.signal_number = hosts.highest(stop.signal_number or 0) or None
