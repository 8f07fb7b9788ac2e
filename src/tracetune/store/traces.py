"""Traces in the store: added once by content, read newest first in bounded memory.

A trace's id is derived from its content hash (a UUID of version 8), so equal content has the same id on
every machine, and datasets and reports built from the same traces are equal byte for byte.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select

from tracetune.core.errors import Corrupt, InputError, NotFound
from tracetune.core.ids import canonical_json, utc_now
from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.store.open import Store
from tracetune.store.tables import traces

LOOKUP_SIZE = 1_000
COLUMNS = (traces.c.seq, traces.c.id, traces.c.created_at, traces.c.content_hash, traces.c.payload)


class AddedTraces(NamedTuple):
    """`ids` has one id per given trace, in order; `created` those that are new; the rest are `duplicates`."""

    ids: tuple[str, ...]
    created: tuple[str, ...]
    duplicates: int


def add_traces(store: Store, new_traces: Sequence[Trace]) -> AddedTraces:
    """Store traces in one transaction; one whose content is there already keeps its row, id and time.

    The doors have checked each trace against the contract (`parse_trace`); the store keeps what it is given.
    Raises InputError when one cannot be written as JSON; then none is stored.
    """
    created_at = utc_now()
    rows = [_encode(trace, created_at) for trace in new_traces]
    with store.write() as connection:
        known = _known_ids(connection, [row["id"] for row in rows])
        fresh = {row["id"]: row for row in rows if row["id"] not in known}
        if fresh:
            connection.execute(insert(traces), list(fresh.values()))
    return AddedTraces(tuple(row["id"] for row in rows), tuple(fresh), len(rows) - len(fresh))


def iter_traces(
    store: Store, *, newest_first: bool = True, chunk: int = 1_000, source: str | None = None
) -> Iterator[StoredTrace]:
    """Every trace, `chunk` rows in memory at a time; `source` keeps those with that meta.source.

    Each chunk is a read of its own, so a slow reader holds nothing back; newest first, a trace added
    meanwhile does not appear.
    """
    query = select(*COLUMNS).order_by(traces.c.seq.desc() if newest_first else traces.c.seq).limit(chunk)
    if source is not None:
        query = query.where(traces.c.source == source)
    page = query
    while True:
        with store.read() as connection:
            rows = connection.execute(page).all()
        for _, *row in rows:
            yield _decode(store, *row)
        if len(rows) < chunk:
            return
        last = rows[-1].seq
        page = query.where(traces.c.seq < last if newest_first else traces.c.seq > last)


def get_trace(store: Store, trace_id: str) -> StoredTrace:
    """One trace. Raises NotFound, Corrupt when its bytes differ from their hash."""
    with store.read() as connection:
        row = connection.execute(select(*COLUMNS).where(traces.c.id == trace_id)).one_or_none()
    if row is None:
        raise NotFound(f"Trace {trace_id} not found")
    _, *found = row
    return _decode(store, *found)


def count_traces(store: Store, *, source: str | None = None) -> int:
    """How many traces there are, or how many with that meta.source."""
    query = select(func.count()).select_from(traces)
    if source is not None:
        query = query.where(traces.c.source == source)
    with store.read() as connection:
        return connection.execute(query).scalar_one()


def delete_trace(store: Store, trace_id: str) -> None:
    """Remove one trace; frozen datasets keep their rows. Raises NotFound."""
    with store.write() as connection:
        if connection.execute(delete(traces).where(traces.c.id == trace_id)).rowcount == 0:
            raise NotFound(f"Trace {trace_id} not found")


def trace_id(content_hash: str) -> str:
    """The UUID (version 8, RFC 9562) that stands for this content: 122 bits of the hash.

    >>> trace_id("0123456789abcdef" * 4)
    '01234567-89ab-8def-8123-456789abcdef'
    """
    digits = content_hash
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def _encode(trace: Trace, created_at: str) -> dict[str, Any]:
    try:
        payload = canonical_json(trace.to_json())
    except (TypeError, ValueError) as error:
        raise InputError(f"trace: not storable as JSON ({error}), got prompt {trace.prompt[:60]!r}") from error
    content_hash = hashlib.sha256(payload).hexdigest()
    source = trace.meta.get("source") if trace.meta else None
    return {
        "id": trace_id(content_hash),
        "content_hash": content_hash,
        "created_at": created_at,
        "trace_version": trace.trace_version,
        "source": source if isinstance(source, str) else None,
        "payload": payload.decode(),
    }


def _known_ids(connection: Connection, ids: Sequence[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(ids), LOOKUP_SIZE):
        some = ids[start : start + LOOKUP_SIZE]
        known.update(connection.scalars(select(traces.c.id).where(traces.c.id.in_(some))))
    return known


def _decode(store: Store, row_id: str, created_at: str, content_hash: str, payload: str) -> StoredTrace:
    if hashlib.sha256(payload.encode()).hexdigest() != content_hash:
        raise Corrupt(f"{store.path}: the bytes of trace {row_id} differ from their sha256; restore from a backup")
    fields = json.loads(payload)
    fields["steps"] = tuple(Step(**step) for step in fields["steps"])
    return StoredTrace(row_id, created_at, Trace(**fields))
