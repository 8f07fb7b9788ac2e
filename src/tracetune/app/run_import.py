"""A run of the command line put on record, so that the service shows, compares and promotes it like its own."""

import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

from tracetune.app import run_files
from tracetune.app.run_views import RunView, viewed
from tracetune.app.runs import find_manifest
from tracetune.config.schema import OutputSettings
from tracetune.core.durable import publish_folder
from tracetune.core.errors import Conflict, InputError
from tracetune.core.home import home_folder
from tracetune.store.open import open_store
from tracetune.store.runs import NewRun, State, add_ended_run

KINDS = {"trace_sft_v1": "sft", "grpo_v1": "grpo"}
# State for a resume is large, and a run on record has ended.
LEFT_OUT = (*run_files.PRIVATE, "tensorboard", "wandb")


def add_run(folder: Path, *, name: str | None = None, home: Path | None = None) -> RunView:
    """Copy a finished run's folder under the home folder, and record it; the same run again changes nothing.

    Raises NotFound for a folder without a manifest, InputError for one of another program, Conflict for a run that
    has not finished.
    """
    path, manifest = find_manifest(folder)
    kind = KINDS.get(str(manifest["recipe"]))
    if kind is None or path.name != OutputSettings().manifest_file:
        raise InputError(f"{path}: is no SFT or GRPO run of this version; got recipe {str(manifest['recipe'])[:40]!r}")
    if manifest.get("status") != "finished":
        raise Conflict(f"{folder}: is {manifest.get('status')}; finish the run, then add it")
    run_id, spec = _run_id(manifest, path), _spec(kind, manifest)
    root = home_folder(home) / "runs" / run_id
    _copy(folder, root)
    called = name or f"{kind} {spec['model']} {folder.resolve().name}"[:128]
    with open_store(home) as store:
        new = NewRun(kind, called, spec, manifest.get("dataset_key"))
        times = (str(manifest["created_at"]), str(manifest["ended_at"]))
        state: State = "finished"
        return viewed(add_ended_run(store, new, run_id=run_id, state=state, times=times), None, root)


def _run_id(manifest: dict[str, Any], path: Path) -> str:
    try:
        return str(UUID(str(manifest.get("run_id"))))
    except ValueError as error:
        raise InputError(f"{path}: run_id must be a UUID, got {str(manifest.get('run_id'))[:40]!r}") from error


def _spec(kind: str, manifest: dict[str, Any]) -> dict[str, Any]:
    config = dict(manifest["training_config"])
    model = config["model"].get("name") or config["model"].get("path")
    dataset = manifest.get("dataset_key")
    return {"kind": kind, "overrides": [], "dataset": dataset, "model": model, "eval_set": None, "config": config}


def _copy(folder: Path, root: Path) -> None:
    if root.is_dir():
        return
    with publish_folder(root) as partial:
        for path in sorted(folder.iterdir()):
            if path.name in LEFT_OUT or path.name.startswith(".") or path.is_symlink():
                continue
            if path.is_dir():
                shutil.copytree(path, partial / path.name, symlinks=True)
            else:
                shutil.copy2(path, partial / path.name)
