"""Ingest: a file of traces, or a native task's, into the store; every row read is accounted for.

Rows are stored a batch at a time, each in one transaction. Killed at any moment, the same command run again
stores exactly the rest, because equal content is one trace.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.processes import map_batches
from tracetune.core.durable import write_chunks_durably
from tracetune.core.errors import InputError
from tracetune.core.ids import canonical_json
from tracetune.core.trace import Trace
from tracetune.data.records import BATCH_ROWS, Record, batch_records
from tracetune.data.sources import BadLine, SourceRow, bad_line_error, read_record, scan_records
from tracetune.store.open import open_store
from tracetune.store.traces import AddedTraces, NewTrace, add_encoded, add_traces, encode_trace

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
    readers: int = 0,
    on_bad: Callable[[BadLine], None] | None = None,
    on_progress: Callable[[IngestReport, int], None] | None = None,
) -> IngestReport:
    """Store every row of a JSON array or JSONL file; rows whose content is stored already are duplicates.

    `source` becomes meta.source of rows that have none. So many processes, `readers`, read and check rows while
    this one stores them; `map_batches` says what that asks of a script. `on_progress` gets the report so far and
    the bytes read, after each batch. Raises NotFound, InputError for a bad line unless `skip_bad` (nothing of its batch
    is stored, earlier batches are), StorageError when the disk refuses.
    """
    report = IngestReport()
    records = batch_records(scan_records(path), BATCH_BYTES)
    with closing(map_batches(partial(_prepare, source=source), records, readers, path)) as batches:
        first = next(batches)  # a file that cannot be read creates no database
        with open_store(home) as store:
            for batch in chain((first,), batches):
                if batch.bad and not skip_bad:
                    raise _stopped(path, batch.bad[0], report)
                if on_bad is not None:
                    for line in batch.bad:
                        on_bad(line)
                report = _counted(report, add_encoded(store, batch.good), batch.bad)
                if on_progress is not None:
                    on_progress(report, batch.end)
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
            report = _counted(report, add_traces(store, some))
            if on_progress is not None:
                on_progress(report)
    return report


class _Prepared(NamedTuple):
    """A batch of a file: `end` is the byte offset after its last row."""

    good: list[NewTrace]
    bad: list[BadLine]
    end: int


def _prepare(records: list[Record], *, source: str | None) -> _Prepared:
    rows = [read_record(record) for record in records]
    return _Prepared(
        good=[encode_trace(_with_source(row.trace, source)) for row in rows if isinstance(row, SourceRow)],
        bad=[row for row in rows if isinstance(row, BadLine)],
        end=records[-1].end,
    )


def _counted(report: IngestReport, added: AddedTraces, bad: Sequence[BadLine] = ()) -> IngestReport:
    return IngestReport(
        read=report.read + len(added.ids) + len(bad),
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
