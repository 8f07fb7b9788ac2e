"""What doors show of datasets: the list and the rows of one a page at a time, lengths, and what differs."""

from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.datasets import Bin, RowDiff, length_histogram
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.core.trace import StoredTrace
from tracetune.store.dataset_pages import dataset_page
from tracetune.store.datasets import Dataset, DatasetRecord
from tracetune.store.open import open_store

MAX_KEPT = 256
_lengths: dict[tuple[str, int], list[Bin]] = {}


class NumberedRow(NamedTuple):
    """A row of a dataset and its place in it, counted from 0."""

    row: int
    stored: StoredTrace


def page_datasets(
    *, limit: int = 20, cursor: str | None = None, name: str | None = None, home: Path | None = None
) -> Page[DatasetRecord]:
    """Datasets, newest first; `name` keeps the versions of one."""
    before = None if cursor is None else decode_cursor(cursor)
    with open_store(home) as store:
        rows = dataset_page(store, limit=limit + 1, before=before, name=name)
    following = encode_cursor(rows[limit - 1][0]) if len(rows) > limit else None
    return Page([record for _, record in rows[:limit]], following)


def page_rows(dataset: Dataset, *, limit: int = 20, cursor: str | None = None) -> Page[NumberedRow]:
    """Rows in the dataset's own order; no more of the file is read than the page needs."""
    start = 0 if cursor is None else decode_cursor(cursor)
    rows = [NumberedRow(start + place, row) for place, row in enumerate(islice(dataset.iter_traces(start), limit))]
    end = start + len(rows)
    return Page(rows, encode_cursor(end) if end < dataset.manifest.trace_count and rows else None)


def lengths(dataset: Dataset, num_bins: int = 10) -> list[Bin]:
    """Rows by length; read once per content, because a frozen dataset's rows never change."""
    key = (dataset.manifest.rows_sha256, num_bins)
    if key not in _lengths:
        while len(_lengths) >= MAX_KEPT:
            _lengths.pop(next(iter(_lengths)), None)
        _lengths[key] = length_histogram(dataset, num_bins)
    return _lengths[key]


def diff_counts(found: RowDiff) -> dict[str, Any]:
    """How many rows differ, and whether the others stand in another order."""
    diff = found.diff
    return {
        "added": len(diff.added),
        "removed": len(diff.removed),
        "changed": len(diff.changed),
        "unchanged": diff.num_unchanged,
        "reordered": diff.reordered,
    }


def diff_json(found: RowDiff, limit: int | None = None) -> dict[str, Any]:
    """The whole diff: ids of the rows that differ, at most `limit` of each kind, and the content of the examples."""
    diff = found.diff
    return {
        "before": {"dataset_key": found.before.dataset_key, "content_hash": found.before.content_hash},
        "after": {"dataset_key": found.after.dataset_key, "content_hash": found.after.content_hash},
        "summary": diff_counts(found),
        "added": list(diff.added[:limit]),
        "removed": list(diff.removed[:limit]),
        "changed": [change._asdict() for change in diff.changed[:limit]],
        "examples": {trace_id: row.trace.to_json() for trace_id, row in found.examples.items()},
    }
