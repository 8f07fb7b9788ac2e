"""The traces that a dataset may be chosen from: found by the index, read in any order, each checked.

Every chunk is a read of its own, so that a long build holds nothing back; a trace added meanwhile does not
appear, one deleted meanwhile is left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from sqlalchemy import select

from tracetune.core.trace import StoredTrace
from tracetune.store.index_entry import MAX_SEQ
from tracetune.store.open import Store
from tracetune.store.tables import traces
from tracetune.store.trace_index import ask, index_of
from tracetune.store.trace_rows import COLUMNS, decode_row, rows_numbered

CHUNK = 2_000
HASHES_CHUNK = 20_000


def iter_seqs(store: Store, filters: Mapping[str, Any], *, chunk: int = CHUNK) -> Iterator[int]:
    """Numbers of traces that may match, newest first; few of them do not."""
    wanted, upto = ask(None, filters).wanted, MAX_SEQ
    while True:
        with store.read() as connection:
            seqs = list(islice(index_of(connection).find(connection, wanted, upto, 0), chunk))
        yield from seqs
        if len(seqs) < chunk:
            return
        upto = seqs[-1] - 1


def iter_hashes(store: Store, filters: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """(number, content hash) of the same traces; no text is read."""
    if filters:
        seqs = iter_seqs(store, filters, chunk=HASHES_CHUNK)
        while some := list(islice(seqs, HASHES_CHUNK)):
            with store.read() as connection:
                found = rows_numbered(connection, some, traces.c.seq, traces.c.content_hash)
            hashes = dict(map(tuple, found))
            yield from ((seq, hashes[seq]) for seq in some if seq in hashes)
        return
    upto = MAX_SEQ
    query = select(traces.c.seq, traces.c.content_hash).order_by(traces.c.seq.desc()).limit(HASHES_CHUNK)
    while True:
        with store.read() as connection:
            rows = connection.execute(query.where(traces.c.seq <= upto)).all()
        yield from ((seq, content_hash) for seq, content_hash in rows)
        if len(rows) < HASHES_CHUNK:
            return
        upto = rows[-1].seq - 1


def read_matching(store: Store, seqs: Iterable[int], filters: Mapping[str, Any]) -> Iterator[StoredTrace]:
    """The traces with these numbers that truly match, in this order."""
    question, waiting = ask(None, filters), iter(seqs)
    while some := list(islice(waiting, CHUNK)):
        with store.read() as connection:
            found = {row[0]: row for row in rows_numbered(connection, some, *COLUMNS)}
        for seq in some:
            if seq in found:
                stored = decode_row(store.where, *found[seq][1:])
                if question.answers(stored.trace, words_known=True):
                    yield stored
