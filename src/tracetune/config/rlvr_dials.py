"""Every key of an RLVR file, in the names that the tutor's other files have. What it sets are the settings of GRPO."""

from tracetune.config.benchmark import BENCHMARK_DIALS
from tracetune.config.check import Dial
from tracetune.config.dials import OPTIMIZER_DIALS, PROJECTIONS, REMAT
from tracetune.config.grpo_dials import CURRICULUM_DIALS, GRPO_DIALS
from tracetune.config.kinds import GRADES, NAMES, TEXT, Kind, mapped, number, one_of, optional, several_of, whole

# Verifiers by the name of the reward that each is.
VERIFIERS = ("numeric", "math_verify", "format")

_COUNT, _CADENCE = whole(1), whole(0)
_WEIGHT = optional(Kind("a number", number(float("-inf")).read))


def _as_in_grpo(*keys: str) -> tuple[Dial, ...]:
    """Dials of GRPO that are the same here; `a.` stands for all of a section."""
    sections = tuple(key for key in keys if key.endswith("."))
    return tuple(dial for dial in GRPO_DIALS if dial.key in keys or dial.key.startswith(sections or ("\0",)))


RLVR_DIALS = (
    Dial("backend", "backend", one_of("local", "tunix", "tinker"), "where it trains"),
    Dial("system_instruction", "prompt.system", optional(TEXT), "the system turn, null for none"),
    *_as_in_grpo("prompt.instruction", "wandb_disabled", "wandb_project", "wandb_run"),
    # The model.
    Dial("model.base_model", "model.path", TEXT, "base model: alias, repository, folder or tiny"),
    Dial("model.name", "model.path", TEXT),
    Dial("model.peft_config", "lora.r", mapped({None: None})),
    Dial("model.peft_config.r", "lora.r", _COUNT, "rank of the adapter; without peft_config every weight is trained"),
    Dial(
        "model.peft_config.lora_alpha",
        "lora.alpha",
        number(0, above=True),
        "scale of the adapter: the update is multiplied by alpha / r",
    ),
    Dial("model.peft_config.target_modules", "lora.target_modules", several_of(*PROJECTIONS), "the weights it adapts"),
    Dial(
        "model.peft_config.quantize",
        "lora.quantize",
        optional(one_of("nf4", "int8")),
        "hold the frozen weights in 4 or 8 bits (QLoRA), null as they are",
    ),
    *_as_in_grpo("model.dtype", "model.mesh_shape"),
    # Problems.
    Dial("data.train_file", "data.data_path", TEXT, "problems to train on, a JSONL file; `--data` wins"),
    Dial("data.eval_file", "data.eval_path", optional(TEXT), "problems to validate on, null for one in ten"),
    Dial("data.grades", "data.grades", optional(GRADES), "only problems of these grades, null for all"),
    Dial("data.topics", "data.topics", optional(NAMES), "only problems with one of these topic tags, null for all"),
    Dial(
        "data.max_prompt_length",
        "generation.max_prompt_length",
        _COUNT,
        "longest prompt, in tokens; a longer one is left out, with a count",
    ),
    # The algorithm, completions, and what they earn.
    *_as_in_grpo("grpo."),
    Dial("generation.max_new_tokens", "generation.max_generation_steps", _COUNT, "longest completion, in tokens"),
    Dial("generation.max_generation_steps", "generation.max_generation_steps", _COUNT),
    Dial("generation.max_prompt_length", "generation.max_prompt_length", _COUNT),
    *_as_in_grpo("generation.temperature", "generation.top_p", "generation.top_k"),
    Dial(
        "verifiers.numeric",
        "verifiers.numeric",
        _WEIGHT,
        "weight of a right answer by the evaluation's own grader; a verifier that is not named is not asked",
    ),
    Dial(
        "verifiers.math_verify",
        "verifiers.math_verify",
        _WEIGHT,
        "weight of an answer that is equal by meaning: fractions, LaTeX, sets",
    ),
    Dial("verifiers.format", "verifiers.format", _WEIGHT, "weight of reasoning and answer in their tags"),
    *CURRICULUM_DIALS,
    # The optimizer, how long, how large, how often.
    *OPTIMIZER_DIALS,
    Dial("training.learning_rate", "optimizer.learning_rate", number(0, 1, above=True)),
    Dial("training.lr_scheduler", "optimizer.schedule", one_of("linear", "cosine", "constant")),
    Dial("training.warmup_steps", "optimizer.warmup_steps", optional(_CADENCE)),
    Dial("training.warmup_ratio", "optimizer.warmup_ratio", number(0, 1)),
    Dial("training.weight_decay", "optimizer.weight_decay", number(0)),
    Dial("training.max_grad_norm", "optimizer.max_grad_norm", optional(number(0, above=True))),
    Dial("training.output_dir", "output", TEXT, "the run folder; `--output` wins"),
    Dial("training.num_steps", "training.num_steps", optional(_COUNT), "steps, null for those of `num_epochs`"),
    Dial("training.num_epochs", "training.num_epochs", number(0, above=True), "passes over the problems"),
    Dial("training.batch_size", "training.micro_batch_size", _COUNT, "prompts in a step"),
    Dial(
        "training.gradient_checkpointing",
        "training.gradient_checkpointing",
        REMAT,
        "compute layers again in the backward pass (docs/memory.md)",
    ),
    Dial("training.seed", "seed", whole(0, 2**32 - 1), "governs everything drawn at random"),
    Dial(
        "training.eval_steps",
        "training.eval_interval_steps",
        _CADENCE,
        "steps between validations, 0 for the last alone",
    ),
    Dial("training.num_eval_batches", "training.num_test_batches", _CADENCE, "batches to validate on, 0 for none"),
    Dial(
        "training.save_steps",
        "training.save_interval_steps",
        _CADENCE,
        "steps between checkpoints, 0 for the last alone",
    ),
    Dial("training.max_checkpoints", "training.max_checkpoints_to_keep", _COUNT, "checkpoints kept"),
    *BENCHMARK_DIALS,
)

# Of each pair only one may be set in one place: the other would be ignored in silence.
EXCLUSIVE = (
    ("training.num_steps", "training.num_epochs"),
    ("optimizer.warmup_steps", "optimizer.warmup_ratio"),
)
