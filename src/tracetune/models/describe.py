"""What a checkpoint is, from its config.json and the index of its shards alone: no weights are opened, or needed."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from tracetune.core.errors import InputError
from tracetune.models.arch import Arch, arch_from_hf
from tracetune.models.hf import CONFIG, read_object
from tracetune.models.tensorfile import data_size, read_index
from tracetune.models.weights import STEM, missing_names


class Description(NamedTuple):
    """A decoder by its numbers, as `describe` finds them.

    `stored_bytes` are the tensors in the files, those of a vision tower too; None when no index or file says.
    `shards` are the files that hold the weights, `absent` those of them that are not in the folder.

    >>> describe(Path("gemma-3-27b-it")).num_bytes()  # doctest: +SKIP
    54018692608
    """

    arch: Arch
    num_params: int
    stored_bytes: int | None
    shards: tuple[str, ...]
    absent: tuple[str, ...]

    def num_bytes(self, dtype: Any = jnp.bfloat16) -> int:
        """The text decoder's weights in memory, the head counted once when tied."""
        return self.num_params * jnp.dtype(dtype).itemsize


def describe(folder: Path) -> Description:
    """The model of a folder that holds at least config.json.

    Raises NotFound without config.json, InputError for a family or switch that is not supported and for an index
    without some of the decoder's tensors, Corrupt for a damaged index or header.
    """
    arch = _read_arch(folder)
    index, whole = folder / f"{STEM}.safetensors.index.json", folder / f"{STEM}.safetensors"
    if index.is_file():
        placed = read_index(index)
        if missing := missing_names(arch, placed):
            raise InputError(f"{index}: lacks {len(missing)} tensors of the config's model, such as {missing[0]}")
        shards = tuple(sorted(set(placed.values())))
        absent = tuple(shard for shard in shards if not (folder / shard).is_file())
        return Description(arch, arch.num_params, _total_size(index), shards, absent)
    if whole.is_file():
        return Description(arch, arch.num_params, data_size(whole), (whole.name,), ())
    return Description(arch, arch.num_params, None, (), ())


def _read_arch(folder: Path) -> Arch:
    config = read_object(folder / CONFIG)
    try:
        return arch_from_hf(config)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(f"{folder}: {error}; use the config.json that belongs to the weights") from error


def _total_size(index: Path) -> int | None:
    """Bytes of all tensors as the index records them."""
    size = (json.loads(index.read_bytes()).get("metadata") or {}).get("total_size")
    return int(size) if isinstance(size, int | float) else None
