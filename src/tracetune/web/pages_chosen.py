"""Adding traces to a dataset by hand: the form, and the new version it freezes."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.strict import Router
from tracetune.app.chosen_traces import build_from_traces
from tracetune.app.dataset_views import page_datasets
from tracetune.app.datasets import open_dataset
from tracetune.app.traces import get_trace
from tracetune.core.errors import Conflict, InputError
from tracetune.web.choices import MAX_CHOICES
from tracetune.web.forms import Form
from tracetune.web.render import page_rule, render
from tracetune.web.wording import segment

router = Router(tags=["pages"])

SHOWN = 10


@router.get("/datasets/add", **page_rule("read", 404))
def add_form(
    request: Request, trace_id: Annotated[list[str], Query(min_length=1, max_length=100)], parent: str = ""
) -> HTMLResponse:
    """To which dataset, as which version."""
    return _form(request, {"trace_id": trace_id, "parent": parent, "dataset_name": "", "dataset_version": ""})


@router.post("/datasets/add", **page_rule("write", 404, 409))
def add(request: Request, form: Form) -> Any:
    """Freeze the new version, and go to its page."""
    home, parent = request.app.state.settings.home, form.one("parent")
    given = {"trace_id": form.all("trace_id"), "parent": parent}
    given |= {name: form.one(name) for name in ("dataset_name", "dataset_version")}
    try:
        name = given["dataset_name"] or _name_of(parent, home)
        manifest = build_from_traces(
            name, given["dataset_version"], given["trace_id"], parent=parent or None, home=home
        )
    except (InputError, Conflict) as error:
        return _form(request, given, problem=str(error), status=409 if isinstance(error, Conflict) else 422)
    return RedirectResponse(f"/datasets/{segment(manifest.dataset_key)}", 303)


def _name_of(parent: str, home: Path) -> str:
    """A new version has its parent's name unless another is given."""
    if not parent:
        raise InputError("name: a new dataset needs one")
    return open_dataset(parent, home).manifest.dataset_name


def _form(request: Request, form: dict[str, Any], *, problem: str = "", status: int = 200) -> HTMLResponse:
    home = request.app.state.settings.home
    known = page_datasets(limit=MAX_CHOICES, home=home).items
    return render(
        request,
        "dataset_add.html",
        twin="/api/datasets",
        status=status,
        form=form,
        traces=[get_trace(trace_id, home) for trace_id in form["trace_id"][:SHOWN]],
        datasets=[(item.dataset_key, f"{item.dataset_name}, version {item.dataset_version}") for item in known],
        problem=problem,
    )
