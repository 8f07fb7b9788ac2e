"""NDJSON in both directions, a piece in memory at a time."""

import re
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import NamedTuple
from urllib.parse import quote

from fastapi.responses import StreamingResponse

MEDIA_TYPE = "application/x-ndjson"
BLOCK_BYTES = 64 * 1024
BATCH_LINES = 1_000
BATCH_BYTES = 2 * 2**20


class NdjsonResponse(StreamingResponse):
    """One JSON value a line."""

    media_type = MEDIA_TYPE


class Line(NamedTuple):
    """A line of a body, counted from 1, without its newline; `data` is None when it is over the limit."""

    number: int
    data: bytes | None


def ndjson_response(lines: Iterator[bytes], filename: str, headers: dict[str, str] | None = None) -> NdjsonResponse:
    """A download of lines that end with a newline. What goes wrong before the first block is refused properly."""
    blocks = _blocks(lines)
    first = next(blocks, b"")
    plain = re.sub(r"[^A-Za-z0-9._~-]", "_", filename)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename)}"
    return NdjsonResponse(chain((first,), blocks), headers={"Content-Disposition": disposition, **(headers or {})})


async def line_batches(chunks: AsyncIterator[bytes], max_line_bytes: int) -> AsyncIterator[list[Line]]:
    """The body's lines in batches of bounded size; blank ones are passed over. The last batch of a body with a line
    over the limit ends with that line."""
    batch: list[Line] = []
    size = 0
    async for line in _lines(chunks, max_line_bytes):
        if line.data is not None and not line.data.strip():
            continue
        batch.append(line)
        size += len(line.data or b"")
        if line.data is None or len(batch) == BATCH_LINES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def _lines(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[Line]:
    number = 1
    # Growing in place keeps a line that comes byte by byte linear.
    pending = bytearray()
    async for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        pending += first
        for following in rest:
            yield Line(number, bytes(pending) if len(pending) <= max_bytes else None)
            number, pending = number + 1, bytearray(following)
        if len(pending) > max_bytes:
            yield Line(number, None)
    yield Line(number, bytes(pending))


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Lines joined until a block is worth a turn of the event loop."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= BLOCK_BYTES:
            yield b"".join(block)
            block, size = [], 0
    if block:
        yield b"".join(block)
