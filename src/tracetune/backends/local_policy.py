"""A policy in this process: it samples groups of completions and learns from them, by one compiled step."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tracetune.backends.local_state import LocalState, on_mesh, with_adapter, with_frozen
from tracetune.backends.protocol import PolicyMetrics
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.core.values import Completion
from tracetune.data.pack_groups import Group, num_rows_needed, pack_groups
from tracetune.engine.mesh import WHOLE_BATCH, place_rows, spread
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.policy import make_scorer, policy_step_loss, stack_groups
from tracetune.engine.sampler import Sampling, generate, generate_groups
from tracetune.engine.step import LossOf, Metrics, Stack, make_train_step
from tracetune.models.load import quantized
from tracetune.models.model import Model
from tracetune.models.precision import compute_dtype
from tracetune.objectives.grpo import Clip, Objective

# Rows grow until a whole group shares one copy of its prompt, or to this many tokens: attention grows with them.
MAX_SHARED_ROW = 1536
ROW_STEP = 64
MAX_SLOTS = 64


class RowShape(NamedTuple):
    """Rows that hold whatever a step can sample."""

    row_length: int
    num_rows: int


class LocalPolicy(LocalState):
    """GRPO and its relatives on the local engine.

    The reference is the model as it came, and held only when `grpo.beta` is not 0: under a fresh adapter the same
    weights with the adapter off, under an older one a copy of that, in full training a copy of the weights.
    `longest_prompt` in tokens bounds every prompt to come. On a `mesh` the same weights train, refer and sample.
    """

    def __init__(
        self, model: Model, config: GrpoConfig, *, num_steps: int, longest_prompt: int, mesh: Mesh | None = None
    ) -> None:
        # The reference is what is trained beside, so it is held alike.
        model = on_mesh(quantized(model, config.model.lora.quantize if config.model.lora else None), mesh)
        self._dtype = compute_dtype(config.model.dtype)
        trains_adapter = config.model.lora is not None or model.lora is not None
        model = with_frozen(model, self._dtype, trains_adapter=trains_adapter)
        reference = _hold_reference(model, trains_adapter=config.model.lora is not None) if config.grpo.beta else None
        model = with_adapter(model, config.model.lora, seed=config.seed)
        optimizer = make_optimizer(config.optimizer, num_steps)
        super().__init__(model, optimizer, mesh)
        self._grpo, self._generation = config.grpo, config.generation
        self._num_slots = min(MAX_SLOTS, config.training.micro_batch_size * config.grpo.num_generations)
        self._longest_prompt = longest_prompt
        self._shape = choose_shape(config, longest_prompt)
        self._reference = reference
        self._score = make_scorer(
            model.arch,
            temperature=config.generation.temperature,
            lora_scale=model.lora_scale if model.lora else 0.0,
            dtype=self._dtype,
            mesh=mesh,
        )
        self._first_step, self._later_step = (
            make_train_step(
                model.arch,
                optimizer,
                loss_of=spread(loss_of, mesh),
                lora_scale=None if model.lora is None else model.lora_scale,
                remat=config.training.gradient_checkpointing,
                pass_tokens=None if mesh is None else WHOLE_BATCH,
                mesh=mesh,
                dtype=self._dtype,
            )
            for loss_of in losses(config, model.arch.logit_softcap)
        )

    @property
    def num_compilations(self) -> int:
        """Update steps compiled so far: one a shape."""
        return self._first_step.num_compilations + self._later_step.num_compilations

    def sample(self, prompts: Sequence[Sequence[int]], keys_PG2: Any) -> list[list[Completion]]:
        """The groups of `prompts` at the settings of training, each completion from its own key."""
        generation = self._generation
        sampling = Sampling(
            max_tokens=generation.max_generation_steps,
            temperature=generation.temperature,
            top_k=generation.top_k,
            top_p=generation.top_p,
        )
        return generate_groups(
            self.model,
            prompts,
            sampling,
            num_generations=self._grpo.num_generations,
            batch_size=self._num_slots,
            keys=keys_PG2,
            longest_prompt=self._longest_prompt,
            dtype=self._dtype,
        )

    def answer(self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int) -> list[Completion]:
        """One completion per prompt, as long as in training."""
        limit = self._generation.max_generation_steps
        sampling = Sampling(max_tokens=limit, temperature=temperature, seed=seed)
        return generate(
            self.model,
            prompts,
            sampling,
            batch_size=self._num_slots,
            longest_prompt=self._longest_prompt,
            dtype=self._dtype,
        )

    def update(self, groups: Sequence[Group]) -> Iterator[PolicyMetrics]:
        """One optimizer step per iteration over the same completions, each as it is asked for; stops at one that is
        not finite."""
        batch = pack_groups(groups, **self._shape._asdict(), pad_id=self._model.tokenizer.pad_id)
        began = time.perf_counter()
        stack = place_rows(stack_groups(batch), self.mesh, axis=1)
        if self._reference is not None:
            stack = stack._replace(ref_ABT=jax.block_until_ready(self._score(*self._reference, stack)))
        ref_seconds = time.perf_counter() - began
        for iteration in range(self._grpo.num_iterations):
            metrics = self._take(stack, is_first=iteration == 0, ref_seconds=0.0 if iteration else ref_seconds)
            yield metrics
            if not metrics.finite:
                return

    def _take(self, stack: Stack, *, is_first: bool, ref_seconds: float) -> PolicyMetrics:
        began = time.perf_counter()
        step = self._first_step if is_first else self._later_step
        self._state, metrics = step(self._state, self.frozen, stack)
        told: Metrics = jax.device_get(metrics)
        num_targets = max(float(told.num_targets), 1.0)
        return PolicyMetrics(
            loss=float(told.loss),
            grad_norm=float(told.grad_norm),
            learning_rate=float(told.learning_rate),
            num_targets=int(told.num_targets),
            kl=float(told.facts.sums["kl"]) / num_targets,
            clip_share=float(told.facts.sums["clipped"]) / num_targets,
            gap_mean=float(told.facts.sums["gap"]) / num_targets if is_first else None,
            gap_max=float(told.facts.maxima["gap_max"]) if is_first else None,
            ref_seconds=ref_seconds,
            update_seconds=time.perf_counter() - began,
        )


def _hold_reference(model: Model, *, trains_adapter: bool) -> tuple[Any, Any]:
    """Weights and adapter before training. A step consumes what it trains, so that is copied."""
    if model.lora is not None:
        return model.params, jax.tree.map(jnp.copy, model.lora)
    return (model.params if trains_adapter else jax.tree.map(jnp.copy, model.params)), None


def losses(config: GrpoConfig, softcap: float | None) -> Iterator[LossOf]:
    """The loss of the first pass over a batch, then of later ones."""
    for first_pass in (True, False):
        yield policy_step_loss(
            objective_of(config),
            temperature=config.generation.temperature,
            softcap=softcap,
            first_pass=first_pass,
        )


def objective_of(config: GrpoConfig) -> Objective:
    """The static choices of the loss that a configuration asks for."""
    grpo = config.grpo
    high = grpo.epsilon if grpo.epsilon_high is None else grpo.epsilon_high
    return Objective(grpo.loss, Clip(grpo.epsilon, high), grpo.beta, config.generation.max_generation_steps)


def choose_shape(config: GrpoConfig, longest_prompt: int) -> RowShape:
    """Rows for whole groups while these are short, else for as many completions as fit."""
    longest, siblings = config.generation.max_generation_steps, config.grpo.num_generations
    stem = longest_prompt - 1
    wanted = max(stem + longest, min(stem + siblings * longest, MAX_SHARED_ROW))
    row_length = -(-wanted // ROW_STEP) * ROW_STEP
    num_rows = num_rows_needed(
        config.training.micro_batch_size, siblings, longest_stem=stem, longest=longest, row_length=row_length
    )
    return RowShape(row_length, num_rows)
