"""The manifest of a frozen dataset, and the key that names it.

`content_hash` stands for the rows in their order and for nothing else, so equal rows have equal hashes on
every machine; `manifest_hash` seals the manifest itself.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from tracetune.core.errors import Corrupt, InputError
from tracetune.core.ids import content_hash
from tracetune.core.trace import StoredTrace, Trace

SCHEMA_VERSION = "1.0"
MAX_NAME_CHARS = 128
MAX_VERSION_CHARS = 64
MAX_KEY_BYTES = 200
UNSAFE = re.compile(r"[^\w.-]|^\.")


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Of all rows; `avg_total_chars` counts prompt, steps and final answer."""

    trace_count: int
    avg_step_count: float
    min_step_count: int
    max_step_count: int
    avg_total_chars: float


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a dataset comes from, as its maker says; recorded, never interpreted."""

    session_id: str | None = None
    parent_dataset_id: str | None = None
    training_run_id: str | None = None
    provenance: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What stands in `manifest.json` beside `rows.parquet`; the field names are the users' contract."""

    dataset_key: str
    build_id: str
    dataset_name: str
    dataset_version: str
    dataset_schema_version: str
    created_at: str
    filters: Mapping[str, Any]
    selection_strategy: str
    limit: int
    seed: int | None
    trace_ids: tuple[str, ...]
    trace_count: int
    stats: Stats
    origin: Origin = field(default_factory=Origin)
    content_hash: str
    dedup: Mapping[str, Any]
    contamination: Mapping[str, Any]
    rows_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """The contract's object, sealed; `origin` is spread into its four fields."""
        values = asdict(replace(self, trace_ids=()))
        values["trace_ids"] = list(self.trace_ids)
        values |= values.pop("origin")
        return {**values, "manifest_hash": content_hash(values)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], path: Path) -> Self:
        """Read a sealed object back. Raises Corrupt, naming `path`, when it is not what was written,
        InputError for the schema of another release."""
        values = dict(value)
        if values.pop("manifest_hash", None) != content_hash(values):
            raise Corrupt(
                f"{path}: differs from its checksum; restore it from a backup, or delete the folder and build"
            )
        if values["dataset_schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{path}: has schema {values['dataset_schema_version']}, got code for {SCHEMA_VERSION}")
        origin = Origin(**{name: values.pop(name) for name in asdict(Origin())})
        stats, trace_ids = Stats(**values.pop("stats")), tuple(values.pop("trace_ids"))
        return cls(**values, origin=origin, stats=stats, trace_ids=trace_ids)


def read_manifest(path: Path) -> Manifest:
    """Read and check one manifest.json. Raises Corrupt naming it."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Corrupt(f"{path}: not readable as a manifest ({error}); restore it, or delete the folder") from error
    if not isinstance(value, dict):
        raise Corrupt(f"{path}: not a manifest, got {type(value).__name__}; restore it, or delete the folder")
    return Manifest.from_json(value, path)


class Summary(NamedTuple):
    """What the rows of a dataset say about it; `stats` is None when there is no row."""

    trace_ids: tuple[str, ...]
    stats: Stats | None
    content_hash: str


class RowFacts(NamedTuple):
    """What a summary needs of a row."""

    trace_id: str
    content_hash: str
    num_steps: int
    num_chars: int


def summarise(rows: Iterable[StoredTrace]) -> Summary:
    """Read the rows once for their ids, statistics and content hash."""
    return summarise_facts(
        RowFacts(row.id, row.content_hash(), len(row.trace.steps), total_chars(row.trace)) for row in rows
    )


def summarise_facts(facts: Iterable[RowFacts]) -> Summary:
    """The same of rows whose facts are known."""
    trace_ids: list[str] = []
    step_counts: list[int] = []
    num_chars = 0

    def row_hashes() -> Iterator[str]:
        nonlocal num_chars
        for row in facts:
            trace_ids.append(row.trace_id)
            step_counts.append(row.num_steps)
            num_chars += row.num_chars
            yield row.content_hash

    digest = rows_content_hash(row_hashes())
    if not trace_ids:
        return Summary((), None, digest)
    stats = Stats(
        trace_count=len(trace_ids),
        avg_step_count=sum(step_counts) / len(trace_ids),
        min_step_count=min(step_counts),
        max_step_count=max(step_counts),
        avg_total_chars=num_chars / len(trace_ids),
    )
    return Summary(tuple(trace_ids), stats, digest)


def total_chars(trace: Trace) -> int:
    """Characters of prompt, steps and final answer."""
    return len(trace.prompt) + len(trace.final_answer) + sum(len(step.content) for step in trace.steps)


def rows_content_hash(row_hashes: Iterable[str]) -> str:
    """sha256 over the schema version and each row's content hash, one a line, in order."""
    digest = hashlib.sha256(f"tracetune dataset {SCHEMA_VERSION}\n".encode())
    for row_hash in row_hashes:
        digest.update(f"{row_hash}\n".encode())
    return digest.hexdigest()


def make_dataset_key(name: str, version: str) -> str:
    """`{name}-{version}`, with a suffix `~` and 12 hex digits for the pairs that could share that text.

    A pair gets the plain form when it can be read back from it: every character is a letter, digit, `_`,
    `.` or `-`, the name does not begin with a dot, the version has no `-` (so the last `-` parts the two),
    and the whole is at most 200 bytes. Any other character becomes `_` and the pair gets the suffix, a
    sha256 of the pair. The suffix cannot be part of a plain form, because `~` cannot. Raises InputError.

    >>> make_dataset_key("gsm8k-train", "v1"), make_dataset_key("my set", "v1")
    ('gsm8k-train-v1', 'my_set-v1~6d730587a75b')
    """
    _check_length("dataset_name", name, MAX_NAME_CHARS)
    _check_length("dataset_version", version, MAX_VERSION_CHARS)
    plain = unicodedata.normalize("NFC", f"{name}-{version}")
    safe = UNSAFE.sub("_", plain)
    if safe == f"{name}-{version}" and "-" not in version and len(safe.encode()) <= MAX_KEY_BYTES:
        return safe
    while len(safe.encode()) > MAX_KEY_BYTES:
        safe = safe[:-1]
    return f"{safe}~{content_hash([name, version])[:12]}"


def _check_length(what: str, text: str, max_chars: int) -> None:
    if not isinstance(text, str) or not text.strip() or len(text) > max_chars:
        raise InputError(f"dataset.{what}: must be text of 1 to {max_chars} characters, got {text!r}")
