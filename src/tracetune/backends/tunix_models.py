"""Tunix's Qwen 3 and Gemma 3 modules: which models they compute as trained, and our weights in their layout and back.

Only models that Tunix 0.1.7 computes right are let through; every other is refused with the reason. Importing this
module imports no Tunix. Shapes: D model, N heads, H head size, r rank.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from tracetune.config.schema import LoraSettings
from tracetune.core.errors import InputError
from tracetune.models.arch import Arch

# What its code computes, whatever a config says.
_QWEN_THETA = 1_000_000.0
_GEMMA_EPS = 1e-6
_GEMMA_PERIOD = 6

Form = Literal["plain", "DNH", "NDH", "NHD"]


class Kernel(NamedTuple):
    """One array of a Tunix layer: its path there, our leaves in it (several are fused), and how its axes stand."""

    path: str
    leaves: tuple[str, ...]
    form: Form = "plain"


_QWEN3 = (
    Kernel("input_layernorm.w", ("attn_norm",)),
    Kernel("post_attention_layernorm.w", ("mlp_norm",)),
    Kernel("attn.q_norm.w", ("q_norm",)),
    Kernel("attn.k_norm.w", ("k_norm",)),
    *(Kernel(f"attn.{leaf}.w", (leaf,), "DNH") for leaf in ("q_proj", "k_proj", "v_proj")),
    Kernel("attn.o_proj.w", ("o_proj",), "NHD"),
    *(Kernel(f"mlp.{leaf}.kernel", (leaf,)) for leaf in ("gate_proj", "up_proj", "down_proj")),
)
_GEMMA3 = (
    Kernel("pre_attention_norm.scale", ("attn_norm",)),
    Kernel("post_attention_norm.scale", ("post_attn_norm",)),
    Kernel("pre_ffw_norm.scale", ("mlp_norm",)),
    Kernel("post_ffw_norm.scale", ("post_mlp_norm",)),
    Kernel("attn._query_norm.scale", ("q_norm",)),
    Kernel("attn._key_norm.scale", ("k_norm",)),
    Kernel("attn.attn_vec_einsum.w", ("o_proj",), "NHD"),
    *(Kernel(f"mlp.{leaf}.kernel", (leaf,)) for leaf in ("gate_proj", "up_proj", "down_proj")),
)
_GEMMA3_GROUPED = (
    Kernel("attn.q_einsum.w", ("q_proj",), "NDH"),
    Kernel("attn.kv_einsum.w", ("k_proj", "v_proj"), "NDH"),
)
_GEMMA3_FUSED = (Kernel("attn.qkv_einsum.w", ("q_proj", "k_proj", "v_proj"), "NDH"),)


def library(name: str) -> Any:
    """A module of Tunix, or of what it computes with, which are here only with the extra."""
    return import_module(name)


def check_model(arch: Arch) -> None:
    """Raises InputError with the reason for a model that Tunix would compute otherwise than it was trained."""
    faults = {"qwen3": _qwen_faults, "gemma3_text": _gemma_faults, "llama": _llama_faults}.get(arch.model_type)
    if faults is None:
        raise InputError(
            f"backend: tunix trains qwen3 and gemma3_text models here, got {arch.model_type}; set backend: local"
        )
    if found := [reason for reason in faults(arch) if reason]:
        raise InputError(f"backend: tunix would compute this {arch.model_type} model wrongly: {'; '.join(found)}; "
                         "set backend: local")  # fmt: skip


def _llama_faults(arch: Arch) -> list[str | None]:
    return [f"it ignores rope_theta for Llama and turns by {_QWEN_THETA:,.0f} (this model: {arch.rope.theta:,.0f}), "
            "without Llama 3's frequency scaling"]  # fmt: skip


def _qwen_faults(arch: Arch) -> list[str | None]:
    theta = arch.rope.theta
    return [
        f"it ignores rope_theta for Qwen3 and turns by {_QWEN_THETA:,.0f}, this model by {theta:,.0f}, as the 2507 "
        "releases do by 5,000,000" if theta != _QWEN_THETA else None,
        f"it ignores rope scaling of type {arch.rope.kind}" if arch.rope.kind != "default" else None,
        "it has no sliding windows for Qwen3" if arch.sliding_layers else None,
        *_common_faults(arch, "silu"),
    ]  # fmt: skip


def _gemma_faults(arch: Arch) -> list[str | None]:
    local = arch.local_rope or arch.rope
    sliding = tuple(layer for layer in range(arch.num_layers) if (layer + 1) % _GEMMA_PERIOD)
    scales = (arch.head_size, arch.hidden_size // arch.num_heads)
    return [
        f"its norms add {_GEMMA_EPS}, this model's {arch.norm_eps}" if arch.norm_eps != _GEMMA_EPS else None,
        f"every {_GEMMA_PERIOD}th layer of its is global and no other" if arch.sliding_layers != sliding else None,
        f"it scales queries by 1/√{scales[0]} or 1/√{scales[1]}, this model by 1/√{arch.query_scalar}"
        if (arch.query_scalar or arch.head_size) not in scales else None,
        f"it ignores rope scaling of type {arch.rope.kind}" if arch.rope.kind not in ("default", "linear") else None,
        f"it ignores rope scaling of type {local.kind}" if local.kind not in ("default", "linear") else None,
        "it always ties the head to the embedding" if not arch.tied else None,
        *_common_faults(arch, "gelu_pytorch_tanh"),
    ]  # fmt: skip


def _common_faults(arch: Arch, activation: str) -> list[str | None]:
    return [
        f"it computes {activation}, this model {arch.activation}" if arch.activation != activation else None,
        "it has no biases in attention" if arch.attn_bias else None,
        "it has no soft-caps" if arch.attn_softcap or arch.logit_softcap else None,
    ]


def make_config(arch: Arch, *, remat: bool) -> Any:
    """Tunix's own configuration of `arch`, in float32. Needs Tunix."""
    if arch.model_type == "qwen3":
        qwen3 = library("tunix.models.qwen3.model")
        return qwen3.ModelConfig(
            num_layers=arch.num_layers,
            vocab_size=arch.vocab_size,
            embed_dim=arch.hidden_size,
            hidden_dim=arch.mlp_size,
            num_heads=arch.num_heads,
            head_dim=arch.head_size,
            num_kv_heads=arch.num_kv_heads,
            rope_theta=int(arch.rope.theta),
            norm_eps=arch.norm_eps,
            use_tied_embedding=arch.tied,
            remat_config=qwen3.RematConfig.DECODER if remat else qwen3.RematConfig.NONE,
        )
    gemma3 = library("tunix.models.gemma3.model")
    local = arch.local_rope or arch.rope
    by = gemma3.QueryPreAttentionNormalisation
    by_head = (arch.query_scalar or arch.head_size) == arch.head_size
    return gemma3.ModelConfig(
        num_layers=arch.num_layers,
        num_embed=arch.vocab_size,
        embed_dim=arch.hidden_size,
        hidden_dim=arch.mlp_size,
        num_heads=arch.num_heads,
        head_dim=arch.head_size,
        num_kv_heads=arch.num_kv_heads,
        sliding_window_size=arch.window,
        local_base_frequency=int(local.theta),
        global_base_frequency=int(arch.rope.theta),
        local_scale_factor=local.factor,
        global_scale_factor=arch.rope.factor,
        query_pre_attn_norm=by.BY_ONE_OVER_SQRT_HEAD_DIM if by_head else by.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS,
        remat_config=gemma3.RematConfig.DECODER if remat else gemma3.RematConfig.NONE,
        param_dtype=jnp.float32,
    )


class Layout:
    """Our trees as Tunix's arrays, by their dotted paths, and back; nothing is lost either way.

    Gemma 3's fused kernels have one LoRA input matrix for all their parts. Here the first part holds it: `join` drops
    the others' equal copies, `split` gives each part its own again, which is what files and PEFT hold.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        fused = _GEMMA3_FUSED if arch.num_heads == arch.num_kv_heads else _GEMMA3_GROUPED
        self.kernels = _QWEN3 if arch.model_type == "qwen3" else _GEMMA3 + fused
        norm = "final_norm.w" if arch.model_type == "qwen3" else "final_norm.scale"
        self._top = {"embed": "embedder.input_embedding", "final_norm": norm}

    def weights_to(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Whole weights in Tunix's layout."""
        found = {path: params[leaf] for leaf, path in self._top.items()}
        if "head" in params:
            found["lm_head.w"] = params["head"].T
        for kernel in self.kernels:
            for layer in range(self.arch.num_layers):
                parts = [self._fold(kernel.form, params["layers"][leaf][layer]) for leaf in kernel.leaves]
                found[f"layers.{layer}.{kernel.path}"] = parts[0] if len(parts) == 1 else jnp.stack(parts)
        return found

    def weights_from(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `weights_to`."""
        layers: dict[str, Any] = {}
        for kernel in self.kernels:
            held = [arrays[f"layers.{layer}.{kernel.path}"] for layer in range(self.arch.num_layers)]
            for place, leaf in enumerate(kernel.leaves):
                parts = held if len(kernel.leaves) == 1 else [array[place] for array in held]
                layers[leaf] = jnp.stack([self._unfold(kernel.form, part) for part in parts])
        params = {leaf: arrays[path] for leaf, path in self._top.items()} | {"layers": layers}
        return params if self.arch.tied else params | {"head": arrays["lm_head.w"].T}

    def adapter_to(self, lora: Mapping[str, Any]) -> dict[str, Any]:
        """A joined adapter in Tunix's layout."""
        found: dict[str, Any] = {}
        for kernel in self.adapted(lora["layers"]):
            pairs = [lora["layers"][leaf] for leaf in kernel.leaves]
            for layer in range(self.arch.num_layers):
                path = f"layers.{layer}.{kernel.path}"
                size = self.arch.head_size
                a, bs = pairs[0]["a"][layer], [pair["b"][layer] for pair in pairs]
                found[f"{path}_lora_a"] = a.reshape(-1, size, a.shape[-1]) if kernel.form == "NHD" else a
                if kernel.form in ("DNH", "NDH"):
                    bs = [b.reshape(b.shape[0], -1, size) for b in bs]
                found[f"{path}_lora_b"] = bs[0] if len(bs) == 1 else jnp.stack(bs, axis=1)
        return found

    def adapter_from(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `adapter_to`: a joined adapter."""
        layers: dict[str, Any] = {}
        for kernel in self.kernels:
            paths = [f"layers.{layer}.{kernel.path}" for layer in range(self.arch.num_layers)]
            if f"{paths[0]}_lora_a" not in arrays:
                continue
            a_s = [arrays[f"{path}_lora_a"] for path in paths]
            b_s = [arrays[f"{path}_lora_b"] for path in paths]
            for place, leaf in enumerate(kernel.leaves):
                parts = b_s if len(kernel.leaves) == 1 else [b[:, place] for b in b_s]
                layers[leaf] = {"b": jnp.stack([b.reshape(b.shape[0], -1) for b in parts])}
                if place == 0:
                    layers[leaf]["a"] = jnp.stack([a.reshape(-1, a.shape[-1]) for a in a_s])
        return {"layers": layers}

    def adapted(self, modules: Mapping[str, Any]) -> list[Kernel]:
        """The kernels that hold some of `modules`."""
        return [kernel for kernel in self.kernels if set(kernel.leaves) & set(modules)]

    def join(self, tree: Any) -> Any:
        """Any tree with adapters in it (an optimizer's state too), each shared matrix once."""
        return _on_adapters(tree, self._join)

    def split(self, tree: Any) -> Any:
        """The inverse of `join`."""
        return _on_adapters(tree, self._split)

    def check_adapter(self, settings: LoraSettings) -> None:
        """Raises InputError when some parts of a fused kernel are to be adapted and others not."""
        for kernel in self.adapted(dict.fromkeys(settings.target_modules)):
            if missing := sorted(set(kernel.leaves) - set(settings.target_modules)):
                raise InputError(
                    f"model.lora.target_modules: tunix holds {', '.join(kernel.leaves)} of {self.arch.model_type} in "
                    f"one kernel and adapts all of them or none, {', '.join(missing)} is missing; add it, or set "
                    "backend: local"
                )

    def check_joined(self, lora: Mapping[str, Any]) -> None:
        """Raises InputError for an adapter whose parts of a fused kernel have input matrices of their own."""
        for kernel in self.adapted(lora["layers"]):
            first, *others = (lora["layers"][leaf]["a"] for leaf in kernel.leaves)
            if any(not bool(jnp.array_equal(first, other)) for other in others):
                raise InputError(
                    f"model: tunix holds one LoRA input matrix for {', '.join(kernel.leaves)} of "
                    f"{self.arch.model_type}, this adapter has several; set backend: local to go on with it"
                )

    def _join(self, layers: Mapping[str, Any]) -> dict[str, Any]:
        followers = {leaf for kernel in self.kernels for leaf in kernel.leaves[1:]}
        return {name: {"b": pair["b"]} if name in followers else pair for name, pair in layers.items()}

    def _split(self, layers: Mapping[str, Any]) -> dict[str, Any]:
        leaders = {leaf: kernel.leaves[0] for kernel in self.kernels for leaf in kernel.leaves}
        return {name: {"a": layers[leaders[name]]["a"], "b": pair["b"]} for name, pair in layers.items()}

    def _fold(self, form: Form, array: Any) -> Any:
        """[in, out], or a vector, as Tunix holds it."""
        size = self.arch.head_size
        if form == "NHD":
            return array.reshape(-1, size, array.shape[-1])
        if form == "plain":
            return array
        heads_DNH = array.reshape(array.shape[0], -1, size)
        return heads_DNH if form == "DNH" else heads_DNH.transpose(1, 0, 2)

    def _unfold(self, form: Form, array: Any) -> Any:
        if form == "NHD":
            return array.reshape(-1, array.shape[-1])
        if form == "plain":
            return array
        heads_DNH = array if form == "DNH" else array.transpose(1, 0, 2)
        return heads_DNH.reshape(heads_DNH.shape[0], -1)


def _on_adapters(tree: Any, change: Any) -> Any:
    """Every `{"layers": {module: {"a", "b"}}}` inside a tree changed, everything else as it is."""

    def is_adapter(node: Any) -> bool:
        return isinstance(node, dict) and set(node) == {"layers"}

    return jax.tree.map(
        lambda node: {"layers": change(node["layers"])} if is_adapter(node) else node, tree, is_leaf=is_adapter
    )
