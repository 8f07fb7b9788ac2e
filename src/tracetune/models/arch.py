"""The shape and switches of a decoder, read from and written to Hugging Face's `config.json`.

Understands the older form (`rope_theta`, `rope_scaling`, `sliding_window_pattern`) and the newer
(`rope_parameters`, `layer_types`), bare or nested under `text_config`. Refuses what it would compute wrongly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tracetune.core.errors import InputError
from tracetune.models.rope import Rope, rope_from_hf, rope_to_hf

Activation = Literal["silu", "gelu_pytorch_tanh", "gelu"]


class Family(NamedTuple):
    """What every model of a family has in common, and what its `config.json` may leave unsaid."""

    architecture: str
    defaults: Mapping[str, Any]
    qk_norm: bool = False
    qkv_bias: bool = False
    norm_plus_one: bool = False
    scales_embeddings: bool = False
    post_norms: bool = False


_COMMON = {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "hidden_act": "silu", "tie_word_embeddings": False}
_GEMMA = {
    **_COMMON,
    "hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "head_dim": 256,
    "max_position_embeddings": 8192,
}
_GEMMA2 = {
    **_GEMMA,
    "vocab_size": 256_000,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 2,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
_GEMMA3 = {
    **_GEMMA2,
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "max_position_embeddings": 131_072,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window_pattern": 6,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
FAMILIES: Mapping[str, Family] = {
    "qwen3": Family("Qwen3ForCausalLM", {**_COMMON, "head_dim": 128, "max_position_embeddings": 32_768}, qk_norm=True),
    "qwen2": Family("Qwen2ForCausalLM", {**_COMMON, "max_position_embeddings": 32_768}, qkv_bias=True),
    "llama": Family("LlamaForCausalLM", {**_COMMON, "max_position_embeddings": 2048}),
    "gemma": Family("GemmaForCausalLM", _GEMMA, norm_plus_one=True, scales_embeddings=True),
    "gemma2": Family("Gemma2ForCausalLM", _GEMMA2, norm_plus_one=True, scales_embeddings=True, post_norms=True),
    "gemma3_text": Family(
        "Gemma3ForCausalLM", _GEMMA3, qk_norm=True, norm_plus_one=True, scales_embeddings=True, post_norms=True
    ),
}
_ACTIVATIONS = ("silu", "gelu_pytorch_tanh", "gelu")


@dataclass(frozen=True, kw_only=True)
class Arch:
    """One decoder. `window` None means that every layer sees its whole segment.

    `query_scalar` None scales scores by 1/√head_size, else by 1/√query_scalar. `local_rope` is for the sliding
    layers; None means they share `rope`. Two archs are equal when they compute the same.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_positions: int
    norm_eps: float
    activation: Activation
    tied: bool
    rope: Rope
    local_rope: Rope | None = None
    window: int | None = None
    sliding_layers: tuple[int, ...] = ()
    query_scalar: int | None = None
    attn_bias: bool = False
    attn_softcap: float | None = None
    logit_softcap: float | None = None

    @property
    def family(self) -> Family:
        """The switches that come with the model type."""
        return FAMILIES[self.model_type]

    @property
    def query_scale(self) -> float:
        """The factor on attention scores."""
        return float(self.query_scalar or self.head_size) ** -0.5

    @property
    def num_params(self) -> int:
        """Weights in all; the head counts once when tied."""
        sizes_q, sizes_kv = self.num_heads * self.head_size, self.num_kv_heads * self.head_size
        layer = 2 * self.hidden_size * (sizes_q + sizes_kv) + 3 * self.hidden_size * self.mlp_size
        layer += self.hidden_size * (4 if self.family.post_norms else 2)
        layer += 2 * self.head_size if self.family.qk_norm else 0
        layer += sizes_q + 2 * sizes_kv if self.attn_bias or self.family.qkv_bias else 0
        layer += self.hidden_size if self.attn_bias else 0
        tables = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return self.num_layers * layer + tables + self.hidden_size


def arch_from_hf(config: Mapping[str, Any]) -> Arch:
    """Raises InputError for a model type, activation, rope type or switch that is not supported, or a missing key."""
    config = _text_config(config)
    model_type = config["model_type"]
    family = FAMILIES[model_type]
    _refuse_unsupported(config)
    values = {**family.defaults, **{key: value for key, value in config.items() if value is not None}}
    # A null soft-cap or window switches it off where the family's default is on.
    values.update({key: None for key in _NULLABLE if key in config and config[key] is None})
    hidden, heads = _size(values, "hidden_size"), _size(values, "num_attention_heads")
    values.setdefault("num_key_value_heads", heads)
    values.setdefault("head_dim", hidden // heads)
    rope, local_rope = _ropes(config, values)
    num_layers = _size(values, "num_hidden_layers")
    sliding_layers = _sliding_layers(values, num_layers)
    arch = Arch(
        model_type=model_type,
        vocab_size=_size(values, "vocab_size"),
        hidden_size=hidden,
        mlp_size=_size(values, "intermediate_size"),
        num_layers=num_layers,
        num_heads=heads,
        num_kv_heads=_size(values, "num_key_value_heads"),
        head_size=_size(values, "head_dim"),
        max_positions=_size(values, "max_position_embeddings"),
        norm_eps=float(values["rms_norm_eps"]),
        activation=_activation(config, values),
        tied=bool(values["tie_word_embeddings"]),
        rope=rope,
        local_rope=local_rope if sliding_layers and local_rope != rope else None,
        window=_size(values, "sliding_window") if sliding_layers else None,
        sliding_layers=sliding_layers,
        query_scalar=_size(values, "query_pre_attn_scalar") if "query_pre_attn_scalar" in values else None,
        attn_bias=bool(values.get("attention_bias", False)),
        attn_softcap=_number(values, "attn_logit_softcapping"),
        logit_softcap=_number(values, "final_logit_softcapping"),
    )
    if arch.num_heads % arch.num_kv_heads:
        raise InputError(
            f"config.json: num_attention_heads ({arch.num_heads}) must be a multiple of num_key_value_heads "
            f"({arch.num_kv_heads})"
        )
    return arch


_NULLABLE = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping")


def arch_to_hf(arch: Arch) -> dict[str, Any]:
    """A `config.json` that transformers loads, in the older and the newer form at once."""
    config = {
        "architectures": [arch.family.architecture],
        "model_type": arch.model_type,
        "vocab_size": arch.vocab_size,
        "hidden_size": arch.hidden_size,
        "intermediate_size": arch.mlp_size,
        "num_hidden_layers": arch.num_layers,
        "num_attention_heads": arch.num_heads,
        "num_key_value_heads": arch.num_kv_heads,
        "head_dim": arch.head_size,
        "max_position_embeddings": arch.max_positions,
        "rms_norm_eps": arch.norm_eps,
        "hidden_act": arch.activation,
        "tie_word_embeddings": arch.tied,
        "attention_bias": arch.attn_bias,
        "rope_theta": arch.rope.theta,
        "rope_scaling": None if arch.rope.kind == "default" else rope_to_hf(arch.rope),
        "rope_parameters": rope_to_hf(arch.rope),
    }
    if arch.model_type.startswith("gemma"):
        config["hidden_activation"] = arch.activation
    if arch.model_type in ("gemma2", "gemma3_text"):
        config |= {
            "query_pre_attn_scalar": arch.query_scalar,
            "attn_logit_softcapping": arch.attn_softcap,
            "final_logit_softcapping": arch.logit_softcap,
        }
    return config | _windows_to_hf(arch)


def _windows_to_hf(arch: Arch) -> dict[str, Any]:
    config: dict[str, Any] = {"sliding_window": arch.window}
    if arch.model_type in ("qwen2", "qwen3"):
        config["use_sliding_window"] = arch.window is not None
        if arch.sliding_layers:
            config["max_window_layers"] = arch.sliding_layers[0]
    if arch.sliding_layers or arch.model_type in ("gemma2", "gemma3_text"):
        sliding = set(arch.sliding_layers)
        config["layer_types"] = [
            "sliding_attention" if layer in sliding else "full_attention" for layer in range(arch.num_layers)
        ]
    if arch.model_type == "gemma3_text":
        local = arch.local_rope or arch.rope
        config |= {
            "rope_local_base_freq": local.theta,
            "rope_parameters": {
                "full_attention": rope_to_hf(arch.rope),
                "sliding_attention": rope_to_hf(local),
            },
        }
    return config


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language half of a multimodal config, or the config itself; its model type is one we know."""
    if "text_config" in config:
        nested = config["text_config"]
        config = {"model_type": f"{config.get('model_type')}_text", **nested}
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(
            f"config.json: model_type {model_type!r} is not supported; supported are {', '.join(sorted(FAMILIES))}"
        )
    return config


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Switches that would silently change the result."""
    plain = {"mlp_bias": False, "use_bidirectional_attention": False, "partial_rotary_factor": 1.0}
    for key, value in plain.items():
        if config.get(key) is not None and config[key] != value:
            raise InputError(
                f"config.json: {key} must be {value!r}, got {config[key]!r}; this variant is not supported"
            )


def _size(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"config.json: {key} must be a whole number of at least 1, got {value!r}")
    return value


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise InputError(f"config.json: {key} must be a number, got {value!r}")
    return None if value is None else float(value)


def _activation(config: Mapping[str, Any], values: Mapping[str, Any]) -> Activation:
    name = values.get("hidden_activation") or values["hidden_act"]
    # Gemma's first configs said "gelu" and meant the tanh form they were trained with.
    if name == "gelu" and config["model_type"] == "gemma" and not config.get("hidden_activation"):
        name = "gelu_pytorch_tanh"
    if name not in _ACTIVATIONS:
        raise InputError(f"config.json: activation {name!r} is not supported; supported are {', '.join(_ACTIVATIONS)}")
    return name


def _sliding_layers(values: Mapping[str, Any], num_layers: int) -> tuple[int, ...]:
    """Indices of the layers with a sliding window."""
    model_type = values["model_type"]
    is_qwen = model_type.startswith("qwen")
    if values.get("sliding_window") is None or (is_qwen and not values.get("use_sliding_window")):
        return ()
    if (types := values.get("layer_types")) is not None:
        if len(types) != num_layers or set(types) - {"sliding_attention", "full_attention"}:
            raise InputError(
                f"config.json: layer_types must name full_attention or sliding_attention for each of {num_layers} "
                f"layers, got {types!r}"
            )
        return tuple(layer for layer, kind in enumerate(types) if kind == "sliding_attention")
    if is_qwen:
        return tuple(range(values.get("max_window_layers", 28), num_layers))
    pattern = values.get("_sliding_window_pattern") or values.get("sliding_window_pattern")
    return tuple(layer for layer in range(num_layers) if (layer + 1) % pattern) if pattern else ()


def _ropes(config: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Rope, Rope | None]:
    """Global and local rotary settings."""
    theta = values["rope_theta"]
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    local = {"rope_theta": values.get("rope_local_base_freq", theta)}
    if "full_attention" in settings or "sliding_attention" in settings:
        local = local | (settings.get("sliding_attention") or {})
        settings = settings.get("full_attention") or {}
    rope = rope_from_hf(settings, theta)
    return rope, rope_from_hf(local, theta) if values["model_type"] == "gemma3_text" else None
