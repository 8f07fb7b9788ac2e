"""The numbers that several ordered ranges have in common, highest first.

Every round reads a page of each range. The range whose page reaches lowest is the sparsest there: it drives,
and the others are only asked about its numbers. Where one range has nothing, the round after jumps over.
"""

from collections.abc import Generator, Sequence
from typing import Protocol

FIRST_PAGE = 64
MAX_PAGE = 4_096


class Range(Protocol):
    """Numbers in falling order."""

    def page(self, upto: int, size: int) -> list[int]:
        """The `size` highest numbers that are at most `upto`, highest first."""
        ...

    def among(self, seqs: Sequence[int]) -> set[int]:
        """Those of `seqs` that are in the range."""
        ...


def intersect(
    ranges: Sequence[Range], upto: int, *, first_page: int = FIRST_PAGE, max_rounds: int | None = None
) -> Generator[int, None, int]:
    """Yield common numbers from `upto` downwards; return up to where no round has looked, 0 for nowhere.

    Pages grow from round to round, as whoever reads on wants more.
    """
    size, rounds = first_page, 0
    while upto > 0 and rounds != max_rounds:
        pages = [item.page(upto, size) for item in ranges]
        if not all(pages):
            return 0
        # A page that is not full knows everything below; a full one only down to its last number.
        floors = [page[-1] if len(page) == size else 0 for page in pages]
        driver = floors.index(min(floors))
        yield from _common(ranges, pages, floors, driver)
        if floors[driver] == 0:
            return 0
        upto = min(floors[driver] - 1, *(page[0] for page in pages))
        size, rounds = min(size * 2, MAX_PAGE), rounds + 1
    return max(upto, 0)


def _common(ranges: Sequence[Range], pages: Sequence[list[int]], floors: Sequence[int], driver: int) -> list[int]:
    found = pages[driver]
    for number, item in enumerate(ranges):
        if number == driver or not found:
            continue
        known = set(pages[number])
        unknown = [seq for seq in found if seq < floors[number]]
        if unknown:
            known |= item.among(unknown)
        found = [seq for seq in found if seq in known]
    return found
