"""A rehearsal of a distillation run: all is checked but the weights; nothing is written and no teacher is asked."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tracetune.app.blueprint import blueprint
from tracetune.app.datasets import TokenView
from tracetune.app.distill import require_student
from tracetune.app.distill_prompts import read_prompts
from tracetune.app.dry_run import SHOWN_ROWS, DryRun, estimate, guess_steps, served_facts, tokenizer_of, told_bill
from tracetune.app.examples import first_examples
from tracetune.app.memory import teacher_bytes, told_bytes, with_shape
from tracetune.app.plan import told_time
from tracetune.app.runs import RunFolder, read_manifest
from tracetune.app.sft import output_folder
from tracetune.app.teachers import check_teacher
from tracetune.app.tinker_bill import student_tokens
from tracetune.app.training_data import read_training_data
from tracetune.config.distill import to_yaml
from tracetune.config.distill_schema import DistillConfig
from tracetune.core.values import Example
from tracetune.data.render import render_prompt
from tracetune.data.show import token_spans
from tracetune.models.served import served_model
from tracetune.models.tokenizer import Tokenizer


def dry_run(
    config: DistillConfig,
    *,
    data: Path | None = None,
    dataset: str | None = None,
    output: Path | None = None,
    max_samples: int | None = None,
    home: Path | None = None,
) -> DryRun:
    """Check what `run_distill` would check and estimate what the student's training would cost. Raises as it would."""
    require_student(config)
    folder = RunFolder(output_folder(config, output), config.output)
    manifest = read_manifest(folder.manifest)
    is_here = config.backend != "tinker"
    name = config.model.name
    student = tokenizer_of(blueprint(name).folder) if is_here else served_model(name).tokenizer
    notes: list[str] = []
    if config.method == "logit":
        rows = read_training_data(config, data=data, dataset=dataset, max_samples=max_samples, home=home)
        examples = first_examples(rows.rows, student, config, SHOWN_ROWS, say=notes.append)
        count, shown = rows.num_per_epoch, examples
    else:
        prompts = read_prompts(config, data=data, dataset=dataset, max_samples=max_samples, home=home)
        some = [render_prompt(row.messages, student) for row in islice(prompts.rows, SHOWN_ROWS)]
        ids = [row.id for row in prompts.rows[:SHOWN_ROWS]]
        shown = [Example(tuple(tokens), (0,) * len(tokens), name) for tokens, name in zip(some, ids, strict=True)]
        examples, count = _answered(config, shown), float(len(prompts.rows))
    facts = {
        "method": config.method,
        "teacher": _teacher_told(config, student),
        "rows": f"{count:g}",
        "notes": "; ".join(notes) or "none",
        **_cost(config, examples, count, pad_id=student.pad_id),
        "run folder": f"{folder.root} ({'new' if manifest is None else manifest['status']}); nothing was written",
    }
    views = [TokenView(example.trace_id, token_spans(example, student)) for example in shown]
    return DryRun(to_yaml(config), facts, views)


def _answered(config: DistillConfig, prompts: Sequence[Example]) -> list[Example]:
    """Prompts with answers of the greatest length, which is not known before they are given."""
    longest = config.teacher.max_tokens if config.method == "sequence" else config.student.max_tokens
    room = [max(1, min(longest, config.model.max_length - len(prompt.tokens))) for prompt in prompts]
    return [
        Example(prompt.tokens + (1,) * size, prompt.mask + (1,) * size, prompt.trace_id)
        for prompt, size in zip(prompts, room, strict=True)
    ]


def _teacher_told(config: DistillConfig, student: Tokenizer) -> str:
    """Raises InputError for a teacher whose log-probs are of other tokens than the student's."""
    teacher = config.teacher
    if not teacher.is_here:
        return f"{teacher.model} at {teacher.url or 'Tinker'}, which is not asked now"
    shape = blueprint(teacher.model)
    check_teacher(config, tokenizer_of(shape.folder), student)
    same = "" if config.method == "sequence" else ", its tokenizer and chat format are the student's"
    return f"{teacher.model}, {shape.arch.num_params:,} parameters{same}"


def _beside(config: DistillConfig) -> str:
    if not config.teacher.is_here:
        return ""
    return f", beside it {told_bytes(teacher_bytes(config.teacher.model))} of its teacher"


def _cost(config: DistillConfig, examples: Sequence[Example], count: float, *, pad_id: int) -> dict[str, str]:
    """Of the student's updates; what the teacher computes and what is sampled come on top, but a service's bill has
    both of the student's."""
    training = config.training
    if config.method == "on_policy":
        per_step = training.batch_size * training.gradient_accumulation_steps
        steps = training.num_steps or max(1, math.ceil(math.ceil(count / per_step) * training.num_epochs))
    else:
        answers = count * (config.teacher.num_samples if config.method == "sequence" else 1)
        steps = training.num_steps or guess_steps(config, list(examples), answers)
    if config.backend == "tinker":
        on_own = config.method == "on_policy"
        told = (
            told_bill(config, student_tokens(config, steps)) if on_own else served_facts(config, list(examples), steps)
        )
        return {"student": told.pop("model"), "steps": f"{steps:,}", **told}
    shaped, arch = with_shape(config)
    longest = max(len(example.tokens) - 1 for example in examples)
    cost = estimate(shaped, arch, list(examples), longest=longest, pad_id=pad_id)
    on_top = "sampling and the teacher come on top" if config.method == "on_policy" else "the teacher comes on top"
    updates = told_time(steps * cost.seconds)
    return {
        "student": f"{config.model.name}, {arch.num_params:,} parameters",
        "steps": f"{steps:,}",
        "memory": f"{cost.memory_bytes / 2**30:.2f} GiB for an update of the student{_beside(config)}",
        "time": f"about {updates} of updates: {cost.seconds:.3g} s a step, {cost.how}; {on_top}",
    }
