"""Which settings every backend obeys. Another one that a backend does not judge itself must stand at its default, so
that none is ignored."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.schema import LoraSettings, SftConfig

# The app obeys these whoever trains; `a.` stands for all of a section.
_ANYWHERE = (
    "backend", "seed", "resume", "system_instruction", "data.", "output.", "rewards", "prompt.", "tracking.",
    "benchmark.",
    "model.name", "model.max_length", "model.packing", "model.drop_long", "model.lora", "model.lora.r",
    "model.lora.alpha", "model.lora.target_modules",
)  # fmt: skip
_OPTIMIZER = (
    "learning_rate", "schedule", "warmup_steps", "warmup_ratio", "weight_decay", "max_grad_norm", "beta1", "beta2",
    "epsilon",
)  # fmt: skip
_SFT_TRAINING = (
    "num_steps", "num_epochs", "batch_size", "gradient_accumulation_steps", "seed", "logging_every", "save_every",
    "eval_every", "max_checkpoints",
)  # fmt: skip
_GRPO_TRAINING = (
    "micro_batch_size", "num_steps", "num_batches", "num_test_batches", "num_epochs", "eval_interval_steps",
    "save_interval_steps", "max_checkpoints_to_keep", "checkpoint_dir",
)  # fmt: skip
_GRPO = ("num_generations", "num_iterations", "beta", "epsilon", "epsilon_high", "dynamic_sampling", "max_resamples")
_GENERATION = ("max_prompt_length", "max_generation_steps", "temperature", "top_p", "top_k")
_LORA = asdict(LoraSettings())


def named_settings(config: SftConfig | GrpoConfig) -> dict[str, Any]:
    """Every setting by its dotted name."""
    return dict(_named(asdict(config)))


def not_obeyed(config: SftConfig | GrpoConfig, judged: Collection[str]) -> Iterator[str]:
    """Settings that were changed and that no backend of another's obeys, each as `name must be X, got Y`; those that
    are `judged` by the backend itself are left out."""
    training = _SFT_TRAINING if isinstance(config, SftConfig) else _GRPO_TRAINING
    read = {
        *_ANYWHERE,
        *judged,
        *(f"optimizer.{name}" for name in _OPTIMIZER),
        *(f"training.{name}" for name in training),
        *(f"grpo.{name}" for name in _GRPO),
        *(f"generation.{name}" for name in _GENERATION),
    }
    sections = tuple(name for name in read if name.endswith("."))
    usual = dict(_named({**asdict(type(config)()), "model": {**asdict(type(config)().model), "lora": _LORA}}))
    for name, value in named_settings(config).items():
        if name not in read and not name.startswith(sections) and value != usual[name]:
            yield f"{name} must be {usual[name]}, got {value}"


def _named(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _named(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
