"""One door to every model: `tiny`, a folder, an adapter, a finished run, an alias or a repository."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from tracetune.config.aliases import built_in
from tracetune.config.schema import Quantize
from tracetune.core.errors import NotFound
from tracetune.models import adapter
from tracetune.models.hf import load_full, save_full
from tracetune.models.hub import locate
from tracetune.models.lora import merge_lora
from tracetune.models.model import Model, make_model
from tracetune.models.quant import quantize_params
from tracetune.models.tiny import tiny_model


def load_model(
    name: str, *, dtype: Any = jnp.float32, quantize: Quantize | None = None, mesh: Mesh | None = None
) -> Model:
    """The model that `name` stands for, its weights held as `dtype`, or its projections as `quantize` says. A folder is
    read straight onto `mesh`, where there is one; what is small (`tiny`, adapters) may be elsewhere yet.

    Raises NotFound (with a "did you mean"), Unavailable when it must be downloaded and cannot be, InputError for
    a family or files that cannot be used, Corrupt for damaged files.
    """
    if size := built_in(name):
        return quantized(tiny_model(size=size), quantize)
    return load_folder(locate(name), name=name, dtype=dtype, quantize=quantize, mesh=mesh)


def load_folder(
    folder: Path,
    *,
    name: str | None = None,
    dtype: Any = jnp.float32,
    quantize: Quantize | None = None,
    mesh: Mesh | None = None,
) -> Model:
    """The model in a Hugging Face folder; an adapter's folder also loads the base that it names."""
    name = name or str(folder)
    if not (folder / adapter.CONFIG).is_file():
        return load_full(folder, name=name, dtype=dtype, quantize=quantize, mesh=mesh)
    base_name = adapter.base_of(folder)
    try:
        base = load_model(base_name, dtype=dtype, quantize=quantize, mesh=mesh)
    except NotFound as error:
        raise NotFound(f"{folder}: needs the base model it was trained on: {error}") from error
    return adapter.load_adapter(folder, base, name=name)


def quantized(model: Model, kind: Quantize | None) -> Model:
    """`model` with the projections of its base held as `kind`; its fingerprint stays that of the whole weights."""
    return model._replace(params=quantize_params(model.params, kind))


def save_folder(model: Model, folder: Path, *, replace: bool = False) -> None:
    """Publish `model` as a Hugging Face folder: its adapter in PEFT's format when it has one, else its weights.

    Raises Conflict when the folder exists and `replace` is false, StorageError when the disk refuses.
    """
    if model.lora is None:
        save_full(model, folder, replace=replace)
    else:
        adapter.save_adapter(model, folder, replace=replace)


def merge_adapter(model: Model) -> Model:
    """`model` with its adapter folded into its weights; itself when it has none."""
    if model.lora is None:
        return model
    params = merge_lora(model.params, model.lora, model.lora_scale)
    return make_model(model.name, model.arch, params, model.tokenizer)
