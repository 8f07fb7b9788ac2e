"""A policy that samples and learns on a Tinker service, on the problems, rewards and objective of a local run.

The service has a name for some losses; every other one is computed here from its log-probs, and its gradient sent back
as the weights of a cross-entropy, which is exact by the chain rule.
Shapes: P prompts, G completions per prompt, B completions of a step, T tokens of the longest.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.backends.local_policy import objective_of
from tracetune.backends.protocol import PolicyMetrics
from tracetune.backends.tinker_sampling import Draw, group_seeds
from tracetune.backends.tinker_service import TinkerService, Usage
from tracetune.backends.tinker_state import Passage, TinkerState
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.core.values import Completion
from tracetune.data.pack_groups import Group
from tracetune.models.served import ServedModel
from tracetune.objectives.grpo import ALGORITHMS, Counts, Objective, PolicyBatch, policy_loss

# On the first pass over a batch nothing is clipped: the policy is the one that sampled.
_FIRST_PASS = {**dict.fromkeys(("grpo", "dapo", "dr_grpo", "rloo"), "importance_sampling"), "cispo": "cispo"}
_LATER_PASSES = {**dict.fromkeys(("grpo", "dapo", "dr_grpo", "rloo"), "ppo"), "cispo": "cispo"}


class TinkerPolicy(TinkerState):
    """GRPO and its relatives by a service; the reference is its base model, without the adapter."""

    def __init__(self, service: TinkerService, model: ServedModel, config: GrpoConfig, *, num_steps: int) -> None:
        assert config.model.lora is not None, "settings were checked"
        super().__init__(service, model, config.model.lora, config.optimizer, seed=config.seed, num_steps=num_steps)
        self._grpo, self._generation, self._objective = config.grpo, config.generation, objective_of(config)
        self._shape = (
            config.training.micro_batch_size * config.grpo.num_generations,
            config.generation.max_generation_steps,
        )
        self._reference: Any = None

    def sample(self, prompts: Sequence[Sequence[int]], keys_PG2: Any) -> list[list[Completion]]:
        """The groups of `prompts`, each asked for at once; the first key of a group seeds all of it."""
        generation = self._generation
        top_k = -1 if generation.top_k is None else generation.top_k
        dials = {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": top_k}
        return self._draw(prompts, group_seeds(keys_PG2), size=self._grpo.num_generations, dials=dials)

    def answer(self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int) -> list[Completion]:
        """One completion per prompt, as long as in training."""
        seeds = [(seed + place) & 0x7FFFFFFF for place in range(len(prompts))]
        return [group[0] for group in self._draw(prompts, seeds, size=1, dials={"temperature": temperature})]

    def update(self, groups: Sequence[Group]) -> Iterator[PolicyMetrics]:
        """One optimizer step per iteration over the same completions, each as it is asked for; stops at one that is
        not finite."""
        told = _Told.of(groups, self._shape)
        began = time.perf_counter()
        ref_BT = self._refer(told) if self._grpo.beta else None
        ref_seconds = time.perf_counter() - began
        for iteration in range(self._grpo.num_iterations):
            metrics = self._take(told, ref_BT, is_first=iteration == 0)
            yield metrics._replace(ref_seconds=0.0 if iteration else ref_seconds)
            if not metrics.finite:
                return

    def _take(self, told: "_Told", ref_BT: np.ndarray | None, *, is_first: bool) -> PolicyMetrics:
        began, rate = time.perf_counter(), self.learning_rate
        name = (_FIRST_PASS if is_first else _LATER_PASSES).get(self._grpo.loss)
        if name is None or self._grpo.beta:
            logprobs_BT = told.spread(self.measure(told.passages))
            judged = told.judge(logprobs_BT, ref_BT, self._objective, is_first=is_first)
            norm = self._push(told, judged) if judged.finite else float("nan")
        else:
            passed = self.take_step(told.passages, self._credit(told), name, self._clip(name))
            logprobs_BT, norm = told.spread(passed.logprobs), passed.grad_norm
            judged = told.judge(logprobs_BT, ref_BT, self._objective, is_first=is_first)
        gap_BT = np.abs(logprobs_BT - told.sampled_BT) * told.weights_BT
        num_targets = int(told.weights_BT.sum())
        return PolicyMetrics(
            loss=judged.loss,
            grad_norm=norm,
            learning_rate=rate,
            num_targets=num_targets,
            kl=judged.kl / max(num_targets, 1),
            clip_share=judged.clipped / max(num_targets, 1),
            gap_mean=float(gap_BT.sum()) / max(num_targets, 1) if is_first else None,
            gap_max=float(gap_BT.max(initial=0.0)) if is_first else None,
            ref_seconds=0.0,
            update_seconds=time.perf_counter() - began,
        )

    def _push(self, told: "_Told", judged: "_Judged") -> float | None:
        """A step along a gradient with respect to log-probs: that of a cross-entropy is minus its weights."""
        return self.take_step(told.passages, [{"weights": row} for row in told.gather(-judged.gradient_BT)]).grad_norm

    def _credit(self, told: "_Told") -> list[dict[str, np.ndarray]]:
        """What a named loss reads; it sums over tokens, so each one's credit is divided by the count of the step."""
        count = ALGORITHMS[self._grpo.loss].denominator(told.counts, self._objective.max_tokens)
        shares_BT = told.advantages_BT / np.float32(max(float(count), 1.0))
        rows = zip(told.gather(shares_BT), told.gather(told.sampled_BT), strict=True)
        return [{"advantages": share, "logprobs": sampled} for share, sampled in rows]

    def _clip(self, name: str) -> dict[str, float] | None:
        clip = self._objective.clip
        if name == "importance_sampling":
            return None
        return {"clip_low_threshold": 1 - clip.low, "clip_high_threshold": 1 + clip.high}

    def _refer(self, told: "_Told") -> np.ndarray:
        """Log-probs of the completions under the base model."""
        if self._reference is None:
            base = self.service.offer.name
            self._reference = self.service.ask(
                "the reference", lambda clients: clients.create_sampling_client(base_model=base)
            )
        doing = f"log-probs of the reference for step {self.num_taken + 1}"
        asked = [self.service.submit(doing, partial(self._score, row)) for row in told.rows]
        answers = [self.service.wait(doing, future) for future in asked]
        self.service.count(Usage(prefill=sum(len(row.whole) for row in told.rows)))
        ref_BT = np.zeros(self._shape, np.float32)
        for place, (row, logprobs) in enumerate(zip(told.rows, answers, strict=True)):
            ref_BT[place, : row.length] = logprobs[-row.length :]
        return ref_BT

    def _score(self, row: "_Row", _: Any) -> Any:
        whole = self.service.sdk.ModelInput.from_ints(list(row.whole))
        return self._reference.compute_logprobs(whole, prompt_logprobs_last_n=row.length)

    def _draw(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, size: int, dials: dict[str, Any]
    ) -> list[list[Completion]]:
        """`size` completions of each prompt by the weights as they are."""
        how = Draw(size, self._generation.max_generation_steps, dials)
        return self.sampler.draw(prompts, seeds, how, doing=f"sampling after step {self.num_taken}")


class _Row(NamedTuple):
    """One completion, its prompt before it."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        return self.prompt + self.tokens

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def passage(self) -> Passage:
        return Passage(np.asarray(self.whole[:-1], np.int32), np.asarray(self.whole[1:], np.int32))


class _Judged(NamedTuple):
    """A loss, its gradient with respect to each log-prob, and sums over tokens."""

    loss: float
    gradient_BT: np.ndarray
    kl: float
    clipped: float

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.loss) and np.isfinite(self.gradient_BT).all())


class _Told(NamedTuple):
    """The completions of a step as the objective reads them, one in a row, padded to one shape."""

    rows: list[_Row]
    advantages_BT: np.ndarray
    weights_BT: np.ndarray
    sampled_BT: np.ndarray

    @classmethod
    def of(cls, groups: Sequence[Group], shape: tuple[int, int]) -> "_Told":
        branches = [(group.prompt, branch) for group in groups for branch in group.branches if branch.tokens]
        told = cls(
            [_Row(tuple(prompt), tuple(branch.tokens)) for prompt, branch in branches],
            *(np.zeros(shape, np.float32) for _ in range(3)),
        )
        for place, (_, branch) in enumerate(branches):
            told.advantages_BT[place, : len(branch.tokens)] = branch.advantage
            told.weights_BT[place, : len(branch.tokens)] = 1.0
            told.sampled_BT[place, : len(branch.tokens)] = branch.policy_logprobs
        return told

    @property
    def passages(self) -> list[Passage]:
        return [row.passage for row in self.rows]

    @property
    def counts(self) -> Counts:
        return Counts(jnp.asarray(self.weights_BT.sum()), jnp.asarray(np.float32(len(self.rows))))

    def spread(self, logprobs: Sequence[np.ndarray]) -> np.ndarray:
        """Log-probs of whole passages as those of the completions alone, [B, T]."""
        values_BT = np.zeros(self.weights_BT.shape, np.float32)
        for place, (row, told) in enumerate(zip(self.rows, logprobs, strict=True)):
            values_BT[place, : row.length] = told[-row.length :]
        return values_BT

    def gather(self, values_BT: np.ndarray) -> list[np.ndarray]:
        """Values of completions as those of whole passages, 0 on the prompt."""
        return [
            np.concatenate([np.zeros(len(row.prompt) - 1, np.float32), values_BT[place, : row.length]])
            for place, row in enumerate(self.rows)
        ]

    def judge(
        self, logprobs_BT: np.ndarray, ref_BT: np.ndarray | None, objective: Objective, *, is_first: bool
    ) -> _Judged:
        """The objective of a local run on log-probs of the service."""
        batch = PolicyBatch(
            logprobs_BT=jnp.asarray(logprobs_BT),
            old_BT=None if is_first else jnp.asarray(self.sampled_BT),
            advantages_BT=jnp.asarray(self.advantages_BT),
            weights_BT=jnp.asarray(self.weights_BT),
            segments_BT=jnp.ones(self.weights_BT.shape, jnp.int32),
        )
        ref = None if ref_BT is None else jnp.asarray(ref_BT)
        (loss, sums), gradient_BT = jax.device_get(_loss_and_gradient(batch, ref, self.counts, objective))
        return _Judged(float(loss), np.asarray(gradient_BT), float(sums["kl"]), float(sums["clipped"]))


@partial(jax.jit, static_argnums=3)
def _loss_and_gradient(batch: PolicyBatch, ref_BT: Any, counts: Counts, objective: Objective) -> Any:
    def of(logprobs_BT: jax.Array) -> Any:
        return policy_loss(batch._replace(logprobs_BT=logprobs_BT), ref_BT, counts, objective)

    return jax.value_and_grad(of, has_aux=True)(batch.logprobs_BT)
