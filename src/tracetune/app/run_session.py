"""One session of one run: steps taken, metrics logged, checkpoints saved, the manifest kept true, whatever happens.

Killed at any moment and run again, it ends with the same weights and metrics as if it had never stopped.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tracetune.app.followers import settle_stop
from tracetune.app.kept_session import KeptSession, due, finished_before
from tracetune.app.manifest import (
    folder_hashes,
)
from tracetune.app.progress import Meter, Reporter
from tracetune.app.runs import MetricsFile, RunFolder, read_metrics
from tracetune.app.stop import StopRequest, stop_requests
from tracetune.app.tinker_bill import spent, told_cost
from tracetune.backends.protocol import Saved
from tracetune.backends.tinker_service import TinkerService
from tracetune.config.schema import TrainingSettings
from tracetune.core.ids import utc_now
from tracetune.engine import hosts
from tracetune.train.info import Position, StepInfo


class RunResult(NamedTuple):
    """How a run ended. `signal_number` is set when a signal asked it to stop; run again to go on."""

    folder: Path
    status: Literal["finished", "interrupted", "already finished"]
    checkpoint: Path
    num_steps: int
    loss: float | None = None
    signal_number: int | None = None


class Work(NamedTuple):
    """What a run does: `steps` takes those after a position on the backend that `open_backend` made.

    `settings` is what `config.yaml` holds; `described` goes into the manifest. `service` trains where this machine
    does not.
    """

    training: TrainingSettings
    settings: str
    described: Mapping[str, Any]
    num_steps: int
    open_backend: Callable[[], Saved]
    steps: Callable[[Any, Position], Iterator[StepInfo]]
    service: TinkerService | None = None


def finished(folder: RunFolder, inputs: Mapping[str, Any]) -> RunResult | None:
    """The result of a run that ended before, None when there is something to do. Raises Conflict."""
    manifest = finished_before(folder, inputs)
    if manifest is None:
        return None
    result = manifest["result"]
    return RunResult(folder.root, "already finished", folder.final, result["steps"], result["loss"])


class Session(KeptSession[RunResult]):
    """One session of one run: what is written when. Held by the process that holds the run's lock."""

    def __init__(self, work: Work, folder: RunFolder, reporter: Reporter, checkpoints: Path) -> None:
        super().__init__(
            folder,
            checkpoints,
            reporter,
            settings=work.settings,
            described={**work.described, "num_steps": work.num_steps},
            max_checkpoints=work.training.max_checkpoints,
        )
        self.work = work

    def _train(self) -> RunResult:
        backend = self.work.open_backend()
        meta = backend.restore(self.checkpoints, warn=self.reporter.say)
        position = Position(**meta["position"]) if meta else Position()
        self.manifest["sessions"][-1]["from_step"] = position.step
        if meta:
            self.reporter.say(f"resumed after step {position.step}")
        keep_bytes = meta["metrics_bytes"] if meta and hosts.leads() else 0
        self.reporter.begin(self.work.num_steps, step=position.step)
        with stop_requests() as stop, closing(MetricsFile(self.folder.metrics, keep_bytes=keep_bytes)) as metrics:
            position = self._steps(backend, position, metrics, stop)
        if position.step < self.work.num_steps:
            return RunResult(
                self.folder.root, "interrupted", self.folder.final, position.step, signal_number=stop.signal_number
            )
        return self._finish(backend)

    def _steps(self, backend: Saved, position: Position, metrics: MetricsFile, stop: StopRequest) -> Position:
        """Take steps until the last or until asked to stop; every one of them ends in a state that can be saved."""
        training, num_steps = self.work.training, self.work.num_steps
        meter, began = Meter(num_steps), time.monotonic()
        for info in self.work.steps(backend, position):
            position, step = info.position, info.position.step
            meter.tick(info.tokens)
            is_last = step == num_steps
            is_logged = is_last or step == 1 or due(step, training.logging_every) or info.eval_loss is not None
            row = _metrics_row(info, meter) | spent(self.work.service)
            if is_logged:
                metrics.append(row)
            self.reporter.step(step, _told(info, meter) + told_cost(row), logged=is_logged)
            settle_stop(stop)
            if is_last or due(step, training.save_every) or stop.signal_number is not None:
                self._save(backend, step, {"position": position._asdict()}, metrics)
            if stop.signal_number is not None:
                break
        self.manifest["durations"]["training_seconds"] += round(time.monotonic() - began, 3)
        return position

    def _finish(self, backend: Saved) -> RunResult:
        backend.export(self.folder.final)
        rows = read_metrics(self.folder.metrics)
        result = {"steps": rows[-1]["step"], "loss": rows[-1]["loss"], "tokens": rows[-1]["tokens"]}
        self.manifest |= {"result": result, "files": folder_hashes(self.folder.final) if hosts.leads() else {}}
        return RunResult(self.folder.root, "finished", self.folder.final, result["steps"], result["loss"])


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
        **info.told,
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
