"""What every session of a run keeps, whatever it trains: the manifest says how the run stands, whatever happens."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tracetune.app.manifest import (
    begin_manifest,
    begin_session,
    describe_machine,
    end_session,
    first_input_difference,
    first_machine_difference,
)
from tracetune.app.progress import Reporter
from tracetune.app.runs import MetricsFile, RunFolder, read_manifest
from tracetune.backends.protocol import Saved
from tracetune.core.durable import write_durably
from tracetune.core.errors import Conflict, StorageError
from tracetune.engine import hosts
from tracetune.engine.checkpoint import checkpoint_folder, clear_partials, keep_newest

OTHER_OUTPUT = "or choose another --output"


class Ended(Protocol):
    """What is told of any session's end. `signal_number` is set when a signal asked it to stop."""

    @property
    def status(self) -> str: ...
    @property
    def num_steps(self) -> int: ...
    @property
    def signal_number(self) -> int | None: ...


def finished_before(
    folder: RunFolder, inputs: Mapping[str, Any], advice: str = OTHER_OUTPUT
) -> Mapping[str, Any] | None:
    """The manifest of a run that has finished, None when there is something to do. Raises Conflict."""
    manifest = read_manifest(folder.manifest)
    if manifest is None:
        return None
    check_same(folder, manifest, inputs, advice)
    return manifest if manifest["status"] == "finished" and folder.final.is_dir() else None


def check_same(
    folder: RunFolder, before: Mapping[str, Any], now: Mapping[str, Any], advice: str = OTHER_OUTPUT
) -> None:
    """Raises Conflict naming the first difference, unless two manifests are of one run."""
    if "status" not in before:
        raise Conflict(f"{folder.manifest}: was written by another program; {advice.removeprefix('or ')}")
    if told := first_input_difference(before, now):
        raise Conflict(f"{folder.root}: holds another run: {told}; go on with what it was started with, {advice}")


Result = TypeVar("Result", bound=Ended)


class KeptSession(ABC, Generic[Result]):
    """One session of one run, held by the process that holds the run's lock."""

    manifest: dict[str, Any]

    def __init__(
        self,
        folder: RunFolder,
        checkpoints: Path,
        reporter: Reporter,
        *,
        settings: str,
        described: Mapping[str, Any],
        max_checkpoints: int,
    ) -> None:
        self.folder, self.checkpoints, self.reporter = folder, checkpoints, reporter
        self.settings, self.described, self.max_checkpoints = settings, described, max_checkpoints
        self.started = time.monotonic()

    @abstractmethod
    def _train(self) -> Result:
        """Train to the end, or until asked to stop."""

    def execute(self, inputs: Mapping[str, Any]) -> Result:
        """Open the folder, train, close it."""
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
        signal_number = result.signal_number
        reason = None if signal_number is None else f"stopped by signal {signal_number}; run again to resume"
        self._close_manifest(result.status, reason)
        self.reporter.record(f"{result.status} after step {result.num_steps}")
        return result

    def _open_manifest(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest of this run, new or gone on with, with this session begun in it. Raises Conflict."""
        # Read again under the lock: another trainer may have begun between the first look and now.
        manifest = read_manifest(self.folder.manifest)
        if manifest is None:
            manifest = begin_manifest(self.folder, inputs, self.described)
            write_durably(self.folder.config, self.settings.encode())
        else:
            check_same(self.folder, manifest, {**inputs, **self.described})
            if told := first_machine_difference(manifest, describe_machine()):
                self.reporter.say(f"warning: resumed elsewhere, the last bits may differ: {told}")
        begin_session(self.folder.manifest, manifest)
        return manifest

    def _close_manifest(self, status: str, reason: str | None) -> None:
        seconds = time.monotonic() - self.started
        end_session(self.folder.manifest, self.manifest, status=status, reason=reason, seconds=seconds)

    def _save(self, backend: Saved, step: int, where: Mapping[str, Any], metrics: MetricsFile) -> None:
        """Metrics first: a checkpoint must not promise lines that a power cut could take back."""
        folder = checkpoint_folder(self.checkpoints, step)
        backend.snapshot(folder, {**where, "metrics_bytes": metrics.sync()})
        if hosts.leads():
            keep_newest(self.checkpoints, folder, self.max_checkpoints)


def due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps happens now; 0 is never."""
    return every > 0 and step % every == 0
