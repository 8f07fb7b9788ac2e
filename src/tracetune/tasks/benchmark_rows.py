"""A benchmark's own files: one JSON object a line, of mathematics, tutoring or safety.

`{id, prompt, expected_answer, category?, difficulty?, grade?, topic_tags?}` is mathematics; the same with
`"evaluation": "tutor"` is a student's turn whose answer must not be given away; `{id, prompt, should_refuse, category?,
expected_answer?}` is safety; there any other field is refused. A row to train on (GSM8K's `{question, answer}`,
`{prompt, response}`, a trace, as they come or as `tracetune tag` and `split` leave them) is mathematics too: its last
answer is the expected one.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracetune.core.benchmark import PARTS, BenchmarkItem, Part
from tracetune.core.errors import InputError
from tracetune.core.strict_json import parse_json
from tracetune.core.values import Problem
from tracetune.data.records import read_records
from tracetune.tasks.gsm8k import gsm8k_problem
from tracetune.tasks.problem_rows import text_field
from tracetune.tasks.question_rows import row_to_problem

FIELDS = ("id", "prompt", "expected_answer", "category", "difficulty", "grade", "topic_tags", "should_refuse")
OTHER_FIELDS = ("evaluation", "meta")
# A row with one of these is a row to train on.
TRAINING_FIELDS = ("trace_version", "response", "messages", "answer")
MAX_GRADE = 12


def read_items(path: Path, dataset: str) -> tuple[BenchmarkItem, ...]:
    """Every item of a file in its order, its id behind the name of the set; the same item again counts once.

    Raises NotFound, InputError (file:line).
    """
    items: dict[str, BenchmarkItem] = {}
    for where, row in _objects(path):
        item = parse_item(row, dataset, where)
        if items.get(item.id, item) != item:
            raise InputError(
                f"{where}: id {item.id.partition('/')[2]!r} came before with other content; ids must be unique"
            )
        items[item.id] = item
    if not items:
        raise InputError(f"{path}: holds no item; a benchmark set needs at least one line")
    return tuple(items.values())


def parse_item(row: Mapping[str, Any], dataset: str, where: str) -> BenchmarkItem:
    """One row. Raises InputError naming `where` and the field."""
    if set(row) == {"question", "answer"}:
        return item_of(gsm8k_problem(row, where), "math", dataset)
    if _is_training_row(row):
        return item_of(row_to_problem(row, where), "math", dataset)
    unknown = sorted(set(row) - {*FIELDS, *OTHER_FIELDS})
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; a line has {', '.join((*FIELDS, *OTHER_FIELDS))}")
    part = _part(row, where)
    needs_answer = part != "safety"
    return BenchmarkItem(
        id=f"{dataset}/{text_field(row, 'id', where)}",
        part=part,
        dataset=dataset,
        prompt=text_field(row, "prompt", where),
        expected_answer=text_field(row, "expected_answer", where)
        if needs_answer or row.get("expected_answer") is not None
        else "",
        category=_optional(row, "category", where),
        difficulty=_optional(row, "difficulty", where),
        grade=_grade(row, where),
        topics=_topics(row, where),
        should_refuse=row.get("should_refuse"),
    )


def item_of(problem: Problem, part: Part, dataset: str) -> BenchmarkItem:
    """A problem as an item; `grade` and `topic_tags` come from its meta."""
    return BenchmarkItem(
        id=f"{dataset}/{problem.id}",
        part=part,
        dataset=dataset,
        prompt=problem.prompt,
        expected_answer=problem.answer,
        category=problem.category,
        difficulty=problem.difficulty,
        grade=_grade(problem.meta, problem.id),
        topics=_topics(problem.meta, problem.id),
    )


def _is_training_row(row: Mapping[str, Any]) -> bool:
    return not {"evaluation", "should_refuse"} & row.keys() and any(field in row for field in TRAINING_FIELDS)


def _objects(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for record in read_records(path):
        where = f"{path}:{record.line}"
        if record.data is None:
            raise InputError(f"{where}: the row is too large; split it")
        try:
            row = parse_json(record.data)
        except InputError as error:
            raise InputError(f"{where}: {error}; mend the row") from error
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: must be a JSON object, got {type(row).__name__}")
        yield where, row


def _part(row: Mapping[str, Any], where: str) -> Part:
    default = "safety" if "should_refuse" in row else "math"
    part = row.get("evaluation", default)
    if part not in PARTS:
        raise InputError(f"{where}: evaluation must be math, tutor or safety, got {part!r:.40}")
    if (part == "safety") != isinstance(row.get("should_refuse"), bool):
        raise InputError(
            f"{where}: should_refuse must be true or false on safety rows and stand on no other, got "
            f"{row.get('should_refuse')!r:.40}"
        )
    if part == "tutor" and row.get("grade") is None:
        raise InputError(f"{where}: grade must be given on tutor rows, since words are judged by it")
    return part


def _optional(row: Mapping[str, Any], field: str, where: str) -> str | None:
    return None if row.get(field) is None else text_field(row, field, where)


def _grade(row: Mapping[str, Any], where: str) -> int | None:
    """0 is kindergarten."""
    grade = row.get("grade")
    if grade is None:
        return None
    text = "0" if grade == "K" else str(grade)
    if isinstance(grade, bool) or not text.isascii() or not text.isdigit() or int(text) > MAX_GRADE:
        raise InputError(f"{where}: grade must be K or 1 to {MAX_GRADE}, got {grade!r:.40}")
    return int(text)


def _topics(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    tags = row.get("topic_tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise InputError(f"{where}: topic_tags must be a list of texts, got {tags!r:.80}")
    return tuple(tags)
