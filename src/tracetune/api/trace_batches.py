"""Many traces in one request: a JSON array, all or nothing, or NDJSON of any length in bounded memory.

NDJSON is stored as it comes, a batch of lines at a time. Whatever ends it early, a bad line or a lost connection,
sending the same lines again is safe: those that are in are found by their content.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from tracetune.api import ndjson
from tracetune.api.errors import ApiError, json_pointer
from tracetune.api.policy import rule
from tracetune.api.strict import Router, StrictRequest
from tracetune.api.trace_body import TraceBody
from tracetune.api.traces import Head
from tracetune.app import traces
from tracetune.core.errors import StorageError
from tracetune.core.strict_json import BadJson, parse_json
from tracetune.core.trace import Trace

router = Router(tags=["traces"])
MAX_BATCH = 1_000
SPOOL_BLOCK = 256 * 1024
BODIES = TypeAdapter(list[TraceBody])


class Batch(BaseModel):
    """`traces` stand in the order given; `duplicate_count` of them were stored before, `created_count` are new."""

    created_count: int
    duplicate_count: int
    traces: list[Head]


REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/TraceBody"},
                "minItems": 1,
                "maxItems": MAX_BATCH,
            }
        },
        ndjson.MEDIA_TYPE: {"schema": {"type": "string", "description": "One trace a line, as many as there are."}},
    },
}


@router.post(
    "/api/traces/batch",
    status_code=201,
    response_model=Batch,
    **rule("write", max_bytes="stream", extra={"requestBody": REQUEST_BODY}),
)
async def create_batch(request: Request) -> Response:
    """Store many traces. A JSON array is stored whole or not at all; of NDJSON every line before a bad one is stored,
    and the refusal names the line and counts what is in."""
    assert isinstance(request, StrictRequest)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return await _json_batch(request)
    if media_type == ndjson.MEDIA_TYPE:
        return await _Ingest(request).answer()
    raise ApiError(
        415, f"body: must be application/json or {ndjson.MEDIA_TYPE}, got {media_type[:80] or 'no Content-Type'}"
    )


async def _json_batch(request: StrictRequest) -> Response:
    settings = request.app.state.settings
    request.max_bytes = settings.body_max_bytes
    value = await request.json()
    if not isinstance(value, list):
        raise RequestValidationError([{"loc": ("body",), "msg": "Input should be a valid list", "type": "list_type"}])
    if not value:
        raise ApiError(400, "body: an empty batch; send 1 to 1000 traces")
    if len(value) > MAX_BATCH:
        raise ApiError(400, f"body: {len(value)} traces in one batch; send at most {MAX_BATCH}, or NDJSON")
    return await run_in_threadpool(_store_batch, value, settings.home, settings.trace_max_bytes)


def _store_batch(value: list[Any], home: Path, max_bytes: int) -> Response:
    for index, item in enumerate(value):
        if len(value) > 1 and len(orjson.dumps(item)) > max_bytes:
            raise ApiError(413, f"body[{index}]: over {max_bytes:,} bytes; send less", index=index)
    try:
        bodies = BODIES.validate_python(value)
    except ValidationError as error:
        raise RequestValidationError(_located(error)) from error
    added = traces.add_traces([body.trace() for body in bodies], home)
    answer = {
        "created_count": added.created_count,
        "duplicate_count": added.duplicate_count,
        "traces": [head._asdict() for head in added.heads],
    }
    return Response(orjson.dumps(answer), 201, media_type="application/json")


def _located(error: ValidationError) -> list[dict[str, Any]]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{**item, "loc": ("body", *item["loc"])} for item in found]


class BadLine(NamedTuple):
    """Why a line was refused; `problems` are (pointer into the line, what is wrong)."""

    number: int
    status: int
    problems: list[tuple[str, str]]


class Taken(NamedTuple):
    """The answer's lines for the good rows of a batch, which are stored, and the line that stopped it."""

    rows: bytes
    num_rows: int
    created_count: int
    bad: BadLine | None


class _Ingest:
    """One NDJSON body on its way into the store. The answer waits in a file: it may be as long as the body."""

    def __init__(self, request: StrictRequest) -> None:
        self.request = request
        self.home: Path = request.app.state.settings.home
        self.max_bytes: int = request.app.state.settings.trace_max_bytes
        self.num_rows = 0
        self.created_count = 0

    async def answer(self) -> Response:
        """201 with every row's head, or the refusal of the first bad line."""
        with ExitStack() as held:
            spool = held.enter_context(_spool(self.home))
            try:
                async for lines in ndjson.line_batches(self.request.stream(), self.max_bytes):
                    taken = await run_in_threadpool(self._take, lines, spool)
                    if taken.bad is not None:
                        await self.request.incoming.discard()
                        raise self._refusal(taken.bad)
                    if self.request.incoming.more and self.request.app.state.draining.is_set():
                        await self.request.incoming.discard()
                        raise self._ending()
            except ClientDisconnect:
                # Nobody is left to read this; what was stored stays.
                return Response(status_code=400)
            if not self.num_rows:
                raise ApiError(400, "body: no line holds a trace; send at least one")
            return StreamingResponse(self._body(spool, held.pop_all()), 201, media_type="application/json")

    def _take(self, lines: Sequence[ndjson.Line], spool: IO[bytes]) -> Taken:
        taken = take_lines(lines, self.home, self.max_bytes)
        if taken.num_rows:
            _write(spool, (b"," if self.num_rows else b"") + taken.rows)
        self.num_rows += taken.num_rows
        self.created_count += taken.created_count
        return taken

    def _refusal(self, bad: BadLine) -> ApiError:
        place = f"line {bad.number}"
        detail = [
            {"loc": ["body", bad.number - 1, *_parts(pointer)], "msg": f"{place}: {told}", "type": "value_error"}
            for pointer, told in bad.problems
        ]
        errors = [{"line": bad.number, "pointer": pointer, "detail": told} for pointer, told in bad.problems]
        told = detail if bad.status == 422 else f"{place}: {bad.problems[0][1]}"
        headers = {"Connection": "close"}
        return ApiError(bad.status, told, headers=headers, errors=errors, line=bad.number, **self._counts())

    def _ending(self) -> ApiError:
        told = f"the service is ending; {self.num_rows} traces are stored, send all again in a moment"
        return ApiError(503, told, headers={"Retry-After": "2", "Connection": "close"}, **self._counts())

    def _counts(self) -> dict[str, int]:
        return {"created_count": self.created_count, "duplicate_count": self.num_rows - self.created_count}

    def _body(self, spool: IO[bytes], held: ExitStack) -> Iterator[bytes]:
        with held:
            yield orjson.dumps(self._counts())[:-1] + b',"traces":['
            spool.seek(0)
            while block := spool.read(SPOOL_BLOCK):
                yield block
            yield b"]}"


def take_lines(lines: Sequence[ndjson.Line], home: Path, max_bytes: int) -> Taken:
    """Store the lines up to the first bad one."""
    good: list[Trace] = []
    bad: BadLine | None = None
    for line in lines:
        read = _read_line(line, max_bytes)
        if isinstance(read, BadLine):
            bad = read
            break
        good.append(read)
    if not good:
        return Taken(b"", 0, 0, bad)
    added = traces.add_traces(good, home)
    return Taken(b",".join(orjson.dumps(head._asdict()) for head in added.heads), len(good), added.created_count, bad)


def _read_line(line: ndjson.Line, max_bytes: int) -> Trace | BadLine:
    if line.data is None:
        return BadLine(line.number, 413, [("", f"over {max_bytes:,} bytes; send less")])
    try:
        return TraceBody.model_validate(parse_json(line.data)).trace()
    except BadJson as error:
        return BadLine(line.number, 422, [(error.pointer, str(error))])
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return BadLine(line.number, 422, [(json_pointer(list(item["loc"])), item["msg"]) for item in found])


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _spool(home: Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=home)
    except OSError as error:
        raise _no_spool(home, error) from error


def _write(spool: IO[bytes], data: bytes) -> None:
    try:
        spool.write(data)
    except OSError as error:
        raise _no_spool("the answer's temporary file", error) from error


def _no_spool(where: object, error: OSError) -> StorageError:
    return StorageError(f"{where}: cannot be written ({error.strerror or error}); free space, then send again")
