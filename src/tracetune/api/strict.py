"""Requests read strictly: who asks is settled before a body is read, sizes count while reading, odd JSON is refused."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from tracetune.api.auth import authorize
from tracetune.api.errors import ApiError
from tracetune.api.policy import LIMIT_KEY, QUERY_KEY, SCOPE_KEY, SCOPES
from tracetune.core.errors import InputError
from tracetune.core.strict_json import parse_json

JSON_TYPES = ("application/json",)
OFF_THREAD_BYTES = 65_536


class Body(BaseModel):
    """A request's body: no unknown fields, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StrictRequest(Request):
    """A request whose body is measured while it is read; `max_bytes` None leaves that to the route."""

    max_bytes: int | None = None

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises ApiError 413 as soon as it is over the limit."""
        read = 0
        async for chunk in super().stream():
            read += len(chunk)
            if self.max_bytes is not None and read > self.max_bytes:
                raise too_large(self.max_bytes)
            yield chunk

    async def json(self) -> Any:
        """The body's value. Raises ApiError 422 with the place of what is wrong."""
        data = await self.body()
        try:
            return await run_in_threadpool(parse_json, data) if len(data) > OFF_THREAD_BYTES else parse_json(data)
        except InputError as error:
            raise ApiError(422, f"body: {error}", errors=[{"pointer": "", "detail": str(error)}]) from error


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

        async def strict(request: Request) -> Response:
            await authorize(request, self.rules[SCOPE_KEY])
            _check_query(request, self)
            own = StrictRequest(request.scope, request.receive)
            own.max_bytes = _limit(request, self.rules[LIMIT_KEY])
            if takes_body:
                _check_media_type(request)
            length = request.headers.get("content-length", "")
            if own.max_bytes is not None and length.isdecimal() and int(length) > own.max_bytes:
                raise too_large(own.max_bytes)
            return await handle(own)

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
        raise ApiError(415, f"body: must be application/json, got {media_type or 'no Content-Type'}")


def _check_query(request: Request, route: APIRoute) -> None:
    known = {parameter.alias for parameter in route.dependant.query_params}
    prefix = route.openapi_extra.get(QUERY_KEY) if route.openapi_extra else None
    for name in request.query_params:
        if name not in known and not (prefix and name.startswith(prefix)):
            told = f"unknown query parameter {name[:60]!r}; known: {', '.join(sorted(known)) or 'none'}"
            raise ApiError(422, told, errors=[{"pointer": f"/{name[:60]}", "detail": "unknown"}])
