"""Raw records of a JSON array or JSONL file, one at a time: memory is bounded by the largest record.

The first character decides: `[` opens an array, anything else is JSONL. A byte-order mark, CRLF and blank
lines are passed over. What stands in a record is not looked at here.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tracetune.core.errors import InputError, NotFound

MAX_RECORD_BYTES = 32 * 2**20
CHUNK_BYTES = 2**20
BATCH_ROWS = 1_000
SPACE = b" \t\r\n"
_FOREIGN = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"PAR1": "Parquet"}
_SPACES = re.compile(rb"[ \t\r\n]*+")
# One match per bracket outside of strings; a quote that matches alone opens a string that is not all here.
_BRACKET = re.compile(rb'(?s)(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+(["{}\[\]])')
_SCALAR = re.compile(rb'(?s)(?:[^",\]]++|"(?:[^"\\]++|\\.)*+")*+')


class Record(NamedTuple):
    """The bytes of one row with its place: `line` from 1, byte offsets from 0, `number` counts array items.

    `closed` is false for a last line without its newline. `data` is None when the record is too large.
    """

    line: int
    offset: int
    end: int
    data: bytes | None
    number: int | None = None
    closed: bool = True


def read_records(path: Path, *, max_bytes: int = MAX_RECORD_BYTES, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Record]:
    """Every record in order. Raises NotFound, InputError for a foreign file or a broken array."""
    try:
        with path.open("rb") as file:
            head = file.read(CHUNK_BYTES)
            _refuse_foreign(path, head)
            start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
            file.seek(start)
            is_array = head[start:].lstrip(SPACE).startswith(b"[")
            if is_array:
                window = _Window(path, file, start, max_bytes=max_bytes, chunk_bytes=chunk_bytes)
                yield from _array_records(window)
            else:
                yield from _line_records(file, start, max_bytes)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such file; check the name and the folder") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a readable JSON or JSONL file") from error


def batch_records(records: Iterable[Record], max_bytes: int) -> Iterator[list[Record]]:
    """`BATCH_ROWS` at a time, fewer where they come to `max_bytes`."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += record.end - record.offset
        if len(batch) == BATCH_ROWS or size >= max_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _refuse_foreign(path: Path, head: bytes) -> None:
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{path}: not UTF-8 JSON, got {kind}; convert it to JSONL in UTF-8 first")


def _line_records(file: BinaryIO, offset: int, max_bytes: int) -> Iterator[Record]:
    number = 0
    while line := file.readline(max_bytes + 1):
        number += 1
        length, closed = len(line), line.endswith(b"\n")
        data = line.strip(SPACE)
        if length > max_bytes and not closed:
            data = None
            while not closed and (rest := file.readline(CHUNK_BYTES)):
                length, closed = length + len(rest), rest.endswith(b"\n")
        if data != b"":
            yield Record(number, offset, offset + length, data, closed=closed)
        offset += length


def _array_records(window: "_Window") -> Iterator[Record]:
    window.next_byte()
    window.advance(1)
    number = 0
    while (first := window.next_byte()) != b"]" or number:
        number += 1
        if first in (b"", b",", b"]"):
            raise window.broken(f"row {number} is missing, got {_shown(first)}")
        line, begin = window.line, window.offset
        data = window.take_value(number)
        yield Record(line, begin, window.offset, data, number)
        separator = window.next_byte()
        if separator == b"]":
            break
        if separator != b",":
            raise window.broken(f"after row {number} must stand a comma or ], got {_shown(separator)}")
        window.advance(1)
    window.advance(1)
    if (rest := window.next_byte()) != b"":
        raise window.broken(f"nothing may follow the array, got {_shown(rest)}")


def _shown(byte: bytes) -> str:
    return repr(byte.decode("latin-1")) if byte else "the end of the file (it is cut off)"


class _Window:
    """The part of an array file that is in memory; `line` and `offset` are the place of its first byte."""

    def __init__(self, path: Path, file: BinaryIO, offset: int, *, max_bytes: int, chunk_bytes: int) -> None:
        self.path, self.file, self.offset = path, file, offset
        self.max_bytes, self.chunk_bytes = max_bytes, chunk_bytes
        self.data, self.at, self.line = b"", 0, 1

    def broken(self, what: str) -> InputError:
        """An error that skipping cannot pass: where the next row begins is unknown."""
        return InputError(f"{self.path}:{self.line}: {what} at byte {self.offset}; mend the array, or write JSONL")

    def next_byte(self) -> bytes:
        """The next byte that is not white space, not taken; empty at the end of the file."""
        while True:
            match = _SPACES.match(self.data, self.at)
            self.advance((match.end() if match else self.at) - self.at)
            if self.at < len(self.data) or not self._more():
                return self.data[self.at : self.at + 1]

    def take_value(self, number: int) -> bytes:
        """The bytes of the value that begins here."""
        while (end := _value_end(self.data, self.at)) is None:
            if len(self.data) - self.at > self.max_bytes:
                raise self.broken(f"row {number} is over {self.max_bytes:,} bytes, or never closed, and begins")
            if not self._more():
                total = self.offset + len(self.data) - self.at
                raise self.broken(f"row {number} is cut off by the end of the file at byte {total}; it begins")
        value = self.data[self.at : end]
        self.advance(end - self.at)
        return value.strip(SPACE)

    def advance(self, length: int) -> None:
        """Pass over `length` bytes."""
        self.line += self.data.count(b"\n", self.at, self.at + length)
        self.at += length
        self.offset += length

    def _more(self) -> bool:
        # Reading as much again as is pending keeps the work linear in the size of a large row.
        chunk = self.file.read(max(self.chunk_bytes, len(self.data) - self.at))
        self.data, self.at = self.data[self.at :] + chunk, 0
        return bool(chunk)


def _value_end(data: bytes, start: int) -> int | None:
    """The index after the value that begins at `start`; None when it is not all in `data`."""
    if data[start : start + 1] not in (b"{", b"["):
        match = _SCALAR.match(data, start)
        end = match.end() if match else start
        return end if data[end : end + 1] in (b",", b"]") else None
    depth, at = 0, start
    # Anchored matches: a search would try every later start when the last bracket is behind it.
    while match := _BRACKET.match(data, at):
        at = match.end()
        if match[1] == b'"':
            return None
        depth += 1 if match[1] in b"{[" else -1
        if depth == 0:
            return at
    return None
