"""The smallest real run: a model of a few thousand weights in a folder, and rows of sums."""

import json
from pathlib import Path
from typing import Any

import pytest

HIDDEN, LAYERS = 16, 1


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-shaped model folder that trains in milliseconds a step."""
    import jax

    from tracetune.models.arch import arch_from_hf, arch_to_hf
    from tracetune.models.load import save_folder
    from tracetune.models.model import make_model
    from tracetune.models.tiny import tiny_arch, tiny_tokenizer
    from tracetune.models.transformer import init_params

    shape = {"hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    arch = arch_from_hf({**arch_to_hf(tiny_arch()), **shape, "num_key_value_heads": 1, "head_dim": 8})
    folder = tmp_path_factory.mktemp("model") / "small"
    save_folder(make_model("small", arch, init_params(jax.random.key(3), arch), tiny_tokenizer()), folder)
    return folder


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 rows `{prompt, response}`."""
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    pairs = [(a, b) for a in range(8) for b in range(5)]
    rows = [{"prompt": f"What is {a} + {b}?", "response": f"Answer: {a + b}"} for a, b in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def small_settings(small_model: Path) -> dict[str, Any]:
    """Settings of a run of 2 epochs and some, with gradient accumulation, that saves every third step."""
    return {
        "model": {"name": str(small_model), "max_length": 64},
        "training": {
            "num_steps": 10,
            "learning_rate": 0.01,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "warmup_steps": 2,
            "logging_steps": 2,
            "save_steps": 3,
            "weight_decay": 0.01,
            "seed": 7,
        },
    }
