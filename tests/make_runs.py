"""Finished runs as the queue records them, with the folder that training leaves behind; no model is trained."""

import json
import shutil
from pathlib import Path
from typing import Any

from tracetune.core.ids import new_id
from tracetune.models.seal import seal_folder
from tracetune.store.open import open_store
from tracetune.store.runs import NewRun, State, StoredRun, add_ended_run

TIMES = ("2026-01-01T00:00:00+00:00", "2026-01-01T00:01:00+00:00")


def finished_run(
    home: Path,
    *,
    kind: str = "sft",
    model: str = "tiny",
    weights: bytes = b"weights",
    base: str = "tiny",
    source: Path | None = None,
    dataset: str | None = None,
    state: State = "finished",
    **spec: Any,
) -> StoredRun:
    """A run with a sealed `checkpoint-final`, copied from the model folder `source` where one is given."""
    asked = {"kind": kind, "model": model, "dataset": dataset, "eval_set": None, **spec}
    with open_store(home) as store:
        new = NewRun(kind, f"{kind} run", asked, dataset)
        run = add_ended_run(store, new, run_id=new_id(), state=state, times=TIMES)
    if kind == "evaluation":
        return run
    final = home / run.folder / "checkpoint-final"
    if source is not None:
        shutil.copytree(source, final)
    else:
        final.mkdir(parents=True)
        (final / "config.json").write_text("{}")
        (final / "model.safetensors").write_bytes(weights)
        seal_folder(final, {"base": base, "base_fingerprint": "b" * 64})
    write_run_manifest(home / run.folder, final)
    return run


def write_run_manifest(folder: Path, final: Path, **settings: Any) -> None:
    """What a run records of its model; `settings` join the training settings."""
    from tracetune.app.manifest import folder_hashes

    told = {"model": {"name": "tiny"}, **settings}
    manifest = {"status": "finished", "training_config": told, "files": folder_hashes(final), "num_steps": 3}
    (folder / "run_manifest.json").write_text(json.dumps(manifest))
