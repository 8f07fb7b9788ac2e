"""GRPO steps of Tracetune on the work of `bench/compare.py`; the last line is one JSON object.

`python bench/peers/ours_grpo.py WORK`.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rewards import BETA, FOUR, GENERATIONS, MAX_PROMPT, NEW_TOKENS, PROMPTS
from ticks import Ticks

from tracetune.backends.local_policy import LocalPolicy
from tracetune.config.grpo_schema import (
    GenerationSettings,
    GrpoConfig,
    GrpoSettings,
    GrpoTrainingSettings,
    RewardSettings,
)
from tracetune.config.schema import OptimizerSettings
from tracetune.core.values import Problem
from tracetune.models.load import load_model
from tracetune.tasks.reward_set import load_rewards
from tracetune.train.grpo import Recipe, train_grpo
from tracetune.train.prompts import Prompt


def main() -> None:
    print(json.dumps(run(Path(sys.argv[1]))))


def run(work: Path) -> dict[str, Any]:
    told = json.loads((work / "grpo.json").read_text())
    recipe = make_recipe(work, told)
    ticks, infos = Ticks(), []
    ticks.tick()
    for info in train_grpo(recipe):
        infos.append(info)
        ticks.tick()
    timings = [info.timing._asdict() for info in infos]
    return {
        **ticks.told(),
        "losses": [float(info.metrics.loss) for info in infos],
        "rewards": [info.rewards["reward_mean"] for info in infos],
        "lengths": [info.rewards["completion_length_mean"] for info in infos],
        "phases": {name: [round(timing[name], 3) for timing in timings] for name in timings[0]},
        "versions": {name: version(name) for name in ("tracetune", "jax")},
        "settings": {},
    }


def make_recipe(work: Path, told: dict[str, Any]) -> Recipe:
    prompts = [
        Prompt(Problem(str(number), item["question"], item["answer"]), item["question"], tuple(item["tokens"]))
        for number, item in enumerate(told["prompts"])
    ]
    config = configure(told)
    longest = max(len(prompt.tokens) for prompt in prompts)
    backend = LocalPolicy(load_model(str(work / "model")), config, num_steps=told["num_steps"], longest_prompt=longest)
    return Recipe(
        backend=backend,
        # The prompts in their order; a stream would shuffle them.
        stream=prompts,
        score=load_rewards(config.rewards).score,
        settings=config.grpo,
        num_prompts=PROMPTS,
        num_steps=told["num_steps"],
        seed=config.seed,
    )


def configure(told: dict[str, Any]) -> GrpoConfig:
    return GrpoConfig(
        optimizer=OptimizerSettings(learning_rate=told["learning_rate"], max_grad_norm=told["max_grad_norm"]),
        grpo=GrpoSettings(num_generations=GENERATIONS, beta=BETA),
        generation=GenerationSettings(
            max_prompt_length=MAX_PROMPT,
            max_generation_steps=NEW_TOKENS,
            temperature=told["temperature"],
            top_k=told["top_k"],
        ),
        training=GrpoTrainingSettings(micro_batch_size=PROMPTS),
        rewards=tuple(RewardSettings(function=name) for name in (*FOUR, "rewards:spaces")),
    )


if __name__ == "__main__":
    main()
