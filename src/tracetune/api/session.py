"""A browser signs in with a token, which it then keeps in a cookie that no script can read and no other site send."""

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from tracetune.api.auth import COOKIE
from tracetune.api.errors import ApiError
from tracetune.api.policy import UNREPEATABLE, rule
from tracetune.api.strict import Router
from tracetune.app.tokens import check_token

router = Router(tags=["session"], include_in_schema=False)
FORM = "application/x-www-form-urlencoded"
COOKIE_SECONDS = 30 * 86_400
MAX_FORM_BYTES = 16_384


async def _fields(request: Request) -> dict[str, str]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise ApiError(415, f"body: must be {FORM}, got {media_type[:60] or 'no Content-Type'}")
    body = await request.body()
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=8))
    except ValueError as error:
        raise ApiError(422, "body: not a form of UTF-8 fields") from error


Fields = Annotated[dict[str, str], Depends(_fields)]


@router.post("/login", **rule("open", 401, extra=UNREPEATABLE))
async def sign_in(fields: Fields, request: Request) -> Response:
    """Check the token and keep it; `next` is where to go on, within this service."""
    secret = fields.get("token", "").strip()
    token = await run_in_threadpool(check_token, secret, request.app.state.settings.home)
    if token is None:
        raise ApiError(401, "this token is unknown, expired or revoked", headers={"WWW-Authenticate": "Bearer"})
    answer = RedirectResponse(local_path(fields.get("next", "/")), 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, secret, COOKIE_SECONDS, path="/", secure=secure, httponly=True, samesite="strict")
    return answer


@router.post("/logout", **rule("open", extra=UNREPEATABLE))
async def sign_out() -> Response:
    """Forget the cookie; the token itself lives on until it is revoked."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


def local_path(target: str) -> str:
    """`target` when it stays within this service, otherwise the first page.

    >>> local_path("/traces?q=a"), local_path("//elsewhere.example"), local_path("/\\\\elsewhere.example")
    ('/traces?q=a', '/', '/')
    """
    stays = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if stays else "/"
