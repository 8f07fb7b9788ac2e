"""The parts of arrays on disk: each process writes what its devices hold, and any place is read out of the parts.

A part is a tensor of a safetensors file, named after its array and its place in it: `.params['embed']@0:64,0:16`; one
without a place is a whole array. Files are mapped, so a read touches only the bytes it needs.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from safetensors.numpy import save

from tracetune.core.errors import Corrupt
from tracetune.models.shard import bounds, read_onto

# A shard is serialised in memory before it is written, so its size bounds the memory a save needs.
SHARD_BYTES = 256 * 2**20
# The names safetensors gives to types; its NumPy reader lacks bfloat16.
_DTYPES = {
    "BOOL": jnp.bool_, "U8": jnp.uint8, "I8": jnp.int8, "U32": jnp.uint32, "I32": jnp.int32, "U64": jnp.uint64,
    "I64": jnp.int64, "F16": jnp.float16, "BF16": jnp.bfloat16, "F32": jnp.float32, "F64": jnp.float64,
}  # fmt: skip

Place = tuple[tuple[int, int], ...]


class Part(NamedTuple):
    """Some of an array, and where in it that begins and ends; a place of None is all of it."""

    values: np.ndarray
    place: Place | None


def is_divided(arrays: Any) -> bool:
    """Whether arrays lie on a mesh."""
    return any(
        isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding) for leaf in jax.tree.leaves(arrays)
    )


def write_parts(folder: Path, arrays: Any, *, stem: str) -> dict[str, dict[str, Any]]:
    """Write what this process holds of `arrays`, in files of at most SHARD_BYTES (a larger part stands alone); the
    sha256 and size of each file by its name."""
    files: dict[str, dict[str, Any]] = {}
    for number, shard in enumerate(_shards(_own_parts(arrays))):
        data = save(shard)
        name = f"{stem}-{number:05d}.safetensors"
        (folder / name).write_bytes(data)
        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return files


def _own_parts(arrays: Any) -> Iterator[tuple[str, Any]]:
    """Every leaf by its path in the tree; of one on a mesh each part that no other device writes."""
    divided = is_divided(arrays)
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        name = jax.tree_util.keystr(path)
        if not divided:
            yield name, leaf
            continue
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                place = ",".join(f"{start}:{stop}" for start, stop in bounds(shard.index, leaf.shape))
                yield f"{name}@{place}", shard.data


def _shards(parts: Iterator[tuple[str, Any]]) -> Iterator[dict[str, np.ndarray]]:
    shard: dict[str, np.ndarray] = {}
    size = 0
    for name, part in parts:
        array = np.asarray(part)
        if shard and size + array.nbytes > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = np.ascontiguousarray(array).reshape(array.shape)
        size += array.nbytes
    if shard:
        yield shard


def find_parts(files: Iterable[Path]) -> dict[str, list[Part]]:
    """The parts in `files`, by the names of their arrays; nothing is read yet."""
    found: dict[str, list[Part]] = {}
    for path in files:
        for key, values in _mapped(path):
            name, mark, place = key.partition("@")
            found.setdefault(name, []).append(Part(values, _read_place(place) if mark else None))
    return found


def _read_place(text: str) -> Place:
    pairs = [pair.split(":") for pair in text.split(",") if pair]
    return tuple((int(start), int(stop)) for start, stop in pairs)


def _mapped(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_size))
    data = np.memmap(path, np.uint8, "r", offset=8 + header_size)
    for key, facts in header.items():
        if key != "__metadata__":
            start, stop = facts["data_offsets"]
            yield key, data[start:stop].view(np.dtype(_DTYPES[facts["dtype"]])).reshape(facts["shape"])


def whole_shape(parts: list[Part]) -> tuple[int, ...]:
    """The shape of the array that the parts make up."""
    ends = [part.values.shape if part.place is None else tuple(stop for _, stop in part.place) for part in parts]
    return tuple(int(max(sizes)) for sizes in zip(*ends, strict=True))


def join_parts(parts: list[Part], like: Any, where: Path) -> Any:
    """An array out of its parts, lying as `like` does: on its mesh, or in the host's memory.

    Raises Corrupt where a part is missing.
    """

    def read(index: tuple[slice, ...]) -> np.ndarray:
        return _cut(parts, bounds(index, like.shape), where)

    sharding = like.sharding if isinstance(like, jax.Array) else None
    if isinstance(sharding, NamedSharding):
        return read_onto(like.shape, sharding, read)
    return read((slice(None),) * len(like.shape))


def _cut(parts: list[Part], place: Place, where: Path) -> np.ndarray:
    """The values of a place, out of every part that holds some of it."""
    shape = tuple(stop - start for start, stop in place)
    cut, filled = np.empty(shape, parts[0].values.dtype), 0
    for values, found in parts:
        held = found or tuple((0, size) for size in values.shape)
        common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(place, held, strict=True)]
        if all(start < stop for start, stop in common):
            to = tuple(slice(s - p, e - p) for (s, e), (p, _) in zip(common, place, strict=True))
            of = tuple(slice(s - h, e - h) for (s, e), (h, _) in zip(common, held, strict=True))
            cut[to] = values[of]
            filled += int(np.prod([stop - start for start, stop in common]))
    if filled != cut.size:
        raise Corrupt(f"{where}: some of an array is in no file; the checkpoint cannot be used")
    return cut
