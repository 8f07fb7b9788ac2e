"""The three ways of distillation as work for a run: what decides each, what it needs, and the steps it takes."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tracetune.app.backend_choice import backend_facts, load_base, model_facts
from tracetune.app.distill_prompts import read_prompts
from tracetune.app.distill_students import Opened, open_backend, open_student
from tracetune.app.manifest import describe_run
from tracetune.app.row_choice import counted
from tracetune.app.run_session import Work
from tracetune.app.sft import Prepared, check_service, prepare
from tracetune.app.teacher_answers import teacher_rows
from tracetune.app.teacher_scores import TeacherScores
from tracetune.app.teachers import check_teacher
from tracetune.app.tinker_bill import estimate, student_tokens
from tracetune.app.training_data import TrainingData, read_eval_rows, read_training_data
from tracetune.backends.protocol import Backend
from tracetune.config.distill import distill_mapping, to_yaml
from tracetune.config.distill_schema import DistillConfig
from tracetune.core.durable import write_durably
from tracetune.core.errors import InputError
from tracetune.core.values import Batch, Example
from tracetune.data.render import TrainingRow, render_prompt
from tracetune.data.rows import read_training_rows
from tracetune.models.model import Model
from tracetune.models.served import ServedModel, num_tokens
from tracetune.train.distill import Judge, Taught, judged_by
from tracetune.train.info import Position, StepInfo
from tracetune.train.on_policy import Learn, OnPolicy, Sampler, distill_on_policy, learn_exactly, learn_sampled
from tracetune.train.prompts import Prompt, PromptStream
from tracetune.train.sft import train_sft

Say = Callable[[str], None]
# What a sequence run learns from, so that it goes on with the same rows whatever becomes of the teacher.
ROWS_FILE = "teacher_rows.jsonl"


class Asked(NamedTuple):
    """What of the data a command named."""

    data: Path | None
    dataset: str | None
    max_samples: int | None


class Method(Protocol):
    """One way. It reads its data when it is made, its model when it is prepared."""

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides the run, for its manifest."""
        ...

    @property
    def asked(self) -> int:
        """How much the teacher was asked for before training."""
        ...

    def prepare(self, notes: list[str]) -> None:
        """Load the model; nothing is written."""
        ...

    def work(self, folder: Path, say: Say) -> Work:
        """What a session of the run does, in the run's folder."""
        ...


class _Sequence:
    """Supervised training on the teacher's own answers."""

    def __init__(self, opened: Opened, asked: Asked, folder: Path) -> None:
        self._opened = opened
        config, self.asked, self._told = opened.config, 0, "learns from the answers that this run began with"
        prompts = read_prompts(config, **asked._asdict(), home=opened.home)
        # Before anything is paid for.
        self._eval_data = read_eval_rows(config, TrainingData((), prompts.facts))
        kept = folder / ROWS_FILE
        if kept.is_file():
            rows = tuple(read_training_rows(kept))
        else:
            answers = teacher_rows(
                opened.teacher, prompts.rows, config.teacher, seed=config.training.seed, home=opened.home
            )
            rows, self.asked, self._told = answers.rows, answers.asked, answers.told
        self._data = TrainingData(rows, {**prompts.facts, **counted(rows), "prompts_hash": prompts.facts["rows_hash"]})
        self.inputs = _describe(opened, self._data, self._eval_data, asked)

    def prepare(self, notes: list[str]) -> None:
        notes.append(self._told)
        self._prepared = _prepared(self._opened, self._data, self._eval_data, notes)

    def work(self, folder: Path, say: Say) -> Work:
        del say
        write_durably(folder / ROWS_FILE, "".join(map(_row_line, self._data.rows)).encode("utf-8", "replace"))
        prepared = self._prepared

        def steps(backend: Backend, start: Position) -> Iterator[StepInfo]:
            return train_sft(
                backend,
                prepared.plan.epoch,
                num_steps=prepared.num_steps,
                start=start,
                eval_batches=prepared.eval_batches,
                eval_every=self._opened.config.training.eval_every,
            )

        return _work(self._opened, prepared, partial(open_backend, self._opened, prepared), steps)


class _Logit:
    """The teacher's log-probs on the rows' responses."""

    def __init__(self, opened: Opened, asked: Asked, folder: Path) -> None:
        del folder
        self._opened, self._scores = opened, list[TeacherScores]()
        self._data = read_training_data(opened.config, **asked._asdict(), home=opened.home)
        self._eval_data = read_eval_rows(opened.config, self._data)
        self.inputs = _describe(opened, self._data, self._eval_data, asked)

    @property
    def asked(self) -> int:
        return sum(scores.asked for scores in self._scores)

    def prepare(self, notes: list[str]) -> None:
        self._prepared = _prepared(self._opened, self._data, self._eval_data, notes)
        model = self._prepared.model
        check_teacher(self._opened.config, self._opened.teacher.tokenizer, model.tokenizer)
        self._k = min(self._opened.config.teacher.top_k, num_tokens(model))

    def work(self, folder: Path, say: Say) -> Work:
        del folder
        prepared, opened = self._prepared, self._opened
        taught = Taught(plan=prepared.plan, judge=self._judge(prepared.plan.examples, say), k=self._k)

        def steps(backend: Backend, start: Position) -> Iterator[StepInfo]:
            return train_sft(
                backend,
                taught.epoch,
                num_steps=prepared.num_steps,
                start=start,
                eval_batches=self._eval_batches(say),
                eval_every=opened.config.training.eval_every,
            )

        return _work(opened, prepared, partial(open_backend, opened, prepared, distils=True), steps)

    def _eval_batches(self, say: Say) -> Sequence[Batch]:
        held_out = self._prepared.held_out
        if held_out is None:
            return ()
        steps = Taught(plan=held_out, judge=self._judge(held_out.examples, say), k=self._k).epoch(0)
        return [batch for index in range(len(steps)) for batch in steps[index]]

    def _judge(self, examples: Sequence[Example], say: Say) -> Judge:
        """From what is kept on disk, which is filled first; or asked for step by step."""
        config, teacher = self._opened.config, self._opened.teacher
        temperature = config.distillation.temperature
        if not config.teacher.cache:
            return judged_by(teacher, examples, self._k, temperature=temperature)
        scores = TeacherScores(teacher, examples, k=self._k, temperature=temperature, home=self._opened.home)
        scores.fill(say)
        self._scores.append(scores)
        return scores.judge


class _OnPolicy:
    """The teacher's judgement of what the student says."""

    def __init__(self, opened: Opened, asked: Asked, folder: Path) -> None:
        del folder
        self._opened, self.asked = opened, 0
        self._rows = read_prompts(opened.config, **asked._asdict(), home=opened.home)
        data = TrainingData((), self._rows.facts)
        self.inputs = _describe(opened, data, None, asked)

    def prepare(self, notes: list[str]) -> None:
        config = self._opened.config
        model = load_base(config, mesh=self._opened.mesh)
        check_teacher(config, self._opened.teacher.tokenizer, model.tokenizer)
        self._model, self._prompts = model, self._fitting(model, notes)
        training = config.training
        self._per_step = training.batch_size * training.gradient_accumulation_steps
        epoch = math.ceil(len(self._prompts) / self._per_step)
        self._num_steps = training.num_steps or max(1, math.ceil(epoch * training.num_epochs))
        notes.append(
            f"{len(self._prompts)} prompts, {self._num_steps} steps of {self._per_step} prompts with "
            f"{config.student.num_samples} answers"
        )
        if (service := self._opened.service) is not None:
            service.check_length(self._longest + config.student.max_tokens, "a prompt with its answer")
            notes.append(estimate(service.offer.name, service.where, student_tokens(config, self._num_steps)))

    @property
    def _longest(self) -> int:
        return max(len(prompt.tokens) for prompt in self._prompts)

    def work(self, folder: Path, say: Say) -> Work:
        del folder, say
        config, model = self._opened.config, self._model
        seed = config.data.shuffle_seed if config.data.shuffle_seed is not None else config.training.seed

        def steps(student: Any, start: Position) -> Iterator[StepInfo]:
            recipe = OnPolicy(
                student=student,
                learn=self._learn(student),
                stream=PromptStream(self._prompts, seed=seed),
                num_prompts=self._per_step,
                num_samples=config.student.num_samples,
                num_steps=self._num_steps,
                seed=config.training.seed,
            )
            return distill_on_policy(recipe, start)

        described = {**_described(self._opened, model), "num_prompts": len(self._prompts)}
        return Work(
            config.training,
            to_yaml(config),
            described,
            self._num_steps,
            self._open_student,
            steps,
            self._opened.service,
        )

    def _open_student(self) -> Sampler:
        longest, num_steps = self._longest, self._num_steps
        return open_student(self._opened, self._model, num_steps=num_steps, longest_prompt=longest)

    def _learn(self, student: Any) -> Learn:
        config, teacher = self._opened.config, self._opened.teacher
        if config.teacher.top_k == 1:
            return learn_sampled(student, teacher)
        k = min(config.teacher.top_k, num_tokens(self._model))
        return learn_exactly(student, teacher, k, temperature=config.distillation.temperature)

    def _fitting(self, model: Model | ServedModel, notes: list[str]) -> list[Prompt]:
        """Prompts that leave room for an answer; others are left out with a count, or refused."""
        config = self._opened.config
        room = config.model.max_length - config.student.max_tokens
        prompts = [
            Prompt(row.problem, row.messages[-1].content, tuple(render_prompt(row.messages, model.tokenizer)))
            for row in self._rows.rows
        ]
        kept = [prompt for prompt in prompts if len(prompt.tokens) <= room]
        limit = f"{room} tokens (model.max_length less student.max_tokens)"
        if len(kept) < len(prompts) and (not config.model.drop_long or not kept):
            raise InputError(
                f"data: {len(prompts) - len(kept)} of {len(prompts)} prompts are longer than {limit}; raise "
                "model.max_length, or lower student.max_tokens"
            )
        if len(kept) < len(prompts):
            notes.append(f"left out {len(prompts) - len(kept)} prompts longer than {limit}")
        return kept


METHODS: Mapping[str, Callable[[Opened, Asked, Path], Method]] = {
    "sequence": _Sequence,
    "logit": _Logit,
    "on_policy": _OnPolicy,
}


def recipe_of(config: DistillConfig) -> str:
    """What a manifest calls a method."""
    return f"distill_{config.method}_v1"


def _describe(opened: Opened, data: TrainingData, eval_data: TrainingData | None, asked: Asked) -> dict[str, Any]:
    return describe_run(
        recipe_of(opened.config),
        distill_mapping(opened.config),
        data.facts,
        None if eval_data is None else eval_data.facts,
        max_samples=asked.max_samples,
    )


def _teacher_facts(opened: Opened) -> dict[str, str]:
    return {"model": opened.config.teacher.model, "identity": opened.teacher.identity}


def _described(opened: Opened, model: Model | ServedModel) -> dict[str, Any]:
    return {**model_facts(model), **backend_facts(opened.config), "teacher": _teacher_facts(opened)}


def _work(
    opened: Opened,
    prepared: Prepared,
    open_backend: Callable[[], Backend],
    steps: Callable[[Any, Position], Iterator[StepInfo]],
) -> Work:
    described = {**_described(opened, prepared.model), "num_examples": len(prepared.plan.examples)}
    return Work(
        opened.config.training,
        to_yaml(opened.config),
        described,
        prepared.num_steps,
        open_backend,
        steps,
        opened.service,
    )


def _prepared(opened: Opened, data: TrainingData, eval_data: TrainingData | None, notes: list[str]) -> Prepared:
    """The student and its rows; what a service's bill may come to is told in `notes`."""
    prepared = prepare(opened.config, data, eval_data, notes, mesh=opened.mesh)
    notes += check_service(opened.service, opened.config, prepared)
    return prepared


def _row_line(row: TrainingRow) -> str:
    turns = [{"role": message.role, "content": message.content} for message in row.messages]
    return json.dumps({"id": row.id, "messages": turns}, ensure_ascii=False) + "\n"
