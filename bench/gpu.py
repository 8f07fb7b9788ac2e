"""One GPU under this engine: are its kernels right, what does it reach, and how near is that to what it could.

`bench/gpu.sh [--small] [--out FILE] [--minutes M]` prints a table and, as its last line, one JSON object, which is also
written to FILE after every section. Weights are random and made on the device, of Qwen3-0.6B's shape; rows are packed
with random documents. `--small` is a test of the script itself on any machine; its figures mean nothing. What the time
does not allow is left out and named. Exit code 1: something is computed wrongly.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import Stack, init_state, make_train_step
from tracetune.models import attention_ways
from tracetune.models.arch import Arch, arch_from_hf
from tracetune.models.attention_blocks import Seen, attend_in_blocks
from tracetune.models.cache import CHUNK, empty_cache, grow, said_room, seat
from tracetune.models.choice import Dials, Settings
from tracetune.models.decode import decode_chunk, empty_rows, prefill, split_layers
from tracetune.models.head import weighted_logprob
from tracetune.models.lora import init_lora
from tracetune.models.precision import in_dtype
from tracetune.models.transformer import init_params

QWEN3_600M = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
}
SMALL = QWEN3_600M | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
GIB = 2**30
REFERENCE_STEPS = 6


class Size(NamedTuple):
    """How large everything is."""

    arch: Arch
    matmul: int
    copy_bytes: int
    rows: int
    length: int
    longest: int
    steps: int
    decode_batch: int
    decode_tokens: int
    prompt: int


class Goal(NamedTuple):
    """What a figure must reach, and what we hope for."""

    least: float
    hoped: float


GOALS = {
    "full_mfu": Goal(0.40, 0.55),
    "lora_over_full": Goal(1.3, 1.3),
    "decode_of_roofline": Goal(0.40, 0.70),
}
MOST_HEAD_GIB = 0.5


def main() -> None:
    """Every section in turn, while there is time."""
    arguments = parse()
    if arguments.reference:
        print(json.dumps(reference_losses(jnp.float32)))
        return
    device = jax.devices()[0]
    if device.platform == "cpu" and not arguments.small:
        sys.exit(
            'error: JAX sees no GPU here, only a CPU; install "jax[cuda13]" beside a driver, or give --small to test '
            "this script"
        )
    size = choose_size(small=arguments.small)
    report = Report(arguments.out, time.monotonic() + 60 * arguments.minutes)
    report.add({"device": device.device_kind, "platform": device.platform, "small": arguments.small})
    report.add({"jax": jax.__version__, "params": size.arch.num_params})
    for name, section, seconds in (
        ("attention", partial(check_attention, size), 40),
        ("losses", check_losses, 60),
        ("peaks", partial(measure_peaks, size), 20),
        ("head", partial(measure_head, size), 20),
        ("full", partial(measure_training, size, lora=False, report=report), 70),
        ("lora", partial(measure_training, size, lora=True, report=report), 60),
        ("decode", partial(measure_decode, size, report), 60),
        ("ways", partial(time_ways, size), 60),
    ):
        report.run(name, section, seconds)
    report.judge()
    report.end()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny shapes, to test the script")
    parser.add_argument("--out", type=Path, help="where the JSON is kept as it grows")
    parser.add_argument("--minutes", type=float, default=7.5, help="sections that would end later are left out")
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def choose_size(*, small: bool) -> Size:
    if small:
        return Size(arch_from_hf(SMALL), 256, 1 << 22, 2, 512, 128, 4, 8, 32, 16)
    return Size(arch_from_hf(QWEN3_600M), 8192, 4 * GIB, 2, 8192, 2048, 10, 256, 256, 128)


class Report:
    """Figures as they come, on the terminal and in a file."""

    def __init__(self, path: Path | None, deadline: float) -> None:
        self.path, self.deadline, self.began = path, deadline, time.monotonic()
        self.figures: dict[str, Any] = {"left_out": [], "failed": []}

    def add(self, figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            print(
                f"{name:<28} {value:>16,.4g}" if isinstance(value, float) else f"{name:<28} {value!s:>16}", flush=True
            )
        self.figures |= figures
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.figures, indent=1) + "\n")

    def run(self, name: str, section: Callable[[], dict[str, Any]], seconds: float) -> None:
        """One section, unless the time it is expected to take is not there."""
        if time.monotonic() + seconds > self.deadline:
            self.figures["left_out"].append(name)
            return
        began = time.monotonic()
        try:
            found = section()
        except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
            self.figures["failed"].append(f"{name}: {' '.join(str(error).split())[:300]}")
            found = {}
        self.add(found | {f"{name}_seconds": round(time.monotonic() - began, 1)})

    def judge(self) -> None:
        """Which goals were reached; None where a figure is missing."""
        found = self.figures
        if found.get("full_tokens_per_second") and found.get("lora_tokens_per_second"):
            self.add({"lora_over_full": round(found["lora_tokens_per_second"] / found["full_tokens_per_second"], 3)})
        reached = {name: name in found and found[name] >= goal.least for name, goal in GOALS.items()}
        reached["head_peak_gib"] = "head_peak_gib" in found and found["head_peak_gib"] < MOST_HEAD_GIB
        self.add({"goals": {name: bool(value) for name, value in reached.items()}})

    def end(self) -> None:
        wrong = [name for name in ("attention_right", "losses_right") if not self.figures.get(name, True)]
        self.add({"wrong": wrong, "seconds": round(time.monotonic() - self.began, 1)})
        print(json.dumps(self.figures))
        sys.exit(1 if wrong else 0)


def check_attention(size: Size) -> dict[str, Any]:
    """The verdict of every kernel's own check, for what the families ask; and what `attend` would take."""
    heads = size.arch.head_size
    asks = {
        "plain": attention_ways.Ask(heads, "bfloat16", False, None, False),
        "window": attention_ways.Ask(heads, "bfloat16", True, None, False),
        "softcap": attention_ways.Ask(256, "bfloat16", True, 50.0, False),
        "stem": attention_ways.Ask(heads, "bfloat16", False, None, True),
    }
    candidates = attention_ways.candidates(jax.default_backend())
    verdicts = {
        f"{way}_{name}": attention_ways.refusal(way, ask) or attention_ways.verdict(way, ask) or "right"
        for way in candidates
        for name, ask in asks.items()
    }
    for ask in asks.values():
        attention_ways.way_of(ask)
    # A kernel that is refused gives way; only blocks have nothing behind them.
    blocks = attention_ways.verdict("blocks", asks["stem"])
    return {"attention": verdicts, "attention_taken": attention_ways.ways_told(), "attention_right": blocks is None}


def check_losses() -> dict[str, Any]:
    """Six steps of a small model: on this device in float32 and bfloat16, on the CPU in float32."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, __file__, "--reference"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return {"losses_right": False, "losses_error": done.stderr[-400:]}
    expected = np.array(json.loads(done.stdout.splitlines()[-1]))
    exact, rounded = (np.array(reference_losses(dtype)) for dtype in (jnp.float32, jnp.bfloat16))
    far = [float(np.abs(losses / expected - 1).max()) for losses in (exact, rounded)]
    # A GPU multiplies float32 by way of TF32, with ten bits; bfloat16 has eight.
    return {"loss_gap_float32": far[0], "loss_gap_bfloat16": far[1], "losses_right": far[0] < 5e-3 and far[1] < 2e-2}


def reference_losses(dtype: Any) -> list[float]:
    """Losses of a few steps of a small model with real head sizes, the same on any device but for rounding."""
    arch = arch_from_hf(SMALL | {"head_dim": 64})
    optimizer = make_optimizer(OptimizerSettings(learning_rate=3e-3, schedule="constant"), REFERENCE_STEPS)
    step = make_train_step(arch, optimizer, dtype=dtype)
    state = init_state(_draw(arch), optimizer)
    stack = packed_stack(arch, rows=2, length=256, longest=100)
    losses = []
    for _ in range(REFERENCE_STEPS):
        state, metrics = step(state, None, stack)
        losses.append(float(metrics.loss))
    return losses


def _draw(arch: Arch) -> Any:
    return jax.jit(partial(init_params, arch=arch))(jax.random.key(0))


def packed_stack(arch: Arch, *, rows: int, length: int, longest: int) -> Stack:
    """Rows filled with documents of many lengths, every token a target."""
    rng = np.random.default_rng(0)
    segments, positions = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    for row in range(rows):
        place, number = 0, 1
        while place < length:
            wanted = int(np.clip(rng.lognormal(math.log(longest / 3), 0.7), 8, longest))
            end = min(length, place + wanted)
            segments[row, place:end], positions[row, place:end] = number, np.arange(end - place)
            place, number = end, number + 1
    tokens = rng.integers(0, arch.vocab_size, (rows, length + 1), dtype=np.int32)
    ones = np.ones((1, rows, length), np.float32)
    return Stack(tokens[None, :, :-1], tokens[None, :, 1:], ones, segments[None], positions[None])


def measure_peaks(size: Size) -> dict[str, Any]:
    """The best bf16 product of large squares, and the best copy, counting what is read and what is written."""
    square = jax.random.normal(jax.random.key(0), (size.matmul, size.matmul), jnp.bfloat16)
    # Products in a chain, each of unit size, so that many stand behind one start.
    chain = jax.jit(lambda x, y: jax.lax.fori_loop(0, 8, lambda _, z: (z @ y) * (size.matmul**-0.5), x))
    flops = 8 * 2 * size.matmul**3
    array = jnp.zeros(size.copy_bytes // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    return {
        "peak_bf16_tflops": round(flops / best_seconds(chain, square, square) / 1e12, 1),
        "peak_gb_per_second": round(2 * size.copy_bytes / best_seconds(copy, array) / 1e9, 1),
    }


def best_seconds(run: Callable[..., Any], *arrays: Any, repeats: int = 8) -> float:
    """Seconds of the fastest call, compiled before."""
    jax.block_until_ready(run(*arrays))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(run(*arrays))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure_head(size: Size) -> dict[str, Any]:
    """Memory of the head's loss and gradients beyond its inputs and the gradients themselves, as compiled here."""
    tokens = size.rows * size.length
    hidden = jax.ShapeDtypeStruct((size.rows, size.length, size.arch.hidden_size), jnp.bfloat16)
    head = jax.ShapeDtypeStruct((size.arch.vocab_size, size.arch.hidden_size), jnp.float32)
    whole = jax.ShapeDtypeStruct((size.rows, size.length), jnp.int32)
    weights = jax.ShapeDtypeStruct(whole.shape, jnp.float32)
    run = jax.jit(jax.value_and_grad(weighted_logprob, argnums=(0, 1)))
    peak = run.lower(hidden, head, whole, weights).compile().memory_analysis().temp_size_in_bytes
    return {
        "head_peak_gib": round(peak / GIB, 3),
        "whole_logits_gib": round(4 * tokens * size.arch.vocab_size / GIB, 2),
    }


def measure_training(size: Size, *, lora: bool, report: Report) -> dict[str, Any]:
    """Seconds a step, tokens a second, and the share of the measured peak that the model's own arithmetic reaches."""
    arch, name = size.arch, "lora" if lora else "full"
    params = _draw(arch)
    optimizer = make_optimizer(OptimizerSettings(learning_rate=1e-4), 100)
    settings = LoraSettings(r=16, alpha=32.0)
    step = make_train_step(
        arch, optimizer, lora_scale=2.0 if lora else None, max_segment=size.longest, dtype=jnp.bfloat16
    )
    trained = init_lora(jax.random.key(1), arch, settings) if lora else params
    frozen = jax.jit(partial(in_dtype, dtype=jnp.bfloat16))(params) if lora else None
    del params
    state = init_state(trained, optimizer)
    stack = jax.device_put(packed_stack(arch, rows=size.rows, length=size.length, longest=size.longest))
    began = time.perf_counter()
    compiled = step.compile(state, frozen, stack)
    compile_seconds = time.perf_counter() - began
    seconds = []
    for _ in range(size.steps + 2):
        began = time.perf_counter()
        state, metrics = step(state, frozen, stack)
        loss = float(jax.block_until_ready(metrics.loss))
        jax.block_until_ready(state.step)
        seconds.append(time.perf_counter() - began)
    took = statistics.median(seconds[2:])
    tokens = size.rows * size.length
    flops = count_flops(arch, stack, rank=settings.r if lora else None)
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return {
        f"{name}_step_seconds": round(took, 4),
        f"{name}_tokens_per_second": round(tokens / took, 1),
        f"{name}_mfu": round(flops / took / 1e12 / report.figures.get("peak_bf16_tflops", math.inf), 4),
        f"{name}_tflops": round(flops / took / 1e12, 2),
        f"{name}_compile_seconds": round(compile_seconds, 1),
        f"{name}_peak_gib": round(held / GIB, 2),
        f"{name}_loss": round(loss, 4),
        f"{name}_compilations": step.num_compilations,
    }


def count_flops(arch: Arch, stack: Stack, *, rank: int | None) -> float:
    """Model FLOPs of one step, as `bench/sft.py` counts them: attention on the pairs within a segment, no padding."""
    tokens = stack.tokens_ABT.size
    sizes_q, sizes_kv = arch.num_heads * arch.head_size, arch.num_kv_heads * arch.head_size
    layer = 2 * arch.hidden_size * (sizes_q + sizes_kv) + 3 * arch.hidden_size * arch.mlp_size
    adapter = (rank or 0) * (7 * arch.hidden_size + 2 * (sizes_q + sizes_kv) + 3 * arch.mlp_size)
    per_weight = 4 if rank else 6
    pairs = int((np.asarray(stack.positions_ABT, np.int64) + 1).sum())
    flops = arch.num_layers * ((per_weight * layer + 6 * adapter) * tokens + 12 * sizes_q * pairs)
    return float(flops + per_weight * arch.vocab_size * arch.hidden_size * tokens)


def measure_decode(size: Size, report: Report) -> dict[str, Any]:
    """Tokens a second at a large batch, against the time that reading weights and keys alone would take."""
    arch, batch = size.arch, size.decode_batch
    decoder = split_layers(_draw(arch), arch=arch, dtype=jnp.bfloat16)
    prompts = np.random.default_rng(0).integers(0, arch.vocab_size, (1, size.prompt), dtype=np.int32)
    cache = empty_cache(arch, num_blocks=batch, num_slots=batch, prompt_size=size.prompt, dtype=jnp.bfloat16)
    prefilled = prefill(decoder, prompts, arch=arch)
    for block in range(batch):
        cache = seat(cache, prefilled, np.int32(0), np.int32(block))
    rows = empty_rows(batch)
    rows.tokens_B[:], rows.prompts_B[:], rows.remaining_B[:] = 1, size.prompt, 10**6
    rows.keys_B2[:, 1] = np.arange(batch)
    settings = Settings(sample=True, top_k=None, filter_p=False, delay_stop=False)
    dials = Dials(np.float32(1), np.float32(1), np.full(8, -1, np.int32))
    weights = 2 * arch.num_params
    per_token = 2 * 2 * arch.num_layers * arch.num_kv_heads * arch.head_size
    seconds, bytes_read, said, tokens = 0.0, 0.0, 0, 0
    while said < size.decode_tokens:
        fresh = said == 0
        while said > said_room(cache):
            cache, fresh = grow(cache), True
        began = time.perf_counter()
        cache, rows, _ = jax.block_until_ready(decode_chunk(decoder, cache, rows, dials, arch=arch, settings=settings))
        if not fresh:
            # The first chunk of a shape compiles.
            seconds += time.perf_counter() - began
            bytes_read += sum(weights + batch * (size.prompt + said + t + 1) * per_token for t in range(CHUNK))
            tokens += CHUNK * batch
        said += CHUNK
    least = bytes_read / (report.figures.get("peak_gb_per_second", math.nan) * 1e9)
    return {
        "decode_tokens_per_second": round(tokens / seconds, 1),
        "decode_of_roofline": round(least / seconds, 4),
        "decode_gb_per_second": round(bytes_read / seconds / 1e9, 1),
    }


def time_ways(size: Size) -> dict[str, Any]:
    """Milliseconds of attention, forward and backward, over one packed row, by each way that is right."""
    arch, length = size.arch, size.length
    stack = packed_stack(arch, rows=1, length=length, longest=size.longest)
    segments = jnp.asarray(stack.segments_ABT[0])
    ask = attention_ways.Ask(arch.head_size, "bfloat16", False, None, False)
    keys = jax.random.split(jax.random.key(0), 3)
    heads = (arch.num_heads, arch.num_kv_heads, arch.num_kv_heads)
    arrays = [
        jax.random.normal(key, (1, length, count, arch.head_size), jnp.bfloat16)
        for key, count in zip(keys, heads, strict=True)
    ]
    ways = {"blocks": attend_in_blocks}
    for name in attention_ways.candidates(jax.default_backend()):
        if attention_ways.refusal(name, ask) is None and attention_ways.verdict(name, ask) is None:
            ways[name] = attention_ways.WAYS[name]
    found = {}
    for name, way in ways.items():

        def weigh(q: jax.Array, k: jax.Array, v: jax.Array, way: Any = way) -> jax.Array:
            seen = Seen(segments, arch.query_scale, max_segment=size.longest)
            return jnp.sum(way(q, k, v, seen).astype(jnp.float32))

        run = jax.jit(jax.value_and_grad(weigh, argnums=(0, 1, 2)))
        found[f"attention_{name}_ms"] = round(1000 * best_seconds(run, *arrays, repeats=5), 3)
    return found


if __name__ == "__main__":
    main()
