"""Is it alive, is it ready, what has it done; and the description of every route."""

from typing import Any

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from tracetune.api.errors import ApiError
from tracetune.api.policy import rule
from tracetune.api.strict import Router
from tracetune.app.service import readiness

router = Router(tags=["health"])


class Ready(BaseModel):
    """What was looked at."""

    status: str
    database: bool
    disk: bool


@router.get("/api/health", **rule("open"))
def health() -> dict[str, str]:
    """The contract's health check."""
    return {"status": "healthy"}


@router.get("/livez", **rule("open"))
def livez() -> dict[str, str]:
    """The process answers; restart it when this fails."""
    return {"status": "alive"}


@router.get("/readyz", **rule("open"))
def readyz(request: Request) -> Ready:
    """Send it work: the database answers in this code's schema, the disk has room, and no drain has begun."""
    found = readiness(request.app.state.settings.home)
    draining = request.app.state.draining.is_set()
    if draining or not found.ready:
        reason = "draining" if draining else "not ready"
        raise ApiError(503, reason, headers={"Retry-After": "2"}, database=found.database, disk=found.disk)
    return Ready(status="ready", database=True, disk=True)


@router.get("/metrics", **rule("read"), response_class=Response)
def metrics(request: Request) -> Response:
    """Counters and histograms for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", **rule("open"), include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """Every route, what it takes and how it refuses."""
    return request.app.openapi()
