"""Who asks: a bearer token, or this machine's own user where no token is required."""

from fastapi import Request

from tracetune.api.errors import ApiError
from tracetune.api.policy import Scope


async def authorize(request: Request, scope: Scope) -> None:
    """Raises ApiError 401 without a valid token, 403 when its scopes are too narrow."""
    if scope == "open":
        return
    if request.app.state.settings.token_required or "authorization" in request.headers:
        raise ApiError(401, "a token is required", headers={"WWW-Authenticate": "Bearer"})
