"""A policy that samples by Tunix and learns by its GRPOLearner, on the problems, rewards and objective of a local run.

The recipe asks for completions, judges them and gives them back with their credit; then the learner runs its own step
over them: its rollout hands it the completions that its sampler drew before, its reward is the credit.
Shapes: P prompts, G completions per prompt, S sequences, T tokens.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.backends.local_state import with_adapter
from tracetune.backends.protocol import PolicyMetrics
from tracetune.backends.tunix_models import library
from tracetune.backends.tunix_rollout import Rollout, Words, choose_pad
from tracetune.backends.tunix_settings import check_model_settings
from tracetune.backends.tunix_state import Recorder, TunixState, build_reference, inside_tunix
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.core.values import Completion
from tracetune.data.pack_groups import Group
from tracetune.engine.optimizer import make_optimizer
from tracetune.models.model import Model

# What its sums are divided by: every token of the step, or completions of a constant length.
_MEANS = {"dr_grpo": "sequence-mean-token-scale"}
_NEVER = 2**31


class TunixPolicy(TunixState):
    """GRPO by Tunix, in float32 on one device; actor and sampler share one copy of the weights."""

    def __init__(self, model: Model, config: GrpoConfig, *, num_steps: int) -> None:
        check_model_settings(model, config.model.lora)
        reference = model
        model = with_adapter(model, config.model.lora, seed=config.seed)
        optimizer = make_optimizer(config.optimizer, num_steps)
        super().__init__(model, optimizer, remat=bool(vars(config.training).get("gradient_checkpointing", False)))
        self._config, self._schedule, self._last_step = config, optimizer.schedule, num_steps
        self._recorder = Recorder()
        with inside_tunix():
            held = build_reference(reference, self) if config.grpo.beta else None
            self._learner = self._make_learner(_make_cluster(self, held, config), config)

    def sample(self, prompts: Sequence[Sequence[int]], keys_PG2: Any) -> list[list[Completion]]:
        """The groups of `prompts`, drawn together: Tunix's sampler has one key, the first of them."""
        size = self._config.grpo.num_generations
        flat = [prompt for prompt in prompts for _ in range(size)]
        with inside_tunix():
            said = self._rollout.draw(flat, key=np.asarray(keys_PG2, np.uint32).reshape(-1, 2)[0])
        return [said[start : start + size] for start in range(0, len(said), size)]

    def answer(self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int) -> list[Completion]:
        """One completion per prompt, as long as in training."""
        rows = self._config.training.micro_batch_size * self._config.grpo.num_generations
        said: list[Completion] = []
        waiting = iter(prompts)
        with inside_tunix():
            while batch := list(islice(waiting, rows)):
                # Filled up, so that every batch has one shape.
                full = batch + [batch[0]] * (rows - len(batch))
                key = np.array([seed, len(said)], np.uint32)
                said += self._rollout.draw(full, key=key, temperature=temperature)[: len(batch)]
        return said

    def update(self, groups: Sequence[Group]) -> Iterator[PolicyMetrics]:
        """The optimizer steps of one batch of completions: all are taken at the first, each is told when asked for;
        one that is not finite is the last."""
        began, first = time.perf_counter(), self._num_steps
        # The learner asks for G rows of every prompt; those that taught nothing are rows without a token.
        rows = self._config.training.micro_batch_size * self._config.grpo.num_generations
        # GRPO's credit: one number for a whole completion.
        told_rows = [
            (group.prompt, branch.tokens, float(branch.advantage)) for group in groups for branch in group.branches
        ]
        told_rows += [(groups[0].prompt, (), 0.0)] * (rows - len(told_rows))
        self._rollout.hand_over(told_rows)
        names = np.array([str(place) for place in range(self._config.training.micro_batch_size)])
        with inside_tunix():
            self._learner.train([{"prompts": names}])
        steps = self._recorder.take()
        seconds = (time.perf_counter() - began) / max(len(steps), 1)
        num_targets = sum(len(tokens) for _, tokens, _ in told_rows)
        for place, told in enumerate(steps):
            rate = float(jax.device_get(self._schedule(jnp.asarray(first + place))))
            metrics = PolicyMetrics(
                loss=told["loss"],
                grad_norm=told["grad_norm"],
                learning_rate=rate,
                num_targets=num_targets,
                kl=told["kl"],
                clip_share=told["pg_clipfrac"],
                gap_mean=None,
                gap_max=None,
                ref_seconds=0.0,
                update_seconds=seconds,
            )
            self._num_steps = first + place + bool(metrics.finite)
            yield metrics
            if not metrics.finite:
                return

    @property
    def num_iterations(self) -> int:
        """Optimizer steps over the next batch: a run may end between two of them."""
        return min(self._config.grpo.num_iterations, self._last_step - self._num_steps)

    def _make_learner(self, cluster: Any, config: GrpoConfig) -> Any:
        grpo = library("tunix.rl.grpo.grpo_learner")
        self.trainer, self.module = cluster.actor_trainer, cluster.actor_trainer.model
        # A second copy of the weights, which only its agents read.
        cluster._anchor_policy_state = None
        self._rollout = cluster._rollout = Rollout(cluster.rollout, self._model.tokenizer, config.generation)
        cluster._rl_metrics_logger = self.trainer.metrics_logger = self._recorder
        # Its step count is the run's; without a last step of its own it draws no progress bar.
        self.trainer.config.max_steps = None
        algorithm = grpo.GRPOConfig(
            num_generations=config.grpo.num_generations,
            num_iterations=config.grpo.num_iterations,
            beta=config.grpo.beta,
            epsilon=config.grpo.epsilon,
            loss_agg_mode=_MEANS.get(config.grpo.loss, "token-mean"),
            # The penalty of ours, never negative; its default is log p - log q.
            kl_loss_mode="low_var_kl",
        )
        algorithm.epsilon_high = config.grpo.epsilon if config.grpo.epsilon_high is None else config.grpo.epsilon_high
        algorithm.advantage_estimator = _given_credit()
        learner = grpo.GRPOLearner(cluster, algorithm, self._rollout.credit)
        learner._num_iterations = lambda: self.num_iterations
        # What it does in a thread of its own is done here: its thread would not know how dtypes may mix.
        learner.executor.shutdown()
        learner.executor = _Here()
        return learner


class _Here:
    """An executor that does what it is given at once."""

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future:
        done: Future = Future()
        try:
            done.set_result(call(*args, **kwargs))
        except StopIteration as end:
            # How the learner is told that its data ended.
            done.set_exception(end)
        return done


def _given_credit() -> str:
    """Register the estimator that takes rewards for what they are here: the credit itself."""
    registry, name = library("tunix.rl.function_registry"), "tracetune_given"
    try:
        registry.get_advantage_estimator(name)
    except (KeyError, LookupError, ValueError):
        registry.register_advantage_estimator(name)(lambda rewards, num_generations: np.asarray(rewards))  # noqa: ARG005
    return name


def _make_cluster(state: TunixState, reference: Any, config: GrpoConfig) -> Any:
    """Actor, reference and sampler on one device."""
    clusters, rollouts = library("tunix.rl.rl_cluster"), library("tunix.rl.rollout.base_rollout")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    generation = config.generation
    training = clusters.RLTrainingConfig(
        actor_optimizer=state.transformation, eval_every_n_steps=_NEVER, max_steps=_NEVER
    )
    rollout = rollouts.RolloutConfig(
        max_tokens_to_generate=generation.max_generation_steps,
        max_prompt_length=generation.max_prompt_length,
        kv_cache_size=generation.max_prompt_length + generation.max_generation_steps,
        temperature=generation.temperature,
        top_p=generation.top_p,
        top_k=generation.top_k,
    )
    return clusters.RLCluster(
        actor=state.module,
        reference=reference,
        tokenizer=Words(choose_pad(state.model)),
        cluster_config=clusters.ClusterConfig(
            role_to_mesh=dict.fromkeys((clusters.Role.ACTOR, clusters.Role.REFERENCE, clusters.Role.ROLLOUT), mesh),
            training_config=training,
            rollout_config=rollout,
        ),
    )
