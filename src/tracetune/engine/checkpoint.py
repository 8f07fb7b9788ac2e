"""Checkpoints: a pytree of arrays and JSON facts, published whole, every byte verified before use. No pickle.

A folder holds `state-00000.safetensors`, … and `manifest.json` with each file's sha256 and size; the manifest
itself must be byte for byte its own canonical JSON and carries its own sha256.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import deserialize
from safetensors.numpy import save

from tracetune.core.durable import publish_folder
from tracetune.core.errors import Conflict, Corrupt, NotFound
from tracetune.core.ids import canonical_json, content_hash, file_hash

MANIFEST = "manifest.json"
# A shard is serialised in memory before it is written, so its size bounds the memory a save needs.
SHARD_BYTES = 256 * 2**20
# The names safetensors gives to types; its NumPy reader lacks bfloat16.
_DTYPES = {
    "BOOL": jnp.bool_, "U8": jnp.uint8, "I8": jnp.int8, "U32": jnp.uint32, "I32": jnp.int32, "U64": jnp.uint64,
    "I64": jnp.int64, "F16": jnp.float16, "BF16": jnp.bfloat16, "F32": jnp.float32, "F64": jnp.float64,
}  # fmt: skip
_NAME = re.compile(r"step-(\d{6,})")

Arrays = Any


class Checkpoint(NamedTuple):
    """What was saved: the folder it came from, the arrays (NumPy, in the shape of `like`) and the facts."""

    folder: Path
    arrays: Arrays
    meta: dict[str, Any]


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps lives."""
    return root / f"step-{step:06d}"


def save_checkpoint(folder: Path, arrays: Arrays, meta: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write `arrays` and `meta` durably; `folder` appears only when every byte is on the disk.

    Raises Conflict when `folder` exists and `replace` is false, StorageError when the disk refuses.
    """
    with publish_folder(folder, replace=replace) as partial:
        files: dict[str, dict[str, Any]] = {}
        for number, shard in enumerate(_shards(arrays)):
            data = save(shard)
            name = f"state-{number:05d}.safetensors"
            (partial / name).write_bytes(data)
            files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        body = {"format": 1, "files": files, "meta": dict(meta)}
        (partial / MANIFEST).write_bytes(canonical_json({**body, "sha256": content_hash(body)}))


def load_checkpoint(folder: Path, like: Arrays) -> Checkpoint:
    """Read a checkpoint into the tree structure of `like`, whose leaves give the shapes and dtypes expected.

    Raises NotFound when there is none, Corrupt naming the file whose bytes changed, Conflict naming the
    array that does not fit `like`.
    """
    manifest = read_manifest(folder)
    found: dict[str, np.ndarray] = {}
    for name in manifest["files"]:
        for key, facts in deserialize((folder / name).read_bytes()):
            found[key] = np.frombuffer(facts["data"], np.dtype(_DTYPES[facts["dtype"]])).reshape(facts["shape"])
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    strangers = sorted(set(names) ^ set(found))
    if strangers:
        raise Conflict(
            f"{folder}: holds another kind of state, {strangers[0]} does not match; resume with its settings"
        )
    for name, (_, leaf) in zip(names, paths, strict=True):
        expected, got = (leaf.shape, leaf.dtype), (found[name].shape, found[name].dtype)
        if expected != got:
            raise Conflict(f"{folder}: {name} must be {expected}, got {got}; resume with the settings of this run")
    return Checkpoint(
        folder, jax.tree_util.tree_unflatten(structure, [found[name] for name in names]), manifest["meta"]
    )


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


def _shards(arrays: Arrays) -> Iterator[dict[str, np.ndarray]]:
    """Leaves by their path in the tree, in groups of at most SHARD_BYTES (a larger leaf stands alone)."""
    shard: dict[str, np.ndarray] = {}
    size = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        array = np.asarray(leaf)
        if shard and size + array.nbytes > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[jax.tree_util.keystr(path)] = np.ascontiguousarray(array).reshape(array.shape)
        size += array.nbytes
    yield shard


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
