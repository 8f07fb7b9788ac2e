"""Experiments as pages: the tree as one table, and each with its findings and notes."""

from fastapi import Request
from fastapi.responses import HTMLResponse

from tracetune.api.experiments import tree_of
from tracetune.api.strict import Router
from tracetune.app import experiment_views
from tracetune.app.report import points
from tracetune.config.check import leaves
from tracetune.web.render import page_rule, render
from tracetune.web.wording import query, segment

router = Router(tags=["pages"])


@router.get("/experiments", **page_rule("read"))
def experiment_list(request: Request, *, kind: str = "", cursor: str = "") -> HTMLResponse:
    """Every experiment, kind by kind."""
    page = experiment_views.page_experiments(tree_of(request), kind=kind or None, cursor=cursor or None)
    return render(
        request,
        "experiments.html",
        twin="/api/experiments" + query({"kind": kind, "cursor": cursor}),
        rows=page.items,
        points=points,
        kinds=experiment_views.KINDS,
        chosen=kind,
        next=page.next_cursor and "/experiments" + query({"kind": kind, "cursor": page.next_cursor}),
        first=cursor and "/experiments" + query({"kind": kind}),
    )


@router.get("/experiments/{kind}/{name}", **page_rule("read", 404))
def experiment(kind: str, name: str, request: Request) -> HTMLResponse:
    """One experiment: its findings, its settings, its notes."""
    detail = experiment_views.experiment_detail(tree_of(request), kind, name)
    run = detail.experiment.run
    return render(
        request,
        "experiment.html",
        twin=f"/api/experiments/{segment(kind)}/{segment(name)}",
        detail=detail,
        place=detail.experiment.place,
        run=run,
        config=[] if run is None else leaves(run.config),
        rates=list(experiment_views.rate_rows(detail.experiment)),
        standing=experiment_views.standing_of(detail.experiment.place, request.app.state.settings.home),
    )
