"""Every key of a GRPO run and of its evaluation: what it sets and what its value may be. Any other is refused."""

import re
from collections.abc import Sequence
from typing import Any

from tracetune.config.benchmark import BENCHMARK_DIALS
from tracetune.config.check import Dial
from tracetune.config.dials import DTYPE, MESH, OPTIMIZER_DIALS, PROJECTIONS, REMAT
from tracetune.config.kinds import (
    ANY_TEXT,
    FLAG,
    GRADES,
    LABEL,
    NAMES,
    TEXT,
    Kind,
    number,
    one_of,
    optional,
    several,
    share_below_one,
    share_within,
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
_CLIP = share_within()
_WARM = Kind("a number above 0 (greedy completions of one prompt are all equal)", number(0, above=True).read)
_MODULES = Kind(f"a pattern of names or a list, covering some of {', '.join(PROJECTIONS)}", _read_modules)
_FUNCTIONS = Kind("a list of rewards, each a built-in's name or module:function, none twice", _read_rewards)
_WEIGHTS = Kind("a list of numbers", _read_weights)

CURRICULUM_DIALS = (
    Dial(
        "curriculum.by",
        "data.curriculum.by",
        optional(one_of("grade", "difficulty", "topic")),
        "easier problems first: what makes a stage, null for no stages",
    ),
    Dial(
        "curriculum.order",
        "data.curriculum.order",
        optional(several(LABEL, "a list of grades, difficulties or topics, none twice")),
        "its stages from the first, null for the natural order, which topics do not have",
    ),
    Dial(
        "curriculum.promote_at",
        "data.curriculum.promote_at",
        _SHARE,
        "the next stage begins at this share of right completions",
    ),
    Dial("curriculum.window", "data.curriculum.window", _COUNT, "over so many prompts of the stage"),
    Dial(
        "curriculum.max_steps_per_stage",
        "data.curriculum.max_steps_per_stage",
        optional(_COUNT),
        "or after so many steps, null for never",
    ),
    Dial("curriculum.review", "data.curriculum.review", share_below_one(), "share of prompts from earlier stages"),
)

GRPO_DIALS = (
    Dial("backend", "backend", one_of("local", "tunix", "tinker"), "where it trains"),
    Dial("seed", "seed", _SEED, "governs everything drawn at random"),
    Dial(
        "resume",
        "resume",
        one_of("auto", "never"),
        "auto goes on from the newest checkpoint; never starts afresh and deletes nothing",
    ),
    Dial("checkpoint_dir", "checkpoint_dir", TEXT, "what a resume needs; a run pointed at the same one goes on"),
    Dial("wandb_disabled", "tracking.wandb_disabled", FLAG, "W&B is on when a key is configured and this is false"),
    Dial("wandb_project", "tracking.wandb_project", TEXT, "W&B's project"),
    Dial("wandb_run", "tracking.wandb_run", optional(TEXT), "the run's name there, null for that of the run folder"),
    Dial(
        "prompt.instruction",
        "prompt.instruction",
        optional(ANY_TEXT),
        "text before each question, `''` for none, null for: think in `<reasoning>`, answer in `<answer>`",
    ),
    Dial("prompt.system", "prompt.system", optional(TEXT), "the system turn, null for none"),
    # The model.
    Dial("model.model_family", "model.family", TEXT, "which model, by the alias table"),
    Dial(
        "model.model_size",
        "model.size",
        optional(Kind("a size, like 270m", _read_size)),
        "its size, by the alias table",
    ),
    Dial("model.path", "model.path", optional(TEXT), "a model folder, repository or alias in its place"),
    Dial("model.lora_rank", "lora.r", optional(_COUNT), "rank of the adapter, null for every weight"),
    Dial(
        "model.lora_alpha",
        "lora.alpha",
        number(0, above=True),
        "scale of the adapter: the update is multiplied by alpha / rank",
    ),
    Dial(
        "model.lora_module_path",
        "lora.target_modules",
        optional(_MODULES),
        "the weights it adapts, by our names or Google's; null for all seven",
    ),
    Dial(
        "model.lora_quantize",
        "lora.quantize",
        optional(one_of("nf4", "int8")),
        "hold the frozen weights in 4 or 8 bits (QLoRA), null as they are",
    ),
    Dial(
        "model.dtype",
        "model.dtype",
        DTYPE,
        "what products are computed in; null is float32 on a CPU, bfloat16 on a GPU or TPU",
    ),
    Dial("model.mesh_shape", "model.mesh", MESH, "devices and their axes (docs/scale.md)"),
    *OPTIMIZER_DIALS,
    # The algorithm.
    Dial("grpo.num_generations", "grpo.num_generations", _SIBLINGS, "completions of each prompt"),
    Dial("grpo.num_iterations", "grpo.num_iterations", _COUNT, "updates from each batch"),
    Dial("grpo.beta", "grpo.beta", number(0), "weight of the KL to the frozen reference, 0 for none"),
    Dial("grpo.epsilon", "grpo.epsilon", _CLIP, "a ratio is clipped to 1 − epsilon … 1 + epsilon_high"),
    Dial(
        "grpo.epsilon_high",
        "grpo.epsilon_high",
        optional(number(0, above=True)),
        "the upper bound, null for that of epsilon",
    ),
    Dial("grpo.loss", "grpo.loss", one_of("grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"), "the algorithm"),
    Dial(
        "grpo.dynamic_sampling",
        "grpo.dynamic_sampling",
        FLAG,
        "another prompt for one whose completions all earned the same",
    ),
    Dial("grpo.max_resamples", "grpo.max_resamples", _COUNT, "rounds of such prompts a step, at most"),
    # Completions.
    Dial(
        "generation.max_prompt_length",
        "generation.max_prompt_length",
        _COUNT,
        "longest prompt, in tokens; a longer one is left out, with a count",
    ),
    Dial("generation.max_generation_steps", "generation.max_generation_steps", _COUNT, "longest completion, in tokens"),
    Dial("generation.temperature", "generation.temperature", _WARM, "how freely completions are drawn"),
    Dial("generation.top_p", "generation.top_p", _SHARE, "from the likeliest tokens that have this share together"),
    Dial("generation.top_k", "generation.top_k", optional(_COUNT), "from so many of the likeliest, null for all"),
    # Problems, and how long and how large.
    Dial(
        "training.data_source",
        "data.data_source",
        one_of("builtin", "jsonl", "huggingface", "tfds", "kaggle"),
        "where problems come from",
    ),
    Dial(
        "training.data_path",
        "data.data_path",
        optional(TEXT),
        "the file, repository, data set or local copy; null is a hub's GSM8K",
    ),
    Dial(
        "training.task", "data.task", optional(TEXT), "the built-in task, such as `arithmetic:easy`; null is arithmetic"
    ),
    Dial("training.split", "data.split", optional(TEXT), "the part of a hub's data set, null is train"),
    Dial("training.eval_path", "data.eval_path", optional(TEXT), "a JSONL file of problems to validate on"),
    Dial("training.grades", "data.grades", optional(GRADES), "only problems of these grades, null for all"),
    Dial("training.topics", "data.topics", optional(NAMES), "only problems with one of these topic tags, null for all"),
    Dial("training.train_fraction", "data.train_fraction", _SHARE, "share of the batches that is trained on"),
    Dial("training.micro_batch_size", "training.micro_batch_size", _COUNT, "prompts in a step"),
    Dial("training.num_steps", "training.num_steps", optional(_COUNT), "steps, null for those of the batches"),
    Dial(
        "training.num_batches",
        "training.num_batches",
        optional(_COUNT),
        "batches in an epoch, bounded by the data; null for all of it",
    ),
    Dial("training.num_test_batches", "training.num_test_batches", _CADENCE, "batches held out for validation"),
    Dial("training.num_epochs", "training.num_epochs", number(0, above=True), "passes over the batches"),
    Dial(
        "training.gradient_checkpointing",
        "training.gradient_checkpointing",
        REMAT,
        "compute layers again in the backward pass (docs/memory.md)",
    ),
    Dial(
        "training.eval_interval_steps",
        "training.eval_interval_steps",
        _CADENCE,
        "steps between validations, 0 for the last alone",
    ),
    Dial(
        "training.save_interval_steps",
        "training.save_interval_steps",
        _CADENCE,
        "steps between checkpoints, 0 for the last alone",
    ),
    Dial("training.max_checkpoints_to_keep", "training.max_checkpoints_to_keep", _COUNT, "checkpoints kept"),
    Dial("training.checkpoint_dir", "training.checkpoint_dir", TEXT, "the same as `checkpoint_dir`"),
    Dial(
        "training.log_dir", "tracking.log_dir", optional(TEXT), "where TensorBoard's files go, null for the run folder"
    ),
    *CURRICULUM_DIALS,
    *BENCHMARK_DIALS,
    # Rewards, summed.
    Dial(
        "rewards.functions",
        "rewards.functions",
        _FUNCTIONS,
        "rewards, summed: built-ins, or `module:function(prompts, completions, **columns)`",
    ),
    Dial("rewards.weights", "rewards.weights", optional(_WEIGHTS), "what each is multiplied by, null for 1 each"),
)

EVALUATE_DIALS = (
    Dial("checkpoint_dir", "checkpoint_dir", TEXT, "a run's checkpoints, its run folder, or a model folder"),
    Dial("step", "step", optional(_CADENCE), "which checkpoint, null for the newest"),
    Dial("num_passes", "num_passes", _COUNT, "completions of each problem (pass@k)"),
    Dial("num_batches", "num_batches", optional(_COUNT), "batches of the validation set, null for all"),
    Dial("seed", "seed", _SEED, "governs everything drawn at random"),
    Dial("output", "output", optional(TEXT), "where results go, null for evaluations/ beside the checkpoint"),
    Dial(
        "inference_config.name",
        "inference_config",
        one_of("greedy", "standard", "liberal"),
        "how answers are drawn, by name",
    ),
    Dial("inference_config.temperature", "temperature", number(0), "0 takes the likeliest token"),
    Dial("inference_config.top_p", "top_p", _SHARE, "from the likeliest tokens that have this share together"),
    Dial("inference_config.top_k", "top_k", optional(_COUNT), "from so many of the likeliest, null for all"),
)
