"""The values that traces have at one path of meta, with how many: what a person can filter by."""

from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection, select

from tracetune.core.filters import values_at
from tracetune.store.facets import facet, path_range
from tracetune.store.index_entry import FacetSize
from tracetune.store.open import Store
from tracetune.store.tables import traces
from tracetune.store.trace_index import index_of
from tracetune.store.trace_rows import decode_payload

MAX_DISTINCT = 200


class FacetCount(NamedTuple):
    """A value and how many traces have it; `num_traces` stops at 10,000."""

    value: str | int | float | bool | None
    num_traces: int


def facet_counts(store: Store, key: str, limit: int = 20) -> list[FacetCount]:
    """The most frequent values at `key`, most frequent first; among more than 200 distinct ones, of some 200.

    Objects and lists are left out. Values that share a 32-bit hash are counted as one.
    """
    with store.read() as connection:
        sizes = index_of(connection).count_facets(connection, *path_range(key), MAX_DISTINCT)
        found = (_counted(connection, key, size) for size in sorted(sizes, key=lambda size: -size.num_traces))
        return list(islice((item for item in found if item is not None), limit))


def _counted(connection: Connection, key: str, size: FacetSize) -> FacetCount | None:
    """The facet's value, read from the newest trace that has it; None for an object or a list."""
    payload = connection.scalar(select(traces.c.payload).where(traces.c.seq == size.newest))
    for value in values_at(decode_payload(payload), key) if payload is not None else ():
        if not isinstance(value, dict | list) and facet(key, value) == size.facet:
            return FacetCount(value, size.num_traces)
    return None
