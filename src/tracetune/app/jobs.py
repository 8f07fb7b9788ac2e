"""Runs as every door sees them: launched by ids, listed, followed, cancelled, resumed, compared. No JAX here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app import run_files
from tracetune.app.rollouts import read_rollouts, recorded_steps
from tracetune.app.run_comparison import RunComparison, compare
from tracetune.app.run_files import Alarm, Artifact, LogChunk
from tracetune.app.run_settings import RUN_KINDS, Asked, settle
from tracetune.app.run_views import ENDED, STATES, RunDetail, RunView, phase_of, to_json, viewed
from tracetune.core.errors import InputError, NotFound
from tracetune.core.home import home_folder
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.store import runs as records
from tracetune.store.datasets import list_datasets
from tracetune.store.evalsets import iter_evalsets
from tracetune.store.open import Store, open_store
from tracetune.store.runs import NewRun, RunFilter, State, StoredRun

__all__ = [
    "ENDED",
    "RUN_KINDS",
    "STATES",
    "Alarm",
    "Artifact",
    "LogChunk",
    "RunComparison",
    "RunDetail",
    "RunView",
    "State",
    "to_json",
]

MAX_NAME_CHARS = 128
MAX_COMPARED = 8
MAX_METRICS = 10_000


class RunRollouts(NamedTuple):
    """One step's rollouts, grouped by problem in their order; `steps` are those that are kept."""

    steps: list[int]
    step: int
    groups: dict[str, list[dict[str, Any]]]


def launch(
    kind: str,
    overrides: Sequence[str] = (),
    *,
    dataset: str | None = None,
    model: str | None = None,
    eval_set: str | None = None,
    name: str | None = None,
    request_key: str | None = None,
    home: Path | None = None,
) -> RunView:
    """Queue a run. `overrides` are the words of `tracetune sft`, of `run_training.py`, or an evaluation's dials.

    The same `request_key` again gives the run that it began. Raises InputError listing every mistake, words that
    name files or code among them; NotFound for a dataset, eval set or model that is not there; Conflict.
    """
    spec = settle(Asked(kind, tuple(overrides), dataset, model, eval_set))
    called = _name(name, spec)
    with open_store(home) as store:
        _check_exists(store, spec, home)
        stored = records.enqueue_run(store, NewRun(kind, called, spec, dataset, request_key))
        return _view(store, stored, home)


def list_runs(
    *,
    limit: int = 20,
    cursor: str | None = None,
    state: str | None = None,
    kind: str | None = None,
    dataset: str | None = None,
    q: str | None = None,
    home: Path | None = None,
) -> Page[RunView]:
    """Runs, newest first; `q` is a part of the name or the beginning of the id. Raises InputError."""
    for what, value, known in (("state", state, STATES), ("kind", kind, RUN_KINDS)):
        if value is not None and value not in known:
            raise InputError(f"{what}: must be one of {', '.join(known)}, got {value[:40]!r}")
    before = None if cursor is None else decode_cursor(cursor)
    with open_store(home) as store:
        found = records.list_runs(store, limit=limit + 1, before=before, chosen=RunFilter(state, kind, dataset, q))
        places = records.queue_positions(store) if any(run.state == "queued" for run in found) else {}
    shown = found[:limit]
    next_cursor = encode_cursor(shown[-1].seq) if len(found) > limit else None
    return Page([viewed(run, places.get(run.run_id), _root(run, home)) for run in shown], next_cursor)


def get_run(run_id: str, home: Path | None = None) -> RunView:
    """One run as a list shows it. Raises NotFound."""
    with open_store(home) as store:
        return _view(store, records.get_run(store, run_id), home)


def run_detail(run_id: str, home: Path | None = None) -> RunDetail:
    """Everything about one run. Raises NotFound."""
    with open_store(home) as store:
        stored = records.get_run(store, run_id)
        view = _view(store, stored, home)
    root = _root(stored, home)
    manifest = run_files.read_run_manifest(root)
    return RunDetail(
        run=view,
        overrides=stored.spec.get("overrides") or [],
        config=stored.spec.get("config") or {},
        manifest=run_files.told_manifest(manifest, home_folder(home)),
        phase=phase_of(view, manifest),
        peak_rss_bytes=run_files.read_pulse(root).get("peak_rss_bytes"),
        alarms=run_files.read_alarms(root),
    )


def run_metrics(
    run_id: str, *, after_step: int = 0, limit: int = MAX_METRICS, home: Path | None = None
) -> list[dict[str, Any]]:
    """The logged lines of the steps after `after_step`, in order. Raises NotFound."""
    return run_files.read_rows(run_folder(run_id, home), after_step=after_step, limit=limit)


def run_alarms(run_id: str, home: Path | None = None) -> list[Alarm]:
    """What looked wrong so far, in the order it was told. Raises NotFound."""
    return run_files.read_alarms(run_folder(run_id, home))


def run_folder(run_id: str, home: Path | None = None) -> Path:
    """Where a run keeps its files, there or not yet. Raises NotFound for a run that is not recorded."""
    with open_store(home) as store:
        return _root(records.get_run(store, run_id), home)


def cancel(run_id: str, home: Path | None = None) -> RunView:
    """Ask a run to stop: at once while it waits, at the edge of a step or after seconds while it works.

    Raises NotFound, Conflict for one that has ended by itself.
    """
    with open_store(home) as store:
        return _view(store, records.request_cancel(store, run_id), home)


def resume(run_id: str, home: Path | None = None) -> RunView:
    """Queue a failed or cancelled run again; it goes on from its last checkpoint. Raises NotFound, Conflict."""
    with open_store(home) as store:
        return _view(store, records.queue_again(store, run_id), home)


def artifacts(run_id: str, home: Path | None = None) -> list[Artifact]:
    """The files of a run that may be fetched. Raises NotFound."""
    return run_files.list_artifacts(run_folder(run_id, home))


def open_artifact(run_id: str, artifact_id: str, home: Path | None = None) -> Path:
    """The file that an artifact's id stands for. Raises NotFound."""
    return run_files.artifact_path(run_folder(run_id, home), artifact_id)


def read_log(run_id: str, *, offset: int = 0, home: Path | None = None) -> tuple[LogChunk, State]:
    """The whole lines of the log from byte `offset` on, and the run's state before they were read. Raises NotFound."""
    with open_store(home) as store:
        stored = records.get_run(store, run_id)
    ended = stored.state in ENDED
    return run_files.read_log(_root(stored, home), offset=offset, ended=ended), stored.state


def log_chunks(run_id: str, home: Path | None = None) -> Iterator[bytes]:
    """The whole log as it stands now. Raises NotFound."""
    return run_files.iter_log(run_folder(run_id, home))


def compare_runs(ids: Sequence[str], home: Path | None = None) -> RunComparison:
    """What was asked differently of 2 to 8 runs, and their curves. Raises InputError, NotFound."""
    if not 2 <= len(ids) <= MAX_COMPARED or len(set(ids)) != len(ids):
        raise InputError(f"ids: must be 2 to {MAX_COMPARED} different runs, got {len(ids)}")
    with open_store(home) as store:
        found = [records.get_run(store, run_id) for run_id in ids]
    rows = {run.run_id: run_files.read_rows(_root(run, home), after_step=0, limit=MAX_METRICS) for run in found}
    return compare({run.run_id: run.name for run in found}, {run.run_id: run.spec for run in found}, rows)


def run_rollouts(run_id: str, step: int | None = None, home: Path | None = None) -> RunRollouts:
    """The rollouts of one step, of the last by default. Raises NotFound where none is kept."""
    root = run_folder(run_id, home)
    steps = recorded_steps(root)
    if not steps or (step is not None and step not in steps):
        told = f"steps {steps[0]} to {steps[-1]} are kept" if steps else "it keeps none"
        raise NotFound(f"Run {run_id} has no rollouts of step {'any' if step is None else step}; {told}")
    chosen = steps[-1] if step is None else step
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in read_rollouts(root, chosen):
        groups.setdefault(row["problem_id"], []).append(_finite(row))
    return RunRollouts(steps, chosen, groups)


def _finite(value: Any) -> Any:
    """JSON has no infinity: the log-probability of a token that could not be drawn becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _name(name: str | None, spec: Mapping[str, Any]) -> str:
    if name is None:
        parts = (spec["kind"], spec["model"], spec["dataset"] or spec["eval_set"])
        return " ".join(str(part) for part in parts if part)[:MAX_NAME_CHARS]
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise InputError(f"name: must be printable text of 1 to {MAX_NAME_CHARS} characters, got {name[:60]!r}")
    return name


def _check_exists(store: Store, spec: Mapping[str, Any], home: Path | None) -> None:
    from tracetune.app.registry import resolve_model

    dataset, eval_set = spec["dataset"], spec["eval_set"]
    if dataset is not None and all(record.dataset_key != dataset for record in list_datasets(store)):
        raise NotFound(f"Dataset not found: {dataset[:200]}")
    if eval_set is not None and all(known.name != eval_set for known in iter_evalsets(store)):
        raise NotFound(f"Eval set not found: {eval_set[:200]}")
    resolve_model(spec["model"], home)


def _root(stored: StoredRun, home: Path | None) -> Path:
    return home_folder(home) / stored.folder


def _view(store: Store, stored: StoredRun, home: Path | None) -> RunView:
    place = records.queue_positions(store).get(stored.run_id) if stored.state == "queued" else None
    return viewed(stored, place, _root(stored, home))
