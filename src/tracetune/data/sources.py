"""Files of traces, streamed: every row becomes a trace or a bad line with its reason; none is dropped silently."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tracetune.core.errors import InputError
from tracetune.core.strict_json import parse_json
from tracetune.core.trace import Trace
from tracetune.data.formats import row_to_trace
from tracetune.data.records import MAX_RECORD_BYTES, Record, read_records


class SourceRow(NamedTuple):
    """A trace read from `line`; `end` is the byte offset after its row, for progress."""

    line: int
    end: int
    trace: Trace


class BadLine(NamedTuple):
    """A row that cannot be used: its line, the byte offsets it begins and ends at, and why."""

    line: int
    offset: int
    end: int
    reason: str


def scan_records(path: Path) -> Iterator[Record]:
    """Every record of a file of traces, for `read_record`.

    Raises NotFound for a missing file; InputError for one without rows, of another format, or whose array
    is broken so that the next row cannot be found.
    """
    found = False
    for record in read_records(path):
        found = True
        yield record
    if not found:
        raise InputError(f"{path}: holds no rows, got {path.stat().st_size} bytes; give a JSON array or JSONL file")


def read_record(record: Record) -> SourceRow | BadLine:
    """The trace of one record, or why there is none."""
    try:
        return SourceRow(record.line, record.end, _trace(record))
    except InputError as error:
        number = "" if record.number is None else f"row {record.number}: "
        return BadLine(record.line, record.offset, record.end, f"{number}{error}")


def scan_rows(path: Path) -> Iterator[SourceRow | BadLine]:
    """Every row of a JSON array or JSONL file, good or bad, in order. Raises as `scan_records` does."""
    return map(read_record, scan_records(path))


def read_rows(
    path: Path, *, skip_bad: bool = False, on_bad: Callable[[BadLine], None] | None = None
) -> Iterator[Trace]:
    """The traces of a file. A bad line raises InputError; with `skip_bad` it is handed to `on_bad`."""
    for row in scan_rows(path):
        if isinstance(row, SourceRow):
            yield row.trace
        elif not skip_bad:
            raise bad_line_error(path, row)
        elif on_bad is not None:
            on_bad(row)


def bad_line_error(path: Path, bad: BadLine) -> InputError:
    """The error for one bad line, ready to print."""
    return InputError(f"{path}:{bad.line}: {bad.reason}; fix it or use --skip-bad")


def _trace(record: Record) -> Trace:
    if record.data is None:
        raise InputError(f"a row has at most {MAX_RECORD_BYTES:,} bytes, got {record.end - record.offset:,}")
    try:
        value = parse_json(record.data)
    except InputError as error:
        if record.closed:
            raise
        raise InputError(
            f"the last record is cut off at byte {record.end}, it begins at byte {record.offset} ({error})"
        ) from error
    return row_to_trace(value)
