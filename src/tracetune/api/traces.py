"""Traces over HTTP, as the contract's table has them: field names, statuses and messages are what clients read."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BaseModel

from tracetune.api.errors import ApiError
from tracetune.api.policy import rule
from tracetune.api.strict import Body, Router
from tracetune.api.trace_body import TraceBody, TracePayload
from tracetune.app import traces
from tracetune.core.trace import StoredTrace

router = Router(tags=["traces"])
META_PREFIX = "meta."
MAX_PAGE = 100
MAX_OFFSET = 10_000_000


class Head(BaseModel):
    """A trace that was taken."""

    id: UUID
    created_at: str
    trace_version: str


class TraceView(Head):
    """A stored trace with its content."""

    payload: TracePayload


class ScoredView(Head):
    """A stored trace with its baseline score."""

    score: float
    payload: TracePayload


class Pagination(BaseModel):
    """Where this page stands; `next_offset` is null on the last one, and when a cursor was used."""

    limit: int
    offset: int
    next_offset: int | None


class TraceList(BaseModel):
    """One page, newest first; `next_cursor` is null on the last one."""

    data: list[TraceView]
    pagination: Pagination
    next_cursor: str | None


class Comparison(BaseModel):
    """Two traces side by side."""

    base: ScoredView
    other: ScoredView


class ScoreBody(Body):
    """By what a trace is scored; `answer_correctness` needs meta.expected_answer."""

    criteria: Literal["baseline", "answer_correctness"] = "baseline"


class ScoreView(BaseModel):
    """A verdict on one trace."""

    trace_id: UUID
    score: float
    details: dict[str, Any]


class FacetView(BaseModel):
    """A value of meta and how many traces have it; counts stop at 10,000."""

    value: str | int | float | bool | None
    num_traces: int


class FacetList(BaseModel):
    """The most frequent values of one key."""

    key: str
    data: list[FacetView]


@router.post("/api/traces", status_code=201, response_model=Head, **rule("write", max_bytes="trace"))
def create(body: TraceBody, request: Request) -> Any:
    """Store one trace. The same content again answers with the trace that is there."""
    return traces.add_traces([body.trace()], _home(request)).heads[0]._asdict()


@router.get("/api/traces", response_model=TraceList, **rule("read", open_query=META_PREFIX))
def list_all(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
    q: Annotated[str | None, Query(max_length=1000, description="Words that a trace must all have.")] = None,
    source: Annotated[str | None, Query(description="meta.source")] = None,
    game: Annotated[str | None, Query(description="meta.game")] = None,
) -> Any:
    """Newest first. `meta.KEY=VALUE` filters by any field of meta, `meta.a.b` by one inside; a list matches when it
    contains the value."""
    named = {key: value for key, value in (("source", source), ("game", game)) if value is not None}
    filters = traces.typed_filters(_meta_filters(request, named))
    page = traces.list_traces(limit=limit, cursor=cursor, offset=offset, q=q, filters=filters, home=_home(request))
    more = page.next_cursor is not None and cursor is None
    return {
        "data": [view(stored) for stored in page.items],
        "pagination": {"limit": limit, "offset": offset, "next_offset": offset + limit if more else None},
        "next_cursor": page.next_cursor,
    }


@router.get("/api/traces/compare", response_model=Comparison, **rule("read", 404))
def compare(base: UUID, other: UUID, request: Request) -> Any:
    """Two traces side by side with their baseline scores."""
    first, second = traces.compare_traces(str(base), str(other), _home(request))
    return {"base": _scored(first), "other": _scored(second)}


@router.get("/api/traces/facets", response_model=FacetList, **rule("read"))
def facets(
    request: Request,
    key: Annotated[str, Query(max_length=200, pattern=r"^[^\x00]+$", description="A key of meta, `a.b` goes inside.")],
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
) -> Any:
    """The most frequent values of a key: what to filter by."""
    found = traces.trace_facets(key, limit=limit, home=_home(request))
    return {"key": key, "data": [item._asdict() for item in found]}


@router.get("/api/traces/{trace_id}", response_model=TraceView, **rule("read", 404))
def show(trace_id: UUID, request: Request) -> Any:
    """One trace."""
    return view(traces.get_trace(str(trace_id), _home(request)))


@router.delete("/api/traces/{trace_id}", status_code=204, response_class=Response, **rule("write", 404))
def delete(trace_id: UUID, request: Request) -> Response:
    """Remove one trace; frozen datasets keep their rows."""
    traces.delete_trace(str(trace_id), _home(request))
    return Response(status_code=204)


@router.post("/api/traces/{trace_id}/score", status_code=201, response_model=ScoreView, **rule("write", 404))
def score(trace_id: UUID, body: ScoreBody, request: Request) -> Any:
    """Score a trace and remember the verdict. `baseline` counts what is written; `answer_correctness` grades it."""
    verdict = traces.score_trace(str(trace_id), body.criteria, _home(request))
    return {"trace_id": verdict.trace_id, "score": verdict.score, "details": dict(verdict.details)}


def view(stored: StoredTrace) -> dict[str, Any]:
    """A stored trace as the contract writes it."""
    trace = stored.trace
    head = {"id": stored.id, "created_at": stored.created_at, "trace_version": trace.trace_version}
    return {**head, "payload": trace.to_json()}


def _scored(item: traces.ScoredTrace) -> dict[str, Any]:
    return {**view(item.stored), "score": item.score}


def _meta_filters(request: Request, named: Mapping[str, str]) -> dict[str, str]:
    filters = dict(named)
    for name, value in request.query_params.multi_items():
        if not name.startswith(META_PREFIX):
            continue
        key = name.removeprefix(META_PREFIX)
        if not key or key in filters:
            problem = "names no key" if not key else "is asked for twice; give one value a key"
            raise ApiError(422, f"{name[:80]}: {problem}", errors=[{"pointer": f"/{name[:80]}", "detail": problem}])
        filters[key] = value
    return filters


def _home(request: Request) -> Any:
    return request.app.state.settings.home
