"""Lineage over HTTP: what a thing was made from, and what was made of it, as nodes and edges."""

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel

from tracetune.api.policy import rule
from tracetune.api.strict import Router
from tracetune.app.lineage import Kind, lineage

router = Router(tags=["lineage"])


class NodeOut(BaseModel):
    """One thing; `id` is what its own route takes, `hash` stands for its content."""

    kind: Kind
    id: str
    title: str
    hash: str | None
    created_at: str | None
    facts: dict[str, Any]


class EdgeOut(BaseModel):
    """`target` was made from `source`; both are places in `nodes`."""

    source: int
    target: int
    verb: str


class LineageOut(BaseModel):
    """The graph around the node at `start`; `truncated` when only the nearest are here."""

    nodes: list[NodeOut]
    edges: list[EdgeOut]
    start: int
    truncated: bool


@router.get("/api/lineage", response_model=LineageOut, **rule("read", 404))
def around(
    kind: Annotated[Kind, Query()],
    id: Annotated[str, Query(min_length=1, max_length=300, description="A key, an id or an eval set's name.")],
    request: Request,
) -> Any:
    """All it was made from, and all that was made of it."""
    found = lineage(kind, id, request.app.state.settings.home)
    nodes = [{**node._asdict(), "facts": dict(node.facts)} for node in found.nodes]
    return {**found._asdict(), "nodes": nodes, "edges": [edge._asdict() for edge in found.edges]}
