"""Every key of a GRPO run and of its evaluation: what it sets and what its value may be. Any other is refused."""

import re
from collections.abc import Sequence
from typing import Any

from tracetune.config.check import Dial
from tracetune.config.dials import DTYPE, MESH, PROJECTIONS, REMAT
from tracetune.config.kinds import (
    ANY_TEXT,
    FLAG,
    TEXT,
    Kind,
    number,
    one_of,
    optional,
    share_below_one,
    whole,
)

# Google's names of the weights that `lora_module_path` may match, beside our own.
_GOOGLE_NAMES = {
    "q_proj": ("q_einsum", "qkv_einsum"),
    "k_proj": ("kv_einsum", "qkv_einsum"),
    "v_proj": ("kv_einsum", "qkv_einsum"),
    "o_proj": ("attn_vec_einsum",),
}
_REWARD = re.compile(r"[A-Za-z_]\w*|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _read_modules(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        found = tuple(name for name in PROJECTIONS if _matches(value, name))
    else:
        found = tuple(name for name in PROJECTIONS if name in _list(value))
        if len(found) != len(value):
            raise ValueError(value)
    if not found:
        raise ValueError(value)
    return found


def _matches(pattern: str, name: str) -> bool:
    """Whether the pattern covers the weight by our name or Google's, alone or at the end of a path."""
    try:
        names = (name, *_GOOGLE_NAMES.get(name, ()))
        return any(re.fullmatch(pattern, path) for each in names for path in (each, f"layers.0.block.{each}"))
    except re.error as error:
        raise ValueError(pattern) from error


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(value)
    return value


def _read_rewards(value: Any) -> tuple[str, ...]:
    names = tuple(name if isinstance(name, str) and _REWARD.fullmatch(name) else "" for name in _list(value))
    if "" in names or len(set(names)) != len(names):
        raise ValueError(value)
    return names


def _read_weights(value: Any) -> tuple[float, ...]:
    return tuple(number(float("-inf")).read(weight) for weight in _list(value))


def _read_size(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else TEXT.read(value)


_COUNT, _CADENCE, _SHARE = whole(1), whole(0), number(0, 1, above=True)
_SEED = whole(0, 2**32 - 1)
_SIBLINGS = Kind("a whole number of at least 2 (one completion has no siblings)", whole(2).read)
_CLIP = Kind("a number above 0 and below 1", lambda value: share_below_one().read(number(0, 1, above=True).read(value)))
_WARM = Kind("a number above 0 (greedy completions of one prompt are all equal)", number(0, above=True).read)
_MODULES = Kind(f"a pattern of names or a list, covering some of {', '.join(PROJECTIONS)}", _read_modules)
_FUNCTIONS = Kind("a list of rewards, each a built-in's name or module:function, none twice", _read_rewards)
_WEIGHTS = Kind("a list of numbers", _read_weights)

GRPO_DIALS = (
    Dial("backend", "backend", one_of("local", "tunix", "tinker")),
    Dial("seed", "seed", _SEED),
    Dial("resume", "resume", one_of("auto", "never")),
    Dial("checkpoint_dir", "checkpoint_dir", TEXT),
    Dial("wandb_disabled", "tracking.wandb_disabled", FLAG),
    Dial("wandb_project", "tracking.wandb_project", TEXT),
    Dial("wandb_run", "tracking.wandb_run", optional(TEXT)),
    Dial("prompt.instruction", "prompt.instruction", optional(ANY_TEXT)),
    Dial("prompt.system", "prompt.system", optional(TEXT)),
    # The model.
    Dial("model.model_family", "model.family", TEXT),
    Dial("model.model_size", "model.size", optional(Kind("a size, like 270m", _read_size))),
    Dial("model.path", "model.path", optional(TEXT)),
    Dial("model.lora_rank", "lora.r", optional(_COUNT)),
    Dial("model.lora_alpha", "lora.alpha", number(0, above=True)),
    Dial("model.lora_module_path", "lora.target_modules", optional(_MODULES)),
    Dial("model.lora_quantize", "lora.quantize", optional(one_of("nf4", "int8"))),
    Dial("model.dtype", "model.dtype", DTYPE),
    Dial("model.mesh_shape", "model.mesh", MESH),
    # The optimizer.
    Dial("optimizer.learning_rate", "optimizer.learning_rate", number(0, 1, above=True)),
    Dial("optimizer.schedule", "optimizer.schedule", one_of("linear", "cosine", "constant")),
    Dial("optimizer.warmup_ratio", "optimizer.warmup_ratio", number(0, 1)),
    Dial("optimizer.warmup_steps", "optimizer.warmup_steps", optional(_CADENCE)),
    Dial("optimizer.weight_decay", "optimizer.weight_decay", number(0)),
    Dial("optimizer.max_grad_norm", "optimizer.max_grad_norm", optional(number(0, above=True))),
    Dial("optimizer.beta1", "optimizer.beta1", share_below_one()),
    Dial("optimizer.beta2", "optimizer.beta2", share_below_one()),
    Dial("optimizer.epsilon", "optimizer.epsilon", _SHARE),
    Dial("optimizer.offload", "optimizer.offload", FLAG),
    # The algorithm.
    Dial("grpo.num_generations", "grpo.num_generations", _SIBLINGS),
    Dial("grpo.num_iterations", "grpo.num_iterations", _COUNT),
    Dial("grpo.beta", "grpo.beta", number(0)),
    Dial("grpo.epsilon", "grpo.epsilon", _CLIP),
    Dial("grpo.epsilon_high", "grpo.epsilon_high", optional(number(0, above=True))),
    Dial("grpo.loss", "grpo.loss", one_of("grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo")),
    Dial("grpo.dynamic_sampling", "grpo.dynamic_sampling", FLAG),
    Dial("grpo.max_resamples", "grpo.max_resamples", _COUNT),
    # Completions.
    Dial("generation.max_prompt_length", "generation.max_prompt_length", _COUNT),
    Dial("generation.max_generation_steps", "generation.max_generation_steps", _COUNT),
    Dial("generation.temperature", "generation.temperature", _WARM),
    Dial("generation.top_p", "generation.top_p", _SHARE),
    Dial("generation.top_k", "generation.top_k", optional(_COUNT)),
    # Problems, and how long and how large.
    Dial("training.data_source", "data.data_source", one_of("builtin", "jsonl", "huggingface", "tfds", "kaggle")),
    Dial("training.data_path", "data.data_path", optional(TEXT)),
    Dial("training.task", "data.task", optional(TEXT)),
    Dial("training.split", "data.split", optional(TEXT)),
    Dial("training.train_fraction", "data.train_fraction", _SHARE),
    Dial("training.micro_batch_size", "training.micro_batch_size", _COUNT),
    Dial("training.num_batches", "training.num_batches", _COUNT),
    Dial("training.num_test_batches", "training.num_test_batches", _CADENCE),
    Dial("training.num_epochs", "training.num_epochs", number(0, above=True)),
    Dial("training.gradient_checkpointing", "training.gradient_checkpointing", REMAT),
    Dial("training.eval_interval_steps", "training.eval_interval_steps", _CADENCE),
    Dial("training.save_interval_steps", "training.save_interval_steps", _CADENCE),
    Dial("training.max_checkpoints_to_keep", "training.max_checkpoints_to_keep", _COUNT),
    Dial("training.checkpoint_dir", "training.checkpoint_dir", TEXT),
    Dial("training.log_dir", "tracking.log_dir", optional(TEXT)),
    # Rewards, summed.
    Dial("rewards.functions", "rewards.functions", _FUNCTIONS),
    Dial("rewards.weights", "rewards.weights", optional(_WEIGHTS)),
)

EVALUATE_DIALS = (
    Dial("checkpoint_dir", "checkpoint_dir", TEXT),
    Dial("step", "step", optional(_CADENCE)),
    Dial("num_passes", "num_passes", _COUNT),
    Dial("num_batches", "num_batches", optional(_COUNT)),
    Dial("seed", "seed", _SEED),
    Dial("output", "output", optional(TEXT)),
    Dial("inference_config.name", "inference_config", one_of("greedy", "standard", "liberal")),
    Dial("inference_config.temperature", "temperature", number(0)),
    Dial("inference_config.top_p", "top_p", _SHARE),
    Dial("inference_config.top_k", "top_k", optional(_COUNT)),
)
