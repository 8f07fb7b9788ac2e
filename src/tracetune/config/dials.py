"""Every key an SFT file may contain: what it sets and what its value may be. A key that is not here is refused.

Three older shapes and the resolved `config.yaml` are one table: several keys may set the same dial.
"""

from typing import Any

from tracetune.config.benchmark import BENCHMARK_DIALS
from tracetune.config.check import Dial
from tracetune.config.kinds import (
    FLAG,
    GRADES,
    INNER_PATH,
    NAMES,
    TEXT,
    Kind,
    mapped,
    number,
    one_of,
    optional,
    several_of,
    share_below_one,
    share_within,
    whole,
)
from tracetune.config.schema import MeshSettings, TrainFile

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


def _read_train_files(value: Any) -> tuple[TrainFile, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(value)
    files = tuple(_read_train_file(item) for item in value)
    if len({file.path for file in files}) != len(files):
        raise ValueError(value)
    return files


def _read_train_file(value: Any) -> TrainFile:
    fields = value if isinstance(value, dict) else {"path": value}
    if not {"path"} <= set(fields) <= {"path", "weight"}:
        raise ValueError(value)
    weight = number(0, above=True).read(fields.get("weight", 1.0))
    return TrainFile(path=TEXT.read(fields["path"]), weight=weight)


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
TRAIN_FILES = Kind("a list of files, each a path or {path: …, weight: a number above 0}, none twice", _read_train_files)
_PADDING = mapped({False: True, True: False, "max_length": False})

# Of every local trainer: AdamW and its schedule.
OPTIMIZER_DIALS = (
    Dial("optimizer.learning_rate", "optimizer.learning_rate", _RATE, "learning rate at its highest"),
    Dial("optimizer.schedule", "optimizer.schedule", _SCHEDULE, "how it falls; the fall ends when training ends"),
    Dial(
        "optimizer.warmup_steps",
        "optimizer.warmup_steps",
        optional(_CADENCE),
        "steps of warm-up, null for `warmup_ratio`",
    ),
    Dial("optimizer.warmup_ratio", "optimizer.warmup_ratio", _SHARE, "warm-up as a share of all steps"),
    Dial("optimizer.weight_decay", "optimizer.weight_decay", _DECAY, "decoupled decay of matrices"),
    Dial(
        "optimizer.max_grad_norm",
        "optimizer.max_grad_norm",
        optional(number(0, above=True)),
        "largest gradient norm, null for none",
    ),
    Dial("optimizer.beta1", "optimizer.beta1", share_below_one(), "Adam's mean of gradients"),
    Dial("optimizer.beta2", "optimizer.beta2", share_below_one(), "Adam's mean of their squares"),
    Dial("optimizer.epsilon", "optimizer.epsilon", number(0, 1, above=True), "Adam's guard of the division"),
    Dial("optimizer.offload", "optimizer.offload", FLAG, "the optimizer's state rests in pinned memory of the host"),
)

DIALS = (
    Dial("backend", "backend", one_of("local", "tunix", "tinker"), "where it trains"),
    Dial("system_instruction", "system_instruction", optional(TEXT), "text before every prompt"),
    # Flat keys.
    Dial("model", "model.name", _NAME),
    Dial("learning_rate", "optimizer.learning_rate", _RATE),
    Dial("steps", "training.num_steps", _STEPS),
    Dial("batch_size", "training.batch_size", _COUNT),
    Dial("seed", "training.seed", _CADENCE),
    # The model.
    Dial("model.name", "model.name", _NAME, "base model: alias, repository, folder or tiny"),
    Dial("model.base_model", "model.name", _NAME),
    Dial("model.max_length", "model.max_length", _LENGTH, "tokens in a row"),
    Dial("data.max_seq_length", "model.max_length", _LENGTH),
    Dial("model.packing", "model.packing", FLAG, "several examples in a row; `padding` is its opposite"),
    Dial("model.padding", "model.packing", _PADDING),
    Dial(
        "model.drop_long", "model.drop_long", FLAG, "leave over-long examples out, with a count; else one is an error"
    ),
    Dial("model.truncation", "model.drop_long", FLAG),
    Dial("model.lora", "model.lora", mapped({None: None}), "train an adapter, or null for every weight"),
    Dial("model.lora.r", "model.lora.r", _RANK, "rank of the adapter"),
    Dial(
        "model.lora.alpha",
        "model.lora.alpha",
        number(0, above=True),
        "scale of the adapter: the update is multiplied by alpha / r",
    ),
    Dial("model.lora.target_modules", "model.lora.target_modules", _MODULES, "the weights it adapts"),
    Dial(
        "model.lora.quantize",
        "model.lora.quantize",
        _QUANTIZE,
        "hold the frozen weights in 4 or 8 bits (QLoRA), null as they are",
    ),
    Dial(
        "model.dtype",
        "model.dtype",
        DTYPE,
        "what products are computed in; null is float32 on a CPU, bfloat16 on a GPU or TPU",
    ),
    Dial("model.mesh_shape", "model.mesh", MESH, "devices and their axes (docs/scale.md)"),
    Dial("model.peft_config", "model.lora", mapped({None: None})),
    Dial("model.peft_config.r", "model.lora.r", _RANK),
    Dial("model.peft_config.lora_alpha", "model.lora.alpha", number(0, above=True)),
    Dial("model.peft_config.target_modules", "model.lora.target_modules", _MODULES),
    Dial("model.peft_config.quantize", "model.lora.quantize", _QUANTIZE),
    # The optimizer.
    *OPTIMIZER_DIALS,
    Dial("training.optimizer", None, one_of("adamw"), "the optimizer"),
    Dial("training.learning_rate", "optimizer.learning_rate", _RATE),
    Dial("training.lr_scheduler", "optimizer.schedule", _SCHEDULE),
    Dial("training.warmup_steps", "optimizer.warmup_steps", optional(_CADENCE)),
    Dial("training.warmup_ratio", "optimizer.warmup_ratio", _SHARE),
    Dial("training.weight_decay", "optimizer.weight_decay", _DECAY),
    Dial("training.max_grad_norm", "optimizer.max_grad_norm", optional(number(0, above=True))),
    # How long, how large, how often.
    Dial("training.num_steps", "training.num_steps", _STEPS, "steps of training, null for those of `num_epochs`"),
    Dial("training.num_epochs", "training.num_epochs", _EPOCHS, "passes over the data"),
    Dial("training.batch_size", "training.batch_size", _COUNT, "rows in a forward pass"),
    Dial("training.per_device_batch_size", "training.batch_size", _COUNT),
    Dial(
        "training.gradient_accumulation_steps",
        "training.gradient_accumulation_steps",
        _COUNT,
        "forward passes in a step",
    ),
    Dial(
        "training.gradient_checkpointing",
        "training.gradient_checkpointing",
        REMAT,
        "compute layers again in the backward pass: less memory, a third more time (docs/memory.md)",
    ),
    Dial("training.seed", "training.seed", _CADENCE, "governs everything drawn at random"),
    Dial("training.logging_every", "training.logging_every", _CADENCE, "steps between lines of metrics"),
    Dial("training.logging_steps", "training.logging_every", _CADENCE),
    Dial("training.save_every", "training.save_every", _CADENCE, "steps between checkpoints, 0 for the last alone"),
    Dial("training.save_steps", "training.save_every", _CADENCE),
    Dial(
        "training.eval_every",
        "training.eval_every",
        _CADENCE,
        "steps between evaluations of the loss, 0 for the last alone",
    ),
    Dial("training.eval_steps", "training.eval_every", _CADENCE),
    Dial("training.max_checkpoints", "training.max_checkpoints", _COUNT, "checkpoints kept"),
    # The data.
    Dial("data.train_file", "data.train_file", optional(TEXT), "rows to train on; `--data` wins"),
    Dial("data.train_files", "data.train_files", optional(TRAIN_FILES), "or several files, each with a weight"),
    Dial("data.eval_file", "data.eval_file", optional(TEXT), "rows to evaluate the loss on"),
    Dial(
        "data.eval_fraction",
        "data.eval_fraction",
        optional(share_within()),
        "or a share of the rows held out for it: the same of every grade, one question never on both sides",
    ),
    Dial("data.grades", "data.grades", optional(GRADES), "only rows of these grades, null for all"),
    Dial("data.topics", "data.topics", optional(NAMES), "only rows with one of these topic tags, null for all"),
    Dial("data.min_tokens", "data.min_tokens", optional(_COUNT), "only examples of at least so many tokens, as shown"),
    Dial("data.max_tokens", "data.max_tokens", optional(_COUNT), "and of at most so many; others are counted"),
    Dial("data.format", "data.format", one_of(*ROW_FORMATS), "the row format you expect; any other is an error"),
    Dial(
        "data.prompt_template",
        "data.prompt_template",
        one_of("default", "chat", "instruct"),
        "default and chat are the model's own format; instruct writes `### Instruction:` and `### Response:`",
    ),
    Dial("data.shuffle", "data.shuffle", FLAG, "another order of rows in every epoch"),
    Dial("data.shuffle_seed", "data.shuffle_seed", optional(_CADENCE), "by which seed, null for the run's"),
    # The run folder.
    Dial("output.folder", "output.folder", optional(TEXT), "the run folder; `--output` wins"),
    Dial("training.output_dir", "output.folder", TEXT),
    Dial("output.checkpoint_dir", "output.checkpoint_dir", INNER_PATH, "the trained model, inside it"),
    Dial("output.metrics_file", "output.metrics_file", INNER_PATH, "one line a logged step"),
    Dial("output.manifest_file", "output.manifest_file", INNER_PATH, "what was asked, and how it ended"),
    # What the run ends with.
    *BENCHMARK_DIALS,
)

# Of each pair only one may be set in one place: the other would be ignored in silence.
EXCLUSIVE = (
    ("training.num_steps", "training.num_epochs"),
    ("optimizer.warmup_steps", "optimizer.warmup_ratio"),
    ("data.train_file", "data.train_files"),
    ("data.eval_file", "data.eval_fraction"),
)
