"""Where models stand: the leaderboard of an eval set, and baselines that a model must not fall behind."""

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.errors import ApiError
from tracetune.api.strict import Router
from tracetune.app import baselines
from tracetune.app.evaluations import get_evaluation
from tracetune.app.leaderboard import leaderboard
from tracetune.app.report import p_text, points
from tracetune.core.errors import NotFound
from tracetune.web.choices import eval_set_names, model_name
from tracetune.web.forms import Form
from tracetune.web.render import page_rule, render
from tracetune.web.wording import query, segment

router = Router(tags=["pages"])


@router.get("/leaderboard", **page_rule("read", 404))
def leaderboard_page(request: Request, eval_set: str | None = None) -> HTMLResponse:
    """The models of one eval set, best first; of the newest set unless another is named."""
    home = request.app.state.settings.home
    names = eval_set_names(home)
    chosen = eval_set or (names[0] if names else None)
    board = leaderboard(chosen, home) if chosen else None
    return render(
        request,
        "leaderboard.html",
        twin="/api/leaderboard" + query({"eval_set": chosen}) if chosen else None,
        eval_sets=names,
        chosen=chosen,
        board=board,
        model_name=lambda reference: model_name(reference, home),
        points=points,
        p_text=p_text,
    )


@router.get("/baselines", **page_rule("read"))
def baseline_list(request: Request, cursor: str | None = None) -> HTMLResponse:
    """Every baseline with the evaluation it stands for."""
    home = request.app.state.settings.home
    found = baselines.list_baselines(cursor=cursor, home=home)
    return render(
        request,
        "baselines.html",
        twin="/api/baselines" + query({"cursor": cursor}),
        baselines=[(item, get_evaluation(item.evaluation_id, home)) for item in found.items],
        model_name=lambda reference: model_name(reference, home),
        next=found.next_cursor and "/baselines" + query({"cursor": found.next_cursor}),
        first=cursor and "/baselines",
    )


@router.post("/baselines", **page_rule("train", 404))
def use_baseline(request: Request, form: Form) -> RedirectResponse:
    """Let a name stand for an evaluation, or check the evaluation against what the name stands for."""
    name, evaluation_id = form.one("name"), form.one("evaluation_id")
    if form.one("action") == "check":
        return RedirectResponse(f"/baselines/{segment(name)}/check" + query({"evaluation_id": evaluation_id}), 303)
    baselines.set_baseline(name, evaluation_id, request.app.state.settings.home)
    return RedirectResponse("/baselines", 303)


@router.post("/baselines/{name}/delete", **page_rule("train", 404))
def forget_baseline(request: Request, name: str) -> RedirectResponse:
    """Forget a name."""
    baselines.delete_baseline(name, request.app.state.settings.home)
    return RedirectResponse("/baselines", 303)


@router.get("/baselines/{name}/check", **page_rule("read", 404))
def check_page(request: Request, name: str, evaluation_id: str) -> HTMLResponse:
    """Metric by metric, whether an evaluation falls behind."""
    home = request.app.state.settings.home
    try:
        check = baselines.check_baseline(name, evaluation_id, home=home)
    except NotFound as error:
        raise ApiError(404, f"{error}; open an evaluation and let the name stand for it") from error
    values: dict[str, Any] = {"check": check, "points": points, "p_text": p_text}
    return render(
        request,
        "baseline_check.html",
        twin=f"/api/baselines/{segment(name)}",
        model_name=lambda reference: model_name(reference, home),
        **values,
    )
