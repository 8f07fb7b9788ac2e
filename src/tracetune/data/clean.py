"""Which of the chosen rows stay: contaminated rows go, then duplicates, and every loss is counted and named.

The rows are read more than once, so they come as a function that starts the stream again.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tracetune.core.trace import StoredTrace
from tracetune.data.decontaminate import ContaminationCheck, Policy
from tracetune.data.dedup import (
    NUM_PERMUTATIONS,
    SHINGLE_SIZE,
    THRESHOLD,
    Duplicate,
    ExactDuplicates,
    near_candidates,
    near_duplicates,
)

MAX_LISTED = 100

Rows = Callable[[], Iterable[StoredTrace]]


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What is left out of a build.

    `exact_dedup` drops rows that repeat an earlier one; `near_dedup` is the share of common shingles from
    which a row is a near-duplicate, None to keep those; `contamination` says what to do with rows that
    show a problem of a registered eval set.
    """

    exact_dedup: bool = True
    near_dedup: float | None = THRESHOLD
    contamination: Policy = "drop"


class Cleaned(NamedTuple):
    """`dropped` holds positions in the given rows; the two verdicts go into the manifest."""

    dropped: frozenset[int]
    dedup: dict[str, Any]
    contamination: dict[str, Any]

    def keep(self, rows: Iterable[StoredTrace]) -> Iterator[StoredTrace]:
        """The rows that stay, in order."""
        return (row for position, row in enumerate(rows) if position not in self.dropped)


def clean(rows: Rows, check: ContaminationCheck, cleaning: Cleaning) -> Cleaned:
    """Find what to drop. Raises InputError under the contamination policy `fail`."""
    exact = ExactDuplicates()
    dropped: set[int] = set()
    for position, row in enumerate(rows()):
        # A contaminated row that goes must not be the one for whose sake its clean duplicate is dropped.
        if check.is_contaminated(row.id, row.trace.prompt) and check.policy != "keep":
            dropped.add(position)
        else:
            exact.add(position, row.trace)
    contamination = check.verdict()
    duplicates = _duplicates(rows, exact, cleaning)
    dropped.update(duplicate.dropped for duplicate in duplicates)
    return Cleaned(frozenset(dropped), _dedup_verdict(duplicates, rows, cleaning), contamination)


def _duplicates(rows: Rows, exact: ExactDuplicates, cleaning: Cleaning) -> list[Duplicate]:
    found = exact.found if cleaning.exact_dedup else []
    if cleaning.near_dedup is None:
        return found
    candidates = near_candidates(exact)
    traces = (row.trace for row in _at(candidates.tolist(), rows()))
    return found + near_duplicates(candidates, traces, threshold=cleaning.near_dedup)


def _at(positions: list[int], rows: Iterable[StoredTrace]) -> Iterator[StoredTrace]:
    wanted = iter(positions)
    position = next(wanted, None)
    for current, row in enumerate(rows):
        if position is None:
            return
        if current == position:
            yield row
            position = next(wanted, None)


def _dedup_verdict(duplicates: list[Duplicate], rows: Rows, cleaning: Cleaning) -> dict[str, Any]:
    exact = sum(duplicate.kind == "exact" for duplicate in duplicates)
    listed = duplicates[:MAX_LISTED]
    places = sorted({place for duplicate in listed for place in (duplicate.dropped, duplicate.kept)})
    ids = dict(zip(places, (row.id for row in _at(places, rows())), strict=True)) if places else {}
    return {
        "exact": {"enabled": cleaning.exact_dedup, "dropped": exact},
        "near": {
            "enabled": cleaning.near_dedup is not None,
            "dropped": len(duplicates) - exact,
            "threshold": cleaning.near_dedup,
            "shingle_size": SHINGLE_SIZE,
            "permutations": NUM_PERMUTATIONS,
            "numbers": "equal",
        },
        "listed": [{"dropped": ids[item.dropped], "kept": ids[item.kept], "kind": item.kind} for item in listed],
    }
