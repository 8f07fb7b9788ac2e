"""Hugging Face model folders: config.json, model.safetensors, tokenizer.json, in and out.

What is saved loads in transformers, is byte-identical for equal models, and was read back and compared
before its folder appeared.
"""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tracetune.config.schema import Quantize
from tracetune.core.durable import publish_folder, write_durably
from tracetune.core.errors import Corrupt, InputError, NotFound, StorageError
from tracetune.models.arch import Arch, arch_from_hf, arch_to_hf
from tracetune.models.model import Digest, Model, fingerprint, make_model
from tracetune.models.quant import quantize as pack
from tracetune.models.seal import seal_folder, verify_folder
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.weights import STEM, iter_params, load_params, place_params, save_params

CONFIG = "config.json"


def load_full(
    folder: Path,
    *,
    name: str,
    dtype: Any = jnp.float32,
    quantize: Quantize | None = None,
    mesh: Mesh | None = None,
) -> Model:
    """A folder of whole weights, held as `dtype`, or its projections as `quantize` says; on `mesh` where there is one.

    Raises NotFound, InputError or Corrupt naming the file.
    """
    sealed = verify_folder(folder)
    arch = read_arch(folder)
    tokenizer = Tokenizer.from_folder(folder)
    if tokenizer.vocab_size > arch.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} ids but config.json's vocab_size is "
            f"{arch.vocab_size}; use the files of one model"
        )
    if quantize is None and mesh is not None:
        digest = Digest(arch, tokenizer)
        params = place_params(folder, arch, mesh, dtype=dtype, told=digest)
        model = Model(name, arch, params, tokenizer, digest.hexdigest())
    elif quantize is None:
        model = make_model(name, arch, load_params(folder, arch, dtype=dtype), tokenizer)
    else:
        model = _load_quantized(folder, Model(name, arch, None, tokenizer, ""), quantize)
    if dtype == jnp.float32 and sealed.get("fingerprint", model.fingerprint) != model.fingerprint:
        raise Corrupt(f"{folder}: the weights differ from their recorded fingerprint; restore a good copy")
    return model


def _load_quantized(folder: Path, model: Model, kind: Quantize) -> Model:
    """`model` with weights, one of which is whole in memory at a time; the fingerprint is that of the whole ones."""
    digest, layers, top = Digest(model.arch, model.tokenizer), {}, {}
    for slot, array in iter_params(folder, model.arch):
        digest.begin(slot.name, array.shape)
        digest.add(array)
        branch = layers if slot.stacked else top
        branch[slot.path[-1]] = pack(array, kind) if slot.transposed else jnp.asarray(array)
    return model._replace(params={**top, "layers": layers}, fingerprint=digest.hexdigest())


def save_full(model: Model, folder: Path, *, replace: bool = False) -> str:
    """Publish `model`'s weights as a folder and return their fingerprint. Its adapter is not saved: merge it first.

    Raises Conflict when the folder exists and `replace` is false, StorageError when the disk refuses.
    """
    assert model.lora is None, "merge the adapter, or save it with save_adapter"
    saved = fingerprint(model.arch, model.params, model.tokenizer)
    with publish_folder(folder, replace=replace) as partial:
        model.tokenizer.save(partial)
        write_object(partial / CONFIG, config_of(model.arch, model.tokenizer, model.params["embed"].dtype))
        save_params(partial / f"{STEM}.safetensors", model.arch, model.params)
        _compare(model, partial)
        seal_folder(partial, {"fingerprint": saved})
    return saved


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises NotFound or InputError naming it."""
    if not path.is_file():
        raise NotFound(f"{path}: not found; a model's folder holds it beside the weights")
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); download or save it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(value).__name__}; download or save it again")
    return value


def write_object(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, sorted and indented as transformers does."""
    write_durably(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_arch(folder: Path) -> Arch:
    """The architecture in a folder's config.json. Raises NotFound, InputError naming the folder."""
    config = read_object(folder / CONFIG)
    if config.get("quantization_config"):
        raise InputError(f"{folder / CONFIG}: quantised weights are not read; use the checkpoint that is not quantised")
    try:
        return arch_from_hf(config)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Not InputError alone: a value of a type that no config has can fail anywhere on the way.
        raise InputError(f"{folder}: {error}; use the config.json that belongs to the weights") from error


def config_of(arch: Arch, tokenizer: Tokenizer, dtype: Any) -> dict[str, Any]:
    """A config.json that transformers loads; `dtype` is that of the weights."""
    stop_ids = sorted(tokenizer.stop_ids)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": stop_ids or None, "pad_token_id": tokenizer.pad_id}
    name = np.dtype(dtype).name
    # transformers before version 5 reads torch_dtype, later ones dtype.
    types = {"dtype": name, "torch_dtype": name}
    return arch_to_hf(arch) | {key: number for key, number in ids.items() if number is not None} | types


def _compare(model: Model, folder: Path) -> None:
    """Read a folder back as a user would and compare, one tensor in memory at a time."""
    same = arch_from_hf(read_object(folder / CONFIG)) == model.arch
    same &= Tokenizer.from_folder(folder).fingerprint == model.tokenizer.fingerprint
    for slot, array in iter_params(folder, model.arch):
        branch = model.params["layers"] if slot.stacked else model.params
        same &= np.array_equal(array, np.asarray(branch[slot.path[-1]], np.float32))
    if not same:
        raise StorageError(f"{folder}: reads back differently from what was written; check the disk, then save again")
