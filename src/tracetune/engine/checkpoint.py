"""Checkpoints: a pytree of arrays and JSON facts, published whole, every byte verified before use. No pickle.

A folder holds `state-00000.safetensors`, … and `manifest.json` with each file's sha256 and size; the manifest
itself must be byte for byte its own canonical JSON and carries its own sha256. Arrays on a mesh are written in parts
(`engine.slices`), each by the process that holds it, and no array is ever brought together.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tracetune.core.durable import publish_folder
from tracetune.core.errors import Conflict, Corrupt, NotFound
from tracetune.core.ids import canonical_json, content_hash, file_hash
from tracetune.engine import hosts
from tracetune.engine.slices import find_parts, is_divided, join_parts, whole_shape, write_parts

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{6,})")

Arrays = Any


class Checkpoint(NamedTuple):
    """What was saved: its folder, the arrays in the shape of `like` (on its mesh, or NumPy) and the facts."""

    folder: Path
    arrays: Arrays
    meta: dict[str, Any]


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps lives."""
    return root / f"step-{step:06d}"


def save_checkpoint(folder: Path, arrays: Arrays, meta: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write `arrays` and `meta` durably; `folder` appears only when every byte is on the disk.

    Of arrays on a mesh every process writes its own parts, process 0 the manifest; all must call this, and share the
    file system. Raises Conflict when `folder` exists and `replace` is false, StorageError when the disk refuses.
    """
    if not hosts.leads():
        return _hand_in(folder, arrays)
    with publish_folder(folder, replace=replace) as partial:
        files = write_parts(partial, arrays, stem="state") | _take_in(folder, partial)
        body = {"format": 2 if is_divided(arrays) else 1, "files": files, "meta": dict(meta)}
        (partial / MANIFEST).write_bytes(canonical_json({**body, "sha256": content_hash(body)}))
    hosts.wait(f"saved {folder.name}")
    return None


def _hand_in(folder: Path, arrays: Arrays) -> None:
    """Write the parts of this process beside `folder`, for process 0 to publish with its own."""
    own = _drop_box(folder, hosts.rank())
    with publish_folder(own, replace=True) as partial:
        files = write_parts(partial, arrays, stem=f"state-{hosts.rank():05d}")
        (partial / MANIFEST).write_bytes(canonical_json(files))
    hosts.wait(f"written {folder.name}")
    hosts.wait(f"saved {folder.name}")


def _take_in(folder: Path, partial: Path) -> dict[str, Any]:
    """Move what the other processes wrote into `partial`."""
    hosts.wait(f"written {folder.name}")
    files: dict[str, Any] = {}
    for rank in range(1, hosts.num_processes()):
        box = _drop_box(folder, rank)
        theirs = json.loads((box / MANIFEST).read_bytes())
        for name in theirs:
            (box / name).rename(partial / name)
        shutil.rmtree(box)
        files |= theirs
    return files


def _drop_box(folder: Path, rank: int) -> Path:
    # Named as what a killed writer leaves behind, so that it is cleared as such.
    return folder.with_name(f".{folder.name}.process-{rank}.partial")


def load_checkpoint(folder: Path, like: Arrays) -> Checkpoint:
    """Read a checkpoint into the tree structure of `like`, whose leaves give the shapes and dtypes expected, and the
    mesh where they lie on one: each process reads only what its devices hold, whatever mesh wrote it.

    Raises NotFound when there is none, Corrupt naming the file whose bytes changed, Conflict naming the
    array that does not fit `like`.
    """
    manifest = read_manifest(folder)
    found = find_parts([folder / name for name in manifest["files"]])
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    strangers = sorted(set(names) ^ set(found))
    if strangers:
        raise Conflict(
            f"{folder}: holds another kind of state, {strangers[0]} does not match; resume with its settings"
        )
    for name, (_, leaf) in zip(names, paths, strict=True):
        expected, got = (leaf.shape, leaf.dtype), (whole_shape(found[name]), found[name][0].values.dtype)
        if expected != got:
            raise Conflict(f"{folder}: {name} must be {expected}, got {got}; resume with the settings of this run")
    arrays = [join_parts(found[name], leaf, folder) for name, (_, leaf) in zip(names, paths, strict=True)]
    return Checkpoint(folder, jax.tree_util.tree_unflatten(structure, arrays), manifest["meta"])


def latest_checkpoint(root: Path, like: Arrays, *, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose bytes are intact; each damaged one met on the way is told to `warn`.

    None when the run has saved none yet. Raises Corrupt when every checkpoint is damaged.
    """
    damage: list[Corrupt] = []
    for folder in reversed(list_checkpoints(root)):
        try:
            checkpoint = load_checkpoint(folder, like)
        except Corrupt as error:
            warn(f"{error}; falling back to the checkpoint before it")
            damage.append(error)
        else:
            return checkpoint
    if damage:
        raise Corrupt(f"{root}: no checkpoint is intact ({damage[0]}); delete this folder to begin again")
    return None


def list_checkpoints(root: Path) -> list[Path]:
    """Every published checkpoint, oldest step first."""
    folders = [path for path in root.glob("step-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(folders, key=_step_of)


def keep_newest(root: Path, newest: Path, num_kept: int) -> None:
    """Delete what is older than the `num_kept` checkpoints that end with `newest`, which must be durable already."""
    older = [folder for folder in list_checkpoints(root) if _step_of(folder) < _step_of(newest)]
    for folder in older[: max(0, len(older) - num_kept + 1)]:
        shutil.rmtree(folder)


def clear_partials(root: Path) -> None:
    """Remove what writers that were killed left behind. Only for the holder of the run's lock."""
    for pattern in (".*.partial", ".*.replaced"):
        for path in root.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint after every file was compared with it. Raises NotFound, Corrupt."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        kind = Corrupt if folder.is_dir() else NotFound
        raise kind(f"{path}: is missing; the checkpoint cannot be used") from error
    manifest = _parse_manifest(path, data)
    for name, facts in manifest["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != facts["size"] or file_hash(file) != facts["sha256"]:
            raise Corrupt(f"{file}: the bytes differ from those that were saved; the checkpoint cannot be used")
    return manifest


def _parse_manifest(path: Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
        body = {key: value for key, value in manifest.items() if key != "sha256"}
        intact = canonical_json(manifest) == data and content_hash(body) == manifest["sha256"]
    except (ValueError, KeyError, AttributeError):
        intact, manifest = False, {}
    if not intact:
        raise Corrupt(f"{path}: the bytes differ from those that were saved; the checkpoint cannot be used")
    return manifest


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
