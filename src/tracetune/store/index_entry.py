"""What goes into the index of traces, and what is asked of it."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One trace: its number, the facets of its meta, its distinct words."""

    seq: int
    facets: tuple[int, ...]
    words: tuple[str, ...]


class Wanted(NamedTuple):
    """Of each group one facet, and all words; nothing asks for every trace."""

    facets: tuple[tuple[int, ...], ...]
    words: tuple[str, ...]


class FacetSize(NamedTuple):
    """How many traces have a facet, at most 10,000, and the newest of them."""

    facet: int
    num_traces: int
    newest: int


MAX_SEQ = 2**63 - 1
MAX_COUNT = 10_000
