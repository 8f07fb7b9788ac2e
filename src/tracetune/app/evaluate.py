"""Evaluate: a model answers an eval set, is graded, and every answer is kept as a trace."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.compile_cache import use_compile_cache
from tracetune.app.datasets import register_evalset
from tracetune.app.runs import read_manifest
from tracetune.app.training_data import instruct_prompt
from tracetune.config.evaluation import EvaluationSettings
from tracetune.config.schema import OutputSettings
from tracetune.core.errors import Conflict, InputError
from tracetune.core.ids import file_hash
from tracetune.core.results import EvalResult
from tracetune.core.values import Completion, Message, Problem
from tracetune.data.render import render_prompt
from tracetune.engine.sampler import Sampling, failure, generate
from tracetune.evals import run
from tracetune.evals.records import write_result
from tracetune.models.load import load_model
from tracetune.models.model import Model
from tracetune.tasks.evalset import read_evalset

BASE = "base"
DEFAULT_BASE = "tiny"
Say = Callable[[str], None]


class Prompting(NamedTuple):
    """How a run showed its model a prompt, to be repeated when the model is measured."""

    base_model: str
    system_instruction: str | None = None
    prompt_template: str = "default"
    instruction: str = ""

    def messages(self, prompt: str) -> tuple[Message, ...]:
        """The conversation that asks for an answer to `prompt`."""
        if self.prompt_template == "instruct":
            prompt = instruct_prompt(prompt)
        if self.instruction:
            prompt = f"{self.instruction}\n\n{prompt}"
        system = (Message("system", self.system_instruction),) if self.system_instruction else ()
        return (*system, Message("user", prompt))


def evaluate(
    model_name: str,
    eval_set: Path,
    output: Path,
    *,
    seed: int = 42,
    max_examples: int | None = None,
    max_tokens: int = 512,
    temperature: float = 0.0,
    batch_size: int = 32,
    system_instruction: str | None = None,
    home: Path | None = None,
    say: Say | None = None,
) -> EvalResult:
    """Answer the first `max_examples` problems (None: all), grade them, and write one trace per problem to `output`.

    `model_name` `base` is the model that the run beside `output` started from, or `tiny` where there is no run.
    Prompts are shown as the model's run showed them. The eval set is registered, so that later datasets are
    checked against it. An answer that fails is a row with a reason; `say` is told the progress.
    """
    say = say or _silent
    problems = read_evalset(eval_set)
    _register(eval_set, problems, home)
    settings = EvaluationSettings(
        seed=seed,
        max_examples=max_examples,
        max_tokens=max_tokens,
        temperature=temperature,
        batch_size=batch_size,
        system_instruction=system_instruction,
    )
    facts = {"eval_set": eval_set.name, "eval_set_hash": file_hash(eval_set)}
    return measure(model_name, problems, output, settings, facts=facts, say=say)


def measure(
    model_name: str,
    problems: Sequence[Problem],
    output: Path,
    settings: EvaluationSettings,
    *,
    facts: Mapping[str, Any],
    say: Say,
    called: str | None = None,
) -> EvalResult:
    """Answer and grade problems that are in memory, and write `output`; `facts` stand in each answer's meta.

    `called` is what the answers name the model, None for the name that it has.
    """
    prompting = prompting_of(model_name, output, say=say)
    if settings.system_instruction is not None:
        prompting = prompting._replace(system_instruction=settings.system_instruction)
    use_compile_cache()
    model = load_model(prompting.base_model if model_name == BASE else model_name)
    if model_name == BASE:
        say(f"base is {model.name}")
    drawing = {"seed": settings.seed, "temperature": settings.temperature, "max_tokens": settings.max_tokens}
    answer = partial(
        _answer,
        model=model,
        prompting=prompting,
        sampling=Sampling(**drawing),
        batch_size=settings.batch_size,
        say=say,
    )
    meta = {**drawing, "model_fingerprint": model.fingerprint, **facts}
    if prompting.system_instruction:
        meta["system_instruction"] = prompting.system_instruction
    result = run.evaluate(problems[: settings.max_examples], answer, model=called or model.name, meta=meta)
    write_result(result, output)
    return result


def _answer(
    problems: Sequence[Problem],
    *,
    model: Model,
    prompting: Prompting,
    sampling: Sampling,
    batch_size: int,
    say: Say,
) -> list[Completion]:
    """One completion per problem; a prompt that cannot be rendered fails alone."""
    asked = [rendered(prompting.messages(problem.prompt), model) for problem in problems]
    prompts = [prompt for prompt in asked if not isinstance(prompt, Completion)]
    progress = Progress(say, "answered")
    said = iter(generate(model, prompts, sampling, batch_size=batch_size, on_progress=progress))
    return [prompt if isinstance(prompt, Completion) else next(said) for prompt in asked]


def rendered(messages: Sequence[Message], model: Model) -> list[int] | Completion:
    """The prompt's tokens, or the failed completion of one that cannot be rendered."""
    try:
        return render_prompt(messages, model.tokenizer)
    except InputError as error:
        return failure(str(error))


class Progress:
    """Says how many of how many are done, ten times and at the end."""

    def __init__(self, say: Say, verb: str) -> None:
        self._say, self._verb, self._tenths = say, verb, 0

    def __call__(self, done: int, total: int) -> None:
        tenths = 10 * done // max(total, 1)
        if tenths > self._tenths:
            self._tenths = tenths
            self._say(f"{self._verb} {done} of {total}")


def _silent(text: str) -> None:
    del text


def _register(eval_set: Path, problems: Sequence[Problem], home: Path | None) -> None:
    """Under the file's name; other problems under that name get one with the content's hash."""
    try:
        register_evalset(problems, eval_set.stem, home=home)
    except Conflict:
        register_evalset(problems, f"{eval_set.stem}-{file_hash(eval_set)[:12]}", home=home)


def prompting_of(model_name: str, output: Path, *, say: Say) -> Prompting:
    """How the model was shown prompts: by the manifest of the run that holds it, else of the run around `output`."""
    manifest = _manifest(Path(model_name).parent) if model_name != BASE and Path(model_name).is_dir() else None
    manifest = manifest or _manifest(output.parent)
    if manifest is None:
        if model_name == BASE:
            say(f"{output.parent}: no run manifest, so base is {DEFAULT_BASE}; name the model to measure another")
        return Prompting(DEFAULT_BASE)
    settings = manifest["training_config"]
    if "name" not in settings["model"]:
        # What GRPO trained: its questions stand behind an instruction.
        prompt = settings.get("prompt", {})
        return Prompting(settings["model"]["path"], prompt.get("system"), instruction=prompt.get("instruction") or "")
    return Prompting(
        base_model=settings["model"]["name"],
        system_instruction=settings.get("system_instruction"),
        prompt_template=settings.get("data", {}).get("prompt_template", "default"),
    )


def _manifest(folder: Path) -> Mapping[str, Any] | None:
    """A run's manifest that records its settings; None where there is none."""
    manifest = read_manifest(folder / OutputSettings().manifest_file) or {}
    settings = manifest.get("training_config")
    model = settings.get("model") if isinstance(settings, Mapping) else None
    return manifest if isinstance(model, Mapping) and {"name", "path"} & model.keys() else None
