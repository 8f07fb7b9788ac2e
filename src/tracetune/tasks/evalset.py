"""Eval-set files: one JSON object a line, `{id, prompt, expected_answer, category?, difficulty?, meta?}`.

GSM8K's `{question, answer}` rows are read too. A line that is not exactly that is refused by file and line.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracetune.core.durable import write_durably
from tracetune.core.errors import InputError
from tracetune.core.values import Problem
from tracetune.tasks.gsm8k import gsm8k_problem
from tracetune.tasks.problem_rows import read_problems, text_field

FIELDS = ("id", "prompt", "expected_answer", "category", "difficulty", "meta")


def read_evalset(path: Path) -> tuple[Problem, ...]:
    """Every problem of the file in its order.

    Raises NotFound when there is no such file, InputError (file:line) for a bad line, an id or GSM8K question
    that came before, and a file without problems.
    """
    return read_problems(path, _problem)


def parse_evalset(rows: Sequence[Any], where: str) -> tuple[Problem, ...]:
    """The problems of rows that are in memory already. Raises InputError (`where[index]: …`) as read_evalset does."""
    problems: dict[str, Problem] = {}
    for index, row in enumerate(rows):
        place = f"{where}[{index}]"
        if not isinstance(row, Mapping):
            raise InputError(f"{place}: must be a JSON object, got {type(row).__name__}")
        problem = _problem(row, place)
        if problem.id in problems:
            raise InputError(f"{place}: id {problem.id!r} came before; ids must be unique")
        problems[problem.id] = problem
    if not problems:
        raise InputError(f"{where}: holds no problem; an eval set needs at least one")
    return tuple(problems.values())


def write_evalset(problems: Sequence[Problem], path: Path) -> None:
    """Write what read_evalset reads back equal. Raises InputError for ids that repeat, StorageError."""
    repeated = [name for name, count in Counter(problem.id for problem in problems).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: id {repeated[0]!r} repeats; ids must be unique")
    if not problems:
        raise InputError(f"{path}: no problems to write; an eval set needs at least one")
    text = "".join(json.dumps(_row(problem), ensure_ascii=False, allow_nan=False) + "\n" for problem in problems)
    write_durably(path, text.encode())


def _problem(row: Mapping[str, Any], where: str) -> Problem:
    if set(row) == {"question", "answer"}:
        return gsm8k_problem(row, where)
    unknown = sorted(set(row) - set(FIELDS))
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; a line has {', '.join(FIELDS)}")
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise InputError(f"{where}: meta must be an object, got {meta!r}")
    return Problem(
        id=text_field(row, "id", where),
        prompt=text_field(row, "prompt", where),
        answer=text_field(row, "expected_answer", where),
        category=_optional_text(row, "category", where),
        difficulty=_optional_text(row, "difficulty", where),
        meta=meta,
    )


def _optional_text(row: Mapping[str, Any], field: str, where: str) -> str | None:
    return None if row.get(field) is None else text_field(row, field, where)


def _row(problem: Problem) -> dict[str, Any]:
    row = {
        "id": problem.id,
        "prompt": problem.prompt,
        "expected_answer": problem.answer,
        "category": problem.category,
        "difficulty": problem.difficulty,
        "meta": dict(problem.meta) or None,
    }
    return {field: value for field, value in row.items() if value is not None}
