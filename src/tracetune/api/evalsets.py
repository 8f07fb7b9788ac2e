"""Eval sets over HTTP: a name stands for one set of problems for ever, and every build is checked against it."""

from typing import Annotated, Any, Literal

from fastapi import Query, Request
from pydantic import BaseModel, Field

from tracetune.api.errors import ApiError
from tracetune.api.policy import rule
from tracetune.api.strict import Body, Router
from tracetune.api.traces import MAX_PAGE
from tracetune.app import evalsets
from tracetune.app.task_evalsets import TASKS, register_task
from tracetune.core.strict_json import MAX_INTEGER
from tracetune.core.values import Problem

router = Router(tags=["evalsets"])
MAX_PROBLEMS = 100_000
MAX_TEXT_CHARS = 50_000
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"\S")]
Label = Annotated[str | None, Field(min_length=1, max_length=128, pattern=r"\S")]


class ProblemBody(Body):
    """A line of an eval-set file."""

    id: Annotated[str, Field(min_length=1, max_length=256, pattern=r"\S")]
    prompt: Text
    expected_answer: Text
    category: Label = None
    difficulty: Label = None
    meta: dict[str, Any] | None = None


class TaskBody(Body):
    """Problems that a native task makes: the first `count` of `seed`."""

    name: Literal[TASKS]  # pyright: ignore[reportInvalidTypeForm]
    count: Annotated[int, Field(ge=1, le=10_000)] = 100
    seed: Annotated[int, Field(ge=0, le=MAX_INTEGER)] = 0


class EvalSetBody(Body):
    """Problems under a name, given one by one with unique ids, or made by a task."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"\S")]
    problems: Annotated[list[ProblemBody], Field(min_length=1, max_length=MAX_PROBLEMS)] | None = None
    task: TaskBody | None = None


class Registered(BaseModel):
    """`content_hash` stands for the problems, whatever the set is called."""

    name: str
    content_hash: str
    num_problems: int


class Listed(Registered):
    """One line of the list."""

    created_at: str


class EvalSetList(BaseModel):
    """One page, newest first."""

    data: list[Listed]
    next_cursor: str | None


class ProblemView(BaseModel):
    """A problem as it was registered."""

    id: str
    prompt: str
    expected_answer: str
    category: str | None
    difficulty: str | None
    meta: dict[str, Any]


class EvalSetView(Registered):
    """An eval set with a page of its problems, in its own order."""

    data: list[ProblemView]
    next_cursor: str | None


@router.post("/api/evalsets", status_code=201, response_model=Registered, **rule("write", 409))
def register(body: EvalSetBody, request: Request) -> Any:
    """Remember an eval set. The same problems again change nothing; others under the same name are refused."""
    home = request.app.state.settings.home
    if (body.problems is None) == (body.task is None):
        raise ApiError(422, "evalset: give either problems or a task")
    if body.task is not None:
        found = register_task(body.name, body.task.name, count=body.task.count, seed=body.task.seed, home=home)
    else:
        rows = [problem.model_dump(exclude_none=True) for problem in body.problems or ()]
        found = evalsets.register_rows(body.name, rows, home)
    return {"name": found.name, "content_hash": found.content_hash, "num_problems": len(found.problems)}


@router.get("/api/evalsets", response_model=EvalSetList, **rule("read"))
def list_all(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Any:
    """Every registered eval set, newest first."""
    page = evalsets.list_evalsets(limit=limit, cursor=cursor, home=request.app.state.settings.home)
    return {"data": [record._asdict() for record in page.items], "next_cursor": page.next_cursor}


@router.get("/api/evalsets/{name:path}", response_model=EvalSetView, **rule("read", 404))
def show(
    name: str,
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Any:
    """One eval set and a page of its problems."""
    found = evalsets.get_evalset(name, request.app.state.settings.home)
    page = evalsets.page_problems(found, limit=limit, cursor=cursor)
    head = {"name": found.name, "content_hash": found.content_hash, "num_problems": len(found.problems)}
    return {**head, "data": [_view(problem) for problem in page.items], "next_cursor": page.next_cursor}


def _view(problem: Problem) -> dict[str, Any]:
    return {
        "id": problem.id,
        "prompt": problem.prompt,
        "expected_answer": problem.answer,
        "category": problem.category,
        "difficulty": problem.difficulty,
        "meta": dict(problem.meta),
    }
