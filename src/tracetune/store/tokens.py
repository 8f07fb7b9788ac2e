"""Tokens by their sha256: what is stored cannot be used to speak for anyone."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Row, Select, insert, select, update

from tracetune.core.errors import NotFound
from tracetune.core.ids import new_id, utc_now
from tracetune.store.open import Store
from tracetune.store.tables import tokens


class StoredToken(NamedTuple):
    """One token without its secret; `prefix` is how a person recognises it."""

    token_id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    seq: int
    token_hash: str


def hash_secret(secret: str) -> str:
    """One sha256 is enough: a secret of 256 random bits cannot be guessed, however fast the hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def add_token(
    store: Store, name: str, secret: str, *, prefix: str, scopes: Iterable[str], expires_at: str | None
) -> StoredToken:
    """Remember a new token."""
    values = {
        "token_id": new_id(),
        "name": name,
        "token_hash": hash_secret(secret),
        "prefix": prefix,
        "scopes": " ".join(scopes),
        "created_at": utc_now(),
        "expires_at": expires_at,
    }
    with store.write() as connection:
        connection.execute(insert(tokens).values(values))
        return _stored(connection.execute(_by_id(values["token_id"])).one())


def find_token(store: Store, secret: str) -> StoredToken | None:
    """The token with this secret, whether or not it may still be used."""
    with store.read() as connection:
        row = connection.execute(select(tokens).where(tokens.c.token_hash == hash_secret(secret))).one_or_none()
    return None if row is None else _stored(row)


def list_tokens(store: Store, *, limit: int, before: int | None = None) -> list[StoredToken]:
    """The newest first, from below `before`."""
    query = select(tokens).order_by(tokens.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(tokens.c.seq < before)
    with store.read() as connection:
        return [_stored(row) for row in connection.execute(query)]


def revoke_token(store: Store, token_id: str) -> StoredToken:
    """End a token for ever; the time of the first revocation stays. Raises NotFound."""
    with store.write() as connection:
        live = update(tokens).where(tokens.c.token_id == token_id, tokens.c.revoked_at.is_(None))
        connection.execute(live.values(revoked_at=utc_now()))
        row = connection.execute(_by_id(token_id)).one_or_none()
    if row is None:
        raise NotFound(f"Token {token_id} not found")
    return _stored(row)


def _by_id(token_id: str) -> Select:
    return select(tokens).where(tokens.c.token_id == token_id)


def _stored(row: Row) -> StoredToken:
    values = {name: row._mapping[name] for name in StoredToken._fields}
    return StoredToken(**{**values, "scopes": tuple(values["scopes"].split())})
