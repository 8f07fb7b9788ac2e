"""Evaluations over HTTP: launched as runs, listed, read row by row, compared in pairs."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, Field

from tracetune.api.policy import rule
from tracetune.api.strict import Body, Router
from tracetune.app import evaluations, jobs
from tracetune.app.evaluations import BY_NAME, EvaluationRow, MetricChange, StoredEvaluation
from tracetune.core.benchmark import Direction

router = Router(tags=["evaluations"])
Interval = tuple[float, float]
Cursor = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]


class EvaluationBody(Body):
    """What to measure. `model` is `tiny`, a known alias, `run:<run id>` or `model:<model id>`; `overrides` are the
    evaluation's dials, such as `max_tokens=256`."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    eval_set: Annotated[str, Field(min_length=1, max_length=128)]
    overrides: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(max_length=200, default_factory=list)]
    name: Annotated[str | None, Field(min_length=1, max_length=128)] = None


class LaunchedOut(BaseModel):
    """The run that will make the evaluation; `/api/runs/{run_id}` follows it."""

    run_id: UUID
    kind: str
    name: str
    state: str
    queue_position: int | None
    model: str | None
    eval_set: str | None
    created_at: str


class MeasuredOut(BaseModel):
    """A metric over `num_items` items; `direction` says which way is better."""

    label: str
    direction: Direction
    value: float
    num_items: int
    interval: Interval | None


class EvaluationOut(BaseModel):
    """One evaluation and its numbers."""

    evaluation_id: UUID
    run_id: UUID | None
    model: str
    eval_set: str
    eval_set_hash: str
    num_items: int
    num_problems: int
    metrics: dict[str, MeasuredOut]
    file_sha256: str
    created_at: str


class EvaluationList(BaseModel):
    """One page, newest first."""

    data: list[EvaluationOut]
    next_cursor: str | None


class RowOut(BaseModel):
    """One answer; `correct` is null when nothing could be judged, and `reason` says why."""

    eval_id: str
    prompt: str
    expected_answer: str
    response: str
    correct: bool | None
    reason: str
    parsed: str | None
    category: str | None
    difficulty: str | None
    stop_reason: str | None
    num_tokens: int | None


class RowList(BaseModel):
    """One page, in the eval set's order."""

    data: list[RowOut]
    next_cursor: str | None


class MetricChangeOut(BaseModel):
    """A metric on the items that both evaluations measured; `delta` is after − before."""

    metric: str
    label: str
    direction: Direction
    num_items: int
    before: float | None
    after: float | None
    delta: float | None
    delta_interval: Interval | None
    p_value: float | None
    p_adjusted: float | None
    verdict: Literal["better", "worse", "no significant change", "not measured"]


class SideOut(BaseModel):
    """Accuracy on the paired items."""

    model: str | None = None
    accuracy: float
    correct: int
    total: int
    interval: Interval


class SliceOut(BaseModel):
    """Both accuracies on one category or difficulty; `p_adjusted` allows for all slices of the kind."""

    kind: Literal["category", "difficulty"]
    name: str
    before: SideOut
    after: SideOut
    p_value: float
    p_adjusted: float


class ComparisonOut(BaseModel):
    """What changed, paired by eval_id; `fixed` and `broken` are the ids of flips."""

    before_id: UUID
    after_id: UUID
    verdict: Literal["improved", "regressed", "no significant change"]
    before: SideOut
    after: SideOut
    delta: float
    delta_interval: Interval
    p_value: float
    confidence: float
    minimum_detectable_effect: float | None
    fixed: list[str]
    broken: list[str]
    both_correct: int
    both_wrong: int
    slices: list[SliceOut]
    unpaired: list[str]
    unscored: list[str]
    metrics: list[MetricChangeOut]


@router.post("/api/evaluations", status_code=201, response_model=LaunchedOut, **rule("train", 404, 409))
def launch(body: EvaluationBody, request: Request) -> Any:
    """Queue a run that lets a model answer an eval set; its evaluation is listed when the run has finished."""
    key = request.scope.get("state", {}).get("request_key")
    view = jobs.launch(
        "evaluation",
        body.overrides,
        model=body.model,
        eval_set=body.eval_set,
        name=body.name,
        request_key=key,
        home=_home(request),
    )
    return jobs.to_json(view)


@router.get("/api/evaluations", response_model=EvaluationList, **rule("read"))
def list_all(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
    eval_set: Annotated[str | None, Query(max_length=128)] = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
    run_id: UUID | None = None,
) -> Any:
    """Newest first; filtered by eval set, model reference, or the run that made it."""
    made_by = None if run_id is None else str(run_id)
    page = evaluations.list_evaluations(
        limit=limit, cursor=cursor, eval_set=eval_set, model=model, run_id=made_by, home=_home(request)
    )
    return {"data": [shown(stored) for stored in page.items], "next_cursor": page.next_cursor}


@router.get("/api/evaluations/compare", response_model=ComparisonOut, **rule("read", 404))
def compare(before: UUID, after: UUID, request: Request) -> Any:
    """Is the second better than the first? Paired item by item, with intervals and the exact test."""
    home = _home(request)
    comparison = evaluations.compare_evaluations(str(before), str(after), home)
    changes = evaluations.changes_between(str(before), str(after), home)
    return {
        "before_id": before,
        "after_id": after,
        **evaluations.comparison_numbers(comparison),
        "metrics": [shown_change(change) for change in changes],
    }


@router.get("/api/evaluations/{evaluation_id}", response_model=EvaluationOut, **rule("read", 404))
def one(evaluation_id: UUID, request: Request) -> Any:
    """One evaluation and its numbers."""
    return shown(evaluations.get_evaluation(str(evaluation_id), _home(request)))


@router.get("/api/evaluations/{evaluation_id}/rows", response_model=RowList, **rule("read", 404))
def rows(
    evaluation_id: UUID,
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = None,
    verdict: Annotated[Literal["correct", "wrong", "unscored"] | None, Query()] = None,
) -> Any:
    """Its answers, all or those with one verdict."""
    page = evaluations.evaluation_rows(
        str(evaluation_id), limit=limit, cursor=cursor, verdict=verdict, home=_home(request)
    )
    return {"data": [_shown_row(row) for row in page.items], "next_cursor": page.next_cursor}


def shown(stored: StoredEvaluation) -> dict[str, Any]:
    """An evaluation as every route tells it."""
    summary = stored.summary
    return {
        "evaluation_id": stored.evaluation_id,
        "run_id": stored.run_id,
        "model": stored.model,
        "eval_set": stored.eval_set,
        "eval_set_hash": stored.eval_set_hash,
        "num_items": summary["num_items"],
        "num_problems": summary["num_problems"],
        "metrics": {name: shown_metric(name, found) for name, found in summary["metrics"].items()},
        "file_sha256": stored.file_sha256,
        "created_at": stored.created_at,
    }


def shown_change(change: MetricChange) -> dict[str, Any]:
    """A metric's change, with what the metric is called and which way is better."""
    metric = change.metric
    return {**change._asdict(), "metric": metric.name, "label": metric.label, "direction": metric.direction}


def shown_metric(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """A metric's value, with what it is called and which way is better."""
    return {**found, "label": BY_NAME[name].label, "direction": BY_NAME[name].direction}


def _shown_row(row: EvaluationRow) -> dict[str, Any]:
    item = row.item
    return {
        "eval_id": item.eval_id,
        "prompt": item.prompt,
        "expected_answer": item.expected_answer,
        "response": item.response,
        "correct": item.score.correct,
        "reason": item.score.reason,
        "parsed": item.score.parsed,
        "category": item.category,
        "difficulty": item.difficulty,
        "stop_reason": row.stop_reason,
        "num_tokens": row.num_tokens,
    }


def _home(request: Request) -> Any:
    return request.app.state.settings.home
