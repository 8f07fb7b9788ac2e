"""Which settings a run by Tunix obeys. Every other one must stand at its default; none is ignored.

Importing this module imports no Tunix, so a run that cannot be is refused before anything is installed or loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from tracetune.backends.tunix_models import Layout, check_model
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.schema import LoraSettings, SftConfig
from tracetune.core.errors import InputError, Unavailable
from tracetune.models.model import Model

# Its trainers are entered at places of their own, which another version may not have.
TUNIX = "0.1.7"

# The app obeys these for every backend; `a.` stands for all of a section.
_ANYWHERE = (
    "backend", "seed", "resume", "system_instruction", "data.", "output.", "rewards", "prompt.", "tracking.",
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
    "micro_batch_size", "num_batches", "num_test_batches", "num_epochs", "eval_interval_steps",
    "save_interval_steps", "max_checkpoints_to_keep", "checkpoint_dir",
)  # fmt: skip
_GRPO = ("num_generations", "num_iterations", "beta", "epsilon", "epsilon_high", "dynamic_sampling", "max_resamples")
_GENERATION = ("max_prompt_length", "max_generation_steps", "temperature", "top_p", "top_k")
# What `_not_possible` looks at.
_JUDGED = ("model.dtype", "training.gradient_checkpointing", "grpo.loss")
_LORA = asdict(LoraSettings())
_LOSSES = ("grpo", "dapo", "dr_grpo", "rloo")


def check_settings(config: SftConfig | GrpoConfig) -> None:
    """Raises one InputError that names every setting which Tunix cannot obey."""
    settings = dict(_named(asdict(config)))
    mistakes = [*_not_obeyed(config, settings), *_not_possible(settings)]
    if mistakes:
        told = "; ".join(mistakes)
        raise InputError(f"backend: tunix cannot obey these settings: {told}; change them, or set backend: local")


def check_model_settings(model: Model, wanted: LoraSettings | None) -> None:
    """Raises InputError for a model, or an adapter that it has or gets, which Tunix's modules cannot hold."""
    check_model(model.arch)
    layout = Layout(model.arch)
    if settings := model.lora_settings or wanted:
        layout.check_adapter(settings)
    if model.lora is not None:
        layout.check_joined(model.lora)


def is_installed() -> bool:
    """Whether Tunix is here. Raises Unavailable for another version than the one this room reaches into."""
    try:
        found = version("google-tunix")
    except PackageNotFoundError:
        return False
    if found != TUNIX:
        raise Unavailable(f'backend: tunix needs google-tunix {TUNIX}, got {found}; run pip install "tracetune[tunix]"')
    return True


def installed_versions() -> dict[str, str]:
    """Tunix and what computes with it."""
    return {name: version(name) for name in ("google-tunix", "flax", "qwix")}


def _not_obeyed(config: SftConfig | GrpoConfig, settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings that nothing here reads and that were changed."""
    training = _SFT_TRAINING if isinstance(config, SftConfig) else _GRPO_TRAINING
    read = {
        *_ANYWHERE,
        *_JUDGED,
        *(f"optimizer.{name}" for name in _OPTIMIZER),
        *(f"training.{name}" for name in training),
        *(f"grpo.{name}" for name in _GRPO),
        *(f"generation.{name}" for name in _GENERATION),
    }
    sections = tuple(name for name in read if name.endswith("."))
    usual = dict(_named({**asdict(type(config)()), "model": {**asdict(type(config)().model), "lora": _LORA}}))
    for name, value in settings.items():
        if name not in read and not name.startswith(sections) and value != usual[name]:
            yield f"{name} must be {usual[name]}, got {value}"


def _not_possible(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings that are read, and whose value Tunix has nothing for."""
    dtype = settings.get("model.dtype") or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    if dtype != "float32":
        yield f"model.dtype must be float32, got {dtype}"
    if (remat := settings.get("training.gradient_checkpointing", False)) not in (True, False):
        yield f"training.gradient_checkpointing must be true or false, got {remat}"
    if (loss := settings.get("grpo.loss", _LOSSES[0])) not in _LOSSES:
        yield f"grpo.loss must be one of {', '.join(_LOSSES)}, got {loss}"
    if settings.get("generation.temperature", 1.0) <= 0:
        yield "generation.temperature must be above 0, which its sampler divides by, got 0"


def _named(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _named(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
