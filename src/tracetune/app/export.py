"""A model in the form that others load: a PEFT adapter, plain Hugging Face weights, or GGUF; with a card beside it.

Nothing is loaded whole, and no folder appears before it was read back and compared.
"""

import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np

from tracetune.app import gguf
from tracetune.app.model_card import Facts, Origin, write_card
from tracetune.app.registry import MODEL, RUN, resolve_model
from tracetune.app.runs import find_manifest
from tracetune.config.aliases import built_in, resolve_alias
from tracetune.core.durable import publish_folder, write_durably
from tracetune.core.errors import Conflict, InputError, NotFound
from tracetune.models import adapter
from tracetune.models.hf import read_arch
from tracetune.models.hub import locate
from tracetune.models.merged import (
    Fold,
    Source,
    base_fingerprint,
    check_merged,
    parse_size,
    stored_dtype,
    write_merged,
)
from tracetune.models.model import Model
from tracetune.models.model import fingerprint as fingerprint_of
from tracetune.models.ollama import modelfile
from tracetune.models.seal import seal_folder, verify_folder
from tracetune.models.tiny import tiny_model
from tracetune.models.tokenizer import Tokenizer

Format = Literal["adapter", "merged", "gguf"]
DType = Literal["float32", "bfloat16"]
_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
MODELFILE, GGUF_FILE = "Modelfile", "model.gguf"


class Exported(NamedTuple):
    """What stands in the folder now; `num_bytes` counts all of its files."""

    folder: Path
    format: Format
    dtype: str
    num_bytes: int


class _Found(NamedTuple):
    """A model on this machine: its base, its adapter where it has one, and where the two come from."""

    name: str
    source: Source
    stored: adapter.StoredAdapter | None
    adapter_folder: Path | None
    run: Path | None
    manifest: dict[str, Any]


def export_model(
    name: str,
    to: Path,
    *,
    format: Format | None = None,
    dtype: DType | None = None,
    max_shard_size: str = "5GB",
    home: Path | None = None,
) -> Exported:
    """Write the model that `name` stands for (an alias, repository, folder, run folder, `run:<id>`, `model:<id>`).

    `format` None is `adapter` for a model that has one, else `merged`; `dtype` None keeps the type of the weights. The
    result carries README.md (the model card) and Ollama's Modelfile. Raises Conflict when `to` exists, InputError for
    an adapter that is not there or not of this base, Unavailable without a converter for GGUF, Corrupt, StorageError.
    """
    max_shard_bytes = parse_size(max_shard_size)
    found = _find(name, home)
    chosen: Format = format or ("adapter" if found.stored else "merged")
    if chosen == "adapter" and found.stored is None:
        raise InputError(f"--format adapter: {name} has no adapter; use --format merged")
    if to.exists():
        raise Conflict(f"{to}: already exists; choose another --to")
    wanted = None if dtype is None else _DTYPES[dtype]
    converter = gguf.require_converter(to) if chosen == "gguf" else []
    with publish_folder(to) as partial:
        if chosen == "adapter":
            written = _write_adapter(found, partial, wanted or _DTYPES["float32"], title=to.name)
        elif chosen == "merged":
            written = _write_merged(found, partial, wanted, max_shard_bytes, title=to.name)
        else:
            written = _write_gguf(found, partial, wanted, converter, title=to.name)
    return Exported(to, chosen, written, sum(path.stat().st_size for path in to.iterdir()))


def _find(name: str, home: Path | None) -> _Found:
    """Everything but the weights, read and verified."""
    place = resolve_model(name, home) if name.startswith((RUN, MODEL)) else name
    if built_in(place):
        return _Found(name, _source(place), None, None, None, {})
    folder = locate(place)
    run, manifest = _run_of(folder)
    if not (folder / adapter.CONFIG).is_file():
        return _Found(name, _source(place), None, None, run, manifest)
    base = adapter.base_of(folder)
    try:
        source = _source(base)
    except NotFound as error:
        raise NotFound(f"{folder}: needs the base model it was trained on: {error}") from error
    return _Found(name, source, adapter.read_adapter(folder, source.arch), folder, run, manifest)


def _source(name: str) -> Source:
    if size := built_in(name):
        model = tiny_model(size=size)
        return Source(size, model.arch, model.tokenizer, params=model.params)
    folder = locate(name)
    verify_folder(folder)
    return Source(resolve_alias(name), read_arch(folder), Tokenizer.from_folder(folder), folder)


def _run_of(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The run that a model's folder stands in, and its manifest."""
    try:
        return folder.parent, find_manifest(folder.parent)[1]
    except NotFound:
        return None, {}


def _write_adapter(found: _Found, folder: Path, dtype: np.dtype, *, title: str) -> str:
    assert found.stored is not None, "an adapter was found"
    source, stored = found.source, found.stored
    fingerprint = base_fingerprint(source)
    adapter.check_base(_adapter_folder(found), stored, source.name, fingerprint)
    model = Model(found.name, source.arch, None, source.tokenizer, fingerprint, stored.lora, stored.settings)
    model = model._replace(base_name=source.name)
    facts = adapter.write_adapter(model, folder, dtype=dtype)
    own = fingerprint_of(source.arch, stored.lora, source.tokenizer)
    _describe(found, folder, Facts(title, "adapter", dtype.name, own), fingerprint)
    _write_modelfile(folder, source.tokenizer, source=source.name, adapter=".")
    seal_folder(folder, facts)
    adapter.check_adapter(model, folder, dtype=dtype)
    return dtype.name


def _write_merged(found: _Found, folder: Path, dtype: np.dtype | None, max_shard_bytes: int, *, title: str) -> str:
    fold = _fold(found, dtype)
    write_merged(found.source, folder, fold, max_shard_bytes=max_shard_bytes)
    checked = check_merged(found.source, folder, fold)
    if found.stored is not None:
        adapter.check_base(_adapter_folder(found), found.stored, found.source.name, checked.base_fingerprint)
    _describe(found, folder, Facts(title, "merged", fold.dtype.name, checked.fingerprint), checked.base_fingerprint)
    _write_modelfile(folder, found.source.tokenizer, source=".")
    seal_folder(folder, {"fingerprint": checked.fingerprint})
    return fold.dtype.name


def _write_gguf(found: _Found, folder: Path, dtype: np.dtype | None, converter: list[str], *, title: str) -> str:
    """Merge beside the target, on the same disk, and keep only what the converter makes of it."""
    fold = _fold(found, dtype)
    with tempfile.TemporaryDirectory(prefix=".merged-", dir=folder.parent) as beside:
        merged = Path(beside)
        write_merged(found.source, merged, fold)
        checked = check_merged(found.source, merged, fold)
        if found.stored is not None:
            adapter.check_base(_adapter_folder(found), found.stored, found.source.name, checked.base_fingerprint)
        num_values = found.source.arch.num_params
        gguf.convert(converter, merged, folder / GGUF_FILE, dtype=fold.dtype.name, num_values=num_values)
    _describe(found, folder, Facts(title, "gguf", fold.dtype.name, checked.fingerprint), checked.base_fingerprint)
    _write_modelfile(folder, found.source.tokenizer, source=f"./{GGUF_FILE}")
    seal_folder(folder, {"fingerprint": checked.fingerprint})
    return fold.dtype.name


def _fold(found: _Found, dtype: np.dtype | None) -> Fold:
    held = dtype or stored_dtype(found.source)
    if found.stored is None:
        return Fold(held)
    settings = found.stored.settings
    return Fold(held, found.stored.lora, settings.alpha / settings.r)


def _describe(found: _Found, folder: Path, facts: Facts, fingerprint: str) -> None:
    base = found.manifest.get("base_model") or found.source.name
    hashed = found.manifest.get("base_model_hash") or fingerprint
    quantized = found.stored.settings.quantize if found.stored else None
    origin = Origin(resolve_alias(base), hashed, found.source.folder, found.run, found.manifest, quantized)
    write_card(folder, origin, facts)


def _write_modelfile(folder: Path, tokenizer: Tokenizer, *, source: str, adapter: str | None = None) -> None:
    write_durably(folder / MODELFILE, modelfile(tokenizer, source=source, adapter=adapter).encode())


def _adapter_folder(found: _Found) -> Path:
    assert found.adapter_folder is not None, "an adapter has a folder"
    return found.adapter_folder
