"""The header Idempotency-Key (IETF draft-ietf-httpapi-idempotency-key-header-07): a POST that is sent twice, because
its answer was lost, has one effect and one answer.

The same key with another body is refused with 422, with a request that is still at work with 409. Only answers of
success are kept: a refusal changed nothing, so sending the request again is as good. A body that streams is not
kept either, because what such a route stores is known by its content.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from tracetune.api.errors import ApiError
from tracetune.api.policy import LIMIT_KEY, REPEAT_KEY
from tracetune.app.answers import KeptAnswer, claim_answer, keep_answer, release_answer
from tracetune.core.ids import content_hash

HEADER = "idempotency-key"
MAX_KEY_CHARS = 255
MAX_KEPT_BYTES = 2**20
Handle = Callable[[Request], Awaitable[Response]]


async def answer_once(request: Request, rules: Mapping[str, Any], handle: Handle) -> Response:
    """Handle the request, or answer as before. `request.state.request_key` tells a route which request it is."""
    request.state.request_key = None
    if request.method != "POST" or HEADER not in request.headers:
        return await handle(request)
    if rules.get(REPEAT_KEY):
        raise ApiError(400, "Idempotency-Key: this answer is never kept; send the request without it")
    request.state.request_key = request_key(request)
    if rules[LIMIT_KEY] == "stream":
        return await handle(request)
    return await _claimed(request, request.state.request_key, handle)


def request_key(request: Request) -> str:
    """sha256 over who asks, where, and the client's key. Raises ApiError 400 for a key that is none."""
    given = request.headers.getlist(HEADER)
    key = given[0].strip().removeprefix('"').removesuffix('"')
    if len(given) > 1 or not 1 <= len(key) <= MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        raise ApiError(400, f"Idempotency-Key: must be 1 to {MAX_KEY_CHARS} printable ASCII characters, once")
    return content_hash([request.state.caller.caller_id, request.method, request.url.path, key])


async def _claimed(request: Request, key: str, handle: Handle) -> Response:
    home: Path = request.app.state.settings.home
    content = (request.url.query.encode(), request.headers.get("content-type", "").encode(), await request.body())
    body_hash = hashlib.sha256(b"\0".join(content)).hexdigest()
    claim = await run_in_threadpool(claim_answer, key, body_hash, home)
    if claim.kind == "other":
        raise ApiError(422, "Idempotency-Key: came with another request before; use a new key for a new request")
    if claim.kind == "busy":
        told = "Idempotency-Key: the request it came with first is still at work; ask again in a moment"
        raise ApiError(409, told, headers={"Retry-After": "2"})
    if claim.answer is not None:
        kept = claim.answer
        return Response(kept.body, kept.status, {"Idempotency-Replayed": "true"}, kept.media_type or None)
    try:
        response = await handle(request)
        answer = _to_keep(response)
    except Exception:
        await run_in_threadpool(release_answer, key, claim.lease, home)
        raise
    if answer is None:
        await run_in_threadpool(release_answer, key, claim.lease, home)
    else:
        await run_in_threadpool(keep_answer, key, claim.lease, answer, home)
    return response


def _to_keep(response: Response) -> KeptAnswer | None:
    # A streaming response has no body to keep.
    body = response.__dict__.get("body")
    if not isinstance(body, bytes) or len(body) > MAX_KEPT_BYTES or not 200 <= response.status_code < 300:
        return None
    return KeptAnswer(response.status_code, response.headers.get("content-type", ""), body)
