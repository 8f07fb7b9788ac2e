"""High Card Duel over HTTP, under the address that clients of UNGAR know; the generator is our own."""

from importlib.metadata import version
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, Field

from tracetune.api.errors import ApiError
from tracetune.api.ndjson import NdjsonResponse, ndjson_response
from tracetune.api.policy import rule
from tracetune.api.strict import Body, Router
from tracetune.app import duels
from tracetune.core.strict_json import MAX_INTEGER

router = Router(tags=["ungar"])
MAX_COUNT = 10_000
MAX_NAMED = 1_000
# So that seed + i is a number that JSON carries.
MAX_SEED = MAX_INTEGER
DEFAULT_LIMIT = 100


class Status(BaseModel):
    """The generator is part of this program, so it is always there."""

    available: bool
    version: str


class GenerateBody(Body):
    """`legacy` traces all have one prompt and answer, as older datasets hold them; `reasoned` ones can be learnt."""

    count: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    seed: Annotated[int | None, Field(ge=-MAX_SEED + MAX_COUNT, le=MAX_SEED - MAX_COUNT)] = None
    persist: bool = True
    style: Literal["legacy", "reasoned"] = "legacy"


class Preview(BaseModel):
    """What an episode was."""

    trace_id: UUID
    game: str
    result: Literal["win", "loss", "tie"]
    my_card: str


class Generated(BaseModel):
    """Ids in the order of the episodes; `seed` is the one that was used, given or drawn."""

    trace_ids: list[UUID]
    preview: list[Preview]
    seed: int


@router.get("/api/ungar/status", response_model=Status, **rule("read"))
def status() -> Any:
    """Whether duels can be generated: always."""
    return {"available": True, "version": version("tracetune")}


@router.post("/api/ungar/high-card-duel/generate", status_code=201, response_model=Generated, **rule("write"))
def generate(body: GenerateBody, request: Request) -> Any:
    """Episodes seed, seed + 1, …; without `persist` nothing is stored."""
    made = duels.generate_duels(
        count=body.count, seed=body.seed, style=body.style, persist=body.persist, home=request.app.state.settings.home
    )
    return made._asdict()


@router.get("/api/ungar/high-card-duel/export.jsonl", response_class=NdjsonResponse, **rule("read", 404))
def export(
    request: Request,
    limit: Annotated[int | None, Query(ge=1, le=MAX_COUNT, description="100 unless traces are named.")] = None,
    trace_ids: Annotated[str | None, Query(max_length=40_000, description="Ids joined by commas.")] = None,
) -> NdjsonResponse:
    """Stored duels as NDJSON, the newest first, or the named ones in the order named."""
    named = _uuids(trace_ids) if trace_ids else []
    limit = limit or (None if named else DEFAULT_LIMIT)
    lines = duels.export_duels(limit=limit, trace_ids=named, home=request.app.state.settings.home)
    return ndjson_response(lines, "high-card-duel.jsonl")


def _uuids(text: str) -> list[str]:
    found = []
    for part in text.split(","):
        try:
            found.append(str(UUID(part.strip())))
        except ValueError:
            told = f"trace_ids: must be UUIDs joined by commas, got {part[:60]!r}"
            raise ApiError(422, told, errors=[{"pointer": "/trace_ids", "detail": told}]) from None
    if len(found) > MAX_NAMED:
        raise ApiError(422, f"trace_ids: at most {MAX_NAMED} at once, got {len(found)}; freeze them as a dataset")
    return found
