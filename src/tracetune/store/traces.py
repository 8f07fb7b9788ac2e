"""Traces in the store: added once by content, listed and searched newest first in bounded memory.

A trace's id is derived from its content hash (a UUID of version 8), so equal content has the same id on
every machine, and datasets and reports built from the same traces are equal byte for byte.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select, text

from tracetune.core.errors import NotFound
from tracetune.core.ids import utc_now
from tracetune.core.trace import StoredTrace, Trace
from tracetune.store.bulk import among, insert_rows
from tracetune.store.index_entry import MAX_SEQ, Entry
from tracetune.store.open import Store
from tracetune.store.tables import trace_scores, traces
from tracetune.store.trace_index import Question, ask, index_entry, index_of
from tracetune.store.trace_rows import COLUMNS, EncodedRow, decode_payload, decode_row, encode_row, rows_numbered

LOOKUP_SIZE = 1_000


class AddedTraces(NamedTuple):
    """`ids` has one id per given trace, in order; `created` those that are new; the rest are `duplicates`."""

    ids: tuple[str, ...]
    created: tuple[str, ...]
    duplicates: int


class TraceRow(NamedTuple):
    """A stored trace and its place in the order of arrival, by which a list goes on."""

    seq: int
    stored: StoredTrace


class NewTrace(NamedTuple):
    """A trace made ready to be stored, by any process: its row, and what the index holds of it."""

    row: EncodedRow
    entry: Entry


def encode_trace(trace: Trace) -> NewTrace:
    """Make a trace ready. Raises InputError when it cannot be written as JSON."""
    return NewTrace(encode_row(trace), index_entry(0, trace))


def add_traces(store: Store, new_traces: Sequence[Trace]) -> AddedTraces:
    """Store traces in one transaction; one whose content is there already keeps its row, id and time.

    The doors have checked each trace against the contract (`parse_trace`); the store keeps what it is given.
    Raises InputError when one cannot be written as JSON; then none is stored.
    """
    rows = [encode_row(trace) for trace in new_traces]
    return _add(store, rows, lambda place: index_entry(0, new_traces[place]))


def add_encoded(store: Store, new_traces: Sequence[NewTrace]) -> AddedTraces:
    """`add_traces` for those that are ready."""
    return _add(store, [new.row for new in new_traces], lambda place: new_traces[place].entry)


def _add(store: Store, rows: Sequence[EncodedRow], entry_of: Callable[[int], Entry]) -> AddedTraces:
    created_at = utc_now()
    ids = tuple(row.id for row in rows)
    with store.read() as connection:
        known = _known_ids(connection, ids)
    # Only what is new is asked for its entry, and before the transaction, so that it holds up other writers less.
    fresh = {row.id: NewTrace(row, entry_of(place)) for place, row in enumerate(rows) if row.id not in known}
    created: tuple[str, ...] = ()
    if fresh:
        with store.write() as connection:
            created = _insert(connection, fresh, created_at)
    return AddedTraces(ids, created, len(ids) - len(created))


def list_traces(
    store: Store,
    *,
    limit: int,
    before: int | None = None,
    offset: int = 0,
    q: str | None = None,
    filters: Mapping[str, Any] | None = None,
) -> list[TraceRow]:
    """At most `limit` traces that have every word of `q` and every value of `filters`, newest first.

    `before` goes on after the row of that `seq`, at the same cost for every page; `offset` passes over that
    many first. Raises InputError for a `q` without words.
    """
    question = ask(q, filters)
    upto = MAX_SEQ if before is None else before - 1
    with store.read() as connection:
        index = index_of(connection)
        if question.is_open:
            seqs = index.find(connection, question.wanted, upto, offset)
            return list(_rows(store, connection, list(islice(seqs, limit))))
        seqs = index.find(connection, question.wanted, upto, 0)
        return list(islice(_answers(store, connection, seqs, question), offset, offset + limit))


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
            yield decode_row(store.where, *row)
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
    return decode_row(store.where, *found)


def count_traces(store: Store, *, source: str | None = None) -> int:
    """How many traces there are, or how many with that meta.source."""
    query = select(func.count()).select_from(traces)
    if source is not None:
        query = query.where(traces.c.source == source)
    with store.read() as connection:
        return connection.execute(query).scalar_one()


def delete_trace(store: Store, trace_id: str) -> None:
    """Remove one trace with its scores; frozen datasets keep their rows. Raises NotFound."""
    with store.write() as connection:
        row = connection.execute(select(traces.c.seq, traces.c.payload).where(traces.c.id == trace_id)).one_or_none()
        if row is None or connection.execute(delete(traces).where(traces.c.id == trace_id)).rowcount == 0:
            raise NotFound(f"Trace {trace_id} not found")
        index_of(connection).forget(connection, index_entry(row.seq, decode_payload(row.payload)))
        connection.execute(delete(trace_scores).where(trace_scores.c.trace_id == trace_id))


def index_stored_traces(connection: Connection) -> None:
    """Fill the index with every stored trace."""
    last = 0
    query = text("SELECT seq, payload FROM traces WHERE seq > :last ORDER BY seq LIMIT :size")
    while rows := connection.execute(query, {"last": last, "size": LOOKUP_SIZE}).all():
        entries = [index_entry(row.seq, decode_payload(row.payload)) for row in rows]
        index_of(connection).add(connection, entries)
        last = rows[-1].seq


def _insert(connection: Connection, fresh: Mapping[str, NewTrace], created_at: str) -> tuple[str, ...]:
    """The ids that no other writer has stored meanwhile, which this one now has."""
    known = _known_ids(connection, tuple(fresh))
    wanted = [row_id for row_id in fresh if row_id not in known]
    if not wanted:
        return ()
    numbered = [(seq, fresh[row_id]) for seq, row_id in zip(_next_seqs(connection, len(wanted)), wanted, strict=True)]
    columns = ("seq", "created_at", *EncodedRow._fields)
    insert_rows(connection, "traces", columns, ((seq, created_at, *new.row) for seq, new in numbered))
    index_of(connection).add(connection, [new.entry._replace(seq=seq) for seq, new in numbered])
    return tuple(wanted)


def _next_seqs(connection: Connection, count: int) -> Sequence[int]:
    """Ascending numbers never given before: only one transaction writes at a time."""
    if connection.dialect.name == "sqlite":
        # AUTOINCREMENT remembers the highest number that ever stood in the table.
        last = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'traces'").scalar() or 0
        return range(last + 1, last + 1 + count)
    query = text("SELECT nextval(pg_get_serial_sequence('traces', 'seq')) FROM generate_series(1, :count)")
    return sorted(connection.scalars(query, {"count": count}))


def _answers(store: Store, connection: Connection, seqs: Iterator[int], question: Question) -> Iterator[TraceRow]:
    """Rows that truly answer, read some at a time, ever more."""
    size = 20
    words_known = index_of(connection).EXACT_WORDS or not question.wanted.words
    while some := list(islice(seqs, size)):
        for row in _rows(store, connection, some):
            if question.answers(row.stored.trace, words_known=words_known):
                yield row
        size = min(size * 2, LOOKUP_SIZE)


def _rows(store: Store, connection: Connection, seqs: Sequence[int]) -> Iterator[TraceRow]:
    found = {row[0]: row for row in rows_numbered(connection, seqs, *COLUMNS)}
    for seq in seqs:
        if seq in found:
            yield TraceRow(seq, decode_row(store.where, *found[seq][1:]))


def _known_ids(connection: Connection, ids: Sequence[str]) -> set[str]:
    return set(connection.scalars(select(traces.c.id).where(among(connection, traces.c.id, ids))))
