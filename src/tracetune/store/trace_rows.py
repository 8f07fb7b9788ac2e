"""A trace as a row of the table `traces`: canonical JSON under its own hash, and back, checked."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from tracetune.core.errors import Corrupt, InputError
from tracetune.core.ids import canonical_json
from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.store.bulk import among
from tracetune.store.tables import traces

COLUMNS = (traces.c.seq, traces.c.id, traces.c.created_at, traces.c.content_hash, traces.c.payload)


class EncodedRow(NamedTuple):
    """The columns of a trace but for those that the store gives it, `seq` and `created_at`."""

    id: str
    content_hash: str
    trace_version: str
    source: str | None
    payload: str


def rows_numbered(connection: Connection, seqs: Sequence[int], *columns: ColumnElement[Any]) -> Sequence[Any]:
    """These columns of these rows, in any order."""
    return connection.execute(select(*columns).where(among(connection, traces.c.seq, seqs))).all()


def trace_id(content_hash: str) -> str:
    """The UUID (version 8, RFC 9562) that stands for this content: 122 bits of the hash.

    >>> trace_id("0123456789abcdef" * 4)
    '01234567-89ab-8def-8123-456789abcdef'
    """
    digits = content_hash
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def encode_row(trace: Trace) -> EncodedRow:
    """A trace as a row. Raises InputError when it cannot be written as JSON."""
    try:
        payload = canonical_json(trace.to_json())
    except (TypeError, ValueError) as error:
        raise InputError(f"trace: not storable as JSON ({error}), got prompt {trace.prompt[:60]!r}") from error
    digits = hashlib.sha256(payload).hexdigest()
    source = trace.meta.get("source") if trace.meta else None
    return EncodedRow(
        id=trace_id(digits),
        content_hash=digits,
        trace_version=trace.trace_version,
        source=source if isinstance(source, str) else None,
        payload=payload.decode(),
    )


def decode_row(where: object, row_id: str, created_at: str, content_hash: str, payload: str) -> StoredTrace:
    """The trace of a row in the database `where`. Raises Corrupt when its bytes differ from their hash."""
    if hashlib.sha256(payload.encode()).hexdigest() != content_hash:
        raise Corrupt(f"{where}: the bytes of trace {row_id} differ from their sha256; restore from a backup")
    return StoredTrace(row_id, created_at, decode_payload(payload), content_hash)


def decode_payload(payload: str) -> Trace:
    """The trace in a payload that is known to be sound."""
    fields = json.loads(payload)
    fields["steps"] = tuple(Step(**step) for step in fields["steps"])
    return Trace(**fields)
