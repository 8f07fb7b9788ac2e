"""Tokens: made once and shown once, limited by scopes and time, ended at will.

Each scope stands alone, so a machine that only delivers traces need not be able to read them; `admin` has all.
"""

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tracetune.core.errors import InputError
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.store import tokens
from tracetune.store.open import open_store

SCOPES = ("read", "write", "train", "admin")
# Recognised by whoever scans logs and repositories for secrets, ours included (`api.log`).
MARK = "tt_"
PREFIX_CHARS = 10
MAX_NAME_CHARS = 128
MAX_DAYS = 3650


@dataclass(frozen=True, slots=True)
class TokenView:
    """What may be shown of a token; `expires_at` None means that it never expires."""

    token_id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: str
    expires_at: str | None
    revoked_at: str | None

    def allows(self, scope: str) -> bool:
        """Whether a route that needs `scope` may be used."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True)
class NewToken:
    """`secret` is what requests carry; it is stored nowhere."""

    secret: str
    token: TokenView


def create_token(
    name: str, scopes: Iterable[str], *, expires_days: int | None = None, home: Path | None = None
) -> NewToken:
    """Make a token. Raises InputError for a name, scope or time that cannot be."""
    kept = _scopes(scopes)
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InputError(f"token.name: must have 1 to {MAX_NAME_CHARS} printable characters, got {name[:40]!r}")
    if expires_days is not None and not 1 <= expires_days <= MAX_DAYS:
        raise InputError(f"token.expires_days: must be 1 to {MAX_DAYS}, got {expires_days}")
    ends = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    secret = MARK + secrets.token_urlsafe(32)
    with open_store(home) as store:
        stored = tokens.add_token(
            store,
            name,
            secret,
            prefix=secret[:PREFIX_CHARS],
            scopes=kept,
            expires_at=None if ends is None else ends.isoformat(timespec="microseconds"),
        )
    return NewToken(secret, _view(stored))


def list_tokens(*, limit: int = 100, cursor: str | None = None, home: Path | None = None) -> Page[TokenView]:
    """Every token that was ever made, newest first."""
    before = None if cursor is None else decode_cursor(cursor)
    with open_store(home) as store:
        found = tokens.list_tokens(store, limit=limit + 1, before=before)
    more = encode_cursor(found[limit - 1].seq) if len(found) > limit else None
    return Page([_view(stored) for stored in found[:limit]], more)


def revoke_token(token_id: str, home: Path | None = None) -> TokenView:
    """End a token: its next request is refused. Raises NotFound."""
    with open_store(home) as store:
        return _view(tokens.revoke_token(store, token_id))


def check_token(secret: str, home: Path | None = None) -> TokenView | None:
    """The token that `secret` is, None unless it may be used now."""
    if not secret.startswith(MARK) or not secret.isascii():
        return None
    with open_store(home) as store:
        stored = tokens.find_token(store, secret)
    # The row was found by the hash; comparing it again in constant time leaves nothing to an index's collation.
    if stored is None or not hmac.compare_digest(stored.token_hash, tokens.hash_secret(secret)):
        return None
    ended = stored.expires_at is not None and datetime.fromisoformat(stored.expires_at) <= datetime.now(UTC)
    return None if ended or stored.revoked_at else _view(stored)


def _scopes(given: Iterable[str]) -> tuple[str, ...]:
    asked = set(given)
    unknown = sorted(asked - set(SCOPES))
    if unknown or not asked:
        got = ", ".join(map(repr, unknown)) or "none"
        raise InputError(f"token.scopes: must be of {', '.join(SCOPES)}, got {got[:80]}")
    return tuple(scope for scope in SCOPES if scope in asked)


def _view(stored: tokens.StoredToken) -> TokenView:
    return TokenView(
        token_id=stored.token_id,
        name=stored.name,
        prefix=stored.prefix,
        scopes=stored.scopes,
        created_at=stored.created_at,
        expires_at=stored.expires_at,
        revoked_at=stored.revoked_at,
    )
