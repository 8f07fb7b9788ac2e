"""A model in memory: weights, their architecture, the tokenizer, and an adapter when it has one.

The fingerprint is computed from content alone, so the same model has the same one on every machine.
"""

import hashlib
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


def fingerprint(arch: Arch, params: Any, tokenizer: Tokenizer) -> str:
    """sha256 over architecture, tokenizer and every tensor by sorted name: shape and little-endian float32 values.

    Values, not stored types: bfloat16 weights have the same fingerprint when they are held as float32.
    """
    digest = hashlib.sha256(canonical_json({"arch": arch_to_hf(arch), "tokenizer": tokenizer.fingerprint}))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for name, leaf in sorted((jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves):
        digest.update(canonical_json([name, leaf.shape]))
        digest.update(np.ascontiguousarray(np.asarray(leaf), "<f4").reshape(-1).data.cast("B"))
    return digest.hexdigest()


def make_model(name: str, arch: Arch, params: Any, tokenizer: Tokenizer) -> Model:
    """A model without adapter, its fingerprint computed."""
    return Model(name, arch, params, tokenizer, fingerprint(arch, params, tokenizer))
