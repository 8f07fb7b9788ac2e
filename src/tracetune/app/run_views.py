"""A run as the doors show it: its row in the queue beside what it has written so far."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracetune.app import run_files
from tracetune.app.run_files import Alarm
from tracetune.store.runs import State, StoredRun

STATES: tuple[State, ...] = ("queued", "running", "finished", "failed", "cancelled")
ENDED: tuple[State, ...] = ("finished", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class RunView:
    """One run in a list. `queue_position` is 1 for the next to begin, None once it has begun.

    `step` of `num_steps`, and `metrics`, the newest logged line, are those of a run that trains; None before.
    `model` is a reference, `tiny` or `run:ID`, never a path.
    """

    run_id: str
    kind: str
    name: str
    state: State
    queue_position: int | None
    model: str | None
    dataset: str | None
    eval_set: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    attempts: int
    cancel_requested: bool
    exit_code: int | None
    exit_reason: str | None
    step: int | None
    num_steps: int | None
    metrics: Mapping[str, Any]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be written."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class RunDetail:
    """Everything about one run. `overrides` are the words it was launched with, `config` every dial with its value.

    `manifest` says on what it ran and with which result; its paths are left out. `phase` is what it does now.
    """

    run: RunView
    overrides: Sequence[str]
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    phase: str
    peak_rss_bytes: int | None
    alarms: Sequence[Alarm]


def to_json(value: RunView | RunDetail) -> dict[str, Any]:
    """Plain JSON values; a detail is its run with more fields beside."""
    if isinstance(value, RunView):
        return asdict(value)
    whole = {name: getattr(value, name) for name in ("overrides", "config", "manifest", "phase", "peak_rss_bytes")}
    return {**asdict(value.run), **whole, "alarms": [alarm._asdict() for alarm in value.alarms]}


def viewed(stored: StoredRun, place: int | None, root: Path) -> RunView:
    """A run as it stands, with what it has written under `root`; `place` is its place in the queue."""
    newest = run_files.newest_row(root) or {}
    return RunView(
        run_id=stored.run_id,
        kind=stored.kind,
        name=stored.name,
        state=stored.state,
        queue_position=place,
        model=stored.spec.get("model"),
        dataset=stored.dataset_key,
        eval_set=stored.spec.get("eval_set"),
        created_at=stored.created_at,
        started_at=stored.started_at,
        finished_at=stored.finished_at,
        attempts=stored.attempts,
        cancel_requested=stored.cancel_requested,
        exit_code=stored.exit_code,
        exit_reason=stored.exit_reason,
        step=newest.get("step"),
        num_steps=run_files.read_run_manifest(root).get("num_steps"),
        metrics=newest,
    )


def phase_of(view: RunView, manifest: Mapping[str, Any]) -> str:
    """What a run does now, in one word or two."""
    if view.state != "running":
        return view.state
    if view.cancel_requested:
        return "stopping"
    if not manifest and view.kind != "evaluation":
        return "loading"
    if view.step is None:
        return "answering" if view.kind == "evaluation" else "compiling"
    return "saving" if view.step == view.num_steps else "training"
