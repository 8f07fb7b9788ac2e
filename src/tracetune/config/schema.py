"""The dials of supervised fine-tuning. Each default is written here and nowhere else.

Values arrive checked from `config.resolve`; these classes hold, they do not validate.
"""

from dataclasses import dataclass, field
from typing import Literal

from tracetune.config.benchmark import BenchmarkSettings

Backend = Literal["local", "tunix", "tinker"]
Dtype = Literal["float32", "bfloat16"]
Schedule = Literal["linear", "cosine", "constant"]
Remat = bool | Literal["dots", "offload"]
Quantize = Literal["nf4", "int8"]
RowFormat = Literal["auto", "trace", "tunix_sft", "training_example", "prompt_response", "messages"]


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adaptation with PEFT's meaning: the update is scaled by alpha / r.

    `quantize` holds the frozen projections in 4 or 8 bits (QLoRA), None as they are.
    """

    r: int = 16
    alpha: float = 32.0
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    quantize: Quantize | None = None


@dataclass(frozen=True, kw_only=True)
class MeshSettings:
    """Devices laid out in a grid: `shape` counts them along each of `axes` (`dp` or `data`, `fsdp`, `tp`)."""

    shape: tuple[int, ...] = (1, 1)
    axes: tuple[str, ...] = ("fsdp", "tp")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """`name` is an alias, a repository, a local folder or `tiny`; `lora` None trains every weight. `mesh` decides only
    the last bits of what is trained.

    `dtype` is what activations and products are in, None meaning float32 on a CPU and bfloat16 on a GPU or TPU;
    trained weights are float32 whatever it is.
    `packing` puts several examples in one row of `max_length` tokens; without it each row holds one.
    `drop_long` leaves examples over `max_length` out, with a count; without it one is an error.
    """

    name: str = "tiny"
    max_length: int = 512
    packing: bool = True
    drop_long: bool = True
    lora: LoraSettings | None = None
    dtype: Dtype | None = None
    mesh: MeshSettings = field(default_factory=MeshSettings)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW and its schedule. `warmup_steps` wins over `warmup_ratio`, a share of all steps. `offload` keeps its state
    in pinned memory of the host between updates."""

    learning_rate: float = 1e-5
    schedule: Schedule = "linear"
    warmup_steps: int | None = None
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float | None = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    offload: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and how large. `num_steps` wins over `num_epochs`; one step sees `batch_size` ×
    `gradient_accumulation_steps` rows. `gradient_checkpointing` saves memory: True computes every layer
    again, a third more time; `dots` keeps products with weights; `offload` keeps them in pinned memory of the host.
    Cadences are in steps; 0 means never.
    """

    num_steps: int | None = None
    num_epochs: float = 3.0
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: Remat = False
    seed: int = 42
    logging_every: int = 10
    save_every: int = 100
    eval_every: int = 0
    max_checkpoints: int = 2


@dataclass(frozen=True, kw_only=True)
class TrainFile:
    """One of several files. Of its rows an epoch sees `weight` times as many as there are; over epochs each of them
    comes equally often, give or take one."""

    path: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where rows come from: one file or several; the command line's `--data` wins over both.

    `eval_fraction` of the rows are held out to evaluate on, the same share of every grade, where no `eval_file` is.
    `grades` and `topics` choose rows by their labels, of topics one is enough; `min_tokens` and `max_tokens` by the
    length of the whole example as the model is shown it. All four choose rows to evaluate on, too; None takes any.
    `format` other than `auto` refuses rows of any other shape. `prompt_template`: `default` and `chat` are the
    model's own chat format; `instruct` writes `### Instruction:` and `### Response:` into the user's turn.
    """

    train_file: str | None = None
    train_files: tuple[TrainFile, ...] | None = None
    eval_file: str | None = None
    eval_fraction: float | None = None
    grades: tuple[str, ...] | None = None
    topics: tuple[str, ...] | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    format: RowFormat = "auto"
    prompt_template: Literal["default", "chat", "instruct"] = "default"
    shuffle: bool = True
    shuffle_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Names inside the run folder; `folder` is the run folder itself, where the command names none."""

    folder: str | None = None
    checkpoint_dir: str = "checkpoint-final"
    metrics_file: str = "metrics.jsonl"
    manifest_file: str = "run_manifest.json"


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """One supervised fine-tuning run."""

    backend: Backend = "local"
    system_instruction: str | None = None
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    data: DataSettings = field(default_factory=DataSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    benchmark: BenchmarkSettings = field(default_factory=BenchmarkSettings)
