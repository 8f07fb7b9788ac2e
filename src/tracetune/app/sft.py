"""Supervised fine-tuning as a person asks for it: one run folder, resumed where it stopped, finished once.

Killed at any moment and run again, it ends with the same weights and metrics as if it had never stopped.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from jax.sharding import Mesh

from tracetune.app.backend_choice import backend_facts, load_base, model_facts, reached, require_backend
from tracetune.app.compile_cache import use_compile_cache
from tracetune.app.experiment_readme import kept_readme
from tracetune.app.followers import own_folder, own_stream, settle_stop
from tracetune.app.manifest import (
    begin_manifest,
    begin_session,
    describe_inputs,
    describe_machine,
    end_session,
    first_input_difference,
    first_machine_difference,
    folder_hashes,
    named,
)
from tracetune.app.memory import check_memory
from tracetune.app.progress import Meter, Reporter
from tracetune.app.runs import MetricsFile, RunFolder, hold_run, read_manifest, read_metrics
from tracetune.app.stop import StopRequest, stop_requests
from tracetune.app.tinker_bill import estimate, spent, supervised_tokens, told_cost
from tracetune.app.training_data import TrainingData, read_eval_rows, read_training_data, tokenize
from tracetune.backends.local import LocalBackend
from tracetune.backends.protocol import Backend
from tracetune.backends.tinker_service import TinkerService
from tracetune.config.resolve import to_yaml
from tracetune.config.schema import SftConfig
from tracetune.core.durable import write_durably
from tracetune.core.errors import Conflict, InputError, StorageError
from tracetune.core.ids import utc_now
from tracetune.core.values import Batch
from tracetune.engine import hosts
from tracetune.engine.checkpoint import checkpoint_folder, clear_partials, keep_newest
from tracetune.engine.mesh import make_mesh
from tracetune.models.model import Model
from tracetune.models.served import ServedModel
from tracetune.train.info import Position, StepInfo
from tracetune.train.sft import count_steps, train_sft
from tracetune.train.steps import StepPlan


class SftResult(NamedTuple):
    """How a run ended. `signal_number` is set when a signal asked it to stop; run again to go on."""

    folder: Path
    status: Literal["finished", "interrupted", "already finished"]
    checkpoint: Path
    num_steps: int
    loss: float | None = None
    signal_number: int | None = None


class Prepared(NamedTuple):
    """Everything a loop needs, checked and in memory. `service` trains where this machine does not."""

    model: Model | ServedModel
    plan: StepPlan
    num_steps: int
    eval_batches: tuple[Batch, ...]
    max_segment: int
    mesh: Mesh | None = None
    service: TinkerService | None = None


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
    """Train, or go on with the run in `output`; progress goes to `stream` (stderr) and the run's log.

    `run_id` None gives a run that begins an id of its own.

    Raises Conflict when the folder holds a run of other settings or data, or another process trains in it;
    Diverged when the loss is not finite; StorageError when the disk refuses (earlier checkpoints stay); and
    what reading the data and the model raises. Nothing is written before both are read. One of several processes
    (`engine.hosts`) raises Unavailable when another is lost.
    """
    require_backend(config)
    shared = RunFolder(output_folder(config, output), config.output)
    with kept_readme(shared.root), hosts.together(), own_stream(stream or sys.stderr) as out:
        mesh = make_mesh(config.model.mesh) if config.backend == "local" else None
        rows = read_training_data(config, data=data, dataset=dataset, max_samples=max_samples, home=home)
        eval_rows = read_eval_rows(config)
        inputs = describe_inputs(config, rows, eval_rows, max_samples=max_samples) | named(run_id)
        if done := _finished(shared, inputs):
            out.write(f"{shared.root}: this run is finished; choose another --output to train again\n")
            return done
        check_memory(config)
        notes: list[str] = []
        with reached(config, notes.append) as service:
            prepared = prepare(config, rows, eval_rows, notes, mesh=mesh)._replace(service=service)
            notes += _check_service(service, config, prepared)
            with own_folder(shared) as folder, hold_run(folder.root), Reporter(out, log=folder.log) as reporter:
                for note in notes:
                    reporter.say(note)
                if service is not None:
                    service.tell(reporter.say)
                result = _Run(config, folder, prepared, reporter, shared.checkpoints).execute(inputs)
                return result._replace(folder=shared.root, checkpoint=shared.final)


def _check_service(service: TinkerService | None, config: SftConfig, prepared: Prepared) -> list[str]:
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
    examples = tokenize(rows.rows, model.tokenizer, config, say=notes.append)
    plan = StepPlan.from_config(config, examples, pad_id=model.tokenizer.pad_id)
    num_steps = config.training.num_steps or count_steps(plan.epoch, num_epochs=config.training.num_epochs)
    notes.append(
        f"{len(examples)} examples, {sum(example.num_targets for example in examples)} trained tokens, "
        f"{len(plan.epoch(0))} steps an epoch, {num_steps} steps"
    )
    if eval_rows is None:
        return Prepared(model, plan, num_steps, (), plan.longest, mesh)
    held_out = plan.in_order(tokenize(eval_rows.rows, model.tokenizer, config, say=notes.append))
    steps = held_out.epoch(0)
    eval_batches = tuple(batch for index in range(len(steps)) for batch in steps[index])
    return Prepared(model, plan, num_steps, eval_batches, max(plan.longest, held_out.longest), mesh)


def _finished(folder: RunFolder, inputs: Mapping[str, Any]) -> SftResult | None:
    """The result of a run that ended before, None when there is something to do. Raises Conflict."""
    manifest = read_manifest(folder.manifest)
    if manifest is None:
        return None
    check_same(folder, manifest, inputs)
    if manifest["status"] != "finished" or not folder.final.is_dir():
        return None
    result = manifest["result"]
    return SftResult(folder.root, "already finished", folder.final, result["steps"], result["loss"])


def check_same(
    folder: RunFolder, before: Mapping[str, Any], now: Mapping[str, Any], advice: str = "or choose another --output"
) -> None:
    """Raises Conflict naming the first difference, unless two manifests are of one run."""
    if "status" not in before:
        raise Conflict(f"{folder.manifest}: was written by another program; {advice.removeprefix('or ')}")
    if told := first_input_difference(before, now):
        raise Conflict(f"{folder.root}: holds another run: {told}; go on with what it was started with, {advice}")


class _Run:
    """One session of one run: what is written when. Held by the process that holds the run's lock."""

    def __init__(
        self, config: SftConfig, folder: RunFolder, prepared: Prepared, reporter: Reporter, checkpoints: Path
    ) -> None:
        self.config, self.folder, self.prepared, self.reporter = config, folder, prepared, reporter
        self.checkpoints = checkpoints
        self.started = time.monotonic()

    def execute(self, inputs: Mapping[str, Any]) -> SftResult:
        """Open the folder, train, close it: whatever happens, the manifest says how it stands."""
        clear_partials(self.folder.root)
        if hosts.leads():
            clear_partials(self.checkpoints)
        self.manifest = self._open_manifest(inputs)
        try:
            result = self._train()
        except BaseException as error:
            with suppress(StorageError):
                self._close_manifest("failed", f"{type(error).__name__}: {error}")
            raise
        self._close_manifest(result.status, _reason(result))
        self.reporter.record(f"{result.status} after step {result.num_steps}")
        return result

    def _open_manifest(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        model = self.prepared.model
        described = {
            **model_facts(model),
            "num_steps": self.prepared.num_steps,
            "num_examples": len(self.prepared.plan.examples),
            **backend_facts(self.config),
        }
        # Read again under the lock: another trainer may have begun between the first look and now.
        manifest = read_manifest(self.folder.manifest)
        if manifest is None:
            manifest = begin_manifest(self.folder, inputs, described)
            write_durably(self.folder.config, to_yaml(self.config).encode())
        else:
            check_same(self.folder, manifest, {**inputs, **described})
            if told := first_machine_difference(manifest, describe_machine()):
                self.reporter.say(f"warning: resumed elsewhere, the last bits may differ: {told}")
        begin_session(self.folder.manifest, manifest)
        return manifest

    def _close_manifest(self, status: str, reason: str | None) -> None:
        seconds = time.monotonic() - self.started
        end_session(self.folder.manifest, self.manifest, status=status, reason=reason, seconds=seconds)

    def _train(self) -> SftResult:
        backend = self._open_backend()
        meta = backend.restore(self.checkpoints, warn=self.reporter.say)
        position = Position(**meta["position"]) if meta else Position()
        self.manifest["sessions"][-1]["from_step"] = position.step
        if meta:
            self.reporter.say(f"resumed after step {position.step}")
        keep_bytes = meta["metrics_bytes"] if meta and hosts.leads() else 0
        self.reporter.begin(self.prepared.num_steps, step=position.step)
        with stop_requests() as stop, closing(MetricsFile(self.folder.metrics, keep_bytes=keep_bytes)) as metrics:
            position = self._steps(backend, position, metrics, stop)
        if position.step < self.prepared.num_steps:
            return SftResult(
                self.folder.root, "interrupted", self.folder.final, position.step, signal_number=stop.signal_number
            )
        return self._finish(backend)

    def _open_backend(self) -> Backend:
        prepared, model = self.prepared, self.prepared.model
        if isinstance(model, ServedModel):
            from tracetune.backends.tinker import TinkerBackend

            assert prepared.service is not None, "a model that is served has a service"
            return TinkerBackend(prepared.service, model, self.config, num_steps=prepared.num_steps)
        if self.config.backend == "tunix":
            from tracetune.backends.tunix import TunixBackend

            return TunixBackend(model, self.config, num_steps=prepared.num_steps)
        return LocalBackend(
            model,
            self.config,
            num_steps=prepared.num_steps,
            max_segment=prepared.max_segment,
            mesh=prepared.mesh,
        )

    def _steps(self, backend: Backend, position: Position, metrics: MetricsFile, stop: StopRequest) -> Position:
        """Take steps until the last or until asked to stop; every one of them ends in a state that can be saved."""
        training, num_steps = self.config.training, self.prepared.num_steps
        meter, began = Meter(num_steps), time.monotonic()
        loop = train_sft(
            backend,
            self.prepared.plan.epoch,
            num_steps=num_steps,
            start=position,
            eval_batches=self.prepared.eval_batches,
            eval_every=training.eval_every,
        )
        for info in loop:
            position, step = info.position, info.position.step
            meter.tick(info.tokens)
            is_last = step == num_steps
            is_logged = is_last or step == 1 or _due(step, training.logging_every) or info.eval_loss is not None
            row = _metrics_row(info, meter) | spent(self.prepared.service)
            if is_logged:
                metrics.append(row)
            self.reporter.step(step, _told(info, meter) + told_cost(row), logged=is_logged)
            settle_stop(stop)
            if is_last or _due(step, training.save_every) or stop.signal_number is not None:
                self._save(backend, position, metrics)
            if stop.signal_number is not None:
                break
        self.manifest["durations"]["training_seconds"] += round(time.monotonic() - began, 3)
        return position

    def _save(self, backend: Backend, position: Position, metrics: MetricsFile) -> None:
        """Metrics first: a checkpoint must not promise lines that a power cut could take back."""
        folder = checkpoint_folder(self.checkpoints, position.step)
        backend.snapshot(folder, {"position": position._asdict(), "metrics_bytes": metrics.sync()})
        if hosts.leads():
            keep_newest(self.checkpoints, folder, self.config.training.max_checkpoints)

    def _finish(self, backend: Backend) -> SftResult:
        backend.export(self.folder.final)
        rows = read_metrics(self.folder.metrics)
        result = {"steps": rows[-1]["step"], "loss": rows[-1]["loss"], "tokens": rows[-1]["tokens"]}
        self.manifest |= {"result": result, "files": folder_hashes(self.folder.final) if hosts.leads() else {}}
        return SftResult(self.folder.root, "finished", self.folder.final, result["steps"], result["loss"])


def _reason(result: SftResult) -> str | None:
    return None if result.signal_number is None else f"stopped by signal {result.signal_number}; run again to resume"


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _metrics_row(info: StepInfo, meter: Meter) -> dict[str, Any]:
    """One line of metrics.jsonl; `tokens` counts from the beginning of the run, padding left out."""
    row = {
        "step": info.position.step,
        "epoch": info.position.epoch,
        "loss": info.metrics.loss,
        "learning_rate": info.metrics.learning_rate,
        **({} if info.metrics.grad_norm is None else {"grad_norm": info.metrics.grad_norm}),
        "tokens": info.position.tokens,
        "targets": info.metrics.num_targets,
    }
    if info.eval_loss is not None:
        row["eval_loss"] = info.eval_loss
    return row | {"tokens_per_second": round(meter.tokens_per_second, 1), "timestamp": utc_now()}


def _told(info: StepInfo, meter: Meter) -> str:
    evaluated = f" · eval loss {info.eval_loss:.4f}" if info.eval_loss is not None else ""
    return (
        f"loss {info.metrics.loss:.4f}{evaluated} · lr {info.metrics.learning_rate:.2e} · "
        f"{meter.tokens_per_second:,.0f} tokens/s · ETA {meter.eta(info.position.step)}"
    )
