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
    return login(request, next=local_path(next))


def login(request: Request, *, next: str = "/", problem: str = "", status: int = 200) -> HTMLResponse:
    """The page, with what was wrong with the token before."""
    values = {"next": next, "problem": problem, "is_required": request.app.state.settings.token_required}
    return render(request, "login.html", twin="/api/health", status=status, **values)
