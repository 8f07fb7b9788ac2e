"""A rehearsal of a run: all is checked, some rows are shown as tokens, the cost is estimated, nothing is written."""

import math
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.app.backend_choice import require_backend
from tracetune.app.datasets import TokenView
from tracetune.app.manifest import describe_inputs
from tracetune.app.runs import RunFolder, read_manifest
from tracetune.app.sft import check_same, output_folder
from tracetune.app.training_data import TrainingData, read_eval_rows, read_training_data, tokenize
from tracetune.config.aliases import BUILT_IN, resolve_alias
from tracetune.config.resolve import to_yaml
from tracetune.config.schema import SftConfig
from tracetune.core.values import Example
from tracetune.data.show import token_spans
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import Stack, TrainStep, init_state, make_train_step, stack_batches
from tracetune.models import adapter
from tracetune.models.arch import Arch, arch_from_hf
from tracetune.models.hf import CONFIG, read_object
from tracetune.models.hub import locate
from tracetune.models.lora import init_lora
from tracetune.models.tiny import tiny_arch, tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.transformer import init_params
from tracetune.train.steps import StepPlan

SHOWN_ROWS = 8
# A step above this many operations is not run to be timed: its time is computed from the speed of a matmul.
MEASURED_FLOPS = 1e12
ASSUMED_UTILISATION = 0.5


class DryRun(NamedTuple):
    """What a run would be: its resolved settings as YAML, facts in the order of reading, rows as tokens."""

    settings: str
    facts: dict[str, str]
    views: list[TokenView]


class Cost(NamedTuple):
    """Of one optimizer step, compilation left out; `how` says whether the time was measured or computed."""

    memory_bytes: int
    seconds: float
    how: str


def dry_run(
    config: SftConfig,
    *,
    data: Path | None = None,
    dataset: str | None = None,
    output: Path | None = None,
    max_samples: int | None = None,
    home: Path | None = None,
) -> DryRun:
    """Check what `run_sft` would check and estimate what it would cost. Raises what it would raise."""
    require_backend(config)
    folder = RunFolder(output_folder(config, output), config.output)
    rows = read_training_data(config, data=data, dataset=dataset, max_samples=max_samples, home=home)
    eval_rows = read_eval_rows(config)
    manifest = read_manifest(folder.manifest)
    if manifest is not None:
        check_same(folder, manifest, describe_inputs(config, rows, eval_rows, max_samples=max_samples))
    arch, tokenizer = _blueprint(config.model.name)
    notes: list[str] = []
    examples = tokenize(islice(rows.rows, SHOWN_ROWS), tokenizer, config, say=notes.append)
    num_steps = config.training.num_steps or _guess_steps(config, examples, len(rows.rows))
    cost = estimate(config, arch, examples, longest=_guess_longest(config, examples, rows), pad_id=tokenizer.pad_id)
    facts = {
        "model": f"{config.model.name}, {_num_params(arch):,} parameters",
        "rows": _rows_told(rows, eval_rows),
        "notes": "; ".join(notes) or "none",
        "steps": _steps_told(config, num_steps),
        "memory": f"{cost.memory_bytes / 2**30:.2f} GiB for a step, as compiled; the program itself comes on top",
        "time": f"about {_duration(num_steps * cost.seconds)}: {cost.seconds:.3g} s a step, {cost.how}",
        "run folder": f"{folder.root} ({'new' if manifest is None else manifest['status']}); nothing was written",
    }
    views = [TokenView(example.trace_id, token_spans(example, tokenizer)) for example in examples]
    return DryRun(to_yaml(config), facts, views)


def _blueprint(name: str) -> tuple[Arch, Tokenizer]:
    """A model's shape and tokenizer, its weights unread: a rehearsal must fit where the run would not."""
    if resolve_alias(name) == BUILT_IN:
        return tiny_arch(), tiny_tokenizer()
    folder = locate(name)
    if (folder / adapter.CONFIG).is_file():
        return _blueprint(adapter.base_of(folder))
    return arch_from_hf(read_object(folder / CONFIG)), Tokenizer.from_folder(folder)


def estimate(config: SftConfig, arch: Arch, examples: list[Example], *, longest: int, pad_id: int) -> Cost:
    """Compile the step for abstract weights; run it on random ones and rows full of `examples` when that is quick.

    `longest` is the positions of the longest example of the run, which bounds attention.
    """
    plan = StepPlan.from_config(config, examples, pad_id=pad_id)
    positions = sum(len(example.tokens) - 1 for example in examples)
    repeats = math.ceil(plan.rows_per_step * config.model.max_length / positions)
    stack = stack_batches(replace(plan, examples=examples * repeats).epoch(0)[0])
    optimizer = make_optimizer(config.optimizer, num_steps=1)
    lora = config.model.lora
    step = make_train_step(
        arch,
        optimizer,
        lora_scale=None if lora is None else lora.alpha / lora.r,
        remat=config.training.gradient_checkpointing,
        max_segment=longest,
    )

    def weights(key: jax.Array) -> tuple[Any, Any]:
        params = init_params(key, arch)
        trained = params if lora is None else init_lora(key, arch, lora)
        return init_state(trained, optimizer), None if lora is None else params

    key = jax.random.key(0)
    state, frozen = jax.eval_shape(weights, key)
    memory = step.compile(state, frozen, stack).memory_analysis()
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    flops = (6 if lora is None else 4) * _num_params(arch) * stack.tokens_ABT.size
    if flops > MEASURED_FLOPS:
        seconds = flops / (ASSUMED_UTILISATION * _matmul_speed())
        how = f"computed from {flops:.2g} operations at {ASSUMED_UTILISATION:.0%} of this machine's matmul speed"
    else:
        seconds, how = _time(step, jax.jit(weights)(key), stack), "measured"
    return Cost(size + memory.temp_size_in_bytes, seconds, how)


def _time(step: TrainStep, weights: tuple[Any, Any], stack: Stack) -> float:
    """Seconds of the second step; the first warms caches."""
    state, frozen = weights
    state, metrics = step(state, frozen, stack)
    jax.block_until_ready(metrics)
    began = time.monotonic()
    _, metrics = step(state, frozen, stack)
    jax.block_until_ready(metrics)
    return time.monotonic() - began


def _matmul_speed(size: int = 1024, repeats: int = 8) -> float:
    """Floating-point operations a second of a plain float32 matmul."""
    square = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    multiply(square, square).block_until_ready()
    began = time.monotonic()
    for _ in range(repeats):
        multiply(square, square).block_until_ready()
    return repeats * 2 * size**3 / (time.monotonic() - began)


def _num_params(arch: Arch) -> int:
    shapes = jax.eval_shape(partial(init_params, arch=arch), jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def _guess_longest(config: SftConfig, shown: list[Example], rows: TrainingData) -> int:
    """Positions of the longest example, if every row had as many tokens a character as those shown."""
    chars = {row.id: sum(len(message.content) for message in row.messages) for row in rows.rows}
    tokens_per_char = max(len(example.tokens) / chars[example.trace_id] for example in shown)
    return min(config.model.max_length, math.ceil(tokens_per_char * max(chars.values())))


def _guess_steps(config: SftConfig, shown: list[Example], num_rows: int) -> int:
    """Steps of all epochs, if every row were as long as those shown and rows packed without a gap."""
    mean = sum(len(example.tokens) - 1 for example in shown) / len(shown)
    packed = num_rows * mean / config.model.max_length if config.model.packing else num_rows
    training = config.training
    per_epoch = math.ceil(packed / (training.batch_size * training.gradient_accumulation_steps))
    return max(1, math.ceil(per_epoch * training.num_epochs))


def _rows_told(rows: TrainingData, eval_rows: TrainingData | None) -> str:
    held_out = "" if eval_rows is None else f", {len(eval_rows.rows):,} to evaluate on"
    return f"{len(rows.rows):,} to train on (sha256 {rows.facts['rows_hash'][:12]}…){held_out}"


def _steps_told(config: SftConfig, num_steps: int) -> str:
    training = config.training
    about = "" if training.num_steps else f"about, for {training.num_epochs:g} epochs: "
    rows = f"{training.batch_size} × {training.gradient_accumulation_steps} rows of {config.model.max_length} tokens"
    return f"{about}{num_steps:,} of {rows}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
