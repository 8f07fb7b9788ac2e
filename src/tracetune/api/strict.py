"""Requests read strictly: who asks is settled before a body is read, sizes count while reading, odd JSON is refused."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from typing import Any, get_args, get_origin

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope

from tracetune.api.auth import authorize
from tracetune.api.errors import ApiError
from tracetune.api.idempotency import answer_once
from tracetune.api.policy import LIMIT_KEY, QUERY_KEY, SCOPE_KEY, SCOPES
from tracetune.core.strict_json import BadJson, parse_json

JSON_TYPES = ("application/json",)
OFF_THREAD_BYTES = 65_536
# A body that stops coming would hold its place in the house for ever.
STALL_SECONDS = 30.0
# Read and thrown away before a 413, so that a client which writes first and reads then gets to see it.
LINGER_BYTES = 16 * 2**20
LINGER_SECONDS = 2.0


class Body(BaseModel):
    """A request's body: no unknown fields, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Incoming:
    """The messages of one body, each waited for only so long."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.more = True

    async def __call__(self) -> Message:
        """The next message. Raises ApiError 408 when nothing comes."""
        try:
            async with asyncio.timeout(STALL_SECONDS):
                message = await self.receive()
        except TimeoutError:
            told = f"body: nothing came for {STALL_SECONDS:g} s; send it again"
            raise ApiError(408, told, headers={"Connection": "close"}) from None
        self.more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Read on and throw away, within bounds of bytes and time."""
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while self.more and left > 0:
                    left -= len((await self()).get("body", b""))


class StrictRequest(Request):
    """A request whose body is measured while it is read; `max_bytes` None leaves that to the route."""

    def __init__(self, scope: Scope, incoming: Incoming, max_bytes: int | None) -> None:
        super().__init__(scope, incoming)
        self.incoming = incoming
        self.max_bytes = max_bytes

    async def check_length(self) -> None:
        """Refuse at once what says that it is too large."""
        length = self.headers.get("content-length", "")
        if self.max_bytes is not None and length.isdecimal() and int(length) > self.max_bytes:
            await self.incoming.discard()
            raise too_large(self.max_bytes)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises ApiError 413 once it is over the limit, 408 when it stalls."""
        read = 0
        async for chunk in super().stream():
            read += len(chunk)
            if self.max_bytes is not None and read > self.max_bytes:
                await self.incoming.discard()
                raise too_large(self.max_bytes)
            yield chunk

    async def json(self) -> Any:
        """The body's value. Raises ApiError 422 with the place of what is wrong."""
        data = await self.body()
        try:
            return await run_in_threadpool(parse_json, data) if len(data) > OFF_THREAD_BYTES else parse_json(data)
        except BadJson as error:
            pointers = [{"pointer": error.pointer, "detail": str(error)}]
            raise ApiError(422, f"body{error.pointer}: {error}", errors=pointers) from error


def too_large(limit: int) -> ApiError:
    """413; the connection closes, because the rest of the body was not read."""
    return ApiError(413, f"body: over {limit:,} bytes; send less", headers={"Connection": "close"})


class StrictRoute(APIRoute):
    """Adds the rule's checks before FastAPI's own."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        rules = options.get("openapi_extra") or {}
        if rules.get(SCOPE_KEY) not in SCOPES:
            raise TypeError(f"{path}: has no rule; add **rule(...) to its decorator")
        self.rules = rules
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Settle who asks, what is asked and how large it may be; then FastAPI's handler."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None
        takes_query = dict(_query_parameters(self.dependant))

        async def strict(request: Request) -> Response:
            await authorize(request, self.rules[SCOPE_KEY])
            _check_query(request, takes_query, self.rules.get(QUERY_KEY))
            own = StrictRequest(request.scope, Incoming(request.receive), _limit(request, self.rules[LIMIT_KEY]))
            if takes_body:
                _check_media_type(request)
            await own.check_length()
            return await answer_once(own, self.rules, handle)

        return strict


class Router(APIRouter):
    """The router of every room behind this door."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=StrictRoute, **options)


def _limit(request: Request, name: str) -> int | None:
    settings = request.app.state.settings
    return {"trace": settings.trace_max_bytes, "body": settings.body_max_bytes, "stream": None}[name]


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in JSON_TYPES:
        raise ApiError(415, f"body: must be application/json, got {media_type[:60] or 'no Content-Type'}")


def _query_parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """Each parameter's name, and whether it may come several times."""
    for parameter in dependant.query_params:
        yield parameter.alias, _is_list(parameter.field_info.annotation)
    for inner in dependant.dependencies:
        yield from _query_parameters(inner)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


def _check_query(request: Request, known: Mapping[str, bool], prefix: str | None) -> None:
    seen = set()
    for name, _ in request.query_params.multi_items():
        if name not in known and not (prefix and name.startswith(prefix)):
            told = f"unknown query parameter {name[:60]!r}; known: {', '.join(sorted(known)) or 'none'}"
            raise ApiError(422, told, errors=[{"pointer": f"/{name[:60]}", "detail": "unknown"}])
        if name in seen and not known.get(name, True):
            told = f"query parameter {name[:60]!r} must be given once"
            raise ApiError(422, told, errors=[{"pointer": f"/{name[:60]}", "detail": "given twice"}])
        seen.add(name)
