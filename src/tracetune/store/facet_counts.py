"""The values that traces have at one path of meta, with how many: what a person can filter by."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from tracetune.core.filters import values_at
from tracetune.core.trace import Trace
from tracetune.store.facets import facet, path_range
from tracetune.store.open import Store
from tracetune.store.trace_rows import decode_payload

MAX_COUNT = 10_000
MAX_DISTINCT = 200


class FacetCount(NamedTuple):
    """A value and how many traces have it; `num_traces` stops at 10,000."""

    value: str | int | float | bool | None
    num_traces: int


def facet_counts(store: Store, key: str, limit: int = 20) -> list[FacetCount]:
    """The most frequent values at `key`, most frequent first; among more than 200 distinct ones, of some 200.

    Objects and lists are left out. Strings that share a 32-bit hash are counted as one.
    """
    with store.read() as connection:
        numbers = list(_distinct(connection, key))
        counted = sorted(((_count(connection, number), -number) for number in numbers), reverse=True)
        found = ((count, _value(connection, key, -number)) for count, number in counted)
        scalar = (FacetCount(value, count) for count, (known, value) in found if known)
        return [item for _, item in zip(range(limit), scalar, strict=False)]


def _distinct(connection: Connection, key: str) -> Iterator[int]:
    """Each facet of the path by one index lookup from the one before it."""
    first, end = path_range(key)
    query = text("SELECT min(facet) FROM trace_facets WHERE facet >= :first AND facet < :end")
    for _ in range(MAX_DISTINCT):
        number = connection.scalar(query, {"first": first, "end": end})
        if number is None:
            return
        yield number
        first = number + 1


def _count(connection: Connection, number: int) -> int:
    counted = f"SELECT 1 FROM trace_facets WHERE facet = :facet LIMIT {MAX_COUNT}"
    return connection.scalar(text(f"SELECT count(*) FROM ({counted}) AS counted"), {"facet": number}) or 0


def _value(connection: Connection, key: str, number: int) -> tuple[bool, Any]:
    """Whether the facet stands for a scalar, and which: read from the newest trace that has it."""
    query = text(
        "SELECT payload FROM traces WHERE seq = "
        "(SELECT seq FROM trace_facets WHERE facet = :facet ORDER BY seq DESC LIMIT 1)"
    )
    payload = connection.scalar(query, {"facet": number})
    return _scalar(decode_payload(payload), key, number) if payload is not None else (False, None)


def _scalar(trace: Trace, key: str, number: int) -> tuple[bool, Any]:
    for value in values_at(trace, key):
        if not isinstance(value, dict | list) and facet(key, value) == number:
            return True, value
    return False, None
