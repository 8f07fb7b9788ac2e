"""Which of the chosen rows stay: contaminated rows go, then duplicates, and every loss is counted and named.

The rows are read twice, so they come as a function that starts the stream again.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tracetune.core.trace import StoredTrace, Trace
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
    trace_ids: list[str] = []
    for position, row in enumerate(rows()):
        trace_ids.append(row.id)
        # A contaminated row that goes must not be the one for whose sake its clean duplicate is dropped.
        if check.is_contaminated(row.id, row.trace.prompt) and check.policy != "keep":
            dropped.add(position)
        else:
            exact.add(position, row.trace)
    contamination = check.verdict()
    duplicates = _duplicates(rows, exact, cleaning)
    dropped.update(duplicate.dropped for duplicate in duplicates)
    return Cleaned(frozenset(dropped), _dedup_verdict(duplicates, trace_ids, cleaning), contamination)


def _duplicates(rows: Rows, exact: ExactDuplicates, cleaning: Cleaning) -> list[Duplicate]:
    found = exact.found if cleaning.exact_dedup else []
    if cleaning.near_dedup is None:
        return found
    candidates = near_candidates(exact)
    return found + near_duplicates(candidates, _at(candidates.tolist(), rows()), threshold=cleaning.near_dedup)


def _at(positions: list[int], rows: Iterable[StoredTrace]) -> Iterator[Trace]:
    wanted = iter(positions)
    position = next(wanted, None)
    for current, row in enumerate(rows):
        if position is None:
            return
        if current == position:
            yield row.trace
            position = next(wanted, None)


def _dedup_verdict(duplicates: list[Duplicate], trace_ids: list[str], cleaning: Cleaning) -> dict[str, Any]:
    exact = sum(duplicate.kind == "exact" for duplicate in duplicates)
    listed = [
        {"dropped": trace_ids[duplicate.dropped], "kept": trace_ids[duplicate.kept], "kind": duplicate.kind}
        for duplicate in duplicates[:MAX_LISTED]
    ]
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
        "listed": listed,
    }
