"""An arch is read from any form of config.json, written in both, and never guessed."""

import pytest

from tracetune.core.errors import InputError
from tracetune.models.arch import Arch, arch_from_hf, arch_to_hf
from tracetune.models.rope import Rope

QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "query_pre_attn_scalar": 12,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def newer(config: dict, rope_parameters: dict) -> dict:
    older = {"rope_theta", "rope_scaling", "rope_local_base_freq"}
    return {key: value for key, value in config.items() if key not in older} | {"rope_parameters": rope_parameters}


def test_the_older_and_the_newer_form_say_the_same():
    flat = newer(QWEN3, {"rope_type": "default", "rope_theta": 1e6})
    assert arch_from_hf(flat) == arch_from_hf(QWEN3)
    per_layer_type = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2 + ["sliding_attention"]
    layered = newer(GEMMA3, per_layer_type) | {"layer_types": kinds}
    layered.pop("sliding_window_pattern")
    assert arch_from_hf(layered) == arch_from_hf(GEMMA3)


def test_gemma3_is_read_as_it_was_trained():
    arch = arch_from_hf(GEMMA3)
    assert arch.sliding_layers == (0, 1, 3, 4, 6)
    assert (arch.window, arch.query_scalar, arch.tied) == (8, 12.0, True)
    assert arch.rope == Rope(theta=1e6, kind="linear", factor=8.0)
    assert arch.local_rope == Rope(theta=1e4)
    assert arch.activation == "gelu_pytorch_tanh"


def test_what_a_config_leaves_unsaid_is_the_familys_default():
    nested = {
        "model_type": "gemma3",
        "vision_config": {},
        "text_config": {"hidden_size": 2560, "num_hidden_layers": 34},
    }
    arch = arch_from_hf(nested)
    assert (arch.model_type, arch.num_heads, arch.num_kv_heads, arch.head_size) == ("gemma3_text", 8, 4, 256)
    assert (arch.vocab_size, arch.window, arch.query_scalar) == (262_208, 4096, 256.0)


@pytest.mark.parametrize(
    "config",
    [
        QWEN3,
        QWEN3 | {"tie_word_embeddings": False, "attention_bias": True},
        QWEN3 | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
        QWEN3 | {"model_type": "qwen2"},
        QWEN3 | {"model_type": "llama", "rope_scaling": LLAMA3_ROPE},
        QWEN3 | {"model_type": "gemma", "head_dim": 16},
        GEMMA3,
        GEMMA3 | {"sliding_window": None},
        GEMMA3 | {"model_type": "gemma2", "rope_scaling": None, "attn_logit_softcapping": None},
    ],
)
def test_a_written_config_reads_back_as_the_same_arch(config):
    arch = arch_from_hf(config)
    assert arch_from_hf(arch_to_hf(arch)) == arch
    assert isinstance(hash(arch), int)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba'"),
        ({"hidden_act": "relu"}, "activation 'relu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type 'yarn'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "needs factor"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_size": "32"}, "hidden_size must be a whole number"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads"),
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention"]}, "layer_types"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(wrong, named):
    with pytest.raises(InputError, match=named):
        arch_from_hf(QWEN3 | wrong)
    assert isinstance(arch_from_hf(QWEN3), Arch)
