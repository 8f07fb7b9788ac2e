"""Models: the registry's versions, promoting a run's model, and a conversation with several models side by side."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.strict import Router
from tracetune.app import registry
from tracetune.app.compute import shared_compute
from tracetune.app.evaluations import list_evaluations
from tracetune.core.errors import Conflict, InputError, TracetuneError
from tracetune.web.choices import model_choices, model_name
from tracetune.web.forms import Fields, Form
from tracetune.web.render import page_rule, render
from tracetune.web.wording import query

router = Router(tags=["pages"])

MAX_MODELS, MAX_PROMPT_CHARS = 4, 20_000
MAX_TOKENS, MAX_TEMPERATURE = 2_048, 10.0
CHAT = {"prompt": "", "system": "", "max_tokens": "200", "temperature": "0", "seed": "0"}


@router.get("/models", **page_rule("read"))
def model_list(request: Request, name: str | None = None, cursor: str | None = None) -> HTMLResponse:
    """Every version, or those of one name, the newest first."""
    found = registry.list_models(cursor=cursor, name=name, home=request.app.state.settings.home)
    return render(
        request,
        "models.html",
        twin="/api/models" + query({"name": name, "cursor": cursor}),
        models=found.items,
        name=name,
        next=found.next_cursor and "/models" + query({"name": name, "cursor": found.next_cursor}),
        first=cursor and "/models" + query({"name": name}),
    )


@router.get("/models/new", **page_rule("read"))
def promote_form(request: Request, run: str = "") -> HTMLResponse:
    """Which run's model, under which name."""
    return _promote_form(request, {"run": run, "name": ""})


@router.post("/models/new", **page_rule("train", 404, 409))
def promote(request: Request, form: Form) -> Any:
    """Keep the run's model as the next version of the name, and go to its page."""
    given = {"run": form.one("run"), "name": form.one("name")}
    try:
        version = registry.promote(given["run"], given["name"], request.app.state.settings.home)
    except (InputError, Conflict) as error:
        return _promote_form(request, given, problem=str(error), status=409 if isinstance(error, Conflict) else 422)
    return RedirectResponse(f"/models/{version.model_id}", 303)


def _promote_form(request: Request, form: dict[str, str], *, problem: str = "", status: int = 200) -> HTMLResponse:
    home = request.app.state.settings.home
    trained = [(reference[4:], called) for reference, called in model_choices(home) if reference.startswith("run:")]
    names = sorted({item.name for item in registry.list_models(limit=100, home=home).items})
    values = {"form": form, "runs": trained, "names": names, "problem": problem}
    return render(request, "model_new.html", twin="/api/models", status=status, **values)


@router.get("/models/{model_id}", **page_rule("read", 404))
def model_page(request: Request, model_id: str) -> HTMLResponse:
    """One version: where it comes from, its files, its evaluations."""
    home = request.app.state.settings.home
    version = registry.get_model(model_id, home)
    reference = f"model:{model_id}"
    return render(
        request,
        "model.html",
        twin=f"/api/models/{model_id}",
        version=version,
        reference=reference,
        run=version.manifest["run"],
        base=model_name(version.manifest["run"].get("model") or "–", home),
        files=version.manifest["files"],
        evaluations=list_evaluations(model=reference, limit=20, home=home).items,
    )


@router.get("/chat", **page_rule("read"))
def chat_form(request: Request, model: str = "tiny", other: str = "") -> HTMLResponse:
    """Ask one or several models the same; beside the base stands the newest other model unless one is named."""
    known = [reference for reference, _ in model_choices(request.app.state.settings.home) if reference != model]
    return _chat_page(request, CHAT, [model, other or next(iter(known), "")])


@router.post("/chat", **page_rule("train"))
def chat(request: Request, form: Form) -> HTMLResponse:
    """Every chosen model answers the same prompt, with the same seed."""
    given = {name: form.one(name, value) for name, value in CHAT.items()}
    references = list(dict.fromkeys(form.all("model")))[:MAX_MODELS]
    try:
        asked = _asked(form, given, references)
    except InputError as error:
        return _chat_page(request, given, references, problem=str(error), status=422)
    answers = [_answer(request, reference, asked) for reference in references]
    return _chat_page(request, given, references, answers=answers)


def _asked(form: Fields, given: dict[str, str], references: Sequence[str]) -> dict[str, Any]:
    if not references or not given["prompt"]:
        raise InputError("chat: choose a model and write a prompt")
    if len(given["prompt"]) + len(given["system"]) > MAX_PROMPT_CHARS:
        raise InputError(f"chat: the prompt is over {MAX_PROMPT_CHARS} characters")
    messages = [{"role": "system", "content": given["system"]}] if given["system"] else []
    messages.append({"role": "user", "content": given["prompt"]})
    try:
        temperature = float(given["temperature"] or 0)
    except ValueError:
        raise InputError(f"temperature: must be a number, got {given['temperature'][:40]!r}") from None
    max_tokens, seed = form.number("max_tokens") or 200, form.number("seed") or 0
    if not (1 <= max_tokens <= MAX_TOKENS and 0 <= temperature <= MAX_TEMPERATURE and 0 <= seed < 2**32):
        raise InputError(
            f"chat: asks for 1 to {MAX_TOKENS} tokens, a temperature of 0 to {MAX_TEMPERATURE:g} and a seed of at "
            f"least 0, got {max_tokens}, {temperature:g} and {seed}"
        )
    return {"messages": messages, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}


def _answer(request: Request, reference: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What one model says; a model that cannot answer says why."""
    home = request.app.state.settings.home
    shown = {"reference": reference, "name": model_name(reference, home)}
    messages = asked["messages"]
    sampling = {name: value for name, value in asked.items() if name != "messages"}
    try:
        return {**shown, "problem": "", **shared_compute(home).chat(reference, messages, **sampling)}
    except TracetuneError as error:
        return {**shown, "problem": str(error)}


def _chat_page(
    request: Request,
    form: dict[str, str],
    references: Sequence[str],
    *,
    answers: Sequence[dict[str, Any]] = (),
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    return render(
        request,
        "chat.html",
        twin="/api/models",
        status=status,
        form=form,
        chosen=[*references, "", ""][: max(2, len(references))],
        models=model_choices(request.app.state.settings.home),
        answers=answers,
        problem=problem,
    )
