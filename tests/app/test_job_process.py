"""A run's process that is asked to stop while C code works, which may turn the request into an error of its own."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracetune.app import job_heart, job_process, jobs
from tracetune.app.datasets import register_evalset
from tracetune.core.values import Problem
from tracetune.store import runs as records
from tracetune.store.open import open_store


@pytest.fixture
def claimed(home: Path) -> Iterator[records.StoredRun]:
    """A run that this process holds; the signals' handlers are put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    register_evalset([Problem("a", "What is 2 + 2?", "4")], "sums")
    jobs.launch("evaluation", [], model="tiny", eval_set="sums")
    with open_store(home) as store:
        run = records.claim_run(store, machine="here", slots=1)
    assert run is not None
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def failing_import(*, asked: bool):
    """What an extension does that is interrupted while it loads: its own error hides the request."""

    def work(*_: object) -> bool:
        try:
            if asked:
                os.kill(os.getpid(), signal.SIGTERM)
        except job_process.AskedToStop as stop:
            raise ImportError("the extension failed to load") from stop
        raise ImportError("the extension is not there")

    return work


def test_a_request_that_became_another_error_still_gives_the_run_back(claimed, monkeypatch):
    monkeypatch.setattr(job_process, "_work", failing_import(asked=True))
    assert job_process.main(claimed.run_id, str(claimed.owner)) == 128 + signal.SIGTERM
    assert jobs.get_run(claimed.run_id).state == "queued"


def test_a_heart_does_not_miss_the_lease_that_its_own_last_word_ended(claimed, monkeypatch):
    release, ends = records.release_run, []

    def release_slowly(*told):
        release(*told)
        # Many beats of a heart that would go on.
        time.sleep(0.2)

    monkeypatch.setattr(records, "release_run", release_slowly)
    monkeypatch.setattr(job_heart, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(job_heart.Heart, "_end", lambda _, code: ends.append(code))
    monkeypatch.setattr(job_process, "_work", failing_import(asked=True))
    job_process.main(claimed.run_id, str(claimed.owner))
    assert ends == []


def test_the_same_error_without_a_request_is_a_failure(claimed, monkeypatch):
    monkeypatch.setattr(job_process, "_work", failing_import(asked=False))
    with pytest.raises(ImportError, match="is not there"):
        job_process.main(claimed.run_id, str(claimed.owner))
    failed = jobs.get_run(claimed.run_id)
    assert (failed.state, failed.exit_reason) == ("failed", "ImportError: the extension is not there")
