"""Prompts that a teacher or a student answers: rows with or without a response, and their gold answers where they have
one.

The gold answer is the row's `expected_answer` or `answer`, a trace's final answer, or what its response states.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.app.training_data import shape_row
from tracetune.config.distill_schema import DistillConfig
from tracetune.core.errors import InputError
from tracetune.core.ids import canonical_json
from tracetune.core.labels import Labels, Wanted, labels_of
from tracetune.core.strict_json import parse_json
from tracetune.core.values import Message, Problem
from tracetune.data.formats import GOLD_MARK
from tracetune.data.records import read_records
from tracetune.data.render import TrainingRow
from tracetune.data.rows import parse_training_row
from tracetune.tasks.question_rows import ANSWERS, QUESTIONS, row_to_problem
from tracetune.tasks.stated_gold import stated_gold

# Any of them makes a row more than a prompt alone.
_MORE_THAN_ASKED = (
    *("messages", "response", "prompts", *ANSWERS),
    *("final_answer", "trace_version", "steps", "trace_steps"),
)


class PromptRow(NamedTuple):
    """A conversation that ends with the user's turn; `gold` is blank where no answer is known."""

    id: str
    messages: tuple[Message, ...]
    gold: str

    @property
    def problem(self) -> Problem:
        """As recipes know it."""
        return Problem(self.id, self.messages[-1].content, self.gold)


class PromptRows(NamedTuple):
    """Prompts, templates applied. `facts` go into the manifest, with the hash of conversations and gold answers."""

    rows: tuple[PromptRow, ...]
    facts: dict[str, Any]


class _Asked(NamedTuple):
    """A row before its template."""

    id: str
    messages: tuple[Message, ...]
    labels: Labels
    gold: str


def read_prompts(
    config: DistillConfig, *, data: Path | None, dataset: str | None, max_samples: int | None, home: Path | None
) -> PromptRows:
    """The prompts that `--data`, `--dataset` or `data.train_file` names, each conversation once.

    Raises InputError when none or two are named, or a row is bad; NotFound when it does not exist.
    """
    if data is not None and dataset is not None:
        raise InputError("--data and --dataset: only one can be learnt from, got both; leave one out")
    path = data or (Path(config.data.train_file) if config.data.train_file else None)
    if dataset is not None:
        asked, facts = _from_dataset(dataset, home)
    elif path is not None:
        asked, facts = _from_file(path), {"kind": "file", "path": str(path)}
    else:
        raise InputError("data: no prompts; give --data FILE, --dataset KEY, or data.train_file in the config")
    wanted = Wanted(config.data.grades, config.data.topics)
    shaped = (_shape(row, config) for row in asked if wanted.takes(row.labels))
    rows = {row.messages: row for row in islice(shaped, max_samples)}
    if not rows:
        raise InputError(f"{path or dataset}: has no prompt that is asked for (data.grades, data.topics)")
    digest = hashlib.sha256()
    for row in rows.values():
        digest.update(canonical_json([[[one.role, one.content] for one in row.messages], row.gold]) + b"\n")
    return PromptRows(tuple(rows.values()), facts | {"rows": len(rows), "rows_hash": digest.hexdigest()})


def _from_file(path: Path) -> Iterator[_Asked]:
    for record in read_records(path):
        where = f"{path}:{record.line}"
        if record.data is None:
            raise InputError(f"{where}: the row is too large; split it")
        try:
            value = parse_json(record.data)
        except InputError as error:
            raise InputError(f"{where}: {error}; repair or remove the row") from error
        yield _read(value, where, f"{path.name}:{record.line}")


def _read(value: Any, where: str, default_id: str) -> _Asked:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: a row must be a JSON object, got {type(value).__name__}")
    own = value.get("id")
    name = str(own) if isinstance(own, str | int) else default_id
    if (field := _lone_question(value)) is not None:
        return _Asked(name, (Message("user", _text(value[field], f"{where}: {field}")),), labels_of(value), "")
    if "messages" not in value and "response" not in value:
        problem = row_to_problem(value, where)
        return _Asked(name, (Message("user", problem.prompt),), labels_of(value), problem.answer)
    ends_open = "messages" in value and _ends_with_user(value["messages"])
    # A conversation without an answer is read as if it had one.
    whole = {**value, "messages": [*value["messages"], {"role": "assistant", "content": "-"}]} if ends_open else value
    row = parse_training_row(whole, where, default_id=default_id)
    answer = "" if ends_open else row.messages[-1].content
    return _Asked(name, row.messages[:-1], row.labels, _gold(value, answer))


def _lone_question(row: Mapping[str, Any]) -> str | None:
    """The field of a row that asks and has no answer; None of any other row."""
    asking = [field for field in QUESTIONS if field in row]
    if len(asking) != 1 or any(field in row for field in _MORE_THAN_ASKED):
        return None
    return asking[0]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where} must be text, got {value!r:.80}; mend or remove the row")
    return value


def _ends_with_user(messages: Any) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and last.get("role") == "user"


def _gold(row: Mapping[str, Any], response: str) -> str:
    """Of a field what stands behind a last `####`, or all; else what the response states."""
    for field in ANSWERS:
        if isinstance(row.get(field), str | int | float):
            return str(row[field]).rpartition(GOLD_MARK)[2].strip()
    return stated_gold(response)


def _from_dataset(key: str, home: Path | None) -> tuple[Iterable[_Asked], dict[str, Any]]:
    from tracetune.app.datasets import open_dataset

    frozen = open_dataset(key, home)
    facts = {
        "kind": "dataset",
        "dataset_key": key,
        "build_id": frozen.manifest.build_id,
        "content_hash": frozen.manifest.content_hash,
    }
    traces = (
        _Asked(
            row.id,
            (Message("user", row.trace.prompt),),
            labels_of(row.trace.meta or {}),
            row.trace.final_answer,
        )
        for row in frozen.iter_traces()
    )
    return traces, facts


def _shape(row: _Asked, config: DistillConfig) -> PromptRow:
    shaped = shape_row(TrainingRow(row.id, row.messages, row.labels), config)
    return PromptRow(row.id, shaped.messages, row.gold)
