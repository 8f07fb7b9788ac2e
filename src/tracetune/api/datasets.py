"""Datasets over HTTP: build, list, read, export and compare what is frozen."""

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import orjson
from fastapi import Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import Field

from tracetune.api.dataset_shapes import (
    Built,
    Contamination,
    DatasetList,
    Diff,
    Lengths,
    ManifestView,
    RowList,
    Tokens,
)
from tracetune.api.ndjson import NdjsonResponse, ndjson_response
from tracetune.api.policy import rule
from tracetune.api.strict import Body, Router
from tracetune.api.traces import MAX_PAGE, view
from tracetune.app import dataset_views, datasets
from tracetune.app.compute import shared_compute
from tracetune.app.datasets import Cleaning, Origin, open_dataset
from tracetune.core.home import home_folder
from tracetune.core.strict_json import MAX_INTEGER

router = Router(tags=["datasets"])
ExportFormat = Literal["trace", "tunix_sft", "training_example"]
MAX_ROWS = 1_000_000
MAX_DIFF = 10_000
Instruction = Annotated[str | None, Query(max_length=20_000, description="tunix_sft only: stands before every prompt.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]


class BuildBody(Body):
    """What to freeze. `dedup` drops rows that say what another says, `near` also those that nearly do
    (`near_threshold` is the share of common shingles); unasked, every chosen row is kept, as clients of old expect."""

    dataset_name: Annotated[str, Field(min_length=1, max_length=128)]
    dataset_version: Annotated[str, Field(min_length=1, max_length=64)]
    filters: Annotated[dict[str, Any], Field(default_factory=dict)]
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = MAX_ROWS
    selection_strategy: Literal["latest", "random"] = "latest"
    seed: Annotated[int | None, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)] = None
    session_id: Annotated[str | None, Field(max_length=128)] = None
    parent_dataset_id: Annotated[str | None, Field(max_length=256)] = None
    training_run_id: Annotated[str | None, Field(max_length=128)] = None
    provenance: dict[str, Any] | None = None
    dedup: Literal["near", "exact", "none"] = "none"
    near_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    contamination: Literal["drop", "fail", "keep"] = "drop"


@router.post("/api/datasets/build", status_code=201, response_model=Built, **rule("write", 409))
def build(body: BuildBody, request: Request) -> Any:
    """Freeze chosen traces. The same content again answers with the build that is there; other content is refused."""
    home = request.app.state.settings.home
    manifest = datasets.build_dataset(
        body.dataset_name,
        body.dataset_version,
        filters=body.filters,
        limit=body.limit,
        strategy=body.selection_strategy,
        seed=body.seed,
        cleaning=Cleaning(
            exact_dedup=body.dedup != "none",
            near_dedup=body.near_threshold if body.dedup == "near" else None,
            contamination=body.contamination,
        ),
        origin=Origin(
            session_id=body.session_id,
            parent_dataset_id=body.parent_dataset_id,
            training_run_id=body.training_run_id,
            provenance=body.provenance,
        ),
        home=home,
    )
    return {
        "dataset_key": manifest.dataset_key,
        "build_id": manifest.build_id,
        "trace_count": manifest.trace_count,
        "manifest_path": str(home_folder(home) / "datasets" / manifest.dataset_key / "manifest.json"),
        "content_hash": manifest.content_hash,
    }


@router.get("/api/datasets", response_model=DatasetList, **rule("read"))
def list_all(
    request: Request,
    *,
    limit: Limit = 20,
    cursor: Cursor = None,
    name: Annotated[str | None, Query(max_length=128, description="Only versions of this dataset.")] = None,
) -> Any:
    """Every dataset, newest first."""
    page = dataset_views.page_datasets(limit=limit, cursor=cursor, name=name, home=request.app.state.settings.home)
    return {"data": [record._asdict() for record in page.items], "next_cursor": page.next_cursor}


@router.get("/api/datasets/{key}", response_model=ManifestView, **rule("read", 404))
def show(key: str, request: Request) -> Response:
    """The manifest."""
    manifest = open_dataset(key, request.app.state.settings.home).manifest
    # As it stands: a million ids are not checked once more on their way out.
    return Response(orjson.dumps(manifest.to_json()), media_type="application/json")


@router.get("/api/datasets/{key}/export.jsonl", response_class=NdjsonResponse, **rule("read", 404))
def export(
    key: str,
    request: Request,
    *,
    export_format: Annotated[ExportFormat, Query(alias="format")] = "trace",
    system_instruction: Instruction = None,
) -> NdjsonResponse:
    """Every row as one line of JSON. X-Tracetune-Rows counts them; `export.jsonl.sha256` has the sum of the bytes."""
    manifest = open_dataset(key, request.app.state.settings.home).manifest
    lines = _lines(key, export_format, system_instruction, request)
    counted = {"X-Tracetune-Rows": str(manifest.trace_count), "X-Tracetune-Content-Hash": manifest.content_hash}
    return ndjson_response(lines, _filename(key, export_format), counted)


@router.get("/api/datasets/{key}/export.jsonl.sha256", response_class=PlainTextResponse, **rule("read", 404))
def export_sum(
    key: str,
    request: Request,
    *,
    export_format: Annotated[ExportFormat, Query(alias="format")] = "trace",
    system_instruction: Instruction = None,
) -> str:
    """The sha256 of the same export, as `sha256sum --check` reads it."""
    digest = hashlib.sha256()
    for line in _lines(key, export_format, system_instruction, request):
        digest.update(line)
    return f"{digest.hexdigest()}  {_filename(key, export_format)}\n"


@router.get("/api/datasets/{key}/rows", response_model=RowList, **rule("read", 404))
def rows(key: str, request: Request, *, limit: Limit = 20, cursor: Cursor = None) -> Any:
    """Frozen rows, whatever has become of their traces."""
    page = dataset_views.page_rows(open_dataset(key, request.app.state.settings.home), limit=limit, cursor=cursor)
    data = [{"row": item.row, **view(item.stored)} for item in page.items]
    return {"data": data, "next_cursor": page.next_cursor}


@router.get("/api/datasets/{key}/lengths", response_model=Lengths, **rule("read", 404))
def lengths(key: str, request: Request, bins: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 10) -> Any:
    """A histogram of the rows' lengths."""
    found = dataset_views.lengths(open_dataset(key, request.app.state.settings.home), bins)
    return {"dataset_key": key, "bins": [item._asdict() for item in found]}


@router.get("/api/datasets/{key}/contamination", response_model=Contamination, **rule("read", 404))
def contamination(key: str, request: Request) -> Any:
    """Does it show problems of any eval set that is registered today?"""
    home = request.app.state.settings.home
    today = datasets.recheck_contamination(key, home)
    verdict = open_dataset(key, home).manifest.contamination if today is None else today
    return {"dataset_key": key, "since_build": today is not None, "verdict": verdict}


@router.get("/api/datasets/{key}/diff", response_model=Diff, **rule("read", 404))
def diff(
    key: str,
    other: Annotated[str, Query(max_length=256, description="The key of the dataset to compare with.")],
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_DIFF)] = 1_000,
) -> Any:
    """Rows added, removed and changed from `key` to `other`, whatever they are called."""
    found = datasets.diff_datasets(key, other, home=request.app.state.settings.home)
    return dataset_views.diff_json(found, limit)


@router.get("/api/datasets/{key}/tokens", response_model=Tokens, **rule("read", 404))
def tokens(
    key: str,
    request: Request,
    row: Annotated[int, Query(ge=0, le=MAX_ROWS)] = 0,
    tokenizer: Annotated[str, Query(max_length=300, description="`tiny`, `run:ID` or `model:ID`.")] = "tiny",
) -> Any:
    """One row as tokens, and which of them carry loss."""
    return shared_compute(request.app.state.settings.home).tokens(key, row, tokenizer)


def _lines(key: str, export_format: str, system_instruction: str | None, request: Request) -> Iterator[bytes]:
    home = request.app.state.settings.home
    return datasets.export_dataset(key, export_format, system_instruction=system_instruction, home=home)


def _filename(key: str, export_format: str) -> str:
    return f"{key}.{export_format}.jsonl"
