"""Processes that work: they end as asked, outlive their server, and go on exactly where they were killed."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tracetune.app import jobs, memory, pulse
from tracetune.app.datasets import build_dataset, register_evalset
from tracetune.app.ingest import make_traces
from tracetune.app.run_files import read_pulse
from tracetune.app.runs import first_metrics_difference
from tracetune.app.worker import Supervisor
from tracetune.core.ids import file_hash
from tracetune.core.values import Problem
from tracetune.store import runs as records
from tracetune.store.open import open_store

pytestmark = pytest.mark.slow
WORDS = ("training.batch_size=2", "training.logging_steps=1", "training.save_steps=4", "model.max_length=128")


def make_home() -> str:
    make_traces("high_card_duel", count=12, seed=42)
    register_evalset([Problem("a", "What is 2 + 2?", "4"), Problem("b", "What is 3 + 4?", "7")], "sums")
    return build_dataset("duels", "v1").dataset_key


@pytest.fixture
def dataset(home: Path) -> str:
    return make_home()


@pytest.fixture
def supervisor(home: Path) -> Iterator[Callable[[], Supervisor]]:
    """Starts supervisors; at the end they stop, and what still works is killed."""
    started: list[Supervisor] = []

    def start(slots: int = 1) -> Supervisor:
        started.append(Supervisor(home, slots, poll_seconds=0.1))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()
    with open_store(home) as store:
        for run in records.running_on(store, pulse.machine()):
            pid = read_pulse(home / run.folder).get("pid")
            if pid and not pulse.is_gone(home / run.folder, str(run.owner)):
                os.kill(pid, signal.SIGKILL)


def launch(dataset: str, steps: int, *more: str) -> str:
    return jobs.launch("sft", [f"steps={steps}", *WORDS, *more], dataset=dataset, model="tiny").run_id


def wait_for(what: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, [jobs.run_detail(run.run_id) for run in jobs.list_runs().items]
        time.sleep(0.05)


def wait_for_end(run_id: str) -> jobs.RunView:
    wait_for(lambda: jobs.get_run(run_id).has_ended)
    return jobs.get_run(run_id)


def pid_of(run_id: str) -> int:
    return read_pulse(jobs.run_folder(run_id))["pid"]


@pytest.mark.long
def test_runs_of_every_kind_end_and_say_so(dataset, supervisor):
    supervisor()
    trained = launch(dataset, 2)
    measured = jobs.launch("evaluation", ["max_tokens=4"], model="tiny", eval_set="sums").run_id
    improved = jobs.launch(
        "grpo",
        [
            *("training.num_batches=1", "training.micro_batch_size=2", "training.num_test_batches=0"),
            *("grpo.num_generations=2", "generation.max_generation_steps=4"),
        ],
        dataset=dataset,
    ).run_id
    for run_id in (trained, measured, improved):
        ended = wait_for_end(run_id)
        assert (ended.state, ended.exit_code, ended.exit_reason, ended.attempts) == ("finished", 0, None, 1)
    detail = jobs.run_detail(trained)
    assert detail.manifest["run_id"] == trained
    assert (detail.peak_rss_bytes or 0) > 2**20
    names = {item.name for item in jobs.artifacts(trained)}
    assert {"metrics.jsonl", "run_manifest.json", "checkpoint-final/model.safetensors"} <= names
    assert "answers.jsonl" in {item.name for item in jobs.artifacts(measured)}
    rollouts = jobs.run_rollouts(improved)
    assert (rollouts.step, [len(group) for group in rollouts.groups.values()]) == (1, [2, 2])
    for run_id in (trained, measured, improved):
        told = jobs.read_log(run_id)[0].lines
        assert any("begins" in line for line in told)
        assert any("finished" in line for line in told)


@pytest.mark.long
def test_a_killed_run_goes_on_and_ends_as_if_never_killed(dataset, supervisor):
    supervisor()
    killed, whole = launch(dataset, 24), launch(dataset, 24)
    wait_for(lambda: (jobs.get_run(killed).step or 0) >= 5)
    os.kill(pid_of(killed), signal.SIGKILL)
    wait_for(lambda: jobs.get_run(killed).attempts == 2)
    assert wait_for_end(killed).state == wait_for_end(whole).state == "finished"
    left, right = jobs.run_folder(killed), jobs.run_folder(whole)
    assert first_metrics_difference(left / "metrics.jsonl", right / "metrics.jsonl") is None
    weights = "checkpoint-final/model.safetensors"
    assert file_hash(left / weights) == file_hash(right / weights)
    assert any("resumed after step" in line for line in jobs.read_log(killed)[0].lines)


@pytest.mark.long
def test_a_run_outlives_its_server_and_the_next_one_starts_none_too_many(dataset, supervisor, home):
    command = [sys.executable, "-m", "tracetune", "worker", "--data-dir", str(home)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    first, second = launch(dataset, 100_000), launch(dataset, 1)
    wait_for(lambda: (jobs.get_run(first).step or 0) >= 1)
    server.kill()
    server.wait()
    supervisor()
    before = jobs.get_run(first).step or 0
    wait_for(lambda: (jobs.get_run(first).step or 0) > before + 3)
    assert (jobs.get_run(first).attempts, jobs.get_run(second).queue_position) == (1, 1)
    # Nobody here is its parent, and its lease is good for long: its death is seen all the same.
    jobs.cancel(second)
    os.kill(pid_of(first), signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: jobs.get_run(first).attempts == 2)
    assert time.monotonic() - killed < 15
    jobs.cancel(first)
    assert wait_for_end(first).state == "cancelled"


@pytest.mark.long
def test_a_run_is_cancelled_within_seconds_whatever_it_does(dataset, supervisor):
    supervisor()
    run_id = launch(dataset, 100_000)
    wait_for(lambda: jobs.run_detail(run_id).phase in ("loading", "compiling"))
    asked = time.monotonic()
    jobs.cancel(run_id)
    assert wait_for_end(run_id).state == "cancelled"
    assert time.monotonic() - asked < 10
    # A quick machine may have stepped before it was asked.
    before = jobs.get_run(run_id).step or 0
    jobs.resume(run_id)
    wait_for(lambda: (jobs.get_run(run_id).step or 0) >= before + 2)
    asked = time.monotonic()
    jobs.cancel(run_id)
    ended = wait_for_end(run_id)
    assert (ended.state, ended.exit_reason) == ("cancelled", "cancelled")
    assert time.monotonic() - asked < 10
    # It stopped between two steps, with everything saved that a resume needs.
    assert any("interrupted after step" in line for line in jobs.read_log(run_id)[0].lines)


@pytest.mark.long
def test_a_run_whose_machine_asks_it_to_stop_waits_for_the_next(dataset, supervisor, home):
    with open_store(home) as store:
        run_id = launch(dataset, 100_000)
        claimed = records.claim_run(store, machine=pulse.machine(), slots=1)
        assert claimed
        process = start(run_id, str(claimed.owner))
        wait_for(lambda: (jobs.get_run(run_id).step or 0) >= 1)
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
        stopped = jobs.get_run(run_id)
        assert (stopped.state, stopped.attempts) == ("queued", 0)


def start(run_id: str, owner: str, *, most_bytes: int | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tracetune.app.job_process", run_id, owner]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    if most_bytes is not None:
        # From outside: code of ours between fork and exec may wait for ever on a lock of one of JAX's threads.
        resource.prlimit(process.pid, resource.RLIMIT_AS, (most_bytes, most_bytes))
    return process


@pytest.mark.long
def test_a_run_that_asks_for_too_much_memory_is_told_what_to_lower(dataset, home, monkeypatch):
    # The check before a run would refuse it; what no check foresees is told too.
    monkeypatch.setenv(memory.SKIP, "1")

    run_id = launch(dataset, 2, "training.batch_size=30000000", "model.packing=false")
    with open_store(home) as store:
        claimed = records.claim_run(store, machine=pulse.machine(), slots=1)
        assert claimed
        assert start(run_id, str(claimed.owner), most_bytes=12 * 2**30).wait(timeout=240) != 0
    ended = jobs.get_run(run_id)
    assert ended.state == "failed"
    assert str(ended.exit_reason).startswith("out of memory: ")
    assert "lower training.batch_size (is 30000000) or model.max_length (is 128)" in str(ended.exit_reason)


def test_a_run_that_cannot_work_fails_with_the_reason(dataset, supervisor, home):
    supervisor()
    run_id = launch(dataset, 1, "model.max_length=8")
    ended = wait_for_end(run_id)
    assert (ended.state, ended.exit_code, ended.attempts) == ("failed", 1, 1)
    assert "longer than 8 tokens" in str(ended.exit_reason)
    assert str(home) not in str(ended.exit_reason)


@pytest.mark.long
def test_two_supervisors_begin_each_run_once(dataset, supervisor):
    supervisor(2), supervisor(2)
    ids = [jobs.launch("evaluation", ["max_tokens=2"], model="tiny", eval_set="sums").run_id for _ in range(3)]
    assert [wait_for_end(run_id).attempts for run_id in ids] == [1, 1, 1]
    assert [len([line for line in jobs.read_log(run_id)[0].lines if "begins" in line]) for run_id in ids] == [1] * 3


@pytest.mark.long
def test_a_process_that_lost_its_lease_ends_before_another_goes_on(dataset, supervisor, home):
    supervisor()
    run_id = launch(dataset, 100_000)
    wait_for(lambda: (jobs.get_run(run_id).step or 0) >= 1)
    first = pid_of(run_id)
    with open_store(home) as store:
        # As if its machine had slept for longer than the lease.
        records.bury_run(store, run_id, str(records.get_run(store, run_id).owner))
    wait_for(lambda: any("attempt 2" in line for line in jobs.read_log(run_id)[0].lines))
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    jobs.cancel(run_id)
    assert wait_for_end(run_id).attempts == 2


@pytest.mark.long
def test_a_run_on_postgresql_sits_out_a_crash_of_the_database(postgresql, postgres_server, supervisor):
    supervisor()
    run_id = launch(make_home(), 100)
    wait_for(lambda: (jobs.get_run(run_id).step or 0) >= 1)
    postgres_server.stop("immediate")
    time.sleep(3.0)
    postgres_server.start()
    ended = wait_for_end(run_id)
    assert (ended.state, ended.attempts, ended.step) == ("finished", 1, 100)
