"""The form that launches a run: the dials that matter for its kind by name, every other one as a line of text."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from tracetune.api.strict import Router
from tracetune.app import jobs
from tracetune.app.run_settings import Asked, settle
from tracetune.config.aliases import BUILT_IN
from tracetune.config.check import leaves
from tracetune.config.grpo import config_mapping as grpo_mapping
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.resolve import config_mapping as sft_mapping
from tracetune.config.schema import SftConfig
from tracetune.core.errors import InputError, NotFound
from tracetune.core.ids import new_id
from tracetune.web.choices import dataset_keys, model_choices
from tracetune.web.forms import Fields, Form
from tracetune.web.render import page_rule, render

router = Router(tags=["pages"])
MAX_KEY_CHARS = 64


class Knob(NamedTuple):
    """One dial of the form, by the key that the command line takes too."""

    key: str
    label: str
    hint: str = ""


KNOBS: Mapping[str, tuple[Knob, ...]] = {
    "sft": (
        Knob("training.num_steps", "Steps", "Optimizer steps; empty: by epochs."),
        Knob("training.num_epochs", "Epochs"),
        Knob("optimizer.learning_rate", "Learning rate"),
        Knob("training.batch_size", "Batch size", "Packed rows a step."),
        Knob("model.max_length", "Row length", "Tokens."),
        Knob("model.lora.r", "LoRA rank", "Empty: every weight is trained."),
        Knob("training.logging_every", "Log every", "Steps."),
        Knob("training.save_every", "Checkpoint every", "Steps."),
        Knob("training.seed", "Seed"),
    ),
    "grpo": (
        Knob("training.num_batches", "Batches", "Steps of training."),
        Knob("training.micro_batch_size", "Prompts a step"),
        Knob("grpo.num_generations", "Completions a prompt"),
        Knob("generation.max_generation_steps", "Completion length", "Tokens at most."),
        Knob("generation.temperature", "Temperature"),
        Knob("optimizer.learning_rate", "Learning rate"),
        Knob("grpo.beta", "KL penalty β"),
        Knob("training.eval_interval_steps", "Validate every", "Steps; 0: never."),
        Knob("training.save_interval_steps", "Checkpoint every", "Steps."),
        Knob("seed", "Seed"),
    ),
}


@router.get("/runs/new", **page_rule("read", 404))
def new(
    request: Request, *, kind: str = "sft", dataset: str = "", model: str = "", like: str = "", name: str = ""
) -> HTMLResponse:
    """An empty form, or one filled with what another run (`like`) was asked."""
    if like:
        return _form(request, _like(like, request.app.state.settings.home))
    if kind not in KNOBS:
        raise InputError(f"kind: must be one of {', '.join(KNOBS)}, got {kind[:40]!r}")
    given = {"kind": kind, "dataset": dataset, "model": model or BUILT_IN, "name": name}
    return _form(request, Fields(list(given.items())))


@router.post("/runs", **page_rule("train", 404, 409))
def launch(form: Form, request: Request) -> Response:
    """Queue the run, or only check it when that was asked; a form with a mistake comes back as it was."""
    kind = form.one("kind")
    if kind not in KNOBS:
        raise InputError(f"kind: must be one of {', '.join(KNOBS)}, got {kind[:40]!r}")
    words = list(_words(form, kind))
    dataset, model, name = (form.one(field) or None for field in ("dataset", "model", "name"))
    try:
        if form.one("do") == "check":
            spec = settle(Asked(kind, tuple(words), dataset, model))
            return _form(request, form, checked=leaves(spec["config"]))
        view = jobs.launch(
            kind,
            words,
            dataset=dataset,
            model=model,
            name=name,
            request_key=form.one("request_key")[:MAX_KEY_CHARS] or None,
            home=request.app.state.settings.home,
        )
    except (InputError, NotFound) as error:
        return _form(request, form, problem=str(error), status=422)
    return RedirectResponse(f"/runs/{view.run_id}", 303)


def _form(
    request: Request,
    form: Fields,
    *,
    problem: str = "",
    checked: Sequence[tuple[str, Any]] = (),
    status: int = 200,
) -> HTMLResponse:
    folder = request.app.state.settings.home
    kind = form.one("kind")
    return render(
        request,
        "launch.html",
        twin="/api/runs",
        status=status,
        kind=kind,
        form=form,
        knobs=[(knob, _default(kind, knob.key)) for knob in KNOBS[kind]],
        datasets=dataset_keys(folder),
        models=model_choices(folder),
        problem=problem,
        checked=checked,
        request_key=new_id(),
    )


def _words(form: Fields, kind: str) -> Iterator[str]:
    """The fields as the words of the command line."""
    for knob in KNOBS[kind]:
        value = form.one(knob.key)
        if value:
            yield f"{knob.key}={value}"
    yield from (line.strip() for line in form.one("more").splitlines() if line.strip())


def _like(run_id: str, folder: Path) -> Fields:
    """What a run was asked, as the form's fields; a name for the next one is left open."""
    detail = jobs.run_detail(run_id, folder)
    if detail.run.kind not in KNOBS:
        raise NotFound(f"Run {run_id} is an evaluation; launch another from the page of evaluations")
    keys = [knob.key for knob in KNOBS[detail.run.kind]]
    pairs = [word.partition("=")[::2] for word in detail.overrides]
    known = [(key, value) for key, value in pairs if key in keys]
    more = "\n".join(word for word in detail.overrides if word.partition("=")[0] not in keys)
    run = detail.run
    ids = [("kind", run.kind), ("dataset", run.dataset or ""), ("model", run.model or ""), ("more", more)]
    return Fields([*ids, *known])


@cache
def _defaults(kind: str) -> dict[str, Any]:
    mapping = sft_mapping(SftConfig()) if kind == "sft" else grpo_mapping(GrpoConfig())
    return dict(leaves(mapping))


def _default(kind: str, key: str) -> str:
    """What a dial is when nothing is given; empty when it is nothing."""
    value = _defaults(kind).get(key)
    return "" if value is None else str(value)
