"""Plain weights in Hugging Face form, one tensor in memory at a time: an adapter folded in, any type, in shards.

What was written is read back and compared with what should be there before anyone else sees it. A base that is not
the one its adapter was trained on is refused.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tracetune.core.errors import InputError, StorageError
from tracetune.models.arch import Arch, arch_from_hf
from tracetune.models.hf import CONFIG, config_of, read_object, write_object
from tracetune.models.model import Digest
from tracetune.models.tensorfile import TensorSpec, write_tensors
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.weights import STEM, Slot, open_params, slots

DEFAULT_SHARD_BYTES = 5_000_000_000
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)

# (slot, layer) → the tensor that fills it, in the file's orientation and type.
Read = Callable[[Slot, int], np.ndarray]


class Source(NamedTuple):
    """A model's base weights where they are: in `folder`, or in memory as `params`."""

    name: str
    arch: Arch
    tokenizer: Tokenizer
    folder: Path | None = None
    params: Any = None


class Fold(NamedTuple):
    """What happens to each tensor: `lora` (None: nothing) is added, scaled; the result is of type `dtype`."""

    dtype: np.dtype
    lora: Any | None = None
    scale: float = 0.0

    def apply(self, slot: Slot, layer: int, stored: np.ndarray) -> np.ndarray:
        """The exported tensor of a stored one. The sum is float32, and rounded once."""
        pair = self.lora["layers"].get(slot.path[-1]) if self.lora and slot.stacked else None
        if pair is None:
            return stored.astype(self.dtype)
        update = slot.convert(np.asarray(pair["a"])[layer] @ np.asarray(pair["b"])[layer])
        return (stored.astype(np.float32) + np.float32(self.scale) * update).astype(self.dtype)


class Checked(NamedTuple):
    """Fingerprints of what was read back, and of the base that it was made from."""

    fingerprint: str
    base_fingerprint: str


def parse_size(text: str) -> int:
    """Bytes of a size as transformers writes it: 5GB is 5·10⁹, 5GiB is 5·2³⁰. Raises InputError.

    >>> parse_size("5GB"), parse_size("300MiB")
    (5000000000, 314572800)
    """
    match = _SIZE.fullmatch(text.strip())
    power = " KMGT".index(match[2].upper() or " ") if match else 0
    count = float(match[1]) * (1024 if match[3] else 1000) ** power if match else 0
    if count < 1:
        raise InputError(f"--max-shard-size: must be a size such as 5GB or 500MiB, got {text!r}")
    return int(count)


@contextmanager
def open_source(source: Source) -> Iterator[Read]:
    """A reader of the source's tensors. Raises what opening a model folder raises."""
    if source.folder is None:
        yield lambda slot, layer: slot.convert(np.asarray(_leaf(source.params, slot, layer)))
        return
    with open_params(source.folder, source.arch) as tensors:
        yield lambda slot, layer: tensors[slot.names[layer]].read()


def stored_dtype(source: Source) -> np.dtype:
    """The type of the embedding, which stands for all."""
    embed = next(slot for slot in slots(source.arch) if slot.path == ("embed",))
    with open_source(source) as read:
        return read(embed, 0).dtype


def write_merged(source: Source, folder: Path, fold: Fold, *, max_shard_bytes: int = DEFAULT_SHARD_BYTES) -> None:
    """Config, tokenizer and weights into `folder`, which is there and empty; several shards get an index."""
    source.tokenizer.save(folder)
    write_object(folder / CONFIG, config_of(source.arch, source.tokenizer, fold.dtype))
    places = {name: (slot, layer) for slot in slots(source.arch) for layer, name in enumerate(slot.names)}
    specs = [TensorSpec(name, slot.stored_shape, fold.dtype) for name, (slot, _) in places.items()]
    shards = plan_shards(specs, max_shard_bytes)
    with open_source(source) as read:
        for number, shard in enumerate(shards):
            wanted = (places[spec.name] for spec in shard)
            arrays = (fold.apply(slot, layer, read(slot, layer)) for slot, layer in wanted)
            write_tensors(folder / _shard_name(number, len(shards)), shard, arrays)
    if len(shards) > 1:
        write_object(folder / f"{STEM}.safetensors.index.json", _index(shards))


def plan_shards(specs: Sequence[TensorSpec], max_bytes: int) -> list[list[TensorSpec]]:
    """Tensors in order, as many to a file as fit; one that is larger than a file has its own."""
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        size = _num_bytes(spec)
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += size
    return shards


def check_merged(source: Source, folder: Path, fold: Fold) -> Checked:
    """Read `folder` as a user would and compare every tensor with what it should be.

    Raises StorageError naming the first that differs.
    """
    arch, tokenizer = arch_from_hf(read_object(folder / CONFIG)), Tokenizer.from_folder(folder)
    if arch != source.arch or tokenizer.fingerprint != source.tokenizer.fingerprint:
        raise _differs(folder, "the config or the tokenizer")
    written, base = Digest(arch, tokenizer), Digest(arch, tokenizer)
    with open_source(source) as read, open_params(folder, arch) as tensors:
        for slot in _sorted_slots(arch):
            for digest in (written, base):
                digest.begin(slot.name, slot.shape)
            for layer, name in enumerate(slot.names):
                stored, reread = read(slot, layer), tensors[name].read()
                if reread.dtype != fold.dtype or not np.array_equal(reread, fold.apply(slot, layer, stored)):
                    raise _differs(folder, name)
                written.add(slot.convert(reread))
                base.add(slot.convert(stored))
    return Checked(written.hexdigest(), base.hexdigest())


def base_fingerprint(source: Source) -> str:
    """The fingerprint of a model that is not loaded."""
    digest = Digest(source.arch, source.tokenizer)
    with open_source(source) as read:
        for slot in _sorted_slots(source.arch):
            digest.begin(slot.name, slot.shape)
            for layer in range(len(slot.names)):
                digest.add(slot.convert(read(slot, layer)))
    return digest.hexdigest()


def _leaf(params: Any, slot: Slot, layer: int) -> Any:
    return params["layers"][slot.path[-1]][layer] if slot.stacked else params[slot.path[-1]]


def _sorted_slots(arch: Arch) -> list[Slot]:
    return sorted(slots(arch), key=lambda slot: slot.name)


def _num_bytes(spec: TensorSpec) -> int:
    return spec.dtype.itemsize * int(np.prod(spec.shape, dtype=np.int64))


def _shard_name(number: int, count: int) -> str:
    return f"{STEM}.safetensors" if count == 1 else f"{STEM}-{number + 1:05d}-of-{count:05d}.safetensors"


def _index(shards: Sequence[Sequence[TensorSpec]]) -> dict[str, Any]:
    every = [spec for shard in shards for spec in shard]
    totals = {
        "total_parameters": sum(int(np.prod(spec.shape, dtype=np.int64)) for spec in every),
        "total_size": sum(map(_num_bytes, every)),
    }
    placed = {spec.name: _shard_name(number, len(shards)) for number, shard in enumerate(shards) for spec in shard}
    return {"metadata": totals, "weight_map": placed}


def _differs(folder: Path, what: str) -> StorageError:
    return StorageError(f"{folder}: {what} reads back differently; check the disk, then export again")
