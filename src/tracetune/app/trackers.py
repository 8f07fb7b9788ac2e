"""Where a run's numbers go beside `metrics.jsonl`: TensorBoard always, W&B when configured.

A tracker that fails is told about once and left out from then on; it never stops a run.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tracetune.app import wandb_run
from tracetune.app.tensorboard import TensorBoard
from tracetune.config.grpo_schema import TrackingSettings

FOLDER = "tensorboard"
Warn = Callable[[str], None]


class Tracker(Protocol):
    """Somewhere to send numbers; `errors` are what it may raise."""

    @property
    def name(self) -> str:
        """What a warning calls it."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What it may raise, none of it fatal."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take one step's numbers."""
        ...

    def close(self) -> None:
        """Make sure of what was taken."""
        ...


class Trackers:
    """All trackers of one run as one."""

    def __init__(self, trackers: Iterable[Tracker], *, warn: Warn) -> None:
        self._trackers = list(trackers)
        self._warn = warn

    @classmethod
    def open(
        cls, folder: Path, settings: TrackingSettings, config: Mapping[str, Any], *, step: int = 0, warn: Warn
    ) -> "Trackers":
        """The trackers of the run in `folder`, which goes on after `step`. What cannot be opened is told to `warn`."""
        trackers: list[Tracker] = []
        log_dir = Path(settings.log_dir) if settings.log_dir else folder / FOLDER
        try:
            trackers.append(TensorBoard(log_dir, config, step=step))
        except TensorBoard.errors as error:
            warn(_left_out(TensorBoard.name, error))
        if wandb_run.is_wanted(settings, os.environ):
            trackers += _open_wandb(folder, settings, config, warn)
        return cls(trackers, warn=warn)

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Send one step's numbers; what is None was not measured."""
        numbers = {name: float(value) for name, value in metrics.items() if value is not None}
        self._each(lambda tracker: tracker.log(step, numbers))

    def close(self) -> None:
        """Let every tracker finish."""
        self._each(lambda tracker: tracker.close())
        self._trackers = []

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self._trackers):
            try:
                act(tracker)
            except tracker.errors as error:
                self._trackers.remove(tracker)
                self._warn(_left_out(tracker.name, error))


def _open_wandb(folder: Path, settings: TrackingSettings, config: Mapping[str, Any], warn: Warn) -> list[Tracker]:
    try:
        return [wandb_run.WandbRun(folder, settings, config)]
    except ImportError:
        warn(f"W&B: is configured and not installed; {wandb_run.INSTALL}, or wandb_disabled=true; the run goes on")
    except wandb_run.ERRORS as error:
        warn(_left_out(wandb_run.WandbRun.name, error))
    return []


def _left_out(name: str, error: Exception) -> str:
    """One line, and no key in it."""
    told = " ".join(str(error).split()) or type(error).__name__
    key = os.environ.get("WANDB_API_KEY")
    if key:
        told = told.replace(key, "…")
    return f"{name}: {told}; left out from here on, metrics.jsonl has every step"
