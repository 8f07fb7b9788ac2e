"""The service: guard, error table and every router, over one open store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from tracetune.api import (
    baselines,
    chat,
    datasets,
    evalsets,
    evaluations,
    experiments,
    health,
    leaderboard,
    lineage,
    models,
    runs,
    session,
    tokens,
    trace_batches,
    traces,
    ungar,
)
from tracetune.api.errors import Problem, add_error_handlers
from tracetune.api.guard import Guard
from tracetune.api.metrics import Metrics
from tracetune.api.settings import ServiceSettings
from tracetune.app.service import running_service

ROUTERS = (
    health.router,
    tokens.router,
    session.router,
    trace_batches.router,
    traces.router,
    ungar.router,
    datasets.router,
    evalsets.router,
    runs.router,
    evaluations.router,
    leaderboard.router,
    experiments.router,
    models.router,
    baselines.router,
    chat.router,
    lineage.router,
)


class Service(FastAPI):
    """FastAPI behind our guard. Even the answer to an unforeseen error passes it and gets its headers."""

    def build_middleware_stack(self) -> ASGIApp:
        """Everything FastAPI has, wrapped whole."""
        inner = super().build_middleware_stack()
        return Guard(inner, self.state.settings, draining=self.state.draining, metrics=self.state.metrics)

    def openapi(self) -> dict[str, Any]:
        """The schema, with what every rule refers to: the shape of a refusal and the kind of token."""
        schema = super().openapi()
        parts = schema.setdefault("components", {})
        parts.setdefault("securitySchemes", {"bearer": {"type": "http", "scheme": "bearer"}})
        parts.setdefault("schemas", {}).setdefault("Problem", Problem.model_json_schema())
        return schema


def create_service(settings: ServiceSettings) -> FastAPI:
    """An ASGI application; the store opens when it starts and closes when it has drained.

    `app.state.draining` is an `asyncio.Event`, set when the process was asked to end: streams end then.
    """
    # The schema is a route like any other (`api.health`); Swagger's page would load scripts from elsewhere.
    app = Service(
        title="Tracetune",
        version=version("tracetune"),
        lifespan=_lifespan,
        redirect_slashes=False,
        openapi_url=None,
    )
    app.state.settings = settings
    app.state.draining = asyncio.Event()
    app.state.metrics = Metrics()
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = app.state.settings
    held = running_service(settings.home, run_slots=settings.run_slots)
    await run_in_threadpool(held.__enter__)
    try:
        yield
    finally:
        app.state.draining.set()
        await run_in_threadpool(held.__exit__, None, None, None)
