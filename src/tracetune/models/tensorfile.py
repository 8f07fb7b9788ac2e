"""safetensors files, one tensor in memory at a time: opened by the reference reader, written in a stream.

A file that is truncated, or whose header does not cover it exactly, is refused before any tensor is read.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from tracetune.core.errors import Corrupt, InputError, NotFound

_DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class TensorSpec(NamedTuple):
    """A tensor about to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


class StoredTensor(NamedTuple):
    """A tensor on disk; `read()` brings it to memory."""

    path: Path
    name: str
    shape: tuple[int, ...]
    handle: Any

    def read(self, place: tuple[slice, ...] | None = None) -> np.ndarray:
        """The values in their stored type, of `place` alone where one is given, which touches only its bytes.

        Raises InputError for a quantised type, Corrupt for NaN or infinity.
        """
        stored = self.handle.get_slice(self.name)
        code = stored.get_dtype()
        if code not in _DTYPES:
            raise InputError(
                f"{self.path}: tensor {self.name} must be one of {', '.join(_DTYPES)}, got {code}; "
                "use the checkpoint that is not quantised"
            )
        array = self.handle.get_tensor(self.name) if place is None else stored[place]
        if not np.isfinite(array).all():
            raise Corrupt(f"{self.path}: tensor {self.name} holds NaN or infinity; download or save the file again")
        return array


@contextmanager
def open_tensors(folder: Path, stem: str) -> Iterator[Mapping[str, StoredTensor]]:
    """The tensors of `<stem>.safetensors`, or of every shard that `<stem>.safetensors.index.json` lists.

    Raises NotFound when neither is there or a shard is missing, Corrupt when one cannot be read, InputError
    when the index and its shards disagree.
    """
    index = folder / f"{stem}.safetensors.index.json"
    with ExitStack() as stack:
        if not index.is_file():
            yield _open_file(stack, folder / f"{stem}.safetensors")
            return
        placed = read_index(index)
        found: dict[str, StoredTensor] = {}
        astray: set[str] = set()
        for shard in sorted(set(placed.values())):
            opened = _open_file(stack, folder / shard)
            # A tensor is in the file that the index names for it, and in no other.
            astray |= {name for name in opened if placed.get(name) != shard}
            found |= opened
        astray |= placed.keys() - found.keys()
        if astray:
            raise InputError(
                f"{index}: differs from its shards in {', '.join(sorted(astray)[:5])}; download the model again"
            )
        yield found


def _open_file(stack: ExitStack, path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise NotFound(f"{path}: not found; weights must be in safetensors files (pickled .bin weights are not read)")
    try:
        handle = stack.enter_context(safe_open(path, framework="numpy"))
        names = list(handle.keys())
        return {name: StoredTensor(path, name, tuple(handle.get_slice(name).get_shape()), handle) for name in names}
    except SafetensorError as error:
        raise Corrupt(f"{path}: not a whole safetensors file ({error}); download or save it again") from error


def data_size(path: Path) -> int:
    """Bytes of the tensors in a safetensors file, from its header's length. Raises Corrupt for a truncated file."""
    with path.open("rb") as file:
        size = path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")
    if size < 0:
        raise Corrupt(f"{path}: not a whole safetensors file (its header is cut off); download or save it again")
    return size


def read_index(index: Path) -> dict[str, str]:
    """Which file beside the index holds each tensor.

    Raises Corrupt when it is no index, InputError when it names a file elsewhere.
    """
    try:
        placed = json.loads(index.read_bytes())["weight_map"]
        if all(Path(shard).name == shard for shard in placed.values()):
            return placed
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"{index}: not an index of safetensors shards ({error}); download it again") from error
    raise InputError(f"{index}: a shard must be a file beside the index; download the model again")


def write_tensors(path: Path, specs: Sequence[TensorSpec], arrays: Iterable[np.ndarray]) -> None:
    """Write `arrays` in the order of `specs`; equal input gives equal bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        start, end = end, end + spec.dtype.itemsize * int(np.prod(spec.shape, dtype=np.int64))
        header[spec.name] = {"dtype": _CODES[spec.dtype], "shape": spec.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts on a multiple of 8, so readers can map it
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for spec, array in zip(specs, arrays, strict=True):
            assert (array.shape, array.dtype) == (spec.shape, spec.dtype), f"{spec} was given {array.shape}"
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
