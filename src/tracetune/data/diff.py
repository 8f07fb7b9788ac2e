"""What changed between two datasets: rows added, removed, and changed (the same prompt, other content)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tracetune.core.trace import StoredTrace
from tracetune.data.text import same_text


class RowKey(NamedTuple):
    """What a row is compared by; the trace itself stays on disk."""

    trace_id: str
    content_hash: str
    prompt: str


class Change(NamedTuple):
    """The rows, by trace id, that stand for one prompt before and after."""

    before: str
    after: str


class DatasetDiff(NamedTuple):
    """Trace ids in dataset order; `reordered` when the rows that both have stand in another order."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]
    num_unchanged: int
    reordered: bool


def row_key(row: StoredTrace) -> RowKey:
    """The key of one row; prompts are equal but for case, white space and Unicode form."""
    return RowKey(row.id, row.trace.content_hash(), same_text(row.trace.prompt))


def diff_rows(before: Iterable[RowKey], after: Iterable[RowKey]) -> DatasetDiff:
    """Compare by content; a removed and an added row of the same prompt are one change, paired in order."""
    before, after = list(before), list(after)
    hashes_before = [row.content_hash for row in before]
    hashes_after = [row.content_hash for row in after]
    known_before, known_after = set(hashes_before), set(hashes_after)
    removed = [row for row in before if row.content_hash not in known_after]
    added = [row for row in after if row.content_hash not in known_before]
    changed = _pair(removed, added)
    gone, new = {change.before for change in changed}, {change.after for change in changed}
    kept_before = [value for value in hashes_before if value in known_after]
    kept_after = [value for value in hashes_after if value in known_before]
    return DatasetDiff(
        added=tuple(row.trace_id for row in added if row.trace_id not in new),
        removed=tuple(row.trace_id for row in removed if row.trace_id not in gone),
        changed=changed,
        num_unchanged=len(kept_after),
        reordered=kept_before != kept_after,
    )


def _pair(removed: Sequence[RowKey], added: Sequence[RowKey]) -> tuple[Change, ...]:
    by_prompt: dict[str, list[RowKey]] = defaultdict(list)
    for row in reversed(removed):
        by_prompt[row.prompt].append(row)
    return tuple(Change(by_prompt[row.prompt].pop().trace_id, row.trace_id) for row in added if by_prompt[row.prompt])
