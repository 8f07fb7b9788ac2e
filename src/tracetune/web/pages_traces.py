"""Traces: the browser with its words and facets, one trace as a conversation, two side by side, one added by hand."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.errors import ApiError
from tracetune.api.strict import Router
from tracetune.api.traces import META_PREFIX
from tracetune.app import traces
from tracetune.core.errors import InputError
from tracetune.core.strict_json import parse_json
from tracetune.core.trace import StoredTrace, parse_trace
from tracetune.web.facets import Browsing, facet_groups, label, leaves, telling_words
from tracetune.web.forms import Form
from tracetune.web.render import page_rule, render
from tracetune.web.wording import query

router = Router(tags=["pages"])

MAX_CHOSEN = 100
SHOWN_STEPS = 100
LINKED_CHARS = 200
EMPTY = {"prompt": "", "steps": "", "final_answer": "", "meta": ""}


@router.get("/traces", **page_rule("read", open_query=META_PREFIX))
def browser(
    request: Request,
    *,
    q: Annotated[str | None, Query(max_length=1000)] = None,
    source: str | None = None,
    game: str | None = None,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    key: Annotated[str, Query(max_length=200)] = "",
    value: str = "",
) -> Any:
    """Search by words and by fields of meta; `key` and `value` are the form's way to add one filter."""
    named = {"source": source, "game": game}
    filters = {name: text for name, text in named.items() if text}
    for name, text in request.query_params.items():
        if name.startswith(META_PREFIX) and name != META_PREFIX and text:
            filters[name.removeprefix(META_PREFIX)] = text
    if key.strip() and value.strip():
        return RedirectResponse(Browsing(q, {**filters, key.strip(): value.strip()}).url(), 303)
    browsing, home = Browsing(q, filters), request.app.state.settings.home
    found = traces.list_traces(cursor=cursor, q=q, filters=traces.typed_filters(filters), home=home)
    return render(
        request,
        "traces.html",
        twin=browsing.url("/api/traces", cursor=cursor),
        rows=_rows(found.items),
        q=q or "",
        filters=browsing.parameters(),
        chips=browsing.chips(),
        facets=facet_groups(browsing, [stored.trace for stored in found.items], home),
        build_url=browsing.build_url(),
        base_url=str(request.base_url),
        next=found.next_cursor and browsing.url(cursor=found.next_cursor),
        first=cursor and browsing.url(),
    )


def _rows(found: Sequence[StoredTrace]) -> list[dict[str, Any]]:
    words = telling_words([stored.trace for stored in found])
    return [
        {"id": stored.id, "trace": stored.trace, "created_at": stored.created_at, "words": told}
        for stored, told in zip(found, words, strict=True)
    ]


@router.post("/traces/chosen", **page_rule("read"))
def use_chosen(form: Form) -> RedirectResponse:
    """What to do with ticked traces: compare two, or add them to a dataset."""
    ids = form.all("trace_id")
    if not 1 <= len(ids) <= MAX_CHOSEN:
        raise ApiError(422, f"traces: tick 1 to {MAX_CHOSEN} of them, got {len(ids)}; go back and choose")
    if form.one("action") == "compare":
        if len(ids) != 2:
            raise ApiError(422, f"compare: needs two traces, got {len(ids)}; go back and tick two")
        return RedirectResponse("/traces/compare" + query({"base": ids[0], "other": ids[1]}), 303)
    return RedirectResponse("/datasets/add" + query({"trace_id": ids}), 303)


@router.get("/traces/new", **page_rule("read"))
def trace_form(request: Request) -> HTMLResponse:
    """One trace by hand."""
    return render(request, "trace_new.html", twin="/api/traces", form=EMPTY, problem="")


@router.post("/traces/new", **page_rule("write"))
def add_trace(request: Request, form: Form) -> Any:
    """Store it, and go to its page."""
    given = {name: form.one(name) for name in EMPTY}
    try:
        trace = parse_trace(
            {
                "trace_version": "1.0",
                "prompt": given["prompt"],
                "final_answer": given["final_answer"],
                "steps": _steps(given["steps"]),
                "meta": parse_json(given["meta"].encode()) if given["meta"] else None,
            }
        )
        added = traces.add_traces([trace], request.app.state.settings.home)
    except InputError as error:
        return render(request, "trace_new.html", twin="/api/traces", status=422, form=given, problem=str(error))
    return RedirectResponse(f"/traces/{added.heads[0].id}", 303)


def _steps(text: str) -> list[dict[str, Any]]:
    contents = [part.strip("\n") for part in text.split("\n\n") if part.strip()]
    return [{"i": index, "type": "reasoning", "content": content} for index, content in enumerate(contents)]


@router.get("/traces/compare", **page_rule("read", 404))
def compare_page(request: Request, base: UUID, other: UUID) -> HTMLResponse:
    """Two traces side by side with their baseline scores."""
    sides = traces.compare_traces(str(base), str(other), request.app.state.settings.home)
    return render(
        request,
        "trace_compare.html",
        twin="/api/traces/compare" + query({"base": base, "other": other}),
        sides=[
            {
                "id": side.stored.id,
                "created_at": side.stored.created_at,
                "trace": side.stored.trace,
                "score": side.score,
            }
            for side in sides
        ],
    )


@router.get("/traces/{trace_id}", **page_rule("read", 404))
def trace_page(request: Request, trace_id: UUID, steps: Literal["all"] | None = None) -> HTMLResponse:
    """One trace as a conversation, with its meta and scores."""
    home = request.app.state.settings.home
    stored = traces.get_trace(str(trace_id), home)
    return render(
        request,
        "trace.html",
        twin=f"/api/traces/{trace_id}",
        stored=stored,
        shown_steps=len(stored.trace.steps) if steps else SHOWN_STEPS,
        meta=_meta(stored.trace.meta or {}),
        scores=traces.trace_scores(str(trace_id), home),
        criteria=traces.CRITERIA,
    )


def _meta(meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every value with its path; one that a filter can ask for leads to the traces that have it."""
    found = []
    for path, value in leaves(meta):
        text = label(value)
        is_asked = 0 < len(text) <= LINKED_CHARS and not isinstance(value, list | dict)
        found.append({"key": path, "text": text, "url": Browsing(None, {path: text}).url() if is_asked else None})
    return found


@router.post("/traces/{trace_id}/score", **page_rule("write", 404))
def score_trace(request: Request, trace_id: UUID, form: Form) -> RedirectResponse:
    """Score it by the named criteria."""
    traces.score_trace(str(trace_id), form.one("criteria", "baseline"), request.app.state.settings.home)
    return RedirectResponse(f"/traces/{trace_id}", 303)


@router.post("/traces/{trace_id}/delete", **page_rule("write", 404))
def delete_trace(request: Request, trace_id: UUID) -> RedirectResponse:
    """Remove it; frozen datasets keep their copy."""
    traces.delete_trace(str(trace_id), request.app.state.settings.home)
    return RedirectResponse("/traces", 303)
