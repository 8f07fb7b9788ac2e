"""Model folders from the checkpoints that transformers wrote (fixtures/make_logits.py)."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def copy_case() -> Callable[..., Path]:
    """Copies a whole model folder: weights, one form of the config, and the family's tokenizer."""

    def copy(case: str, folder: Path, *, older: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(FIXTURES / case / "model.safetensors", folder)
        shutil.copy(FIXTURES / case / ("config_older.json" if older else "config.json"), folder / "config.json")
        for file in (FIXTURES / "tokenizers" / ("gemma" if case.startswith("gemma") else "qwen")).iterdir():
            shutil.copy(file, folder)
        return folder

    return copy


@pytest.fixture(scope="session")
def logits() -> Callable[..., np.ndarray]:
    """Computes a model's logits of whole sequences, its adapter included."""

    from tracetune.models.transformer import forward, head_weights

    @partial(jax.jit, static_argnames=("arch", "lora_scale"))
    def run(params, lora, tokens_BT, *, arch, lora_scale):
        hidden_BTD = forward(
            params,
            arch,
            tokens_BT,
            segments_BT=jnp.ones_like(tokens_BT),
            positions_BT=jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32), tokens_BT.shape),
            lora=lora,
            lora_scale=lora_scale,
        )
        logits_BTV = jnp.einsum("btd,vd->btv", hidden_BTD, head_weights(params, arch), precision="highest")
        cap = arch.logit_softcap
        return cap * jnp.tanh(logits_BTV / cap) if cap else logits_BTV

    def compute(model, tokens_BT: np.ndarray) -> np.ndarray:
        tokens_BT = jnp.asarray(tokens_BT, jnp.int32)
        return np.asarray(run(model.params, model.lora, tokens_BT, arch=model.arch, lora_scale=model.lora_scale))

    return compute
