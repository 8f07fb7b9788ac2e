"""Signing in with a token, where one is required."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from tracetune.api.session import local_path
from tracetune.api.strict import Router
from tracetune.web.render import page_rule, render

router = Router(tags=["pages"])


@router.get("/login", **page_rule("open"))
def login_page(request: Request, next: Annotated[str, Query(max_length=4_000)] = "/") -> HTMLResponse:
    """Where a token is given; `next` is where to go on."""
    values = {"next": local_path(next), "is_required": request.app.state.settings.token_required}
    return render(request, "login.html", twin="/api/health", **values)
