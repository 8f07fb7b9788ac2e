"""Every refusal has one shape: FastAPI's `detail` with the fields of RFC 9457 beside it.

No traceback, path or secret leaves the process; the log has them under the same request id.
"""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from tracetune.core.errors import Conflict, InputError, NotFound, StorageError, TracetuneError, Unavailable
from tracetune.core.strict_json import pointer

MEDIA_TYPE = "application/problem+json"
LOG = logging.getLogger("tracetune.service")
STATUS: tuple[tuple[type[TracetuneError], int], ...] = (
    (InputError, 422),
    (NotFound, 404),
    (Conflict, 409),
    (Unavailable, 422),
    (StorageError, 503),
)
RETRY_SECONDS = 2


class Problem(BaseModel):
    """The body of every refusal; `errors` names each wrong place by a JSON pointer."""

    model_config = ConfigDict(extra="allow")
    detail: str | list[dict[str, Any]]
    type: str
    title: str
    status: int
    request_id: str


class ApiError(HTTPException):
    """A refusal; `fields` stand beside the detail."""

    def __init__(self, status: int, detail: Any, *, headers: dict[str, str] | None = None, **fields: Any) -> None:
        super().__init__(status, detail, headers)
        self.fields = fields


def problem_response(
    request_id: str, status: int, detail: Any, *, headers: dict[str, str] | None = None, **fields: Any
) -> JSONResponse:
    """The one shape. `fields` are further members, such as `errors` with JSON pointers."""
    title = HTTPStatus(status).phrase
    body = {"detail": detail, "type": "about:blank", "title": title, "status": status, "request_id": request_id}
    return JSONResponse({**body, **fields}, status, headers, MEDIA_TYPE)


def add_error_handlers(app: FastAPI) -> None:
    """One handler per kind of error; anything unforeseen is a 500 that says only its request id."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(TracetuneError, _ours)
    app.add_exception_handler(Exception, _unforeseen)


def request_id(request: Request) -> str:
    """The id the guard gave this request."""
    return request.scope.get("state", {}).get("request_id", "")


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    fields = error.fields if isinstance(error, ApiError) else {}
    headers = dict(error.headers or {})
    return problem_response(request_id(request), error.status_code, error.detail, headers=headers, **fields)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # What was sent is not echoed: it may be long, secret, or not even JSON.
    detail = [{"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in error.errors()]
    pointers = [{"pointer": json_pointer(item["loc"]), "detail": item["msg"]} for item in detail]
    return problem_response(request_id(request), 422, detail, errors=pointers)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    if status < 500:
        return problem_response(request_id(request), status, str(error))
    LOG.error("%s", error, extra={"request_id": request_id(request)}, exc_info=error)
    if status == 503:
        told = "the store cannot answer now; try again"
        return problem_response(request_id(request), status, told, headers={"Retry-After": str(RETRY_SECONDS)})
    return problem_response(request_id(request), status, "stored bytes are damaged; the service's log names them")


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    LOG.error("unforeseen: %r", error, extra={"request_id": request_id(request)}, exc_info=error)
    return problem_response(request_id(request), 500, "a mistake of the service; its log has this request's id")


def json_pointer(location: list[Any]) -> str:
    """RFC 6901, from a place as pydantic names it.

    >>> json_pointer(["body", "steps", 0, "a/b"])
    '/steps/0/a~1b'
    """
    return pointer(location[1:] if location[:1] in (["body"], ["query"], ["path"], ["header"]) else location)
