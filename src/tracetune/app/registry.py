"""The model registry: a finished run's model kept under a name, version by version, by content; and model references.

A reference is `tiny`, a known alias or repository, `run:<run id>` or `model:<model id>`; never a path. A version's
folder `{home}/models/{model_id}/` looks like a run's: `checkpoint-final/` and the manifest that says how it was asked.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.names import check_name
from tracetune.app.run_files import folder_of, read_run_manifest
from tracetune.config.aliases import ALIASES, near_names, resolve_alias
from tracetune.core.durable import publish_folder
from tracetune.core.errors import Conflict, InputError, StorageError
from tracetune.core.home import home_folder
from tracetune.core.ids import content_hash, file_hash
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.models.seal import SEAL, verify_folder
from tracetune.store import models as records
from tracetune.store import runs
from tracetune.store.lock import write_lock
from tracetune.store.models import NewModel, StoredModel, model_id_of
from tracetune.store.open import open_store
from tracetune.store.runs import StoredRun

__all__ = ["StoredModel"]

RUN, MODEL = "run:", "model:"
PUBLISH_WAIT_SECONDS = 3600.0


class _Files(NamedTuple):
    """A model's files, hashed; `facts` are those its seal records."""

    files: list[dict[str, Any]]
    content_hash: str
    facts: Mapping[str, Any]


def promote(run_id: str, name: str, home: Path | None = None) -> StoredModel:
    """Keep a finished run's model as the next version of `name`; the same files again are the version they were.

    Raises NotFound, Conflict for a run that has no final model, InputError for the name, Corrupt when a file differs
    from the sha256 it was saved with, StorageError.
    """
    check_name("model.name", name)
    with open_store(home) as store:
        run = runs.get_run(store, run_id)
        source = _final_folder(run, home)
        found = _hash_files(source)
        model_id = model_id_of(name, found.content_hash)
        _publish(source, home_folder(home) / "models" / model_id)
        trained = read_run_manifest(home_folder(home) / run.folder)
        manifest = {
            "files": found.files,
            # An adapter's seal names its base; of whole weights only the run knows what they were.
            "base_fingerprint": found.facts.get("base_fingerprint") or trained.get("base_model_hash"),
            "run": _run_facts(run, trained),
        }
        return records.add_model(store, NewModel(name, found.content_hash, run_id, f"models/{model_id}", manifest))


def get_model(model_id: str, home: Path | None = None) -> StoredModel:
    """One version. Raises NotFound."""
    with open_store(home) as store:
        return records.get_model(store, model_id)


def list_models(
    *, limit: int = 20, cursor: str | None = None, name: str | None = None, home: Path | None = None
) -> Page[StoredModel]:
    """Every version, or those of one name, the newest first."""
    before = None if cursor is None else decode_cursor(cursor)
    with open_store(home) as store:
        found = records.list_models(store, limit=limit + 1, before=before, name=name)
    return Page(found[:limit], encode_cursor(found[limit - 1].seq) if len(found) > limit else None)


def resolve_model(ref: str, home: Path | None = None) -> str:
    """What `load_model` takes for a reference: a name it knows, or a folder under the home folder.

    Raises InputError for anything that is no reference, NotFound for an id that is not there, Conflict for a run
    without a final model.
    """
    if ref.startswith(RUN):
        with open_store(home) as store:
            return str(_final_folder(runs.get_run(store, ref.removeprefix(RUN)), home))
    if ref.startswith(MODEL):
        with open_store(home) as store:
            return str(model_folder(records.get_model(store, ref.removeprefix(MODEL)), home))
    resolved = resolve_alias(ref)
    if resolved not in ALIASES.values():
        near = near_names(ref[:100])
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(
            f"model: must be tiny, a known alias, run:<run id> or model:<model id>, got {ref[:100]!r}{meant}"
        )
    return resolved


def model_folder(stored: StoredModel, home: Path | None = None) -> Path:
    """Where a version's files are."""
    return folder_of(home_folder(home) / stored.folder).final


def _final_folder(run: StoredRun, home: Path | None) -> Path:
    folder = folder_of(home_folder(home) / run.folder).final
    if run.state != "finished" or not folder.is_dir():
        told = "evaluates and trains no model" if run.kind == "evaluation" else f"is {run.state}"
        raise Conflict(f"run {run.run_id}: {told}, so it has no final model; name a finished run that trained one")
    return folder


def _hash_files(folder: Path) -> _Files:
    """Of a sealed folder the recorded hashes, all verified; of another its own."""
    facts = verify_folder(folder)
    recorded = json.loads((folder / SEAL).read_bytes())["files"] if facts else {}
    files = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": recorded.get(path.name) or file_hash(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    return _Files(files, content_hash({file["name"]: file["sha256"] for file in files}), facts)


def _publish(source: Path, folder: Path) -> None:
    """The folder's name is its content, so one that is there is whole."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder.parent}: cannot be created ({error.strerror}); fix permissions") from error
    with write_lock(folder.with_name(f".{folder.name}.lock"), PUBLISH_WAIT_SECONDS):
        # Under the lock nobody else writes here, so what a killed process left behind can go.
        for partial in folder.parent.glob(f".{folder.name}.*.partial"):
            shutil.rmtree(partial, ignore_errors=True)
        if folder.is_dir():
            return
        with publish_folder(folder) as partial:
            kept = folder_of(partial)
            kept.final.mkdir()
            for path in sorted(source.iterdir()):
                _link(path, kept.final / path.name)
            origin = folder_of(source.parent)
            if origin.manifest.is_file():
                shutil.copyfile(origin.manifest, kept.manifest)


def _link(source: Path, target: Path) -> None:
    """A model's files are only ever replaced whole, so a second name costs no bytes; another disk needs a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _run_facts(run: StoredRun, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "kind": run.kind,
        "name": run.name,
        "model": run.spec.get("model"),
        "dataset_key": run.dataset_key,
        "dataset_content_hash": manifest.get("dataset_content_hash"),
        "num_steps": manifest.get("num_steps"),
        "git_sha": manifest.get("git_sha"),
    }
