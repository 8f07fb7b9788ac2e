"""A model whose weights are elsewhere: what a run needs to speak with it, its tokenizer and chat format above all."""

from pathlib import Path
from typing import Any, NamedTuple

from tracetune.config.aliases import built_in
from tracetune.core.errors import InputError
from tracetune.models import adapter
from tracetune.models.arch import Arch, arch_to_hf
from tracetune.models.describe import describe
from tracetune.models.hf import CONFIG, read_object
from tracetune.models.hub import locate
from tracetune.models.model import Model
from tracetune.models.tiny import tiny_arch, tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer


class ServedModel(NamedTuple):
    """`config` is the model's config.json; `arch` None means that no weights of its family could be read here."""

    name: str
    tokenizer: Tokenizer
    config: dict[str, Any]
    arch: Arch | None


def served_model(name: str) -> ServedModel:
    """The model of an alias, a repository or a folder without its weights, which need not be here.

    Raises NotFound or Unavailable when its config and tokenizer are not to be had, InputError when it is an adapter.
    """
    if size := built_in(name):
        arch = tiny_arch(size)
        return ServedModel(name, tiny_tokenizer(), arch_to_hf(arch), arch)
    folder = locate(name, weights=False)
    if (folder / adapter.CONFIG).is_file():
        raise InputError(
            f"model {name!r}: is an adapter; another's machine trains a fresh one, so name its base model, "
            f"{adapter.base_of(folder)}"
        )
    return ServedModel(name, Tokenizer.from_folder(folder), read_object(folder / CONFIG), _arch(folder))


def num_tokens(model: Model | ServedModel) -> int:
    """How many ids its head has: those of its tokenizer, where nothing else is known."""
    return model.tokenizer.vocab_size if model.arch is None else model.arch.vocab_size


def _arch(folder: Path) -> Arch | None:
    try:
        return describe(folder).arch
    except InputError:
        return None
