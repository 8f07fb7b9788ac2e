"""SFT speed: real tokens a second, and how much of this machine's matmul peak the model's own arithmetic reaches.

`python bench/sft.py [--model DIR] [--data FILE] [--steps N] [--lora R]` prints a table and, as its last line, one
JSON object. Without `--model` it trains a fresh 10M-parameter model of Qwen 3's shape with a tokenizer of 8,192
made from the data; without `--data` GSM8K under $TRACETUNE_DATA or ../shared/data, else generated arithmetic.
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.core.values import Batch, Example
from tracetune.data.pack import make_batch, plan_epoch
from tracetune.data.render import TrainingRow, render_rows, trace_messages
from tracetune.data.rows import read_training_rows
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import init_state, make_train_step, stack_batches
from tracetune.models.arch import Arch, arch_from_hf
from tracetune.models.lora import init_lora
from tracetune.models.model import Model, make_model
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.transformer import init_params

QWEN3_10M = {
    "model_type": "qwen3",
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
}
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PEAK_SIZES = (1024, 2048, 3072, 4096)
WARM_UP_STEPS = 2


class Work(NamedTuple):
    """What one batch asks for. `flops` send every real token through the head, as model FLOPs are counted in the field
    (PaLM, appendix B); `needed_flops` only the tokens that are trained on."""

    tokens: int
    targets: int
    flops: float
    needed_flops: float


def main() -> None:
    """Measure peak, train, measure peak again."""
    arguments = parse()
    if arguments.save is not None:
        from tracetune.models.load import save_folder

        save_folder(fresh_model(list(read_rows(arguments.data))), arguments.save)
        return
    figures = measure(arguments)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>14,.4g}" if isinstance(value, float) else f"{name:<{width}}  {value!s:>14}")
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or name of a model; default: a fresh 10M one")
    parser.add_argument("--data", type=Path, help="rows to train on; default: GSM8K")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--lora", type=int, metavar="R", help="train an adapter of rank R instead of every weight")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the fresh model there and stop")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--remat", action="store_true")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the table."""
    rows = list(read_rows(arguments.data))
    model = fresh_model(rows) if arguments.model is None else load(arguments.model)
    rendered = render_rows(rows, model.tokenizer, max_length=arguments.max_length)
    batches = make_batches(rendered.examples, model, arguments)
    work = [count_work(batch, model.arch, lora_rank=arguments.lora) for batch in batches]
    peaks = [matmul_peak()]
    run = train(model, batches, arguments, longest=max(len(example.tokens) - 1 for example in rendered.examples))
    peaks.append(matmul_peak())
    seconds, work = run["seconds"][WARM_UP_STEPS:], work[WARM_UP_STEPS:]
    peak = max(*peaks, *run["matmuls"])
    timed = list(zip(work, seconds, strict=True))
    gflops = [one.flops / took / 1e9 for one, took in timed]
    sum_tokens, sum_seconds = sum(one.tokens for one in work), sum(seconds)
    return {
        "tokens_per_second": round(statistics.median(w.tokens / s for w, s in timed), 1),
        "mfu": round(statistics.median(gflops) / peak, 4),
        # The same without the head's arithmetic that training leaves out: what the processor did.
        "mfu_needed": round(statistics.median(w.needed_flops / s for w, s in timed) / 1e9 / peak, 4),
        "peak_gflops": round(peak, 1),
        # On a busy machine the best step says more: the peak is the best of many matmuls too.
        "mfu_best_step": round(max(gflops) / peak, 4),
        "median_matmul_gflops": round(statistics.median(run["matmuls"]), 1),
        "model_gflops": round(statistics.median(gflops), 1),
        "mean_tokens_per_second": round(sum_tokens / sum_seconds, 1),
        "compile_seconds": round(run["compile_seconds"], 2),
        "recompiles": run["recompiles"],
        "peak_rss_gib": round(peak_rss_gib(), 3),
        "loss_first": round(run["losses"][0], 4),
        "loss_last": round(run["losses"][-1], 4),
        "steps": arguments.steps,
        "step_seconds": round(statistics.median(seconds), 4),
        "params": model.arch.num_params,
        "rows": len(rows),
        "rows_too_long": len(rendered.too_long),
        "padding_share": round(1 - sum_tokens / (len(work) * batches[0].tokens_BT.size), 4),
        "target_share": round(sum(one.targets for one in work) / sum_tokens, 4),
        "mflops_per_token": round(sum(one.flops for one in work) / sum_tokens / 1e6, 2),
        "dtype": "float32",
        "device": jax.devices()[0].device_kind,
    }


def read_rows(path: Path | None) -> Iterator[TrainingRow]:
    """The rows of a file, of GSM8K, or of the arithmetic task where there is neither."""
    root = Path(os.environ.get("TRACETUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = path or root / "gsm8k" / "train.jsonl"
    if path.is_file():
        yield from read_training_rows(path)
        return
    from tracetune.tasks.registry import get_task

    for number, trace in enumerate(get_task("arithmetic").traces(8000, 0)):
        yield TrainingRow(f"arithmetic-{number}", trace_messages(trace))


def fresh_model(rows: Sequence[TrainingRow]) -> Model:
    """Random weights, and a byte-level tokenizer of 8,192 that the rows themselves gave."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    maker = tokenizers.Tokenizer(models.BPE())
    maker.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    maker.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=QWEN3_10M["vocab_size"],
        special_tokens=CONTROLS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    maker.train_from_iterator((message.content for row in rows for message in row.messages), trainer)
    settings = {"pad_token": CONTROLS[0], "eos_token": CONTROLS[2]}
    arch = arch_from_hf(QWEN3_10M)
    params = init_params(jax.random.key(0), arch)
    return make_model("qwen3-10m", arch, params, Tokenizer.from_json(maker.to_str(), settings=settings))


def load(name: str) -> Model:
    from tracetune.models.load import load_model

    return load_model(name)


def make_batches(examples: Sequence[Example], model: Model, arguments: argparse.Namespace) -> list[Batch]:
    """Warm-up and timed batches, as training would pack and order them; over again when the data is short."""
    pad_id = model.tokenizer.pad_id or 0
    lengths = [len(example.tokens) for example in examples]
    batches: list[Batch] = []
    epoch, size = 0, arguments.batch_size
    while len(batches) < arguments.steps + WARM_UP_STEPS:
        rows = plan_epoch(lengths, max_length=arguments.max_length, batch_size=size, seed=42, epoch=epoch)
        batches += [
            make_batch(rows[start : start + size], examples, max_length=arguments.max_length, pad_id=pad_id)
            for start in range(0, min(len(rows), (arguments.steps + WARM_UP_STEPS) * size), size)
        ]
        epoch += 1
    return batches[: arguments.steps + WARM_UP_STEPS]


def count_work(batch: Batch, arch: Arch, *, lora_rank: int | None) -> Work:
    """Real tokens, targets, and the FLOPs of one forward and backward pass over them.

    A weight costs 2 FLOPs forward, 2 for the gradient of its input and, when trained, 2 for its own. Attention counts
    on the pairs that causality leaves within a segment; padding and elementwise work count nowhere.
    """
    tokens = int((batch.segments_BT > 0).sum())
    targets = int(batch.weights_BT.sum())
    sizes_q, sizes_kv = arch.num_heads * arch.head_size, arch.num_kv_heads * arch.head_size
    layer = 2 * arch.hidden_size * (sizes_q + sizes_kv) + 3 * arch.hidden_size * arch.mlp_size
    adapter = lora_rank and lora_rank * (4 * arch.hidden_size + 2 * (sizes_q + sizes_kv) + 3 * arch.hidden_size)
    adapter = (adapter or 0) + (lora_rank or 0) * 3 * arch.mlp_size
    per_weight = 4 if lora_rank else 6
    flops = arch.num_layers * (per_weight * layer + 6 * adapter) * tokens
    positions = np.asarray(batch.positions_BT)[np.asarray(batch.segments_BT) > 0].astype(np.int64)
    for number in range(arch.num_layers):
        slides = arch.window is not None and number in arch.sliding_layers
        seen = np.minimum(positions + 1, arch.window or 0) if slides else positions + 1
        flops += 3 * 4 * sizes_q * int(seen.sum())
    head = per_weight * arch.vocab_size * arch.hidden_size
    return Work(tokens, targets, float(flops + head * tokens), float(flops + head * targets))


def train(model: Model, batches: list[Batch], arguments: argparse.Namespace, *, longest: int) -> dict[str, Any]:
    """Take a step on every batch; seconds and loss of each, a matmul's GFLOP/s after each, and what compiling took."""
    settings = LoraSettings(r=arguments.lora, alpha=2.0 * arguments.lora) if arguments.lora else None
    optimizer = make_optimizer(OptimizerSettings(learning_rate=arguments.learning_rate), len(batches))
    params = init_lora(jax.random.key(1), model.arch, settings) if settings else model.params
    step = make_train_step(
        model.arch, optimizer, lora_scale=2.0 if settings else None, remat=arguments.remat, max_segment=longest
    )
    state = init_state(params, optimizer)
    frozen = model.params if settings else None
    begin = time.perf_counter()
    step.compile(state, frozen, stack_batches(batches[:1]))
    compile_seconds = time.perf_counter() - begin
    compiled = step.num_compilations
    seconds, losses, matmuls = [], [], []
    for batch in batches:
        begin = time.perf_counter()
        state, metrics = step(state, frozen, stack_batches([batch]))
        losses.append(float(metrics.loss))
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - begin)
        matmuls.append(matmul_gflops(PEAK_SIZES[1]))
    return {
        "seconds": seconds,
        "losses": losses,
        "matmuls": matmuls,
        "compile_seconds": compile_seconds,
        "recompiles": step.num_compilations - compiled,
    }


def matmul_peak(repeats: int = 4) -> float:
    """GFLOP/s of the best of several large square float32 products; the best of all repeats."""
    return max(matmul_gflops(size) for size in PEAK_SIZES for _ in range(repeats))


def matmul_gflops(size: int) -> float:
    """GFLOP/s of one product of two square float32 matrices."""
    square = _square(size)
    begin = time.perf_counter()
    _multiply(square, square).block_until_ready()
    return 2 * size**3 / (time.perf_counter() - begin) / 1e9


@lru_cache
def _square(size: int) -> jax.Array:
    square = jax.random.normal(jax.random.key(0), (size, size), jnp.float32)
    _multiply(square, square).block_until_ready()
    return square


_multiply = jax.jit(jnp.matmul)


def peak_rss_gib() -> float:
    """The most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
