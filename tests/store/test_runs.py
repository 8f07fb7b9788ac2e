import multiprocessing
from collections import Counter
from pathlib import Path

import pytest

from tracetune.core.errors import Conflict, NotFound
from tracetune.store.open import Store, open_store
from tracetune.store.runs import (
    NewRun,
    RunFilter,
    StoredRun,
    add_ended_run,
    bury_run,
    claim_run,
    enqueue_run,
    expire_leases,
    finish_run,
    get_run,
    list_runs,
    queue_again,
    queue_positions,
    release_run,
    renew_lease,
    request_cancel,
    running_on,
)

pytestmark = pytest.mark.slow

SPEC = {"kind": "sft", "overrides": ["steps=1"], "config": {"training": {"num_steps": 1}}}


def ask(store: Store, name: str = "one", key: str | None = None, **spec: object) -> StoredRun:
    return enqueue_run(store, NewRun("sft", name, {**SPEC, **spec}, "duels-v1", key))


def claim(store: Store, *, slots: int = 1, machine: str = "here", seconds: float = 30.0) -> StoredRun:
    run = claim_run(store, machine=machine, slots=slots, seconds=seconds)
    assert run is not None
    return run


def claim_many(home: Path, machine: str, results: "multiprocessing.Queue[str]") -> None:
    with open_store(home) as store:
        while run := claim_run(store, machine=machine, slots=100):
            results.put(run.run_id)


def test_a_run_waits_with_what_was_asked_for(store):
    run = ask(store)
    assert (run.state, run.attempts, run.owner, run.folder) == ("queued", 0, None, f"runs/{run.run_id}")
    assert get_run(store, run.run_id) == run
    assert run.spec == SPEC
    with pytest.raises(NotFound, match="not found"):
        get_run(store, "00000000-0000-4000-8000-000000000000")


def test_the_same_request_is_the_same_run(store):
    first = ask(store, key="k")
    assert ask(store, key="k").run_id == first.run_id
    assert ask(store, key="other").run_id != first.run_id
    assert ask(store).run_id != ask(store).run_id
    with pytest.raises(Conflict, match="other settings"):
        ask(store, key="k", model="tiny")


def test_the_oldest_waiting_run_is_claimed_first_and_once(store):
    first, second = ask(store), ask(store)
    assert queue_positions(store) == {first.run_id: 1, second.run_id: 2}
    claimed = claim(store, slots=2)
    assert (claimed.run_id, claimed.state, claimed.attempts) == (first.run_id, "running", 1)
    assert claimed.started_at is not None
    assert queue_positions(store) == {second.run_id: 1}
    assert claim(store, slots=2).run_id == second.run_id
    assert claim_run(store, machine="here", slots=9) is None


def test_a_machine_runs_no_more_than_its_slots_whoever_claims(store):
    ask(store), ask(store), ask(store)
    claim(store)
    assert claim_run(store, machine="here", slots=1) is None
    assert claim_run(store, machine="there", slots=1) is not None
    assert claim_run(store, machine="here", slots=2) is not None


def test_a_lease_that_ran_out_takes_no_slot(store):
    ask(store), ask(store)
    claim(store, seconds=-1.0)
    assert claim_run(store, machine="here", slots=1) is not None


@pytest.mark.slow
def test_processes_that_claim_at_once_get_each_run_once(database):
    with open_store(database.home) as store:
        asked = {ask(store).run_id for _ in range(24)}
    spawning = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = spawning.Queue()
    workers = [spawning.Process(target=claim_many, args=(database.home, f"machine-{n}", results)) for n in range(3)]
    for worker in workers:
        worker.start()
    claimed = Counter(results.get(timeout=60) for _ in asked)
    for worker in workers:
        worker.join()
    assert claimed == Counter(asked)


def test_only_the_owner_renews_finishes_releases_or_buries(store):
    ask(store)
    run = claim(store)
    owner = str(run.owner)
    assert renew_lease(store, run.run_id, "somebody else") == "lost"
    assert not finish_run(store, run.run_id, "somebody else", state="finished", exit_code=0, exit_reason=None)
    assert release_run(store, run.run_id, "somebody else") is None
    assert bury_run(store, run.run_id, "somebody else") is None
    assert renew_lease(store, run.run_id, owner) == "held"
    assert finish_run(store, run.run_id, owner, state="finished", exit_code=0, exit_reason=None)
    ended = get_run(store, run.run_id)
    assert (ended.state, ended.owner, ended.lease_until, ended.exit_code) == ("finished", None, None, 0)
    assert ended.finished_at is not None
    assert renew_lease(store, run.run_id, owner) == "lost"


def test_a_renewed_lease_does_not_expire(store):
    ask(store)
    run = claim(store, seconds=-1.0)
    renew_lease(store, run.run_id, str(run.owner))
    assert expire_leases(store) == []
    renew_lease(store, run.run_id, str(run.owner), seconds=-1.0)
    assert [expired.run_id for expired in expire_leases(store)] == [run.run_id]


def test_a_run_whose_process_died_is_begun_once_more_and_then_failed(store):
    first, later = ask(store), ask(store)
    claim(store, seconds=-1.0)
    assert expire_leases(store)[0].state == "queued"
    assert queue_positions(store)[later.run_id] == 2
    again = claim(store, seconds=-1.0)
    assert (again.run_id, again.attempts) == (first.run_id, 2)
    failed = expire_leases(store)[0]
    assert (failed.state, failed.attempts) == ("failed", 2)
    assert "without a word" in str(failed.exit_reason)


def test_a_death_that_was_seen_tells_its_reason(store):
    ask(store)
    for _ in range(2):
        run = claim(store)
        bury_run(store, run.run_id, str(run.owner), reason="its process was ended by SIGSEGV", exit_code=-11)
    dead = get_run(store, run.run_id)
    assert (dead.state, dead.exit_code, dead.exit_reason) == ("failed", -11, "its process was ended by SIGSEGV")


def test_a_run_given_back_does_not_count_as_an_attempt(store):
    ask(store)
    for _ in range(5):
        run = claim(store)
        released = release_run(store, run.run_id, str(run.owner))
        assert released is not None
    assert (released.state, released.attempts, released.owner) == ("queued", 0, None)


def test_a_waiting_run_is_cancelled_at_once_and_a_working_one_is_told(store):
    waiting = ask(store)
    assert request_cancel(store, waiting.run_id).state == "cancelled"
    assert request_cancel(store, waiting.run_id).state == "cancelled"
    working = ask(store)
    owner = str(claim(store).owner)
    told = request_cancel(store, working.run_id)
    assert (told.state, told.cancel_requested) == ("running", True)
    assert renew_lease(store, working.run_id, owner) == "cancel"
    finish_run(store, working.run_id, owner, state="finished", exit_code=0, exit_reason=None)
    with pytest.raises(Conflict, match="finished already"):
        request_cancel(store, working.run_id)


@pytest.mark.parametrize("end", ["expire", "release", "bury"])
def test_a_cancelled_run_whose_process_is_gone_does_not_begin_again(store, end):
    ask(store)
    run = claim(store, seconds=-1.0)
    request_cancel(store, run.run_id)
    if end == "expire":
        expire_leases(store)
    elif end == "release":
        release_run(store, run.run_id, str(run.owner))
    else:
        bury_run(store, run.run_id, str(run.owner))
    assert get_run(store, run.run_id).state == "cancelled"


def test_a_failed_or_cancelled_run_waits_again_with_fresh_attempts(store):
    run = ask(store)
    with pytest.raises(Conflict, match="is queued"):
        queue_again(store, run.run_id)
    request_cancel(store, run.run_id)
    again = queue_again(store, run.run_id)
    assert (again.state, again.attempts, again.cancel_requested, again.exit_reason, again.finished_at) == (
        *("queued", 0, False),
        *(None, None),
    )
    assert claim(store).run_id == run.run_id


def test_runs_are_listed_newest_first_page_by_page_and_by_field(store):
    runs = [ask(store, name=f"Run {n}%") for n in range(5)]
    assert [run.run_id for run in list_runs(store, limit=2)] == [runs[4].run_id, runs[3].run_id]
    older = list_runs(store, limit=9, before=runs[3].seq)
    assert [run.seq for run in older] == [runs[2].seq, runs[1].seq, runs[0].seq]
    request_cancel(store, runs[0].run_id)

    def found(**fields: str) -> list[int]:
        return [run.seq for run in list_runs(store, limit=9, chosen=RunFilter(**fields))]

    assert found(state="cancelled") == [runs[0].seq]
    assert len(found(kind="sft", dataset_key="duels-v1")) == 5
    assert found(kind="grpo") == found(dataset_key="none") == []
    assert found(q="rUN 3%") == [runs[3].seq]
    assert found(q="n_3") == []
    assert found(q=runs[2].run_id[:8].upper()) == [runs[2].seq]


def test_a_machine_knows_the_runs_it_holds(store):
    ask(store), ask(store)
    mine, theirs = claim(store, machine="a"), claim(store, machine="ab")
    assert [run.run_id for run in running_on(store, "a")] == [mine.run_id]
    assert [run.run_id for run in running_on(store, "ab")] == [theirs.run_id]


def test_a_run_of_elsewhere_is_recorded_once(store):
    new = NewRun("sft", "by hand", SPEC)
    times = ("2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00")
    added = add_ended_run(store, new, run_id="9d5a6783-719b-48f8-9882-fdce30cba64a", state="finished", times=times)
    assert (added.state, added.started_at, added.finished_at) == ("finished", *times)
    again = add_ended_run(store, new, run_id=added.run_id, state="failed", times=times)
    assert again == added
    assert claim_run(store, machine="here", slots=1) is None
