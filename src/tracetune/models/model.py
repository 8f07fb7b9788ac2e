"""A model in memory: weights, their architecture, the tokenizer, and an adapter when it has one.

The fingerprint is computed from content alone, so the same model has the same one on every machine.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tracetune.config.schema import LoraSettings
from tracetune.core.ids import canonical_json
from tracetune.models.arch import Arch, arch_to_hf
from tracetune.models.tokenizer import Tokenizer


class Model(NamedTuple):
    """A decoder ready to train, sample or score.

    `params` are the base weights, never merged with `lora`; `lora` None means there is no adapter, and
    then `lora_settings` is None too. `fingerprint` is that of the base weights, config and tokenizer.
    `name` is what the user asked for (an alias, a repository, a folder); for an adapter's folder `base_name`
    is what its base weights are called, and None means that `name` names them.
    """

    name: str
    arch: Arch
    params: Any
    tokenizer: Tokenizer
    fingerprint: str
    lora: Any | None = None
    lora_settings: LoraSettings | None = None
    base_name: str | None = None

    @property
    def lora_scale(self) -> float:
        """alpha / r, the factor on the adapter's product; 0 without an adapter."""
        return self.lora_settings.alpha / self.lora_settings.r if self.lora_settings else 0.0


class Digest:
    """The fingerprint of a model whose leaves are told one by one, sorted by name, and never all in memory.

    Values, not stored types: bfloat16 weights have the same fingerprint when they are held as float32.
    """

    def __init__(self, arch: Arch, tokenizer: Tokenizer) -> None:
        self._sha256 = hashlib.sha256(canonical_json({"arch": arch_to_hf(arch), "tokenizer": tokenizer.fingerprint}))

    def begin(self, name: str, shape: Sequence[int]) -> None:
        """The next leaf; all of its values follow, in order."""
        self._sha256.update(canonical_json([name, shape]))

    def add(self, values: np.ndarray) -> None:
        """The leaf's next values, as little-endian float32; only a part is in memory as such."""
        for part in values if values.ndim > 1 else (values,):
            self._sha256.update(np.ascontiguousarray(part, "<f4").reshape(-1).data.cast("B"))

    def hexdigest(self) -> str:
        """Of everything told so far."""
        return self._sha256.hexdigest()


def fingerprint(arch: Arch, params: Any, tokenizer: Tokenizer) -> str:
    """sha256 over architecture, tokenizer and every tensor by sorted name: shape and little-endian float32 values."""
    digest = Digest(arch, tokenizer)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for name, leaf in sorted((jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves):
        digest.begin(name, leaf.shape)
        digest.add(np.asarray(leaf))
    return digest.hexdigest()


def make_model(name: str, arch: Arch, params: Any, tokenizer: Tokenizer) -> Model:
    """A model without adapter, its fingerprint computed."""
    return Model(name, arch, params, tokenizer, fingerprint(arch, params, tokenizer))
