"""Eval sets: the list, one with its problems, and the form that registers one."""

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.strict import Router
from tracetune.app import evalsets
from tracetune.app.task_evalsets import TASKS, register_task
from tracetune.core.errors import Conflict, InputError
from tracetune.core.page import decode_cursor
from tracetune.core.strict_json import parse_json
from tracetune.web.forms import Fields, Form
from tracetune.web.render import page_rule, render
from tracetune.web.wording import query, segment

router = Router(tags=["pages"])

DEFAULTS = {"name": "", "task": "", "count": "100", "seed": "1000000", "lines": ""}
MAX_COUNT = 10_000


@router.get("/evalsets", **page_rule("read"))
def evalset_list(request: Request, cursor: str | None = None) -> HTMLResponse:
    """Every eval set, the newest first."""
    found = evalsets.list_evalsets(cursor=cursor, home=request.app.state.settings.home)
    return render(
        request,
        "evalsets.html",
        twin="/api/evalsets" + query({"cursor": cursor}),
        evalsets=found.items,
        next=found.next_cursor and "/evalsets" + query({"cursor": found.next_cursor}),
        first=cursor and "/evalsets",
    )


@router.get("/evalsets/new", **page_rule("read"))
def evalset_form(request: Request, task: str = "high_card_duel:reasoned") -> HTMLResponse:
    """Problems of a task, or lines of JSON."""
    return _form(request, {**DEFAULTS, "task": task})


@router.post("/evalsets/new", **page_rule("write", 409))
def register(request: Request, form: Form) -> Any:
    """Register it, and go to its page."""
    given = {name: form.one(name, value) for name, value in DEFAULTS.items()}
    try:
        found = _register(form, given, request.app.state.settings.home)
    except (InputError, Conflict) as error:
        return _form(request, given, problem=str(error), status=409 if isinstance(error, Conflict) else 422)
    return RedirectResponse(f"/evalsets/{segment(found.name)}", 303)


def _register(form: Fields, given: dict[str, str], home: Any) -> evalsets.EvalSet:
    if given["lines"]:
        return evalsets.register_rows(given["name"], _rows(given["lines"]), home)
    count = form.number("count") or 100
    if not given["task"] or not 1 <= count <= MAX_COUNT:
        raise InputError(f"problems: choose a task and 1 to {MAX_COUNT} of its problems, or give lines of JSON")
    return register_task(given["name"], given["task"], count=count, seed=form.number("seed") or 0, home=home)


def _rows(text: str) -> list[Any]:
    rows = []
    for place, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(parse_json(line.encode()))
        except InputError as error:
            raise InputError(f"line {place}: {error}") from error
    return rows


def _form(request: Request, form: dict[str, str], *, problem: str = "", status: int = 200) -> HTMLResponse:
    values = {"form": form, "tasks": TASKS, "problem": problem}
    return render(request, "evalset_new.html", twin="/api/evalsets", status=status, **values)


@router.get("/evalsets/{name}", **page_rule("read", 404))
def evalset_page(request: Request, name: str, cursor: str | None = None) -> HTMLResponse:
    """One eval set with its problems."""
    found = evalsets.get_evalset(name, request.app.state.settings.home)
    page, address = evalsets.page_problems(found, cursor=cursor), f"/evalsets/{segment(name)}"
    return render(
        request,
        "evalset.html",
        twin=f"/api{address}" + query({"cursor": cursor}),
        evalset=found,
        total=len(found.problems),
        problems=page.items,
        next=page.next_cursor and address + query({"cursor": page.next_cursor}),
        first=cursor and decode_cursor(cursor) and address,
    )
