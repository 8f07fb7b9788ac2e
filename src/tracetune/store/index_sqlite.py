"""The index of traces in SQLite: one FTS5 table whose terms are words and facets alike.

It keeps for each term the numbers of its traces, some one byte each, in order, appended and merged in the
background, and walks through several such lists at once in either direction. It keeps no texts.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, text

from tracetune.store.bulk import insert_rows
from tracetune.store.facets import EVERY
from tracetune.store.index_entry import MAX_COUNT, Entry, FacetSize, Wanted

EXACT_WORDS: bool = True
FIRST_PAGE = 64
MAX_PAGE = 4_096
# Our words hold letters and digits alone, so the tokenizer splits at our spaces and nowhere else.
CREATE = (
    "CREATE VIRTUAL TABLE trace_terms USING fts5("
    "terms, content='', columnsize=0, detail=none, tokenize=\"ascii tokenchars '='\")",
    "CREATE VIRTUAL TABLE trace_term_counts USING fts5vocab('trace_terms', 'row')",
)
FOUND = "SELECT rowid FROM trace_terms WHERE trace_terms MATCH :query AND rowid <= :upto ORDER BY rowid DESC"


def create(connection: Connection) -> None:
    """Make the empty table, and the view of its terms."""
    for statement in CREATE:
        connection.exec_driver_sql(statement)


def drop(connection: Connection) -> None:
    """Drop both."""
    for table in ("trace_term_counts", "trace_terms"):
        connection.exec_driver_sql(f"DROP TABLE {table}")


def add(connection: Connection, entries: Sequence[Entry]) -> None:
    """Index new traces."""
    insert_rows(connection, "trace_terms", ("rowid", "terms"), ((entry.seq, _terms(entry)) for entry in entries))


def forget(connection: Connection, entry: Entry) -> None:
    """Take one trace out; the table keeps no text, so it is told the terms again."""
    sql = "INSERT INTO trace_terms (trace_terms, rowid, terms) VALUES ('delete', ?, ?)"
    connection.exec_driver_sql(sql, (entry.seq, _terms(entry)))


def find(connection: Connection, wanted: Wanted, upto: int, skip: int) -> Iterator[int]:
    """One walk down the lists of all terms; pages grow, as whoever reads on wants more."""
    query, size = _query(wanted), FIRST_PAGE
    page = text(f"{FOUND} LIMIT :size OFFSET :skip")
    while upto > 0:
        values = {"query": query, "upto": upto, "size": size, "skip": skip}
        seqs = connection.scalars(page, values).all()
        yield from seqs
        if len(seqs) < size:
            return
        upto, size, skip = seqs[-1] - 1, min(size * 2, MAX_PAGE), 0


def count_facets(connection: Connection, first: int, end: int, most: int) -> list[FacetSize]:
    """From the table's own counts."""
    counted = text("SELECT term, doc FROM trace_term_counts WHERE term >= :first AND term < :end LIMIT :most")
    newest = text(f"{FOUND} LIMIT 1")
    found: list[FacetSize] = []
    for term, count in connection.execute(counted, {"first": _term(first), "end": _term(end), "most": most}).all():
        seq = connection.scalar(newest, {"query": f'"{term}"', "upto": 2**63 - 1})
        if seq is not None:
            found.append(FacetSize(int(term[1:], 16), min(count, MAX_COUNT), seq))
    return found


def _query(wanted: Wanted) -> str:
    groups = [" OR ".join(f'"{_term(facet)}"' for facet in group) for group in wanted.facets]
    parts = [f"({group})" for group in groups] + [f'"{word}"' for word in wanted.words]
    return " AND ".join(parts) or f'"{_term(EVERY)}"'


def _terms(entry: Entry) -> str:
    return " ".join((*map(_term, entry.facets), *entry.words))


def _term(facet: int) -> str:
    # 16 digits, so that terms are in the order of their numbers; no word has an equals sign.
    return f"={facet:016x}"
