"""Rows of `tracetune score` and `generate`: a JSON array or JSONL file → token ids, every bad row by file and line."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.core.errors import InputError
from tracetune.core.strict_json import parse_json
from tracetune.core.values import Message
from tracetune.data.records import read_records
from tracetune.data.render import render_prompt
from tracetune.models.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")


class Row(NamedTuple):
    """One row with its place, `file:line`."""

    where: str
    fields: Mapping[str, Any]


def read_objects(path: Path) -> Iterator[Row]:
    """Every JSON object of the file. Raises NotFound, or InputError naming file and line."""
    for record in read_records(path):
        where = f"{path}:{record.line}"
        if record.data is None:
            raise InputError(f"{where}: the row is too large; split it")
        try:
            value = parse_json(record.data)
        except InputError as error:
            raise InputError(f"{where}: {error}; mend the row") from error
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: must be a JSON object, got {type(value).__name__}; write one object a row")
        yield Row(where, value)


def one_of(row: Row, names: tuple[str, ...]) -> str:
    """The one field of `names` that the row has. Raises InputError for none, several, or any other field."""
    present = [name for name in names if name in row.fields]
    unknown = sorted(set(row.fields) - set(names))
    if unknown:
        raise InputError(f"{row.where}: unknown field {unknown[0]!r}; a row has one of {', '.join(names)}")
    if len(present) != 1:
        raise InputError(
            f"{row.where}: must have exactly one of {', '.join(names)}, got {', '.join(present) or 'none'}"
        )
    return present[0]


def token_ids(row: Row) -> list[int]:
    """The row's own ids."""
    value = row.fields["token_ids"]
    whole = isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
    if not whole or not value:
        raise InputError(f"{row.where}: token_ids must be a list of whole numbers from 0, with at least one")
    return value


def text(row: Row, field: str) -> str:
    """A text field that is not empty."""
    value = row.fields[field]
    if not isinstance(value, str) or not value:
        raise InputError(f"{row.where}: {field} must be text of at least one character, got {value!r:.80}")
    return value


def messages(row: Row) -> tuple[Message, ...]:
    """The row's conversation, each message exactly `{role, content}`."""
    value = row.fields["messages"]
    if not isinstance(value, list) or not value:
        raise InputError(f"{row.where}: messages must be a list with at least one message")
    return tuple(_message(item, f"{row.where}: messages[{place}]") for place, item in enumerate(value))


def prompt_tokens(row: Row, asked: tuple[Message, ...], tokenizer: Tokenizer) -> list[int]:
    """A conversation that ends with the user's turn, ready for an answer."""
    try:
        return render_prompt(asked, tokenizer)
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from error


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping) or set(value) != {"role", "content"}:
        raise InputError(f"{where} must be an object with role and content, got {value!r:.80}")
    role, content = value["role"], value["content"]
    if role not in ROLES or not isinstance(content, str):
        raise InputError(f"{where} must have a role of {', '.join(ROLES)} and a text, got {value!r:.80}")
    return Message(role, content)
