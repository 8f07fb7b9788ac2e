"""Batches through several processes: in order, told of what stopped them, and none outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracetune.app.processes import map_batches
from tracetune.core.errors import InputError, TracetuneError

pytestmark = pytest.mark.slow
SOURCE = Path("rows.jsonl")


def doubled(batch: list[int]) -> tuple[int, list[int]]:
    # The first ones take longest, so that those behind them are done first.
    time.sleep(0.02 * max(0, 5 - batch[0]))
    return os.getpid(), [2 * number for number in batch]


def killed_at_three(batch: list[int]) -> int:
    if batch == [3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch[0]


def broken_after(count: int) -> Iterator[list[int]]:
    for number in range(count):
        yield [number]
    raise InputError("rows.jsonl:9: the array is broken")


def test_results_come_in_order_from_other_processes():
    done = list(map_batches(doubled, [[number] for number in range(12)], 2, SOURCE))
    assert [numbers for _, numbers in done] == [[2 * number] for number in range(12)]
    assert os.getpid() not in {process for process, _ in done}
    assert len({process for process, _ in done}) == 2


def test_without_processes_it_is_done_here():
    done = list(map_batches(doubled, [[1], [2]], 0, SOURCE))
    assert done == [(os.getpid(), [2]), (os.getpid(), [4])]


@pytest.mark.parametrize("processes", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 6])
def test_what_stops_the_reading_is_told_after_the_batches_before_it(count, processes):
    results = map_batches(doubled, broken_after(count), processes, SOURCE)
    assert [next(results)[1] for _ in range(count)] == [[2 * number] for number in range(count)]
    with pytest.raises(InputError, match="the array is broken"):
        next(results)


def test_a_killed_worker_is_one_error_that_names_the_file():
    with pytest.raises(TracetuneError, match=r"rows\.jsonl: a process that read it was killed; run again with fewer"):
        list(map_batches(killed_at_three, [[number] for number in range(9)], 2, SOURCE))


ENDLESS = f"""
import os, sys, time
from itertools import count
from pathlib import Path
from {__name__} import doubled
from tracetune.app.processes import map_batches
if __name__ == "__main__":
    for process, _ in map_batches(doubled, ([number] for number in count(5)), 2, Path("rows.jsonl")):
        print(process, flush=True)
        time.sleep(0.01)
"""


def test_workers_end_with_a_process_that_was_killed(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    found = os.pathsep.join(path for path in sys.path if path)
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": found}
    )
    assert parent.stdout is not None
    workers: set[int] = set()
    while len(workers) < 2:
        workers.add(int(parent.stdout.readline()))
    assert all(is_there(worker) for worker in workers)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(is_there(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker waits for a process that is gone"
        time.sleep(0.02)


def is_there(process: int) -> bool:
    """Runs; one that has ended and whose parent has not asked yet does not."""
    state = Path(f"/proc/{process}/stat")
    if not state.parent.parent.is_dir():
        pytest.skip("there is no /proc here, by which the end of another process's child is seen")
    try:
        return state.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
