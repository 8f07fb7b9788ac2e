"""Who asks: a bearer token, a browser's cookie that holds one, or this machine's own user where none is required."""

from typing import NamedTuple

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from tracetune.api.errors import ApiError
from tracetune.api.policy import Scope
from tracetune.app.tokens import SCOPES, TokenView, check_token

COOKIE = "tracetune_token"


class Caller(NamedTuple):
    """Who asks, in `request.state.caller`: `caller_id` never changes hands, `name` is what the log shows."""

    caller_id: str
    name: str
    scopes: tuple[str, ...]


NOBODY = Caller("", "", ())
LOCAL = Caller("local", "local", SCOPES)


async def authorize(request: Request, scope: Scope) -> Caller:
    """Raises ApiError 401 without a valid token, 403 when its scopes are too narrow.

    A bearer token is always checked, also where none is required, so a script finds out early that its token is
    no good. A cookie counts only where one is required: elsewhere it may be left from another day.
    """
    caller = NOBODY if scope == "open" else await _caller(request, scope)
    request.state.caller, request.state.who = caller, caller.name
    return caller


async def _caller(request: Request, scope: Scope) -> Caller:
    settings = request.app.state.settings
    secret = _bearer(request)
    if secret is None and not settings.token_required:
        return LOCAL
    secret = secret or request.cookies.get(COOKIE)
    if not secret:
        raise _unauthorized("a token is required: send Authorization: Bearer TOKEN")
    token = await run_in_threadpool(check_token, secret, settings.home)
    if token is None:
        raise _unauthorized("this token is unknown, expired or revoked", 'Bearer error="invalid_token"')
    if not token.allows(scope):
        raise _too_narrow(token, scope)
    return Caller(token.token_id, token.prefix, token.scopes)


def _bearer(request: Request) -> str | None:
    given = request.headers.getlist("authorization")
    if not given:
        return None
    scheme, _, secret = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not secret.strip():
        raise _unauthorized("Authorization: must be `Bearer TOKEN`, once")
    return secret.strip()


def _unauthorized(told: str, challenge: str = "Bearer") -> ApiError:
    return ApiError(401, told, headers={"WWW-Authenticate": challenge})


def _too_narrow(token: TokenView, scope: Scope) -> ApiError:
    told = f"this needs a token with the scope {scope}, got {', '.join(token.scopes)}"
    return ApiError(403, told, headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'})
