"""Problems from JSONL: one row a line through a parser, every mistake named by file and line."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tracetune.core.errors import InputError, NotFound
from tracetune.core.values import Problem


def read_problems(path: Path, parse: Callable[[Mapping[str, Any], str], Problem]) -> tuple[Problem, ...]:
    """Every row of a JSONL file through `parse(row, where)`; ids are unique and there is at least one."""
    lines: dict[str, int] = {}
    problems = []
    for number, row in _rows(path):
        where = f"{path}:{number}"
        problem = parse(row, where)
        first = lines.setdefault(problem.id, number)
        if first != number:
            raise InputError(f"{where}: id {problem.id!r} is already that of line {first}; ids must be unique")
        problems.append(problem)
    if not problems:
        raise InputError(f"{path}: holds no problem; an eval set needs at least one line")
    return tuple(problems)


def text_field(row: Mapping[str, Any], field: str, where: str) -> str:
    """The text of a required field, not blank."""
    value = row.get(field)
    if not isinstance(value, str):
        got = repr(value) if field in row else "nothing"
        raise InputError(f"{where}: {field} must be text, got {got}; write it in quotes")
    if not value.strip():
        raise InputError(f"{where}: {field} must not be blank")
    return value


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers from 1 with the object of every line that is not blank."""
    if not path.is_file():
        raise NotFound(f"{path}: no such eval set; give the path of a JSONL file")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
                raise InputError(f"{path}:{number}: is not JSON in UTF-8 ({error}); repair the line") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: must be a JSON object, got {type(row).__name__}")
            yield number, row
