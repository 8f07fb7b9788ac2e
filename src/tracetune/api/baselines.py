"""Baselines over HTTP: a name for the evaluation to keep up with, and the check that a pipeline asks."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, Field

from tracetune.api.evaluations import MetricChangeOut, shown_change
from tracetune.api.policy import rule
from tracetune.api.strict import Body, Router
from tracetune.app import baselines
from tracetune.app.names import PATTERN

router = Router(tags=["baselines"])
Name = Annotated[str, Path(pattern=PATTERN)]
Id = Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{36}$")]


class BaselineBody(Body):
    """The evaluation that the name stands for from now on."""

    evaluation_id: Id


class CheckBody(Body):
    """The evaluation to hold against the baseline. `metrics` chooses which decide; by default every one is told and
    those of quality decide."""

    evaluation_id: Id
    metrics: Annotated[
        list[Literal["accuracy", "error_rate", "unanswered_rate", "truncated_rate", "mean_completion_tokens"]] | None,
        Field(min_length=1, max_length=5),
    ] = None


class BaselineOut(BaseModel):
    """A name, the evaluation it stands for, and since when."""

    name: str
    evaluation_id: UUID
    created_at: str


class BaselineList(BaseModel):
    """One page, the newest name first."""

    data: list[BaselineOut]
    next_cursor: str | None


class CheckOut(BaseModel):
    """`regressed`: a metric that decides became significantly worse. `unpaired` names items of only one side."""

    baseline: BaselineOut
    evaluation_id: UUID
    regressed: bool
    changes: list[MetricChangeOut]
    unpaired: list[str]


@router.get("/api/baselines", response_model=BaselineList, **rule("read"))
def list_all(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
) -> Any:
    """Every baseline."""
    page = baselines.list_baselines(limit=limit, cursor=cursor, home=_home(request))
    return {"data": [_shown(stored) for stored in page.items], "next_cursor": page.next_cursor}


@router.get("/api/baselines/{name}", response_model=BaselineOut, **rule("read", 404))
def one(name: Name, request: Request) -> Any:
    """One baseline."""
    return _shown(baselines.get_baseline(name, _home(request)))


@router.put("/api/baselines/{name}", response_model=BaselineOut, **rule("write", 404))
def put(name: Name, body: BaselineBody, request: Request) -> Any:
    """Let a name stand for an evaluation, whatever it stood for before."""
    return _shown(baselines.set_baseline(name, body.evaluation_id.lower(), _home(request)))


@router.delete("/api/baselines/{name}", status_code=204, **rule("write", 404))
def delete(name: Name, request: Request) -> Response:
    """Forget a name; the evaluation stays."""
    baselines.delete_baseline(name, _home(request))
    return Response(status_code=204)


@router.post("/api/baselines/{name}/check", response_model=CheckOut, **rule("read", 404))
def check(name: Name, body: CheckBody, request: Request) -> Any:
    """Has a model fallen behind? Metric by metric, in the metric's own direction, paired item by item."""
    found = baselines.check_baseline(name, body.evaluation_id.lower(), metrics=body.metrics, home=_home(request))
    return {
        "baseline": _shown(found.baseline),
        "evaluation_id": found.after.evaluation_id,
        "regressed": found.regressed,
        "changes": [shown_change(change) for change in found.changes],
        "unpaired": list(found.unpaired),
    }


def _shown(stored: baselines.StoredBaseline) -> dict[str, Any]:
    return {"name": stored.name, "evaluation_id": stored.evaluation_id, "created_at": stored.created_at}


def _home(request: Request) -> Any:
    return request.app.state.settings.home
