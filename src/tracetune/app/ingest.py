"""Ingest: a file of traces, or a native task's, into the store; every row read is accounted for.

Rows are stored a batch at a time, each in one transaction. Killed at any moment, the same command run again
stores exactly the rest, because equal content is one trace.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tracetune.core.durable import write_chunks_durably
from tracetune.core.errors import InputError
from tracetune.core.ids import canonical_json
from tracetune.core.trace import Trace
from tracetune.data.sources import BadLine, SourceRow, bad_line_error, scan_rows
from tracetune.store.open import Store, open_store
from tracetune.store.traces import add_traces

BATCH_ROWS = 1_000
# Rows may have 32 MiB each, so a batch is also closed by the bytes of the file it has read.
BATCH_BYTES = 16 * 2**20
MAX_BAD_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of every row: `read` = `created` + `duplicates` + `bad_count`.

    `bad` holds the first 1,000 bad lines; `on_bad` is told every one.
    """

    read: int = 0
    created: int = 0
    duplicates: int = 0
    bad_count: int = 0
    bad: tuple[BadLine, ...] = ()


def ingest(
    path: Path,
    *,
    skip_bad: bool = False,
    home: Path | None = None,
    source: str | None = None,
    on_bad: Callable[[BadLine], None] | None = None,
    on_progress: Callable[[IngestReport, int], None] | None = None,
) -> IngestReport:
    """Store every row of a JSON array or JSONL file; rows whose content is stored already are duplicates.

    `source` becomes meta.source of rows that have none. `on_progress` gets the report so far and the bytes
    read, after each batch. Raises NotFound, InputError for a bad line unless `skip_bad` (nothing of its batch
    is stored, earlier batches are), StorageError when the disk refuses.
    """
    report = IngestReport()
    batches = _file_batches(path)
    first = next(batches)  # a file that cannot be read creates no database
    with open_store(home) as store:
        for rows in chain((first,), batches):
            bad = [row for row in rows if isinstance(row, BadLine)]
            if bad and not skip_bad:
                raise _stopped(path, bad[0], report)
            if on_bad is not None:
                for line in bad:
                    on_bad(line)
            good = [_with_source(row.trace, source) for row in rows if isinstance(row, SourceRow)]
            report = _add(store, report, good, bad)
            if on_progress is not None:
                on_progress(report, rows[-1].end)
    return report


def make_traces(
    task: str,
    *,
    count: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    output: Path | None = None,
    home: Path | None = None,
    on_progress: Callable[[IngestReport], None] | None = None,
) -> IngestReport:
    """Generate `count` traces of a native task; store them, or write them to `output` as JSONL.

    `options` are the task's own, such as style or difficulty. Raises NotFound for an unknown task, InputError
    for an unknown option or a count below 1.
    """
    from tracetune.tasks.registry import get_task

    if count < 1:
        raise InputError(f"count must be at least 1, got {count}")
    generated = get_task(task, **(options or {})).traces(count, seed)
    if output is not None:
        write_chunks_durably(output, (canonical_json(trace.to_json()) + b"\n" for trace in generated))
        return IngestReport(read=count, created=count)
    report = IngestReport()
    with open_store(home) as store:
        while some := list(islice(generated, BATCH_ROWS)):
            report = _add(store, report, some, ())
            if on_progress is not None:
                on_progress(report)
    return report


def _file_batches(path: Path) -> Iterator[list[SourceRow | BadLine]]:
    rows: list[SourceRow | BadLine] = []
    begin = 0
    for row in scan_rows(path):
        rows.append(row)
        if len(rows) == BATCH_ROWS or row.end - begin >= BATCH_BYTES:
            yield rows
            rows, begin = [], row.end
    if rows:
        yield rows


def _add(store: Store, report: IngestReport, good: Sequence[Trace], bad: Sequence[BadLine]) -> IngestReport:
    added = add_traces(store, good)
    return IngestReport(
        read=report.read + len(good) + len(bad),
        created=report.created + len(added.created),
        duplicates=report.duplicates + added.duplicates,
        bad_count=report.bad_count + len(bad),
        bad=(*report.bad, *bad)[:MAX_BAD_KEPT],
    )


def _with_source(trace: Trace, source: str | None) -> Trace:
    if source is None or (trace.meta is not None and "source" in trace.meta):
        return trace
    return replace(trace, meta={**(trace.meta or {}), "source": source})


def _stopped(path: Path, bad: BadLine, report: IngestReport) -> InputError:
    error = bad_line_error(path, bad)
    if report.read == 0:
        return error
    return InputError(f"{error} (the {report.read} rows before this batch are in; ingesting again passes over them)")
