"""Answers kept for requests that are sent twice, each under a lease while its request is at work.

A process that dies leaves a lease behind; when it ran out, the next request with the same key does the work
again, which is safe because effects are: traces by their content, runs by `request_key`.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import Connection, Row, delete, insert, select, update

from tracetune.core.ids import utc_now
from tracetune.store.open import Store
from tracetune.store.tables import answers

# Short: a process that died answers nobody, and the effect of every request is one however often it is done.
LEASE_SECONDS = 10.0
KEPT_HOURS = 24


class KeptAnswer(NamedTuple):
    """What was answered."""

    status: int
    media_type: str
    body: bytes


class Claim(NamedTuple):
    """`ours` is to be worked on, under `lease`; `kept` has its answer; `other` had another body; `busy` is at work."""

    kind: Literal["ours", "kept", "other", "busy"]
    lease: float = 0.0
    answer: KeptAnswer | None = None


def claim_answer(store: Store, request_key: str, body_hash: str) -> Claim:
    """Ask for the right to answer a request."""
    with store.write() as connection:
        _forget_old(connection)
        row = connection.execute(select(answers).where(answers.c.request_key == request_key)).one_or_none()
        return _claim(connection, row, request_key, body_hash)


def keep_answer(store: Store, request_key: str, lease: float, answer: KeptAnswer) -> None:
    """Remember what was answered; nothing happens when the lease went to another."""
    with store.write() as connection:
        mine = (answers.c.request_key == request_key) & (answers.c.lease_until == lease)
        connection.execute(update(answers).where(mine).values(**answer._asdict()))


def release_answer(store: Store, request_key: str, lease: float) -> None:
    """Give the request up: the next one with its key does the work."""
    with store.write() as connection:
        mine = (answers.c.request_key == request_key) & (answers.c.lease_until == lease)
        connection.execute(delete(answers).where(mine, answers.c.status.is_(None)))


def _claim(connection: Connection, row: Row | None, request_key: str, body_hash: str) -> Claim:
    now = time.time()
    lease = now + LEASE_SECONDS
    if row is None:
        values = {"request_key": request_key, "body_hash": body_hash, "lease_until": lease, "created_at": utc_now()}
        connection.execute(insert(answers).values(values))
        return Claim("ours", lease)
    if row.body_hash != body_hash:
        return Claim("other")
    if row.status is not None:
        return Claim("kept", answer=KeptAnswer(row.status, row.media_type, row.body))
    # A lease further away than any can be was given before the clock was set back.
    if now < row.lease_until <= lease:
        return Claim("busy")
    connection.execute(update(answers).where(answers.c.request_key == request_key).values(lease_until=lease))
    return Claim("ours", lease)


def _forget_old(connection: Connection) -> None:
    before = datetime.now(UTC) - timedelta(hours=KEPT_HOURS)
    connection.execute(delete(answers).where(answers.c.created_at < before.isoformat(timespec="microseconds")))
