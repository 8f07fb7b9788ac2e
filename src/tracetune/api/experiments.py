"""Experiments over HTTP: the tree of numbered runs and baselines, read from the files that each run left."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import Path as InPath
from fastapi import Query, Request
from pydantic import BaseModel

from tracetune.api.evaluations import EvaluationOut, Interval, shown
from tracetune.api.policy import rule
from tracetune.api.strict import Router
from tracetune.app import experiment_views
from tracetune.app.experiment_facts import RateVerdict, Verdict
from tracetune.app.experiment_views import ExperimentKind, Listed, standing_of
from tracetune.app.names import PATTERN
from tracetune.config.check import leaves

router = Router(tags=["experiments"])
Name = Annotated[str, InPath(pattern=PATTERN)]


class CurveOut(BaseModel):
    """A logged number: where it began and where it ended."""

    name: str
    first: float
    last: float


class RunOut(BaseModel):
    """What the run's manifest and metrics tell; null where they do not."""

    status: str
    reason: str | None
    model: str | None
    data: str | None
    data_hash: str | None
    seed: int | None
    steps: int | None
    num_steps: int | None
    tokens: int | None
    seconds: float | None
    device: str | None
    ended_at: str | None
    curves: list[CurveOut]


class RateOut(BaseModel):
    """A metric of a benchmark; `total` and `interval` are null where the file has no counts."""

    section: str
    name: str
    value: float
    total: int | None
    interval: Interval | None


class BenchmarkOut(BaseModel):
    """What a finished benchmark measured."""

    model: str | None
    suite: str | None
    measured_at: str | None
    answered: int | None
    failed: int | None
    rates: list[RateOut]


class RateChangeOut(BaseModel):
    """A metric against the benchmark compared with; `verdict` knows the metric's direction."""

    name: str
    before: float
    after: float
    delta: float
    interval: Interval | None
    p_adjusted: float | None
    verdict: RateVerdict


class ComparedOut(BaseModel):
    """What changed against `baseline`; `mixed` when one metric became better and another worse."""

    baseline: str | None
    verdict: Verdict
    changes: list[RateChangeOut]


class ExperimentOut(BaseModel):
    """One experiment. `run`, `benchmark` and `comparison` are null until they are there; `problem` says why its record
    cannot be read."""

    kind: ExperimentKind
    name: str
    description: str
    created_at: str | None
    problem: str | None
    run: RunOut | None
    benchmark: BenchmarkOut | None
    comparison: ComparedOut | None


class ExperimentList(BaseModel):
    """One page, kind by kind, each in the order of its numbers."""

    data: list[ExperimentOut]
    next_cursor: str | None


class FindingOut(BaseModel):
    """One row of the table of findings."""

    name: str
    value: str


class ExperimentDetail(ExperimentOut):
    """One experiment with its table of findings, every setting of its run, the notes of its README, and what stands
    of it on leaderboards."""

    findings: list[FindingOut]
    config: dict[str, Any]
    notes: str
    evaluations: list[EvaluationOut]


@router.get("/api/experiments", response_model=ExperimentList, **rule("read"))
def list_all(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
    kind: ExperimentKind | None = None,
) -> Any:
    """Every experiment of the tree, or those of one kind."""
    page = experiment_views.page_experiments(tree_of(request), kind=kind, limit=limit, cursor=cursor)
    return {"data": [_shown(row) for row in page.items], "next_cursor": page.next_cursor}


@router.get("/api/experiments/{kind}/{name}", response_model=ExperimentDetail, **rule("read", 404))
def one(kind: ExperimentKind, name: Name, request: Request) -> Any:
    """One experiment: what was asked, what was found, and a person's notes. 422 when its record cannot be read."""
    detail, home = experiment_views.experiment_detail(tree_of(request), kind, name), request.app.state.settings.home
    run = detail.experiment.run
    return {
        **_shown(Listed(detail.experiment.place, detail.experiment)),
        "findings": [found._asdict() for found in detail.findings],
        "config": {} if run is None else dict(leaves(run.config)),
        "notes": detail.notes,
        "evaluations": [shown(stored) for stored in standing_of(detail.experiment.place, home)],
    }


def tree_of(request: Request) -> Path | None:
    """Where this service's experiments are."""
    return request.app.state.settings.experiments


def _shown(row: Listed) -> dict[str, Any]:
    known = row.experiment
    return {
        "kind": row.place.kind,
        "name": row.place.name,
        "description": known.description if known else "",
        "created_at": known and known.created_at,
        "problem": row.problem,
        **dict.fromkeys(("run", "benchmark", "comparison")),
        **({} if known is None else experiment_views.told(known)),
    }
