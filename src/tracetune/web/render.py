"""Templates to pages: everything is escaped, an unknown name in a template is an error, nothing is inline."""

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from tracetune.api.policy import Scope, rule
from tracetune.web import draw, wording
from tracetune.web.assets import asset_url

NAV = (
    ("/", "Runs"),
    ("/traces", "Traces"),
    ("/datasets", "Datasets"),
    ("/evaluations", "Evaluations"),
    ("/leaderboard", "Leaderboard"),
    ("/experiments", "Experiments"),
    ("/models", "Models"),
    ("/chat", "Chat"),
)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tracetune.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(wording.FILTERS)
    environment.globals.update(asset=asset_url, draw=draw, NAV=NAV)
    return environment


ENVIRONMENT = _environment()


def page_rule(scope: Scope, *problems: int, **options: Any) -> dict[str, Any]:
    """`rule` for a page: HTML, and no part of the API's OpenAPI. `options` are those of `rule`."""
    return {**rule(scope, *problems, **options), "include_in_schema": False, "response_class": HTMLResponse}


def render(
    request: Request, template: str, *, twin: str | None = None, status: int = 200, **values: Any
) -> HTMLResponse:
    """A page from its template.

    `twin` is the address of the same facts as JSON; the page links to it. `values` are the template's names, with
    `path`, `here` (path and query, for coming back) and `signed_in` beside them.
    """
    path = request.url.path
    standing = {
        "path": path,
        "here": path + (f"?{request.url.query}" if request.url.query else ""),
        "section": section(path),
        "signed_in": "cookie" in request.headers and request.app.state.settings.token_required,
        "twin": twin,
    }
    text = ENVIRONMENT.get_template(template).render(**standing, **values)
    return HTMLResponse(text, status, {"Cache-Control": "private, no-cache", "Vary": "Accept, Cookie"})


def section(path: str) -> str:
    """Which entry of the navigation a page belongs to.

    >>> section("/runs/new"), section("/datasets/a-1/diff")
    ('/', '/datasets')
    """
    first = "/" + path.split("/")[1]
    return {"/runs": "/", "/evalsets": "/evaluations", "/duels": "/traces", "/lineage": "/"}.get(first, first)
