"""What the routes of datasets answer with, for OpenAPI and for checking."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tracetune.api.traces import TraceView


class Built(BaseModel):
    """The build that now stands under the key."""

    dataset_key: str
    build_id: UUID
    trace_count: int
    manifest_path: str
    content_hash: str


class Listed(BaseModel):
    """One line of the list."""

    dataset_key: str
    build_id: UUID
    dataset_name: str
    dataset_version: str
    content_hash: str
    trace_count: int
    created_at: str


class DatasetList(BaseModel):
    """One page, newest first."""

    data: list[Listed]
    next_cursor: str | None


class ManifestView(BaseModel):
    """manifest.json; `content_hash` stands for the rows in their order."""

    model_config = ConfigDict(extra="allow")
    dataset_key: str
    build_id: UUID
    dataset_name: str
    dataset_version: str
    dataset_schema_version: str
    created_at: str
    filters: dict[str, Any]
    selection_strategy: str
    seed: int | None
    trace_ids: list[UUID]
    trace_count: int
    stats: dict[str, Any]
    session_id: str | None
    parent_dataset_id: str | None
    training_run_id: str | None
    provenance: dict[str, Any] | None
    content_hash: str
    dedup: dict[str, Any]
    contamination: dict[str, Any]


class RowView(TraceView):
    """A frozen row and its place, counted from 0."""

    row: int


class RowList(BaseModel):
    """One page in the dataset's order."""

    data: list[RowView]
    next_cursor: str | None


class Bin(BaseModel):
    """Rows of at least `low` and less than `high` characters."""

    low: int
    high: int
    num_rows: int


class Lengths(BaseModel):
    """Rows by the characters of prompt, steps and answer."""

    dataset_key: str
    bins: list[Bin]


class Contamination(BaseModel):
    """The verdict on every eval set registered by now; the manifest's own when none came after the build."""

    dataset_key: str
    since_build: bool
    verdict: dict[str, Any]


class Diff(BaseModel):
    """What differs, by trace id; lists are cut at `limit`, `summary` counts all. A change is one prompt's old and new
    row."""

    before: dict[str, str]
    after: dict[str, str]
    summary: dict[str, int | bool]
    added: list[UUID]
    removed: list[UUID]
    changed: list[dict[str, UUID]]
    examples: dict[str, dict[str, Any]]


class TokenSpan(BaseModel):
    """One token, or the few tokens of one character."""

    text: str
    tokens: list[int]
    trained: bool
    control: bool


class Tokens(BaseModel):
    """A row as a model is trained on it."""

    trace_id: UUID
    spans: list[TokenSpan]
