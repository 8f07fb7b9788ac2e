"""Hugging Face tensors ↔ our stacked parameters: one table of names, every tensor accounted for.

torch stores a Linear as [out, in]; ours are [in, out], stacked over layers on axis 0. The text half of a
multimodal checkpoint is read; its vision tower is left out. L layers.
"""

import gc
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import DictKey

from tracetune.core.errors import InputError
from tracetune.models.arch import Arch
from tracetune.models.model import Digest
from tracetune.models.shard import read_onto, spec_of
from tracetune.models.tensorfile import StoredTensor, TensorSpec, open_tensors, write_tensors
from tracetune.models.transformer import init_params

STEM = "model"
_TOP = {"embed": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "head": "lm_head.weight"}
_MODULES = {
    **{leaf: f"self_attn.{leaf}.weight" for leaf in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")},
    **{leaf: f"mlp.{leaf}.weight" for leaf in ("gate_proj", "up_proj", "down_proj")},
    **{f"{leaf}_bias": f"self_attn.{leaf}_proj.bias" for leaf in ("q", "k", "v", "o")},
    "attn_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
}
# Gemma 2 and 3 normalise after each half too, and call the norm before the MLP otherwise.
_SANDWICH = {
    "post_attn_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "post_mlp_norm": "post_feedforward_layernorm.weight",
}
_NESTED = ("language_model.model.", "model.language_model.")
_NOT_TEXT = re.compile(r"vision_tower\.|multi_modal_projector\.|\.rotary_emb\.inv_freq$")


class Slot(NamedTuple):
    """One leaf of the parameter tree and the Hugging Face tensors that fill it, one per layer when stacked."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it stands in a fingerprint."""
        return ".".join(self.path)

    @property
    def stacked(self) -> bool:
        return self.path[0] == "layers"

    @property
    def transposed(self) -> bool:
        return self.path[-1].endswith("_proj")

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of each tensor in the file."""
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[::-1] if self.transposed else shape

    def convert(self, stored: np.ndarray) -> np.ndarray:
        """From the file's orientation to ours, and equally back."""
        return stored.T if self.transposed else stored


def slots(arch: Arch) -> list[Slot]:
    """Every parameter of `arch`, shaped as `init_params` would make it, with its Hugging Face names."""
    shapes = jax.eval_shape(partial(init_params, arch=arch), jax.random.key(0))
    modules = _MODULES | (_SANDWICH if "post_attn_norm" in shapes["layers"] else {})
    top = [Slot((leaf,), array.shape, (_TOP[leaf],)) for leaf, array in shapes.items() if leaf != "layers"]
    return top + [
        Slot(("layers", leaf), array.shape, tuple(f"model.layers.{i}.{modules[leaf]}" for i in range(array.shape[0])))
        for leaf, array in sorted(shapes["layers"].items(), key=lambda item: [*modules].index(item[0]))
    ]


def load_params(folder: Path, arch: Arch, *, dtype: Any = jnp.float32) -> Any:
    """The parameters in a model folder, as `dtype`.

    Raises NotFound, Corrupt or InputError as `open_tensors` does, and one InputError that lists every tensor
    which is missing, unexpected or of the wrong shape.
    """
    params: dict[str, Any] = {"layers": {}}
    for slot, array in iter_params(folder, arch, dtype=dtype):
        branch = params["layers"] if slot.stacked else params
        branch[slot.path[-1]] = jnp.asarray(array).block_until_ready()
        # JAX lets go of the host's copy when Python collects garbage: before the next one is made.
        del array
        gc.collect(0)
    return params


def place_params(folder: Path, arch: Arch, mesh: Mesh, *, dtype: Any = jnp.float32, told: Digest) -> Any:
    """The parameters in a model folder, read straight to where they lie on `mesh`: no process holds more of one than
    its devices do, and a layer. Everything is told to `told`, in its order. Raises as `load_params`."""
    params: dict[str, Any] = {"layers": {}}
    with open_params(folder, arch) as tensors:
        for slot in sorted(slots(arch), key=lambda slot: slot.name):
            told.begin(slot.name, slot.shape)
            for name in slot.names:
                told.add(slot.convert(tensors[name].read()).astype(dtype))
            path = tuple(DictKey(key) for key in slot.path)
            sharding = NamedSharding(mesh, spec_of(path, slot.shape, mesh))
            branch = params["layers"] if slot.stacked else params
            branch[slot.path[-1]] = read_onto(slot.shape, sharding, partial(_read_place, slot, tensors, dtype))
    return params


def _read_place(slot: Slot, tensors: Mapping[str, StoredTensor], dtype: Any, place: tuple[slice, ...]) -> np.ndarray:
    """Some of one parameter, out of the tensors that fill it."""
    names, inner = (slot.names[place[0]], place[1:]) if slot.stacked else (slot.names, place)
    stored = inner[::-1] if slot.transposed else inner
    parts = [slot.convert(tensors[name].read(stored)).astype(dtype) for name in names]
    return np.stack(parts) if slot.stacked else parts[0]


def iter_params(folder: Path, arch: Arch, *, dtype: Any = np.float32) -> Iterator[tuple[Slot, np.ndarray]]:
    """Each parameter of a model folder by sorted name, as `dtype`; only one is in memory at a time."""
    with open_params(folder, arch) as tensors:
        for slot in sorted(slots(arch), key=lambda slot: slot.name):
            yield slot, _fill(slot, tensors, dtype)


def _fill(slot: Slot, tensors: Mapping[str, StoredTensor], dtype: Any) -> np.ndarray:
    array = np.empty(slot.shape, dtype)
    for layer, name in enumerate(slot.names):
        # Rounding to a narrower type is what was asked for.
        np.copyto(array[layer] if slot.stacked else array, slot.convert(tensors[name].read()), casting="unsafe")
    return array


@contextmanager
def open_params(folder: Path, arch: Arch) -> Iterator[Mapping[str, StoredTensor]]:
    """The tensors of a model folder, by the names that `slots` gives; they are all there and have their shapes."""
    with open_tensors(folder, STEM) as stored:
        tensors = _text_tensors(stored)
        filled = slots(arch)
        if not any(slot.path == ("head",) for slot in filled):
            _drop_tied_head(tensors)
        check_tensors({name: slot.stored_shape for slot in filled for name in slot.names}, tensors, where=str(folder))
        yield tensors


def check_tensors(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, StoredTensor], *, where: str, limit: int = 8
) -> None:
    """Raises one InputError that names every tensor at fault (of many, the first `limit` of each kind)."""
    wrong = [
        f"{name} must be {list(expected[name])}, got {list(found[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name].shape
    ]
    faults = [
        f"{len(names)} {kind}: {', '.join(names[:limit])}{' …' if len(names) > limit else ''}"
        for kind, names in (
            ("missing", sorted(expected.keys() - found.keys())),
            ("unexpected", sorted(found.keys() - expected.keys())),
            ("of the wrong shape", wrong),
        )
        if names
    ]
    if faults:
        raise InputError(f"{where}: weights do not fit the config: {'; '.join(faults)}; use the files of one model")


def missing_names(arch: Arch, stored: Iterable[str]) -> list[str]:
    """The tensors of `arch` that a checkpoint with these names lacks."""
    found = {_text_name(name) for name in stored}
    return [name for slot in slots(arch) for name in slot.names if name not in found]


def _text_tensors(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {_text_name(name): tensor for name, tensor in stored.items() if not _NOT_TEXT.search(name)}


def _text_name(name: str) -> str:
    """The name that the tensor has in a text-only checkpoint."""
    for prefix in _NESTED:
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name.removeprefix("language_model.")


def _drop_tied_head(tensors: dict[str, StoredTensor]) -> None:
    """Some checkpoints store the tied head a second time; a different one would be lost in silence."""
    head, embed = tensors.pop(_TOP["head"], None), tensors.get(_TOP["embed"])
    if head and embed and not np.array_equal(head.read(), embed.read()):
        raise InputError(
            f"{head.path}: {head.name} differs from the embedding, but the config ties them; "
            "set tie_word_embeddings to false in config.json"
        )


def save_params(path: Path, arch: Arch, params: Any) -> None:
    """Write `params` with Hugging Face names in the type they have; equal input gives equal bytes."""
    filled = slots(arch)

    def leaf(slot: Slot) -> Any:
        return params["layers"][slot.path[-1]] if slot.stacked else params[slot.path[-1]]

    specs = [TensorSpec(name, slot.stored_shape, np.dtype(leaf(slot).dtype)) for slot in filled for name in slot.names]
    write_tensors(path, specs, (slot.convert(layer) for slot in filled for layer in _layers(slot, leaf(slot))))


def _layers(slot: Slot, array: Any) -> Iterator[np.ndarray]:
    whole = np.asarray(array)
    yield from (whole if slot.stacked else whole[None])
