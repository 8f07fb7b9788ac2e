"""Training rows: one JSON object a line becomes a conversation, or is refused with its file, line and reason.

Known rows: `{prompt, response}`, `{messages}`, contract traces, GSM8K's `{question, answer}`, and the export formats
`trace`, `tunix_sft` and `training_example`. A row that could be read in two ways is refused.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracetune.core.errors import InputError
from tracetune.core.labels import read_labels
from tracetune.core.strict_json import parse_json
from tracetune.core.values import Message
from tracetune.data.formats import row_to_trace
from tracetune.data.records import MAX_RECORD_BYTES, Record, read_records
from tracetune.data.render import TrainingRow, trace_messages
from tracetune.models.templates import check_turns

# The field that says what kind of row it is; a row has exactly one of them.
KIND_FIELDS = ("messages", "response", "prompts", "trace_version", "question")
ROLES = ("system", "user", "assistant")
TUNIX = re.compile(
    r"<start_of_turn>user\n(?P<prompt>.*)<end_of_turn>\n<start_of_turn>model\n(?P<answer>.*)<end_of_turn>\n?",
    re.DOTALL,
)
TURN_MARK = re.compile(r"<(?:start|end)_of_turn>")


def read_training_rows(path: Path, *, system_instruction: str | None = None) -> Iterator[TrainingRow]:
    """Rows of a JSONL file or JSON array, in order; a row without an id is called `file:line`.

    `system_instruction` goes before conversations without a system message of their own. Raises NotFound for a
    missing file, InputError (`file:line: …`) for a bad row and for a file without rows.
    """
    is_empty = True
    for record in read_records(path):
        is_empty = False
        where = f"{path}:{record.line}"
        row = parse_training_row(_value(record, where), where, default_id=f"{path.name}:{record.line}")
        yield _with_system(row, system_instruction)
    if is_empty:
        raise InputError(f"{path}: has no rows; write one JSON object a line")


def parse_training_row(value: Any, where: str, *, default_id: str | None = None) -> TrainingRow:
    """One row; its id is its own `id`, else `default_id`, else `where`. Raises InputError naming `where`."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: a row must be a JSON object, got {type(value).__name__}")
    own = value.get("id")
    if own is not None and not isinstance(own, str | int):
        raise InputError(f"{where}: id must be text or a whole number, got {own!r}")
    name = default_id or where if own is None else str(own)
    return TrainingRow(name, _messages(value, where), read_labels(value, where))


def _messages(row: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    """The conversation of a row of any known kind."""
    known = [field for field in KIND_FIELDS if field in row]
    if len(known) != 1:
        problem = f"holds both {' and '.join(known)}" if known else f"is of no known kind, has {sorted(row)[:8]}"
        raise InputError(
            f"{where}: the row {problem}; write prompt and response, messages, a trace, or a row that export wrote"
        )
    if known == ["messages"]:
        return _conversation(row["messages"], where)
    if known == ["response"]:
        return (Message("user", _text(row, "prompt", where)), Message("assistant", _text(row, "response", where)))
    if known == ["prompts"] and "trace_steps" not in row:
        return _tunix_messages(_text(row, "prompts", where), where)
    return _trace_messages(row, where)


def _trace_messages(row: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    """Kinds that are read as a trace first; a stored trace's id and time are not part of it."""
    stored = "trace_version" in row
    fields = {key: row[key] for key in row if not (stored and key in ("id", "created_at"))}
    try:
        return trace_messages(row_to_trace(fields))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _tunix_messages(prompts: str, where: str) -> tuple[Message, ...]:
    """The two turns of a `tunix_sft` string; a system instruction in it stays in front of the prompt."""
    match = TUNIX.fullmatch(prompts)
    if match is None:
        raise InputError(f"{where}: prompts must be a user's and a model's turn in Gemma's marks, got {prompts[:80]!r}")
    if len(TURN_MARK.findall(prompts)) != 4:
        raise InputError(
            f"{where}: prompts is ambiguous, a text in it holds a turn mark; export the trace in another format"
        )
    turns = {"prompt": match["prompt"], "answer": match["answer"]}
    return (Message("user", _text(turns, "prompt", where)), Message("assistant", _text(turns, "answer", where)))


def _conversation(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: messages must be a list of at least one message, got {value!r:.80}")
    messages = tuple(_message(item, f"{where}: messages[{index}]") for index, item in enumerate(value))
    check_turns(messages, answered=True, where=f"{where}: messages")
    return messages


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be an object with role and content, got {value!r:.80}")
    unknown = sorted(set(value) - {"role", "content"})
    if unknown:
        raise InputError(f"{where} has the unknown field {unknown[0]!r}; only role and content are trained on")
    role = value.get("role")
    if role not in ROLES:
        raise InputError(f"{where}: role must be one of {', '.join(ROLES)}, got {role!r}")
    return Message(role, _text(value, "content", where))


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    text = row.get(field)
    if not isinstance(text, str) or not text.strip():
        got = "nothing" if field not in row else "blank text" if isinstance(text, str) else f"{text!r:.80}"
        raise InputError(f"{where}: {field} must be text, got {got}")
    return text


def _with_system(row: TrainingRow, instruction: str | None) -> TrainingRow:
    if not instruction or row.messages[0].role == "system":
        return row
    return row._replace(messages=(Message("system", instruction), *row.messages))


def _value(record: Record, where: str) -> Any:
    if record.data is None:
        raise InputError(f"{where}: a row has at most {MAX_RECORD_BYTES // 2**20} MiB; split it")
    try:
        return parse_json(record.data)
    except InputError as error:
        raise InputError(f"{where}: {error}; repair or remove the row") from error
