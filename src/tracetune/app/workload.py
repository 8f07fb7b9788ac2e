"""How much a run computes: operations, bytes read and tokens of its steps, from its settings and the model's shape."""

from typing import NamedTuple

from tracetune.backends.local_policy import choose_shape
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.grpo_steps import num_grpo_steps
from tracetune.config.schema import SftConfig
from tracetune.models.arch import Arch

# Of a forward pass: one for it, two for the gradient of activations and weights; without the weights', one.
_FULL, _ADAPTER = 3, 2


class Work(NamedTuple):
    """Of one step: operations, and bytes that must be read while sampling. `num_steps` None means that it depends on
    data; `tokens` (read, sampled, trained on) are of the whole run at most, None where that is not known."""

    flops: float
    sampled_flops: float
    sampled_bytes: float
    num_steps: int | None
    tokens: tuple[int, int, int] | None
    told: str

    def seconds(self, flops: float, bandwidth: float) -> float:
        """Of one step at so many operations and bytes a second; sampling is bound by the slower of the two."""
        return self.flops / flops + max(self.sampled_flops / flops, self.sampled_bytes / bandwidth)


def work_of(config: SftConfig | GrpoConfig, arch: Arch) -> Work:
    """The work of one step, and of the run as far as settings tell."""
    return _supervised(config, arch) if isinstance(config, SftConfig) else _policy(config, arch)


def forward_flops(arch: Arch, num_tokens: int, *, reach: int) -> float:
    """Of a forward pass over `num_tokens`, each seeing half of `reach` on average; a table looked up costs nothing."""
    looked_up = 0 if arch.tied else arch.vocab_size * arch.hidden_size
    weights = 2 * (arch.num_params - looked_up)
    attention = 4 * arch.num_layers * arch.num_heads * arch.head_size * reach / 2
    return num_tokens * (weights + attention)


def _supervised(config: SftConfig, arch: Arch) -> Work:
    training, length = config.training, config.model.max_length
    rows = training.batch_size * training.gradient_accumulation_steps
    forward = forward_flops(arch, rows * length, reach=length)
    passes = _passes(lora=config.model.lora is not None, remat=training.gradient_checkpointing is True)
    steps = training.num_steps
    told = f"{steps:,}" if steps else f"{training.num_epochs:g} epochs of data that is not read yet,"
    tokens = None if steps is None else (0, 0, steps * rows * length)
    return Work(passes * forward, 0, 0, steps, tokens, f"{told} of {rows} rows of {length} tokens")


def _policy(config: GrpoConfig, arch: Arch) -> Work:
    generation, siblings, prompts = config.generation, config.grpo.num_generations, config.training.micro_batch_size
    shape = choose_shape(config, generation.max_prompt_length)
    forward = forward_flops(arch, shape.num_rows * shape.row_length, reach=shape.row_length)
    passes = _passes(lora=config.model.lora is not None, remat=config.training.gradient_checkpointing is True)
    # The reference is asked once for a batch, which is then used for `num_iterations` steps.
    passes += (1 if config.grpo.beta else 0) / config.grpo.num_iterations
    completions = prompts * siblings / config.grpo.num_iterations
    length = generation.max_prompt_length + generation.max_generation_steps
    sampled = forward_flops(arch, int(completions * generation.max_generation_steps), reach=length)
    sampled += forward_flops(arch, int(completions / siblings * generation.max_prompt_length), reach=length)
    read = 4.0 * arch.num_params * generation.max_generation_steps / config.grpo.num_iterations
    is_known = config.training.num_steps is not None or config.training.num_batches is not None
    steps = num_grpo_steps(config) if is_known else None
    tokens = None if steps is None else policy_tokens(config, steps)
    asked = f"{prompts} prompts with {siblings} completions of {generation.max_generation_steps} tokens"
    told = "as many as the problems make" if steps is None else f"at most {steps:,}"
    return Work(passes * forward, sampled, read, steps, tokens, f"{told} of {asked}")


def policy_tokens(config: GrpoConfig, num_steps: int) -> tuple[int, int, int]:
    """Tokens to read, sample and train on in `num_steps` steps, at most, where another's machine does each. A penalty
    reads every completion under the reference, and once more before each update; so does a loss without a name."""
    generation, grpo = config.generation, config.grpo
    completions = config.training.micro_batch_size * grpo.num_generations
    length = generation.max_prompt_length + generation.max_generation_steps
    batches = num_steps / grpo.num_iterations
    passes = (batches if grpo.beta else 0) + (num_steps if grpo.beta or grpo.loss == "gspo" else 0)
    return (
        int(completions * (batches * generation.max_prompt_length + passes * length)),
        int(batches * completions * generation.max_generation_steps),
        int(num_steps * completions * length),
    )


def _passes(*, lora: bool, remat: bool) -> int:
    return (_ADAPTER if lora else _FULL) + (1 if remat else 0)
