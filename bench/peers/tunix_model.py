"""The model of `bench/compare.py` as Tunix reads it. Its Qwen 3 turns by a base of 1,000,000 whatever is configured."""

import json
import os
from importlib.metadata import version
from pathlib import Path

# Tunix asks Weights & Biases for a run unless it is told not to.
os.environ["WANDB_MODE"] = "disabled"

import jax
from tunix.models.qwen3.model import ModelConfig, Qwen3
from tunix.models.qwen3.params import create_model_from_safe_tensors

ROPE_BASE = 1_000_000


def load(folder: Path, mesh: jax.sharding.Mesh) -> Qwen3:
    """The weights in float32. Raises ValueError for a base that Tunix would ignore."""
    told = json.loads((folder / "config.json").read_text())
    if told["rope_theta"] != ROPE_BASE:
        raise ValueError(f"rope_theta must be {ROPE_BASE}, which is what Tunix computes with, got {told['rope_theta']}")
    config = ModelConfig(
        num_layers=told["num_hidden_layers"],
        vocab_size=told["vocab_size"],
        embed_dim=told["hidden_size"],
        hidden_dim=told["intermediate_size"],
        num_heads=told["num_attention_heads"],
        head_dim=told["head_dim"],
        num_kv_heads=told["num_key_value_heads"],
        rope_theta=ROPE_BASE,
        norm_eps=told["rms_norm_eps"],
        use_tied_embedding=told["tie_word_embeddings"],
    )
    return create_model_from_safe_tensors(str(folder), config, mesh, dtype=jax.numpy.float32)


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("google-tunix", "jax", "flax")}
