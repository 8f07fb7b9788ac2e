"""Runs over HTTP: launched with the words of the command line, followed, cancelled, fetched by ids, compared."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from tracetune.api.errors import ApiError
from tracetune.api.policy import rule
from tracetune.api.run_streams import HEADERS, MEDIA_TYPE, follow_log
from tracetune.api.strict import Body, Router
from tracetune.app import jobs

router = Router(tags=["runs"])
MAX_PAGE = 100
MAX_OFFSET = 2**53 - 1

Kind = Literal["sft", "grpo", "evaluation"]
State = Literal["queued", "running", "finished", "failed", "cancelled"]


class LaunchBody(Body):
    """A run to begin. `overrides` are the words of `tracetune sft`, of `run_training.py`, or an evaluation's dials;
    `model` is `tiny`, an alias, `run:ID` or `model:ID`."""

    kind: Kind
    overrides: list[Annotated[str, Field(max_length=4_000)]] = Field(default=[], max_length=200)
    dataset: str | None = Field(default=None, min_length=1, max_length=256)
    model: str | None = Field(default=None, min_length=1, max_length=200)
    eval_set: str | None = Field(default=None, min_length=1, max_length=128)
    name: str | None = Field(default=None, min_length=1, max_length=128)


class RunView(BaseModel):
    """A run in a list. `queue_position` is 1 for the next to begin; `metrics` is the newest logged line."""

    run_id: UUID
    kind: str
    name: str
    state: State
    queue_position: int | None
    model: str | None
    dataset: str | None
    eval_set: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    attempts: int
    cancel_requested: bool
    exit_code: int | None
    exit_reason: str | None
    step: int | None
    num_steps: int | None
    metrics: dict[str, Any]


class AlarmView(BaseModel):
    """Something that looked wrong, where it became true, and what to do about it."""

    step: int
    text: str


class RunDetailView(RunView):
    """Everything about a run: the words it was launched with, every dial, what it ran on, what it does now."""

    overrides: list[str]
    config: dict[str, Any]
    manifest: dict[str, Any]
    phase: str
    peak_rss_bytes: int | None
    alarms: list[AlarmView]


class RunList(BaseModel):
    """One page, newest first; `next_cursor` is null on the last one."""

    data: list[RunView]
    next_cursor: str | None


class MetricsList(BaseModel):
    """Logged steps in order; `next_after_step` continues where this page was cut, null where it was not."""

    data: list[dict[str, Any]]
    next_after_step: int | None


class ArtifactView(BaseModel):
    """A file that can be fetched at `/api/runs/{run_id}/artifacts/{artifact_id}`."""

    artifact_id: str
    name: str
    bytes: int


class ArtifactList(BaseModel):
    """Every file of a run."""

    data: list[ArtifactView]
    next_cursor: None = None


class RolloutsView(BaseModel):
    """One step's completions by problem, each with its rewards by part; `steps` are those that are kept."""

    steps: list[int]
    step: int
    groups: dict[str, list[dict[str, Any]]]


class DifferenceView(BaseModel):
    """A dial that the runs do not share, by run id."""

    key: str
    values: dict[UUID, Any]


class ComparisonView(BaseModel):
    """What was asked differently, and a curve per metric and run: pairs of step and value."""

    names: dict[UUID, str]
    config_diff: list[DifferenceView]
    series: dict[str, dict[UUID, list[tuple[int, float]]]]


@router.post("/api/runs", status_code=201, response_model=RunView, **rule("train", 404, 409))
def launch(body: LaunchBody, request: Request) -> Any:
    """Queue a run. Words that name files, folders or code of the server are refused: only ids come in here."""
    key = request.scope.get("state", {}).get("request_key")
    return jobs.to_json(
        jobs.launch(
            body.kind,
            body.overrides,
            dataset=body.dataset,
            model=body.model,
            eval_set=body.eval_set,
            name=body.name,
            request_key=key,
            home=_home(request),
        )
    )


@router.get("/api/runs", response_model=RunList, **rule("read"))
def list_all(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
    state: Annotated[State | None, Query()] = None,
    kind: Annotated[Kind | None, Query()] = None,
    dataset: Annotated[str | None, Query(max_length=256, description="A dataset's key.")] = None,
    q: Annotated[str | None, Query(max_length=128, description="Part of the name, or the beginning of the id.")] = None,
) -> Any:
    """Newest first."""
    page = jobs.list_runs(limit=limit, cursor=cursor, state=state, kind=kind, dataset=dataset, q=q, home=_home(request))
    return {"data": [jobs.to_json(run) for run in page.items], "next_cursor": page.next_cursor}


@router.get("/api/runs/compare", response_model=ComparisonView, **rule("read", 404))
def compare(
    request: Request,
    ids: Annotated[str, Query(max_length=400, description="2 to 8 run ids, joined by commas.")],
) -> Any:
    """What was asked differently first, then the curves."""
    found = jobs.compare_runs(_ids(ids), _home(request))
    diff = [item._asdict() for item in found.config_diff]
    return {"names": found.names, "config_diff": diff, "series": found.series}


@router.get("/api/runs/{run_id}", response_model=RunDetailView, **rule("read", 404))
def show(run_id: UUID, request: Request) -> Any:
    """One run."""
    return jobs.to_json(jobs.run_detail(str(run_id), _home(request)))


@router.get("/api/runs/{run_id}/metrics", response_model=MetricsList, **rule("read", 404))
def metrics(
    run_id: UUID,
    request: Request,
    *,
    after_step: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
) -> Any:
    """The logged steps after `after_step`."""
    rows = jobs.run_metrics(str(run_id), after_step=after_step, limit=limit, home=_home(request))
    return {"data": rows, "next_after_step": rows[-1]["step"] if len(rows) == limit else None}


@router.post("/api/runs/{run_id}/cancel", response_model=RunView, **rule("train", 404, 409))
def cancel(run_id: UUID, request: Request) -> Any:
    """Ask a run to stop: at once while it waits, within seconds while it works. What it has saved stays."""
    return jobs.to_json(jobs.cancel(str(run_id), _home(request)))


@router.post("/api/runs/{run_id}/resume", response_model=RunView, **rule("train", 404, 409))
def resume(run_id: UUID, request: Request) -> Any:
    """Queue a failed or cancelled run again; it goes on from its last checkpoint."""
    return jobs.to_json(jobs.resume(str(run_id), _home(request)))


@router.get("/api/runs/{run_id}/artifacts", response_model=ArtifactList, **rule("read", 404))
def artifacts(run_id: UUID, request: Request) -> Any:
    """The files a run has written so far."""
    return {"data": [item._asdict() for item in jobs.artifacts(str(run_id), _home(request))]}


@router.get("/api/runs/{run_id}/rollouts", response_model=RolloutsView, **rule("read", 404))
def rollouts(
    run_id: UUID,
    request: Request,
    step: Annotated[int | None, Query(ge=0, le=MAX_OFFSET, description="The last one by default.")] = None,
) -> Any:
    """What a GRPO run's model said at one step, and what each reward made of it."""
    return jobs.run_rollouts(str(run_id), step, _home(request))._asdict()


# Of a stream of events the schema describes each one.
EVENT = {"type": "object", "properties": {name: {"type": "string"} for name in ("data", "event", "id")}}


def _answers(media_types: Sequence[str], *problems: int) -> dict[str, Any]:
    """A rule for a route whose answer is not JSON."""
    options = rule("read", *problems)
    content = {kind: {"schema": EVENT if kind == MEDIA_TYPE else {"type": "string"}} for kind in media_types}
    options["responses"][200] = {"description": "OK", "content": content}
    return options


@router.get(
    "/api/runs/{run_id}/artifacts/{artifact_id}",
    response_class=FileResponse,
    **_answers(["application/octet-stream"], 404),
)
def artifact(run_id: UUID, artifact_id: str, request: Request) -> FileResponse:
    """One file, to be saved and never shown."""
    path = jobs.open_artifact(str(run_id), artifact_id, _home(request))
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.get("/api/runs/{run_id}/logs", response_class=StreamingResponse, **_answers([MEDIA_TYPE, "text/plain"], 404))
def logs(
    run_id: UUID,
    request: Request,
    *,
    follow: Annotated[bool, Query(description="false: the log as it stands now, as plain text.")] = True,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="The first byte, when following.")] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_OFFSET)] = None,
) -> Response:
    """The log as server-sent events while it is written; `id` is a byte offset, which `Last-Event-ID` continues from.

    The last event is `end`, with the run's state: an end of the run, or of this service.
    """
    home, name = _home(request), str(run_id)
    jobs.get_run(name, home)
    if not follow:
        return StreamingResponse(jobs.log_chunks(name, home), media_type="text/plain; charset=utf-8")
    events = follow_log(name, offset=last_event_id or offset, home=home, draining=request.app.state.draining)
    return StreamingResponse(events, media_type=MEDIA_TYPE, headers=HEADERS)


def _ids(text: str) -> list[str]:
    try:
        return [str(UUID(part.strip())) for part in text.split(",")]
    except ValueError as error:
        told = "must be run ids joined by commas"
        raise ApiError(422, f"ids: {told}, got {text[:80]!r}", errors=[{"pointer": "/ids", "detail": told}]) from error


def _home(request: Request) -> Any:
    return request.app.state.settings.home
