"""Runs: the list with its live rows, one run's page, what it is told to do, and several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.strict import Router
from tracetune.app import jobs
from tracetune.app.evaluations import StoredEvaluation, list_evaluations
from tracetune.app.glimpse import glimpse, log_tail, newest_rows
from tracetune.config.check import leaves
from tracetune.web import curves
from tracetune.web.render import page_rule, render
from tracetune.web.wording import DASH, query

router = Router(tags=["pages"])
PAGE_ROWS = 20
MAX_TABLE_ROWS = 50
MAX_RESULTS = 10


@router.get("/", **page_rule("read"))
def home(
    request: Request,
    *,
    q: str = "",
    state: str = "",
    kind: str = "",
    dataset: str = "",
    cursor: str = "",
) -> HTMLResponse:
    """Every run, newest first, with how its main number goes."""
    folder = request.app.state.settings.home
    chosen = {"q": q or None, "state": state or None, "kind": kind or None, "dataset": dataset or None}
    page = jobs.list_runs(limit=PAGE_ROWS, cursor=cursor or None, home=folder, **chosen)
    return render(
        request,
        "runs.html",
        twin="/api/runs" + query({**chosen, "cursor": cursor}),
        runs=[(view, glimpse(view, folder)) for view in page.items],
        chosen={name: value or "" for name, value in chosen.items()},
        states=jobs.STATES,
        kinds=jobs.RUN_KINDS,
        next="/" + query({**chosen, "cursor": page.next_cursor}) if page.next_cursor else None,
        first="/" + query(chosen) if cursor else None,
        is_live=any(not view.has_ended for view in page.items),
    )


@router.get("/runs/compare", **page_rule("read", 404))
def compare(request: Request, ids: Annotated[list[str], Query(default_factory=list)]) -> HTMLResponse:
    """Runs side by side; `ids` comes once a run, or once with commas."""
    chosen = list(dict.fromkeys(part for item in ids for part in item.split(",") if part))
    if len(chosen) < 2:
        return render(request, "runs_compare.html", status=422, comparison=None, chosen=chosen)
    comparison = jobs.compare_runs(chosen, request.app.state.settings.home)
    return render(
        request,
        "runs_compare.html",
        twin="/api/runs/compare?ids=" + ",".join(chosen),
        comparison=comparison,
        chosen=chosen,
        overlays=curves.draw_overlays(comparison.series, chosen),
    )


@router.get("/runs/{run_id}", **page_rule("read", 404))
def run(run_id: str, request: Request) -> HTMLResponse:
    """One run: how it goes, what it says, what it was asked."""
    folder = request.app.state.settings.home
    detail = jobs.run_detail(run_id, folder)
    rows = jobs.run_metrics(run_id, home=folder)
    return render(
        request,
        "run.html",
        twin=f"/api/runs/{run_id}",
        **_standing(detail, folder),
        panels=curves.draw_panels(rows, detail.run.kind),
        columns=curves.columns(rows),
        rows=rows[-MAX_TABLE_ROWS:],
        num_rows=len(rows),
        log=log_tail(detail.run, folder),
        config=leaves(detail.config),
        device=_device(detail.manifest),
        artifacts=jobs.artifacts(run_id, folder),
        results=_results(detail.run, folder),
    )


@router.get("/runs/{run_id}/status", **page_rule("read", 404))
def status(run_id: str, request: Request) -> HTMLResponse:
    """The part of a run's page that changes by the second."""
    folder = request.app.state.settings.home
    detail = jobs.run_detail(run_id, folder)
    return render(request, "run_status.html", **_standing(detail, folder))


@router.get("/runs/{run_id}/metrics.csv", **page_rule("read", 404))
def metrics_csv(run_id: str, request: Request) -> Response:
    """Every logged number, for a spreadsheet."""
    rows = jobs.run_metrics(run_id, home=request.app.state.settings.home)
    headers = {"Content-Disposition": f'attachment; filename="{run_id[:8]}-metrics.csv"'}
    return Response(curves.to_csv(rows), media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/runs/{run_id}/cancel", **page_rule("train", 404, 409))
def cancel(run_id: str, request: Request) -> RedirectResponse:
    """Stop a run at the edge of its step."""
    jobs.cancel(run_id, request.app.state.settings.home)
    return RedirectResponse(f"/runs/{run_id}", 303)


@router.post("/runs/{run_id}/resume", **page_rule("train", 404, 409))
def resume(run_id: str, request: Request) -> RedirectResponse:
    """Go on from the last checkpoint."""
    jobs.resume(run_id, request.app.state.settings.home)
    return RedirectResponse(f"/runs/{run_id}", 303)


def _results(view: jobs.RunView, folder: Path) -> Sequence[StoredEvaluation]:
    """What an evaluation's run measured, or what was measured of the model that a run trained."""
    chosen = {"run_id": view.run_id} if view.kind == "evaluation" else {"model": f"run:{view.run_id}"}
    return list_evaluations(limit=MAX_RESULTS, home=folder, **chosen).items


def _device(manifest: Mapping[str, Any]) -> str:
    """On what it ran. A manifest is a file, so it may hold anything."""
    device = manifest.get("device")
    if not isinstance(device, Mapping):
        return DASH
    return f"{device.get('kind', DASH)} × {device.get('count', 1)}"


def _standing(detail: jobs.RunDetail, folder: Path) -> dict[str, Any]:
    """What both the page and its live part show."""
    return {
        "detail": detail,
        "run": detail.run,
        "glimpse": glimpse(detail.run, folder),
        "phases": curves.phase_shares(newest_rows(detail.run, folder)),
    }
