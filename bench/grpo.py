"""GRPO speed: the seconds of a step by phase, and how fast completions are decoded.

`python bench/grpo.py [--model DIR] [--data FILE]` takes steps of 8 prompts with 8 completions of 128 new tokens on a
10M-parameter model of Qwen 3's shape, every weight trained, beta 0.04, float32, on GSM8K's questions; it prints a
table and, as its last line, one JSON object. Fresh weights hardly ever stop by themselves, so completions are
as long as may be.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sft import PEAK_SIZES, fresh_model, matmul_gflops, matmul_peak, peak_rss_gib, read_rows
from tracetune.app.grpo_problems import make_prompt
from tracetune.backends.local_policy import LocalPolicy
from tracetune.config.grpo_schema import (
    GenerationSettings,
    GrpoConfig,
    GrpoModelSettings,
    GrpoSettings,
    GrpoTrainingSettings,
    PromptSettings,
)
from tracetune.config.schema import LoraSettings
from tracetune.models.model import Model
from tracetune.tasks.problem_sources import ProblemSource, load_problems
from tracetune.tasks.reward_set import load_rewards
from tracetune.train.grpo import GrpoInfo, Recipe, train_grpo
from tracetune.train.prompts import PromptStream

WARM_UP_STEPS = 1


def main() -> None:
    """Measure peak, take steps, measure peak again."""
    figures = measure(parse())
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>14,.4g}" if isinstance(value, float) else f"{name:<{width}}  {value!s:>14}")
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or name of a model; default: a fresh 10M one")
    parser.add_argument("--data", type=Path, help="questions with answers; default: GSM8K")
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed")
    parser.add_argument("--lora", type=int, metavar="R", help="train an adapter of rank R instead of every weight")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=50, help="0 keeps the whole vocabulary")
    parser.add_argument("--beta", type=float, default=0.04)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the table."""
    from tracetune.models.load import load_model

    model = fresh_model(list(read_rows(arguments.data))) if arguments.model is None else load_model(arguments.model)
    config = configure(arguments)
    recipe = make_recipe(model, config, arguments)
    peaks, began = [matmul_peak()], time.perf_counter()
    infos: list[GrpoInfo] = []
    seconds: list[float] = []
    compiled = 0
    for info in train_grpo(recipe):
        seconds.append(time.perf_counter() - began)
        infos.append(info)
        if len(infos) == WARM_UP_STEPS:
            compiled = num_compiled()
        peaks.append(matmul_gflops(PEAK_SIZES[1]))
        began = time.perf_counter()
    recompiles = num_compiled() - compiled
    peaks.append(matmul_peak())
    timed, seconds = infos[WARM_UP_STEPS:], seconds[WARM_UP_STEPS:]
    tokens = [sum(len(rollout.completion.tokens) for rollout in info.rollouts) for info in timed]
    decoding = [info.timing.rollout for info in timed]
    return {
        "step_seconds": round(statistics.median(seconds), 3),
        "decode_tokens_per_second": round(statistics.median(n / s for n, s in zip(tokens, decoding, strict=True)), 1),
        "phases": {
            name: round(statistics.median(getattr(info.timing, name) for info in timed), 3)
            for name in ("rollout", "reward", "reference", "update")
        },
        "recompiles": recompiles,
        "peak_gflops": round(max(peaks), 1),
        "median_matmul_gflops": round(statistics.median(peaks[1:-1]), 1),
        "first_step_seconds": round(infos[0].timing.rollout + infos[0].timing.update, 2),
        "completion_tokens": statistics.median(tokens),
        "prompt_tokens": round(float(np.mean([len(prompt.tokens) for prompt in recipe.stream.prompts]))),
        "sampler_gap_max": max(info.metrics.gap_max for info in timed),
        "peak_rss_gib": round(peak_rss_gib(), 3),
        "steps": len(timed),
        "params": model.arch.num_params,
        "device": jax.devices()[0].device_kind,
    }


def configure(arguments: argparse.Namespace) -> GrpoConfig:
    lora = LoraSettings(r=arguments.lora, alpha=2.0 * arguments.lora) if arguments.lora else None
    return GrpoConfig(
        model=GrpoModelSettings(lora=lora),
        grpo=GrpoSettings(num_generations=arguments.generations, beta=arguments.beta),
        generation=GenerationSettings(max_generation_steps=arguments.new_tokens, top_k=arguments.top_k or None),
        training=GrpoTrainingSettings(micro_batch_size=arguments.prompts),
    )


def make_recipe(model: Model, config: GrpoConfig, arguments: argparse.Namespace) -> Recipe:
    root = Path(os.environ.get("TRACETUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = arguments.data or root / "gsm8k" / "train.jsonl"
    kind, name = ("jsonl", str(path)) if path.is_file() else ("builtin", "arithmetic")
    problems = load_problems(ProblemSource(kind=kind, name=name)).train
    made = [make_prompt(problem, PromptSettings(), model.tokenizer) for problem in problems]
    prompts = [prompt for prompt in made if len(prompt.tokens) <= config.generation.max_prompt_length]
    num_steps = WARM_UP_STEPS + arguments.steps
    longest = max(len(prompt.tokens) for prompt in prompts)
    return Recipe(
        backend=LocalPolicy(model, config, num_steps=num_steps, longest_prompt=longest),
        stream=PromptStream(prompts, seed=config.seed),
        score=load_rewards(config.rewards).score,
        settings=config.grpo,
        num_prompts=arguments.prompts,
        num_steps=num_steps,
        seed=config.seed,
    )


_COMPILED = [0]


def num_compiled() -> int:
    """Programs that XLA has compiled in this process."""
    return _COMPILED[0]


def _count(event: str, duration_secs: float, **_: Any) -> None:
    del duration_secs
    _COMPILED[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)

if __name__ == "__main__":
    main()
