"""Where a run's rows come from (JSONL files or a frozen dataset), which of them are held out to evaluate on, and what
they are hashed to."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tracetune.app.row_choice import Choice, FileRows, Source, counted, hold_out, told_choice
from tracetune.config.schema import DataSettings, RowFormat, SftConfig
from tracetune.core.errors import InputError
from tracetune.core.labels import Wanted, labels_of
from tracetune.core.trace import StoredTrace
from tracetune.core.values import Message
from tracetune.data.export import training_example_row
from tracetune.data.render import TrainingRow, trace_messages
from tracetune.data.rows import parse_training_row, read_training_rows

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
    of the rows' conversations, equal on every machine.

    `files` are those of `data.train_files`, whose rows follow each other; `held_out` are the rows to evaluate on that
    `data.eval_fraction` set apart; `left_out` tells what the choice of rows left out.
    """

    rows: tuple[TrainingRow, ...]
    facts: dict[str, Any]
    files: tuple[FileRows, ...] = ()
    held_out: tuple[TrainingRow, ...] = ()
    left_out: str = ""

    @property
    def num_per_epoch(self) -> float:
        """Rows that an epoch sees, a row seen twice counted twice."""
        return sum(file.weight * file.num_rows for file in self.files) if self.files else len(self.rows)


def read_training_data(
    config: SftConfig, *, data: Path | None, dataset: str | None, max_samples: int | None, home: Path | None
) -> TrainingData:
    """The rows that `--data`, `--dataset` or the configuration names, templates applied.

    `max_samples` takes the first so many rows of each file that its choice of rows leaves. Raises InputError when none
    or two are named, a row is bad or none is chosen, NotFound when it does not exist.
    """
    if data is not None and dataset is not None:
        raise InputError("--data and --dataset: only one can be trained on, got both; leave one out")
    if max_samples is not None and max_samples < 1:
        raise InputError(f"--max-samples: must be at least 1, got {max_samples}")
    path = data or (Path(config.data.train_file) if config.data.train_file else None)
    if dataset is not None:
        rows, facts = _from_dataset(config.data, dataset, home)
        sources = [Source(dataset, rows)]
    elif path is not None:
        sources, facts = [_file_source(path, config.data)], {"kind": "file", "path": str(path)}
    elif config.data.train_files is not None:
        sources = [_file_source(Path(file.path), config.data, file.weight) for file in config.data.train_files]
        facts = {"kind": "files"}
    else:
        raise InputError(
            "data: nothing to train on; give --data FILE, --dataset KEY, or data.train_file or data.train_files in the "
            "config"
        )
    return _collect(sources, facts, config, max_samples)


def read_eval_rows(config: SftConfig, training: TrainingData) -> TrainingData | None:
    """The rows of `data.eval_file`, or those held out of the rows to train on; None when the configuration asks for
    neither."""
    if config.data.eval_fraction is not None:
        facts = {"kind": "held_out", "fraction": config.data.eval_fraction}
        return TrainingData(training.held_out, facts | counted(training.held_out))
    if config.data.eval_file is None:
        return None
    path = Path(config.data.eval_file)
    whole = replace(config, data=replace(config.data, eval_fraction=None))
    return _collect([_file_source(path, config.data)], {"kind": "file", "path": str(path)}, whole, None)


def read_rows(path: Path, settings: DataSettings) -> Iterator[TrainingRow]:
    """Rows of a JSONL file, each of the format that the settings ask for. Raises InputError naming file:line."""
    rows = read_training_rows(path)
    if settings.format != "auto":
        _check_format(path, settings.format)
    return rows


def instruct_prompt(prompt: str) -> str:
    """A prompt as `data.prompt_template: instruct` writes it, in training and at evaluation."""
    return f"### Instruction:\n{prompt}\n\n### Response:\n"


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
        return (_traced(row) for row in frozen.iter_traces()), facts
    if settings.format == "training_example":
        return (parse_training_row(training_example_row(row), row.id) for row in frozen.iter_traces()), facts
    raise InputError(
        f"data.format: a frozen dataset is trained on as trace, tunix_sft or training_example, got {settings.format!r}"
    )


def _traced(row: StoredTrace) -> TrainingRow:
    return TrainingRow(row.id, trace_messages(row.trace), labels_of(row.trace.meta or {}))


def _file_source(path: Path, settings: DataSettings, weight: float = 1.0) -> Source:
    return Source(str(path), read_rows(path, settings), weight)


def _collect(
    sources: Sequence[Source], facts: dict[str, Any], config: SftConfig, max_samples: int | None
) -> TrainingData:
    """The chosen rows of every source, those held out apart."""
    wanted = Wanted(config.data.grades, config.data.topics)
    chosen: list[tuple[TrainingRow, int]] = []
    num_others = 0
    for number, source in enumerate(sources):
        rows = Choice(source, wanted)
        chosen += [(shape_row(row, config), number) for row in islice(rows, max_samples)]
        rows.check()
        num_others += rows.num_others
    kept, held_out = hold_out(chosen, config)
    files = tuple(
        FileRows(source.name, source.weight, sum(of == number for _, of in kept))
        for number, source in enumerate(sources)
    )
    rows = tuple(row for row, _ in kept)
    if facts["kind"] != "files":
        return TrainingData(rows, facts | counted(rows), (), held_out, told_choice(wanted, num_others))
    told = {"files": [{"path": file.path, "weight": file.weight, "rows": file.num_rows} for file in files]}
    return TrainingData(rows, facts | told | counted(rows, files), files, held_out, told_choice(wanted, num_others))


def shape_row(row: TrainingRow, config: SftConfig) -> TrainingRow:
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
