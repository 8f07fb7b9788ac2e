"""Where a run's rows come from (a JSONL file or a frozen dataset), what they are hashed to, and their tokens."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tracetune.config.schema import DataSettings, RowFormat, SftConfig
from tracetune.core.errors import InputError
from tracetune.core.ids import canonical_json
from tracetune.core.values import Example, Message
from tracetune.data.export import training_example_row
from tracetune.data.render import TrainingRow, render_rows, trace_messages
from tracetune.data.rows import parse_training_row, read_training_rows
from tracetune.models.tokenizer import Tokenizer

# What a raw row of each format has and what it lacks.
_MARKS: dict[RowFormat, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "trace": (("final_answer",), ("messages", "response")),
    "tunix_sft": (("prompts", "final_answer"), ("trace_steps",)),
    "training_example": (("prompt", "response"), ()),
    "prompt_response": (("prompt", "response"), ()),
    "messages": (("messages",), ()),
}


class TrainingData(NamedTuple):
    """Rows to train on. `facts` go into the manifest: kind, path or key, counts, and `rows_hash`, the sha256
    of the rows' conversations, equal on every machine."""

    rows: tuple[TrainingRow, ...]
    facts: dict[str, Any]


def read_training_data(
    config: SftConfig, *, data: Path | None, dataset: str | None, max_samples: int | None, home: Path | None
) -> TrainingData:
    """The rows that `--data`, `--dataset` or the configuration names, templates applied.

    Raises InputError when none or two are named or a row is bad, NotFound when it does not exist.
    """
    if data is not None and dataset is not None:
        raise InputError("--data and --dataset: only one can be trained on, got both; leave one out")
    path = data or (Path(config.data.train_file) if config.data.train_file else None)
    if dataset is not None:
        rows, facts = _from_dataset(config.data, dataset, home)
    elif path is not None:
        rows, facts = read_rows(path, config.data), {"kind": "file", "path": str(path)}
    else:
        raise InputError("data: nothing to train on; give --data FILE, --dataset KEY, or data.train_file in the config")
    return _collect(rows, facts, config, max_samples)


def read_eval_rows(config: SftConfig) -> TrainingData | None:
    """The rows of `data.eval_file`, None when the configuration names none."""
    if config.data.eval_file is None:
        return None
    path = Path(config.data.eval_file)
    return _collect(read_rows(path, config.data), {"kind": "file", "path": str(path)}, config, None)


def read_rows(path: Path, settings: DataSettings) -> Iterator[TrainingRow]:
    """Rows of a JSONL file, each of the format that the settings ask for. Raises InputError naming file:line."""
    rows = read_training_rows(path)
    if settings.format != "auto":
        _check_format(path, settings.format)
    return rows


def instruct_prompt(prompt: str) -> str:
    """A prompt as `data.prompt_template: instruct` writes it, in training and at evaluation."""
    return f"### Instruction:\n{prompt}\n\n### Response:\n"


def tokenize(
    rows: Iterable[TrainingRow], tokenizer: Tokenizer, config: SftConfig, *, say: Callable[[str], None]
) -> list[Example]:
    """Proven examples of at most `max_length` tokens; longer rows are counted and named, or refused.

    Raises InputError when a row is too long and `truncation` is off, or when none is short enough.
    """
    rendered = render_rows(rows, tokenizer, max_length=config.model.max_length)
    limit = f"{config.model.max_length} tokens (model.max_length)"
    if rendered.too_long:
        named = ", ".join(rendered.too_long[:5]) + (", …" if len(rendered.too_long) > 5 else "")
        if not config.model.drop_long:
            raise InputError(f"{named}: longer than {limit}; raise it, or set model.truncation to leave such rows out")
        say(f"left out {len(rendered.too_long)} rows longer than {limit}: {named}")
    if not rendered.examples:
        raise InputError(f"data: every row is longer than {limit}; raise it")
    return rendered.examples


def _from_dataset(settings: DataSettings, key: str, home: Path | None) -> tuple[Iterator[TrainingRow], dict[str, Any]]:
    from tracetune.app.datasets import open_dataset

    frozen = open_dataset(key, home)
    facts = {
        "kind": "dataset",
        "dataset_key": key,
        "build_id": frozen.manifest.build_id,
        "content_hash": frozen.manifest.content_hash,
    }
    if settings.format in ("auto", "trace", "tunix_sft"):
        return (TrainingRow(row.id, trace_messages(row.trace)) for row in frozen.iter_traces()), facts
    if settings.format == "training_example":
        return (parse_training_row(training_example_row(row), row.id) for row in frozen.iter_traces()), facts
    raise InputError(
        f"data.format: a frozen dataset is trained on as trace, tunix_sft or training_example, got {settings.format!r}"
    )


def _collect(
    rows: Iterable[TrainingRow], facts: dict[str, Any], config: SftConfig, max_samples: int | None
) -> TrainingData:
    if max_samples is not None and max_samples < 1:
        raise InputError(f"--max-samples: must be at least 1, got {max_samples}")
    kept = tuple(_shape(row, config) for row in islice(rows, max_samples))
    if not kept:
        raise InputError(f"{facts.get('path') or facts.get('dataset_key')}: has no rows to train on")
    digest = hashlib.sha256()
    for row in kept:
        digest.update(canonical_json([[message.role, message.content] for message in row.messages]) + b"\n")
    return TrainingData(kept, {**facts, "rows": len(kept), "rows_hash": digest.hexdigest()})


def _shape(row: TrainingRow, config: SftConfig) -> TrainingRow:
    """The conversation as the model is to see it: instruction in front, user turns in their template."""
    messages = row.messages
    if config.data.prompt_template == "instruct":
        messages = tuple(
            Message("user", instruct_prompt(message.content)) if message.role == "user" else message
            for message in messages
        )
    if config.system_instruction and messages[0].role != "system":
        messages = (Message("system", config.system_instruction), *messages)
    return row._replace(messages=messages)


def _check_format(path: Path, wanted: RowFormat) -> None:
    """Compare the fields of every row with the format asked for; lines that are no objects are the reader's to tell."""
    present, absent = _MARKS[wanted]
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = orjson.loads(line.strip() or b"null")
            except orjson.JSONDecodeError:
                continue
            if not isinstance(row, dict):
                continue
            fields = ", ".join(sorted(row))
            if not all(name in row for name in present) or any(name in row for name in absent):
                raise InputError(
                    f"{path}:{number}: is not a row of data.format {wanted!r}, has the fields {fields}; "
                    "set data.format to auto, or mend the row"
                )
