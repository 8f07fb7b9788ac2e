"""The whole service with its pages. A page that is refused is a page too; whoever asks for JSON is told in JSON."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from tracetune.api.service import create_service
from tracetune.api.settings import ServiceSettings
from tracetune.web import (
    assets,
    pages_chosen,
    pages_dataset_diff,
    pages_datasets,
    pages_duels,
    pages_evalsets,
    pages_evaluations,
    pages_experiments,
    pages_launch,
    pages_lineage,
    pages_models,
    pages_rollouts,
    pages_runs,
    pages_session,
    pages_standing,
    pages_traces,
)
from tracetune.web.render import render

# The form of a new run stands before the page of one run, whose path would take it for an id.
PAGES = (
    assets.router,
    pages_launch.router,
    pages_runs.router,
    pages_rollouts.router,
    pages_lineage.router,
    pages_duels.router,
    pages_traces.router,
    pages_chosen.router,
    pages_dataset_diff.router,
    pages_datasets.router,
    pages_evalsets.router,
    pages_evaluations.router,
    pages_standing.router,
    pages_experiments.router,
    pages_models.router,
    pages_session.router,
)
Handler = Callable[[Request, Any], Awaitable[Response]]


def create_site(settings: ServiceSettings) -> FastAPI:
    """The service of `api` with every page beside it, one ASGI application."""
    app = create_service(settings)
    for router in PAGES:
        app.include_router(router)
    for kind, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _as_page(handler))  # pyright: ignore[reportArgumentType]
    return app


def _as_page(handler: Handler) -> Handler:
    """The same refusal for a reader: without a token to the login page, otherwise told on a page."""

    async def answer(request: Request, error: Any) -> Response:
        told = await handler(request, error)
        if not wants_page(request):
            return told
        if told.status_code == 401 and request.method == "GET":
            back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse("/login?" + urlencode({"next": back}), 303)
        problem = orjson.loads(bytes(told.body))
        if told.status_code == 401 and request.url.path == "/login":
            return pages_session.login(request, problem=problem["detail"], status=401)
        page = render(request, "error.html", status=told.status_code, problem=problem)
        for name in ("retry-after", "allow", "connection"):
            if name in told.headers:
                page.headers[name] = told.headers[name]
        return page

    return answer


def wants_page(request: Request) -> bool:
    """Whether a browser asks, for something outside the API."""
    path = request.url.path
    return "text/html" in request.headers.get("accept", "") and path != "/api" and not path.startswith("/api/")
