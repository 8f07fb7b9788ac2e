"""Answers given before, as a benchmark's subject: its own answers, an evaluation's, or several models' solutions.

The last are rows `{question, ground_truth, NAME: {is_correct, solution}, …}`, as GSM8K's recorded models are; one NAME
is chosen, and what `is_correct` says is kept beside the grader's own verdict.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.benchmark_files import read_answers
from tracetune.app.rows import read_objects
from tracetune.core.benchmark import BenchmarkAnswer, BenchmarkItem
from tracetune.core.errors import InputError
from tracetune.core.ids import content_hash
from tracetune.evals.records import read_result
from tracetune.tasks.grading import grade
from tracetune.tasks.problem_rows import text_field

SHARED = ("question", "ground_truth")


class Recorded(NamedTuple):
    """Whose answers, and each with its item."""

    model: str
    answers: tuple[BenchmarkAnswer, ...]


def read_recorded(path: Path, model: str | None = None) -> Recorded:
    """Read any of the three. Raises NotFound, and InputError for a file that is none of them or lacks `model`."""
    first = next(read_objects(path), None)
    if first is None:
        raise InputError(f"{path}: holds no row; give a file of answers")
    if set(SHARED) <= set(first.fields):
        return Recorded(*_solutions(path, model, [name for name in first.fields if name not in SHARED]))
    if "trace_version" in first.fields:
        result = read_result(path, grade=grade)
        return Recorded(model or result.model, tuple(_evaluated(path)))
    return Recorded(model or path.parent.name, read_answers(path))


def _solutions(path: Path, model: str | None, models: list[str]) -> tuple[str, tuple[BenchmarkAnswer, ...]]:
    if model not in models:
        got = "none" if model is None else repr(model)
        raise InputError(f"{path}: has answers of {', '.join(models)}, got {got}; name one with --answers-of")
    answers: dict[str, BenchmarkAnswer] = {}
    for row in read_objects(path):
        answer = _solution(row.fields, model, path.stem, row.where)
        if answer.item.id in answers:
            raise InputError(f"{row.where}: this question came before; keep one row a question")
        answers[answer.item.id] = answer
    return model, tuple(answers.values())


def _solution(fields: Mapping[str, Any], model: str, dataset: str, where: str) -> BenchmarkAnswer:
    said = fields.get(model)
    if not isinstance(said, Mapping) or not isinstance(said.get("solution"), str):
        raise InputError(f"{where}: {model} must be an object with a text solution, got {said!r:.80}")
    question, truth = (text_field(fields, name, where) for name in SHARED)
    item = BenchmarkItem(
        id=f"{dataset}/{content_hash(question)[:16]}",
        part="math",
        dataset=dataset,
        prompt=question,
        # As the data set writes it: the work, then the answer behind a mark on the last line.
        expected_answer=truth.rpartition("A:")[2].strip(),
    )
    correct = said.get("is_correct")
    return BenchmarkAnswer(
        item=item, response=said["solution"], recorded_correct=correct if isinstance(correct, bool) else None
    )


def _evaluated(path: Path) -> Iterator[BenchmarkAnswer]:
    """An evaluation's rows as mathematics; one without a score failed."""
    for item in read_result(path, grade=grade).items:
        failed = item.score.correct is None
        yield BenchmarkAnswer(
            item=BenchmarkItem(
                id=f"evaluation/{item.eval_id}",
                part="math",
                dataset="evaluation",
                prompt=item.prompt,
                expected_answer=item.expected_answer,
                category=item.category,
                difficulty=item.difficulty,
            ),
            response=None if failed else item.response,
            error=item.score.reason if failed else None,
            recorded_correct=item.score.correct,
        )
