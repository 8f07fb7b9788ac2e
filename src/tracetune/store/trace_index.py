"""The index of traces: which have these facets and words, newest first.

SQLite keeps it in an FTS5 table, PostgreSQL in a table of facets and a GIN index. Both may name a trace too
much, when two values share a number, never one too few: whoever reads by them checks the trace.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection

from tracetune.core.filters import matches
from tracetune.core.trace import Trace
from tracetune.store import index_postgres, index_sqlite
from tracetune.store.facets import trace_facets, wanted_facets
from tracetune.store.index_entry import Entry, FacetSize, Wanted
from tracetune.store.words import query_words, trace_words


class TraceIndex(Protocol):
    """What each database's module does, inside the connection's transaction."""

    EXACT_WORDS: bool  # whether it finds words by themselves, not by a hash that two may share

    def create(self, connection: Connection) -> None:
        """Make the empty tables."""
        ...

    def drop(self, connection: Connection) -> None:
        """Drop them."""
        ...

    def add(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Index new traces."""
        ...

    def forget(self, connection: Connection, entry: Entry) -> None:
        """Take one trace out."""
        ...

    def find(self, connection: Connection, wanted: Wanted, upto: int, skip: int) -> Iterator[int]:
        """Numbers of traces from `upto` downwards, but for the first `skip`."""
        ...

    def count_facets(self, connection: Connection, first: int, end: int, most: int) -> list[FacetSize]:
        """The `most` lowest facets from `first` up to `end`."""
        ...


class Question(NamedTuple):
    """What a search asks, as the index knows it and as a trace is checked against it."""

    wanted: Wanted
    filters: Mapping[str, Any]

    def answers(self, trace: Trace, *, words_known: bool) -> bool:
        """Whether the trace has all that is asked; `words_known` when the index is sure of the words."""
        if not words_known and not set(self.wanted.words) <= set(trace_words(trace)):
            return False
        return matches(trace, self.filters)

    @property
    def is_open(self) -> bool:
        """Whether every trace answers."""
        return not self.wanted.words and not self.filters


def ask(q: str | None, filters: Mapping[str, Any] | None) -> Question:
    """The question of a search. Raises InputError for text without words."""
    facets = tuple(wanted_facets(key, value) for key, value in (filters or {}).items())
    words = tuple(query_words(q)) if q is not None and q.strip() else ()
    return Question(Wanted(facets, words), filters or {})


def index_entry(seq: int, trace: Trace) -> Entry:
    """What the index holds of a trace."""
    return Entry(seq, tuple(trace_facets(trace)), tuple(trace_words(trace)))


def index_of(connection: Connection) -> TraceIndex:
    """The index of the database that the connection leads to."""
    return index_sqlite if connection.dialect.name == "sqlite" else index_postgres
