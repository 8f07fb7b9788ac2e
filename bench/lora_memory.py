"""Memory of one LoRA step on a model with a large vocabulary: peak RSS of the process, weights included.

`python bench/lora_memory.py [--batch-size B] [--max-length T] [--rank R]` trains an adapter of a Gemma-3-270M-shaped
model (random weights, vocabulary 262,144) for one step of B×T tokens, every token a target, and prints a table and,
as its last line, one JSON object.
"""

import argparse
import json
import resource
import time

import jax
import numpy as np

from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import Stack, init_state, make_train_step
from tracetune.models.arch import arch_from_hf
from tracetune.models.lora import init_lora
from tracetune.models.transformer import init_params

GEMMA3_270M = {
    "model_type": "gemma3_text",
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
    "max_position_embeddings": 32_768,
}


def main() -> None:
    """Build the model, take one step, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    arguments = parser.parse_args()
    figures = measure(arguments.batch_size, arguments.max_length, arguments.rank)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>14,}")
    print(json.dumps(figures))


def measure(batch_size: int, length: int, rank: int) -> dict[str, float]:
    """One step; GiB are of resident memory at its highest, seconds of wall clock."""
    arch = arch_from_hf(GEMMA3_270M)
    params = jax.block_until_ready(init_params(jax.random.key(0), arch))
    optimizer = make_optimizer(OptimizerSettings(), 1)
    settings = LoraSettings(r=rank, alpha=2.0 * rank)
    lora = init_lora(jax.random.key(1), arch, settings)
    with_weights = peak_rss_gib()
    step = make_train_step(arch, optimizer, lora_scale=settings.alpha / rank)
    state = init_state(lora, optimizer)
    stack = random_stack(batch_size, length, arch.vocab_size)
    begin = time.perf_counter()
    step.compile(state, params, stack)
    compile_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    _, metrics = jax.block_until_ready(step(state, params, stack))
    step_seconds = time.perf_counter() - begin
    return {
        "peak_rss_gib": round(peak_rss_gib(), 3),
        "rss_with_weights_gib": round(with_weights, 3),
        "weights_gib": round(sum(leaf.nbytes for leaf in jax.tree.leaves(params)) / 2**30, 3),
        "whole_logits_gib": round(4 * batch_size * length * arch.vocab_size / 2**30, 3),
        "compile_seconds": round(compile_seconds, 2),
        "step_seconds": round(step_seconds, 2),
        "tokens": batch_size * length,
        "loss": round(float(metrics.loss), 4),
    }


def random_stack(batch_size: int, length: int, vocab_size: int) -> Stack:
    """One micro-batch of random tokens, one segment a row."""
    shape = (1, batch_size, length)
    tokens = np.random.default_rng(0).integers(0, vocab_size, (2, *shape), dtype=np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
    return Stack(tokens[0], tokens[1], np.ones(shape, np.float32), np.ones(shape, np.int32), positions)


def peak_rss_gib() -> float:
    """The most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
