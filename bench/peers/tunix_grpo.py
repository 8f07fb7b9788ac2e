"""GRPO steps of Tunix's GRPOLearner on the work of `bench/compare.py`; the last line is one JSON object.

`python bench/peers/tunix_grpo.py WORK [ROLLOUT LOGPS TRAIN]`, the prompts of a micro-batch in each phase.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optax
from rewards import BETA, GENERATIONS, MAX_PROMPT, NEW_TOKENS, PROMPTS, Rewards
from transformers import PreTrainedTokenizerFast
from tunix.rl import rl_cluster
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rollout.base_rollout import RolloutConfig
from tunix_model import load, mesh, versions
from tunix_sft import Clock

# All prompts are sampled at once; both passes over log-probs go through the model in parts.
MICRO_BATCHES = (8, 8, 8)


class StepClock(Clock):
    """The trainer is left once a step, when the step is done."""

    def on_train_step_start(self, *_: Any) -> None: ...


def main() -> None:
    parts = tuple(map(int, sys.argv[2:])) or MICRO_BATCHES
    print(json.dumps(run(Path(sys.argv[1]), parts)))


def run(work: Path, parts: tuple[int, ...]) -> dict[str, Any]:
    told = json.loads((work / "grpo.json").read_text())
    devices = mesh()
    rewards, clock = Rewards(), StepClock()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "model")

    def reward(prompts: list[str], completions: list[str], question: Any, answer: Any, **_: Any) -> list[float]:
        del prompts
        return rewards([str(item) for item in question], completions, [str(item) for item in answer])

    with devices:
        cluster = rl_cluster.RLCluster(
            actor=load(work / "model", devices),
            reference=load(work / "model", devices),
            tokenizer=tokenizer,
            cluster_config=configure(told, devices, parts),
        )
        cluster.actor_trainer.with_training_hooks(clock)
        learner = GRPOLearner(
            rl_cluster=cluster,
            algo_config=GRPOConfig(num_generations=GENERATIONS, beta=BETA, loss_agg_mode="token-mean"),
            reward_fns=reward,
        )
        clock.tick()
        learner.train(batches(told))
    return {
        **clock.told(),
        "losses": clock.losses,
        "rewards": rewards.means,
        "versions": versions(),
        "settings": dict(zip(("rollout_prompts", "logps_prompts", "train_prompts"), parts, strict=True)),
    }


def configure(told: dict[str, Any], devices: Any, parts: tuple[int, ...]) -> rl_cluster.ClusterConfig:
    schedule = optax.linear_schedule(told["learning_rate"], 0.0, told["num_steps"])
    optimizer = optax.chain(optax.clip_by_global_norm(told["max_grad_norm"]), optax.adamw(schedule, weight_decay=0.0))
    rollout, logps, train = parts
    return rl_cluster.ClusterConfig(
        role_to_mesh=dict.fromkeys(
            (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT), devices
        ),
        training_config=rl_cluster.RLTrainingConfig(
            actor_optimizer=optimizer,
            eval_every_n_steps=told["num_steps"] + 1,
            max_steps=told["num_steps"],
            mini_batch_size=PROMPTS,
            train_micro_batch_size=train,
            rollout_micro_batch_size=rollout,
            compute_logps_micro_batch_size=logps,
        ),
        rollout_config=RolloutConfig(
            max_tokens_to_generate=NEW_TOKENS,
            max_prompt_length=MAX_PROMPT,
            kv_cache_size=MAX_PROMPT + NEW_TOKENS,
            temperature=told["temperature"],
            top_k=told["top_k"],
            top_p=1.0,
        ),
    )


def batches(told: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """Prompts in their order, eight a step; arrays, since the learner repeats each entry for its completions."""
    columns = {"prompts": "text", "question": "question", "answer": "answer"}
    steps = [told["prompts"][first : first + PROMPTS] for first in range(0, told["num_steps"] * PROMPTS, PROMPTS)]
    return [{name: np.array([item[key] for item in step]) for name, key in columns.items()} for step in steps]


if __name__ == "__main__":
    main()
