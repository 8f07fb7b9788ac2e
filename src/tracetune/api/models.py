"""The model registry over HTTP: promote a run's model, list versions, fetch one as a tar file. Ids, never paths."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from tracetune.api.policy import rule
from tracetune.api.strict import Body, Router
from tracetune.app import registry
from tracetune.app.model_archive import archive
from tracetune.app.names import PATTERN
from tracetune.app.registry import StoredModel

router = Router(tags=["models"])
TAR = "application/x-tar"
Cursor = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]


class PromoteBody(Body):
    """A finished run, and the name that its model becomes the next version of."""

    run_id: Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{36}$")]
    name: Annotated[str, Field(pattern=PATTERN)]


class FileOut(BaseModel):
    """One file of a model."""

    name: str
    bytes: int
    sha256: str


class SourceRunOut(BaseModel):
    """The run that trained the model, and on what."""

    run_id: UUID
    kind: str
    name: str
    model: str | None
    dataset_key: str | None
    dataset_content_hash: str | None
    num_steps: int | None
    git_sha: str | None


class ModelOut(BaseModel):
    """One version; `reference` is what evaluations, chat and runs take. `base_fingerprint` is of the base weights."""

    model_id: UUID
    reference: str
    name: str
    version: int
    content_hash: str
    run_id: UUID | None
    files: list[FileOut]
    base_fingerprint: str | None
    run: SourceRunOut | None
    created_at: str


class ModelList(BaseModel):
    """One page, newest first."""

    data: list[ModelOut]
    next_cursor: str | None


@router.post("/api/models", status_code=201, response_model=ModelOut, **rule("write", 404, 409))
def promote(body: PromoteBody, request: Request) -> Any:
    """Keep a run's model under a name. The same files again are the version that is there."""
    return shown(registry.promote(body.run_id.lower(), body.name, _home(request)))


@router.get("/api/models", response_model=ModelList, **rule("read"))
def list_all(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
    name: Annotated[str | None, Query(max_length=128)] = None,
) -> Any:
    """Every version, or those of one name."""
    page = registry.list_models(limit=limit, cursor=cursor, name=name, home=_home(request))
    return {"data": [shown(stored) for stored in page.items], "next_cursor": page.next_cursor}


@router.get("/api/models/{model_id}", response_model=ModelOut, **rule("read", 404))
def one(model_id: UUID, request: Request) -> Any:
    """One version."""
    return shown(registry.get_model(str(model_id), _home(request)))


def _download_rule() -> dict[str, Any]:
    """The rule, and what a good answer is: FastAPI would call it JSON."""
    declared = rule("read", 404)
    schema = {"schema": {"type": "string", "format": "binary"}}
    declared["responses"] = {**declared["responses"], 200: {"description": "The files.", "content": {TAR: schema}}}
    return declared


@router.get("/api/models/{model_id}/download", response_class=StreamingResponse, **_download_rule())
def download(model_id: UUID, request: Request) -> StreamingResponse:
    """Its files as one tar, in bytes that are the same each time. A stream that ends short of Content-Length met a
    file that is damaged."""
    found = archive(str(model_id), _home(request))
    headers = {"Content-Disposition": f'attachment; filename="{found.name}"', "Content-Length": str(found.num_bytes)}
    return StreamingResponse(found.chunks, media_type=TAR, headers=headers)


def shown(stored: StoredModel) -> dict[str, Any]:
    """A version as every route tells it."""
    return {
        "model_id": stored.model_id,
        "reference": f"{registry.MODEL}{stored.model_id}",
        "name": stored.name,
        "version": stored.version,
        "content_hash": stored.content_hash,
        "run_id": stored.run_id,
        **stored.manifest,
        "created_at": stored.created_at,
    }


def _home(request: Request) -> Any:
    return request.app.state.settings.home
