"""Who may use a route, and how it refuses: declared beside the path, kept by `StrictRoute`, shown in OpenAPI.

A route without a rule does not start: `StrictRoute` refuses it when it is added.
"""

from http import HTTPStatus
from typing import Any, Literal, get_args

from tracetune.api.errors import MEDIA_TYPE

Scope = Literal["open", "read", "write", "train", "admin"]
SCOPES = get_args(Scope)
SCOPE_KEY, LIMIT_KEY, QUERY_KEY = "x-tracetune-scope", "x-tracetune-max-bytes", "x-tracetune-open-query"
REPEAT_KEY = "x-tracetune-unrepeatable"
# For `extra`: a POST whose answer must not be kept, because it holds a secret.
UNREPEATABLE = {REPEAT_KEY: True}
# Any route can be refused for its host, for a body that stalls, by a drain, or because the store is away; a POST
# also for an Idempotency-Key that is at work.
ALWAYS = (400, 403, 408, 409, 413, 415, 421, 422, 500, 503)


def rule(
    scope: Scope,
    *problems: int,
    max_bytes: Literal["trace", "body", "stream"] = "body",
    open_query: str | None = None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments for a route's decorator: `@router.get("/api/x", **rule("read", 404))`.

    `scope` is the least a token must have; `open` needs none. `problems` are the refusals besides those any route
    has. `max_bytes` names the limit of the body, measured while reading; `stream` has none and reads its own.
    `open_query` is a prefix of query parameters that are not declared one by one, such as `meta.`.
    `extra` goes into OpenAPI as it stands.
    """
    secured = {} if scope == "open" else {"security": [{"bearer": []}]}
    statuses = sorted({*ALWAYS, *problems, *(() if scope == "open" else (401,))})
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        # By reference (`api.service` holds the schema): FastAPI would build a validator for each status of each route.
        "responses": {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses},
        "openapi_extra": {
            **secured,
            SCOPE_KEY: scope,
            LIMIT_KEY: max_bytes,
            **({QUERY_KEY: open_query} if open_query else {}),
            **(extra or {}),
        },
    }
