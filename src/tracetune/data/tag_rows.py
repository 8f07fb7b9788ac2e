"""Rows of problems with their topics: what is there passes through byte for byte, the tags come behind it."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tracetune.core.errors import InputError
from tracetune.core.strict_json import parse_json
from tracetune.data.records import MAX_RECORD_BYTES, Record
from tracetune.data.tagger import Tagger, Tags

# Where a problem's text stands; the first that is there counts.
TEXT_FIELDS = ("question", "prompt", "problem")
TAGS, METADATA = "topic_tags", "tagging_metadata"


class TaggedRow(NamedTuple):
    """`line` is JSON without its newline; `kept` says that the row had topics of its own, which stay."""

    line: bytes
    tags: Tags
    kept: bool
    split: str | None


class TopicScore(NamedTuple):
    """How the tagger's topics compare with labels: told and right, told and wrong, not told."""

    topic: str
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float | None:
        """None when nothing was told."""
        told = self.right + self.wrong
        return self.right / told if told else None

    @property
    def recall(self) -> float | None:
        """None when there was nothing to tell."""
        labelled = self.right + self.missed
        return self.right / labelled if labelled else None


def row_object(record: Record, where: str) -> dict[str, Any]:
    """The object of one record. Raises InputError naming `where`."""
    if record.data is None:
        raise InputError(f"{where}: a row has at most {MAX_RECORD_BYTES // 2**20} MiB; split it")
    try:
        row = parse_json(record.data)
    except InputError as error:
        raise InputError(f"{where}: {error}; repair or remove the row") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: a row must be a JSON object, got {type(row).__name__}")
    return row


def problem_text(row: Mapping[str, Any], where: str) -> str:
    """The problem of a row: `question`, `prompt` or `problem`, or the first user's turn of `messages`."""
    for field in TEXT_FIELDS:
        if field in row:
            return _text(row[field], f"{where}: {field}")
    messages = row.get("messages")
    if isinstance(messages, list):
        for turn in messages:
            if isinstance(turn, Mapping) and turn.get("role") == "user":
                return _text(turn.get("content"), f"{where}: messages: the user's content")
    raise InputError(f"{where}: has none of {', '.join(TEXT_FIELDS)} and no messages, has {sorted(row)[:8]}; add one")


def tag_record(record: Record, where: str, tagger: Tagger) -> TaggedRow:
    """One row with its tags. Raises InputError naming `where`."""
    row = row_object(record, where)
    tags = tagger.tag(problem_text(row, where))
    added = {TAGS: list(tags.confidence), METADATA: tags.to_json()}
    kept = TAGS in row
    if kept:
        del added[TAGS]
    split = row.get("split")
    return TaggedRow(_extended(record.data or b"", row, added), tags, kept, split if isinstance(split, str) else None)


def score_topics(pairs: Iterable[tuple[Iterable[str], Iterable[str]]]) -> list[TopicScore]:
    """Counts by topic for (labels, told) pairs, by name; the last is named "all" and counts every topic."""
    counts: dict[str, list[int]] = {}
    for labels, told in ((set(labels), set(told)) for labels, told in pairs):
        for place, topics in enumerate((labels & told, told - labels, labels - told)):
            for topic in topics:
                counts.setdefault(topic, [0, 0, 0])[place] += 1
    totals = [sum(column) for column in zip(*counts.values(), strict=True)] or [0, 0, 0]
    return [TopicScore(topic, *counts[topic]) for topic in sorted(counts)] + [TopicScore("all", *totals)]


def _extended(data: bytes, row: Mapping[str, Any], added: Mapping[str, Any]) -> bytes:
    """`data` with the added fields last; written anew only where it is not one line or has been tagged before."""
    if METADATA in row or b"\n" in data or b"\r" in data:
        return json.dumps({**row, **added}, ensure_ascii=False).encode()
    fields = json.dumps(added, ensure_ascii=False)
    return data[:-1].rstrip() + b", " + fields[1:].encode()


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where} must be text, got {value!r:.80}")
    return value
