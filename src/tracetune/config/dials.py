"""Every key an SFT file may contain: what it sets and what its value may be. A key that is not here is refused.

Three older shapes and the resolved `config.yaml` are one table: several keys may set the same dial.
"""

from typing import Any

from tracetune.config.check import Dial
from tracetune.config.kinds import (
    FLAG,
    INNER_PATH,
    TEXT,
    Kind,
    mapped,
    number,
    one_of,
    optional,
    several_of,
    share_below_one,
    whole,
)
from tracetune.config.schema import MeshSettings

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROW_FORMATS = ("auto", "trace", "tunix_sft", "training_example", "prompt_response", "messages")
MESH_AXES = ("dp", "data", "fsdp", "tp")


def _read_mesh(value: Any) -> MeshSettings:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(value)
    axes = several_of(*MESH_AXES).read(value[1])
    counts = value[0] if isinstance(value[0], list | tuple) else ()
    if len(counts) != len(axes) or {"dp", "data"} <= set(axes):
        raise ValueError(value)
    return MeshSettings(shape=tuple(whole(1).read(count) for count in counts), axes=axes)


MESH = Kind('device counts and their axes (dp or data, fsdp, tp), like [[2,2],["fsdp","tp"]]', _read_mesh)
DTYPE = optional(one_of("float32", "bfloat16"))
_NAME, _LENGTH = TEXT, whole(8)
_RATE, _SHARE, _DECAY = number(0, 1, above=True), number(0, 1), number(0)
_SCHEDULE = one_of("linear", "cosine", "constant")
_COUNT, _CADENCE = whole(1), whole(0)
_STEPS, _EPOCHS = optional(_COUNT), number(0, above=True)
_RANK, _MODULES = whole(1), several_of(*PROJECTIONS)
_QUANTIZE = optional(one_of("nf4", "int8"))
REMAT = mapped({False: False, True: True, "none": False, "full": True, "dots": "dots", "offload": "offload"})
_PADDING = mapped({False: True, True: False, "max_length": False})

DIALS = (
    Dial("backend", "backend", one_of("local", "tunix", "tinker")),
    Dial("system_instruction", "system_instruction", optional(TEXT)),
    # Flat keys.
    Dial("model", "model.name", _NAME),
    Dial("learning_rate", "optimizer.learning_rate", _RATE),
    Dial("steps", "training.num_steps", _STEPS),
    Dial("batch_size", "training.batch_size", _COUNT),
    Dial("seed", "training.seed", _CADENCE),
    # The model.
    Dial("model.name", "model.name", _NAME),
    Dial("model.base_model", "model.name", _NAME),
    Dial("model.max_length", "model.max_length", _LENGTH),
    Dial("data.max_seq_length", "model.max_length", _LENGTH),
    Dial("model.packing", "model.packing", FLAG),
    Dial("model.padding", "model.packing", _PADDING),
    Dial("model.drop_long", "model.drop_long", FLAG),
    Dial("model.truncation", "model.drop_long", FLAG),
    Dial("model.lora", "model.lora", mapped({None: None})),
    Dial("model.lora.r", "model.lora.r", _RANK),
    Dial("model.lora.alpha", "model.lora.alpha", number(0, above=True)),
    Dial("model.lora.target_modules", "model.lora.target_modules", _MODULES),
    Dial("model.dtype", "model.dtype", DTYPE),
    Dial("model.mesh_shape", "model.mesh", MESH),
    Dial("model.peft_config", "model.lora", mapped({None: None})),
    Dial("model.peft_config.r", "model.lora.r", _RANK),
    Dial("model.peft_config.lora_alpha", "model.lora.alpha", number(0, above=True)),
    Dial("model.peft_config.target_modules", "model.lora.target_modules", _MODULES),
    Dial("model.lora.quantize", "model.lora.quantize", _QUANTIZE),
    Dial("model.peft_config.quantize", "model.lora.quantize", _QUANTIZE),
    # The optimizer.
    Dial("training.optimizer", None, one_of("adamw")),
    Dial("optimizer.learning_rate", "optimizer.learning_rate", _RATE),
    Dial("training.learning_rate", "optimizer.learning_rate", _RATE),
    Dial("optimizer.schedule", "optimizer.schedule", _SCHEDULE),
    Dial("training.lr_scheduler", "optimizer.schedule", _SCHEDULE),
    Dial("optimizer.warmup_steps", "optimizer.warmup_steps", optional(_CADENCE)),
    Dial("training.warmup_steps", "optimizer.warmup_steps", optional(_CADENCE)),
    Dial("optimizer.warmup_ratio", "optimizer.warmup_ratio", _SHARE),
    Dial("training.warmup_ratio", "optimizer.warmup_ratio", _SHARE),
    Dial("optimizer.weight_decay", "optimizer.weight_decay", _DECAY),
    Dial("training.weight_decay", "optimizer.weight_decay", _DECAY),
    Dial("optimizer.max_grad_norm", "optimizer.max_grad_norm", optional(number(0, above=True))),
    Dial("training.max_grad_norm", "optimizer.max_grad_norm", optional(number(0, above=True))),
    Dial("optimizer.beta1", "optimizer.beta1", share_below_one()),
    Dial("optimizer.beta2", "optimizer.beta2", share_below_one()),
    Dial("optimizer.epsilon", "optimizer.epsilon", number(0, 1, above=True)),
    Dial("optimizer.offload", "optimizer.offload", FLAG),
    # How long, how large, how often.
    Dial("training.num_steps", "training.num_steps", _STEPS),
    Dial("training.num_epochs", "training.num_epochs", _EPOCHS),
    Dial("training.batch_size", "training.batch_size", _COUNT),
    Dial("training.per_device_batch_size", "training.batch_size", _COUNT),
    Dial("training.gradient_accumulation_steps", "training.gradient_accumulation_steps", _COUNT),
    Dial("training.gradient_checkpointing", "training.gradient_checkpointing", REMAT),
    Dial("training.seed", "training.seed", _CADENCE),
    Dial("training.logging_every", "training.logging_every", _CADENCE),
    Dial("training.logging_steps", "training.logging_every", _CADENCE),
    Dial("training.save_every", "training.save_every", _CADENCE),
    Dial("training.save_steps", "training.save_every", _CADENCE),
    Dial("training.eval_every", "training.eval_every", _CADENCE),
    Dial("training.eval_steps", "training.eval_every", _CADENCE),
    Dial("training.max_checkpoints", "training.max_checkpoints", _COUNT),
    # The data.
    Dial("data.train_file", "data.train_file", optional(TEXT)),
    Dial("data.eval_file", "data.eval_file", optional(TEXT)),
    Dial("data.format", "data.format", one_of(*ROW_FORMATS)),
    Dial("data.prompt_template", "data.prompt_template", one_of("default", "chat", "instruct")),
    Dial("data.shuffle", "data.shuffle", FLAG),
    Dial("data.shuffle_seed", "data.shuffle_seed", optional(_CADENCE)),
    # The run folder.
    Dial("output.folder", "output.folder", optional(TEXT)),
    Dial("training.output_dir", "output.folder", TEXT),
    Dial("output.checkpoint_dir", "output.checkpoint_dir", INNER_PATH),
    Dial("output.metrics_file", "output.metrics_file", INNER_PATH),
    Dial("output.manifest_file", "output.manifest_file", INNER_PATH),
)

# Of each pair only one may be set in one place: the other would be ignored in silence.
EXCLUSIVE = (
    ("training.num_steps", "training.num_epochs"),
    ("optimizer.warmup_steps", "optimizer.warmup_ratio"),
)
