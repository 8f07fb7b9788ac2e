"""Runs as a queue: each is asked for once, worked on by whoever holds its lease, and ends once.

A lease is renewed by the process that does the work. One that ran out means that this process is gone: the run is
queued again, and resumed exactly. Times of leases are the database's own, so clocks of machines need not agree.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, Select, func, insert, select, text, update

from tracetune.core.errors import Conflict, NotFound
from tracetune.core.ids import canonical_json, new_id, utc_now
from tracetune.store.open import Store
from tracetune.store.tables import runs

State = Literal["queued", "running", "finished", "failed", "cancelled"]
Lease = Literal["held", "cancel", "lost"]
LEASE_SECONDS = 30.0
# A run whose process died is begun once more: what kills it twice will kill it a third time.
MAX_ATTEMPTS = 2
# An advisory lock of PostgreSQL, held while one supervisor counts what its machine runs and claims the next.
_CLAIM_LOCK = 7_412_003
GONE = "its process ended without a word; the end of its log may tell why"


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One row: what was asked for (`spec`), who works on it, and how it ended. `folder` is relative to the home."""

    seq: int
    run_id: str
    kind: str
    name: str
    state: State
    spec: Mapping[str, Any]
    folder: str
    request_key: str | None
    dataset_key: str | None
    owner: str | None
    lease_until: float | None
    attempts: int
    cancel_requested: bool
    exit_code: int | None
    exit_reason: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None


class NewRun(NamedTuple):
    """What is asked for; the same `request_key` is the same request."""

    kind: str
    name: str
    spec: Mapping[str, Any]
    dataset_key: str | None = None
    request_key: str | None = None


class RunFilter(NamedTuple):
    """None leaves a field open; `q` is a part of the name, in any case, or the beginning of the id."""

    state: str | None = None
    kind: str | None = None
    dataset_key: str | None = None
    q: str | None = None


def enqueue_run(store: Store, new: NewRun) -> StoredRun:
    """Queue a run; a request that came before gives the run that it began. Raises Conflict when it asked
    for another."""
    spec = canonical_json(dict(new.spec)).decode()
    with store.write() as connection:
        _one_claim_at_a_time(connection)
        if new.request_key is not None:
            known = connection.execute(select(runs).where(runs.c.request_key == new.request_key)).one_or_none()
            if known is not None:
                return _same_request(known, new.kind, spec)
        return _insert(connection, new, spec, run_id=new_id(), state="queued")


def add_ended_run(store: Store, new: NewRun, *, run_id: str, state: State, times: tuple[str, str]) -> StoredRun:
    """Record a run that this queue did not do, begun and ended at `times`; one that is recorded stays as it is."""
    with store.write() as connection:
        _one_claim_at_a_time(connection)
        known = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
        if known is not None:
            return _stored(known)
        stored = _insert(connection, new, canonical_json(dict(new.spec)).decode(), run_id=run_id, state=state)
        return _change(connection, stored.run_id, started_at=times[0], finished_at=times[1])


def get_run(store: Store, run_id: str) -> StoredRun:
    """One run. Raises NotFound."""
    with store.read() as connection:
        return _one(connection, run_id)


def list_runs(
    store: Store, *, limit: int, before: int | None = None, chosen: RunFilter | None = None
) -> list[StoredRun]:
    """The newest first, from below `before`."""
    query = _filtered(select(runs), chosen or RunFilter()).order_by(runs.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(runs.c.seq < before)
    with store.read() as connection:
        return [_stored(row) for row in connection.execute(query)]


def queue_positions(store: Store) -> dict[str, int]:
    """The place of each waiting run, 1 for the next one."""
    query = select(runs.c.run_id).where(runs.c.state == "queued").order_by(runs.c.seq)
    with store.read() as connection:
        return {run_id: place for place, run_id in enumerate(connection.scalars(query), start=1)}


def claim_run(
    store: Store, *, machine: str, slots: int, worker: str | None = None, seconds: float = LEASE_SECONDS
) -> StoredRun | None:
    """Take the oldest waiting run for `machine/worker`; None when none waits, or the machine's slots are taken.

    `slots` count every live run of the machine, whoever started it, so a restarted server starts none too many.
    """
    waiting = select(runs).where(runs.c.state == "queued").order_by(runs.c.seq).limit(1)
    with store.read() as connection:
        if connection.execute(waiting).first() is None:
            return None
    with store.write() as connection:
        _one_claim_at_a_time(connection)
        now = _database_time(connection)
        if _count_live(connection, machine, now) >= slots:
            return None
        row = connection.execute(waiting.with_for_update(skip_locked=True)).first()
        if row is None:
            return None
        return _change(
            connection,
            row.run_id,
            state="running",
            owner=f"{machine}/{worker or new_id()}",
            lease_until=now + seconds,
            attempts=row.attempts + 1,
            started_at=row.started_at or utc_now(),
            exit_code=None,
            exit_reason=None,
        )


def renew_lease(store: Store, run_id: str, owner: str, *, seconds: float = LEASE_SECONDS) -> Lease:
    """Go on holding a run; `cancel` when somebody asked to stop it, `lost` when it is no longer this owner's."""
    with store.write() as connection:
        row = connection.execute(_owned(run_id, owner)).one_or_none()
        if row is None:
            return "lost"
        _change(connection, run_id, lease_until=_database_time(connection) + seconds)
        return "cancel" if row.cancel_requested else "held"


def finish_run(
    store: Store, run_id: str, owner: str, *, state: State, exit_code: int | None, exit_reason: str | None
) -> bool:
    """Say how a run ended; False when it is no longer this owner's to say."""
    with store.write() as connection:
        if connection.execute(_owned(run_id, owner)).one_or_none() is None:
            return False
        _change(connection, run_id, **_ended(state), exit_code=exit_code, exit_reason=exit_reason)
        return True


def release_run(store: Store, run_id: str, owner: str) -> StoredRun | None:
    """Give a run back to the queue as it was asked to stop by its machine; None when it is no longer this owner's."""
    with store.write() as connection:
        row = connection.execute(_owned(run_id, owner)).one_or_none()
        if row is None:
            return None
        return _give_back(connection, row, attempts=row.attempts - 1)


def bury_run(
    store: Store, run_id: str, owner: str, *, reason: str = GONE, exit_code: int | None = None
) -> StoredRun | None:
    """A run whose process is known to be dead: queued again at its first death, failed at its next.

    None when it is no longer this owner's.
    """
    with store.write() as connection:
        row = connection.execute(_owned(run_id, owner)).one_or_none()
        return None if row is None else _after_death(connection, row, reason, exit_code)


def expire_leases(store: Store) -> list[StoredRun]:
    """Bury every run whose lease ran out; as they stand afterwards."""
    with store.read() as connection:
        now = _database_time(connection)
        expired = select(runs).where(runs.c.state == "running", runs.c.lease_until < now)
        if connection.execute(expired.limit(1)).first() is None:
            return []
    with store.write() as connection:
        rows = connection.execute(expired.with_for_update(skip_locked=True)).all()
        return [_after_death(connection, row, GONE, None) for row in rows]


def running_on(store: Store, machine: str) -> list[StoredRun]:
    """The runs that processes of this machine hold."""
    query = select(runs).where(runs.c.state == "running", _is_of(machine)).order_by(runs.c.seq)
    with store.read() as connection:
        return [_stored(row) for row in connection.execute(query)]


def request_cancel(store: Store, run_id: str) -> StoredRun:
    """A waiting run is cancelled at once, a running one when its process hears of it. Raises Conflict for one that
    has ended by itself."""
    with store.write() as connection:
        _one_claim_at_a_time(connection)
        run = _one(connection, run_id)
        if run.state == "queued":
            return _change(connection, run_id, **_ended("cancelled"), exit_reason="cancelled while it waited")
        if run.state == "running":
            return _change(connection, run_id, cancel_requested=True)
        if run.state == "cancelled":
            return run
        raise Conflict(f"run {run_id}: has {run.state} already, so it cannot be cancelled")


def queue_again(store: Store, run_id: str) -> StoredRun:
    """A run that failed or was cancelled waits again, to go on where it stopped. Raises Conflict for any other."""
    with store.write() as connection:
        _one_claim_at_a_time(connection)
        run = _one(connection, run_id)
        if run.state not in ("failed", "cancelled"):
            raise Conflict(f"run {run_id}: is {run.state}; only one that failed or was cancelled can be resumed")
        fresh = {"attempts": 0, "cancel_requested": False, "exit_code": None, "exit_reason": None, "finished_at": None}
        return _change(connection, run_id, state="queued", owner=None, lease_until=None, **fresh)


def _insert(connection: Connection, new: NewRun, spec: str, *, run_id: str, state: State) -> StoredRun:
    connection.execute(
        insert(runs).values(
            run_id=run_id,
            kind=new.kind,
            name=new.name,
            state=state,
            spec=spec,
            folder=f"runs/{run_id}",
            request_key=new.request_key,
            dataset_key=new.dataset_key,
            attempts=0,
            cancel_requested=False,
            created_at=utc_now(),
        )
    )
    return _one(connection, run_id)


def _same_request(known: Row[Any], kind: str, spec: str) -> StoredRun:
    if (known.kind, known.spec) != (kind, spec):
        raise Conflict(f"run {known.run_id}: began with the same request key and other settings; use a new key")
    return _stored(known)


def _after_death(connection: Connection, row: Row[Any], reason: str, exit_code: int | None) -> StoredRun:
    if row.attempts < MAX_ATTEMPTS or row.cancel_requested:
        return _give_back(connection, row, attempts=row.attempts)
    return _change(connection, row.run_id, **_ended("failed"), exit_reason=reason, exit_code=exit_code)


def _give_back(connection: Connection, row: Row[Any], *, attempts: int) -> StoredRun:
    if row.cancel_requested:
        return _change(connection, row.run_id, **_ended("cancelled"), exit_reason="cancelled")
    return _change(connection, row.run_id, state="queued", owner=None, lease_until=None, attempts=attempts)


def _ended(state: State) -> dict[str, Any]:
    return {"state": state, "owner": None, "lease_until": None, "finished_at": utc_now()}


def _owned(run_id: str, owner: str) -> Select[Any]:
    mine = (runs.c.run_id == run_id, runs.c.owner == owner, runs.c.state == "running")
    return select(runs).where(*mine).with_for_update()


def _change(connection: Connection, run_id: str, **values: Any) -> StoredRun:
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(**values))
    return _one(connection, run_id)


def _one(connection: Connection, run_id: str) -> StoredRun:
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if row is None:
        raise NotFound(f"Run {run_id} not found")
    return _stored(row)


def _stored(row: Row[Any]) -> StoredRun:
    values = dict(row._mapping)
    return StoredRun(**{**values, "spec": json.loads(values["spec"])})


def _filtered(query: Select[Any], chosen: RunFilter) -> Select[Any]:
    fields = {"state": chosen.state, "kind": chosen.kind, "dataset_key": chosen.dataset_key}
    for name, value in fields.items():
        if value is not None:
            query = query.where(runs.c[name] == value)
    if chosen.q:
        begins = runs.c.run_id.startswith(chosen.q.lower(), autoescape=True)
        query = query.where(runs.c.name.icontains(chosen.q, autoescape=True) | begins)
    return query


def _is_of(machine: str) -> Any:
    return runs.c.owner.startswith(f"{machine}/", autoescape=True)


def _count_live(connection: Connection, machine: str, now: float) -> int:
    live = (runs.c.state == "running", runs.c.lease_until >= now, _is_of(machine))
    return connection.scalar(select(func.count()).select_from(runs).where(*live)) or 0


def _one_claim_at_a_time(connection: Connection) -> None:
    # SQLite has one writer anyway; on PostgreSQL two could count the same free slot, or insert one key twice.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIM_LOCK})


def _database_time(connection: Connection) -> float:
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0.0)
    return time.time()
