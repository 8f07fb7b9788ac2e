"""Tokens over HTTP, for who may administer; a secret is in one answer and never again."""

from dataclasses import asdict
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, Field

from tracetune.api.policy import UNREPEATABLE, rule
from tracetune.api.strict import Body, Router
from tracetune.app import tokens

router = Router(tags=["tokens"])


class TokenBody(Body):
    """What a new token is called and may do."""

    name: Annotated[str, Field(min_length=1, max_length=tokens.MAX_NAME_CHARS)]
    scopes: Annotated[list[Literal["read", "write", "train", "admin"]], Field(min_length=1, max_length=4)]
    expires_days: Annotated[int | None, Field(ge=1, le=tokens.MAX_DAYS)] = None


class TokenOut(BaseModel):
    """A token without its secret."""

    token_id: UUID
    name: str
    prefix: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewTokenOut(TokenOut):
    """A token with its secret, this once."""

    token: str


class TokenList(BaseModel):
    """One page, newest first."""

    data: list[TokenOut]
    next_cursor: str | None


@router.post("/api/tokens", status_code=201, response_model=NewTokenOut, **rule("admin", extra=UNREPEATABLE))
def create(body: TokenBody, request: Request) -> Any:
    """Make a token. Its secret stands in this answer only."""
    made = tokens.create_token(body.name, body.scopes, expires_days=body.expires_days, home=_home(request))
    return {**_shown(made.token), "token": made.secret}


@router.get("/api/tokens", response_model=TokenList, **rule("admin"))
def list_all(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Any:
    """Every token that was ever made, the revoked ones too."""
    page = tokens.list_tokens(limit=limit, cursor=cursor, home=_home(request))
    return {"data": [_shown(token) for token in page.items], "next_cursor": page.next_cursor}


@router.delete("/api/tokens/{token_id}", response_model=TokenOut, **rule("admin", 404))
def revoke(token_id: UUID, request: Request) -> Any:
    """End a token at once."""
    return _shown(tokens.revoke_token(str(token_id), _home(request)))


def _shown(token: tokens.TokenView) -> dict[str, Any]:
    return asdict(token)


def _home(request: Request) -> Any:
    return request.app.state.settings.home
