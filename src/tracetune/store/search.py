"""Search: the numbers of traces that are in every one of several indexes, newest first.

Each index gives its numbers in falling order. Every round reads a page of each; the sparsest drives, and the
others are only asked about its numbers. Ranges in which one index has nothing are jumped over.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, text

from tracetune.store.facets import EVERY, wanted_facets
from tracetune.store.words import query_words, word_match

FIRST_PAGE = 64
MAX_PAGE = 4_096
MAX_SEQ = 2**63 - 1


class Index(Protocol):
    """Numbers of traces in falling order."""

    def page(self, connection: Connection, upto: int, size: int) -> list[int]:
        """The `size` highest numbers that are at most `upto`, highest first."""
        ...

    def among(self, connection: Connection, seqs: Sequence[int]) -> set[int]:
        """Those of `seqs` that are in the index."""
        ...


class FacetIndex(NamedTuple):
    """Traces that have at least one of these facets."""

    facets: tuple[int, ...]

    def page(self, connection: Connection, upto: int, size: int) -> list[int]:
        """One index range a facet, merged."""
        ranges = " UNION ".join(
            f"SELECT seq FROM (SELECT seq FROM trace_facets WHERE facet = {int(facet)} AND seq <= :upto "
            f"ORDER BY seq DESC LIMIT :size) AS f{number}"
            for number, facet in enumerate(self.facets)
        )
        query = text(f"{ranges} ORDER BY seq DESC LIMIT :size")
        return list(connection.scalars(query, {"upto": upto, "size": size}))

    def among(self, connection: Connection, seqs: Sequence[int]) -> set[int]:
        """One index lookup a number and facet."""
        facets = ", ".join(str(int(facet)) for facet in self.facets)
        among, values = number_list(connection, seqs)
        return set(
            connection.scalars(text(f"SELECT seq FROM trace_facets WHERE facet IN ({facets}) AND {among}"), values)
        )


class WordIndex(NamedTuple):
    """Traces that have all of these words."""

    words: tuple[str, ...]

    def page(self, connection: Connection, upto: int, size: int) -> list[int]:
        """By the database's own inverted index."""
        match = word_match(connection, self.words)
        found = f"SELECT seq FROM {match.table} WHERE {match.condition}"
        statement = text(f"{found} AND seq <= :upto ORDER BY seq DESC LIMIT :size")
        return list(connection.scalars(statement, {"query": match.query, "upto": upto, "size": size}))

    def among(self, connection: Connection, seqs: Sequence[int]) -> set[int]:
        """One lookup a number."""
        match = word_match(connection, self.words)
        among, values = number_list(connection, seqs)
        statement = text(f"SELECT seq FROM {match.table} WHERE {match.condition} AND {among}")
        return set(connection.scalars(statement, {**values, "query": match.query}))


def indexes(q: str | None, filters: Mapping[str, Any]) -> list[Index]:
    """What a search reads; of a search for nothing, the index of every trace."""
    found: list[Index] = [FacetIndex(wanted_facets(key, wanted)) for key, wanted in filters.items()]
    if q is not None and q.strip():
        found.append(WordIndex(tuple(query_words(q))))
    return found or [FacetIndex((EVERY,))]


def iter_seqs(
    connection: Connection, searched: Sequence[Index], upto: int = MAX_SEQ, *, first_page: int = FIRST_PAGE
) -> Iterator[int]:
    """Numbers that are in every index, from `upto` downwards; pages grow, as whoever reads on wants more."""
    size = first_page
    while upto > 0:
        pages = [index.page(connection, upto, size) for index in searched]
        if not all(pages):
            return
        # A page that is not full knows everything below; a full one only down to its last number.
        floors = [page[-1] if len(page) == size else 0 for page in pages]
        driver = floors.index(min(floors))
        yield from _common(connection, searched, pages, driver, floors)
        if floors[driver] == 0:
            return
        upto = min(floors[driver] - 1, *(page[0] for page in pages))
        size = min(size * 2, MAX_PAGE)


def number_list(connection: Connection, seqs: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """A condition that `seq` is one of many numbers, given as one value, and that value."""
    if connection.dialect.name == "sqlite":
        return "seq IN (SELECT value FROM json_each(:seqs))", {"seqs": json.dumps(list(seqs))}
    return "seq = ANY(:seqs)", {"seqs": list(seqs)}


def _common(
    connection: Connection, searched: Sequence[Index], pages: Sequence[list[int]], driver: int, floors: Sequence[int]
) -> list[int]:
    found = pages[driver]
    for number, index in enumerate(searched):
        if number == driver or not found:
            continue
        known = set(pages[number])
        unknown = [seq for seq in found if seq < floors[number]]
        if unknown:
            known |= index.among(connection, unknown)
        found = [seq for seq in found if seq in known]
    return found
