"""A rehearsal of a run: all is checked, some rows are shown as tokens, the cost is estimated, nothing is written."""

import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tracetune.app.backend_choice import check_backend_arch, require_backend
from tracetune.app.blueprint import blueprint
from tracetune.app.datasets import TokenView
from tracetune.app.examples import first_examples
from tracetune.app.kept_session import check_same
from tracetune.app.manifest import describe_inputs
from tracetune.app.memory import first_change, phases, run_bounds, told_bytes, update_of, with_shape
from tracetune.app.plan import ASSUMED_UTILISATION, told_time
from tracetune.app.run_benchmark import check_benchmark
from tracetune.app.runs import RunFolder, read_manifest
from tracetune.app.sft import output_folder
from tracetune.app.tinker_bill import estimate as bill_told
from tracetune.app.tinker_bill import trained_tokens
from tracetune.app.tinker_prices import Tokens
from tracetune.app.training_data import TrainingData, read_eval_rows, read_training_data
from tracetune.app.workload import work_of
from tracetune.backends.tinker_service import service_url
from tracetune.backends.tinker_words import without_key
from tracetune.config.aliases import resolve_alias
from tracetune.config.resolve import to_yaml
from tracetune.config.schema import SftConfig
from tracetune.core.values import Example
from tracetune.data.show import token_spans
from tracetune.engine.devices import room, speed
from tracetune.engine.optimizer import Optimizer, make_optimizer
from tracetune.engine.plan import Update, abstract_weights, analyse, peak, step_of
from tracetune.engine.step import Stack, TrainStep, init_state, stack_batches
from tracetune.models.arch import Arch
from tracetune.models.lora import init_lora
from tracetune.models.precision import in_dtype
from tracetune.models.served import served_model
from tracetune.models.tiny import tiny_tokenizer
from tracetune.models.tokenizer import Tokenizer
from tracetune.models.transformer import init_params
from tracetune.train.steps import StepPlan

SHOWN_ROWS = 8
# A step above this many operations is not run to be timed: its time is computed from the speed of a matmul.
MEASURED_FLOPS = 1e12


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
    num_items = check_benchmark(config.benchmark)
    folder = RunFolder(output_folder(config, output), config.output)
    rows = read_training_data(config, data=data, dataset=dataset, max_samples=max_samples, home=home)
    eval_rows = read_eval_rows(config, rows)
    manifest = read_manifest(folder.manifest)
    if manifest is not None:
        check_same(folder, manifest, describe_inputs(config, rows, eval_rows, max_samples=max_samples))
    is_here = config.backend != "tinker"
    if is_here:
        tokenizer = tokenizer_of(blueprint(config.model.name).folder)
    else:
        tokenizer = served_model(config.model.name).tokenizer
    notes = [rows.left_out] if rows.left_out else []
    examples = first_examples(rows.rows, tokenizer, config, SHOWN_ROWS, say=notes.append)
    num_steps = config.training.num_steps or guess_steps(config, examples, rows.num_per_epoch)
    longest = _guess_longest(config, examples, rows)
    if is_here:
        cost = _local_facts(config, examples, num_steps, longest=longest, pad_id=tokenizer.pad_id)
    else:
        cost = served_facts(config, examples, num_steps)
    facts = {
        "model": cost.pop("model"),
        "rows": _rows_told(rows, eval_rows),
        "notes": "; ".join(notes) or "none",
        "steps": _steps_told(config, num_steps),
        **cost,
        **({"benchmark": f"{num_items} items at its end"} if num_items else {}),
        "run folder": f"{folder.root} ({'new' if manifest is None else manifest['status']}); nothing was written",
    }
    views = [TokenView(example.trace_id, token_spans(example, tokenizer)) for example in examples]
    return DryRun(to_yaml(config), facts, views)


def _local_facts(
    config: SftConfig, examples: list[Example], num_steps: int, *, longest: int, pad_id: int
) -> dict[str, str]:
    shaped, arch = with_shape(config)
    check_backend_arch(config, arch)
    cost = estimate(shaped, arch, examples, longest=longest, pad_id=pad_id)
    return {
        "model": f"{config.model.name}, {arch.num_params:,} parameters",
        "memory": f"{cost.memory_bytes / 2**30:.2f} GiB for a step{_fits(shaped, arch, cost.memory_bytes)}",
        "time": f"about {told_time(num_steps * cost.seconds)}: {cost.seconds:.3g} s a step, {cost.how}",
    }


def served_facts(config: SftConfig, examples: list[Example], num_steps: int) -> dict[str, str]:
    """Of a run by a service, which is not asked."""
    mean = sum(len(example.tokens) - 1 for example in examples) / len(examples)
    per_row = config.model.max_length if config.model.packing else mean
    rows = config.training.batch_size * config.training.gradient_accumulation_steps
    return told_bill(config, trained_tokens(config, round(num_steps * rows * per_row)))


def told_bill(config: SftConfig, tokens: Tokens) -> dict[str, str]:
    """The same, of known `tokens`."""
    name = resolve_alias(config.model.name)
    return {"model": name, "memory": "none here", "cost": bill_told(name, without_key(service_url()), tokens)}


def tokenizer_of(folder: Path | None) -> Tokenizer:
    """That of a model's folder; None is the built-in one."""
    return tiny_tokenizer() if folder is None else Tokenizer.from_folder(folder)


def estimate(config: SftConfig, arch: Arch, examples: list[Example], *, longest: int, pad_id: int) -> Cost:
    """The memory of a plan, and the time of a step: run on random weights and rows full of `examples` when that is
    quick, else computed.

    `longest` is the positions of the longest example of the run, which bounds attention.
    """
    work, limit = work_of(config, arch), room()
    large = limit is not None and run_bounds(config, arch)[1] > limit.num_bytes
    if large or work.flops > MEASURED_FLOPS or math.prod(config.model.mesh.shape) > 1:
        fast = speed()
        how = f"computed from {work.flops:.2g} operations at {ASSUMED_UTILISATION:.0%} of {fast.source}"
        return Cost(peak(phases(config, arch, longest)), work.flops / (ASSUMED_UTILISATION * fast.flops), how)
    plan = StepPlan.from_config(config, examples, pad_id=pad_id)
    positions = sum(len(example.tokens) - 1 for example in examples)
    repeats = math.ceil(plan.rows_per_step * config.model.max_length / positions)
    stack = stack_batches(replace(plan, examples=examples * repeats).epoch(0)[0])
    update = update_of(config, arch, longest)
    optimizer = make_optimizer(config.optimizer, num_steps=1)
    step = step_of(update, arch, optimizer)
    weights = partial(_random_weights, update, optimizer)
    program = analyse(step.compile(*abstract_weights(arch, optimizer, update.lora, update.dtype), stack))
    return Cost(program.peak, _time(step, jax.jit(weights)(jax.random.key(0)), stack), "measured")


def _random_weights(update: Update, optimizer: Optimizer, key: jax.Array) -> tuple[Any, Any]:
    params = init_params(key, update.arch)
    if update.lora is None:
        return init_state(params, optimizer), None
    return init_state(init_lora(key, update.arch, update.lora), optimizer), in_dtype(params, update.dtype)


def _time(step: TrainStep, weights: tuple[Any, Any], stack: Stack) -> float:
    """Seconds of the second step; the first warms caches."""
    state, frozen = weights
    state, metrics = step(state, frozen, stack)
    jax.block_until_ready(metrics)
    began = time.monotonic()
    _, metrics = step(state, frozen, stack)
    jax.block_until_ready(metrics)
    return time.monotonic() - began


def _guess_longest(config: SftConfig, shown: list[Example], rows: TrainingData) -> int:
    """Positions of the longest example, if every row had as many tokens a character as those shown."""
    chars = {row.id: sum(len(message.content) for message in row.messages) for row in rows.rows}
    tokens_per_char = max(len(example.tokens) / chars[example.trace_id] for example in shown)
    return min(config.model.max_length, math.ceil(tokens_per_char * max(chars.values())))


def guess_steps(config: SftConfig, shown: list[Example], num_rows: float) -> int:
    """Steps of all epochs, if every row were as long as those shown and rows packed without a gap."""
    mean = sum(len(example.tokens) - 1 for example in shown) / len(shown)
    packed = num_rows * mean / config.model.max_length if config.model.packing else num_rows
    training = config.training
    per_epoch = math.ceil(packed / (training.batch_size * training.gradient_accumulation_steps))
    return max(1, math.ceil(per_epoch * training.num_epochs))


def _rows_told(rows: TrainingData, eval_rows: TrainingData | None) -> str:
    held_out = "" if eval_rows is None else f", {len(eval_rows.rows):,} to evaluate on"
    mix = "".join(f", {file.path} {file.num_rows:,} × {file.weight:g}" for file in rows.files)
    return f"{len(rows.rows):,} to train on (sha256 {rows.facts['rows_hash'][:12]}…){mix}{held_out}"


def _steps_told(config: SftConfig, num_steps: int) -> str:
    training = config.training
    about = "" if training.num_steps else f"about, for {training.num_epochs:g} epochs: "
    rows = f"{training.batch_size} × {training.gradient_accumulation_steps} rows of {config.model.max_length} tokens"
    return f"{about}{num_steps:,} of {rows}"


def _fits(config: SftConfig, arch: Arch, needed: int) -> str:
    """Nothing where there is room; else how much there is, and the change to make."""
    limit = room()
    if limit is None or needed <= limit.num_bytes:
        return ", as compiled; the program itself comes on top"
    change = first_change(config, arch, limit)
    advice = "no change of settings fits" if change is None else f"this fits: {change.words}"
    return f", over the {told_bytes(limit.num_bytes)} {limit.source}; {advice}"
