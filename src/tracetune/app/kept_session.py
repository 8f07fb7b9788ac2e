"""What every session of a run keeps, whatever it trains: the manifest says how the run stands, whatever happens."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tracetune.app.manifest import end_session
from tracetune.app.progress import Reporter
from tracetune.app.runs import MetricsFile, RunFolder
from tracetune.backends.protocol import Saved
from tracetune.core.errors import StorageError
from tracetune.engine import hosts
from tracetune.engine.checkpoint import checkpoint_folder, clear_partials, keep_newest


class Ended(Protocol):
    """What is told of any session's end. `signal_number` is set when a signal asked it to stop."""

    @property
    def status(self) -> str: ...
    @property
    def num_steps(self) -> int: ...
    @property
    def signal_number(self) -> int | None: ...


Result = TypeVar("Result", bound=Ended)


class KeptSession(ABC, Generic[Result]):
    """One session of one run, held by the process that holds the run's lock."""

    manifest: dict[str, Any]

    def __init__(self, folder: RunFolder, checkpoints: Path, reporter: Reporter, *, max_checkpoints: int) -> None:
        self.folder, self.checkpoints, self.reporter = folder, checkpoints, reporter
        self.max_checkpoints = max_checkpoints
        self.started = time.monotonic()

    @abstractmethod
    def _open_manifest(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest of this run, new or gone on with, with this session begun in it."""

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
