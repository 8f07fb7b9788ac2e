"""How often a policy is right on problems it does not train on: strictly, nearly, and in the asked format.

Where the prompts ask for an answer in tags, only what stands in them counts; elsewhere the evaluation's grader reads
the whole answer, and no format is judged.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tracetune.core.labels import grade_order, labels_of
from tracetune.core.values import Completion
from tracetune.tasks.grading import grade, is_near
from tracetune.tasks.rewards import check_answer, check_numbers, match_format_exactly
from tracetune.train.prompts import Prompt

# What `check_answer` gives for an answer that equals the gold, and for one within a tenth of it.
_EQUAL, _NEAR = 1.5, 0.5
_BY_GRADE = "validation_accuracy/grade/"


class Answerer(Protocol):
    """Whoever completes prompts: a backend in training, a loaded model after it."""

    def answer(self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int) -> Sequence[Completion]: ...


class Verdict(NamedTuple):
    """One completion judged. `near` is within 10 % of the gold, which what is correct always is; `formatted` is None
    where no format was asked for."""

    correct: bool
    near: bool
    formatted: bool | None


class Attempt(NamedTuple):
    """A prompt, what was said in one pass, and the verdict; None where the completion failed."""

    prompt: Prompt
    completion: Completion
    verdict: Verdict | None


class Validation(NamedTuple):
    """Every pass over every prompt: `passes[k][i]` is the k-th attempt at prompt i."""

    passes: tuple[tuple[Attempt, ...], ...]

    def metrics(self) -> dict[str, float]:
        """Means over prompts and passes, 0 to 1; `validation_any` counts a prompt that any pass solved. The accuracy
        is also that of each grade and topic."""
        attempts = [attempt for attempts in self.passes for attempt in attempts]
        judged = [attempt.verdict or Verdict(False, False, False) for attempt in attempts]
        formats = [bool(verdict.formatted) for verdict in judged]
        is_format_asked = all(verdict.formatted is not None for verdict in judged)
        told = {
            "validation_accuracy": _share([verdict.correct for verdict in judged]),
            "validation_partial": _share([verdict.near for verdict in judged]),
            **({"validation_format": _share(formats)} if is_format_asked else {}),
            "validation_length_mean": sum(len(attempt.completion.tokens) for attempt in attempts) / len(attempts),
        }
        if len(self.passes) > 1:
            told["validation_any"] = _share([any(solved) for solved in self.solved()])
        return told | self._by_label()

    def _by_label(self) -> dict[str, float]:
        """The accuracy on the problems of each grade and of each topic, where problems say theirs."""
        groups: dict[str, list[bool]] = defaultdict(list)
        for attempt in (attempt for attempts in self.passes for attempt in attempts):
            labels = labels_of(attempt.prompt.problem.meta)
            names = [f"grade/{labels.grade}"] if labels.grade else []
            for name in (*names, *(f"topic/{topic}" for topic in labels.topics)):
                groups[name].append(attempt.verdict is not None and attempt.verdict.correct)
        order = [f"grade/{grade}" for grade in grade_order(name[6:] for name in groups if name.startswith("grade/"))]
        order += sorted(name for name in groups if name.startswith("topic/"))
        return {f"validation_accuracy/{name}": _share(groups[name]) for name in order}

    def solved(self) -> list[tuple[bool, ...]]:
        """For each prompt, which passes were correct."""
        return [
            tuple(attempt.verdict is not None and attempt.verdict.correct for attempt in attempts)
            for attempts in zip(*self.passes, strict=True)
        ]


def validate(
    answerer: Answerer,
    prompts: Sequence[Prompt],
    *,
    seed: int,
    num_passes: int = 1,
    temperature: float = 0.0,
    tagged: bool = True,
) -> Validation:
    """Answer every prompt `num_passes` times. Pass k draws with seed + k; at temperature 0 all are alike. `tagged` says
    that the prompts ask for an answer in tags."""
    judge = _judge if tagged else _judge_by_grader
    passes = []
    for number in range(num_passes):
        said = answerer.answer(
            [prompt.tokens for prompt in prompts], temperature=temperature, seed=(seed + number) % 2**32
        )
        passes.append(tuple(judge(prompts, said)))
    return Validation(tuple(passes))


def _judge(prompts: Sequence[Prompt], said: Sequence[Completion]) -> list[Attempt]:
    texts = [completion.text for completion in said]
    asked = [prompt.text for prompt in prompts]
    golds = [prompt.problem.answer for prompt in prompts]
    formatted = match_format_exactly(asked, texts, golds)
    answers, numbers = check_answer(asked, texts, golds), check_numbers(asked, texts, golds)
    attempts = []
    for prompt, completion, form, answer, number in zip(prompts, said, formatted, answers, numbers, strict=True):
        correct = answer >= _EQUAL or number > 0
        verdict = Verdict(correct, correct or answer >= _NEAR, form > 0)
        attempts.append(Attempt(prompt, completion, None if completion.stop_reason == "error" else verdict))
    return attempts


def _judge_by_grader(prompts: Sequence[Prompt], said: Sequence[Completion]) -> list[Attempt]:
    attempts = []
    for prompt, completion in zip(prompts, said, strict=True):
        gold = prompt.problem.answer
        score = grade(completion.text, gold)
        correct = score.correct is True
        verdict = Verdict(correct, correct or is_near(score.parsed, gold), None)
        attempts.append(Attempt(prompt, completion, None if completion.stop_reason == "error" else verdict))
    return attempts


def change_told(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What the first and the last validation of a run's metrics say of each grade; None where there are no two, or no
    grades."""
    measured = [row for row in rows if "validation_accuracy" in row]
    names = [name for name in measured[0] if name.startswith(_BY_GRADE)] if len(measured) > 1 else []
    told = [
        f"{name.removeprefix(_BY_GRADE)} {measured[0][name]:.0%} → {measured[-1][name]:.0%}"
        for name in names
        if name in measured[-1]
    ]
    return f"validation by grade, first → last: {', '.join(told)}" if told else None


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that k of the samples, drawn without replacement, hold a correct one (Chen et al. 2021, eq. 1)."""
    if num_samples - num_correct < k:
        return 1.0
    missed = 1.0
    for drawn in range(k):
        missed *= (num_samples - num_correct - drawn) / (num_samples - drawn)
    return 1.0 - missed


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
