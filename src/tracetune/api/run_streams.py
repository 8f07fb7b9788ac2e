"""A run's log as server-sent events (WHATWG HTML, 9.2): each line once, from wherever the reader stopped.

The id of an event is the byte that follows its line, so `Last-Event-ID` needs no memory here.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from tracetune.app import jobs
from tracetune.core.errors import StorageError

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
POLL_SECONDS = 0.5
# Proxies close a connection that says nothing for a minute.
QUIET_SECONDS = 15.0
# Then the reader connects again, and proves anew who it is.
LONGEST_SECONDS = 900.0


async def follow_log(run_id: str, *, offset: int, home: Path, draining: asyncio.Event) -> AsyncIterator[str]:
    """Lines as they are written; `end` with the run's state once it has ended, or when the service does.

    A reader of an `end` whose state is no end connects again.
    """
    began = said = time.monotonic()
    while time.monotonic() - began < LONGEST_SECONDS:
        try:
            chunk, state = await run_in_threadpool(jobs.read_log, run_id, offset=offset, home=home)
        except StorageError:
            # The database is away; the reader learns nothing new meanwhile.
            chunk, state = jobs.LogChunk([], offset), "running"
        if chunk.offset > offset:
            offset, said = chunk.offset, time.monotonic()
            yield _event(chunk)
            continue
        if state in jobs.ENDED or draining.is_set():
            yield _end(state, offset)
            return
        if time.monotonic() - said > QUIET_SECONDS:
            said = time.monotonic()
            yield ": still here\n\n"
        await _pause(draining)


def _event(chunk: jobs.LogChunk) -> str:
    """Lines that were read at once are one event; a reader that lost it asks for all of them again."""
    data = "".join(f"data: {line}\n" for line in chunk.lines)
    return f"id: {chunk.offset}\n{data}\n"


def _end(state: str, offset: int) -> str:
    return f"id: {offset}\nevent: end\ndata: {json.dumps({'state': state})}\n\n"


async def _pause(draining: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(draining.wait(), POLL_SECONDS)
    except TimeoutError:
        return
