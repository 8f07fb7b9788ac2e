"""A checkpoint of a GRPO run measured on the run's own validation problems, as often as asked, each answer kept."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TextIO

import jax
from omegaconf import OmegaConf

from tracetune.app.compile_cache import use_compile_cache
from tracetune.app.grpo_pointer import read_pointer
from tracetune.app.grpo_problems import make_prompts, read_problems
from tracetune.app.runs import RunFolder
from tracetune.backends.local_state import with_adapter
from tracetune.config.grpo import resolve_grpo
from tracetune.config.grpo_schema import EvaluateSettings, GrpoConfig
from tracetune.config.schema import OutputSettings
from tracetune.core.errors import InputError, NotFound
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.values import Completion, Score, storable
from tracetune.engine.checkpoint import checkpoint_folder, list_checkpoints, load_checkpoint
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.sampler import Sampling, generate
from tracetune.engine.step import init_state
from tracetune.evals.records import write_result
from tracetune.models.load import load_model
from tracetune.models.model import Model
from tracetune.train.validate import Attempt, Validation, pass_at_k, validate


class _Place(NamedTuple):
    """A run's folder, its checkpoints, and the one to measure; None is the exported model."""

    run: RunFolder
    checkpoint: Path | None


class _Sampler(NamedTuple):
    """A loaded model at the settings of an evaluation."""

    model: Model
    settings: EvaluateSettings
    max_tokens: int

    def answer(self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int) -> list[Completion]:
        """One completion per prompt."""
        sampling = Sampling(
            max_tokens=self.max_tokens,
            temperature=temperature,
            top_k=self.settings.top_k,
            top_p=self.settings.top_p,
            seed=seed,
        )
        return generate(self.model, prompts, sampling)


def evaluate_checkpoint(settings: EvaluateSettings, *, stream: TextIO | None = None) -> Path:
    """Measure, print the metrics, and return the file of answers, which `tracetune eval compare` reads.

    An item is correct there when its first pass was. Raises NotFound for a folder that is no GRPO run's, or has no
    such step.
    """
    out = stream or sys.stderr
    if settings.num_passes > 1 and settings.temperature == 0:
        out.write("greedy passes are all alike, so one is taken; inference_config=standard or liberal draws\n")
        settings = replace(settings, num_passes=1)
    place = _find(Path(settings.checkpoint_dir), settings.step)
    config = _config_of(place.run)
    model = _load(place, config)
    prompts = make_prompts(config, read_problems(config), model.tokenizer).validation
    if settings.num_batches is not None:
        prompts = prompts[: settings.num_batches * config.training.micro_batch_size]
    if not prompts:
        raise NotFound(f"{place.run.root}: this run has no validation problems; it was started with num_test_batches=0")
    validation = validate(
        _Sampler(model, settings, config.generation.max_generation_steps),
        prompts,
        seed=settings.seed,
        num_passes=settings.num_passes,
        temperature=settings.temperature,
        tagged=config.prompt.asks_for_tags,
    )
    metrics = validation.metrics() | _passes(validation)
    output = Path(settings.output) if settings.output else _default_output(place, settings)
    write_result(_result(model, validation, settings, metrics), output)
    for name, value in metrics.items():
        out.write(f"{name:<24} {value:.4f}\n")
    return output


def _find(folder: Path, step: int | None) -> _Place:
    """The run that a folder is, or holds the checkpoints of."""
    if (pointed := read_pointer(folder)) is not None:
        return _Place(RunFolder(pointed, OutputSettings()), _checkpoint(folder, step))
    run = RunFolder(folder if (folder / "config.yaml").is_file() else folder.parent, OutputSettings())
    if not run.config.is_file():
        raise NotFound(
            f"{folder}: is no checkpoint_dir of a GRPO run and no run folder; for any other model use "
            "`tracetune eval run`"
        )
    if step is not None:
        raise InputError(f"step: {folder} keeps the last model alone; give the run's checkpoint_dir to choose a step")
    if not run.final.is_dir():
        raise NotFound(f"{run.root}: this run has not finished; give its checkpoint_dir to measure a checkpoint")
    return _Place(run, None)


def _checkpoint(root: Path, step: int | None) -> Path:
    there = list_checkpoints(root)
    if not there:
        raise NotFound(f"{root}: holds no checkpoint yet; wait for the run's first save")
    if step is None:
        return max(there)
    if checkpoint_folder(root, step) not in there:
        raise NotFound(f"{root}: has no checkpoint of step {step}; it has {', '.join(p.name for p in sorted(there))}")
    return checkpoint_folder(root, step)


def _config_of(run: RunFolder) -> GrpoConfig:
    content = OmegaConf.to_container(OmegaConf.load(run.config))
    assert isinstance(content, dict)
    return resolve_grpo({str(key): value for key, value in content.items()}, where=str(run.config))


def _load(place: _Place, config: GrpoConfig) -> Model:
    use_compile_cache()
    if place.checkpoint is None:
        return load_model(str(place.run.final))
    if config.backend == "tinker":
        raise InputError(
            f"{place.checkpoint}: its weights are with the service that trains them; finish the run, then give its run "
            f"folder, {place.run.root}"
        )
    model = with_adapter(load_model(config.model.name), config.model.lora, seed=config.seed)
    trained = model.params if model.lora is None else model.lora
    like = jax.eval_shape(lambda: init_state(trained, make_optimizer(config.optimizer, 1)))
    weights = load_checkpoint(place.checkpoint, like).arrays.params
    return model._replace(params=weights) if model.lora is None else model._replace(lora=weights)


def _passes(validation: Validation) -> dict[str, float]:
    """pass@k for k of 1, 2, 4, … and all passes; nothing for a single one."""
    count = len(validation.passes)
    solved = [sum(passes) for passes in validation.solved()]
    sizes = sorted({2**power for power in range(count.bit_length()) if 2**power <= count} | {count})
    if count == 1:
        return {}
    return {f"pass@{k}": sum(pass_at_k(count, correct, k) for correct in solved) / len(solved) for k in sizes}


def _default_output(place: _Place, settings: EvaluateSettings) -> Path:
    """A file of its own for each way of measuring, so that none overwrites another."""
    usual = EvaluateSettings(checkpoint_dir="")
    name = place.checkpoint.name if place.checkpoint else place.run.final.name
    dials = {"passes": "num_passes", "batches": "num_batches", "seed": "seed"}
    told = [f"-{word}{value}" for word, dial in dials.items() if (value := vars(settings)[dial]) != vars(usual)[dial]]
    return place.run.root / "evaluations" / f"{name}-{settings.inference_config}{''.join(told)}.jsonl"


def _result(model: Model, validation: Validation, settings: EvaluateSettings, metrics: dict[str, float]) -> EvalResult:
    solved = validation.solved()
    items = tuple(_item(attempt) for attempt in validation.passes[0])
    passes = {attempt.prompt.problem.id: list(row) for attempt, row in zip(validation.passes[0], solved, strict=True)}
    meta = {"seed": settings.seed, "temperature": settings.temperature, "metrics": metrics}
    if len(validation.passes) > 1:
        meta["items"] = {eval_id: {"passes": row} for eval_id, row in passes.items()}
    return EvalResult(model=model.name, items=items, meta=meta)


def _item(attempt: Attempt) -> EvalItem:
    problem, completion = attempt.prompt.problem, attempt.completion
    if attempt.verdict is None:
        score = Score(None, completion.error or "failed")
    else:
        told = "correct" if attempt.verdict.correct else "not the gold answer in the asked format"
        score = Score(attempt.verdict.correct, told)
    return EvalItem(
        eval_id=problem.id,
        prompt=problem.prompt,
        expected_answer=problem.answer,
        response=storable(completion.text),
        score=score,
        category=problem.category,
        difficulty=problem.difficulty,
    )
