"""Evaluations: the list, one with its answers, two of them as before and after, and the form that begins one."""

from typing import Any, Literal

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.strict import Router
from tracetune.app import evaluations, jobs
from tracetune.app.baselines import list_baselines
from tracetune.app.evaluations import METRICS, StoredEvaluation
from tracetune.app.report import evidence, headline, left_out, outcome, p_text, points, power
from tracetune.core.errors import Conflict, InputError, NotFound
from tracetune.core.ids import new_id
from tracetune.core.page import decode_cursor
from tracetune.core.results import Comparison, Slice
from tracetune.web.choices import eval_set_names, model_choices, model_name, model_names
from tracetune.web.forms import Fields, Form
from tracetune.web.render import page_rule, render
from tracetune.web.wording import clip, query, stamp

router = Router(tags=["pages"])

ROWS_A_PAGE = 50
MAX_SQUARES, MAX_FLIPS = 2_000, 100
MAX_KEY_CHARS = 64
MARKS = {"fixed": "▲", "broken": "▼", "both right": "", "both wrong": "·"}
DIALS = ("max_examples", "max_tokens", "temperature", "seed")
EMPTY_FORM = {"model": "tiny", "eval_set": "", "name": "", "max_tokens": "512", "temperature": "0", "seed": "42"}


@router.get("/evaluations", **page_rule("read"))
def evaluation_list(
    request: Request,
    eval_set: str | None = None,
    model: str | None = None,
    run_id: str | None = None,
    cursor: str | None = None,
) -> Any:
    """Every evaluation, or those of one eval set or model, the newest first; that of a run is gone to at once."""
    home = request.app.state.settings.home
    chosen = {"eval_set": eval_set, "model": model, "run_id": run_id}
    found = evaluations.list_evaluations(cursor=cursor, eval_set=eval_set, model=model, run_id=run_id, home=home)
    if run_id and len(found.items) == 1:
        return RedirectResponse(f"/evaluations/{found.items[0].evaluation_id}", 303)
    names = model_names({item.model for item in found.items}, home)
    return render(
        request,
        "evaluations.html",
        twin="/api/evaluations" + query({**chosen, "cursor": cursor}),
        evaluations=found.items,
        eval_sets=eval_set_names(home),
        chosen=chosen,
        model_name=names.__getitem__,
        next=found.next_cursor and "/evaluations" + query({**chosen, "cursor": found.next_cursor}),
        first=cursor and "/evaluations" + query(chosen),
    )


@router.get("/evaluations/new", **page_rule("read"))
def evaluation_form(request: Request, model: str = "tiny", eval_set: str = "") -> HTMLResponse:
    """What to evaluate on what."""
    return _form(request, {**EMPTY_FORM, "max_examples": "", "model": model, "eval_set": eval_set})


@router.post("/evaluations/new", **page_rule("train", 404, 409))
def begin_evaluation(request: Request, form: Form) -> Any:
    """Queue the run that evaluates, and go to its page."""
    words = [f"{dial}={form.one(dial)}" for dial in DIALS if form.one(dial)]
    try:
        run = jobs.launch(
            "evaluation",
            words,
            model=form.one("model"),
            eval_set=form.one("eval_set"),
            name=form.one("name") or None,
            request_key=form.one("request_key")[:MAX_KEY_CHARS] or None,
            home=request.app.state.settings.home,
        )
    except (InputError, NotFound, Conflict) as error:
        return _form(request, _given(form), problem=str(error), status=422)
    return RedirectResponse(f"/runs/{run.run_id}", 303)


def _form(request: Request, form: dict[str, Any], *, problem: str = "", status: int = 200) -> HTMLResponse:
    home = request.app.state.settings.home
    values = {"eval_sets": eval_set_names(home), "models": model_choices(home), "request_key": new_id()}
    values |= {"form": form, "problem": problem}
    return render(request, "evaluation_new.html", twin="/api/evaluations", status=status, **values)


def _given(form: Fields) -> dict[str, str]:
    return {name: form.one(name) for name in ("model", "eval_set", "name", *DIALS)}


@router.get("/evaluations/compare", **page_rule("read", 404))
def compare_page(request: Request, before: str, after: str) -> HTMLResponse:
    """What changed from one evaluation to another, with its uncertainty, flips first."""
    home = request.app.state.settings.home
    comparison = evaluations.compare_evaluations(before, after, home)
    tones = {"improved": "up", "regressed": "down", "no significant change": "level"}
    return render(
        request,
        "evaluation_compare.html",
        twin="/api/evaluations/compare" + query({"before": before, "after": after}),
        comparison=comparison,
        before_id=before,
        after_id=after,
        tone=tones[comparison.verdict],
        words=_words(comparison),
        squares=_squares(comparison),
        slices=_by_kind(comparison.slices),
        max_flips=MAX_FLIPS,
        model_name=lambda reference: model_name(reference, home),
        points=points,
        p_text=p_text,
    )


def _words(comparison: Comparison) -> dict[str, Any]:
    return {
        "headline": headline(comparison),
        "evidence": evidence(comparison),
        "power": power(comparison),
        "left_out": left_out(comparison),
        "change": points(comparison.delta),
    }


def _squares(comparison: Comparison) -> list[dict[str, Any]]:
    """One square an item; those of flips lead to their answers."""
    counts: dict[str, int] = {}
    squares = []
    for pair in comparison.pairs[:MAX_SQUARES]:
        became = outcome(pair)
        counts[became] = place = counts.get(became, 0) + 1
        url = f"#{became}-{place}" if became in ("fixed", "broken") and place <= MAX_FLIPS else None
        title = f"{clip(pair.after.eval_id, 60)}: {became}. {clip(pair.after.prompt, 100)}"
        squares.append({"kind": became.replace(" ", "-"), "mark": MARKS[became], "title": title, "url": url})
    return squares


def _by_kind(slices: tuple[Slice, ...]) -> list[tuple[str, list[Slice]]]:
    kinds = {kind: [part for part in slices if part.kind == kind] for kind in ("category", "difficulty")}
    return [(kind, group) for kind, group in kinds.items() if len(group) > 1]


@router.get("/evaluations/{evaluation_id}", **page_rule("read", 404))
def evaluation_page(
    request: Request,
    evaluation_id: str,
    verdict: Literal["correct", "wrong", "unscored"] | None = None,
    cursor: str | None = None,
) -> HTMLResponse:
    """One evaluation: its metrics, and its answers page by page."""
    home = request.app.state.settings.home
    stored = evaluations.get_evaluation(evaluation_id, home)
    found = evaluations.evaluation_rows(evaluation_id, limit=ROWS_A_PAGE, cursor=cursor, verdict=verdict, home=home)
    address, kept = f"/evaluations/{evaluation_id}", {"verdict": verdict}
    return render(
        request,
        "evaluation.html",
        twin=f"/api{address}",
        evaluation=stored,
        measured=_measured(stored),
        rows=found.items,
        verdict=verdict,
        verdicts=_verdicts(stored),
        others=_others(stored, request),
        baselines=[baseline.name for baseline in list_baselines(limit=100, home=home).items],
        model_name=lambda reference: model_name(reference, home),
        next=found.next_cursor and address + query({**kept, "cursor": found.next_cursor}),
        first=cursor and decode_cursor(cursor) and address + query(kept),
    )


def _measured(stored: StoredEvaluation) -> list[tuple[Any, dict[str, Any]]]:
    """Each metric that says something, with its numbers."""
    numbers = stored.summary["metrics"]
    return [(metric, numbers[metric.name]) for metric in METRICS if metric.name in numbers]


def _verdicts(stored: StoredEvaluation) -> list[tuple[str | None, str, int | None]]:
    """The kinds of answers to choose from, and how many of each there are."""
    accuracy = stored.summary["metrics"].get("accuracy") or {"value": 0.0, "num_items": 0}
    correct, scored, total = (
        round(accuracy["value"] * accuracy["num_items"]),
        accuracy["num_items"],
        stored.summary["num_items"],
    )
    counted = [(None, "all", total), ("wrong", "wrong", scored - correct), ("correct", "correct", correct)]
    return [*counted, ("unscored", "without a score", total - scored)]


def _others(stored: StoredEvaluation, request: Request) -> list[tuple[str, str]]:
    """Evaluations of the same eval set to compare with."""
    home = request.app.state.settings.home
    found = evaluations.list_evaluations(limit=100, eval_set=stored.eval_set, home=home).items
    others = [item for item in found if item.evaluation_id != stored.evaluation_id]
    return [(item.evaluation_id, f"{model_name(item.model, home)}, {stamp(item.created_at)}") for item in others]
