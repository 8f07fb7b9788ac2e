"""The folder of a benchmark: what was asked of whom, and every answer, written as it comes so that none is asked twice.

`request.json` says who answers and how; a folder takes answers of one request only. `answers.jsonl` has one row an
answer: the item, what came back, and, once all are there, the verdicts.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

from tracetune.core.benchmark import BenchmarkAnswer, BenchmarkItem
from tracetune.core.durable import write_durably
from tracetune.core.errors import Conflict, InputError, NotFound, StorageError
from tracetune.core.strict_json import parse_json
from tracetune.data.records import read_records
from tracetune.evals.benchmark import judge

REQUEST, ANSWERS, RESULTS, COMPARISON = "request.json", "answers.jsonl", "benchmark_results.json", "comparison.json"
# Answers to items that the last benchmark did not ask about, for one that does; and the page of a comparison's flips.
OTHERS, FLIPS = "other_answers.jsonl", "comparison.html"
LOCK = ".benchmark.lock"
_ITEM_FIELDS = tuple(field.name for field in fields(BenchmarkItem))
_ANSWER_FIELDS = tuple(field.name for field in fields(BenchmarkAnswer) if field.name != "item")


class Append(Protocol):
    """Keeps one answer; it is on its way to the disk when this returns."""

    def __call__(self, answer: BenchmarkAnswer, /) -> None: ...


def claim_folder(folder: Path, request: Mapping[str, Any]) -> None:
    """Make the folder this request's own. Raises Conflict when it holds answers to another one."""
    path = folder / REQUEST
    if path.is_file():
        known = read_json(path)
        differing = [key for key in request if known.get(key) != request[key]]
        if differing:
            told = ", ".join(f"{key} was {known.get(key)!r:.80}, is {request[key]!r:.80}" for key in differing)
            raise Conflict(f"{folder}: holds answers to another benchmark ({told}); choose another --output-dir")
        return
    if (folder / ANSWERS).is_file():
        raise Conflict(f"{folder}: holds {ANSWERS} without {REQUEST}; choose another --output-dir")
    write_json(path, request)


def asked_otherwise(folder: Path, **facts: Any) -> bool:
    """Whether the folder's answers were asked for with other values than these."""
    if not (folder / REQUEST).is_file():
        return False
    known = read_json(folder / REQUEST)
    return any(name in known and known[name] != value for name, value in facts.items())


def start_anew(folder: Path) -> None:
    """Forget all answers of a folder, and what was made of them."""
    forget_comparison(folder)
    for name in (RESULTS, OTHERS, ANSWERS, REQUEST):
        (folder / name).unlink(missing_ok=True)


def forget_comparison(folder: Path) -> None:
    """A comparison of earlier results must not stand beside new ones."""
    for name in (COMPARISON, FLIPS):
        (folder / name).unlink(missing_ok=True)


def kept_answers(folder: Path) -> dict[str, BenchmarkAnswer]:
    """Answers that were obtained, by item id; failed ones are asked again. A last line torn by a kill is none."""
    paths = [folder / name for name in (OTHERS, ANSWERS) if (folder / name).is_file()]
    answers = (_answer(row, where) for path in paths for where, row in rows_of(path))
    return {answer.item.id: answer for answer in answers if answer.response is not None}


@contextmanager
def appending(folder: Path) -> Iterator[Append]:
    """Answers are added to the folder's file one by one."""
    with appending_rows(folder / ANSWERS) as put:
        yield lambda answer: put(_row(answer))


@contextmanager
def appending_rows(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Rows are added one by one, each in a single write; what a kill tore off is cut first. Raises StorageError."""
    try:
        _cut_torn_end(path)
        with path.open("ab", buffering=0) as file:
            yield lambda row: _put(file.fileno(), _line(row))
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path}: cannot be written ({error.strerror}); free space and run again") from error


def rows_of(path: Path, *, torn_end: bool = True) -> Iterator[tuple[str, Any]]:
    """`file:line` and value of every row, but for a last one without its newline where a kill may have torn it.

    Raises InputError for a row that is not JSON.
    """
    for record in read_records(path):
        if torn_end and not record.closed:
            return
        where = f"{path}:{record.line}"
        try:
            yield where, parse_json(record.data or b"")
        except InputError as error:
            raise InputError(f"{where}: {error}; mend the row, or choose another --output-dir") from error


def write_answers(folder: Path, answers: Sequence[BenchmarkAnswer]) -> None:
    """The finished file: one row an item, in the order of the items, with its verdicts. Other answers are set aside."""
    asked = {answer.item.id for answer in answers}
    others = [answer for name, answer in kept_answers(folder).items() if name not in asked]
    if others:
        write_durably(folder / OTHERS, b"".join(_line(_row(answer)) for answer in others))
    write_durably(folder / ANSWERS, b"".join(_line(_row(answer) | {"verdicts": judge(answer)}) for answer in answers))


def read_answers(path: Path) -> tuple[BenchmarkAnswer, ...]:
    """Every answer of a finished file. Raises NotFound, and InputError by file and line."""
    if not path.is_file():
        raise NotFound(f"{path}: no such answers; a benchmark writes them beside {RESULTS}")
    answers = {
        answer.item.id: answer for answer in (_answer(row, where) for where, row in rows_of(path, torn_end=False))
    }
    if not answers:
        raise InputError(f"{path}: holds no answer; run the benchmark first")
    return tuple(answers.values())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of ours. Raises NotFound, InputError."""
    if not path.is_file():
        raise NotFound(f"{path}: no such file; give the {RESULTS} of a finished benchmark, or its folder")
    try:
        value = parse_json(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}; run the benchmark again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a JSON object, got {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Durably, readable by a person."""
    write_durably(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _put(descriptor: int, line: bytes) -> None:
    """A whole line in one write, so that nobody sees half of one but after a kill of the machine."""
    if os.write(descriptor, line) != len(line):
        raise OSError(0, "only a part was written")


def _row(answer: BenchmarkAnswer) -> dict[str, Any]:
    return {**asdict(answer.item), **{name: getattr(answer, name) for name in _ANSWER_FIELDS}}


def _line(row: Mapping[str, Any]) -> bytes:
    # ASCII only: many readers of one row a line break lines at U+2028.
    return (json.dumps(row, allow_nan=False) + "\n").encode()


def _answer(row: Any, where: str) -> BenchmarkAnswer:
    if not isinstance(row, Mapping) or not {*_ITEM_FIELDS, "response"} <= set(row):
        raise InputError(f"{where}: is no answer of a benchmark; give the {ANSWERS} that one wrote")
    item = BenchmarkItem(**{**{name: row[name] for name in _ITEM_FIELDS}, "topics": tuple(row["topics"])})
    return BenchmarkAnswer(item=item, **{name: row[name] for name in _ANSWER_FIELDS if name in row})


def _cut_torn_end(path: Path) -> None:
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
