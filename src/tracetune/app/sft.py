"""Supervised fine-tuning as a person asks for it: one run folder, resumed where it stopped, finished once.

Killed at any moment and run again, it ends with the same weights and metrics as if it had never stopped.
"""

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jax.sharding import Mesh

from tracetune.app.backend_choice import backend_facts, load_base, model_facts, reached, require_backend
from tracetune.app.compile_cache import use_compile_cache
from tracetune.app.examples import mix_told, parts_of, tokenize
from tracetune.app.experiment_readme import kept_readme
from tracetune.app.followers import own_folder, own_stream
from tracetune.app.manifest import describe_inputs, named
from tracetune.app.memory import check_memory
from tracetune.app.progress import Reporter
from tracetune.app.run_benchmark import check_benchmark, end_with_benchmark
from tracetune.app.run_session import RunResult, Session, Work, finished
from tracetune.app.runs import RunFolder, hold_run
from tracetune.app.tinker_bill import estimate, supervised_tokens
from tracetune.app.training_data import TrainingData, read_eval_rows, read_training_data
from tracetune.backends.local import LocalBackend
from tracetune.backends.protocol import Backend
from tracetune.backends.tinker_service import TinkerService
from tracetune.config.resolve import to_yaml
from tracetune.config.schema import SftConfig
from tracetune.core.errors import InputError
from tracetune.core.values import Batch
from tracetune.engine import hosts
from tracetune.engine.mesh import make_mesh
from tracetune.models.model import Model
from tracetune.models.served import ServedModel
from tracetune.train.info import Position, StepInfo
from tracetune.train.sft import count_steps, train_sft
from tracetune.train.steps import StepPlan

SftResult = RunResult


class Prepared(NamedTuple):
    """Everything a loop needs, checked and in memory. `service` trains where this machine does not; `held_out` is what
    `eval_batches` were made of."""

    model: Model | ServedModel
    plan: StepPlan
    num_steps: int
    eval_batches: tuple[Batch, ...]
    max_segment: int
    mesh: Mesh | None = None
    service: TinkerService | None = None
    held_out: StepPlan | None = None


def run_sft(
    config: SftConfig,
    *,
    data: Path | None = None,
    dataset: str | None = None,
    output: Path | None = None,
    max_samples: int | None = None,
    home: Path | None = None,
    stream: TextIO | None = None,
    run_id: str | None = None,
) -> SftResult:
    """Train, or go on with the run in `output`; progress goes to `stream` (stderr) and the run's log. A run that has
    finished ends with its benchmark where one is asked for.

    `run_id` None gives a run that begins an id of its own.

    Raises Conflict when the folder holds a run of other settings or data, or another process trains in it;
    Diverged when the loss is not finite; StorageError when the disk refuses (earlier checkpoints stay); and
    what reading the data and the model raises. Nothing is written before both are read. One of several processes
    (`engine.hosts`) raises Unavailable when another is lost.
    """
    require_backend(config)
    check_benchmark(config.benchmark)
    shared = RunFolder(output_folder(config, output), config.output)
    with kept_readme(shared.root), hosts.together(), own_stream(stream or sys.stderr) as out:
        mesh = make_mesh(config.model.mesh) if config.backend == "local" else None
        rows = read_training_data(config, data=data, dataset=dataset, max_samples=max_samples, home=home)
        eval_rows = read_eval_rows(config, rows)
        inputs = describe_inputs(config, rows, eval_rows, max_samples=max_samples) | named(run_id)
        result = finished(shared, inputs)
        if result is not None:
            out.write(f"{shared.root}: this run is finished; choose another --output to train again\n")
        else:
            result = _train(config, rows, eval_rows, shared, mesh=mesh, out=out, inputs=inputs)
        if result.status != "interrupted":
            end_with_benchmark(shared, config.benchmark, config.model.name, out, home)
        return result


def _train(
    config: SftConfig,
    rows: TrainingData,
    eval_rows: TrainingData | None,
    shared: RunFolder,
    *,
    mesh: Mesh | None,
    out: TextIO,
    inputs: Mapping[str, Any],
) -> SftResult:
    """One session of the run in `shared`; everything it held is free when it returns."""
    check_memory(config)
    notes: list[str] = []
    with reached(config, notes.append) as service:
        prepared = prepare(config, rows, eval_rows, notes, mesh=mesh)._replace(service=service)
        notes += check_service(service, config, prepared)
        with own_folder(shared) as folder, hold_run(folder.root), Reporter(out, log=folder.log) as reporter:
            for note in notes:
                reporter.say(note)
            if service is not None:
                service.tell(reporter.say)
            result = Session(_work(config, prepared), folder, reporter, shared.checkpoints).execute(inputs)
            return result._replace(folder=shared.root, checkpoint=shared.final)


def check_service(service: TinkerService | None, config: SftConfig, prepared: Prepared) -> list[str]:
    """What a service's bill may come to. Raises InputError for examples that are too long for its model."""
    if service is None:
        return []
    service.check_length(prepared.max_segment + 1, "an example")
    eval_tokens = sum(int((batch.segments_BT > 0).sum()) for batch in prepared.eval_batches)
    tokens = supervised_tokens(config, prepared.plan, prepared.num_steps, eval_tokens)
    return [estimate(service.offer.name, service.where, tokens)]


def output_folder(config: SftConfig, output: Path | None) -> Path:
    """The run folder that `--output` or the configuration names. Raises InputError when neither does."""
    if output is None and config.output.folder is None:
        raise InputError("--output: no run folder; give --output DIR, or training.output_dir in the config")
    return output or Path(str(config.output.folder))


def prepare(
    config: SftConfig,
    rows: TrainingData,
    eval_rows: TrainingData | None,
    notes: list[str],
    *,
    mesh: Mesh | None = None,
) -> Prepared:
    """Load the model, onto `mesh` where there is one, and tokenise every row; what a person should know is appended to
    `notes`."""
    use_compile_cache()
    model = load_base(config, mesh=mesh)
    notes += [told for told in (rows.left_out, eval_rows and eval_rows.left_out) if told]
    fitted = tokenize(rows.rows, model.tokenizer, config, say=notes.append)
    examples, parts = fitted.examples, parts_of(rows.files, fitted)
    plan = StepPlan.from_config(config, examples, pad_id=model.tokenizer.pad_id, parts=parts)
    notes += mix_told(rows.files, parts)
    num_steps = config.training.num_steps or count_steps(plan.epoch, num_epochs=config.training.num_epochs)
    notes.append(
        f"{len(examples)} examples, {sum(example.num_targets for example in examples)} trained tokens, "
        f"{len(plan.epoch(0))} steps an epoch, {num_steps} steps"
    )
    if eval_rows is None:
        return Prepared(model, plan, num_steps, (), plan.longest, mesh)
    held_out = plan.in_order(tokenize(eval_rows.rows, model.tokenizer, config, say=notes.append).examples)
    steps = held_out.epoch(0)
    eval_batches = tuple(batch for index in range(len(steps)) for batch in steps[index])
    longest = max(plan.longest, held_out.longest)
    return Prepared(model, plan, num_steps, eval_batches, longest, mesh, held_out=held_out)


def _work(config: SftConfig, prepared: Prepared) -> Work:
    def steps(backend: Backend, start: Position) -> Iterator[StepInfo]:
        return train_sft(
            backend,
            prepared.plan.epoch,
            num_steps=prepared.num_steps,
            start=start,
            eval_batches=prepared.eval_batches,
            eval_every=config.training.eval_every,
        )

    described = {**model_facts(prepared.model), "num_examples": len(prepared.plan.examples), **backend_facts(config)}
    return Work(
        config.training,
        to_yaml(config),
        described,
        prepared.num_steps,
        partial(_open_backend, config, prepared),
        steps,
        prepared.service,
    )


def _open_backend(config: SftConfig, prepared: Prepared) -> Backend:
    model = prepared.model
    if isinstance(model, ServedModel):
        from tracetune.backends.tinker import TinkerBackend

        assert prepared.service is not None, "a model that is served has a service"
        return TinkerBackend(prepared.service, model, config, num_steps=prepared.num_steps)
    if config.backend == "tunix":
        from tracetune.backends.tunix import TunixBackend

        return TunixBackend(model, config, num_steps=prepared.num_steps)
    return LocalBackend(
        model,
        config,
        num_steps=prepared.num_steps,
        max_segment=prepared.max_segment,
        mesh=prepared.mesh,
    )
