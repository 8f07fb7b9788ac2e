"""The dials of GRPO and of its evaluation. Values arrive checked from `config.compose`; these classes only hold.

The YAML tree under `config/conf` shows the same defaults to Hydra's users; a test holds the two equal.
"""

from dataclasses import dataclass, field
from typing import Literal

from tracetune.config.benchmark import BenchmarkSettings
from tracetune.config.schema import Backend, Dtype, LoraSettings, MeshSettings, OptimizerSettings, Remat

Loss = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"]
DataSource = Literal["builtin", "jsonl", "huggingface", "tfds", "kaggle"]
CurriculumBy = Literal["grade", "difficulty", "topic"]
InferenceConfig = Literal["greedy", "standard", "liberal"]

INSTRUCTION = (
    "Think about the problem inside <reasoning> and </reasoning>. "
    "Then give the final answer, one number or word, inside <answer> and </answer>."
)


@dataclass(frozen=True, kw_only=True)
class GrpoModelSettings:
    """`name` is `tiny`, a repository or a local folder, aliases already resolved; `lora` None trains every weight.

    `dtype` is as in `ModelSettings`.
    """

    name: str = "tiny"
    lora: LoraSettings | None = None
    dtype: Dtype | None = None
    mesh: MeshSettings = field(default_factory=MeshSettings)


@dataclass(frozen=True, kw_only=True)
class GrpoSettings:
    """The algorithm. `num_generations` completions share a prompt; each batch is used for `num_iterations` updates.

    `beta` weighs the KL to the frozen reference, in nats; 0 leaves the reference out. A ratio is clipped to
    `1 - epsilon … 1 + epsilon_high`, None meaning `epsilon`. With `dynamic_sampling` a prompt whose completions all
    earned the same is replaced by another, up to `max_resamples` times a step.
    """

    num_generations: int = 4
    num_iterations: int = 1
    beta: float = 0.08
    epsilon: float = 0.2
    epsilon_high: float | None = None
    loss: Loss = "grpo"
    dynamic_sampling: bool = False
    max_resamples: int = 4


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How completions are drawn in training. Lengths are in tokens; a longer prompt is left out, with a count.

    `top_p` 1 and `top_k` None keep the whole vocabulary.
    """

    max_prompt_length: int = 256
    max_generation_steps: int = 512
    temperature: float = 0.9
    top_p: float = 1.0
    top_k: int | None = 50


@dataclass(frozen=True, kw_only=True)
class CurriculumSettings:
    """Easier problems first. `by` None shows all of them from the beginning; else a stage is the problems of one grade,
    difficulty or topic, in `order`, None being the natural one.

    A stage is left when the pass rate of its last `window` prompts is `promote_at`, or after `max_steps_per_stage`
    steps; None never gives up. `review` is the share of prompts that earlier stages keep.
    """

    by: CurriculumBy | None = None
    order: tuple[str, ...] | None = None
    promote_at: float = 0.7
    window: int = 64
    max_steps_per_stage: int | None = None
    review: float = 0.2


@dataclass(frozen=True, kw_only=True)
class GrpoDataSettings:
    """Where problems come from and in what order; all but `curriculum` is written under `training.` by users.

    `data_path` is the JSONL file, the repository (`openai/gsm8k`), the TFDS name or the Kaggle dataset, or its local
    copy; None is GSM8K for the last three. `task` is None but for `builtin`, `split` is None but for the last three.
    `train_fraction` shortens training to that share of the batches; what validation sees is split off by hash, or is
    the file `eval_path` beside a JSONL file. `grades` and `topics` choose problems by their labels, on both sides; of
    topics one is enough, and None takes any.
    """

    data_source: DataSource = "builtin"
    data_path: str | None = None
    task: str | None = "arithmetic"
    split: str | None = None
    eval_path: str | None = None
    grades: tuple[str, ...] | None = None
    topics: tuple[str, ...] | None = None
    train_fraction: float = 1.0
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)


@dataclass(frozen=True, kw_only=True)
class GrpoTrainingSettings:
    """How long and how large. A step takes `micro_batch_size` prompts; there are `num_steps` of them, or, where that
    is None, at most `num_batches * num_iterations * train_fraction * num_epochs`. `num_batches` None is as many as the
    problems make. Cadences are in steps; 0 means never.

    `num_test_batches` batches of prompts are held out for validation. `gradient_checkpointing` is that
    of supervised training. `checkpoint_dir` holds everything a resume needs; a run pointed at the same one continues.
    """

    micro_batch_size: int = 4
    num_steps: int | None = None
    num_batches: int | None = 3738
    num_test_batches: int = 100
    num_epochs: float = 1.0
    gradient_checkpointing: Remat = False
    eval_interval_steps: int = 500
    save_interval_steps: int = 100
    max_checkpoints_to_keep: int = 4
    checkpoint_dir: str = "./checkpoints/ckpts/"


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """One reward by the name of a built-in or as `module:function`, and what its scores are multiplied by."""

    function: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """One user turn: `instruction`, a blank line, the question; with an empty one the question alone. `system` None
    writes no system turn."""

    instruction: str = INSTRUCTION
    system: str | None = None

    @property
    def asks_for_tags(self) -> bool:
        """Whether answers are expected inside `<answer>`."""
        return "<answer>" in self.instruction or "<answer>" in (self.system or "")


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """W&B is on when a key is configured and `wandb_disabled` is false; TensorBoard always.

    `log_dir` None keeps TensorBoard's files in the run folder; `wandb_run` None lets the run folder name it.
    `benchmark` is what a run that has finished ends with.
    """

    wandb_disabled: bool = False
    wandb_project: str = "tunix-grpo"
    wandb_run: str | None = None
    log_dir: str | None = None
    benchmark: BenchmarkSettings = field(default_factory=BenchmarkSettings)


def _adamw() -> OptimizerSettings:
    return OptimizerSettings(
        learning_rate=3e-6, schedule="cosine", warmup_ratio=0.1, weight_decay=0.1, max_grad_norm=0.1, beta2=0.99
    )


def _four_rewards() -> tuple[RewardSettings, ...]:
    names = ("match_format_exactly", "match_format_approximately", "check_answer", "check_numbers")
    return tuple(RewardSettings(function=name) for name in names)


@dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """One GRPO run. `resume` `never` starts afresh in a new folder beside what is there, deleting nothing."""

    backend: Backend = "local"
    seed: int = 42
    resume: Literal["auto", "never"] = "auto"
    model: GrpoModelSettings = field(default_factory=GrpoModelSettings)
    optimizer: OptimizerSettings = field(default_factory=_adamw)
    grpo: GrpoSettings = field(default_factory=GrpoSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    training: GrpoTrainingSettings = field(default_factory=GrpoTrainingSettings)
    data: GrpoDataSettings = field(default_factory=GrpoDataSettings)
    rewards: tuple[RewardSettings, ...] = field(default_factory=_four_rewards)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Which checkpoint of a GRPO run is measured, on its own validation problems, and how answers are drawn.

    `checkpoint_dir` is a run's checkpoint folder or its run folder; `step` None takes the newest.
    `num_passes` completions are drawn of each problem (pass@k); `num_batches` None is all of the validation set.
    `temperature`, `top_p` and `top_k` come from `inference_config`; temperature 0 is greedy.
    """

    checkpoint_dir: str
    step: int | None = None
    inference_config: InferenceConfig = "greedy"
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    num_passes: int = 1
    num_batches: int | None = None
    seed: int = 42
    output: str | None = None
